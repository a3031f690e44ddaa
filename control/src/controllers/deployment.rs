//! Deployment: one ReplicaSet per template, and the way from one template to the next.

mod history;
pub mod plan;
mod rolling;
mod status;

use std::sync::Arc;

use gantry_client::{Client, ClientError, DeleteOptions, Patch, WorkQueue, run_workers};
use gantry_env::chain;
use gantry_kube::{Object, Ref, resource};
use serde_json::json;
use tracing::{debug, info, warn};

use super::events::Subject;
use super::informers::Pod;
use super::{Context, Recorder};
use plan::{Action, Plan};

const WORKERS: usize = 2;

struct Deployments {
    context: Context,
    recorder: Recorder,
}

pub async fn run(context: Context) {
    let queue = WorkQueue::new();
    let this = Arc::new(Deployments { recorder: context.recorder("deployment-controller"), context: context.clone() });
    context.informers.deployments.synced().await;
    context.informers.replica_sets.synced().await;
    context.informers.pods.synced().await;
    tokio::spawn(feed(context.clone(), queue.clone()));
    let requeue = queue.clone();
    run_workers(queue, WORKERS, context.stop.clone(), move |at| {
        let (this, queue) = (this.clone(), requeue.clone());
        async move { this.reconcile(at, &queue).await }
    })
    .await;
}

async fn feed(context: Context, queue: WorkQueue<Ref>) {
    let informers = &context.informers;
    let (mut deployments, mut sets) = (informers.deployments.subscribe(), informers.replica_sets.subscribe());
    let mut pods = informers.pods.subscribe();
    loop {
        tokio::select! {
            biased;
            // Every arm waits on a mailbox and takes nothing before it returns.
            () = context.stop.cancelled() => return,
            changes = deployments.changes() => changes.into_iter().for_each(|change| queue.add(change.at)),
            changes = sets.changes() => {
                for set in changes.iter().flat_map(|c| [&c.before, &c.now]).flatten() {
                    if let Some(owner) = set.controller().filter(|o| o["kind"] == "Deployment") {
                        queue.add(Ref::new(set.namespace(), owner["name"].as_str().unwrap_or("")));
                    }
                }
            }
            // Recreate waits for the last old pod to go.
            changes = pods.changes() => {
                for pod in changes.iter().filter(|c| c.now.is_none()).filter_map(|c| c.before.as_ref()) {
                    queue_deployment_of(&context, &queue, pod);
                }
            }
        }
    }
}

fn queue_deployment_of(context: &Context, queue: &WorkQueue<Ref>, pod: &Pod) {
    let namespace = pod.reference().namespace;
    let sets = context.informers.replica_sets.list_namespace(&namespace);
    if let Some(owner) = sets.iter().find(|set| set.uid() == pod.controller_uid).and_then(|set| set.controller()) {
        queue.add(Ref::new(namespace, owner["name"].as_str().unwrap_or("")));
    }
}

impl Deployments {
    async fn reconcile(&self, at: Ref, queue: &WorkQueue<Ref>) -> Result<(), ()> {
        let Some(deployment) = self.context.informers.deployments.get(&at) else { return Ok(()) };
        let sets = self.context.informers.replica_sets.list_namespace(&at.namespace);
        let pods = self.context.informers.pods.list_namespace(&at.namespace);
        let plan = plan::plan(&deployment, &sets, &pods, self.context.env.clock.now());
        if let Some(wait) = plan.check_again {
            queue.add_after(at.clone(), wait);
        }
        match self.apply(&deployment, plan).await {
            Ok(()) => Ok(()),
            // The informers are behind; what they bring will queue the key again, and so does the back-off.
            Err(error) if error.is_conflict() || error.is_not_found() => {
                debug!(deployment = %at, error = %chain(&error), "turn overtaken");
                Err(())
            }
            Err(error) => {
                warn!(deployment = %at, error = %chain(&error), "turn failed");
                Err(())
            }
        }
    }

    /// In the plan's order; the status goes last, so that it never tells of what was not done.
    async fn apply(&self, deployment: &Object, plan: Plan) -> Result<(), ClientError> {
        let client = self.context.client.named("deployment-controller");
        let subject = Subject::of(deployment);
        for action in plan.actions {
            match action {
                Action::Create(set) => {
                    let made = match client.create(&resource::REPLICA_SET, &set).await {
                        // What follows in the plan counts on the set.
                        Err(error) if error.is_already_exists() => {
                            return self.collide(&client, deployment, &set).await;
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
    async fn collide(&self, client: &Client, deployment: &Object, set: &Object) -> Result<(), ClientError> {
        let Some(taken) = client.find(&resource::REPLICA_SET, &set.reference()).await? else { return Ok(()) };
        if history::is_set_of(&taken, deployment) {
            return Ok(());
        }
        warn!(deployment = %deployment.reference(), replica_set = set.name(), "name is taken, taking another");
        let mut wanted = deployment.clone();
        let count = deployment.i64_at("/status/collisionCount").unwrap_or(0) + 1;
        wanted.map_mut("status").insert("collisionCount".to_owned(), json!(count));
        client.update_status(&resource::DEPLOYMENT, &wanted).await.map(|_| ())
    }

    fn tell_scaled(&self, subject: &Subject, set: &str, from: i64, to: i64) {
        if from != to {
            let way = if to > from { "up" } else { "down" };
            let message = format!("Scaled {way} replica set {set} from {from} to {to}");
            self.recorder.record(subject, "Normal", "ScalingReplicaSet", message);
        }
    }
}
