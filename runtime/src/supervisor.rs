//! A sandbox's supervisor from the runtime's side: found on its socket or started, asked, and listened to.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use gantry_base::frame::{self, Event, Request, Unit};
use gantry_base::launch::IdRange;
use gantry_base::{Id, layout};
use parking_lot::Mutex;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use crate::fault::{Point, point};

mod packet;

/// A create mounts and unpacks nothing, but may wait for a slow disk or network share behind a volume.
const REPLY_TIMEOUT: Duration = Duration::from_secs(120);

const SEAL_TRIES: u32 = 20;

#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    #[error("read the supervisor program {path:?}")]
    Program { path: PathBuf, source: io::Error },
    #[error("start supervisor {path:?}")]
    Spawn { path: PathBuf, source: io::Error },
    #[error("supervisor ended with {status} before it listened: {words}")]
    Refused { status: std::process::ExitStatus, words: String },
    #[error("connect to supervisor in {dir:?}")]
    Connect { dir: PathBuf, source: io::Error },
    #[error("send to the supervisor")]
    Send(#[source] io::Error),
    #[error("the supervisor has gone")]
    Gone,
    #[error("the supervisor has not answered for {} s", REPLY_TIMEOUT.as_secs())]
    Timeout,
    /// The words are for the user: why a command could not be started.
    #[error("{0}")]
    Failed(String),
    #[error("the supervisor answered with something else")]
    Confused,
}

/// Nothing can be written to the file from here on. The kernel refuses that with EBUSY while anything else holds one of its
/// pages, be it itself, that moves or reclaims memory: it has waited 150 ms for them by then, and is asked again.
fn seal(file: &std::fs::File) -> io::Result<()> {
    use rustix::fs::SealFlags;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    for _ in 1..SEAL_TRIES {
        match rustix::fs::fcntl_add_seals(file, seals) {
            Err(rustix::io::Errno::BUSY) => {}
            done => return Ok(done?),
        }
    }
    Ok(rustix::fs::fcntl_add_seals(file, seals)?)
}

/// The program, in a sealed memfd: what enters containers is executed from there, and no path leads to a file on the
/// host that could be overwritten (CVE-2019-5736). All supervisors share its pages.
#[derive(Debug)]
pub struct Program {
    memfd: OwnedFd,
}

impl Program {
    pub fn load(path: &Path) -> Result<Program, SupervisorError> {
        let failed = |source| SupervisorError::Program { path: path.to_owned(), source };
        let mut file = std::fs::File::open(path).map_err(failed)?;
        let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
        let memfd = rustix::fs::memfd_create("gantry-supervisor", flags).map_err(|e| failed(e.into()))?;
        let mut copy = std::fs::File::from(memfd);
        io::copy(&mut file, &mut copy).map_err(failed)?;
        rustix::fs::fchmod(&copy, rustix::fs::Mode::from_raw_mode(0o500)).map_err(|e| failed(e.into()))?;
        seal(&copy).map_err(failed)?;
        Ok(Program { memfd: copy.into() })
    }

    /// Starts a supervisor for the sandbox in `dir`; comes back once its socket listens. Blocks for some milliseconds.
    pub fn spawn(&self, dir: &Path, cgroups: &[PathBuf]) -> Result<(), SupervisorError> {
        let complete = |command: &mut Command| {
            command.arg(dir).args(cgroups);
        };
        self.start(complete, b"")
    }

    /// Makes a pid namespace beside the sandbox's other `pins`, with a first process in `cgroups`. Blocks likewise.
    pub fn hold_pids(&self, pins: &Path, cgroups: &[PathBuf]) -> Result<(), SupervisorError> {
        let mut order = Vec::new();
        for path in std::iter::once(pins).chain(cgroups.iter().map(PathBuf::as_path)) {
            order.extend_from_slice(path.as_os_str().as_bytes());
            order.push(0);
        }
        let complete = |command: &mut Command| {
            command.arg0(OsStr::from_bytes(layout::FIRST_PROCESS.to_bytes()));
        };
        self.start(complete, &order)
    }

    /// Makes the namespaces of a pod with users of its own, at their `pins`. Blocks likewise.
    pub fn make_namespaces(&self, pins: &Path, uids: IdRange, gids: IdRange) -> Result<(), SupervisorError> {
        self.order_of_maker(pins.as_os_str(), uids, gids)
    }

    /// Whether this host has such namespaces, and maps ids in the file system of `folder`. Blocks likewise.
    pub fn probe_namespaces(&self, folder: &Path) -> Result<(), SupervisorError> {
        let ids = IdRange { host: 1 << 16, length: 1 << 16 };
        let mut order = std::ffi::OsString::from("probe:");
        order.push(folder);
        self.order_of_maker(&order, ids, ids)
    }

    fn order_of_maker(&self, what: &OsStr, uids: IdRange, gids: IdRange) -> Result<(), SupervisorError> {
        let mut order = what.as_bytes().to_vec();
        order.push(0);
        for number in [uids.host, uids.length, gids.host, gids.length] {
            order.extend_from_slice(format!("{number}\0").as_bytes());
        }
        let complete = |command: &mut Command| {
            command.arg0(OsStr::from_bytes(layout::MAKER.to_bytes()));
        };
        self.start(complete, &order)
    }

    /// Runs the program until it, or what it leaves behind, closes its standard error.
    fn start(&self, complete: impl FnOnce(&mut Command), input: &[u8]) -> Result<(), SupervisorError> {
        let path = PathBuf::from(format!("/proc/self/fd/{}", self.memfd.as_raw_fd()));
        let failed = |source| SupervisorError::Spawn { path: path.clone(), source };
        // No folder to start in, which the supervisor chooses itself: the standard library of a static program would fork for
        // that, and copy the tables of all our pages, where it spawns without.
        let mut command = Command::new(&path);
        complete(&mut command);
        command.env_clear().stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        #[cfg(debug_assertions)]
        command.envs(std::env::var_os(gantry_base::fault::ORDER).map(|file| (gantry_base::fault::ORDER, file)));
        point(Point::ProgramStart);
        let mut child = command.spawn().map_err(failed)?;
        // It is less than a pipe holds; one that has ended already says why itself.
        let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input));
        let output = child.wait_with_output().map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(SupervisorError::Refused { status: output.status, words })
    }
}

/// What a supervisor says unasked, in the order in which it says it.
#[derive(Debug)]
pub enum Notice {
    Started {
        unit: Unit,
        pid: i32,
        start_ticks: u64,
        fds: Vec<OwnedFd>,
    },
    Exited {
        container: Id,
    },
    /// So many bytes of its log were dropped by now: the disk stands still.
    LogLost {
        container: Id,
        bytes: u64,
    },
    Gone,
}

/// Hears notices, on the task that reads the socket: it must not block for long.
pub trait Listener: Send + Sync + 'static {
    fn notice(&self, sandbox: &str, notice: Notice);
}

type Reply = Result<(Event, Vec<OwnedFd>), SupervisorError>;

#[derive(Debug, Default)]
struct Waiting {
    replies: HashMap<u64, oneshot::Sender<Reply>>,
    execs: HashMap<String, oneshot::Sender<i32>>,
    gone: bool,
}

/// A connection to a supervisor.
#[derive(Debug)]
pub struct Link {
    socket: AsyncFd<OwnedFd>,
    seq: AtomicU64,
    waiting: Mutex<Waiting>,
    /// The supervisor itself, by SO_PEERCRED.
    pub pid: i32,
}

impl Link {
    /// Connects to the supervisor of the sandbox in `dir`; `first_seq` is random, so that answers to a runtime before
    /// this one are not taken for ours.
    pub fn connect(
        dir: &Path,
        sandbox: &str,
        first_seq: u64,
        listener: Weak<dyn Listener>,
    ) -> Result<Arc<Link>, SupervisorError> {
        let failed = |source: io::Error| SupervisorError::Connect { dir: dir.to_owned(), source };
        let socket = dial(dir).map_err(|e| failed(e.into()))?;
        let peer = rustix::net::sockopt::socket_peercred(&socket).map_err(|e| failed(e.into()))?;
        let socket = crate::sys::async_fd(socket).map_err(failed)?;
        let link = Arc::new(Link {
            socket,
            seq: AtomicU64::new(first_seq),
            waiting: Mutex::default(),
            pid: peer.pid.as_raw_nonzero().get(),
        });
        tokio::spawn(read_events(Arc::clone(&link), sandbox.to_owned(), listener));
        Ok(link)
    }

    pub fn is_gone(&self) -> bool {
        self.waiting.lock().gone
    }

    /// Sends a request made with a fresh number and waits for its answer.
    async fn ask(&self, request: impl FnOnce(u64) -> Request, fds: &[OwnedFd]) -> Reply {
        let seq = self.seq.fetch_add(1, Ordering::Relaxed);
        let (tx, rx) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            if waiting.gone {
                return Err(SupervisorError::Gone);
            }
            waiting.replies.insert(seq, tx);
        }
        let frame = frame::encode(&request(seq));
        point(Point::Ask);
        let sent = self
            .socket
            .async_io(Interest::WRITABLE, |socket| {
                let borrowed: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
                packet::send(socket, &frame, &borrowed)
            })
            .await;
        if let Err(e) = sent {
            self.waiting.lock().replies.remove(&seq);
            return Err(SupervisorError::Send(e));
        }
        match tokio::time::timeout(REPLY_TIMEOUT, rx).await {
            Ok(reply) => reply.unwrap_or(Err(SupervisorError::Gone)),
            Err(_) => {
                self.waiting.lock().replies.remove(&seq);
                Err(SupervisorError::Timeout)
            }
        }
    }

    async fn done(&self, request: impl FnOnce(u64) -> Request, fds: &[OwnedFd]) -> Result<(), SupervisorError> {
        match self.ask(request, fds).await?.0 {
            Event::Done { .. } => Ok(()),
            _ => Err(SupervisorError::Confused),
        }
    }

    /// Creates and starts a container, in another's pid namespace where one is given. That it runs is told to the listener
    /// first.
    pub async fn start(&self, unit: Unit, pids: Option<OwnedFd>) -> Result<(), SupervisorError> {
        match self.ask(|seq| Request::Start { seq, unit }, pids.as_slice()).await?.0 {
            Event::Started { .. } => Ok(()),
            _ => Err(SupervisorError::Confused),
        }
    }

    /// Runs a further process; its pidfd (and terminal), and what will tell its exit code.
    pub async fn exec(
        &self,
        container: Id,
        exec: Id,
        tty: bool,
        fds: Vec<OwnedFd>,
    ) -> Result<(Vec<OwnedFd>, oneshot::Receiver<i32>), SupervisorError> {
        let (tx, rx) = oneshot::channel();
        self.waiting.lock().execs.insert(exec.to_string(), tx);
        let name = exec.to_string();
        match self.ask(|seq| Request::Exec { seq, container, exec, tty }, &fds).await {
            Ok((Event::ExecStarted { .. }, fds)) => Ok((fds, rx)),
            // It may start yet, and is known by its name then.
            Err(SupervisorError::Timeout) => Err(SupervisorError::Timeout),
            other => {
                self.waiting.lock().execs.remove(&name);
                Err(other.err().unwrap_or(SupervisorError::Confused))
            }
        }
    }

    pub async fn signal(&self, container: Id, signal: i32) -> Result<(), SupervisorError> {
        self.done(|seq| Request::Signal { seq, container, signal }, &[]).await
    }

    pub async fn reopen_log(&self, container: Id) -> Result<(), SupervisorError> {
        self.done(|seq| Request::ReopenLog { seq, container }, &[]).await
    }

    pub async fn attach(&self, container: Id, fds: Vec<OwnedFd>) -> Result<(), SupervisorError> {
        self.done(|seq| Request::Attach { seq, container }, &fds).await
    }

    pub async fn close_stdin(&self, container: Id) -> Result<(), SupervisorError> {
        self.done(|seq| Request::CloseStdin { seq, container }, &[]).await
    }

    pub async fn forget(&self, container: Id) -> Result<(), SupervisorError> {
        self.done(|seq| Request::Forget { seq, container }, &[]).await
    }

    pub async fn adopt(&self, unit: Unit, pid: i32, fds: Vec<OwnedFd>) -> Result<(), SupervisorError> {
        self.done(|seq| Request::Adopt { seq, unit, pid }, &fds).await
    }

    /// Asks what runs; each is told to the listener as started, and each end as an end.
    pub async fn describe(&self) -> Result<(), SupervisorError> {
        self.done(|seq| Request::Describe { seq }, &[]).await
    }

    pub async fn leave(&self) -> Result<(), SupervisorError> {
        self.done(|seq| Request::Leave { seq }, &[]).await
    }
}

/// A socket's path may not be longer than 107 bytes: it is reached through its folder's descriptor.
fn dial(dir: &Path) -> rustix::io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let folder = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let near = layout::socket(&PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())));
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(near)?)?;
    Ok(socket)
}

async fn read_events(link: Arc<Link>, sandbox: String, listener: Weak<dyn Listener>) {
    loop {
        let packet = link.socket.async_io(Interest::READABLE, |socket| packet::receive(socket)).await;
        let (bytes, fds) = match packet {
            Ok(Some(packet)) => packet,
            Ok(None) => break,
            Err(error) => {
                tracing::debug!(sandbox, %error, "supervisor connection broke");
                break;
            }
        };
        match frame::decode::<Event>(&bytes) {
            Ok(event) => dispatch(&link, &sandbox, &listener, event, fds),
            Err(error) => tracing::warn!(sandbox, %error, "frame not understood"),
        }
    }
    {
        let mut waiting = link.waiting.lock();
        waiting.gone = true;
        // Dropping a sender tells its receiver that nothing will come.
        waiting.replies.clear();
        waiting.execs.clear();
    }
    if let Some(listener) = listener.upgrade() {
        listener.notice(&sandbox, Notice::Gone);
    }
}

fn dispatch(link: &Link, sandbox: &str, listener: &Weak<dyn Listener>, event: Event, fds: Vec<OwnedFd>) {
    let notice = |notice| {
        if let Some(listener) = listener.upgrade() {
            listener.notice(sandbox, notice);
        }
    };
    let answer = |seq: u64, reply: Reply| {
        if let Some(waiting) = link.waiting.lock().replies.remove(&seq) {
            let _ = waiting.send(reply);
        }
    };
    match event {
        Event::Done { seq } => answer(seq, Ok((event, fds))),
        Event::Failed { seq, message } => answer(seq, Err(SupervisorError::Failed(message))),
        Event::ExecStarted { seq, ref exec } => {
            let given_up = link.waiting.lock().execs.get(exec.as_str()).is_some_and(oneshot::Sender::is_closed);
            match fds.first() {
                Some(pidfd) if given_up => {
                    let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
                }
                _ => answer(seq, Ok((event, fds))),
            }
        }
        // Told before it is answered: an end that follows at once must find the container running.
        Event::Started { seq, ref unit, pid, start_ticks } => {
            notice(Notice::Started { unit: unit.clone(), pid, start_ticks, fds });
            answer(seq, Ok((event, Vec::new())));
        }
        Event::Running { unit, pid, start_ticks } => notice(Notice::Started { unit, pid, start_ticks, fds }),
        Event::Exited { container } => notice(Notice::Exited { container }),
        Event::LogLost { container, bytes } => notice(Notice::LogLost { container, bytes }),
        Event::ExecExited { exec, code } => {
            if let Some(waiting) = link.waiting.lock().execs.remove(exec.as_str()) {
                let _ = waiting.send(code);
            }
        }
    }
}
