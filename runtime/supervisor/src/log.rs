//! The CRI log of one container: `time stream tag text`, tag `F` for a line's end and `P` for a part of a long one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use gantry_base::limits::LOG_LINE_MAX_BYTES;
use gantry_base::time::rfc3339_nanos;

use crate::sys;

/// What was read of a stream and has not ended with a newline yet.
#[derive(Debug, Default)]
pub struct Partial(Vec<u8>);

impl Partial {
    /// Appends to `out` the log lines that `bytes` complete. `stamp` is `time stream `.
    pub fn feed(&mut self, bytes: &[u8], stamp: &str, out: &mut Vec<u8>) {
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
    pub fn finish(&mut self, stamp: &str, out: &mut Vec<u8>) {
        if !self.0.is_empty() {
            self.emit(stamp, b'F', out);
        }
    }

    fn emit(&mut self, stamp: &str, tag: u8, out: &mut Vec<u8>) {
        out.extend_from_slice(stamp.as_bytes());
        out.extend_from_slice(&[tag, b' ']);
        out.append(&mut self.0);
        out.push(b'\n');
    }
}

/// The file, which the kubelet may rename away and ask to open anew.
#[derive(Debug)]
pub struct Log {
    path: String,
    file: Option<File>,
    lost_bytes: u64,
}

pub fn stamp(stream: &str) -> String {
    let (seconds, nanos) = sys::now();
    format!("{} {stream} ", rfc3339_nanos(seconds, nanos))
}

impl Log {
    /// A log that cannot be opened loses lines, which it counts; a container does not fail for it.
    pub fn open(path: &str) -> Log {
        let mut log = Log { path: path.to_owned(), file: None, lost_bytes: 0 };
        let _ = log.reopen();
        log
    }

    pub fn reopen(&mut self) -> io::Result<()> {
        self.file = None;
        if self.path.is_empty() {
            return Ok(());
        }
        let mut options = OpenOptions::new();
        options
            .append(true)
            .create(true)
            .mode(0o640)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NOCTTY | libc::O_NONBLOCK);
        let file = options.open(Path::new(&self.path))?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a regular file"));
        }
        self.file = Some(file);
        Ok(())
    }

    pub fn write(&mut self, lines: &[u8]) {
        if lines.is_empty() || self.path.is_empty() {
            return;
        }
        let Some(file) = &mut self.file else {
            self.lost_bytes += lines.len() as u64;
            return;
        };
        if self.lost_bytes > 0 {
            let note =
                format!("{}F [gantry: {} bytes of this log could not be written]\n", stamp("stderr"), self.lost_bytes);
            if file.write_all(note.as_bytes()).is_err() {
                self.lost_bytes += lines.len() as u64;
                return;
            }
            self.lost_bytes = 0;
        }
        if file.write_all(lines).is_err() {
            self.lost_bytes += lines.len() as u64;
        }
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

    #[test]
    fn a_planted_symlink_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        std::fs::write(&victim, "").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join("log")).unwrap();
        let mut log = Log::open(dir.path().join("log").to_str().unwrap());
        log.write(b"line\n");
        assert_eq!(std::fs::read(&victim).unwrap(), b"");
        assert_eq!(log.lost_bytes, 5);
    }
}
