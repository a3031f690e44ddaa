//! Which nodes a template can run on, and what its pods are given so that they run there and nowhere else.

use gantry_kube::Object;
use serde_json::{Value, json};

use crate::scheduler::affinity;

/// What a node says about who may run on it.
pub fn rules(node: Option<&Object>) -> Option<[Option<&Value>; 3]> {
    node.map(|node| ["/metadata/labels", "/spec/taints", "/metadata/deletionTimestamp"].map(|at| node.get(at)))
}

/// Whether a pod is started there, and whether one that is there stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    pub runs: bool,
    pub stays: bool,
}

pub fn fit(spec: &Value, tolerations: &[Value], node: &Object) -> Fit {
    let named = spec["nodeName"].as_str().filter(|name| !name.is_empty());
    let none = serde_json::Map::new();
    let selected = named.is_none_or(|name| name == node.name())
        && affinity::selects(spec, node.name(), node.labels().unwrap_or(&none));
    let taints = node.array_at("/spec/taints");
    let repelled = |effects: &[&str]| affinity::untolerated(taints, tolerations, effects).is_some();
    Fit { runs: selected && !repelled(&["NoSchedule", "NoExecute"]), stays: selected && !repelled(&["NoExecute"]) }
}

/// The template's own tolerations, and those by which a daemon outlasts what drives others away.
pub fn tolerations(spec: &Value) -> Vec<Value> {
    let mut all = spec["tolerations"].as_array().cloned().unwrap_or_default();
    let mut added = vec![
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    ];
    if spec["hostNetwork"] == true {
        added.push(("network-unavailable", "NoSchedule"));
    }
    for (key, effect) in added {
        let one = json!({"key": format!("node.kubernetes.io/{key}"), "operator": "Exists", "effect": effect});
        if !all.contains(&one) {
            all.push(one);
        }
    }
    all
}

/// Ties a pod to a node: each alternative of its required affinity names it.
pub fn pin(pod: &mut Object, node: &str) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let name = json!([{"key": "metadata.name", "operator": "In", "values": [node]}]);
    let spec = pod.map_mut("spec");
    spec.insert("tolerations".to_owned(), Value::Array(tolerations(&Value::Object(spec.clone()))));
    let affinity = spec.entry("affinity").or_insert_with(|| json!({}));
    let terms = &mut affinity["nodeAffinity"][REQUIRED]["nodeSelectorTerms"];
    match terms.as_array_mut().filter(|terms| !terms.is_empty()) {
        Some(terms) => terms.iter_mut().for_each(|term| term["matchFields"] = name.clone()),
        None => *terms = json!([{"matchFields": name}]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(taints: Value, labels: Value) -> Object {
        Object::from_value(json!({"metadata": {"name": "n", "labels": labels}, "spec": {"taints": taints}})).unwrap()
    }

    #[test]
    fn a_daemon_outlasts_a_cordon_and_obeys_its_selector() {
        let of = |spec: Value, node: &Object| {
            let fit = fit(&spec, &tolerations(&spec), node);
            (fit.runs, fit.stays)
        };
        let taint = |key: &str, effect: &str| json!([{"key": key, "effect": effect}]);
        let cordoned = node(taint("node.kubernetes.io/unschedulable", "NoSchedule"), json!({}));
        assert_eq!(of(json!({}), &cordoned), (true, true));
        assert_eq!(of(json!({}), &node(taint("gpu", "NoSchedule"), json!({}))), (false, true));
        assert_eq!(of(json!({}), &node(taint("gpu", "NoExecute"), json!({}))), (false, false));
        let anything = json!({"tolerations": [{"operator": "Exists"}]});
        assert_eq!(of(anything, &node(taint("gpu", "NoExecute"), json!({}))), (true, true));
        assert_eq!(of(json!({"nodeSelector": {"a": "b"}}), &node(json!([]), json!({}))), (false, false));
        assert_eq!(of(json!({"nodeSelector": {"a": "b"}}), &node(json!([]), json!({"a": "b"}))), (true, true));
        assert_eq!(of(json!({"nodeName": "other"}), &node(json!([]), json!({}))), (false, false));
        let offline = taint("node.kubernetes.io/network-unavailable", "NoSchedule");
        assert_eq!(of(json!({}), &node(offline.clone(), json!({}))), (false, true));
        assert_eq!(of(json!({"hostNetwork": true}), &node(offline, json!({}))), (true, true));
    }

    #[test]
    fn a_pod_is_tied_to_its_node_in_every_alternative() {
        let expression = json!([{"key": "a", "operator": "Exists"}]);
        let mut pod = Object::from_value(json!({"spec": {"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": expression}, {"matchExpressions": expression}]}}}}}))
        .unwrap();
        pin(&mut pod, "n");
        let mut plain = Object::from_value(json!({"spec": {}})).unwrap();
        pin(&mut plain, "n");
        let labels = |a: bool| if a { json!({"a": "1"}) } else { json!({}) }.as_object().cloned().unwrap();
        for (pod, name, a, fits) in [
            (&pod, "n", true, true),
            (&pod, "n", false, false),
            (&pod, "m", true, false),
            (&plain, "n", false, true),
            (&plain, "m", false, false),
        ] {
            assert_eq!(affinity::selects(&pod.0["spec"], name, &labels(a)), fits, "{name} {a}");
        }
    }
}
