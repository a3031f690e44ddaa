//! How Gantry's own components speak to the Kubernetes API: verbs over whole objects, shared informers, work queues.
//!
//! [`Client`] rides on any `kube::Client`: one over TLS to an API server, or one over the in-process router of the control
//! service. An [`Informer`] keeps a projection of every object of a kind (only the fields that its consumer names) and
//! tells subscribers which keys changed, never why. A [`WorkQueue`] turns such keys into turns of work: one turn per key
//! at a time, coalesced while it waits, with back-off where a turn failed.

#![forbid(unsafe_code)]

mod client;
mod connect;
mod error;
mod informer;
mod metrics;
mod queue;
mod watch;

pub use client::{Client, DeleteOptions, List, Patch, Pieces, Query};
pub use connect::ConnectError;
pub use error::ClientError;
pub use informer::{Change, Informer, Scope, Subscription};
pub use metrics::Metrics;
pub use queue::{WorkQueue, run_workers};
pub use watch::{WatchEvent, WatchStream};
