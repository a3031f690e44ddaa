//! The peer of everything that is measured over HTTP: a bare hyper server over the same TLS, which answers from memory.
//!
//! ```text
//! POST /echo/N    reads the body, answers 201 with N bytes
//! GET  /bytes/N   answers N bytes
//! GET  /watch     an answer that stays open
//! POST /tell      201, and its body goes into every open answer
//! ```

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use gantry_env::Env;
use gantry_pki::{Authority, ClientAuth, Profile, Reloading, tls};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_rustls::TlsAcceptor;

use crate::Failure;
use crate::wire::pki;

type Body = UnsyncBoxBody<Bytes, Infallible>;

const TOLD_MAX: usize = 64;
/// What the API server gives a connection, too.
const WINDOW_BYTES: u32 = 1 << 20;

struct Bare {
    content: Bytes,
    told: broadcast::Sender<Bytes>,
}

/// Serves until it is killed; `listening` is told where.
pub async fn serve(folder: &Path, bytes: usize, listening: impl FnOnce(std::net::SocketAddr)) -> Result<(), Failure> {
    let env = Env::system();
    let authority = Authority::load_or_create(&pki(folder), "bare", &env)?;
    let shown = Reloading::new(&authority.issue(&Profile::server("bare", ["127.0.0.1"]), &env)?)?;
    let config = tls::server_config(&shown, ClientAuth::Optional { ca_pem: authority.certificate_pem() }, &env.clock)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    listening(listener.local_addr()?);
    let bare = Arc::new(Bare { content: vec![b'x'; bytes].into(), told: broadcast::Sender::new(TOLD_MAX) });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (acceptor, bare) = (acceptor.clone(), bare.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = hyper::service::service_fn(move |request| bare.clone().answer(request));
            let mut builder = Builder::new(TokioExecutor::new());
            builder.http2().initial_stream_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
            // A client that goes away is the end of a round.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

impl Bare {
    async fn answer(self: Arc<Bare>, request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
        let (head, body) = request.into_parts();
        let wanted = head.uri.path().rsplit('/').next().and_then(|last| last.parse().ok()).unwrap_or(0);
        let content = self.content.slice(..self.content.len().min(wanted));
        let mut answer = Response::new(Full::new(content).boxed_unsync());
        if head.method == Method::POST {
            let body = body.collect().await?.to_bytes();
            *answer.status_mut() = StatusCode::CREATED;
            if head.uri.path() == "/tell" {
                // Nobody may be there to hear it.
                let _ = self.told.send(body);
            }
        } else if head.uri.path() == "/watch" {
            let told = futures::stream::unfold(self.told.subscribe(), |mut told| async {
                let chunk = told.recv().await.ok()?;
                Some((chunk, told))
            });
            *answer.body_mut() = StreamBody::new(told.map(|chunk| Ok(Frame::data(chunk)))).boxed_unsync();
        }
        Ok(answer)
    }
}
