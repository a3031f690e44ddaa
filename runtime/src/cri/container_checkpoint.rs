use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use gantry_cri::v1;

use crate::node::{Node, NodeError};
use crate::records::ContainerState;

/// A checkpoint is made by CRIU, a program of the host's. What callers do without one is theirs to decide: they are told so in
/// the words and with the code that they know, before they are told that it is not supported where there is one.
pub fn run(
    node: &Node,
    request: &v1::CheckpointContainerRequest,
) -> Result<v1::CheckpointContainerResponse, NodeError> {
    let record = node.container(&request.container_id)?;
    if record.state() != ContainerState::Running {
        let state = record.state().in_words();
        return Err(NodeError::WrongState { id: record.id, state, wanted: "running" });
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| is_program(&folder.join("criu"))) {
        Err(NodeError::Unsupported("a checkpoint"))
    } else {
        Err(NodeError::NoCriu)
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}
