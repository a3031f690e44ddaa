//! Custom objects, and the definitions that bring them.

use gantry_env::format_seconds;
use gantry_kube::Object;
use gantry_kube::custom::definition;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::custom::TERMINATING;

/// Holds a definition that is being deleted until its objects are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// A new object has no status where that is written apart.
pub fn without_status(object: &mut Object) {
    object.0.remove("status");
}

/// Nothing of a new definition is accepted yet. It will have stored objects in its storage version.
pub fn definition_create(object: &mut Object) {
    object.0.insert("status".to_owned(), json!({"acceptedNames": {"kind": "", "plural": ""}}));
    definition::note_stored_version(object);
}

/// From now on it may have stored objects in its storage version, too.
pub fn definition_update(new: &mut Object, _old: &Object) {
    definition::note_stored_version(new);
}

/// A definition that is being deleted lets nothing new be made.
pub fn mark_terminating(definition: &mut Object, now: Timestamp) {
    let conditions = definition.map_mut("status").entry("conditions").or_insert_with(|| json!([]));
    let Value::Array(conditions) = conditions else { return };
    if conditions.iter().any(|condition| condition["type"] == TERMINATING) {
        return;
    }
    conditions.push(json!({
        "type": TERMINATING, "status": "True", "reason": "InstanceDeletionPending",
        "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
        "lastTransitionTime": format_seconds(now),
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_remembers_each_version_that_it_stored() {
        let versions = |storage: &str| {
            let version = |name: &str| json!({"name": name, "storage": name == storage});
            Object::from_value(json!({"metadata": {"name": "a"}, "spec": {"versions": [version("v1"), version("v2")]}}))
                .unwrap()
        };
        let mut first = versions("v1");
        definition_create(&mut first);
        assert_eq!(first.get("/status/storedVersions"), Some(&json!(["v1"])));
        let mut second = versions("v2");
        second.0.insert("status".into(), first.0["status"].clone());
        definition_update(&mut second, &first);
        definition_update(&mut second, &first);
        assert_eq!(second.get("/status/storedVersions"), Some(&json!(["v1", "v2"])));
    }
}
