//! `/stats/summary` (stats.k8s.io/v1alpha1): one document of everything. Pure.

use gantry_cri::v1;
use gantry_kube::time::seconds;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::disk::{Disks, Lies, PodDisk, VolumeUse};
use super::host::{NodeUse, Room};
use super::{ContainerUse, PodUse, Snapshot, Use, number, time};
use crate::volume::usage::Walked;

/// What is left out of the JSON where it is not known.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn at(nanos: i64) -> Fields {
        let mut fields = Fields::default();
        fields.0.insert("time".to_owned(), json!(seconds(time(nanos))));
        fields
    }

    fn with(mut self, name: &str, value: Option<impl Into<Value>>) -> Fields {
        if let Some(value) = value {
            self.0.insert(name.to_owned(), value.into());
        }
        self
    }

    fn number(self, name: &str, value: Option<v1::UInt64Value>) -> Fields {
        self.with(name, number(value))
    }

    fn done(self) -> Value {
        Value::Object(self.0)
    }
}

fn psi(psi: Option<v1::PsiStats>) -> Option<Value> {
    let data = |data: Option<v1::PsiData>| {
        data.map(|d| json!({"total": d.total, "avg10": d.avg10, "avg60": d.avg60, "avg300": d.avg300}))
    };
    psi.map(|psi| json!({"some": data(psi.some), "full": data(psi.full)}))
}

fn cpu(cpu: &v1::CpuUsage) -> Value {
    Fields::at(cpu.timestamp)
        .number("usageNanoCores", cpu.usage_nano_cores)
        .number("usageCoreNanoSeconds", cpu.usage_core_nano_seconds)
        .with("psi", psi(cpu.psi))
        .done()
}

fn memory(memory: &v1::MemoryUsage) -> Value {
    Fields::at(memory.timestamp)
        .number("availableBytes", memory.available_bytes)
        .number("usageBytes", memory.usage_bytes)
        .number("workingSetBytes", memory.working_set_bytes)
        .number("rssBytes", memory.rss_bytes)
        .number("pageFaults", memory.page_faults)
        .number("majorPageFaults", memory.major_page_faults)
        .with("psi", psi(memory.psi))
        .done()
}

/// Processor, memory, swap and pressure on the disk.
fn uses(used: &Use, into: Fields) -> Fields {
    let swap = used.swap.map(|swap| {
        Fields::at(swap.timestamp)
            .number("swapAvailableBytes", swap.swap_available_bytes)
            .number("swapUsageBytes", swap.swap_usage_bytes)
            .done()
    });
    let io = used.io.map(|io| Fields::at(io.timestamp).with("psi", psi(io.psi)).done());
    into.with("cpu", Some(cpu(&used.cpu))).with("memory", Some(memory(&used.memory))).with("swap", swap).with("io", io)
}

fn disk(at: &str, room: &Room, used: Walked) -> Value {
    json!({
        "time": at, "availableBytes": room.available_bytes, "capacityBytes": room.capacity_bytes,
        "usedBytes": used.bytes, "inodesFree": room.inodes_free, "inodes": room.inodes, "inodesUsed": used.files,
    })
}

/// The whole document; without `disks`, processor and memory alone.
pub fn summary(node: &str, snapshot: &Snapshot, disks: Option<&Disks>, started: Timestamp) -> Value {
    let at = seconds(time(snapshot.node.used.cpu.timestamp));
    let pods: Vec<Value> = snapshot.pods.iter().map(|pod| of_pod(pod, snapshot, disks, &at)).collect();
    json!({"node": of_node(node, &snapshot.node, disks, started, &at), "pods": pods})
}

fn of_node(name: &str, node: &NodeUse, disks: Option<&Disks>, started: Timestamp, at: &str) -> Value {
    let start = seconds(node.booted_at.unwrap_or(started));
    let fields = Fields::default().with("nodeName", Some(name)).with("startTime", Some(start));
    let fs = node.room.map(|room| disk(at, &room, Walked { bytes: room.used_bytes(), files: room.inodes_used() }));
    let images = disks.and_then(|disks| disks.images.as_ref()).map(|images| {
        json!({
            "imageFs": disk(at, &images.room, images.images),
            "containerFs": disk(at, &images.room, images.containers),
        })
    });
    let interface = |i: &super::host::Interface| {
        json!({"name": i.name, "rxBytes": i.received_bytes, "rxErrors": i.receive_errors, "txBytes": i.sent_bytes,
               "txErrors": i.send_errors})
    };
    let all: Vec<Value> = node.interfaces.iter().map(interface).collect();
    let mut network = json!({"time": at, "interfaces": all});
    let default = node.interfaces.iter().find(|i| i.name == node.default_interface).map(interface);
    if let (Some(into), Some(Value::Object(default))) = (network.as_object_mut(), default) {
        into.extend(default);
    }
    let limit = json!({"time": at, "maxpid": node.processes_max, "curproc": node.processes});
    uses(&node.used, fields)
        .with("network", Some(network))
        .with("fs", fs.filter(|_| disks.is_some()))
        .with("runtime", images)
        .with("rlimit", Some(limit))
        .done()
}

fn of_pod(pod: &PodUse, snapshot: &Snapshot, disks: Option<&Disks>, at: &str) -> Value {
    let on_disk = disks.and_then(|disks| disks.pods.get(&pod.uid));
    let images = disks.and_then(|disks| disks.images.as_ref()).map(|images| images.room);
    let nodefs = snapshot.node.room;
    let containers: Vec<Value> = pod
        .containers
        .iter()
        .map(|c| of_container(c, on_disk, images.filter(|_| disks.is_some()), nodefs, at))
        .collect();
    let network = pod.network.as_ref().map(|network| {
        let interface = |i: &v1::NetworkInterfaceUsage| {
            Fields::default()
                .with("name", Some(i.name.clone()))
                .number("rxBytes", i.rx_bytes)
                .number("rxErrors", i.rx_errors)
                .number("txBytes", i.tx_bytes)
                .number("txErrors", i.tx_errors)
                .done()
        };
        let all: Vec<Value> = network.default_interface.iter().chain(&network.interfaces).map(interface).collect();
        let mut value = Fields::at(network.timestamp).with("interfaces", Some(all)).done();
        if let (Some(into), Some(Value::Object(first))) =
            (value.as_object_mut(), network.default_interface.as_ref().map(interface))
        {
            into.extend(first);
        }
        value
    });
    let volume = |v: &VolumeUse| {
        let mut value = disk(at, &v.room, v.used);
        value["name"] = json!(v.name);
        if let Lies::InClaim(claim) = &v.lies {
            value["pvcRef"] = json!({"name": claim, "namespace": pod.namespace});
        }
        value
    };
    let volumes = on_disk.map(|d| d.volumes.iter().map(volume).collect::<Vec<_>>());
    let whole = on_disk.zip(nodefs).map(|(on_disk, room)| disk(at, &room, total(pod, on_disk)));
    let fields = Fields::default()
        .with("podRef", Some(json!({"name": pod.name, "namespace": pod.namespace, "uid": pod.uid})))
        .with("startTime", pod.started_at.map(seconds))
        .with("containers", Some(containers));
    uses(&pod.used, fields)
        .with("network", network)
        .with("volume", volumes)
        .with("ephemeral-storage", whole)
        .with("process_stats", pod.processes.map(|count| json!({"process_count": count})))
        .done()
}

/// What a pod takes of the node's disk: layers, logs and volumes.
pub fn total(pod: &PodUse, on_disk: &PodDisk) -> Walked {
    pod.containers.iter().fold(on_disk.total(), |sum, container| {
        let layer = layer(container);
        Walked { bytes: sum.bytes.saturating_add(layer.bytes), files: sum.files.saturating_add(layer.files) }
    })
}

/// What a container wrote over its image.
pub fn layer(container: &ContainerUse) -> Walked {
    let of = |value: Option<v1::UInt64Value>| number(value).unwrap_or(0);
    container
        .layer
        .as_ref()
        .map_or(Walked::default(), |layer| Walked { bytes: of(layer.used_bytes), files: of(layer.inodes_used) })
}

fn of_container(
    container: &ContainerUse,
    on_disk: Option<&PodDisk>,
    images: Option<Room>,
    nodefs: Option<Room>,
    at: &str,
) -> Value {
    let rootfs = images.filter(|_| container.layer.is_some()).map(|room| disk(at, &room, layer(container)));
    let logs = on_disk.and_then(|d| d.logs.get(&container.name)).zip(nodefs).map(|(used, room)| disk(at, &room, *used));
    let fields = Fields::default()
        .with("name", Some(container.name.clone()))
        .with("startTime", container.started_at.map(seconds));
    uses(&container.used, fields).with("rootfs", rootfs).with("logs", logs).done()
}
