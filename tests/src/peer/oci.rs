//! OCI runtimes, and a bundle that asks of them what a pod's container asks of ours: namespaces that are there already, the
//! kernel's mounts, hidden paths, devices, limits, capabilities and a filter of the same calls. An overlay it does not ask for.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::CloneFlags;
use rustix::mount::UnmountFlags;
use serde_json::{Value, json};

use super::{Cost, measured};

const ALLOWED: &str = include_str!("../../../runtime/src/container/seccomp_allowed.txt");
const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];
/// As the kubelet hides them.
pub const MASKED: [&str; 9] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
];
pub const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A runtime that runs the bundle on this host.
#[derive(Debug)]
pub struct Oci {
    /// With its version.
    pub name: String,
    /// The program and what it is always given.
    words: Vec<OsString>,
    bundles: Bundles,
}

impl Oci {
    /// Every one that is installed and that this host suits.
    pub fn all() -> io::Result<Vec<Oci>> {
        let mut found = Vec::new();
        for words in [vec!["crun".into()], newest_crun(), vec!["runc".into()]] {
            let Some(name) = version(&words) else { continue };
            let runtime = Oci { bundles: Bundles::make(found.len())?, name, words };
            match runtime.run() {
                Some(_) => found.push(runtime),
                None => println!("peer: {} does not run here", runtime.name),
            }
        }
        Ok(found)
    }

    fn command(&self, bundle: &str, words: &[&str]) -> Command {
        let (program, before) = self.words.split_first().expect("a program");
        let folder = self.bundles.folder.path();
        let mut command = Command::new(program);
        command.args(before).arg("--root").arg(folder.join("state")).args(words).current_dir(folder.join(bundle));
        command
    }

    /// One `run` of `true`: create, start, wait, delete.
    pub fn run(&self) -> Option<Cost> {
        measured(&mut self.command("true", &["run", &format!("gantry-bench-{}", std::process::id())]))
    }

    /// The quickest of several.
    pub fn best_run(&self, rounds: usize) -> Option<Cost> {
        (0..rounds).map_while(|_| self.run()).min_by(|a, b| a.wall.total_cmp(&b.wall))
    }

    /// A container that stays.
    pub fn start(&self) -> Option<Running<'_>> {
        let running = Running { runtime: self, name: format!("gantry-bench-{}-stays", std::process::id()) };
        measured(&mut self.command("sleep", &["run", "--detach", &running.name]))?;
        Some(running)
    }

    pub fn rootfs(&self) -> PathBuf {
        self.bundles.folder.path().join("true/rootfs")
    }
}

#[derive(Debug)]
pub struct Running<'a> {
    runtime: &'a Oci,
    name: String,
}

impl Running<'_> {
    pub fn runtime(&self) -> &Oci {
        self.runtime
    }

    /// One `exec` of `true`.
    pub fn exec(&self) -> Option<Cost> {
        measured(&mut self.runtime.command("sleep", &["exec", &self.name, "/bin/busybox", "true"]))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        measured(&mut self.runtime.command("sleep", &["delete", "--force", &self.name]));
    }
}

fn version(words: &[OsString]) -> Option<String> {
    let (program, before) = words.split_first()?;
    let told = Command::new(program).args(before).arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&told.stdout).lines().next()?.replace(" version", ""))
}

/// Debian 13's crun with its own libraries, where `tests/install.sh bench` has put it.
fn newest_crun() -> Vec<OsString> {
    let folder = crate::kubectl::installed().join("crun-trixie/usr");
    let libraries = folder.join("lib/x86_64-linux-gnu");
    let loader = libraries.join("ld-linux-x86-64.so.2");
    vec![loader.into(), "--library-path".into(), libraries.into(), folder.join("bin/crun").into()]
}

#[derive(Debug)]
struct Bundles {
    folder: tempfile::TempDir,
}

const NAMESPACES: [(&str, &str); 3] = [("network", "net"), ("ipc", "ipc"), ("uts", "uts")];

impl Bundles {
    /// `number` tells the runtimes of this process apart.
    fn make(number: usize) -> io::Result<Bundles> {
        let folder = in_memory()?;
        pin_namespaces(folder.path())?;
        let cgroup = format!("/gantry-bench-{}-{number}", std::process::id());
        for (name, command) in [("true", &["true"][..]), ("sleep", &["sleep", "1000"])] {
            let bundle = folder.path().join(name);
            for folder in ["bin", "proc", "dev", "sys"] {
                std::fs::create_dir_all(bundle.join("rootfs").join(folder))?;
            }
            std::fs::copy("/bin/busybox", bundle.join("rootfs/bin/busybox"))?;
            std::fs::write(bundle.join("config.json"), config(folder.path(), &cgroup, command).to_string())?;
        }
        Ok(Bundles { folder })
    }
}

impl Drop for Bundles {
    fn drop(&mut self) {
        for (_, file) in NAMESPACES {
            let _ = rustix::mount::unmount(self.folder.path().join(file), UnmountFlags::DETACH);
        }
    }
}

/// As most hosts keep what a runtime writes for this boot, whatever this one's `/run` is on: the disk is no part of the figure.
fn in_memory() -> io::Result<tempfile::TempDir> {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())
}

/// Makes the namespaces of a pod, and keeps them by a mount.
fn pin_namespaces(folder: &Path) -> io::Result<()> {
    let pin = || {
        nix::sched::unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS)?;
        for (_, file) in NAMESPACES {
            let at = folder.join(file);
            std::fs::write(&at, "")?;
            rustix::mount::mount_bind(Path::new("/proc/thread-self/ns").join(file), at)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| scope.spawn(pin).join()).unwrap_or_else(|_| Err(io::Error::other("no thread")))
}

fn config(folder: &Path, cgroup: &str, command: &[&str]) -> Value {
    let args: Vec<&str> = ["/bin/busybox"].iter().chain(command).copied().collect();
    let mut namespaces = vec![json!({"type": "pid"}), json!({"type": "mount"}), json!({"type": "cgroup"})];
    namespaces.extend(NAMESPACES.iter().map(|(kind, file)| json!({"type": kind, "path": folder.join(file)})));
    let mount = |at: &str, kind: &str, options: &[&str]| json!({"destination": at, "type": kind, "source": kind, "options": options});
    let mut mounts = vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ];
    // As ours: v1's cgroups are not mounted.
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        mounts.push(mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]));
    }
    let names: Vec<&str> = ALLOWED.split_whitespace().collect();
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "cwd": "/", "args": args, "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"],
            "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES},
        },
        "root": {"path": "rootfs"},
        "mounts": mounts,
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": cgroup,
            "resources": {"cpu": {"shares": 2}, "devices": [{"allow": false, "access": "rwm"}]},
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO",
                "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
                "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}],
            },
        },
    })
}
