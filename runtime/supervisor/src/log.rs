//! The CRI log of one container: `time stream tag text`, tag `F` for a line's end and `P` for a part of a long one.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
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
    backlog: Backlog,
}

/// What a disk did not take. A file holds whole records and at most the beginning of one more, whose rest goes first when
/// there is space again; every other record is dropped and counted.
#[derive(Debug, Default)]
struct Backlog {
    rest: Vec<u8>,
    lost_bytes: u64,
}

pub fn stamp(stream: &str) -> String {
    let (seconds, nanos) = sys::now();
    format!("{} {stream} ", rfc3339_nanos(seconds, nanos))
}

impl Log {
    /// A log that cannot be opened loses lines, which it counts; a container does not fail for it.
    pub fn open(path: &str) -> Log {
        let mut log = Log { path: path.to_owned(), file: None, backlog: Backlog::default() };
        let _ = log.reopen();
        log
    }

    /// Opens the log anew. Where that fails the file stays in use that was: nothing is lost, and whoever asked asks again.
    pub fn reopen(&mut self) -> io::Result<()> {
        if self.path.is_empty() {
            return Ok(());
        }
        let file = open(Path::new(&self.path))?;
        if let Some(before) = &mut self.file {
            self.backlog.write(before, b"");
        }
        self.backlog.begin(ends_midway(&file)?);
        self.file = Some(file);
        Ok(())
    }

    pub fn write(&mut self, lines: &[u8]) {
        if lines.is_empty() || self.path.is_empty() {
            return;
        }
        // What kept it from being opened (a full disk, no descriptor) may be over.
        if self.file.is_none() {
            let _ = self.reopen();
        }
        match &mut self.file {
            Some(file) => self.backlog.write(file, lines),
            None => self.backlog.lost_bytes += lines.len() as u64,
        }
    }
}

/// A link in the last place is not followed: the folder is root's, but what a pod mounts of it need not be.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NOCTTY | libc::O_NONBLOCK);
    let file = options.open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a regular file"));
    }
    Ok(file)
}

/// Whether the last record is cut: a supervisor before this one was killed, or the disk was full.
fn ends_midway(file: &File) -> io::Result<bool> {
    let length = file.metadata()?.len();
    let mut last = [b'\n'];
    if length > 0 {
        file.read_at(&mut last, length - 1)?;
    }
    Ok(last != [b'\n'])
}

impl Backlog {
    /// Begins another file. What the file before has not taken by now is lost; a cut record in this one is ended.
    fn begin(&mut self, midway: bool) {
        self.lost_bytes += self.rest.len() as u64;
        self.rest.clear();
        if midway {
            self.rest.push(b'\n');
        }
    }

    /// Writes what is due, then `lines`, which are whole records.
    fn write(&mut self, to: &mut impl Write, lines: &[u8]) {
        let mut head = std::mem::take(&mut self.rest);
        let due = head.len();
        if self.lost_bytes > 0 {
            let lost = self.lost_bytes;
            let note = format!("{}F [gantry: {lost} bytes of this log could not be written]\n", stamp("stderr"));
            head.extend_from_slice(note.as_bytes());
        }
        let told = head.len();
        let bytes = if head.is_empty() { Cow::Borrowed(lines) } else { Cow::Owned([&head, lines].concat()) };
        let taken = write_some(to, &bytes);
        let kept = if taken < due { due } else { record_end(&bytes, taken) };
        if kept > due {
            self.lost_bytes = 0;
        }
        self.lost_bytes += (bytes.len() - kept.max(told)) as u64;
        self.rest = bytes[taken..kept].to_vec();
    }
}

/// Where the record ends that `at` lies in; a record's beginning lies in none.
fn record_end(bytes: &[u8], at: usize) -> usize {
    if at == 0 || bytes[at - 1] == b'\n' {
        return at;
    }
    bytes[at..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |end| at + end + 1)
}

/// How many bytes a file takes now.
fn write_some(to: &mut impl Write, bytes: &[u8]) -> usize {
    let mut taken = 0;
    while taken < bytes.len() {
        match to.write(&bytes[taken..]) {
            Ok(n @ 1..) => taken += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => break,
        }
    }
    taken
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
        assert_eq!(log.backlog.lost_bytes, 5);
    }

    /// A disk with so many bytes left.
    struct Disk {
        written: Vec<u8>,
        space: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(self.space);
            if n == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.written.extend_from_slice(&bytes[..n]);
            self.space -= n;
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_drops_whole_lines_and_the_log_says_how_much() {
        const RECORD: &str = "T stdout F line\n";
        // Every number of bytes that fits before, and once more while it is full.
        for (space, more) in (0..40).flat_map(|space| (0..120).map(move |more| (space, more))) {
            let (mut disk, mut backlog) = (Disk { written: Vec::new(), space }, Backlog::default());
            for _ in 0..3 {
                backlog.write(&mut disk, RECORD.as_bytes());
            }
            disk.space = more;
            backlog.write(&mut disk, RECORD.as_bytes());
            disk.space = usize::MAX;
            backlog.write(&mut disk, b"T stdout F last\n");
            let text = String::from_utf8(disk.written).unwrap();
            let (mut kept, mut said) = (0, 0);
            for line in text.lines() {
                match line.split_once("[gantry: ") {
                    Some((_, words)) => said += words.split(' ').next().unwrap().parse::<usize>().unwrap(),
                    None if line == RECORD.trim_end() => kept += 1,
                    None => assert_eq!(line, "T stdout F last", "{space} {more}"),
                }
            }
            assert!(text.ends_with("T stdout F last\n"), "{space} {more}: {text}");
            assert_eq!(said, (4 - kept) * RECORD.len(), "{space} {more}: {text}");
        }
    }

    #[test]
    fn a_cut_record_is_ended_before_the_next_begins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "T stdout F whole\nT stdout F cu").unwrap();
        Log::open(path.to_str().unwrap()).write(b"T stdout F next\n");
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "T stdout F whole\nT stdout F cu\nT stdout F next\n");
    }

    #[test]
    fn a_log_that_cannot_be_opened_anew_goes_on_and_one_that_could_not_be_opened_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, moved) = (dir.path().join("pod"), dir.path().join("moved"));
        let path = folder.join("0.log");
        let mut log = Log::open(path.to_str().unwrap());
        log.write(b"T stdout F lost\n");
        std::fs::create_dir(&folder).unwrap();
        log.write(b"T stdout F one\n");
        std::fs::rename(&folder, &moved).unwrap();
        assert!(log.reopen().is_err());
        log.write(b"T stdout F two\n");
        let text = std::fs::read_to_string(moved.join("0.log")).unwrap();
        assert!(text.ends_with("could not be written]\nT stdout F one\nT stdout F two\n"), "{text}");
        std::fs::create_dir(&folder).unwrap();
        log.reopen().unwrap();
        log.write(b"T stdout F three\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "T stdout F three\n");
    }
}
