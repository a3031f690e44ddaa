use std::collections::BTreeMap;

use serde_json::json;

use super::disk::{Lies, PodDisk, VolumeUse};
use super::host::Room;
use super::*;
use crate::volume::usage::Walked;

const SECOND: i64 = 1_000_000_000;

fn number(value: u64) -> Option<v1::UInt64Value> {
    Some(v1::UInt64Value { value })
}

fn used(at: i64, nanos: u64, memory: u64) -> Use {
    Use {
        cpu: v1::CpuUsage { timestamp: at, usage_core_nano_seconds: number(nanos), ..v1::CpuUsage::default() },
        memory: v1::MemoryUsage { timestamp: at, working_set_bytes: number(memory), ..v1::MemoryUsage::default() },
        ..Use::default()
    }
}

/// A node with one pod of one container, at `at` seconds.
fn snapshot(at: i64, nanos: u64) -> Snapshot {
    let at = at * SECOND;
    let layer = v1::FilesystemUsage { used_bytes: number(100), inodes_used: number(3), ..Default::default() };
    let container = ContainerUse {
        id: "c1".into(),
        name: "main".into(),
        image: "i:1".into(),
        started_at: Some(Timestamp::from_second(1000).unwrap()),
        used: used(at, nanos, 4096),
        layer: Some(layer),
    };
    let interface = v1::NetworkInterfaceUsage {
        name: "eth0".into(),
        rx_bytes: number(7),
        tx_bytes: number(8),
        ..Default::default()
    };
    let pod = PodUse {
        namespace: "n".into(),
        name: "p".into(),
        uid: "u".into(),
        sandbox_id: "s1".into(),
        cgroup: "/gantry/burstable/podu".into(),
        used: used(at, nanos * 2, 8192),
        network: Some(v1::NetworkUsage { timestamp: at, default_interface: Some(interface), interfaces: Vec::new() }),
        processes: Some(5),
        containers: vec![container],
        ..PodUse::default()
    };
    let room = Room { capacity_bytes: 1000, available_bytes: 600, inodes: 100, inodes_free: 40 };
    let node = NodeUse { used: used(at, nanos * 4, 1 << 20), room: Some(room), ..NodeUse::default() };
    Snapshot { node, pods: vec![pod] }
}

#[test]
fn a_rate_is_what_was_used_between_two_readings() {
    let rated = |before: Snapshot, mut after: Snapshot| {
        rate(&mut after, &before);
        let of = |cpu: &v1::CpuUsage| cpu.usage_nano_cores.map(|v| v.value);
        let pod = &after.pods[0];
        (of(&after.node.used.cpu), of(&pod.used.cpu), of(&pod.containers[0].used.cpu))
    };
    let half = 1_000_000_000;
    assert_eq!(rated(snapshot(10, 0), snapshot(12, half)), (Some(2 * half), Some(half), Some(half / 2)));
    assert_eq!(rated(snapshot(10, half), snapshot(12, 0)), (None, None, None), "a counter that began anew");
    assert_eq!(rated(snapshot(10, 0), snapshot(10, half)), (None, None, None), "two readings of one moment");
    let mut other = snapshot(10, 0);
    other.pods[0].containers[0].id = "c0".into();
    assert_eq!(rated(other, snapshot(12, half)).2, None, "another run of the container");
}

#[test]
fn the_summary_has_the_fields_that_its_readers_know() {
    let room = Room { capacity_bytes: 1000, available_bytes: 600, inodes: 100, inodes_free: 40 };
    let volume =
        |name: &str, bytes, lies| VolumeUse { name: name.into(), used: Walked { bytes, files: 1 }, room, lies };
    let on_disk = PodDisk {
        volumes: vec![
            volume("v", 50, Lies::OnDisk),
            volume("m", 9, Lies::InMemory),
            volume("c", 300, Lies::InClaim("db-0".into())),
        ],
        logs: BTreeMap::from([("main".to_owned(), Walked { bytes: 5, files: 2 })]),
    };
    let images = disk::ImageDisk { room, images: Walked { bytes: 70, files: 7 }, ..Default::default() };
    let disks = Disks { pods: BTreeMap::from([("u".to_owned(), on_disk)]), images: Some(images) };
    let of = |disks| summary::summary("n1", &snapshot(10, 500), disks, Timestamp::UNIX_EPOCH);
    let whole = of(Some(&disks));
    let at = |pointer: &str| whole.pointer(pointer).cloned().unwrap_or_default();
    assert_eq!(at("/node/nodeName"), "n1");
    assert_eq!(at("/node/cpu/time"), "1970-01-01T00:00:10Z");
    assert_eq!(at("/node/fs/usedBytes"), 400);
    assert_eq!(at("/node/runtime/imageFs/usedBytes"), 70);
    assert_eq!(at("/pods/0/podRef/uid"), "u");
    assert_eq!(at("/pods/0/memory/workingSetBytes"), 8192);
    assert_eq!(at("/pods/0/network/rxBytes"), 7);
    assert_eq!(at("/pods/0/network/interfaces/0/name"), "eth0");
    assert_eq!(at("/pods/0/process_stats/process_count"), 5);
    assert_eq!(at("/pods/0/volume/1/name"), "m");
    assert_eq!(at("/pods/0/volume/2/pvcRef"), json!({"name": "db-0", "namespace": "n"}));
    assert!(whole.pointer("/pods/0/volume/0/pvcRef").is_none());
    assert_eq!(at("/pods/0/ephemeral-storage/usedBytes"), 100 + 50 + 5, "neither memory nor a claim is the pod's disk");
    assert_eq!(at("/pods/0/ephemeral-storage/inodesUsed"), 3 + 1 + 2);
    assert_eq!(at("/pods/0/containers/0/startTime"), "1970-01-01T00:16:40Z");
    assert_eq!(at("/pods/0/containers/0/rootfs/usedBytes"), 100);
    assert_eq!(at("/pods/0/containers/0/logs/usedBytes"), 5);
    let light = of(None);
    assert!(light["node"].get("fs").is_none() && light["pods"][0].get("volume").is_none());
    assert_eq!(light["pods"][0]["containers"][0]["cpu"]["usageCoreNanoSeconds"], 500);
}

#[test]
fn the_metrics_have_the_names_and_labels_that_dashboards_ask_for() {
    let text = resource::metrics(&snapshot(10, 500_000_000));
    for line in [
        "container_cpu_usage_seconds_total{container=\"main\",namespace=\"n\",pod=\"p\"} 0.5 10000",
        "container_memory_working_set_bytes{container=\"main\",namespace=\"n\",pod=\"p\"} 4096 10000",
        "container_start_time_seconds{container=\"main\",namespace=\"n\",pod=\"p\"} 1000 10000",
        "pod_cpu_usage_seconds_total{namespace=\"n\",pod=\"p\"} 1 10000",
        "node_cpu_usage_seconds_total 2 10000",
        "node_memory_working_set_bytes 1048576 10000",
        "resource_scrape_error 0",
    ] {
        assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
    }
    let extra = cgroup::Extra { throttled_periods: Some(3), ..cgroup::Extra::default() };
    let extras = BTreeMap::from([("/gantry/burstable/podu/c1".to_owned(), extra)]);
    let text = cadvisor::metrics(&snapshot(10, 500_000_000), &extras, 2);
    let of = "id=\"/gantry/burstable/podu/c1\",image=\"i:1\",name=\"c1\",namespace=\"n\",pod=\"p\"}";
    for line in [
        format!("container_cpu_usage_seconds_total{{container=\"main\",cpu=\"total\",{of} 0.5 10000"),
        format!("container_cpu_cfs_throttled_periods_total{{container=\"main\",{of} 3 10000"),
        format!("container_fs_usage_bytes{{container=\"main\",{of} 100 10000"),
        "machine_cpu_cores 2".to_owned(),
    ] {
        assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
    }
    assert!(text.contains("container_network_receive_bytes_total{container=\"\",id=\"/gantry/burstable/podu\",image=\"\",interface=\"eth0\""));
    // Prometheus refuses a family that begins twice.
    let mut families: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("# TYPE ")).collect();
    families.sort_unstable();
    assert!(families.windows(2).all(|pair| pair[0] != pair[1]));
}
