//! A block device of our own, which loses power, is slow or fails when a test says so. It speaks the kernel's nbd protocol over
//! a socket pair and keeps its sectors in a file outside the machine. What was written and not flushed is in memory, or by the
//! dice on the medium already, sector by sector, as disks reorder: whoever kills the machine loses what a disk may lose.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use parking_lot::Mutex;
use rand::rngs::StdRng;

mod attach;
mod cache;
mod wire;

#[cfg(test)]
mod tests;

use cache::{Cache, SECTOR_BYTES};
use wire::{Request, What};

/// The kernel's first nbd device: a machine has one such disk.
const INDEX: u32 = 0;
/// As much as the kernel asks for at once, and far more.
const TRANSFER_MAX_BYTES: u32 = 32 << 20;

/// What is the matter with a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ailments {
    /// Each flush takes so much longer.
    pub flush_delay: Duration,
    pub refuses_writes: bool,
    pub fails_reads: bool,
}

/// An attached disk. It works for as long as the process that attached it.
#[derive(Clone, Debug)]
pub struct Disk {
    ailments: Arc<Mutex<Ailments>>,
}

impl Disk {
    /// Opens or makes the medium and gives it to the kernel of this machine. Call it in the machine's first network namespace:
    /// no other knows nbd.
    pub fn attach(medium: &Path, bytes: u64, dice: StdRng) -> io::Result<Disk> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(medium)?;
        file.set_len(bytes)?;
        let (ours, theirs) = UnixStream::pair()?;
        let disk = Disk { ailments: Arc::default() };
        let server = Server { socket: ours, medium: file, cache: Cache::new(dice), ailments: disk.ailments.clone() };
        std::thread::Builder::new().name("disk".to_owned()).spawn(move || {
            if let Err(error) = server.serve() {
                eprintln!("the disk stops: {error}");
            }
        })?;
        attach::attach(INDEX, bytes, theirs.as_fd())?;
        Ok(disk)
    }

    pub fn device() -> PathBuf {
        PathBuf::from(format!("/dev/nbd{INDEX}"))
    }

    /// Makes a file system with room for so many files.
    pub fn format(&self, inodes: u32) {
        let inodes = inodes.to_string();
        let made = Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-N", &inodes]).arg(Disk::device()).status();
        assert!(made.is_ok_and(|status| status.success()), "mkfs.ext4");
    }

    pub fn mount(&self, at: &Path) -> nix::Result<()> {
        mount(Some(&Disk::device()), at, Some("ext4"), MsFlags::empty(), None::<&str>)
    }

    pub fn suffer(&self, ailments: Ailments) {
        *self.ailments.lock() = ailments;
    }

    pub fn heal(&self) {
        self.suffer(Ailments::default());
    }

    /// Ailments that end with the value that is returned, however the test goes on.
    pub fn ailing(&self, ailments: Ailments) -> Ailing<'_> {
        self.suffer(ailments);
        Ailing(self)
    }
}

/// A disk that is well again when this is dropped.
#[derive(Debug)]
pub struct Ailing<'a>(&'a Disk);

impl Drop for Ailing<'_> {
    fn drop(&mut self) {
        self.0.heal();
    }
}

/// The disk's side of the wire.
struct Server {
    socket: UnixStream,
    medium: File,
    cache: Cache,
    ailments: Arc<Mutex<Ailments>>,
}

impl Server {
    /// Until the kernel lets go of the disk.
    fn serve(mut self) -> io::Result<()> {
        let mut header = [0; wire::REQUEST_BYTES];
        loop {
            match self.socket.read_exact(&mut header) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                read => read?,
            }
            let request = wire::request(&header).ok_or(io::ErrorKind::InvalidData)?;
            if request.length > TRANSFER_MAX_BYTES {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let mut data = vec![0; request.length as usize];
            match request.what {
                What::Disconnect => return Ok(()),
                What::Write { .. } => self.socket.read_exact(&mut data)?,
                What::Read | What::Flush => {}
            }
            let done = self.answer(request, &mut data);
            self.socket.write_all(&wire::reply(request.cookie, done.is_ok()))?;
            if request.what == What::Read && done.is_ok() {
                self.socket.write_all(&data)?;
            }
        }
    }

    fn answer(&mut self, request: Request, data: &mut [u8]) -> io::Result<()> {
        let Ailments { flush_delay, refuses_writes, fails_reads } = *self.ailments.lock();
        if request.what == What::Read {
            if fails_reads {
                return Err(io::Error::other("the sector is not readable"));
            }
            self.medium.read_exact_at(data, request.offset)?;
            self.cache.overlay(request.offset, data);
            return Ok(());
        }
        if matches!(request.what, What::Flush | What::Write { durable: true }) {
            std::thread::sleep(flush_delay);
        }
        if refuses_writes {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        match request.what {
            What::Write { durable: false } => {
                let settled = self.cache.write(request.offset, data);
                self.settle(settled)
            }
            What::Write { durable: true } => {
                self.cache.forget(request.offset, data.len());
                self.medium.write_all_at(data, request.offset)?;
                self.medium.sync_data()
            }
            What::Flush => {
                let held = self.cache.flush();
                self.settle(held)?;
                self.medium.sync_data()
            }
            What::Read | What::Disconnect => Ok(()),
        }
    }

    fn settle(&self, extents: Vec<(u64, Vec<u8>)>) -> io::Result<()> {
        extents.into_iter().try_for_each(|(offset, data)| self.medium.write_all_at(&data, offset))
    }
}
