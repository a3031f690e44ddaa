use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_env::format_seconds;
use gantry_kube::{Object, Ref};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::controllers::informers::Pod;
use crate::scheduler::affinity::tolerates;

/// A node that is silent for so long is not known to be ready (upstream's node-monitor-grace-period).
pub const GRACE: Duration = Duration::from_secs(50);

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// A strategic patch of the node's status: every condition becomes Unknown.
    Unknown(Value),
    Taints(Vec<Value>),
    /// A pod on a silent node serves nobody that we know of.
    NotReady {
        pod: Ref,
        uid: String,
        patch: Value,
    },
    Evict {
        pod: Ref,
        uid: String,
    },
}

pub fn evicting(node: &Object) -> bool {
    node.array_at("/spec/taints").iter().any(|t| t["effect"] == "NoExecute")
}

/// Since when a pod (by uid) has stood beside NoExecute taints. Counted here and not from the taint's timeAdded, which
/// only those write that mean to, and which goes on while we are away.
pub type Patience = BTreeMap<String, Instant>;

/// Starts the patience of pods that came beside a NoExecute taint, ends that of all others.
pub fn keep_patience(
    patience: &mut Patience,
    nodes: &[Arc<Object>],
    by_node: &BTreeMap<String, Vec<Arc<Pod>>>,
    now: Instant,
) {
    let beside = nodes.iter().filter(|node| evicting(node)).filter_map(|node| by_node.get(node.name())).flatten();
    *patience = beside.map(|pod| (pod.uid.clone(), patience.get(&pod.uid).copied().unwrap_or(now))).collect();
}

/// A node as one look finds it.
pub struct View<'a> {
    pub node: &'a Object,
    pub pods: &'a [Arc<Pod>],
    pub silence: Duration,
    /// Whether the node, being not ready, may have a NoExecute taint.
    pub may_evict: bool,
    pub patience: &'a Patience,
}

pub fn is_ready(node: &Object, silence: Duration) -> bool {
    silence < GRACE && condition(node, "Ready") == "True"
}

/// When the agent last wrote that the node is ready, or that it is not.
pub fn last_heartbeat(node: &Object) -> &str {
    let ready = node.array_at("/status/conditions").iter().find(|c| c["type"] == "Ready");
    ready.and_then(|c| c["lastHeartbeatTime"].as_str()).unwrap_or("")
}

pub fn tainted_not_ready(node: &Object) -> bool {
    let own = |t: &Value| t["effect"] == "NoExecute" && (t["key"] == NOT_READY || t["key"] == UNREACHABLE);
    node.array_at("/spec/taints").iter().any(own)
}

pub fn plan(view: &View<'_>, now: Instant, wall: Timestamp) -> Vec<Action> {
    let (node, pods) = (view.node, view.pods);
    let mut actions = Vec::new();
    let ready = condition(node, "Ready");
    let silent = view.silence >= GRACE;
    let stamp = format_seconds(wall);
    if silent && ready != "Unknown" {
        let unknown = |kind: &str| {
            json!({"type": kind, "status": "Unknown", "reason": "NodeStatusUnknown",
                   "message": "Kubelet stopped posting node status.", "lastTransitionTime": stamp})
        };
        let all: Vec<Value> = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"].map(unknown).to_vec();
        actions.push(Action::Unknown(json!({"status": {"conditions": all}})));
    }
    let ready = if silent { "Unknown" } else { ready };
    let taints = taints(node, ready, view.may_evict, &stamp);
    if taints != node.array_at("/spec/taints") {
        actions.push(Action::Taints(taints.clone()));
    }
    // An agent that speaks says itself which pods are ready; two writers would never end.
    if silent {
        for pod in pods.iter().filter(|p| p.ready && !p.finished()) {
            let patch = json!({"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": stamp}]});
            actions.push(Action::NotReady { pod: pod.reference(), uid: pod.uid.clone(), patch });
        }
    }
    for pod in pods.iter().filter(|p| !p.deleting && !p.finished()) {
        let waited = view.patience.get(&pod.uid).map_or(Duration::ZERO, |since| now - *since);
        if due(&taints, pod, waited) {
            actions.push(Action::Evict { pod: pod.reference(), uid: pod.uid.clone() });
        }
    }
    actions
}

fn condition<'a>(node: &'a Object, kind: &str) -> &'a str {
    let found = node.array_at("/status/conditions").iter().find(|c| c["type"] == kind);
    found.and_then(|c| c["status"].as_str()).unwrap_or(if kind == "Ready" { "False" } else { "" })
}

/// The node's own taints, with those that its conditions call for and without those that they no longer do.
fn taints(node: &Object, ready: &str, may_evict: bool, stamp: &str) -> Vec<Value> {
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    if ready != "True" {
        let key = if ready == "Unknown" { UNREACHABLE } else { NOT_READY };
        wanted.push((key, "NoSchedule"));
        if may_evict {
            wanted.push((key, "NoExecute"));
        }
    }
    if node.bool_at("/spec/unschedulable").unwrap_or(false) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    wanted.extend(
        PRESSURES.iter().filter(|(kind, _)| condition(node, kind) == "True").map(|(_, taint)| (*taint, "NoSchedule")),
    );
    let managed = |key: &str| {
        [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&key) || PRESSURES.iter().any(|(_, taint)| *taint == key)
    };
    let pair = |t: &Value| (t["key"].as_str().unwrap_or("").to_owned(), t["effect"].as_str().unwrap_or("").to_owned());
    let mut out: Vec<Value> = Vec::new();
    for taint in node.array_at("/spec/taints") {
        let (key, effect) = pair(taint);
        if !managed(&key) || wanted.contains(&(key.as_str(), effect.as_str())) {
            out.push(taint.clone());
        }
    }
    for (key, effect) in wanted {
        if !out.iter().any(|t| t["key"] == key && t["effect"] == effect) {
            let mut taint = json!({"key": key, "effect": effect});
            if effect == "NoExecute" {
                taint["timeAdded"] = json!(stamp);
            }
            out.push(taint);
        }
    }
    out
}

/// Whether the pod's patience with the NoExecute taints is over.
fn due(taints: &[Value], pod: &Pod, waited: Duration) -> bool {
    taints.iter().filter(|t| t["effect"] == "NoExecute").any(|taint| {
        let tolerations: Vec<&Value> = pod.tolerations.iter().filter(|t| tolerates(t, taint)).collect();
        let patience = tolerations.iter().filter_map(|t| t["tolerationSeconds"].as_i64()).min();
        let over = |seconds: i64| waited >= Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        tolerations.is_empty() || patience.is_some_and(over)
    })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
