use gantry_kube::Object;
use serde_json::json;

use super::set;

pub(super) fn empty_status(new: &mut Object) {
    set(new, "status", json!({}));
}

/// Of a volume's attachment.
pub(super) fn detached(new: &mut Object) {
    set(new, "status", json!({"attached": false}));
}

/// A group and version that this server serves itself is there from the start.
pub(super) fn local_service(new: &mut Object) {
    let since = new.str_at("/metadata/creationTimestamp").to_owned();
    let available = json!({"type": "Available", "status": "True", "reason": "Local", "lastTransitionTime": since,
        "message": "Local APIServices are always available"});
    set(new, "status", json!({"conditions": [available]}));
}

/// Of volumes and claims.
pub(super) fn pending(new: &mut Object) {
    set(new, "status", json!({"phase": "Pending"}));
}

pub(super) fn daemon_set_create(new: &mut Object) {
    zeros(new, &["currentNumberScheduled", "desiredNumberScheduled", "numberMisscheduled", "numberReady"]);
}

pub(super) fn budget_create(new: &mut Object) {
    zeros(new, &["currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods"]);
}

/// Unless its author says otherwise, a Job selects the pods that carry its uid.
pub(super) fn job_create(new: &mut Object) {
    const PREFIX: &str = "batch.kubernetes.io/";
    set(new, "status", json!({}));
    if new.bool_at("/spec/manualSelector") == Some(true) {
        return;
    }
    let (uid, name) = (new.uid().to_owned(), new.name().to_owned());
    let spec = new.map_mut("spec");
    let metadata = &mut spec.entry("template").or_insert_with(|| json!({}))["metadata"];
    for (key, value) in [("controller-uid", &uid), ("job-name", &name)] {
        // The names without a prefix are what old clients look for.
        for key in [key.to_owned(), format!("{PREFIX}{key}")] {
            let label = &mut metadata["labels"][key];
            if label.is_null() {
                *label = json!(value);
            }
        }
    }
    let key = format!("{PREFIX}controller-uid");
    spec.entry("selector").or_insert_with(|| json!({"matchLabels": {key: uid}}));
}

pub(super) fn autoscaler_create(new: &mut Object) {
    zeros(new, &["desiredReplicas"]);
}

pub(super) fn ingress_create(new: &mut Object) {
    set(new, "status", json!({"loadBalancer": {}}));
}

pub(super) fn stateful_set_create(new: &mut Object) {
    zeros(new, &["replicas", "availableReplicas"]);
}

/// Counts that are written though they are zero.
fn zeros(new: &mut Object, counts: &[&str]) {
    set(new, "status", counts.iter().map(|count| ((*count).to_owned(), json!(0))).collect());
}

/// A Deployment's generation also counts annotations: they reach its ReplicaSets.
pub(super) fn deployment_update(new: &mut Object, old: &Object) {
    if new.get("/metadata/annotations") != old.get("/metadata/annotations") {
        let next = old.generation() + 1;
        new.metadata_mut().insert("generation".to_owned(), json!(next));
    }
}
