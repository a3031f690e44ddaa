use gantry_base::Id;
use gantry_cri::v1;

use crate::node::{Node, NodeError};
use crate::records::ContainerState;

/// The kubelet has renamed the log: the supervisor opens it anew.
pub async fn run(
    node: &Node,
    request: v1::ReopenContainerLogRequest,
) -> Result<v1::ReopenContainerLogResponse, NodeError> {
    let record = node.container(&request.container_id)?;
    if record.state() != ContainerState::Running {
        let state = record.state().in_words();
        return Err(NodeError::WrongState { id: record.id, state, wanted: "running" });
    }
    let link = node.link(&record.sandbox).await?;
    link.reopen_log(Id::parse(&record.id)?).await?;
    Ok(v1::ReopenContainerLogResponse {})
}
