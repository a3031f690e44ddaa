//! Why a node cannot take a pod, in the words that users know from FailedScheduling.

use super::affinity;
use super::snapshot::{NodeInfo, PodInfo};

/// The first reason, in upstream's order of filters; `None` where the node fits.
pub fn reject(node: &NodeInfo, pod: &PodInfo) -> Option<String> {
    let tolerations = pod.tolerations();
    if node.unschedulable {
        let taint = serde_json::json!({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"});
        if !tolerations.iter().any(|t| affinity::tolerates(t, &taint)) {
            return Some("node(s) were unschedulable".to_owned());
        }
    }
    if let Some(taint) = affinity::untolerated(&node.taints, tolerations, &["NoSchedule", "NoExecute"]) {
        let text = |key: &str| taint[key].as_str().unwrap_or("").to_owned();
        return Some(format!("node(s) had untolerated taint {{{}: {}}}", text("key"), text("value")));
    }
    if !node.selected_by(pod) {
        return Some("node(s) didn't match Pod's node affinity/selector".to_owned());
    }
    if ports_clash(node, pod) {
        return Some("node(s) didn't have free ports for the requested pod ports".to_owned());
    }
    lacking(node, pod)
}

fn ports_clash(node: &NodeInfo, pod: &PodInfo) -> bool {
    const ANY: &str = "0.0.0.0";
    let overlap = |a: &str, b: &str| a == b || a == ANY || b == ANY;
    pod.host_ports.iter().any(|(protocol, number, ip)| {
        let taken = |(p, n, i): &(String, i64, String)| p == protocol && n == number && overlap(i, ip);
        node.pods.values().any(|other| other.host_ports.iter().any(taken))
    })
}

fn lacking(node: &NodeInfo, pod: &PodInfo) -> Option<String> {
    // Room that is made for one above it is not the pod's to take.
    let promised = || node.nominated.values().filter(|other| other.uid != pod.uid && other.priority >= pod.priority);
    if let Some(max) = node.allocatable.get("pods")
        && (node.pods.len() + promised().count()) as i64 + 1 > *max
    {
        return Some("Too many pods".to_owned());
    }
    let short = |(name, wanted): (&String, &i64)| {
        let all = node.allocatable.get(name).copied().unwrap_or(0);
        let kept: i128 = promised().filter_map(|other| other.requests.get(name)).map(|n| i128::from(*n)).sum();
        let free = i128::from(all) - node.used.get(name).copied().unwrap_or(0) - kept;
        (*wanted > 0 && i128::from(*wanted) > free).then(|| format!("Insufficient {name}"))
    };
    let found: Vec<String> = pod.requests.iter().filter_map(short).collect();
    (!found.is_empty()).then(|| found.join(", "))
}
