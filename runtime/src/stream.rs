//! Exec, attach and port-forward for clients: CRI answers with a URL on loopback, and whoever comes there with its one-time
//! token gets the streams. Each comes in two forms, over a WebSocket and over SPDY/3.1:
//!
//! ```text
//!                   WebSocket                                    SPDY/3.1
//! exec, attach      v5.channel.k8s.io, v4.channel.k8s.io         v4.channel.k8s.io
//! port-forward      SPDY/3.1+portforward.k8s.io (a tunnel)       portforward.k8s.io
//! ```
//!
//! Whoever lies between the client and here (agent, API server) moves bytes that it does not understand.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use gantry_env::Env;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::node::Node;

mod channels;
mod client;
mod connection;
mod forward;
mod input;
mod peer;
mod session;
pub mod spdy;
mod status;
mod websocket;

use client::{Listen, Tell};
use connection::Wire;
use peer::Peer;

/// URLs that nobody has come to yet, and sessions under way.
const OFFERS_MAX: usize = 1024;
const SESSIONS_MAX: usize = 512;
const OFFER_LIFETIME: Duration = Duration::from_secs(60);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADERS_MAX_BYTES: usize = 16 << 10;
/// The largest message taken from a client. kubectl sends 32 KiB at a time.
const MESSAGE_MAX_BYTES: usize = 1 << 20;
/// A stream on which nothing moves for so long is given up, as the kubelet does.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4 * 3600);

const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";
const PORTS: &str = "portforward.k8s.io";
const PORTS_TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const SPDY: &str = "SPDY/3.1";
const STREAM_PROTOCOL: &str = "x-stream-protocol-version";

/// An upgraded connection's bytes.
type Raw = TokioIo<Upgraded>;
type Socket = WebSocketStream<Raw>;

/// What was asked for.
#[derive(Clone, Debug)]
pub enum Session {
    Process(Process),
    /// Ports of this sandbox.
    Ports {
        sandbox: String,
    },
}

/// A process of a container and which of its streams the client has.
#[derive(Clone, Debug)]
pub struct Process {
    pub container: String,
    /// None attaches to the container itself.
    pub command: Option<Vec<String>>,
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

impl Session {
    /// In the URL, so that a request can be refused for its form without its token being used up.
    fn verb(&self) -> &'static str {
        match self {
            Session::Process(Process { command: Some(_), .. }) => "exec",
            Session::Process(_) => "attach",
            Session::Ports { .. } => "portforward",
        }
    }
}

#[derive(Debug)]
struct Offer {
    session: Session,
    until: tokio::time::Instant,
}

/// The streaming server's side of CRI.
#[derive(Debug)]
pub struct Streams {
    address: SocketAddr,
    offers: Mutex<HashMap<String, Offer>>,
    sessions: Arc<Semaphore>,
}

impl Streams {
    /// Binds to a free port of loopback.
    pub async fn bind() -> std::io::Result<(Streams, TcpListener)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let sessions = Arc::new(Semaphore::new(SESSIONS_MAX));
        Ok((Streams { address, offers: Mutex::default(), sessions }, listener))
    }

    /// A URL that works once, for a minute.
    pub fn offer(&self, env: &Env, session: Session) -> String {
        let mut bytes = [0; 16];
        env.rng.fill(&mut bytes);
        let token: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let url = format!("http://{}/{}/{token}", self.address, session.verb());
        let now = tokio::time::Instant::now();
        let mut offers = self.offers.lock();
        offers.retain(|_, offer| offer.until > now);
        if offers.len() >= OFFERS_MAX
            && let Some(oldest) = offers.iter().min_by_key(|(_, o)| o.until).map(|(token, _)| token.clone())
        {
            offers.remove(&oldest);
        }
        offers.insert(token, Offer { session, until: now + OFFER_LIFETIME });
        url
    }

    fn take(&self, verb: &str, token: &str) -> Option<Session> {
        let offer = self.offers.lock().remove(token)?;
        (offer.until > tokio::time::Instant::now() && offer.session.verb() == verb).then_some(offer.session)
    }
}

/// Serves until the node has gone.
pub async fn serve(listener: TcpListener, node: Weak<Node>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: others must end first.
                tracing::warn!(%error, "stream connection not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(node) = node.upgrade() else { return };
        let Ok(permit) = Arc::clone(&node.streams.sessions).try_acquire_owned() else { continue };
        tokio::spawn(async move {
            if let Err(error) = connection(stream, node).await {
                tracing::debug!(%error, "stream ended early");
            }
            drop(permit);
        });
    }
}

#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error("http")]
    Http(#[from] hyper::Error),
    #[error("no handshake within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Slow,
    #[error("streams")]
    Streams(#[from] std::io::Error),
}

/// How the client wants to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    WebSocket { name: &'static str },
    Spdy { name: &'static str },
}

struct Accepted {
    session: Session,
    protocol: Protocol,
    upgrade: OnUpgrade,
}

/// One request, and after its upgrade the session.
async fn connection(stream: TcpStream, node: Arc<Node>) -> Result<(), ConnectionError> {
    let _ = stream.set_nodelay(true);
    let peer = Peer::of(&stream)?;
    let accepted = Mutex::new(None);
    let service = service_fn(|request| {
        let answer = answer(&node, request);
        let response = answer.map(|(response, one)| {
            *accepted.lock() = Some(one);
            response
        });
        async move { Ok::<_, std::convert::Infallible>(*response.unwrap_or_else(|refused| refused)) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_TIMEOUT).max_buf_size(HEADERS_MAX_BYTES);
    let http = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::time::timeout(HANDSHAKE_TIMEOUT * 2, http).await.map_err(|_| ConnectionError::Slow)??;
    let Some(Accepted { session, protocol, upgrade }) = accepted.lock().take() else { return Ok(()) };
    let raw = TokioIo::new(upgrade.await?);
    Ok(converse(&node, session, protocol, raw, &peer).await?)
}

async fn converse(
    node: &Arc<Node>,
    session: Session,
    protocol: Protocol,
    raw: Raw,
    peer: &Peer,
) -> std::io::Result<()> {
    let wire = match protocol {
        Protocol::Spdy { .. } => Wire::Plain(raw),
        Protocol::WebSocket { .. } => {
            let config = WebSocketConfig::default()
                .max_message_size(Some(MESSAGE_MAX_BYTES))
                .max_frame_size(Some(MESSAGE_MAX_BYTES));
            Wire::Tunnel(Box::new(WebSocketStream::from_raw_socket(raw, Role::Server, Some(config)).await))
        }
    };
    let process = match session {
        Session::Ports { sandbox } => {
            forward::run(node, &sandbox, wire, peer).await;
            return Ok(());
        }
        Session::Process(process) => process,
    };
    let (listen, tell) = match wire {
        Wire::Tunnel(socket) => {
            let (listen, tell) = websocket::start(*socket, protocol == Protocol::WebSocket { name: V5 });
            (Listen::WebSocket(listen), Tell::WebSocket(tell))
        }
        wire => match channels::start(wire, &process).await {
            Some((listen, tell)) => (Listen::Spdy(Box::new(listen)), Tell::Spdy(tell)),
            None => return Err(std::io::ErrorKind::ConnectionAborted.into()),
        },
    };
    session::run(node, process, listen, tell, peer).await
}

type Answer = Box<Response<Full<Bytes>>>;

/// The token is looked at last: a request that is refused for its form may come again.
fn answer(node: &Node, mut request: Request<Incoming>) -> Result<(Answer, Accepted), Answer> {
    let gone = || refusal(StatusCode::NOT_FOUND, "no such stream: its URL was used before, or is too old");
    let path = request.uri().path().to_owned();
    let (verb, token) = path.trim_start_matches('/').split_once('/').ok_or_else(gone)?;
    let protocol = negotiate(verb, request.headers())?;
    let mut response = Answer::default();
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    match protocol {
        Protocol::Spdy { name } => {
            headers.insert(header::UPGRADE, HeaderValue::from_static(SPDY));
            headers.insert(STREAM_PROTOCOL, HeaderValue::from_static(name));
        }
        Protocol::WebSocket { name } => {
            let key = request.headers().get(header::SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
            let accept = key.and_then(|key| HeaderValue::try_from(key).ok());
            let accept = accept.ok_or_else(|| refusal(StatusCode::BAD_REQUEST, "a sec-websocket-key is needed"))?;
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        }
    }
    let session = node.streams.take(verb, token).ok_or_else(gone)?;
    let upgrade = hyper::upgrade::on(&mut request);
    Ok((response, Accepted { session, protocol, upgrade }))
}

fn negotiate(verb: &str, headers: &HeaderMap) -> Result<Protocol, Answer> {
    let asked = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let upgrade = asked("upgrade");
    let web = upgrade.eq_ignore_ascii_case("websocket");
    if !web && !upgrade.eq_ignore_ascii_case(SPDY) {
        return Err(refusal(StatusCode::BAD_REQUEST, "an upgrade to websocket or SPDY/3.1 is needed"));
    }
    let served: &[&'static str] = match (verb, web) {
        ("portforward", true) => &[PORTS_TUNNEL],
        ("portforward", false) => &[PORTS],
        (_, true) => &[V5, V4],
        (_, false) => &[V4],
    };
    let offered = headers.get_all(if web { "sec-websocket-protocol" } else { STREAM_PROTOCOL });
    let offered: Vec<&str> =
        offered.iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',').map(str::trim)).collect();
    let Some(name) = served.iter().copied().find(|name| offered.contains(name)) else {
        let words = format!("no protocol is spoken by both: the client offers {offered:?}, served are {served:?}");
        // What clients of SPDY know a failed negotiation by.
        let code = if web { StatusCode::BAD_REQUEST } else { StatusCode::FORBIDDEN };
        return Err(refusal(code, &words));
    };
    if web && asked("sec-websocket-version") != "13" {
        return Err(refusal(StatusCode::BAD_REQUEST, "sec-websocket-version 13 is needed"));
    }
    Ok(if web { Protocol::WebSocket { name } } else { Protocol::Spdy { name } })
}

fn refusal(code: StatusCode, words: &str) -> Answer {
    let mut response = Box::new(Response::new(Full::new(Bytes::copy_from_slice(words.as_bytes()))));
    *response.status_mut() = code;
    // Not said of every answer: Go's clients see no upgrade in one that also speaks of a close.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
