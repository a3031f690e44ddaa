use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use gantry_control::store::{Batch, Compare, Expect, Key, Op, Revision, Store, StoreError};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Action, Answer, Call, Clock, Event, Heard, Moment, Version};

/// Items of a page, so that lists of few keys have several.
const PAGE_ITEMS: usize = 3;

/// Notes what clients do with a store, and how it answers.
#[derive(Clone, Default)]
pub struct Recorder {
    clock: Arc<Clock>,
    values: Arc<AtomicU64>,
    calls: Arc<Mutex<Vec<Call>>>,
}

/// What a client does: drawn from a seed, over few keys, so that clients meet.
pub struct Script {
    rng: StdRng,
    kind: String,
    keys: usize,
    /// The last versions that this client has seen, which it names in its conditions.
    seen: BTreeMap<String, Revision>,
}

impl Script {
    pub fn new(seed: u64, kind: &str, keys: usize) -> Script {
        Script { rng: StdRng::seed_from_u64(seed), kind: kind.to_owned(), keys, seen: BTreeMap::new() }
    }

    fn key(&mut self) -> String {
        format!("{}/n/{}", self.kind, self.rng.random_range(0..self.keys))
    }

    fn expect(&mut self, key: &str) -> Option<Expect> {
        let known = self.seen.get(key).map_or(Expect::Absent, |revision| Expect::Revision(*revision));
        // Mostly what is known, at times nothing, at times what is not so.
        match self.rng.random_range(0..10) {
            0 => None,
            1 => Some(Expect::Absent),
            _ => Some(known),
        }
    }

    fn next(&mut self, value: u64) -> Action {
        let key = self.key();
        match self.rng.random_range(0..10) {
            0..5 => {
                let expect = self.expect(&key);
                Action::Put { key, value, expect }
            }
            5 => {
                let expect = self.expect(&key).filter(|expect| *expect != Expect::Absent);
                Action::Delete { key, expect }
            }
            6..9 => Action::Get { key },
            _ => Action::List,
        }
    }

    fn learn(&mut self, action: &Action, answer: &Answer) {
        let mut learn = |key: &str, version: Option<Revision>| match version {
            Some(revision) => drop(self.seen.insert(key.to_owned(), revision)),
            None => drop(self.seen.remove(key)),
        };
        match (action, answer) {
            (Action::Put { key, .. }, Answer::Written(revision)) => learn(key, Some(*revision)),
            (Action::Delete { key, .. }, Answer::Written(_)) => learn(key, None),
            (Action::Get { key }, Answer::Found(found)) => learn(key, found.map(|(_, revision)| revision)),
            (Action::List, Answer::Listed { items, .. }) => {
                self.seen = items.iter().map(|(key, (_, revision))| (key.clone(), *revision)).collect();
            }
            _ => {}
        }
    }
}

fn key(text: &str) -> Key {
    Key::parse(text).expect("the script's keys are keys")
}

fn number(bytes: &Bytes) -> u64 {
    std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)
}

/// What follows of an error: that it was not done, or nothing.
fn failed(error: &StoreError) -> Answer {
    if matches!(error, StoreError::Conflict(_)) { Answer::Refused } else { Answer::Unknown }
}

impl Recorder {
    /// One call of the script, noted with its answer; false where the store did not answer it.
    pub async fn step(&self, script: &mut Script, store: &dyn Store) -> bool {
        let action = script.next(self.values.fetch_add(1, Ordering::SeqCst));
        let from = self.clock.now();
        // Noted before it is asked for: whoever never hears of its answer has asked all the same.
        let at = self.note(Call { from, to: Moment::MAX, action: action.clone(), answer: Answer::Unknown });
        let answer = ask(store, &action, &script.kind).await;
        script.learn(&action, &answer);
        let answered = answer != Answer::Unknown;
        if answered {
            let mut calls = self.calls.lock();
            (calls[at].to, calls[at].answer) = (self.clock.now(), answer);
        }
        answered
    }

    fn note(&self, call: Call) -> usize {
        let mut calls = self.calls.lock();
        calls.push(call);
        calls.len() - 1
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().clone()
    }
}

async fn ask(store: &dyn Store, action: &Action, kind: &str) -> Answer {
    let compares = |name: &str, expect: &Option<Expect>| {
        expect.iter().map(|expect| Compare { key: key(name), expect: *expect }).collect()
    };
    match action {
        Action::Put { key: name, value, expect } => {
            let op = Op::Put { key: key(name), value: Bytes::from(value.to_string()) };
            store.write(compares(name, expect), vec![op]).await.map_or_else(|error| failed(&error), Answer::Written)
        }
        Action::Delete { key: name, expect } => {
            let op = Op::Delete { key: key(name) };
            store.write(compares(name, expect), vec![op]).await.map_or_else(|error| failed(&error), Answer::Written)
        }
        Action::Get { key: name } => match store.get(&key(name), None).await {
            Ok(found) => Answer::Found(found.map(|found| (number(&found.value), found.revision))),
            Err(_) => Answer::Unknown,
        },
        Action::List => list(store, kind).await.unwrap_or(Answer::Unknown),
    }
}

async fn list(store: &dyn Store, kind: &str) -> Result<Answer, StoreError> {
    let (prefix, mut after, mut at) = (format!("{kind}/"), String::new(), None);
    let mut items: BTreeMap<String, Version> = BTreeMap::new();
    loop {
        let page = store.list(&prefix, &after, PAGE_ITEMS, at).await?;
        at = Some(page.revision);
        for item in page.items {
            after = item.key.as_str().to_owned();
            items.insert(after.clone(), (number(&item.value), item.revision));
        }
        if !page.more {
            return Ok(Answer::Listed { items, revision: page.revision });
        }
    }
}

impl Heard {
    pub fn hear(&mut self, batch: Batch) {
        self.events.extend(batch.changes.into_iter().map(|change| Event {
            revision: change.revision,
            key: change.key.as_str().to_owned(),
            value: change.value.as_ref().map(number),
        }));
        self.until = batch.revision;
    }
}

/// Follows a kind from a revision, until everything up to `until` has been heard.
pub async fn watch(store: &dyn Store, kind: &str, from: Revision, until: Revision) -> Result<Heard, StoreError> {
    let mut heard = Heard { from, until: from, ..Heard::default() };
    let mut watch = store.watch(&format!("{kind}/"), from).await?;
    while heard.until < until {
        heard.hear(watch.next().await?);
    }
    Ok(heard)
}

/// What the store holds for true of a kind: every change of it. Nothing may have been compacted.
pub async fn log_of(store: &dyn Store, kind: &str) -> Result<Vec<Event>, StoreError> {
    let until = store.current().await?;
    Ok(watch(store, kind, 0, until).await?.events)
}
