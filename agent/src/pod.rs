//! One pod: observe, plan, apply, report, repeat.

pub mod cri;
pub mod dns;
pub mod env;
pub mod hosts;
pub mod memory;
pub mod plan;
pub mod seen;
pub mod status;
pub mod want;
