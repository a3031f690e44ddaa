use std::sync::Arc;
use std::time::Duration;

use gantry_kube::selector::LabelSelector;
use gantry_kube::{Object, Ref};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{history, rolling, status};
use crate::controllers::dependents::plan::owner_reference;
use crate::controllers::informers::Pod;
use crate::controllers::time::share;

pub const HASH_LABEL: &str = "pod-template-hash";
pub const REVISION: &str = "deployment.kubernetes.io/revision";
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAXIMUM: &str = "deployment.kubernetes.io/max-replicas";

/// One effect, in the order in which they are done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Create(Object),
    /// Merge patch of a ReplicaSet's size (and its size annotations), with a resourceVersion precondition.
    Scale {
        at: Ref,
        from: i64,
        to: i64,
        patch: Value,
    },
    /// Strategic patch of a ReplicaSet: adoption, annotations.
    Patch {
        at: Ref,
        patch: Value,
    },
    Delete {
        at: Ref,
        uid: String,
    },
    /// Merge patch of the deployment's own annotations.
    Annotate(Value),
    Status(Value),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub actions: Vec<Action>,
    /// When the progress deadline, or a pod's minReadySeconds, passes without an event.
    pub check_again: Option<Duration>,
}

/// The deployment with the numbers that every rule needs.
pub struct View<'a> {
    pub object: &'a Object,
    pub replicas: i64,
    pub max_surge: i64,
    pub max_unavailable: i64,
    pub recreate: bool,
    pub paused: bool,
}

impl<'a> View<'a> {
    pub fn new(object: &'a Object) -> View<'a> {
        let replicas = object.i64_at("/spec/replicas").unwrap_or(1);
        let bound = |field: &str, round_up| {
            let pointer = format!("/spec/strategy/rollingUpdate/{field}");
            resolve(object.get(&pointer), replicas, round_up)
        };
        let recreate = object.str_at("/spec/strategy/type") == "Recreate";
        let (max_surge, mut max_unavailable) = (bound("maxSurge", true), bound("maxUnavailable", false));
        // Neither more nor fewer pods would never move.
        if max_surge == 0 && max_unavailable == 0 {
            max_unavailable = 1;
        }
        View {
            object,
            replicas,
            max_surge: if recreate { 0 } else { max_surge },
            max_unavailable: if recreate { 0 } else { max_unavailable.min(replicas) },
            recreate,
            paused: object.bool_at("/spec/paused").unwrap_or(false),
        }
    }
}

fn resolve(value: Option<&Value>, total: i64, round_up: bool) -> i64 {
    share(value.unwrap_or(&json!("25%")), total, round_up)
}

pub fn plan(deployment: &Object, sets: &[Arc<Object>], pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    let view = View::new(deployment);
    let mut actions = Vec::new();
    let (owned, adoptions) = claim(deployment, sets);
    actions.extend(adoptions);
    let current = history::current(deployment, &owned);
    let old: Vec<&Object> = owned.iter().copied().filter(|set| current.is_none_or(|c| c.uid() != set.uid())).collect();
    if deployment.deletion_timestamp().is_none() {
        let scaling = history::is_scaling(&view, &owned);
        if view.paused || scaling {
            actions.extend(rolling::scale_in_proportion(&view, current, &old));
        } else if view.recreate {
            actions.extend(recreate(&view, current, &old, pods));
        } else {
            actions.extend(roll(&view, current, &old));
        }
        if !view.paused {
            actions.extend(history::annotate(&view, current, &owned));
            actions.extend(history::clean_up(&view, &old));
        }
    }
    let (status, check_again) = status::status(&view, current, &owned, now);
    if deployment.get("/status") != Some(&status) {
        actions.push(Action::Status(status));
    }
    Plan { actions, check_again }
}

/// The sets that are ours, and the patches that make ours what merely fits.
fn claim<'a>(deployment: &Object, sets: &'a [Arc<Object>]) -> (Vec<&'a Object>, Vec<Action>) {
    let selector = deployment.get("/spec/selector").map(LabelSelector::from_value);
    let Some(Ok(selector)) = selector else { return (Vec::new(), Vec::new()) };
    let (mut owned, mut actions) = (Vec::new(), Vec::new());
    for set in sets {
        let fits = !selector.is_empty() && selector.matches(set.labels());
        match set.controller() {
            Some(owner) if owner["uid"] == deployment.uid() => owned.push(set.as_ref()),
            None if fits && set.deletion_timestamp().is_none() && deployment.deletion_timestamp().is_none() => {
                let patch = json!({"metadata": {"uid": set.uid(), "ownerReferences": [owner_reference(deployment)]}});
                actions.push(Action::Patch { at: set.reference(), patch });
                owned.push(set.as_ref());
            }
            _ => {}
        }
    }
    owned.sort_by(|a, b| {
        let created = |o: &Object| o.str_at("/metadata/creationTimestamp").to_owned();
        created(a).cmp(&created(b)).then_with(|| a.name().cmp(b.name()))
    });
    (owned, actions)
}

fn roll(view: &View<'_>, current: Option<&Object>, old: &[&Object]) -> Vec<Action> {
    let Some(current) = current else {
        let running: i64 = old.iter().map(|set| size(set)).sum();
        let room = (view.replicas + view.max_surge - running).clamp(0, view.replicas);
        return vec![Action::Create(history::new_set(view, old, room))];
    };
    // One direction a turn: the informers show its effect before the next decision.
    let up = rolling::grow(view, current, old);
    if up.is_empty() { rolling::shrink(view, current, old) } else { up }
}

/// All old pods are gone before the first new one is made.
fn recreate(view: &View<'_>, current: Option<&Object>, old: &[&Object], pods: &[Arc<Pod>]) -> Vec<Action> {
    let down: Vec<Action> = old.iter().filter(|set| size(set) > 0).map(|set| scale(view, set, 0)).collect();
    if !down.is_empty() {
        return down;
    }
    let lingering = pods.iter().any(|pod| !pod.finished() && old.iter().any(|set| set.uid() == pod.controller_uid));
    match current {
        _ if lingering => Vec::new(),
        None => vec![Action::Create(history::new_set(view, old, view.replicas))],
        Some(set) if size(set) != view.replicas => vec![scale(view, set, view.replicas)],
        Some(_) => Vec::new(),
    }
}

pub fn size(set: &Object) -> i64 {
    set.i64_at("/spec/replicas").unwrap_or(1)
}

pub fn available(set: &Object) -> i64 {
    set.i64_at("/status/availableReplicas").unwrap_or(0)
}

/// The patch that sizes a set and notes the sizes it was computed from.
pub fn scale(view: &View<'_>, set: &Object, to: i64) -> Action {
    let patch = json!({
        "metadata": {
            "resourceVersion": set.resource_version(),
            "annotations": {DESIRED: view.replicas.to_string(), MAXIMUM: (view.replicas + view.max_surge).to_string()},
        },
        "spec": {"replicas": to},
    });
    Action::Scale { at: set.reference(), from: size(set), to, patch }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
