//! The scheduler: which node runs a pod.
//!
//! A pure cycle over a snapshot of the nodes: [`filter`] says for each node why it cannot take the pod, [`score`] which of
//! the rest is best, and the pick is assumed at once, so that the next pod of a burst sees it taken. The bind is a call to
//! the API; a bind that fails takes the assumption back. Pods that fit nowhere wait until something that they were refused
//! for changes, or for their back-off; where pods of lower priority are in the way, those are driven away ([`preempt`]).

pub mod affinity;
pub mod cycle;
pub mod filter;
pub mod preempt;
pub mod queue;
pub mod score;
pub mod snapshot;
pub mod topology;

use std::sync::Arc;
use std::time::Duration;

use gantry_client::{Client, ClientError, DeleteOptions, Informer, Patch, Scope};
use gantry_env::{Env, chain};
use gantry_kube::{Object, Ref, resource};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::controllers::Recorder;
use crate::controllers::events::Subject;
use cycle::Decision;
use preempt::{Budget, Hope, Preemption};
use queue::Queue;
use snapshot::{PodInfo, Snapshot};

/// The user that the scheduler acts as.
pub const USER: &str = "system:kube-scheduler";
/// The schedulerName of pods that are ours.
pub const NAME: &str = "default-scheduler";
/// Binds that are under way at once.
const BINDS_MAX: usize = 64;
/// Unschedulable pods are looked at again after this even if nothing seems to have changed.
const FLUSH_EVERY: Duration = Duration::from_secs(60);

struct Scheduler {
    client: Client,
    recorder: Recorder,
    env: Env,
    pods: Informer<PodInfo>,
    budgets: Informer<Budget>,
    state: Mutex<State>,
    /// A bind that failed gave room back, and its pod to the queue.
    bind_failed: Notify,
}

struct State {
    snapshot: Snapshot,
    queue: Queue,
}

/// Runs until the token ends it.
pub async fn run(client: Client, env: Env, stop: CancellationToken) {
    let client = client.named("gantry-scheduler");
    let pods =
        Informer::spawn(client.clone(), &resource::POD, Scope::default(), env.clone(), stop.clone(), PodInfo::project);
    let nodes = Informer::spawn(client.clone(), &resource::NODE, Scope::default(), env.clone(), stop.clone(), |o| o);
    let kind = &resource::POD_DISRUPTION_BUDGET;
    let budgets = Informer::spawn(client.clone(), kind, Scope::default(), env.clone(), stop.clone(), Budget::project);
    nodes.synced().await;
    pods.synced().await;
    budgets.synced().await;
    let scheduler = Arc::new(Scheduler {
        recorder: Recorder::new(client.clone(), NAME, env.clone()),
        client,
        env,
        pods: pods.clone(),
        budgets,
        bind_failed: Notify::new(),
        state: Mutex::new(State { snapshot: Snapshot::default(), queue: Queue::default() }),
    });
    let (mut pod_changes, mut node_changes) = (pods.subscribe(), nodes.subscribe());
    let binds = Arc::new(Semaphore::new(BINDS_MAX));
    let mut flush = tokio::time::interval(FLUSH_EVERY);
    loop {
        let wake = scheduler.state.lock().queue.next_backoff();
        tokio::select! {
            biased;
            // Every arm waits on a timer, a mailbox or a notice and takes nothing before it returns.
            () = stop.cancelled() => return,
            changes = node_changes.changes() => scheduler.nodes_changed(changes),
            changes = pod_changes.changes() => scheduler.pods_changed(changes),
            // The queue has a new first back-off.
            () = scheduler.bind_failed.notified() => continue,
            () = sleep_until(wake) => {}
            _ = flush.tick() => scheduler.state.lock().queue.flush_unschedulable(),
        }
        // Whatever else has arrived meanwhile belongs into this snapshot too.
        scheduler.nodes_changed(node_changes.take());
        scheduler.pods_changed(pod_changes.take());
        scheduler.clone().drain(&binds).await;
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Scheduler {
    fn nodes_changed(&self, changes: Vec<gantry_client::Change<Object>>) {
        if changes.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        let mut better = false;
        for change in changes {
            better |= match change.now {
                Some(node) => state.snapshot.set_node(&node),
                None => state.snapshot.remove_node(&change.at.name),
            };
        }
        if better {
            state.queue.flush_unschedulable();
        }
    }

    fn pods_changed(&self, changes: Vec<gantry_client::Change<PodInfo>>) {
        let mut state = self.state.lock();
        let (mut freed, mut placed) = (false, false);
        for change in changes {
            // Deleted and made anew between two looks: the old one's room is free.
            if let Some(before) = &change.before
                && change.now.as_ref().is_some_and(|now| now.uid != before.uid)
            {
                state.queue.remove(&change.at);
                freed |= state.snapshot.remove_pod(&before.uid);
            }
            placed |= change.now.as_ref().is_some_and(|now| meets_anew(change.before.as_deref(), now));
            match change.now {
                Some(pod) if pod.waits() => {
                    if !pod.nominated.is_empty() && !state.snapshot.is_assumed(&pod.uid) {
                        state.snapshot.nominate(&pod, &pod.nominated);
                    }
                    if pod.scheduler == NAME && pod.gates == 0 && !state.snapshot.is_assumed(&pod.uid) {
                        state.queue.add(change.at, pod);
                    }
                }
                Some(pod) => {
                    state.queue.remove(&change.at);
                    freed |= state.snapshot.set_pod(&pod);
                }
                None => {
                    state.queue.remove(&change.at);
                    if let Some(before) = change.before {
                        freed |= state.snapshot.remove_pod(&before.uid);
                    }
                }
            }
        }
        if freed {
            state.queue.flush_unschedulable();
        } else if placed {
            state.queue.flush_social();
        }
    }

    /// Decides for every pod that is ready, in order of priority and age.
    async fn drain(self: Arc<Self>, binds: &Arc<Semaphore>) {
        loop {
            let (at, pod, decision, hope) = {
                let mut state = self.state.lock();
                let State { snapshot, queue } = &mut *state;
                let Some((at, pod)) = queue.pop() else { return };
                let decision = cycle::decide(snapshot, &pod, self.env.rng.below(1 << 32));
                let mut hope = Hope::Waits;
                match &decision {
                    Decision::Bind { node } => snapshot.assume(&pod, node),
                    Decision::Unschedulable { .. } => {
                        queue.park(at.clone(), pod.clone());
                        hope = preempt::plan(snapshot, &pod, &self.budgets.list());
                    }
                }
                match &hope {
                    Hope::None => snapshot.withdraw(&pod.uid),
                    Hope::Waits => {}
                    Hope::MakesRoom(preemption) => snapshot.nominate(&pod, &preemption.node),
                }
                (at, pod, decision, hope)
            };
            // The semaphore is never closed, so a permit always comes.
            let Ok(permit) = binds.clone().acquire_owned().await else { return };
            let this = self.clone();
            tokio::spawn(async move {
                this.carry_out(&at, &pod, decision).await;
                this.make_room(&at, &pod, &hope).await;
                drop(permit);
            });
        }
    }

    async fn carry_out(&self, at: &Ref, pod: &PodInfo, decision: Decision) {
        match decision {
            Decision::Bind { node } => {
                if let Err(error) = self.bind(at, pod, &node).await {
                    warn!(pod = %at, node, error = %chain(&error), "bind failed");
                    self.take_back(at.clone(), pod);
                }
            }
            Decision::Unschedulable { message } => {
                if let Err(error) = self.tell_unschedulable(at, pod, &message).await {
                    debug!(pod = %at, error = %chain(&error), "condition not written");
                }
            }
        }
    }

    /// The pod is told where to hope, then those who are in its way go. It comes back when they are gone.
    async fn make_room(&self, at: &Ref, pod: &PodInfo, hope: &Hope) {
        let done = match hope {
            Hope::None if !pod.nominated.is_empty() => self.nominate(at, pod, None).await,
            Hope::None | Hope::Waits => Ok(()),
            Hope::MakesRoom(preemption) => self.preempt(at, pod, preemption).await,
        };
        if let Err(error) = done {
            warn!(pod = %at, error = %chain(&error), "preemption failed");
            let mut state = self.state.lock();
            state.snapshot.withdraw(&pod.uid);
            state.queue.flush_unschedulable();
            self.bind_failed.notify_one();
        }
    }

    async fn nominate(&self, at: &Ref, pod: &PodInfo, node: Option<&str>) -> Result<(), ClientError> {
        let patch = json!({"metadata": {"uid": pod.uid}, "status": {"nominatedNodeName": node}});
        self.client.patch(&resource::POD, at, "status", Patch::Strategic(patch)).await.map(drop)
    }

    async fn preempt(&self, at: &Ref, pod: &PodInfo, preemption: &Preemption) -> Result<(), ClientError> {
        self.nominate(at, pod, Some(&preemption.node)).await?;
        for victim in preemption.victims.iter().filter(|victim| !victim.deleting) {
            let place = Ref::new(victim.namespace.as_str(), victim.name.as_str());
            match self.drive_away(&place, victim).await {
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                done => done?,
            }
            let message = format!("Preempted by pod {} on node {}", pod.uid, preemption.node);
            self.recorder.record(&subject(&place, victim), "Normal", "Preempted", message);
        }
        Ok(())
    }

    async fn drive_away(&self, at: &Ref, victim: &PodInfo) -> Result<(), ClientError> {
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
            "message": format!("{NAME}: preempting to accommodate a higher priority pod"),
            "lastTransitionTime": self.env.clock.now_rfc3339(),
        });
        let patch = json!({"metadata": {"uid": victim.uid}, "status": {"conditions": [condition]}});
        self.client.patch(&resource::POD, at, "status", Patch::Strategic(patch)).await?;
        let options = DeleteOptions { uid: Some(victim.uid.clone()), ..DeleteOptions::default() };
        self.client.delete(&resource::POD, at, &options).await
    }

    /// The pod, as it is now, tries again after its back-off: unless it is gone, going, or bound after all.
    fn take_back(&self, at: Ref, pod: &PodInfo) {
        let mut state = self.state.lock();
        state.snapshot.forget(&pod.uid);
        let now = self.pods.get(&at).filter(|now| now.uid == pod.uid && now.waits());
        match now {
            Some(now) => state.queue.retry(at, now),
            None => state.queue.flush_unschedulable(),
        }
        self.bind_failed.notify_one();
    }

    async fn bind(&self, at: &Ref, pod: &PodInfo, node: &str) -> Result<(), ClientError> {
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": at.name, "namespace": at.namespace, "uid": pod.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        self.client.post(&resource::POD, at, "binding", &binding).await?;
        let message = format!("Successfully assigned {at} to {node}");
        self.recorder.record(&subject(at, pod), "Normal", "Scheduled", message);
        Ok(())
    }

    async fn tell_unschedulable(&self, at: &Ref, pod: &PodInfo, message: &str) -> Result<(), ClientError> {
        self.recorder.record(&subject(at, pod), "Warning", "FailedScheduling", message.to_owned());
        if pod.unschedulable_message == message {
            return Ok(());
        }
        let condition = json!({
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
            "lastProbeTime": null, "lastTransitionTime": self.env.clock.now_rfc3339(),
        });
        let patch = json!({"metadata": {"uid": pod.uid}, "status": {"conditions": [condition]}});
        self.client.patch(&resource::POD, at, "status", Patch::Strategic(patch)).await.map(|_| ())
    }
}

/// Whether a placed pod may be what another's affinity waits for: it is new there, or has other labels.
fn meets_anew(before: Option<&PodInfo>, now: &PodInfo) -> bool {
    !now.node.is_empty() && before.is_none_or(|before| before.node != now.node || before.labels != now.labels)
}

fn subject(at: &Ref, pod: &PodInfo) -> Subject {
    Subject {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        at: at.clone(),
        uid: pod.uid.clone(),
        resource_version: pod.resource_version.clone(),
    }
}
