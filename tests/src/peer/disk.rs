//! What the disk alone can do.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use tokio::time::Instant;

use super::millis;

const PAGE: [u8; 4096] = [7; 4096];
const PAGES: u64 = 1000;

/// Writes of one page with an fdatasync each, one after the other.
#[derive(Debug)]
pub struct SyncedWrites {
    file: File,
    done: u64,
}

impl SyncedWrites {
    /// In a file under `folder` whose blocks are all there, and which has no name.
    pub fn new(folder: &Path) -> io::Result<SyncedWrites> {
        let file = tempfile::tempfile_in(folder)?;
        for page in 0..PAGES {
            file.write_all_at(&PAGE, page * PAGE.len() as u64)?;
        }
        file.sync_all()?;
        Ok(SyncedWrites { file, done: 0 })
    }

    /// One more; how many milliseconds it took.
    pub fn write(&mut self) -> io::Result<f64> {
        let at = Instant::now();
        self.file.write_all_at(&PAGE, self.done % PAGES * PAGE.len() as u64)?;
        self.file.sync_data()?;
        self.done += 1;
        Ok(millis(at.elapsed()))
    }
}
