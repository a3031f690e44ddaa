//! The CRI logs of a pod's containers: `time stream tag text`, tag `F` for a line's end and `P` for a part of a long one.
//!
//! ```text
//!   container ─► pipe ─► supervisor ─► outbox ─► socket ─► writer ─► file, rotated when it is full
//! ```
//! Whoever writes to a disk may have to wait for it, and cannot do anything else meanwhile: the supervisor, which sees to ends
//! and commands, does not. It hands what containers say to a `writer`, a process that it forks at the first output. (io_uring
//! would need none, but its workers share the supervisor's directories, and who shares those enters no container's mounts.)
//! While the writer stands still, the outbox and then the pipes fill up, and the containers wait for at most
//! [`outbox::PATIENCE_SECONDS`]. From then on what they say is dropped, counted, told, and noted in the log.
//!
//! What a kill costs: of the writer nothing, because the next one finds in the socket what was not consumed, in the file what was
//! written of it, and noted in memory what began and has not ended (`unfinished`). Of the supervisor, what it has read from a
//! pipe and has not handed over, between two system calls. What was handed over is written by the writer, which outlives it for
//! that long, and for whom the next supervisor's waits.

use gantry_base::limits::LOG_LINE_MAX_BYTES;
use gantry_base::log::LogLimits;
use gantry_base::time::rfc3339_nanos;
use gantry_base::{wire_enum, wire_struct};

mod file;
pub mod outbox;
mod parts;
mod unfinished;
mod writer;

/// Data in one packet of an order. The kernel makes several of a longer one (net/unix/af_unix.c: UNIX_SKB_FRAGS_SZ).
pub const DATA_MAX_BYTES: usize = 32 << 10;

pub const STDOUT: u8 = 0;
pub const STDERR: u8 = 1;
const STREAMS: [&str; 2] = ["stdout", "stderr"];

wire_enum! {
    /// From a supervisor to its writer.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum Order {
        /// A log that came after the writer was forked.
        1 => Open { log: u64, path: String, limits: LogLimits },
        /// What a container said follows. When is part of it: written twice, it is the same.
        2 => Data { log: u64, stream: u8, serial: u64, seconds: i64, nanos: u32 },
        /// A stream is at its end: its last line counts even without a newline.
        3 => End { log: u64, stream: u8, serial: u64, seconds: i64, nanos: u32 },
        /// So much was dropped here.
        4 => Lost { log: u64, bytes: u64, seconds: i64, nanos: u32 },
        /// Answered once everything before it is written.
        5 => Flush { log: u64, token: u64 },
        6 => Reopen { log: u64, token: u64 },
        7 => Close { log: u64 },
    }
}

wire_struct! {
    /// From a writer to its supervisor.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Answer {
        pub token: u64,
        /// Empty on success.
        pub error: String,
    }
}

fn stamp(stream: u8, seconds: i64, nanos: u32) -> String {
    let name = STREAMS[usize::from(stream != STDOUT)];
    format!("{} {name} ", rfc3339_nanos(seconds, nanos))
}

/// What was read of a stream and has not ended with a newline yet.
#[derive(Debug, Default)]
struct Partial(Vec<u8>);

impl Partial {
    /// Appends to `out` the log lines that `bytes` complete. `stamp` is `time stream `.
    fn feed(&mut self, bytes: &[u8], stamp: &str, out: &mut Vec<u8>) {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let mut text = text;
            while self.0.len() + text.len() > LOG_LINE_MAX_BYTES {
                let (now, later) = text.split_at(LOG_LINE_MAX_BYTES - self.0.len());
                self.0.extend_from_slice(now);
                self.emit(stamp, b'P', out);
                text = later;
            }
            self.0.extend_from_slice(text);
            if ended {
                self.emit(stamp, b'F', out);
            }
        }
    }

    /// The stream has ended: its last line counts even without a newline.
    fn finish(&mut self, stamp: &str, out: &mut Vec<u8>) {
        if !self.0.is_empty() {
            self.emit(stamp, b'F', out);
        }
    }

    /// It goes on, but not here.
    fn cut(&mut self, stamp: &str, out: &mut Vec<u8>) {
        if !self.0.is_empty() {
            self.emit(stamp, b'P', out);
        }
    }

    fn emit(&mut self, stamp: &str, tag: u8, out: &mut Vec<u8>) {
        out.extend_from_slice(stamp.as_bytes());
        out.extend_from_slice(&[tag, b' ']);
        out.append(&mut self.0);
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fed(chunks: &[&[u8]]) -> String {
        let (mut partial, mut out) = (Partial::default(), Vec::new());
        for chunk in chunks {
            partial.feed(chunk, "T stdout ", &mut out);
        }
        partial.finish("T stdout ", &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_joined_across_reads() {
        assert_eq!(fed(&[b"a", b"b\nc\n", b"\n"]), "T stdout F ab\nT stdout F c\nT stdout F \n");
        assert_eq!(fed(&[b"no end"]), "T stdout F no end\n");
        assert_eq!(fed(&[]), "");
    }

    #[test]
    fn long_lines_come_in_parts() {
        let long = vec![b'x'; LOG_LINE_MAX_BYTES + 3];
        let text = fed(&[&long, b"y\n"]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("T stdout P xxx"));
        assert_eq!(lines[0].len(), "T stdout P ".len() + LOG_LINE_MAX_BYTES);
        assert_eq!(lines[1], "T stdout F xxxy");
        let exact = vec![b'x'; LOG_LINE_MAX_BYTES];
        assert_eq!(fed(&[&exact, b"\n"]).lines().count(), 1);
    }
}
