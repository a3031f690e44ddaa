//! The frames of SPDY/3.1, as far as Kubernetes' streams use it: what kubectl before 1.31 and crictl speak instead of
//! WebSocket, and what every kubectl forwards ports with. Pure: bytes to frames and back (the SPDY protocol, draft 3.1).
//!
//! ```text
//! control: 1 | version 3 (15 bits) | type (16) | flags (8) | length (24) | body
//! data:    0 | stream (31)                     | flags (8) | length (24) | bytes
//! ```
//!
//! Windows are not kept: the peers that there are announce none and wait for none, so what holds a sender back is TCP.

use bytes::{Buf, BufMut, Bytes, BytesMut};

mod headers;
#[cfg(test)]
mod tests;

pub use headers::Headers;
use headers::{Deflater, Inflater};

/// A data frame may promise 16 MiB; it is handed on in pieces, so that nobody pays for the promise.
pub const PIECE_MAX_BYTES: usize = 32 << 10;
/// What a control frame may weigh. Those of our peers have some hundred bytes.
pub const CONTROL_MAX_BYTES: usize = 16 << 10;
/// The longest data frame that can be written.
pub const DATA_MAX_BYTES: usize = (1 << 24) - 1;

const HEAD_BYTES: usize = 8;
const VERSION: u16 = 3;
const CONTROL: u32 = 1 << 31;
const FLAG_FIN: u8 = 1;
const FLAG_UNIDIRECTIONAL: u8 = 2;
/// Stream numbers and window sizes have 31 bits.
const NUMBER: u32 = CONTROL - 1;

/// Reasons to reset a stream.
pub const PROTOCOL_ERROR: u32 = 1;
pub const REFUSED_STREAM: u32 = 3;
pub const CANCEL: u32 = 5;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SpdyError {
    #[error("speaks SPDY version {0}, not {VERSION}")]
    Version(u16),
    #[error("control frame of {0} bytes: {CONTROL_MAX_BYTES} are taken")]
    TooLong(usize),
    #[error("control frame of type {0} ends early")]
    Short(u16),
    #[error("headers are not compressed as SPDY/3.1 has it")]
    Compression,
    #[error("headers are longer than {} bytes", headers::HEADERS_MAX_BYTES)]
    HeadersTooLong,
    #[error("headers are more than {}", headers::HEADERS_MAX)]
    TooManyHeaders,
    #[error("headers hold what is no text")]
    Text,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub flags: u8,
    /// 24 bits.
    pub id: u32,
    pub value: u32,
}

/// `fin` is the last that its sender says on that stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    SynStream { stream: u32, fin: bool, unidirectional: bool, headers: Headers },
    SynReply { stream: u32, fin: bool, headers: Headers },
    RstStream { stream: u32, status: u32 },
    Settings(Vec<Setting>),
    Ping(u32),
    GoAway { last: u32, status: u32 },
    Headers { stream: u32, fin: bool, headers: Headers },
    WindowUpdate { stream: u32, delta: u32 },
    Data { stream: u32, fin: bool, bytes: Bytes },
}

/// Where the next byte belongs.
#[derive(Debug, Default)]
enum State {
    #[default]
    Head,
    Data {
        stream: u32,
        fin: bool,
        left: usize,
    },
}

/// One direction of a connection, read. After an error it reads nothing more that makes sense.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    state: State,
    inflater: Inflater,
}

impl Decoder {
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, or None until more bytes are fed.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, SpdyError> {
        loop {
            match self.state {
                State::Data { stream, fin, left } => return Ok(self.piece(stream, fin, left)),
                State::Head => {
                    let Some(mut head) = self.buffer.get(..HEAD_BYTES) else { return Ok(None) };
                    let (first, rest) = (head.get_u32(), head.get_u32());
                    let (flags, length) = ((rest >> 24) as u8, (rest & 0xff_ffff) as usize);
                    if first & CONTROL == 0 {
                        self.buffer.advance(HEAD_BYTES);
                        self.state = State::Data { stream: first, fin: flags & FLAG_FIN != 0, left: length };
                        continue;
                    }
                    let (version, kind) = ((first >> 16) as u16 & 0x7fff, first as u16);
                    if version != VERSION {
                        return Err(SpdyError::Version(version));
                    }
                    if length > CONTROL_MAX_BYTES {
                        return Err(SpdyError::TooLong(length));
                    }
                    if self.buffer.len() < HEAD_BYTES + length {
                        return Ok(None);
                    }
                    self.buffer.advance(HEAD_BYTES);
                    let body = self.buffer.split_to(length);
                    // A type that nobody knows is passed over.
                    if let Some(frame) = self.control(kind, flags, &body)? {
                        return Ok(Some(frame));
                    }
                }
            }
        }
    }

    fn piece(&mut self, stream: u32, fin: bool, left: usize) -> Option<Frame> {
        if left > 0 && self.buffer.is_empty() {
            return None;
        }
        let taken = left.min(self.buffer.len()).min(PIECE_MAX_BYTES);
        let bytes = self.buffer.split_to(taken).freeze();
        let left = left - taken;
        self.state = if left == 0 { State::Head } else { State::Data { stream, fin, left } };
        Some(Frame::Data { stream, fin: fin && left == 0, bytes })
    }

    fn control(&mut self, kind: u16, flags: u8, mut body: &[u8]) -> Result<Option<Frame>, SpdyError> {
        let short = |_| SpdyError::Short(kind);
        let body = &mut body;
        let fin = flags & FLAG_FIN != 0;
        let number = |body: &mut &[u8]| body.try_get_u32().map_err(short);
        Ok(Some(match kind {
            1 => {
                let stream = number(body)? & NUMBER;
                let (_associated, _priority_and_slot) = (number(body)?, body.try_get_u16().map_err(short)?);
                let unidirectional = flags & FLAG_UNIDIRECTIONAL != 0;
                Frame::SynStream { stream, fin, unidirectional, headers: self.inflater.headers(body)? }
            }
            2 => Frame::SynReply { stream: number(body)? & NUMBER, fin, headers: self.inflater.headers(body)? },
            3 => Frame::RstStream { stream: number(body)? & NUMBER, status: number(body)? },
            4 => {
                let count = number(body)?;
                let mut settings = Vec::new();
                for _ in 0..count {
                    let (first, value) = (number(body)?, number(body)?);
                    settings.push(Setting { flags: (first >> 24) as u8, id: first & 0xff_ffff, value });
                }
                Frame::Settings(settings)
            }
            6 => Frame::Ping(number(body)?),
            7 => Frame::GoAway { last: number(body)? & NUMBER, status: number(body)? },
            8 => Frame::Headers { stream: number(body)? & NUMBER, fin, headers: self.inflater.headers(body)? },
            9 => Frame::WindowUpdate { stream: number(body)? & NUMBER, delta: number(body)? & NUMBER },
            _ => return Ok(None),
        }))
    }
}

/// One direction of a connection, written.
#[derive(Debug, Default)]
pub struct Encoder {
    deflater: Deflater,
}

impl Encoder {
    /// Appends a frame. A data frame has [`DATA_MAX_BYTES`] at most.
    pub fn encode(&mut self, frame: &Frame, out: &mut BytesMut) -> Result<(), SpdyError> {
        match frame {
            Frame::Data { stream, fin, bytes } => {
                debug_assert!(bytes.len() <= DATA_MAX_BYTES, "{} bytes in a data frame", bytes.len());
                out.put_u32(stream & NUMBER);
                out.put_u32(u32::from(*fin) << 24 | bytes.len() as u32);
                out.extend_from_slice(bytes);
            }
            Frame::SynStream { stream, fin, unidirectional, headers } => {
                let mut body = numbers(&[stream & NUMBER, 0]);
                body.extend_from_slice(&[0, 0]);
                self.deflater.headers(headers, &mut body)?;
                let flags = (u8::from(*fin) * FLAG_FIN) | (u8::from(*unidirectional) * FLAG_UNIDIRECTIONAL);
                control(1, flags, &body, out);
            }
            Frame::SynReply { stream, fin, headers } => self.with_headers(2, *stream, *fin, headers, out)?,
            Frame::Headers { stream, fin, headers } => self.with_headers(8, *stream, *fin, headers, out)?,
            Frame::RstStream { stream, status } => control(3, 0, &numbers(&[stream & NUMBER, *status]), out),
            Frame::Settings(settings) => {
                let mut all = vec![settings.len() as u32];
                for setting in settings {
                    all.extend([u32::from(setting.flags) << 24 | setting.id & 0xff_ffff, setting.value]);
                }
                control(4, 0, &numbers(&all), out);
            }
            Frame::Ping(id) => control(6, 0, &numbers(&[*id]), out),
            Frame::GoAway { last, status } => control(7, 0, &numbers(&[last & NUMBER, *status]), out),
            Frame::WindowUpdate { stream, delta } => {
                control(9, 0, &numbers(&[stream & NUMBER, delta & NUMBER]), out);
            }
        }
        Ok(())
    }

    fn with_headers(
        &mut self,
        kind: u16,
        stream: u32,
        fin: bool,
        headers: &Headers,
        out: &mut BytesMut,
    ) -> Result<(), SpdyError> {
        let mut body = numbers(&[stream & NUMBER]);
        self.deflater.headers(headers, &mut body)?;
        control(kind, u8::from(fin) * FLAG_FIN, &body, out);
        Ok(())
    }
}

fn numbers(all: &[u32]) -> Vec<u8> {
    all.iter().flat_map(|number| number.to_be_bytes()).collect()
}

fn control(kind: u16, flags: u8, body: &[u8], out: &mut BytesMut) {
    out.put_u32(CONTROL | u32::from(VERSION) << 16 | u32::from(kind));
    out.put_u32(u32::from(flags) << 24 | body.len() as u32);
    out.extend_from_slice(body);
}
