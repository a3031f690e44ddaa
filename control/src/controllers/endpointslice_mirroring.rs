//! Endpoints that somebody keeps by hand, for a Service that selects no pods, as EndpointSlices: whoever sends traffic reads
//! slices alone.

pub mod plan;

use std::sync::Arc;
use std::time::Duration;

use gantry_client::{Change, Client, ClientError};
use gantry_kube::{Object, Ref};

use super::Context;
use super::endpointslice::apply;
use super::endpointslice::plan::{MANAGED_BY, SERVICE_LABEL};
use super::frame::{Controller, Frame, sides};

const COMPONENT: &str = "endpointslicemirroring-controller";
const WORKERS: usize = 1;

struct Mirrors {
    context: Context,
    client: Client,
}

pub async fn run(context: Context) {
    let informers = &context.informers;
    let frame = Frame::new(COMPONENT, &context)
        .hears(&informers.services, |change| [change.at])
        .hears(&informers.endpoints, |change| [change.at])
        .hears(&informers.endpoint_slices, mirrored);
    let client = context.client.named(COMPONENT);
    frame.run(WORKERS, Arc::new(Mirrors { context, client })).await;
}

/// The services that a slice of ours was and is of.
fn mirrored(change: Change<Object>) -> Vec<Ref> {
    let ours = sides(&change).filter(|slice| slice.label(MANAGED_BY) == Some(plan::OURS));
    ours.filter_map(|slice| Some(Ref::new(slice.namespace(), slice.label(SERVICE_LABEL)?))).collect()
}

impl Controller for Mirrors {
    type Key = Ref;

    async fn turn(&self, at: &Ref, _again: &mut Option<Duration>) -> Result<(), ClientError> {
        let informers = &self.context.informers;
        let (service, endpoints) = (informers.services.get(at), informers.endpoints.get(at));
        let slices = informers.endpoint_slices.list_namespace(&at.namespace);
        let suffix = |length| self.context.env.rng.name_suffix(length);
        let plan = plan::plan(service.as_deref(), endpoints.as_deref(), at, &slices, suffix);
        apply(&self.client, plan).await
    }
}
