//! Control groups, v2 or v1: made, limited, killed, measured and removed by their folders. What a host lacks is said once,
//! at start; a limit that only it could hold is then not written.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub mod detail;
pub mod devices;
pub mod plan;
pub mod programs;
pub mod rates;
pub mod stats;

use gantry_base::layout;

use crate::fault::{Point, point};

use devices::Rule;
use plan::Write;
use programs::Programs;

#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("{what} cgroup file {path:?}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("cgroup path {0:?} is not absolute and plain")]
    Path(String),
    #[error("no cgroup hierarchy is mounted below /sys/fs/cgroup")]
    NoHierarchy,
    #[error("cgroup {path:?} still has processes after they were killed")]
    Busy { path: PathBuf },
    #[error("{what} the device filter of cgroup {path:?}")]
    DeviceProgram { what: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "no cgroup hierarchy with the devices controller is mounted: containers could open every device of the host"
    )]
    NoDeviceFilter,
}

/// The hierarchies of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hierarchies {
    Unified {
        root: PathBuf,
        /// The cgroup below which ours are. What is above it is somebody else's, systemd's perhaps, and is not written to.
        base: PathBuf,
        /// Those that the base hands down.
        controllers: BTreeSet<String>,
    },
    Legacy {
        /// Controllers and mount point of each.
        mounts: Vec<(Vec<String>, PathBuf)>,
        /// Where a hybrid host has a v2 hierarchy beside them. Nobody is in our cgroups there: that they are there spares the
        /// making of containers most of libcgroups' way through v1 (`runtime/supervisor/src/root.rs`).
        beside: Option<PathBuf>,
    },
}

/// The controllers that libcgroups joins on v1; the named ones and the empty unified one are left alone.
const LEGACY: [&str; 12] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "hugetlb",
    "memory",
    "pids",
    "perf_event",
    "blkio",
    "net_prio",
    "net_cls",
    "freezer",
];
/// What a pod's limits need. A missing one is said at start.
const WANTED: [&str; 4] = ["cpu", "memory", "pids", "cpuset"];

/// How often and how long we look whether killed processes have gone.
const EMPTY_POLL: Duration = Duration::from_millis(5);
const EMPTY_TRIES: u32 = 400;

impl Hierarchies {
    /// Those of this host, for a runtime that has its pods below the cgroup `own`.
    pub fn detect(own: &str) -> Result<Hierarchies, CgroupError> {
        let path = Path::new("/proc/thread-self/mounts");
        let text = fs::read_to_string(path).map_err(|source| failed("read", path)(source))?;
        let mut found = Hierarchies::from_mounts(&text)?;
        let mut refused = Vec::new();
        match &mut found {
            Hierarchies::Unified { root, base, controllers } => {
                tracing::info!("cgroup v2");
                *base = nearest_above(root, own);
                refused = hand_down(base);
                *controllers = names(&base.join("cgroup.subtree_control"));
            }
            Hierarchies::Legacy { .. } => tracing::warn!("cgroup v1 hierarchies: gantry is made for v2"),
        }
        let have = found.controllers();
        let missing: Vec<&str> = WANTED.into_iter().filter(|c| !have.contains(*c)).collect();
        if !missing.is_empty() {
            let refused: Vec<String> = refused.iter().map(|(name, error)| format!("{name}: {error}")).collect();
            tracing::warn!(?missing, ?refused, "cgroup controllers that pods cannot have: their limits will not hold");
        }
        Ok(found)
    }

    fn from_mounts(text: &str) -> Result<Hierarchies, CgroupError> {
        let (mut mounts, mut beside) = (Vec::new(), None);
        for line in text.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let [_, at, kind, options, ..] = fields.as_slice() else { continue };
            if *kind == "cgroup2" && *at == "/sys/fs/cgroup" {
                let root = PathBuf::from(at);
                return Ok(Hierarchies::Unified { base: root.clone(), root, controllers: BTreeSet::new() });
            }
            if *kind == "cgroup2" && *at == layout::UNIFIED_BESIDE {
                beside = Some(PathBuf::from(at));
            }
            if *kind == "cgroup" && at.starts_with("/sys/fs/cgroup/") {
                let controllers: Vec<String> =
                    options.split(',').filter(|o| LEGACY.contains(o)).map(str::to_owned).collect();
                if !controllers.is_empty() && !mounts.iter().any(|(c, _)| *c == controllers) {
                    mounts.push((controllers, PathBuf::from(at)));
                }
            }
        }
        if mounts.is_empty() { Err(CgroupError::NoHierarchy) } else { Ok(Hierarchies::Legacy { mounts, beside }) }
    }

    pub fn unified(&self) -> bool {
        matches!(self, Hierarchies::Unified { .. })
    }

    fn controllers(&self) -> BTreeSet<String> {
        match self {
            Hierarchies::Unified { controllers, .. } => controllers.clone(),
            Hierarchies::Legacy { mounts, .. } => mounts.iter().flat_map(|(c, _)| c.clone()).collect(),
        }
    }

    /// The folder of `path` in each hierarchy.
    pub fn folders(&self, path: &str) -> Vec<PathBuf> {
        let relative = path.trim_start_matches('/');
        match self {
            Hierarchies::Unified { root, .. } => vec![root.join(relative)],
            Hierarchies::Legacy { mounts, .. } => mounts.iter().map(|(_, at)| at.join(relative)).collect(),
        }
    }

    /// Every folder of `path`, that in which nobody is included.
    fn all_folders(&self, path: &str) -> Vec<PathBuf> {
        let mut folders = self.folders(path);
        if let Hierarchies::Legacy { beside: Some(at), .. } = self {
            folders.push(at.join(path.trim_start_matches('/')));
        }
        folders
    }

    /// The folder where `controller` is, if it is anywhere.
    pub fn folder(&self, path: &str, controller: &str) -> Option<PathBuf> {
        let relative = path.trim_start_matches('/');
        match self {
            Hierarchies::Unified { root, controllers, .. } => {
                controllers.contains(controller).then(|| root.join(relative))
            }
            Hierarchies::Legacy { mounts, .. } => {
                let has = |(c, _): &&(Vec<String>, PathBuf)| c.iter().any(|c| c == controller);
                mounts.iter().find(has).map(|(_, at)| at.join(relative))
            }
        }
    }

    /// Makes the cgroup and those above it, ready for processes. Idempotent.
    pub fn create(&self, path: &str) -> Result<(), CgroupError> {
        check(path)?;
        point(Point::CgroupMake);
        match self {
            Hierarchies::Unified { root, base, controllers } => {
                let folder = root.join(path.trim_start_matches('/'));
                // Where those above it are ready already, it has what the base hands down from the first.
                let made = make(&folder).is_ok();
                if made && names(&folder.join("cgroup.controllers")).is_superset(controllers) {
                    return Ok(());
                }
                create_unified(root, base, path)
            }
            Hierarchies::Legacy { mounts, beside } => {
                let relative = path.trim_start_matches('/');
                mounts.iter().try_for_each(|(controllers, at)| create_legacy(controllers, at, relative))?;
                if let Some(at) = beside
                    && let Err(error) = make_below(at, &at.join(relative))
                {
                    tracing::debug!(%error, "containers are made the longer way");
                }
                Ok(())
            }
        }
    }

    /// Where the writes of a plan go. Those for controllers that the host lacks are left out.
    pub fn resolve(&self, path: &str, writes: &[Write]) -> Vec<(PathBuf, String)> {
        let place = |w: &Write| {
            let file = self.folder(path, w.controller)?.join(&w.file);
            // Swap accounting and huge pages are the kernel's options; without them there is nothing to limit.
            let optional = ["memsw", "swap", "hugetlb", "oom.group"].iter().any(|o| w.file.contains(o));
            (!optional || file.exists()).then(|| (file, w.value.clone()))
        };
        writes.iter().filter_map(place).collect()
    }

    pub fn write(&self, path: &str, writes: &[Write]) -> Result<(), CgroupError> {
        let mut later = Vec::new();
        let mut open: Option<(PathBuf, fs::File)> = None;
        for (file, value) in self.resolve(path, writes) {
            // One file takes many rules, each by a call of its own.
            let mut target = match open.take() {
                Some((of, target)) if of == file => target,
                _ => open_to_write(&file).map_err(failed("open", &file))?,
            };
            let written = target.write_all(value.as_bytes());
            open = Some((file.clone(), target));
            match written {
                // v1 keeps a memory limit below that of memory and swap, and a quota below its parent's, at every moment:
                // what is refused for another's sake is written once more after it.
                Err(e) if e.kind() == io::ErrorKind::InvalidInput => later.push((file, value)),
                written => written.map_err(failed("write", &file))?,
            }
        }
        later.into_iter().try_for_each(|(file, value)| {
            open_to_write(&file).and_then(|mut f| f.write_all(value.as_bytes())).map_err(failed("write", &file))
        })
    }

    /// Lets processes of the cgroup use the devices of `rules` and no others; they join it afterwards.
    pub fn limit_devices(&self, programs: &Programs, path: &str, rules: &[Rule]) -> Result<(), CgroupError> {
        match self {
            Hierarchies::Unified { .. } if devices::unrestricted(rules) => Ok(()),
            Hierarchies::Unified { .. } => programs.attach(rules, &self.folders(path)[0]),
            Hierarchies::Legacy { .. } if self.folder(path, "devices").is_none() && !devices::unrestricted(rules) => {
                Err(CgroupError::NoDeviceFilter)
            }
            Hierarchies::Legacy { .. } => self.write(path, &devices::legacy(rules)),
        }
    }

    /// Every process of the cgroup and of those below it, which a privileged container may have made.
    pub fn processes(&self, path: &str) -> BTreeSet<i32> {
        let mut all = BTreeSet::new();
        let mut folders = self.folders(path);
        while let Some(folder) = folders.pop() {
            let text = match fs::read_to_string(folder.join("cgroup.procs")) {
                Ok(text) => text,
                // It is gone, and with it what was below.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                // A threaded one tells of none of its processes.
                Err(_) => String::new(),
            };
            all.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()));
            folders.extend(below(&folder));
        }
        all
    }

    /// The names of the cgroups in a cgroup.
    pub fn names_below(&self, path: &str) -> BTreeSet<String> {
        let inner = self.all_folders(path).into_iter().flat_map(|folder| below(&folder));
        inner.filter_map(|folder| folder.file_name()?.to_str().map(str::to_owned)).collect()
    }

    /// Kills everything in the cgroup and removes it, with what is below it. Gone already is no error. Blocks.
    pub fn end(&self, path: &str) -> Result<(), CgroupError> {
        check(path)?;
        point(Point::CgroupKill);
        // Mostly nobody is left in it, which the kernel knows without being asked for names: it removes none but such.
        let is_gone = |folder: &PathBuf| {
            point(Point::CgroupRemove);
            fs::remove_dir(folder).map_or_else(|e| e.kind() == io::ErrorKind::NotFound, |()| true)
        };
        if self.all_folders(path).iter().all(is_gone) {
            return Ok(());
        }
        self.kill(path)?;
        self.remove(path)
    }

    /// Kills everything in the cgroup and waits until it is empty.
    fn kill(&self, path: &str) -> Result<(), CgroupError> {
        for _ in 0..EMPTY_TRIES {
            if let Hierarchies::Unified { root, .. } = self
                && fs::write(root.join(path.trim_start_matches('/')).join("cgroup.kill"), "1").is_ok()
                && self.processes(path).is_empty()
            {
                return Ok(());
            }
            let processes = self.processes(path);
            if processes.is_empty() {
                return Ok(());
            }
            for pid in processes {
                kill_if_in(pid, path);
            }
            std::thread::sleep(EMPTY_POLL);
        }
        Err(CgroupError::Busy { path: PathBuf::from(path) })
    }

    /// Removes the cgroup with what is below it. Gone already is no error; in use is.
    pub fn remove(&self, path: &str) -> Result<(), CgroupError> {
        check(path)?;
        self.all_folders(path).iter().try_for_each(|folder| {
            point(Point::CgroupRemove);
            remove_tree(folder)
        })
    }

    /// Removes it if nothing lives in it or below.
    pub fn remove_if_empty(&self, path: &str) {
        for folder in self.all_folders(path) {
            point(Point::CgroupRemove);
            remove_empty_below(&folder);
        }
    }
}

/// The kernel refuses to remove a cgroup that has processes, or others below it.
fn remove_empty_below(folder: &Path) {
    if fs::remove_dir(folder).is_err() {
        below(folder).iter().for_each(|inner| remove_empty_below(inner));
        let _ = fs::remove_dir(folder);
    }
}

/// The cgroups in a cgroup; none of one that is gone.
fn below(folder: &Path) -> Vec<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    // A folder is linked to from above, by itself and by each folder in it: most have none, and are not listed.
    if fs::metadata(folder).map_or(true, |metadata| metadata.nlink() == 2) {
        return Vec::new();
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()).collect()
}

/// The pid is read from the kernel a moment ago and may be another's by now: the pidfd is opened first, and the process
/// behind it is asked again where it lives.
fn kill_if_in(pid: i32, path: &str) {
    let Some(pid) = rustix::process::Pid::from_raw(pid) else { return };
    let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else { return };
    let text = fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero())).unwrap_or_default();
    if text.lines().any(|line| line.splitn(3, ':').nth(2).is_some_and(|at| at.starts_with(path))) {
        let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    let path = path.to_owned();
    move |source| CgroupError::Io { what, path, source }
}

/// The path comes from a request: it must be below the root and name no way out.
fn check(path: &str) -> Result<(), CgroupError> {
    let good = path.starts_with('/')
        && path.len() > 1
        && path.split('/').skip(1).all(|part| !part.is_empty() && part != "." && part != "..")
        && !path.contains(['\0', '\n', ':']);
    if good { Ok(()) } else { Err(CgroupError::Path(path.to_owned())) }
}

fn make(folder: &Path) -> Result<bool, CgroupError> {
    match fs::create_dir(folder) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(failed("make", folder)(e)),
    }
}

/// Hands a v2 cgroup's controllers down to those below it, each by itself, since one that is threaded or busy must not
/// keep the others away. Returns those that the kernel refuses.
fn hand_down(folder: &Path) -> Vec<(String, io::Error)> {
    let control = folder.join("cgroup.subtree_control");
    let on = names(&control);
    let missing = names(&folder.join("cgroup.controllers")).into_iter().filter(|c| !on.contains(c));
    missing.filter_map(|c| fs::write(&control, format!("+{c}")).err().map(|error| (c, error))).collect()
}

/// The words of a file.
fn names(path: &Path) -> BTreeSet<String> {
    fs::read_to_string(path).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// The deepest cgroup above `path` that there is.
fn nearest_above(root: &Path, path: &str) -> PathBuf {
    let whole = root.join(path.trim_start_matches('/'));
    let above = whole.ancestors().skip(1).find(|folder| folder.is_dir());
    above.filter(|folder| folder.starts_with(root)).unwrap_or(root).to_owned()
}

fn create_unified(root: &Path, base: &Path, path: &str) -> Result<(), CgroupError> {
    let mut at = root.to_owned();
    for part in path.trim_start_matches('/').split('/') {
        // One level at a time, to the last parent. What the base cannot hand down was said at start.
        if at == base || !base.starts_with(&at) {
            hand_down(&at);
        }
        at.push(part);
        make(&at)?;
    }
    Ok(())
}

/// Makes a cgroup and, where they are missing, those above it.
fn make_below(mount: &Path, folder: &Path) -> Result<(), CgroupError> {
    match (fs::create_dir(folder), folder.parent()) {
        (Ok(()), _) => Ok(()),
        (Err(e), _) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        (Err(e), Some(above)) if e.kind() == io::ErrorKind::NotFound && folder != mount => {
            make_below(mount, above)?;
            make(folder).map(drop)
        }
        (Err(e), _) => Err(failed("make", folder)(e)),
    }
}

fn create_legacy(controllers: &[String], mount: &Path, relative: &str) -> Result<(), CgroupError> {
    let folder = mount.join(relative);
    make_below(mount, &folder)?;
    if controllers.iter().any(|c| c == "cpuset") {
        for file in ["cpuset.cpus", "cpuset.mems"] {
            inherit(mount, &folder, file)?;
        }
    }
    Ok(())
}

/// A cpuset without CPUs takes no process: it has those of the one above, which may have none itself yet.
fn inherit(mount: &Path, folder: &Path, file: &str) -> Result<String, CgroupError> {
    let own = folder.join(file);
    let value = fs::read_to_string(&own).map_err(failed("read", &own))?;
    match folder.parent() {
        Some(above) if value.trim().is_empty() && folder != mount => {
            let value = inherit(mount, above, file)?;
            open_to_write(&own)
                .and_then(|mut f| f.write_all(value.trim().as_bytes()))
                .map_err(failed("write", &own))?;
            Ok(value)
        }
        _ => Ok(value),
    }
}

/// The kernel's files are there, and are not cut to length.
fn open_to_write(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().write(true).open(path)
}

fn remove_tree(folder: &Path) -> Result<(), CgroupError> {
    for _ in 0..EMPTY_TRIES {
        match fs::remove_dir(folder) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            // Others are below it, or a process that has just died is still counted for a moment.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EBUSY | libc::ENOTEMPTY)) => {
                let inner = below(folder);
                if inner.is_empty() {
                    std::thread::sleep(EMPTY_POLL);
                }
                inner.iter().try_for_each(|inner| remove_tree(inner))?;
            }
            Err(e) => return Err(failed("remove", folder)(e)),
        }
    }
    Err(CgroupError::Busy { path: folder.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_told_apart() {
        let v2 = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        let unified = |controllers| {
            let root = PathBuf::from("/sys/fs/cgroup");
            Hierarchies::Unified { base: root.clone(), root, controllers }
        };
        assert_eq!(Hierarchies::from_mounts(v2).unwrap(), unified(BTreeSet::new()));
        let one = unified(BTreeSet::from(["memory".to_owned()]));
        assert_eq!((one.folder("/a", "memory"), one.folder("/a", "cpu")), (Some("/sys/fs/cgroup/a".into()), None));
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n\
                      cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let found = Hierarchies::from_mounts(hybrid).unwrap();
        assert_eq!(found.folder("/a/b", "cpuacct"), Some("/sys/fs/cgroup/cpu,cpuacct/a/b".into()));
        assert_eq!(found.folder("/a/b", "memory"), None);
        assert_eq!(found.folders("/a").len(), 1);
        assert_eq!(found.all_folders("/a")[1], Path::new("/sys/fs/cgroup/unified/a"));
        assert!(Hierarchies::from_mounts("").is_err());
    }

    #[test]
    fn what_is_above_our_part_of_the_tree_is_not_written_to() {
        let tree = tempfile::tempdir().unwrap();
        let (root, unit) = (tree.path(), tree.path().join("system.slice/pods.service"));
        std::fs::create_dir_all(&unit).unwrap();
        let own = "/system.slice/pods.service/gantry";
        assert_eq!(nearest_above(root, own), unit);
        assert_eq!(nearest_above(root, "/gantry"), root);
        assert_eq!(nearest_above(root, "/not/made/yet"), root);
        // Plain folders stand for cgroups: what is handed down stays in the file.
        let above = [root.to_owned(), tree.path().join("system.slice"), unit.clone()];
        for folder in &above {
            std::fs::write(folder.join("cgroup.controllers"), "pids").unwrap();
            std::fs::write(folder.join("cgroup.subtree_control"), "").unwrap();
        }
        create_unified(root, &unit, &format!("{own}/pod")).unwrap();
        let handed = above.map(|folder| std::fs::read_to_string(folder.join("cgroup.subtree_control")).unwrap());
        assert_eq!(handed, ["", "", "+pids"]);
        assert!(unit.join("gantry/pod").is_dir());
    }

    #[test]
    fn cgroups_are_made_with_those_above_and_removed_with_those_below() {
        let tree = tempfile::tempdir().unwrap();
        let (mount, cpuset) = (tree.path(), ["cpuset".to_owned()]);
        // Plain folders stand for cgroups: the kernel's files in them are the test's.
        let file = |folder: &str, text: &str| {
            for name in ["cpuset.cpus", "cpuset.mems"] {
                std::fs::write(mount.join(folder).join(name), text).unwrap();
            }
        };
        file("", "0-1\n");
        assert!(create_legacy(&cpuset, mount, "a/b/c").is_err(), "no files to inherit by");
        ["a", "a/b", "a/b/c"].iter().for_each(|folder| file(folder, ""));
        create_legacy(&cpuset, mount, "a/b/c").unwrap();
        for folder in ["a", "a/b", "a/b/c"] {
            assert_eq!(std::fs::read_to_string(mount.join(folder).join("cpuset.mems")).unwrap(), "0-1", "{folder}");
        }
        let other = tree.path().join("other");
        make_below(mount, &other.join("x/y")).unwrap();
        make_below(mount, &other.join("z")).unwrap();
        assert_eq!((below(&other).len(), below(&other.join("x/y")).len()), (2, 0));
        remove_tree(&other).unwrap();
        assert!(!other.exists());
        remove_tree(&other).unwrap();
        make_below(mount, &other.join("x/y")).unwrap();
        std::fs::write(other.join("x/held"), "").unwrap();
        remove_empty_below(&other);
        assert!(other.join("x").exists() && !other.join("x/y").exists());
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for bad in ["", "/", "a", "/a/../b", "/a//b", "/a/.", "/a/", "/a\nb"] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        assert!(check("/gantry/pod1/c2").is_ok());
    }
}
