//! The pid namespace that the containers of a pod share where CRI asks for it (PodSandboxConfig's NamespaceOption.pid, POD). A
//! first process of ours keeps it, in a cgroup of its own below the pod's, by which it is found and ended: it outlives the
//! runtime and supervisors, and no record has its number.

use std::sync::Weak;

use gantry_cri::v1::{ContainerEventType, NamespaceMode, PodSandboxConfig};
use gantry_env::chain;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;

use crate::cri::sandbox_run;
use crate::node::{Node, NodeError};
use crate::records::{SandboxRecord, SandboxState};

/// CRI's default, too.
pub fn shared(config: &PodSandboxConfig) -> bool {
    sandbox_run::namespaces(config).pid() == NamespaceMode::Pod
}

fn is_shared(record: &SandboxRecord) -> bool {
    record.config.as_ref().is_some_and(shared)
}

fn cgroup(node: &Node, record: &SandboxRecord) -> String {
    format!("{}/{}", node.sandbox_cgroup(record), record.id)
}

/// Makes it, after the pod's other namespaces and its cgroup. Blocks.
pub fn make(node: &Node, record: &SandboxRecord) -> Result<(), NodeError> {
    if !is_shared(record) {
        return Ok(());
    }
    let path = cgroup(node, record);
    node.cgroups.create(&path)?;
    Ok(node.program.hold_pids(&node.pins(&record.id).0, &node.cgroups.folders(&path))?)
}

/// Ends everything in it. Safe where it was never made, and twice. Blocks.
pub fn end(node: &Node, record: &SandboxRecord) -> Result<(), NodeError> {
    if !is_shared(record) {
        return Ok(());
    }
    let path = cgroup(node, record);
    Ok(node.cgroups.end(&path)?)
}

/// From here on a sandbox whose first process ends is not ready any more: nothing can be started in its namespace.
pub fn watch(node: &Node, record: &SandboxRecord) {
    if !is_shared(record) || record.state() != SandboxState::Ready {
        return;
    }
    let path = cgroup(node, record);
    // The number may be another's by the time that it is opened; what is open and still there is the right one.
    let first = || node.cgroups.processes(&path).first().copied();
    let opened = first().and_then(|pid| pidfd_open(Pid::from_raw(pid)?, PidfdFlags::NONBLOCK).ok());
    let pidfd = opened.filter(|_| first().is_some()).and_then(|pidfd| crate::sys::async_fd(pidfd).ok());
    let (node, id) = (Weak::clone(&node.me), record.id.clone());
    tokio::spawn(async move {
        if let Some(pidfd) = pidfd {
            // It can be read once its process has ended.
            let _ = pidfd.ready(Interest::READABLE).await;
        }
        if let Some(node) = node.upgrade() {
            ended(&node, &id).await;
        }
    });
}

async fn ended(node: &Node, id: &str) {
    let Some(lock) = node.sandbox_lock(id) else { return };
    // Whoever stops it has the lock, and has said so afterwards.
    let _one_at_a_time = lock.lock().await;
    let Ok(mut record) = node.ready_sandbox(id) else { return };
    tracing::warn!(sandbox = id, "the first process of its pid namespace has ended, and everything in it");
    record.set_state(SandboxState::NotReady);
    match node.put_sandbox(record) {
        Ok(()) => node.emit(id, ContainerEventType::ContainerStoppedEvent),
        Err(error) => tracing::error!(sandbox = id, error = %chain(&error), "journal not written"),
    }
}
