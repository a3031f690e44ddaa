//! Services and cluster DNS on a node. Informers tell what Services and EndpointSlices there are; the pure half decides
//! which elements the maps of the nf_tables table `gantry` should hold; the thin half sends the difference. DNS answers
//! come from the same informers.
//!
//! Data flows: [`model`] (what is kept of the objects) → [`directory`] (all of them, indexed) → [`plan`] (which elements,
//! in which order) → [`ruleset`] (the few rules that read them) → [`apply`] (netlink), and beside it [`dns`].

#![forbid(unsafe_code)]

pub mod apply;
pub mod directory;
pub mod dns;
pub mod image;
pub mod model;
pub mod plan;
mod proxy;
pub mod ruleset;
mod trace;

pub use proxy::{Config, Proxy, ProxyError};
pub use trace::Programmed;
