//! When history is forgotten: what was current five minutes ago is the oldest that stays readable.
//!
//! Which revision was current when is kept in the store, too, so that a service that is started anew every few minutes
//! goes on where it was, instead of keeping all of its history. Of several API servers over one store, the one that wrote
//! that last keeps it up, by compare and swap; the others take over when nothing of it is heard any more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_env::{Clock, chain};
use gantry_kube::Ref;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Compare, Expect, Key, Op, Revision, Store, StoreError};

/// How long overwritten and deleted values stay readable: pages of a list and resumed watches.
pub const HISTORY_KEPT_SECONDS: i64 = 300;
const TURN_SECONDS: u64 = 60;
/// The marks are stored this often, and once after a start.
const SAVED_SECONDS: i64 = 300;
/// Who has kept the marks for so long without storing them is gone.
const SILENT_SECONDS: i64 = 2 * SAVED_SECONDS;
/// The kind of the marks, which is nobody's to see.
pub(super) const KIND: &str = "compactions.internal.gantry";

/// Which revisions were current when, and so up to where history is old enough to be forgotten.
#[derive(Debug, Default, PartialEq)]
struct Marks(VecDeque<(Timestamp, Revision)>);

impl Marks {
    /// Notes the revision of now; answers the newest one that is old enough.
    fn turn(&mut self, now: Timestamp, current: Revision) -> Option<Revision> {
        self.0.push_back((now, current));
        let old = |at: Timestamp| now.as_second() - at.as_second() >= HISTORY_KEPT_SECONDS;
        let mut due = None;
        while self.0.front().is_some_and(|(at, _)| old(*at)) {
            due = self.0.pop_front().map(|(_, revision)| revision);
        }
        due
    }

    fn to_bytes(&self) -> Bytes {
        let marks: Vec<Value> = self.0.iter().map(|(at, revision)| json!([at.as_second(), revision])).collect();
        let object = json!({"apiVersion": "internal.gantry/v1", "kind": "Compaction", "metadata": {"name": "marks"},
            "marks": marks});
        object.to_string().into()
    }

    /// The marks that an earlier run has left. What a clock that was wrong says of the future counts as now.
    fn from_bytes(bytes: &[u8], now: Timestamp, current: Revision) -> Marks {
        let object: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let marks = object["marks"].as_array().into_iter().flatten();
        let read = |mark: &Value| Some((Timestamp::from_second(mark[0].as_i64()?).ok()?.min(now), mark[1].as_u64()?));
        Marks(marks.filter_map(read).filter(|(_, revision)| *revision <= current).collect())
    }
}

/// The marks, and what was done by them.
#[derive(Debug, Default)]
struct Compaction {
    marks: Option<Marks>,
    done: Revision,
    /// When the marks were last stored, as far as this one has seen, and by the write of which revision.
    stored: Option<(Timestamp, Option<Revision>)>,
    /// Whether that was this one.
    keeps: bool,
}

impl Compaction {
    async fn turn(&mut self, store: &dyn Store, now: Timestamp) -> Result<(), StoreError> {
        let key = Key::new(KIND, &Ref::cluster("marks"));
        let current = store.current().await?;
        let found = store.get(&key, None).await?;
        let first = self.marks.is_none();
        if first {
            let left = found.as_ref().map(|found| Marks::from_bytes(&found.value, now, current));
            self.marks = Some(left.unwrap_or_default());
        }
        let Some(marks) = &mut self.marks else { return Ok(()) };
        let due = marks.turn(now, current).filter(|due| *due > self.done);
        let revision = found.map(|found| found.revision);
        let (at, seen) = *self.stored.get_or_insert((now, revision));
        if seen != revision {
            (self.keeps, self.stored) = (false, Some((now, revision)));
            return Ok(());
        }
        let age = now.as_second() - at.as_second();
        // A store in which nothing else happens is not written.
        let stale = if self.keeps { age >= SAVED_SECONDS && revision != Some(current) } else { age >= SILENT_SECONDS };
        if first || stale {
            let expect = revision.map_or(Expect::Absent, Expect::Revision);
            let compare = Compare { key: key.clone(), expect };
            match store.write(vec![compare], vec![Op::Put { key, value: marks.to_bytes() }]).await {
                Ok(revision) => (self.keeps, self.stored) = (true, Some((now, Some(revision)))),
                // Another was quicker, and keeps them from now on.
                Err(StoreError::Conflict(_)) => {
                    (self.keeps, self.stored) = (false, None);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(due) = due.filter(|_| self.keeps) {
            store.compact(due).await?;
            self.done = due;
        }
        Ok(())
    }
}

/// Compacts the store, each minute, to what was current five minutes ago. Runs until dropped.
pub async fn compact_periodically(store: Arc<dyn Store>, clock: Clock) {
    let mut compaction = Compaction::default();
    loop {
        if let Err(error) = compaction.turn(&*store, clock.now()).await {
            tracing::warn!(error = chain(&error), "compaction failed");
        }
        tokio::time::sleep(Duration::from_secs(TURN_SECONDS)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Embedded;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn history_is_kept_for_five_minutes() {
        let mut marks = Marks::default();
        assert_eq!(marks.turn(at(0), 10), None);
        assert_eq!(marks.turn(at(60), 20), None);
        assert_eq!(marks.turn(at(299), 30), None);
        assert_eq!(marks.turn(at(300), 40), Some(10));
        assert_eq!(marks.turn(at(1000), 50), Some(40));
        assert_eq!(marks.turn(at(1001), 50), None);
    }

    #[test]
    fn marks_come_back_as_far_as_they_are_possible() {
        let mut marks = Marks::default();
        assert_eq!(Marks::from_bytes(&marks.to_bytes(), at(0), 0), marks);
        marks.turn(at(10), 5);
        marks.turn(at(70), 9);
        assert_eq!(Marks::from_bytes(&marks.to_bytes(), at(80), 9), marks);
        assert_eq!(Marks::from_bytes(&marks.to_bytes(), at(20), 8), Marks([(at(10), 5)].into()));
        assert_eq!(Marks::from_bytes(&marks.to_bytes(), at(20), 9), Marks([(at(10), 5), (at(20), 9)].into()));
        assert_eq!(Marks::from_bytes(b"?", at(20), 9), Marks::default());
    }

    #[tokio::test]
    async fn a_service_that_never_lives_for_five_minutes_forgets_too() {
        let store = Embedded::in_memory().unwrap();
        let key = Key::parse("pods/a/b").unwrap();
        let put = |value: &'static str| vec![Op::Put { key: key.clone(), value: Bytes::from(value) }];
        store.write(vec![], put("1")).await.unwrap();
        store.write(vec![], put("2")).await.unwrap();
        for start in [0, 100, 200, 300] {
            Compaction::default().turn(&store, at(start)).await.unwrap();
        }
        assert!(matches!(store.get(&key, Some(1)).await, Err(StoreError::Compacted { oldest: 2, .. })));
        assert_eq!(store.get(&key, Some(2)).await.unwrap().unwrap().value, "2");
    }

    /// Two services over one store: one of them compacts, and the other when that one is gone.
    #[tokio::test]
    async fn of_several_services_one_compacts() {
        let store = Embedded::in_memory().unwrap();
        let (mut first, mut second) = (Compaction::default(), Compaction::default());
        let busy = async || {
            let key = Key::parse("pods/a/b").unwrap();
            store.write(vec![], vec![Op::Put { key, value: Bytes::new() }]).await.unwrap();
        };
        for minute in 0..20 {
            busy().await;
            first.turn(&store, at(minute * 60)).await.unwrap();
            second.turn(&store, at(minute * 60 + 30)).await.unwrap();
            assert!(minute < 1 || !first.keeps && second.keeps, "who came last keeps them: minute {minute}");
        }
        assert!(first.done == 0 && second.done > 0);
        let before = second.done;
        for minute in 20..60 {
            busy().await;
            first.turn(&store, at(minute * 60)).await.unwrap();
        }
        assert!(first.keeps && first.done > before + 10, "{first:?}");
        second.turn(&store, at(3600)).await.unwrap();
        assert!(!second.keeps, "and it does not come back while the other does");
    }

    #[tokio::test]
    async fn a_quiet_store_is_written_once() {
        let store = Embedded::in_memory().unwrap();
        let mut compaction = Compaction::default();
        for minute in 0..30 {
            compaction.turn(&store, at(minute * 60)).await.unwrap();
        }
        assert_eq!(store.current().await.unwrap(), 1);
        store.write(vec![], vec![Op::Put { key: Key::parse("pods/a/b").unwrap(), value: Bytes::new() }]).await.unwrap();
        compaction.turn(&store, at(1860)).await.unwrap();
        assert_eq!(store.current().await.unwrap(), 3);
    }
}
