//! EndpointSlice (and the older Endpoints): which pods stand behind a Service.

mod endpoints;
pub mod plan;

use std::sync::Arc;
use std::time::Duration;

use gantry_client::{Change, Client, ClientError, DeleteOptions, Informer};
use gantry_kube::selector::LabelSelector;
use gantry_kube::{Object, Ref, resource};

use super::Context;
use super::frame::{Controller, Frame, sides};
use super::informers::Pod;
use plan::{Action, Plan};

const COMPONENT: &str = "endpointslice-controller";
const WORKERS: usize = 2;

struct Slices {
    context: Context,
    client: Client,
}

pub async fn run(context: Context) {
    let (informers, services) = (&context.informers, context.informers.services.clone());
    let frame = Frame::new(COMPONENT, &context)
        .reads(&informers.nodes)
        .hears(&informers.services, |change| [change.at])
        .hears(&informers.pods, move |change| selecting(&services, &change))
        .hears(&informers.endpoint_slices, |change| {
            let service = |slice: &Arc<Object>| Some(Ref::new(slice.namespace(), slice.label(plan::SERVICE_LABEL)?));
            sides(&change).filter_map(service).collect::<Vec<Ref>>()
        })
        .hears(&informers.endpoints, |change| [change.at]);
    let client = context.client.named(COMPONENT);
    frame.run(WORKERS, Arc::new(Slices { context, client })).await;
}

/// The services that select the pod as it was or is.
fn selecting(services: &Informer<Object>, change: &Change<Pod>) -> Vec<Ref> {
    let selects = |service: &Object| {
        let selector =
            service.get("/spec/selector").and_then(serde_json::Value::as_object).map(LabelSelector::from_map);
        let selector = selector.filter(|selector| !selector.is_empty());
        selector.is_some_and(|selector| sides(change).any(|pod| selector.matches(Some(&pod.labels))))
    };
    let services = services.list_namespace(&change.at.namespace);
    services.iter().filter(|service| selects(service)).map(|service| service.reference()).collect()
}

impl Controller for Slices {
    type Key = Ref;

    async fn turn(&self, at: &Ref, _again: &mut Option<Duration>) -> Result<(), ClientError> {
        let informers = &self.context.informers;
        let service = informers.services.get(at);
        let pods = informers.pods.list_namespace(&at.namespace);
        let slices: Vec<Arc<Object>> = informers.endpoint_slices.list_namespace(&at.namespace);
        let zone = |node: &str| {
            let node = informers.nodes.get(&Ref::cluster(node))?;
            node.label("topology.kubernetes.io/zone").map(str::to_owned)
        };
        let suffix = |length| self.context.env.rng.name_suffix(length);
        let mut plan = plan::plan(service.as_deref(), at, &pods, &slices, zone, suffix);
        plan.actions.extend(endpoints::plan(service.as_deref(), at, &pods, informers.endpoints.get(at).as_deref()));
        apply(&self.client, plan).await
    }
}

/// In the plan's order: what is new is there before what is old goes.
pub async fn apply(client: &Client, plan: Plan) -> Result<(), ClientError> {
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
