//! Nodes that stop renewing their Lease: Ready becomes Unknown, taints keep pods away, and pods that do not tolerate them go.
//!
//! Silence is counted from when *this* process saw a Lease or a Ready heartbeat change, and a pod's patience with a taint from
//! when it saw the pod beside it: clocks that differ between machines do no harm, and a control service that was away or
//! stood still counts everything anew.

pub mod plan;
mod zones;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_client::{ClientError, DeleteOptions, Patch};
use gantry_env::chain;
use gantry_kube::{Object, Ref, resource};
use serde_json::json;
use tokio::time::Instant;
use tracing::{info, warn};

use super::events::Subject;
use super::informers::Pod;
use super::{Context, Recorder};
use plan::{Action, Patience};
use zones::Zones;

const EVERY: Duration = Duration::from_secs(5);
/// Changes that come together are looked at together: a partition that heals brings thousands.
const SETTLE: Duration = Duration::from_millis(100);
/// Between two looks there are never so many seconds unless we stood still (stopped, or waiting for the store): what
/// was not heard meanwhile was not silence.
const STALL: Duration = Duration::from_secs(20);

/// The last sign of life that was seen of a node, and when it was new.
struct Heartbeat {
    renewed: String,
    seen: Instant,
}

/// What is remembered between two looks.
#[derive(Default)]
struct Memory {
    looked: Option<Instant>,
    heartbeats: BTreeMap<String, Heartbeat>,
    patience: Patience,
    zones: Zones,
}

pub async fn run(context: Context) {
    let informers = &context.informers;
    informers.nodes.synced().await;
    informers.node_leases.synced().await;
    informers.pods.synced().await;
    let recorder = context.recorder("node-controller");
    let mut memory = Memory::default();
    let (mut nodes, mut pods) = (informers.nodes.subscribe(), informers.pods.subscribe());
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            // Every arm waits on a timer or a mailbox and takes nothing before it returns.
            () = context.stop.cancelled() => return,
            _ = ticks.tick() => {}
            _ = nodes.changes() => {}
            // Only a pod on a node with a NoExecute taint matters before the next tick.
            _ = pods.changes() => if !informers.nodes.list().iter().any(|n| plan::evicting(n)) { continue },
        }
        look(&context, &recorder, &mut memory).await;
        tokio::time::sleep(SETTLE).await;
    }
}

/// One look at every node and what follows from it.
async fn look(context: &Context, recorder: &Recorder, memory: &mut Memory) {
    let now = Instant::now();
    if memory.looked.replace(now).is_some_and(|last| now - last > STALL) {
        warn!("stood still, counting the silence of nodes anew");
        memory.heartbeats.clear();
        memory.patience.clear();
    }
    let nodes = context.informers.nodes.list();
    memory.heartbeats.retain(|name, _| nodes.iter().any(|node| node.name() == name));
    let silences: Vec<Duration> = nodes.iter().map(|node| memory.listen(context, node)).collect();
    let ready = |(node, silence): (&Arc<Object>, &Duration)| (zones::zone_of(node), plan::is_ready(node, *silence));
    memory.zones.count(nodes.iter().zip(&silences).map(ready));
    let mut by_node: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in context.informers.pods.list() {
        by_node.entry(pod.node.clone()).or_default().push(pod);
    }
    plan::keep_patience(&mut memory.patience, &nodes, &by_node, now);
    for (node, silence) in nodes.iter().zip(silences) {
        let pods = by_node.get(node.name()).map(Vec::as_slice).unwrap_or(&[]);
        let may_evict = memory.may_evict(node, silence, now);
        let view = plan::View { node, pods, silence, may_evict, patience: &memory.patience };
        for action in plan::plan(&view, now, context.env.clock.now()) {
            if let Err(error) = apply(context, recorder, node, action).await {
                warn!(node = node.name(), error = %chain(&error), "turn failed");
            }
        }
    }
}

impl Memory {
    /// How long the node's signs of life have stood still.
    fn listen(&mut self, context: &Context, node: &Object) -> Duration {
        let lease = context.informers.node_leases.get(&Ref::new("kube-node-lease", node.name()));
        let lease = lease.map(|l| l.str_at("/spec/renewTime").to_owned()).unwrap_or_default();
        let renewed = format!("{lease} {}", plan::last_heartbeat(node));
        let now = Instant::now();
        let fresh = || Heartbeat { renewed: renewed.clone(), seen: now };
        let heartbeat = self.heartbeats.entry(node.name().to_owned()).or_insert_with(fresh);
        if heartbeat.renewed != renewed {
            *heartbeat = fresh();
        }
        now - heartbeat.seen
    }

    /// Asks the zone only for a node that is about to be tainted: each permit counts.
    fn may_evict(&mut self, node: &Object, silence: Duration, now: Instant) -> bool {
        if plan::is_ready(node, silence) {
            return false;
        }
        // From not ready to unreachable and back costs nothing; when all is lost, the taints go, too.
        if plan::tainted_not_ready(node) {
            return !self.zones.all_lost();
        }
        self.zones.permit(&zones::zone_of(node), now)
    }
}

async fn apply(context: &Context, recorder: &Recorder, node: &Object, action: Action) -> Result<(), ClientError> {
    let client = context.client.named("node-lifecycle-controller");
    let done = match action {
        Action::Unknown(patch) => {
            recorder.record(
                &Subject::of(node),
                "Normal",
                "NodeNotReady",
                format!("Node {} status is now: NodeNotReady", node.name()),
            );
            info!(node = node.name(), "node is silent");
            client.patch(&resource::NODE, &node.reference(), "status", Patch::Strategic(patch)).await.map(|_| ())
        }
        Action::Taints(taints) => {
            let patch = json!({"metadata": {"resourceVersion": node.resource_version()}, "spec": {"taints": taints}});
            client.patch(&resource::NODE, &node.reference(), "", Patch::Merge(patch)).await.map(|_| ())
        }
        Action::NotReady { pod, uid, patch } => {
            let patch = json!({"metadata": {"uid": uid}, "status": patch});
            client.patch(&resource::POD, &pod, "status", Patch::Strategic(patch)).await.map(|_| ())
        }
        Action::Evict { pod, uid } => {
            info!(pod = %pod, node = node.name(), "pod evicted by a taint");
            let options = DeleteOptions { uid: Some(uid), ..DeleteOptions::default() };
            client.delete(&resource::POD, &pod, &options).await
        }
    };
    match done {
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        other => other,
    }
}
