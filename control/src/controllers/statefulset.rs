//! StatefulSet: pods of a template under names that last, made and taken away in order, and the way from one template to
//! the next.

mod claims;
mod order;
pub mod plan;

use std::sync::Arc;

use gantry_client::run_workers;
use gantry_kube::{Ref, resource};

use super::Context;
use super::dependents::Dependents;
use super::revisions;
use plan::World;

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
    context.informers.claims.synced().await;
    tokio::spawn(pods.clone().feed());
    tokio::spawn(revisions::feed(context.clone(), "StatefulSet", pods.queue.clone()));
    tokio::spawn(feed_claims(context.clone(), pods.clone()));
    let queue = pods.queue.clone();
    let this = Arc::new(StatefulSets { context: context.clone(), pods });
    run_workers(queue, WORKERS, context.stop.clone(), move |at| {
        let this = this.clone();
        async move { this.reconcile(at).await }
    })
    .await;
}

/// A claim that is gone may be what a member waits for.
async fn feed_claims(context: Context, pods: Arc<Dependents>) {
    let mut claims = context.informers.claims.subscribe();
    while let Some(changes) = context.stop.run_until_cancelled(claims.changes()).await {
        for gone in changes.into_iter().filter(|change| change.now.is_none()) {
            for set in context.informers.stateful_sets.list_namespace(&gone.at.namespace) {
                if !set.array_at("/spec/volumeClaimTemplates").is_empty() {
                    pods.queue.add(set.reference());
                }
            }
        }
    }
}

impl StatefulSets {
    async fn reconcile(&self, at: Ref) -> Result<(), ()> {
        let informers = &self.context.informers;
        let Some(set) = informers.stateful_sets.get(&at) else { return Ok(()) };
        let pods = informers.pods.list_namespace(&at.namespace);
        let world = World {
            outstanding: self.pods.settle(set.uid(), &pods),
            pods,
            claims: informers.claims.list_namespace(&at.namespace),
            revisions: informers.controller_revisions.list_namespace(&at.namespace),
            now: self.context.env.clock.now(),
        };
        let plan = plan::plan(&set, &world);
        self.pods.turn(&set, &plan).await
    }
}
