//! The one place that decides what happens to a pod: from what is wanted, what the runtime says and what is remembered,
//! to actions. Replanned from fresh facts at each turn, so that an agent that dies between any two of them goes on.
//!
//! Old before new: a sandbox that is no longer ready is stopped before its successor is made, for both would hold the
//! pod's host ports. A container's successor is made only once it has ended, for both would write the same volumes.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::memory::{Failure, Image, Memory, PULL_ERROR_SHOWN_SECONDS, Volumes, after, image_key};
use super::seen::{Container, Sandbox, Seen, State};
use super::want::{Goal, Wanted, WantedContainer, WantedImage};

/// Ended containers that are kept of each name: the last, and the one before for `logs --previous`.
const ENDED_KEPT: usize = 2;
/// What a container gets to end whose turn comes when the pod's time is over.
pub const LEFT_MIN_SECONDS: i64 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    PodEnds,
    DefinitionChanged,
    Unhealthy,
    /// It is given other limits, and its spec wants it started anew for that.
    Resized,
    /// The runtime does not know how it is.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    PrepareVolumes,
    RunSandbox {
        attempt: u32,
    },
    StopSandbox {
        id: String,
    },
    RemoveSandbox {
        id: String,
    },
    /// Look for an image of the container, and pull it where the policy says so; in the background.
    Pull {
        name: String,
        image: WantedImage,
    },
    /// Create and start.
    Run {
        name: String,
        attempt: u32,
        sandbox_id: String,
        /// What the references of the spec have become on this node.
        images: BTreeMap<String, String>,
        ended_at: Option<Timestamp>,
    },
    /// Start what was created before.
    Start {
        id: String,
        name: String,
    },
    /// Ask to end, then force, in the background.
    Kill {
        id: String,
        name: String,
        grace_seconds: i64,
        reason: KillReason,
    },
    RemoveContainer {
        id: String,
    },
    /// Tell the runtime what running containers, by id and name, and their pod may take now.
    Resize {
        sandbox_id: String,
        containers: Vec<(String, String)>,
    },
    ReleaseVolumes,
}

/// Why a container that is wanted does not run, as its status shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub reason: String,
    pub message: String,
}

impl Waiting {
    fn new(reason: &str, message: impl Into<String>) -> Waiting {
        Waiting { reason: reason.to_owned(), message: message.into() }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub waiting: BTreeMap<String, Waiting>,
    /// When to plan again even if nothing happens.
    pub wake_at: Option<Timestamp>,
    /// Nothing runs, and nothing will under this goal.
    pub settled: bool,
}

pub fn plan(want: &Wanted, seen: &Seen, memory: &Memory, now: Timestamp) -> Plan {
    let mut planner = Planner { want, seen, memory, now, plan: Plan::default() };
    match want.goal {
        Goal::Run => planner.run(),
        Goal::Fail { grace_seconds } | Goal::Stop { grace_seconds } => planner.stop(grace_seconds),
        Goal::Forget { grace_seconds } => planner.forget(grace_seconds),
    }
    planner.plan
}

struct Planner<'a> {
    want: &'a Wanted,
    seen: &'a Seen,
    memory: &'a Memory,
    now: Timestamp,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn act(&mut self, action: Action) {
        self.plan.actions.push(action);
    }

    fn wake(&mut self, at: Timestamp) {
        self.plan.wake_at = Some(self.plan.wake_at.map_or(at, |other| other.min(at)));
    }

    fn wait(&mut self, name: &str, waiting: Waiting) {
        self.plan.waiting.insert(name.to_owned(), waiting);
    }

    fn run(&mut self) {
        let current = self.seen.sandbox();
        let extra: Vec<&Sandbox> =
            self.seen.sandboxes.iter().filter(|s| current.is_none_or(|c| c.id != s.id)).collect();
        let stale: Vec<&&Sandbox> = extra.iter().filter(|s| s.ready || self.lives_in(&s.id)).collect();
        for sandbox in &stale {
            self.act(Action::StopSandbox { id: sandbox.id.clone() });
        }
        if !stale.is_empty() {
            return;
        }
        self.collect(current);
        if self.is_over() {
            return self.stop(self.want.grace_seconds);
        }
        self.default_waiting();
        let volumes = self.volumes();
        match current {
            Some(sandbox) if sandbox.ready => {
                if volumes {
                    self.run_containers(&sandbox.id);
                }
                self.resize(&sandbox.id);
            }
            Some(sandbox) if self.lives_in(&sandbox.id) => {
                self.act(Action::StopSandbox { id: sandbox.id.clone() });
            }
            _ => {
                self.pull_ahead();
                if volumes {
                    self.run_sandbox(current.map_or(0, |s| s.attempt + 1));
                }
            }
        }
    }

    /// Whether the volumes stand; asks for them where they do not.
    fn volumes(&mut self) -> bool {
        match &self.memory.volumes {
            Volumes::Ready => return true,
            Volumes::Failed(failure) if self.now < failure.until => self.wake(failure.until),
            Volumes::Failed(_) | Volumes::Absent | Volumes::Gone => self.act(Action::PrepareVolumes),
        }
        false
    }

    fn run_sandbox(&mut self, attempt: u32) {
        match &self.memory.sandbox_failure {
            Some(failure) if self.now < failure.until => self.wake(failure.until),
            _ => self.act(Action::RunSandbox { attempt }),
        }
    }

    /// Pulls the image that is needed first while the sandbox is being made.
    fn pull_ahead(&mut self) {
        let first: Vec<&WantedContainer> = match self.want.init.first() {
            Some(init) => vec![init],
            None => self.want.containers.iter().collect(),
        };
        for container in first {
            let ended = self.seen.latest(&container.name).filter(|c| c.state == State::Exited);
            let backs_off = ended.and_then(|c| self.crash_wait(c)).is_some_and(|(until, _)| self.now < until);
            if self.is_done(container) || backs_off {
                continue;
            }
            for image in container.images() {
                if !self.memory.images.contains_key(&image_key(&container.name, image)) {
                    self.pull(&container.name, image);
                }
            }
        }
    }

    fn run_containers(&mut self, sandbox: &str) {
        for container in &self.want.ephemeral {
            self.keep(sandbox, container);
        }
        let begun = self.want.containers.iter().any(|c| self.latest_in(sandbox, &c.name).is_some());
        let initialised = if begun { self.keep_sidecars(sandbox) } else { self.initialise(sandbox) };
        if initialised {
            for container in &self.want.containers {
                self.keep(sandbox, container);
                if self.is_starting(container) {
                    break;
                }
            }
        }
    }

    /// Init containers run one after the other; a sidecar lets the next one go once it has started.
    fn initialise(&mut self, sandbox: &str) -> bool {
        for container in &self.want.init {
            let latest = self.latest_in(sandbox, &container.name);
            let done = latest.is_some_and(|c| match c.state {
                State::Exited => !container.sidecar && c.exit_code == 0,
                State::Running => container.sidecar && self.has_started(container, c),
                State::Created | State::Unknown => false,
            });
            if done {
                if container.sidecar {
                    self.keep(sandbox, container);
                }
                continue;
            }
            self.keep(sandbox, container);
            return false;
        }
        true
    }

    fn keep_sidecars(&mut self, sandbox: &str) -> bool {
        for container in self.want.init.iter().filter(|c| c.sidecar) {
            self.keep(sandbox, container);
        }
        true
    }

    fn has_started(&self, container: &WantedContainer, seen: &Container) -> bool {
        (!container.startup_probe || self.memory.started.contains(&seen.id)) && !self.memory.starting.contains(&seen.id)
    }

    /// Its hook runs, or will once this plan is carried out.
    fn is_starting(&self, container: &WantedContainer) -> bool {
        let runs = self.seen.latest(&container.name).is_some_and(|latest| self.memory.starting.contains(&latest.id));
        let is_about_to = self.plan.actions.iter().any(|action| match action {
            Action::Run { name, .. } | Action::Start { name, .. } => *name == container.name,
            _ => false,
        });
        container.post_start && (runs || is_about_to)
    }

    /// Brings one container to where it should be: running, or ended for good.
    fn keep(&mut self, sandbox: &str, container: &WantedContainer) {
        let Some(latest) = self.seen.latest(&container.name) else {
            // Init containers start over in a new sandbox.
            if self.is_init(container) || !self.is_done(container) {
                let attempt = self.memory.past.get(&container.name).map_or(0, |past| past.runs);
                self.run_container(sandbox, container, attempt, None);
            }
            return;
        };
        match latest.state {
            State::Created if latest.sandbox_id != sandbox || self.memory.start_failed.contains(&latest.id) => {
                self.act(Action::RemoveContainer { id: latest.id.clone() });
            }
            State::Created => self.act(Action::Start { id: latest.id.clone(), name: latest.name.clone() }),
            State::Running if latest.hash != container.hash => {
                self.kill(latest, self.want.grace_seconds, KillReason::DefinitionChanged);
            }
            State::Running => {
                self.plan.waiting.remove(&container.name);
                if let Some(why) = self.memory.unhealthy.get(&latest.id) {
                    self.kill(latest, why.grace_seconds.unwrap_or(self.want.grace_seconds), KillReason::Unhealthy);
                } else if latest.limits.is_some_and(|limits| container.restarts(limits)) {
                    self.kill(latest, self.want.grace_seconds, KillReason::Resized);
                }
            }
            State::Unknown => self.kill(latest, self.want.grace_seconds, KillReason::Unknown),
            State::Exited => {
                // In a new sandbox an init container starts over, even where it had ended well.
                let again = latest.sandbox_id != sandbox && self.is_init(container);
                if again || !self.is_done(container) {
                    self.run_container(sandbox, container, latest.attempt + 1, Some(latest));
                }
            }
        }
    }

    fn run_container(&mut self, sandbox: &str, wanted: &WantedContainer, attempt: u32, last: Option<&Container>) {
        let name = &wanted.name;
        // What it waited for is shown until it runs: a status that goes to and fro while it is tried tells nothing.
        if let Some((until, seconds)) = last.and_then(|c| self.crash_wait(c)) {
            let message = format!(
                "back-off {} restarting failed container={name} pod={}",
                seconds_text(seconds),
                self.want.full_name()
            );
            self.wait(name, Waiting::new("CrashLoopBackOff", message));
            if self.now < until {
                return self.wake(until);
            }
        }
        if let Some(failure) = self.memory.create_failures.get(name) {
            self.wait(name, Waiting::new(&failure.reason, failure.message.clone()));
            if self.now < failure.until {
                return self.wake(failure.until);
            }
        }
        let wanted_images = wanted.images();
        let images: BTreeMap<String, String> = wanted_images
            .iter()
            .filter_map(|image| Some((image.reference.clone(), self.image(name, image)?)))
            .collect();
        if images.len() == wanted_images.len() {
            self.act(Action::Run {
                name: name.clone(),
                attempt,
                sandbox_id: sandbox.to_owned(),
                images,
                ended_at: last.and_then(|c| c.finished_at),
            });
        }
    }

    /// What an image is called on this node; brings it here where it is not.
    fn image(&mut self, container: &str, image: &WantedImage) -> Option<String> {
        match self.memory.images.get(&image_key(container, image)) {
            None => self.pull(container, image),
            Some(Image::Pulling { failed: None }) => {}
            Some(Image::Pulling { failed: Some(failure) }) => self.show_image_failure(container, image, failure),
            Some(Image::Failed(failure)) => self.image_failed(container, image, failure),
            Some(Image::Present { image_ref }) => return Some(image_ref.clone()),
        }
        None
    }

    fn pull(&mut self, container: &str, image: &WantedImage) {
        self.act(Action::Pull { name: container.to_owned(), image: image.clone() });
    }

    fn image_failed(&mut self, container: &str, image: &WantedImage, failure: &Failure) {
        if self.now >= failure.until {
            self.pull(container, image);
        } else {
            self.wake(failure.until);
        }
        self.show_image_failure(container, image, failure);
    }

    fn show_image_failure(&mut self, container: &str, image: &WantedImage, failure: &Failure) {
        let shown_until = after(failure.at, PULL_ERROR_SHOWN_SECONDS);
        if failure.reason == "ErrImagePull" && self.now >= shown_until {
            let message = format!("Back-off pulling image \"{}\": ErrImagePull: {}", image.reference, failure.message);
            return self.wait(container, Waiting::new("ImagePullBackOff", message));
        }
        if failure.reason == "ErrImagePull" {
            self.wake(shown_until);
        }
        self.wait(container, Waiting::new(&failure.reason, failure.message.clone()));
    }

    /// Running containers that may take something else than they should, those apart that are started anew for it.
    fn resize(&mut self, sandbox: &str) {
        let other = |wanted: &&WantedContainer| {
            let latest = self.seen.latest(&wanted.name).filter(|c| c.state == State::Running)?;
            let limits = latest.limits.filter(|limits| *limits != wanted.limits && !wanted.restarts(*limits));
            limits.map(|_| (latest.id.clone(), wanted.name.clone()))
        };
        let sized = self.want.init.iter().chain(&self.want.containers);
        let containers: Vec<(String, String)> = sized.filter_map(|wanted| other(&wanted)).collect();
        if containers.is_empty() {
            return;
        }
        match &self.memory.resize_failure {
            Some(failure) if self.now < failure.until => self.wake(failure.until),
            _ => self.act(Action::Resize { sandbox_id: sandbox.to_owned(), containers }),
        }
    }

    /// Unless a kill is in flight that ends as early.
    fn kill(&mut self, container: &Container, grace_seconds: i64, reason: KillReason) {
        let deadline = after(self.now, grace_seconds);
        if self.memory.killing.get(&container.id).is_some_and(|at| *at <= deadline) {
            return;
        }
        self.act(Action::Kill { id: container.id.clone(), name: container.name.clone(), grace_seconds, reason });
    }

    /// What is left of the time in which the whole pod is to end.
    fn left(&self, grace_seconds: i64) -> i64 {
        let Some(by) = self.memory.stop_by else { return grace_seconds };
        let left = by.duration_since(self.now);
        let seconds = left.as_secs() + i64::from(left.subsec_nanos() > 0);
        grace_seconds.min(seconds.max(LEFT_MIN_SECONDS))
    }

    /// The container whose turn it is once only sidecars live: the one that was started last.
    fn last_sidecar<'c>(&self, alive: &[&'c Container]) -> Option<&'c Container> {
        let sidecars = self.want.init.iter().rev().filter(|c| c.sidecar);
        sidecars.flat_map(|c| alive.iter().find(|a| a.name == c.name)).copied().next()
    }

    /// Ends everything that runs: sidecars after the others and one by one, then the sandbox, then the volumes.
    fn stop(&mut self, grace_seconds: i64) {
        let alive: Vec<&Container> = self.seen.containers.iter().filter(|c| c.is_alive()).collect();
        let unstarted: Vec<&Container> = self.seen.containers.iter().filter(|c| c.state == State::Created).collect();
        for container in unstarted {
            self.act(Action::RemoveContainer { id: container.id.clone() });
        }
        let mut next: Vec<&Container> = alive.iter().filter(|c| !self.want.is_sidecar(&c.name)).copied().collect();
        if next.is_empty() {
            next.extend(self.last_sidecar(&alive));
        }
        for container in next {
            self.kill(container, self.left(grace_seconds), KillReason::PodEnds);
        }
        if !alive.is_empty() || !self.plan.actions.is_empty() {
            return;
        }
        let ready: Vec<&Sandbox> = self.seen.sandboxes.iter().filter(|s| s.ready).collect();
        for sandbox in &ready {
            self.act(Action::StopSandbox { id: sandbox.id.clone() });
        }
        if !ready.is_empty() {
            return;
        }
        if self.memory.volumes != Volumes::Gone {
            return self.act(Action::ReleaseVolumes);
        }
        self.plan.settled = true;
    }

    fn forget(&mut self, grace_seconds: i64) {
        self.stop(grace_seconds);
        if self.plan.settled && !self.seen.is_empty() {
            self.plan.settled = false;
            for sandbox in &self.seen.sandboxes {
                self.act(Action::RemoveSandbox { id: sandbox.id.clone() });
            }
            let homeless = |c: &&Container| !self.seen.sandboxes.iter().any(|s| s.id == c.sandbox_id);
            for container in self.seen.containers.iter().filter(homeless) {
                self.act(Action::RemoveContainer { id: container.id.clone() });
            }
        }
    }

    /// Removes ended containers beyond the kept ones, and old sandboxes in which none of the kept lies.
    fn collect(&mut self, current: Option<&Sandbox>) {
        let names: BTreeSet<&str> = self.seen.containers.iter().map(|c| c.name.as_str()).collect();
        let mut kept_in = BTreeSet::new();
        let mut remove = Vec::new();
        for name in names {
            for (index, container) in self.seen.runs(name).into_iter().enumerate() {
                if index < ENDED_KEPT || container.state != State::Exited {
                    kept_in.insert(container.sandbox_id.as_str());
                } else {
                    remove.push(container);
                }
            }
        }
        let old: Vec<&Sandbox> = self
            .seen
            .sandboxes
            .iter()
            .filter(|s| current.is_some_and(|c| c.id != s.id) && !s.ready && !kept_in.contains(s.id.as_str()))
            .collect();
        for container in remove.iter().filter(|c| !old.iter().any(|s| s.id == c.sandbox_id)) {
            self.act(Action::RemoveContainer { id: container.id.clone() });
        }
        for sandbox in old {
            self.act(Action::RemoveSandbox { id: sandbox.id.clone() });
        }
    }

    /// No container of the pod will be run again: it succeeded or failed.
    fn is_over(&self) -> bool {
        let has_run =
            |c: &WantedContainer| self.seen.latest(&c.name).is_some() || self.memory.past.contains_key(&c.name);
        let begun = self.want.containers.iter().any(has_run);
        let has_failed = |c: &WantedContainer| self.exit_code(c).is_some_and(|code| code != 0) && self.is_done(c);
        let init_failed = !begun && self.want.init.iter().any(has_failed);
        init_failed || self.want.containers.iter().all(|c| self.is_done(c))
    }

    /// With which the container's last run ended; by the runtime's record or, where that is gone, by what was told of it.
    fn exit_code(&self, container: &WantedContainer) -> Option<i32> {
        match self.seen.latest(&container.name) {
            Some(latest) => (latest.state == State::Exited).then_some(latest.exit_code),
            None => self.memory.past.get(&container.name).map(|past| past.exit_code),
        }
    }

    /// It has ended and is not run again.
    fn is_done(&self, container: &WantedContainer) -> bool {
        let Some(code) = self.exit_code(container) else { return false };
        if container.sidecar {
            return false;
        }
        if self.want.ephemeral.iter().any(|c| c.name == container.name) {
            return true;
        }
        // What a probe had ended is run again, whatever code it ended with.
        let latest = self.seen.latest(&container.name);
        let failed = code != 0 || latest.is_some_and(|c| self.memory.unhealthy.contains_key(&c.id));
        let again = container.restart.again(code.into(), failed);
        if self.is_init(container) { !failed || !again } else { !again }
    }

    fn is_init(&self, container: &WantedContainer) -> bool {
        self.want.init.iter().any(|c| c.name == container.name)
    }

    fn lives_in(&self, sandbox: &str) -> bool {
        self.seen.containers.iter().any(|c| c.sandbox_id == sandbox && c.is_alive())
    }

    fn latest_in(&self, sandbox: &str, name: &str) -> Option<&'a Container> {
        self.seen.latest(name).filter(|c| c.sandbox_id == sandbox)
    }

    /// Until when it waits before it is run again, and how long that is in all.
    fn crash_wait(&self, ended: &Container) -> Option<(Timestamp, i64)> {
        self.memory.crash_until(&ended.name, ended.finished_at.unwrap_or(ended.created_at))
    }

    /// What containers show that have not run yet.
    fn default_waiting(&mut self) {
        let reason = if self.want.init.is_empty() { "ContainerCreating" } else { "PodInitializing" };
        for container in self.want.all() {
            let latest = self.seen.latest(&container.name);
            let done = latest.is_none() && !self.is_init(container) && self.is_done(container);
            if !done && latest.is_none_or(|c| c.state == State::Created) {
                self.wait(&container.name, Waiting::new(reason, ""));
            }
        }
    }
}

/// `10s`, `1m20s`, `5m0s`: as Go prints a duration.
pub fn seconds_text(seconds: i64) -> String {
    match seconds {
        s if s >= 3600 => format!("{}h{}m{}s", s / 3600, s % 3600 / 60, s % 60),
        s if s >= 60 => format!("{}m{}s", s / 60, s % 60),
        s => format!("{s}s"),
    }
}

#[cfg(test)]
mod tests;
