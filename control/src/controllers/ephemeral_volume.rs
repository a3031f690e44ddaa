//! Generic ephemeral volumes: a claim of the pod's own template, which goes with the pod.

pub mod plan;

use std::sync::Arc;
use std::time::Duration;

use gantry_client::{Change, Client, ClientError, Informer};
use gantry_kube::resource::PERSISTENT_VOLUME_CLAIM;
use gantry_kube::{Object, Ref};

use super::dependents::words;
use super::events::Subject;
use super::frame::{Controller, Frame};
use super::informers::Pod;
use super::{Context, Recorder};

const COMPONENT: &str = "ephemeral_volume";
const WORKERS: usize = 2;

struct Claims {
    context: Context,
    client: Client,
    recorder: Recorder,
}

pub async fn run(context: Context) {
    let (informers, pods) = (&context.informers, context.informers.pods.clone());
    let frame = Frame::new(COMPONENT, &context)
        .hears(&informers.pods, |change| change.now.filter(|pod| !pod.claim_templates.is_empty()).map(|_| change.at))
        .hears(&informers.claims, move |change| claimants(&pods, &change));
    let (client, recorder) = (context.client.named(COMPONENT), context.recorder(COMPONENT));
    frame.run(WORKERS, Arc::new(Claims { context, client, recorder })).await;
}

/// The pods that make a claim of this name: one that was in their way may have gone.
fn claimants(pods: &Informer<Pod>, change: &Change<Object>) -> Vec<Ref> {
    let makes = |pod: &Pod| pod.claim_templates.iter().any(|(name, _)| *name == change.at.name);
    let pods = pods.list_namespace(&change.at.namespace);
    pods.iter().filter(|pod| makes(pod)).map(|pod| pod.reference()).collect()
}

impl Controller for Claims {
    type Key = Ref;

    async fn turn(&self, at: &Ref, _again: &mut Option<Duration>) -> Result<(), ClientError> {
        let informers = &self.context.informers;
        let Some(pod) = informers.pods.get(at) else { return Ok(()) };
        let claim = |name: &str| informers.claims.get(&Ref::new(at.namespace.as_str(), name));
        let tell = |why: &str| {
            let message = format!("ephemeral volume: {why}");
            self.recorder.record(&Subject::of_pod(&pod), "Warning", "FailedBinding", message);
        };
        match plan::missing(&pod, claim) {
            Ok(claims) => self.create(&claims).await.inspect_err(|error| tell(&words(error))),
            Err(name) => {
                let claim = Ref::new(at.namespace.as_str(), name);
                tell(&format!("PVC {claim} was not created for the pod {at}: pod is not owner"));
                Ok(())
            }
        }
    }
}

impl Claims {
    async fn create(&self, claims: &[Object]) -> Result<(), ClientError> {
        for claim in claims {
            match self.client.create(&PERSISTENT_VOLUME_CLAIM, claim).await {
                // The cache was behind; what it brings is looked at again.
                Err(error) if error.is_already_exists() => {}
                done => drop(done?),
            }
        }
        Ok(())
    }
}
