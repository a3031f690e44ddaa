//! How a pod ends, and what of its past is kept no longer.

use std::collections::BTreeSet;

use super::super::memory::{Volumes, after};
use super::super::seen::{Container, Sandbox, State};
use super::{Action, KillReason, LEFT_MIN_SECONDS, Planner};

/// Ended containers that are kept of each name: the last, and the one before for `logs --previous`.
const ENDED_KEPT: usize = 2;

impl Planner<'_> {
    /// Unless a kill is in flight that ends as early.
    pub(super) fn kill(&mut self, container: &Container, grace_seconds: i64, reason: KillReason) {
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
    pub(super) fn stop(&mut self, grace_seconds: i64) {
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

    pub(super) fn forget(&mut self, grace_seconds: i64) {
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
    pub(super) fn collect(&mut self, current: Option<&Sandbox>) {
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
}
