//! DaemonSet: one pod of a template on every node that can run it, and the way from one template to the next.
//!
//! The pods name their node in an affinity and are bound by the scheduler.

mod nodes;
pub mod plan;
mod rolling;

use std::sync::Arc;
use std::time::Duration;

use gantry_client::ClientError;
use gantry_kube::{Ref, resource};

use super::Context;
use super::dependents::Dependents;
use super::frame::{Controller, owners};
use plan::World;

const WORKERS: usize = 2;

struct DaemonSets {
    context: Context,
    pods: Arc<Dependents>,
}

pub async fn run(context: Context) {
    let informers = &context.informers;
    let sets = informers.daemon_sets.clone();
    let (pods, frame) = Dependents::framed(&context, "daemonset-controller", &resource::DAEMON_SET, &sets);
    let frame = frame
        .hears(&informers.controller_revisions, |change| owners(change, "DaemonSet"))
        // A node that comes, goes or changes its rules concerns every set; heartbeats are no change of who may run there.
        .hears_together(&informers.nodes, move |changes| {
            let rules = nodes::rules;
            let concerns = changes.iter().any(|c| rules(c.before.as_deref()) != rules(c.now.as_deref()));
            if concerns { sets.list().iter().map(|set| set.reference()).collect() } else { Vec::new() }
        });
    frame.run(WORKERS, Arc::new(DaemonSets { context, pods })).await;
}

impl Controller for DaemonSets {
    type Key = Ref;

    async fn turn(&self, at: &Ref, again: &mut Option<Duration>) -> Result<(), ClientError> {
        let informers = &self.context.informers;
        let Some(set) = informers.daemon_sets.get(at) else { return Ok(()) };
        let pods = informers.pods.list_namespace(&at.namespace);
        let world = World {
            outstanding: self.pods.settle(set.uid(), &pods),
            pods,
            nodes: informers.nodes.list(),
            revisions: informers.controller_revisions.list_namespace(&at.namespace),
            now: self.context.env.clock.now(),
        };
        let plan = plan::plan(&set, &world, |length| self.context.env.rng.name_suffix(length));
        *again = plan.check_again;
        self.pods.apply(&set, &plan).await
    }
}
