//! One pod: observe, plan, apply, report, repeat.

pub mod admit;
mod apply;
pub mod cri;
pub mod dns;
pub mod env;
pub mod hosts;
mod last_words;
pub mod memory;
pub mod past;
pub mod plan;
mod probes;
mod pull;
mod refresh;
mod report;
pub mod resize;
pub mod seen;
pub mod status;
pub mod storage;
pub mod users;
pub mod want;
pub mod worker;
