//! PodTopologyLabels: a pod is labelled with the zone and the region of the node that it is bound to, so that it can learn
//! of them through the downward API.

use gantry_kube::resource::{NODE, POD};
use gantry_kube::{Object, Ref};
use serde_json::json;

use super::{AdmissionContext, Operation};

const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

/// A binding's labels become its pod's.
pub fn label(context: &AdmissionContext<'_>, object: &mut Object) {
    if context.operation != Operation::Create {
        return;
    }
    let node = if context.is(&POD, "") {
        object.str_at("/spec/nodeName")
    } else if context.is(&POD, "binding") && object.str_at("/target/kind") == NODE.kind {
        object.str_at("/target/name")
    } else {
        ""
    };
    if node.is_empty() {
        return;
    }
    let Some(node) = context.lookup.get(&NODE, &Ref::cluster(node)) else { return };
    for key in LABELS {
        if let Some(value) = node.label(key) {
            let labels = object.metadata_mut().entry("labels").or_insert_with(|| json!({}));
            labels[key] = json!(value);
        }
    }
}
