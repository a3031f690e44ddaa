//! Kubernetes timestamps in and out of plans.

use jiff::Timestamp;

pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// Whole seconds from `then` to `now`; negative where `then` is ahead.
pub fn seconds_since(then: Timestamp, now: Timestamp) -> i64 {
    now.as_second() - then.as_second()
}
