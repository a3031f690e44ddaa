//! DaemonSet: one pod of a template on every node that can run it, and the way from one template to the next.
//!
//! The pods name their node in an affinity and are bound by the scheduler.

mod nodes;
pub mod plan;
mod rolling;

use std::sync::Arc;

use gantry_client::run_workers;
use gantry_kube::{Ref, resource};

use super::Context;
use super::dependents::Dependents;
use super::revisions;
use plan::World;

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
        self.pods.turn(&set, &plan).await
    }
}
