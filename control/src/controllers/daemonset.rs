//! DaemonSet: one pod of a template on every node that can run it, and the way from one template to the next.
//!
//! The pods name their node in an affinity and are bound by the scheduler.

mod nodes;
pub mod plan;
mod rolling;

use std::sync::Arc;

use gantry_client::{ClientError, run_workers};
use gantry_kube::{Object, Ref, resource};
use serde_json::json;

use super::Context;
use super::dependents::Dependents;
use super::revisions::{self, Applied};
use plan::{Plan, World};

const WORKERS: usize = 2;

struct DaemonSets {
    context: Context,
    pods: Arc<Dependents>,
}

pub async fn run(context: Context) {
    let informers = &context.informers;
    let sets = &informers.daemon_sets;
    let pods = Arc::new(Dependents::new(&context, "daemonset-controller", &resource::DAEMON_SET, sets));
    pods.synced().await;
    informers.nodes.synced().await;
    informers.controller_revisions.synced().await;
    tokio::spawn(pods.clone().feed());
    tokio::spawn(revisions::feed(context.clone(), "DaemonSet", pods.queue.clone()));
    let queue = pods.queue.clone();
    let this = Arc::new(DaemonSets { context: context.clone(), pods });
    tokio::spawn(this.clone().feed());
    run_workers(queue, WORKERS, context.stop.clone(), move |at| {
        let this = this.clone();
        async move { this.reconcile(at).await }
    })
    .await;
}

impl DaemonSets {
    /// A node that comes, goes or changes its rules concerns every set.
    async fn feed(self: Arc<Self>) {
        let informers = &self.context.informers;
        let mut nodes = informers.nodes.subscribe();
        while let Some(changes) = self.context.stop.run_until_cancelled(nodes.changes()).await {
            // Heartbeats are no change of who may run there.
            if changes.iter().any(|c| nodes::rules(c.before.as_deref()) != nodes::rules(c.now.as_deref())) {
                informers.daemon_sets.list().iter().for_each(|set| self.pods.queue.add(set.reference()));
            }
        }
    }

    async fn reconcile(&self, at: Ref) -> Result<(), ()> {
        let informers = &self.context.informers;
        let Some(set) = informers.daemon_sets.get(&at) else { return Ok(()) };
        let pods = informers.pods.list_namespace(&at.namespace);
        let world = World {
            outstanding: self.pods.settle(set.uid(), &pods),
            pods,
            nodes: informers.nodes.list(),
            revisions: informers.controller_revisions.list_namespace(&at.namespace),
            now: self.context.env.clock.now(),
        };
        let plan = plan::plan(&set, &world, |length| self.context.env.rng.name_suffix(length));
        let result = self.apply(&set, &plan).await;
        if let Some(wait) = plan.check_again {
            self.pods.queue.add_after(at.clone(), wait);
        }
        self.pods.ended(&at, result)
    }

    /// The revision before the pods that carry its name; deletes before creates, so that a node's ports are free; status
    /// last, so that it tells what was done.
    async fn apply(&self, set: &Object, plan: &Plan) -> Result<(), ClientError> {
        if revisions::apply(&self.pods.client, &plan.revisions).await? == Applied::Collision {
            let mut status = set.0.get("status").cloned().unwrap_or_default();
            status["collisionCount"] = json!(set.i64_at("/status/collisionCount").unwrap_or(0) + 1);
            return self.pods.write_status(set, Some(status)).await;
        }
        if !self.pods.claim(set, &plan.ownership).await? {
            return Ok(());
        }
        for (reason, message) in &plan.warnings {
            self.pods.tell(set, "Warning", reason, message.clone());
        }
        let gone = self.pods.delete(set, &plan.delete).await;
        let made = self.pods.create_slowly(set, &plan.create).await;
        let written = self.pods.write_status(set, plan.status.clone()).await;
        gone.and(made).and(written)
    }
}
