//! Mirror pods: how static pods are shown in the API, so that users see them and the scheduler counts them.

use gantry_kube::Object;
use gantry_kube::pod::{HASH_ANNOTATION, MIRROR_ANNOTATION};
use serde_json::{Value, json};

use crate::shutdown;

/// The object to create for a static pod.
pub fn of(pod: &Object, node_name: &str, node_uid: &str) -> Object {
    let mut mirror = pod.clone();
    mirror.0.remove("status");
    let hash = pod.annotation(HASH_ANNOTATION).unwrap_or("").to_owned();
    let metadata = mirror.metadata_mut();
    metadata.remove("uid");
    metadata.remove("resourceVersion");
    if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
        annotations.insert(MIRROR_ANNOTATION.to_owned(), json!(hash));
    }
    if !node_uid.is_empty() {
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": node_name, "uid": node_uid, "controller": true});
        metadata.insert("ownerReferences".to_owned(), json!([owner]));
    }
    mirror
}

/// Whether a mirror shows this very manifest, and is not on its way out. A pod that has failed and ended stays so for whoever
/// looks at it: one that runs again, after its node's shutdown, is shown by another than the one that told of its end.
pub fn shows(mirror: &Object, pod: &Object, is_over: bool) -> bool {
    let same = mirror.annotation(MIRROR_ANNOTATION) == pod.annotation(HASH_ANNOTATION);
    let ended = mirror.get("/status").is_some_and(shutdown::has_ended);
    same && mirror.deletion_timestamp().is_none() && (is_over || !ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_names_its_manifest_and_its_node() {
        let pod = Object::from_value(json!({"metadata": {"uid": "h", "annotations": {HASH_ANNOTATION: "h"}}})).unwrap();
        let mirror = of(&pod, "n", "nu");
        assert_eq!(mirror.uid(), "");
        assert!(shows(&mirror, &pod, false));
        let mut ended = mirror.clone();
        ended.0.insert("status".into(), json!({"phase": "Failed", "reason": shutdown::REASON}));
        assert_eq!((shows(&ended, &pod, true), shows(&ended, &pod, false)), (true, false));
        assert_eq!(mirror.controller().unwrap()["uid"], "nu");
    }
}
