//! The task of one pod. It alone acts for the pod, one effect after the other; what takes long (pulls, kills, reports)
//! runs beside it and comes back as an [`Effect`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_env::chain;
use gantry_kube::{Object, Ref};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::env::PodFacts;
use super::last_words;
use super::memory::{ImageKey, Memory};
use super::past;
use super::plan::{Plan, plan};
use super::probes::Probes;
use super::pull::PullError;
use super::report::{Report, Written};
use super::resize::Pending;
use super::seen::{Container, Seen, State};
use super::status;
use super::want::{Failed, Goal, Wanted};
use crate::events::Kind as EventKind;
use crate::pods::views::PodView;
use crate::probe::state::Unhealthy;
use crate::shared::Shared;
use crate::volume::follow::Following;

mod bounds;
mod keep;

use bounds::first_measure;
use keep::Kept;

/// A runtime or an API that does not answer is asked again after this.
const RETRY: Duration = Duration::from_secs(1);
/// Rounds of acting without a pause; a plan that is never empty is a fault of ours, and must not spin.
const ROUNDS_MAX: u32 = 32;

/// Where the agent heard of the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Api,
    File,
    /// What was admitted before a restart, while the API is silent.
    Checkpoint,
    /// The runtime holds it, and nobody else knows it.
    Runtime,
}

/// What the owner of the maps wants of the worker.
#[derive(Clone, Debug)]
pub struct Desired {
    pub pod: Arc<Object>,
    pub goal: Goal,
    pub failed: Option<Failed>,
    /// Why it has not been given what it asks for.
    pub resize: Option<Pending>,
    pub source: Source,
    /// Where its status goes: a static pod's goes to its mirror, once that is there.
    pub report_to: Option<Target>,
}

/// The object in the API that shows the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub at: Ref,
    pub uid: String,
    /// Its status as the API has it, and the revision of that.
    pub status: Value,
    pub version: u64,
}

impl Target {
    pub fn of(object: &Object) -> Target {
        Target {
            at: object.reference(),
            uid: object.uid().to_owned(),
            status: object.get("/status").cloned().unwrap_or(Value::Null),
            version: object.resource_version().parse().unwrap_or(0),
        }
    }
}

/// What came of an effect that ran beside the worker.
pub(super) enum Effect {
    Pulled {
        image: ImageKey,
        result: Result<String, PullError>,
    },
    Killed {
        id: String,
    },
    /// The hook for the container's start has ended.
    PostStarted {
        id: String,
        name: String,
        failed: Option<String>,
    },
    Written(Written),
    /// Why the pod is to be evicted, if it is.
    Measured {
        exceeded: Option<String>,
        took: Duration,
    },
}

pub struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) uid: String,
    desired: watch::Receiver<Desired>,
    wake: Arc<Notify>,
    pub(super) memory: Memory,
    pub(super) effects: JoinSet<Effect>,
    probes: Probes,
    report: Report,
    retry_at: Option<tokio::time::Instant>,
    shown_waiting: BTreeMap<String, String>,
    /// The status that the checkpoint had when this worker began.
    saved: Value,
    kept: Option<Kept>,
    /// Why the pod is failed by what the worker itself has found.
    failed: Option<Failed>,
    /// When the use of the disk is measured next; `None` while it is being measured.
    measure_at: Option<tokio::time::Instant>,
    /// Told when something that volumes are made from has changed, while they follow it.
    pub(super) sources: Arc<Notify>,
    pub(super) following: Option<Following>,
    /// When a token in a volume is to be renewed.
    pub(super) refresh_at: Option<tokio::time::Instant>,
}

/// What a turn leaves to be done.
enum Next {
    Again,
    Wait(Option<Timestamp>),
    Done,
}

impl Worker {
    pub fn new(shared: Arc<Shared>, uid: String, desired: watch::Receiver<Desired>, wake: Arc<Notify>) -> Worker {
        let probes = Probes::new(shared.clone(), wake.clone());
        let report = Report::new(shared.clone(), uid.clone());
        Worker {
            shared,
            uid,
            desired,
            wake,
            memory: Memory::default(),
            effects: JoinSet::new(),
            probes,
            report,
            retry_at: None,
            shown_waiting: BTreeMap::new(),
            saved: Value::Null,
            kept: None,
            failed: None,
            measure_at: Some(first_measure()),
            sources: Arc::default(),
            following: None,
            refresh_at: None,
        }
    }

    /// Works until the pod is gone, or the agent ends (which touches no container).
    pub async fn run(mut self, stop: CancellationToken) {
        self.remember();
        let mut rounds = 0;
        loop {
            let wake_at = match self.turn().await {
                Next::Done => return,
                Next::Again if rounds < ROUNDS_MAX => {
                    rounds += 1;
                    continue;
                }
                Next::Again => {
                    warn!(pod = %self.uid, "the plan does not settle");
                    Some(tokio::time::Instant::now() + RETRY)
                }
                Next::Wait(at) => at.map(|at| self.instant_of(at)),
            };
            rounds = 0;
            let measure_at = self.measure_at.filter(|_| self.is_measured());
            let wake_at = [wake_at, self.retry_at, self.report.write_after(), measure_at].into_iter().flatten().min();
            tokio::select! {
                biased;
                // Nothing is lost with the worker: all it knows is in the API and the runtime.
                () = stop.cancelled() => return,
                // join_next takes a result only when it returns it.
                Some(done) = self.effects.join_next(), if !self.effects.is_empty() => {
                    if let Ok(effect) = done {
                        self.note(effect);
                    }
                }
                // A watch keeps its latest value.
                changed = self.desired.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.pod_changed().await;
                }
                // A permit of Notify stays until it is taken.
                () = self.wake.notified() => {}
                // As above.
                () = self.sources.notified() => self.sources_changed().await,
                () = sleep_until(self.refresh_at) => self.refresh_volumes().await,
                // A deadline is computed anew in each round.
                () = sleep_until(wake_at) => {}
            }
        }
    }

    pub(super) fn instant_of(&self, at: Timestamp) -> tokio::time::Instant {
        let wait = at.duration_since(self.shared.env.clock.now());
        tokio::time::Instant::now() + Duration::try_from(wait).unwrap_or(Duration::ZERO) + Duration::from_millis(1)
    }

    fn note(&mut self, effect: Effect) {
        let now = self.shared.env.clock.now();
        match effect {
            Effect::Pulled { image, result: Ok(image_ref) } => {
                self.shared.trace.mark(&self.uid, 8, "image is there");
                self.memory.note_pulled(image, image_ref);
            }
            Effect::Pulled { image, result: Err(error) } => {
                self.memory.note_pull_failed(image, error.reason, error.message, now);
            }
            Effect::Killed { id } => {
                self.memory.killing.remove(&id);
            }
            Effect::PostStarted { id, name, failed } => self.post_started(&id, &name, failed),
            Effect::Measured { exceeded, took } => self.measured(exceeded, took),
            Effect::Written(written) => self.report.note(written),
        }
    }

    pub(super) fn note_unhealthy(&self, id: &str, message: &str) {
        let why = Unhealthy { message: message.to_owned(), grace_seconds: None };
        self.probes.verdicts.set_unhealthy(id, why);
    }

    pub(super) fn retry_soon(&mut self) {
        self.retry_at = Some(tokio::time::Instant::now() + RETRY);
    }

    /// Observe, plan, apply, report.
    async fn turn(&mut self) -> Next {
        self.retry_at = None;
        let mut desired = self.desired.borrow_and_update().clone();
        let expires_at = self.expire(&desired);
        if let Some(failed) = &self.failed {
            desired.goal = desired.goal.under(self.failed.as_ref(), &desired.pod);
            desired.failed = Some(failed.clone());
        }
        let mut seen = match self.shared.runtime.seen(&self.uid).await {
            Ok(seen) => seen,
            Err(error) => {
                warn!(pod = %self.uid, error = %chain(&error), "the runtime does not answer");
                self.retry_at = Some(tokio::time::Instant::now() + RETRY);
                return Next::Wait(None);
            }
        };
        last_words::add(&mut seen, &self.shared.config.log_dir, &desired.pod);
        self.take_verdicts(&seen);
        let want = Wanted::from_object(&desired.pod, desired.goal);
        let now = self.shared.env.clock.now();
        let mut plan = plan(&want, &seen, &self.memory, now);
        self.shared.trace.mark(&self.uid, 7, "agent planned");
        self.tell_waiting(&desired.pod, &plan);
        let status = self.status(&desired, &seen, &plan);
        self.shared.views.set(
            &self.uid,
            PodView {
                pod: desired.pod.clone(),
                seen: seen.clone(),
                waiting: plan.waiting.keys().cloned().collect(),
                ended: plan.settled,
                told: desired.report_to.as_ref().is_some_and(|target| *self.report.told(target) == status),
            },
        );
        self.memory.past = past::of_status(&status);
        self.keep_checkpoint(&desired, &status, plan.settled);
        self.probe(&desired, &seen);
        self.measure(&desired);
        let actions = std::mem::take(&mut plan.actions);
        let mut acted = false;
        // What users see first is that the agent has taken the pod on; then it acts.
        if let Some(target) = &desired.report_to {
            self.report.tell(target, &status, &mut self.effects);
        }
        for action in actions {
            debug!(pod = %self.uid, ?action, "act");
            acted |= self.apply(&desired, &want, &seen, action).await;
            // What was planned for a pod that is wanted is not done to one that is not.
            if self.desired.has_changed().unwrap_or(false) {
                acted = true;
                break;
            }
        }
        if acted {
            return Next::Again;
        }
        if plan.settled {
            return self.settle(&desired, &status, plan.wake_at);
        }
        Next::Wait([plan.wake_at, expires_at].into_iter().flatten().min())
    }

    fn status(&self, desired: &Desired, seen: &Seen, plan: &Plan) -> Value {
        let previous = self.previous(desired);
        status::status(&status::Inputs {
            pod: &desired.pod,
            goal: desired.goal,
            failed: desired.failed.as_ref(),
            resize: desired.resize.as_ref(),
            seen,
            plan,
            memory: &self.memory,
            ready: &self.probes.verdicts.ready(),
            host_ip: &self.shared.host_ip(),
            previous: &previous,
            now: self.shared.env.clock.now(),
        })
    }

    /// What was last said of the pod.
    fn previous(&self, desired: &Desired) -> Value {
        let told = desired.report_to.as_ref().map_or(&Value::Null, |target| self.report.told(target));
        past::newer(told, &self.saved)
    }

    /// Nothing runs any more: a pod that is being deleted goes once its last status is told.
    fn settle(&mut self, desired: &Desired, status: &Value, wake_at: Option<Timestamp>) -> Next {
        match desired.goal {
            Goal::Forget { .. } => {
                // The checkpoint goes last: while it is there, a next life finishes this.
                let logs = self.shared.config.log_dir.join(super::cri::log_folder(&desired.pod));
                for folder in [logs, self.shared.volumes.pod_folder(&self.uid)] {
                    if let Err(error) = crate::volume::remove(&folder) {
                        warn!(pod = %self.uid, error = %chain(&error), "folder of a pod that is gone not removed");
                    }
                }
                info!(pod = %self.uid, "pod is gone");
                return Next::Done;
            }
            Goal::Stop { .. } => {}
            Goal::Run | Goal::Fail { .. } => return Next::Wait(wake_at),
        }
        let Some(target) = &desired.report_to else { return Next::Wait(wake_at) };
        self.report.delete(target, status, &mut self.effects);
        Next::Wait(wake_at)
    }

    fn take_verdicts(&mut self, seen: &Seen) {
        let is_there = |id: &str| seen.container(id).is_some();
        self.memory.retain(is_there);
        let lives = |id: &str| seen.container(id).is_some_and(Container::is_alive);
        self.probes.verdicts.retain(lives, is_there);
        self.memory.started = self.probes.verdicts.started();
        self.memory.unhealthy = self.probes.verdicts.unhealthy();
    }

    /// Events of waits that have just begun.
    fn tell_waiting(&mut self, pod: &Object, plan: &Plan) {
        let events = &self.shared.events;
        for (name, waiting) in &plan.waiting {
            if self.shown_waiting.get(name) == Some(&waiting.reason) {
                continue;
            }
            self.shown_waiting.insert(name.clone(), waiting.reason.clone());
            let container = Some(name.as_str());
            match waiting.reason.as_str() {
                "CrashLoopBackOff" => {
                    let full = format!("{}_{}({})", pod.name(), pod.namespace(), pod.uid());
                    let words = format!("Back-off restarting failed container {name} in pod {full}");
                    events.pod(pod, container, EventKind::Warning, "BackOff", words);
                }
                "ImagePullBackOff" => {
                    let words = waiting.message.split(": ErrImagePull").next().unwrap_or("").to_owned();
                    events.pod(pod, container, EventKind::Normal, "BackOff", words);
                    events.pod(pod, container, EventKind::Warning, "Failed", "Error: ImagePullBackOff");
                }
                _ => {}
            }
        }
        self.shown_waiting.retain(|name, _| plan.waiting.contains_key(name));
    }

    pub(super) fn desired(&self) -> Desired {
        self.desired.borrow().clone()
    }

    pub(super) fn desired_pod(&self) -> Arc<Object> {
        self.desired.borrow().pod.clone()
    }

    /// Starts the probes of what runs, and ends those of what does not.
    fn probe(&mut self, desired: &Desired, seen: &Seen) {
        let is_asked = |c: &&Container| c.state == State::Running && !self.memory.starting.contains(&c.id);
        let running = seen.containers.iter().filter(|c| desired.goal == Goal::Run && is_asked(c)).collect();
        let pod_ip = self.pod_facts(&desired.pod, seen).pod_ips.into_iter().next().unwrap_or_default();
        self.probes.keep(&desired.pod, running, &pod_ip);
    }

    pub(super) fn pod_facts(&self, pod: &Object, seen: &Seen) -> PodFacts {
        let host_ip = self.shared.host_ip();
        let pod_ips = match pod.bool_at("/spec/hostNetwork") {
            Some(true) => vec![host_ip.clone()],
            _ => seen.sandbox().map(|s| s.ips.clone()).unwrap_or_default(),
        };
        PodFacts { host_ip, pod_ips, node_allocatable: self.shared.node_facts().allocatable.clone() }
    }
}

/// By its status, it has come to its end.
fn is_over(status: &Value) -> bool {
    matches!(status["phase"].as_str(), Some("Succeeded" | "Failed"))
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// A container of the pod, by its name.
pub fn spec_of<'a>(pod: &'a Object, name: &str) -> Option<&'a Value> {
    gantry_kube::pod::all_containers(pod).find(|c| c["name"] == name)
}
