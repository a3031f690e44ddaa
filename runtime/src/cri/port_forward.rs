use gantry_cri::v1;

use crate::node::{Node, NodeError};
use crate::stream::Session;

/// Answers with a URL; which ports are meant, the client says there.
pub fn run(node: &Node, request: &v1::PortForwardRequest) -> Result<v1::PortForwardResponse, NodeError> {
    if let Some(port) = request.port.iter().find(|port| !(1..=65_535).contains(*port)) {
        let (what, value, why) = ("port", port.to_string(), "ports are from 1 to 65535");
        return Err(NodeError::Invalid { what, value, why });
    }
    let sandbox = node.ready_sandbox(&request.pod_sandbox_id)?.id;
    Ok(v1::PortForwardResponse { url: node.streams.offer(&node.env, Session::Ports { sandbox }) })
}
