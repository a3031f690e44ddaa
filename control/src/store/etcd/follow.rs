//! A watch: one stream over everything of Gantry's, begun anew wherever it broke.
//!
//! ```text
//!            ┌── a stream that broke, a member without a leader ──┐
//!            ▼                                                    │
//!   open at `reached` ──▶ events ──▶ Batch ──▶ `reached` grows ───┘
//!                            │
//!                            └── compacted, or another origin ──▶ Compacted: whoever watches has to list again
//! ```
//! All keys are watched whatever the prefix, so that every write of an API server tells every watch how far it is. Where
//! others write to the same etcd, or a read waits for a revision that no event will bring, the watch asks for progress;
//! etcd before 3.4.31 and 3.5.13 answers that with revisions whose events are still to come, so there a small write is
//! made instead, whose event tells the same.

use std::sync::Arc;
use std::time::Duration;

use gantry_env::chain;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use super::rpc::event::EventType;
use super::rpc::maintenance_client::MaintenanceClient;
use super::rpc::watch_client::WatchClient;
use super::rpc::watch_request::RequestUnion;
use super::rpc::{self, StatusRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse};
use super::{ANSWER_MAX_BYTES, Shared};
use crate::store::{Batch, BoxFuture, Change, Key, Revision, StoreError, Watch};

const OPEN_WITHIN: Duration = Duration::from_secs(5);
const REOPEN_AFTER: Duration = Duration::from_millis(200);
/// How long a revision that is waited for may take to come by itself before progress is asked for, and asked for again.
const ASK_AFTER: Duration = Duration::from_millis(5);
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Requests on one stream that etcd has not taken yet.
const REQUESTS_MAX: usize = 4;

pub struct Follow {
    shared: Arc<Shared>,
    prefix: String,
    /// Everything up to here was delivered.
    reached: Revision,
    stream: Option<Stream>,
    /// Changes of a revision that is not whole yet.
    held: Vec<Change>,
}

struct Stream {
    requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
    number: usize,
    url: String,
    /// Whether this member's progress can be believed.
    tells_progress: bool,
    asked: bool,
}

impl Stream {
    /// Opens a stream at the member that is asked at present; says what kept it from that.
    async fn open(shared: &Shared, reached: Revision) -> Result<Stream, String> {
        let (number, member) = shared.members.preferred();
        let opened = timeout(OPEN_WITHIN, Stream::open_at(shared, reached, number)).await;
        let failed = match opened {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(status)) => format!("{}: {}", member.url, chain(&*status)),
            Err(_) => format!("{}: no answer within {} s", member.url, OPEN_WITHIN.as_secs()),
        };
        shared.members.distrust(number);
        Err(failed)
    }

    async fn open_at(shared: &Shared, reached: Revision, number: usize) -> Result<Stream, Box<Status>> {
        let member = shared.members.member(number);
        let (channel, url) = (member.channel.clone(), &member.url);
        let version = MaintenanceClient::new(channel.clone()).status(StatusRequest {}).await?.into_inner().version;
        let (requests, queue) = mpsc::channel(REQUESTS_MAX);
        let start = shared.origin().theirs(reached);
        let (key, range_end) = shared.names.whole();
        // What was delivered comes once more: a start behind it would pass over what a compaction took meanwhile.
        let create = WatchCreateRequest {
            key,
            range_end,
            start_revision: start,
            prev_kv: true,
            fragment: true,
            ..WatchCreateRequest::default()
        };
        let _ = requests.try_send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) });
        let responses = watch(channel, queue).await?;
        let tells_progress = tells_progress(&version);
        Ok(Stream { requests, responses, number, url: url.clone(), tells_progress, asked: false })
    }
}

/// What a response comes to.
enum Next {
    Batch(Batch),
    Nothing,
    /// The stream is of no use any more.
    Ended(String),
}

impl Follow {
    pub fn new(shared: Arc<Shared>, prefix: &str, from: Revision) -> Follow {
        Follow { shared, prefix: prefix.to_owned(), reached: from, stream: None, held: Vec::new() }
    }

    /// Ready when somebody waits for what this watch has not reached, and it is time to ask.
    async fn due(shared: &Shared, reached: Revision, asked: bool) {
        let mut wanted = shared.wanted.subscribe();
        // The sender lives in what is shared, so the wait cannot end for want of one.
        let _ = wanted.wait_for(|wanted| *wanted > reached).await;
        sleep(if asked { ASK_AGAIN_AFTER } else { ASK_AFTER }).await;
    }

    async fn ask(shared: &Shared, stream: &mut Stream) {
        stream.asked = true;
        if stream.tells_progress {
            let request = RequestUnion::ProgressRequest(WatchProgressRequest {});
            // Where the queue is full, there are requests enough.
            let _ = stream.requests.try_send(WatchRequest { request_union: Some(request) });
        } else if let Err(error) = shared.write_progress().await {
            tracing::debug!(error = chain(&error), "progress could not be written");
        }
    }

    fn take(&mut self, response: WatchResponse, tells_progress: bool) -> Result<Next, StoreError> {
        if response.canceled {
            if response.compact_revision > 0 {
                let oldest = self.shared.origin().ours(response.compact_revision);
                return Err(StoreError::Compacted { asked: self.reached, oldest });
            }
            return Ok(Next::Ended(response.cancel_reason));
        }
        if response.created {
            return Ok(Next::Nothing);
        }
        let origin = self.shared.origin();
        let Some(last) = response.events.last().and_then(|event| event.kv.as_ref()).map(|kv| kv.mod_revision) else {
            let told = response.header.filter(|_| tells_progress).map(|header| origin.ours(header.revision));
            return Ok(told.map_or(Next::Nothing, |told| self.deliver(told)));
        };
        for event in response.events {
            self.hold(event)?;
        }
        // Of a response that goes on in the next one, the last revision may not be whole.
        let whole = if response.fragment { last - 1 } else { last };
        Ok(self.deliver(origin.ours(whole)))
    }

    fn deliver(&mut self, upto: Revision) -> Next {
        if upto <= self.reached {
            return Next::Nothing;
        }
        let rest = self.held.partition_point(|change| change.revision <= upto);
        let changes = self.held.drain(..rest).collect();
        self.reached = upto;
        Next::Batch(Batch { changes, revision: upto })
    }

    fn hold(&mut self, event: rpc::Event) -> Result<(), StoreError> {
        let (origin, names) = (self.shared.origin(), &self.shared.names);
        let put = event.r#type() == EventType::Put;
        let Some(kv) = event.kv else { return Ok(()) };
        let revision = origin.ours(kv.mod_revision);
        if kv.key == names.origin() && kv.mod_revision != origin.at() {
            // Whatever was before is another time now.
            self.shared.forget_origin();
            return Err(StoreError::Compacted { asked: self.reached, oldest: revision });
        }
        let Some(raw) = names.text(&kv.key) else { return Ok(()) };
        if revision <= self.reached || !raw.starts_with(self.prefix.as_bytes()) {
            return Ok(());
        }
        let key = key(raw, revision)?;
        let previous = event.prev_kv.map(|previous| origin.ours(previous.mod_revision));
        if previous.is_none() && (!put || kv.create_revision != kv.mod_revision) {
            // What stood there is compacted already.
            return Err(StoreError::Compacted { asked: self.reached, oldest: revision });
        }
        self.held.push(Change { key, revision, value: put.then_some(kv.value), previous });
        Ok(())
    }

    async fn turn(&mut self) -> Result<Next, StoreError> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            empty => {
                self.held.clear();
                self.shared.load_origin_if_forgotten().await?;
                match Stream::open(&self.shared, self.reached).await {
                    Ok(stream) => empty.insert(stream),
                    Err(why) => return Ok(Next::Ended(why)),
                }
            }
        };
        let response = tokio::select! {
            biased;
            // Cancel-safe: a message that is not taken stays in the stream.
            response = stream.responses.message() => response,
            // Cancel-safe: nothing but a timer.
            () = Follow::due(&self.shared, self.reached, stream.asked) => {
                Follow::ask(&self.shared, stream).await;
                return Ok(Next::Nothing);
            }
        };
        let response = match response {
            Ok(Some(response)) => response,
            Ok(None) => return Ok(Next::Ended("the stream has ended".to_owned())),
            Err(status) => return Ok(Next::Ended(chain(&status).to_string())),
        };
        self.shared.members.check(&stream.url, response.header.as_ref())?;
        let tells_progress = stream.tells_progress;
        let next = self.take(response, tells_progress)?;
        if let (Next::Batch(_), Some(stream)) = (&next, &mut self.stream) {
            stream.asked = false;
        }
        Ok(next)
    }
}

impl Watch for Follow {
    fn next(&mut self) -> BoxFuture<'_, Result<Batch, StoreError>> {
        Box::pin(async move {
            loop {
                match self.turn().await? {
                    Next::Batch(batch) => return Ok(batch),
                    Next::Nothing => {}
                    Next::Ended(why) => {
                        tracing::warn!(why, "the watch of etcd broke, it is begun again");
                        if let Some(stream) = self.stream.take() {
                            self.shared.members.distrust(stream.number);
                        }
                        sleep(REOPEN_AFTER).await;
                    }
                }
            }
        })
    }
}

/// Opens a stream whose requests are these. A member that has lost its leader ends it.
pub async fn watch(
    channel: Channel,
    queue: mpsc::Receiver<WatchRequest>,
) -> Result<Streaming<WatchResponse>, Box<Status>> {
    let mut request = Request::new(ReceiverStream::new(queue));
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    let mut client = WatchClient::new(channel).max_decoding_message_size(ANSWER_MAX_BYTES);
    Ok(client.watch(request).await?.into_inner())
}

/// The key of an object, or what is wrong with what stands there.
pub fn key(raw: &[u8], revision: Revision) -> Result<Key, StoreError> {
    std::str::from_utf8(raw).ok().and_then(Key::parse).ok_or_else(|| StoreError::Damaged {
        revision,
        key: String::from_utf8_lossy(raw).into_owned(),
        why: "its key does not name a kind and an object",
    })
}

/// Whether the progress that an etcd of this version tells comes after the events before it
/// (etcd-io/etcd issues 15220 and 17507).
fn tells_progress(version: &str) -> bool {
    let mut parts = version.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    match (next(), next(), next()) {
        (3, 4, patch) => patch >= 31,
        (3, 5, patch) => patch >= 13,
        (3, minor, _) => minor > 5,
        (major, _, _) => major > 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_are_not_believed() {
        for version in ["3.4.31", "3.5.13", "3.5.16", "3.6.0-rc.1", "4.0.0"] {
            assert!(tells_progress(version), "{version}");
        }
        for version in ["3.4.23", "3.4.30", "3.5.0", "3.5.12", "3.3.99", "2.3.8", "", "?"] {
            assert!(!tells_progress(version), "{version}");
        }
    }
}
