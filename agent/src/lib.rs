//! The node agent.

#![forbid(unsafe_code)]

pub mod node;
pub mod server;
pub mod trace;
