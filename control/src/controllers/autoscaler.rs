//! HorizontalPodAutoscaler: as many pods as what they use asks for. What they use is asked of metrics.k8s.io, for the pods
//! of the targets alone and every quarter of a minute; where nobody wants to be scaled, nothing is asked.

pub mod behavior;
pub mod metrics;
pub mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use gantry_client::{Client, ClientError, Query};
use gantry_env::chain;
use gantry_kube::selector::LabelSelector;
use gantry_kube::{Object, Ref, Resource, resource};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;
use tracing::info;

use super::dependents::plan::selector;
use super::dependents::words;
use super::events::Subject;
use super::frame::told;
use super::{Context, Recorder};
use behavior::Memory;
use plan::{Observed, Plan};

const COMPONENT: &str = "horizontal-pod-autoscaler";
/// Between two looks at the same target.
const INTERVAL: Duration = Duration::from_secs(15);
const AT_ONCE: usize = 8;
/// What has replicas to set.
const TARGETS: [&Resource; 4] =
    [&resource::DEPLOYMENT, &resource::REPLICA_SET, &resource::STATEFUL_SET, &resource::REPLICATION_CONTROLLER];

struct Autoscalers {
    context: Context,
    client: Client,
    recorder: Recorder,
    /// What was recommended and done lately, by the autoscaler's uid. A restart forgets it, and begins with what there is.
    memories: Mutex<BTreeMap<String, Memory>>,
}

pub async fn run(context: Context) {
    let informers = &context.informers;
    informers.autoscalers.synced().await;
    for targets in
        [&informers.deployments, &informers.replica_sets, &informers.stateful_sets, &informers.replication_controllers]
    {
        targets.synced().await;
    }
    let (client, recorder) = (context.client.named(COMPONENT), context.recorder(COMPONENT));
    let this = Autoscalers { context, client, recorder, memories: Mutex::default() };
    let autoscalers = &this.context.informers.autoscalers;
    let mut changes = autoscalers.subscribe();
    let mut next = Instant::now();
    loop {
        let due = tokio::select! {
            biased;
            // Every arm waits on a mailbox or a moment, and takes nothing before it returns.
            () = this.context.stop.cancelled() => return,
            changes = changes.changes() => {
                let asks_anew = |before: &Option<Arc<Object>>, now: &Arc<Object>| {
                    before.as_ref().is_none_or(|before| before.generation() != now.generation())
                };
                changes.into_iter().filter_map(|c| c.now.filter(|now| asks_anew(&c.before, now))).collect()
            }
            () = tokio::time::sleep_until(next), if !autoscalers.is_empty() => {
                next = Instant::now() + INTERVAL;
                let all = autoscalers.list();
                this.memories.lock().retain(|uid, _| all.iter().any(|one| one.uid() == uid));
                all
            }
        };
        let turns = futures::stream::iter(due).map(|one: Arc<Object>| this.turn(one));
        turns.buffer_unordered(AT_ONCE).collect::<()>().await;
    }
}

impl Autoscalers {
    async fn turn(&self, autoscaler: Arc<Object>) {
        if autoscaler.deletion_timestamp().is_some() {
            return;
        }
        if let Err(error) = self.reconcile(&autoscaler).await {
            told(COMPONENT, &autoscaler.reference(), &error);
        }
    }

    async fn reconcile(&self, autoscaler: &Object) -> Result<(), ClientError> {
        let uid = autoscaler.uid();
        let target = plan::target(autoscaler, &TARGETS);
        let at = Ref::new(autoscaler.namespace(), autoscaler.str_at("/spec/scaleTargetRef/name"));
        let scale = match target {
            Ok(target) => self.scale(target, &at).await?,
            Err(ref why) => Err(why.clone()),
        };
        let observed = self.observe(autoscaler, scale).await?;
        let memory = self.memories.lock().get(uid).cloned().unwrap_or_default();
        let plan = plan::plan(autoscaler, &observed, &memory);
        for (kind, reason, message) in &plan.events {
            self.recorder.record(&Subject::of(autoscaler), kind, reason, message.clone());
        }
        let written = match (target, &plan.rescale, observed.scale) {
            (Ok(target), Some(_), Ok(scale)) => self.rescale(autoscaler, target, &at, scale, &plan).await,
            _ => Ok(()),
        };
        self.memories.lock().insert(uid.to_owned(), plan.memory_after(written.is_ok()));
        let status = plan.status(written.as_ref().map(drop).map_err(String::as_str));
        if autoscaler.get("/status") != Some(&status) {
            let mut wanted = autoscaler.clone();
            wanted.0.insert("status".to_owned(), status);
            self.client.update_status(&resource::HORIZONTAL_POD_AUTOSCALER, &wanted).await?;
        }
        Ok(())
    }

    /// The target's scale; the API's words where it has none to give.
    async fn scale(&self, target: &Resource, at: &Ref) -> Result<Result<Object, String>, ClientError> {
        let read = self.client.raw(&format!("{}/scale", target.object_path(&at.namespace, &at.name))).await;
        match read {
            Ok(bytes) => Ok(Object::from_slice(&bytes).map_err(|error| chain(&error))),
            Err(error) if error.status().is_some() => Ok(Err(words(&error))),
            Err(error) => Err(error),
        }
    }

    async fn observe(&self, autoscaler: &Object, scale: Result<Object, String>) -> Result<Observed, ClientError> {
        let namespace = autoscaler.namespace();
        let (mut pods, mut metrics) = (Vec::new(), Ok(Vec::new()));
        let selector = scale.as_ref().map(|scale| scale.str_at("/status/selector")).unwrap_or("");
        if !selector.is_empty() {
            let query = Query { label_selector: selector.to_owned(), ..Query::default() };
            pods = self.client.list(&resource::POD, Some(namespace), &query).await?.items;
            let used = self.client.list(&resource::POD_METRICS, Some(namespace), &query).await;
            metrics = used.map(|list| list.items).map_err(|error| words(&error));
        }
        Ok(Observed { scale, pods, metrics, others: self.others(autoscaler), now: self.context.env.clock.now() })
    }

    fn others(&self, autoscaler: &Object) -> Vec<(String, LabelSelector)> {
        let all = self.context.informers.autoscalers.list_namespace(autoscaler.namespace());
        let others = all.iter().filter(|one| one.uid() != autoscaler.uid() && one.deletion_timestamp().is_none());
        others.filter_map(|one| Some((one.name().to_owned(), self.selects(one)?))).collect()
    }

    /// What the target of an autoscaler selects.
    fn selects(&self, autoscaler: &Object) -> Option<LabelSelector> {
        let informers = &self.context.informers;
        let target = match plan::target(autoscaler, &TARGETS).ok()?.kind {
            "Deployment" => &informers.deployments,
            "ReplicaSet" => &informers.replica_sets,
            "StatefulSet" => &informers.stateful_sets,
            _ => &informers.replication_controllers,
        };
        let at = Ref::new(autoscaler.namespace(), autoscaler.str_at("/spec/scaleTargetRef/name"));
        selector(target.get(&at)?.as_ref())
    }

    async fn rescale(
        &self,
        autoscaler: &Object,
        target: &Resource,
        at: &Ref,
        mut scale: Object,
        plan: &Plan,
    ) -> Result<(), String> {
        let Some(rescale) = &plan.rescale else { return Ok(()) };
        scale.map_mut("spec").insert("replicas".to_owned(), json!(rescale.to));
        let tell = |kind, reason: &str, message| self.recorder.record(&Subject::of(autoscaler), kind, reason, message);
        let head = format!("New size: {}; reason: {}", rescale.to, rescale.reason);
        match self.client.put(target, at, "scale", &scale).await {
            Ok(_) => {
                info!(autoscaler = %autoscaler.reference(), from = rescale.from, to = rescale.to, "scaled");
                tell("Normal", "SuccessfulRescale", head);
                Ok(())
            }
            Err(error) => {
                let why = words(&error);
                tell("Warning", "FailedRescale", format!("{head}; error: {why}"));
                Err(why)
            }
        }
    }
}
