use std::collections::BTreeMap;

use gantry_cri::v1;

use super::container_stats::{self, number};
use super::sandbox_list::labels_match;
use crate::network::POD_INTERFACE;
use crate::network::usage::{LinkUsage, links};
use crate::node::{Node, NodeError};
use crate::records::{ContainerState, SandboxRecord, SandboxState};

pub async fn run(node: &Node, request: v1::PodSandboxStatsRequest) -> Result<v1::PodSandboxStatsResponse, NodeError> {
    let record = node.sandbox(&request.pod_sandbox_id)?;
    Ok(v1::PodSandboxStatsResponse { stats: Some(of(node, &record, &links()).await) })
}

pub async fn list(node: &Node, request: v1::ListPodSandboxStatsRequest) -> v1::ListPodSandboxStatsResponse {
    let filter = request.filter.unwrap_or_default();
    let records: Vec<SandboxRecord> = node.pods.lock().sandboxes.values().map(|s| s.record.clone()).collect();
    let (links, mut stats) = (links(), Vec::new());
    for record in records {
        let labels = record.config.as_ref().map(|c| &c.labels);
        let asked = record.id.starts_with(&filter.id) && labels_match(labels, &filter.label_selector);
        if asked && record.state() == SandboxState::Ready {
            stats.push(of(node, &record, &links).await);
        }
    }
    v1::ListPodSandboxStatsResponse { stats }
}

async fn of(node: &Node, record: &SandboxRecord, links: &BTreeMap<String, LinkUsage>) -> v1::PodSandboxStats {
    let config = record.config.clone().unwrap_or_default();
    let used = container_stats::usage(node, &node.sandbox_cgroup(record));
    let mut containers = Vec::new();
    for container in node.containers_of(&record.id).iter().filter(|c| c.state() == ContainerState::Running) {
        containers.push(container_stats::of(node, container).await);
    }
    let process = v1::ProcessUsage { timestamp: node.now_ns(), process_count: used.processes };
    v1::PodSandboxStats {
        attributes: Some(v1::PodSandboxAttributes {
            id: record.id.clone(),
            metadata: config.metadata,
            labels: config.labels,
            annotations: config.annotations,
        }),
        linux: Some(v1::LinuxPodSandboxStats {
            cpu: Some(used.cpu),
            memory: Some(used.memory),
            network: network(node, &record.id, links),
            process: Some(process),
            containers,
            io: used.io,
        }),
        windows: None,
    }
}

/// The pod's own link as the pod sees it; none on the host's network.
fn network(node: &Node, sandbox: &str, links: &BTreeMap<String, LinkUsage>) -> Option<v1::NetworkUsage> {
    let used = links.get(&node.network.address(sandbox)?.interface)?.reversed();
    let interface = v1::NetworkInterfaceUsage {
        name: POD_INTERFACE.to_owned(),
        rx_bytes: number(Some(used.received_bytes)),
        rx_errors: number(Some(used.receive_errors)),
        tx_bytes: number(Some(used.sent_bytes)),
        tx_errors: number(Some(used.send_errors)),
    };
    Some(v1::NetworkUsage { timestamp: node.now_ns(), default_interface: Some(interface), interfaces: Vec::new() })
}
