//! One Gantry a host: a lock on a file in /run that names who holds it.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::paths::Paths;
use crate::{Failure, boot};

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("gantry runs already as process {pid} (lock {path}); stop it with `gantry down`", path = path.display())]
    Held { pid: i32, path: PathBuf },
    #[error("{path} cannot be locked", path = path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Of the control service of a host; `up` and `control` hold it.
pub const CONTROL: &str = "control";
/// Of what runs pods on a host; `up`, `agent` and `runtime` hold it.
pub const NODE: &str = "node";

/// How often and how long is waited for a lock whose owner has ended.
const LEFT_POLL: Duration = Duration::from_millis(10);
const LEFT_TRIES: u32 = 300;

/// Held as long as it lives; the kernel lets go when the process ends, however it ends.
pub struct Lock(#[expect(dead_code, reason = "held for its drop")] Flock<File>);

fn open(path: &Path) -> Result<File, LockError> {
    let fail = |source| LockError::File { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(fail)?;
    }
    File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(fail)
}

impl Lock {
    /// Takes that of a role of this host, where it is kept for this boot.
    pub fn of(paths: &Paths, role: &str) -> Result<Lock, Failure> {
        boot::keep_in_memory(paths)?;
        Ok(Lock::take(&paths.lock(role))?)
    }

    fn take(path: &Path) -> Result<Lock, LockError> {
        let fail = |source| LockError::File { path: path.to_owned(), source };
        let (mut file, mut left) = (open(path)?, LEFT_TRIES);
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(mut file) => {
                    file.set_len(0).map_err(fail)?;
                    write!(file, "{}", std::process::id()).map_err(fail)?;
                    return Ok(Lock(file));
                }
                Err((mut refused, nix::errno::Errno::EWOULDBLOCK)) => {
                    let pid = read_pid(&mut refused).unwrap_or(0);
                    if left == 0 || !has_ended(pid) {
                        return Err(LockError::Held { pid, path: path.to_owned() });
                    }
                    // Whoever was killed while it started a program has left a child, which lets go when it is that program.
                    std::thread::sleep(LEFT_POLL);
                    (file, left) = (refused, left - 1);
                }
                Err((_, errno)) => return Err(fail(errno.into())),
            }
        }
    }
}

fn has_ended(pid: i32) -> bool {
    let Some(pid) = Pid::from_raw(pid) else { return false };
    pidfd_open(pid, PidfdFlags::empty()).map_or(true, |fd| Holder { pid: pid.as_raw_nonzero().get(), fd }.wait(0))
}

fn read_pid(file: &mut File) -> Option<i32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The process that holds the lock, pinned by a pidfd so that no other can take its number.
pub struct Holder {
    pub pid: i32,
    fd: OwnedFd,
}

/// Who holds the lock; `None` where nobody does.
pub fn holder(path: &Path) -> Option<Holder> {
    let mut file = File::options().read(true).open(path).ok()?;
    let pid = read_pid(&mut file)?;
    let fd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    // Whoever still holds the lock now is the process that the descriptor pins.
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(_) => None,
        Err(_) => Some(Holder { pid, fd }),
    }
}

impl Holder {
    pub fn terminate(&self) -> std::io::Result<()> {
        Ok(pidfd_send_signal(self.fd.as_fd(), Signal::TERM)?)
    }

    pub fn kill(&self) -> std::io::Result<()> {
        Ok(pidfd_send_signal(self.fd.as_fd(), Signal::KILL)?)
    }

    /// True when the process ended within the time.
    pub fn wait(&self, milliseconds: u16) -> bool {
        let mut fds = [nix::poll::PollFd::new(self.fd.as_fd(), nix::poll::PollFlags::POLLIN)];
        matches!(nix::poll::poll(&mut fds, milliseconds), Ok(n) if n > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_was_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gantry.lock");
        assert!(holder(&path).is_none());
        let first = Lock::take(&path).unwrap();
        let Err(LockError::Held { pid, .. }) = Lock::take(&path) else { panic!("two locks") };
        assert_eq!(u32::try_from(pid).unwrap(), std::process::id());
        assert_eq!(holder(&path).unwrap().pid, pid);
        drop(first);
        assert!(holder(&path).is_none());
        Lock::take(&path).unwrap();
    }

    #[test]
    fn what_somebody_dead_still_holds_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gantry.lock");
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        std::fs::write(&path, ended.id().to_string()).unwrap();
        let left = Flock::lock(File::open(&path).unwrap(), FlockArg::LockExclusiveNonblock).unwrap();
        let taken = std::thread::scope(|scope| {
            let taken = scope.spawn(|| Lock::take(&path));
            std::thread::sleep(LEFT_POLL * 3);
            assert!(!taken.is_finished());
            drop(left);
            taken.join().unwrap()
        });
        taken.unwrap();
    }
}
