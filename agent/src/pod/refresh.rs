//! Keeping the volumes of a running pod current: when an object that they are made from changes, when the pod itself does, and
//! when a token is to be renewed. Nothing is looked at in between.

use std::time::Duration;

use gantry_env::chain;
use gantry_kube::Object;
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

    pub(super) async fn pod_changed(&mut self) {
        if shows_what_changes(&self.desired_pod()) {
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

/// Whether a file of the pod's shows what may change of it. Its name and namespace, which every token's volume shows, do not.
fn shows_what_changes(pod: &Object) -> bool {
    let changes = |item: &Value| {
        let field = item["fieldRef"]["fieldPath"].as_str().unwrap_or("");
        field.starts_with("metadata.labels")
            || field.starts_with("metadata.annotations")
            || item["resourceFieldRef"].is_object()
    };
    let shows = |source: &Value| source["downwardAPI"]["items"].as_array().into_iter().flatten().any(changes);
    pod.array_at("/spec/volumes")
        .iter()
        .any(|volume| shows(volume) || volume["projected"]["sources"].as_array().into_iter().flatten().any(shows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_tokens_volume_is_not_made_anew_whenever_its_pod_changes() {
        let shows = |item: Value| {
            let source = json!({"downwardAPI": {"items": [item]}});
            let one =
                |volume: Value| Object::from_value(json!({"spec": {"volumes": [{"emptyDir": {}}, volume]}})).unwrap();
            let plain = shows_what_changes(&one(source.clone()));
            assert_eq!(plain, shows_what_changes(&one(json!({"projected": {"sources": [{"configMap": {}}, source]}}))));
            plain
        };
        let field = |path: &str| json!({"path": "f", "fieldRef": {"fieldPath": path}});
        assert!(!shows(field("metadata.namespace")) && !shows(field("metadata.uid")));
        assert!(shows(field("metadata.labels")) && shows(field("metadata.annotations['a']")));
        assert!(shows(json!({"path": "f", "resourceFieldRef": {"resource": "limits.cpu"}})));
    }
}
