use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_kube::{Object, Ref};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::nodes::{self, Fit};
use super::rolling;
use crate::controllers::dependents::plan::{Outstanding, Turn, claim, mark, pod_from, replace_in};
use crate::controllers::informers::Pod;
use crate::controllers::revisions::{self, HASH_LABEL, History};
use crate::controllers::time::later;

/// What a turn sees.
pub struct World {
    pub pods: Vec<Arc<Pod>>,
    pub nodes: Vec<Arc<Object>>,
    pub revisions: Vec<Arc<Object>>,
    pub outstanding: Outstanding,
    pub now: Timestamp,
}

/// A node, and which of the set's pods is on it.
#[derive(Debug)]
pub struct Seat<'a> {
    pub node: &'a str,
    pub fit: Fit,
    /// Of an older template, and of the one that is wanted.
    pub old: Option<&'a Pod>,
    pub new: Option<&'a Pod>,
    /// A pod that goes, or has ended, still holds the place.
    taken: bool,
}

impl<'a> Seat<'a> {
    fn pods(&self) -> impl Iterator<Item = &'a Pod> + use<'a> {
        self.old.into_iter().chain(self.new)
    }

    fn is_empty(&self) -> bool {
        self.old.is_none() && self.new.is_none() && !self.taken
    }
}

pub fn plan(set: &Object, world: &World, suffix: impl Fn(usize) -> String) -> Turn {
    let history = revisions::plan(set, &world.revisions);
    let (mine, ownership) = claim(set, &world.pods);
    let mut plan = Turn { ownership, ..Turn::default() };
    let seats = plan.seat(set, world, &history, &mine);
    plan.status = status(set, &seats, world.now, &mut plan.check_again);
    if set.deletion_timestamp().is_some() {
        return Turn { status: plan.status, ..Turn::default() };
    }
    plan.revisions = history.changes.clone();
    let in_use = revisions::in_use(mine.iter().map(|pod| &pod.labels));
    plan.revisions.extend(history.clean_up(set, |old| old.label(HASH_LABEL).is_some_and(|hash| in_use.contains(hash))));
    if !world.outstanding.is_empty() {
        // What is not yet seen is neither made nor deleted twice.
        return Turn { create: Vec::new(), delete: Vec::new(), warnings: Vec::new(), ..plan };
    }
    let mut wanting: Vec<&str> = seats.iter().filter(|s| s.fit.runs && s.is_empty()).map(|s| s.node).collect();
    if set.str_at("/spec/updateStrategy/type") == "RollingUpdate" {
        let min_ready = min_ready(set);
        let step = rolling::step(set, &seats, |pod| pod.available_in(min_ready, world.now) == Some(0));
        plan.delete.extend(step.delete.into_iter().map(named));
        wanting.extend(step.create);
    }
    plan.create = wanting.into_iter().map(|node| pod(set, node, &history.hash, &suffix(5))).collect();
    plan
}

fn min_ready(set: &Object) -> i64 {
    set.i64_at("/spec/minReadySeconds").unwrap_or(0)
}

fn named(pod: &Pod) -> (Ref, String) {
    (pod.reference(), pod.uid.clone())
}

fn pod(set: &Object, node: &str, hash: &str, suffix: &str) -> Object {
    let mut pod = pod_from(set, suffix);
    mark(&mut pod, "labels", HASH_LABEL, hash);
    nodes::pin(&mut pod, node);
    pod
}

impl Turn {
    /// Gives each node its pods; what is on a node that it may not be on, has ended or is one too many, goes.
    fn seat<'a>(&mut self, set: &Object, world: &'a World, history: &History<'_>, mine: &[&'a Pod]) -> Vec<Seat<'a>> {
        let spec = set.get("/spec/template/spec").cloned().unwrap_or_default();
        let tolerations = nodes::tolerations(&spec);
        let mut by_node: BTreeMap<&str, Vec<&'a Pod>> = BTreeMap::new();
        for pod in mine {
            by_node.entry(pod.seat()).or_default().push(pod);
        }
        let mut seats = Vec::new();
        for node in &world.nodes {
            let fit = nodes::fit(&spec, &tolerations, node);
            let pods = by_node.remove(node.name()).unwrap_or_default();
            if fit.stays {
                seats.push(self.choose(set, world, history, node.name(), fit, pods));
            } else {
                self.leave(&pods);
                let taken = !pods.is_empty();
                seats.push(Seat { node: node.name(), fit, old: None, new: None, taken });
            }
        }
        // Their nodes are gone: those that were bound are the pod collector's.
        for pods in by_node.values() {
            self.leave(&pods.iter().copied().filter(|pod| pod.node.is_empty()).collect::<Vec<_>>());
        }
        seats
    }

    fn leave(&mut self, pods: &[&Pod]) {
        self.delete.extend(pods.iter().filter(|pod| !pod.deleting).map(|pod| named(pod)));
    }

    fn choose<'a>(
        &mut self,
        set: &Object,
        world: &World,
        history: &History<'_>,
        node: &'a str,
        fit: Fit,
        mut pods: Vec<&'a Pod>,
    ) -> Seat<'a> {
        // The one that serves for the longest stays.
        pods.sort_by_key(|pod| (!pod.ready, pod.node.is_empty(), pod.created.clone(), pod.uid.clone()));
        let mut seat = Seat { node, fit, old: None, new: None, taken: false };
        for pod in pods {
            if pod.deleting || world.outstanding.deleted.contains(&pod.uid) {
                seat.taken = true;
                continue;
            }
            if pod.finished() {
                seat.taken = true;
                self.ended(pod, world.now);
                continue;
            }
            let is_new = pod.labels.get(HASH_LABEL).and_then(Value::as_str) == Some(&history.hash);
            let place = if is_new { &mut seat.new } else { &mut seat.old };
            if place.is_some() {
                self.delete.push(named(pod));
            } else {
                *place = Some(pod);
            }
        }
        // Both may be there only while the one makes room for the other.
        let surge = set.get("/spec/updateStrategy/rollingUpdate/maxSurge");
        let surges =
            surge.is_some_and(|s| s != 0 && s != "0%") && set.str_at("/spec/updateStrategy/type") != "OnDelete";
        if let (Some(old), Some(_), false) = (seat.old, seat.new, surges) {
            self.delete.push(named(old));
            seat.old = None;
        }
        seat
    }

    /// A daemon that has ended is made anew, but not at once where it ended at once.
    fn ended(&mut self, pod: &Pod, now: Timestamp) {
        let wait = replace_in(pod, now);
        if wait > 0 {
            later(&mut self.check_again, wait);
            return;
        }
        let (reason, word) = match pod.phase.as_str() {
            "Failed" => ("FailedDaemonPod", "failed"),
            _ => ("SucceededDaemonPod", "succeeded"),
        };
        let message =
            format!("Found {word} daemon pod {} on node {}, will try to kill it", pod.reference(), pod.seat());
        self.warnings.push((reason, message));
        self.delete.push(named(pod));
    }
}

fn status(set: &Object, seats: &[Seat<'_>], now: Timestamp, check_again: &mut Option<Duration>) -> Option<Value> {
    let (mut current, mut ready, mut available, mut updated) = (0, 0, 0, 0);
    let (wanted, strangers): (Vec<&Seat<'_>>, Vec<&Seat<'_>>) = seats.iter().partition(|seat| seat.fit.runs);
    for seat in &wanted {
        current += i64::from(seat.taken || seat.pods().next().is_some());
        let waits: Vec<i64> = seat.pods().filter_map(|pod| pod.available_in(min_ready(set), now)).collect();
        ready += i64::from(!waits.is_empty());
        available += i64::from(waits.contains(&0));
        waits.iter().filter(|wait| **wait > 0).for_each(|wait| later(check_again, *wait));
        updated += i64::from(seat.new.is_some());
    }
    let misplaced = strangers.iter().filter(|seat| seat.taken || seat.pods().next().is_some()).count();
    let mut status = json!({
        "observedGeneration": set.generation(), "desiredNumberScheduled": wanted.len(),
        "currentNumberScheduled": current, "numberMisscheduled": misplaced, "numberReady": ready,
    });
    for (key, value) in [
        ("updatedNumberScheduled", updated),
        ("numberAvailable", available),
        ("numberUnavailable", wanted.len() as i64 - available),
    ] {
        if value > 0 {
            status[key] = json!(value);
        }
    }
    for kept in ["collisionCount", "conditions"] {
        if let Some(value) = set.get(&format!("/status/{kept}")) {
            status[kept] = value.clone();
        }
    }
    (set.get("/status") != Some(&status)).then_some(status)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
