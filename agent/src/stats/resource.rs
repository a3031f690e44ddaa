//! `/metrics/resource`: processor and memory of node, pods and containers, by which metrics.k8s.io is served. Each number
//! has the time at which it was read, so that rates are right however late they are fetched. Pure.

use gantry_cri::v1::{CpuUsage, MemoryUsage};
use gantry_env::metrics::{Labels, Text};

use super::{ContainerUse, PodUse, Snapshot, Use, number};

const NANOS: f64 = 1e9;
const NANOS_PER_MILLI: i64 = 1_000_000;

fn cpu(cpu: &CpuUsage) -> Option<(f64, i64)> {
    Some((number(cpu.usage_core_nano_seconds)? as f64 / NANOS, cpu.timestamp / NANOS_PER_MILLI))
}

fn memory(memory: &MemoryUsage) -> Option<(f64, i64)> {
    Some((number(memory.working_set_bytes)? as f64, memory.timestamp / NANOS_PER_MILLI))
}

fn swap(used: &Use) -> Option<(f64, i64)> {
    let swap = used.swap.as_ref()?;
    Some((number(swap.swap_usage_bytes)? as f64, swap.timestamp / NANOS_PER_MILLI))
}

/// Writes one family with a sample for whatever has the number.
struct Writer<'a> {
    text: Text,
    snapshot: &'a Snapshot,
}

type OfContainer = fn(&ContainerUse) -> Option<(f64, i64)>;

impl Writer<'_> {
    fn containers(&mut self, name: &str, kind: &str, help: &str, value: OfContainer) {
        self.text.family(name, kind, help);
        for pod in &self.snapshot.pods {
            for container in &pod.containers {
                let Some((value, at)) = value(container) else { continue };
                let labels: Labels<'_> =
                    &[("container", &container.name), ("namespace", &pod.namespace), ("pod", &pod.name)];
                self.text.sample(name, labels, value, Some(at));
            }
        }
    }

    fn pods(&mut self, name: &str, kind: &str, help: &str, value: fn(&PodUse) -> Option<(f64, i64)>) {
        self.text.family(name, kind, help);
        for pod in &self.snapshot.pods {
            let Some((value, at)) = value(pod) else { continue };
            self.text.sample(name, &[("namespace", &pod.namespace), ("pod", &pod.name)], value, Some(at));
        }
    }

    fn node(&mut self, name: &str, kind: &str, help: &str, value: Option<(f64, i64)>) {
        self.text.family(name, kind, help);
        if let Some((value, at)) = value {
            self.text.sample(name, &[], value, Some(at));
        }
    }
}

pub fn metrics(snapshot: &Snapshot) -> String {
    let mut out = Writer { text: Text::default(), snapshot };
    let (counter, gauge) = ("counter", "gauge");
    out.containers(
        "container_cpu_usage_seconds_total",
        counter,
        "[STABLE] Processor time that the container has used, in core-seconds",
        |c| cpu(&c.used.cpu),
    );
    out.containers(
        "container_memory_working_set_bytes",
        gauge,
        "[STABLE] Working set of the container in bytes",
        |c| memory(&c.used.memory),
    );
    out.containers(
        "container_start_time_seconds",
        gauge,
        "[STABLE] When the container was started, in seconds since the epoch",
        |c| Some((c.started_at?.as_nanosecond() as f64 / NANOS, c.used.cpu.timestamp / NANOS_PER_MILLI)),
    );
    out.containers("container_swap_usage_bytes", gauge, "[ALPHA] Swap that the container uses, in bytes", |c| {
        swap(&c.used)
    });
    let node = &snapshot.node.used;
    let help = "[STABLE] Processor time that the node has used, in core-seconds";
    out.node("node_cpu_usage_seconds_total", counter, help, cpu(&node.cpu));
    let help = "[STABLE] Working set of the node in bytes";
    out.node("node_memory_working_set_bytes", gauge, help, memory(&node.memory));
    let help = "[ALPHA] Swap that the node uses, in bytes";
    out.node("node_swap_usage_bytes", gauge, help, swap(node));
    let help = "[STABLE] Processor time that the pod has used, in core-seconds";
    out.pods("pod_cpu_usage_seconds_total", counter, help, |p| cpu(&p.used.cpu));
    let help = "[STABLE] Working set of the pod in bytes";
    out.pods("pod_memory_working_set_bytes", gauge, help, |p| memory(&p.used.memory));
    // What could not be read is answered with an error, and not with a number that says so.
    let help = "[STABLE] 1 where the numbers could not be read";
    out.text.family("resource_scrape_error", gauge, help);
    out.text.sample("resource_scrape_error", &[], 0.0, None);
    out.text.done()
}
