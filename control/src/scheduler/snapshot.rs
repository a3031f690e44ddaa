//! The nodes as the cycle sees them: numbers in arrays, changed in place as events arrive.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use gantry_kube::Object;
use gantry_kube::pod::resources;
use gantry_kube::storage::{self, ClaimUse};
use serde_json::{Map, Value};

use super::affinity;
use super::topology::Wishes;
use super::volumes::Storage;

/// Amounts by resource name: cpu in milli-units, everything else in whole units.
pub type Amounts = BTreeMap<String, i64>;
/// Sums of them. A pod may ask for the largest amount there is, and whoever names its node is not asked whether it fits.
pub type Sums = BTreeMap<String, i128>;

/// What the scheduler keeps of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodInfo {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub resource_version: String,
    pub created: String,
    pub node: String,
    pub scheduler: String,
    pub priority: i64,
    /// It waits rather than drive others away.
    pub never_preempts: bool,
    /// The node where room is made for it.
    pub nominated: String,
    pub started: String,
    pub gates: usize,
    pub finished: bool,
    pub deleting: bool,
    pub labels: Map<String, Value>,
    pub requests: Amounts,
    /// nodeSelector, affinity.nodeAffinity and tolerations: what the filters read.
    pub spec: Value,
    /// What it says about other pods.
    pub wishes: Wishes,
    pub host_ports: Vec<(String, i64, String)>,
    pub images: Vec<String>,
    pub claims: Vec<ClaimUse>,
    /// Names that pods of one template share.
    pub owner_uid: String,
    pub unschedulable_message: String,
}

impl PodInfo {
    pub fn project(object: Object) -> PodInfo {
        let condition = object.array_at("/status/conditions").iter().find(|c| c["type"] == "PodScheduled");
        let phase = object.str_at("/status/phase");
        let mut spec = serde_json::json!({});
        for key in ["nodeSelector", "tolerations", "nodeName"] {
            if let Some(value) = object.get(&format!("/spec/{key}")) {
                spec[key] = value.clone();
            }
        }
        if let Some(value) = object.get("/spec/affinity/nodeAffinity") {
            spec["affinity"]["nodeAffinity"] = value.clone();
        }
        let containers = object.array_at("/spec/containers");
        PodInfo {
            namespace: object.namespace().to_owned(),
            name: object.name().to_owned(),
            wishes: Wishes::parse(&object),
            uid: object.uid().to_owned(),
            resource_version: object.resource_version().to_owned(),
            created: object.str_at("/metadata/creationTimestamp").to_owned(),
            node: object.str_at("/spec/nodeName").to_owned(),
            scheduler: object.str_at("/spec/schedulerName").to_owned(),
            priority: object.i64_at("/spec/priority").unwrap_or(0),
            never_preempts: object.str_at("/spec/preemptionPolicy") == "Never",
            nominated: object.str_at("/status/nominatedNodeName").to_owned(),
            started: object.str_at("/status/startTime").to_owned(),
            gates: object.array_at("/spec/schedulingGates").len(),
            finished: phase == "Succeeded" || phase == "Failed",
            deleting: object.deletion_timestamp().is_some(),
            labels: object.labels().cloned().unwrap_or_default(),
            requests: by_name(resources::requests(&object)),
            spec,
            host_ports: containers.iter().flat_map(host_ports).collect(),
            images: containers.iter().filter_map(|c| c["image"].as_str()).map(str::to_owned).collect(),
            claims: storage::claims_of(&object).collect(),
            owner_uid: object.controller().and_then(|o| o["uid"].as_str()).unwrap_or("").to_owned(),
            unschedulable_message: condition.and_then(|c| c["message"].as_str()).unwrap_or("").to_owned(),
        }
    }

    /// Nobody has placed it yet, and it still wants to be.
    pub fn waits(&self) -> bool {
        self.node.is_empty() && !self.finished && !self.deleting
    }

    /// Nobody holds it back, and it is this scheduler that is to place it.
    pub fn is_for(&self, scheduler: &str) -> bool {
        self.scheduler == scheduler && self.gates == 0
    }

    /// The same answer as before is due unless a node changed.
    pub fn same_wishes(&self, other: &PodInfo) -> bool {
        self.uid == other.uid
            && self.spec == other.spec
            && self.wishes == other.wishes
            && self.labels == other.labels
            && self.requests == other.requests
            && self.gates == other.gates
    }

    pub fn tolerations(&self) -> &[Value] {
        self.spec["tolerations"].as_array().map(Vec::as_slice).unwrap_or(&[])
    }
}

/// Only what is asked for: a resource of which nothing is wanted is refused nowhere.
fn by_name(amounts: resources::Amounts) -> Amounts {
    let named = [
        ("cpu", amounts.cpu_milli),
        ("memory", amounts.memory_bytes),
        ("ephemeral-storage", amounts.ephemeral_storage_bytes),
    ];
    let named = named.into_iter().map(|(name, amount)| (name.to_owned(), amount));
    named.chain(amounts.other).filter(|(_, amount)| *amount != 0).collect()
}

fn host_ports(container: &Value) -> Vec<(String, i64, String)> {
    let port = |p: &Value| {
        let number = p["hostPort"].as_i64().filter(|n| *n > 0)?;
        let text = |key: &str, absent: &str| p[key].as_str().unwrap_or(absent).to_owned();
        Some((text("protocol", "TCP"), number, text("hostIP", "0.0.0.0")))
    };
    container["ports"].as_array().into_iter().flatten().filter_map(port).collect()
}

/// One node and what is taken of it.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    pub name: String,
    pub labels: Map<String, Value>,
    pub taints: Vec<Value>,
    pub unschedulable: bool,
    pub allocatable: Amounts,
    pub used: Sums,
    pub pods: BTreeMap<String, Arc<PodInfo>>,
    /// Pods that room is made for, and that are not here yet.
    pub nominated: BTreeMap<String, Arc<PodInfo>>,
    pub images: BTreeSet<String>,
}

impl NodeInfo {
    pub fn add(&mut self, pod: Arc<PodInfo>) {
        for (name, amount) in &pod.requests {
            *self.used.entry(name.clone()).or_default() += i128::from(*amount);
        }
        self.pods.insert(pod.uid.clone(), pod);
    }

    pub fn remove(&mut self, uid: &str) -> bool {
        let Some(pod) = self.pods.remove(uid) else { return false };
        for (name, amount) in &pod.requests {
            *self.used.entry(name.clone()).or_default() -= i128::from(*amount);
        }
        true
    }
}

/// Every node, in a fixed order, with every pod that is bound or assumed.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    nodes: Vec<NodeInfo>,
    index: HashMap<String, usize>,
    /// Pod uid → node, for bound and assumed pods.
    placed: HashMap<String, String>,
    assumed: BTreeSet<String>,
    /// Pod uid → node, for pods that room is made for.
    nominated: HashMap<String, String>,
    /// Pods bound to nodes that are not known (yet).
    homeless: HashMap<String, Arc<PodInfo>>,
    pub storage: Storage,
}

impl Snapshot {
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.index.get(name).map(|at| &self.nodes[*at])
    }

    /// Takes the node's new facts; true where they may let in a pod that was refused.
    pub fn set_node(&mut self, object: &Object) -> bool {
        let name = object.name().to_owned();
        let info = NodeInfo {
            labels: object.labels().cloned().unwrap_or_default(),
            taints: object.array_at("/spec/taints").to_vec(),
            unschedulable: object.bool_at("/spec/unschedulable").unwrap_or(false),
            allocatable: by_name(resources::Amounts::from_list(
                object.get("/status/allocatable").unwrap_or(&Value::Null),
            )),
            images: object
                .array_at("/status/images")
                .iter()
                .flat_map(|i| i["names"].as_array().into_iter().flatten())
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            name: name.clone(),
            ..NodeInfo::default()
        };
        if let Some(at) = self.index.get(&name) {
            let old = &mut self.nodes[*at];
            let changed = old.labels != info.labels
                || old.taints != info.taints
                || old.unschedulable != info.unschedulable
                || old.allocatable != info.allocatable;
            let (used, pods) = (std::mem::take(&mut old.used), std::mem::take(&mut old.pods));
            *old = NodeInfo { used, pods, nominated: std::mem::take(&mut old.nominated), ..info };
            return changed;
        }
        self.index.insert(name.clone(), self.nodes.len());
        self.nodes.push(info);
        let waiting: Vec<Arc<PodInfo>> = self.homeless.values().filter(|p| p.node == name).cloned().collect();
        for pod in waiting {
            self.homeless.remove(&pod.uid);
            self.place(pod, &name);
        }
        true
    }

    /// A node that goes frees nothing.
    pub fn remove_node(&mut self, name: &str) -> bool {
        let Some(at) = self.index.remove(name) else { return false };
        let gone = self.nodes.swap_remove(at);
        if let Some(moved) = self.nodes.get(at) {
            self.index.insert(moved.name.clone(), at);
        }
        for pod in gone.pods.into_values() {
            self.placed.remove(&pod.uid);
            self.homeless.insert(pod.uid.clone(), pod);
        }
        false
    }

    /// Room is made for a pod, which pods below it may not take.
    pub fn nominate(&mut self, pod: &Arc<PodInfo>, node: &str) {
        self.withdraw(&pod.uid);
        if let Some(at) = self.index.get(node) {
            self.nominated.insert(pod.uid.clone(), node.to_owned());
            self.nodes[*at].nominated.insert(pod.uid.clone(), pod.clone());
        }
    }

    /// The pod needs no room, or not there.
    pub fn withdraw(&mut self, uid: &str) {
        let node = self.nominated.remove(uid);
        if let Some(at) = node.and_then(|node| self.index.get(&node)) {
            self.nodes[*at].nominated.remove(uid);
        }
    }

    fn place(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.withdraw(&pod.uid);
        match self.index.get(node) {
            Some(at) => {
                self.placed.insert(pod.uid.clone(), node.to_owned());
                self.nodes[*at].add(pod);
            }
            None => {
                self.homeless.insert(pod.uid.clone(), pod);
            }
        }
    }

    /// Takes a bound (or finished) pod as the API shows it; true where that frees room.
    pub fn set_pod(&mut self, pod: &Arc<PodInfo>) -> bool {
        let freed = self.remove_pod(&pod.uid) && pod.finished;
        if !pod.node.is_empty() && !pod.finished {
            self.place(pod.clone(), &pod.node);
        }
        freed
    }

    pub fn remove_pod(&mut self, uid: &str) -> bool {
        self.withdraw(uid);
        self.assumed.remove(uid);
        self.homeless.remove(uid);
        let Some(node) = self.placed.remove(uid) else { return false };
        self.index.get(&node).is_some_and(|at| self.nodes[*at].remove(uid))
    }

    /// The pod counts from now on, though its bind has not come back.
    pub fn assume(&mut self, pod: &Arc<PodInfo>, node: &str) {
        self.place(pod.clone(), node);
        self.assumed.insert(pod.uid.clone());
    }

    pub fn forget(&mut self, uid: &str) {
        if self.assumed.contains(uid) {
            self.remove_pod(uid);
        }
    }

    pub fn is_assumed(&self, uid: &str) -> bool {
        self.assumed.contains(uid)
    }
}

impl NodeInfo {
    /// Whether nodeSelector and affinity of the pod allow this node.
    pub fn selected_by(&self, pod: &PodInfo) -> bool {
        affinity::selects(&pod.spec, &self.name, &self.labels)
    }
}
