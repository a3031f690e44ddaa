//! Who is asking, and may they: a client certificate or a token, and the API server's own rules.

use std::collections::HashMap;
use std::time::Duration;

use gantry_client::{Client, ClientError};
use gantry_env::chain;
use gantry_kube::{Object, Status, resource};
use gantry_pki::Peer;
use http::{Method, Request, header};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::warn;

/// How long an answer of the API server is believed.
const ALLOWED_FOR: Duration = Duration::from_secs(300);
const DENIED_FOR: Duration = Duration::from_secs(30);
const TOKEN_FOR: Duration = Duration::from_secs(120);
/// Answers that are remembered.
const REMEMBERED_MAX: usize = 1024;
const TOKEN_MAX_BYTES: usize = 16 << 10;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct User {
    pub name: String,
    pub groups: Vec<String>,
}

pub struct Access {
    client: Client,
    node_name: String,
    tokens: Mutex<Remembered<String, User>>,
    decisions: Mutex<Remembered<(User, &'static str, &'static str), bool>>,
}

/// Answers with an end.
struct Remembered<K, V>(HashMap<K, (V, Instant)>);

impl<K: std::hash::Hash + Eq, V: Clone> Remembered<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        self.0.get(key).filter(|(_, until)| *until > Instant::now()).map(|(value, _)| value.clone())
    }

    fn put(&mut self, key: K, value: V, lasts: Duration) {
        let now = Instant::now();
        if self.0.len() >= REMEMBERED_MAX {
            self.0.retain(|_, (_, until)| *until > now);
            if self.0.len() >= REMEMBERED_MAX {
                self.0.clear();
            }
        }
        self.0.insert(key, (value, now + lasts));
    }
}

/// The verb and the subresource of `nodes` that a path stands for.
pub fn attributes(method: &Method, path: &str) -> (&'static str, &'static str) {
    let verb = match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    };
    let subresource = match path.trim_start_matches('/').split('/').next().unwrap_or("") {
        "healthz" => "healthz",
        "pods" | "runningpods" => "pods",
        "stats" => "stats",
        "metrics" => "metrics",
        "logs" => "log",
        _ => "proxy",
    };
    (verb, subresource)
}

impl Access {
    pub fn new(client: Client, node_name: String) -> Access {
        Access {
            client,
            node_name,
            tokens: Mutex::new(Remembered(HashMap::new())),
            decisions: Mutex::new(Remembered(HashMap::new())),
        }
    }

    /// A verified client certificate, or a bearer token that the API server knows. Nobody else is anybody.
    pub async fn authenticate<B>(&self, request: &Request<B>, peer: Option<&Peer>) -> Result<User, Status> {
        if let Some(peer) = peer {
            let mut groups = peer.groups.clone();
            groups.push("system:authenticated".to_owned());
            return Ok(User { name: peer.user.clone(), groups });
        }
        let bearer = request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.strip_prefix("Bearer "));
        let Some(token) = bearer.filter(|t| !t.is_empty() && t.len() <= TOKEN_MAX_BYTES) else {
            return Err(Status::unauthorized());
        };
        if let Some(user) = self.tokens.lock().get(&token.to_owned()) {
            return Ok(user);
        }
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
        let answer = self.ask(&resource::TOKEN_REVIEW, review).await?;
        if answer.bool_at("/status/authenticated") != Some(true) {
            return Err(Status::unauthorized());
        }
        let groups =
            answer.array_at("/status/user/groups").iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let user = User { name: answer.str_at("/status/user/username").to_owned(), groups };
        self.tokens.lock().put(token.to_owned(), user.clone(), TOKEN_FOR);
        Ok(user)
    }

    /// Fine-grained first (`nodes/pods`), then `nodes/proxy`, which covers everything.
    pub async fn authorize(&self, user: &User, method: &Method, path: &str) -> Result<(), Status> {
        let (verb, subresource) = attributes(method, path);
        if self.allowed(user, verb, subresource).await?
            || (subresource != "proxy" && self.allowed(user, verb, "proxy").await?)
        {
            return Ok(());
        }
        let message = format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource={subresource}, node={})",
            user.name, self.node_name
        );
        Err(Status::new(403, "Forbidden", message))
    }

    async fn allowed(&self, user: &User, verb: &'static str, subresource: &'static str) -> Result<bool, Status> {
        let key = (user.clone(), verb, subresource);
        if let Some(answer) = self.decisions.lock().get(&key) {
            return Ok(answer);
        }
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {"user": user.name, "groups": user.groups, "resourceAttributes": {
                "verb": verb, "resource": "nodes", "subresource": subresource, "name": self.node_name, "version": "v1",
            }},
        });
        let answer = self.ask(&resource::SUBJECT_ACCESS_REVIEW, review).await?;
        let allowed = answer.bool_at("/status/allowed") == Some(true);
        self.decisions.lock().put(key, allowed, if allowed { ALLOWED_FOR } else { DENIED_FOR });
        Ok(allowed)
    }

    async fn ask(&self, kind: &'static gantry_kube::Resource, review: Value) -> Result<Object, Status> {
        let review = Object::from_value(review).map_err(Status::internal)?;
        self.client.create(kind, &review).await.map_err(|error: ClientError| {
            warn!(error = %chain(&error), "the API server did not answer a review");
            Status::unavailable("the API server cannot be asked who may do this")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_the_subresource_that_roles_name() {
        assert_eq!(attributes(&Method::GET, "/containerLogs/a/b/c"), ("get", "proxy"));
        assert_eq!(attributes(&Method::POST, "/exec/a/b/c"), ("create", "proxy"));
        assert_eq!(attributes(&Method::GET, "/pods"), ("get", "pods"));
        assert_eq!(attributes(&Method::GET, "/healthz/ping"), ("get", "healthz"));
        assert_eq!(attributes(&Method::GET, "/stats/summary"), ("get", "stats"));
        assert_eq!(attributes(&Method::GET, "/metrics/cadvisor"), ("get", "metrics"));
    }
}
