//! The TLS listener: one task a connection, HTTP/1.1 or HTTP/2 by ALPN, bounded in every direction.
//!
//! A request that comes from the wire starts from an empty extension map, so that nothing a peer sends can pose as the
//! typed identity of the in-process wire. Only the peer's verified certificates and hyper's upgrade are put back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::TryFutureExt;
use gantry_env::chain;
use gantry_pki::Peer;
use http::Request;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::body;
use super::idle::Idle;
use super::router::Router;
use super::turns::Turns;

const CONNECTIONS_MAX: usize = 4096;
const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection on which nobody asks for anything for this long is closed, within twice the time. Clients of Kubernetes give
/// up a connection that they do not use after the same time, so that none is closed under a request on its way.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// For HTTP/1.1, one timer is for both: a head that does not come, and one that comes too slowly.
const HEADER_READ_TIMEOUT: Duration = IDLE_TIMEOUT;
const HEADERS_MAX: usize = 128;
const HEADER_LIST_MAX_BYTES: u32 = 64 * 1024;
const HTTP1_BUFFER_MAX_BYTES: usize = 64 * 1024;
pub(super) const H2_STREAMS_MAX: u32 = 1000;
/// Streams that a peer may open and reset before we answered (CVE-2023-44487).
const H2_PENDING_RESETS_MAX: usize = 20;
const H2_LOCAL_ERROR_RESETS_MAX: usize = 256;
const H2_WINDOW_BYTES: u32 = 1024 * 1024;
const H2_KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long open requests may still take once a shutdown began.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_ERROR_PAUSE: Duration = Duration::from_millis(50);

/// Where the request came from.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress(pub SocketAddr);

/// Gives the current TLS configuration: certificates may be renewed while we listen.
pub type TlsSource = Arc<dyn Fn() -> Arc<rustls::ServerConfig> + Send + Sync>;

/// Accepts until `stop`, then lets open requests end.
pub async fn serve(listener: TcpListener, tls: TlsSource, router: Router, stop: CancellationToken) {
    let tasks = TaskTracker::new();
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(seat) = seats.clone().acquire_owned().await else { break };
        let accepted = tokio::select! {
            biased;
            // Cancelling accept loses no connection: it stays in the backlog.
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (tls, router, stop) = (tls(), router.clone(), stop.clone());
                tasks.spawn(async move {
                    connection(stream, peer, tls, router, stop).await;
                    drop(seat);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_ERROR_PAUSE).await;
            }
        }
    }
    tasks.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, tasks.wait()).await.is_err() {
        tracing::info!("connections were still open when the drain time ended");
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Arc<rustls::ServerConfig>,
    router: Router,
    stop: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let handshake = tokio::time::timeout(TLS_HANDSHAKE_TIMEOUT, TlsAcceptor::from(tls).accept(stream));
    let failed = &router.server().metrics.tls_handshake_errors;
    let stream = match handshake.await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            failed.inc();
            return tracing::debug!(%peer, %error, "TLS handshake failed");
        }
        Err(_) => {
            failed.inc();
            return tracing::debug!(%peer, "TLS handshake timed out");
        }
    };
    let identified = match Peer::of_connection(stream.get_ref().1) {
        Ok(identified) => identified,
        Err(error) => return tracing::debug!(%peer, error = chain(&error), "a client's certificate is of no use"),
    };
    let idle = Arc::new(Idle::default());
    let asked = idle.clone();
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let turn = asked.begin();
        let answer = router.clone().answer(from_wire(request, peer, identified.clone()));
        answer.map_ok(|response| response.map(|content| turn.with(content)))
    });
    let builder = builder();
    let mut connection =
        std::pin::pin!(builder.serve_connection_with_upgrades(TokioIo::new(Turns::new(stream)), service));
    let ended = tokio::select! {
        biased;
        // The connection is polled again below; nothing of it is lost.
        () = stop.cancelled() => None,
        ended = connection.as_mut() => Some(ended),
        () = idle.outlasts(IDLE_TIMEOUT) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended with an error");
    }
}

/// The request as the router sees it: no extension but those that we put there ourselves.
fn from_wire<B>(request: Request<B>, peer: SocketAddr, identified: Option<Peer>) -> Request<body::Body>
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<body::BoxError>,
{
    let (mut parts, incoming) = request.into_parts();
    let upgrade = parts.extensions.remove::<OnUpgrade>();
    parts.extensions.clear();
    parts.extensions.insert(PeerAddress(peer));
    if let Some(upgrade) = upgrade {
        parts.extensions.insert(upgrade);
    }
    if let Some(identified) = identified {
        parts.extensions.insert(identified);
    }
    Request::from_parts(parts, body::wrap(incoming))
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HTTP1_BUFFER_MAX_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS_MAX)
        .max_pending_accept_reset_streams(H2_PENDING_RESETS_MAX)
        .max_local_error_reset_streams(H2_LOCAL_ERROR_RESETS_MAX)
        .max_header_list_size(HEADER_LIST_MAX_BYTES)
        .initial_stream_window_size(H2_WINDOW_BYTES)
        .initial_connection_window_size(H2_WINDOW_BYTES)
        .keep_alive_interval(H2_KEEP_ALIVE)
        .keep_alive_timeout(H2_KEEP_ALIVE);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct Forged;

    #[test]
    fn the_wire_starts_from_an_empty_extension_map() {
        let mut request = Request::new(http_body_util::Empty::<bytes::Bytes>::new());
        request.extensions_mut().insert(Forged);
        let taken = from_wire(request, "127.0.0.1:1".parse().unwrap(), None);
        assert!(taken.extensions().get::<Forged>().is_none());
        assert!(taken.extensions().get::<Peer>().is_none());
        assert!(taken.extensions().get::<PeerAddress>().is_some());
    }
}
