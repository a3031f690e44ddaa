//! A further process in a running container. The supervisor enters the namespaces of the container's first process for as long
//! as it takes to fork there, and comes back: it has one thread, and between the two it opens nothing. The child is held to what
//! the container is by the last stage that the container's own process went through.
//!
//! Everyone in the container may see the new process before it has become its program. So it cannot be traced but by who may
//! trace anything (CVE-2016-9962: the supervisor itself is not dumpable), it is born where the host's files are not seen, every
//! descriptor that is not its own is closed by execve (CVE-2024-21626), and what is executed is in a sealed memfd (CVE-2019-5736).
//!
//! Where the pod has users of its own the supervisor cannot go: nobody comes back from there. A child of it goes, and leaves
//! behind a sibling that is born in the container as its root: at no time is there one of the host's root ([`crate::userns`]).

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use gantry_base::launch::{Ids, Launch};
use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;

use crate::creator::Stdio;
use crate::executor::{self, Stage};
use crate::kernel;
use crate::socket;
use crate::sys::{self, Forked};
use crate::userns::{self, Opened};

#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    #[error("enter the container: {0}")]
    Namespaces(#[source] io::Error),
    #[error("open cgroup {path:?}: {source}")]
    Cgroup { path: String, source: io::Error },
    #[error("open /proc: {0}")]
    Proc(#[source] io::Error),
    #[error("join the container's cgroups: {0}")]
    Join(#[source] io::Error),
    #[error("enter the pod's user namespace: {0}")]
    Users(#[source] io::Error),
    #[error("start a process in the container: {0}")]
    Fork(#[source] io::Error),
    #[error("terminal: {0}")]
    Terminal(#[source] io::Error),
    #[error("terminal: /dev/pts/ptmx of the container is no multiplexer of terminals")]
    NoMultiplexer,
}

/// Where the child is born. A process that is in some of these namespaces already, as in those of the host that a pod shares,
/// stays in them. The cgroup namespace is the child's to enter: where cgroup2 is mounted with `nsdelegate`, who is in one clones
/// nobody into it from outside (Documentation/admin-guide/cgroup-v2.rst, Delegation Containment).
const BIRTHPLACE: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS);

/// include/uapi/linux/magic.h
const DEVPTS_MAGIC: i64 = 0x1cd1;

/// The supervisor's own namespaces, to which it comes back.
pub struct Home(Vec<OwnedFd>);

impl Home {
    pub fn here() -> io::Result<Home> {
        let open = |name| {
            let path = format!("/proc/self/ns/{name}");
            Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
        };
        ["pid", "net", "ipc", "uts", "mnt"].into_iter().map(open).collect::<io::Result<_>>().map(Home)
    }

    /// One that cannot come home must not go on: what it opened would be the container's. Its containers go on without it,
    /// and the runtime gives them another.
    fn come_back(&self) {
        for namespace in &self.0 {
            if nix::sched::setns(namespace, CloneFlags::empty()).is_err() {
                sys::exit_now(1);
            }
        }
    }
}

/// What a further process takes along from the host, whose files it does not see.
pub struct Entry {
    pub launch: Launch,
    pub ids: Ids,
    /// v1: the `tasks` files of the container's cgroups.
    tasks: Vec<File>,
    /// The host's /proc.
    proc: OwnedFd,
}

impl Entry {
    pub fn new(launch: Launch, ids: Ids) -> Result<Entry, EnterError> {
        let open = |cgroup: &String| {
            let path = format!("{cgroup}/tasks");
            File::options().write(true).open(&path).map_err(|source| EnterError::Cgroup { path, source })
        };
        let joined_by_clone = launch.unified;
        let tasks = launch.cgroups.iter().filter(|_| !joined_by_clone).map(open).collect::<Result<_, _>>()?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::open("/proc", flags, Mode::empty()).map_err(|e| EnterError::Proc(e.into()))?;
        Ok(Entry { launch, ids, tasks, proc })
    }

    fn join_cgroups(&self) -> io::Result<()> {
        self.tasks.iter().try_for_each(|mut tasks| tasks.write_all(b"0"))
    }

    /// What the container has mounted on its own /proc does not matter here.
    fn adjust_oom_score(&self) {
        let Some(score) = self.launch.process.oom_score_adj else { return };
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        if let Ok(file) = rustix::fs::openat(&self.proc, "self/oom_score_adj", flags, Mode::empty()) {
            let _ = File::from(file).write_all(score.to_string().as_bytes());
        }
    }
}

/// Forks in the namespaces of the container whose first process `init` is; the parent is at home again when this returns.
pub fn fork(init: BorrowedFd<'_>, home: &Home, cgroup: Option<BorrowedFd<'_>>) -> Result<Forked, EnterError> {
    let entered = nix::sched::setns(init, BIRTHPLACE);
    let forked = entered
        .map_err(|e| EnterError::Namespaces(e.into()))
        .and_then(|()| sys::fork_into(cgroup).map_err(EnterError::Fork));
    if !matches!(forked, Ok(Forked::Child)) {
        home.come_back();
    }
    forked
}

/// Enters a container of a pod with users of its own, whose first process `init` is, and forks there. The parent, which is in
/// between, has only to say who its sibling is, and to end.
pub fn pass_through(entry: &Entry, users: &Opened, init: BorrowedFd<'_>) -> Result<Forked, EnterError> {
    entry.join_cgroups().map_err(EnterError::Join)?;
    entry.adjust_oom_score();
    let there = BIRTHPLACE | CloneFlags::CLONE_NEWCGROUP;
    nix::sched::setns(init, there).map_err(|e| EnterError::Namespaces(e.into()))?;
    userns::become_root(users.user.as_fd()).map_err(EnterError::Users)?;
    sys::fork_sibling().map_err(EnterError::Fork)
}

/// The child of [`fork`]: settles where only the host's root may put it, and becomes its program.
pub fn settle_and_become(
    entry: &Entry,
    init: BorrowedFd<'_>,
    stage: &Stage,
    stdio: Stdio,
    terminal_to: Option<BorrowedFd<'_>>,
) -> ! {
    let joined = entry.join_cgroups();
    if let Err(error) = joined.and_then(|()| Ok(nix::sched::setns(init, CloneFlags::CLONE_NEWCGROUP)?)) {
        executor::fail(stage.failure, &EnterError::Join(error));
    }
    entry.adjust_oom_score();
    become_program(stage, stdio, terminal_to)
}

/// The child: becomes its program, or says over `stage.failure` why not. The master of its terminal goes to `terminal_to`.
pub fn become_program(stage: &Stage, stdio: Stdio, terminal_to: Option<BorrowedFd<'_>>) -> ! {
    let (streams, is_terminal) = match stdio {
        Stdio::Streams { stdin, stdout, stderr } => ([stdin, stdout, stderr], false),
        Stdio::Terminal => match terminal().and_then(|(master, slave)| hand_over(&master, slave, terminal_to)) {
            Ok(streams) => (streams, true),
            Err(error) => executor::fail(stage.failure, &error),
        },
    };
    become_with(stage, streams, is_terminal)
}

/// The same with the streams that it is to have, all of them the terminal if `is_terminal`.
pub fn become_with(stage: &Stage, [stdin, stdout, stderr]: [OwnedFd; 3], is_terminal: bool) -> ! {
    let streams = match own_null(stdin) {
        Ok(stdin) => [stdin, stdout, stderr],
        Err(error) => executor::fail(stage.failure, &error),
    };
    if let Err(error) = stand_alone(&streams, is_terminal) {
        executor::fail(stage.failure, &error);
    }
    drop(streams);
    executor::last_stage(stage)
}

/// Sends the master to whoever keeps it; the other end is the three streams.
pub fn hand_over(master: &OwnedFd, slave: OwnedFd, to: Option<BorrowedFd<'_>>) -> Result<[OwnedFd; 3], EnterError> {
    let to = to.ok_or(EnterError::Terminal(io::ErrorKind::NotConnected.into()))?;
    socket::send(to, b"terminal", &[master.as_fd()]).map_err(EnterError::Terminal)?;
    let copy = || slave.try_clone().map_err(EnterError::Terminal);
    Ok([copy()?, copy()?, slave])
}

/// The host's /dev/null is not the container's, whose root could change its mode for all: it gets its own, or, if it has put
/// something else there, what ends at once too.
fn own_null(stdin: OwnedFd) -> io::Result<OwnedFd> {
    if !kernel::is_null(&stdin)? {
        return Ok(stdin);
    }
    let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::open("/dev/null", flags, Mode::empty()) {
        Ok(own) if kernel::is_null(&own)? => {
            rustix::io::ioctl_fionbio(&own, false)?;
            Ok(own)
        }
        _ => Ok(rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?.0),
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
pub fn terminal() -> Result<(OwnedFd, OwnedFd), EnterError> {
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
