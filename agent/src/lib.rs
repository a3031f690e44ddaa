//! The node agent: it makes the runtime do what the API (or a file) says a pod should be, and says back what came of it.
//!
//! A pod comes from a [`source`] (the API, a manifest folder, the checkpoint of an earlier life). [`pods`] is the one task
//! that owns the maps: it admits pods and gives each a worker. A worker ([`pod`]) observes over CRI ([`runtime`]), plans
//! (`pod/plan.rs`), applies, and reports a status. [`volume`] and `pod/env.rs` bring the pod its files and environment,
//! [`probe`] asks containers how they are, [`events`] tells users what happened, [`node`] keeps the Node and its Lease,
//! [`stats`] knows what everything uses, [`eviction`] makes room where it runs short, [`shutdown`] ends pods in order before the
//! machine's end, and [`server`] is the kubelet API on port 10250.

#![forbid(unsafe_code)]

mod agent;
pub mod config;
pub mod events;
pub mod eviction;
mod files;
pub mod log;
pub mod logs;
pub mod node;
pub mod pod;
pub mod pods;
pub mod probe;
pub mod runtime;
pub mod server;
mod shared;
pub mod shutdown;
pub mod source;
pub mod stats;
pub mod trace;
pub mod users;
pub mod volume;

pub use agent::{Agent, StartError, cleanup};
pub use config::{Config, POD_PIDS_MAX};
pub use pods::Pulse;
