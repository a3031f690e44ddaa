//! PodDisruptionBudget: how many of its pods may be evicted now. Evictions take from that number themselves
//! (`registry::eviction`); this loop counts it anew whenever pods change.

pub mod plan;

use std::sync::Arc;

use gantry_client::{ClientError, WorkQueue, run_workers};
use gantry_env::chain;
use gantry_kube::{Object, Ref, resource};
use tracing::{debug, warn};

use super::events::Subject;
use super::informers::Pod;
use super::{Context, Recorder};
use plan::{Plan, Scale};

const COMPONENT: &str = "controllermanager";
const WORKERS: usize = 2;

struct Budgets {
    context: Context,
    recorder: Recorder,
    queue: WorkQueue<Ref>,
}

pub async fn run(context: Context) {
    let informers = &context.informers;
    informers.disruption_budgets.synced().await;
    informers.pods.synced().await;
    informers.replica_sets.synced().await;
    informers.deployments.synced().await;
    informers.stateful_sets.synced().await;
    informers.replication_controllers.synced().await;
    let recorder = context.recorder(COMPONENT);
    let this = Arc::new(Budgets { recorder, queue: WorkQueue::new(), context });
    let (queue, stop) = (this.queue.clone(), this.context.stop.clone());
    tokio::spawn(this.clone().feed());
    run_workers(queue, WORKERS, stop, move |at| {
        let this = this.clone();
        async move { this.reconcile(at).await }
    })
    .await;
}

impl Budgets {
    async fn feed(self: Arc<Self>) {
        let informers = &self.context.informers;
        let (mut budgets, mut pods) = (informers.disruption_budgets.subscribe(), informers.pods.subscribe());
        loop {
            tokio::select! {
                biased;
                // Every arm waits on a mailbox and takes nothing before it returns.
                () = self.context.stop.cancelled() => return,
                changes = budgets.changes() => changes.into_iter().for_each(|change| self.queue.add(change.at)),
                changes = pods.changes() => {
                    for pod in changes.iter().flat_map(|c| [&c.before, &c.now]).flatten() {
                        self.queue_budgets(pod);
                    }
                }
            }
        }
    }

    fn queue_budgets(&self, pod: &Pod) {
        for budget in self.context.informers.disruption_budgets.list_namespace(&pod.reference().namespace) {
            if plan::selects(&budget, &pod.labels) {
                self.queue.add(budget.reference());
            }
        }
    }

    async fn reconcile(&self, at: Ref) -> Result<(), ()> {
        let Some(budget) = self.context.informers.disruption_budgets.get(&at) else { return Ok(()) };
        let pods = self.context.informers.pods.list_namespace(&at.namespace);
        let plan = plan::plan(&budget, &pods, |pod| self.scale(pod), self.context.env.clock.now());
        if let Some(wait) = plan.check_again {
            self.queue.add_after(at.clone(), wait);
        }
        match self.apply(&budget, plan).await {
            Ok(()) => Ok(()),
            // An eviction was quicker: what the informer brings queues the key again, and so does the back-off.
            Err(error) if error.is_not_found() || error.is_conflict() => {
                debug!(budget = %at, error = %chain(&error), "turn overtaken");
                Err(())
            }
            Err(error) => {
                warn!(budget = %at, error = %chain(&error), "turn failed");
                Err(())
            }
        }
    }

    async fn apply(&self, budget: &Object, plan: Plan) -> Result<(), ClientError> {
        for (kind, reason, message) in plan.events {
            self.recorder.record(&Subject::of(budget), kind, reason, message);
        }
        let Some(status) = plan.status else { return Ok(()) };
        let mut wanted = budget.clone();
        wanted.0.insert("status".to_owned(), status);
        let client = self.context.client.named(COMPONENT);
        client.update_status(&resource::POD_DISRUPTION_BUDGET, &wanted).await.map(drop)
    }

    /// How many pods the controller of a pod wants: of a Deployment's pods, the Deployment.
    fn scale(&self, pod: &Pod) -> Result<Scale, String> {
        let informers = &self.context.informers;
        let at = Ref::new(pod.reference().namespace, pod.controller_name.as_str());
        let owner = match pod.controller_kind.as_str() {
            "ReplicaSet" => informers.replica_sets.get(&at),
            "StatefulSet" => informers.stateful_sets.get(&at),
            "ReplicationController" => informers.replication_controllers.get(&at),
            kind @ ("DaemonSet" | "Job") => {
                let group = if kind == "Job" { "jobs.batch" } else { "daemonsets.apps" };
                return Err(format!("{group} does not implement the scale subresource"));
            }
            _ => None,
        };
        let owner = owner.filter(|owner| owner.uid() == pod.controller_uid);
        let Some(owner) = owner else {
            return Err(format!("found no controllers for pod {:?}", pod.reference().name));
        };
        let deployment = owner.controller().filter(|of| of["kind"] == "Deployment").and_then(|of| {
            let found = informers.deployments.get(&Ref::new(owner.namespace(), of["name"].as_str()?))?;
            (of["uid"] == found.uid()).then_some(found)
        });
        let counts = deployment.unwrap_or(owner);
        Ok(Scale { uid: counts.uid().to_owned(), replicas: counts.i64_at("/spec/replicas").unwrap_or(1) })
    }
}
