//! Rotation of container logs, as every kubelet does it: a log that has grown too large is renamed, the runtime opens it
//! anew, older parts are compressed and the oldest go. Our own runtime rotates as it writes, and leaves the compression to this;
//! other runtimes do not, nor do supervisors from before that, which outlive an upgrade. [`plan`] decides; here the folders are read and changed. All of it
//! may be cut short anywhere: a log without its file is opened anew by the next round, and what else a crash left
//! (`.tmp`, a part beside its compressed form) goes with the next rotation.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use gantry_env::{Env, chain};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, ResolveFlags};
use tokio::time::MissedTickBehavior;
use tracing::warn;

use crate::runtime::{Runtime, RuntimeError};

pub mod plan;

pub use plan::Limits;
use plan::{Found, Plan};

/// How often logs are looked at, as the kubelet does by default.
const LOOK_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
enum RotateError {
    #[error("{what} {name:?}")]
    Io { what: &'static str, name: String, source: io::Error },
    #[error("its path does not lead to a file below {root}", root = .0.display())]
    Elsewhere(PathBuf),
    #[error("the log is not opened anew")]
    Reopen(#[from] RuntimeError),
    #[error("the work was interrupted")]
    Interrupted,
}

fn io_at(what: &'static str, name: &str) -> impl FnOnce(rustix::io::Errno) -> RotateError {
    let name = name.to_owned();
    move |error| RotateError::Io { what, name, source: error.into() }
}

/// Keeps the logs of one node's running containers within their limits.
#[derive(Clone)]
pub struct Rotation {
    pub runtime: Runtime,
    /// Logs elsewhere are none of ours.
    pub log_dir: PathBuf,
    pub limits: Limits,
    pub env: Env,
}

impl Rotation {
    /// Works for as long as it is polled.
    pub async fn run(self) {
        let mut timer = tokio::time::interval(LOOK_EVERY);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            timer.tick().await;
            self.round().await;
        }
    }

    /// Looks at every running container's log once. One that cannot be rotated keeps no other from it.
    pub async fn round(&self) {
        let logs = match self.runtime.running_logs().await {
            Ok(logs) => logs,
            Err(error) => return warn!(error = chain(&error), "logs not looked at"),
        };
        for (container, path) in logs {
            if let Err(error) = self.rotate(&container, &path).await {
                warn!(container, log = %path.display(), error = chain(&error), "log not rotated");
            }
        }
    }

    async fn rotate(&self, container: &str, path: &Path) -> Result<(), RotateError> {
        let (rotation, path) = (self.clone(), path.to_owned());
        let made = blocking(move || {
            let Some(log) = Log::find(&rotation.log_dir, &path)? else { return Ok(None) };
            let plan = plan::plan(&log.name, &log.look()?, rotation.limits, rotation.env.clock.now());
            log.make_room(&plan)?;
            Ok(Some((log, plan)))
        });
        let Some((log, plan)) = made.await? else { return Ok(()) };
        if plan.reopen
            && let Err(error) = self.runtime.reopen_log(container).await
        {
            // Under its own name the log is found, and the next round tries again.
            if let Some(part) = &plan.rename_to {
                log.rename(part, &log.name)?;
            }
            return Err(error.into());
        }
        blocking(move || plan.compress.iter().try_for_each(|part| log.compress(part))).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RotateError> + Send + 'static,
) -> Result<T, RotateError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(RotateError::Interrupted))
}

/// A container's log with its folder open: no link on the way was followed, and none can be put there any more.
struct Log {
    folder: OwnedFd,
    name: String,
}

impl Log {
    /// None where the container has no log, or its folder has gone with its pod.
    fn find(root: &Path, path: &Path) -> Result<Option<Log>, RotateError> {
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        let elsewhere = || RotateError::Elsewhere(root.to_owned());
        let relative = path.strip_prefix(root).map_err(|_| elsewhere())?;
        let name = relative.file_name().and_then(|n| n.to_str()).ok_or_else(elsewhere)?;
        let folder = relative.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = || -> rustix::io::Result<OwnedFd> {
            let root = rustix::fs::open(root, flags, Mode::empty())?;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            rustix::fs::openat2(&root, folder, flags, Mode::empty(), resolve)
        };
        match open() {
            Ok(folder) => Ok(Some(Log { folder, name: name.to_owned() })),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(io_at("open the folder of", name)(error)),
        }
    }

    fn look(&self) -> Result<Found, RotateError> {
        let failed = io_at("look at", &self.name);
        let size = match rustix::fs::statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(u64::try_from(stat.st_size).unwrap_or(0)),
            Err(rustix::io::Errno::NOENT) => None,
            Err(error) => return Err(failed(error)),
        };
        Ok(Found { size, names: self.names()? })
    }

    fn names(&self) -> Result<Vec<String>, RotateError> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.folder).map_err(io_at("list the folder of", &self.name))? {
            let entry = entry.map_err(io_at("list the folder of", &self.name))?;
            // A name that is not UTF-8 is none of ours.
            names.extend(entry.file_name().to_str().ok().map(str::to_owned));
        }
        Ok(names)
    }

    /// The steps before the log is opened anew.
    fn make_room(&self, plan: &Plan) -> Result<(), RotateError> {
        plan.remove.iter().try_for_each(|part| self.remove(part))?;
        plan.rename_to.iter().try_for_each(|part| self.rename(&self.name, part))
    }

    fn remove(&self, part: &str) -> Result<(), RotateError> {
        match rustix::fs::unlinkat(&self.folder, part, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(io_at("remove", part)(error)),
        }
    }

    /// Never over another file: lines may be in it.
    fn rename(&self, from: &str, to: &str) -> Result<(), RotateError> {
        rustix::fs::renameat_with(&self.folder, from, &self.folder, to, RenameFlags::NOREPLACE)
            .map_err(io_at("rename", from))
    }

    /// The part goes once its compressed form is whole and on disk.
    fn compress(&self, part: &str) -> Result<(), RotateError> {
        let temporary = format!("{part}{}", plan::TEMPORARY);
        let write = || -> io::Result<()> {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let mut from = File::from(rustix::fs::openat(&self.folder, part, flags, Mode::empty())?);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let to = File::from(rustix::fs::openat(&self.folder, &temporary, flags, Mode::from_raw_mode(0o640))?);
            let mut gzip = GzEncoder::new(to, Compression::default());
            io::copy(&mut from, &mut gzip)?;
            gzip.finish()?.sync_data()
        };
        let done = write().map_err(|source| RotateError::Io { what: "compress", name: part.to_owned(), source });
        if let Err(error) = done {
            // On a full disk what is half done is only in the way.
            self.remove(&temporary)?;
            return Err(error);
        }
        self.rename(&temporary, &format!("{part}{}", plan::COMPRESSED))?;
        self.remove(part)
    }
}

/// Removes a log and its rotated parts, with the container that wrote them. What is not there is no error.
pub fn remove(folder: &Path, name: &str) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let file = entry.file_name();
        if file.to_str().is_some_and(|file| file == name || plan::is_part(name, file)) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_goes_with_its_parts_and_with_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let gone = ["1.log", "1.log.20260102-030405", "1.log.20260102-030405.gz", "1.log.20260102-030405.tmp"];
        let stay = ["10.log", "11.log.20260102-030405", "1.log.mine", "1.logs"];
        for name in gone.iter().chain(&stay) {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        remove(dir.path(), "1.log");
        for name in gone {
            assert!(!dir.path().join(name).exists(), "{name}");
        }
        for name in stay {
            assert!(dir.path().join(name).exists(), "{name}");
        }
        remove(&dir.path().join("none"), "1.log");
    }

    #[test]
    fn logs_elsewhere_and_behind_links_are_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("logs");
        std::fs::create_dir_all(root.join("pod")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("link")).unwrap();
        assert!(Log::find(&root, &root.join("pod/0.log")).unwrap().is_some());
        assert!(Log::find(&root, &root.join("gone/0.log")).unwrap().is_none());
        assert!(Log::find(&root, Path::new("")).unwrap().is_none());
        for bad in [root.join("link/0.log"), root.join("../0.log"), "/etc/passwd".into()] {
            assert!(Log::find(&root, &bad).is_err(), "{}", bad.display());
        }
    }

    #[test]
    fn a_part_is_compressed_whole() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::find(dir.path(), &dir.path().join("0.log")).unwrap().unwrap();
        let part = "0.log.20260102-030405";
        std::fs::write(dir.path().join(part), "one\ntwo\n").unwrap();
        log.compress(part).unwrap();
        let names: Vec<_> = log.names().unwrap().into_iter().filter(|n| !n.starts_with(".")).collect();
        assert_eq!(names, ["0.log.20260102-030405.gz"]);
        let file = File::open(dir.path().join(&names[0])).unwrap();
        assert_eq!(io::read_to_string(flate2::read::GzDecoder::new(file)).unwrap(), "one\ntwo\n");
        assert!(log.rename(&names[0], &names[0]).is_err(), "a file is never renamed over another");
    }
}
