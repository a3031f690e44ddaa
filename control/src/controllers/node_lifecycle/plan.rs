use std::sync::Arc;
use std::time::Duration;

use gantry_env::format_seconds;
use gantry_kube::{Object, Ref};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::controllers::informers::Pod;
use crate::controllers::time::{parse, seconds_since};
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

pub fn plan(node: &Object, pods: &[Arc<Pod>], silence: Duration, now: Timestamp) -> Vec<Action> {
    let mut actions = Vec::new();
    let ready = condition(node, "Ready");
    let silent = silence >= GRACE;
    let stamp = format_seconds(now);
    if silent && ready != "Unknown" {
        let unknown = |kind: &str| {
            json!({"type": kind, "status": "Unknown", "reason": "NodeStatusUnknown",
                   "message": "Kubelet stopped posting node status.", "lastTransitionTime": stamp})
        };
        let all: Vec<Value> = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"].map(unknown).to_vec();
        actions.push(Action::Unknown(json!({"status": {"conditions": all}})));
    }
    let ready = if silent { "Unknown" } else { ready };
    let taints = taints(node, ready, &stamp);
    if taints != node.array_at("/spec/taints") {
        actions.push(Action::Taints(taints.clone()));
    }
    if ready != "True" {
        for pod in pods.iter().filter(|p| p.ready && !p.finished()) {
            let patch = json!({"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": stamp}]});
            actions.push(Action::NotReady { pod: pod.reference(), uid: pod.uid.clone(), patch });
        }
    }
    for pod in pods.iter().filter(|p| !p.deleting && !p.finished()) {
        if taints.iter().filter(|t| t["effect"] == "NoExecute").any(|taint| due(taint, pod, now)) {
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
fn taints(node: &Object, ready: &str, stamp: &str) -> Vec<Value> {
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    match ready {
        "True" => {}
        "Unknown" => wanted.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]),
        _ => wanted.extend([(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]),
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

/// Whether the pod's patience with a NoExecute taint is over.
fn due(taint: &Value, pod: &Pod, now: Timestamp) -> bool {
    let tolerations: Vec<&Value> = pod.tolerations.iter().filter(|t| tolerates(t, taint)).collect();
    if tolerations.is_empty() {
        return true;
    }
    let Some(patience) = tolerations.iter().filter_map(|t| t["tolerationSeconds"].as_i64()).min() else { return false };
    let since = taint["timeAdded"].as_str().and_then(parse).unwrap_or(now);
    seconds_since(since, now) >= patience
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(ready: &str, taints: Value) -> Object {
        Object::from_value(json!({"metadata": {"name": "n"}, "spec": {"taints": taints},
            "status": {"conditions": [{"type": "Ready", "status": ready}]}}))
        .unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn a_ready_node_is_left_alone() {
        assert_eq!(plan(&node("True", json!([])), &[], Duration::ZERO, at(0)), []);
    }

    #[test]
    fn a_silent_node_is_unknown_and_tainted_and_its_pods_serve_nobody() {
        let tolerant =
            json!([{"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]);
        let pod =
            Pod { uid: "u".into(), ready: true, tolerations: tolerant.as_array().cloned().unwrap(), ..Pod::default() };
        let actions = plan(&node("True", json!([])), &[Arc::new(pod.clone())], GRACE, at(0));
        assert!(
            matches!(&actions[..], [Action::Unknown(_), Action::Taints(_), Action::NotReady { .. }]),
            "{actions:?}"
        );
        let Action::Taints(taints) = &actions[1] else { panic!() };
        let tainted = node("Unknown", json!(taints));
        let mut quiet = pod;
        quiet.ready = false;
        let pods = [Arc::new(quiet)];
        assert_eq!(plan(&tainted, &pods, GRACE, at(299)), [], "the toleration lasts 300 s");
        assert!(matches!(&plan(&tainted, &pods, GRACE, at(300))[..], [Action::Evict { .. }]));
    }

    #[test]
    fn taints_of_others_stay() {
        let own = json!([{"key": "mine", "effect": "NoSchedule"}, {"key": NOT_READY, "effect": "NoSchedule"}]);
        let actions = plan(&node("True", own), &[], Duration::ZERO, at(0));
        assert_eq!(actions, [Action::Taints(vec![json!({"key": "mine", "effect": "NoSchedule"})])]);
    }
}
