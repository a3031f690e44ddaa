//! What a deployment says of itself: counts, Available, Progressing.

use std::time::Duration;

use gantry_env::format_seconds;
use gantry_kube::Object;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::plan::{View, available, size};
use crate::controllers::time::{parse, seconds_since};

/// A deadline of this many seconds is none.
const NO_DEADLINE: i64 = i32::MAX as i64;

pub fn status(
    view: &View<'_>,
    current: Option<&Object>,
    owned: &[&Object],
    now: Timestamp,
) -> (Value, Option<Duration>) {
    let count = |field: &str| -> i64 { owned.iter().filter_map(|set| set.i64_at(&format!("/status/{field}"))).sum() };
    let (replicas, ready, serving) = (count("replicas"), count("readyReplicas"), count("availableReplicas"));
    let updated = current.and_then(|set| set.i64_at("/status/replicas")).unwrap_or(0);
    let unavailable = (owned.iter().map(|set| size(set)).sum::<i64>() - serving).max(0);
    let mut status = json!({"observedGeneration": view.object.generation()});
    for (key, value) in [
        ("replicas", replicas),
        ("updatedReplicas", updated),
        ("readyReplicas", ready),
        ("availableReplicas", serving),
        ("unavailableReplicas", unavailable),
        ("terminatingReplicas", count("terminatingReplicas")),
    ] {
        if value > 0 {
            status[key] = json!(value);
        }
    }
    if let Some(count) = view.object.get("/status/collisionCount") {
        status["collisionCount"] = count.clone();
    }
    let complete =
        updated == view.replicas && replicas == view.replicas && serving == view.replicas && current.is_some();
    let (progressing, check_again) = progressing(view, current, complete, &status, now);
    let mut conditions = vec![available_condition(view, serving, now)];
    conditions.extend(progressing);
    conditions.extend(replica_failure(current, owned));
    conditions.sort_by_key(|c| order(view.object, c));
    status["conditions"] = json!(conditions);
    (status, check_again)
}

/// Conditions keep the places they have, new ones follow.
fn order(object: &Object, condition: &Value) -> usize {
    let known = object.array_at("/status/conditions");
    known.iter().position(|c| c["type"] == condition["type"]).unwrap_or(known.len())
}

fn old<'a>(view: &View<'a>, kind: &str) -> Option<&'a Value> {
    view.object.array_at("/status/conditions").iter().find(|c| c["type"] == kind)
}

/// A condition that keeps its times where it says what it said.
fn condition(old: Option<&Value>, kind: &str, status: &str, reason: &str, message: String, now: Timestamp) -> Value {
    if let Some(old) = old.filter(|o| o["status"] == status && o["reason"] == reason && o["message"] == message) {
        return old.clone();
    }
    let now = format_seconds(now);
    let moved = match old.filter(|o| o["status"] == status) {
        Some(old) => old["lastTransitionTime"].clone(),
        None => json!(now),
    };
    json!({"type": kind, "status": status, "reason": reason, "message": message,
           "lastUpdateTime": now, "lastTransitionTime": moved})
}

fn available_condition(view: &View<'_>, serving: i64, now: Timestamp) -> Value {
    let enough = serving >= view.replicas - view.max_unavailable;
    let (status, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    condition(old(view, "Available"), "Available", status, reason, message.to_owned(), now)
}

fn progressing(
    view: &View<'_>,
    current: Option<&Object>,
    complete: bool,
    status: &Value,
    now: Timestamp,
) -> (Option<Value>, Option<Duration>) {
    let deadline = view.object.i64_at("/spec/progressDeadlineSeconds").unwrap_or(600);
    if deadline >= NO_DEADLINE {
        return (None, None);
    }
    let before = old(view, "Progressing");
    let make =
        |status: &str, reason: &str, message: String| condition(before, "Progressing", status, reason, message, now);
    let Some(set) = current else { return (before.cloned(), None) };
    let name = set.name();
    if view.paused {
        let paused = before.is_none_or(|b| b["reason"] != "DeploymentPaused");
        let made = make("Unknown", "DeploymentPaused", "Deployment is paused".to_owned());
        return (if paused { Some(made) } else { before.cloned() }, None);
    }
    if complete {
        let message = format!("ReplicaSet {name:?} has successfully progressed.");
        return (Some(make("True", "NewReplicaSetAvailable", message)), None);
    }
    let moved = ["updatedReplicas", "readyReplicas", "availableReplicas"].iter().any(|field| {
        status[*field].as_i64().unwrap_or(0) > view.object.i64_at(&format!("/status/{field}")).unwrap_or(0)
    });
    let message = format!("ReplicaSet {name:?} is progressing.");
    // The deadline of another set's rollout is not this one's.
    let fresh = before.is_none_or(|b| match b["reason"].as_str().unwrap_or("") {
        "NewReplicaSetAvailable" | "DeploymentPaused" => true,
        "ProgressDeadlineExceeded" => !b["message"].as_str().is_some_and(|text| text.contains(&format!("{name:?}"))),
        _ => b["message"] != message.as_str(),
    });
    if moved || fresh {
        let mut made = make("True", "ReplicaSetUpdated", message);
        made["lastUpdateTime"] = json!(format_seconds(now));
        return (Some(made), Some(seconds(deadline)));
    }
    let since = before.and_then(|b| parse(b["lastUpdateTime"].as_str()?)).unwrap_or(now);
    let left = deadline - seconds_since(since, now);
    if left > 0 {
        return (before.cloned(), Some(seconds(left)));
    }
    let message = format!("ReplicaSet {name:?} has timed out progressing.");
    (Some(make("False", "ProgressDeadlineExceeded", message)), None)
}

fn seconds(n: i64) -> Duration {
    Duration::from_secs(u64::try_from(n).unwrap_or(0) + 1)
}

fn replica_failure(current: Option<&Object>, owned: &[&Object]) -> Option<Value> {
    let failed =
        |set: &&Object| set.array_at("/status/conditions").iter().find(|c| c["type"] == "ReplicaFailure").cloned();
    current.as_ref().and_then(failed).or_else(|| owned.iter().filter(|s| available(s) < size(s)).find_map(failed))
}
