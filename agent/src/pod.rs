//! One pod: observe, plan, apply, report, repeat.

pub mod admit;
mod apply;
pub mod cri;
pub mod dns;
pub mod env;
pub mod hosts;
pub mod memory;
pub mod past;
pub mod plan;
mod pull;
pub mod seen;
pub mod status;
pub mod storage;
pub mod want;
pub mod worker;
