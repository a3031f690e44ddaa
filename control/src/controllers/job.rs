//! Job: pods of a template until enough of them have succeeded.
//!
//! Each pod carries a finalizer until it has been counted, so that nothing that ran is forgotten, whoever deletes it.

mod indexes;
pub mod plan;
mod policy;
mod staff;

use std::sync::Arc;
use std::time::Duration;

use gantry_client::{Change, ClientError, DeleteOptions, Patch};
use gantry_kube::{Object, Ref, resource};
use serde_json::json;
use tracing::info;

use super::Context;
use super::dependents::Dependents;
use super::frame::Controller;
use super::informers::Pod;
use plan::Plan;

pub use plan::{INDEX, INDEX_FAILURES, TRACKING};

const WORKERS: usize = 4;
/// Jobs that name another controller are that one's.
const OURSELVES: &str = "kubernetes.io/job-controller";

struct Jobs {
    context: Context,
    pods: Arc<Dependents>,
}

pub async fn run(context: Context) {
    let (pods, frame) = Dependents::framed(&context, "job-controller", &resource::JOB, &context.informers.jobs);
    let frame = frame.hears(&context.informers.pods, tracked);
    frame.run(WORKERS, Arc::new(Jobs { context, pods })).await;
}

/// Pods whose Job is gone are queued under its name, too: their finalizer holds them.
fn tracked(change: Change<Pod>) -> Option<Ref> {
    let pod = change.now?;
    let run = pod.job.as_ref().filter(|run| run.tracked)?;
    Some(Ref::new(change.at.namespace, run.owner.as_str()))
}

impl Controller for Jobs {
    type Key = Ref;

    async fn turn(&self, at: &Ref, again: &mut Option<Duration>) -> Result<(), ClientError> {
        let pods = self.context.informers.pods.list_namespace(&at.namespace);
        let job = self.context.informers.jobs.get(at);
        let uid = job.as_ref().map_or("", |job| job.uid());
        let left: Vec<(Ref, String)> = pods
            .iter()
            .filter(|pod| pod.job.as_ref().is_some_and(|run| run.tracked && run.owner == at.name))
            .filter(|pod| pod.controller_uid != uid)
            .map(|pod| (pod.reference(), pod.uid.clone()))
            .collect();
        let released = self.release(&left).await;
        let Some(job) = job.filter(|job| matches!(job.str_at("/spec/managedBy"), "" | OURSELVES)) else {
            return released;
        };
        let outstanding = self.pods.settle(job.uid(), &pods);
        let now = self.context.env.clock.now();
        let plan = plan::plan(&job, &pods, &outstanding, now, |length| self.context.env.rng.name_suffix(length));
        *again = plan.check_again;
        released?;
        self.apply(&job, &plan).await
    }
}

impl Jobs {
    /// The status that counts a pod before the finalizer that keeps it.
    async fn apply(&self, job: &Object, plan: &Plan) -> Result<(), ClientError> {
        if plan.expired {
            let client = self.context.client.named("ttl-after-finished-controller");
            let options = DeleteOptions {
                uid: Some(job.uid().to_owned()),
                propagation_policy: Some("Foreground"),
                ..DeleteOptions::default()
            };
            info!(job = %job.reference(), "its time after its end is over");
            return client.delete(&resource::JOB, &job.reference(), &options).await;
        }
        if !self.pods.claim(job, &plan.ownership).await? {
            return Ok(());
        }
        self.pods.write_status(job, plan.status.clone()).await?;
        for (kind, reason, message) in &plan.events {
            self.pods.tell(job, kind, reason, message.clone());
        }
        self.release(&plan.release).await?;
        self.pods.delete(job, &plan.delete).await?;
        self.pods.create_slowly(job, &plan.create).await
    }

    async fn release(&self, pods: &[(Ref, String)]) -> Result<(), ClientError> {
        for (at, uid) in pods {
            let patch = json!({"metadata": {"uid": uid, "$deleteFromPrimitiveList/finalizers": [TRACKING]}});
            match self.pods.client.patch(&resource::POD, at, "", Patch::Strategic(patch)).await {
                // Gone, or another under its name.
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                done => drop(done?),
            }
        }
        Ok(())
    }
}
