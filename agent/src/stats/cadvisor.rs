//! `/metrics/cadvisor`: the names and labels by which dashboards ask for containers, pods (without a container's name) and
//! the node (the cgroup `/`). Pure.

use std::collections::BTreeMap;

use gantry_cri::v1::{NetworkInterfaceUsage, PsiStats, UInt64Value};
use gantry_env::metrics::Text;

use super::cgroup::Extra;
use super::summary::layer;
use super::{Snapshot, Use, number};
use crate::volume::usage::Walked;

const NANOS: f64 = 1e9;

/// What one cgroup uses, and its labels.
struct Row<'a> {
    labels: [(&'static str, &'a str); 6],
    used: &'a Use,
    extra: Option<&'a Extra>,
    started: Option<f64>,
    written: Option<Walked>,
    processes: Option<u64>,
    is_container: bool,
}

type Value = fn(&Row<'_>) -> Option<f64>;

fn count(value: Option<UInt64Value>) -> Option<f64> {
    number(value).map(|v| v as f64)
}

fn extra(row: &Row<'_>, of: fn(&Extra) -> Option<u64>) -> Option<f64> {
    row.extra.and_then(of).map(|v| v as f64)
}

fn seconds(row: &Row<'_>, of: fn(&Extra) -> Option<u64>) -> Option<f64> {
    extra(row, of).map(|v| v / NANOS)
}

/// Seconds in which some process stood still, or all.
fn stalled(psi: Option<PsiStats>, all: bool) -> Option<f64> {
    let psi = psi?;
    let data = if all { psi.full } else { psi.some };
    data.map(|d| d.total as f64 / NANOS)
}

/// Every family of cgroups: its name, kind, meaning, and the number of a row that has it.
const FAMILIES: &[(&str, &str, &str, Value)] = &[
    ("container_cpu_cfs_periods_total", "counter", "Periods of the processor quota", |r| extra(r, |e| e.periods)),
    ("container_cpu_cfs_throttled_periods_total", "counter", "Periods in which the quota was used up", |r| {
        extra(r, |e| e.throttled_periods)
    }),
    ("container_cpu_cfs_throttled_seconds_total", "counter", "Time that was waited for the quota", |r| {
        seconds(r, |e| e.throttled_nanos)
    }),
    ("container_cpu_system_seconds_total", "counter", "Processor time in the kernel", |r| {
        seconds(r, |e| e.system_nanos)
    }),
    ("container_cpu_user_seconds_total", "counter", "Processor time outside of the kernel", |r| {
        seconds(r, |e| e.user_nanos)
    }),
    ("container_fs_reads_bytes_total", "counter", "Bytes read from disks", |r| extra(r, |e| e.read_bytes)),
    ("container_fs_writes_bytes_total", "counter", "Bytes written to disks", |r| extra(r, |e| e.written_bytes)),
    ("container_fs_usage_bytes", "gauge", "Bytes written over the image", |r| r.written.map(|w| w.bytes as f64)),
    ("container_fs_inodes_total", "gauge", "Files written over the image", |r| r.written.map(|w| w.files as f64)),
    ("container_memory_cache", "gauge", "Page cache in bytes", |r| extra(r, |e| e.cache_bytes)),
    ("container_memory_failcnt", "counter", "How often memory was at its limit", |r| extra(r, |e| e.memory_failures)),
    ("container_memory_mapped_file", "gauge", "Mapped files in bytes", |r| extra(r, |e| e.mapped_bytes)),
    ("container_memory_max_usage_bytes", "gauge", "The most memory that was used", |r| {
        extra(r, |e| e.memory_max_bytes)
    }),
    ("container_memory_rss", "gauge", "Anonymous memory in bytes", |r| count(r.used.memory.rss_bytes)),
    ("container_memory_swap", "gauge", "Swap in bytes", |r| count(r.used.swap.and_then(|s| s.swap_usage_bytes))),
    ("container_memory_usage_bytes", "gauge", "Memory with all of the page cache", |r| {
        count(r.used.memory.usage_bytes)
    }),
    ("container_memory_working_set_bytes", "gauge", "Memory without the page cache that can be dropped at once", |r| {
        count(r.used.memory.working_set_bytes)
    }),
    ("container_oom_events_total", "counter", "Processes killed for want of memory", |r| extra(r, |e| e.oom_kills)),
    ("container_pressure_cpu_waiting_seconds_total", "counter", "Time in which some process waited", |r| {
        stalled(r.used.cpu.psi, false)
    }),
    ("container_pressure_cpu_stalled_seconds_total", "counter", "Time in which every process waited", |r| {
        stalled(r.used.cpu.psi, true)
    }),
    ("container_pressure_memory_waiting_seconds_total", "counter", "Time in which some process waited", |r| {
        stalled(r.used.memory.psi, false)
    }),
    ("container_pressure_memory_stalled_seconds_total", "counter", "Time in which every process waited", |r| {
        stalled(r.used.memory.psi, true)
    }),
    ("container_pressure_io_waiting_seconds_total", "counter", "Time in which some process waited", |r| {
        stalled(r.used.io.and_then(|io| io.psi), false)
    }),
    ("container_pressure_io_stalled_seconds_total", "counter", "Time in which every process waited", |r| {
        stalled(r.used.io.and_then(|io| io.psi), true)
    }),
    ("container_processes", "gauge", "Processes and threads", |r| r.processes.map(|p| p as f64)),
    ("container_spec_cpu_period", "gauge", "Period of the processor quota in microseconds", |r| {
        extra(r, |e| e.period_micros)
    }),
    ("container_spec_cpu_quota", "gauge", "Quota of each period in microseconds", |r| extra(r, |e| e.quota_micros)),
    ("container_spec_cpu_shares", "gauge", "Share of the processor", |r| extra(r, |e| e.shares)),
    ("container_spec_memory_limit_bytes", "gauge", "Limit of memory, 0 for none", |r| {
        extra(r, |e| e.memory_limit_bytes)
    }),
    ("container_start_time_seconds", "gauge", "When it was started", |r| r.started),
];

/// What a link has counted.
type Count = fn(&NetworkInterfaceUsage) -> Option<UInt64Value>;
const LINKS: &[(&str, &str, Count)] = &[
    ("container_network_receive_bytes_total", "Bytes received", |i| i.rx_bytes),
    ("container_network_receive_errors_total", "Errors while receiving", |i| i.rx_errors),
    ("container_network_transmit_bytes_total", "Bytes sent", |i| i.tx_bytes),
    ("container_network_transmit_errors_total", "Errors while sending", |i| i.tx_errors),
];

/// `extras` by cgroup path; `cores` is the node's number of processors.
pub fn metrics(snapshot: &Snapshot, extras: &BTreeMap<String, Extra>, cores: usize) -> String {
    let ids: Vec<(String, Vec<String>)> = snapshot
        .pods
        .iter()
        .map(|pod| (pod.cgroup.clone(), pod.containers.iter().map(|c| pod.cgroup_of(c)).collect()))
        .collect();
    let rows = rows(snapshot, &ids, extras);
    let mut text = Text::default();
    let name = "container_cpu_usage_seconds_total";
    text.family(name, "counter", "Processor time in core-seconds");
    for row in &rows {
        let Some(nanos) = count(row.used.cpu.usage_core_nano_seconds) else { continue };
        let [container, rest @ ..] = row.labels;
        let labels: Vec<_> = [container, ("cpu", "total")].into_iter().chain(rest).collect();
        text.sample(name, &labels, nanos / NANOS, Some(millis(row)));
    }
    for (name, kind, help, value) in FAMILIES {
        text.family(name, kind, help);
        for row in &rows {
            if let Some(value) = value(row) {
                text.sample(name, &row.labels, value, Some(millis(row)));
            }
        }
    }
    let name = "container_last_seen";
    text.family(name, "gauge", "When it was there last");
    for row in rows.iter().filter(|row| row.is_container) {
        text.sample(name, &row.labels, (millis(row) / 1000) as f64, Some(millis(row)));
    }
    links(snapshot, &mut text);
    text.family("machine_cpu_cores", "gauge", "Processors of the node");
    text.sample("machine_cpu_cores", &[], cores as f64, None);
    text.family("machine_memory_bytes", "gauge", "Memory of the node");
    text.sample("machine_memory_bytes", &[], snapshot.node.memory_bytes as f64, None);
    text.family("container_scrape_error", "gauge", "1 where the numbers could not be read");
    text.sample("container_scrape_error", &[], 0.0, None);
    text.done()
}

fn millis(row: &Row<'_>) -> i64 {
    row.used.cpu.timestamp / 1_000_000
}

fn rows<'a>(
    snapshot: &'a Snapshot,
    ids: &'a [(String, Vec<String>)],
    extras: &'a BTreeMap<String, Extra>,
) -> Vec<Row<'a>> {
    let labels = |container, id, image, name, namespace, pod| {
        [("container", container), ("id", id), ("image", image), ("name", name), ("namespace", namespace), ("pod", pod)]
    };
    let seconds = |at: jiff::Timestamp| at.as_nanosecond() as f64 / NANOS;
    let mut rows = vec![Row {
        labels: labels("", "/", "", "", "", ""),
        used: &snapshot.node.used,
        extra: extras.get("/"),
        started: snapshot.node.booted_at.map(seconds),
        written: None,
        processes: Some(snapshot.node.processes),
        is_container: false,
    }];
    for (pod, (id, inside)) in snapshot.pods.iter().zip(ids) {
        rows.push(Row {
            labels: labels("", id, "", "", &pod.namespace, &pod.name),
            used: &pod.used,
            extra: extras.get(id),
            started: pod.started_at.map(seconds),
            written: None,
            processes: pod.processes,
            is_container: false,
        });
        for (container, id) in pod.containers.iter().zip(inside) {
            let extra = extras.get(id);
            rows.push(Row {
                labels: labels(&container.name, id, &container.image, &container.id, &pod.namespace, &pod.name),
                used: &container.used,
                extra,
                started: container.started_at.map(seconds),
                written: container.layer.is_some().then(|| layer(container)),
                processes: extra.and_then(|e| e.processes),
                is_container: true,
            });
        }
    }
    rows
}

/// Pods' links; the node's own are the node exporter's.
fn links(snapshot: &Snapshot, text: &mut Text) {
    for (name, help, value) in LINKS {
        text.family(name, "counter", help);
        for pod in &snapshot.pods {
            let Some(network) = &pod.network else { continue };
            for interface in network.default_interface.iter().chain(&network.interfaces) {
                let Some(value) = count(value(interface)) else { continue };
                let labels = [
                    ("container", ""),
                    ("id", pod.cgroup.as_str()),
                    ("image", ""),
                    ("interface", interface.name.as_str()),
                    ("name", pod.sandbox_id.as_str()),
                    ("namespace", pod.namespace.as_str()),
                    ("pod", pod.name.as_str()),
                ];
                text.sample(name, &labels, value, Some(network.timestamp / 1_000_000));
            }
        }
    }
}
