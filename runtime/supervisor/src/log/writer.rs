//! The process that writes a pod's logs, and waits for their disk.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::path::Path;

use gantry_base::codec::Wire;
use gantry_base::{frame, layout};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::file::LogFile;
use super::outbox::Known;
use super::unfinished::{Beginnings, Note, Notes};
use super::{Answer, DATA_MAX_BYTES, Order, Partial, STREAMS, stamp};
use crate::fault::{Point, point};
use crate::sys;

/// An order is a number or three, or a path.
const ORDER_MAX_BYTES: usize = 8 << 10;

struct Written {
    file: LogFile,
    partials: [Partial; STREAMS.len()],
    /// Another writer may have been killed over what comes first.
    taken_up: bool,
}

impl Written {
    fn write(&mut self, lines: &[u8]) {
        let there = if std::mem::replace(&mut self.taken_up, true) { 0 } else { self.file.take_up(lines) };
        point(Point::LogWrite);
        self.file.write(&lines[there..]);
        point(Point::LogWritten);
    }
}

struct Writer<'a> {
    logs: BTreeMap<u64, Written>,
    notes: &'a Notes,
    /// It takes up what another was killed over.
    heir: bool,
    /// The packet that he had done with last, of those after which something was unfinished.
    noted: u64,
}

/// Runs in the forked child until its supervisor has gone and everything is written. `known` are the logs that were open
/// before the fork.
pub fn serve(socket: BorrowedFd<'_>, notes: &Notes, sandbox: &Path, known: &[Known], heir: bool) -> ! {
    let _ = rustix::thread::set_name(c"gantry-log");
    // Lines of the supervisor before this one's come first.
    let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let lock = rustix::fs::open(sandbox.join(layout::LOG_LOCK), flags, Mode::from_raw_mode(0o600));
    let _held = lock.and_then(|lock| rustix::fs::flock(&lock, FlockOperation::LockExclusive).map(|()| lock));
    let mut writer = Writer { logs: BTreeMap::new(), notes, heir, noted: 0 };
    for log in known {
        writer.open(log.id, &log.path, log.limits);
    }
    writer.take_up();
    let mut packet = vec![0; ORDER_MAX_BYTES + DATA_MAX_BYTES];
    // Taken out of the socket once it is done: a writer that is killed leaves it to the next.
    while let Some(length) = receive(socket, &mut packet, RecvFlags::PEEK) {
        let answer = writer.obey(&packet[..length]);
        receive(socket, &mut [], RecvFlags::empty());
        if let Some(answer) = answer {
            let _ = rustix::net::send(socket, &frame::encode(&answer), SendFlags::NOSIGNAL);
        }
    }
    writer.end();
    sys::exit_now(0)
}

/// None once nobody can send any more. A supervisor that has left an answer unread resets the connection, and what it sent
/// is there all the same.
fn receive(socket: BorrowedFd<'_>, packet: &mut [u8], flags: RecvFlags) -> Option<usize> {
    loop {
        match rustix::net::recv(socket, &mut *packet, flags) {
            Ok((_, 0)) if flags.contains(RecvFlags::PEEK) => return None,
            Ok((_, length)) => return Some(length.min(packet.len())),
            Err(Errno::INTR | Errno::CONNRESET) => {}
            Err(_) => return None,
        }
    }
}

impl Writer<'_> {
    fn open(&mut self, log: u64, path: &str, limits: gantry_base::log::LogLimits) {
        let file = LogFile::new(path, limits);
        self.logs.insert(log, Written { file, partials: Default::default(), taken_up: !self.heir });
    }

    fn obey(&mut self, packet: &[u8]) -> Option<Answer> {
        let mut data = packet;
        let order = Order::take(&mut data).ok()?;
        match order {
            Order::Open { log, path, limits } => self.open(log, &path, limits),
            Order::Data { log, stream, serial, seconds, nanos } => {
                let stamp = stamp(stream, seconds, nanos);
                self.take(log, stream, serial, |partial, lines| partial.feed(data, &stamp, lines));
            }
            Order::End { log, stream, serial, seconds, nanos } => {
                let stamp = stamp(stream, seconds, nanos);
                self.take(log, stream, serial, |partial, lines| partial.finish(&stamp, lines));
            }
            Order::Lost { log, bytes, seconds, nanos } => {
                let log = self.logs.get_mut(&log)?;
                // What comes next is not the end of what was begun.
                let mut lines = Vec::new();
                for (stream, partial) in (0..).zip(&mut log.partials) {
                    partial.finish(&stamp(stream, seconds, nanos), &mut lines);
                }
                log.write(&lines);
                log.file.lose(bytes);
            }
            Order::Flush { token, .. } => return Some(Answer { token, error: String::new() }),
            Order::Reopen { log, token } => {
                let reopened = self.logs.get_mut(&log)?.file.reopen();
                return Some(Answer { token, error: reopened.err().map(|e| e.to_string()).unwrap_or_default() });
            }
            Order::Close { log } => drop(self.logs.remove(&log)),
        }
        None
    }

    fn take(&mut self, log: u64, stream: u8, serial: u64, take: impl FnOnce(&mut Partial, &mut Vec<u8>)) {
        let Some(log) = self.logs.get_mut(&log).filter(|_| serial > self.noted) else { return };
        let partial = &mut log.partials[usize::from(stream) % STREAMS.len()];
        let (begun, mut lines) = (!partial.0.is_empty(), Vec::new());
        take(partial, &mut lines);
        let begun = begun || !partial.0.is_empty();
        log.write(&lines);
        if begun {
            let beginnings = |(log, written): (&u64, &Written)| {
                let [stdout, stderr] = [&written.partials[0], &written.partials[1]].map(|partial| partial.0.clone());
                Beginnings { log: *log, stdout, stderr }
            };
            self.notes.save(&Note { serial, logs: self.logs.iter().map(beginnings).collect() });
        }
    }

    /// What another has noted.
    fn take_up(&mut self) {
        let note = self.notes.load();
        self.noted = note.serial;
        for Beginnings { log, stdout, stderr } in note.logs {
            if let Some(written) = self.logs.get_mut(&log) {
                written.partials = [Partial(stdout), Partial(stderr)];
            }
        }
    }

    /// Lines that were begun may go on under another supervisor.
    fn end(&mut self) {
        let (seconds, nanos) = sys::now();
        for log in self.logs.values_mut() {
            let mut lines = Vec::new();
            for (stream, partial) in (0..).zip(&mut log.partials) {
                partial.cut(&stamp(stream, seconds, nanos), &mut lines);
            }
            log.file.write(&lines);
        }
        // Each is settled as it is dropped.
        self.logs.clear();
    }
}
