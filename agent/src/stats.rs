//! What the node and its pods use, for whoever asks: read when it is asked for and kept for a moment, so that several who
//! ask at once cost one reading, and a node that nobody asks costs nothing.
//!
//! Pods' numbers come from the runtime over CRI, the node's from [`host`], what lies on the disk from [`disk`]. Pure
//! functions put them into the forms of the kubelet API: [`summary`] (`/stats/summary`), [`resource`]
//! (`/metrics/resource`) and [`cadvisor`] (`/metrics/cadvisor`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gantry_cri::v1;
use gantry_env::Env;
use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::config::KUBELET_VERSION;
use crate::pod::cri::cgroup_parent;
use crate::pods::views::{PodView, Views};
use crate::runtime::{CONTAINER_NAME_LABEL, POD_NAME_LABEL, POD_NAMESPACE_LABEL, POD_UID_LABEL, Runtime, RuntimeError};
use crate::volume::Volumes;

pub mod cadvisor;
pub mod cgroup;
pub mod disk;
pub mod host;
pub mod own;
pub mod resource;
pub mod summary;

use disk::Disks;
use host::{Host, NodeUse};

/// A reading that is no older answers again.
const FRESH: Duration = Duration::from_secs(1);
/// A rate is told over at least and at most this long.
const RATE_MIN: Duration = Duration::from_millis(900);
const RATE_MAX: Duration = Duration::from_secs(120);
/// The disk is walked so rarely, and so rarely that walking takes a tenth of the time at most.
const DISK_FRESH: Duration = Duration::from_secs(60);
const DISK_PAUSES: u32 = 10;

/// What one thing uses, in CRI's terms.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Use {
    pub cpu: v1::CpuUsage,
    pub memory: v1::MemoryUsage,
    pub swap: Option<v1::SwapUsage>,
    pub io: Option<v1::IoUsage>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerUse {
    pub id: String,
    pub name: String,
    pub image: String,
    pub started_at: Option<Timestamp>,
    pub used: Use,
    /// What it wrote over its image.
    pub layer: Option<v1::FilesystemUsage>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodUse {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub sandbox_id: String,
    /// Its path; those of its containers lie below, by their ids.
    pub cgroup: String,
    pub started_at: Option<Timestamp>,
    pub used: Use,
    pub network: Option<v1::NetworkUsage>,
    pub processes: Option<u64>,
    pub containers: Vec<ContainerUse>,
}

impl PodUse {
    pub fn cgroup_of(&self, container: &ContainerUse) -> String {
        format!("{}/{}", self.cgroup, container.id)
    }
}

/// One reading of everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    pub node: NodeUse,
    /// Ordered by namespace and name.
    pub pods: Vec<PodUse>,
}

pub struct Config {
    pub runtime: Runtime,
    pub views: Arc<Views>,
    pub volumes: Volumes,
    pub log_dir: PathBuf,
    /// The cgroup under which pods lie.
    pub cgroup_root: String,
    pub host: Host,
    pub env: Env,
}

/// The readings of one node.
pub struct Stats {
    config: Config,
    kept: Mutex<Kept>,
    walked: Mutex<Option<Walked>>,
}

#[derive(Default)]
struct Kept {
    latest: Option<(Instant, Arc<Snapshot>)>,
    /// Whether the latest has rates: something was known before it.
    rated: bool,
}

struct Walked {
    at: Instant,
    took: Duration,
    disks: Arc<Disks>,
}

impl Stats {
    pub fn new(config: Config) -> Stats {
        Stats { config, kept: Mutex::default(), walked: Mutex::default() }
    }

    pub fn host(&self) -> &Host {
        &self.config.host
    }

    /// `/stats/summary`; without the disk where processor and memory are asked for alone.
    pub async fn summary(&self, node: &str, light: bool) -> Result<serde_json::Value, RuntimeError> {
        let snapshot = self.rated().await?;
        let disks = if light { None } else { Some(self.disks().await) };
        Ok(summary::summary(node, &snapshot, disks.as_deref(), self.config.env.clock.now()))
    }

    /// `/metrics/cadvisor`.
    pub async fn cadvisor(&self) -> Result<String, RuntimeError> {
        let snapshot = self.usage().await?;
        let cgroups = self.config.host.cgroups.clone();
        let read = tokio::task::spawn_blocking(move || {
            let of_pod = |pod: &PodUse| {
                let below: Vec<String> = pod.containers.iter().map(|c| pod.cgroup_of(c)).collect();
                std::iter::once(pod.cgroup.clone()).chain(below).collect::<Vec<_>>()
            };
            let paths = snapshot.pods.iter().flat_map(of_pod);
            let extras: BTreeMap<String, cgroup::Extra> =
                paths.map(|path| (path.clone(), cgroups.extra(&path))).collect();
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            cadvisor::metrics(&snapshot, &extras, cores)
        });
        Ok(read.await.unwrap_or_default())
    }

    /// `/metrics`.
    pub async fn own(&self, node: &str, counters: &own::Counters) -> String {
        let disks = disk::claims(&self.config.views, &self.config.volumes).await;
        own::metrics(node, KUBELET_VERSION, &self.config.views.all(), &disks, counters, &self.config.host.proc)
    }

    /// A reading that is a moment old at most.
    pub async fn usage(&self) -> Result<Arc<Snapshot>, RuntimeError> {
        // Held while it is read: who asks meanwhile gets the same reading.
        let mut kept = self.kept.lock().await;
        self.read(&mut kept).await
    }

    /// The same with rates. Where nothing was read before, that takes two readings.
    pub async fn rated(&self) -> Result<Arc<Snapshot>, RuntimeError> {
        let mut kept = self.kept.lock().await;
        let snapshot = self.read(&mut kept).await?;
        if kept.rated {
            return Ok(snapshot);
        }
        tokio::time::sleep(FRESH).await;
        self.read(&mut kept).await
    }

    async fn read(&self, kept: &mut Kept) -> Result<Arc<Snapshot>, RuntimeError> {
        if let Some((at, snapshot)) = &kept.latest
            && at.elapsed() < FRESH
        {
            return Ok(snapshot.clone());
        }
        let mut snapshot = self.collect().await?;
        let before = kept.latest.take().filter(|(at, _)| at.elapsed() <= RATE_MAX);
        kept.rated = before.is_some();
        if let Some((_, before)) = before {
            rate(&mut snapshot, &before);
        }
        let snapshot = Arc::new(snapshot);
        kept.latest = Some((Instant::now(), snapshot.clone()));
        Ok(snapshot)
    }

    async fn collect(&self) -> Result<Snapshot, RuntimeError> {
        let sandboxes = self.config.runtime.sandbox_stats().await?;
        let views = self.config.views.all();
        let node = self.config.host.read(self.config.env.clock.now());
        let mut pods: Vec<PodUse> = sandboxes.into_iter().filter_map(|sandbox| self.pod(sandbox, &views)).collect();
        pods.sort_by(|a, b| (&a.namespace, &a.name, &a.uid).cmp(&(&b.namespace, &b.name, &b.uid)));
        Ok(Snapshot { node, pods })
    }

    fn pod(&self, stats: v1::PodSandboxStats, views: &BTreeMap<String, PodView>) -> Option<PodUse> {
        let attributes = stats.attributes?;
        let label = |key: &str| attributes.labels.get(key).cloned().unwrap_or_default();
        let uid = label(POD_UID_LABEL);
        // A sandbox without a pod is somebody else's.
        if uid.is_empty() {
            return None;
        }
        let linux = stats.linux.unwrap_or_default();
        let seen = views.get(&uid).map(|view| &view.seen);
        let mut containers: Vec<ContainerUse> = linux.containers.into_iter().filter_map(container).collect();
        for container in &mut containers {
            let known = seen.and_then(|seen| seen.container(&container.id));
            container.started_at = known.and_then(|c| c.started_at);
            container.image = known.map(|c| c.image.clone()).unwrap_or_default();
        }
        containers.sort_by(|a, b| a.name.cmp(&b.name));
        let sandbox = seen.and_then(|seen| seen.sandboxes.iter().find(|s| s.id == attributes.id));
        Some(PodUse {
            namespace: label(POD_NAMESPACE_LABEL),
            name: label(POD_NAME_LABEL),
            cgroup: views.get(&uid).map(|view| cgroup_parent(&self.config.cgroup_root, &view.pod)).unwrap_or_default(),
            uid,
            sandbox_id: attributes.id,
            started_at: sandbox.map(|s| s.created_at),
            used: Use {
                cpu: linux.cpu.unwrap_or_default(),
                memory: linux.memory.unwrap_or_default(),
                swap: None,
                io: linux.io,
            },
            network: linux.network,
            processes: linux.process.and_then(|p| p.process_count).map(|count| count.value),
            containers,
        })
    }

    /// What lies on the disk, as it was a minute ago at most; older where looking takes long.
    pub async fn disks(&self) -> Arc<Disks> {
        let mut walked = self.walked.lock().await;
        if let Some(last) = walked.as_ref()
            && last.at.elapsed() < DISK_FRESH.max(last.took * DISK_PAUSES)
        {
            return last.disks.clone();
        }
        let since = Instant::now();
        let disks = Arc::new(self.walk().await);
        *walked = Some(Walked { at: Instant::now(), took: since.elapsed(), disks: disks.clone() });
        disks
    }

    /// What lies on the disk right now.
    pub async fn walk(&self) -> Disks {
        disk::walk(&self.config.runtime, &self.config.views, &self.config.volumes, &self.config.log_dir).await
    }
}

fn container(stats: v1::ContainerStats) -> Option<ContainerUse> {
    let attributes = stats.attributes?;
    let by_label = attributes.labels.get(CONTAINER_NAME_LABEL).cloned();
    Some(ContainerUse {
        id: attributes.id,
        name: by_label.unwrap_or_else(|| attributes.metadata.unwrap_or_default().name),
        image: String::new(),
        started_at: None,
        used: Use {
            cpu: stats.cpu.unwrap_or_default(),
            memory: stats.memory.unwrap_or_default(),
            swap: stats.swap,
            io: stats.io,
        },
        layer: stats.writable_layer,
    })
}

/// Fills in how many cores were in use since the reading before.
fn rate(snapshot: &mut Snapshot, before: &Snapshot) {
    let mut known: BTreeMap<String, v1::CpuUsage> = BTreeMap::new();
    known.insert(String::new(), before.node.used.cpu);
    for pod in &before.pods {
        known.insert(pod.sandbox_id.clone(), pod.used.cpu);
        known.extend(pod.containers.iter().map(|c| (c.id.clone(), c.used.cpu)));
    }
    let set = |id: &str, cpu: &mut v1::CpuUsage| {
        if cpu.usage_nano_cores.is_none() {
            cpu.usage_nano_cores = known.get(id).and_then(|old| nano_cores(old, cpu));
        }
    };
    set("", &mut snapshot.node.used.cpu);
    for pod in &mut snapshot.pods {
        set(&pod.sandbox_id, &mut pod.used.cpu);
        for container in &mut pod.containers {
            set(&container.id, &mut container.used.cpu);
        }
    }
}

/// Billionths of a core between two readings; none where they are too close, or the counter began anew.
fn nano_cores(old: &v1::CpuUsage, new: &v1::CpuUsage) -> Option<v1::UInt64Value> {
    let passed = u64::try_from(new.timestamp.checked_sub(old.timestamp)?).ok()?;
    if u128::from(passed) < RATE_MIN.as_nanos() {
        return None;
    }
    let used = new.usage_core_nano_seconds?.value.checked_sub(old.usage_core_nano_seconds?.value)?;
    let value = u64::try_from(u128::from(used) * 1_000_000_000 / u128::from(passed)).ok()?;
    Some(v1::UInt64Value { value })
}

/// The number, where CRI tells it.
pub fn number(value: Option<v1::UInt64Value>) -> Option<u64> {
    value.map(|v| v.value)
}

/// A time of CRI.
pub fn time(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
