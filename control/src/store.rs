//! The store: every object as bytes under a key, every change under a revision.
//!
//! [`Store`] is the contract that a backend keeps: [`embedded`] (the default), [`etcd`] (where one control host is not
//! enough), and the model in the `tests` crate that checks them. [`cache`] stands on top of any of them and feeds every read, list and watch of the API; it
//! also carries the writes, so that an answer never runs ahead of what a reader can see.
//!
//! The store knows no clock and no chance: uids, names and times are stamped by the caller, and the caller says when to
//! [`compact`](Store::compact).

mod check;
mod compaction;
mod encode;
mod error;
mod key;
pub mod measured;

pub mod cache;
pub mod embedded;
pub mod encrypted;
pub mod etcd;
pub mod fill;
pub mod kinds;
pub mod snapshot;

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

pub use cache::{Cache, Event, Gone, Snapshot, Stored, Watcher, WriteError};
pub use compaction::{HISTORY_KEPT_SECONDS, compact_periodically};
pub use embedded::Embedded;
pub use encode::{EncodeError, Encoded, encode};
pub use encrypted::Encrypted;
pub use error::{Conflict, StoreError};
pub use etcd::Etcd;
pub use key::Key;
pub use measured::Measured;

/// The largest value, on every backend: etcd takes requests of 1.5 MiB.
pub const VALUE_MAX_BYTES: usize = 1_500_000;
/// The most operations in one write: etcd's own default.
pub const WRITE_MAX_OPS: usize = 128;

/// A point in the store's history. It only grows; each write has its own. 0 is the empty store.
pub type Revision = u64;

/// A boxed future, so that `dyn Store` is possible.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A value and the revision of the write that put it there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    pub value: Bytes,
    pub revision: Revision,
}

/// One item of a [`Page`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub key: Key,
    pub value: Bytes,
    pub revision: Revision,
}

/// Part of a list: the items in the order of their keys, as they stood at `revision`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub items: Vec<Item>,
    pub revision: Revision,
    /// True where more items follow the last one.
    pub more: bool,
}

/// A condition of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    pub key: Key,
    pub expect: Expect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// There is no such key.
    Absent,
    /// The key's value was put by the write of this revision.
    Revision(Revision),
}

/// One change of a write. All changes of a write have the same revision, and no two of them the same kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Put {
        key: Key,
        value: Bytes,
    },
    /// A put that may be forgotten in a crash: a node's heartbeat. The embedded backend answers it from memory and
    /// persists the latest one with [`embedded::Embedded::persist_heartbeats`]; every other backend treats it as a put.
    /// It stands alone in its write.
    Renew {
        key: Key,
        value: Bytes,
    },
    /// Fails with a conflict where there is no such key.
    Delete {
        key: Key,
    },
}

impl Op {
    pub fn key(&self) -> &Key {
        match self {
            Op::Put { key, .. } | Op::Renew { key, .. } | Op::Delete { key } => key,
        }
    }
}

/// One key's change, as a watch delivers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub key: Key,
    pub revision: Revision,
    /// Absent: the key was deleted.
    pub value: Option<Bytes>,
    /// The revision of what stood there before; absent: nothing did.
    pub previous: Option<Revision>,
}

/// What a watch delivers at a time: changes in the order of their revisions, complete up to and including `revision`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub changes: Vec<Change>,
    pub revision: Revision,
}

/// A watch in progress.
pub trait Watch: Send {
    /// The next changes; waits until there is progress. Dropping the future loses nothing.
    ///
    /// Fails with [`StoreError::Compacted`] where the position fell behind the oldest revision that is kept.
    fn next(&mut self) -> BoxFuture<'_, Result<Batch, StoreError>>;
}

/// The contract of a backend. Keys are ordered by their bytes. Nothing is visible before it is durable.
pub trait Store: Send + Sync + 'static {
    /// The value of a key, now or as of a revision that is still kept.
    fn get<'a>(&'a self, key: &'a Key, at: Option<Revision>) -> BoxFuture<'a, Result<Option<Versioned>, StoreError>>;

    /// Up to `limit` items whose keys begin with `prefix` and come after `after` (empty: from the first), now or as of a
    /// revision that is still kept.
    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: &'a str,
        limit: usize,
        at: Option<Revision>,
    ) -> BoxFuture<'a, Result<Page, StoreError>>;

    /// Does all of `ops` if all of `compares` hold, else nothing; durable before it answers, with its revision. Fails
    /// with [`StoreError::Conflict`] naming the first compare that does not hold (or the delete that found nothing).
    fn write(&self, compares: Vec<Compare>, ops: Vec<Op>) -> BoxFuture<'_, Result<Revision, StoreError>>;

    /// Every change after `from` of keys that begin with `prefix`.
    fn watch<'a>(&'a self, prefix: &'a str, from: Revision) -> BoxFuture<'a, Result<Box<dyn Watch>, StoreError>>;

    /// Forgets what was overwritten or deleted at or before `revision`: reads and watches from before it then fail.
    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The newest revision: every write that was answered before the call is at or below it.
    fn current(&self) -> BoxFuture<'_, Result<Revision, StoreError>>;
}
