//! Files and trees copied with all that an image may say of them: owner, mode, times, attributes, links, devices, holes.
//! What is copied is private to its copier, and everything goes by descriptor: no link of an image is followed.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, SeekFrom, Stat, Timespec, Timestamps, XattrFlags,
};
use rustix::io::Errno;

const PIECE_BYTES: usize = 1 << 20;
const ATTRIBUTES_MAX_BYTES: usize = 64 << 10;
/// Below the kernel's limit on a path: what lies deeper is reached from a folder on the way.
const PATH_MAX_BYTES: usize = 2048;
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A folder that a walk has still to see, and the way to it from one that is held open: short, however deep it lies.
#[derive(Clone)]
pub struct Place {
    above: Above,
    /// Empty for where the walk begins.
    name: Box<[u8]>,
}

/// Shared by all children of a folder.
#[derive(Clone)]
pub struct Above {
    anchor: Rc<OwnedFd>,
    path: Rc<[u8]>,
}

impl Place {
    pub fn root(folder: OwnedFd) -> Place {
        Place { above: Above::at(folder), name: Box::default() }
    }

    fn path(&self) -> Vec<u8> {
        if self.name.is_empty() { self.above.path.to_vec() } else { [&self.above.path[..], &self.name[..]].join(&b'/') }
    }

    /// Whoever writes there meanwhile leads nowhere by a link.
    pub fn open(&self) -> Result<OwnedFd, Errno> {
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        rustix::fs::openat2(&self.above.anchor, &self.path()[..], FOLDER, Mode::empty(), beneath)
    }

    /// From where its children are counted. `folder` is this place, opened.
    pub fn inside(&self, folder: &OwnedFd) -> Result<Above, Errno> {
        let path = self.path();
        if path.len() < PATH_MAX_BYTES {
            return Ok(Above { anchor: Rc::clone(&self.above.anchor), path: path.into() });
        }
        rustix::io::fcntl_dupfd_cloexec(folder, 0).map(Above::at)
    }
}

impl Above {
    fn at(folder: OwnedFd) -> Above {
        Above { anchor: Rc::new(folder), path: Rc::from(&b"."[..]) }
    }

    pub fn child(&self, name: &[u8]) -> Place {
        Place { above: self.clone(), name: name.into() }
    }
}

/// Copies what is in a file; what is a hole stays one. The bytes copied.
pub fn copy_content(from: impl AsFd, to: impl AsFd) -> Result<u64, Errno> {
    let size = rustix::fs::fstat(&from)?.st_size.try_into().unwrap_or(0_u64);
    let (mut at, mut copied) = (0_u64, 0_u64);
    let mut buffer = Vec::new();
    while at < size {
        // A filesystem that knows no holes says that all is data.
        let start = match rustix::fs::seek(&from, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(e) => return Err(e),
        };
        let end = rustix::fs::seek(&from, SeekFrom::Hole(start))?;
        buffer.resize(PIECE_BYTES, 0);
        at = start;
        while at < end {
            let wanted = PIECE_BYTES.min(usize::try_from(end - at).unwrap_or(usize::MAX));
            let n = rustix::io::pread(&from, &mut buffer[..wanted], at)?;
            if n == 0 {
                break;
            }
            write_at(&to, &buffer[..n], at)?;
            (at, copied) = (at + n as u64, copied + n as u64);
        }
        at = at.max(end);
    }
    rustix::fs::ftruncate(&to, size)?;
    Ok(copied)
}

pub fn write_at(file: impl AsFd, mut bytes: &[u8], mut at: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let written = rustix::io::pwrite(&file, bytes, at)?;
        bytes = &bytes[written..];
        at += written as u64;
    }
    Ok(())
}

/// Owner, mode, attributes and times of a file or folder that is open on both sides.
pub fn copy_metadata(from: impl AsFd, stat: &Stat, to: impl AsFd) -> Result<(), Errno> {
    let (uid, gid) = owner(stat);
    // chown(2) clears the set-id bits and the file's capabilities, so it goes first.
    rustix::fs::fchown(&to, uid, gid)?;
    rustix::fs::fchmod(&to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    copy_attributes(from, &to)?;
    rustix::fs::futimens(&to, &times(stat))
}

pub fn owner(stat: &Stat) -> (Option<rustix::fs::Uid>, Option<rustix::fs::Gid>) {
    (Some(rustix::fs::Uid::from_raw(stat.st_uid)), Some(rustix::fs::Gid::from_raw(stat.st_gid)))
}

pub fn times(stat: &Stat) -> Timestamps {
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ };
    Timestamps { last_access: time, last_modification: time }
}

/// Those that an image may set; the overlay's own are none of them.
fn copy_attributes(from: impl AsFd, to: impl AsFd) -> Result<(), Errno> {
    let mut names = vec![0_u8; ATTRIBUTES_MAX_BYTES];
    let n = match rustix::fs::flistxattr(&from, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        n => n?,
    };
    for name in names[..n].split(|b| *b == 0) {
        let kept = name == b"security.capability" || name.starts_with(b"user.");
        if !kept || name.starts_with(b"user.overlay.") {
            continue;
        }
        let mut value = vec![0_u8; ATTRIBUTES_MAX_BYTES];
        let n = rustix::fs::fgetxattr(&from, name, &mut value[..])?;
        match rustix::fs::fsetxattr(&to, name, &value[..n], XattrFlags::empty()) {
            Err(Errno::OPNOTSUPP) if name.starts_with(b"user.") => {}
            set => set?,
        }
    }
    Ok(())
}

/// Copies a folder with all that is below it into one that is empty and nobody else's.
pub fn copy_tree(from: OwnedFd, to: OwnedFd) -> io::Result<()> {
    let mut links: BTreeMap<_, (Place, Vec<u8>)> = BTreeMap::new();
    let mut steps = vec![Step::Enter(Place::root(from), Place::root(to))];
    while let Some(step) = steps.pop() {
        let (from, to) = match step {
            Step::Enter(from, to) => (from, to),
            // Its times were moved by what was made in it.
            Step::Leave(to, stat) => {
                rustix::fs::futimens(&to.open()?, &times(&stat))?;
                continue;
            }
        };
        let (source, target) = (from.open()?, to.open()?);
        let stat = rustix::fs::fstat(&source)?;
        copy_metadata(&source, &stat, &target)?;
        steps.push(Step::Leave(to.clone(), stat));
        let (above, copies) = (from.inside(&source)?, to.inside(&target)?);
        for entry in Dir::read_from(&source)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let stat = match rustix::fs::statat(&source, name, AtFlags::SYMLINK_NOFOLLOW) {
                // An overlay lists what one layer hides where no other has that folder, and finds nothing there.
                Err(Errno::NOENT) => continue,
                stat => stat?,
            };
            let kind = FileType::from_raw_mode(stat.st_mode);
            // How a layer hides a file; alone it hides nothing.
            if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
                continue;
            }
            if kind == FileType::Directory {
                rustix::fs::mkdirat(&target, name, Mode::from_raw_mode(0o700))?;
                steps.push(Step::Enter(above.child(name), copies.child(name)));
                continue;
            }
            let key = (stat.st_dev, stat.st_ino);
            match links.get(&key).filter(|_| stat.st_nlink > 1) {
                Some((folder, first)) => {
                    rustix::fs::linkat(&folder.open()?, &first[..], &target, name, AtFlags::empty())?;
                }
                None => {
                    copy_entry(&source, &target, name, &stat)?;
                    if stat.st_nlink > 1 {
                        links.insert(key, (to.clone(), name.to_vec()));
                    }
                }
            }
        }
    }
    Ok(())
}

enum Step {
    Enter(Place, Place),
    Leave(Place, Stat),
}

/// Copies one that is no folder.
fn copy_entry(from: &OwnedFd, to: &OwnedFd, name: &[u8], stat: &Stat) -> Result<(), Errno> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let (uid, gid) = owner(stat);
    match kind {
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let copy = rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600))?;
            copy_content(&source, &copy)?;
            return copy_metadata(&source, stat, &copy);
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(&target, to, name)?;
        }
        kind => match rustix::fs::mknodat(to, name, kind, Mode::from_raw_mode(0o600), stat.st_rdev) {
            // As where layers are unpacked: a host that makes no devices has none in its images.
            Err(Errno::PERM) => return Ok(()),
            made => {
                made?;
                rustix::fs::chmodat(to, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
            }
        },
    }
    rustix::fs::chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}

#[cfg(test)]
mod tests {
    use super::super::disk::open_folder;
    use super::super::fixture::{Ground, Tar};
    use super::super::unpack::{Limits, unpack};
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_tree_is_copied_with_all_that_it_is() {
        let ground = Ground::new();
        let layer = Tar::default()
            .folder("d/", 0o1777)
            .pax(&[("uid", b"7"), ("mtime", b"100.5"), ("SCHILY.xattr.user.a", b"b")])
            .entry(b'0', "d/f", "", 0o4755, b"content")
            .hard_link("d/g", "d/f")
            .symlink("d/l", "/etc/passwd")
            .entry(b'6', "fifo", "", 0o622, b"")
            .pax(&[("mtime", b"42")])
            .folder("d/e/", 0o750)
            .file("d/e/x", b"")
            .end();
        unpack(layer.as_slice(), &ground.folder, &ground.aside, &Limits::default()).unwrap();
        std::fs::create_dir(ground.all.path().join("copy")).unwrap();
        let copy = ground.all.path().join("copy");
        copy_tree(open_folder(&ground.path()).unwrap(), open_folder(&copy).unwrap()).unwrap();
        let stat = |path: &std::path::Path| {
            let of = std::fs::symlink_metadata(path).unwrap();
            (of.mode(), of.uid(), of.gid(), of.mtime(), of.mtime_nsec(), of.nlink(), of.len())
        };
        for name in ["d", "d/f", "d/l", "fifo", "d/e", "d/e/x"] {
            let length = |(mode, uid, gid, at, ns, links, bytes)| {
                // A folder's own size is its filesystem's affair.
                (mode, uid, gid, at, ns, links, if mode & 0o170_000 == 0o040_000 { 0 } else { bytes })
            };
            assert_eq!(length(stat(&copy.join(name))), length(stat(&ground.path().join(name))), "{name}");
        }
        let inode = |name: &str| std::fs::symlink_metadata(copy.join(name)).unwrap().ino();
        assert_eq!(inode("d/f"), inode("d/g"));
        assert_eq!(std::fs::read(copy.join("d/f")).unwrap(), b"content");
        let mut value = [0_u8; 8];
        assert_eq!(rustix::fs::getxattr(copy.join("d/f"), "user.a", &mut value).unwrap(), 1);
    }

    #[test]
    fn holes_stay_holes() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            std::fs::File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(folder.path().join(name))
                .unwrap()
        };
        let (from, to) = (file("from"), file("to"));
        write_at(&from, b"here", 8 << 20).unwrap();
        from.set_len(64 << 20).unwrap();
        assert!(copy_content(&from, &to).unwrap() <= 64 << 10);
        assert_eq!(to.metadata().unwrap().len(), 64 << 20);
        assert!(to.metadata().unwrap().blocks() * 512 <= 64 << 10);
        let mut read = [0_u8; 4];
        rustix::io::pread(&to, &mut read[..], 8 << 20).unwrap();
        assert_eq!(&read, b"here");
    }
}
