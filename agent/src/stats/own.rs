//! `/metrics` and `/metrics/probes`: what the agent counts of its own work, under the names of the kubelet's.

use std::collections::BTreeMap;
use std::path::Path;

use gantry_env::metrics::{self, Text};
use parking_lot::Mutex;

use super::disk::{Disks, Lies, VolumeUse};
use crate::pod::seen::State;
use crate::pods::views::PodView;
use crate::shutdown::times::Times;

/// Answers of one probe by its labels; more than this are not told apart.
const PROBES_MAX: usize = 10_000;

/// Whose probe it is, and how it was answered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probed {
    pub container: String,
    pub namespace: String,
    pub pod: String,
    pub uid: String,
    /// `Liveness`, `Readiness`, `Startup`.
    pub kind: &'static str,
    pub good: bool,
}

/// Counters that live as long as the agent.
#[derive(Debug, Default)]
pub struct Counters {
    /// By the signal that called for them.
    evictions: Mutex<BTreeMap<&'static str, u64>>,
    probes: Mutex<BTreeMap<Probed, u64>>,
    shutdown: Mutex<Times>,
}

impl Counters {
    pub fn evicted(&self, signal: &'static str) {
        *self.evictions.lock().entry(signal).or_default() += 1;
    }

    /// When the last shutdown was.
    pub fn shut_down(&self, times: Times) {
        *self.shutdown.lock() = times;
    }

    pub fn probed(&self, probed: Probed) {
        let mut probes = self.probes.lock();
        if probes.len() < PROBES_MAX || probes.contains_key(&probed) {
            *probes.entry(probed).or_default() += 1;
        }
    }

    /// A pod's counters go with it.
    pub fn forget(&self, uid: &str) {
        self.probes.lock().retain(|probed, _| probed.uid != uid);
    }

    /// `/metrics/probes`.
    pub fn probes(&self) -> String {
        let mut text = Text::default();
        let name = "prober_probe_total";
        text.family(name, "counter", "[BETA] Answers of probes by container and result");
        for (probed, count) in self.probes.lock().iter() {
            let labels = [
                ("container", probed.container.as_str()),
                ("namespace", probed.namespace.as_str()),
                ("pod", probed.pod.as_str()),
                ("pod_uid", probed.uid.as_str()),
                ("probe_type", probed.kind),
                ("result", if probed.good { "successful" } else { "failed" }),
            ];
            text.sample(name, &labels, *count as f64, None);
        }
        text.done()
    }
}

/// `/metrics`.
pub fn metrics(
    node: &str,
    version: &str,
    views: &BTreeMap<String, PodView>,
    disks: &Disks,
    counters: &Counters,
    proc: &Path,
) -> String {
    let mut text = Text::default();
    let mut one = |name: &str, kind: &str, help: &str, labels: &[(&str, &str)], value: f64| {
        text.family(name, kind, help);
        text.sample(name, labels, value, None);
    };
    one("kubelet_node_name", "gauge", "[ALPHA] The node's name", &[("node", node)], 1.0);
    one("kubernetes_build_info", "gauge", "[ALPHA] The version", &[("git_version", version)], 1.0);
    let desired = views.len() as f64;
    one("kubelet_working_pods", "gauge", "[ALPHA] Pods that the agent works for", &[], desired);
    let running = views.values().filter(|view| view.seen.sandbox().is_some_and(|s| s.ready)).count();
    one("kubelet_running_pods", "gauge", "[STABLE] Pods that have a running sandbox", &[], running as f64);
    let name = "kubelet_running_containers";
    text.family(name, "gauge", "[STABLE] Containers by their state");
    let states = [
        ("created", State::Created),
        ("running", State::Running),
        ("exited", State::Exited),
        ("unknown", State::Unknown),
    ];
    for (label, state) in states {
        let all = views.values().flat_map(|view| &view.seen.containers).filter(|c| c.state == state).count();
        text.sample(name, &[("container_state", label)], all as f64, None);
    }
    let name = "kubelet_evictions";
    text.family(name, "counter", "[STABLE] Pods that were evicted, by the signal that called for it");
    for (signal, count) in counters.evictions.lock().iter() {
        text.sample(name, &[("eviction_signal", signal)], *count as f64, None);
    }
    claims(&mut text, views, disks);
    let times = *counters.shutdown.lock();
    for (which, at) in [("start", times.start), ("end", times.end)] {
        let name = format!("kubelet_graceful_shutdown_{which}_time_seconds");
        text.family(
            &name,
            "gauge",
            &format!("[ALPHA] The {which} of the last graceful shutdown, in seconds since 1970"),
        );
        text.sample(&name, &[], at.map_or(0.0, |at| at.as_millisecond() as f64 / 1000.0), None);
    }
    metrics::process(&mut text, proc, rustix::param::page_size());
    text.done()
}

/// One number of a volume.
type OfVolume = fn(&VolumeUse) -> u64;

/// The volumes of claims, each once however many pods use it.
fn claims(text: &mut Text, views: &BTreeMap<String, PodView>, disks: &Disks) {
    let mut claims: BTreeMap<(&str, &str), &VolumeUse> = BTreeMap::new();
    for (uid, on_disk) in &disks.pods {
        let Some(view) = views.get(uid) else { continue };
        for volume in &on_disk.volumes {
            if let Lies::InClaim(claim) = &volume.lies {
                claims.insert((view.pod.namespace(), claim), volume);
            }
        }
    }
    let families: [(&str, &str, OfVolume); 6] = [
        ("capacity_bytes", "Size of the volume's file system in bytes", |v| v.room.capacity_bytes),
        ("available_bytes", "Bytes that are free on the volume's file system", |v| v.room.available_bytes),
        ("used_bytes", "Bytes that are used on the volume's file system", |v| v.used.bytes),
        ("inodes", "Inodes of the volume's file system", |v| v.room.inodes),
        ("inodes_free", "Inodes that are free on the volume's file system", |v| v.room.inodes_free),
        ("inodes_used", "Inodes that are used on the volume's file system", |v| v.used.files),
    ];
    for (name, help, value) in families {
        let name = format!("kubelet_volume_stats_{name}");
        text.family(&name, "gauge", &format!("[ALPHA] {help}"));
        for ((namespace, claim), volume) in &claims {
            let labels = [("namespace", *namespace), ("persistentvolumeclaim", *claim)];
            text.sample(&name, &labels, value(volume) as f64, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::disk::PodDisk;
    use super::super::host::Room;
    use super::*;
    use crate::volume::usage::Walked;

    #[test]
    fn a_claim_is_told_once_and_by_its_name() {
        let pod = |uid: &str| gantry_kube::Object::from_value(json!({"metadata": {"namespace": "n", "uid": uid}}));
        let view = |uid: &str| PodView { pod: Arc::new(pod(uid).unwrap()), ..PodView::default() };
        let room = Room { capacity_bytes: 1000, available_bytes: 600, inodes: 100, inodes_free: 40 };
        let volume = |lies| VolumeUse { name: "v".into(), used: Walked { bytes: 400, files: 60 }, room, lies };
        let on_disk = || PodDisk {
            volumes: vec![volume(Lies::OnDisk), volume(Lies::InClaim("db-0".into()))],
            ..PodDisk::default()
        };
        let views = BTreeMap::from(["a", "b"].map(|uid| (uid.to_owned(), view(uid))));
        let pods = BTreeMap::from(["a", "b", "gone"].map(|uid| (uid.to_owned(), on_disk())));
        let mut text = Text::default();
        claims(&mut text, &views, &Disks { pods, images: None });
        let text = text.done();
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let labels = "{namespace=\"n\",persistentvolumeclaim=\"db-0\"}";
        let wanted = [
            ("capacity_bytes", 1000),
            ("available_bytes", 600),
            ("used_bytes", 400),
            ("inodes", 100),
            ("inodes_free", 40),
            ("inodes_used", 60),
        ];
        assert_eq!(samples, wanted.map(|(name, value)| format!("kubelet_volume_stats_{name}{labels} {value}")));
    }

    #[test]
    fn counters_are_told_by_their_labels_and_go_with_their_pod() {
        let counters = Counters::default();
        let probed = |uid: &str, good| Probed {
            container: "c".into(),
            namespace: "n".into(),
            pod: "p".into(),
            uid: uid.into(),
            kind: "Liveness",
            good,
        };
        for (uid, good) in [("u", true), ("u", true), ("u", false), ("v", true)] {
            counters.probed(probed(uid, good));
        }
        let text = counters.probes();
        assert!(text.contains("pod_uid=\"u\",probe_type=\"Liveness\",result=\"successful\"} 2\n"), "{text}");
        assert!(text.contains("pod_uid=\"u\",probe_type=\"Liveness\",result=\"failed\"} 1\n"), "{text}");
        counters.forget("u");
        assert!(!counters.probes().contains("\"u\"") && counters.probes().contains("\"v\""));
        counters.evicted("memory.available");
        counters.shut_down(Times { start: "2026-01-01T00:00:00.5Z".parse().ok(), end: None });
        let own = metrics("n1", "v1", &BTreeMap::new(), &Disks::default(), &counters, Path::new("/proc"));
        assert!(own.contains("kubelet_evictions{eviction_signal=\"memory.available\"} 1\n"), "{own}");
        let value = |name: &str| {
            own.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')?.parse::<f64>().ok()).unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 0.0 && value("process_open_fds") >= 3.0);
        assert!(value("process_start_time_seconds") > 1e9);
        assert_eq!(value("kubelet_graceful_shutdown_start_time_seconds"), 1_767_225_600.5);
        assert_eq!(value("kubelet_graceful_shutdown_end_time_seconds"), 0.0);
    }
}
