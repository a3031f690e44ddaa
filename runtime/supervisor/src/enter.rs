//! A further process in a running container. The creator enters the namespaces of the container's first process, and a sibling of
//! the creator, a child of the supervisor, is born in them. It is held to what the container is by the last stage that the
//! container's own process went through.
//!
//! Everyone in the container may see the new process before it has become its program. So it cannot be traced but by who may
//! trace anything (CVE-2016-9962), every descriptor that is not its own is closed by execve (CVE-2024-21626), and what is
//! executed is in a sealed memfd (CVE-2019-5736).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags};

use crate::creator::Stdio;
use crate::executor::{self, Stage};
use crate::sys::{self, Forked};

#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    #[error("enter the container: {0}")]
    Namespaces(#[source] io::Error),
    #[error("start a process in the container: {0}")]
    Fork(#[source] io::Error),
    #[error("terminal: {0}")]
    Terminal(#[source] io::Error),
    #[error("terminal: /dev/pts/ptmx of the container is no multiplexer of terminals")]
    NoMultiplexer,
}

/// Its pid as the supervisor sees it, and its terminal's master.
pub struct Entered {
    pub pid: i32,
    pub master: Option<OwnedFd>,
}

/// A process that is in some of these namespaces already, as in those of the host that a pod shares, stays in them.
const ALL: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWCGROUP);

/// include/uapi/linux/magic.h
const DEVPTS_MAGIC: i64 = 0x1cd1;

/// `init` is a pidfd of the container's first process.
pub fn enter(init: BorrowedFd<'_>, stage: &Stage, stdio: Stdio) -> Result<Entered, EnterError> {
    sys::set_dumpable(false).map_err(EnterError::Namespaces)?;
    nix::sched::setns(init, ALL).map_err(|e| EnterError::Namespaces(e.into()))?;
    let (streams, master) = match stdio {
        Stdio::Streams { stdin, stdout, stderr } => ([stdin, stdout, stderr], None),
        Stdio::Terminal => {
            let (master, slave) = terminal()?;
            let copy = || slave.try_clone().map_err(EnterError::Terminal);
            ([copy()?, copy()?, slave], Some(master))
        }
    };
    match sys::fork_sibling().map_err(EnterError::Fork)? {
        Forked::Parent(pid) => Ok(Entered { pid, master }),
        Forked::Child => {
            let is_terminal = master.is_some();
            drop(master);
            if let Err(error) = stand_alone(&streams, is_terminal) {
                executor::fail(stage, &error);
            }
            drop(streams);
            executor::last_stage(stage)
        }
    }
}

/// Its own session and group, by which it is killed with what it starts; its streams.
fn stand_alone([stdin, stdout, stderr]: &[OwnedFd; 3], is_terminal: bool) -> io::Result<()> {
    rustix::process::setsid()?;
    nix::unistd::dup2_stdin(stdin)?;
    nix::unistd::dup2_stdout(stdout)?;
    nix::unistd::dup2_stderr(stderr)?;
    if is_terminal {
        rustix::process::ioctl_tiocsctty(stdin)?;
    }
    Ok(())
}

/// A new terminal of the container's own. What lies at the path is the container's to choose: it must be what it says, and
/// looking at it must not take for ever.
fn terminal() -> Result<(OwnedFd, OwnedFd), EnterError> {
    let failed = |e: rustix::io::Errno| EnterError::Terminal(e.into());
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let master = rustix::fs::open("/dev/pts/ptmx", flags, Mode::empty()).map_err(failed)?;
    let (stat, system) = (rustix::fs::fstat(&master).map_err(failed)?, rustix::fs::fstatfs(&master).map_err(failed)?);
    if stat.st_rdev != rustix::fs::makedev(5, 2) || system.f_type != DEVPTS_MAGIC {
        return Err(EnterError::NoMultiplexer);
    }
    rustix::io::ioctl_fionbio(&master, false).map_err(failed)?;
    let slave = sys::other_end(master.as_fd()).map_err(EnterError::Terminal)?;
    Ok((master, slave))
}
