//! The backend for more than one control host: API servers without a state of their own over a real etcd, 3.4 or later.
//!
//! ```text
//! get(), list(), write() ─▶ members: one is asked until it fails ─▶ etcd
//! watch() ─▶ follow: one stream over everything of Gantry's, begun anew wherever it broke
//! ```
//! An object's resourceVersion is etcd's revision and an offset that is kept in etcd ([`origin`]); its value is the same
//! bytes as in the embedded backend. etcd's own compaction is for all of its keys: an etcd that is shared with others
//! forgets theirs, too.

mod filling;
mod follow;
mod members;
mod names;
mod origin;
mod txn;

#[allow(clippy::all, missing_docs, rustdoc::all)]
#[rustfmt::skip]
mod rpc {
    include!("etcd/generated.rs");
}

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tonic::transport::Channel;

pub use filling::Filling;
pub use members::EndpointError;

use super::check::check;
use super::{BoxFuture, Compare, Item, Key, Op, Page, Revision, Store, StoreError, Versioned, Watch};
use follow::Follow;
use members::{Answer, Failure, Members, Repeat};
use names::Names;
use origin::Origin;
use rpc::compare::{CompareResult, CompareTarget, TargetUnion};
use rpc::kv_client::KvClient;
use rpc::request_op::Request;
use rpc::watch_request::RequestUnion;
use rpc::{CompactionRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest, WatchRequest};
use txn::Txn;

/// The prefix of Gantry's keys where nothing else is said.
pub const PREFIX: &str = "/gantry";
/// The largest answer that is taken: a page of a list is cut until it fits, and an event brings two values at most.
const ANSWER_MAX_BYTES: usize = 16 << 20;
/// How many items are asked for at a time.
const PAGE_MAX_ITEMS: usize = 2000;
/// etcd tells a watch that it is too late within a tenth of a second.
const TOO_LATE_WITHIN: Duration = Duration::from_secs(5);

/// Where etcd is, and how it is reached.
#[derive(Clone)]
pub struct Config {
    /// URLs of the members: `https://10.0.0.1:2379`.
    pub servers: Vec<String>,
    /// The prefix of all keys.
    pub prefix: String,
    /// Who vouches for the members, and what is shown to them; for URLs with https.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("servers", &self.servers).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// Why etcd cannot be the store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("etcd cannot be reached so")]
    Endpoint(#[from] EndpointError),
    #[error("etcd is not ready")]
    Store(#[from] StoreError),
}

/// The store in an etcd cluster.
pub struct Etcd {
    shared: Arc<Shared>,
}

struct Shared {
    members: Members,
    names: Names,
    /// Absent where it has to be read anew.
    origin: RwLock<(Origin, bool)>,
    /// The newest revision that somebody waits for: watches ask for progress until they have it.
    wanted: watch::Sender<Revision>,
}

macro_rules! answers {
    ($($answer:ident),*) => {$(
        impl Answer for rpc::$answer {
            fn header(&self) -> Option<&rpc::ResponseHeader> {
                self.header.as_ref()
            }
        }
    )*};
}

answers!(RangeResponse, PutResponse, TxnResponse, CompactionResponse);

fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(ANSWER_MAX_BYTES)
}

impl Etcd {
    /// Reaches etcd, and makes it a store where it is none yet. Must be called inside a tokio runtime.
    pub async fn open(config: &Config) -> Result<Etcd, OpenError> {
        let etcd = Etcd::reach(config).await?;
        if etcd.shared.origin().filling {
            let why = "a copy into it was not finished: make it again".to_owned();
            return Err(StoreError::Foreign { place: etcd.shared.place(), why }.into());
        }
        Ok(etcd)
    }

    async fn reach(config: &Config) -> Result<Etcd, OpenError> {
        let members = Members::new(&config.servers, config.tls.as_deref())?;
        let names = Names::below(&config.prefix);
        // Nobody reads it before it is loaded below.
        let none = Origin::read("", &Origin::record(0, 0, false), 0)?;
        let (origin, wanted) = (RwLock::new((none, false)), watch::Sender::new(0));
        let shared = Arc::new(Shared { members, names, origin, wanted });
        shared.load_origin().await?;
        Ok(Etcd { shared })
    }
}

impl Shared {
    fn place(&self) -> String {
        format!("{} in etcd at {}", self.names.prefix(), self.members)
    }

    fn origin(&self) -> Origin {
        self.origin.read().0
    }

    fn forget_origin(&self) {
        self.origin.write().1 = false;
    }

    async fn load_origin_if_forgotten(&self) -> Result<(), StoreError> {
        if self.origin.read().1 { Ok(()) } else { self.load_origin().await }
    }

    /// Reads the origin, or makes it: of several who come at once, one does.
    async fn load_origin(&self) -> Result<(), StoreError> {
        let key = self.names.origin();
        let read = RangeRequest { key: key.clone(), ..RangeRequest::default() };
        let read = RequestOp { request: Some(Request::RequestRange(read)) };
        let put = PutRequest { key: key.clone(), value: Origin::record(0, 0, false).into() };
        let absent = rpc::Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key,
            target_union: Some(TargetUnion::ModRevision(0)),
        };
        let request = TxnRequest {
            compare: vec![absent],
            success: vec![RequestOp { request: Some(Request::RequestPut(put)) }, read.clone()],
            failure: vec![read],
        };
        // Whoever makes it twice finds the first one's.
        let answer = self.txn(Repeat::Yes, request).await.map_err(|failure| self.told(failure))?;
        let found = answer.responses.into_iter().rev().find_map(|response| match response.response? {
            rpc::response_op::Response::ResponseRange(range) => range.kvs.into_iter().next(),
            _ => None,
        });
        let gone = || StoreError::Foreign { place: self.place(), why: "it has no origin".to_owned() };
        let found = found.ok_or_else(gone)?;
        *self.origin.write() = (Origin::read(&self.place(), &found.value, found.mod_revision)?, true);
        Ok(())
    }

    /// The error for what has no meaning of its own in the request that failed.
    fn told(&self, failure: Failure) -> StoreError {
        let foreign = |why: &str| StoreError::Foreign { place: self.place(), why: why.to_owned() };
        match failure {
            Failure::Store(error) => error,
            Failure::Compacted | Failure::Future => foreign("it refuses a revision that it has told itself"),
            Failure::AnswerTooLarge => foreign("one value in it is larger than any that is written"),
            Failure::RequestTooLarge => foreign("it takes smaller requests than any etcd does by itself"),
        }
    }

    async fn range(&self, request: RangeRequest) -> Result<rpc::RangeResponse, Failure> {
        let ask = |channel, request| async move { kv(channel).range(request).await };
        self.members.ask("read from etcd", Repeat::Yes, request, ask).await
    }

    async fn txn(&self, repeat: Repeat, request: TxnRequest) -> Result<rpc::TxnResponse, Failure> {
        let ask = |channel, request| async move { kv(channel).txn(request).await };
        self.members.ask("write to etcd", repeat, request, ask).await
    }

    /// Writes what means nothing, so that every watch is told a revision.
    async fn write_progress(&self) -> Result<(), StoreError> {
        let request = PutRequest { key: self.names.progress(), value: bytes::Bytes::new() };
        let ask = |channel, request| async move { kv(channel).put(request).await };
        let done = self.members.ask("write to etcd", Repeat::Yes, request, ask).await;
        done.map(drop).map_err(|failure| self.told(failure))
    }

    /// etcd's newest revision, by all of its members' word.
    async fn newest(&self) -> Result<i64, StoreError> {
        let request = RangeRequest { key: self.names.origin(), keys_only: true, ..RangeRequest::default() };
        let answer = self.range(request).await.map_err(|failure| self.told(failure))?;
        match answer.kvs.first() {
            Some(found) if found.mod_revision == self.origin().at() => {}
            // A copy was made over this store, or somebody has removed it.
            _ => self.load_origin().await?,
        }
        Ok(answer.header.unwrap_or_default().revision)
    }

    async fn current(&self) -> Result<Revision, StoreError> {
        let newest = self.newest().await?;
        Ok(self.origin().ours(newest))
    }

    /// etcd's revision for a read of `at`, 0 for now; refuses what was before this store.
    async fn theirs(&self, at: Option<Revision>) -> Result<i64, StoreError> {
        let origin = self.origin();
        match at {
            Some(asked) if asked < origin.oldest() => Err(self.compacted(asked).await),
            Some(asked) => Ok(origin.theirs(asked)),
            None => Ok(0),
        }
    }

    /// What a read that failed means, which was for the revision `at`.
    async fn refused(&self, failure: Failure, at: Option<Revision>) -> StoreError {
        match (failure, at) {
            (Failure::Compacted, Some(asked)) => self.compacted(asked).await,
            (Failure::Future, Some(asked)) => match self.current().await {
                Ok(current) => StoreError::Future { asked, current },
                Err(error) => error,
            },
            (failure, _) => self.told(failure),
        }
    }

    /// The error for a revision that is too old, with the oldest that is kept.
    async fn compacted(&self, asked: Revision) -> StoreError {
        let origin = self.origin();
        let first = origin.theirs(asked.max(origin.oldest()));
        match self.oldest_from(first).await {
            Ok(oldest) => StoreError::Compacted { asked, oldest: origin.ours(oldest) },
            Err(error) => error,
        }
    }

    /// The oldest of etcd's revisions that is kept, if it is not before `first`. Only a watch that comes too late is told.
    async fn oldest_from(&self, first: i64) -> Result<i64, StoreError> {
        match self.range(RangeRequest { revision: first, ..self.probe() }).await {
            Ok(_) => return Ok(first),
            Err(Failure::Compacted) => {}
            Err(failure) => return Err(self.told(failure)),
        }
        let (_, member) = self.members.preferred();
        let create =
            WatchCreateRequest { key: self.names.origin(), start_revision: first, ..WatchCreateRequest::default() };
        let (requests, queue) = mpsc::channel(1);
        let _ = requests.try_send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) });
        let told = async {
            let mut responses = follow::watch(member.channel.clone(), queue).await?;
            while let Some(response) = responses.message().await? {
                if response.compact_revision > 0 {
                    return Ok(response.compact_revision);
                }
            }
            Err(Box::new(tonic::Status::unavailable("the stream has ended")))
        };
        let told = timeout(TOO_LATE_WITHIN, told).await;
        let told = told.unwrap_or_else(|_| Err(Box::new(tonic::Status::deadline_exceeded("it tells nothing"))));
        told.map_err(|status| StoreError::Io { doing: "ask etcd what it keeps", source: Arc::new(*status) })
    }

    /// A read that brings nothing, and fails where a revision cannot be read.
    fn probe(&self) -> RangeRequest {
        RangeRequest { key: self.names.origin(), count_only: true, ..RangeRequest::default() }
    }

    /// Up to `limit` items, in as many requests as it takes for each answer to be of bearable size.
    async fn list(&self, prefix: &str, after: &str, limit: usize, at: Option<Revision>) -> Result<Page, StoreError> {
        let mut revision = self.theirs(at).await?;
        let (mut after, mut size) = (after.to_owned(), PAGE_MAX_ITEMS);
        let mut page = Page { items: Vec::new(), revision: 0, more: true };
        while page.more && page.items.len() < limit {
            let (key, range_end) = self.names.objects(prefix, &after);
            let wanted = size.min(limit - page.items.len());
            let request = RangeRequest { key, range_end, revision, limit: wanted as i64, ..RangeRequest::default() };
            let answer = match self.range(request).await {
                Ok(answer) => answer,
                Err(Failure::AnswerTooLarge) if wanted > 1 => {
                    size = wanted / 2;
                    continue;
                }
                Err(failure) => return Err(self.refused(failure, at).await),
            };
            if revision == 0 {
                // All of the list is as of its first part.
                revision = answer.header.unwrap_or_default().revision;
            }
            page.more = answer.more;
            let origin = self.origin();
            for kv in answer.kvs {
                let raw = self.names.text(&kv.key).unwrap_or_default();
                let key = follow::key(raw, origin.ours(kv.mod_revision))?;
                page.items.push(Item { key, value: kv.value, revision: origin.ours(kv.mod_revision) });
            }
            if let Some(last) = page.items.last() {
                after = last.key.as_str().to_owned();
            }
        }
        page.revision = self.origin().ours(revision);
        Ok(page)
    }

    async fn get(&self, key: &Key, at: Option<Revision>) -> Result<Option<Versioned>, StoreError> {
        let revision = self.theirs(at).await?;
        let request = RangeRequest { key: self.names.object(key), revision, ..RangeRequest::default() };
        let answer = match self.range(request).await {
            Ok(answer) => answer,
            Err(failure) => return Err(self.refused(failure, at).await),
        };
        let origin = self.origin();
        let found = answer.kvs.into_iter().next();
        Ok(found.map(|kv| Versioned { value: kv.value, revision: origin.ours(kv.mod_revision) }))
    }

    async fn write(&self, compares: Vec<Compare>, ops: Vec<Op>) -> Result<Revision, StoreError> {
        check(&ops)?;
        let origin = self.origin();
        let txn = Txn::new(&self.names, &origin, compares, ops);
        let answer = match self.txn(Repeat::No, txn.request.clone()).await {
            Ok(answer) => answer,
            Err(Failure::RequestTooLarge) => return Err(StoreError::WriteTooLarge { bytes: txn.bytes() }),
            Err(failure) => return Err(self.told(failure)),
        };
        if answer.succeeded {
            return Ok(origin.ours(answer.header.unwrap_or_default().revision));
        }
        match txn.conflict(&self.names, &origin, answer) {
            Some(conflict) => Err(StoreError::Conflict(Box::new(conflict))),
            None => {
                let why = "it refuses a write whose conditions hold".to_owned();
                Err(StoreError::Foreign { place: self.place(), why })
            }
        }
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let theirs = self.origin().theirs(revision);
        if theirs <= 0 {
            return Ok(());
        }
        let ask = |channel, request| async move { kv(channel).compact(request).await };
        let request = CompactionRequest { revision: theirs, physical: false };
        match self.members.ask("compact etcd", Repeat::Yes, request, ask).await {
            Ok(_) | Err(Failure::Compacted) => Ok(()),
            Err(failure) => Err(self.refused(failure, Some(revision)).await),
        }
    }
}

impl Store for Etcd {
    fn get<'a>(&'a self, key: &'a Key, at: Option<Revision>) -> BoxFuture<'a, Result<Option<Versioned>, StoreError>> {
        Box::pin(self.shared.get(key, at))
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: &'a str,
        limit: usize,
        at: Option<Revision>,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(self.shared.list(prefix, after, limit, at))
    }

    /// Fails with [`StoreError::Unknown`] where the write was sent and nobody knows what became of it.
    fn write(&self, compares: Vec<Compare>, ops: Vec<Op>) -> BoxFuture<'_, Result<Revision, StoreError>> {
        Box::pin(self.shared.write(compares, ops))
    }

    fn watch<'a>(&'a self, prefix: &'a str, from: Revision) -> BoxFuture<'a, Result<Box<dyn Watch>, StoreError>> {
        Box::pin(async move {
            let shared = &self.shared;
            let revision = shared.theirs(Some(from)).await?;
            match shared.range(RangeRequest { revision, ..shared.probe() }).await {
                Ok(_) => Ok(Box::new(Follow::new(shared.clone(), prefix, from)) as Box<dyn Watch>),
                Err(failure) => Err(shared.refused(failure, Some(from)).await),
            }
        })
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.shared.compact(revision))
    }

    fn current(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        Box::pin(async move {
            let current = self.shared.current().await?;
            self.shared.wanted.send_if_modified(|wanted| std::mem::replace(wanted, current.max(*wanted)) < current);
            Ok(current)
        })
    }
}
