//! One container as its supervisor keeps it: pidfd, output, log, attachers, and how it ended.
//!
//! ```text
//!   Start ─► creator ─► Running ─► Ended ─► (Forget) gone
//!   Adopt ───────────────┘
//! ```

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use gantry_base::codec::Wire;
use gantry_base::exit::{ExitRecord, UNKNOWN_EXIT_CODE};
use gantry_base::frame::Unit;
use gantry_base::layout;
use gantry_base::log::LogLimits;
use rustix::fs::{Mode, OFlags};
use rustix::process::{PidfdFlags, WaitIdOptions};

use crate::attach::Attachers;
use crate::fault::{Point, point};
use crate::log::outbox::Outbox;
use crate::log::{DATA_MAX_BYTES, STDERR, STDOUT};
use crate::sys;

/// Bytes taken from a stream at once, and from one stream before the others get their turn.
const READ_BYTES: usize = DATA_MAX_BYTES;
const TURN_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub struct Stream {
    name: &'static str,
    number: u8,
    pub fd: OwnedFd,
}

/// An end that nobody has heard of yet.
#[derive(Clone, Copy, Debug)]
pub struct News {
    /// Of the writer's answer.
    pub token: u64,
    pub until: i64,
}

#[derive(Debug)]
pub struct Container {
    pub unit: Unit,
    pub pid: i32,
    pub start_ticks: u64,
    pub pidfd: OwnedFd,
    /// The terminal's master, or the write end of stdin.
    pub input: Option<OwnedFd>,
    pub streams: Vec<Stream>,
    /// Its number in the outbox.
    pub log: u64,
    /// It has ended, and its last lines are on their way.
    pub news: Option<News>,
    pub attachers: Attachers,
    pub bundle: PathBuf,
    /// Started by a supervisor before this one, so not our child.
    adopted: bool,
    pub ended: bool,
    /// Of no use to the runtime any more; here for those who have not read all of its output yet.
    pub forgotten: bool,
}

/// Opens the reading ends of a bundle's FIFOs. For a start, before the container has the other ends: what is written into
/// a FIFO that nobody holds open any more is lost.
pub fn open_readers(bundle: &Path) -> io::Result<Vec<OwnedFd>> {
    [layout::STDOUT, layout::STDERR].iter().map(|file| open_reader(&bundle.join(file))).collect()
}

/// Opens the reading end of a FIFO.
fn open_reader(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?)
}

/// Opens what a container gets as an output. It is open for reading too: when its reader dies, the container sees no
/// SIGPIPE, and what it wrote waits for the next one.
pub fn open_output(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?)
}

/// Field 22 of /proc/PID/stat: what tells a process from a later one of the same number.
pub fn start_ticks(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = text.rsplit_once(") ").map_or("", |(_, rest)| rest);
    after_name.split(' ').nth(19).and_then(|t| t.parse().ok()).unwrap_or(0)
}

impl Container {
    #[allow(clippy::too_many_arguments, reason = "each is of one kind, and there are two callers")]
    pub fn new(
        sandbox: &Path,
        unit: Unit,
        pid: i32,
        pidfd: OwnedFd,
        input: Option<OwnedFd>,
        readers: Vec<OwnedFd>,
        adopted: bool,
        outbox: &mut Outbox,
    ) -> io::Result<Container> {
        let bundle = layout::bundle(sandbox, &unit.id);
        let mut streams = Vec::new();
        if unit.tty {
            if let Some(master) = &input {
                let fd = rustix::io::fcntl_dupfd_cloexec(master, 3)?;
                rustix::io::ioctl_fionbio(&fd, true)?;
                streams.push(Stream { name: "stdout", number: STDOUT, fd });
            }
        } else {
            for ((name, number), fd) in [("stdout", STDOUT), ("stderr", STDERR)].into_iter().zip(readers) {
                streams.push(Stream { name, number, fd });
            }
        }
        let log = outbox.open(&unit.log_path, log_limits(&bundle));
        let start_ticks = start_ticks(pid);
        Ok(Container {
            unit,
            pid,
            start_ticks,
            pidfd,
            input,
            streams,
            log,
            news: None,
            attachers: Attachers::default(),
            bundle,
            adopted,
            ended: false,
            forgotten: false,
        })
    }

    /// Reads what stream `index` has, up to a turn's worth, or to where a reader or the log falls behind.
    pub fn pump(&mut self, index: usize, outbox: &mut Outbox) {
        self.take(index, false, outbox);
    }

    /// A stream at its end is removed. The log of a container that has ended waits for no reader.
    fn take(&mut self, index: usize, ended: bool, outbox: &mut Outbox) {
        let Some(stream) = self.streams.get_mut(index) else { return };
        let mut buffer = [0u8; READ_BYTES];
        let mut taken = 0;
        let mut at_end = false;
        // Before it is read, there is someone to hand it to: a kill in between costs what was read.
        if self.log != 0 && rustix::io::ioctl_fionread(&stream.fd).is_ok_and(|bytes| bytes > 0) {
            outbox.run();
        }
        while taken < TURN_BYTES && (ended || !(self.attachers.are_behind() || outbox.is_behind())) {
            match rustix::io::read(&stream.fd, &mut buffer) {
                Ok(0) => {
                    at_end = true;
                    break;
                }
                Ok(n) => {
                    taken += n;
                    point(Point::Output);
                    if self.log != 0 {
                        outbox.data(self.log, stream.number, &buffer[..n]);
                    }
                    self.attachers.give(stream.name, &buffer[..n], sys::uptime());
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                // A master whose last slave is closed answers EIO.
                Err(_) => {
                    at_end = true;
                    break;
                }
            }
        }
        if at_end {
            outbox.end(self.log, stream.number);
            self.streams.remove(index);
            if self.streams.is_empty() {
                self.attachers.end();
            }
        }
    }

    /// Pipes for stdout and, where there is one, stderr.
    pub fn attach(&mut self, fds: Vec<OwnedFd>) -> io::Result<()> {
        // Of a container whose output is at its end nothing more comes: the pipes close.
        if self.streams.is_empty() {
            return Ok(());
        }
        ["stdout", "stderr"].into_iter().zip(fds).try_for_each(|(stream, fd)| self.attachers.add(stream, fd))
    }

    pub fn signal(&self, signal: i32) -> io::Result<()> {
        if self.ended {
            return Ok(());
        }
        match sys::pidfd_send(self.pidfd.as_fd(), signal) {
            Err(e) if e.raw_os_error() != Some(libc::ESRCH) => Err(e),
            _ => Ok(()),
        }
    }

    /// The first process has ended: learns its status, takes what is left of its output, writes the record.
    pub fn end(&mut self, outbox: &mut Outbox) -> io::Result<()> {
        let status = if self.adopted { self.adopted_status() } else { exit_status(self.pidfd.as_fd()) };
        self.conclude(status, outbox)
    }

    /// The status of a process that someone else reaps: while it is a zombie /proc has it, afterwards its pidfd (from Linux
    /// 6.15). It may change from one to the other between two looks, so the pidfd is asked on both sides.
    fn adopted_status(&self) -> Option<i32> {
        let raw = sys::pidfd_exit_status(self.pidfd.as_fd())
            .or_else(|| zombie_status(self.pid, self.start_ticks))
            .or_else(|| sys::pidfd_exit_status(self.pidfd.as_fd()))?;
        Some(code_of_raw(raw))
    }

    /// As [`Container::end`], for a status that the reaper of orphans came upon.
    pub fn conclude(&mut self, status: Option<i32>, outbox: &mut Outbox) -> io::Result<()> {
        if self.ended {
            return Ok(());
        }
        self.ended = true;
        self.input = None;
        for index in (0..self.streams.len()).rev() {
            self.take(index, true, outbox);
        }
        let (seconds, nanos) = sys::now();
        let record = ExitRecord {
            code: status.unwrap_or(UNKNOWN_EXIT_CODE),
            finished_at_ns: seconds * 1_000_000_000 + i64::from(nanos),
            unknown: status.is_none(),
        };
        let mut bytes = Vec::new();
        record.put(&mut bytes);
        let new = self.bundle.join("exit.new");
        point(Point::ExitWrite);
        write_private(&new, &bytes)?;
        point(Point::ExitRename);
        std::fs::rename(new, self.bundle.join(layout::EXIT))
    }

    /// What the runtime keeps a second copy of, so that a killed supervisor costs nothing.
    pub fn kept_fds(&self) -> Vec<BorrowedFd<'_>> {
        std::iter::once(self.pidfd.as_fd()).chain(self.input.iter().map(|fd| fd.as_fd())).collect()
    }
}

/// None for containers from before supervisors rotated: their logs are rotated by whoever did so then.
fn log_limits(bundle: &Path) -> LogLimits {
    const LIMITS_MAX_BYTES: u64 = 256;
    let mut bytes = Vec::new();
    let file = File::open(bundle.join(layout::LOG_LIMITS));
    let read = file.and_then(|file| file.take(LIMITS_MAX_BYTES).read_to_end(&mut bytes));
    read.ok().and_then(|_| LogLimits::take(&mut bytes.as_slice()).ok()).unwrap_or_default()
}

/// The exit code as CRI says it, of a child that its pidfd says has ended.
pub fn exit_status(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let id = rustix::process::WaitId::PidFd(pidfd);
    match rustix::process::waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
        Ok(Some(status)) => code_of(&status),
        _ => sys::pidfd_exit_status(pidfd).map(code_of_raw),
    }
}

fn code_of_raw(raw: i32) -> i32 {
    if raw & 0x7f == 0 { (raw >> 8) & 0xff } else { 128 + (raw & 0x7f) }
}

/// Field 52 of /proc/PID/stat, if that is still our process and a zombie.
fn zombie_status(pid: i32, start_ticks: u64) -> Option<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split_whitespace().collect();
    let ours = fields.first() == Some(&"Z") && fields.get(19)?.parse() == Ok(start_ticks);
    if ours { fields.get(49)?.parse().ok() } else { None }
}

pub fn code_of(status: &rustix::process::WaitIdStatus) -> Option<i32> {
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal))
}

pub fn open_pidfd(pid: i32) -> io::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Of a child that has just been forked: one that cannot be kept is not to run.
pub fn keep_child(pid: i32) -> io::Result<OwnedFd> {
    open_pidfd(pid).inspect_err(|_| {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    })
}

/// /dev/null, for a container without stdin.
pub fn null() -> io::Result<OwnedFd> {
    Ok(OwnedFd::from(File::open("/dev/null")?))
}

/// What is kept of a container is for root alone, wherever the folder is seen from.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, bytes)
}
