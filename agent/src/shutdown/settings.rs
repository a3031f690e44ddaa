//! The kubelet's settings of a shutdown, read from the words of ours: one time for all pods with a part of it kept for critical
//! ones, or a time for each range of priorities.

use std::collections::BTreeMap;
use std::time::Duration;

use super::plan::Period;
use crate::eviction::rank::CRITICAL_PRIORITY;

/// What pods get to end, the critical ones included.
pub const TOTAL_DEFAULT: Duration = Duration::from_secs(30);
/// Of that, what critical pods get where nobody says it: a third, and no more than this.
const CRITICAL_MAX: Duration = Duration::from_secs(10);

/// The time of all, and what of it is kept for the critical ones. None at all where there is no time.
pub fn two(total: Duration, critical: Option<Duration>) -> Result<Vec<Period>, String> {
    let critical = critical.unwrap_or_else(|| (total / 3).min(CRITICAL_MAX));
    let Some(others) = total.checked_sub(critical) else {
        return Err(format!("critical pods cannot have {} s of {} s", critical.as_secs(), total.as_secs()));
    };
    if total.is_zero() {
        return Ok(Vec::new());
    }
    let period = |priority: i64, time: Duration| -> Result<Period, String> {
        let seconds = u32::try_from(time.as_secs()).map_err(|_| format!("{} s is no time to end", time.as_secs()))?;
        Ok(Period { priority: i32::try_from(priority).map_err(|e| e.to_string())?, seconds })
    };
    // Whole seconds, and the sum is the total: what the one loses of a second, the other has.
    Ok(vec![period(0, others)?, period(CRITICAL_PRIORITY, critical)?])
}

/// Sorted by their priorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Periods(pub Vec<Period>);

/// `priority=seconds,priority=seconds`: each priority once.
pub fn by_priority(text: &str) -> Result<Periods, String> {
    let mut all = BTreeMap::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (priority, seconds) = pair.split_once('=').ok_or_else(|| format!("{pair:?} is not PRIORITY=SECONDS"))?;
        let (priority, seconds) = (priority.trim(), seconds.trim());
        let known: i32 = priority.parse().map_err(|_| format!("{priority:?} is no priority"))?;
        let time: u32 = seconds.parse().map_err(|_| format!("{seconds:?} is no number of seconds"))?;
        if all.insert(known, time).is_some() {
            return Err(format!("priority {known} is there twice"));
        }
    }
    if all.is_empty() {
        return Err("no priority has a time".to_owned());
    }
    Ok(Periods(all.into_iter().map(|(priority, seconds)| Period { priority, seconds }).collect()))
}

/// What a node does that is told nothing.
pub fn standard() -> Vec<Period> {
    two(TOTAL_DEFAULT, None).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(periods: &[Period]) -> Vec<(i32, u32)> {
        periods.iter().map(|period| (period.priority, period.seconds)).collect()
    }

    #[test]
    fn critical_pods_have_the_last_part_of_the_time() {
        let two = |total, critical: Option<u64>| {
            super::two(Duration::from_secs(total), critical.map(Duration::from_secs)).map(|made| shown(&made))
        };
        assert_eq!(shown(&standard()), [(0, 20), (2_000_000_000, 10)]);
        assert_eq!(two(60, None), Ok(vec![(0, 50), (2_000_000_000, 10)]));
        assert_eq!(two(6, None), Ok(vec![(0, 4), (2_000_000_000, 2)]));
        assert_eq!(two(30, Some(0)), Ok(vec![(0, 30), (2_000_000_000, 0)]));
        assert_eq!(two(30, Some(30)), Ok(vec![(0, 0), (2_000_000_000, 30)]));
        assert_eq!(two(0, None), Ok(vec![]));
        assert_eq!(two(5, Some(6)).unwrap_err(), "critical pods cannot have 6 s of 5 s");
        assert_eq!(two(u64::MAX, Some(0)).unwrap_err(), format!("{} s is no time to end", u64::MAX));
    }

    #[test]
    fn periods_are_sorted_and_what_is_wrong_is_named() {
        let made = by_priority(" 100000=10, 0=60,-5=7 ,1000=120").unwrap();
        assert_eq!(shown(&made.0), [(-5, 7), (0, 60), (1000, 120), (100_000, 10)]);
        for (text, why) in [
            ("10", "\"10\" is not PRIORITY=SECONDS"),
            ("high=10", "\"high\" is no priority"),
            ("2147483648=10", "\"2147483648\" is no priority"),
            ("0=3m", "\"3m\" is no number of seconds"),
            ("0=-1", "\"-1\" is no number of seconds"),
            ("0=1,0=2", "priority 0 is there twice"),
            (" , ", "no priority has a time"),
        ] {
            assert_eq!(by_priority(text).unwrap_err(), why);
        }
    }
}
