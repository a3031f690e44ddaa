//! core/v1 Events, counted instead of repeated.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use gantry_client::{Client, Patch};
use gantry_env::{Env, chain};
use gantry_kube::{Object, Ref, resource};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tracing::debug;

use super::informers::Pod;

/// How many distinct events are remembered for counting.
const REMEMBERED_MAX: usize = 1024;

/// Writes events for one component. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    client: Client,
    component: &'static str,
    env: Env,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    events: HashMap<(String, String, String), (Ref, i64)>,
    order: VecDeque<(String, String, String)>,
}

/// What an event is about.
#[derive(Clone, Debug)]
pub struct Subject {
    pub api_version: String,
    pub kind: String,
    pub at: Ref,
    pub uid: String,
    pub resource_version: String,
}

impl Subject {
    pub fn of(object: &Object) -> Subject {
        Subject {
            api_version: object.api_version().to_owned(),
            kind: object.kind().to_owned(),
            at: object.reference(),
            uid: object.uid().to_owned(),
            resource_version: object.resource_version().to_owned(),
        }
    }

    pub fn of_pod(pod: &Pod) -> Subject {
        Subject {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            at: pod.reference(),
            uid: pod.uid.clone(),
            resource_version: pod.resource_version.clone(),
        }
    }
}

impl Recorder {
    pub fn new(client: Client, component: &'static str, env: Env) -> Recorder {
        Recorder { client, component, env, seen: Arc::default() }
    }

    /// Records in the background: an event that cannot be written is logged and lost, as upstream loses it.
    pub fn record(&self, subject: &Subject, kind: &'static str, reason: &str, message: String) {
        let (this, subject, reason) = (self.clone(), subject.clone(), reason.to_owned());
        tokio::spawn(async move {
            if let Err(error) = this.write(&subject, kind, &reason, &message).await {
                debug!(reason, error = %chain(&error), "event not written");
            }
        });
    }

    async fn write(
        &self,
        subject: &Subject,
        kind: &str,
        reason: &str,
        message: &str,
    ) -> Result<(), gantry_client::ClientError> {
        let now = self.env.clock.now_rfc3339();
        let key = (subject.uid.clone(), reason.to_owned(), message.to_owned());
        let known = self.seen.lock().count(&key);
        if let Some((at, count)) = known {
            let patch = Patch::Merge(json!({"count": count, "lastTimestamp": now}));
            match self.client.patch(&resource::EVENT, &at, "", patch).await {
                Err(error) if error.is_not_found() => {}
                other => return other.map(|_| ()),
            }
        }
        let at = self.create(subject, kind, reason, message, &now).await?;
        self.seen.lock().remember(key, at);
        Ok(())
    }

    async fn create(
        &self,
        subject: &Subject,
        kind: &str,
        reason: &str,
        message: &str,
        now: &str,
    ) -> Result<Ref, gantry_client::ClientError> {
        let namespace = if subject.at.namespace.is_empty() { "default" } else { &subject.at.namespace };
        let name = format!("{}.{}", subject.at.name, self.env.rng.name_suffix(16));
        let mut involved = json!({
            "apiVersion": subject.api_version, "kind": subject.kind, "name": subject.at.name, "uid": subject.uid,
        });
        if !subject.at.namespace.is_empty() {
            involved["namespace"] = json!(subject.at.namespace);
        }
        if !subject.resource_version.is_empty() {
            involved["resourceVersion"] = json!(subject.resource_version);
        }
        let event: Value = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": involved, "reason": reason, "message": message, "type": kind, "count": 1,
            "source": {"component": self.component}, "reportingComponent": self.component, "reportingInstance": "",
            "firstTimestamp": now, "lastTimestamp": now,
        });
        let made = self.client.create(&resource::EVENT, &Object::from_value(event).unwrap_or_default()).await?;
        Ok(made.reference())
    }
}

impl Seen {
    fn count(&mut self, key: &(String, String, String)) -> Option<(Ref, i64)> {
        let entry = self.events.get_mut(key)?;
        entry.1 += 1;
        Some(entry.clone())
    }

    fn remember(&mut self, key: (String, String, String), at: Ref) {
        if self.events.insert(key.clone(), (at, 1)).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.events.remove(&oldest);
        }
    }
}
