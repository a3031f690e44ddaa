use std::time::Duration;

use gantry_cri::v1;

use crate::fault::{Point, point};
use crate::node::{Node, NodeError};
use crate::records::{ContainerRecord, ContainerState};

/// How long a killed process may take to go before we say that it does not.
const KILL_WAIT: Duration = Duration::from_secs(30);

/// The stop signal, the grace period, then SIGKILL. A container that has ended, or is gone, is stopped.
pub async fn run(node: &Node, request: v1::StopContainerRequest) -> Result<v1::StopContainerResponse, NodeError> {
    match node.container(&request.container_id) {
        Ok(record) => {
            let seconds = u64::try_from(request.timeout).unwrap_or(0);
            stop(node, &record, Duration::from_secs(seconds)).await?;
        }
        Err(NodeError::NoContainer(_)) => {}
        Err(error) => return Err(error),
    }
    Ok(v1::StopContainerResponse {})
}

pub async fn stop(node: &Node, record: &ContainerRecord, grace: Duration) -> Result<(), NodeError> {
    let Some(lock) = node.container_lock(&record.id) else { return Ok(()) };
    if record.state() == ContainerState::Created || record.state() == ContainerState::Starting {
        // Whoever starts it has the lock: afterwards it runs or has ended.
        drop(lock.lock().await);
    }
    let Ok(record) = node.container(&record.id) else { return Ok(()) };
    if record.state() == ContainerState::Running {
        end(node, &record, grace).await?;
    }
    // What shares a pid namespace with others outlives its first process.
    if record.state() == ContainerState::Created { Ok(()) } else { node.settle(&record).await }
}

async fn end(node: &Node, record: &ContainerRecord, grace: Duration) -> Result<(), NodeError> {
    if !grace.is_zero() {
        if let Err(error) = signal(node, record, record.stop_signal).await {
            // It is asked in vain, and killed when its time is over.
            tracing::warn!(container = record.id, signal = record.stop_signal, error = %gantry_env::chain(&error), "not signalled");
        }
        if ended(node, &record.id, grace).await {
            return Ok(());
        }
    }
    signal(node, record, libc::SIGKILL).await?;
    if ended(node, &record.id, KILL_WAIT).await { Ok(()) } else { Err(NodeError::Unkillable(record.id.clone())) }
}

/// By the pidfd that we hold; the supervisor is asked only where there is none.
async fn signal(node: &Node, record: &ContainerRecord, number: i32) -> Result<(), NodeError> {
    let held = {
        let pods = node.pods.lock();
        let held = pods.containers.get(&record.id).and_then(|c| c.held.as_ref());
        held.and_then(|h| h.pidfd.as_ref()?.try_clone().ok())
    };
    point(Point::Signal);
    match (held, rustix::process::Signal::from_named_raw(number)) {
        (Some(pidfd), Some(signal)) => {
            // No such process: it has ended, and the news is on its way.
            let _ = rustix::process::pidfd_send_signal(&pidfd, signal);
        }
        _ => {
            let link = node.link(&record.sandbox).await?;
            match link.signal(gantry_base::Id::parse(&record.id)?, number).await {
                // It has ended since, and its supervisor has forgotten it.
                Err(_) if !super::container_update::is_live(node, &record.id) => {}
                signalled => signalled?,
            }
        }
    }
    Ok(())
}

async fn ended(node: &Node, id: &str, within: Duration) -> bool {
    let Some(mut ended) = node.pods.lock().containers.get(id).map(|c| c.ended.subscribe()) else { return true };
    matches!(tokio::time::timeout(within, ended.wait_for(|ended| *ended)).await, Ok(Ok(_)))
}
