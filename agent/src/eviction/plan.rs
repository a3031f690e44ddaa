//! What is observed against the thresholds: which pressures the node shows, and which threshold calls for action. Pure.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::Pressures;
use super::thresholds::{Pressure, Settings, Signal, Threshold};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    pub available: u64,
    pub capacity: u64,
}

pub type Observed = BTreeMap<Signal, Observation>;

/// What is remembered from look to look.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// By its place among the thresholds: since when it has been met.
    since: BTreeMap<usize, Instant>,
    /// By its place: it called for action, and what was to be reclaimed is not there yet.
    acting: BTreeSet<usize>,
    pressed: BTreeMap<Pressure, Instant>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub pressures: Pressures,
    /// The most urgent of those whose time has come.
    pub act: Option<Threshold>,
    pub memory: Memory,
}

/// A signal of which nothing is known is not short.
fn is_met(threshold: &Threshold, observed: &Observed, with_reclaim: bool) -> bool {
    observed.get(&threshold.signal).is_some_and(|seen| {
        let reclaim = if with_reclaim { threshold.reclaim.of(seen.capacity) } else { 0 };
        seen.available < threshold.amount.of(seen.capacity).saturating_add(reclaim)
    })
}

pub fn judge(settings: &Settings, observed: &Observed, before: &Memory, now: Instant) -> Verdict {
    let mut memory = Memory::default();
    for (place, threshold) in settings.thresholds.iter().enumerate() {
        if is_met(threshold, observed, before.acting.contains(&place)) {
            memory.since.insert(place, before.since.get(&place).copied().unwrap_or(now));
            memory.pressed.insert(threshold.signal.pressure(), now);
        }
    }
    for (pressure, at) in &before.pressed {
        // Shown for a while after it is gone: what goes to and fro drives pods away for nothing.
        if now.duration_since(*at) < settings.transition {
            memory.pressed.entry(*pressure).or_insert(*at);
        }
    }
    for (place, since) in &memory.since {
        let grace = settings.thresholds[*place].grace.unwrap_or_default();
        if now.duration_since(*since) >= grace {
            memory.acting.insert(*place);
        }
    }
    // A hard threshold before a soft one of the same signal.
    let due = memory.acting.iter().map(|place| settings.thresholds[*place]);
    let act = due.min_by_key(|threshold| (threshold.signal, threshold.grace.is_some()));
    Verdict { pressures: memory.pressed.keys().copied().collect(), act, memory }
}
