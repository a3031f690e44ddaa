use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use gantry_env::{Clock, chain};
use jiff::Timestamp;

use super::{Revision, Store};

/// How long overwritten and deleted values stay readable: pages of a list and resumed watches.
pub const HISTORY_KEPT_SECONDS: i64 = 300;
const TURN_SECONDS: u64 = 60;

/// Which revisions were current when, and so up to where history is old enough to be forgotten.
#[derive(Debug, Default)]
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
}

/// Compacts the store, each minute, to what was current five minutes ago. Runs until dropped.
pub async fn compact_periodically(store: Arc<dyn Store>, clock: Clock) {
    let mut marks = Marks::default();
    let mut done = 0;
    loop {
        let turn = async {
            let current = store.current().await?;
            match marks.turn(clock.now(), current).filter(|due| *due > done) {
                Some(due) => store.compact(due).await.map(|()| done = due),
                None => Ok(()),
            }
        };
        if let Err(error) = turn.await {
            tracing::warn!(error = chain(&error), "compaction failed");
        }
        tokio::time::sleep(Duration::from_secs(TURN_SECONDS)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_kept_for_five_minutes() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut marks = Marks::default();
        assert_eq!(marks.turn(at(0), 10), None);
        assert_eq!(marks.turn(at(60), 20), None);
        assert_eq!(marks.turn(at(299), 30), None);
        assert_eq!(marks.turn(at(300), 40), Some(10));
        assert_eq!(marks.turn(at(1000), 50), Some(40));
        assert_eq!(marks.turn(at(1001), 50), None);
    }
}
