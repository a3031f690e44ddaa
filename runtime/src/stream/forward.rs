//! Port-forward: for each connection that a client has accepted, two streams of one request id, `error` and `data`, and
//! a connection to a port of the pod's own loopback. Each direction ends by itself.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};

use super::connection::{self, Outbox, Wire};
use super::peer::Peer;
use super::spdy::{Frame, Headers, PROTOCOL_ERROR, REFUSED_STREAM};
use crate::node::{Node, NodeError};

/// Connections of one client at once.
const FORWARDS_MAX: usize = 256;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 32 << 10;
/// What all connections of one client may hold of what their pods do not take yet. A full one holds up the others, for the
/// client cannot be told to send less on one of its streams.
const WAITING_MAX_BYTES: usize = 4 << 20;
const WAITING_MAX: usize = 1 << 10;

/// Bytes on their way into the pod, and the room that they take meanwhile.
type Waiting = (Bytes, OwnedSemaphorePermit);

/// One connection, from the first of its streams on.
#[derive(Default)]
struct Forward {
    error: Option<u32>,
    data: Option<u32>,
    /// Where the client's bytes go, until it has sent its last.
    input: Option<mpsc::Sender<Waiting>>,
    task: Option<AbortHandle>,
}

pub async fn run(node: &Node, sandbox: &str, wire: Wire, peer: &Peer) {
    let (mut reader, outbox, _writer) = connection::start(wire);
    let mut forwards = Forwards {
        netns: node.network_namespace(sandbox),
        sandbox: sandbox.to_owned(),
        room: Arc::new(Semaphore::new(WAITING_MAX_BYTES)),
        open: HashMap::new(),
        tasks: JoinSet::new(),
        outbox,
    };
    let listening = async {
        while let Some(frame) = reader.next().await {
            if forwards.take(frame).await.is_none() {
                break;
            }
        }
    };
    tokio::select! {
        biased;
        // Not polled again when the other arm wins: nothing more is wanted of it.
        () = listening => {}
        // Cancel-safe: it has no state. A frame that waits for a pod to take the ones before it is waited for no longer.
        () = peer.gone() => {}
    }
    // The client has gone, and with it every connection that was made for it.
    forwards.tasks.shutdown().await;
}

struct Forwards {
    netns: Result<Option<PathBuf>, NodeError>,
    sandbox: String,
    room: Arc<Semaphore>,
    /// By request id.
    open: HashMap<String, Forward>,
    /// Each ends with its request id.
    tasks: JoinSet<String>,
    outbox: Outbox,
}

impl Forwards {
    /// None: the client takes nothing more.
    async fn take(&mut self, frame: Frame) -> Option<()> {
        while let Some(ended) = self.tasks.try_join_next() {
            if let Ok(request) = ended {
                self.open.remove(&request);
            }
        }
        match frame {
            Frame::SynStream { stream, headers, .. } => {
                let answer = match self.begin(stream, &headers) {
                    Ok(()) => connection::accepted(stream),
                    Err(status) => connection::reset(stream, status),
                };
                self.outbox.send(answer).await.ok()?;
                self.start(stream, &headers);
            }
            Frame::Data { stream, fin, bytes } => {
                let Some(forward) = self.of_data(stream) else { return Some(()) };
                let input = if fin { forward.input.take() } else { forward.input.clone() };
                if let Some(input) = input.filter(|_| !bytes.is_empty()) {
                    let size = u32::try_from(bytes.len()).ok()?;
                    let room = Arc::clone(&self.room).acquire_many_owned(size).await.ok()?;
                    // A pod that reads no more has closed this; the client hears of it by the other direction.
                    let _ = input.send((bytes, room)).await;
                }
            }
            Frame::RstStream { stream, .. } => {
                let is_its = |f: &Forward| f.data == Some(stream);
                if let Some(request) = self.open.iter().find(|(_, f)| is_its(f)).map(|(id, _)| id.clone())
                    && let Some(task) = self.open.remove(&request).and_then(|forward| forward.task)
                {
                    task.abort();
                }
            }
            _ => {}
        }
        Some(())
    }

    fn of_data(&mut self, stream: u32) -> Option<&mut Forward> {
        self.open.values_mut().find(|forward| forward.data == Some(stream))
    }

    /// Notes a stream; the error is why it is reset.
    fn begin(&mut self, stream: u32, headers: &Headers) -> Result<(), u32> {
        let known = self.open.len();
        let request = request_of(stream, headers).ok_or(PROTOCOL_ERROR)?;
        if port_of(headers).is_none() {
            return Err(PROTOCOL_ERROR);
        }
        if known >= FORWARDS_MAX && !self.open.contains_key(&request) {
            return Err(REFUSED_STREAM);
        }
        let forward = self.open.entry(request).or_default();
        let slot = if headers.get("streamtype") == Some("error") { &mut forward.error } else { &mut forward.data };
        if slot.is_some() {
            return Err(PROTOCOL_ERROR);
        }
        *slot = Some(stream);
        Ok(())
    }

    /// Connects once both streams are there.
    fn start(&mut self, stream: u32, headers: &Headers) {
        let (Some(request), Some(port)) = (request_of(stream, headers), port_of(headers)) else { return };
        let Some(forward) = self.open.get_mut(&request) else { return };
        let (Some(error), Some(data), None) = (forward.error, forward.data, &forward.task) else { return };
        let (input, waiting) = mpsc::channel(WAITING_MAX);
        let netns = match &self.netns {
            Ok(netns) => Ok(netns.clone()),
            Err(error) => Err(gantry_env::chain(error).to_string()),
        };
        let (outbox, sandbox) = (self.outbox.clone(), self.sandbox.clone());
        forward.input = Some(input);
        forward.task = Some(self.tasks.spawn(async move {
            let connected = match netns {
                Ok(netns) => connect(netns, port).await.map_err(|error| error.to_string()),
                Err(words) => Err(words),
            };
            match connected {
                Ok(stream) => copy(stream, data, error, waiting, &outbox).await,
                Err(why) => {
                    let words = format!("error forwarding port {port} to pod {sandbox}: {why}");
                    end(data, error, words, &outbox).await;
                }
            }
            request
        }));
    }
}

/// A client that names no request has numbered its streams in pairs, error before data.
fn request_of(stream: u32, headers: &Headers) -> Option<String> {
    let kind = headers.get("streamtype")?;
    if kind != "error" && kind != "data" {
        return None;
    }
    match headers.get("requestid") {
        Some(id) => Some(id.to_owned()),
        None if kind == "error" => Some(stream.to_string()),
        None => Some(stream.checked_sub(2)?.to_string()),
    }
}

fn port_of(headers: &Headers) -> Option<u16> {
    headers.get("port")?.parse().ok().filter(|port| *port > 0)
}

/// A connection to the pod's loopback, whichever of both families listens.
async fn connect(netns: Option<PathBuf>, port: u16) -> io::Result<TcpStream> {
    let mut refused = None;
    for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        let socket = socket_inside(netns.clone(), ip.is_ipv4()).await?;
        match tokio::time::timeout(CONNECT_TIMEOUT, socket.connect(SocketAddr::new(ip, port))).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            // The first word counts: a pod without IPv6 has nothing to say of its port.
            Ok(Err(error)) => refused = refused.or(Some(error)),
            Err(_) => refused = refused.or(Some(io::ErrorKind::TimedOut.into())),
        }
    }
    Err(refused.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
}

/// A socket belongs to the namespace in which it was made, wherever it is used.
async fn socket_inside(netns: Option<PathBuf>, v4: bool) -> io::Result<TcpSocket> {
    let make = move || if v4 { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let Some(netns) = netns else { return make() };
    let made = tokio::task::spawn_blocking(move || {
        let netns = std::fs::File::open(netns)?;
        crate::network::netns::inside(std::os::fd::AsFd::as_fd(&netns), make)?
    });
    made.await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Both ways until both have ended.
async fn copy(stream: TcpStream, data: u32, error: u32, waiting: mpsc::Receiver<Waiting>, outbox: &Outbox) {
    let (read, write) = stream.into_split();
    tokio::join!(to_client(read, data, error, outbox), to_pod(write, waiting));
}

async fn to_client(mut read: OwnedReadHalf, data: u32, error: u32, outbox: &Outbox) {
    let mut buffer = vec![0; READ_BYTES];
    let words = loop {
        match read.read(&mut buffer).await {
            Ok(0) => break String::new(),
            Ok(count) => {
                let frame = connection::data(data, Bytes::copy_from_slice(&buffer[..count]));
                if outbox.send(frame).await.is_err() {
                    return;
                }
            }
            Err(error) => break format!("the pod broke the connection off: {error}"),
        }
    };
    // At once, whatever the client still has to say: it may wait for this before it says that that was all.
    end(data, error, words, outbox).await;
}

/// The last of both streams. Where the client has gone, there is nobody to tell.
async fn end(data: u32, error: u32, words: String, outbox: &Outbox) {
    let _ = outbox.send(connection::last(data, Bytes::new())).await;
    let _ = outbox.send(connection::last(error, words)).await;
}

async fn to_pod(mut write: OwnedWriteHalf, mut waiting: mpsc::Receiver<Waiting>) {
    while let Some((bytes, _room)) = waiting.recv().await {
        if write.write_all(&bytes).await.is_err() {
            return;
        }
    }
    let _ = write.shutdown().await;
}
