//! A strict tar reader: ustar, PAX and GNU headers, from a stream, without I/O of its own.
//!
//! Where two readers could disagree about an archive, it is refused instead of guessed at: a wrong checksum, a size on
//! an entry that has no data, two extended headers for one entry, a map of a sparse file that does not add up. The size of
//! a PAX header is the one that counts (CVE-2025-62518). Names come out as they stand: whoever writes files must confine them.

use std::io::{self, Read};

mod header;
mod pax;
mod sparse;

pub use header::Kind;
use header::{BLOCK_BYTES, Header, Type};
use pax::Pax;
use sparse::{AheadError, Form, Sparse};
pub use sparse::{SEGMENTS_MAX, Segment};

/// An extended header carries names and extended attributes; the kernel holds at most 64 KiB of one attribute.
pub const EXTENSION_MAX_BYTES: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum TarError {
    #[error("reading the archive")]
    Read(#[from] io::Error),
    #[error("the archive ends in the middle of {0}")]
    Truncated(&'static str),
    #[error("tar header at byte {at} is malformed: {reason}")]
    Header { at: u64, reason: &'static str },
    #[error("tar entry type {kind:?} at byte {at} is not supported")]
    Type { at: u64, kind: char },
    #[error("extended header at byte {at} is malformed: {reason}")]
    Extension { at: u64, reason: &'static str },
    #[error("extended header at byte {at} has {bytes} bytes, more than {EXTENSION_MAX_BYTES}")]
    ExtensionTooLong { at: u64, bytes: u64 },
    #[error("tar entry {name:?} is a sparse file that cannot be read: {reason}")]
    Sparse { name: String, reason: &'static str },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub path: Vec<u8>,
    /// The target of a symbolic or hard link; empty for the rest.
    pub link: Vec<u8>,
    pub kind: Kind,
    /// The twelve bits of chmod(2).
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Bytes of the file, its holes included; zero for all but regular files.
    pub size: u64,
    /// The runs of a sparse file that follow as its data, one after the other. None where all of the file follows.
    pub sparse: Option<Vec<Segment>>,
    pub mtime: (i64, u32),
    pub device: (u32, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What extension headers said about the entry that follows them.
#[derive(Default)]
struct Pending {
    pax: Option<Pax>,
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

/// Reads entries in order. The data of an entry is read through [`Archive::data`]; what is not read is skipped.
pub struct Archive<R> {
    input: R,
    position: u64,
    data_left: u64,
    padding: u64,
    ended: bool,
}

impl<R: Read> Archive<R> {
    pub fn new(input: R) -> Archive<R> {
        Archive { input, position: 0, data_left: 0, padding: 0, ended: false }
    }

    /// The next entry, or none after the end-of-archive mark (or a stream that ends between entries).
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut pending = Pending::default();
        loop {
            self.skip_data()?;
            let at = self.position;
            let Some(block) = self.read_header_block()? else {
                if pending.pax.is_some() || pending.long_path.is_some() || pending.long_link.is_some() {
                    return Err(TarError::Truncated("an extended header's entry"));
                }
                return Ok(None);
            };
            let header = Header::parse(&block).map_err(|reason| TarError::Header { at, reason })?;
            match header.kind {
                Type::Pax => {
                    let pax = Pax::parse(&self.read_extension(at, header.size)?)
                        .map_err(|reason| TarError::Extension { at, reason })?;
                    if pending.pax.replace(pax).is_some() {
                        return Err(TarError::Extension { at, reason: "a second one for the same entry" });
                    }
                }
                Type::PaxGlobal => {
                    let pax = Pax::parse(&self.read_extension(at, header.size)?)
                        .map_err(|reason| TarError::Extension { at, reason })?;
                    if pax.shapes_entries() {
                        return Err(TarError::Extension { at, reason: "a global one sets names, sizes or attributes" });
                    }
                }
                Type::LongPath => {
                    let name = c_string(self.read_extension(at, header.size)?);
                    if pending.long_path.replace(name).is_some() {
                        return Err(TarError::Extension { at, reason: "a second long name for the same entry" });
                    }
                }
                Type::LongLink => {
                    let name = c_string(self.read_extension(at, header.size)?);
                    if pending.long_link.replace(name).is_some() {
                        return Err(TarError::Extension { at, reason: "a second long link for the same entry" });
                    }
                }
                Type::VolumeLabel => self.set_data(header.size, at)?,
                Type::Unsupported(kind) => return Err(TarError::Type { at, kind: char::from(kind) }),
                Type::Entry(kind) => return self.entry(at, header, kind, pending).map(Some),
            }
        }
    }

    /// The content of an entry that was just read, with zeros for its holes.
    pub fn content(&mut self, entry: &Entry) -> Content<'_, R> {
        let whole = || vec![Segment { offset: 0, bytes: entry.size }];
        let segments = entry.sparse.clone().unwrap_or_else(whole).into_iter();
        Content { data: self.data(), segments, current: None, at: 0, size: entry.size }
    }

    /// The unread data of the current entry: all of a file, or the runs of a sparse one.
    pub fn data(&mut self) -> Data<'_, R> {
        Data { archive: self }
    }

    /// The stream after the archive's end: padding that its digest covers.
    pub fn into_inner(self) -> R {
        self.input
    }

    fn entry(&mut self, at: u64, header: Header, kind: Kind, pending: Pending) -> Result<Entry, TarError> {
        let pax = pending.pax.unwrap_or_default();
        let stored = pax.size.unwrap_or(header.size);
        let (sparse_name, by_records) = (pax.sparse.name.clone(), pax.sparse.any);
        let path = sparse_name.or(pax.path).or(pending.long_path).unwrap_or(header.path);
        let wrong = |reason| TarError::Sparse { name: String::from_utf8_lossy(&path).into_owned(), reason };
        let form = match (header.sparse, by_records) {
            (None, false) => None,
            (Some(_), true) => return Err(wrong("it has maps of two formats")),
            (Some(old), false) => Some(Form::Known(self.rest_of_map(old).map_err(|error| error.of(&path))?)),
            (None, true) => Some(pax.sparse.form().map_err(wrong)?),
        };
        // An old archive marks a folder by a slash at the end of a regular file's name.
        let kind = if kind == Kind::File && path.ends_with(b"/") { Kind::Directory } else { kind };
        if kind != Kind::File && form.is_some() {
            return Err(wrong("it is no regular file"));
        }
        let stored = match kind {
            Kind::File => stored,
            // Some writers repeat the size of the file that a hard link names; no data follows in any dialect.
            Kind::HardLink => 0,
            _ if stored == 0 => 0,
            _ => return Err(TarError::Header { at, reason: "a size on an entry that has no data" }),
        };
        self.set_data(stored, at)?;
        let sparse = match form {
            Some(form) => Some(self.map(form).map_err(|error| error.of(&path))?),
            None => None,
        };
        let link = match kind {
            Kind::HardLink | Kind::Symlink => pax.link.or(pending.long_link).unwrap_or(header.link),
            _ => Vec::new(),
        };
        Ok(Entry {
            path,
            link,
            kind,
            mode: header.mode & 0o7777,
            uid: pax.uid.unwrap_or(header.uid),
            gid: pax.gid.unwrap_or(header.gid),
            size: sparse.as_ref().map_or(stored, |sparse| sparse.size),
            sparse: sparse.map(|sparse| sparse.segments),
            mtime: pax.mtime.unwrap_or((header.mtime, 0)),
            device: header.device,
            xattrs: pax.xattrs.into_iter().collect(),
        })
    }

    /// The blocks with more places that follow an old sparse file's header.
    fn rest_of_map(&mut self, old: sparse::Old) -> Result<Sparse, MapError> {
        let (mut map, mut continued) = (old.sparse, old.continued);
        while continued {
            let mut block = [0_u8; BLOCK_BYTES as usize];
            if self.read_full(&mut block).map_err(MapError::Tar)? < block.len() {
                return Err(MapError::Tar(TarError::Truncated("the map of a sparse file")));
            }
            let more;
            (more, continued) = sparse::places(&block, 0, header::number).map_err(MapError::Map)?;
            map.segments.extend(more);
            if map.segments.len() > SEGMENTS_MAX {
                return Err(MapError::Map("a sparse file has too many runs"));
            }
        }
        Ok(map)
    }

    /// The map of a sparse file whose data begins here, checked.
    fn map(&mut self, form: Form) -> Result<Sparse, MapError> {
        let map = match form {
            Form::Known(map) => map,
            Form::Ahead { size } => {
                let segments = sparse::read_ahead(self.data()).map_err(|error| match error {
                    AheadError::Map(reason) => MapError::Map(reason),
                    AheadError::Read(error) => MapError::Tar(error.into()),
                })?;
                Sparse { size, segments }
            }
        };
        if map.size > i64::MAX as u64 {
            return Err(MapError::Map("its size is out of range"));
        }
        map.checked(self.data_left).map_err(MapError::Map)
    }

    fn set_data(&mut self, size: u64, at: u64) -> Result<(), TarError> {
        if size > i64::MAX as u64 {
            return Err(TarError::Header { at, reason: "the size is out of range" });
        }
        self.data_left = size;
        self.padding = size.next_multiple_of(BLOCK_BYTES) - size;
        Ok(())
    }

    fn skip_data(&mut self) -> Result<(), TarError> {
        let wanted = self.data_left + self.padding;
        let skipped = io::copy(&mut (&mut self.input).take(wanted), &mut io::sink())?;
        self.position += skipped;
        if skipped < wanted {
            return Err(TarError::Truncated("an entry's data"));
        }
        (self.data_left, self.padding) = (0, 0);
        Ok(())
    }

    /// A header block that is not zero; none at the end.
    fn read_header_block(&mut self) -> Result<Option<[u8; BLOCK_BYTES as usize]>, TarError> {
        if self.ended {
            return Ok(None);
        }
        let mut block = [0_u8; BLOCK_BYTES as usize];
        for zero_blocks in 0..2 {
            match self.read_full(&mut block)? {
                0 => break,
                n if n < block.len() => return Err(TarError::Truncated("a header")),
                _ if block.iter().any(|b| *b != 0) && zero_blocks == 0 => return Ok(Some(block)),
                // One zero block and then more is how some readers are made to see two archives in one.
                _ if block.iter().any(|b| *b != 0) => {
                    return Err(TarError::Header { at: self.position, reason: "it follows a lone zero block" });
                }
                _ => {}
            }
        }
        self.ended = true;
        Ok(None)
    }

    fn read_extension(&mut self, at: u64, bytes: u64) -> Result<Vec<u8>, TarError> {
        if bytes > EXTENSION_MAX_BYTES {
            return Err(TarError::ExtensionTooLong { at, bytes });
        }
        self.set_data(bytes, at)?;
        let mut content = Vec::new();
        self.data().read_to_end(&mut content)?;
        if content.len() as u64 == bytes { Ok(content) } else { Err(TarError::Truncated("an extended header")) }
    }

    fn read_full(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.input.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.position += filled as u64;
        Ok(filled)
    }
}

/// Reads one entry's data and not a byte more.
pub struct Data<'a, R> {
    archive: &'a mut Archive<R>,
}

impl<R> Data<'_, R> {
    pub fn left(&self) -> u64 {
        self.archive.data_left
    }
}

impl<R: Read> Read for Data<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.archive.data_left).unwrap_or(usize::MAX).min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let n = self.archive.input.read(&mut buffer[..wanted])?;
        if n == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends in the middle of a file"));
        }
        self.archive.data_left -= n as u64;
        self.archive.position += n as u64;
        Ok(n)
    }
}

/// See [`Archive::content`].
pub struct Content<'a, R> {
    data: Data<'a, R>,
    segments: std::vec::IntoIter<Segment>,
    current: Option<Segment>,
    at: u64,
    size: u64,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.current.is_none() {
            self.current = self.segments.next();
        }
        let most = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX).min(buffer.len());
        let (n, ended) = match self.current {
            Some(run) if run.offset <= self.at => {
                let end = run.offset + run.bytes;
                let wanted = most(end - self.at);
                let n = self.data.read(&mut buffer[..wanted])?;
                (n, self.at + n as u64 == end)
            }
            next => {
                let n = most(next.map_or(self.size, |run| run.offset) - self.at);
                buffer[..n].fill(0);
                (n, false)
            }
        };
        self.at += n as u64;
        if ended {
            self.current = None;
        }
        Ok(n)
    }
}

/// What is wrong with a map, before it is known whose it is.
enum MapError {
    Map(&'static str),
    Tar(TarError),
}

impl MapError {
    fn of(self, path: &[u8]) -> TarError {
        match self {
            MapError::Map(reason) => TarError::Sparse { name: String::from_utf8_lossy(path).into_owned(), reason },
            MapError::Tar(error) => error,
        }
    }
}

fn c_string(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

#[cfg(test)]
mod tests;
