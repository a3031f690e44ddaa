//! How much is carried out at a time. A flood waits for a little while and is then told to come back (429), so that it
//! neither takes all memory nor stops what the cluster lives on: our own loops, administrators and health checks do not
//! queue behind it, and nodes have seats of their own for their heartbeats.
//!
//! The numbers of seats are Kubernetes' own (`--max-requests-inflight`, `--max-mutating-requests-inflight`).

use std::sync::Arc;
use std::time::Duration;

use gantry_env::metrics::Text;
use gantry_kube::Status;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::metrics::{Open, Series};
use super::request_info::RequestInfo;
use crate::auth::Identity;
use crate::auth::identity::MASTERS_GROUP;

pub(super) const READS_MAX: usize = 400;
pub(super) const WRITES_MAX: usize = 200;
const NODE_REQUESTS_MAX: usize = 200;
/// How many requests wait for a seat of each kind.
const WAITING_MAX: usize = 2000;
const WAIT: Duration = Duration::from_secs(5);
/// Open watches, a few kilobytes each. A node has about five.
const WATCHES_MAX: usize = 1 << 16;
/// Followed logs, exec and whatever else a node's kubelet API streams: each holds two buffers and two connections.
const STREAMS_MAX: usize = 1024;
/// The bodies that are read or being carried out, together. Parsed they are some ten times as large.
const BODIES_MAX_BYTES: usize = 64 << 20;
const RETRY_AFTER_SECONDS: u32 = 1;
/// Bodies are counted in pieces of this size, so that a count fits a semaphore.
const PIECE_BYTES: usize = 1024;

/// A place among the requests, and what is told of who has it, until it is dropped.
#[derive(Debug)]
pub struct Place {
    _permit: Option<OwnedSemaphorePermit>,
    _open: Option<Open>,
}

impl Place {
    fn new(permit: OwnedSemaphorePermit) -> Place {
        Place { _permit: Some(permit), _open: None }
    }

    /// That of a long-running request, which is told of for as long as it has it, whether it is counted or not.
    pub fn open(share: Share, series: Arc<Series>) -> Place {
        Place { _permit: share.and_then(|place| place._permit), _open: Some(Open::new(series)) }
    }
}

/// A share of what is possible at a time, until it is dropped. Who is not counted holds an empty one.
pub type Share = Option<Place>;

/// The bounds of one server.
#[derive(Debug)]
pub struct Inflight {
    reads: Lane,
    writes: Lane,
    nodes: Lane,
    watches: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    bodies: Lane,
}

impl Default for Inflight {
    fn default() -> Inflight {
        Inflight {
            reads: Lane::new(READS_MAX),
            writes: Lane::new(WRITES_MAX),
            nodes: Lane::new(NODE_REQUESTS_MAX),
            watches: Arc::new(Semaphore::new(WATCHES_MAX)),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            bodies: Lane::new(BODIES_MAX_BYTES / PIECE_BYTES),
        }
    }
}

impl Inflight {
    pub fn write(&self, text: &mut Text) {
        let name = "apiserver_current_inqueue_requests";
        text.family(name, "gauge", "Requests that wait for a place");
        for (kind, lanes) in [("mutating", vec![&self.writes]), ("readOnly", vec![&self.reads, &self.nodes])] {
            let waiting: usize = lanes.into_iter().map(Lane::waiting).sum();
            text.count(name, &[("request_kind", kind)], waiting as u64);
        }
    }
}

fn busy(what: &str) -> Status {
    Status::too_many_requests(format!("too many {what} at a time, try again later"), RETRY_AFTER_SECONDS)
}

/// Places, and a queue before them.
#[derive(Debug)]
struct Lane {
    places: Arc<Semaphore>,
    queue: Semaphore,
}

impl Lane {
    fn new(places: usize) -> Lane {
        Lane { places: Arc::new(Semaphore::new(places)), queue: Semaphore::new(WAITING_MAX) }
    }

    fn waiting(&self) -> usize {
        WAITING_MAX.saturating_sub(self.queue.available_permits())
    }

    async fn take(&self, count: u32, what: &str) -> Result<Share, Status> {
        if let Ok(share) = self.places.clone().try_acquire_many_owned(count) {
            return Ok(Some(Place::new(share)));
        }
        let _waiting = self.queue.try_acquire().map_err(|_| busy(what))?;
        match tokio::time::timeout(WAIT, self.places.clone().acquire_many_owned(count)).await {
            Ok(Ok(share)) => Ok(Some(Place::new(share))),
            _ => Err(busy(what)),
        }
    }
}

/// How a request is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    Watch,
    Stream,
    Health,
}

fn kind(info: &RequestInfo) -> Kind {
    match (info.verb, info.subresource.as_str()) {
        ("watch", _) => Kind::Watch,
        (_, "attach" | "exec" | "log" | "portforward" | "proxy") => Kind::Stream,
        ("get" | "list" | "head" | "options", _) if info.is_resource => Kind::Read,
        _ if info.is_resource => Kind::Write,
        _ if ["/livez", "/readyz", "/healthz"].iter().any(|path| info.path.starts_with(path)) => Kind::Health,
        _ => Kind::Read,
    }
}

/// Whether it ends when the client wants, and not when it has its answer.
pub fn is_long_running(info: &RequestInfo) -> bool {
    matches!(kind(info), Kind::Watch | Kind::Stream)
}

/// What one request may take.
#[derive(Clone, Debug)]
pub struct Bounds {
    inflight: Arc<Inflight>,
    kind: Kind,
    is_node: bool,
    /// It speaks over the in-process wire.
    own: bool,
    /// It is never held up.
    exempt: bool,
}

impl Bounds {
    pub fn new(inflight: &Arc<Inflight>, info: &RequestInfo, identity: &Identity, own: bool) -> Bounds {
        let kind = kind(info);
        Bounds {
            inflight: inflight.clone(),
            kind,
            is_node: identity.node().is_some(),
            own,
            exempt: own || kind == Kind::Health || identity.in_group(MASTERS_GROUP),
        }
    }

    /// The place of a request whose body is still to be read: of a read until it is answered, of a watch or a stream
    /// until that ends. A write takes its place when its body is there ([`Bounds::seat_for_write`]), so that slow bodies
    /// keep nobody waiting.
    pub async fn seat(&self) -> Result<Share, Status> {
        let open = |places: &Arc<Semaphore>, what| match places.clone().try_acquire_owned() {
            Ok(share) => Ok(Some(Place::new(share))),
            Err(_) => Err(busy(what)),
        };
        match self.kind {
            _ if self.exempt => Ok(None),
            Kind::Watch => open(&self.inflight.watches, "watches"),
            Kind::Stream => open(&self.inflight.streams, "streams"),
            Kind::Read if self.is_node => self.inflight.nodes.take(1, "requests of nodes").await,
            Kind::Read => self.inflight.reads.take(1, "requests").await,
            Kind::Write | Kind::Health => Ok(None),
        }
    }

    pub async fn seat_for_write(&self) -> Result<Share, Status> {
        match self.kind {
            Kind::Write if self.exempt => Ok(None),
            Kind::Write if self.is_node => self.inflight.nodes.take(1, "requests of nodes").await,
            Kind::Write => self.inflight.writes.take(1, "changing requests").await,
            Kind::Read | Kind::Watch | Kind::Stream | Kind::Health => Ok(None),
        }
    }

    /// Room for a body of up to so many bytes.
    pub async fn room(&self, bytes: usize) -> Result<Share, Status> {
        if self.own || bytes == 0 {
            return Ok(None);
        }
        let pieces = u32::try_from(bytes.div_ceil(PIECE_BYTES)).unwrap_or(u32::MAX);
        self.inflight.bodies.take(pieces, "bytes of request bodies").await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::query::Query;
    use http::Method;

    fn bounds(inflight: &Arc<Inflight>, method: &Method, path: &str, identity: &Identity) -> Bounds {
        let info = RequestInfo::parse(method, path, &Query::parse(path.split_once('?').map_or("", |(_, query)| query)));
        Bounds::new(inflight, &info, identity, false)
    }

    fn small() -> Arc<Inflight> {
        let one = || Lane { places: Arc::new(Semaphore::new(1)), queue: Semaphore::new(1) };
        let (watches, streams) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(1)));
        Arc::new(Inflight { reads: one(), writes: one(), nodes: one(), watches, streams, bodies: one() })
    }

    const PODS: &str = "/api/v1/namespaces/a/pods";

    #[tokio::test(start_paused = true)]
    async fn a_flood_waits_and_is_then_told_to_come_back() {
        let inflight = small();
        let user = Identity::new("u", None::<String>);
        let read = bounds(&inflight, &Method::GET, PODS, &user);
        let first = read.seat().await.unwrap();
        assert!(first.is_some());
        let refused = read.seat().await.unwrap_err();
        assert_eq!((refused.code, refused.details["retryAfterSeconds"].as_u64()), (429, Some(1)));
        // Who waits gets the place that becomes free; beyond the queue nobody even waits.
        let second = tokio::spawn({
            let read = read.clone();
            async move { read.seat().await }
        });
        tokio::task::yield_now().await;
        assert_eq!(tokio::time::timeout(Duration::ZERO, read.seat()).await.unwrap().unwrap_err().code, 429);
        drop(first);
        assert!(second.await.unwrap().unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn reads_writes_nodes_and_streams_are_counted_apart() {
        let inflight = small();
        let user = Identity::new("u", None::<String>);
        let node = Identity::new("system:node:n", ["system:nodes"]);
        let mut held = Vec::new();
        for identity in [&user, &node] {
            let read = bounds(&inflight, &Method::GET, PODS, identity);
            held.push(read.seat().await.unwrap().unwrap());
            assert_eq!(read.seat().await.unwrap_err().code, 429);
        }
        let write = bounds(&inflight, &Method::POST, PODS, &user);
        assert!(write.seat().await.unwrap().is_none(), "not before its body is there");
        held.push(write.seat_for_write().await.unwrap().unwrap());
        assert_eq!(write.seat_for_write().await.unwrap_err().code, 429);
        for long in [format!("{PODS}?watch=1"), format!("{PODS}/p/exec")] {
            let open = bounds(&inflight, &Method::GET, &long, &user);
            held.push(open.seat().await.unwrap().unwrap());
            assert_eq!(open.seat().await.unwrap_err().code, 429, "{long}");
        }
        assert!(bounds(&inflight, &Method::GET, "/readyz", &Identity::anonymous()).seat().await.unwrap().is_none());
        let admin = Identity::new("a", [MASTERS_GROUP]);
        assert!(bounds(&inflight, &Method::GET, PODS, &admin).seat().await.unwrap().is_none());
        assert!(bounds(&inflight, &Method::POST, PODS, &admin).seat_for_write().await.unwrap().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_share_one_room() {
        let inflight = small();
        let write = bounds(&inflight, &Method::POST, PODS, &Identity::new("a", [MASTERS_GROUP]));
        let held = write.room(PIECE_BYTES).await.unwrap();
        assert_eq!(write.room(1).await.unwrap_err().code, 429, "memory is short for administrators, too");
        drop(held);
        assert!(write.room(1).await.unwrap().is_some());
        assert!(Bounds { own: true, ..write }.room(1 << 30).await.unwrap().is_none());
    }
}
