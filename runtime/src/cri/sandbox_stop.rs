use gantry_cri::v1::{self, ContainerEventType};

use crate::node::{Node, NodeError, blocking};
use crate::records::{SandboxRecord, SandboxState};
use crate::sandbox::processes;

/// Ends every container, gives the address back and lets the namespaces go. Asking again is no error, nor is a sandbox
/// that is gone.
pub async fn run(node: &Node, request: v1::StopPodSandboxRequest) -> Result<v1::StopPodSandboxResponse, NodeError> {
    match node.sandbox(&request.pod_sandbox_id) {
        Ok(record) => stop(node, record).await?,
        Err(NodeError::NoSandbox(_)) => {}
        Err(error) => return Err(error),
    }
    Ok(v1::StopPodSandboxResponse {})
}

pub async fn stop(node: &Node, record: SandboxRecord) -> Result<(), NodeError> {
    let Some(lock) = node.sandbox_lock(&record.id) else { return Ok(()) };
    let _one_at_a_time = lock.lock().await;
    // Made or removed while this waited, it is another record now, or none.
    let mut record = match node.pods.lock().sandboxes.get_mut(&record.id) {
        Some(sandbox) => {
            sandbox.stopping = true;
            sandbox.record.clone()
        }
        None => return Ok(()),
    };
    // From here on a start finds it half stopped, and stops it: it must not pass for ready with its address given back.
    if !record.stopping && record.state() != SandboxState::NotReady {
        record.stopping = true;
        node.put_sandbox(record.clone())?;
    }
    let containers = node.containers_of(&record.id);
    let stops = containers.iter().map(|c| super::container_stop::stop(node, c, std::time::Duration::ZERO));
    for stopped in futures::future::join_all(stops).await {
        stopped?;
    }
    tear_down(node, &record).await?;
    if record.state() != SandboxState::NotReady {
        record.set_state(SandboxState::NotReady);
        let id = record.id.clone();
        node.put_sandbox(record)?;
        node.emit(&id, ContainerEventType::ContainerStoppedEvent);
    }
    Ok(())
}

/// Takes away what `RunPodSandbox` made. Safe at any point of it, and twice.
pub async fn tear_down(node: &Node, record: &SandboxRecord) -> Result<(), NodeError> {
    let link = node.pods.lock().sandboxes.get_mut(&record.id).and_then(|s| s.link.take());
    if let Some(link) = link {
        // A supervisor that does not leave has something running, which the next try will find.
        let _ = link.leave().await;
    }
    node.loopback.close(&record.id).await;
    let shared = node.me.upgrade().ok_or(NodeError::Interrupted)?;
    let record = record.clone();
    blocking(move || {
        processes::end(&shared, &record)?;
        let pins = shared.pins(&record.id);
        shared.network.let_go(&record.id, &pins.net())?;
        pins.remove()?;
        Ok(())
    })
    .await
}
