//! What a folder takes on its disk: the blocks and inodes of all that is in it and of itself, as du(1) counts them.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{AtFlags, Dir, FileType};

use super::copy::Place;

/// The unit of st_blocks.
const BLOCK_BYTES: u64 = 512;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    pub bytes: u64,
    pub inodes: u64,
}

impl Usage {
    /// Of one file.
    pub fn of(metadata: &std::fs::Metadata) -> Usage {
        Usage { bytes: metadata.blocks() * BLOCK_BYTES, inodes: 1 }
    }
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, more: Usage) {
        self.bytes = self.bytes.saturating_add(more.bytes);
        self.inodes = self.inodes.saturating_add(more.inodes);
    }
}

/// Measures a folder. What comes and goes meanwhile is counted as it was seen; what has several names is counted once.
pub fn measure(folder: OwnedFd) -> Usage {
    let mut usage = Usage::default();
    let mut linked = BTreeSet::new();
    if let Ok(stat) = rustix::fs::fstat(&folder) {
        usage += Usage { bytes: stat.st_blocks as u64 * BLOCK_BYTES, inodes: 1 };
    }
    let mut waiting = vec![Place::root(folder)];
    while let Some(place) = waiting.pop() {
        // Containers are free to remove files while they are counted.
        let Ok(folder) = place.open() else { continue };
        let (Ok(entries), Ok(above)) = (Dir::read_from(&folder), place.inside(&folder)) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let Ok(stat) = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if is_folder {
                waiting.push(above.child(name));
            } else if stat.st_nlink > 1 && !linked.insert((stat.st_dev, stat.st_ino)) {
                continue;
            }
            usage += Usage { bytes: stat.st_blocks as u64 * BLOCK_BYTES, inodes: 1 };
        }
    }
    usage
}

#[cfg(test)]
mod tests {
    use super::super::disk::open_folder;
    use super::*;
    use std::process::Command;

    #[test]
    fn it_is_what_du_says() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for n in 0..300 {
            std::fs::create_dir_all(at(&format!("d{}/e", n % 7))).unwrap();
            std::fs::write(at(&format!("d{}/e/f{n}", n % 7)), vec![7; n * 37]).unwrap();
        }
        std::fs::hard_link(at("d1/e/f1"), at("again")).unwrap();
        std::os::unix::fs::symlink("x".repeat(1000), at("long")).unwrap();
        std::fs::File::create(at("sparse")).unwrap().set_len(1 << 30).unwrap();
        let said = |what: &str| -> u64 {
            let said = Command::new("du").args(["-s", what]).arg(folder.path()).output().unwrap().stdout;
            String::from_utf8(said).unwrap().split_whitespace().next().unwrap().parse().unwrap()
        };
        let usage = measure(open_folder(folder.path()).unwrap());
        assert_eq!(usage, Usage { bytes: said("-B1"), inodes: said("--inodes") });
    }

    /// Deeper than a path can say.
    #[test]
    fn depth_is_no_hiding_place() {
        let folder = tempfile::tempdir().unwrap();
        let mut at = open_folder(folder.path()).unwrap();
        let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "deep", rustix::fs::Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, "deep", flags, rustix::fs::Mode::empty()).unwrap();
        }
        assert_eq!(measure(open_folder(folder.path()).unwrap()).inodes, 3001);
        super::super::disk::remove_below(folder.path(), "deep").unwrap();
    }
}
