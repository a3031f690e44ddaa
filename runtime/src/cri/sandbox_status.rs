use std::collections::HashMap;

use gantry_cri::v1;

use crate::node::{Node, NodeError};

pub fn run(node: &Node, request: &v1::PodSandboxStatusRequest) -> Result<v1::PodSandboxStatusResponse, NodeError> {
    let record = node.sandbox(&request.pod_sandbox_id)?;
    let mut info = HashMap::new();
    if request.verbose {
        let supervisor = node.current_link(&record.id).map_or(0, |link| link.pid);
        let text = serde_json::json!({
            "supervisorPid": supervisor,
            "cgroup": node.sandbox_cgroup(&record),
            "namespaces": node.pins(&record.id).0,
        });
        info.insert("info".to_owned(), text.to_string());
    }
    let containers = node.containers_of(&record.id);
    Ok(v1::PodSandboxStatusResponse {
        status: Some(node.sandbox_status(&record)),
        info,
        containers_statuses: containers.iter().map(|c| node.container_status(c)).collect(),
        timestamp: node.now_ns(),
    })
}
