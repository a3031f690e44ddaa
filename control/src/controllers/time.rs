//! Kubernetes timestamps, and shares of a number, in and out of plans.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// Whole seconds from `then` to `now`; negative where `then` is ahead.
pub fn seconds_since(then: Timestamp, now: Timestamp) -> i64 {
    now.as_second() - then.as_second()
}

/// Brings the next look forward to `seconds` from now, where it was later.
pub fn later(check_again: &mut Option<Duration>, seconds: i64) {
    let wait = Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(1));
    *check_again = Some(check_again.map_or(wait, |at| at.min(wait)));
}

/// A number, or a percentage of `total`.
pub fn share(value: &Value, total: i64, round_up: bool) -> i64 {
    let Some(text) = value.as_str() else { return value.as_i64().unwrap_or(0) };
    let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
    let scaled = percent.saturating_mul(total);
    if round_up { scaled.saturating_add(99).div_euclid(100) } else { scaled.div_euclid(100) }
}
