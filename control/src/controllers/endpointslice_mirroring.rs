//! Endpoints that somebody keeps by hand, for a Service that selects no pods, as EndpointSlices: whoever sends traffic reads
//! slices alone.

pub mod plan;

use std::sync::Arc;

use gantry_client::{ClientError, DeleteOptions, WorkQueue, run_workers};
use gantry_env::chain;
use gantry_kube::{Object, Ref, resource};
use tracing::{debug, warn};

use super::Context;
use super::endpointslice::plan::{Action, MANAGED_BY, Plan, SERVICE_LABEL};

const COMPONENT: &str = "endpointslicemirroring-controller";

pub async fn run(context: Context) {
    let queue = WorkQueue::new();
    let informers = &context.informers;
    informers.services.synced().await;
    informers.endpoints.synced().await;
    informers.endpoint_slices.synced().await;
    tokio::spawn(feed(context.clone(), queue.clone()));
    let (stop, context) = (context.stop.clone(), Arc::new(context));
    run_workers(queue, 1, stop, move |at| {
        let context = context.clone();
        async move { reconcile(&context, at).await }
    })
    .await;
}

async fn feed(context: Context, queue: WorkQueue<Ref>) {
    let informers = &context.informers;
    let (mut services, mut endpoints) = (informers.services.subscribe(), informers.endpoints.subscribe());
    let mut slices = informers.endpoint_slices.subscribe();
    loop {
        tokio::select! {
            biased;
            // Every arm waits on a mailbox and takes nothing before it returns.
            () = context.stop.cancelled() => return,
            changes = services.changes() => changes.into_iter().for_each(|change| queue.add(change.at)),
            changes = endpoints.changes() => changes.into_iter().for_each(|change| queue.add(change.at)),
            changes = slices.changes() => {
                for slice in changes.iter().flat_map(|c| [&c.before, &c.now]).flatten() {
                    let of = slice.label(SERVICE_LABEL).filter(|_| slice.label(MANAGED_BY) == Some(plan::OURS));
                    queue_of(&queue, slice, of);
                }
            }
        }
    }
}

fn queue_of(queue: &WorkQueue<Ref>, slice: &Object, service: Option<&str>) {
    if let Some(service) = service {
        queue.add(Ref::new(slice.namespace(), service));
    }
}

async fn reconcile(context: &Context, at: Ref) -> Result<(), ()> {
    let informers = &context.informers;
    let (service, endpoints) = (informers.services.get(&at), informers.endpoints.get(&at));
    let slices = informers.endpoint_slices.list_namespace(&at.namespace);
    let suffix = |length| context.env.rng.name_suffix(length);
    let plan = plan::plan(service.as_deref(), endpoints.as_deref(), &at, &slices, suffix);
    match apply(context, plan).await {
        Ok(()) => Ok(()),
        Err(error) if error.is_conflict() || error.is_not_found() || error.is_already_exists() => {
            debug!(endpoints = %at, error = %chain(&error), "turn overtaken");
            Err(())
        }
        Err(error) => {
            warn!(endpoints = %at, error = %chain(&error), "turn failed");
            Err(())
        }
    }
}

/// In the plan's order: what is new is there before what is old goes.
async fn apply(context: &Context, plan: Plan) -> Result<(), ClientError> {
    let client = context.client.named(COMPONENT);
    for action in plan.actions {
        match action {
            Action::Create(kind, object) => client.create(kind, &object).await.map(drop)?,
            Action::Update(kind, object) => client.update(kind, &object).await.map(drop)?,
            Action::Delete(at, uid) => {
                let options = DeleteOptions { uid: Some(uid), ..DeleteOptions::default() };
                client.delete(&resource::ENDPOINT_SLICE, &at, &options).await?;
            }
        }
    }
    Ok(())
}
