//! Clients of streams that go away: before they come, at each step of coming, and in the midst of it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gantry_runtime::spdy::{Encoder, Frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How far a client comes before it goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// It has a URL and does not come.
    Offered,
    Connected,
    /// Half of its request is said.
    HalfAsked,
    /// It asks, and does not wait for the answer.
    Asked,
    Upgraded,
    /// Its streams are open, or some of them.
    Opened,
    Talking,
    MidFrame,
    /// It has said its last and listens until nothing more comes.
    HalfClosed,
    /// The same, and it reads nothing while others come and go.
    Deaf,
    /// It says more than anybody takes.
    Flooding,
    /// As its host does that has lost it.
    Reset,
}

pub const EVERY: [Until; 12] = [
    Until::Offered,
    Until::Connected,
    Until::HalfAsked,
    Until::Asked,
    Until::Upgraded,
    Until::Opened,
    Until::Talking,
    Until::MidFrame,
    Until::HalfClosed,
    Until::Deaf,
    Until::Flooding,
    Until::Reset,
];

const FLOOD_MAX_BYTES: usize = 64 << 20;
const PIECE_BYTES: usize = 32 << 10;
/// Of one who takes nothing more.
const FULL: Duration = Duration::from_millis(50);

fn request(path: &str, web: bool) -> String {
    let ports = path.starts_with("portforward");
    let upgrade = match (web, ports) {
        (false, false) => "Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io",
        (false, true) => "Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: portforward.k8s.io",
        (true, false) => "Upgrade: websocket\r\nSec-WebSocket-Protocol: v5.channel.k8s.io",
        (true, true) => "Upgrade: websocket\r\nSec-WebSocket-Protocol: SPDY/3.1+portforward.k8s.io",
    };
    let key = if web { "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" } else { "" };
    format!("GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n{key}{upgrade}\r\n\r\n")
}

/// A binary message of a client (RFC 6455, 5.2), under a mask that changes nothing.
fn message(payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("short");
    [&[0x82, 0xfe][..], &length.to_be_bytes(), &[0; 4], payload].concat()
}

struct Speaker {
    web: bool,
    encoder: Encoder,
}

impl Speaker {
    fn frame(&mut self, frame: &Frame) -> Vec<u8> {
        let mut bytes = BytesMut::new();
        self.encoder.encode(frame, &mut bytes).expect("it is well formed");
        if self.web { message(&bytes) } else { bytes.to_vec() }
    }

    /// What opens the streams; a WebSocket of channels has them at once.
    fn open(&mut self, verb: &str, tty: bool, port: u16) -> Vec<u8> {
        let port = port.to_string();
        let mut all = Vec::new();
        let names: &[&str] = match verb {
            "portforward" => &["error", "data"],
            _ if tty => &["error", "stdin", "stdout", "resize"],
            _ => &["error", "stdin", "stdout"],
        };
        if self.web && verb != "portforward" {
            return all;
        }
        for (name, stream) in names.iter().zip((1..).step_by(2)) {
            let headers = match verb {
                "portforward" => [("streamtype", *name), ("port", port.as_str()), ("requestid", "0")].into(),
                _ => [("streamtype", *name)].into(),
            };
            all.extend(self.frame(&Frame::SynStream { stream, fin: false, unidirectional: false, headers }));
        }
        all
    }

    /// Input of the process, or of the connection.
    fn say(&mut self, verb: &str, words: &[u8]) -> Vec<u8> {
        if self.web && verb != "portforward" {
            return message(&[&[0], words].concat());
        }
        self.frame(&Frame::Data { stream: 3, fin: false, bytes: Bytes::copy_from_slice(words) })
    }
}

/// Comes to a URL and goes away. What it may hold on to is given back, for the caller to let go.
pub async fn come_and_go(url: &str, web: bool, tty: bool, port: u16, until: Until) -> Option<TcpStream> {
    if until == Until::Offered {
        return None;
    }
    let (address, path) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).expect("a URL");
    let verb = path.split('/').next().expect("one");
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    if until == Until::Connected {
        return None;
    }
    let request = request(path, web);
    let asked = if until == Until::HalfAsked { &request[..request.len() / 2] } else { &request };
    stream.write_all(asked.as_bytes()).await.expect("it listens");
    if matches!(until, Until::HalfAsked | Until::Asked) {
        return None;
    }
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("an answer"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    if until == Until::Upgraded {
        return None;
    }
    let mut speaker = Speaker { web, encoder: Encoder::default() };
    let open = speaker.open(verb, tty, port);
    stream.write_all(&open).await.expect("it listens");
    if until == Until::Opened {
        return None;
    }
    let words = speaker.say(verb, b"words\n");
    let said = if until == Until::MidFrame { &words[..words.len() - 3] } else { &words };
    stream.write_all(said).await.expect("it listens");
    match until {
        Until::Talking => {
            // Until something is said back, if anything is.
            let _ = tokio::time::timeout(FULL, stream.read_u8()).await;
        }
        Until::HalfClosed => {
            stream.shutdown().await.expect("it can be");
            // A reset is an end as well: it may come before all was read.
            while stream.read(&mut [0; 4096]).await.is_ok_and(|count| count > 0) {}
        }
        Until::Deaf => {
            stream.shutdown().await.expect("it can be");
            return Some(stream);
        }
        Until::Flooding => {
            let piece = speaker.say(verb, &[b'x'; PIECE_BYTES]);
            for _ in 0..FLOOD_MAX_BYTES / PIECE_BYTES {
                match tokio::time::timeout(FULL, stream.write_all(&piece)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => break,
                }
            }
        }
        Until::Reset => stream.set_zero_linger().expect("it is open"),
        _ => {}
    }
    None
}
