//! DefaultTolerationSeconds: a pod stays on a node that is lost for five minutes before it is evicted.

use gantry_kube::Object;
use gantry_kube::resource::POD;
use serde_json::{Value, json};

use super::service_account::list;
use super::{AdmissionContext, Operation};

const TOLERATION_SECONDS: u64 = 300;
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

pub fn add_defaults(context: &AdmissionContext<'_>, pod: &mut Object) {
    if !context.is(&POD, "") || !matches!(context.operation, Operation::Create | Operation::Update) {
        return;
    }
    let tolerates = |toleration: &Value, taint: &str| {
        let text = |key: &str| toleration[key].as_str().unwrap_or("").to_owned();
        matches!(text("effect").as_str(), "" | "NoExecute") && (text("key").is_empty() || text("key") == taint)
    };
    let lacking: Vec<&str> = [NOT_READY, UNREACHABLE]
        .into_iter()
        .filter(|taint| !pod.array_at("/spec/tolerations").iter().any(|t| tolerates(t, taint)))
        .collect();
    if lacking.is_empty() {
        return;
    }
    list(pod.map_mut("spec"), "tolerations").extend(lacking.into_iter().map(|taint| {
        json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS})
    }));
}
