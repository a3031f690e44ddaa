//! Files copied with all that an image may say of them: owner, mode, times, attributes, holes.
//! What is copied is private to its copier, and everything goes by descriptor: no link of an image is followed.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{Mode, OFlags, ResolveFlags, SeekFrom, Stat, Timespec, Timestamps, XattrFlags};
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

#[cfg(test)]
mod tests {
    use super::*;

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
