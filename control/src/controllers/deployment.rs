//! Deployment: one ReplicaSet per template, and the way from one template to the next.

mod history;
pub mod plan;
mod rolling;
mod status;

use std::sync::Arc;
use std::time::Duration;

use gantry_client::{Change, Client, ClientError, DeleteOptions, Informer, Patch};
use gantry_kube::{Object, Ref, resource};
use serde_json::json;
use tracing::{info, warn};

use super::events::Subject;
use super::frame::{Controller, Frame, owners};
use super::informers::Pod;
use super::{Context, Recorder};
use plan::{Action, Plan};

const COMPONENT: &str = "deployment-controller";
const WORKERS: usize = 2;

struct Deployments {
    context: Context,
    client: Client,
    recorder: Recorder,
}

pub async fn run(context: Context) {
    let (client, recorder) = (context.client.named(COMPONENT), context.recorder(COMPONENT));
    let (informers, sets) = (&context.informers, context.informers.replica_sets.clone());
    let frame = Frame::new(COMPONENT, &context)
        .hears(&informers.deployments, |change| [change.at])
        .hears(&informers.replica_sets, |change| owners(change, "Deployment"))
        // Recreate waits for the last old pod to go.
        .hears(&informers.pods, move |change| left(&sets, change));
    frame.run(WORKERS, Arc::new(Deployments { context, client, recorder })).await;
}

/// The Deployment that a pod was of which is gone.
fn left(sets: &Informer<Object>, change: Change<Pod>) -> Option<Ref> {
    let pod = change.before.filter(|_| change.now.is_none())?;
    let sets = sets.list_namespace(&change.at.namespace);
    let owner = sets.iter().find(|set| set.uid() == pod.controller_uid)?.controller()?;
    Some(Ref::new(change.at.namespace, owner["name"].as_str().unwrap_or("")))
}

impl Controller for Deployments {
    type Key = Ref;

    async fn turn(&self, at: &Ref, again: &mut Option<Duration>) -> Result<(), ClientError> {
        let Some(deployment) = self.context.informers.deployments.get(at) else { return Ok(()) };
        let sets = self.context.informers.replica_sets.list_namespace(&at.namespace);
        let pods = self.context.informers.pods.list_namespace(&at.namespace);
        let plan = plan::plan(&deployment, &sets, &pods, self.context.env.clock.now());
        *again = plan.check_again;
        self.apply(&deployment, plan).await
    }
}

impl Deployments {
    /// In the plan's order; the status goes last, so that it never tells of what was not done.
    async fn apply(&self, deployment: &Object, plan: Plan) -> Result<(), ClientError> {
        let client = &self.client;
        let subject = Subject::of(deployment);
        for action in plan.actions {
            match action {
                Action::Create(set) => {
                    let made = match client.create(&resource::REPLICA_SET, &set).await {
                        // What follows in the plan counts on the set.
                        Err(error) if error.is_already_exists() => {
                            return self.collide(deployment, &set).await;
                        }
                        made => made?,
                    };
                    info!(deployment = %deployment.reference(), replica_set = made.name(), "replica set created");
                    self.tell_scaled(&subject, made.name(), 0, made.i64_at("/spec/replicas").unwrap_or(0));
                }
                Action::Scale { at, from, to, patch } => {
                    client.patch(&resource::REPLICA_SET, &at, "", Patch::Merge(patch)).await?;
                    self.tell_scaled(&subject, &at.name, from, to);
                }
                Action::Patch { at, patch } => {
                    client.patch(&resource::REPLICA_SET, &at, "", Patch::Strategic(patch)).await?;
                }
                Action::Delete { at, uid } => {
                    let options = DeleteOptions { uid: Some(uid), ..DeleteOptions::default() };
                    client.delete(&resource::REPLICA_SET, &at, &options).await?;
                }
                Action::Annotate(patch) => {
                    client.patch(&resource::DEPLOYMENT, &deployment.reference(), "", Patch::Merge(patch)).await?;
                }
                Action::Status(status) => {
                    let mut wanted = deployment.clone();
                    wanted.0.insert("status".to_owned(), status);
                    client.update_status(&resource::DEPLOYMENT, &wanted).await?;
                }
            }
        }
        Ok(())
    }

    /// The name is taken. By the set that we want, and the informer will show it; or by another, and the next turn takes
    /// another name.
    async fn collide(&self, deployment: &Object, set: &Object) -> Result<(), ClientError> {
        let Some(taken) = self.client.find(&resource::REPLICA_SET, &set.reference()).await? else { return Ok(()) };
        if history::is_set_of(&taken, deployment) {
            return Ok(());
        }
        warn!(deployment = %deployment.reference(), replica_set = set.name(), "name is taken, taking another");
        let mut wanted = deployment.clone();
        let count = deployment.i64_at("/status/collisionCount").unwrap_or(0) + 1;
        wanted.map_mut("status").insert("collisionCount".to_owned(), json!(count));
        self.client.update_status(&resource::DEPLOYMENT, &wanted).await.map(drop)
    }

    fn tell_scaled(&self, subject: &Subject, set: &str, from: i64, to: i64) {
        if from != to {
            let way = if to > from { "up" } else { "down" };
            let message = format!("Scaled {way} replica set {set} from {from} to {to}");
            self.recorder.record(subject, "Normal", "ScalingReplicaSet", message);
        }
    }
}
