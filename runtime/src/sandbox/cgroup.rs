//! A pod's cgroup, and the weight of the one that holds the pods of its class.

use crate::cgroup::plan;
use crate::node::{Node, NodeError};
use crate::records::{SandboxRecord, SandboxState};

/// Makes the pod's cgroup with its limits. One that lies elsewhere than below ours has an owner (a kubelet), who limits it.
pub fn make(node: &Node, record: &SandboxRecord) -> Result<(), NodeError> {
    let path = node.sandbox_cgroup(record);
    node.cgroups.create(&path)?;
    if is_ours(node, &path) {
        node.cgroups.write(&path, &plan::pod(&resources(record), node.cgroups.unified()))?;
        weigh_class(node, &path)?;
    }
    Ok(())
}

/// Whether the pod has a CPU quota of ours.
pub fn has_quota(node: &Node, record: &SandboxRecord) -> bool {
    resources(record).cpu_quota > 0 && is_ours(node, &node.sandbox_cgroup(record))
}

/// Sets the pod's CPU quota, or lifts it.
pub fn hold_quota(node: &Node, record: &SandboxRecord, hold: bool) -> Result<(), NodeError> {
    let (path, mut resources) = (node.sandbox_cgroup(record), resources(record));
    if !hold {
        resources.cpu_quota = -1;
    }
    Ok(node.cgroups.write(&path, &plan::quota(&resources, node.cgroups.unified()))?)
}

/// A cgroup between ours and the pods' is a class (`burstable`): it weighs what the pods in it ask for. Called when one of
/// them comes or goes.
pub fn weigh_class(node: &Node, pod: &str) -> Result<(), NodeError> {
    let Some(class) = parent(pod).filter(|class| is_ours(node, class)) else { return Ok(()) };
    // Under the lock, so that of two changes the later one has the last word.
    let pods = node.pods.lock();
    let inside =
        |r: &&SandboxRecord| r.state() != SandboxState::NotReady && parent(&node.sandbox_cgroup(r)) == Some(class);
    let asked: Vec<i64> =
        pods.sandboxes.values().map(|s| &s.record).filter(inside).map(|r| resources(r).cpu_shares).collect();
    if !asked.is_empty() {
        node.cgroups.write(class, &plan::class(asked.into_iter(), node.cgroups.unified()))?;
    }
    Ok(())
}

fn is_ours(node: &Node, path: &str) -> bool {
    path.strip_prefix(node.config.cgroup_parent.as_str()).is_some_and(|below| below.starts_with('/'))
}

fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(parent, _)| parent)
}

fn resources(record: &SandboxRecord) -> gantry_cri::v1::LinuxContainerResources {
    record.config.as_ref().and_then(|c| c.linux.as_ref()?.resources.clone()).unwrap_or_default()
}
