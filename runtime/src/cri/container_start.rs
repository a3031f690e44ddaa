use gantry_base::Id;
use gantry_cri::v1;
use gantry_env::chain;

use crate::cgroup::plan;
use crate::node::{Node, NodeError, blocking};
use crate::records::{ContainerRecord, ContainerState, SandboxState};

/// Makes the process. A command that cannot be executed is an error here, and leaves the container ended with 128.
pub async fn run(node: &Node, request: v1::StartContainerRequest) -> Result<v1::StartContainerResponse, NodeError> {
    let id = node.container(&request.container_id)?.id;
    let gone = || NodeError::NoContainer(id.clone());
    let lock = node.container_lock(&id).ok_or_else(gone)?;
    let _one_at_a_time = lock.lock().await;
    let record = node.container(&id)?;
    if record.state() != ContainerState::Created {
        let state = record.state().in_words();
        return Err(NodeError::WrongState { id, state, wanted: "created" });
    }
    let sandbox = node.sandbox(&record.sandbox)?;
    if sandbox.state() != SandboxState::Ready {
        return Err(NodeError::NotReady(sandbox.id));
    }
    let link = node.link(&record.sandbox).await?;
    prepare_cgroup(node, &record).await?;
    if !node.mark_starting(&id) {
        return Err(gone());
    }
    let unit = crate::recover::unit(node, &record, &Id::parse(&id)?);
    match link.start(unit).await {
        Ok(()) => Ok(v1::StartContainerResponse {}),
        Err(error) => {
            node.mark_start_failed(&id, &chain(&error).to_string());
            if let Err(left) = node.sweep(&record).await {
                tracing::warn!(container = id, error = %chain(&left), "cgroup of a failed start stays");
            }
            Err(error.into())
        }
    }
}

/// The limits stand before the process does; the quota follows when it is made.
async fn prepare_cgroup(node: &Node, record: &ContainerRecord) -> Result<(), NodeError> {
    let shared = node.me.upgrade().ok_or(NodeError::Interrupted)?;
    let record = record.clone();
    blocking(move || {
        let config = record.config.clone().unwrap_or_default();
        let security = crate::container::spec::security(&config);
        shared.cgroups.create(&record.cgroup)?;
        let resources = record.resources.clone().unwrap_or_default();
        shared.cgroups.write(&record.cgroup, &plan::limits(&resources, shared.cgroups.unified()))?;
        if !shared.cgroups.unified() {
            let devices = super::devices::gather(&config, security.privileged)?;
            let extra: Vec<_> = devices.into_iter().map(|d| (d.kind, d.major, d.minor, d.access)).collect();
            shared.cgroups.write(&record.cgroup, &plan::devices_v1(security.privileged, &extra))?;
        }
        Ok(())
    })
    .await
}
