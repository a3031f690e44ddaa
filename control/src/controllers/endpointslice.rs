//! EndpointSlice (and the older Endpoints): which pods stand behind a Service.

mod endpoints;
pub mod plan;

use std::sync::Arc;
use std::time::Duration;

use gantry_client::{ClientError, DeleteOptions, WorkQueue, run_workers};
use gantry_env::chain;
use gantry_kube::selector::LabelSelector;
use gantry_kube::{Object, Ref, resource};
use tracing::warn;

use super::Context;
use super::informers::Pod;
use plan::{Action, Plan};

const WORKERS: usize = 2;

pub async fn run(context: Context) {
    let queue = WorkQueue::new();
    let informers = &context.informers;
    informers.services.synced().await;
    informers.pods.synced().await;
    informers.endpoint_slices.synced().await;
    informers.endpoints.synced().await;
    informers.nodes.synced().await;
    tokio::spawn(feed(context.clone(), queue.clone()));
    let (stop, requeue) = (context.stop.clone(), queue.clone());
    let context = Arc::new(context);
    run_workers(queue, WORKERS, stop, move |at| {
        let (context, queue) = (context.clone(), requeue.clone());
        async move { reconcile(&context, at, &queue).await }
    })
    .await;
}

async fn feed(context: Context, queue: WorkQueue<Ref>) {
    let informers = &context.informers;
    let (mut services, mut pods) = (informers.services.subscribe(), informers.pods.subscribe());
    let (mut slices, mut endpoints) = (informers.endpoint_slices.subscribe(), informers.endpoints.subscribe());
    loop {
        tokio::select! {
            biased;
            // Every arm waits on a mailbox and takes nothing before it returns.
            () = context.stop.cancelled() => return,
            changes = services.changes() => changes.into_iter().for_each(|change| queue.add(change.at)),
            changes = pods.changes() => {
                for change in changes {
                    for pod in [&change.before, &change.now].into_iter().flatten() {
                        queue_services_of(&context, &queue, pod);
                    }
                }
            }
            changes = slices.changes() => {
                for slice in changes.iter().flat_map(|c| [&c.before, &c.now]).flatten() {
                    if let Some(service) = slice.label(plan::SERVICE_LABEL) {
                        queue.add(Ref::new(slice.namespace(), service));
                    }
                }
            }
            changes = endpoints.changes() => changes.into_iter().for_each(|change| queue.add(change.at)),
        }
    }
}

fn queue_services_of(context: &Context, queue: &WorkQueue<Ref>, pod: &Pod) {
    for service in context.informers.services.list_namespace(&pod.reference().namespace) {
        let selector = service.get("/spec/selector").and_then(serde_json::Value::as_object);
        let selects = |s| !LabelSelector::is_empty(s) && s.matches(Some(&pod.labels));
        if selector.map(LabelSelector::from_map).as_ref().is_some_and(selects) {
            queue.add(service.reference());
        }
    }
}

async fn reconcile(context: &Context, at: Ref, queue: &WorkQueue<Ref>) -> Result<(), ()> {
    let informers = &context.informers;
    let service = informers.services.get(&at);
    let pods = informers.pods.list_namespace(&at.namespace);
    let slices: Vec<Arc<Object>> = informers.endpoint_slices.list_namespace(&at.namespace);
    let zone = |node: &str| {
        informers.nodes.get(&Ref::cluster(node)).and_then(|n| n.label("topology.kubernetes.io/zone").map(str::to_owned))
    };
    let suffix = |length| context.env.rng.name_suffix(length);
    let mut plan = plan::plan(service.as_deref(), &at, &pods, &slices, zone, suffix);
    plan.actions.extend(endpoints::plan(service.as_deref(), &at, &pods, informers.endpoints.get(&at).as_deref()));
    match apply(context, plan).await {
        Ok(()) => Ok(()),
        Err(error) if error.is_conflict() || error.is_not_found() || error.is_already_exists() => {
            queue.add_after(at, Duration::from_millis(20));
            Ok(())
        }
        Err(error) => {
            warn!(service = %at, error = %chain(&error), "turn failed");
            Err(())
        }
    }
}

/// In the plan's order: what is new is there before what is old goes.
async fn apply(context: &Context, plan: Plan) -> Result<(), ClientError> {
    let client = context.client.named("endpointslice-controller");
    for action in plan.actions {
        match action {
            Action::Create(kind, object) => client.create(kind, &object).await.map(|_| ())?,
            Action::Update(kind, object) => client.update(kind, &object).await.map(|_| ())?,
            Action::Delete(at, uid) => {
                let options = DeleteOptions { uid: Some(uid), ..DeleteOptions::default() };
                client.delete(&resource::ENDPOINT_SLICE, &at, &options).await?;
            }
        }
    }
    Ok(())
}
