//! The node agent.

#![forbid(unsafe_code)]

pub mod server;
pub mod trace;
