use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use gantry_base::frame::Unit;
use gantry_base::layout;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};

/// The runtime's own copies of what a supervisor holds of a running container. When the supervisor is killed, the pidfd
/// still tells the exit code, the open FIFOs keep what was written, and an open terminal spares the container a SIGHUP.
#[derive(Debug)]
pub struct Held {
    pub pidfd: Option<OwnedFd>,
    /// The terminal's master, or the write end of stdin.
    pub input: Option<OwnedFd>,
    /// Held, never read: they keep the pipes' contents.
    _outputs: Vec<OwnedFd>,
}

impl Held {
    pub fn new(fds: Vec<OwnedFd>, unit: &Unit, bundle: &Path) -> Held {
        let mut fds = fds.into_iter();
        let outputs = if unit.tty {
            Vec::new()
        } else {
            [layout::STDOUT, layout::STDERR].iter().filter_map(|name| open_reader(&bundle.join(name))).collect()
        };
        Held { pidfd: fds.next(), input: fds.next(), _outputs: outputs }
    }

    /// The pid namespace of the container whose first process has this number. It is opened by the number, which may be
    /// another's by then: the pidfd says afterwards whether it still was the container's.
    pub fn pid_namespace(&self, pid: i32) -> io::Result<OwnedFd> {
        let gone = || io::Error::from(rustix::io::Errno::SRCH);
        let pidfd = self.pidfd.as_ref().ok_or_else(gone)?;
        let namespace = std::fs::File::open(format!("/proc/{pid}/ns/pid"))?;
        // It can be read once its process has ended.
        let mut ended = [PollFd::new(pidfd, PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        if rustix::event::poll(&mut ended, Some(&now))? > 0 { Err(gone()) } else { Ok(namespace.into()) }
    }

    /// Copies for a supervisor: the pidfd, then the input.
    pub fn duplicates(&self) -> io::Result<Vec<OwnedFd>> {
        self.pidfd.iter().chain(&self.input).map(OwnedFd::try_clone).collect()
    }
}

fn open_reader(path: &Path) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::empty()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    #[test]
    fn a_number_that_has_become_anothers_leads_nowhere() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        let held = Held { pidfd: Some(pidfd), input: None, _outputs: Vec::new() };
        held.pid_namespace(child.id().cast_signed()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        // The number is as good as any other that is in use: here, our own.
        let own = std::process::id().cast_signed();
        let error = held.pid_namespace(own).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH), "{error}");
    }
}
