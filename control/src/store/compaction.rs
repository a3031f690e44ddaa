//! When history is forgotten: what was current five minutes ago is the oldest that stays readable.
//!
//! Which revision was current when is kept in the store, too, so that a service that is started anew every few minutes
//! goes on where it was, instead of keeping all of its history.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_env::{Clock, chain};
use gantry_kube::Ref;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Key, Op, Revision, Store, StoreError};

/// How long overwritten and deleted values stay readable: pages of a list and resumed watches.
pub const HISTORY_KEPT_SECONDS: i64 = 300;
const TURN_SECONDS: u64 = 60;
/// The marks are stored this often, and once after a start.
const SAVED_SECONDS: i64 = 300;
const KIND: &str = "compactions.internal.gantry";

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
    /// When the marks were stored, and by the write of which revision.
    saved: Option<(Timestamp, Revision)>,
}

impl Compaction {
    async fn turn(&mut self, store: &dyn Store, now: Timestamp) -> Result<(), StoreError> {
        let key = Key::new(KIND, &Ref::cluster("marks"));
        let current = store.current().await?;
        if self.marks.is_none() {
            let stored = store.get(&key, None).await?;
            self.marks = Some(stored.map(|found| Marks::from_bytes(&found.value, now, current)).unwrap_or_default());
        }
        let Some(marks) = &mut self.marks else { return Ok(()) };
        let due = marks.turn(now, current).filter(|due| *due > self.done);
        // A store in which nothing else happens is not written.
        let save = self
            .saved
            .is_none_or(|(at, revision)| now.as_second() - at.as_second() >= SAVED_SECONDS && revision != current);
        let value = save.then(|| marks.to_bytes());
        if let Some(due) = due {
            store.compact(due).await?;
            self.done = due;
        }
        if let Some(value) = value {
            let revision = store.write(Vec::new(), vec![Op::Put { key, value }]).await?;
            self.saved = Some((now, revision));
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
