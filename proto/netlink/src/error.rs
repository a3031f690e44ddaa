use rustix::io::Errno;

/// Why the kernel, or the way to it, said no.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("open a netlink socket")]
    Open(#[source] Errno),
    #[error("send to netlink")]
    Send(#[source] Errno),
    #[error("receive from netlink")]
    Receive(#[source] Errno),
    /// The kernel's answer to one request; in a batch, to the first that failed (none was applied).
    #[error("{what}")]
    Kernel { what: String, source: Errno },
    #[error("the kernel's answer ends early or does not parse")]
    Malformed,
    #[error("the dump was interrupted by a change, several times over")]
    Interrupted,
    #[error("no interface {0}")]
    NoInterface(String),
}

impl Error {
    /// The kernel's error number, where it was the kernel that refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Open(errno) | Error::Send(errno) | Error::Receive(errno) | Error::Kernel { source: errno, .. } => {
                Some(*errno)
            }
            Error::Malformed | Error::Interrupted | Error::NoInterface(_) => None,
        }
    }

    pub fn is(&self, errno: Errno) -> bool {
        self.errno() == Some(errno)
    }
}
