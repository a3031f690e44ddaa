//! The probes of one pod's running containers, and what they have found.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_kube::Object;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::seen::Container;
use super::worker::spec_of;
use crate::probe::state::Verdicts;
use crate::probe::{Kind, Probe};
use crate::shared::Shared;

pub struct Probes {
    pub verdicts: Arc<Verdicts>,
    shared: Arc<Shared>,
    /// Told of every verdict that changes.
    wake: Arc<Notify>,
    /// By container and kind.
    tasks: BTreeMap<(String, Kind), AbortHandle>,
}

impl Probes {
    pub fn new(shared: Arc<Shared>, wake: Arc<Notify>) -> Probes {
        Probes { verdicts: Arc::default(), shared, wake, tasks: BTreeMap::new() }
    }

    /// Starts the probes of what runs, and ends those of what does not.
    pub fn keep(&mut self, pod: &Arc<Object>, running: Vec<&Container>, pod_ip: &str) {
        self.tasks.retain(|(id, _), task| {
            let stays = running.iter().any(|c| c.id == *id);
            if !stays {
                task.abort();
            }
            stays
        });
        let now = self.shared.env.clock.now();
        for container in running {
            let Some(spec) = spec_of(pod, &container.name) else { continue };
            for kind in Kind::ALL {
                let key = (container.id.clone(), kind);
                let is_over = kind == Kind::Startup && self.verdicts.has_started(&container.id);
                if !spec[kind.field()].is_object() || self.tasks.contains_key(&key) || is_over {
                    continue;
                }
                let age = now.duration_since(container.started_at.unwrap_or(now));
                let probe = Probe {
                    kind,
                    pod: pod.clone(),
                    container: spec.clone(),
                    container_id: container.id.clone(),
                    pod_ip: pod_ip.to_owned(),
                    age: Duration::try_from(age).unwrap_or(Duration::ZERO),
                    verdicts: self.verdicts.clone(),
                    wake: self.wake.clone(),
                    events: self.shared.events.clone(),
                    runtime: self.shared.runtime.clone(),
                    counters: self.shared.counters.clone(),
                };
                self.tasks.insert(key, tokio::spawn(probe.run()).abort_handle());
            }
        }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        for task in self.tasks.values() {
            task.abort();
        }
    }
}
