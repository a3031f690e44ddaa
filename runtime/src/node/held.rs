use std::os::fd::OwnedFd;
use std::path::Path;

use gantry_base::frame::Unit;
use gantry_base::layout;
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

    /// Copies for a supervisor: the pidfd, then the input.
    pub fn duplicates(&self) -> std::io::Result<Vec<OwnedFd>> {
        self.pidfd.iter().chain(&self.input).map(OwnedFd::try_clone).collect()
    }
}

fn open_reader(path: &Path) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::empty()).ok()
}
