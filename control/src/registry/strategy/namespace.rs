use gantry_kube::Object;
use serde_json::json;

use super::{keep, set};

const NAME_LABEL: &str = "kubernetes.io/metadata.name";

fn label(namespace: &mut Object) {
    let name = namespace.name().to_owned();
    let labels = namespace.metadata_mut().entry("labels").or_insert_with(|| json!({}));
    if let Some(map) = labels.as_object_mut() {
        map.insert(NAME_LABEL.to_owned(), json!(name));
    }
}

pub(super) fn prepare_create(new: &mut Object) {
    label(new);
    let mut finalizers = new.array_at("/spec/finalizers").to_vec();
    if !finalizers.contains(&json!("kubernetes")) {
        finalizers.push(json!("kubernetes"));
    }
    set(new, "spec", json!({ "finalizers": finalizers }));
    set(new, "status", json!({"phase": "Active"}));
}

/// The spec holds finalizers alone, and those are written through `/finalize`.
pub(super) fn prepare_update(new: &mut Object, old: &Object) {
    label(new);
    keep(new, old, "spec");
}
