use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_kube::{Object, Ref, Resource, Status};
use http::{Method, Request};
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::ClientError;
use crate::metrics::Metrics;
use crate::watch::WatchStream;

/// One answer never takes more memory than this: a list of a very large cluster fits.
const ANSWER_MAX_BYTES: usize = 1 << 30;

/// A whole call takes no longer than this (the server gives itself a minute), nor do the first bytes of a watch. A call that
/// waits for ever would hold its worker, and a write's fate is not known anyway: the turn is done again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(65);

/// The Kubernetes API by whole objects. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    inner: kube::Client,
    manager: Arc<str>,
    metrics: Arc<Metrics>,
}

/// What a list or watch asks for beyond its kind.
#[derive(Clone, Debug, Default)]
pub struct Query {
    pub label_selector: String,
    pub field_selector: String,
    /// `""` asks for the newest, `"0"` for whatever the server has at hand.
    pub resource_version: String,
    pub limit: u32,
    pub continue_token: String,
}

/// A page of objects, and the revision that a watch goes on from.
#[derive(Clone, Debug, Default)]
pub struct List {
    pub resource_version: String,
    pub continue_token: String,
    pub items: Vec<Object>,
}

/// A patch and its media type.
#[derive(Clone, Debug)]
pub enum Patch {
    Json(Value),
    Merge(Value),
    Strategic(Value),
}

/// Preconditions and manner of a delete.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    /// `Background`, `Foreground` or `Orphan`.
    pub propagation_policy: Option<&'static str>,
}

impl DeleteOptions {
    fn to_value(&self) -> Value {
        let mut body = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
        if let Some(seconds) = self.grace_period_seconds {
            body["gracePeriodSeconds"] = json!(seconds);
        }
        if let Some(uid) = &self.uid {
            body["preconditions"]["uid"] = json!(uid);
        }
        if let Some(version) = &self.resource_version {
            body["preconditions"]["resourceVersion"] = json!(version);
        }
        if let Some(policy) = self.propagation_policy {
            body["propagationPolicy"] = json!(policy);
        }
        body
    }
}

impl Client {
    /// `manager` is the field manager that writes are recorded under (`gantry-scheduler`).
    pub fn new(inner: kube::Client, manager: &str) -> Client {
        Client { inner, manager: manager.into(), metrics: Arc::default() }
    }

    /// The same connection under another field manager.
    pub fn named(&self, manager: &str) -> Client {
        Client { manager: manager.into(), ..self.clone() }
    }

    /// The same client, whose calls are counted there.
    pub fn counted(self, metrics: Arc<Metrics>) -> Client {
        Client { metrics, ..self }
    }

    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    pub async fn get(&self, resource: &Resource, at: &Ref) -> Result<Object, ClientError> {
        self.object(Method::GET, resource.object_path(&at.namespace, &at.name), "", Vec::new()).await
    }

    /// `None` where there is no such object.
    pub async fn find(&self, resource: &Resource, at: &Ref) -> Result<Option<Object>, ClientError> {
        match self.get(resource, at).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub async fn list(&self, resource: &Resource, namespace: Option<&str>, query: &Query) -> Result<List, ClientError> {
        let uri = format!("{}?{}", resource.collection_path(namespace), query.encode());
        let (call, bytes) = self.send(Method::GET, uri, "", Vec::new()).await?;
        let mut value: Value = decode(&call, &bytes)?;
        let items = match value["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        };
        let (api_version, kind) = (resource.api_version(), resource.kind);
        let named = |item: Value| {
            let mut object =
                Object::from_value(item).map_err(|e| ClientError::Answer { call: call.clone(), why: e.to_string() })?;
            // Items of a list do not repeat what the list says of all of them.
            object.0.entry("apiVersion").or_insert_with(|| json!(api_version));
            object.0.entry("kind").or_insert_with(|| json!(kind));
            Ok(object)
        };
        Ok(List {
            resource_version: value["metadata"]["resourceVersion"].as_str().unwrap_or("").to_owned(),
            continue_token: value["metadata"]["continue"].as_str().unwrap_or("").to_owned(),
            items: items.into_iter().map(named).collect::<Result<_, ClientError>>()?,
        })
    }

    /// Events from `query.resource_version` on, for at most `timeout_seconds`.
    pub async fn watch(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        query: &Query,
        timeout_seconds: u64,
    ) -> Result<WatchStream, ClientError> {
        let path = resource.collection_path(namespace);
        let uri =
            format!("{path}?watch=true&allowWatchBookmarks=true&timeoutSeconds={timeout_seconds}&{}", query.encode());
        let call = format!("watch {path}");
        let response = in_time(&call, self.open(&call, Method::GET, uri, "", Vec::new())).await?;
        Ok(WatchStream::new(call, response.into_body()))
    }

    pub async fn create(&self, resource: &Resource, object: &Object) -> Result<Object, ClientError> {
        let path = self.managed(resource.collection_path(Some(object.namespace())));
        self.object(Method::POST, path, "application/json", object.to_vec()).await
    }

    pub async fn update(&self, resource: &Resource, object: &Object) -> Result<Object, ClientError> {
        let path = self.managed(resource.object_path(object.namespace(), object.name()));
        self.object(Method::PUT, path, "application/json", object.to_vec()).await
    }

    pub async fn update_status(&self, resource: &Resource, object: &Object) -> Result<Object, ClientError> {
        let path = self.managed(format!("{}/status", resource.object_path(object.namespace(), object.name())));
        self.object(Method::PUT, path, "application/json", object.to_vec()).await
    }

    /// `subresource` is `""`, `"status"`, `"scale"`.
    pub async fn patch(
        &self,
        resource: &Resource,
        at: &Ref,
        subresource: &str,
        patch: Patch,
    ) -> Result<Object, ClientError> {
        let (media, value) = match patch {
            Patch::Json(value) => ("application/json-patch+json", value),
            Patch::Merge(value) => ("application/merge-patch+json", value),
            Patch::Strategic(value) => ("application/strategic-merge-patch+json", value),
        };
        let path = self.managed(with_subresource(resource.object_path(&at.namespace, &at.name), subresource));
        self.object(Method::PATCH, path, media, value.to_string().into_bytes()).await
    }

    /// Posts to a subresource that is an action: `binding`, `token`, `eviction`.
    pub async fn post(
        &self,
        resource: &Resource,
        at: &Ref,
        subresource: &str,
        body: &Value,
    ) -> Result<Object, ClientError> {
        let path = self.managed(with_subresource(resource.object_path(&at.namespace, &at.name), subresource));
        self.object(Method::POST, path, "application/json", body.to_string().into_bytes()).await
    }

    /// Puts a subresource that is not status: `finalize`.
    pub async fn put(
        &self,
        resource: &Resource,
        at: &Ref,
        subresource: &str,
        body: &Object,
    ) -> Result<Object, ClientError> {
        let path = self.managed(with_subresource(resource.object_path(&at.namespace, &at.name), subresource));
        self.object(Method::PUT, path, "application/json", body.to_vec()).await
    }

    pub async fn delete(&self, resource: &Resource, at: &Ref, options: &DeleteOptions) -> Result<(), ClientError> {
        let body = options.to_value().to_string().into_bytes();
        self.send(Method::DELETE, resource.object_path(&at.namespace, &at.name), "application/json", body)
            .await
            .map(|_| ())
    }

    pub async fn delete_collection(
        &self,
        resource: &Resource,
        namespace: &str,
        query: &Query,
        options: &DeleteOptions,
    ) -> Result<(), ClientError> {
        let uri = format!("{}?{}", resource.collection_path(Some(namespace)), query.encode());
        self.send(Method::DELETE, uri, "application/json", options.to_value().to_string().into_bytes())
            .await
            .map(|_| ())
    }

    /// Any path of the API, as it is: `/version`, `/debug/…`.
    pub async fn raw(&self, path: &str) -> Result<Bytes, ClientError> {
        self.send(Method::GET, path.to_owned(), "", Vec::new()).await.map(|(_, bytes)| bytes)
    }

    /// The same, piece by piece, for what may be larger than memory or take longer than a call.
    pub async fn pieces(&self, path: &str) -> Result<Pieces, ClientError> {
        let call = format!("get {path}");
        let open = self.open(&call, Method::GET, path.to_owned(), "", Vec::new());
        let body = in_time(&call, open).await?.into_body();
        Ok(Pieces { call, body })
    }

    fn managed(&self, path: String) -> String {
        format!("{path}?fieldManager={}", self.manager)
    }

    async fn object(
        &self,
        method: Method,
        uri: String,
        media: &'static str,
        body: Vec<u8>,
    ) -> Result<Object, ClientError> {
        let (call, bytes) = self.send(method, uri, media, body).await?;
        Object::from_slice(&bytes).map_err(|e| ClientError::Answer { call, why: gantry_env::chain(&e) })
    }

    async fn send(
        &self,
        method: Method,
        uri: String,
        media: &'static str,
        body: Vec<u8>,
    ) -> Result<(String, Bytes), ClientError> {
        let call = format!("{} {}", method.as_str().to_lowercase(), uri.split('?').next().unwrap_or(&uri));
        let answer = async { read(&call, self.open(&call, method, uri, media, body).await?.into_body()).await };
        let bytes = in_time(&call, answer).await?;
        Ok((call, bytes))
    }

    async fn open(
        &self,
        call: &str,
        method: Method,
        uri: String,
        media: &'static str,
        body: Vec<u8>,
    ) -> Result<http::Response<Body>, ClientError> {
        let mut request = Request::builder().method(method).uri(uri).header("accept", "application/json");
        if !media.is_empty() {
            request = request.header("content-type", media);
        }
        let request = request
            .body(Body::from(body))
            .map_err(|e| ClientError::Answer { call: call.to_owned(), why: e.to_string() })?;
        let (word, began) = (method_word(request.method()), Instant::now());
        let sent = self.inner.send(request).await;
        let code = sent.as_ref().ok().map(|response| response.status().as_u16());
        self.metrics.call(word, code, began.elapsed());
        let response = sent.map_err(|e| ClientError::Transport { call: call.to_owned(), source: Box::new(e) })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status().as_u16();
        let bytes = read(call, response.into_body()).await?;
        let status =
            serde_json::from_slice::<Value>(&bytes).ok().and_then(|v| Status::from_value(&v)).unwrap_or_else(|| {
                Status::new(code, "Unknown", String::from_utf8_lossy(&bytes[..bytes.len().min(512)]).into_owned())
            });
        Err(ClientError::Api { call: call.to_owned(), status: Box::new(status) })
    }
}

/// An answer that comes in pieces.
pub struct Pieces {
    call: String,
    body: Body,
}

impl Pieces {
    /// The next piece; `None` once all of them were there. An answer that breaks off fails.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            let frame = match tokio::time::timeout(ANSWER_TIMEOUT, self.body.frame()).await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(source))) => {
                    return Err(ClientError::Transport { call: self.call.clone(), source: Box::new(source) });
                }
                Err(late) => {
                    return Err(ClientError::Transport { call: self.call.clone(), source: Box::new(late) });
                }
            };
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }
}

impl Query {
    fn encode(&self) -> String {
        let mut out = String::new();
        let mut add = |key: &str, value: &str| {
            if !value.is_empty() {
                if !out.is_empty() {
                    out.push('&');
                }
                out.push_str(key);
                out.push('=');
                percent_encode(value, &mut out);
            }
        };
        add("labelSelector", &self.label_selector);
        add("fieldSelector", &self.field_selector);
        add("resourceVersion", &self.resource_version);
        add("continue", &self.continue_token);
        if self.limit > 0 {
            add("limit", &self.limit.to_string());
        }
        out
    }
}

fn percent_encode(value: &str, out: &mut String) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

fn method_word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

fn with_subresource(path: String, subresource: &str) -> String {
    if subresource.is_empty() { path } else { format!("{path}/{subresource}") }
}

async fn in_time<T>(call: &str, answer: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
    tokio::time::timeout(ANSWER_TIMEOUT, answer).await.unwrap_or_else(|_| {
        let why = format!("no answer within {} s", ANSWER_TIMEOUT.as_secs());
        let source = std::io::Error::new(std::io::ErrorKind::TimedOut, why);
        Err(ClientError::Transport { call: call.to_owned(), source: Box::new(source) })
    })
}

async fn read(call: &str, body: Body) -> Result<Bytes, ClientError> {
    let collected = Limited::new(body, ANSWER_MAX_BYTES).collect().await;
    collected.map(|b| b.to_bytes()).map_err(|source| ClientError::Transport { call: call.to_owned(), source })
}

fn decode(call: &str, bytes: &[u8]) -> Result<Value, ClientError> {
    serde_json::from_slice(bytes).map_err(|e| ClientError::Answer { call: call.to_owned(), why: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_escaped() {
        let query = Query { field_selector: "spec.nodeName=a b".into(), limit: 5, ..Query::default() };
        assert_eq!(query.encode(), "fieldSelector=spec.nodeName%3Da%20b&limit=5");
    }

    /// A server that takes every call and never answers.
    #[tokio::test(start_paused = true)]
    async fn no_call_waits_for_ever() {
        let silent = tower::service_fn(|_: Request<Body>| {
            std::future::pending::<Result<http::Response<Body>, tower::BoxError>>()
        });
        let client = Client::new(kube::Client::new(silent, "default"), "test");
        let pods = &gantry_kube::resource::POD;
        let error = client.list(pods, None, &Query::default()).await.unwrap_err();
        assert!(gantry_env::chain(&error).ends_with("no answer within 65 s"), "{error}");
        assert!(error.retryable());
        assert!(client.watch(pods, None, &Query::default(), 300).await.is_err_and(|error| error.retryable()));
    }
}
