//! What a layer needs of the layers below it, done when they are all there.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timestamps};
use rustix::io::Errno;

use super::name::Name;
use super::root::open_in;
use super::{UnpackError, Unpacked, Usage, refused, write_error};

/// Gives folders that the archive took for granted the owner, mode and times that they have below (an overlay shows
/// the uppermost folder's), and copies up what hard links name below. `lowers` are the layers' folders, uppermost
/// first. Returns the layer's usage.
pub fn settle(unpacked: Unpacked, folder: &OwnedFd, lowers: &[OwnedFd]) -> Result<Usage, UnpackError> {
    let mut usage = unpacked.usage;
    for name in &unpacked.implied {
        adopt(name, folder, lowers).map_err(|e| write_error(name, "adopt the folder below", e))?;
    }
    for (link, target) in &unpacked.links_below {
        usage.bytes += copy_up(link, target, folder, lowers)?;
        usage.inodes += 1;
    }
    Ok(usage)
}

fn adopt(name: &Name, folder: &OwnedFd, lowers: &[OwnedFd]) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    for lower in lowers {
        let below = match open_in(lower, name.bytes(), flags) {
            Ok(below) => rustix::fs::fstat(&below)?,
            Err(Errno::NOENT) => continue,
            // Hidden, or not a folder: there is nothing to adopt.
            Err(_) => return Ok(()),
        };
        let own = match open_in(folder, name.bytes(), flags) {
            Ok(own) => own,
            Err(_) => return Ok(()),
        };
        rustix::fs::fchown(
            &own,
            Some(rustix::fs::Uid::from_raw(below.st_uid)),
            Some(rustix::fs::Gid::from_raw(below.st_gid)),
        )?;
        rustix::fs::fchmod(&own, Mode::from_raw_mode(below.st_mode & 0o7777))?;
        return rustix::fs::futimens(&own, &times_of(&below));
    }
    Ok(())
}

fn times_of(stat: &rustix::fs::Stat) -> Timestamps {
    let time = rustix::fs::Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ };
    Timestamps { last_access: time, last_modification: time }
}

/// The bytes copied.
fn copy_up(link: &Name, target: &Name, folder: &OwnedFd, lowers: &[OwnedFd]) -> Result<u64, UnpackError> {
    let failed = |e| write_error(link, "copy up the target of the hard link", e);
    let missing = || refused(link, "the target of the hard link is in no layer");
    for lower in lowers {
        // O_PATH: a device below must not be opened by looking at it.
        let below = match open_in(lower, target.bytes(), OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(below) => below,
            Err(Errno::NOENT) => continue,
            Err(e) => return Err(failed(e)),
        };
        let stat = rustix::fs::fstat(&below).map_err(failed)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::CharacterDevice if stat.st_rdev == 0 => return Err(missing()),
            _ => return Err(refused(link, "a hard link to something below that is not a regular file")),
        }
        let source = open_in(lower, target.bytes(), OFlags::RDONLY | OFlags::NOFOLLOW).map_err(failed)?;
        let Some((parent, last)) = link.split_last() else { return Err(missing()) };
        let parent = open_in(folder, parent.bytes(), OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
        match rustix::fs::statat(&parent, last, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {}
            Ok(_) => return Err(refused(link, "a hard link to a layer below, and another entry of that name")),
            Err(e) => return Err(failed(e)),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let copy = rustix::fs::openat(&parent, last, flags, Mode::from_raw_mode(0o600)).map_err(failed)?;
        let (mut from, mut to) = (std::fs::File::from(source), std::fs::File::from(copy));
        let bytes = std::io::copy(&mut from, &mut to).map_err(|source| UnpackError::Write {
            path: link.to_string(),
            action: "copy up the target of the hard link",
            source,
        })?;
        let (uid, gid) = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
        rustix::fs::fchown(&to, Some(uid), Some(gid)).map_err(failed)?;
        rustix::fs::fchmod(&to, Mode::from_raw_mode(stat.st_mode & 0o7777)).map_err(failed)?;
        rustix::fs::futimens(&to, &times_of(&stat)).map_err(failed)?;
        return Ok(bytes);
    }
    Err(missing())
}
