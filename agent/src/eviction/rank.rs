//! Which pod goes first, and what it is told. Pure.

use gantry_kube::Object;
use gantry_kube::pod::resources::{Amounts, requests};
use gantry_kube::pod::{containers, init_containers};
use serde_json::Value;

use super::plan::Observation;
use super::thresholds::{Signal, Threshold};
use crate::pod::storage::bytes_text;

/// Pods of this priority keep the cluster going (system-cluster-critical and above).
pub const CRITICAL_PRIORITY: i64 = 2_000_000_000;

/// One container's part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    pub memory_bytes: u64,
    /// What it wrote over its image, and its logs.
    pub disk_bytes: u64,
    pub memory_request: Asked,
    pub disk_request: Asked,
}

/// A request, as a number and as its author wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub bytes: u64,
    pub text: String,
}

/// A pod that may be evicted: what it asked for and what it uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidate {
    pub uid: String,
    pub priority: i64,
    pub memory_request: u64,
    pub disk_request: u64,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
    pub inodes: u64,
    pub processes: u64,
    pub containers: Vec<Part>,
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

impl Candidate {
    /// With what it asked for; what it uses is not known yet.
    pub fn of(pod: &Object) -> Candidate {
        let asked = requests(pod);
        let part = |container: &Value| {
            let list = &container["resources"]["requests"];
            let amounts = Amounts::from_list(list);
            let asked = |name: &str, amount: i64| Asked {
                bytes: unsigned(amount),
                text: list[name].as_str().unwrap_or("0").to_owned(),
            };
            Part {
                name: container["name"].as_str().unwrap_or("").to_owned(),
                memory_request: asked("memory", amounts.memory_bytes),
                disk_request: asked("ephemeral-storage", amounts.ephemeral_storage_bytes),
                ..Part::default()
            }
        };
        Candidate {
            uid: pod.uid().to_owned(),
            priority: pod.i64_at("/spec/priority").unwrap_or(0),
            memory_request: unsigned(asked.memory_bytes),
            disk_request: unsigned(asked.ephemeral_storage_bytes),
            containers: containers(pod).iter().chain(init_containers(pod)).map(part).collect(),
            ..Candidate::default()
        }
    }

    /// What it takes of what runs short, and what of that it had asked for.
    pub fn takes(&self, signal: Signal) -> (u64, u64) {
        match signal {
            Signal::MemoryAvailable => (self.memory_bytes, self.memory_request),
            Signal::NodeFsAvailable | Signal::ImageFsAvailable => (self.disk_bytes, self.disk_request),
            // Nobody can ask for these.
            Signal::NodeFsInodesFree | Signal::ImageFsInodesFree => (self.inodes, 0),
            Signal::PidAvailable => (self.processes, 0),
        }
    }

    /// Whether it takes more than it asked for. Where nobody can ask, that tells no pod from another.
    pub fn exceeds(&self, signal: Signal) -> bool {
        let (used, asked) = self.takes(signal);
        matches!(signal, Signal::MemoryAvailable | Signal::NodeFsAvailable | Signal::ImageFsAvailable) && used > asked
    }
}

/// The first goes first: those that take more than they asked for, then by priority, then who takes the most beyond that.
pub fn rank(signal: Signal, candidates: &mut [Candidate]) {
    candidates.sort_by_cached_key(|candidate| {
        let (used, asked) = candidate.takes(signal);
        let beyond = i128::from(used) - i128::from(asked);
        (!candidate.exceeds(signal), candidate.priority, -beyond, candidate.uid.clone())
    });
}

/// Why, in the kubelet's words.
pub fn message(threshold: &Threshold, observed: Option<Observation>, pod: &Candidate) -> String {
    let signal = threshold.signal;
    let resource = signal.resource();
    let counts = matches!(signal, Signal::NodeFsInodesFree | Signal::ImageFsInodesFree | Signal::PidAvailable);
    let text = |amount: u64| if counts { amount.to_string() } else { bytes_text(amount) };
    let mut message = format!("The node was low on resource: {resource}. ");
    if let Some(seen) = observed {
        let (quantity, available) = (text(threshold.amount.of(seen.capacity)), text(seen.available));
        message.push_str(&format!("Threshold quantity: {quantity}, available: {available}. "));
    }
    for part in &pod.containers {
        let (used, asked) = match signal {
            Signal::MemoryAvailable => (part.memory_bytes, &part.memory_request),
            Signal::NodeFsAvailable | Signal::ImageFsAvailable => (part.disk_bytes, &part.disk_request),
            _ => continue,
        };
        if used > asked.bytes {
            let (name, used, asked) = (&part.name, text(used), &asked.text);
            message.push_str(&format!(
                "Container {name} was using {used}, request is {asked}, has larger consumption of {resource}. "
            ));
        }
    }
    message
}
