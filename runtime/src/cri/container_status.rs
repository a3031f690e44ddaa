use std::collections::HashMap;

use gantry_cri::v1;

use crate::node::{Node, NodeError};

pub fn run(node: &Node, request: &v1::ContainerStatusRequest) -> Result<v1::ContainerStatusResponse, NodeError> {
    let record = node.container(&request.container_id)?;
    let mut info = HashMap::new();
    if request.verbose {
        let text = serde_json::json!({"sandboxID": record.sandbox, "pid": record.pid, "cgroup": record.cgroup});
        info.insert("info".to_owned(), text.to_string());
    }
    Ok(v1::ContainerStatusResponse { status: Some(node.container_status(&record)), info })
}
