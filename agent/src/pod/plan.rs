//! The one place that decides what happens to a pod: from what is wanted, what the runtime says and what is remembered,
//! to actions. Replanned from fresh facts at each turn, so that an agent that dies between any two of them goes on.
//!
//! Old before new: a sandbox that is no longer ready is stopped before its successor is made, for both would hold the
//! pod's host ports. A container's successor is made only once it has ended, for both would write the same volumes.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::memory::{Memory, Volumes};
use super::seen::{Container, Sandbox, Seen, State};
use super::want::{Goal, Wanted, WantedContainer, WantedImage};

mod ending;
mod images;

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
