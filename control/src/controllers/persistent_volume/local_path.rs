//! The built-in provisioner: a volume is a folder on the node that the claim's first consumer runs on. What is made here is
//! its object; the node's agent makes the folder when a pod needs it, and takes it away before the object goes.

use std::sync::Arc;

use gantry_kube::{Object, storage};
use serde_json::{Value, json};

use super::plan::claim_ref;

/// The longest name of a file.
const NAME_MAX_BYTES: usize = 255;
const LABEL_MAX_BYTES: usize = 63;

/// Why no volume is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No node would do.
    Claim(String),
    /// The one that was chosen does not.
    Node(String),
}

pub fn volume(
    claim: &Object,
    class: &Object,
    node_of: impl Fn(&str) -> Option<Arc<Object>>,
) -> Result<Object, Refusal> {
    if let Some(why) = unsupported(claim, class) {
        return Err(Refusal::Claim(why.to_owned()));
    }
    let Some(node) = claim.annotation(storage::SELECTED_NODE) else {
        return Err(Refusal::Claim(
            "the class has to wait for a claim's first consumer (volumeBindingMode: \
                                   WaitForFirstConsumer)"
                .to_owned(),
        ));
    };
    let known = node_of(node);
    let root = known.as_ref().and_then(|node| node.annotation(storage::LOCAL_PATH_ROOT));
    let Some(root) = root.filter(|root| root.starts_with('/') && !root.split('/').any(|part| part == "..")) else {
        return Err(Refusal::Node(format!("node {node:?} keeps no local volumes")));
    };
    if node.len() > LABEL_MAX_BYTES {
        return Err(Refusal::Node(format!("the name of node {node:?} is longer than {LABEL_MAX_BYTES} characters")));
    }
    let name = format!("pvc-{}", claim.uid());
    let mut folder = format!("{name}_{}_{}", claim.namespace(), claim.name());
    folder.truncate(NAME_MAX_BYTES);
    let requests = claim.get("/spec/resources/requests/storage").cloned().unwrap_or_default();
    let on_node = json!({"key": "metadata.name", "operator": "In", "values": [node]});
    let body = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {
            "name": name, "labels": {storage::LOCAL_PATH_NODE: node}, "finalizers": [storage::LOCAL_PATH],
            "annotations": {storage::PROVISIONED_BY: storage::LOCAL_PATH},
        },
        "spec": {
            "capacity": {"storage": requests}, "accessModes": claim.array_at("/spec/accessModes"),
            "persistentVolumeReclaimPolicy": class.str_at("/reclaimPolicy"), "storageClassName": class.name(),
            "claimRef": claim_ref(claim), "local": {"path": format!("{}/{folder}", root.trim_end_matches('/'))},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchFields": [on_node]}]}},
        },
    });
    Ok(Object::from_value(body).unwrap_or_default())
}

fn unsupported(claim: &Object, class: &Object) -> Option<&'static str> {
    let is_set = |pointer: &str| claim.get(pointer).is_some_and(|value| !value.is_null());
    let once = |mode: &Value| mode == "ReadWriteOnce" || mode == "ReadWriteOncePod";
    if !claim.array_at("/spec/accessModes").iter().all(once) {
        return Some("only the access modes ReadWriteOnce and ReadWriteOncePod are supported");
    }
    if storage::volume_mode(claim) != "Filesystem" {
        return Some("volumeMode Block is not supported");
    }
    if !class.array_at("/mountOptions").is_empty() {
        return Some("mountOptions are not supported");
    }
    if is_set("/spec/selector") {
        return Some("claim Selector is not supported");
    }
    if is_set("/spec/dataSource") || is_set("/spec/dataSourceRef") {
        return Some("claim dataSource is not supported");
    }
    None
}
