//! `gantry-supervisor <sandbox folder> [<cgroup folder> …]`: keeps the containers of one pod while the runtime may come
//! and go. It owns their output and their exit codes, forks what makes itself a container, or a short-lived creator where
//! libcontainer is needed for that (which runs nowhere else, because this program has one thread for life), and a command where its
//! container is, and speaks frames over the socket in its folder.
//! The first process returns once the socket listens; the one that stays is a child of nobody in particular.
//!
//! Under other names it is something else: as [`layout::FIRST_PROCESS`] the first process of a pid namespace (`first.rs`), as
//! [`layout::MAKER`] who makes the namespaces of a pod that has users of its own (`userns.rs`).

mod attach;
mod creator;
mod direct;
mod enter;
mod executor;
mod fault;
mod first;
mod hooks;
mod inroot;
mod kernel;
mod log;
mod refine;
mod root;
mod serve;
mod socket;
mod stage;
mod sys;
mod unit;
mod userns;
mod users;

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use gantry_base::layout;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;

use crate::sys::Forked;

/// Connections that wait to be accepted: a runtime, for a moment two.
const LISTEN_MAX: i32 = 4;

#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("usage: gantry-supervisor <sandbox folder> [<cgroup folder> …]")]
    Usage,
    #[error("{what} {path:?}: {source}")]
    Path { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{what}: {source}")]
    Step { what: &'static str, source: io::Error },
}

fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    let is = |name: &CStr| called.as_bytes() == name.to_bytes();
    let (name, work): (_, fn() -> Result<(), StartError>) = if is(layout::FIRST_PROCESS) {
        (layout::FIRST_PROCESS, first::start)
    } else if is(layout::MAKER) {
        (layout::MAKER, userns::make)
    } else {
        (c"gantry-supervisor", start)
    };
    // It is started through a descriptor, whose number would be its name in ps.
    let _ = rustix::thread::set_name(name);
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", name.to_string_lossy());
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<(), StartError> {
    let mut arguments = std::env::args_os().skip(1);
    let sandbox = PathBuf::from(arguments.next().ok_or(StartError::Usage)?);
    let cgroups: Vec<PathBuf> = arguments.map(PathBuf::from).collect();
    let listener = listen(&sandbox)?;
    let step = |what: &'static str| move |source: io::Error| StartError::Step { what, source };
    let unified = unified(&cgroups)?;
    let (ready, not_yet) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| step("pipe")(e.into()))?;
    match sys::fork_into(unified.as_ref().map(|c| c.as_fd())).map_err(step("fork"))? {
        Forked::Parent(_) => {
            drop(not_yet);
            let _ = rustix::io::read(&ready, &mut [0; 1]);
            sys::exit_now(0)
        }
        Forked::Child => {}
    }
    // SO_PEERCRED names whoever called listen last: that is to be the process that stays.
    rustix::net::listen(&listener, LISTEN_MAX).map_err(|e| step("listen")(e.into()))?;
    drop((ready, not_yet));
    drop(unified);
    join_legacy(&cgroups);
    rustix::process::setsid().map_err(|e| step("setsid")(e.into()))?;
    sys::set_child_subreaper().map_err(step("become subreaper"))?;
    null().and_then(|null| detach_stdio(&null)).map_err(step("detach from standard streams"))?;
    let signals = block_signals().map_err(step("block signals"))?;
    // What is forked inside a container is traced by nobody there, from its first moment.
    sys::set_dumpable(false).map_err(step("become untraceable"))?;
    let home = enter::Home::here().map_err(step("open its namespaces"))?;
    fault::point(fault::Point::Serve);
    serve::Supervisor::new(sandbox, listener, signals, home).run().map_err(step("poll"))
}

/// v2: one folder, entered by clone3. v1: one a hierarchy, entered after the fork.
fn unified(cgroups: &[PathBuf]) -> Result<Option<OwnedFd>, StartError> {
    match cgroups {
        [only] if !only.join("tasks").exists() => open_dir(only).map(Some),
        _ => Ok(None),
    }
}

/// An own cgroup is a protection, not a condition: the supervisor of a host without some controller works too.
fn join_legacy(cgroups: &[PathBuf]) {
    for cgroup in cgroups {
        let _ = std::fs::write(cgroup.join("tasks"), "0");
    }
}

fn open_dir(path: &Path) -> Result<OwnedFd, StartError> {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open(path, flags, rustix::fs::Mode::empty()).map_err(|e| StartError::Path {
        what: "open cgroup",
        path: path.to_owned(),
        source: e.into(),
    })
}

/// Bound under a short relative name, since a socket's path may not be longer than 107 bytes.
fn listen(sandbox: &Path) -> Result<OwnedFd, StartError> {
    let failed = |what| {
        let path = sandbox.to_owned();
        move |source: io::Error| StartError::Path { what, path, source }
    };
    std::env::set_current_dir(sandbox).map_err(failed("enter"))?;
    let path = layout::socket(Path::new(""));
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("remove the old socket in")(e)),
        _ => {}
    }
    let bind = || -> rustix::io::Result<OwnedFd> {
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
        let bound = rustix::net::bind(&socket, &SocketAddrUnix::new(&path)?);
        rustix::process::umask(before);
        bound?;
        rustix::net::listen(&socket, LISTEN_MAX)?;
        Ok(socket)
    };
    bind().map_err(|e| failed("listen in")(e.into()))
}

fn null() -> io::Result<File> {
    File::options().read(true).write(true).open("/dev/null")
}

fn detach_stdio(null: &File) -> io::Result<()> {
    nix::unistd::dup2_stdin(null)?;
    nix::unistd::dup2_stdout(null)?;
    nix::unistd::dup2_stderr(null)?;
    Ok(())
}

/// SIGCHLD wakes the loop; the others are not ours to die of: a supervisor leaves when it is told over its socket, or, where a
/// host that ends sends SIGTERM to everyone, after its containers.
fn block_signals() -> io::Result<SignalFd> {
    let mut watched = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        watched.add(signal);
    }
    watched.thread_block()?;
    Ok(SignalFd::with_flags(&watched, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}
