//! Telling the runtime that a running pod may take something else than it does.

use gantry_kube::Object;
use tracing::info;

use super::super::cri;
use super::super::memory::RETRY_SECONDS;
use super::super::resize::{Change, Step, steps};
use super::super::seen::Seen;
use super::super::want::Wanted;
use super::super::worker::{Desired, Worker};
use crate::events::Kind;

impl Worker {
    /// In the order of [`steps`]; what the runtime refuses is tried again, all of it.
    pub(super) async fn resize(
        &mut self,
        desired: &Desired,
        want: &Wanted,
        seen: &Seen,
        sandbox: &str,
        containers: &[(String, String)],
    ) {
        let pod = &desired.pod;
        let change = |(id, name): &(String, String)| {
            let (wanted, has) = (want.container(name)?, seen.container(id).and_then(|c| c.limits)?);
            Some(Change { id: id.clone(), has, wanted: wanted.limits })
        };
        let changes: Vec<Change> = containers.iter().filter_map(change).collect();
        let mut told = Ok(());
        for step in steps(&changes) {
            told = self.tell_runtime(pod, sandbox, step).await;
            if told.is_err() {
                break;
            }
        }
        match told {
            Ok(()) => {
                info!(pod = %pod.reference(), "the pod's limits are changed");
                self.memory.resize_failure = None;
                self.shared.events.pod(pod, None, Kind::Normal, "ResizeCompleted", "Pod resize completed");
            }
            Err(message) => {
                if self.memory.resize_failure.as_ref().is_none_or(|before| before.message != message) {
                    self.shared.events.pod(pod, None, Kind::Warning, "ResizeError", message.clone());
                }
                self.memory.resize_failure = Some(self.failure("Error", message, RETRY_SECONDS));
            }
        }
    }

    async fn tell_runtime(&self, pod: &Object, sandbox: &str, step: Step) -> Result<(), String> {
        let done = match step {
            Step::Container { id, limits, less_memory } => {
                if less_memory {
                    self.check_memory(&id, limits.memory_bytes).await?;
                }
                self.shared.runtime.update_container(&id, limits.update()).await
            }
            Step::Pod => {
                let whole = cri::pod_resources(pod, self.shared.config.pod_pids_max);
                self.shared.runtime.update_sandbox(sandbox, whole).await
            }
        };
        done.map_err(|error| error.words())
    }

    /// A limit below what is in use would have the kernel kill the container.
    async fn check_memory(&self, id: &str, limit: i64) -> Result<(), String> {
        let Ok(snapshot) = self.shared.stats.usage().await else { return Ok(()) };
        let found = snapshot.pods.iter().flat_map(|pod| &pod.containers).find(|c| c.id == *id);
        let used = found.and_then(|c| c.used.memory.working_set_bytes).map_or(0, |v| v.value);
        match u64::try_from(limit) {
            Ok(limit) if limit > 0 && used >= limit => {
                Err(format!("attempting to set memory limit ({limit}) below current usage ({used})"))
            }
            _ => Ok(()),
        }
    }
}
