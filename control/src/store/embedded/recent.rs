use std::collections::VecDeque;

use crate::store::{Batch, Change, Revision};

/// How much of the newest past is kept in memory for watches that follow closely; the log has the rest.
const RECENT_MAX_CHANGES: usize = 2048;
const RECENT_MAX_BYTES: usize = 4 << 20;
/// How many changes a watch gets at a time.
pub const BATCH_MAX_CHANGES: usize = 512;

/// The newest changes, oldest first.
#[derive(Debug, Default)]
pub struct Recent {
    changes: VecDeque<Change>,
    bytes: usize,
    /// Changes up to here may be missing.
    floor: Revision,
    current: Revision,
}

fn bytes(change: &Change) -> usize {
    change.value.as_ref().map_or(0, bytes::Bytes::len)
}

impl Recent {
    pub fn new(current: Revision) -> Recent {
        Recent { floor: current, current, ..Recent::default() }
    }

    /// Adds the changes of a group, which end at `current`. A write's changes come and go together.
    pub fn push(&mut self, changes: Vec<Change>, current: Revision) {
        for change in changes {
            self.bytes += bytes(&change);
            self.changes.push_back(change);
        }
        self.current = current;
        while self.changes.len() > RECENT_MAX_CHANGES || self.bytes > RECENT_MAX_BYTES {
            let Some(old) = self.changes.pop_front() else { break };
            self.bytes -= bytes(&old);
            self.floor = old.revision;
        }
    }

    /// What came after `from` under `prefix`; absent where only the log knows.
    pub fn after(&self, prefix: &str, from: Revision) -> Option<Batch> {
        if from < self.floor {
            return None;
        }
        let start = self.changes.partition_point(|change| change.revision <= from);
        let (mut changes, mut reached): (Vec<Change>, _) = (Vec::new(), from);
        for change in self.changes.range(start..) {
            // A write is delivered whole.
            if changes.len() >= BATCH_MAX_CHANGES && change.revision != reached {
                return Some(Batch { changes, revision: reached });
            }
            reached = change.revision;
            if change.key.as_str().starts_with(prefix) {
                changes.push(change.clone());
            }
        }
        Some(Batch { changes, revision: self.current })
    }
}
