//! Nodes that stop renewing their Lease: Ready becomes Unknown, taints keep pods away, and pods that do not tolerate them go.
//!
//! Silence is counted from when *this* process saw a Lease change, so clocks that differ between machines do no harm, and a
//! control service that was away gives every node its whole grace again.

pub mod plan;

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_client::{ClientError, DeleteOptions, Patch};
use gantry_env::chain;
use gantry_kube::{Object, Ref, resource};
use serde_json::json;
use tokio::time::Instant;
use tracing::{info, warn};

use super::events::Subject;
use super::{Context, Recorder};
use plan::Action;

const EVERY: Duration = Duration::from_secs(5);

/// The last Lease that was seen of a node, and when it was new.
struct Heartbeat {
    renewed: String,
    seen: Instant,
}

pub async fn run(context: Context) {
    let informers = &context.informers;
    informers.nodes.synced().await;
    informers.node_leases.synced().await;
    informers.pods.synced().await;
    let recorder = context.recorder("node-controller");
    let mut heartbeats: BTreeMap<String, Heartbeat> = BTreeMap::new();
    let (mut nodes, mut pods) = (informers.nodes.subscribe(), informers.pods.subscribe());
    let mut ticks = tokio::time::interval(EVERY);
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
        for node in informers.nodes.list() {
            let silence = listen(&context, &mut heartbeats, node.name());
            let pods: Vec<_> = informers.pods.list().into_iter().filter(|p| p.node == node.name()).collect();
            for action in plan::plan(&node, &pods, silence, context.env.clock.now()) {
                if let Err(error) = apply(&context, &recorder, &node, action).await {
                    warn!(node = node.name(), error = %chain(&error), "turn failed");
                }
            }
        }
        heartbeats.retain(|name, _| informers.nodes.get(&Ref::cluster(name.as_str())).is_some());
    }
}

/// How long the node's Lease has stood still.
fn listen(context: &Context, heartbeats: &mut BTreeMap<String, Heartbeat>, node: &str) -> Duration {
    let lease = context.informers.node_leases.get(&Ref::new("kube-node-lease", node));
    let renewed = lease.map(|l| l.str_at("/spec/renewTime").to_owned()).unwrap_or_default();
    let now = Instant::now();
    let heartbeat =
        heartbeats.entry(node.to_owned()).or_insert_with(|| Heartbeat { renewed: renewed.clone(), seen: now });
    if heartbeat.renewed != renewed {
        *heartbeat = Heartbeat { renewed, seen: now };
    }
    now - heartbeat.seen
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
