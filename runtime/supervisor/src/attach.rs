//! Readers of a container's live output. They get all of it, as the log does: one that falls behind holds the container up,
//! as a slow terminal would. One that takes nothing for a while is cut off: the container is worth more.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// How long a container may wait for a reader.
const PATIENCE_SECONDS: i64 = 10;

/// A pipe to whoever has attached to one stream.
#[derive(Debug)]
struct Attacher {
    stream: &'static str,
    pipe: OwnedFd,
    /// What the pipe has not taken yet; what was read of the stream at once, at most, and what was left at its end.
    behind: Vec<u8>,
    /// When it last took something.
    since: i64,
}

#[derive(Debug, Default)]
pub struct Attachers {
    all: Vec<Attacher>,
    /// Nothing more comes: who has all of it may go.
    ended: bool,
}

impl Attachers {
    pub fn add(&mut self, stream: &'static str, pipe: OwnedFd) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        self.all.push(Attacher { stream, pipe, behind: Vec::new(), since: 0 });
        Ok(())
    }

    /// Gives everyone what was read of a stream.
    pub fn give(&mut self, stream: &str, bytes: &[u8], now: i64) {
        self.all.retain_mut(|attacher| attacher.stream != stream || attacher.give(bytes, now));
    }

    /// Those that are waited for, by their place.
    pub fn behind(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        self.all.iter().enumerate().filter(|(_, a)| !a.behind.is_empty()).map(|(at, a)| (at, a.pipe.as_fd()))
    }

    /// The others: that they have gone is all that there is to hear of them. A container that says nothing would never find out.
    pub fn watched(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.all.iter().filter(|attacher| attacher.behind.is_empty()).map(|attacher| attacher.pipe.as_fd())
    }

    /// Some of those that are watched have gone.
    pub fn forget_gone(&mut self) {
        self.all.retain(|attacher| !attacher.behind.is_empty() || attacher.is_read());
    }

    pub fn are_behind(&self) -> bool {
        self.behind().next().is_some()
    }

    /// One of them takes something again, or has gone.
    pub fn catch_up(&mut self, at: usize, now: i64) {
        let Some(attacher) = self.all.get_mut(at) else { return };
        let there = attacher.flush(now);
        if !there || (self.ended && attacher.behind.is_empty()) {
            self.all.remove(at);
        }
    }

    /// Cuts off those that have taken nothing for too long.
    pub fn lose_patience(&mut self, now: i64) {
        self.all.retain(|a| a.behind.is_empty() || now - a.since < PATIENCE_SECONDS);
    }

    /// The container's output is at its end.
    pub fn end(&mut self) {
        self.ended = true;
        self.all.retain(|attacher| !attacher.behind.is_empty());
    }
}

impl Attacher {
    /// False when nobody reads any more.
    fn give(&mut self, bytes: &[u8], now: i64) -> bool {
        if self.behind.is_empty() {
            self.since = now;
        }
        self.behind.extend_from_slice(bytes);
        self.flush(now)
    }

    fn is_read(&self) -> bool {
        let mut fds = [PollFd::new(&self.pipe, PollFlags::empty())];
        let _ = poll(&mut fds, Some(&Timespec::default()));
        !fds[0].revents().contains(PollFlags::ERR)
    }

    fn flush(&mut self, now: i64) -> bool {
        let mut taken = 0;
        let there = loop {
            if taken == self.behind.len() {
                break true;
            }
            match rustix::io::write(&self.pipe, &self.behind[taken..]) {
                Ok(count) => taken += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break true,
                Err(_) => break false,
            }
        };
        if taken > 0 {
            self.since = now;
            self.behind.drain(..taken);
        }
        there
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn pipe() -> (std::fs::File, OwnedFd) {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        (read.into(), write)
    }

    #[test]
    fn who_falls_behind_loses_nothing() {
        let (mut reader, writer) = pipe();
        let mut attachers = Attachers::default();
        attachers.add("stdout", writer).unwrap();
        let said: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        attachers.give("stdout", &said, 100);
        attachers.give("stderr", b"not his", 100);
        attachers.end();
        let mut heard = Vec::new();
        while attachers.are_behind() {
            let mut buffer = vec![0; 50_000];
            let count = reader.read(&mut buffer).unwrap();
            heard.extend_from_slice(&buffer[..count]);
            attachers.catch_up(0, 101);
        }
        assert!(attachers.all.is_empty(), "who has all of it may go");
        reader.read_to_end(&mut heard).unwrap();
        assert!(heard == said, "{} of {} bytes", heard.len(), said.len());
    }

    #[test]
    fn who_takes_nothing_is_cut_off() {
        let ((_kept, stalled), (reader, gone), (_other, idle)) = (pipe(), pipe(), pipe());
        let mut attachers = Attachers::default();
        for (stream, pipe) in [("stdout", stalled), ("stdout", gone), ("stderr", idle)] {
            attachers.add(stream, pipe).unwrap();
        }
        drop(reader);
        attachers.give("stdout", &[0; 200_000], 100);
        assert_eq!(attachers.all.len(), 2, "who has gone is not waited for");
        attachers.lose_patience(100 + PATIENCE_SECONDS - 1);
        assert!(attachers.are_behind());
        attachers.lose_patience(100 + PATIENCE_SECONDS);
        assert_eq!(attachers.all.len(), 1, "whom nothing was said may stay");
        assert!(!attachers.are_behind());
    }

    #[test]
    fn who_leaves_a_silent_container_is_forgotten() {
        let mut attachers = Attachers::default();
        let mut readers = Vec::new();
        for stream in ["stdout", "stderr", "stdout"] {
            let (read, pipe) = pipe();
            attachers.add(stream, pipe).unwrap();
            readers.push(read);
        }
        attachers.forget_gone();
        assert_eq!(attachers.watched().count(), 3);
        readers.remove(1);
        attachers.forget_gone();
        assert!(attachers.all.iter().all(|attacher| attacher.stream == "stdout") && attachers.watched().count() == 2);
    }
}
