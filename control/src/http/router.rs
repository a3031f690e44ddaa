//! The router: a tower service over both wires. It finds out what a request is about and who asks, and answers 401, 403
//! and 404 before anything is read from the body.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use gantry_kube::Status;
use gantry_pki::Peer;
use http::request::Parts;
use http::{Method, Request, Response, header};
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::body::{self, Body, BoxError, Unread};
use super::health::Health;
use super::inflight::{self, Bounds, Inflight, Place, Share};
use super::kubelet::Kubelets;
use super::metrics::{Labels, Metrics};
use super::outgoing::Outgoing;
use super::query::Query;
use super::request_info::RequestInfo;
use super::{deadline, media, query};
use crate::auth::{Action, Authenticator, Authorizer, Identity};
use crate::registry::{Registry, decode};
use crate::store::Store;
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
    /// What the components were told, as `/configz` tells it.
    pub configuration: Value,
    /// The backend itself, of which snapshots are taken.
    pub backend: Arc<dyn Store>,
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
        let began = Instant::now();
        let (mut parts, body) = request.into_parts();
        let query = Query::parse(parts.uri.query().unwrap_or(""));
        let info = RequestInfo::parse(&parts.method, parts.uri.path(), &query);
        let outgoing = Outgoing::of(&mut parts, &query, &info);
        let applies =
            parts.method == Method::PATCH && media::content_type(&parts.headers).essence == decode::APPLY_PATCH;
        let (server, requests) = (self.0.clone(), &self.0.metrics.requests);
        let custom = || server.registry.kinds().table().by_plural(&info.group, &info.version, &info.resource);
        let labels = Labels::of(&parts.method, &info, &query, applies, custom);
        let long_running = inflight::is_long_running(&info);
        let _busy = (!long_running).then(|| requests.enter(&info));
        let within = match query::bad_escape(parts.uri.path()) {
            Some(escape) => Err(Status::bad_request(format!("invalid URL escape {escape:?}"))),
            None if long_running => Ok(None),
            None => deadline::of(&query).map(Some),
        };
        let body = Unread::new(body);
        let answered = match within {
            Ok(within) => in_time(within, serve(server, parts, body.clone(), query, info, labels)).await,
            Err(status) => Ok(Err(status)),
        };
        if !matches!(&answered, Ok(Err(status)) if status.code == 504) {
            body.discard().await;
        }
        let response = match answered {
            Ok(Ok(response)) => response,
            Ok(Err(status)) => outgoing.refusal(&status),
            Err(_) => {
                tracing::error!(verb = labels.verb(), resource = labels.resource(), "a request ended in a panic");
                outgoing.refusal(&Status::internal("the request could not be carried out"))
            }
        };
        let response = outgoing.finish(response);
        Ok(requests.answered(&labels, response, began))
    }
}

/// What comes of the work, or its panic; 504 where it takes longer than it may.
async fn in_time(
    within: Option<Duration>,
    work: impl Future<Output = Result<Response<Body>, Status>>,
) -> std::thread::Result<Result<Response<Body>, Status>> {
    let work = AssertUnwindSafe(work).catch_unwind();
    match within {
        None => work.await,
        Some(within) => tokio::time::timeout(within, work).await.unwrap_or_else(|_| Ok(Err(deadline::exceeded()))),
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

async fn serve(
    server: Arc<Server>,
    mut parts: Parts,
    body: Unread,
    query: Query,
    info: RequestInfo,
    labels: Labels,
) -> Result<Response<Body>, Status> {
    let own = parts.extensions.get::<Identity>().is_some();
    let identity = admitted(&server, &mut parts, &info)?;
    let bounds = Bounds::new(&server.inflight, &info, &identity, own);
    let mut seat = bounds.seat().await?;
    if inflight::is_long_running(&info) {
        seat = Some(Place::open(seat, server.metrics.requests.series(&labels)));
    }
    let call = Call { parts, body, query, info, identity, bounds, seat };
    if call.info.is_resource {
        super::resources::serve(server, call).await
    } else {
        super::paths::serve(&server, call).await
    }
}

/// Who asks, where that is known and allowed.
fn admitted(server: &Server, parts: &mut Parts, info: &RequestInfo) -> Result<Identity, Status> {
    let access = &server.metrics.access;
    let began = Instant::now();
    let known = identify(server, parts);
    let known_at = Instant::now();
    access.authenticated(known.as_ref().ok().map(|identity| identity.user.as_str()), known_at - began);
    let identity = super::impersonation::exchange(server, known?, &parts.headers, &action(info))?;
    let allowed = server.authorizer.check(&identity, &action(info));
    access.authorized(allowed.is_ok(), known_at.elapsed());
    allowed.map(|()| identity)
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
