use gantry_base::Id;
use gantry_cri::v1;
use gantry_env::chain;

use crate::cgroup::{devices, plan};
use crate::image::Platform;
use crate::node::{Foreign, Node, NodeError, blocking};
use crate::records::{ContainerRecord, ContainerState};

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
    node.ready_sandbox(&record.sandbox)?;
    let link = node.link(&record.sandbox).await?;
    prepare_cgroup(node, &record).await?;
    if !node.mark_starting(&id) {
        return Err(gone());
    }
    let unit = crate::recover::unit(node, &record, &Id::parse(&id)?);
    hold_pod_quota(node, &record.sandbox, false).await;
    let started = match node.target_pids(&record) {
        Ok(pids) => link.start(unit, pids).await.map_err(NodeError::from),
        Err(error) => Err(error),
    };
    hold_pod_quota(node, &record.sandbox, true).await;
    match started {
        Ok(()) => {
            renew_quota(node, &record).await;
            Ok(v1::StartContainerResponse {})
        }
        Err(error) => {
            let error = with_platform(node, &record, error);
            node.mark_start_failed(&id, &chain(&error).to_string());
            if let Err(left) = node.sweep(&record).await {
                tracing::warn!(container = id, error = %chain(&left), "cgroup of a failed start stays");
            }
            Err(error)
        }
    }
}

/// An image for another platform may run where the kernel knows how (binfmt_misc, a 32-bit program): only where it did not is
/// that worth a word.
fn with_platform(node: &Node, record: &ContainerRecord, error: NodeError) -> NodeError {
    let host = Platform::host();
    let image = node.images.resolve(&record.image_id).and_then(|image| image.platform());
    match (error, image) {
        (NodeError::Supervisor(why), Some(image)) if host.fit(&image.offer()) == 0 => {
            NodeError::Foreign(Box::new(Foreign { image, host, why }))
        }
        (error, _) => error,
    }
}

/// The limits and the device filter stand before the process does; the quota follows when it is made.
async fn prepare_cgroup(node: &Node, record: &ContainerRecord) -> Result<(), NodeError> {
    let shared = node.me.upgrade().ok_or(NodeError::Interrupted)?;
    let record = record.clone();
    blocking(move || {
        let config = record.config.clone().unwrap_or_default();
        shared.cgroups.create(&record.cgroup)?;
        let resources = record.resources.clone().unwrap_or_default();
        shared.cgroups.write(&record.cgroup, &plan::limits(&resources, shared.cgroups.unified()))?;
        let privileged = crate::container::spec::security(&config).privileged;
        let given = if privileged { Vec::new() } else { super::devices::gather(&config, false)? };
        let of_cdi = record.cdi_devices.iter().map(super::cdi::rule);
        let rules = devices::rules(privileged, given.iter().map(super::devices::rule).chain(of_cdi));
        shared.cgroups.limit_devices(&shared.device_programs, &record.cgroup, &rules)?;
        Ok(())
    })
    .await
}

/// The pod's quota would slow the making of a container, which has its own by the time that it runs: it is lifted
/// meanwhile.
async fn hold_pod_quota(node: &Node, sandbox: &str, hold: bool) {
    let (Some(shared), Ok(sandbox)) = (node.me.upgrade(), node.sandbox(sandbox)) else { return };
    if !crate::sandbox::cgroup::has_quota(node, &sandbox) {
        return;
    }
    let id = sandbox.id.clone();
    if let Err(error) = blocking(move || crate::sandbox::cgroup::hold_quota(&shared, &sandbox, hold)).await {
        tracing::warn!(sandbox = id, hold, error = %chain(&error), "CPU quota of the pod not set");
    }
}

/// The quota was set by the supervisor, from what the container was created with: an update since then comes after it.
async fn renew_quota(node: &Node, record: &ContainerRecord) {
    let (cgroups, path) = (node.cgroups.clone(), record.cgroup.clone());
    let quota =
        |r: Option<&v1::LinuxContainerResources>| r.map(|r| plan::quota(r, cgroups.unified())).unwrap_or_default();
    let created_with = record.config.as_ref().and_then(|c| c.linux.as_ref()?.resources.as_ref());
    let wanted = quota(record.resources.as_ref());
    if wanted == quota(created_with) {
        return;
    }
    if let Err(error) = blocking(move || Ok(cgroups.write(&path, &wanted)?)).await
        && super::container_update::is_live(node, &record.id)
    {
        tracing::warn!(container = record.id, error = %chain(&error), "CPU quota not renewed");
    }
}
