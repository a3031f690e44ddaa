//! TaintNodesByCondition: a new node takes no pods before it is known to be ready.

use gantry_kube::Object;
use gantry_kube::resource::NODE;
use serde_json::json;

use super::service_account::list;
use super::tolerations::NOT_READY;
use super::{AdmissionContext, Operation};

pub fn taint(context: &AdmissionContext<'_>, node: &mut Object) {
    if !context.is(&NODE, "") || context.operation != Operation::Create {
        return;
    }
    let taints = list(node.map_mut("spec"), "taints");
    if !taints.iter().any(|taint| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule") {
        taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
    }
}
