use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_kube::Object;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::claims;
use super::order::{self, Rules, revision};
use crate::controllers::dependents::plan::{Outstanding, Turn, claim, mark, named_pod};
use crate::controllers::informers::Pod;
use crate::controllers::revisions::{self, HASH_LABEL};
use crate::controllers::time::later;

const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";
/// Pods that are made in one turn.
const BURST_MAX: usize = 500;

/// What a turn sees.
pub struct World {
    pub pods: Vec<Arc<Pod>>,
    pub revisions: Vec<Arc<Object>>,
    /// Of the namespace.
    pub claims: Vec<Arc<Object>>,
    pub outstanding: Outstanding,
    pub now: Timestamp,
}

pub fn plan(set: &Object, world: &World) -> Turn {
    let history = revisions::plan(set, &world.revisions);
    // A pod that merely fits is a member only under a member's name.
    let candidates: Vec<Arc<Pod>> = world
        .pods
        .iter()
        .filter(|pod| pod.controller_uid == set.uid() || ordinal(set, &pod.reference().name).is_some())
        .cloned()
        .collect();
    let (mine, ownership) = claim(set, &candidates);
    let members: BTreeMap<i64, &Pod> =
        mine.iter().filter_map(|pod| Some((ordinal(set, &pod.reference().name)?, *pod))).collect();
    let rules = Rules::new(set, &history.name);
    let current = current(set, &history.name, &world.revisions);
    let mut plan = Turn { ownership, ..Turn::default() };
    plan.status = status(set, &rules, &members, &current, world.now, &mut plan.check_again);
    if set.deletion_timestamp().is_some() {
        return Turn { status: plan.status, ..Turn::default() };
    }
    plan.revisions = history.changes.clone();
    let in_use = |old: &Object| old.name() == current || mine.iter().any(|pod| revision(pod) == old.name());
    plan.revisions.extend(history.clean_up(set, in_use));
    if !world.outstanding.is_empty() {
        // What is not yet seen is neither made nor deleted twice.
        return plan;
    }
    let step = order::step(&rules, &members, world.now);
    let template_of = |ordinal: i64| if rules.is_updated(ordinal) { &history.name } else { &current };
    plan.claim_owners = claims::owners(set, &rules, &members, &world.claims);
    // One whose claim went while it still waits for a node waits for ever without another.
    let waiting = members.iter().filter(|(n, pod)| rules.wanted.contains(n) && pod.phase == "Pending" && !pod.deleting);
    for ordinal in waiting.map(|(ordinal, _)| ordinal).chain(step.create.iter().take(BURST_MAX)) {
        let Some(missing) = claims::missing(set, *ordinal, &world.claims) else { continue };
        let name = format!("{}-{ordinal}", set.name());
        plan.claims.extend(missing.into_iter().map(|claim| (claim, name.clone())));
        if !members.contains_key(ordinal) {
            plan.create.push(member(set, *ordinal, template_of(*ordinal), &world.revisions));
        }
    }
    plan.delete = step.delete.iter().map(|pod| (pod.reference(), pod.uid.clone())).collect();
    plan.warnings.extend(step.ended.iter().map(|pod| {
        let message =
            format!("StatefulSet {} is recreating {} Pod {}", set.reference(), pod.phase, pod.reference().name);
        ("RecreatingFailedPod", message)
    }));
    if let Some(wait) = step.wait_seconds {
        later(&mut plan.check_again, wait);
    }
    plan
}

/// The number at the end of a member's name.
fn ordinal(set: &Object, name: &str) -> Option<i64> {
    let digits = name.strip_prefix(set.name())?.strip_prefix('-')?;
    let plain =
        !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    digits.parse().ok().filter(|_| plain)
}

/// The revision that members had before the update that is under way; the same one where there is none.
fn current(set: &Object, update: &str, revisions: &[Arc<Object>]) -> String {
    let known = |name: &&str| revisions.iter().any(|revision| revision.name() == *name);
    Some(set.str_at("/status/currentRevision")).filter(known).unwrap_or(update).to_owned()
}

fn member(set: &Object, ordinal: i64, of: &str, revisions: &[Arc<Object>]) -> Object {
    let kept = revisions.iter().find(|revision| revision.name() == of);
    let template = kept.and_then(|revision| revision.get("/data/spec/template")).or_else(|| set.get("/spec/template"));
    let name = format!("{}-{ordinal}", set.name());
    let mut pod = named_pod(set, template.unwrap_or(&Value::Null), &name);
    mark(&mut pod, "labels", NAME_LABEL, &name);
    mark(&mut pod, "labels", INDEX_LABEL, &ordinal.to_string());
    mark(&mut pod, "labels", HASH_LABEL, of);
    let spec = pod.map_mut("spec");
    spec.insert("hostname".to_owned(), json!(name));
    if let Some(service) = set.get("/spec/serviceName").filter(|service| *service != "") {
        spec.insert("subdomain".to_owned(), service.clone());
    }
    claims::mount(set, ordinal, spec);
    pod
}

fn status(
    set: &Object,
    rules: &Rules<'_>,
    members: &BTreeMap<i64, &Pod>,
    current: &str,
    now: Timestamp,
    check_again: &mut Option<Duration>,
) -> Option<Value> {
    let (mut all, mut ready, mut available, mut of_current, mut updated) = (0, 0, 0, 0, 0);
    for pod in members.values() {
        all += 1;
        if order::is_ready(pod) {
            ready += 1;
            match pod.available_in(rules.min_ready_seconds, now) {
                Some(0) => available += 1,
                Some(wait) => later(check_again, wait),
                None => {}
            }
        }
        of_current += i64::from(!pod.deleting && revision(pod) == current);
        updated += i64::from(!pod.deleting && revision(pod) == rules.update);
    }
    let wanted = rules.wanted.end - rules.wanted.start;
    let done = rules.rolling.is_some() && [all, updated, ready].iter().all(|count| *count == wanted);
    let (current, of_current) = if done { (rules.update, updated) } else { (current, of_current) };
    let mut status = json!({
        "observedGeneration": set.generation(), "replicas": all, "availableReplicas": available,
        "currentRevision": current, "updateRevision": rules.update,
    });
    for (key, value) in [("readyReplicas", ready), ("currentReplicas", of_current), ("updatedReplicas", updated)] {
        if value > 0 {
            status[key] = json!(value);
        }
    }
    // Known from the first status on, as clients expect.
    status["collisionCount"] = set.get("/status/collisionCount").cloned().unwrap_or(json!(0));
    if let Some(conditions) = set.get("/status/conditions") {
        status["conditions"] = conditions.clone();
    }
    (set.get("/status") != Some(&status)).then_some(status)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
