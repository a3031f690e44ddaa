//! One suite for every backend: random calls, each answered by the backend and by the model, and the answers compared.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use gantry_control::store::{Change, Compare, Expect, Key, Op, Page, Revision, Store, StoreError, Versioned, Watch};
use gantry_kube::Ref;
use proptest::prelude::*;
use tokio::time::timeout;

use crate::store_model::Model;

/// How long a change that is there may take to reach a watch.
const CHANGE_WITHIN: Duration = Duration::from_secs(20);

/// A revision, relative to what there is when the step is taken.
#[derive(Clone, Copy, Debug)]
pub enum At {
    Now,
    /// Of the revisions so far, and one that was before them, this many 255ths.
    Past(u8),
    Future,
}

/// What a compare expects, relative to what stands there.
#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    Absent,
    /// What is there (or a revision that cannot be).
    Present,
    Stale,
}

#[derive(Clone, Debug)]
pub enum Step {
    Write {
        compares: Vec<(Key, Wanted)>,
        ops: Vec<Op>,
    },
    Get(Key, At),
    /// All pages of a list, as it stood.
    List {
        prefix: &'static str,
        page: usize,
        at: At,
    },
    Watch {
        prefix: &'static str,
        from: At,
    },
    /// Takes what the open watches have.
    Drain,
    Compact(At),
    /// Closes and opens the store in good order.
    Reopen,
    /// The next writes find a disk that fails after so many operations.
    Fail(u64),
    /// The same, but the power goes; what was not synced survives in part.
    PowerCut(u64, u64),
}

const PREFIXES: [&str; 6] = ["", "pods/", "pods/a/", "nodes/", "leases.coordination.k8s.io/b/", "nothing/"];

fn key() -> impl Strategy<Value = Key> {
    let name = prop::sample::select(vec!["x", "y", "z"]);
    let place =
        prop::sample::select(vec![("pods", "a"), ("pods", "a-b"), ("nodes", ""), ("leases.coordination.k8s.io", "b")]);
    (place, name).prop_map(|((kind, namespace), name)| Key::new(kind, &Ref::new(namespace, name)))
}

fn op() -> impl Strategy<Value = Op> {
    let value = prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
    let large = (1000_usize..9000, any::<u8>()).prop_map(|(length, byte)| Bytes::from(vec![byte; length]));
    prop_oneof![
        8 => (key(), value).prop_map(|(key, value)| Op::Put { key, value }),
        1 => (key(), large).prop_map(|(key, value)| Op::Put { key, value }),
        4 => key().prop_map(|key| Op::Delete { key }),
    ]
}

fn at() -> impl Strategy<Value = At> {
    prop_oneof![3 => Just(At::Now), 6 => any::<u8>().prop_map(At::Past), 1 => Just(At::Future)]
}

fn write() -> impl Strategy<Value = Step> {
    let wanted = prop_oneof![2 => Just(Wanted::Absent), 4 => Just(Wanted::Present), 1 => Just(Wanted::Stale)];
    (prop::collection::vec((key(), wanted), 0..2), prop::collection::vec(op(), 1..4))
        .prop_map(|(compares, ops)| Step::Write { compares, ops })
}

/// A step that every backend can take.
pub fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => write(),
        3 => (key(), at()).prop_map(|(key, at)| Step::Get(key, at)),
        3 => (prop::sample::select(&PREFIXES[..]), 1_usize..5, at())
            .prop_map(|(prefix, page, at)| Step::List { prefix, page, at }),
        2 => (prop::sample::select(&PREFIXES[..]), at()).prop_map(|(prefix, from)| Step::Watch { prefix, from }),
        3 => Just(Step::Drain),
        1 => at().prop_map(Step::Compact),
    ]
}

/// Steps for a backend that lies on a disk that can fail.
pub fn faulty_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => step(),
        1 => Just(Step::Reopen),
        2 => (0_u64..12).prop_map(Step::Fail),
        2 => (0_u64..12, any::<u64>()).prop_map(|(operations, seed)| Step::PowerCut(operations, seed)),
    ]
}

/// A watch that is held over many steps, and where it stands.
struct Held {
    watch: Box<dyn Watch>,
    prefix: &'static str,
    from: Revision,
}

/// The two that are compared.
#[derive(Default)]
pub struct Conformance {
    pub model: Model,
    first: Revision,
    held: Vec<Held>,
}

/// The value of a future that is to have one by itself.
async fn ready<F: Future>(future: F) -> Option<F::Output> {
    timeout(CHANGE_WITHIN, future).await.ok()
}

fn same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    found: &Result<T, StoreError>,
    expected: &Result<T, StoreError>,
) -> Result<(), TestCaseError> {
    match (found, expected) {
        (Ok(found), Ok(expected)) => prop_assert_eq!(found, expected, "{}", what),
        (found, expected) => prop_assert_eq!(format!("{found:?}"), format!("{expected:?}"), "{}", what),
    }
    Ok(())
}

impl Conformance {
    /// For a store that is empty at this revision.
    pub fn starting_at(revision: Revision) -> Conformance {
        Conformance { model: Model::starting_at(revision), first: revision, ..Conformance::default() }
    }

    fn revision(&self, at: At) -> Option<Revision> {
        match at {
            At::Now => None,
            At::Past(part) => {
                let first = self.first.saturating_sub(1);
                Some(first + (self.model.current - first) * u64::from(part) / 255)
            }
            At::Future => Some(self.model.current + 1),
        }
    }

    pub fn compares(&self, compares: &[(Key, Wanted)]) -> Vec<Compare> {
        let compare = |(key, wanted): &(Key, Wanted)| {
            let found = self.model.get(key, None).ok().flatten().map_or(self.model.current + 7, |found| found.revision);
            let expect = match wanted {
                Wanted::Absent => Expect::Absent,
                Wanted::Present => Expect::Revision(found),
                Wanted::Stale => Expect::Revision(found.saturating_sub(1)),
            };
            Compare { key: key.clone(), expect }
        };
        compares.iter().map(compare).collect()
    }

    /// Takes a step that needs no disk. Others are the caller's.
    pub async fn take(&mut self, store: &dyn Store, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Write { compares, ops } => {
                let compares = self.compares(compares);
                let found = store.write(compares.clone(), ops.clone()).await;
                same("write", &found, &self.model.write(&compares, ops))?;
            }
            Step::Get(key, at) => {
                let at = self.revision(*at);
                same::<Option<Versioned>>("get", &store.get(key, at).await, &self.model.get(key, at))?;
            }
            Step::List { prefix, page, at } => self.list(store, prefix, *page, self.revision(*at)).await?,
            Step::Watch { prefix, from } => {
                let from = self.revision(*from).unwrap_or(self.model.current);
                let started = store.watch(prefix, from).await;
                same("watch", &started.as_ref().map(|_| ()).map_err(Clone::clone), &self.model.watchable(from))?;
                self.held.extend(started.ok().map(|watch| Held { watch, prefix, from }));
            }
            Step::Drain => self.drain().await?,
            Step::Compact(at) => {
                let at = self.revision(*at).unwrap_or(self.model.current);
                same("compact", &store.compact(at).await, &self.model.compact(at))?;
            }
            Step::Reopen | Step::Fail(_) | Step::PowerCut(..) => {}
        }
        Ok(())
    }

    /// Page after page, each at the revision of the first.
    async fn list(
        &self,
        store: &dyn Store,
        prefix: &'static str,
        page: usize,
        mut at: Option<Revision>,
    ) -> Result<(), TestCaseError> {
        let mut after = String::new();
        loop {
            let found = store.list(prefix, &after, page, at).await;
            same::<Page>("list", &found, &self.model.list(prefix, &after, page, at))?;
            match found {
                Ok(found) if found.more => {
                    at = Some(found.revision);
                    after = found.items.last().map_or(String::new(), |item| item.key.as_str().to_owned());
                }
                _ => return Ok(()),
            }
        }
    }

    /// Every held watch delivers exactly what the model has, in any cut; one that fell behind a compaction may say so.
    async fn drain(&mut self) -> Result<(), TestCaseError> {
        let mut kept = Vec::new();
        for mut held in std::mem::take(&mut self.held) {
            let (mut found, mut reached): (Vec<Change>, _) = (Vec::new(), held.from);
            let alive = loop {
                if reached == self.model.current {
                    break true;
                }
                match ready(held.watch.next()).await {
                    Some(Ok(batch)) => {
                        prop_assert!(batch.revision > reached, "a batch without progress");
                        reached = batch.revision;
                        found.extend(batch.changes);
                    }
                    Some(Err(StoreError::Compacted { .. })) if reached < self.model.compacted => break false,
                    other => prop_assert!(false, "the watch of {:?} at {} answered {:?}", held.prefix, reached, other),
                }
            };
            if alive {
                prop_assert_eq!(found, self.model.changes(held.prefix, held.from), "watch of {:?}", held.prefix);
                held.from = reached;
                kept.push(held);
            }
        }
        self.held = kept;
        Ok(())
    }

    /// Everything that can be read is the same.
    pub async fn compare_whole(&self, store: &dyn Store) -> Result<(), TestCaseError> {
        same("current", &store.current().await, &Ok(self.model.current))?;
        for at in self.model.compacted..=self.model.current {
            same(
                "list",
                &store.list("", "", usize::MAX, Some(at)).await,
                &self.model.list("", "", usize::MAX, Some(at)),
            )?;
        }
        let mut watch = store.watch("", self.model.compacted).await.map_err(|e| TestCaseError::fail(e.to_string()))?;
        let mut found = Vec::new();
        let mut reached = self.model.compacted;
        while reached < self.model.current {
            match ready(watch.next()).await {
                Some(Ok(batch)) => {
                    reached = batch.revision;
                    found.extend(batch.changes);
                }
                other => prop_assert!(false, "the watch answered {:?}", other),
            }
        }
        let mut expected = self.model.changes("", self.model.compacted);
        // What came before the oldest revision that is kept may have lost its previous value; nothing here did, since
        // the version that stood at that revision is kept.
        prop_assert_eq!(&mut found, &mut expected);
        Ok(())
    }

    /// Watches end with their store. How far it is compacted it may have forgotten, where all that was before is still
    /// there, as [`Conformance::compare_whole`] then sees.
    pub async fn restarted(&mut self, store: &dyn Store) {
        self.held.clear();
        let oldest = match store.watch("", 0).await {
            Err(StoreError::Compacted { oldest, .. }) => oldest,
            _ => 0,
        };
        self.model.compacted = self.model.compacted.min(oldest);
    }
}
