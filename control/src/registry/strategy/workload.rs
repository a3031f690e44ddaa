use gantry_kube::Object;
use serde_json::json;

use super::set;

pub(super) fn empty_status(new: &mut Object) {
    set(new, "status", json!({}));
}

/// A Deployment's generation also counts annotations: they reach its ReplicaSets.
pub(super) fn deployment_update(new: &mut Object, old: &Object) {
    if new.get("/metadata/annotations") != old.get("/metadata/annotations") {
        let next = old.generation() + 1;
        new.metadata_mut().insert("generation".to_owned(), json!(next));
    }
}
