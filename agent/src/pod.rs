//! One pod: observe, plan, apply, report, repeat.

pub mod memory;
pub mod plan;
pub mod seen;
pub mod want;
