//! Job: pods of a template until enough of them have succeeded.
//!
//! Each pod carries a finalizer until it has been counted, so that nothing that ran is forgotten, whoever deletes it.

mod indexes;
pub mod plan;
mod policy;
mod staff;

use std::sync::Arc;

use gantry_client::{ClientError, DeleteOptions, Patch, run_workers};
use gantry_kube::{Object, Ref, resource};
use serde_json::json;
use tracing::info;

use super::Context;
use super::dependents::Dependents;
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
    let jobs = &context.informers.jobs;
    let pods = Arc::new(Dependents::new(&context, "job-controller", &resource::JOB, jobs));
    pods.synced().await;
    tokio::spawn(pods.clone().feed());
    let queue = pods.queue.clone();
    let this = Arc::new(Jobs { context: context.clone(), pods });
    tokio::spawn(this.clone().feed());
    run_workers(queue, WORKERS, context.stop.clone(), move |at| {
        let this = this.clone();
        async move { this.reconcile(at).await }
    })
    .await;
}

impl Jobs {
    /// Pods whose Job is gone are queued under its name, too: their finalizer holds them.
    async fn feed(self: Arc<Self>) {
        let mut pods = self.context.informers.pods.subscribe();
        while let Some(changes) = self.context.stop.run_until_cancelled(pods.changes()).await {
            for (pod, run) in changes.iter().filter_map(|c| c.now.as_ref()).filter_map(|p| Some((p, p.job.as_ref()?))) {
                if run.tracked {
                    self.pods.queue.add(Ref::new(pod.reference().namespace, run.owner.as_str()));
                }
            }
        }
    }

    async fn reconcile(&self, at: Ref) -> Result<(), ()> {
        let pods = self.context.informers.pods.list_namespace(&at.namespace);
        let job = self.context.informers.jobs.get(&at);
        let uid = job.as_ref().map_or("", |job| job.uid());
        let left: Vec<(Ref, String)> = pods
            .iter()
            .filter(|pod| pod.job.as_ref().is_some_and(|run| run.tracked && run.owner == at.name))
            .filter(|pod| pod.controller_uid != uid)
            .map(|pod| (pod.reference(), pod.uid.clone()))
            .collect();
        let result = self.release(&left).await;
        let Some(job) = job.filter(|job| matches!(job.str_at("/spec/managedBy"), "" | OURSELVES)) else {
            return self.pods.ended(&at, result);
        };
        let outstanding = self.pods.settle(job.uid(), &pods);
        let now = self.context.env.clock.now();
        let plan = plan::plan(&job, &pods, &outstanding, now, |length| self.context.env.rng.name_suffix(length));
        let result = match result {
            Ok(()) => self.apply(&job, &plan).await,
            failed => failed,
        };
        if let Some(wait) = plan.check_again {
            self.pods.queue.add_after(at.clone(), wait);
        }
        self.pods.ended(&at, result)
    }

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
