//! CronJob: a Job each time that a schedule names.
//!
//! A Job's name is that of its CronJob and the minute that it is of, so that none is made twice for one moment.

pub mod plan;

use std::sync::Arc;
use std::time::Duration;

use gantry_client::{Client, ClientError, DeleteOptions};
use gantry_kube::{Object, Ref, resource};
use tracing::info;

use super::dependents::words;
use super::events::Subject;
use super::frame::{Controller, Frame, owners};
use super::{Context, Recorder};
use plan::{Plan, Start, World};

const WORKERS: usize = 2;

struct CronJobs {
    context: Context,
    client: Client,
    recorder: Recorder,
}

pub async fn run(context: Context) {
    const COMPONENT: &str = "cronjob-controller";
    let (client, recorder) = (context.client.named(COMPONENT), context.recorder(COMPONENT));
    let frame = Frame::new(COMPONENT, &context)
        .hears(&context.informers.cron_jobs, |change| [change.at])
        .hears(&context.informers.jobs, |change| owners(change, "CronJob"));
    frame.run(WORKERS, Arc::new(CronJobs { context, client, recorder })).await;
}

impl Controller for CronJobs {
    type Key = Ref;

    async fn turn(&self, at: &Ref, again: &mut Option<Duration>) -> Result<(), ClientError> {
        let Some(cron) = self.context.informers.cron_jobs.get(at) else { return Ok(()) };
        let world = self.observe(&cron).await?;
        let plan = plan::plan(&cron, &world);
        *again = plan.check_again;
        self.apply(&cron, &plan).await
    }
}

impl CronJobs {
    /// The Jobs of one CronJob. What its status names and the informer does not show is looked for itself: it may be too
    /// young, or gone.
    async fn observe(&self, cron: &Object) -> Result<World, ClientError> {
        let ours = |job: &Object| job.controller().is_some_and(|owner| owner["uid"] == cron.uid());
        let mut jobs = self.context.informers.jobs.list_namespace(cron.namespace());
        jobs.retain(|job| ours(job));
        for active in cron.array_at("/status/active") {
            if !jobs.iter().any(|job| active["uid"] == job.uid()) {
                let at = Ref::new(cron.namespace(), active["name"].as_str().unwrap_or(""));
                let found = self.client.find(&resource::JOB, &at).await?;
                jobs.extend(found.filter(|job| active["uid"] == job.uid()).map(Arc::new));
            }
        }
        Ok(World { jobs, now: self.context.env.clock.now() })
    }

    /// What is replaced goes before what takes its place; status last, so that it names what was made.
    async fn apply(&self, cron: &Object, plan: &Plan) -> Result<(), ClientError> {
        for (kind, reason, message) in &plan.events {
            self.tell(cron, kind, reason, message.clone());
        }
        if plan.start.is_some() {
            // What the informer does not show yet, and will queue the key for, may be that this run has been made, and is
            // over and gone.
            let live = self.client.get(&resource::CRON_JOB, &cron.reference()).await?;
            if live.resource_version() != cron.resource_version() {
                return Ok(());
            }
        }
        for (at, uid) in &plan.delete {
            self.delete(cron, at, uid).await?;
        }
        let made = match &plan.start {
            Some(start) => Some((start, self.start(cron, start).await?)),
            None => None,
        };
        let status = plan.status(made.as_ref().map(|(start, job)| (*start, job)));
        if cron.get("/status") != Some(&status) {
            let mut wanted = cron.clone();
            wanted.0.insert("status".to_owned(), status);
            self.client.update_status(&resource::CRON_JOB, &wanted).await?;
        }
        Ok(())
    }

    async fn start(&self, cron: &Object, start: &Start) -> Result<Object, ClientError> {
        match self.client.create(&resource::JOB, &start.job).await {
            Ok(job) => {
                self.tell(cron, "Normal", "SuccessfulCreate", format!("Created job {}", job.name()));
                info!(cron_job = %cron.reference(), job = job.name(), "its time has come");
                Ok(job)
            }
            Err(error) => {
                if error.is_already_exists() {
                    let found = self.client.get(&resource::JOB, &start.job.reference()).await?;
                    if found.controller().is_some_and(|owner| owner["uid"] == cron.uid()) {
                        return Ok(found);
                    }
                }
                self.tell(cron, "Warning", "FailedCreate", format!("Error creating job: {}", words(&error)));
                Err(error)
            }
        }
    }

    async fn delete(&self, cron: &Object, at: &Ref, uid: &str) -> Result<(), ClientError> {
        let options = DeleteOptions {
            uid: Some(uid.to_owned()),
            propagation_policy: Some("Background"),
            ..DeleteOptions::default()
        };
        match self.client.delete(&resource::JOB, at, &options).await {
            Err(error) if !error.is_not_found() => {
                self.tell(cron, "Warning", "FailedDelete", format!("Deleted job: {}", words(&error)));
                Err(error)
            }
            _ => {
                self.tell(cron, "Normal", "SuccessfulDelete", format!("Deleted job {}", at.name));
                Ok(())
            }
        }
    }

    fn tell(&self, cron: &Object, kind: &'static str, reason: &str, message: String) {
        self.recorder.record(&Subject::of(cron), kind, reason, message);
    }
}
