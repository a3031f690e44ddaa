//! The numbers of pods and containers by the names that dashboards know from cAdvisor (KEP-2371): read when they are asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use gantry_cri::v1;

use crate::cgroup::detail::Detail;
use crate::cgroup::stats::Usage;
use crate::network::usage::{LinkUsage, links};
use crate::node::{Node, NodeError, blocking};
use crate::records::{ContainerRecord, ContainerState, SandboxRecord, SandboxState};

pub mod families;

/// Everything that is read of one container.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    pub usage: Usage,
    pub detail: Detail,
    pub processes: Processes,
    /// The file system that its layer is on, which it shares with others.
    pub filesystem: Option<Filesystem>,
    /// Bytes in its own layer.
    pub written_bytes: Option<u64>,
    /// As it was asked for: v2's weight is not what dashboards divide by.
    pub cpu_shares: Option<u64>,
    pub log_lost_bytes: u64,
    pub started_at: u64,
    pub now: u64,
    /// Names of block devices by their numbers.
    pub devices: BTreeMap<(u32, u32), String>,
}

/// What its processes have open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processes {
    pub count: u64,
    pub descriptors: u64,
    pub sockets: u64,
    /// Of its first process, by the name that the metric has for it.
    pub open_files_max: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filesystem {
    pub device: String,
    pub bytes: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

/// The live pods and containers; one that ends meanwhile has the numbers that were still there.
pub async fn list(node: &Node) -> Result<Vec<v1::PodSandboxMetrics>, NodeError> {
    let ready: Vec<SandboxRecord> = {
        let pods = node.pods.lock();
        let records = pods.sandboxes.values().map(|s| &s.record);
        records.filter(|r| r.state() == SandboxState::Ready).cloned().collect()
    };
    let mut metrics = Vec::new();
    let links = links();
    for sandbox in ready {
        metrics.push(of(node, &sandbox, &links).await?);
    }
    Ok(metrics)
}

async fn of(
    node: &Node,
    sandbox: &SandboxRecord,
    links: &BTreeMap<String, LinkUsage>,
) -> Result<v1::PodSandboxMetrics, NodeError> {
    let metadata = sandbox.config.as_ref().and_then(|c| c.metadata.clone()).unwrap_or_default();
    let pod = [metadata.name, metadata.namespace];
    let link = node.network.address(&sandbox.id).and_then(|address| links.get(&address.interface).copied());
    let metrics = link.map(|link| families::of_pod(&pod, &sandbox.id, &link.reversed())).unwrap_or_default();
    let mut container_metrics = Vec::new();
    for container in node.containers_of(&sandbox.id).into_iter().filter(|c| c.state() == ContainerState::Running) {
        let reading = read(node, &container).await?;
        let config = container.config.unwrap_or_default();
        let image = config.image.unwrap_or_default();
        let image = if image.user_specified_image.is_empty() { image.image } else { image.user_specified_image };
        let labels = [config.metadata.unwrap_or_default().name, container.id.clone(), image];
        let metrics = families::of_container(&pod, &labels, &reading);
        container_metrics.push(v1::ContainerMetrics { container_id: container.id, metrics });
    }
    Ok(v1::PodSandboxMetrics { pod_sandbox_id: sandbox.id.clone(), metrics, container_metrics })
}

async fn read(node: &Node, record: &ContainerRecord) -> Result<Reading, NodeError> {
    // A container that is being removed has no layer any more; the rest of its numbers still counts.
    let written = node.images.snapshot_usage(&record.id).await.ok();
    let (cgroups, cgroup, pid) = (node.cgroups.clone(), record.cgroup.clone(), record.pid);
    let state_dir = node.config.state_dir.clone();
    let seconds = |nanos: i64| u64::try_from(nanos / 1_000_000_000).unwrap_or(0);
    let (now, started_at) = (seconds(node.now_ns()), seconds(record.started_at));
    let log_lost_bytes = node.pods.lock().containers.get(&record.id).map_or(0, |container| container.log_lost_bytes);
    let shares = record.resources.as_ref().and_then(|r| u64::try_from(r.cpu_shares).ok());
    blocking(move || {
        let detail = cgroups.detail(&cgroup);
        let devices = detail.disks.iter().map(|disk| ((disk.major, disk.minor), name(disk.major, disk.minor)));
        Ok(Reading {
            usage: cgroups.usage(&cgroup),
            processes: processes(&cgroups.processes(&cgroup), pid),
            filesystem: filesystem(&state_dir),
            written_bytes: written.map(|used| used.bytes),
            cpu_shares: shares,
            log_lost_bytes,
            started_at,
            now,
            devices: devices.collect(),
            detail,
        })
    })
    .await
}

/// Who has ended meanwhile has nothing open.
fn processes(pids: &BTreeSet<i32>, first: i32) -> Processes {
    let mut sum = Processes { count: pids.len() as u64, open_files_max: open_files_max(first), ..Processes::default() };
    for pid in pids {
        let Ok(open) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for entry in open.flatten() {
            sum.descriptors += 1;
            let is_socket = std::fs::read_link(entry.path())
                .is_ok_and(|to| to.as_os_str().as_encoded_bytes().starts_with(b"socket:"));
            sum.sockets += u64::from(is_socket);
        }
    }
    sum
}

/// The soft limit, as the kernel tells of it (proc_pid_limits(5)).
fn open_files_max(pid: i32) -> Option<u64> {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?;
    soft.parse().ok()
}

fn filesystem(folder: &Path) -> Option<Filesystem> {
    let (stat, size) = (rustix::fs::stat(folder).ok()?, rustix::fs::statvfs(folder).ok()?);
    Some(Filesystem {
        device: name(rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev)),
        bytes: size.f_blocks.saturating_mul(size.f_frsize),
        inodes: size.f_files,
        inodes_free: size.f_ffree,
    })
}

/// `/dev/sda1`; the numbers where there is no such device, as of a tmpfs.
fn name(major: u32, minor: u32) -> String {
    let text = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/uevent")).unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    name.map_or_else(|| format!("{major}:{minor}"), |name| format!("/dev/{name}"))
}
