//! Which members are made and which go now.
//!
//! In order: a member is made once all before it serve, and goes once all after it have gone. In parallel: at once. Either
//! way an update goes from the last member to the first, and takes no more than `maxUnavailable` of them at a time.

use std::collections::BTreeMap;
use std::ops::Range;

use gantry_kube::Object;
use jiff::Timestamp;
use serde_json::Value;

use crate::controllers::dependents::plan::replace_in;
use crate::controllers::informers::Pod;
use crate::controllers::revisions::HASH_LABEL;
use crate::controllers::time::share;

/// What a set wants of its members.
#[derive(Debug)]
pub struct Rules<'a> {
    pub wanted: Range<i64>,
    pub in_order: bool,
    /// `None`: only who is deleted by hand comes back as another.
    pub rolling: Option<Rolling>,
    /// The name of the revision that members are to be of.
    pub update: &'a str,
    pub min_ready_seconds: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rolling {
    /// The first member that is updated.
    pub from: i64,
    pub unavailable_max: usize,
}

impl<'a> Rules<'a> {
    pub fn new(set: &Object, update: &'a str) -> Rules<'a> {
        let start = set.i64_at("/spec/ordinals/start").unwrap_or(0);
        let replicas = set.i64_at("/spec/replicas").unwrap_or(1);
        let rolling = |field: &str| set.get(&format!("/spec/updateStrategy/rollingUpdate/{field}"));
        let unavailable = rolling("maxUnavailable").map_or(1, |value| share(value, replicas, false));
        let partition = rolling("partition").and_then(Value::as_i64).unwrap_or(0);
        Rules {
            wanted: start..start.saturating_add(replicas),
            in_order: set.str_at("/spec/podManagementPolicy") != "Parallel",
            rolling: (set.str_at("/spec/updateStrategy/type") != "OnDelete").then(|| Rolling {
                from: start.saturating_add(partition),
                unavailable_max: usize::try_from(unavailable).unwrap_or(0).max(1),
            }),
            update,
            min_ready_seconds: set.i64_at("/spec/minReadySeconds").unwrap_or(0),
        }
    }

    pub fn serves(&self, pod: &Pod, now: Timestamp) -> bool {
        is_ready(pod) && !pod.deleting && pod.available_in(self.min_ready_seconds, now) == Some(0)
    }

    /// A member below the partition stays what the others were.
    pub fn is_updated(&self, ordinal: i64) -> bool {
        self.rolling.is_none_or(|rolling| ordinal >= rolling.from)
    }
}

pub fn is_ready(pod: &Pod) -> bool {
    pod.ready && pod.phase == "Running"
}

/// What is done in one turn.
#[derive(Debug, Default)]
pub struct Step<'a> {
    pub create: Vec<i64>,
    pub delete: Vec<&'a Pod>,
    /// Of `delete`, those that have ended by themselves.
    pub ended: Vec<&'a Pod>,
    /// When what has ended may be made anew.
    pub wait_seconds: Option<i64>,
}

pub fn step<'a>(rules: &Rules<'_>, members: &BTreeMap<i64, &'a Pod>, now: Timestamp) -> Step<'a> {
    let mut step = Step::default();
    // Each part says whether the next may have its turn.
    let _ = step.fill(rules, members, now) && step.shrink(rules, members, now) && step.update(rules, members, now);
    step
}

impl<'a> Step<'a> {
    fn fill(&mut self, rules: &Rules<'_>, members: &BTreeMap<i64, &'a Pod>, now: Timestamp) -> bool {
        for ordinal in rules.wanted.clone() {
            match members.get(&ordinal) {
                None => self.create.push(ordinal),
                Some(pod) if pod.finished() && !pod.deleting => match replace_in(pod, now) {
                    0 => {
                        self.delete.push(pod);
                        self.ended.push(pod);
                    }
                    wait => self.wait_seconds = Some(self.wait_seconds.map_or(wait, |w| w.min(wait))),
                },
                Some(pod) if rules.serves(pod, now) => continue,
                Some(_) => {}
            }
            if rules.in_order {
                return false;
            }
        }
        true
    }

    fn shrink(&mut self, rules: &Rules<'_>, members: &BTreeMap<i64, &'a Pod>, now: Timestamp) -> bool {
        let surplus: Vec<(&i64, &&Pod)> = members.iter().filter(|(o, _)| !rules.wanted.contains(o)).collect();
        let first_broken = surplus.iter().find(|(_, pod)| !rules.serves(pod, now)).map(|(ordinal, _)| **ordinal);
        for (ordinal, pod) in surplus.into_iter().rev() {
            if pod.deleting {
                if rules.in_order {
                    return false;
                }
                continue;
            }
            // One that is broken goes when none before it is: its absence harms nobody.
            if rules.in_order && !rules.serves(pod, now) && first_broken != Some(*ordinal) {
                return false;
            }
            self.delete.push(pod);
            if rules.in_order {
                return false;
            }
        }
        true
    }

    fn update(&mut self, rules: &Rules<'_>, members: &BTreeMap<i64, &'a Pod>, now: Timestamp) -> bool {
        let Some(rolling) = rules.rolling else { return true };
        let serves = |ordinal: &i64| members.get(ordinal).is_some_and(|pod| rules.serves(pod, now));
        let mut unavailable = rules.wanted.clone().filter(|ordinal| !serves(ordinal)).count();
        for ordinal in rules.wanted.clone().rev().take_while(|ordinal| *ordinal >= rolling.from) {
            let Some(pod) = members.get(&ordinal).filter(|pod| !pod.deleting && !pod.finished()) else { continue };
            if revision(pod) == rules.update {
                continue;
            }
            if serves(&ordinal) {
                if unavailable >= rolling.unavailable_max {
                    return false;
                }
                unavailable += 1;
            }
            self.delete.push(pod);
        }
        true
    }
}

pub fn revision(pod: &Pod) -> &str {
    pod.labels.get(HASH_LABEL).and_then(Value::as_str).unwrap_or("")
}
