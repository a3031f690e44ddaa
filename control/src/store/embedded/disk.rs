//! What the log lies on: a file, or memory. A test brings its own, which fails.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use redb::StorageBackend;
use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate};
use rustix::io::Errno;

use crate::store::StoreError;

/// Bytes that can be made durable. Everything written before a [`Disk::sync`] that succeeded survives a loss of power;
/// of what was written after it, any part may.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    fn size(&self) -> io::Result<u64>;
    /// Fails where the range is not wholly within the length.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
    /// New bytes are zero. Fails, rather than a later write, where there is no space for them.
    fn set_len(&self, len: u64) -> io::Result<()>;
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
    /// Called before the log is read again after a failure: what was written but not synced is not to be believed.
    fn distrust(&self) -> io::Result<()>;
    /// How messages name it.
    fn name(&self) -> String;
}

/// The least growth for which there must be space.
const GROWTH_MIN_BYTES: u64 = 1 << 20;

/// A file, locked against other processes for as long as this lives.
pub struct FileDisk {
    file: File,
    path: PathBuf,
}

impl fmt::Debug for FileDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl FileDisk {
    /// Opens or makes the file (0600). The folder must be there.
    pub fn open(path: impl AsRef<Path>) -> Result<FileDisk, StoreError> {
        let path = path.as_ref().to_owned();
        let fault = |doing| move |error: io::Error| StoreError::Io { doing, source: Arc::new(error) };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(fault("open its file"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { path: path.display().to_string() }),
            Err(TryLockError::Error(error)) => return Err(fault("lock its file")(error)),
        }
        // The name itself has to survive a loss of power too.
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(fault("sync its folder"))?;
        }
        Ok(FileDisk { file, path })
    }
}

impl Disk for FileDisk {
    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    /// Growth takes real blocks at once, so that on a full disk it is mostly this call that fails, before anything is
    /// written. redb doubles a small file: where there is no space for all of that, the first of it is taken, and a later
    /// write may fail, which costs a group of writes and a reopening.
    fn set_len(&self, len: u64) -> io::Result<()> {
        let now = self.size()?;
        if len <= now {
            return self.file.set_len(len);
        }
        let grow = |bytes| fallocate(&self.file, FallocateFlags::empty(), now, bytes);
        match grow(len - now) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.file.set_len(len),
            Err(Errno::NOSPC) => {
                // What a growth that failed has taken is given back.
                self.file.set_len(now)?;
                grow(GROWTH_MIN_BYTES.min(len - now))?;
                self.file.set_len(len)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// After a failed fsync the kernel counts the pages as clean although the disk does not have them; dropping them makes
    /// the next read tell the truth.
    fn distrust(&self) -> io::Result<()> {
        fadvise(&self.file, 0, None, Advice::DontNeed).map_err(io::Error::from)
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

/// Memory: for a cluster that is simulated and forgotten.
#[derive(Default)]
pub struct MemoryDisk(Mutex<Vec<u8>>);

impl MemoryDisk {
    /// Everything that was written so far.
    pub fn contents(&self) -> Vec<u8> {
        self.0.lock().clone()
    }
}

impl fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory")
    }
}

impl Disk for MemoryDisk {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.lock().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.lock();
        let range = range(offset, out.len()).and_then(|range| bytes.get(range));
        out.copy_from_slice(range.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::StorageFull)?;
        self.0.lock().resize(len, 0);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.0.lock();
        let range = range(offset, data.len()).and_then(|range| bytes.get_mut(range));
        range.ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn distrust(&self) -> io::Result<()> {
        Ok(())
    }

    fn name(&self) -> String {
        "memory".to_owned()
    }
}

fn range(offset: u64, length: usize) -> Option<std::ops::Range<usize>> {
    let start = usize::try_from(offset).ok()?;
    Some(start..start.checked_add(length)?)
}

/// A disk as redb wants it. The lock is the disk's own, and outlives the database that is reopened on it.
#[derive(Debug)]
pub(super) struct Backend(pub Arc<dyn Disk>);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}
