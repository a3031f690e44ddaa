//! What the API reads: the current objects of every kind, and one ring of events a kind, fed by one watch of the store.
//!
//! ```text
//! writer ── write ──▶ Store ── one watch ──▶ feed ──▶ KindCache { objects, ring } ──▶ lists and watchers
//!    ▲                                        │
//!    └────────── the answer, once ────────────┘ has seen the write's revision
//! ```
//! Every answer is as new as the reader's own writes, a list followed by a watch from its revision has no gap, and each
//! version of an object exists once, as the bytes that go out.

mod events;
mod feed;
mod kind;
mod outline;
mod stored;
#[cfg(test)]
mod tests;
mod warm;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_kube::{Object, Ref, Resource};
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::task::AbortHandle;

pub use events::{Event, Gone};
pub use kind::{KindFigures, Watcher};
pub use outline::Outline;
pub use stored::{Encoding, Stored};
pub use write::{Change, WriteError, store_status};

use super::{Key, Revision, Store, StoreError, kinds};
use kind::KindCache;
use warm::Warm;

/// The objects of a kind (or of one namespace of it) as they stood at `revision`.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// In the order of their keys.
    pub items: Vec<Arc<Stored>>,
    /// A watch from here misses nothing and repeats nothing.
    pub revision: Revision,
}

/// One page of a list at a revision.
#[derive(Clone, Debug)]
pub struct ListPage {
    pub items: Vec<Arc<Stored>>,
    pub revision: Revision,
    /// Where the next page goes on: hand it back as `after`. Absent on the last page.
    pub next: Option<Key>,
    /// How many items follow this page, where that is known.
    pub remaining: Option<usize>,
}

/// The watch cache. Clones share it; the feed ends with the last of them.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
    _feed: Arc<Feed>,
}

struct Feed(AbortHandle);

impl Drop for Feed {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Inner {
    store: Arc<dyn Store>,
    kinds: RwLock<BTreeMap<String, Arc<KindCache>>>,
    /// Everything up to here is in the kinds' caches.
    progress: watch::Sender<Revision>,
    warm: Warm,
}

impl Inner {
    fn kind(&self, prefix: &str) -> Arc<KindCache> {
        if let Some(kind) = self.kinds.read().get(prefix) {
            return kind.clone();
        }
        let mut kinds = self.kinds.write();
        let progress = self.progress.subscribe();
        kinds.entry(prefix.to_owned()).or_insert_with(|| Arc::new(KindCache::new(prefix, progress))).clone()
    }
}

impl Cache {
    /// Reads everything from the store, then follows it. Must be called inside a tokio runtime.
    pub async fn start(store: Arc<dyn Store>) -> Result<Cache, StoreError> {
        let inner =
            Arc::new(Inner { store, kinds: RwLock::default(), progress: watch::Sender::new(0), warm: Warm::default() });
        let watch = feed::load(&inner).await?;
        let task = tokio::spawn(feed::run(inner.clone(), watch));
        Ok(Cache { inner, _feed: Arc::new(Feed(task.abort_handle())) })
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    /// The revision up to which everything is here.
    pub fn revision(&self) -> Revision {
        *self.inner.progress.borrow()
    }

    /// Follows [`Cache::revision`].
    pub fn progress(&self) -> watch::Receiver<Revision> {
        self.inner.progress.subscribe()
    }

    /// Waits until everything up to `revision` is here. The caller bounds the wait where the revision is a client's word.
    pub async fn wait_for(&self, revision: Revision) {
        let mut progress = self.inner.progress.subscribe();
        // The sender lives in `self`, so the wait cannot end for want of one.
        let _ = progress.wait_for(|now| *now >= revision).await;
    }

    /// Waits until the cache has every write that was answered before the call: what a read without a resourceVersion
    /// asks for.
    pub async fn fresh(&self) -> Result<Revision, StoreError> {
        let current = self.inner.store.current().await?;
        self.wait_for(current).await;
        Ok(current)
    }

    pub fn get(&self, resource: &Resource, reference: &Ref) -> Option<Arc<Stored>> {
        let prefix = kinds::prefix(resource);
        self.inner.kind(&prefix).get(&Key::new(&prefix, reference))
    }

    /// The parsed object, for those who ask for the same few again and again.
    pub fn object(&self, resource: &Resource, reference: &Ref) -> Option<Arc<Object>> {
        self.get(resource, reference).map(|stored| self.inner.warm.object(&stored))
    }

    /// Everything of a kind, or of one of its namespaces. Cheap: one shared pointer an object.
    pub fn list(&self, resource: &Resource, namespace: Option<&str>) -> Snapshot {
        let kind = self.inner.kind(&kinds::prefix(resource));
        kind.list(&kinds::list_prefix(resource, namespace))
    }

    /// The revision of the last change of a kind: the same as long as nothing of it has changed.
    pub fn last_change(&self, resource: &Resource) -> Revision {
        self.inner.kind(&kinds::prefix(resource)).last_change()
    }

    /// How many objects of a kind there are.
    pub fn count(&self, resource: &Resource) -> usize {
        self.inner.kind(&kinds::prefix(resource)).count()
    }

    /// What there is to tell of each kind in numbers, in the order of their names.
    pub fn figures(&self) -> Vec<KindFigures> {
        self.inner.kinds.read().values().map(|kind| kind.figures()).collect()
    }

    /// A page of up to `limit` items: the first (`at` absent), or the one after `after` as things stood at `at`, from the
    /// store's history. Fails with [`StoreError::Compacted`] where that is no longer kept.
    pub async fn page(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        limit: usize,
        resume: Option<(Revision, &Key)>,
    ) -> Result<ListPage, StoreError> {
        let prefix = kinds::list_prefix(resource, namespace);
        let kind = self.inner.kind(&kinds::prefix(resource));
        if let Some(page) = kind.page(&prefix, limit, resume) {
            return Ok(page);
        }
        let (at, after) = resume.map_or((None, ""), |(at, after)| (Some(at), after.as_str()));
        let page = self.inner.store.list(&prefix, after, limit, at).await?;
        let items = page
            .items
            .into_iter()
            .map(|item| match kind.get(&item.key).filter(|current| current.revision() == item.revision) {
                Some(current) => Ok(current),
                None => Stored::from_store(item.key, item.revision, item.value).map(Arc::new),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let next = items.last().filter(|_| page.more).map(|last| last.key().clone());
        Ok(ListPage { items, revision: page.revision, remaining: next.is_none().then_some(0), next })
    }

    /// Every event after `from`, of a kind or of one of its namespaces. Fails where the ring no longer reaches back so far.
    pub fn watch(&self, resource: &Resource, namespace: Option<&str>, from: Revision) -> Result<Watcher, Gone> {
        KindCache::watch(&self.inner.kind(&kinds::prefix(resource)), &kinds::list_prefix(resource, namespace), from)
    }

    /// The present state and everything after it, in one step.
    pub fn list_and_watch(&self, resource: &Resource, namespace: Option<&str>) -> (Snapshot, Watcher) {
        let kind = self.inner.kind(&kinds::prefix(resource));
        kind::list_and_watch(&kind, &kinds::list_prefix(resource, namespace))
    }
}
