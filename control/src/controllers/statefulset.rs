//! StatefulSet: pods of a template under names that last, made and taken away in order, and the way from one template to
//! the next.

mod order;
pub mod plan;

use std::sync::Arc;

use gantry_client::{ClientError, run_workers};
use gantry_kube::{Object, Ref, resource};
use serde_json::json;

use super::Context;
use super::dependents::Dependents;
use super::revisions::{self, Applied};
use plan::{Plan, World};

const WORKERS: usize = 4;

struct StatefulSets {
    context: Context,
    pods: Arc<Dependents>,
}

pub async fn run(context: Context) {
    let sets = &context.informers.stateful_sets;
    let pods = Arc::new(Dependents::new(&context, "statefulset-controller", &resource::STATEFUL_SET, sets));
    pods.synced().await;
    context.informers.controller_revisions.synced().await;
    tokio::spawn(pods.clone().feed());
    tokio::spawn(revisions::feed(context.clone(), "StatefulSet", pods.queue.clone()));
    let queue = pods.queue.clone();
    let this = Arc::new(StatefulSets { context: context.clone(), pods });
    run_workers(queue, WORKERS, context.stop.clone(), move |at| {
        let this = this.clone();
        async move { this.reconcile(at).await }
    })
    .await;
}

impl StatefulSets {
    async fn reconcile(&self, at: Ref) -> Result<(), ()> {
        let informers = &self.context.informers;
        let Some(set) = informers.stateful_sets.get(&at) else { return Ok(()) };
        let pods = informers.pods.list_namespace(&at.namespace);
        let world = World {
            outstanding: self.pods.settle(set.uid(), &pods),
            pods,
            revisions: informers.controller_revisions.list_namespace(&at.namespace),
            now: self.context.env.clock.now(),
        };
        let plan = plan::plan(&set, &world);
        let result = self.apply(&set, &plan).await;
        if let Some(wait) = plan.check_again {
            self.pods.queue.add_after(at.clone(), wait);
        }
        self.pods.ended(&at, result)
    }

    /// The revision before the pods that carry its name; status last, so that it tells what was done.
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
