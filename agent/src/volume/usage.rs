//! How much of the disk a folder takes, as `du` counts: blocks of everything in it, what has several names once.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, open, openat2, statat};

/// Entries that are looked at; what lies beyond is not counted.
const ENTRIES_MAX: usize = 1_000_000;
const BLOCK_BYTES: u64 = 512;

/// What is in a folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    pub bytes: u64,
    /// Files and folders, each a node of the file system.
    pub files: u64,
}

/// Bytes on disk of everything in the folder `root`, 0 where there is none. It blocks.
pub fn disk_bytes(root: &Path) -> io::Result<u64> {
    walk(root).map(|walked| walked.bytes)
}

/// Everything in the folder `root`, nothing where there is none. A container may change the folder meanwhile: every step is
/// taken beneath `root`, over no link and into no other file system. It blocks.
pub fn walk(root: &Path) -> io::Result<Walked> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = match open(root, flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => return Ok(Walked::default()),
        other => other?,
    };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let (mut walked, mut seen, mut shared) = (Walked::default(), 0_usize, BTreeSet::new());
    let mut folders = vec![PathBuf::from(".")];
    while let Some(folder) = folders.pop() {
        // It may be gone by now, or be something else: then there is nothing in it.
        let Ok(fd) = openat2(&top, &folder, flags, Mode::empty(), resolve) else { continue };
        let mut dir = Dir::new(fd)?;
        while let Some(Ok(entry)) = dir.read() {
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            seen += 1;
            if seen > ENTRIES_MAX {
                return Ok(walked);
            }
            let Ok(stat) = statat(dir.fd()?, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if is_folder {
                folders.push(folder.join(OsStr::from_bytes(entry.file_name().to_bytes())));
            }
            if is_folder || stat.st_nlink <= 1 || shared.insert((stat.st_dev, stat.st_ino)) {
                let bytes = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(BLOCK_BYTES);
                walked.bytes = walked.bytes.saturating_add(bytes);
                walked.files += 1;
            }
        }
    }
    Ok(walked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_in_a_folder_is_counted_once_and_no_link_is_followed() {
        let root = tempfile::tempdir().unwrap();
        let (volume, outside) = (root.path().join("v"), root.path().join("outside"));
        fs::create_dir_all(volume.join("a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        let empty = disk_bytes(&volume).unwrap();
        let data = vec![1_u8; 256 << 10];
        fs::write(outside.join("large"), &data).unwrap();
        std::os::unix::fs::symlink(&outside, volume.join("link")).unwrap();
        assert!(disk_bytes(&volume).unwrap() < empty + (256 << 10), "it counted what a link leads to");
        fs::write(volume.join("a/b/one"), &data).unwrap();
        fs::hard_link(volume.join("a/b/one"), volume.join("two")).unwrap();
        let full = disk_bytes(&volume).unwrap();
        assert!(((256 << 10)..(512 << 10)).contains(&full), "{full} bytes");
        assert_eq!(disk_bytes(&root.path().join("nothing")).unwrap(), 0);
        assert!(disk_bytes(&volume.join("link")).is_err(), "a link in place of the folder was followed");
    }
}
