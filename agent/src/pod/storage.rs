//! What a pod may take of the node's disk: `sizeLimit` of its emptyDirs and `ephemeral-storage` of its containers. It is
//! measured now and then; a pod that has taken more is evicted.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use gantry_kube::Object;
use gantry_kube::pod::resources::{self, quantity};
use gantry_kube::pod::{containers, init_containers};
use serde_json::Value;
use tracing::debug;

use super::cri::log_folder;
use crate::shared::Shared;
use crate::volume::usage::disk_bytes;

/// One limit by the name of what it limits.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Limit {
    name: String,
    bytes: u64,
    /// As the spec writes it.
    text: String,
}

/// The limits that a pod has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    volumes: Vec<Limit>,
    containers: Vec<Limit>,
    /// Of all containers together.
    pod_bytes: Option<u64>,
}

/// Bytes on disk: of volumes by name; of containers, their logs included, by name.
#[derive(Debug, Default)]
struct Usage {
    volumes: BTreeMap<String, u64>,
    containers: BTreeMap<String, u64>,
}

fn limit(name: &Value, amount: &Value) -> Option<Limit> {
    let bytes = u64::try_from(quantity(amount)?.value()).ok().filter(|bytes| *bytes > 0)?;
    Some(Limit { name: name.as_str()?.to_owned(), bytes, text: amount.as_str().unwrap_or("").to_owned() })
}

/// The emptyDirs that lie on the disk; those in memory have their limit from the kernel.
fn volumes_on_disk(pod: &Object) -> impl Iterator<Item = &Value> {
    pod.array_at("/spec/volumes").iter().filter(|v| v["emptyDir"].is_object() && v["emptyDir"]["medium"] != "Memory")
}

impl Limits {
    pub fn of(pod: &Object) -> Limits {
        let all = containers(pod).iter().chain(init_containers(pod));
        let pod_bytes = u64::try_from(resources::limits(pod).ephemeral_storage_bytes).unwrap_or(0);
        Limits {
            volumes: volumes_on_disk(pod).filter_map(|v| limit(&v["name"], &v["emptyDir"]["sizeLimit"])).collect(),
            containers: all.filter_map(|c| limit(&c["name"], &c["resources"]["limits"]["ephemeral-storage"])).collect(),
            pod_bytes: (pod_bytes > 0).then_some(pod_bytes),
        }
    }

    pub fn is_empty(&self) -> bool {
        *self == Limits::default()
    }

    /// Why the pod is to be evicted, in the kubelet's words.
    fn exceeded(&self, usage: &Usage) -> Option<String> {
        let over = |limits: &[Limit], used: &BTreeMap<String, u64>| {
            let mut limits = limits.iter();
            limits.find(|l| used.get(&l.name).is_some_and(|used| *used > l.bytes)).cloned()
        };
        if let Some(Limit { name, text, .. }) = over(&self.volumes, &usage.volumes) {
            return Some(format!("Usage of EmptyDir volume \"{name}\" exceeds the limit \"{text}\". "));
        }
        let total: u64 = usage.volumes.values().chain(usage.containers.values()).sum();
        if let Some(most) = self.pod_bytes.filter(|most| total > *most) {
            let most = bytes_text(most);
            return Some(format!("Pod ephemeral local storage usage exceeds the total limit of containers {most}. "));
        }
        let Limit { name, text, .. } = over(&self.containers, &usage.containers)?;
        Some(format!("Container {name} exceeded its local ephemeral storage limit \"{text}\". "))
    }
}

/// A quantity of bytes with the largest suffix that divides it.
pub fn bytes_text(bytes: u64) -> String {
    let suffixes = [(1_u64 << 40, "Ti"), (1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")];
    let found = suffixes.into_iter().find(|(unit, _)| bytes.is_multiple_of(*unit));
    found.map_or_else(|| bytes.to_string(), |(unit, suffix)| format!("{}{suffix}", bytes / unit))
}

/// Measures, and says why the pod is to be evicted if it is. What cannot be measured counts as nothing.
pub async fn check(shared: &Arc<Shared>, pod: &Arc<Object>, limits: &Limits) -> Option<String> {
    let mut usage = Usage::default();
    if limits.pod_bytes.is_some() {
        match shared.runtime.writable_layers(pod.uid()).await {
            Ok(layers) => usage.containers = layers,
            Err(error) => debug!(pod = pod.uid(), error = %gantry_env::chain(&error), "writable layers not measured"),
        }
    }
    let folder = |v: &Value| (v["name"].as_str().unwrap_or("").to_owned(), shared.volumes.host_path(pod, v));
    let volumes: Vec<(String, PathBuf)> = volumes_on_disk(pod).map(folder).collect();
    let logs = shared.config.log_dir.join(log_folder(pod));
    // One pod at a time: a walk over many files must not take the disk from those who work.
    let _turn = shared.measures.acquire().await;
    let measured = tokio::task::spawn_blocking(move || {
        for (name, path) in volumes {
            usage.volumes.insert(name, disk_bytes(&path).unwrap_or(0));
        }
        for (name, bytes) in &mut usage.containers {
            *bytes = bytes.saturating_add(disk_bytes(&logs.join(name)).unwrap_or(0));
        }
        usage
    });
    limits.exceeded(&measured.await.ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(volume: u64, layer: u64) -> Option<String> {
        let pod = json!({"spec": {
            "containers": [
                {"name": "c", "resources": {"limits": {"ephemeral-storage": "2Mi"}}},
                {"name": "d", "resources": {"limits": {"ephemeral-storage": "2Mi"}}},
            ],
            "volumes": [
                {"name": "v", "emptyDir": {"sizeLimit": "1Mi"}},
                {"name": "m", "emptyDir": {"sizeLimit": "1Mi", "medium": "Memory"}},
            ],
        }});
        let limits = Limits::of(&Object::from_value(pod).unwrap());
        let usage = Usage {
            volumes: BTreeMap::from([("v".to_owned(), volume), ("m".to_owned(), 0)]),
            containers: BTreeMap::from([("c".to_owned(), layer)]),
        };
        limits.exceeded(&usage)
    }

    #[test]
    fn the_first_limit_that_is_exceeded_is_named() {
        const MI: u64 = 1 << 20;
        assert_eq!(of(MI, 2 * MI), None);
        assert_eq!(of(MI + 1, 0).unwrap(), "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ");
        assert_eq!(of(0, 2 * MI + 1).unwrap(), "Container c exceeded its local ephemeral storage limit \"2Mi\". ");
        let pod = of(MI, 3 * MI + 1).unwrap();
        assert_eq!(pod, "Pod ephemeral local storage usage exceeds the total limit of containers 4Mi. ");
    }

    #[test]
    fn a_pod_without_limits_is_not_measured() {
        let pod = json!({"spec": {"containers": [{"name": "c"}], "volumes": [{"name": "v", "emptyDir": {}},
            {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]}});
        assert!(Limits::of(&Object::from_value(pod).unwrap()).is_empty());
    }
}
