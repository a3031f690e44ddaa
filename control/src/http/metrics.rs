//! What the API server counts, under the names by which dashboards of Kubernetes ask. No label is a client's to invent, and
//! what a request costs here is one look-up and a few additions to atomic numbers: all else is done for who asks.

mod access;
mod requests;
mod watch;
mod write;

use std::sync::Arc;

use gantry_env::metrics::Counter;

pub use access::Access;
pub use requests::{Busy, Labels, Open, Requests, Series};
pub use watch::{Counted, WatchEvents};
pub use write::text;

use crate::scheduler;
use crate::store::measured;

/// What all parts of one control service count.
#[derive(Debug, Default)]
pub struct Metrics {
    pub requests: Requests,
    pub access: Access,
    pub watch_events: WatchEvents,
    pub tls_handshake_errors: Counter,
    pub store: Arc<measured::Metrics>,
    /// Of controllers and scheduler.
    pub clients: Arc<gantry_client::Metrics>,
    pub scheduler: Arc<scheduler::Metrics>,
}

#[cfg(test)]
mod tests;
