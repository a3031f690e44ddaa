//! StatefulSet: pods of a template under names that last, made and taken away in order, and the way from one template to
//! the next.

mod claims;
mod order;
pub mod plan;

use std::sync::Arc;
use std::time::Duration;

use gantry_client::{Change, ClientError, Informer};
use gantry_kube::{Object, Ref, resource};

use super::Context;
use super::dependents::Dependents;
use super::frame::{Controller, owners};
use plan::World;

const WORKERS: usize = 4;

struct StatefulSets {
    context: Context,
    pods: Arc<Dependents>,
}

pub async fn run(context: Context) {
    let informers = &context.informers;
    let sets = informers.stateful_sets.clone();
    let (pods, frame) = Dependents::framed(&context, "statefulset-controller", &resource::STATEFUL_SET, &sets);
    let frame = frame
        .hears(&informers.controller_revisions, |change| owners(change, "StatefulSet"))
        .hears(&informers.claims, move |change| waiting(&sets, change));
    frame.run(WORKERS, Arc::new(StatefulSets { context, pods })).await;
}

/// The sets of whose members one may wait for the end of this claim.
fn waiting(sets: &Informer<Object>, change: Change<Object>) -> Vec<Ref> {
    if change.now.is_some() {
        return Vec::new();
    }
    let sets = sets.list_namespace(&change.at.namespace);
    let claiming = sets.iter().filter(|set| !set.array_at("/spec/volumeClaimTemplates").is_empty());
    claiming.map(|set| set.reference()).collect()
}

impl Controller for StatefulSets {
    type Key = Ref;

    async fn turn(&self, at: &Ref, again: &mut Option<Duration>) -> Result<(), ClientError> {
        let informers = &self.context.informers;
        let Some(set) = informers.stateful_sets.get(at) else { return Ok(()) };
        let pods = informers.pods.list_namespace(&at.namespace);
        let world = World {
            outstanding: self.pods.settle(set.uid(), &pods),
            pods,
            claims: informers.claims.list_namespace(&at.namespace),
            revisions: informers.controller_revisions.list_namespace(&at.namespace),
            now: self.context.env.clock.now(),
        };
        let plan = plan::plan(&set, &world);
        *again = plan.check_again;
        self.pods.apply(&set, &plan).await
    }
}
