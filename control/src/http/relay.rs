//! Bytes both ways once both sides have switched protocols: never interpreted.

use std::sync::Arc;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::inflight::Share;
use super::router::Server;

/// A relayed stream on which nothing moves for this long is closed.
const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(4 * 60 * 60);
const RELAY_BUFFER_BYTES: usize = 32 * 1024;

/// Brings both sides together, and holds the share for as long as they talk.
pub(super) fn splice(server: &Arc<Server>, seat: Share, client: OnUpgrade, upstream: OnUpgrade) {
    let stop = server.stop.clone();
    tokio::spawn(async move {
        let _seat = seat;
        let (client, upstream) = match tokio::try_join!(client, upstream) {
            Ok(both) => both,
            Err(error) => return tracing::debug!(%error, "a stream was not upgraded"),
        };
        let relay = relay(TokioIo::new(client), TokioIo::new(upstream));
        tokio::select! {
            biased;
            // The relay ends with the server; both ends see the connection close.
            () = stop.cancelled() => {}
            ended = relay => if let Err(error) = ended {
                tracing::debug!(%error, "a relayed stream ended with an error");
            }
        }
    });
}

/// Copies both ways until both ends are done, or nothing moves for too long in either direction. One that breaks leaves the
/// other its last words: a command that has ended reads no more, and still has its exit code to tell.
async fn relay<A, B>(client: A, upstream: B) -> std::io::Result<()>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (client_read, client_write) = tokio::io::split(client);
    let (upstream_read, upstream_write) = tokio::io::split(upstream);
    let moved = tokio::sync::Notify::new();
    let both =
        async { tokio::join!(copy(client_read, upstream_write, &moved), copy(upstream_read, client_write, &moved)) };
    tokio::pin!(both);
    loop {
        tokio::select! {
            biased;
            // Pinned outside the loop: nothing of a copy is lost when another arm wins.
            (up, down) = &mut both => return up.and(down),
            () = moved.notified() => {}
            () = tokio::time::sleep(STREAM_IDLE_TIMEOUT) => {
                return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "the stream was idle for too long"));
            }
        }
    }
}

async fn copy(
    from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: &tokio::sync::Notify,
) -> std::io::Result<()> {
    let copied = copy_all(from, &mut to, moved).await;
    copied.and(to.shutdown().await)
}

async fn copy_all(
    mut from: impl AsyncRead + Unpin,
    to: &mut (impl AsyncWrite + Unpin),
    moved: &tokio::sync::Notify,
) -> std::io::Result<()> {
    let mut buffer = vec![0; RELAY_BUFFER_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..count]).await?;
        to.flush().await?;
        moved.notify_one();
    }
}
