use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use gantry_env::metrics::Counter;
use parking_lot::RwLock;
use tokio::sync::watch;

use super::events::{RING_MAX_EVENTS, Ring};
use super::{Event, Gone, ListPage, Snapshot, Stored};
use crate::store::{Change, Key, Revision, StoreError};

/// One kind of the cache, in numbers.
#[derive(Clone, Debug)]
pub struct KindFigures {
    /// The plural with its group.
    pub name: String,
    pub objects: usize,
    /// The revision of the last change.
    pub last: Revision,
    /// Changes so far.
    pub events: u64,
    /// How many of them are kept at most.
    pub capacity: usize,
    /// Watchers so far that fell behind what is kept.
    pub too_slow: u64,
}

/// The objects of one kind and its ring of events.
pub(super) struct KindCache {
    prefix: String,
    state: RwLock<State>,
    /// The number of the next event to come.
    end: watch::Sender<u64>,
    progress: watch::Receiver<Revision>,
    too_slow: Counter,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Arc<Stored>>,
    ring: Ring,
    /// The revision of the last event.
    last: Revision,
}

impl State {
    /// The objects whose keys begin with `prefix`, which ends with a slash, and come after `after`. Where they end is looked up
    /// once, so that no key is read on the way.
    fn range(&self, prefix: &str, after: &str) -> impl Iterator<Item = &Arc<Stored>> {
        let start = if after.is_empty() { Bound::Included(prefix) } else { Bound::Excluded(after) };
        let end = behind(prefix);
        self.objects.range::<str, _>((start, Bound::Excluded(end.as_str()))).map(|(_, stored)| stored)
    }
}

/// The first text behind all that begin with `prefix`, which ends with a slash: `0` is what follows it.
fn behind(prefix: &str) -> String {
    format!("{}0", prefix.strip_suffix('/').unwrap_or(prefix))
}

impl KindCache {
    /// A kind of which nothing is stored as of the progress so far.
    pub fn new(prefix: &str, progress: watch::Receiver<Revision>) -> KindCache {
        let state = State { ring: Ring::new(*progress.borrow()), ..State::default() };
        let (prefix, end, too_slow) = (prefix.to_owned(), watch::Sender::new(0), Counter::default());
        KindCache { prefix, state: RwLock::new(state), end, progress, too_slow }
    }

    pub fn get(&self, key: &Key) -> Option<Arc<Stored>> {
        self.state.read().objects.get(key).cloned()
    }

    pub fn last_change(&self) -> Revision {
        self.state.read().last
    }

    /// What there is to tell of the kind in numbers.
    pub fn figures(&self) -> KindFigures {
        let state = self.state.read();
        KindFigures {
            name: self.prefix.clone(),
            objects: state.objects.len(),
            last: state.last,
            events: state.ring.end(),
            capacity: RING_MAX_EVENTS,
            too_slow: self.too_slow.get(),
        }
    }

    pub fn count(&self) -> usize {
        self.state.read().objects.len()
    }

    pub fn list(&self, prefix: &str) -> Snapshot {
        let (state, revision) = self.read();
        Snapshot { items: state.range(prefix, "").cloned().collect(), revision }
    }

    /// The state and the revision that it stands for. The progress is read first: all up to it has been applied, and of
    /// what came since, the state may hold more, which `last` tells.
    fn read(&self) -> (parking_lot::RwLockReadGuard<'_, State>, Revision) {
        let progress = *self.progress.borrow();
        let state = self.state.read();
        let revision = progress.max(state.last);
        (state, revision)
    }

    /// A page, where the present state can answer it: the first page, or nothing of this kind has changed since `at`.
    pub fn page(&self, prefix: &str, limit: usize, resume: Option<(Revision, &Key)>) -> Option<ListPage> {
        let (state, present) = self.read();
        let (revision, after) = match resume {
            None => (present, ""),
            Some((at, after)) if state.last <= at && at <= present => (at, after.as_str()),
            Some(_) => return None,
        };
        let mut rest = state.range(prefix, after);
        let items: Vec<_> = rest.by_ref().take(limit).cloned().collect();
        let remaining = rest.count();
        let next = items.last().filter(|_| remaining > 0).map(|last| last.key().clone());
        Some(ListPage { items, revision, next, remaining: Some(remaining) })
    }

    pub fn watch(kind: &Arc<KindCache>, prefix: &str, from: Revision) -> Result<Watcher, Gone> {
        let state = kind.state.read();
        let next = state.ring.position(from)?;
        Ok(kind.watcher(kind, prefix, from, next))
    }

    fn watcher(&self, this: &Arc<KindCache>, prefix: &str, from: Revision, next: u64) -> Watcher {
        let everything = prefix.len() == self.prefix.len() + 1;
        Watcher {
            kind: this.clone(),
            prefix: if everything { None } else { Some(prefix.into()) },
            next,
            seen: from,
            end: self.end.subscribe(),
        }
    }

    /// Fills the kind with what the store lists; whoever watched from before has to list again.
    pub fn load(&self, items: Vec<Stored>, revision: Revision) {
        let mut state = self.state.write();
        state.objects = items.into_iter().map(|stored| (stored.key().clone(), Arc::new(stored))).collect();
        state.ring.clear(revision);
        state.last = revision;
        self.end.send_replace(state.ring.end());
    }

    /// Lets no watch go on from before `floor`.
    pub fn forget(&self, floor: Revision) {
        let mut state = self.state.write();
        state.ring.clear(floor);
        self.end.send_replace(state.ring.end());
    }

    /// Applies one change of the store.
    pub fn apply(&self, change: Change) -> Result<(), StoreError> {
        let Change { key, revision, value, .. } = change;
        let new = match value {
            Some(value) => Some(Arc::new(Stored::from_store(key.clone(), revision, value)?)),
            None => None,
        };
        let mut state = self.state.write();
        if revision <= state.last {
            return Ok(());
        }
        let previous = match &new {
            Some(new) => state.objects.insert(key.clone(), new.clone()),
            None => state.objects.remove(&key),
        };
        state.last = revision;
        state.ring.push(Arc::new(Event::new(revision, key, new, previous)));
        self.end.send_replace(state.ring.end());
        Ok(())
    }

    /// The version of `key` that the write of `revision` made, if it is still in the objects or the ring.
    pub fn version(&self, key: &Key, revision: Revision) -> Option<Arc<Stored>> {
        let state = self.state.read();
        if let Some(current) = state.objects.get(key).filter(|current| current.revision() == revision) {
            return Some(current.clone());
        }
        let event = state.ring.find(revision).filter(|event| event.key == *key)?;
        event.new.clone().or_else(|| event.gone())
    }
}

pub(super) fn list_and_watch(kind: &Arc<KindCache>, prefix: &str) -> (Snapshot, Watcher) {
    let (state, revision) = kind.read();
    let items = state.range(prefix, "").cloned().collect();
    let watcher = kind.watcher(kind, prefix, revision, state.ring.end());
    (Snapshot { items, revision }, watcher)
}

/// A position in a kind's ring. A watcher that falls out of the ring is told so and has to list again.
pub struct Watcher {
    kind: Arc<KindCache>,
    /// Only keys that begin so; absent: the whole kind.
    prefix: Option<Box<str>>,
    next: u64,
    seen: Revision,
    end: watch::Receiver<u64>,
}

impl Watcher {
    /// The next event; waits for it. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Arc<Event>, Gone> {
        loop {
            self.end.mark_unchanged();
            if let Some(event) = self.try_next()? {
                return Ok(event);
            }
            // The sender lives in `self.kind`, so this ends with a change.
            let _ = self.end.changed().await;
        }
    }

    /// The next event, if it is there already.
    pub fn try_next(&mut self) -> Result<Option<Arc<Event>>, Gone> {
        let state = self.kind.state.read();
        loop {
            let event = state.ring.get(self.next).map_err(|gone| {
                self.kind.too_slow.inc();
                Gone { asked: self.seen, ..gone }
            })?;
            let Some(event) = event else { return Ok(None) };
            self.next += 1;
            if event.revision <= self.seen {
                continue;
            }
            self.seen = event.revision;
            if self.prefix.as_ref().is_none_or(|prefix| event.key.as_str().starts_with(&**prefix)) {
                return Ok(Some(event.clone()));
            }
        }
    }

    /// The revision up to which this watcher has delivered everything: what a bookmark may carry.
    pub fn revision(&self) -> Revision {
        let (state, revision) = self.kind.read();
        if state.ring.end() == self.next { revision.max(self.seen) } else { self.seen }
    }
}
