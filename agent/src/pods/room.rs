//! Which pods the node takes, and what it gives them of what it has.

use std::sync::Arc;

use gantry_kube::Object;
use gantry_kube::pod::is_terminal;

use super::{Entry, Pods};
use crate::events::Kind;
use crate::eviction::EVICTED;
use crate::pod::admit::{NODE_SHUTDOWN, Rejection, admit, going_down, under_pressure};
use crate::pod::resize::{self, Pending};
use crate::pod::want::Goal;
use crate::pod::worker::Source;
use crate::source::checkpoint;

impl Pods {
    pub(super) fn admit(&self, pod: &Object) -> Result<(), Rejection> {
        let taken = self.taken(pod.uid());
        let others: Vec<&Object> = taken.iter().map(AsRef::as_ref).collect();
        let config = &self.shared.config;
        let pressures = self.shared.pressures.borrow().clone();
        let verdict = going_down(self.is_shutting_down())
            .and_then(|()| under_pressure(pod, &pressures))
            .and_then(|()| admit(pod, &others, &self.shared.node_facts(), &config.node_name, config.max_pods));
        if let Err(rejection) = &verdict {
            let words = rejection.message.trim_start_matches("Pod was rejected: ").to_owned();
            // Reasons are a closed set in practice, and events want them to live as long as the program.
            let reason = match rejection.reason.as_str() {
                "OutOfcpu" => "OutOfcpu",
                "OutOfmemory" => "OutOfmemory",
                "OutOfpods" => "OutOfpods",
                "NodeAffinity" => "NodeAffinity",
                "NodePorts" => "NodePorts",
                EVICTED => EVICTED,
                NODE_SHUTDOWN => NODE_SHUTDOWN,
                _ => "UnexpectedAdmissionError",
            };
            self.shared.events.pod(pod, None, Kind::Warning, reason, words);
        }
        verdict
    }

    /// The pods that the node has taken and that have not ended, but for one.
    pub(super) fn taken(&self, but: &str) -> Vec<Arc<Object>> {
        let entries = self.entries.iter().filter(|(uid, _)| *uid != but).map(|(_, entry)| entry.desired.borrow());
        let taken = entries.filter(|d| d.failed.is_none() && !is_terminal(&d.pod) && d.source != Source::Runtime);
        taken.map(|desired| desired.pod.clone()).collect()
    }

    /// The pod as it is given what it asks for, or as it was before and why. A pod that is new here has been given what an
    /// earlier life of the agent gave it.
    pub(super) fn give(&self, pod: Arc<Object>) -> (Arc<Object>, Option<Pending>) {
        let ran_before = !pod.str_at("/status/startTime").is_empty();
        let given = match self.entries.get(pod.uid()) {
            Some(entry) => Some(entry.desired.borrow().pod.clone()),
            None if ran_before => checkpoint::one(&self.shared.config.data_dir, pod.uid()).map(Arc::new),
            None => None,
        };
        let Some(given) = given.filter(|given| resize::differs(&pod, given)) else { return (pod, None) };
        let others: Vec<Arc<Object>> = self.taken(pod.uid());
        let others: Vec<&Object> = others.iter().map(AsRef::as_ref).collect();
        match resize::admit(&pod, &others, &self.shared.node_facts()) {
            Ok(()) => (pod, None),
            Err(pending) => {
                let told = self.entries.get(pod.uid()).and_then(|entry| entry.desired.borrow().resize.clone());
                if told.as_ref() != Some(&pending) {
                    let reason = if pending.reason == "Deferred" { "ResizeDeferred" } else { "ResizeInfeasible" };
                    self.shared.events.pod(&pod, None, Kind::Warning, reason, pending.message.clone());
                }
                (resize::with_resources_of(&pod, &given), Some(pending))
            }
        }
    }

    /// Those that were told to wait are tried again: something has ended, or some time has passed.
    pub(super) fn give_again(&mut self) {
        let waits = |entry: &Entry| entry.desired.borrow().resize.as_ref().is_some_and(|p| p.reason == "Deferred");
        let waiting: Vec<Arc<Object>> = self.entries.values().filter(|e| waits(e)).map(|e| e.wanted.clone()).collect();
        for pod in waiting {
            let (pod, resize) = self.give(pod);
            let Some(entry) = self.entries.get(pod.uid()) else { continue };
            entry.desired.send_if_modified(|desired| {
                let changed = desired.resize != resize && desired.goal == Goal::Run;
                if changed {
                    (desired.pod, desired.resize) = (pod, resize);
                }
                changed
            });
        }
    }
}
