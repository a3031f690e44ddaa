//! Small, crash-safe steps on the disk.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::fault::{Point, point};

use super::error::ImageError;
use super::unpack::remove_tree;

/// A folder that only root may enter; one that is there already is left as it is.
pub fn private_folder(path: &Path) -> Result<(), ImageError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| ImageError::disk("make the folder", path, e))
}

pub fn open_folder(path: &Path) -> Result<OwnedFd, ImageError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|e| ImageError::disk("open the folder", path, e.into()))
}

static TEMPORARY: AtomicU64 = AtomicU64::new(0);

/// Replaces a file so that a crash at any moment leaves either the old content or the new: temporary file, fsync,
/// rename, fsync of the folder. `durable` false leaves the fsyncs out, for what need not outlive a boot.
pub fn write_atomically(path: &Path, content: &[u8], durable: bool) -> Result<(), ImageError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    // Two pulls may write one blob at once: each has a temporary file of its own.
    let number = TEMPORARY.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_extension(format!("{number}.tmp"));
    let result = (|| -> io::Result<()> {
        point(Point::ImageWrite);
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        if durable {
            file.sync_all()?;
        }
        point(Point::ImageRename);
        fs::rename(&temporary, path)?;
        if durable {
            point(Point::ImageSync);
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    })();
    result.map_err(|e| {
        // What could not be written must not keep its share of a full disk.
        let _ = fs::remove_file(&temporary);
        ImageError::disk("write", path, e)
    })
}

/// Who was killed as it started another process left that what it held, until it becomes its program.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_POLL: Duration = Duration::from_millis(10);

/// Held for the life of the process: one writer per store. May block for a moment.
pub fn lock(path: &Path) -> Result<File, ImageError> {
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|e| ImageError::disk("open", path, e))?;
    let mut waited = Duration::ZERO;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if waited < LOCK_PATIENCE => {
                std::thread::sleep(LOCK_POLL);
                waited += LOCK_POLL;
            }
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(ImageError::Locked(path.to_owned())),
            Err(e) => return Err(ImageError::disk("lock", path, e.into())),
        }
    }
}

/// Names in a folder; one that is not there has none.
pub fn names(folder: &Path) -> Result<Vec<String>, ImageError> {
    let failed = |e| ImageError::disk("read the folder", folder, e);
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        // A name that is not UTF-8 is none of ours.
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

pub fn remove_below(folder: &Path, name: &str) -> Result<(), ImageError> {
    let parent = open_folder(folder)?;
    remove_tree(&parent, name.as_bytes()).map_err(|e| ImageError::disk("remove", &folder.join(name), e))
}

/// Writes back the whole filesystem, and reports what could not be written since it was last asked.
pub fn sync_filesystem(folder: &Path) -> Result<(), ImageError> {
    let fd = open_folder(folder)?;
    point(Point::ImageSync);
    rustix::fs::syncfs(&fd).map_err(|e| ImageError::disk("sync", folder, e.into()))
}
