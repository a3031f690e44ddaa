use gantry_cri::v1;

use super::sandbox_list::labels_match;
use crate::node::{Node, NodeError};
use crate::records::{ContainerRecord, ContainerState};

pub async fn run(node: &Node, request: v1::ContainerStatsRequest) -> Result<v1::ContainerStatsResponse, NodeError> {
    let record = node.container(&request.container_id)?;
    Ok(v1::ContainerStatsResponse { stats: Some(of(node, &record).await) })
}

pub async fn list(node: &Node, request: v1::ListContainerStatsRequest) -> v1::ListContainerStatsResponse {
    let filter = request.filter.unwrap_or_default();
    let records: Vec<ContainerRecord> = node.pods.lock().containers.values().map(|c| c.record.clone()).collect();
    let mut stats = Vec::new();
    for record in records {
        let labels = record.config.as_ref().map(|c| &c.labels);
        let asked = record.id.starts_with(&filter.id)
            && record.sandbox.starts_with(&filter.pod_sandbox_id)
            && labels_match(labels, &filter.label_selector);
        if asked && record.state() == ContainerState::Running {
            stats.push(of(node, &record).await);
        }
    }
    v1::ListContainerStatsResponse { stats }
}

pub async fn of(node: &Node, record: &ContainerRecord) -> v1::ContainerStats {
    let config = record.config.clone().unwrap_or_default();
    let Use { cpu, memory, swap, io, .. } = usage(node, &record.cgroup);
    let timestamp = node.now_ns();
    // A container that is being removed has no layer any more; the rest of its numbers still counts.
    let layer = node.images.snapshot_usage(&record.id).await.ok().map(|used| v1::FilesystemUsage {
        timestamp,
        fs_id: Some(v1::FilesystemIdentifier {
            mountpoint: node.config.state_dir.join("snapshots").to_string_lossy().into_owned(),
        }),
        used_bytes: number(Some(used.bytes)),
        inodes_used: number(Some(used.inodes)),
    });
    v1::ContainerStats {
        attributes: Some(v1::ContainerAttributes {
            id: record.id.clone(),
            metadata: config.metadata,
            labels: config.labels,
            annotations: config.annotations,
        }),
        cpu: Some(cpu),
        memory: Some(memory),
        writable_layer: layer,
        swap,
        io,
    }
}

pub fn number(value: Option<u64>) -> Option<v1::UInt64Value> {
    value.map(|value| v1::UInt64Value { value })
}

/// What a cgroup uses, as CRI says it.
pub struct Use {
    pub cpu: v1::CpuUsage,
    pub memory: v1::MemoryUsage,
    pub swap: Option<v1::SwapUsage>,
    pub io: Option<v1::IoUsage>,
    pub processes: Option<v1::UInt64Value>,
}

pub fn usage(node: &Node, cgroup: &str) -> Use {
    let used = node.cgroups.usage(cgroup);
    let timestamp = node.now_ns();
    let available = used.memory_limit_bytes.zip(used.working_set_bytes).map(|(limit, set)| limit.saturating_sub(set));
    let cpu = v1::CpuUsage {
        timestamp,
        usage_core_nano_seconds: number(used.cpu_nanos),
        usage_nano_cores: number(used.cpu_nanos.and_then(|nanos| node.rates.next(cgroup, timestamp, nanos))),
        psi: used.pressure.cpu,
    };
    let memory = v1::MemoryUsage {
        timestamp,
        working_set_bytes: number(used.working_set_bytes),
        available_bytes: number(available),
        usage_bytes: number(used.memory_bytes),
        rss_bytes: number(used.rss_bytes),
        page_faults: number(used.page_faults),
        major_page_faults: number(used.major_page_faults),
        psi: used.pressure.memory,
    };
    let swap = used.swap_bytes.map(|bytes| v1::SwapUsage {
        timestamp,
        swap_available_bytes: number(used.swap_limit_bytes.map(|limit| limit.saturating_sub(bytes))),
        swap_usage_bytes: number(Some(bytes)),
    });
    let io = used.pressure.io.map(|psi| v1::IoUsage { timestamp, psi: Some(psi) });
    Use { cpu, memory, swap, io, processes: number(used.processes) }
}
