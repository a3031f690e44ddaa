//! The scheduler: which node runs a pod.
//!
//! A pure cycle over a snapshot of the nodes: [`filter`] says for each node why it cannot take the pod, [`score`] which of
//! the rest is best, and the pick is assumed at once, so that the next pod of a burst sees it taken. The bind is a call to
//! the API; a bind that fails takes the assumption back. Pods that fit nowhere wait until something that they were refused
//! for changes, or for their back-off; where pods of lower priority are in the way, those are driven away ([`preempt`]).

pub mod affinity;
pub mod cycle;
pub mod filter;
#[cfg(test)]
mod laws;
pub mod metrics;
pub mod preempt;
pub mod queue;
pub mod score;
pub mod snapshot;
pub mod topology;
pub mod volumes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_client::{Client, ClientError, DeleteOptions, Informer, Patch, Scope};
use gantry_env::{Env, chain};
use gantry_kube::{Object, Ref, resource, storage};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::controllers::Recorder;
use crate::controllers::events::Subject;
use crate::controllers::persistent_volume::plan::{annotate, set_aside};
use cycle::Decision;
use metrics::Ended;
pub use metrics::Metrics;
use preempt::{Budget, Hope, Preemption};
use queue::Queue;
use snapshot::{PodInfo, Snapshot};
use volumes::{Binding, Needs, Progress, Storage};

/// The user that the scheduler acts as.
pub const USER: &str = "system:kube-scheduler";
/// The schedulerName of pods that are ours.
pub const NAME: &str = "default-scheduler";
/// Binds that are under way at once.
const BINDS_MAX: usize = 64;
/// Unschedulable pods are looked at again after this even if nothing seems to have changed.
const FLUSH_EVERY: Duration = Duration::from_secs(60);
/// How long a pod that has its node waits for its claims' volumes before a node is chosen anew.
const VOLUMES_WITHIN: Duration = Duration::from_secs(600);

struct Scheduler {
    client: Client,
    recorder: Recorder,
    env: Env,
    pods: Informer<PodInfo>,
    budgets: Informer<Budget>,
    claims: Informer<Object>,
    state: Mutex<State>,
    /// A bind that failed gave room back, and its pod to the queue.
    bind_failed: Notify,
    metrics: Arc<Metrics>,
}

struct State {
    snapshot: Snapshot,
    queue: Queue,
}

/// Runs until the token ends it.
pub async fn run(client: Client, env: Env, metrics: Arc<Metrics>, stop: CancellationToken) {
    let client = client.named("gantry-scheduler");
    let pods =
        Informer::spawn(client.clone(), &resource::POD, Scope::default(), env.clone(), stop.clone(), PodInfo::project);
    let nodes = Informer::spawn(client.clone(), &resource::NODE, Scope::default(), env.clone(), stop.clone(), |o| o);
    let kind = &resource::POD_DISRUPTION_BUDGET;
    let budgets = Informer::spawn(client.clone(), kind, Scope::default(), env.clone(), stop.clone(), Budget::project);
    let whole = |resource| {
        Informer::spawn(client.clone(), resource, Scope::default(), env.clone(), stop.clone(), |object| object)
    };
    let claims = whole(&resource::PERSISTENT_VOLUME_CLAIM);
    let (volumes, classes) = (whole(&resource::PERSISTENT_VOLUME), whole(&resource::STORAGE_CLASS));
    for informer in [&nodes, &claims, &volumes, &classes] {
        informer.synced().await;
    }
    pods.synced().await;
    budgets.synced().await;
    let scheduler = Arc::new(Scheduler {
        recorder: Recorder::new(client.clone(), NAME, env.clone()),
        client,
        env,
        pods: pods.clone(),
        budgets,
        claims: claims.clone(),
        bind_failed: Notify::new(),
        metrics,
        state: Mutex::new(State { snapshot: Snapshot::default(), queue: Queue::default() }),
    });
    let (mut pod_changes, mut node_changes) = (pods.subscribe(), nodes.subscribe());
    let (mut claim_changes, mut volume_changes) = (claims.subscribe(), volumes.subscribe());
    let mut class_changes = classes.subscribe();
    let binds = Arc::new(Semaphore::new(BINDS_MAX));
    let mut flush = tokio::time::interval(FLUSH_EVERY);
    loop {
        let wake = scheduler.state.lock().queue.next_backoff();
        tokio::select! {
            biased;
            // Every arm waits on a timer, a mailbox or a notice and takes nothing before it returns.
            () = stop.cancelled() => return,
            changes = node_changes.changes() => scheduler.nodes_changed(changes),
            changes = claim_changes.changes() => scheduler.storage_changed(changes, |storage| &mut storage.claims),
            changes = volume_changes.changes() => scheduler.storage_changed(changes, |storage| &mut storage.volumes),
            changes = class_changes.changes() => scheduler.storage_changed(changes, |storage| &mut storage.classes),
            changes = pod_changes.changes() => scheduler.pods_changed(changes),
            // The queue has a new first back-off.
            () = scheduler.bind_failed.notified() => continue,
            () = sleep_until(wake) => {}
            _ = flush.tick() => scheduler.state.lock().queue.flush_unschedulable(),
        }
        // Whatever else has arrived meanwhile belongs into this snapshot too.
        scheduler.nodes_changed(node_changes.take());
        scheduler.storage_changed(claim_changes.take(), |storage| &mut storage.claims);
        scheduler.storage_changed(volume_changes.take(), |storage| &mut storage.volumes);
        scheduler.storage_changed(class_changes.take(), |storage| &mut storage.classes);
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

    fn storage_changed(
        &self,
        changes: Vec<gantry_client::Change<Object>>,
        of: impl Fn(&mut Storage) -> &mut BTreeMap<Ref, Arc<Object>>,
    ) {
        if changes.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        let known = of(&mut state.snapshot.storage);
        for change in changes {
            match change.now {
                Some(object) => known.insert(change.at, object),
                None => known.remove(&change.at),
            };
        }
        state.queue.flush_claiming();
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
                    if pod.is_for(NAME) && !state.snapshot.is_assumed(&pod.uid) {
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
            let (began, tries);
            let (at, pod, decision, hope, volumes) = {
                let mut state = self.state.lock();
                let State { snapshot, queue } = &mut *state;
                let Some((at, pod)) = queue.pop() else {
                    self.metrics.waiting(queue.waiting());
                    return;
                };
                began = Instant::now();
                tries = queue.refusals(&at) + 1;
                let decision = cycle::decide(snapshot, &pod, self.env.rng.below(1 << 32));
                let (mut hope, mut volumes) = (Hope::Waits, Vec::new());
                match &decision {
                    Decision::Bind { node } => {
                        let info = snapshot.node(node);
                        volumes = info.and_then(|info| Needs::of(snapshot, &pod).choose(info)).unwrap_or_default();
                        snapshot.storage.promise(&volumes);
                        snapshot.assume(&pod, node);
                    }
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
                (at, pod, decision, hope, volumes)
            };
            // The semaphore is never closed, so a permit always comes.
            let Ok(permit) = binds.clone().acquire_owned().await else { return };
            let this = self.clone();
            tokio::spawn(async move {
                if let Decision::Bind { node } = &decision
                    && !volumes.is_empty()
                {
                    // Whoever waits for volumes keeps no other from its bind.
                    drop(permit);
                    let ended = this.bind_after(&at, &pod, node, &volumes).await;
                    this.count(ended, began, tries);
                    return;
                }
                let ended = this.carry_out(&at, &pod, decision).await;
                this.count(ended, began, tries);
                this.make_room(&at, &pod, &hope).await;
                drop(permit);
            });
        }
    }

    fn count(&self, ended: Ended, began: Instant, tries: u32) {
        self.metrics.attempt(ended, began.elapsed());
        if ended == Ended::Scheduled {
            self.metrics.placed(tries);
        }
    }

    async fn carry_out(&self, at: &Ref, pod: &PodInfo, decision: Decision) -> Ended {
        match decision {
            Decision::Bind { node } => match self.bind(at, pod, &node).await {
                Ok(()) => Ended::Scheduled,
                Err(error) => {
                    warn!(pod = %at, node, error = %chain(&error), "bind failed");
                    self.take_back(at.clone(), pod);
                    Ended::Error
                }
            },
            Decision::Unschedulable { message } => {
                if let Err(error) = self.tell_unschedulable(at, pod, &message).await {
                    debug!(pod = %at, error = %chain(&error), "condition not written");
                }
                Ended::Unschedulable
            }
        }
    }

    /// Binds once the pod's claims are bound to what they were given.
    async fn bind_after(&self, at: &Ref, pod: &PodInfo, node: &str, volumes: &[Binding]) -> Ended {
        let given = tokio::time::timeout(VOLUMES_WITHIN, self.give_volumes(node, volumes)).await;
        self.state.lock().snapshot.storage.withdraw(volumes);
        let done = match given {
            Ok(Ok(true)) => self.bind(at, pod, node).await.map_err(|error| chain(&error)),
            Ok(Ok(false)) => Err("its claims cannot be bound there".to_owned()),
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err(format!("its claims were not bound within {} s", VOLUMES_WITHIN.as_secs())),
        };
        match done {
            Ok(()) => Ended::Scheduled,
            Err(why) => {
                warn!(pod = %at, node, why, "bind failed");
                self.take_back(at.clone(), pod);
                Ended::Error
            }
        }
    }

    /// Writes what each claim gets, and waits until it has it; false where it will not, or not there.
    async fn give_volumes(&self, node: &str, volumes: &[Binding]) -> Result<bool, ClientError> {
        let mut changes = self.claims.subscribe();
        let mut versions = Vec::new();
        for binding in volumes {
            let written = match binding {
                Binding::Volume { volume, claim } => {
                    self.client.update(&resource::PERSISTENT_VOLUME, &set_aside(volume, claim)).await?;
                    0
                }
                Binding::Provision { claim } => {
                    let mut after = (**claim).clone();
                    annotate(&mut after, storage::SELECTED_NODE, node);
                    let written = self.client.update(&resource::PERSISTENT_VOLUME_CLAIM, &after).await?;
                    written.resource_version().parse().unwrap_or(0)
                }
            };
            versions.push(written);
        }
        loop {
            let seen = volumes.iter().zip(&versions).map(|(binding, version)| {
                let claim = self.claims.get(&binding.claim().reference());
                volumes::progress(binding, claim.as_deref(), node, *version)
            });
            let seen: Vec<Progress> = seen.collect();
            if seen.contains(&Progress::Failed) {
                return Ok(false);
            }
            if seen.iter().all(|progress| *progress == Progress::Bound) {
                break;
            }
            changes.changes().await;
        }
        for binding in volumes {
            let Some(claim) = self.claims.get(&binding.claim().reference()) else { return Ok(false) };
            let at = Ref::cluster(claim.str_at("/spec/volumeName"));
            let Some(volume) = self.client.find(&resource::PERSISTENT_VOLUME, &at).await? else { return Ok(false) };
            if !volumes::suits(&volume, node, &self.state.lock().snapshot) {
                return Ok(false);
            }
        }
        Ok(true)
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
        self.metrics.preempted(preemption.victims.len());
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
