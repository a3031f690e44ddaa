//! CronJob: a Job each time that a schedule names.
//!
//! A Job's name is that of its CronJob and the minute that it is of, so that none is made twice for one moment.

pub mod plan;

use std::sync::Arc;

use gantry_client::{Client, ClientError, DeleteOptions, WorkQueue, run_workers};
use gantry_env::chain;
use gantry_kube::{Object, Ref, resource};
use tracing::{debug, info, warn};

use super::dependents::words;
use super::events::Subject;
use super::{Context, Recorder};
use plan::{Plan, Start, World};

const WORKERS: usize = 2;

struct CronJobs {
    context: Context,
    client: Client,
    recorder: Recorder,
    queue: WorkQueue<Ref>,
}

pub async fn run(context: Context) {
    const COMPONENT: &str = "cronjob-controller";
    context.informers.cron_jobs.synced().await;
    context.informers.jobs.synced().await;
    let (client, recorder) = (context.client.named(COMPONENT), context.recorder(COMPONENT));
    let this = Arc::new(CronJobs { client, recorder, queue: WorkQueue::new(), context });
    let (queue, stop) = (this.queue.clone(), this.context.stop.clone());
    tokio::spawn(this.clone().feed());
    run_workers(queue, WORKERS, stop, move |at| {
        let this = this.clone();
        async move { this.reconcile(at).await }
    })
    .await;
}

impl CronJobs {
    async fn feed(self: Arc<Self>) {
        let informers = &self.context.informers;
        let (mut crons, mut jobs) = (informers.cron_jobs.subscribe(), informers.jobs.subscribe());
        loop {
            tokio::select! {
                biased;
                // Every arm waits on a mailbox and takes nothing before it returns.
                () = self.context.stop.cancelled() => return,
                changes = crons.changes() => changes.into_iter().for_each(|change| self.queue.add(change.at)),
                changes = jobs.changes() => {
                    for job in changes.iter().flat_map(|c| [&c.before, &c.now]).flatten() {
                        if let Some(owner) = job.controller().filter(|owner| owner["kind"] == "CronJob") {
                            self.queue.add(Ref::new(job.namespace(), owner["name"].as_str().unwrap_or("")));
                        }
                    }
                }
            }
        }
    }

    async fn reconcile(&self, at: Ref) -> Result<(), ()> {
        let Some(cron) = self.context.informers.cron_jobs.get(&at) else { return Ok(()) };
        match self.turn(&cron).await {
            Ok(()) => Ok(()),
            // The informers are behind; what they bring will queue the key again, and so does the back-off.
            Err(error) if error.is_not_found() || error.is_conflict() => {
                debug!(cron_job = %at, error = %chain(&error), "turn overtaken");
                Err(())
            }
            Err(error) => {
                warn!(cron_job = %at, error = %chain(&error), "turn failed");
                Err(())
            }
        }
    }

    async fn turn(&self, cron: &Object) -> Result<(), ClientError> {
        let world = self.observe(cron).await?;
        let plan = plan::plan(cron, &world);
        if let Some(wait) = plan.check_again {
            self.queue.add_after(cron.reference(), wait);
        }
        self.apply(cron, &plan).await
    }

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
            Err(error) if error.is_already_exists() => {
                let found = self.client.get(&resource::JOB, &start.job.reference()).await?;
                let ours = found.controller().is_some_and(|owner| owner["uid"] == cron.uid());
                if ours { Ok(found) } else { Err(error) }
            }
            Err(error) => {
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
