//! Who is at the other end of an exec or an attach, whichever wire it came by.

use std::io;

use bytes::Bytes;
use serde::Deserialize;

use super::{channels, websocket};

/// The channels' numbers, as the WebSocket protocol has them.
pub const STDIN: u8 = 0;
pub const STDOUT: u8 = 1;
pub const STDERR: u8 = 2;
pub const ERROR: u8 = 3;
pub const RESIZE: u8 = 4;

pub enum Said {
    Input(Bytes),
    /// No more input comes; output is still wanted.
    InputEnd,
    Size {
        columns: u16,
        rows: u16,
    },
}

#[derive(Deserialize)]
struct Size {
    #[serde(rename = "Width")]
    width: u16,
    #[serde(rename = "Height")]
    height: u16,
}

/// A terminal's size, as clients write it in JSON.
pub fn size(bytes: &[u8]) -> Option<Said> {
    let size: Size = serde_json::from_slice(bytes).ok()?;
    Some(Said::Size { columns: size.width, rows: size.height })
}

pub enum Listen {
    WebSocket(websocket::Listen),
    Spdy(Box<channels::Listen>),
}

impl Listen {
    /// None: the client has gone.
    pub async fn next(&mut self) -> Option<Said> {
        match self {
            Listen::WebSocket(listen) => listen.next().await,
            Listen::Spdy(listen) => listen.next().await,
        }
    }
}

pub enum Tell {
    WebSocket(websocket::Tell),
    Spdy(channels::Tell),
}

impl Tell {
    /// The number of a channel, and what is said there.
    pub async fn output(&mut self, numbered: Bytes) -> io::Result<()> {
        match self {
            Tell::WebSocket(tell) => tell.output(numbered).await,
            Tell::Spdy(tell) => tell.output(numbered).await,
        }
    }

    /// How it ended, as a metav1.Status; nothing may follow.
    pub async fn end(&mut self, status: &str) -> io::Result<()> {
        match self {
            Tell::WebSocket(tell) => tell.end(status).await,
            Tell::Spdy(tell) => tell.end(status).await,
        }
    }
}
