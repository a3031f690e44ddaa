//! PodDisruptionBudget: how many of its pods may be evicted now. Evictions take from that number themselves
//! (`registry::eviction`); this loop counts it anew whenever pods change.

pub mod plan;

use std::sync::Arc;
use std::time::Duration;

use gantry_client::{Change, ClientError, Informer};
use gantry_kube::{Object, Ref, resource};

use super::events::Subject;
use super::frame::{Controller, Frame, sides};
use super::informers::Pod;
use super::{Context, Recorder};
use plan::{Plan, Scale};

const COMPONENT: &str = "controllermanager";
const WORKERS: usize = 2;

struct Budgets {
    context: Context,
    recorder: Recorder,
}

pub async fn run(context: Context) {
    let (informers, budgets) = (&context.informers, context.informers.disruption_budgets.clone());
    let frame = Frame::new(COMPONENT, &context)
        .reads(&informers.replica_sets)
        .reads(&informers.deployments)
        .reads(&informers.stateful_sets)
        .reads(&informers.replication_controllers)
        .hears(&informers.disruption_budgets, |change| [change.at])
        .hears(&informers.pods, move |change| protecting(&budgets, &change));
    let recorder = context.recorder(COMPONENT);
    frame.run(WORKERS, Arc::new(Budgets { context, recorder })).await;
}

/// The budgets that select the pod as it was or is.
fn protecting(budgets: &Informer<Object>, change: &Change<Pod>) -> Vec<Ref> {
    let budgets = budgets.list_namespace(&change.at.namespace);
    let selecting = budgets.iter().filter(|budget| sides(change).any(|pod| plan::selects(budget, &pod.labels)));
    selecting.map(|budget| budget.reference()).collect()
}

impl Controller for Budgets {
    type Key = Ref;

    async fn turn(&self, at: &Ref, again: &mut Option<Duration>) -> Result<(), ClientError> {
        let Some(budget) = self.context.informers.disruption_budgets.get(at) else { return Ok(()) };
        let pods = self.context.informers.pods.list_namespace(&at.namespace);
        let plan = plan::plan(&budget, &pods, |pod| self.scale(pod), self.context.env.clock.now());
        *again = plan.check_again;
        self.apply(&budget, plan).await
    }
}

impl Budgets {
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
