//! Judges what clients of a store have seen: is there an order of all that was done, the store's own, that explains every answer?
//!
//! Clients note each call with a moment before it and one after it ([`Clock`]); the store tells at the end what it holds for true, its
//! log of revisions. As revisions order all writes, no search is needed: each call is given the smallest revision at which its answer
//! is right and that is not before what had been answered when it began. Where there is none, the store lied ([`Fault`]).
//!
//! A write whose answer never came may be in the log or not, but once, and not before it was asked for.

mod recorder;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::atomic::{AtomicU64, Ordering};

use gantry_control::store::{Expect, Revision};

pub use recorder::{Recorder, Script, log_of, watch};

/// Moments, in the order in which they came.
pub type Moment = u64;

/// What orders the moments of all clients.
#[derive(Debug, Default)]
pub struct Clock(AtomicU64);

impl Clock {
    pub fn now(&self) -> Moment {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

/// What a client asked for. No two puts of a history have the same value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Put { key: String, value: u64, expect: Option<Expect> },
    Delete { key: String, expect: Option<Expect> },
    Get { key: String },
    List,
}

/// A value and the revision of its write.
pub type Version = (u64, Revision);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Written(Revision),
    /// The condition did not hold, or there was nothing to delete.
    Refused,
    /// It was done or not.
    Unknown,
    Found(Option<Version>),
    Listed {
        items: BTreeMap<String, Version>,
        revision: Revision,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub from: Moment,
    pub to: Moment,
    pub action: Action,
    pub answer: Answer,
}

/// One change of the store's log. No value: it was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub revision: Revision,
    pub key: String,
    pub value: Option<u64>,
}

/// What a watcher heard, from the revision that it began behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    pub from: Revision,
    pub events: Vec<Event>,
    /// It was told that it has heard everything up to here.
    pub until: Revision,
}

/// How a store lied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The log has two changes of one revision, or goes back.
    LogOrder { revision: Revision },
    /// The log has a value twice, or one that nobody wrote.
    Foreign(Event),
    /// A write was answered, and the log does not have it so.
    Lost(Call),
    /// A write was refused, and the log has it.
    DoneThoughRefused(Call),
    /// The answer is right at no revision between what was answered before the call began and what had been asked for when it ended.
    Impossible { call: Call, not_before: Revision, not_after: Revision },
    /// A watcher missed a change, heard one that was none, or heard them in another order.
    Watch { watcher: usize, wanted: Option<Event>, heard: Option<Event> },
}

/// Every way in which the answers contradict the log; none, where the store never lied.
pub fn judge(log: &[Event], calls: &[Call], watchers: &[Heard]) -> Vec<Fault> {
    let mut faults: Vec<Fault> = log
        .windows(2)
        .filter(|two| two[0].revision >= two[1].revision)
        .map(|two| Fault::LogOrder { revision: two[1].revision })
        .collect();
    let history = History::new(log);
    faults.extend(history.foreign(log, calls));
    let mut calls: Vec<&Call> = calls.iter().collect();
    calls.sort_by_key(|call| call.from);
    // Of each write in the log: since when it may have been there.
    let asked: Vec<(Moment, Revision)> =
        calls.iter().filter_map(|call| Some((call.from, history.written_by(call)?.revision))).collect();
    let mut ended: BinaryHeap<Reverse<(Moment, Revision)>> = BinaryHeap::new();
    let (mut not_before, mut newest) = (0, 0);
    let mut not_after: BTreeMap<Moment, Revision> = BTreeMap::new();
    for (from, revision) in &asked {
        newest = newest.max(*revision);
        not_after.insert(*from, newest);
    }
    for call in calls {
        while let Some(Reverse((_, revision))) = ended.peek().copied().filter(|Reverse((to, _))| *to < call.from) {
            not_before = not_before.max(revision);
            ended.pop();
        }
        let latest = not_after.range(..call.to).next_back().map_or(0, |(_, revision)| *revision);
        match history.earliest(call, not_before) {
            Verdict::At(revision) if revision <= latest.max(not_before) => ended.push(Reverse((call.to, revision))),
            Verdict::Open => {}
            Verdict::Fault(fault) => faults.push(fault),
            _ => faults.push(Fault::Impossible { call: call.clone(), not_before, not_after: latest }),
        }
    }
    faults.extend(watchers.iter().enumerate().filter_map(|(at, heard)| history.misheard(at, heard)));
    faults
}

/// The log by key, and by what was written.
struct History<'a> {
    log: &'a [Event],
    keys: BTreeMap<&'a str, Vec<&'a Event>>,
    values: BTreeMap<u64, &'a Event>,
    /// What each revision deleted.
    deletes: BTreeMap<Revision, &'a Event>,
}

enum Verdict {
    /// The smallest revision at which the answer is right.
    At(Revision),
    Never,
    /// Nothing follows from it.
    Open,
    Fault(Fault),
}

impl<'a> History<'a> {
    fn new(log: &'a [Event]) -> History<'a> {
        let mut history = History { log, keys: BTreeMap::new(), values: BTreeMap::new(), deletes: BTreeMap::new() };
        for event in log {
            history.keys.entry(&event.key).or_default().push(event);
            match event.value {
                Some(value) => drop(history.values.entry(value).or_insert(event)),
                None => drop(history.deletes.insert(event.revision, event)),
            }
        }
        history
    }

    /// What is in the log and was asked for by nobody, or once and is there twice.
    fn foreign(&self, log: &[Event], calls: &[Call]) -> Vec<Fault> {
        let mut puts: BTreeMap<u64, &str> = BTreeMap::new();
        let mut deleted: Vec<&str> = Vec::new();
        for call in calls {
            match &call.action {
                Action::Put { key, value, .. } => drop(puts.insert(*value, key)),
                Action::Delete { key, .. } => deleted.push(key),
                Action::Get { .. } | Action::List => {}
            }
        }
        deleted.sort_unstable();
        let is_foreign = |event: &&Event| match event.value {
            Some(value) => puts.get(&value) != Some(&&*event.key) || self.values[&value].revision != event.revision,
            None => deleted.binary_search(&&*event.key).is_err(),
        };
        log.iter().filter(is_foreign).cloned().map(Fault::Foreign).collect()
    }

    /// The change that a call made, as far as its answer or the log tells.
    fn written_by(&self, call: &Call) -> Option<&'a Event> {
        match (&call.action, &call.answer) {
            (Action::Put { value, .. }, _) => self.values.get(value).copied(),
            (Action::Delete { .. }, Answer::Written(revision)) => self.deletes.get(revision).copied(),
            // Which of several deletes of a key one was whose answer never came is not told: it may have been the first.
            (Action::Delete { key, .. }, Answer::Unknown) => {
                self.keys.get(&**key)?.iter().rev().find(|event| event.value.is_none()).copied()
            }
            _ => None,
        }
    }

    /// The version of a key as of a revision.
    fn at(&self, key: &str, revision: Revision) -> Option<Version> {
        let versions = self.keys.get(key)?;
        let after = versions.partition_point(|event| event.revision <= revision);
        let event = versions.get(after.checked_sub(1)?)?;
        Some((event.value?, event.revision))
    }

    /// The smallest revision from `from` on at which a key is as `right` wants it.
    fn first(&self, key: &str, from: Revision, right: impl Fn(Option<Version>) -> bool) -> Verdict {
        if right(self.at(key, from)) {
            return Verdict::At(from);
        }
        let versions = self.keys.get(key).map_or(&[][..], Vec::as_slice);
        let later = versions.iter().filter(|event| event.revision > from);
        let version = |event: &Event| event.value.map(|value| (value, event.revision));
        later
            .into_iter()
            .find(|event| right(version(event)))
            .map_or(Verdict::Never, |event| Verdict::At(event.revision))
    }

    fn earliest(&self, call: &Call, not_before: Revision) -> Verdict {
        match (&call.action, &call.answer) {
            (Action::Put { .. } | Action::Delete { .. }, Answer::Written(revision)) => {
                let written = self.written_by(call).filter(|event| event.revision == *revision);
                self.written(call, written, not_before).unwrap_or_else(|| Verdict::Fault(Fault::Lost(call.clone())))
            }
            (Action::Put { .. }, Answer::Unknown) => {
                self.written(call, self.written_by(call), not_before).unwrap_or(Verdict::Open)
            }
            (Action::Put { key, expect, .. } | Action::Delete { key, expect }, Answer::Refused) => {
                if matches!(call.action, Action::Put { .. }) && self.written_by(call).is_some() {
                    return Verdict::Fault(Fault::DoneThoughRefused(call.clone()));
                }
                let needs = |found: Option<Version>| match (expect, &call.action) {
                    (Some(Expect::Absent), _) => found.is_none(),
                    (Some(Expect::Revision(wanted)), _) => found.is_some_and(|(_, revision)| revision == *wanted),
                    (None, Action::Delete { .. }) => found.is_some(),
                    (None, _) => true,
                };
                self.first(key, not_before, |found| !needs(found))
            }
            (Action::Get { key }, Answer::Found(version)) => self.first(key, not_before, |found| found == *version),
            (Action::List, Answer::Listed { items, revision }) => {
                let right = self.keys.keys().all(|key| self.at(key, *revision) == items.get(*key).copied())
                    && items.keys().all(|key| self.keys.contains_key(&**key));
                if right && *revision >= not_before { Verdict::At(*revision) } else { Verdict::Never }
            }
            (_, Answer::Unknown) => Verdict::Open,
            _ => Verdict::Never,
        }
    }

    /// A write stands behind all that was answered before it, and its condition held right before it.
    fn written(&self, call: &Call, event: Option<&Event>, not_before: Revision) -> Option<Verdict> {
        let (Action::Put { key, expect, .. } | Action::Delete { key, expect }) = &call.action else { return None };
        let event = event.filter(|event| event.key == *key)?;
        let before = self.at(key, event.revision - 1);
        let held = match expect {
            None => true,
            Some(Expect::Absent) => before.is_none(),
            Some(Expect::Revision(wanted)) => before.is_some_and(|(_, revision)| revision == *wanted),
        };
        Some(if held && event.revision > not_before { Verdict::At(event.revision) } else { Verdict::Never })
    }

    /// The first difference between what a watcher heard and what there was to hear.
    fn misheard(&self, watcher: usize, heard: &Heard) -> Option<Fault> {
        let last = heard.events.last().map_or(heard.from, |event| event.revision).max(heard.until);
        let mut wanted = self.log.iter().filter(|event| event.revision > heard.from && event.revision <= last);
        let mut events = heard.events.iter();
        loop {
            match (wanted.next(), events.next()) {
                (None, None) => return None,
                (wanted, heard) if wanted == heard => {}
                (wanted, heard) => {
                    return Some(Fault::Watch { watcher, wanted: wanted.cloned(), heard: heard.cloned() });
                }
            }
        }
    }
}
