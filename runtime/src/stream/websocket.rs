//! The streams as Kubernetes has them on a WebSocket (`v5.channel.k8s.io`, `v4.channel.k8s.io`): a message is the number of
//! a channel and its bytes.

use std::io;

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::client::{ERROR, RESIZE, STDIN, Said, size};
use super::{IDLE_TIMEOUT, Socket};

/// v5 only: closes the channel that follows.
const CLOSE: u8 = 255;

pub struct Listen {
    source: SplitStream<Socket>,
    v5: bool,
}

pub struct Tell {
    sink: SplitSink<Socket, Message>,
}

pub fn start(socket: Socket, v5: bool) -> (Listen, Tell) {
    let (sink, source) = socket.split();
    (Listen { source, v5 }, Tell { sink })
}

/// The bytes of the next message. None: the client has gone, whether it said so or not.
pub async fn next_message(source: &mut SplitStream<Socket>) -> Option<Bytes> {
    loop {
        match source.next().await? {
            Ok(Message::Binary(bytes)) => return Some(bytes),
            Ok(Message::Text(text)) => return Some(text.into()),
            Ok(Message::Close(_)) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

/// Ends a session in order. A client reads what is left only if the close says that all is well (RFC 6455, 7.4.1).
pub async fn close(sink: &mut SplitSink<Socket, Message>) -> io::Result<()> {
    let close = Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }));
    sink.send(close).await.map_err(io::Error::other)?;
    sink.close().await.map_err(io::Error::other)
}

impl Listen {
    pub async fn next(&mut self) -> Option<Said> {
        loop {
            let bytes = next_message(&mut self.source).await?;
            match bytes.first() {
                Some(&STDIN) if bytes.len() > 1 => return Some(Said::Input(bytes.slice(1..))),
                Some(&RESIZE) => {
                    if let Some(size) = size(&bytes[1..]) {
                        return Some(size);
                    }
                }
                Some(&CLOSE) if self.v5 && bytes[1..] == [STDIN] => return Some(Said::InputEnd),
                _ => {}
            }
        }
    }
}

impl Tell {
    pub async fn output(&mut self, numbered: Bytes) -> io::Result<()> {
        self.send(Message::Binary(numbered)).await
    }

    pub async fn end(&mut self, status: &str) -> io::Result<()> {
        self.send(Message::binary([&[ERROR], status.as_bytes()].concat())).await?;
        tokio::time::timeout(IDLE_TIMEOUT, close(&mut self.sink)).await.unwrap_or_else(gone)
    }

    async fn send(&mut self, message: Message) -> io::Result<()> {
        let sent = tokio::time::timeout(IDLE_TIMEOUT, self.sink.send(message)).await;
        sent.map_or_else(gone, |sent| sent.map_err(io::Error::other))
    }
}

/// A client that takes nothing for as long as an idle stream may last is given up. It may pause for less: its process
/// waits meanwhile, and so does its output.
fn gone(_: tokio::time::error::Elapsed) -> io::Result<()> {
    Err(io::ErrorKind::TimedOut.into())
}
