//! The kubelet API: logs, streams, numbers and a look at the pods, for the API server and for whoever may.
//!
//! Every request is authenticated first and authorised by the API server's own rules ([`access`]); there is no read-only
//! port. Logs are read from files that are opened beneath the log folder and never through a link ([`logs`]); exec,
//! attach and port-forward are relayed to the runtime's streaming server once that has switched protocols ([`relay`]).

pub mod access;
pub mod log_file;
pub mod logs;
pub mod relay;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_client::Client;
use gantry_env::{Env, chain};
use gantry_kube::{Object, Status};
use gantry_pki::Peer;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tracing::{debug, warn};

use crate::runtime::RuntimeError;
use crate::stats::own::Counters;
use crate::stats::{Stats, resource};
use crate::trace::Trace;
use access::Access;

/// Connections at once; more wait in the listener's backlog.
const CONNECTIONS_MAX: usize = 1024;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADERS_TIMEOUT: Duration = Duration::from_secs(10);
const HEADERS_MAX_BYTES: usize = 64 << 10;

pub type Body = BoxBody<Bytes, std::io::Error>;

/// One container of a pod, as a reader of logs or a caller of exec needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRef {
    pub id: String,
    pub log_path: PathBuf,
    pub running: bool,
}

/// What the server asks of the agent's maps.
pub trait PodLookup: Send + Sync + 'static {
    fn pods(&self) -> Vec<Arc<Object>>;

    /// The current container of that name, or the one before it.
    fn container(&self, namespace: &str, pod: &str, container: &str, previous: bool) -> Result<ContainerRef, Status>;

    fn is_running(&self, container_id: &str) -> bool;

    /// The id of the sandbox in which a pod runs.
    fn sandbox(&self, namespace: &str, pod: &str) -> Result<String, Status>;
}

pub struct Config {
    pub listen: SocketAddr,
    pub tls: Arc<rustls::ServerConfig>,
    pub node_name: String,
    /// Logs lie beneath this folder and nowhere else (`/var/log/pods`).
    pub log_dir: PathBuf,
    pub client: Client,
    pub cri: Channel,
    pub pods: Arc<dyn PodLookup>,
    pub stats: Arc<Stats>,
    pub counters: Arc<Counters>,
    pub trace: Trace,
    pub env: Env,
}

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the kubelet API cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
}

/// What every request is answered from.
pub struct Server {
    access: Access,
    config: Config,
    log_readers: Arc<Semaphore>,
}

/// Listens, and then serves in the background until the token ends it.
pub async fn serve(config: Config, stop: CancellationToken) -> Result<SocketAddr, ServeError> {
    let fail = |source| ServeError::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(fail)?;
    let address = listener.local_addr().map_err(fail)?;
    let acceptor = TlsAcceptor::from(config.tls.clone());
    let access = Access::new(config.client.clone(), config.node_name.clone());
    let log_readers = Arc::new(Semaphore::new(logs::READERS_MAX));
    let server = Arc::new(Server { access, config, log_readers });
    tokio::spawn(async move {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            // The semaphore is never closed, so a permit always comes.
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            let Some(accepted) = stop.run_until_cancelled(listener.accept()).await else { return };
            match accepted {
                Ok((stream, _)) => {
                    let (server, acceptor, stop) = (server.clone(), acceptor.clone(), stop.clone());
                    tokio::spawn(async move {
                        stop.run_until_cancelled(connection(server, acceptor, stream)).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    // Out of descriptors: the next accept waits for one to come free.
                    warn!(%error, "connection not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    });
    Ok(address)
}

async fn connection(server: Arc<Server>, acceptor: TlsAcceptor, stream: TcpStream) {
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await else { return };
    let peer = match Peer::of_connection(stream.get_ref().1) {
        Ok(peer) => peer,
        Err(error) => {
            debug!(error = %chain(&error), "client certificate names nobody");
            None
        }
    };
    let service = service_fn(move |request| {
        let (server, peer) = (server.clone(), peer.clone());
        async move { Ok::<_, std::convert::Infallible>(server.answer(request, peer.as_ref()).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS_TIMEOUT).max_buf_size(HEADERS_MAX_BYTES);
    if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        debug!(%error, "connection ended");
    }
}

impl Server {
    async fn answer(&self, request: Request<Incoming>, peer: Option<&Peer>) -> Response<Body> {
        let user = match self.access.authenticate(&request, peer).await {
            Ok(user) => user,
            Err(status) => return refusal(&status),
        };
        let path = request.uri().path().to_owned();
        if let Err(status) = self.access.authorize(&user, request.method(), &path).await {
            return refusal(&status);
        }
        match self.route(request, &path).await {
            Ok(response) => response,
            Err(status) => refusal(&status),
        }
    }

    async fn route(&self, request: Request<Incoming>, path: &str) -> Result<Response<Body>, Status> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        match parts.as_slice() {
            ["healthz"] => Ok(words("ok")),
            ["pods"] | ["runningpods"] => self.pods(),
            ["stats", ..] | ["metrics", ..] if request.method() != Method::GET => Err(Status::method_not_allowed()),
            ["stats", "summary"] => {
                let query = request.uri().query().unwrap_or("");
                let light = query.split('&').any(|pair| pair == "only_cpu_and_memory=true");
                let summary = self.config.stats.summary(&self.config.node_name, light).await;
                Ok(json_body(&summary.map_err(unread)?))
            }
            ["metrics"] => Ok(metrics(self.config.stats.own(&self.config.node_name, &self.config.counters).await)),
            ["metrics", "resource"] => {
                Ok(metrics(resource::metrics(&*self.config.stats.usage().await.map_err(unread)?)))
            }
            ["metrics", "cadvisor"] => Ok(metrics(self.config.stats.cadvisor().await.map_err(unread)?)),
            ["metrics", "probes"] => Ok(metrics(self.config.counters.probes())),
            ["containerLogs", namespace, pod, container] if request.method() == Method::GET => {
                let query = request.uri().query().unwrap_or("").to_owned();
                logs::answer(&self.config, &self.log_readers, namespace, pod, container, &query)
            }
            ["exec", namespace, pod, container] | ["exec", namespace, pod, _, container] => {
                let found = self.config.pods.container(namespace, pod, container, false)?;
                relay::exec(&self.config, found, request).await
            }
            ["attach", namespace, pod, container] | ["attach", namespace, pod, _, container] => {
                let found = self.config.pods.container(namespace, pod, container, false)?;
                relay::attach(&self.config, found, request).await
            }
            ["portForward", namespace, pod] | ["portForward", namespace, pod, _] => {
                let sandbox = self.config.pods.sandbox(namespace, pod)?;
                relay::port_forward(&self.config, sandbox, request).await
            }
            ["run" | "checkpoint", ..] => {
                Err(Status::new(501, "NotImplemented", format!("/{} is not served by this node yet", parts[0])))
            }
            ["debug", "gantry", "trace", uid] => Ok(json_body(&self.config.trace.get(uid))),
            _ => Err(Status::new(404, "NotFound", format!("the kubelet API has no {path}"))),
        }
    }

    fn pods(&self) -> Result<Response<Body>, Status> {
        let items: Vec<_> = self.config.pods.pods().iter().map(|pod| pod.0.clone()).collect();
        Ok(json_body(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})))
    }
}

pub fn body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

fn typed(content: impl Into<Bytes>, content_type: &'static str) -> Response<Body> {
    let mut response = Response::new(body(content));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

fn words(words: &'static str) -> Response<Body> {
    typed(words, "text/plain; charset=utf-8")
}

fn metrics(content: String) -> Response<Body> {
    typed(content, gantry_env::metrics::CONTENT_TYPE)
}

/// The runtime did not tell what is used.
fn unread(error: RuntimeError) -> Status {
    Status::internal(chain(&error))
}

fn json_body(value: &serde_json::Value) -> Response<Body> {
    typed(value.to_string(), "application/json")
}

/// The kubelet API answers in plain words; the API server wraps them into a Status.
fn refusal(status: &Status) -> Response<Body> {
    let mut response = words("");
    *response.status_mut() = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.body_mut() = body(status.message.clone());
    response
}
