use gantry_cri::v1;

use crate::node::{Node, NodeError};

/// The node's part of the pod network; of a list for two families, the IPv4 one.
pub fn run(node: &Node, request: v1::UpdateRuntimeConfigRequest) -> Result<v1::UpdateRuntimeConfigResponse, NodeError> {
    let text = request.runtime_config.and_then(|c| c.network_config).map(|n| n.pod_cidr).unwrap_or_default();
    if !text.is_empty() {
        let cidr = text.split(',').find_map(|part| part.trim().parse::<ipnet::Ipv4Net>().ok());
        let why = "it holds no IPv4 network";
        let cidr = cidr.ok_or(NodeError::Invalid { what: "pod CIDR", value: text, why })?;
        node.set_pod_cidr(cidr)?;
    }
    Ok(v1::UpdateRuntimeConfigResponse {})
}
