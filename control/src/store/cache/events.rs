use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use super::Stored;
use crate::store::{Key, Revision};

/// How much of the past a kind's ring holds: whichever of the two bounds is reached first.
pub(super) const RING_MAX_EVENTS: usize = 10_000;
const RING_MAX_BYTES: usize = 8 << 20;

/// One change of one object, as every watcher of its kind sees it.
#[derive(Debug)]
pub struct Event {
    pub revision: Revision,
    pub key: Key,
    /// Absent: deleted.
    pub new: Option<Arc<Stored>>,
    /// Absent: created.
    pub previous: Option<Arc<Stored>>,
    gone: OnceLock<Arc<Stored>>,
}

impl Event {
    pub fn new(revision: Revision, key: Key, new: Option<Arc<Stored>>, previous: Option<Arc<Stored>>) -> Event {
        Event { revision, key, new, previous, gone: OnceLock::new() }
    }

    /// What a DELETED event carries: the old content under this event's revision. For a deletion, and for an object that
    /// has left a watcher's selector. Absent where nothing stood there before.
    pub fn gone(&self) -> Option<Arc<Stored>> {
        let previous = self.previous.as_ref()?;
        Some(self.gone.get_or_init(|| Arc::new(previous.at(self.revision))).clone())
    }

    fn bytes(&self) -> usize {
        self.new.as_ref().or(self.previous.as_ref()).map_or(0, |stored| stored.json().len())
    }
}

/// The watcher's position is older than what is kept: it has to list again (410).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} ({oldest})")]
pub struct Gone {
    pub asked: Revision,
    pub oldest: Revision,
}

/// The last events of a kind, numbered without a gap.
#[derive(Debug, Default)]
pub(super) struct Ring {
    events: VecDeque<Arc<Event>>,
    /// The number of the first event here.
    first: u64,
    bytes: usize,
    /// Events up to here may be missing.
    pub floor: Revision,
}

impl Ring {
    pub fn new(floor: Revision) -> Ring {
        Ring { floor, ..Ring::default() }
    }

    pub fn push(&mut self, event: Arc<Event>) {
        self.bytes += event.bytes();
        self.events.push_back(event);
        while self.events.len() > RING_MAX_EVENTS || (self.bytes > RING_MAX_BYTES && self.events.len() > 1) {
            let Some(old) = self.events.pop_front() else { break };
            self.bytes -= old.bytes();
            self.floor = old.revision;
            self.first += 1;
        }
    }

    /// Forgets everything; no position from before is served any more.
    pub fn clear(&mut self, floor: Revision) {
        self.first = self.end() + 1;
        self.events.clear();
        self.bytes = 0;
        self.floor = floor;
    }

    /// The number of the next event to come.
    pub fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    /// The number of the first event after `from`.
    pub fn position(&self, from: Revision) -> Result<u64, Gone> {
        if from < self.floor {
            return Err(Gone { asked: from, oldest: self.floor });
        }
        Ok(self.first + self.events.partition_point(|event| event.revision <= from) as u64)
    }

    /// The event of this number; absent where it is still to come.
    pub fn get(&self, number: u64) -> Result<Option<&Arc<Event>>, Gone> {
        match number.checked_sub(self.first) {
            Some(index) => Ok(usize::try_from(index).ok().and_then(|index| self.events.get(index))),
            None => Err(Gone { asked: 0, oldest: self.floor }),
        }
    }

    pub fn find(&self, revision: Revision) -> Option<&Arc<Event>> {
        let index = self.events.partition_point(|event| event.revision < revision);
        self.events.get(index).filter(|event| event.revision == revision)
    }
}
