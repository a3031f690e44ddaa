//! The default backend: a log of revisions in one file (redb), an index of it in memory, one writer.
//!
//! ```text
//! write() ─▶ queue ─▶ engine: plan the group ─▶ one commit, one fsync ─▶ index ─▶ watches ─▶ answers
//! get(), list() ─▶ index (which version) ─▶ log (its bytes)
//! ```
//! Recovery assumes: a commit is whole or absent (redb's checksums tell); every record carries its own checksum, and a
//! start verifies all of them; after a failed write or fsync nothing that was not committed before is believed.

mod disk;
mod engine;
mod index;
mod log;
mod plan;
mod recent;
pub mod record;
mod shared;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

pub use disk::{Disk, FileDisk, MemoryDisk};

use super::check::check;
use super::{BoxFuture, Compare, Key, Op, Page, Revision, Store, StoreError, Versioned, Watch};
use engine::{Engine, Reply, Request};
use plan::Write;
use shared::{Follow, Shared};

/// How many requests wait for the writer before callers wait to hand theirs in.
const QUEUE_MAX_REQUESTS: usize = 1024;
/// How often a node's heartbeat reaches the disk.
pub const HEARTBEAT_PERSISTED_SECONDS: u64 = 300;

/// Who carries out the commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commits {
    /// A thread of its own, which gathers what waits into one commit.
    Grouped,
    /// The caller's own task, one commit a write: for a runtime whose time is paused, which must not wait for threads.
    Inline,
}

/// The store in one file. Dropping it writes what is in memory alone and closes the file.
pub struct Embedded {
    shared: Arc<Shared>,
    writer: Writer,
}

enum Writer {
    Grouped { queue: Option<mpsc::Sender<Request>>, thread: Option<JoinHandle<()>> },
    Inline(Mutex<Engine>),
}

impl Embedded {
    /// Opens the log, verifying all of it; blocks while it does.
    pub fn open(disk: Arc<dyn Disk>, commits: Commits) -> Result<Embedded, StoreError> {
        let (engine, shared) = Engine::start(Shared::new(disk))?;
        let writer = match commits {
            Commits::Inline => Writer::Inline(Mutex::new(engine)),
            Commits::Grouped => {
                let (queue, requests) = mpsc::channel(QUEUE_MAX_REQUESTS);
                let thread = std::thread::Builder::new().name("store".to_owned());
                let alarm = Alarm(shared.clone());
                let work = move || {
                    let _alarm = alarm;
                    engine.serve(requests);
                };
                let thread = thread
                    .spawn(work)
                    .map_err(|error| StoreError::Io { doing: "start its writer", source: Arc::new(error) })?;
                Writer::Grouped { queue: Some(queue), thread: Some(thread) }
            }
        };
        Ok(Embedded { shared, writer })
    }

    /// Opens or makes the file at `path`.
    pub fn open_file(path: impl AsRef<Path>) -> Result<Embedded, StoreError> {
        Embedded::open(Arc::new(FileDisk::open(path)?), Commits::Grouped)
    }

    /// A store that is gone when it is dropped; needs no thread.
    pub fn in_memory() -> Result<Embedded, StoreError> {
        Embedded::open(Arc::new(MemoryDisk::default()), Commits::Inline)
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(Reply<T>) -> Request,
        inline: impl FnOnce(&mut Engine) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match &self.writer {
            Writer::Inline(engine) => inline(&mut engine.lock()),
            Writer::Grouped { queue, .. } => {
                let (reply, answer) = oneshot::channel();
                let queue = queue.as_ref().ok_or(StoreError::Closed)?;
                // As long as this store lives, only a panic ends its writer.
                queue.send(request(reply)).await.map_err(|_| StoreError::WriterPanicked)?;
                answer.await.map_err(|_| StoreError::WriterPanicked)?
            }
        }
    }

    /// Writes the heartbeats that are in memory alone to the disk.
    pub async fn persist_heartbeats(&self) -> Result<(), StoreError> {
        self.ask(Request::PersistHeartbeats, Engine::persist_heartbeats).await
    }

    /// Makes every later revision greater than `revision` and ends all watches (410). Whoever fills a store from a copy
    /// raises it above the newest revision of the source, so that for its clients revisions only ever grow.
    pub async fn raise(&self, revision: Revision) -> Result<(), StoreError> {
        self.ask(|reply| Request::Raise(revision, reply), |engine| engine.raise(revision)).await
    }

    /// Persists the heartbeats every five minutes. Runs until dropped.
    pub async fn persist_heartbeats_periodically(self: Arc<Self>) {
        loop {
            tokio::time::sleep(Duration::from_secs(HEARTBEAT_PERSISTED_SECONDS)).await;
            if let Err(error) = self.persist_heartbeats().await {
                tracing::warn!(error = gantry_env::chain(&error), "heartbeats could not be persisted");
            }
        }
    }
}

/// Tells readers and watches of a writer that ends by a panic: they would take a store for well that nobody writes.
struct Alarm(Arc<Shared>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the store's writer has panicked");
            self.0.writer_panicked.store(true, Ordering::Release);
            self.0.committed.send_replace(None);
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        match &mut self.writer {
            Writer::Inline(engine) => engine.lock().close(),
            Writer::Grouped { queue, thread } => {
                queue.take();
                if let Some(thread) = thread.take() {
                    // A writer that panicked has said so itself.
                    let _ = thread.join();
                }
                self.shared.committed.send_replace(None);
            }
        }
    }
}

/// Reads block for the time of a few page reads; they come from the page cache, and pages of old lists are rare.
impl Store for Embedded {
    fn get<'a>(&'a self, key: &'a Key, at: Option<Revision>) -> BoxFuture<'a, Result<Option<Versioned>, StoreError>> {
        Box::pin(async move { self.shared.get(key, at) })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: &'a str,
        limit: usize,
        at: Option<Revision>,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(async move { self.shared.list(prefix, after, limit, at) })
    }

    fn write(&self, compares: Vec<Compare>, ops: Vec<Op>) -> BoxFuture<'_, Result<Revision, StoreError>> {
        Box::pin(async move {
            check(&ops)?;
            let write = Write { compares, ops };
            match &self.writer {
                Writer::Inline(engine) => {
                    engine.lock().write(std::slice::from_ref(&write)).pop().unwrap_or(Err(StoreError::Closed))
                }
                Writer::Grouped { .. } => {
                    self.ask(|reply| Request::Write(write, reply), |_| Err(StoreError::Closed)).await
                }
            }
        })
    }

    fn watch<'a>(&'a self, prefix: &'a str, from: Revision) -> BoxFuture<'a, Result<Box<dyn Watch>, StoreError>> {
        Box::pin(async move { Ok(Box::new(Follow::start(&self.shared, prefix, from)?) as Box<dyn Watch>) })
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let step = || self.ask(|reply| Request::Compact(revision, reply), |engine| engine.compact(revision));
            while step().await? {}
            Ok(())
        })
    }

    fn current(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        Box::pin(async move { self.shared.current() })
    }
}
