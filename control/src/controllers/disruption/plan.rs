use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_env::format_seconds;
use gantry_kube::Object;
use gantry_kube::selector::LabelSelector;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::controllers::informers::Pod;
use crate::controllers::time::{later, parse, seconds_since, share};

/// A pod that was to be evicted, and is still there after this, counts again.
const EVICTED_FOR_SECONDS: i64 = 120;
const CONDITION: &str = "DisruptionAllowed";

/// What the controller of a pod wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    pub uid: String,
    pub replicas: i64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub status: Option<Value>,
    /// Kind, reason and message.
    pub events: Vec<(&'static str, &'static str, String)>,
    pub check_again: Option<Duration>,
}

/// Whether a budget is about a pod with these labels: about every pod where its selector is empty, about none where it
/// has none.
pub fn selects(budget: &Object, labels: &Map<String, Value>) -> bool {
    let selector = budget.get("/spec/selector").filter(|selector| !selector.is_null());
    selector.and_then(|s| LabelSelector::from_value(s).ok()).is_some_and(|selector| selector.matches(Some(labels)))
}

/// How many pods there should be, and how many of them must be healthy.
struct Wanted {
    expected: i64,
    healthy: i64,
}

pub fn plan(budget: &Object, all: &[Arc<Pod>], scale: impl Fn(&Pod) -> Result<Scale, String>, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let pods: Vec<&Pod> = all.iter().map(Arc::as_ref).filter(|pod| selects(budget, &pod.labels)).collect();
    let status = match wanted(budget, &pods, scale) {
        Ok(wanted) => plan.count(budget, &pods, &wanted, now),
        Err(why) => {
            // Rather no eviction than one too many.
            let message = format!("Failed to calculate the number of expected pods: {why}");
            plan.events.push(("Warning", "CalculateExpectedPodCountFailed", message));
            let mut status = budget.0.get("status").cloned().unwrap_or_else(|| json!({}));
            status["disruptionsAllowed"] = json!(0);
            status["observedGeneration"] = json!(budget.generation());
            status["conditions"] = conditions(budget, false, "SyncFailed", &why, now);
            status
        }
    };
    if pods.is_empty() {
        plan.events.push(("Normal", "NoPods", "No matching pods found".to_owned()));
    }
    if budget.get("/status") == Some(&status) {
        // What was told is not told again.
        plan.events.clear();
    } else {
        plan.status = Some(status);
    }
    plan
}

fn wanted(budget: &Object, pods: &[&Pod], scale: impl Fn(&Pod) -> Result<Scale, String>) -> Result<Wanted, String> {
    let scales = || -> Result<i64, String> {
        let mut by_uid = BTreeMap::new();
        for pod in pods.iter().filter(|pod| !pod.controller_uid.is_empty()) {
            let scale = scale(pod)?;
            by_uid.insert(scale.uid, scale.replicas);
        }
        Ok(by_uid.values().sum())
    };
    let field = |name: &str| budget.get(&format!("/spec/{name}")).filter(|value| !value.is_null());
    if let Some(unavailable) = field("maxUnavailable") {
        let expected = scales()?;
        return Ok(Wanted { expected, healthy: (expected - share(unavailable, expected, true)).max(0) });
    }
    match field("minAvailable") {
        Some(Value::Number(number)) => {
            Ok(Wanted { expected: pods.len() as i64, healthy: number.as_i64().unwrap_or(0) })
        }
        Some(percent) => {
            let expected = scales()?;
            Ok(Wanted { expected, healthy: share(percent, expected, true) })
        }
        None => Ok(Wanted { expected: 0, healthy: 0 }),
    }
}

impl Plan {
    fn count(&mut self, budget: &Object, pods: &[&Pod], wanted: &Wanted, now: Timestamp) -> Value {
        self.tell_unmanaged(budget, pods);
        let evicted = self.evicted(budget, pods, now);
        let healthy = |pod: &&&Pod| pod.ready && !pod.deleting && !evicted.contains_key(&pod.reference().name);
        let current = pods.iter().filter(healthy).count() as i64;
        let allowed = if wanted.expected > 0 { (current - wanted.healthy).max(0) } else { 0 };
        let reason = if allowed > 0 { "SufficientPods" } else { "InsufficientPods" };
        let mut status = json!({
            "currentHealthy": current, "desiredHealthy": wanted.healthy, "expectedPods": wanted.expected,
            "disruptionsAllowed": allowed, "observedGeneration": budget.generation(),
            "conditions": conditions(budget, allowed > 0, reason, "", now),
        });
        if !evicted.is_empty() {
            status["disruptedPods"] = Value::Object(evicted);
        }
        status
    }

    /// Pods that an eviction has taken out of the budget, and that are not seen to go yet.
    fn evicted(&mut self, budget: &Object, pods: &[&Pod], now: Timestamp) -> Map<String, Value> {
        let mut kept = Map::new();
        let listed = budget.get("/status/disruptedPods").and_then(Value::as_object);
        for (name, at) in listed.into_iter().flatten() {
            let there = pods.iter().any(|pod| pod.reference().name == *name && !pod.deleting);
            let since = at.as_str().and_then(parse);
            match since.map(|since| EVICTED_FOR_SECONDS - seconds_since(since, now)).filter(|_| there) {
                Some(left) if left > 0 => {
                    later(&mut self.check_again, left);
                    kept.insert(name.clone(), at.clone());
                }
                Some(_) => {
                    let message = format!("Pod was expected by PDB {} to be deleted but it wasn't", budget.reference());
                    self.events.push(("Warning", "NotDeleted", message));
                }
                None => {}
            }
        }
        kept
    }

    /// Pods of nobody are counted by no scale.
    fn tell_unmanaged(&mut self, budget: &Object, pods: &[&Pod]) {
        let counted = matches!(budget.get("/spec/minAvailable"), Some(Value::Number(_)));
        if !counted && pods.iter().any(|pod| pod.controller_uid.is_empty()) {
            let message = "Pods selected by this PodDisruptionBudget were found to be unmanaged. As a result, the status of \
                           the PDB cannot be calculated correctly, which may result in undefined behavior. To account for \
                           these pods please set \".spec.minAvailable\" field of the PDB to an integer value.";
            self.events.push(("Warning", "UnmanagedPods", message.to_owned()));
        }
    }
}

/// The conditions with the one that says whether pods may be evicted.
pub fn conditions(budget: &Object, allowed: bool, reason: &str, message: &str, now: Timestamp) -> Value {
    let status = if allowed { "True" } else { "False" };
    let mut all = budget.array_at("/status/conditions").to_vec();
    let before = all.iter().find(|c| c["type"] == CONDITION && c["status"] == status);
    let since = before.map_or_else(|| json!(format_seconds(now)), |c| c["lastTransitionTime"].clone());
    let wanted = json!({"type": CONDITION, "status": status, "reason": reason, "message": message,
        "observedGeneration": budget.generation(), "lastTransitionTime": since});
    match all.iter_mut().find(|c| c["type"] == CONDITION) {
        Some(there) => *there = wanted,
        None => all.push(wanted),
    }
    json!(all)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
