//! The streams as Kubernetes has them on SPDY (`v4.channel.k8s.io`): the client opens one for each of error, stdin, stdout,
//! stderr and resize, which a header `streamtype` names, and either side ends each by itself.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::Bytes;

use super::client::{ERROR, RESIZE, STDERR, STDIN, STDOUT, Said};
use super::connection::{self, Outbox, Reader, Wire, Writer};
use super::spdy::{Frame, PROTOCOL_ERROR};
use super::{IDLE_TIMEOUT, Process};

/// How long a client may take to open its streams; what the kubelet gives.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// What may be said before the last stream is open.
const EARLY_MAX: usize = 16;
/// A terminal's size takes some thirty bytes.
const SIZE_MAX_BYTES: usize = 1 << 10;

/// The numbers of the streams, by channel.
type Numbers = [Option<u32>; 5];

pub struct Listen {
    reader: Reader,
    numbers: Numbers,
    heard: VecDeque<Said>,
    size: Sizes,
}

pub struct Tell {
    outbox: Outbox,
    writer: Writer,
    numbers: Numbers,
}

/// Waits until the client has opened the streams that it asked for. None: it did not.
pub async fn start(wire: Wire, process: &Process) -> Option<(Listen, Tell)> {
    let (reader, outbox, writer) = connection::start(wire);
    let mut listen = Listen { reader, numbers: [None; 5], heard: VecDeque::new(), size: Sizes::default() };
    let opened = tokio::time::timeout(OPEN_TIMEOUT, listen.open(process, &outbox)).await;
    opened.ok().flatten()?;
    let numbers = listen.numbers;
    Some((listen, Tell { outbox, writer, numbers }))
}

fn channel(name: &str) -> Option<u8> {
    match name {
        "error" => Some(ERROR),
        "stdin" => Some(STDIN),
        "stdout" => Some(STDOUT),
        "stderr" => Some(STDERR),
        "resize" => Some(RESIZE),
        _ => None,
    }
}

impl Listen {
    async fn open(&mut self, process: &Process, outbox: &Outbox) -> Option<()> {
        let wanted = [process.stdin, process.stdout, process.stderr, true, process.tty];
        while wanted.iter().zip(&self.numbers).any(|(wanted, number)| *wanted && number.is_none()) {
            let frame = self.reader.next().await?;
            let Frame::SynStream { stream, headers, .. } = &frame else {
                self.hear(frame);
                if self.heard.len() > EARLY_MAX {
                    return None;
                }
                continue;
            };
            let free = headers.get("streamtype").and_then(channel).filter(|c| self.numbers[usize::from(*c)].is_none());
            let answer = match free {
                Some(channel) => {
                    self.numbers[usize::from(channel)] = Some(*stream);
                    connection::accepted(*stream)
                }
                None => connection::reset(*stream, PROTOCOL_ERROR),
            };
            outbox.send(answer).await.ok()?;
        }
        Some(())
    }

    pub async fn next(&mut self) -> Option<Said> {
        loop {
            if let Some(said) = self.heard.pop_front() {
                return Some(said);
            }
            let frame = self.reader.next().await?;
            self.hear(frame);
        }
    }

    fn hear(&mut self, frame: Frame) {
        let is = |channel: u8, stream: u32| self.numbers[usize::from(channel)] == Some(stream);
        match frame {
            Frame::Data { stream, fin, bytes } if is(STDIN, stream) => {
                if !bytes.is_empty() {
                    self.heard.push_back(Said::Input(bytes));
                }
                if fin {
                    self.heard.push_back(Said::InputEnd);
                }
            }
            Frame::RstStream { stream, .. } if is(STDIN, stream) => self.heard.push_back(Said::InputEnd),
            Frame::Data { stream, bytes, .. } if is(RESIZE, stream) => self.heard.extend(self.size.take(&bytes)),
            _ => {}
        }
    }
}

/// Sizes follow one another on their stream, wherever the frames are cut.
#[derive(Default)]
struct Sizes(Vec<u8>);

impl Sizes {
    /// The newest that is whole: none before it matters any more.
    fn take(&mut self, bytes: &[u8]) -> Option<Said> {
        self.0.extend_from_slice(bytes);
        let end = self.0.iter().rposition(|b| *b == b'}').map_or(0, |last| last + 1);
        let from = self.0[..end].iter().rposition(|b| *b == b'{').unwrap_or(0);
        let size = super::client::size(&self.0[from..end]);
        self.0.drain(..end);
        self.0.truncate(SIZE_MAX_BYTES);
        size
    }
}

impl Tell {
    pub async fn output(&mut self, numbered: Bytes) -> io::Result<()> {
        let Some(stream) = numbered.first().and_then(|channel| self.numbers[usize::from(*channel)]) else {
            return Ok(());
        };
        self.send(connection::data(stream, numbered.slice(1..))).await
    }

    /// A client waits for the end of its error stream, and of each output before that.
    pub async fn end(&mut self, status: &str) -> io::Result<()> {
        for channel in [STDOUT, STDERR, STDIN, RESIZE] {
            if let Some(stream) = self.numbers[usize::from(channel)] {
                self.send(connection::last(stream, Bytes::new())).await?;
            }
        }
        if let Some(stream) = self.numbers[usize::from(ERROR)] {
            self.send(connection::last(stream, status.to_owned())).await?;
        }
        let last = self.numbers.iter().flatten().max().copied().unwrap_or(0);
        self.send(Frame::GoAway { last, status: 0 }).await?;
        let _ = (&mut self.writer).await;
        Ok(())
    }

    async fn send(&self, frame: Frame) -> io::Result<()> {
        let gone = io::Error::from(io::ErrorKind::BrokenPipe);
        match tokio::time::timeout(IDLE_TIMEOUT, self.outbox.send(frame)).await {
            Ok(sent) => sent.map_err(|_| gone),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_wherever_its_frames_are_cut() {
        let mut sizes = Sizes::default();
        assert!(sizes.take(br#"{"Width":80,"#).is_none());
        let whole = sizes.take(b"\"Height\":24}\n{\"Width\":100,\"Height\":30}\n{\"Wi");
        assert!(matches!(whole, Some(Said::Size { columns: 100, rows: 30 })));
        assert!(matches!(sizes.take(b"dth\":1,\"Height\":2}"), Some(Said::Size { columns: 1, rows: 2 })));
        for _ in 0..100 {
            assert!(sizes.take(&[b' '; 100]).is_none());
        }
        assert!(sizes.0.len() <= SIZE_MAX_BYTES, "what is no size is not kept");
    }
}
