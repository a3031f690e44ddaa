//! Exec and attach for clients: CRI answers with a URL on loopback, and whoever comes there with its one-time token gets
//! the streams over a WebSocket, as Kubernetes' `v5.channel.k8s.io` and `v4.channel.k8s.io` have them.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use gantry_env::Env;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::node::Node;

mod input;
mod session;
mod status;

/// URLs that nobody has come to yet, and sessions under way.
const OFFERS_MAX: usize = 1024;
const SESSIONS_MAX: usize = 512;
const OFFER_LIFETIME: Duration = Duration::from_secs(60);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest message taken from a client. kubectl sends 32 KiB at a time.
const MESSAGE_MAX_BYTES: usize = 1 << 20;

const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Session {
    pub container: String,
    /// None attaches to the container itself.
    pub command: Option<Vec<String>>,
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
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
        let verb = if session.command.is_some() { "exec" } else { "attach" };
        let url = format!("http://{}/{verb}/{token}", self.address);
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

    fn take(&self, path: &str) -> Option<Session> {
        let token = path.strip_prefix("/exec/").or_else(|| path.strip_prefix("/attach/"))?;
        let offer = self.offers.lock().remove(token)?;
        (offer.until > tokio::time::Instant::now()).then_some(offer.session)
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
    #[error("no handshake within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Slow,
    #[error("websocket: {0}")]
    WebSocket(#[from] Box<tokio_tungstenite::tungstenite::Error>),
    #[error("client offers none of {PROTOCOLS:?}")]
    Protocol,
}

async fn connection(stream: TcpStream, node: Arc<Node>) -> Result<(), ConnectionError> {
    let _ = stream.set_nodelay(true);
    let mut chosen = None;
    #[expect(clippy::result_large_err, reason = "the type is the WebSocket library's")]
    let answer = |request: &Request, response: Response| accept(&node, request, response, &mut chosen);
    let config =
        WebSocketConfig::default().max_message_size(Some(MESSAGE_MAX_BYTES)).max_frame_size(Some(MESSAGE_MAX_BYTES));
    let handshake = tokio_tungstenite::accept_hdr_async_with_config(stream, answer, Some(config));
    let socket = match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(result) => result.map_err(Box::new)?,
        Err(_) => return Err(ConnectionError::Slow),
    };
    let (session, v5) = chosen.ok_or(ConnectionError::Protocol)?;
    session::run(&node, session, v5, socket).await.map_err(|e| ConnectionError::WebSocket(Box::new(e)))
}

/// The token is looked at last: a request that is refused for its form may come again.
#[allow(clippy::result_large_err, reason = "the type is tungstenite's")]
fn accept(
    node: &Node,
    request: &Request,
    mut response: Response,
    chosen: &mut Option<(Session, bool)>,
) -> Result<Response, ErrorResponse> {
    let offered: Vec<&str> = request
        .headers()
        .get_all("sec-websocket-protocol")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(str::trim))
        .collect();
    let refuse = |status: StatusCode, text: &str| {
        let mut refusal = ErrorResponse::new(Some(text.to_owned()));
        *refusal.status_mut() = status;
        refusal
    };
    let Some(protocol) = PROTOCOLS.into_iter().find(|p| offered.contains(p)) else {
        return Err(refuse(StatusCode::BAD_REQUEST, "a subprotocol v5.channel.k8s.io or v4.channel.k8s.io is needed"));
    };
    let Some(session) = node.streams.take(request.uri().path()) else {
        return Err(refuse(StatusCode::NOT_FOUND, "no such stream: its URL was used before, or is too old"));
    };
    response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(protocol));
    *chosen = Some((session, protocol == PROTOCOLS[0]));
    Ok(response)
}
