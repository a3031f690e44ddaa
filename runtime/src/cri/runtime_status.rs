use std::collections::HashMap;

use gantry_cri::v1;

use super::sandbox_run::HANDLERS;
use crate::node::Node;

pub async fn run(node: &Node, request: &v1::StatusRequest) -> v1::StatusResponse {
    let user_namespaces = node.check_users().await.is_ok();
    let condition = |r#type: &str, status: bool, reason: &str, message: &str| v1::RuntimeCondition {
        r#type: r#type.to_owned(),
        status,
        reason: if status { String::new() } else { reason.to_owned() },
        message: if status { String::new() } else { message.to_owned() },
    };
    let network = node.network_ready();
    let mut info = HashMap::new();
    if request.verbose {
        let text = serde_json::json!({
            "cgroups": if node.cgroups.unified() { "v2" } else { "v1" },
            "stateDir": node.config.state_dir,
            "runDir": node.config.run_dir,
            "cgroupParent": node.config.cgroup_parent,
            // By the names that containerd has for them.
            "enableCDI": true,
            "cdiSpecDirs": node.cdi.folders(),
        });
        info.insert("config".to_owned(), text.to_string());
    }
    v1::StatusResponse {
        status: Some(v1::RuntimeStatus {
            conditions: vec![
                condition("RuntimeReady", true, "", ""),
                condition("NetworkReady", network, "NetworkPluginNotReady", "the node's pod CIDR is not known yet"),
            ],
        }),
        info,
        runtime_handlers: HANDLERS.map(|name| handler(name, user_namespaces)).to_vec(),
        features: Some(v1::RuntimeFeatures { supplemental_groups_policy: true, ..v1::RuntimeFeatures::default() }),
    }
}

/// One runtime, by each of its names.
fn handler(name: &str, user_namespaces: bool) -> v1::RuntimeHandler {
    let features = v1::RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces };
    v1::RuntimeHandler { name: name.to_owned(), features: Some(features) }
}
