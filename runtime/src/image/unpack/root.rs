//! The layer's folder: every path is resolved inside it, by descriptor.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::name::Name;

/// As the kernel's own limit on symbolic links in one path.
const LINKS_MAX: usize = 40;
const OPAQUE: &str = "trusted.overlay.opaque";

pub(super) struct Root<'a> {
    folder: &'a OwnedFd,
    /// Where what is replaced goes: removing a tree in place would need a recursion that an image could make deep.
    aside: &'a OwnedFd,
    moved: u64,
    /// Entries come folder by folder: the last parent is nearly always the next one.
    last_parent: Option<(Name, Arc<OwnedFd>, u64)>,
}

/// Whether a folder of a layer hides what is below it.
pub fn is_opaque(folder: &Path) -> bool {
    let mut value = [0_u8; 8];
    rustix::fs::getxattr(folder, OPAQUE, &mut value[..]).is_ok_and(|n| &value[..n] == b"y")
}

/// Opens `path` below `root` as the kernel would with `root` as its root directory.
pub(in crate::image) fn open_in(root: impl AsFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // A rename elsewhere on the machine can make the kernel ask for another try.
    for _ in 0..128 {
        match rustix::fs::openat2(root.as_fd(), path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

pub(super) const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);

impl<'a> Root<'a> {
    pub(super) fn new(folder: &'a OwnedFd, aside: &'a OwnedFd) -> Root<'a> {
        Root { folder, aside, moved: 0, last_parent: None }
    }

    /// An existing folder; links on the way are followed, inside the root.
    pub(super) fn open_folder(&self, name: &Name) -> Result<OwnedFd, Errno> {
        open_in(self.folder, name.bytes(), FOLDER)
    }

    /// The folder of an entry, if it is there, and the number of its inode.
    pub(super) fn known_parent(&mut self, name: &Name) -> Result<(Arc<OwnedFd>, u64), Errno> {
        if let Some((last, folder, number)) = &self.last_parent
            && last == name
        {
            return Ok((Arc::clone(folder), *number));
        }
        let folder = self.open_folder(name)?;
        self.keep_parent(name, folder)
    }

    /// The same; what is missing on the way is made, and named in `made`.
    pub(super) fn parent(&mut self, name: &Name, made: &mut Vec<Name>) -> Result<(Arc<OwnedFd>, u64), Errno> {
        let folder = match self.open_folder(name) {
            Ok(folder) => folder,
            Err(Errno::NOENT) => self.make_path(name, made)?,
            Err(e) => return Err(e),
        };
        self.keep_parent(name, folder)
    }

    fn keep_parent(&mut self, name: &Name, folder: OwnedFd) -> Result<(Arc<OwnedFd>, u64), Errno> {
        let number = rustix::fs::fstat(&folder)?.st_ino;
        let folder = Arc::new(folder);
        self.last_parent = Some((name.clone(), Arc::clone(&folder), number));
        Ok((folder, number))
    }

    /// Makes the folders of a path one by one. A link that leads nowhere yet (its target is in a layer below) is
    /// followed by making its target: `lib -> usr/lib`, then `lib/x`.
    fn make_path(&self, name: &Name, made: &mut Vec<Name>) -> Result<OwnedFd, Errno> {
        let mut parts: Vec<Vec<u8>> = name.components().map(<[u8]>::to_vec).collect();
        let (mut at, mut links) = (0, 0);
        let mut folder = open_in(self.folder, b"", FOLDER)?;
        while at < parts.len() {
            match self.step(&folder, &parts, at) {
                Ok(next) => {
                    folder = next;
                    at += 1;
                    continue;
                }
                Err(Errno::NOENT) => {}
                Err(e) => return Err(e),
            }
            let part = &parts[at];
            match rustix::fs::mkdirat(&folder, &part[..], Mode::from_raw_mode(0o755)) {
                Ok(()) => made.push(Name::from_components(parts[..=at].iter().map(Vec::as_slice))),
                Err(Errno::EXIST) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(Errno::LOOP);
                    }
                    let target: CString = rustix::fs::readlinkat(&folder, &part[..], Vec::new())?;
                    parts = follow(&parts, at, target.as_bytes());
                    at = 0;
                    folder = open_in(self.folder, b"", FOLDER)?;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(folder)
    }

    /// The folder that is called `parts[at]` in `folder`. A plain one is opened from there, since a path from the root
    /// would be walked anew for each of its parts; a link and a `..` are for the kernel to resolve inside the root.
    fn step(&self, folder: &OwnedFd, parts: &[Vec<u8>], at: usize) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = FOLDER | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat2(folder, &parts[at][..], flags, Mode::empty(), resolve) {
            Err(Errno::LOOP | Errno::NOTDIR | Errno::XDEV | Errno::AGAIN | Errno::INTR) => {
                open_in(self.folder, &parts[..=at].join(&b'/'), FOLDER)
            }
            result => result,
        }
    }

    pub(super) fn create_file(&mut self, parent: &OwnedFd, last: &[u8]) -> Result<OwnedFd, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.replacing(parent, last, |parent| rustix::fs::openat(parent, last, flags, Mode::from_raw_mode(0o600)))
    }

    /// A folder that is there stays, with what it holds; anything else makes way.
    pub(super) fn create_folder(&mut self, parent: &OwnedFd, last: &[u8]) -> Result<OwnedFd, Errno> {
        let mut hides = false;
        match kind_of(parent, last)? {
            Some(Existing::Folder) => {}
            existing => {
                hides = matches!(existing, Some(Existing::Whiteout));
                self.replacing(parent, last, |parent| rustix::fs::mkdirat(parent, last, Mode::from_raw_mode(0o700)))?;
            }
        }
        let folder = rustix::fs::openat(parent, last, FOLDER | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        if hides {
            self.make_opaque(parent, last)?;
        }
        Ok(folder)
    }

    /// Hides a name of the layers below. What this layer itself has under that name stays: a folder becomes opaque,
    /// and anything else hides what is below it as it is.
    pub(super) fn whiteout(&mut self, parent: &OwnedFd, hidden: &[u8]) -> Result<(), Errno> {
        match kind_of(parent, hidden)? {
            Some(Existing::Folder) => self.make_opaque(parent, hidden),
            Some(_) => Ok(()),
            None => rustix::fs::mknodat(parent, hidden, FileType::CharacterDevice, Mode::empty(), 0),
        }
    }

    pub(super) fn make_opaque(&self, parent: &OwnedFd, last: &[u8]) -> Result<(), Errno> {
        let folder = rustix::fs::openat(parent, last, FOLDER | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        rustix::fs::fsetxattr(&folder, OPAQUE, b"y", rustix::fs::XattrFlags::empty())
    }

    /// Makes a name, moving away what has it.
    pub(super) fn replacing<T>(
        &mut self,
        parent: &OwnedFd,
        last: &[u8],
        make: impl Fn(&OwnedFd) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        match make(parent) {
            Err(Errno::EXIST) => {}
            result => return result,
        }
        self.last_parent = None;
        self.moved += 1;
        rustix::fs::renameat(parent, last, self.aside, format!("replaced-{}", self.moved))?;
        make(parent)
    }
}

enum Existing {
    Folder,
    Whiteout,
    Other,
}

fn kind_of(parent: &OwnedFd, last: &[u8]) -> Result<Option<Existing>, Errno> {
    match rustix::fs::statat(parent, last, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Existing::Folder,
            FileType::CharacterDevice if stat.st_rdev == 0 => Existing::Whiteout,
            _ => Existing::Other,
        })),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The path with its component `at`, a link, replaced by the link's target. A `..` is left for the kernel to resolve.
fn follow(parts: &[Vec<u8>], at: usize, target: &[u8]) -> Vec<Vec<u8>> {
    let before = if target.starts_with(b"/") { &[][..] } else { &parts[..at] };
    let target = target.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec);
    before.iter().cloned().chain(target).chain(parts[at + 1..].iter().cloned()).collect()
}
