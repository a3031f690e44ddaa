use gantry_cri::v1;

use crate::node::{Node, NodeError};
use crate::records::ContainerState;
use crate::stream::{Process, Session};

/// Answers with a URL at which the container's own streams are.
pub fn run(node: &Node, request: &v1::AttachRequest) -> Result<v1::AttachResponse, NodeError> {
    let record = node.container(&request.container_id)?;
    if record.state() != ContainerState::Running {
        let state = record.state().in_words();
        return Err(NodeError::WrongState { id: record.id, state, wanted: "running" });
    }
    if request.tty && request.stderr {
        let (what, value, why) = ("stderr", "true".to_owned(), "a terminal has one output");
        return Err(NodeError::Invalid { what, value, why });
    }
    let process = Process {
        container: record.id,
        command: None,
        tty: request.tty,
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr,
    };
    Ok(v1::AttachResponse { url: node.streams.offer(&node.env, Session::Process(process)) })
}
