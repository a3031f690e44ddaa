//! Where a client's input goes: a pipe, or a terminal's master.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;

pub enum Input {
    Pipe(pipe::Sender),
    Terminal(Arc<AsyncFd<OwnedFd>>),
}

/// A master, made ready for waiting.
pub fn terminal(master: OwnedFd) -> io::Result<Arc<AsyncFd<OwnedFd>>> {
    rustix::io::ioctl_fionbio(&master, true)?;
    Ok(Arc::new(crate::sys::async_fd(master)?))
}

impl Input {
    pub async fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        match self {
            Input::Pipe(pipe) => pipe.write_all(bytes).await,
            Input::Terminal(master) => {
                while !bytes.is_empty() {
                    let mut ready = master.writable().await?;
                    match ready.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
                        Ok(written) => bytes = &bytes[written?..],
                        Err(_would_block) => {}
                    }
                }
                Ok(())
            }
        }
    }

    pub fn resize(&self, columns: u16, rows: u16) {
        if let Input::Terminal(master) = self {
            // A size that the terminal does not take changes nothing that anyone waits for.
            let _ = crate::sys::set_window_size(master.get_ref().as_fd(), columns, rows);
        }
    }
}

/// Reads a terminal; its end (EIO, when the last process closes it) is an end of file.
pub async fn read_terminal(master: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        let mut ready = master.readable().await?;
        match ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut *buffer)?)) {
            Ok(Err(e)) if e.raw_os_error() == Some(libc::EIO) => return Ok(0),
            Ok(result) => return result,
            Err(_would_block) => {}
        }
    }
}
