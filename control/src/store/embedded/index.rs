//! Which versions of which keys there are, in memory. Pure: the values stay in the log.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use smallvec::SmallVec;

use super::record::Place;
use crate::store::{Key, Revision, StoreError};

/// What a version of a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Put,
    Deleted,
    /// A heartbeat that is in memory alone: [`Index::heartbeat`] has it.
    Renewed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    pub place: Place,
    pub what: What,
}

impl Version {
    pub fn revision(&self) -> Revision {
        self.place.revision
    }
}

/// Each key's versions, oldest first. A heartbeat in memory can only be the last one.
type History = SmallVec<[Version; 1]>;

#[derive(Debug, Default)]
pub struct Index {
    keys: BTreeMap<Key, History>,
    heartbeats: BTreeMap<Key, (Place, Bytes)>,
    /// The newest revision that was given out.
    pub current: Revision,
    /// Reads from before this one are refused.
    pub compacted: Revision,
}

impl Index {
    /// The present version of a key, if it has one.
    pub fn latest(&self, key: &Key) -> Option<Version> {
        self.keys.get(key)?.last().copied().filter(|version| version.what != What::Deleted)
    }

    /// The version of a key as of `at`.
    pub fn at(&self, key: &Key, at: Revision) -> Option<Version> {
        as_of(self.keys.get(key)?, at)
    }

    /// The version that `revision` replaced.
    pub fn before(&self, key: &Key, revision: Revision) -> Option<Version> {
        self.at(key, revision.checked_sub(1)?)
    }

    /// The keys that begin with `prefix` and come after `after`, as of `at`.
    pub fn range<'a>(
        &'a self,
        prefix: &'a str,
        after: &'a str,
        at: Revision,
    ) -> impl Iterator<Item = (&'a Key, Version)> {
        let start = if after < prefix { Bound::Included(prefix) } else { Bound::Excluded(after) };
        let whole = self.keys.range::<str, _>((start, Bound::Unbounded));
        whole
            .take_while(move |(key, _)| key.as_str().starts_with(prefix))
            .filter_map(move |(key, history)| Some((key, as_of(history, at)?)))
    }

    /// The revision that a read of `at` means, if it can be read.
    pub fn readable(&self, at: Option<Revision>) -> Result<Revision, StoreError> {
        match at {
            None => Ok(self.current),
            Some(asked) if asked > self.current => Err(StoreError::Future { asked, current: self.current }),
            Some(asked) if asked < self.compacted => Err(StoreError::Compacted { asked, oldest: self.compacted }),
            Some(asked) => Ok(asked),
        }
    }

    pub fn heartbeat(&self, key: &Key) -> Option<&(Place, Bytes)> {
        self.heartbeats.get(key)
    }

    /// The heartbeats that are in memory alone.
    pub fn heartbeats(&self) -> impl Iterator<Item = (&Key, &(Place, Bytes))> {
        self.heartbeats.iter()
    }

    /// Adds a version, newer than all there are of this key.
    pub fn add(&mut self, key: &Key, version: Version) {
        let Some(history) = self.keys.get_mut(key) else {
            self.keys.insert(key.clone(), History::from_elem(version, 1));
            return;
        };
        // An intermediate heartbeat is nobody's history: it lived in memory and goes with it.
        if history.last().is_some_and(|last| last.what == What::Renewed) {
            history.pop();
            self.heartbeats.remove(key);
        }
        history.push(version);
    }

    pub fn add_heartbeat(&mut self, key: &Key, place: Place, value: Bytes) {
        self.add(key, Version { place, what: What::Renewed });
        self.heartbeats.insert(key.clone(), (place, value));
    }

    /// The heartbeats of these places are in the log now.
    pub fn persisted(&mut self, places: &[(Key, Place)]) {
        for (key, place) in places {
            let last = self.keys.get_mut(key).and_then(|history| history.last_mut());
            if let Some(last) = last.filter(|last| last.place == *place) {
                last.what = What::Put;
                self.heartbeats.remove(key);
            }
        }
    }

    /// Up to `limit` versions that nobody can read once `upto` is the oldest revision that is kept.
    pub fn superseded(&self, upto: Revision, limit: usize) -> Vec<(Key, Place)> {
        let mut found = Vec::new();
        for (key, history) in &self.keys {
            // What a heartbeat in memory has replaced is still what a crash falls back to.
            let durable = history.iter().rposition(|v| v.revision() <= upto && v.what != What::Renewed);
            let Some(newest) = durable else { continue };
            let keep = usize::from(history[newest].what == What::Deleted);
            found.extend(history[..newest + keep].iter().map(|version| (key.clone(), version.place)));
            if found.len() >= limit {
                break;
            }
        }
        found
    }

    /// The versions at these places are gone from the log.
    pub fn forget(&mut self, places: &[(Key, Place)]) {
        for (key, place) in places {
            if let Some(history) = self.keys.get_mut(key) {
                history.retain(|version| version.place != *place);
                if history.is_empty() {
                    self.keys.remove(key);
                }
            }
        }
    }
}

fn as_of(history: &History, at: Revision) -> Option<Version> {
    let version = history.iter().rev().find(|version| version.revision() <= at)?;
    (version.what != What::Deleted).then_some(*version)
}
