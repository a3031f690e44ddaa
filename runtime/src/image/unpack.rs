//! Writes a layer's tar entries under a folder, and nowhere else.
//!
//! Every name is resolved by openat2(2) with RESOLVE_IN_ROOT, from a descriptor of the layer's own folder: a symbolic
//! link or a `..` cannot lead out. Names that hold `..` are refused besides, for no honest layer has them. What is made
//! is what the kernel's overlay expects of a lower folder: whiteouts become character devices 0/0, opaque folders get
//! `trusted.overlay.opaque`. The folder is private to one writer until the layer is committed.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, Timestamps};
use rustix::io::Errno;

use super::copy::write_at;
use super::tar::{Archive, Entry, Kind, Segment, TarError};

mod crew;
mod name;
mod remove;
mod root;
mod settle;

use crew::{Crew, SMALL_MAX_BYTES, SmallFile};
pub use name::{Name, NameError, Whiteout, parse_name, whiteout};
pub use remove::remove_tree;
use root::Root;
pub use root::is_opaque;
pub(super) use root::open_in;
pub use settle::settle;

/// Bounds on what one layer may make of its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub entries_max: u64,
    pub data_max_bytes: u64,
    /// The names that must be remembered until the layer ends.
    pub names_max_bytes: usize,
    /// Threads beside the caller's that may make its small files.
    pub hands_max: usize,
}

/// Beside whoever reads: more than a few wait for each other in the file system.
const HANDS_MAX: usize = 3;

impl Default for Limits {
    fn default() -> Limits {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Limits {
            entries_max: 2_000_000,
            data_max_bytes: 128 << 30,
            names_max_bytes: 64 << 20,
            hands_max: (processors - 1).min(HANDS_MAX),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error(transparent)]
    Tar(#[from] TarError),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("more than {0} entries")]
    TooManyEntries(u64),
    #[error("more than {0} bytes of data")]
    TooMuchData(u64),
    #[error("names of folders and links take more than {0} bytes")]
    TooManyNames(usize),
    #[error("entry {path:?}: {reason}")]
    Refused { path: String, reason: &'static str },
    #[error("entry {path:?}: extended attribute {attribute:?} must not come from an image")]
    Attribute { path: String, attribute: String },
    #[error("entry {path:?}: cannot {action}")]
    Write {
        path: String,
        action: &'static str,
        #[source]
        source: io::Error,
    },
}

impl UnpackError {
    /// The disk's fault or the host's, not the layer's.
    pub fn is_local(&self) -> bool {
        matches!(self, UnpackError::Write { .. })
    }
}

/// The result of [`unpack`], to be completed by [`settle`] when the layers below are there.
#[derive(Debug, Default)]
pub struct Unpacked {
    /// Bytes of its files, holes included.
    pub data_bytes: u64,
    /// Folders that the archive took for granted.
    implied: Vec<Name>,
    /// Hard links whose target is in no entry before them: (link, target).
    links_below: Vec<(Name, Name)>,
}

impl Unpacked {
    /// Whether [`settle`] has to look at the layers below.
    pub fn needs_lowers(&self) -> bool {
        !self.implied.is_empty() || !self.links_below.is_empty()
    }
}

/// Unpacks a whole archive into `folder`; what it replaces on its way goes to `aside`, for the caller to remove.
pub fn unpack<R: Read>(input: R, folder: &OwnedFd, aside: &OwnedFd, limits: &Limits) -> Result<Unpacked, UnpackError> {
    std::thread::scope(|scope| {
        let mut archive = Archive::new(input);
        let mut writer = Writer {
            root: Root::new(folder, aside),
            crew: Crew::new(scope, limits.hands_max),
            limits,
            names_bytes: 0,
            entries: 0,
            folder_times: BTreeMap::new(),
            unpacked: Unpacked::default(),
            buffer: vec![0; COPY_BYTES],
        };
        match writer.all(&mut archive) {
            // What the disk says counts for more than what the archive does: it may have been said before.
            Err(error) if !error.is_local() => match writer.crew.wait() {
                Err(earlier) if earlier.is_local() => Err(earlier),
                _ => Err(error),
            },
            Err(error) => Err(error),
            Ok(()) => writer.finish(),
        }
    })
}

const COPY_BYTES: usize = 128 << 10;

struct Writer<'a, 'scope, 'env> {
    root: Root<'a>,
    crew: Crew<'scope, 'env>,
    limits: &'a Limits,
    names_bytes: usize,
    entries: u64,
    /// Folders' times are set last: each file made in one moves them.
    folder_times: BTreeMap<Name, (i64, u32)>,
    unpacked: Unpacked,
    buffer: Vec<u8>,
}

impl Writer<'_, '_, '_> {
    fn all<R: Read>(&mut self, archive: &mut Archive<R>) -> Result<(), UnpackError> {
        while let Some(entry) = archive.next_entry()? {
            self.entry(entry, archive)?;
        }
        Ok(())
    }

    fn entry<R: Read>(&mut self, mut entry: Entry, archive: &mut Archive<R>) -> Result<(), UnpackError> {
        self.count(1)?;
        check_attributes(&entry)?;
        let name = parse_name(&entry.path)?;
        let Some((parent, last)) = name.split_last() else {
            return self.root_folder(&entry);
        };
        match whiteout(last)? {
            Whiteout::None => {}
            Whiteout::Skip => return Ok(()),
            Whiteout::Opaque => {
                let (folder, _) = self.parent(&parent)?;
                return self.root.make_opaque(&folder, b".").map_err(|e| write_error(&name, "mark opaque", e));
            }
            Whiteout::Of(hidden) => {
                let (folder, number) = self.parent(&parent)?;
                if self.crew.is_making(number, hidden) {
                    self.crew.wait()?;
                }
                return self.root.whiteout(&folder, hidden).map_err(|e| write_error(&name, "hide", e));
            }
        }
        let (folder, number) = self.parent(&parent)?;
        if self.crew.is_making(number, last) {
            self.crew.wait()?;
        }
        match entry.kind {
            Kind::File if is_small(&entry) && is_free(&folder, last) => {
                entry.xattrs.retain(|(attribute, _)| is_kept(attribute));
                let (name, last) = (name.clone(), last.to_vec());
                self.small_file(number, SmallFile { folder, name, last, entry, data: Vec::new() }, archive)
            }
            Kind::File => self.file(&folder, &name, last, &entry, archive),
            Kind::Directory => self.directory(&folder, &name, last, &entry),
            Kind::Symlink => self.symlink(&folder, &name, last, &entry),
            Kind::HardLink => {
                // Its target may be one.
                self.crew.wait()?;
                self.hard_link(&folder, &name, last, &entry)
            }
            Kind::Character | Kind::Block | Kind::Fifo => self.special(&folder, &name, last, &entry),
        }
    }

    fn finish(mut self) -> Result<Unpacked, UnpackError> {
        self.crew.wait()?;
        for (name, mtime) in std::mem::take(&mut self.folder_times) {
            // A later entry may have put something else in its place.
            if let Ok(folder) = self.root.open_folder(&name) {
                rustix::fs::futimens(&folder, &times(mtime)).map_err(|e| write_error(&name, "set times", e))?;
            }
        }
        Ok(self.unpacked)
    }

    fn count(&mut self, entries: u64) -> Result<(), UnpackError> {
        self.entries += entries;
        if self.entries > self.limits.entries_max {
            return Err(UnpackError::TooManyEntries(self.limits.entries_max));
        }
        Ok(())
    }

    fn remember(&mut self, bytes: usize) -> Result<(), UnpackError> {
        self.names_bytes += bytes;
        if self.names_bytes > self.limits.names_max_bytes {
            return Err(UnpackError::TooManyNames(self.limits.names_max_bytes));
        }
        Ok(())
    }

    /// The folder of an entry, with the number of its inode.
    fn parent(&mut self, parent: &Name) -> Result<(Arc<OwnedFd>, u64), UnpackError> {
        let mut made = Vec::new();
        let mut folder = self.root.known_parent(parent);
        if matches!(folder, Err(Errno::NOENT)) {
            // What is missing may be a file that is being made, and is no folder then.
            self.crew.wait()?;
            folder = self.root.parent(parent, &mut made);
        }
        self.count(made.len() as u64)?;
        for name in made {
            self.remember(name.byte_len())?;
            self.unpacked.implied.push(name);
        }
        folder.map_err(|e| match e {
            Errno::NOTDIR => refused(parent, "a part of its path is not a folder"),
            e => write_error(parent, "open the folder", e),
        })
    }

    fn root_folder(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        let name = Name::root();
        if entry.kind != Kind::Directory {
            return Err(refused(&name, "the root of a layer must be a folder"));
        }
        let folder = self.root.open_folder(&name).map_err(|e| write_error(&name, "open", e))?;
        self.folder_metadata(&folder, &name, entry)
    }

    fn file<R: Read>(
        &mut self,
        folder: &OwnedFd,
        name: &Name,
        last: &[u8],
        entry: &Entry,
        archive: &mut Archive<R>,
    ) -> Result<(), UnpackError> {
        self.count_data(entry.size)?;
        let file = self.root.create_file(folder, last).map_err(|e| write_error(name, "create", e))?;
        self.content(&file, name, entry, archive)?;
        complete(&file, name, entry)
    }

    fn small_file<R: Read>(
        &mut self,
        folder: u64,
        mut file: SmallFile,
        archive: &mut Archive<R>,
    ) -> Result<(), UnpackError> {
        self.count_data(file.entry.size)?;
        let bytes = usize::try_from(file.entry.size).unwrap_or_default();
        file.data.resize(bytes, 0);
        archive.data().read_exact(&mut file.data).map_err(TarError::Read)?;
        self.crew.make(folder, file)
    }

    /// Holes count: a hostile map costs an archive nothing, and whoever reads the file all the more.
    fn count_data(&mut self, bytes: u64) -> Result<(), UnpackError> {
        self.unpacked.data_bytes = self.unpacked.data_bytes.saturating_add(bytes);
        if self.unpacked.data_bytes > self.limits.data_max_bytes {
            return Err(UnpackError::TooMuchData(self.limits.data_max_bytes));
        }
        Ok(())
    }

    fn content<R: Read>(
        &mut self,
        file: &OwnedFd,
        name: &Name,
        entry: &Entry,
        archive: &mut Archive<R>,
    ) -> Result<(), UnpackError> {
        let whole = [Segment { offset: 0, bytes: entry.size }];
        let mut data = archive.data();
        for run in entry.sparse.as_deref().unwrap_or(&whole) {
            let mut done = 0;
            while done < run.bytes {
                let wanted = COPY_BYTES.min(usize::try_from(run.bytes - done).unwrap_or(COPY_BYTES));
                let n = data.read(&mut self.buffer[..wanted]).map_err(TarError::Read)?;
                write_at(file, &self.buffer[..n], run.offset + done).map_err(|e| write_error(name, "write", e))?;
                done += n as u64;
            }
        }
        if entry.sparse.is_some() {
            rustix::fs::ftruncate(file, entry.size).map_err(|e| write_error(name, "set the size", e))?;
        }
        Ok(())
    }

    fn directory(&mut self, folder: &OwnedFd, name: &Name, last: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let own = self.root.create_folder(folder, last).map_err(|e| write_error(name, "make the folder", e))?;
        self.folder_metadata(&own, name, entry)
    }

    fn folder_metadata(&mut self, folder: &OwnedFd, name: &Name, entry: &Entry) -> Result<(), UnpackError> {
        let metadata = |e| write_error(name, "set owner or mode", e);
        let (uid, gid) = owner(entry);
        rustix::fs::fchown(folder, uid, gid).map_err(metadata)?;
        rustix::fs::fchmod(folder, Mode::from_raw_mode(entry.mode)).map_err(metadata)?;
        set_attributes(folder, name, entry)?;
        if self.folder_times.insert(name.clone(), entry.mtime).is_none() {
            self.remember(name.byte_len())?;
        }
        Ok(())
    }

    fn symlink(&mut self, folder: &OwnedFd, name: &Name, last: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        if entry.link.is_empty() || entry.link.len() >= name::PATH_MAX_BYTES || entry.link.contains(&0) {
            return Err(refused(name, "the target of the symbolic link is empty or too long"));
        }
        let failed = |e| write_error(name, "make the symbolic link", e);
        self.root
            .replacing(folder, last, |parent| rustix::fs::symlinkat(&entry.link[..], parent, last))
            .map_err(failed)?;
        let (uid, gid) = owner(entry);
        rustix::fs::chownat(folder, last, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        rustix::fs::utimensat(folder, last, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)
    }

    fn hard_link(&mut self, folder: &OwnedFd, name: &Name, last: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let target = parse_name(&entry.link)?;
        let Some((target_parent, target_last)) = target.split_last() else {
            return Err(refused(name, "a hard link to the root"));
        };
        if *name == target {
            return Err(refused(name, "a hard link to itself"));
        }
        let found = self.root.open_folder(&target_parent).and_then(|parent| {
            rustix::fs::statat(&parent, target_last, AtFlags::SYMLINK_NOFOLLOW).map(|stat| (parent, stat))
        });
        let (target_folder, stat) = match found {
            Ok(found) => found,
            Err(Errno::NOENT) => {
                self.remember(name.byte_len() + target.byte_len())?;
                self.unpacked.links_below.push((name.clone(), target.clone()));
                return Ok(());
            }
            Err(e) => return Err(write_error(name, "find the target of the hard link", e)),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => return Err(refused(name, "a hard link to a folder")),
            FileType::CharacterDevice if stat.st_rdev == 0 => {
                return Err(refused(name, "a hard link to what the layer hides"));
            }
            _ => {}
        }
        self.root
            .replacing(folder, last, |parent| {
                rustix::fs::linkat(&target_folder, target_last, parent, last, AtFlags::empty())
            })
            .map_err(|e| write_error(name, "make the hard link", e))
    }

    fn special(&mut self, folder: &OwnedFd, name: &Name, last: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let kind = match entry.kind {
            Kind::Fifo => FileType::Fifo,
            Kind::Block => FileType::BlockDevice,
            _ => FileType::CharacterDevice,
        };
        let device = if kind == FileType::Fifo { (0, 0) } else { entry.device };
        if kind == FileType::CharacterDevice && device == (0, 0) {
            return Err(refused(name, "the device 0/0, which is how a layer on disk hides a file"));
        }
        let number = rustix::fs::makedev(device.0, device.1);
        let mode = Mode::from_raw_mode(entry.mode);
        let made = self.root.replacing(folder, last, |parent| rustix::fs::mknodat(parent, last, kind, mode, number));
        match made {
            Ok(()) => {}
            Err(Errno::PERM) if kind != FileType::Fifo => {
                tracing::warn!(path = %name, major = device.0, minor = device.1, "device node skipped: the host refuses it");
                return Ok(());
            }
            Err(e) => return Err(write_error(name, "make the device node", e)),
        }
        let failed = |e| write_error(name, "set owner, mode or times", e);
        let (uid, gid) = owner(entry);
        rustix::fs::chownat(folder, last, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        // mknodat(2) is subject to the umask. The node was made a moment ago by the only writer: it is no link.
        rustix::fs::chmodat(folder, last, mode, AtFlags::empty()).map_err(failed)?;
        rustix::fs::utimensat(folder, last, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)
    }
}

fn is_small(entry: &Entry) -> bool {
    entry.sparse.is_none() && entry.size.saturating_add(crew::attribute_bytes(entry) as u64) <= SMALL_MAX_BYTES
}

/// Whether nothing has the name. What cannot be looked at is found out by whoever makes it.
fn is_free(folder: &OwnedFd, last: &[u8]) -> bool {
    matches!(rustix::fs::statat(folder, last, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT))
}

/// Gives a file that has its content everything else.
fn complete(file: &OwnedFd, name: &Name, entry: &Entry) -> Result<(), UnpackError> {
    let metadata = |e| write_error(name, "set owner, mode or times", e);
    // chown(2) clears the set-id bits and the file's capabilities, so it goes first.
    let (uid, gid) = owner(entry);
    rustix::fs::fchown(file, uid, gid).map_err(metadata)?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode)).map_err(metadata)?;
    set_attributes(file, name, entry)?;
    rustix::fs::futimens(file, &times(entry.mtime)).map_err(metadata)
}

/// Attributes that steer the kernel's overlay, or a security module of this host, are not an image's to set.
fn check_attributes(entry: &Entry) -> Result<(), UnpackError> {
    let forbidden = |attribute: &[u8]| attribute.starts_with(b"trusted.") || attribute.starts_with(b"user.overlay.");
    match entry.xattrs.iter().find(|(attribute, _)| forbidden(attribute)) {
        None => Ok(()),
        Some((attribute, _)) => Err(UnpackError::Attribute {
            path: String::from_utf8_lossy(&entry.path).chars().take(300).collect(),
            attribute: String::from_utf8_lossy(attribute).chars().take(100).collect(),
        }),
    }
}

fn is_kept(attribute: &[u8]) -> bool {
    attribute == b"security.capability" || attribute.starts_with(b"user.")
}

fn set_attributes(file: impl AsFd, name: &Name, entry: &Entry) -> Result<(), UnpackError> {
    for (attribute, value) in &entry.xattrs {
        if !is_kept(attribute) {
            tracing::debug!(path = %name, attribute = %String::from_utf8_lossy(attribute), "extended attribute left out");
            continue;
        }
        match rustix::fs::fsetxattr(file.as_fd(), &attribute[..], value, rustix::fs::XattrFlags::empty()) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP) if attribute.starts_with(b"user.") => {}
            Err(e) => return Err(write_error(name, "set an extended attribute", e)),
        }
    }
    Ok(())
}

fn owner(entry: &Entry) -> (Option<rustix::fs::Uid>, Option<rustix::fs::Gid>) {
    // All ones means "leave it" to chown(2); the file is new, so root owns it: refuse to hand that out by accident.
    let id = |id: u32| if id == u32::MAX { 65_534 } else { id };
    (Some(rustix::fs::Uid::from_raw(id(entry.uid))), Some(rustix::fs::Gid::from_raw(id(entry.gid))))
}

fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn write_error(name: &Name, action: &'static str, errno: Errno) -> UnpackError {
    UnpackError::Write { path: name.to_string(), action, source: errno.into() }
}

fn refused(name: &Name, reason: &'static str) -> UnpackError {
    UnpackError::Refused { path: name.to_string(), reason }
}

#[cfg(test)]
mod tests;
