use gantry_base::Id;
use gantry_cri::v1::{self, ContainerEventType};

use crate::node::{Node, NodeError};

/// Removes a container with all that it wrote; one that runs is killed first. One that is gone is no error.
pub async fn run(node: &Node, request: v1::RemoveContainerRequest) -> Result<v1::RemoveContainerResponse, NodeError> {
    match node.container(&request.container_id) {
        Ok(record) => remove(node, &record.id).await?,
        Err(NodeError::NoContainer(_)) => {}
        Err(error) => return Err(error),
    }
    Ok(v1::RemoveContainerResponse {})
}

pub async fn remove(node: &Node, id: &str) -> Result<(), NodeError> {
    let Ok(record) = node.container(id) else { return Ok(()) };
    super::container_stop::stop(node, &record, std::time::Duration::ZERO).await?;
    let Some(lock) = node.container_lock(id) else { return Ok(()) };
    let _one_at_a_time = lock.lock().await;
    // Another may have removed it meanwhile.
    let Ok(record) = node.container(id) else { return Ok(()) };
    let parsed = Id::parse(id)?;
    node.settle(&record).await?;
    super::cdi::after_the_end(node, &record).await;
    node.images.remove_snapshot(id).await?;
    node.records.remove_container(&record.sandbox, &parsed)?;
    node.rates.forget(&record.cgroup);
    // The last event of a container still says which pod it was of.
    node.emit(id, ContainerEventType::ContainerDeletedEvent);
    node.pods.lock().containers.remove(id);
    Ok(())
}
