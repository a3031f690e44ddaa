//! Events on pods and the node, in the words that users of `kubectl describe` know. The same event again only counts
//! up; an object that will not be quiet is heard less and less; and when the API is slow, events are dropped, not pods.

use std::collections::{BTreeMap, VecDeque};

use gantry_client::{Client, ClientError, Patch};
use gantry_env::Env;
use gantry_kube::{Object, Ref, resource};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

const QUEUE_MAX: usize = 1000;
/// Different events that are remembered for counting.
const KNOWN_MAX: usize = 4096;
/// An object may tell this much at once, and one more in each interval.
const BURST: f64 = 25.0;
const REFILL_SECONDS: f64 = 300.0;
const MESSAGE_MAX_BYTES: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Normal,
    Warning,
}

struct Note {
    involved: Value,
    kind: Kind,
    reason: &'static str,
    message: String,
    at: Timestamp,
}

/// Takes events without ever waiting. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<Note>,
    env: Env,
}

impl Events {
    /// Starts the loop that writes them.
    pub fn spawn(client: Client, node: String, env: Env, stop: CancellationToken) -> Events {
        let (queue, notes) = mpsc::channel(QUEUE_MAX);
        let mut writer = Writer {
            client,
            node,
            env: env.clone(),
            known: BTreeMap::new(),
            order: VecDeque::new(),
            spam: BTreeMap::new(),
        };
        tokio::spawn(async move {
            stop.run_until_cancelled(writer.run(notes)).await;
        });
        Events { queue, env }
    }

    /// On a pod, or on one container of it.
    pub fn pod(
        &self,
        pod: &Object,
        container: Option<&str>,
        kind: Kind,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let mut involved = json!({
            "kind": "Pod", "apiVersion": "v1", "namespace": pod.namespace(), "name": pod.name(), "uid": pod.uid(),
            "resourceVersion": pod.resource_version(),
        });
        if let Some(name) = container {
            let is_in = |list: &[Value]| list.iter().any(|c| c["name"] == name);
            let list = match () {
                () if is_in(gantry_kube::pod::init_containers(pod)) => "initContainers",
                () if is_in(gantry_kube::pod::ephemeral_containers(pod)) => "ephemeralContainers",
                () => "containers",
            };
            involved["fieldPath"] = json!(format!("spec.{list}{{{name}}}"));
        }
        self.send(involved, kind, reason, message.into());
    }

    pub fn node(&self, name: &str, uid: &str, kind: Kind, reason: &'static str, message: impl Into<String>) {
        self.send(json!({"kind": "Node", "apiVersion": "v1", "name": name, "uid": uid}), kind, reason, message.into());
    }

    fn send(&self, involved: Value, kind: Kind, reason: &'static str, mut message: String) {
        if message.len() > MESSAGE_MAX_BYTES {
            let end = (0..=MESSAGE_MAX_BYTES).rev().find(|i| message.is_char_boundary(*i)).unwrap_or(0);
            message.truncate(end);
        }
        let note = Note { involved, kind, reason, message, at: self.env.clock.now() };
        if self.queue.try_send(note).is_err() {
            debug!(reason, "event dropped, the queue is full");
        }
    }
}

/// What makes two events the same: object, place, type, reason, message.
type Key = (String, String, bool, &'static str, String);

struct Known {
    at: Ref,
    count: u32,
}

struct Bucket {
    tokens: f64,
    at: Timestamp,
}

struct Writer {
    client: Client,
    node: String,
    env: Env,
    known: BTreeMap<Key, Known>,
    order: VecDeque<Key>,
    spam: BTreeMap<String, Bucket>,
}

impl Writer {
    async fn run(&mut self, mut notes: mpsc::Receiver<Note>) {
        while let Some(note) = notes.recv().await {
            if !self.may_speak(&note) {
                continue;
            }
            if let Err(error) = self.write(&note).await {
                debug!(reason = note.reason, error = %gantry_env::chain(&error), "event not written");
            }
        }
    }

    fn may_speak(&mut self, note: &Note) -> bool {
        if self.spam.len() > KNOWN_MAX {
            self.spam.clear();
        }
        let uid = note.involved["uid"].as_str().unwrap_or("").to_owned();
        let bucket = self.spam.entry(uid).or_insert(Bucket { tokens: BURST, at: note.at });
        let passed = note.at.duration_since(bucket.at).as_secs_f64().max(0.0);
        bucket.tokens = (bucket.tokens + passed / REFILL_SECONDS).min(BURST);
        bucket.at = note.at;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }

    async fn write(&mut self, note: &Note) -> Result<(), ClientError> {
        let text = |key: &str| note.involved[key].as_str().unwrap_or("").to_owned();
        let key: Key = (text("uid"), text("fieldPath"), note.kind == Kind::Warning, note.reason, note.message.clone());
        let now = gantry_env::format_seconds(note.at);
        if let Some(known) = self.known.get_mut(&key) {
            known.count += 1;
            let patch = json!({"count": known.count, "lastTimestamp": now});
            match self.client.patch(&resource::EVENT, &known.at, "", Patch::Merge(patch)).await {
                Err(error) if error.is_not_found() => {}
                other => return other.map(|_| ()),
            }
        }
        let namespace = match text("namespace") {
            empty if empty.is_empty() => "default".to_owned(),
            namespace => namespace,
        };
        let name = format!("{}.{:016x}", text("name"), self.env.rng.below(u64::MAX));
        let event = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": note.involved,
            "reason": note.reason, "message": note.message,
            "type": if note.kind == Kind::Warning { "Warning" } else { "Normal" },
            "source": {"component": "kubelet", "host": self.node},
            "reportingComponent": "kubelet", "reportingInstance": self.node,
            "firstTimestamp": now, "lastTimestamp": now, "eventTime": null, "count": 1,
        });
        let Value::Object(map) = event else { return Ok(()) };
        self.client.create(&resource::EVENT, &Object(map)).await?;
        if self.order.len() >= KNOWN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(key.clone());
        self.known.insert(key, Known { at: Ref::new(namespace, name), count: 1 });
        Ok(())
    }
}
