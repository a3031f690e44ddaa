use gantry_cri::v1::{self, ContainerEventType};
use gantry_env::chain;

use crate::node::{Node, NodeError, blocking};
use crate::records::SandboxRecord;

/// Removes a sandbox with its containers; one that still runs is stopped first.
pub async fn run(node: &Node, request: v1::RemovePodSandboxRequest) -> Result<v1::RemovePodSandboxResponse, NodeError> {
    let record = match node.sandbox(&request.pod_sandbox_id) {
        Ok(record) => record,
        Err(NodeError::NoSandbox(_)) => return Ok(v1::RemovePodSandboxResponse {}),
        Err(error) => return Err(error),
    };
    super::sandbox_stop::stop(node, record.clone()).await?;
    let _nothing_is_made = match node.making(&record.id) {
        Ok(making) => making.write_owned().await,
        Err(_) => return Ok(v1::RemovePodSandboxResponse {}),
    };
    for container in node.containers_of(&record.id) {
        super::container_remove::remove(node, &container.id).await?;
    }
    forget(node, &record).await?;
    node.emit(&record.id, ContainerEventType::ContainerDeletedEvent);
    Ok(v1::RemovePodSandboxResponse {})
}

/// Removes the sandbox's folder and cgroup. The record goes last of its files' names that recovery reads.
pub async fn forget(node: &Node, record: &SandboxRecord) -> Result<(), NodeError> {
    let shared = node.me.upgrade().ok_or(NodeError::Interrupted)?;
    let record = record.clone();
    blocking(move || {
        // The kubelet's own pod cgroup may hold more than ours; one that is in use stays for its owner.
        shared.cgroups.remove_if_empty(&shared.sandbox_cgroup(&record));
        shared.records.remove_sandbox(&record.id)?;
        shared.rates.forget(&shared.sandbox_cgroup(&record));
        shared.pods.lock().sandboxes.remove(&record.id);
        // It is gone; what those that stay weigh is put right by the next that comes.
        if let Err(error) = crate::sandbox::cgroup::weigh_class(&shared, &shared.sandbox_cgroup(&record)) {
            tracing::warn!(sandbox = record.id, error = %chain(&error), "weight of its class not set");
        }
        Ok(())
    })
    .await
}
