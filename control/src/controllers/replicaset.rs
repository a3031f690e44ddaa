//! ReplicaSet and ReplicationController: as many pods of one template as are wanted.

pub mod plan;

use std::sync::Arc;
use std::time::Duration;

use gantry_client::{ClientError, Informer};
use gantry_kube::{Object, Ref, Resource, resource};

use super::Context;
use super::dependents::{Dependents, words};
use super::frame::Controller;
use plan::Plan;

const WORKERS: usize = 4;

struct ReplicaSets {
    context: Context,
    sets: Informer<Object>,
    pods: Arc<Dependents>,
}

pub async fn run(context: Context) {
    let sets = context.informers.replica_sets.clone();
    run_kind(context, &resource::REPLICA_SET, sets, "replicaset-controller").await;
}

/// The same over another kind, which is served for what was written before Deployments were.
pub async fn run_replication_controllers(context: Context) {
    let sets = context.informers.replication_controllers.clone();
    run_kind(context, &resource::REPLICATION_CONTROLLER, sets, "replication-controller").await;
}

async fn run_kind(context: Context, kind: &'static Resource, sets: Informer<Object>, component: &'static str) {
    let (pods, frame) = Dependents::framed(&context, component, kind, &sets);
    frame.run(WORKERS, Arc::new(ReplicaSets { context, sets, pods })).await;
}

impl Controller for ReplicaSets {
    type Key = Ref;

    async fn turn(&self, at: &Ref, again: &mut Option<Duration>) -> Result<(), ClientError> {
        let Some(set) = self.sets.get(at) else { return Ok(()) };
        let pods = self.context.informers.pods.list_namespace(&at.namespace);
        let outstanding = self.pods.settle(set.uid(), &pods);
        let now = self.context.env.clock.now();
        let plan = plan::plan(&set, &pods, &outstanding, now, |length| self.context.env.rng.name_suffix(length));
        *again = plan.check_again_seconds.map(Duration::from_secs);
        self.apply(&set, &plan).await
    }
}

impl ReplicaSets {
    /// Adoption before creation, so that a pod that fits is never duplicated; status last, so that it tells what was done.
    async fn apply(&self, set: &Object, plan: &Plan) -> Result<(), ClientError> {
        if !self.pods.claim(set, &plan.ownership).await? {
            return Ok(());
        }
        let made = self.pods.create_slowly(set, &plan.create).await;
        let gone = self.pods.delete(set, &plan.delete).await;
        let failed = made.err().or(gone.err());
        let written = self.pods.write_status(set, plan.status(set, failed.as_ref().map(words))).await;
        failed.map_or(written, Err)
    }
}
