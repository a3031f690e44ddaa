//! The folder of this boot (`/run/gantry`) is kept in memory, also on a host whose `/run` is on a disk: what a reboot empties
//! costs the disk nothing, and secrets never reach it.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use gantry_agent::volume::{VolumeError, in_memory, is_mount_point, mount_tmpfs, unmount};
use gantry_env::chain;
use gantry_runtime::records;
use nix::fcntl::{Flock, FlockArg};
use tracing::warn;

use crate::lock;
use crate::paths::Paths;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be made, as the folder of this boot", path = path.display())]
pub struct BootError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Makes the folder, with a tmpfs on it unless it is in memory or in use: nobody's lock and no journal of pods that may be
/// running is hidden. A host that refuses the mount is told of, and lives with the disk.
pub fn keep_in_memory(paths: &Paths) -> Result<(), BootError> {
    let run = paths.run.as_path();
    let fail = |source| BootError { path: run.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(run).map_err(fail)?;
    if in_memory(run) {
        return Ok(());
    }
    // Of two that start at once, the second finds what the first has mounted: by the path, as its lock is on what lies below.
    let _turn =
        Flock::lock(File::open(run).map_err(fail)?, FlockArg::LockExclusive).map_err(|(_, e)| fail(e.into()))?;
    let boot_id = std::fs::read_to_string(BOOT_ID).map_err(fail)?;
    let is_held = [lock::CONTROL, lock::NODE].iter().any(|role| lock::holder(&paths.lock(role)).is_some());
    if in_memory(run) || is_held || records::is_of_boot(run, boot_id.trim()) {
        return Ok(());
    }
    if let Err(error) = mount_tmpfs(run, "mode=0700") {
        warn!(error = %chain(&error), "what is kept for this boot alone is written to the disk");
    }
    Ok(())
}

/// Unmounts it, if it is mounted. Nothing of Gantry may run any more.
pub fn release(run: &Path) -> Result<(), VolumeError> {
    if is_mount_point(run) { unmount(run) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a mount namespace of its own, which ends with its thread.
    fn apart(body: impl FnOnce() + Send + 'static) {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("needs root");
            return;
        }
        let apart = std::thread::spawn(move || {
            use rustix::mount::{MountPropagationFlags, mount_change};
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
            body();
        });
        apart.join().unwrap();
    }

    fn on_disk() -> tempfile::TempDir {
        tempfile::tempdir_in("/var/tmp").unwrap()
    }

    #[test]
    fn it_is_mounted_once_and_goes_with_the_last() {
        apart(|| {
            let folder = on_disk();
            let paths = Paths::under(folder.path());
            for _ in 0..2 {
                keep_in_memory(&paths).unwrap();
                assert!(in_memory(&paths.run));
            }
            release(&paths.run).unwrap();
            assert!(!is_mount_point(&paths.run), "one mount, not two");
            release(&paths.run).unwrap();
        });
    }

    #[test]
    fn many_at_once_mount_it_once() {
        apart(|| {
            let folder = on_disk();
            let paths = Paths::under(folder.path());
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| keep_in_memory(&paths).unwrap());
                }
            });
            release(&paths.run).unwrap();
            assert!(!is_mount_point(&paths.run));
        });
    }

    #[test]
    fn the_journal_of_this_boot_is_not_hidden() {
        apart(|| {
            let folder = on_disk();
            let paths = Paths::under(folder.path());
            let boot = std::fs::read_to_string(BOOT_ID).unwrap();
            std::fs::create_dir_all(&paths.run).unwrap();
            std::fs::write(paths.run.join("boot-id"), boot.trim()).unwrap();
            keep_in_memory(&paths).unwrap();
            assert!(!is_mount_point(&paths.run));
            // That of another boot is worth nothing.
            std::fs::write(paths.run.join("boot-id"), "another").unwrap();
            keep_in_memory(&paths).unwrap();
            assert!(in_memory(&paths.run));
            release(&paths.run).unwrap();
        });
    }

    /// A control service has no journal.
    #[test]
    fn a_lock_that_is_held_is_not_hidden() {
        apart(|| {
            let folder = on_disk();
            let paths = Paths::under(folder.path());
            std::fs::create_dir_all(&paths.run).unwrap();
            std::fs::write(paths.lock(lock::CONTROL), std::process::id().to_string()).unwrap();
            let held = File::open(paths.lock(lock::CONTROL)).unwrap();
            let held = Flock::lock(held, FlockArg::LockExclusiveNonblock).unwrap();
            keep_in_memory(&paths).unwrap();
            assert!(!is_mount_point(&paths.run));
            drop(held);
            keep_in_memory(&paths).unwrap();
            assert!(in_memory(&paths.run));
            release(&paths.run).unwrap();
        });
    }
}
