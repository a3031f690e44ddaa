//! Which pods of the old template go, and where ones of the new are made beside them.
//!
//! Without surge a node's pod goes before the next is made, and at most `maxUnavailable` nodes are without an available
//! one. With surge the next is made first, on at most `maxSurge` nodes at a time, and the old one goes once it is available.

use gantry_kube::Object;

use super::plan::Seat;
use crate::controllers::informers::Pod;
use crate::controllers::time::share;

/// What a turn of the rollout does.
#[derive(Debug, Default)]
pub struct Step<'a> {
    pub delete: Vec<&'a Pod>,
    /// Nodes that are to have a second pod.
    pub create: Vec<&'a str>,
}

pub fn step<'a>(set: &Object, seats: &[Seat<'a>], is_available: impl Fn(&Pod) -> bool) -> Step<'a> {
    let wanted = seats.iter().filter(|seat| seat.fit.runs).count() as i64;
    let bound = |field: &str| {
        let value = set.get(&format!("/spec/updateStrategy/rollingUpdate/{field}"));
        usize::try_from(value.map_or(0, |value| share(value, wanted, true))).unwrap_or(0)
    };
    let running = seats.iter().filter(|seat| seat.fit.runs);
    match bound("maxSurge") {
        0 => one_for_one(running, bound("maxUnavailable").max(1), is_available),
        surge => beside(running, surge, is_available),
    }
}

fn one_for_one<'a: 'b, 'b>(
    seats: impl Iterator<Item = &'b Seat<'a>>,
    unavailable_max: usize,
    is_available: impl Fn(&Pod) -> bool,
) -> Step<'a> {
    let (mut step, mut ready, mut unavailable) = (Step::default(), Vec::new(), 0_usize);
    for seat in seats {
        match (seat.old, seat.new) {
            (_, Some(new)) if is_available(new) => {}
            // What serves nobody is replaced whatever the bound.
            (Some(old), None) if is_available(old) => ready.push(old),
            (Some(old), None) => {
                unavailable += 1;
                step.delete.push(old);
            }
            _ => unavailable += 1,
        }
    }
    ready.truncate(unavailable_max.saturating_sub(unavailable));
    step.delete.extend(ready);
    step
}

fn beside<'a: 'b, 'b>(
    seats: impl Iterator<Item = &'b Seat<'a>>,
    surge_max: usize,
    is_available: impl Fn(&Pod) -> bool,
) -> Step<'a> {
    let (mut step, mut ready, mut surging) = (Step::default(), Vec::new(), 0_usize);
    for seat in seats {
        match (seat.old, seat.new) {
            (Some(old), Some(new)) if is_available(new) => step.delete.push(old),
            (Some(old), Some(_)) => {
                surging += 1;
                if !is_available(old) {
                    step.delete.push(old);
                }
            }
            // Its place is taken by the new one without waiting.
            (Some(old), None) if !is_available(old) => step.create.push(seat.node),
            (Some(_), None) => ready.push(seat.node),
            (None, _) => {}
        }
    }
    ready.truncate(surge_max.saturating_sub(surging));
    step.create.extend(ready);
    step
}
