use gantry_kube::Object;
use serde_json::json;

use super::set;

pub(super) fn empty_status(new: &mut Object) {
    set(new, "status", json!({}));
}

pub(super) fn daemon_set_create(new: &mut Object) {
    zeros(new, &["currentNumberScheduled", "desiredNumberScheduled", "numberMisscheduled", "numberReady"]);
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
