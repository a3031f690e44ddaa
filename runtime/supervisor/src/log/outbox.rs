//! The supervisor's end of its logs: what it hands to the writer, and what becomes of it while the writer stands still.
//!
//! ```text
//!   Even ─(the socket is full)─► Behind ─(for PATIENCE_SECONDS)─► Dropping
//!     ▲                            │                                 │
//!     └──(everything is sent)──────┴─────────────────────────────────┘
//! ```

use std::collections::VecDeque;
use std::io;
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use gantry_base::codec::Wire;
use gantry_base::frame;
use gantry_base::log::LogLimits;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType};

use super::unfinished::Notes;
use super::{Answer, DATA_MAX_BYTES, Order, writer};
use crate::fault::{Point, point};
use crate::sys::{self, Forked};
use crate::unit;

/// How long containers wait for a disk that takes nothing.
pub const PATIENCE_SECONDS: i64 = 10;
/// How often it is told of what is dropped, for as long as that goes on.
const TELL_SECONDS: i64 = 60;

/// A log of a container.
#[derive(Debug)]
pub struct Known {
    pub id: u64,
    pub path: String,
    pub limits: LogLimits,
    /// Dropped since the last that was sent.
    dropped: u64,
    lost: Lost,
}

/// What a container lost of its log: bytes altogether, and when that was told last.
#[derive(Debug, Default)]
struct Lost {
    bytes: u64,
    told: u64,
    told_at: i64,
}

/// The writer's process. Its end of the socket is kept here too, so that what it has not taken outlives it.
#[derive(Debug)]
struct Process {
    socket: OwnedFd,
    theirs: OwnedFd,
    notes: Notes,
    pidfd: OwnedFd,
}

#[derive(Debug)]
pub struct Outbox {
    sandbox: PathBuf,
    process: Option<Process>,
    logs: Vec<Known>,
    waiting: VecDeque<Vec<u8>>,
    /// When the writer last took something, while it has something to take.
    since: i64,
    last_id: u64,
    last_token: u64,
    last_serial: u64,
}

impl Outbox {
    pub fn new(sandbox: &Path) -> Outbox {
        Outbox {
            sandbox: sandbox.to_owned(),
            process: None,
            logs: Vec::new(),
            waiting: VecDeque::new(),
            since: 0,
            last_id: 0,
            last_token: 0,
            last_serial: 0,
        }
    }

    /// A log by the number that it is called from now on; 0 where nothing is to be written.
    pub fn open(&mut self, path: &str, limits: LogLimits) -> u64 {
        if path.is_empty() {
            return 0;
        }
        self.last_id += 1;
        let id = self.last_id;
        self.logs.push(Known { id, path: path.to_owned(), limits, dropped: 0, lost: Lost::default() });
        // One that is yet to be forked knows it by then.
        if self.process.is_some() {
            self.send(&Order::Open { log: id, path: path.to_owned(), limits }, &[]);
        }
        id
    }

    /// What a container has said on a stream.
    pub fn data(&mut self, log: u64, stream: u8, bytes: &[u8]) {
        debug_assert!(bytes.len() <= DATA_MAX_BYTES);
        let dropping = self.is_dropping() || !self.run();
        if dropping {
            let Some(known) = self.logs.iter_mut().find(|known| known.id == log) else { return };
            known.dropped += bytes.len() as u64;
            known.lost.bytes += bytes.len() as u64;
            return;
        }
        self.note_losses();
        let (seconds, nanos) = sys::now();
        self.last_serial += 1;
        self.send(&Order::Data { log, stream, serial: self.last_serial, seconds, nanos }, bytes);
    }

    /// A stream is at its end.
    pub fn end(&mut self, log: u64, stream: u8) {
        if log != 0 && self.process.is_some() {
            let (seconds, nanos) = sys::now();
            self.last_serial += 1;
            self.send(&Order::End { log, stream, serial: self.last_serial, seconds, nanos }, &[]);
        }
    }

    /// The token of the answer that comes when everything of a log is written; None where there is nothing to wait for.
    pub fn flush(&mut self, log: u64) -> Option<u64> {
        self.process.as_ref()?;
        self.ask(log, |log, token| Order::Flush { log, token })
    }

    /// The token of the answer that says whether the log was opened anew.
    pub fn reopen(&mut self, log: u64) -> io::Result<Option<u64>> {
        if log != 0 && !self.run() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(self.ask(log, |log, token| Order::Reopen { log, token }))
    }

    fn ask(&mut self, log: u64, order: impl FnOnce(u64, u64) -> Order) -> Option<u64> {
        self.logs.iter().find(|known| known.id == log)?;
        self.last_token += 1;
        let token = self.last_token;
        self.send(&order(log, token), &[]);
        Some(token)
    }

    /// Its container is forgotten.
    pub fn close(&mut self, log: u64) {
        self.logs.retain(|known| known.id != log);
        if log != 0 && self.process.is_some() {
            self.send(&Order::Close { log }, &[]);
        }
    }

    /// Whether containers have to wait.
    pub fn is_behind(&self) -> bool {
        !self.waiting.is_empty() && !self.is_dropping()
    }

    fn is_dropping(&self) -> bool {
        !self.waiting.is_empty() && sys::uptime() - self.since >= PATIENCE_SECONDS
    }

    /// Whether the socket is waited for to take more.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The socket, for answers and for room; the writer's pidfd, which can be read once it has ended.
    pub fn descriptors(&self) -> Option<(BorrowedFd<'_>, BorrowedFd<'_>)> {
        self.process.as_ref().map(|process| (process.socket.as_fd(), process.pidfd.as_fd()))
    }

    fn send(&mut self, order: &Order, data: &[u8]) {
        let mut head = Vec::new();
        order.put(&mut head);
        if self.waiting.is_empty() {
            self.since = sys::uptime();
            if let Some(process) = &self.process
                && sent(process.socket.as_fd(), &head, data)
            {
                return;
            }
        }
        head.extend_from_slice(data);
        self.waiting.push_back(head);
    }

    /// Sends what waits, as far as the socket takes it, and then how much was dropped meanwhile.
    pub fn hand_over(&mut self) {
        while let (Some(packet), Some(process)) = (self.waiting.front(), &self.process) {
            if !sent(process.socket.as_fd(), packet, &[]) {
                return;
            }
            self.since = sys::uptime();
            self.waiting.pop_front();
        }
        if self.process.is_some() {
            self.note_losses();
        }
    }

    /// Where lines are missing, the log says so.
    fn note_losses(&mut self) {
        let (seconds, nanos) = sys::now();
        for at in 0..self.logs.len() {
            let Known { id: log, dropped, .. } = &mut self.logs[at];
            let (log, bytes) = (*log, std::mem::take(dropped));
            if bytes > 0 {
                self.send(&Order::Lost { log, bytes, seconds, nanos }, &[]);
            }
        }
    }

    /// What the writer answers.
    pub fn answers(&mut self) -> Vec<Answer> {
        let mut answers = Vec::new();
        let Some(process) = &self.process else { return answers };
        let mut packet = [0; 4096];
        while let Ok((_, length @ 1..)) =
            rustix::net::recv(&process.socket, &mut packet[..], rustix::net::RecvFlags::DONTWAIT)
        {
            answers.extend(frame::decode::<Answer>(&packet[..length]).ok());
        }
        answers
    }

    /// The writer has been killed: another takes its place at the same socket.
    pub fn replace(&mut self) {
        if let Some(Process { socket, theirs, notes, .. }) = self.process.take() {
            self.process = self.fork(socket, theirs, notes, true).ok();
        }
    }

    /// Makes sure of a writer; false where there can be none now.
    pub fn run(&mut self) -> bool {
        if self.process.is_none() {
            let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
            let pair = rustix::net::socketpair(family, kind, SocketFlags::CLOEXEC, None).map_err(io::Error::from);
            let made = pair.and_then(|(ours, theirs)| Ok((ours, theirs, Notes::new()?)));
            self.process = made.and_then(|(ours, theirs, notes)| self.fork(ours, theirs, notes, false)).ok();
        }
        self.process.is_some()
    }

    fn fork(&self, socket: OwnedFd, theirs: OwnedFd, notes: Notes, heir: bool) -> io::Result<Process> {
        point(Point::LogFork);
        match sys::fork_into(None)? {
            Forked::Child => {
                // Held open here, the supervisor's connections would hide its end, and its end of this one our own.
                sys::close_all_but([theirs.as_fd(), notes.as_fd()]);
                writer::serve(theirs.as_fd(), &notes, &self.sandbox, &self.logs, heir)
            }
            Forked::Parent(pid) => Ok(Process { socket, theirs, notes, pidfd: unit::keep_child(pid)? }),
        }
    }

    /// Logs that have lost more than was told, with how much it is by now. Told when it begins, now and then, and at its end.
    pub fn losses(&mut self) -> Vec<(u64, u64)> {
        let (now, dropping) = (sys::uptime(), self.is_dropping());
        let due = |Known { lost, dropped, .. }: &Known| {
            let over = !dropping && *dropped == 0;
            lost.bytes > lost.told && (over || lost.told == 0 || now - lost.told_at >= TELL_SECONDS)
        };
        let mut losses = Vec::new();
        for known in self.logs.iter_mut().filter(|known| due(known)) {
            (known.lost.told, known.lost.told_at) = (known.lost.bytes, now);
            losses.push((known.id, known.lost.bytes));
        }
        losses
    }
}

/// False where the socket is full.
fn sent(socket: BorrowedFd<'_>, head: &[u8], data: &[u8]) -> bool {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    loop {
        let parts = [IoSlice::new(head), IoSlice::new(data)];
        match rustix::net::sendmsg(socket, &parts, &mut SendAncillaryBuffer::default(), flags) {
            Ok(_) => return true,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::RecvFlags;

    use super::*;

    #[test]
    fn the_longest_order_is_one_packet_and_a_full_socket_takes_none() {
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let (ours, theirs) = rustix::net::socketpair(family, kind, SocketFlags::CLOEXEC, None).unwrap();
        let (head, data) = ([1; 100], vec![2; DATA_MAX_BYTES]);
        let mut count = 0;
        while sent(ours.as_fd(), &head, &data) {
            count += 1;
        }
        assert!(count > 1);
        let mut packet = vec![0; 2 * DATA_MAX_BYTES];
        for _ in 0..count {
            let (_, length) = rustix::net::recv(&theirs, &mut packet[..], RecvFlags::DONTWAIT).unwrap();
            assert_eq!(length, head.len() + data.len());
        }
        assert!(rustix::net::recv(&theirs, &mut packet[..], RecvFlags::DONTWAIT).is_err(), "and no more");
    }
}
