//! The wire: TLS and HTTP in, bytes out.
//!
//! ```text
//! listener ── empty extension map ──┐
//!                                   ├─▶ router: RequestInfo → authenticate → authorise → verb → answer
//! in process ── typed Identity ─────┘
//! ```

pub mod body;
pub mod discovery;
pub mod health;
mod impersonation;
pub mod inflight;
mod kubelet;
pub mod listener;
pub mod media;
pub mod metrics;
mod openapi;
pub mod paths;
mod proxy;
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
