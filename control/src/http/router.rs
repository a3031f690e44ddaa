//! The router: a tower service over both wires. It finds out what a request is about and who asks, and answers 401, 403
//! and 404 before anything is read from the body.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt;
use gantry_kube::Status;
use gantry_pki::Peer;
use http::request::Parts;
use http::{Request, Response, header};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::body::{self, Body, BoxError, Unread};
use super::health::Health;
use super::inflight::{Bounds, Inflight, Share};
use super::kubelet::Kubelets;
use super::metrics::{Metrics, RequestLabels};
use super::query::Query;
use super::request_info::RequestInfo;
use super::{discovery, respond};
use crate::auth::{Action, Authenticator, Authorizer, Identity};
use crate::registry::Registry;
use crate::usage::Usage;

/// Everything that answering needs.
pub struct Server {
    pub registry: Registry,
    pub authenticator: Authenticator,
    pub authorizer: Authorizer,
    pub kubelets: Kubelets,
    /// What nodes and pods use, as nodes last told.
    pub usage: Usage,
    pub metrics: Metrics,
    pub inflight: Arc<Inflight>,
    pub health: Health,
    /// Ends watches and other long answers.
    pub stop: CancellationToken,
}

/// A request on its way, its body still unread.
pub struct Call {
    pub parts: Parts,
    pub body: Unread,
    pub query: Query,
    pub info: RequestInfo,
    pub identity: Identity,
    pub bounds: Bounds,
    /// The place of a read, a watch or a stream. What outlives its answer's head takes it along.
    pub seat: Share,
}

impl Call {
    pub fn user_agent(&self) -> &str {
        self.parts.headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("")
    }
}

/// The service; clones share the server.
#[derive(Clone)]
pub struct Router(Arc<Server>);

impl Router {
    pub fn new(server: Server) -> Router {
        Router(Arc::new(server))
    }

    pub fn server(&self) -> &Arc<Server> {
        &self.0
    }

    pub async fn answer(self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        let query = Query::parse(parts.uri.query().unwrap_or(""));
        let info = RequestInfo::parse(&parts.method, parts.uri.path(), &query);
        let labels = labels(&info);
        let server = self.0.clone();
        let body = Unread::new(body);
        let answered = AssertUnwindSafe(serve(server, parts, body.clone(), query, info)).catch_unwind().await;
        body.discard().await;
        let response = match answered {
            Ok(Ok(response)) => response,
            Ok(Err(status)) => respond::status(&status),
            Err(_) => {
                tracing::error!(verb = labels.verb, resource = labels.resource, "a request ended in a panic");
                respond::status(&Status::internal("the request could not be carried out"))
            }
        };
        let labels = RequestLabels { code: response.status().as_u16(), ..labels };
        self.0.metrics.request(labels, started.elapsed());
        Ok(response)
    }
}

impl<B> tower_service::Service<Request<B>> for Router
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        Box::pin(self.clone().answer(request.map(body::wrap)))
    }
}

/// Metrics name only what is served: a client must not be able to invent labels.
fn labels(info: &RequestInfo) -> RequestLabels {
    let resource = discovery::resource(&info.group, &info.version, &info.resource);
    let named = Some(&info.subresource).filter(|name| !name.is_empty());
    let subresource = named.and_then(|name| discovery::find(&info.group, &info.resource, name)).map_or("", |s| s.name);
    RequestLabels {
        verb: info.verb,
        group: resource.map_or("", |r| r.group),
        resource: resource.map_or("", |r| r.plural),
        subresource,
        code: 0,
    }
}

async fn serve(
    server: Arc<Server>,
    mut parts: Parts,
    body: Unread,
    query: Query,
    info: RequestInfo,
) -> Result<Response<Body>, Status> {
    let own = parts.extensions.get::<Identity>().is_some();
    let identity = identify(&server, &mut parts)?;
    let identity = super::impersonation::exchange(&server, identity, &parts.headers)?;
    server.authorizer.check(&identity, &action(&info))?;
    let bounds = Bounds::new(&server.inflight, &info, &identity, own);
    let seat = bounds.seat().await?;
    let call = Call { parts, body, query, info, identity, bounds, seat };
    if call.info.is_resource {
        super::resources::serve(server, call).await
    } else {
        super::paths::serve(&server, call).await
    }
}

/// The identity that the composer gave the in-process wire, or the one that the wire's credentials prove.
fn identify(server: &Server, parts: &mut Parts) -> Result<Identity, Status> {
    if let Some(identity) = parts.extensions.remove::<Identity>() {
        return Ok(identity);
    }
    server.authenticator.authenticate(parts.extensions.get::<Peer>(), &parts.headers, parts.uri.path())
}

pub fn action(info: &RequestInfo) -> Action<'_> {
    if info.is_resource {
        Action::Resource {
            verb: info.verb,
            group: &info.group,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            fields: &info.fields,
            labels: &info.labels,
        }
    } else {
        Action::NonResource { verb: info.verb, path: &info.path }
    }
}
