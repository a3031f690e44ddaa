//! What a layer needs of the layers below it, done when they are all there.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::name::Name;
use super::root::open_in;
use super::{UnpackError, Unpacked, refused, write_error};
use crate::image::copy::{copy_content, copy_metadata, owner, times};

/// Gives folders that the archive took for granted the owner, mode and times that they have below (an overlay shows
/// the uppermost folder's), and copies up what hard links name below. `lowers` are the layers' folders, uppermost
/// first.
pub fn settle(unpacked: Unpacked, folder: &OwnedFd, lowers: &[OwnedFd]) -> Result<(), UnpackError> {
    for name in &unpacked.implied {
        adopt(name, folder, lowers).map_err(|e| write_error(name, "adopt the folder below", e))?;
    }
    let mut copies: BTreeMap<&Name, &Name> = BTreeMap::new();
    for (link, target) in &unpacked.links_below {
        // However often a layer names one file, the disk holds one copy: they are links of each other.
        match copies.get(target) {
            Some(copy) => link_to(link, copy, folder)?,
            None => {
                copy_up(link, target, folder, lowers)?;
                copies.insert(target, link);
            }
        }
    }
    Ok(())
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
        let (uid, gid) = owner(&below);
        rustix::fs::fchown(&own, uid, gid)?;
        rustix::fs::fchmod(&own, Mode::from_raw_mode(below.st_mode & 0o7777))?;
        return rustix::fs::futimens(&own, &times(&below));
    }
    Ok(())
}

fn copy_up(link: &Name, target: &Name, folder: &OwnedFd, lowers: &[OwnedFd]) -> Result<(), UnpackError> {
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
        let (parent, last) = free_place(link, folder)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let copy = rustix::fs::openat(&parent, last, flags, Mode::from_raw_mode(0o600)).map_err(failed)?;
        copy_content(&source, &copy).map_err(failed)?;
        return copy_metadata(&source, &stat, &copy).map_err(failed);
    }
    Err(missing())
}

/// Where a link is to be: its folder, and its name, which nothing has.
fn free_place<'l>(link: &'l Name, folder: &OwnedFd) -> Result<(OwnedFd, &'l [u8]), UnpackError> {
    let failed = |e| write_error(link, "make the hard link", e);
    let Some((parent, last)) = link.split_last() else { return Err(refused(link, "a hard link at the root")) };
    let parent = open_in(folder, parent.bytes(), OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
    match rustix::fs::statat(&parent, last, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok((parent, last)),
        Ok(_) => Err(refused(link, "a hard link to a layer below, and another entry of that name")),
        Err(e) => Err(failed(e)),
    }
}

fn link_to(link: &Name, copy: &Name, folder: &OwnedFd) -> Result<(), UnpackError> {
    let failed = |e| write_error(link, "make the hard link", e);
    let (parent, last) = free_place(link, folder)?;
    let Some((copied_in, copied)) = copy.split_last() else { return Err(failed(Errno::NOENT)) };
    let copied_in = open_in(folder, copied_in.bytes(), OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
    rustix::fs::linkat(&copied_in, copied, &parent, last, AtFlags::empty()).map_err(failed)
}
