//! The log on redb: records in the order of their revisions, and a handful of numbers. Everything here blocks.
//!
//! Commits are redb's one-phase ones: one fsync, and a commit that was torn by a crash is found by its checksums when the
//! file is next opened, which falls back to the commit before. Two phases cost a second fsync for each group: on a busy
//! disk, two thirds of the creates a second (`tests/src/bin/store_bench.rs`). They guard only against someone who forges
//! those checksums, who could write the file anyway.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use redb::{Builder, Database, ReadOnlyTable, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};

use super::disk::{Backend, Disk};
use super::record::{self, Place, Record};
use crate::store::{Key, Revision, StoreError};

const RECORDS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("records");
const NUMBERS: TableDefinition<'static, &str, u64> = TableDefinition::new("numbers");
const FORMAT: &str = "format";
const FORMAT_VERSION: u64 = 1;
const COMPACTED: &str = "compacted";
const RESERVED: &str = "reserved";

/// redb's page cache. Values that matter are in the watch cache, so this only has to hold the inner pages.
const CACHE_BYTES: usize = 4 << 20;

pub struct Log {
    db: Database,
    name: String,
}

/// The numbers beside the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    pub compacted: Revision,
    /// No revision up to here is given out again after a start: heartbeats in memory may have used it.
    pub reserved: Revision,
}

/// What one commit changes.
#[derive(Default)]
pub struct Commit<'a> {
    pub records: Vec<(Place, &'a Key, Option<&'a Bytes>)>,
    pub remove: Vec<Place>,
    pub compacted: Option<Revision>,
    pub reserved: Option<Revision>,
}

impl Commit<'_> {
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.remove.is_empty() && self.compacted.is_none() && self.reserved.is_none()
    }
}

/// How far a start goes in doubting the file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Every page is verified.
    Whole,
    /// What redb does by itself after a crash.
    Repair,
}

impl Log {
    pub fn open(disk: Arc<dyn Disk>, check: Check) -> Result<Log, StoreError> {
        let name = disk.name();
        let repaired = Arc::new(AtomicBool::new(false));
        let seen = repaired.clone();
        let db = Builder::new()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(check == Check::Whole && disk.size().is_ok_and(|len| len > 0))
            .set_repair_callback(move |_| seen.store(true, Ordering::Relaxed))
            .create_with_backend(Backend(disk.clone()));
        let db = match db.map_err(|error| fault(&name, "open its file", error)) {
            Ok(db) => db,
            Err(refused @ StoreError::FileDamaged { .. }) => return Err(damaged_record(disk).unwrap_or(refused)),
            Err(error) => return Err(error),
        };
        if repaired.load(Ordering::Relaxed) {
            tracing::warn!(file = name, "the store was not closed; a write that had not been answered is cut off");
        }
        let log = Log { db, name };
        log.prepare()?;
        Ok(log)
    }

    fn fault(&self, doing: &'static str, error: impl Into<redb::Error>) -> StoreError {
        fault(&self.name, doing, error)
    }

    /// Makes the tables of a new file; refuses a file of another format.
    fn prepare(&self) -> Result<(), StoreError> {
        let doing = "prepare its file";
        let txn = self.db.begin_write().map_err(|error| self.fault(doing, error))?;
        let found = {
            txn.open_table(RECORDS).map_err(|error| self.fault(doing, error))?;
            let mut numbers = txn.open_table(NUMBERS).map_err(|error| self.fault(doing, error))?;
            let found = numbers.get(FORMAT).map_err(|error| self.fault(doing, error))?.map(|found| found.value());
            if found.is_none() {
                numbers.insert(FORMAT, FORMAT_VERSION).map_err(|error| self.fault(doing, error))?;
            }
            found
        };
        match found {
            None => txn.commit().map_err(|error| self.fault(doing, error)),
            Some(FORMAT_VERSION) => txn.abort().map_err(|error| self.fault(doing, error)),
            Some(other) => {
                let why = format!("it has the format {other}, this program knows {FORMAT_VERSION}");
                Err(StoreError::FileDamaged { path: self.name.clone(), why })
            }
        }
    }

    pub fn numbers(&self) -> Result<Numbers, StoreError> {
        let doing = "read its numbers";
        let txn = self.db.begin_read().map_err(|error| self.fault(doing, error))?;
        let table = txn.open_table(NUMBERS).map_err(|error| self.fault(doing, error))?;
        let number = |name| match table.get(name) {
            Ok(found) => Ok(found.map_or(0, |found| found.value())),
            Err(error) => Err(self.fault(doing, error)),
        };
        Ok(Numbers { compacted: number(COMPACTED)?, reserved: number(RESERVED)? })
    }

    /// Verifies every record and shows it, in the order of revisions.
    pub fn scan(&self, each: impl FnMut(Place, Record<'_>)) -> Result<(), StoreError> {
        scan(&self.db, &self.name, each)
    }

    /// All of it or nothing; durable when this returns without an error. After an error the log has to be opened anew.
    pub fn commit(&self, commit: &Commit<'_>) -> Result<(), StoreError> {
        let doing = "write its log";
        let txn = self.db.begin_write().map_err(|error| self.fault(doing, error))?;
        {
            let mut records = txn.open_table(RECORDS).map_err(|error| self.fault(doing, error))?;
            let mut buffer = Vec::new();
            for (place, key, value) in &commit.records {
                record::encode(&mut buffer, *place, key, *value);
                records.insert(place.packed(), buffer.as_slice()).map_err(|error| self.fault(doing, error))?;
            }
            for place in &commit.remove {
                records.remove(place.packed()).map_err(|error| self.fault(doing, error))?;
            }
        }
        let numbers: BTreeMap<&str, Revision> = [(COMPACTED, commit.compacted), (RESERVED, commit.reserved)]
            .into_iter()
            .filter_map(|(n, v)| Some((n, v?)))
            .collect();
        if !numbers.is_empty() {
            let mut table = txn.open_table(NUMBERS).map_err(|error| self.fault(doing, error))?;
            for (name, value) in numbers {
                table.insert(name, value).map_err(|error| self.fault(doing, error))?;
            }
        }
        txn.commit().map_err(|error| self.fault("make its log durable", error))
    }

    /// Takes out what a commit that failed has left behind after `current`.
    pub fn cut(&self, current: Revision) -> Result<(), StoreError> {
        let reader = self.reader()?;
        let mut remove = Vec::new();
        reader.range(current + 1, Revision::MAX, |place, _| {
            remove.push(place);
            Ok(true)
        })?;
        drop(reader);
        if remove.is_empty() {
            return Ok(());
        }
        tracing::warn!(records = remove.len(), after = current, "what a failed write has left in the log is cut off");
        self.commit(&Commit { remove, ..Commit::default() })
    }

    /// The log as it stands now, for as long as the reader lives.
    pub fn reader(&self) -> Result<Reader, StoreError> {
        let doing = "read its log";
        let txn = self.db.begin_read().map_err(|error| self.fault(doing, error))?;
        let table = txn.open_table(RECORDS).map_err(|error| self.fault(doing, error))?;
        Ok(Reader { table, name: self.name.clone() })
    }
}

pub struct Reader {
    table: ReadOnlyTable<u64, &'static [u8]>,
    name: String,
}

impl Reader {
    /// The value of the put at `place`.
    pub fn value(&self, place: Place, key: &Key) -> Result<Bytes, StoreError> {
        let damaged = |why| StoreError::Damaged { revision: place.revision, key: key.to_string(), why };
        let found = self.table.get(place.packed()).map_err(|error| fault(&self.name, "read its log", error))?;
        let found = found.ok_or_else(|| damaged("the record is missing"))?;
        let record = record::decode(place, found.value())?;
        match record.value {
            Some(value) if record.key == key.as_str() => Ok(Bytes::copy_from_slice(value)),
            _ => Err(damaged("the record is another's")),
        }
    }

    /// Shows the records of the revisions from `first` to `last`, until `each` answers false.
    pub fn range(
        &self,
        first: Revision,
        last: Revision,
        mut each: impl FnMut(Place, Record<'_>) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let first = Place { revision: first, number: 0 }.packed();
        let last = if last == Revision::MAX { u64::MAX } else { Place { revision: last + 1, number: 0 }.packed() };
        let failed = |error| fault(&self.name, "read its log", error);
        for entry in self.table.range(first..last).map_err(failed)? {
            let (packed, bytes) = entry.map_err(failed)?;
            let place = Place::unpack(packed.value());
            if !each(place, record::decode(place, bytes.value())?)? {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn scan(db: &impl ReadableDatabase, name: &str, mut each: impl FnMut(Place, Record<'_>)) -> Result<(), StoreError> {
    let doing = "read its log";
    let txn = db.begin_read().map_err(|error| fault(name, doing, error))?;
    let table = txn.open_table(RECORDS).map_err(|error| fault(name, doing, error))?;
    let expected = table.len().map_err(|error| fault(name, doing, error))?;
    let (mut found, mut last) = (0, None);
    for entry in table.iter().map_err(|error| fault(name, doing, error))? {
        let (packed, bytes) = entry.map_err(|error| fault(name, doing, error))?;
        let place = Place::unpack(packed.value());
        let record = record::decode(place, bytes.value())?;
        if last.is_some_and(|last| last >= place) {
            let why = "the records are not in order";
            return Err(StoreError::Damaged { revision: place.revision, key: record.key.to_owned(), why });
        }
        last = Some(place);
        found += 1;
        each(place, record);
    }
    if found == expected {
        return Ok(());
    }
    let why = format!("it has {found} of {expected} records");
    Err(StoreError::FileDamaged { path: name.to_owned(), why })
}

/// Looks for the record that is damaged in a file that redb has refused, changing nothing. redb may panic on such a file.
fn damaged_record(disk: Arc<dyn Disk>) -> Option<StoreError> {
    let name = disk.name();
    let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let db = Builder::new().set_cache_size(CACHE_BYTES).open_read_only_with_backend(Backend(disk)).ok()?;
        scan(&db, &name, |_, _| {}).err()
    }));
    looked.ok().flatten().filter(|error| matches!(error, StoreError::Damaged { .. }))
}

/// What redb's error means to a caller.
fn fault(name: &str, doing: &'static str, error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::Io(error) if out_of_space(&error) => StoreError::NoSpace,
        redb::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            StoreError::FileDamaged { path: name.to_owned(), why: error.to_string() }
        }
        redb::Error::UpgradeRequired(version) => {
            StoreError::FileDamaged { path: name.to_owned(), why: format!("it has redb's old file format {version}") }
        }
        redb::Error::Io(source) => StoreError::Io { doing, source: Arc::new(source) },
        redb::Error::Corrupted(why) => StoreError::FileDamaged { path: name.to_owned(), why },
        redb::Error::DatabaseAlreadyOpen => StoreError::InUse { path: name.to_owned() },
        other => StoreError::Io { doing, source: Arc::new(other) },
    }
}

fn out_of_space(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}
