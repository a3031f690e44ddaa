use gantry_cri::v1;

use crate::cgroup::plan;
use crate::node::{Node, NodeError, blocking};
use crate::records::ContainerState;

/// Changes the limits of a container, at once where it runs.
pub async fn run(
    node: &Node,
    request: v1::UpdateContainerResourcesRequest,
) -> Result<v1::UpdateContainerResourcesResponse, NodeError> {
    let mut record = node.container(&request.container_id)?;
    let Some(new) = request.linux else { return Ok(v1::UpdateContainerResourcesResponse {}) };
    if record.state() == ContainerState::Running {
        let (cgroups, path, wanted) = (node.cgroups.clone(), record.cgroup.clone(), new.clone());
        blocking(move || {
            let unified = cgroups.unified();
            cgroups.write(&path, &plan::limits(&wanted, unified))?;
            cgroups.write(&path, &plan::quota(&wanted, unified))?;
            Ok(())
        })
        .await?;
    }
    record.resources = Some(merge(record.resources.unwrap_or_default(), new));
    node.put_container(record)?;
    Ok(v1::UpdateContainerResourcesResponse {})
}

/// Zero and empty mean: as it was.
fn merge(old: v1::LinuxContainerResources, new: v1::LinuxContainerResources) -> v1::LinuxContainerResources {
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
        unified: if new.unified.is_empty() { old.unified } else { new.unified },
        memory_swap_limit_in_bytes: number(old.memory_swap_limit_in_bytes, new.memory_swap_limit_in_bytes),
    }
}
