use gantry_kube::Object;
use serde_json::json;

use super::{keep, set};

pub(super) fn prepare_create(new: &mut Object) {
    let mut status = json!({"phase": "Pending", "qosClass": qos_class(new)});
    if !new.array_at("/spec/schedulingGates").is_empty() {
        status["conditions"] = json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates"}]);
    }
    set(new, "status", status);
}

pub(super) fn prepare_update(new: &mut Object, old: &Object) {
    keep(new, old, "status");
    // A pod is bound once, by the binding subresource; a client's older copy without a node is no wish to unbind it.
    if new.str_at("/spec/nodeName").is_empty()
        && let Some(node) = old.get("/spec/nodeName").cloned()
    {
        new.map_mut("spec").insert("nodeName".to_owned(), node);
    }
}

/// Guaranteed: every container's cpu and memory have limits that equal their requests. BestEffort: none has either.
fn qos_class(pod: &Object) -> &'static str {
    let (mut any, mut all) = (false, true);
    for container in pod.array_at("/spec/initContainers").iter().chain(pod.array_at("/spec/containers")) {
        for resource in ["cpu", "memory"] {
            let limit = &container["resources"]["limits"][resource];
            let request = &container["resources"]["requests"][resource];
            let zero = |v: &serde_json::Value| v.is_null() || v == "0";
            any |= !zero(limit) || !zero(request);
            all &= !zero(limit) && (request.is_null() || request == limit);
        }
    }
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn class(resources: Value) -> &'static str {
        qos_class(
            &Object::from_value(json!({"spec": {"containers": [{"name": "a", "resources": resources}]}})).unwrap(),
        )
    }

    #[test]
    fn classes_of_service() {
        assert_eq!(class(json!({})), "BestEffort");
        assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
        assert_eq!(class(json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}})), "Burstable");
        let equal = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(class(json!({"limits": equal, "requests": equal})), "Guaranteed");
        assert_eq!(class(json!({ "limits": equal })), "Guaranteed");
    }
}
