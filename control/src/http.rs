//! The wire: TLS and HTTP in, bytes out.
//!
//! ```text
//! listener ── empty extension map ──┐
//!                                   ├─▶ router: RequestInfo → authenticate → authorise → verb → answer
//! in process ── typed Identity ─────┘
//! ```

pub mod body;
mod component_status;
pub(crate) mod configz;
mod deadline;
pub mod discovery;
pub mod health;
mod idle;
mod impersonation;
pub mod inflight;
mod kubelet;
pub mod listener;
pub mod media;
pub mod metrics;
mod openapi;
mod outgoing;
pub mod paths;
pub(crate) mod proxy;
pub mod query;
mod relay;
pub mod request_info;
mod resources;
mod respond;
mod reviews;
pub mod router;
mod shape;
mod subresources;
mod turns;
mod usage;

pub use kubelet::Kubelets;
pub use router::{Router, Server};
