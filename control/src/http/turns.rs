//! A connection that gives its worker away after so many bytes. What is sent to a client that reads fast never has to wait, and a
//! worker that goes from one long answer to the next looks only now and then whether somebody asks for something.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A few records of TLS: some ten microseconds of work.
const TURN_BYTES: usize = 64 << 10;

/// A stream whose writer yields after every [`TURN_BYTES`].
pub struct Turns<S> {
    stream: S,
    written: usize,
    /// Others have their turn.
    yielding: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<S> Turns<S> {
    pub fn new(stream: S) -> Turns<S> {
        Turns { stream, written: 0, yielding: None }
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.written >= TURN_BYTES {
            self.written = 0;
            self.yielding = Some(Box::pin(tokio::task::yield_now()));
        }
        if let Some(yielding) = &mut self.yielding {
            ready!(yielding.as_mut().poll(cx));
            self.yielding = None;
        }
        Poll::Ready(())
    }

    fn count(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            self.written += bytes;
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Turns<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, out)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Turns<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_turn(cx));
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_turn(cx));
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_long_answer_leaves_turns_to_others_and_arrives_whole() {
        let (near, mut far) = tokio::io::duplex(4 * TURN_BYTES);
        let mut turns = Turns::new(near);
        let sent: Vec<u8> = (0..TURN_BYTES * 3).map(|i| (i % 251) as u8).collect();
        let mut pending = 0;
        {
            let mut writing = std::pin::pin!(async {
                for piece in sent.chunks(TURN_BYTES / 2) {
                    turns.write_all(piece).await.unwrap();
                }
                turns.shutdown().await.unwrap();
            });
            // There is room for all of it: whenever it waits, it is for others.
            while futures::poll!(&mut writing).is_pending() {
                pending += 1;
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(pending, 2, "after the first and the second of three turns");
        let mut received = Vec::new();
        far.read_to_end(&mut received).await.unwrap();
        assert!(received == sent);
    }
}
