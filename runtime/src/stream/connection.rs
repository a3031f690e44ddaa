//! A SPDY/3.1 connection under way, over what an upgrade has given: the bare bytes, or the messages of a WebSocket
//! (kubectl's tunnel for port-forward). One task writes, so that frames of many streams never mix.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::task::AbortOnDropHandle;

use super::spdy::{self, Decoder, Encoder, Frame};
use super::{IDLE_TIMEOUT, Raw, Socket, websocket};

const READ_BYTES: usize = 32 << 10;
/// Frames made and not yet taken by the client; then whoever makes them waits.
const FRAMES_MAX: usize = 16;

pub enum Wire {
    Plain(Raw),
    Tunnel(Box<Socket>),
}

enum ReadWire {
    Plain(ReadHalf<Raw>),
    Tunnel(SplitStream<Socket>),
}

enum WriteWire {
    Plain(WriteHalf<Raw>),
    Tunnel(SplitSink<Socket, Message>),
}

/// Frames for the client, in the order in which they are sent. A [`Frame::GoAway`] is the last.
pub type Outbox = mpsc::Sender<Frame>;

/// What the client sends.
pub struct Reader {
    wire: ReadWire,
    decoder: Decoder,
    buffer: Vec<u8>,
    outbox: Outbox,
}

/// Ends when everything is written, the client takes nothing more, or nobody waits for it: who has gone takes nothing, and a
/// connection that is half closed would stay for that.
pub type Writer = AbortOnDropHandle<()>;

pub fn start(wire: Wire) -> (Reader, Outbox, Writer) {
    let (read, write) = match wire {
        Wire::Plain(raw) => {
            let (read, write) = tokio::io::split(raw);
            (ReadWire::Plain(read), WriteWire::Plain(write))
        }
        Wire::Tunnel(socket) => {
            let (sink, source) = (*socket).split();
            (ReadWire::Tunnel(source), WriteWire::Tunnel(sink))
        }
    };
    let (outbox, frames) = mpsc::channel(FRAMES_MAX);
    let writer = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = write_frames(write, frames).await {
            tracing::debug!(%error, "a client took no more");
        }
    }));
    let reader =
        Reader { wire: read, decoder: Decoder::default(), buffer: vec![0; READ_BYTES], outbox: outbox.clone() };
    (reader, outbox, writer)
}

impl Reader {
    /// The next frame that concerns a stream. None: the client has gone, or speaks something else.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            match self.decoder.next_frame() {
                // Odd numbers are the client's questions, which come back as they are.
                Ok(Some(Frame::Ping(id))) => {
                    if id % 2 == 1 {
                        self.outbox.send(Frame::Ping(id)).await.ok()?;
                    }
                }
                Ok(Some(Frame::Settings(_) | Frame::WindowUpdate { .. } | Frame::GoAway { .. })) => {}
                Ok(Some(frame)) => return Some(frame),
                Ok(None) => self.read().await?,
                Err(error) => {
                    tracing::debug!(%error, "a client speaks no SPDY");
                    return None;
                }
            }
        }
    }

    async fn read(&mut self) -> Option<()> {
        match &mut self.wire {
            ReadWire::Plain(read) => {
                let count = read.read(&mut self.buffer).await.ok().filter(|count| *count > 0)?;
                self.decoder.feed(&self.buffer[..count]);
            }
            ReadWire::Tunnel(source) => self.decoder.feed(&websocket::next_message(source).await?),
        }
        Some(())
    }
}

/// A frame of a stream's bytes.
pub fn data(stream: u32, bytes: Bytes) -> Frame {
    Frame::Data { stream, fin: false, bytes }
}

/// The last frame of a stream.
pub fn last(stream: u32, bytes: impl Into<Bytes>) -> Frame {
    Frame::Data { stream, fin: true, bytes: bytes.into() }
}

pub fn reset(stream: u32, status: u32) -> Frame {
    Frame::RstStream { stream, status }
}

pub fn accepted(stream: u32) -> Frame {
    Frame::SynReply { stream, fin: false, headers: spdy::Headers::default() }
}

async fn write_frames(mut wire: WriteWire, mut frames: mpsc::Receiver<Frame>) -> io::Result<()> {
    let mut encoder = Encoder::default();
    while let Some(frame) = frames.recv().await {
        let mut bytes = BytesMut::new();
        encoder.encode(&frame, &mut bytes).map_err(io::Error::other)?;
        let is_last = matches!(frame, Frame::GoAway { .. });
        within(IDLE_TIMEOUT, wire.write(bytes.freeze())).await?;
        if is_last {
            break;
        }
    }
    within(IDLE_TIMEOUT, wire.shutdown()).await
}

async fn within(limit: Duration, work: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

impl WriteWire {
    async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        match self {
            WriteWire::Plain(write) => {
                write.write_all(&bytes).await?;
                write.flush().await
            }
            WriteWire::Tunnel(sink) => sink.send(Message::Binary(bytes)).await.map_err(io::Error::other),
        }
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        match self {
            WriteWire::Plain(write) => write.shutdown().await,
            WriteWire::Tunnel(sink) => websocket::close(sink).await,
        }
    }
}
