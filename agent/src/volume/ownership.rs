//! fsGroup: a volume's files are given to a group, which may read and write them.
//!
//! Another pod may change the tree meanwhile: every step is taken beneath its root, over no link and into no other file
//! system.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fd::OwnedFd;
use rustix::fs::{Dir, FileType, Gid, Mode, OFlags, ResolveFlags, fchmod, fchown, fstat, open, openat2};

/// Of folders: new files in them belong to the group too.
const FOLDER_MODE: u32 = 0o2770;
const FILE_MODE: u32 = 0o660;
/// What is larger is not looked through at a pod's start for ever.
const ENTRIES_MAX: usize = 10_000_000;

/// It blocks. With `only_root_mismatch` a tree whose root is the group's already stays as it is.
pub fn give(root: &Path, gid: u32, only_root_mismatch: bool) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = open(root, flags, Mode::empty())?;
    let stat = fstat(&top)?;
    if only_root_mismatch && stat.st_gid == gid && stat.st_mode & FOLDER_MODE == FOLDER_MODE {
        return Ok(());
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let mut folders = vec![PathBuf::from(".")];
    let mut seen = 0_usize;
    // The root last: it says that all else is done.
    while let Some(folder) = folders.pop() {
        // It may be gone by now, or be something else: then it is not ours to change.
        let Ok(fd) = openat2(&top, &folder, flags, Mode::empty(), resolve) else { continue };
        if folder != Path::new(".") {
            give_one(&fd, gid, FOLDER_MODE)?;
        }
        let mut dir = Dir::new(fd)?;
        while let Some(entry) = dir.read() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            seen += 1;
            if seen > ENTRIES_MAX {
                return Err(io::Error::other(format!("more than {ENTRIES_MAX} files")));
            }
            let path = folder.join(name);
            // Not for reading: a pipe or a device must not be woken.
            let at = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let Ok(there) = openat2(&top, &path, at, Mode::empty(), resolve) else { continue };
            match FileType::from_raw_mode(fstat(&there)?.st_mode) {
                FileType::Directory => folders.push(path),
                FileType::RegularFile => {
                    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                    let Ok(file) = openat2(&top, &path, flags, Mode::empty(), resolve) else { continue };
                    give_one(&file, gid, FILE_MODE)?;
                }
                _ => {}
            }
        }
    }
    give_one(&top, gid, FOLDER_MODE)
}

/// Adds what the group is to have to what there is.
fn give_one(fd: &OwnedFd, gid: u32, mode: u32) -> io::Result<()> {
    let stat = fstat(fd)?;
    if stat.st_gid != gid {
        fchown(fd, None, Some(Gid::from_raw(gid)))?;
    }
    // A change of the group takes set-group-id away from files; only folders are to have it.
    let wanted = stat.st_mode & 0o7777 | mode;
    if fstat(fd)?.st_mode & 0o7777 != wanted {
        fchmod(fd, Mode::from_raw_mode(wanted))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn all_of_it_is_given_and_no_link_is_followed() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("needs root");
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let (volume, outside) = (root.path().join("v"), root.path().join("outside"));
        fs::create_dir_all(volume.join("a/b")).unwrap();
        fs::write(volume.join("a/b/file"), "x").unwrap();
        fs::write(&outside, "x").unwrap();
        symlink(&outside, volume.join("a/link")).unwrap();
        give(&volume, 1234, false).unwrap();
        for (path, mode) in [("", FOLDER_MODE), ("a/b", FOLDER_MODE), ("a/b/file", FILE_MODE)] {
            let found = fs::metadata(volume.join(path)).unwrap();
            assert_eq!((found.gid(), found.mode() & mode), (1234, mode), "{path}");
        }
        assert_ne!(fs::metadata(&outside).unwrap().gid(), 1234, "a link was followed");
        // Whose root is the group's already is left alone where only that is asked.
        fs::write(volume.join("new"), "x").unwrap();
        std::os::unix::fs::chown(volume.join("new"), None, Some(0)).unwrap();
        give(&volume, 1234, true).unwrap();
        assert_eq!(fs::metadata(volume.join("new")).unwrap().gid(), 0);
        give(&volume, 1234, false).unwrap();
        assert_eq!(fs::metadata(volume.join("new")).unwrap().gid(), 1234);
        assert!(give(&volume.join("a/link"), 1234, false).is_err());
    }
}
