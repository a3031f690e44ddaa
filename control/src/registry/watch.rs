//! Watches: a position in a kind's ring, turned into lines of JSON or frames of protobuf. Each event's bytes were made
//! once, for everyone.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use gantry_kube::protobuf::encode;
use gantry_kube::{Object, Resource, Status};
use serde_json::{Value, json};
use tokio::time::{Instant, Sleep};

use super::options::ListOptions;
use super::{Registry, Selection, encoded};
use crate::http::media::BodyFormat;
use crate::store::{Event, Gone, Revision, Stored, Watcher};

pub(crate) const TIMEOUT_DEFAULT_SECONDS: u64 = 1800;
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// Events that are put into one chunk when several are ready.
const CHUNK_MAX_BYTES: usize = 64 * 1024;
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// What a watcher hears of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

impl Change {
    pub fn name(self) -> &'static str {
        match self {
            Change::Added => "ADDED",
            Change::Modified => "MODIFIED",
            Change::Deleted => "DELETED",
            Change::Bookmark => "BOOKMARK",
            Change::Error => "ERROR",
        }
    }
}

/// Writes an object in the form that the client asked for.
pub trait Shape: Send + 'static {
    /// In which the whole watch goes out.
    fn format(&self) -> BodyFormat;
    fn object(&mut self, stored: &Arc<Stored>) -> Result<Bytes, Status>;
    fn bookmark(&mut self, bookmark: Value) -> Value {
        bookmark
    }
}

/// Objects as they are stored.
pub struct AsStored;

impl Shape for AsStored {
    fn format(&self) -> BodyFormat {
        BodyFormat::Json
    }

    fn object(&mut self, stored: &Arc<Stored>) -> Result<Bytes, Status> {
        Ok(stored.json().clone())
    }
}

/// An open watch.
pub struct Watching<S> {
    resource: &'static Resource,
    /// Of a custom kind: what brings its objects into the version that is watched.
    custom: Option<Registry>,
    selection: Selection,
    shape: S,
    /// What is told before the ring is followed.
    initial: std::vec::IntoIter<Arc<Stored>>,
    /// The bookmark that ends the initial events, still to be sent.
    initial_end: Option<Revision>,
    bookmarks: bool,
    watcher: Watcher,
    /// The wanted position has left the ring: that is the first and last thing to be told.
    gone: Option<Gone>,
    ends: std::pin::Pin<Box<Sleep>>,
    next_bookmark: Instant,
    sent: Revision,
    done: bool,
}

impl Registry {
    pub async fn watch<S: Shape>(
        &self,
        resource: &'static Resource,
        namespace: Option<&str>,
        options: &ListOptions,
        shape: S,
    ) -> Result<Watching<S>, Status> {
        let from = options.resource_version.unwrap_or(0);
        let initial_wanted = options.send_initial_events.unwrap_or(from == 0);
        self.wait_for_revision(from, options.resource_version.is_none()).await?;
        let mut gone = None;
        let (initial, watcher, revision) = if initial_wanted || from == 0 {
            let (snapshot, watcher) = self.cache.list_and_watch(resource, namespace);
            let items = if initial_wanted { snapshot.items } else { Vec::new() };
            (items, watcher, snapshot.revision)
        } else {
            let watcher = self.cache.watch(resource, namespace, from).unwrap_or_else(|too_old| {
                gone = Some(too_old);
                self.cache.list_and_watch(resource, namespace).1
            });
            (Vec::new(), watcher, from)
        };
        if resource.custom {
            self.prepare(resource, &initial).await?;
        }
        let initial: Vec<Arc<Stored>> =
            initial.into_iter().filter(|item| options.selection.matches_stored(item)).collect();
        // Watches end at different times, so that clients do not come back all at once.
        let spread = TIMEOUT_DEFAULT_SECONDS + self.env.rng.below(TIMEOUT_DEFAULT_SECONDS);
        let lasts = Duration::from_secs(options.timeout_seconds.unwrap_or(spread));
        let now = Instant::now();
        Ok(Watching {
            resource,
            custom: resource.custom.then(|| self.clone()),
            selection: options.selection.clone(),
            shape,
            initial: initial.into_iter(),
            initial_end: (options.send_initial_events == Some(true) && options.bookmarks).then_some(revision),
            bookmarks: options.bookmarks,
            watcher,
            gone,
            ends: Box::pin(tokio::time::sleep_until(now + lasts)),
            next_bookmark: now + BOOKMARK_INTERVAL,
            sent: revision,
            done: false,
        })
    }
}

pub fn expired(gone: &Gone) -> Status {
    Status::gone(gone.to_string())
}

impl<S: Shape> Watching<S> {
    /// The chunks of the response body.
    pub fn into_stream(self) -> impl Stream<Item = Bytes> + Send {
        futures::stream::unfold(self, |mut watching| async move {
            let chunk = watching.next_chunk().await?;
            Some((chunk, watching))
        })
    }

    async fn next_chunk(&mut self) -> Option<Bytes> {
        if self.done {
            return None;
        }
        let mut out = Vec::new();
        if let Some(gone) = self.gone.take() {
            // An event and no refusal: clients list again for the one, and only try again for the other.
            self.fail(&mut out, &expired(&gone));
            return Some(out.into());
        }
        self.tell_initial(&mut out);
        while out.is_empty() && !self.done {
            let event = tokio::select! {
                biased;
                // Timers keep their deadline, and a watcher that is dropped in waiting keeps its position.
                () = &mut self.ends => return self.last_words(),
                event = self.watcher.next() => event,
                () = tokio::time::sleep_until(self.next_bookmark) => {
                    self.prepare(&mut out, &[]).await;
                    self.bookmark(&mut out, None);
                    if self.done {
                        break;
                    }
                    continue;
                }
            };
            match event {
                Ok(event) => self.tell(&mut out, event).await,
                Err(gone) => self.fail(&mut out, &expired(&gone)),
            }
        }
        while !self.done && out.len() < CHUNK_MAX_BYTES {
            match self.watcher.try_next() {
                Ok(Some(event)) => self.tell(&mut out, event).await,
                Ok(None) => break,
                Err(gone) => self.fail(&mut out, &expired(&gone)),
            }
        }
        (!out.is_empty()).then(|| out.into())
    }

    /// A bookmark before the watch ends by its timeout, so that the client goes on from the newest point.
    fn last_words(&mut self) -> Option<Bytes> {
        self.done = true;
        let mut out = Vec::new();
        if self.bookmarks && self.watcher.revision() > self.sent {
            self.bookmark(&mut out, None);
        }
        (!out.is_empty()).then(|| out.into())
    }

    fn tell_initial(&mut self, out: &mut Vec<u8>) {
        while out.len() < CHUNK_MAX_BYTES && !self.done {
            let Some(stored) = self.initial.next() else { break };
            self.event(out, Change::Added, &stored);
        }
        if self.initial.len() == 0
            && let Some(revision) = self.initial_end.take()
        {
            self.bookmark(out, Some(revision));
        }
    }

    async fn tell(&mut self, out: &mut Vec<u8>, event: Arc<Event>) {
        if self.selection.reads_objects() {
            let both: Vec<Arc<Stored>> = event.new.iter().chain(&event.previous).cloned().collect();
            self.prepare(out, &both).await;
        }
        let Some((change, stored)) = seen(&self.selection, &event) else {
            self.sent = event.revision;
            return;
        };
        self.prepare(out, std::slice::from_ref(&stored)).await;
        if !self.done {
            self.sent = event.revision;
            self.event(out, change, &stored);
        }
    }

    /// Brings custom objects into the version that is watched. A kind that is no longer served ends its watches; what cannot be
    /// converted is told, and ends this one.
    async fn prepare(&mut self, out: &mut Vec<u8>, items: &[Arc<Stored>]) {
        let Some(registry) = &self.custom else { return };
        match registry.prepare(self.resource, items).await {
            Ok(()) => {}
            Err(status) if status.code == 404 => self.done = true,
            Err(status) => self.fail(out, &status),
        }
    }

    fn event(&mut self, out: &mut Vec<u8>, change: Change, stored: &Arc<Stored>) {
        match self.shape.object(stored) {
            Ok(body) => self.frame(out, change, &body),
            Err(status) => self.fail(out, &status),
        }
    }

    /// The last that is told.
    fn fail(&mut self, out: &mut Vec<u8>, status: &Status) {
        self.done = true;
        match made(status.to_value(), self.shape.format()) {
            Ok(body) => self.frame(out, Change::Error, &body),
            Err(unsaid) => tracing::error!(%status, %unsaid, "a watch ended without a word"),
        }
    }

    fn frame(&self, out: &mut Vec<u8>, change: Change, body: &[u8]) {
        match self.shape.format() {
            BodyFormat::Protobuf => encode::put_event(out, change.name(), body),
            BodyFormat::Json | BodyFormat::Yaml => line(out, change, body),
        }
    }

    fn bookmark(&mut self, out: &mut Vec<u8>, initial_end: Option<Revision>) {
        self.next_bookmark = Instant::now() + BOOKMARK_INTERVAL;
        if !self.bookmarks {
            return;
        }
        let revision = initial_end.unwrap_or_else(|| self.watcher.revision());
        self.sent = revision;
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_end.is_some() {
            metadata["annotations"] = json!({ INITIAL_EVENTS_END: "true" });
        }
        let bookmark = json!({"kind": self.resource.kind, "apiVersion": self.resource.api_version(),
            "metadata": metadata});
        match made(self.shape.bookmark(bookmark), self.shape.format()) {
            Ok(body) => self.frame(out, Change::Bookmark, &body),
            Err(status) => self.fail(out, &status),
        }
    }
}

fn made(value: Value, format: BodyFormat) -> Result<Bytes, Status> {
    encoded::made(&Object::from_value(value).map_err(Status::internal)?, format)
}

fn line(out: &mut Vec<u8>, change: Change, object: &[u8]) {
    out.reserve(object.len() + 40);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(change.name().as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
}

/// What a watcher with this selection sees of an event: an object that comes into the selection is added, one that
/// leaves it is deleted with its old content.
fn seen(selection: &Selection, event: &Event) -> Option<(Change, Arc<Stored>)> {
    let matches = |stored: &Option<Arc<Stored>>| stored.as_ref().is_some_and(|stored| selection.matches_stored(stored));
    match (matches(&event.previous), matches(&event.new)) {
        (false, true) => event.new.clone().map(|new| (Change::Added, new)),
        (true, true) => event.new.clone().map(|new| (Change::Modified, new)),
        (true, false) => event.gone().map(|gone| (Change::Deleted, gone)),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::query::Query;
    use crate::store::{Key, encode};
    use gantry_kube::{Object, resource};

    fn stored(revision: u64, label: &str) -> Arc<Stored> {
        let object =
            Object::from_value(json!({"metadata": {"name": "a", "namespace": "n", "labels": {"x": label}}})).unwrap();
        let key = Key::parse("pods/n/a").unwrap();
        Arc::new(Stored::new(key, revision, &encode(&object).unwrap()))
    }

    fn what(previous: Option<Arc<Stored>>, new: Option<Arc<Stored>>) -> Option<Change> {
        let selection = Selection::read(&Query::parse("labelSelector=x%3Dyes"), &resource::POD, None).unwrap();
        let event = Event::new(9, Key::parse("pods/n/a").unwrap(), new, previous);
        seen(&selection, &event).map(|(change, stored)| {
            assert_eq!(stored.revision(), 9);
            change
        })
    }

    #[test]
    fn objects_come_into_a_selection_and_leave_it() {
        assert_eq!(what(None, Some(stored(9, "yes"))), Some(Change::Added));
        assert_eq!(what(Some(stored(8, "no")), Some(stored(9, "yes"))), Some(Change::Added));
        assert_eq!(what(Some(stored(8, "yes")), Some(stored(9, "yes"))), Some(Change::Modified));
        assert_eq!(what(Some(stored(8, "yes")), Some(stored(9, "no"))), Some(Change::Deleted));
        assert_eq!(what(Some(stored(8, "yes")), None), Some(Change::Deleted));
        assert_eq!(what(Some(stored(8, "no")), None), None);
        assert_eq!(what(None, Some(stored(9, "no"))), None);
    }
}
