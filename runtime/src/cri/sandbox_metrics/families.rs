//! The families of metrics: name, kind, meaning, labels, and how a reading becomes samples. Pure. CRI has whole numbers only: seconds
//! are rounded down.

use gantry_cri::v1::{self, MetricType, PsiStats};

use super::Reading;
use crate::cgroup::detail::Disk;
use crate::network::POD_INTERFACE;
use crate::network::usage::LinkUsage;

const NANOS: u64 = 1_000_000_000;

/// Of every metric, in this order; each family adds its own.
const LABELS: [&str; 5] = ["pod", "namespace", "container", "id", "image"];

/// The values of a family's own labels, and the number.
struct Sample(Vec<String>, u64);

struct Family<R> {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    samples: fn(&R) -> Vec<Sample>,
}

use MetricType::{Counter, Gauge};

/// What goes up alone is called so.
fn kind(name: &str) -> MetricType {
    if name.ends_with("_total") || name.ends_with("_failcnt") { Counter } else { Gauge }
}

fn one(value: Option<u64>) -> Vec<Sample> {
    value.into_iter().map(|value| Sample(Vec::new(), value)).collect()
}

fn seconds(nanos: Option<u64>) -> Vec<Sample> {
    one(nanos.map(|nanos| nanos / NANOS))
}

/// Seconds in which some process waited, or all did.
fn waited(pressure: Option<&PsiStats>) -> Vec<Sample> {
    seconds(pressure.and_then(|p| p.some.as_ref()).map(|some| some.total))
}

fn stalled(pressure: Option<&PsiStats>) -> Vec<Sample> {
    seconds(pressure.and_then(|p| p.full.as_ref()).map(|full| full.total))
}

fn per_disk(reading: &Reading, value: fn(&Disk) -> u64) -> Vec<Sample> {
    let device = |disk: &Disk| reading.devices.get(&(disk.major, disk.minor)).cloned().unwrap_or_default();
    reading.detail.disks.iter().map(|disk| Sample(vec![device(disk)], value(disk))).collect()
}

fn of_filesystem(reading: &Reading, value: Option<u64>) -> Vec<Sample> {
    let device = reading.filesystem.as_ref().map(|f| f.device.clone()).unwrap_or_default();
    value.into_iter().map(|value| Sample(vec![device.clone()], value)).collect()
}

fn device_usage(reading: &Reading) -> Vec<Sample> {
    let mut samples = Vec::new();
    for disk in &reading.detail.disks {
        let device = reading.devices.get(&(disk.major, disk.minor)).cloned().unwrap_or_default();
        for (operation, bytes) in [("Read", disk.read_bytes), ("Write", disk.written_bytes)] {
            let labels = vec![device.clone(), disk.major.to_string(), disk.minor.to_string(), operation.to_owned()];
            samples.push(Sample(labels, bytes));
        }
    }
    samples
}

fn page_faults(reading: &Reading) -> Vec<Sample> {
    let kinds = [("pgfault", reading.usage.page_faults), ("pgmajfault", reading.usage.major_page_faults)];
    let sample =
        |(kind, value): (&str, Option<u64>)| Some(Sample(vec![kind.to_owned(), "container".to_owned()], value?));
    kinds.into_iter().filter_map(sample).collect()
}

fn huge_pages(reading: &Reading, max: bool) -> Vec<Sample> {
    let pages = reading.detail.huge_pages.iter();
    pages.filter_map(|p| Some(Sample(vec![p.size.clone()], if max { p.max_bytes? } else { p.bytes? }))).collect()
}

macro_rules! families {
    ($($name:literal, $help:literal, $labels:expr, $samples:expr;)*) => {
        &[$(Family { name: $name, help: $help, labels: &$labels, samples: $samples },)*]
    };
}

const OF_CONTAINER: &[Family<Reading>] = families![
    "container_blkio_device_usage_total", "Bytes to and from a block device",
        ["device", "major", "minor", "operation"], device_usage;
    "container_cpu_cfs_periods_total", "Periods of the processor quota", [], |r| one(r.detail.periods);
    "container_cpu_cfs_throttled_periods_total", "Periods in which the quota was used up", [],
        |r| one(r.detail.throttled_periods);
    "container_cpu_cfs_throttled_seconds_total", "Time that was waited for the quota", [],
        |r| seconds(r.detail.throttled_nanos);
    "container_cpu_system_seconds_total", "Processor time in the kernel", [], |r| seconds(r.detail.system_nanos);
    "container_cpu_usage_seconds_total", "Processor time", [], |r| seconds(r.usage.cpu_nanos);
    "container_cpu_user_seconds_total", "Processor time outside of the kernel", [], |r| seconds(r.detail.user_nanos);
    "container_file_descriptors", "Descriptors that are open", [], |r| one(Some(r.processes.descriptors));
    "container_fs_inodes_free", "Free inodes of the file system of containers' layers", ["device"],
        |r| of_filesystem(r, r.filesystem.as_ref().map(|f| f.inodes_free));
    "container_fs_inodes_total", "Inodes of the file system of containers' layers", ["device"],
        |r| of_filesystem(r, r.filesystem.as_ref().map(|f| f.inodes));
    "container_fs_limit_bytes", "Size of the file system of containers' layers", ["device"],
        |r| of_filesystem(r, r.filesystem.as_ref().map(|f| f.bytes));
    "container_fs_reads_bytes_total", "Bytes read from disks", ["device"], |r| per_disk(r, |d| d.read_bytes);
    "container_fs_reads_total", "Reads from disks", ["device"], |r| per_disk(r, |d| d.reads);
    "container_fs_usage_bytes", "Bytes written over the image", ["device"], |r| of_filesystem(r, r.written_bytes);
    "container_fs_writes_bytes_total", "Bytes written to disks", ["device"], |r| per_disk(r, |d| d.written_bytes);
    "container_fs_writes_total", "Writes to disks", ["device"], |r| per_disk(r, |d| d.writes);
    "container_hugetlb_max_usage_bytes", "The most huge pages that were used", ["pagesize"], |r| huge_pages(r, true);
    "container_hugetlb_usage_bytes", "Huge pages in bytes", ["pagesize"], |r| huge_pages(r, false);
    "container_last_seen", "When it was there last", [], |r| one(Some(r.now));
    // Of ours, which cAdvisor does not have.
    "container_log_lost_bytes_total", "Bytes of its log that were dropped because the disk stood still", [],
        |r| one(Some(r.log_lost_bytes));
    "container_memory_cache", "Page cache in bytes", [], |r| one(r.detail.cache_bytes);
    "container_memory_failcnt", "How often memory was at its limit", [], |r| one(r.detail.memory_failures);
    "container_memory_failures_total", "Page faults", ["failure_type", "scope"], page_faults;
    "container_memory_kernel_usage", "Memory of the kernel's for it", [], |r| one(r.detail.kernel_bytes);
    "container_memory_mapped_file", "Mapped files in bytes", [], |r| one(r.detail.mapped_bytes);
    "container_memory_max_usage_bytes", "The most memory that was used", [], |r| one(r.detail.memory_max_bytes);
    "container_memory_rss", "Anonymous memory in bytes", [], |r| one(r.usage.rss_bytes);
    // A kernel that does not account swap tells of none.
    "container_memory_swap", "Swap in bytes", [], |r| one(r.usage.swap_bytes.or(r.usage.memory_bytes.map(|_| 0)));
    "container_memory_usage_bytes", "Memory with all of the page cache", [], |r| one(r.usage.memory_bytes);
    "container_memory_working_set_bytes", "Memory without the page cache that can be dropped at once", [],
        |r| one(r.usage.working_set_bytes);
    "container_oom_events_total", "Processes killed for want of memory", [], |r| one(r.detail.oom_kills);
    "container_pressure_cpu_stalled_seconds_total", "Time in which every process waited for a processor", [],
        |r| stalled(r.usage.pressure.cpu.as_ref());
    "container_pressure_cpu_waiting_seconds_total", "Time in which some process waited for a processor", [],
        |r| waited(r.usage.pressure.cpu.as_ref());
    "container_pressure_io_stalled_seconds_total", "Time in which every process waited for a disk", [],
        |r| stalled(r.usage.pressure.io.as_ref());
    "container_pressure_io_waiting_seconds_total", "Time in which some process waited for a disk", [],
        |r| waited(r.usage.pressure.io.as_ref());
    "container_pressure_memory_stalled_seconds_total", "Time in which every process waited for memory", [],
        |r| stalled(r.usage.pressure.memory.as_ref());
    "container_pressure_memory_waiting_seconds_total", "Time in which some process waited for memory", [],
        |r| waited(r.usage.pressure.memory.as_ref());
    "container_processes", "Processes", [], |r| one(Some(r.processes.count));
    "container_sockets", "Sockets that are open", [], |r| one(Some(r.processes.sockets));
    "container_spec_cpu_period", "Period of the processor quota in microseconds", [], |r| one(r.detail.period_micros);
    "container_spec_cpu_quota", "Quota of each period in microseconds", [], |r| one(r.detail.quota_micros);
    "container_spec_cpu_shares", "Share of the processor", [], |r| one(r.cpu_shares);
    "container_spec_memory_limit_bytes", "Limit of memory, 0 for none", [],
        |r| one(r.usage.memory_limit_bytes.or(r.usage.memory_bytes.map(|_| 0)));
    "container_spec_memory_reservation_limit_bytes", "Memory that is left to it when there is little, 0 for none", [],
        |r| one(r.detail.reservation_bytes);
    "container_spec_memory_swap_limit_bytes", "Limit of swap, 0 for none", [],
        |r| one(r.detail.swap_limit_bytes.or(r.usage.memory_bytes.map(|_| 0)));
    "container_start_time_seconds", "When it was started", [], |r| one(Some(r.started_at));
    "container_threads", "Threads", [], |r| one(r.detail.threads);
    "container_threads_max", "Limit of threads, 0 for none", [], |r| one(r.detail.threads_max);
    "container_ulimits_soft", "Soft limits of its first process", ["ulimit"],
        |r| r.processes.open_files_max.map(|max| Sample(vec!["max_open_files".to_owned()], max)).into_iter().collect();
];

fn interface(value: u64) -> Vec<Sample> {
    vec![Sample(vec![POD_INTERFACE.to_owned()], value)]
}

const OF_POD: &[Family<LinkUsage>] = families![
    "container_network_receive_bytes_total", "Bytes received", ["interface"], |l| interface(l.received_bytes);
    "container_network_receive_errors_total", "Errors while receiving", ["interface"], |l| interface(l.receive_errors);
    "container_network_receive_packets_dropped_total", "Received packets that were dropped", ["interface"],
        |l| interface(l.receive_drops);
    "container_network_receive_packets_total", "Packets received", ["interface"], |l| interface(l.received_packets);
    "container_network_transmit_bytes_total", "Bytes sent", ["interface"], |l| interface(l.sent_bytes);
    "container_network_transmit_errors_total", "Errors while sending", ["interface"], |l| interface(l.send_errors);
    "container_network_transmit_packets_dropped_total", "Packets to be sent that were dropped", ["interface"],
        |l| interface(l.send_drops);
    "container_network_transmit_packets_total", "Packets sent", ["interface"], |l| interface(l.sent_packets);
];

pub fn descriptors() -> Vec<v1::MetricDescriptor> {
    fn descriptor<R>(family: &Family<R>) -> v1::MetricDescriptor {
        let labels = LABELS.iter().chain(family.labels);
        v1::MetricDescriptor {
            name: family.name.to_owned(),
            help: family.help.to_owned(),
            label_keys: labels.map(|label| (*label).to_owned()).collect(),
        }
    }
    OF_CONTAINER.iter().map(descriptor).chain(OF_POD.iter().map(descriptor)).collect()
}

fn metrics<R>(families: &[Family<R>], labels: &[String], reading: &R) -> Vec<v1::Metric> {
    let metric = |family: &Family<R>, Sample(own, value): Sample| v1::Metric {
        name: family.name.to_owned(),
        // Read now.
        timestamp: 0,
        metric_type: kind(family.name) as i32,
        label_values: labels.iter().cloned().chain(own).collect(),
        value: Some(v1::UInt64Value { value }),
    };
    let mut metrics = Vec::new();
    for family in families {
        metrics.extend((family.samples)(reading).into_iter().map(|sample| metric(family, sample)));
    }
    metrics
}

/// `pod`: its name and namespace. Its network is no container's.
pub fn of_pod(pod: &[String; 2], sandbox: &str, link: &LinkUsage) -> Vec<v1::Metric> {
    let own = [String::new(), sandbox.to_owned(), String::new()];
    metrics(OF_POD, &[pod.as_slice(), &own].concat(), link)
}

/// `own`: the container's name, its id, and its image as its user named it.
pub fn of_container(pod: &[String; 2], own: &[String; 3], reading: &Reading) -> Vec<v1::Metric> {
    metrics(OF_CONTAINER, &[pod.as_slice(), own].concat(), reading)
}
