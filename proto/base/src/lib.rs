//! What the runtime and its supervisors agree on, and nothing else: ids, bounds, the frames on a supervisor's socket,
//! and the files in a container's bundle. The supervisor links this crate, so it has no clock, no async, no serde and
//! no Kubernetes. All encodings are little-endian and length-prefixed; a newer writer appends fields, an older reader
//! ignores what follows the ones it knows.

#![forbid(unsafe_code)]

pub mod codec;
pub mod exit;
pub mod fault;
pub mod frame;
pub mod id;
pub mod launch;
pub mod layout;
pub mod limits;
pub mod log;
pub mod time;

pub use codec::DecodeError;
pub use exit::ExitRecord;
pub use frame::{Event, Request};
pub use id::{Id, IdError};
pub use launch::Launch;
