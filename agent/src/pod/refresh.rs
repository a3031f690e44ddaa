//! Keeping the volumes of a running pod current: when an object that they are made from changes, when the pod itself does, and
//! when a token is to be renewed. Nothing is looked at in between.

use std::time::Duration;

use gantry_env::chain;
use serde_json::Value;
use tokio::time::Instant;
use tracing::debug;

use super::memory::Volumes;
use super::seen::Seen;
use super::want::Goal;
use super::worker::Worker;

/// What could not be renewed is tried again after this; the volume keeps what it had.
const RETRY: Duration = Duration::from_secs(10);

impl Worker {
    /// Something that the volumes are made from has changed: those that wait for it need not wait longer.
    pub(super) async fn sources_changed(&mut self) {
        let now = self.shared.env.clock.now();
        match &mut self.memory.volumes {
            Volumes::Failed(failure) => failure.until = now,
            _ => self.refresh_volumes().await,
        }
    }

    /// Labels and annotations may be in files.
    pub(super) async fn pod_changed(&mut self) {
        let pod = self.desired_pod();
        let shows = |source: &Value| source["downwardAPI"].is_object();
        let is_shown = pod
            .array_at("/spec/volumes")
            .iter()
            .any(|volume| shows(volume) || volume["projected"]["sources"].as_array().into_iter().flatten().any(shows));
        if is_shown {
            self.refresh_volumes().await;
        }
    }

    pub(super) async fn refresh_volumes(&mut self) {
        self.refresh_at = None;
        let desired = self.desired();
        if self.memory.volumes != Volumes::Ready || desired.goal != Goal::Run {
            return;
        }
        let facts = self.pod_facts(&desired.pod, &Seen::default());
        match self.shared.volumes.prepare(&desired.pod, &facts).await {
            Ok(()) => self.refresh_when_due(),
            Err(error) => {
                debug!(pod = %self.uid, error = %chain(&error), "volumes keep what they had");
                self.refresh_at = Some(Instant::now() + RETRY);
            }
        }
    }

    pub(super) fn refresh_when_due(&mut self) {
        self.refresh_at = self.shared.volumes.tokens.renew_at(&self.uid).map(|at| self.instant_of(at));
    }
}
