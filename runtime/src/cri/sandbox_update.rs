use gantry_cri::v1;

use super::container_update::{check, merge};
use crate::node::{Node, NodeError, blocking};
use crate::records::SandboxState;
use crate::sandbox::cgroup;

/// Notes what a pod may take as a whole (KEP-1287). Where its cgroup is ours, the kernel is told too; a kubelet has told it
/// already where it is the kubelet's.
pub async fn run(
    node: &Node,
    request: v1::UpdatePodSandboxResourcesRequest,
) -> Result<v1::UpdatePodSandboxResourcesResponse, NodeError> {
    let id = node.sandbox(&request.pod_sandbox_id)?.id;
    request.overhead.iter().chain(&request.resources).try_for_each(check)?;
    let lock = node.sandbox_lock(&id).ok_or_else(|| NodeError::NoSandbox(id.clone()))?;
    let _one_at_a_time = lock.lock().await;
    let mut record = node.sandbox(&id)?;
    let linux = record.config.get_or_insert_default().linux.get_or_insert_default();
    if let Some(overhead) = request.overhead {
        linux.overhead = Some(merge(linux.overhead.take().unwrap_or_default(), overhead));
    }
    if let Some(resources) = request.resources {
        linux.resources = Some(merge(linux.resources.take().unwrap_or_default(), resources));
    }
    let ready = record.state() == SandboxState::Ready;
    // Its class weighs what is on record.
    node.put_sandbox(record.clone())?;
    if ready {
        let shared = node.me.upgrade().ok_or(NodeError::Interrupted)?;
        blocking(move || cgroup::make(&shared, &record)).await?;
    }
    Ok(v1::UpdatePodSandboxResourcesResponse {})
}
