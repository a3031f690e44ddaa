//! The one writer: takes the writes that have gathered, decides them together, makes them durable with one commit, shows
//! them, and only then answers.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use gantry_env::chain;

use super::index::{Index, Version, What};
use super::log::{Check, Commit, Log, Reader};
use super::plan::{Outcome, Plan, Planned, Standing, Write, plan};
use super::recent::Recent;
use super::record::Place;
use super::shared::Shared;
use crate::store::{Change, Conflict, Key, Revision, StoreError, Versioned};

/// How much one commit gathers at most.
const GROUP_MAX_WRITES: usize = 512;
const GROUP_MAX_BYTES: usize = 8 << 20;
/// How many revisions are set aside at a time for heartbeats that stay in memory.
const RESERVED_REVISIONS: u64 = 10_000;
/// How many records one commit of a compaction removes, so that writes are never held up for long.
const COMPACT_MAX_RECORDS: usize = 1000;

pub type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the engine is asked. Answers go out in the order of the requests.
pub enum Request {
    Write(Write, Reply<Revision>),
    /// Answers whether there is more to do.
    Compact(Revision, Reply<bool>),
    PersistHeartbeats(Reply<()>),
    Raise(Revision, Reply<()>),
}

pub struct Engine {
    shared: Arc<Shared>,
    /// Heartbeats may use revisions up to here.
    reserved: Revision,
    /// How far the log says that it is compacted. The index may be further: as long as nothing was taken out of the log,
    /// that is told with the next commit.
    compacted: Revision,
}

impl Engine {
    /// Reads the whole log, verifying it.
    pub fn start(shared: Shared) -> Result<(Engine, Arc<Shared>), StoreError> {
        let log = Log::open(shared.disk.clone(), Check::Whole)?;
        let numbers = log.numbers()?;
        let mut index = Index::default();
        index.compacted = numbers.compacted;
        let mut bad_key = None;
        log.scan(|place, record| match Key::parse(record.key) {
            Some(key) => {
                let what = if record.value.is_some() { What::Put } else { What::Deleted };
                index.add(&key, Version { place, what });
                index.current = place.revision;
            }
            None => bad_key = Some((place.revision, record.key.to_owned())),
        })?;
        if let Some((revision, key)) = bad_key {
            return Err(StoreError::Damaged { revision, key, why: "its key does not name a kind and an object" });
        }
        index.current = index.current.max(numbers.compacted).max(numbers.reserved);
        let current = index.current;
        *shared.index.write() = index;
        *shared.log.write() = Some(log);
        *shared.recent.write() = Recent::new(current);
        shared.committed.send_replace(Some(current));
        let shared = Arc::new(shared);
        let engine = Engine { shared: shared.clone(), reserved: numbers.reserved, compacted: numbers.compacted };
        Ok((engine, shared))
    }

    /// Serves until the queue is closed.
    pub fn serve(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut held = None;
        while let Some(request) = held.take().or_else(|| queue.blocking_recv()) {
            match request {
                Request::Write(write, reply) => held = self.serve_group(write, reply, &mut queue),
                // A caller that has gone away does not want its answer.
                Request::Compact(revision, reply) => drop(reply.send(self.compact(revision))),
                Request::PersistHeartbeats(reply) => drop(reply.send(self.persist_heartbeats())),
                Request::Raise(revision, reply) => drop(reply.send(self.raise(revision))),
            }
        }
        self.close();
    }

    /// Gathers the writes that wait, carries them out, and answers. Hands back a request that is not a write.
    fn serve_group(
        &mut self,
        write: Write,
        reply: Reply<Revision>,
        queue: &mut mpsc::Receiver<Request>,
    ) -> Option<Request> {
        let mut bytes = write.bytes();
        let (mut writes, mut replies, mut held) = (vec![write], vec![reply], None);
        while writes.len() < GROUP_MAX_WRITES && bytes < GROUP_MAX_BYTES {
            match queue.try_recv() {
                Ok(Request::Write(write, reply)) => {
                    bytes += write.bytes();
                    writes.push(write);
                    replies.push(reply);
                }
                Ok(other) => {
                    held = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        for (reply, answer) in replies.into_iter().zip(self.write(&writes)) {
            // A caller that has gone away does not want its answer.
            let _ = reply.send(answer);
        }
        held
    }

    /// Carries out a group of writes with one commit. If that fails, all of them fail, the failing compares too: what
    /// they failed against may be part of the group.
    pub fn write(&mut self, group: &[Write]) -> Vec<Result<Revision, StoreError>> {
        let answers = self.ensure_open().and_then(|()| self.write_group(group));
        answers.unwrap_or_else(|error| {
            self.recover(&error);
            vec![Err(error); group.len()]
        })
    }

    fn write_group(&mut self, group: &[Write]) -> Result<Vec<Result<Revision, StoreError>>, StoreError> {
        let Plan { changes, outcomes } = plan(group.iter(), &self.shared.index.read());
        let answers = {
            let log = self.shared.log.read();
            let log = log.as_ref().ok_or(StoreError::Broken)?;
            let mut past = Past { shared: &self.shared, log, reader: None };
            let answers = outcomes.into_iter().map(|outcome| past.answer(outcome)).collect();
            let beats = changes.iter().rev().find(|change| change.heartbeat).map(|change| change.place.revision);
            let reserved = beats.filter(|newest| *newest > self.reserved).map(|newest| newest + RESERVED_REVISIONS);
            let records = changes.iter().filter(|change| !change.heartbeat);
            let records = records.map(|change| (change.place, &change.key, change.value.as_ref())).collect();
            let mut commit = Commit { records, reserved, ..Commit::default() };
            if !commit.is_empty() {
                let compacted = self.shared.index.read().compacted;
                commit.compacted = (compacted > self.compacted).then_some(compacted);
                log.commit(&commit)?;
                self.compacted = compacted;
            }
            self.reserved = reserved.unwrap_or(self.reserved);
            answers
        };
        self.publish(changes);
        Ok(answers)
    }

    /// Shows what is durable now: to reads, then to watches.
    fn publish(&self, changes: Vec<Planned>) {
        let Some(current) = changes.last().map(|change| change.place.revision) else { return };
        let mut index = self.shared.index.write();
        for change in &changes {
            match &change.value {
                Some(value) if change.heartbeat => index.add_heartbeat(&change.key, change.place, value.clone()),
                Some(_) => index.add(&change.key, Version { place: change.place, what: What::Put }),
                None => index.add(&change.key, Version { place: change.place, what: What::Deleted }),
            }
        }
        index.current = current;
        drop(index);
        let shown = changes.into_iter().map(|change| Change {
            revision: change.place.revision,
            key: change.key,
            value: change.value,
            previous: change.previous.map(|standing| standing.revision()),
        });
        self.shared.recent.write().push(shown.collect(), current);
        self.shared.committed.send_replace(Some(current));
    }

    /// Refuses reads from before `revision`, then removes what only they could see; one commit a call, and none where
    /// nobody else could have seen anything.
    pub fn compact(&mut self, revision: Revision) -> Result<bool, StoreError> {
        self.ensure_open()?;
        let (compacted, places) = {
            let mut index = self.shared.index.write();
            if revision > index.current {
                return Err(StoreError::Future { asked: revision, current: index.current });
            }
            index.compacted = index.compacted.max(revision);
            (index.compacted, index.superseded(index.compacted, COMPACT_MAX_RECORDS))
        };
        if places.is_empty() {
            return Ok(false);
        }
        let remove = places.iter().map(|(_, place)| *place).collect();
        self.commit(&Commit { remove, compacted: Some(compacted), ..Commit::default() })?;
        self.compacted = compacted;
        self.shared.index.write().forget(&places);
        Ok(places.len() >= COMPACT_MAX_RECORDS)
    }

    /// Writes the newest heartbeat of every lease into the log.
    pub fn persist_heartbeats(&mut self) -> Result<(), StoreError> {
        self.ensure_open()?;
        let beats: Vec<_> = {
            let index = self.shared.index.read();
            index.heartbeats().map(|(key, (place, value))| (key.clone(), *place, value.clone())).collect()
        };
        if beats.is_empty() {
            return Ok(());
        }
        let records = beats.iter().map(|(key, place, value)| (*place, key, Some(value))).collect();
        self.commit(&Commit { records, ..Commit::default() })?;
        let places: Vec<(Key, Place)> = beats.into_iter().map(|(key, place, _)| (key, place)).collect();
        self.shared.index.write().persisted(&places);
        Ok(())
    }

    /// Goes on at `revision`, which no reader has seen, as if everything before it were compacted.
    pub fn raise(&mut self, revision: Revision) -> Result<(), StoreError> {
        self.ensure_open()?;
        if revision <= self.shared.index.read().current {
            return Ok(());
        }
        self.commit(&Commit { compacted: Some(revision), ..Commit::default() })?;
        let mut index = self.shared.index.write();
        (index.current, index.compacted) = (revision, revision);
        drop(index);
        self.compacted = revision;
        *self.shared.recent.write() = Recent::new(revision);
        self.shared.committed.send_replace(Some(revision));
        Ok(())
    }

    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), StoreError> {
        let done = match self.shared.log.read().as_ref() {
            Some(log) => log.commit(commit),
            None => Err(StoreError::Broken),
        };
        done.inspect_err(|error| self.recover(error))
    }

    fn ensure_open(&mut self) -> Result<(), StoreError> {
        if self.shared.log.read().is_some() { Ok(()) } else { self.reopen() }
    }

    /// redb refuses everything after a failure until it is opened anew; so it is, at once.
    fn recover(&mut self, error: &StoreError) {
        tracing::error!(error = chain(error), "the store could not write");
        if let Err(error) = self.reopen() {
            tracing::error!(error = chain(&error), "the store could not be opened again, the next write will try");
        }
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        let current = self.shared.index.read().current;
        // Readers hold this lock for as long as they read, so nobody is left with the old log when it is dropped.
        let mut slot = self.shared.log.write();
        *slot = None;
        let fault = |error| StoreError::Io { doing: "read its file anew", source: Arc::new(error) };
        self.shared.disk.distrust().map_err(fault)?;
        let log = Log::open(self.shared.disk.clone(), Check::Repair)?;
        log.cut(current)?;
        self.reserved = log.numbers()?.reserved;
        *slot = Some(log);
        Ok(())
    }

    /// Leaves nothing in memory alone.
    pub fn close(&mut self) {
        // Of the revisions that were set aside, those up to the newest one stay used; the rest is given back.
        let current = self.shared.index.read().current;
        let done = self.persist_heartbeats().and_then(|()| match self.reserved {
            0 => Ok(()),
            _ => self.commit(&Commit { reserved: Some(current), ..Commit::default() }),
        });
        if let Err(error) = done {
            tracing::warn!(error = chain(&error), "the newest heartbeats are lost");
        }
        self.shared.log.write().take();
        self.shared.committed.send_replace(None);
    }
}

/// Values that stood before the group.
struct Past<'a> {
    shared: &'a Shared,
    log: &'a Log,
    reader: Option<Reader>,
}

impl Past<'_> {
    fn read(&mut self, key: &Key, standing: &Option<Standing>) -> Result<Option<Versioned>, StoreError> {
        let version = match standing {
            None => return Ok(None),
            Some(Standing::InGroup { value, revision }) => {
                return Ok(Some(Versioned { value: value.clone(), revision: *revision }));
            }
            Some(Standing::Indexed(version)) => *version,
        };
        if let Some((place, value)) = self.shared.index.read().heartbeat(key)
            && *place == version.place
        {
            return Ok(Some(Versioned { value: value.clone(), revision: version.revision() }));
        }
        let reader = match &mut self.reader {
            Some(reader) => reader,
            empty => empty.insert(self.log.reader()?),
        };
        Ok(Some(Versioned { value: reader.value(version.place, key)?, revision: version.revision() }))
    }

    /// What a write is told. Who collides with a record that cannot be read hears that; the rest of the group does not.
    fn answer(&mut self, outcome: Outcome) -> Result<Revision, StoreError> {
        match outcome {
            Outcome::Done(revision) => Ok(revision),
            Outcome::Conflict { key, current } => {
                let current = self.read(&key, &current)?;
                Err(StoreError::Conflict(Box::new(Conflict { key, current })))
            }
        }
    }
}
