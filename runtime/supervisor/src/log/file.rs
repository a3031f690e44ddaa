//! A log's file: rotated as it is written, and never left with half a record by a disk that is full.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use gantry_base::log::{LogLimits, parse_part};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};

use super::{STDERR, parts, stamp};
use crate::fault::{Point, point};
use crate::sys;

/// How much more a log that could not be rotated takes before that is tried again.
const RETRY_BYTES: u64 = 64 << 10;

/// A container's log. A kubelet may rename its file away and ask to open it anew.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    limits: LogLimits,
    open: Option<Open>,
    backlog: Backlog,
}

#[derive(Debug)]
struct Open {
    folder: OwnedFd,
    name: String,
    file: File,
    size: u64,
    /// At this size it is to be rotated.
    full_at: u64,
}

/// What a disk did not take. A file holds whole records and at most the beginning of one more, whose rest goes first when
/// there is space again; every other record is dropped and counted.
#[derive(Debug, Default)]
struct Backlog {
    rest: Vec<u8>,
    lost_bytes: u64,
}

impl LogFile {
    /// A log that cannot be opened loses lines, which it counts; a container does not fail for it.
    pub fn new(path: &str, limits: LogLimits) -> LogFile {
        LogFile { path: path.into(), limits, open: None, backlog: Backlog::default() }
    }

    /// Opens the log anew. Where that fails the file stays in use that was: nothing is lost, and whoever asked asks again.
    pub fn reopen(&mut self) -> io::Result<()> {
        let name = self.path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidFilename)?;
        let folder = self.path.parent().ok_or(io::ErrorKind::InvalidFilename)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(folder, flags, Mode::empty())?;
        let next = Open::new(folder, name.to_owned(), self.limits)?;
        self.settle();
        self.backlog.begin(next.ends_midway()?);
        self.open = Some(next);
        Ok(())
    }

    /// What the file before has not taken yet.
    fn settle(&mut self) {
        if let Some(before) = &mut self.open {
            self.backlog.write(&mut before.file, b"");
        }
    }

    /// Notes what never came here.
    pub fn lose(&mut self, bytes: u64) {
        self.backlog.lost_bytes += bytes;
        self.write(b"");
    }

    /// Takes whole records.
    pub fn write(&mut self, mut lines: &[u8]) {
        // What kept it from being opened (a full disk, no descriptor) may be over.
        if self.open.is_none() {
            let _ = self.reopen();
        }
        let Some(open) = &mut self.open else {
            self.backlog.lost_bytes += lines.len() as u64;
            return;
        };
        if lines.is_empty() || !self.backlog.rest.is_empty() {
            open.size += self.backlog.write(&mut open.file, b"");
        }
        while !lines.is_empty() {
            let mut fit = open.fitting(lines);
            // A file that does not take the rest of a record, its disk being full, is not one to rename.
            if fit == 0 && self.backlog.rest.is_empty() {
                if open.rotate(self.limits).is_err() {
                    open.full_at = open.size + RETRY_BYTES.max(lines.len() as u64);
                }
                continue;
            }
            if fit == 0 {
                fit = lines.len();
            }
            let (now, later) = lines.split_at(fit);
            open.size += self.backlog.write(&mut open.file, now);
            lines = later;
        }
    }

    /// How many of these bytes are in the file already, written by another who was killed over it; what is left of the
    /// record that he was at is due.
    pub fn take_up(&mut self, lines: &[u8]) -> usize {
        if self.open.is_none() && self.reopen().is_err() {
            return 0;
        }
        let Some(open) = &self.open else { return 0 };
        let Some(written) = open.end(lines.len()).ok().and_then(|end| written_of(&end, lines)) else { return 0 };
        let end = record_end(lines, written);
        self.backlog.rest = lines[written..end].to_vec();
        end
    }
}

impl Open {
    /// A link in the last place is not followed: the folder is root's, but what a pod mounts of it need not be.
    fn new(folder: OwnedFd, name: String, limits: LogLimits) -> io::Result<Open> {
        let flags = OFlags::RDWR
            | OFlags::APPEND
            | OFlags::CREATE
            | OFlags::NOFOLLOW
            | OFlags::NOCTTY
            | OFlags::NONBLOCK
            | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&folder, &name, flags, Mode::from_raw_mode(0o640))?);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a regular file"));
        }
        let full_at = if limits.max_bytes == 0 { u64::MAX } else { limits.max_bytes };
        Ok(Open { folder, name, file, size: metadata.len(), full_at })
    }

    /// Whether the last record is cut: a writer before this one was killed, or the disk was full.
    fn ends_midway(&self) -> io::Result<bool> {
        let mut last = [b'\n'];
        if self.size > 0 {
            self.file.read_at(&mut last, self.size - 1)?;
        }
        Ok(last != [b'\n'])
    }

    /// The whole records that the file has room for; an empty one has room for any.
    fn fitting(&self, lines: &[u8]) -> usize {
        let room = usize::try_from(self.full_at.saturating_sub(self.size)).unwrap_or(usize::MAX).min(lines.len());
        match room - last_record(&lines[..room]).len() {
            0 if self.size == 0 => record_end(lines, 1),
            fit => fit,
        }
    }

    /// Renames the file to a part of its own and begins another. What cannot be done is undone: the file stays in use.
    fn rotate(&mut self, limits: LogLimits) -> io::Result<()> {
        let plan = parts::plan(&self.name, &self.names()?, limits.max_files, sys::now().0);
        for part in &plan.remove {
            let _ = rustix::fs::unlinkat(&self.folder, part, AtFlags::empty());
        }
        // A kubelet may have renamed it already.
        let renamed = self.is_named()?;
        if renamed {
            point(Point::LogRename);
            self.rename(&self.name, &plan.rename_to)?;
        }
        point(Point::LogBegin);
        match Open::new(self.folder.try_clone()?, self.name.clone(), limits) {
            Ok(next) => *self = next,
            Err(error) => {
                if renamed {
                    self.rename(&plan.rename_to, &self.name)?;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Never over another file: lines may be in it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat_with(&self.folder, from, &self.folder, to, RenameFlags::NOREPLACE)?)
    }

    /// Whether the log's name is still that of this file.
    fn is_named(&self) -> io::Result<bool> {
        match rustix::fs::statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(named) => Ok(named.st_ino == self.file.metadata()?.ino()),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.folder)? {
            // A name that is not UTF-8 is none of ours.
            names.extend(entry?.file_name().to_str().ok().map(str::to_owned));
        }
        Ok(names)
    }

    /// The last bytes of the log, however many of its files they lie in.
    fn end(&self, length: usize) -> io::Result<Vec<u8>> {
        let is_plain = |name: &String| parse_part(&self.name, name).is_some_and(|(_, form)| form.is_empty());
        let mut parts: Vec<String> = self.names()?.into_iter().filter(is_plain).collect();
        parts.sort();
        let (mut pieces, mut left) = (Vec::new(), length);
        let mut file = self.file.try_clone()?;
        loop {
            let size = file.metadata()?.len();
            let taken = left.min(usize::try_from(size).unwrap_or(usize::MAX));
            let mut piece = vec![0; taken];
            file.read_exact_at(&mut piece, size - taken as u64)?;
            left -= taken;
            pieces.insert(0, piece);
            let Some(part) = parts.pop().filter(|_| left > 0) else { return Ok(pieces.concat()) };
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            file = File::from(rustix::fs::openat(&self.folder, part, flags, Mode::empty())?);
        }
    }
}

/// The longest beginning of `lines` with which a log ends. Each packet's records have a time of their own, so that nothing of it
/// is there by chance, once it is more than a time; less is the beginning of the first record, or it is not of these.
fn written_of(end: &[u8], lines: &[u8]) -> Option<usize> {
    let time = lines.iter().position(|b| *b == b' ')?;
    let cut = last_record(end);
    let holds = |at: &usize| {
        let part = &lines[..*at];
        let there = &end[end.len() - part.len().min(end.len())..];
        part.ends_with(there) && (there.len() > time || (!cut.is_empty() && part == cut))
    };
    (1..=lines.len()).rev().find(holds)
}

/// What follows the last newline.
fn last_record(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1)..]
}

impl Drop for LogFile {
    fn drop(&mut self) {
        self.settle();
    }
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

    /// Writes what is due, then `lines`, which are whole records; how many bytes the file took.
    fn write(&mut self, to: &mut impl Write, lines: &[u8]) -> u64 {
        let mut head = std::mem::take(&mut self.rest);
        let due = head.len();
        if self.lost_bytes > 0 {
            let lost = self.lost_bytes;
            let note = format!("{}F [gantry: {lost} bytes of this log could not be written]\n", note_stamp());
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
        taken as u64
    }
}

fn note_stamp() -> String {
    let (seconds, nanos) = sys::now();
    stamp(STDERR, seconds, nanos)
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

    #[test]
    fn a_planted_symlink_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        std::fs::write(&victim, "").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join("log")).unwrap();
        let mut log = LogFile::new(dir.path().join("log").to_str().unwrap(), LogLimits::default());
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
        LogFile::new(path.to_str().unwrap(), LogLimits::default()).write(b"T stdout F next\n");
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "T stdout F whole\nT stdout F cu\nT stdout F next\n");
    }

    #[test]
    fn a_log_that_cannot_be_opened_anew_goes_on_and_one_that_could_not_be_opened_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, moved) = (dir.path().join("pod"), dir.path().join("moved"));
        let path = folder.join("0.log");
        let mut log = LogFile::new(path.to_str().unwrap(), LogLimits::default());
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

    /// The texts of a log's parts and of the log itself, oldest first.
    fn files(folder: &std::path::Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
        names.sort();
        names.rotate_left(1);
        names.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
    }

    fn record(number: usize) -> String {
        format!("2026-01-02T03:04:05.{number:09}Z stdout F {number}\n")
    }

    #[test]
    fn no_file_grows_beyond_its_limit_and_no_record_is_lost_or_cut() {
        let dir = tempfile::tempdir().unwrap();
        let length = record(0).len();
        let limits = LogLimits { max_bytes: 3 * length as u64 + 5, max_files: 100 };
        let mut log = LogFile::new(dir.path().join("0.log").to_str().unwrap(), limits);
        let all: Vec<String> = (0..9).map(record).collect();
        for chunk in [&all[..1], &all[1..7], &all[7..]] {
            log.write(chunk.concat().as_bytes());
        }
        assert_eq!(files(dir.path()), [all[..3].concat(), all[3..6].concat(), all[6..].concat()]);
        let long = format!("T stdout F {}\n", "x".repeat(5 * length));
        log.write(long.as_bytes());
        assert_eq!(files(dir.path()).last(), Some(&long), "a line is never parted");
        // Renamed by a kubelet, which has not asked to open it anew.
        std::fs::rename(dir.path().join("0.log"), dir.path().join("0.log.20990102-030405")).unwrap();
        log.write(all[..3].concat().as_bytes());
        assert_eq!(files(dir.path()).last(), Some(&all[..3].concat()));
    }

    #[test]
    fn a_log_has_no_more_files_than_it_may() {
        let dir = tempfile::tempdir().unwrap();
        let limits = LogLimits { max_bytes: record(0).len() as u64, max_files: 3 };
        let mut log = LogFile::new(dir.path().join("0.log").to_str().unwrap(), limits);
        for number in 0..20 {
            log.write(record(number).as_bytes());
            assert!(files(dir.path()).len() <= 3);
        }
        assert_eq!(files(dir.path()), [record(17), record(18), record(19)]);
    }

    #[test]
    fn a_log_that_cannot_be_rotated_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("pod");
        std::fs::create_dir(&folder).unwrap();
        let limits = LogLimits { max_bytes: record(0).len() as u64, max_files: 3 };
        let mut log = LogFile::new(folder.join("0.log").to_str().unwrap(), limits);
        log.write(record(0).as_bytes());
        // Nothing can be made in a folder that is gone.
        let file = log.open.as_ref().unwrap().file.try_clone().unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        log.write(record(1).as_bytes());
        log.write(record(2).as_bytes());
        assert_eq!(file.metadata().unwrap().len(), 3 * record(0).len() as u64);
    }

    #[test]
    fn what_another_was_killed_over_is_finished_wherever_he_was() {
        let lines = [record(1), record(1), record(2)].concat().into_bytes();
        for limit in [0, 2 * record(0).len() as u64] {
            let limits = LogLimits { max_bytes: limit, max_files: 9 };
            for cut in 0..=lines.len() {
                let dir = tempfile::tempdir().unwrap();
                let path = dir.path().join("0.log");
                let mut log = LogFile::new(path.to_str().unwrap(), limits);
                log.write(record(0).as_bytes());
                // Killed: so much of it is on the disk.
                for byte in &lines[..cut] {
                    let open = log.open.as_mut().unwrap();
                    open.file.write_all(&[*byte]).unwrap();
                    open.size += 1;
                    if open.size >= open.full_at {
                        open.rotate(limits).unwrap();
                    }
                }
                let mut next = LogFile::new(path.to_str().unwrap(), limits);
                let taken = next.take_up(&lines);
                next.write(&lines[taken..]);
                drop(next);
                assert_eq!(files(dir.path()).concat().into_bytes(), [record(0).as_bytes(), &lines].concat(), "{cut}");
            }
        }
    }
}
