//! Service-account tokens for pods: bound to the pod, renewed when four fifths of their life are over.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_client::{Client, ClientError};
use gantry_env::Env;
use gantry_kube::{Object, Ref, resource};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::pod::memory::after;

/// Longer ones are renewed once a day all the same.
const RENEW_CAP_SECONDS: i64 = 24 * 3600;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    pod_uid: String,
    audience: String,
    seconds: i64,
}

struct Held {
    token: String,
    renew_at: Timestamp,
}

/// The tokens of this node's pods. Never logged, never written but into their volumes.
#[derive(Clone, Default)]
pub struct Tokens {
    held: Arc<Mutex<BTreeMap<Key, Held>>>,
}

impl Tokens {
    /// The token that the pod's file is to hold now.
    pub async fn token(&self, client: &Client, pod: &Object, source: &Value, env: &Env) -> Result<String, ClientError> {
        let audience = source["audience"].as_str().unwrap_or("").to_owned();
        let seconds = source["expirationSeconds"].as_i64().unwrap_or(3600);
        let key = Key { pod_uid: pod.uid().to_owned(), audience: audience.clone(), seconds };
        let now = env.clock.now();
        if let Some(held) = self.held.lock().get(&key)
            && now < held.renew_at
        {
            return Ok(held.token.clone());
        }
        let audiences: Vec<&str> = if audience.is_empty() { Vec::new() } else { vec![&audience] };
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "metadata": {"name": pod.str_at("/spec/serviceAccountName"), "namespace": pod.namespace()},
            "spec": {
                "audiences": audiences, "expirationSeconds": seconds,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.name(), "uid": pod.uid()},
            },
        });
        let account = match pod.str_at("/spec/serviceAccountName") {
            "" => "default",
            name => name,
        };
        let answer =
            client.post(&resource::SERVICE_ACCOUNT, &Ref::new(pod.namespace(), account), "token", &body).await?;
        let token = answer.str_at("/status/token").to_owned();
        let granted = answer.i64_at("/spec/expirationSeconds").unwrap_or(seconds);
        let renew_at = after(now, (granted * 4 / 5).min(RENEW_CAP_SECONDS));
        self.held.lock().insert(key, Held { token: token.clone(), renew_at });
        Ok(token)
    }

    /// When the first of the pod's tokens is to be renewed.
    pub fn renew_at(&self, pod_uid: &str) -> Option<Timestamp> {
        let held = self.held.lock();
        held.iter().filter(|(key, _)| key.pod_uid == pod_uid).map(|(_, held)| held.renew_at).min()
    }

    pub fn forget(&self, pod_uid: &str) {
        self.held.lock().retain(|key, _| key.pod_uid != pod_uid);
    }
}
