use gantry_cri::v1;

use crate::cgroup::plan;
use crate::node::{Node, NodeError, blocking};
use crate::records::ContainerState;

/// Changes the limits of a container: at once where it runs, otherwise for when it is started. Of one that has ended only
/// the record changes.
pub async fn run(
    node: &Node,
    request: v1::UpdateContainerResourcesRequest,
) -> Result<v1::UpdateContainerResourcesResponse, NodeError> {
    let id = node.container(&request.container_id)?.id;
    let gone = || NodeError::NoContainer(id.clone());
    let Some(new) = request.linux else { return Ok(v1::UpdateContainerResourcesResponse {}) };
    check(&new)?;
    // A start reads the limits once: it is over, or has not begun. An end waits for no lock.
    let lock = node.container_lock(&id).ok_or_else(gone)?;
    let _one_at_a_time = lock.lock().await;
    let record = node.container(&id)?;
    // Some settings are one of several fields (a quota of its period, swap of the limit): all of them are written.
    let merged = merge(record.resources.unwrap_or_default(), new);
    if is_live(node, &id) {
        let (cgroups, path, wanted) = (node.cgroups.clone(), record.cgroup, merged.clone());
        let written = blocking(move || {
            let unified = cgroups.unified();
            cgroups.write(&path, &plan::limits(&wanted, unified))?;
            Ok(cgroups.write(&path, &plan::quota(&wanted, unified))?)
        });
        // One that has ended meanwhile has lost its cgroup, and nothing is left to be limited.
        match written.await {
            Err(error) if is_live(node, &id) => return Err(error),
            _ => {}
        }
    }
    if node.set_resources(&id, merged) { Ok(v1::UpdateContainerResourcesResponse {}) } else { Err(gone()) }
}

pub fn is_live(node: &Node, id: &str) -> bool {
    node.container(id).is_ok_and(|r| matches!(r.state(), ContainerState::Starting | ContainerState::Running))
}

/// The files that a request names on v2 are the kernel's for limits, by plain names.
pub fn check(resources: &v1::LinuxContainerResources) -> Result<(), NodeError> {
    match resources.unified.keys().find(|file| plan::controller(file).is_none()) {
        None => Ok(()),
        Some(file) => {
            let why = "it is no file of a cgroup controller";
            Err(NodeError::Invalid { what: "unified cgroup setting", value: file.clone(), why })
        }
    }
}

/// Zero and empty mean: as it was.
pub fn merge(mut old: v1::LinuxContainerResources, new: v1::LinuxContainerResources) -> v1::LinuxContainerResources {
    old.unified.extend(new.unified);
    let number = |old: i64, new: i64| if new == 0 { old } else { new };
    let text = |old: String, new: String| if new.is_empty() { old } else { new };
    v1::LinuxContainerResources {
        cpu_period: number(old.cpu_period, new.cpu_period),
        cpu_quota: number(old.cpu_quota, new.cpu_quota),
        cpu_shares: number(old.cpu_shares, new.cpu_shares),
        memory_limit_in_bytes: number(old.memory_limit_in_bytes, new.memory_limit_in_bytes),
        oom_score_adj: number(old.oom_score_adj, new.oom_score_adj),
        cpuset_cpus: text(old.cpuset_cpus, new.cpuset_cpus),
        cpuset_mems: text(old.cpuset_mems, new.cpuset_mems),
        hugepage_limits: if new.hugepage_limits.is_empty() { old.hugepage_limits } else { new.hugepage_limits },
        unified: old.unified,
        memory_swap_limit_in_bytes: number(old.memory_swap_limit_in_bytes, new.memory_swap_limit_in_bytes),
    }
}
