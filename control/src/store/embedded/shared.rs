//! What the writer and the readers share, and how the readers read it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use tokio::sync::watch;

use super::disk::Disk;
use super::index::{Index, Version, What};
use super::log::{Log, Reader};
use super::recent::{BATCH_MAX_CHANGES, Recent};
use crate::store::{Batch, BoxFuture, Change, Item, Key, Page, Revision, StoreError, Versioned, Watch};

/// How many bytes of values a watch gets at a time from the log.
const BATCH_MAX_BYTES: usize = 4 << 20;

/// Locks are taken in the order of the fields. The writer alone changes anything.
pub struct Shared {
    pub disk: Arc<dyn Disk>,
    pub index: RwLock<Index>,
    /// Absent while a failed log could not be opened again.
    pub log: RwLock<Option<Log>>,
    pub recent: RwLock<Recent>,
    /// The newest durable revision; nothing once the store is closed.
    pub committed: watch::Sender<Option<Revision>>,
    pub writer_panicked: AtomicBool,
}

impl Shared {
    pub fn new(disk: Arc<dyn Disk>) -> Shared {
        Shared {
            disk,
            index: RwLock::default(),
            log: RwLock::default(),
            recent: RwLock::default(),
            committed: watch::Sender::new(None),
            writer_panicked: AtomicBool::new(false),
        }
    }

    fn reader(&self) -> Result<Reader, StoreError> {
        self.log.read().as_ref().ok_or(StoreError::Broken)?.reader()
    }

    /// The value of a version. The reader must have been made while the index had it.
    fn value(&self, index: &Index, reader: &Reader, key: &Key, version: Version) -> Result<Versioned, StoreError> {
        let value = match (version.what, index.heartbeat(key)) {
            (What::Renewed, Some((_, value))) => value.clone(),
            _ => reader.value(version.place, key)?,
        };
        Ok(Versioned { value, revision: version.revision() })
    }

    /// Why nothing is written any more.
    pub fn closed(&self) -> StoreError {
        if self.writer_panicked.load(Ordering::Acquire) { StoreError::WriterPanicked } else { StoreError::Closed }
    }

    /// The newest revision, for as long as somebody writes: a store that cannot be written is not well.
    pub fn current(&self) -> Result<Revision, StoreError> {
        if self.committed.borrow().is_none() {
            return Err(self.closed());
        }
        Ok(self.index.read().current)
    }

    pub fn get(&self, key: &Key, at: Option<Revision>) -> Result<Option<Versioned>, StoreError> {
        let index = self.index.read();
        let at = index.readable(at)?;
        let Some(version) = index.at(key, at) else { return Ok(None) };
        self.value(&index, &self.reader()?, key, version).map(Some)
    }

    pub fn list(&self, prefix: &str, after: &str, limit: usize, at: Option<Revision>) -> Result<Page, StoreError> {
        let index = self.index.read();
        let revision = index.readable(at)?;
        let mut range = index.range(prefix, after, revision).map(|(key, version)| {
            let heartbeat = index.heartbeat(key).filter(|_| version.what == What::Renewed);
            (key.clone(), version, heartbeat.map(|(_, value)| value.clone()))
        });
        let found: Vec<_> = range.by_ref().take(limit).collect();
        let more = range.next().is_some();
        drop(range);
        let reader = self.reader()?;
        // The values are read without holding up the writer: the reader stands where the index stood.
        drop(index);
        let item = |(key, version, heartbeat): (Key, Version, Option<_>)| {
            let value = match heartbeat {
                Some(value) => value,
                None => reader.value(version.place, &key)?,
            };
            Ok(Item { key, value, revision: version.revision() })
        };
        let items = found.into_iter().map(item).collect::<Result<_, StoreError>>()?;
        Ok(Page { items, revision, more })
    }

    /// What came after `from`, from memory where it is recent, else from the log.
    fn after(&self, prefix: &str, from: Revision) -> Result<Batch, StoreError> {
        if let Some(batch) = self.recent.read().after(prefix, from) {
            return Ok(batch);
        }
        let index = self.index.read();
        index.readable(Some(from))?;
        let reader = self.reader()?;
        let (mut changes, mut bytes, mut reached) = (Vec::new(), 0, from);
        let mut whole = true;
        reader.range(from + 1, index.current, |place, record| {
            let full = changes.len() >= BATCH_MAX_CHANGES || bytes >= BATCH_MAX_BYTES;
            if full && place.revision != reached {
                whole = false;
                return Ok(false);
            }
            reached = place.revision;
            if let Some(key) = Key::parse(record.key).filter(|key| key.as_str().starts_with(prefix)) {
                let value = record.value.map(bytes::Bytes::copy_from_slice);
                let previous = index.before(&key, reached).map(|version| version.revision());
                bytes += value.as_ref().map_or(0, bytes::Bytes::len);
                changes.push(Change { key, revision: reached, value, previous });
            }
            Ok(true)
        })?;
        if whole {
            reached = index.current;
        }
        for (key, (place, value)) in index.heartbeats() {
            if place.revision > from && place.revision <= reached && key.as_str().starts_with(prefix) {
                let previous = index.before(key, place.revision).map(|version| version.revision());
                let (key, value) = (key.clone(), Some(value.clone()));
                changes.push(Change { key, revision: place.revision, value, previous });
            }
        }
        changes.sort_by_key(|change| change.revision);
        Ok(Batch { changes, revision: reached })
    }
}

/// A watch: a position in the log.
pub struct Follow {
    shared: Arc<Shared>,
    prefix: String,
    from: Revision,
    committed: watch::Receiver<Option<Revision>>,
}

impl Follow {
    pub fn start(shared: &Arc<Shared>, prefix: &str, from: Revision) -> Result<Follow, StoreError> {
        shared.index.read().readable(Some(from))?;
        let committed = shared.committed.subscribe();
        Ok(Follow { shared: shared.clone(), prefix: prefix.to_owned(), from, committed })
    }
}

impl Watch for Follow {
    fn next(&mut self) -> BoxFuture<'_, Result<Batch, StoreError>> {
        Box::pin(async move {
            loop {
                let committed = *self.committed.borrow_and_update();
                if committed.ok_or_else(|| self.shared.closed())? > self.from {
                    let batch = self.shared.after(&self.prefix, self.from)?;
                    self.from = batch.revision;
                    return Ok(batch);
                }
                self.committed.changed().await.map_err(|_| StoreError::Closed)?;
            }
        })
    }
}
