//! The store's contract as a map: what every backend has to agree with.

use std::collections::BTreeMap;

use bytes::Bytes;
use gantry_control::store::{
    Change, Compare, Conflict, Expect, Item, Key, Op, Page, Revision, StoreError, VALUE_MAX_BYTES, Versioned,
    WRITE_MAX_OPS,
};

/// Every version of every key, for ever. Heartbeats are puts here.
#[derive(Clone, Debug, Default)]
pub struct Model {
    versions: BTreeMap<Key, Vec<(Revision, Option<Bytes>)>>,
    changes: Vec<Change>,
    pub current: Revision,
    pub compacted: Revision,
}

impl Model {
    /// An empty store whose newest and oldest revision is this.
    pub fn starting_at(revision: Revision) -> Model {
        Model { current: revision, compacted: revision, ..Model::default() }
    }

    fn readable(&self, at: Option<Revision>) -> Result<Revision, StoreError> {
        match at {
            None => Ok(self.current),
            Some(asked) if asked > self.current => Err(StoreError::Future { asked, current: self.current }),
            Some(asked) if asked < self.compacted => Err(StoreError::Compacted { asked, oldest: self.compacted }),
            Some(asked) => Ok(asked),
        }
    }

    fn at(&self, key: &Key, at: Revision) -> Option<Versioned> {
        let (revision, value) = self.versions.get(key)?.iter().rev().find(|(revision, _)| *revision <= at)?;
        value.clone().map(|value| Versioned { value, revision: *revision })
    }

    pub fn get(&self, key: &Key, at: Option<Revision>) -> Result<Option<Versioned>, StoreError> {
        Ok(self.at(key, self.readable(at)?))
    }

    pub fn list(&self, prefix: &str, after: &str, limit: usize, at: Option<Revision>) -> Result<Page, StoreError> {
        let revision = self.readable(at)?;
        let keys = self.versions.keys().filter(|key| key.as_str().starts_with(prefix) && key.as_str() > after);
        let mut found = keys.filter_map(|key| {
            let Versioned { value, revision } = self.at(key, revision)?;
            Some(Item { key: key.clone(), value, revision })
        });
        let items = found.by_ref().take(limit).collect();
        Ok(Page { items, revision, more: found.next().is_some() })
    }

    pub fn write(&mut self, compares: &[Compare], ops: &[Op]) -> Result<Revision, StoreError> {
        check(ops)?;
        let latest = |key: &Key| self.at(key, self.current);
        let conflict = |key: &Key, current| StoreError::Conflict(Box::new(Conflict { key: key.clone(), current }));
        for Compare { key, expect } in compares {
            let current = latest(key);
            let holds = match expect {
                Expect::Absent => current.is_none(),
                Expect::Revision(revision) => current.as_ref().is_some_and(|found| found.revision == *revision),
            };
            if !holds {
                return Err(conflict(key, current));
            }
        }
        for op in ops {
            if matches!(op, Op::Delete { .. }) && latest(op.key()).is_none() {
                return Err(conflict(op.key(), None));
            }
        }
        let revision = self.current + 1;
        for op in ops {
            let value = match op {
                Op::Put { value, .. } | Op::Renew { value, .. } => Some(value.clone()),
                Op::Delete { .. } => None,
            };
            let (key, previous) = (op.key().clone(), self.at(op.key(), self.current).map(|found| found.revision));
            self.versions.entry(key.clone()).or_default().push((revision, value.clone()));
            self.changes.push(Change { key, revision, value, previous });
        }
        self.current = revision;
        Ok(revision)
    }

    /// Everything that a watch of `prefix` from `from` has to deliver by now.
    pub fn changes(&self, prefix: &str, from: Revision) -> Vec<Change> {
        let wanted = |change: &&Change| change.revision > from && change.key.as_str().starts_with(prefix);
        self.changes.iter().filter(wanted).cloned().collect()
    }

    /// Whether a watch can start at `from`.
    pub fn watchable(&self, from: Revision) -> Result<(), StoreError> {
        self.readable(Some(from)).map(|_| ())
    }

    pub fn compact(&mut self, revision: Revision) -> Result<(), StoreError> {
        if revision > self.current {
            return Err(StoreError::Future { asked: revision, current: self.current });
        }
        self.compacted = self.compacted.max(revision);
        Ok(())
    }
}

fn check(ops: &[Op]) -> Result<(), StoreError> {
    if ops.is_empty() || ops.len() > WRITE_MAX_OPS {
        return Err(StoreError::OpCount { count: ops.len() });
    }
    for (i, op) in ops.iter().enumerate() {
        if ops[..i].iter().any(|other| other.key().kind() == op.key().kind()) {
            return Err(StoreError::KindTwice { kind: op.key().kind().to_owned() });
        }
        match op {
            Op::Put { key, value } | Op::Renew { key, value } if value.len() > VALUE_MAX_BYTES => {
                return Err(StoreError::ValueTooLarge { key: key.clone(), bytes: value.len() });
            }
            Op::Renew { key, .. } if ops.len() > 1 => return Err(StoreError::RenewNotAlone { key: key.clone() }),
            Op::Put { .. } | Op::Renew { .. } | Op::Delete { .. } => {}
        }
    }
    Ok(())
}
