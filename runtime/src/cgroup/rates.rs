//! The processor's use as a rate: of two readings of one cgroup, whoever asked for them. Nothing reads on its own account.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// Readings nearer to each other tell of chance: then the rate of the window before is the answer.
const WINDOW_MIN_NANOS: i64 = 1_000_000_000;

/// By cgroup, until it is forgotten.
#[derive(Debug, Default)]
pub struct Rates(Mutex<BTreeMap<String, Window>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    since: i64,
    used_nanos: u64,
    nano_cores: Option<u64>,
}

impl Rates {
    /// What was used a second, in billionths of a processor, between an earlier reading and this one; none of the first.
    pub fn next(&self, cgroup: &str, now: i64, used_nanos: u64) -> Option<u64> {
        let mut windows = self.0.lock();
        let next = next(windows.get(cgroup).copied(), now, used_nanos);
        windows.insert(cgroup.to_owned(), next);
        next.nano_cores
    }

    pub fn forget(&self, cgroup: &str) {
        self.0.lock().remove(cgroup);
    }
}

fn next(before: Option<Window>, now: i64, used_nanos: u64) -> Window {
    let first = Window { since: now, used_nanos, nano_cores: None };
    let Some(before) = before else { return first };
    let elapsed = now.saturating_sub(before.since);
    // A counter that has gone back is another cgroup of the same name; a clock that has gone back measures nothing.
    let (Some(used), 0..) = (used_nanos.checked_sub(before.used_nanos), elapsed) else { return first };
    if elapsed < WINDOW_MIN_NANOS {
        return before;
    }
    let rate = u128::from(used) * 1_000_000_000 / u128::from(elapsed.unsigned_abs());
    Window { nano_cores: u64::try_from(rate).ok(), ..first }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn a_rate_is_of_two_readings_that_are_far_enough_apart() {
        let rates = Rates::default();
        assert_eq!(rates.next("a", 0, 500), None, "one reading is no rate");
        assert_eq!(rates.next("a", SECOND / 2, 900_000_000), None, "too near");
        assert_eq!(rates.next("a", 2 * SECOND, 3_000_000_500), Some(1_500_000_000));
        assert_eq!(rates.next("a", 2 * SECOND + 1, 9_000_000_000), Some(1_500_000_000), "the window before");
        assert_eq!(rates.next("a", 4 * SECOND, 3_000_000_500), Some(0));
        assert_eq!(rates.next("b", 4 * SECOND, 7), None, "another cgroup");
        assert_eq!(rates.next("a", 6 * SECOND, 1), None, "a counter that began anew");
        assert_eq!(rates.next("a", 5 * SECOND, 2), None, "a clock that was set back");
        rates.forget("a");
        assert_eq!(rates.next("a", 9 * SECOND, 9), None);
    }
}
