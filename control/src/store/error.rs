use std::sync::Arc;

use super::{Key, Revision, VALUE_MAX_BYTES, Versioned, WRITE_MAX_OPS};

/// The compare that did not hold, and what stands under its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub key: Key,
    pub current: Option<Versioned>,
}

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{} was changed meanwhile", .0.key)]
    Conflict(Box<Conflict>),
    #[error("revision {asked} is compacted, the oldest that is kept is {oldest}")]
    Compacted { asked: Revision, oldest: Revision },
    #[error("revision {asked} is not yet, the newest is {current}")]
    Future { asked: Revision, current: Revision },
    #[error("a write of {count} operations, 1 to {WRITE_MAX_OPS} are possible")]
    OpCount { count: usize },
    #[error("a write names the kind {kind} twice")]
    KindTwice { kind: String },
    #[error("a heartbeat of {key} does not stand alone in its write")]
    RenewNotAlone { key: Key },
    #[error("the value of {key} has {bytes} bytes, {VALUE_MAX_BYTES} are possible")]
    ValueTooLarge { key: Key, bytes: usize },
    #[error("a write of {bytes} bytes is more than the store takes at a time")]
    WriteTooLarge { bytes: usize },
    #[error("no space is left on the disk of the store")]
    NoSpace,
    /// The request was not carried out: nobody took it.
    #[error("none of the store's servers {servers} answers")]
    Unreachable {
        servers: String,
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The write was sent, and the answer did not come: it is there, or it is not, or it will be.
    #[error("it is not known whether the write was done")]
    Unknown {
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    #[error("the store at {place} cannot be used: {why}")]
    Foreign { place: String, why: String },
    #[error("the store cannot {doing}")]
    Io {
        doing: &'static str,
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The record at `revision` does not have the bytes that were written.
    #[error("the store is damaged at revision {revision}, key {key:?}: {why}")]
    Damaged { revision: Revision, key: String, why: &'static str },
    #[error("the value of {key} cannot be read: {why}")]
    Sealed { key: Key, why: String },
    #[error("the store's file {path} is damaged: {why}")]
    FileDamaged { path: String, why: String },
    #[error("the store's file {path} is in use by another process")]
    InUse { path: String },
    /// A failed write closed the file, and it could not be opened again so far.
    #[error("the store could not be opened again after a failed write")]
    Broken,
    #[error("the store is closed")]
    Closed,
    #[error("the store's writer has panicked: no write is possible before a restart")]
    WriterPanicked,
}

impl StoreError {
    /// True where the same call was not carried out, and may succeed later without any change on the caller's side.
    pub fn retryable(&self) -> bool {
        match self {
            StoreError::NoSpace
            | StoreError::Io { .. }
            | StoreError::Future { .. }
            | StoreError::Broken
            | StoreError::Unreachable { .. } => true,
            StoreError::Conflict(_)
            | StoreError::Compacted { .. }
            | StoreError::OpCount { .. }
            | StoreError::KindTwice { .. }
            | StoreError::RenewNotAlone { .. }
            | StoreError::ValueTooLarge { .. }
            | StoreError::WriteTooLarge { .. }
            | StoreError::Unknown { .. }
            | StoreError::Foreign { .. }
            | StoreError::Sealed { .. }
            | StoreError::Damaged { .. }
            | StoreError::FileDamaged { .. }
            | StoreError::InUse { .. }
            | StoreError::Closed
            | StoreError::WriterPanicked => false,
        }
    }
}
