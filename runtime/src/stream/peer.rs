//! Who has come to a URL, seen from beside the stream: that a client has gone is known while nothing is read from it too,
//! because what it has sent waits for a process that takes no input, or what it is sent waits for it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::Ready;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;

/// Of a client that ended while nobody took what it had sent, its kernel may have nothing to tell: ours asks, and hears that
/// there is no such connection. Clients are on this host, where a question costs next to nothing.
const SILENT: Duration = Duration::from_secs(10);
const ASK_AGAIN: Duration = Duration::from_secs(5);
const ASKS: u32 = 3;

/// A second descriptor of the connection, for waiting alone.
#[derive(Debug)]
pub struct Peer(AsyncFd<OwnedFd>);

impl Peer {
    pub fn of(stream: &TcpStream) -> io::Result<Peer> {
        sockopt::set_tcp_keepidle(stream, SILENT)?;
        sockopt::set_tcp_keepintvl(stream, ASK_AGAIN)?;
        sockopt::set_tcp_keepcnt(stream, ASKS)?;
        sockopt::set_socket_keepalive(stream, true)?;
        Ok(Peer(crate::sys::async_fd(stream.as_fd().try_clone_to_owned()?)?))
    }

    /// Returns when the client says no more, or the connection is broken. What came before may still be unread.
    pub async fn gone(&self) {
        while let Ok(mut ready) = self.0.readable().await {
            if ready.ready().is_read_closed() {
                return;
            }
            // Bytes, which are others' to read.
            ready.clear_ready_matching(Ready::READABLE);
        }
    }
}
