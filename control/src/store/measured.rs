//! A store whose calls are counted and timed, under the names that dashboards know of etcd: what the API waits for when it
//! waits for its store, whichever that is.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_env::metrics::{Counter, Histogram, Text};
use parking_lot::RwLock;
use tokio::time::Instant;

use super::{BoxFuture, Compare, Expect, Key, Op, Page, Revision, Store, StoreError, Versioned, Watch};

/// The buckets of Kubernetes' own histogram of the name.
const SECONDS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];

#[derive(Debug)]
struct Calls {
    seconds: Histogram,
    errors: Counter,
}

impl Default for Calls {
    fn default() -> Calls {
        Calls { seconds: Histogram::new(SECONDS), errors: Counter::default() }
    }
}

/// The calls by what they do and the kind that they are about.
#[derive(Debug, Default)]
pub struct Metrics(RwLock<BTreeMap<&'static str, BTreeMap<String, Arc<Calls>>>>);

impl Metrics {
    fn calls(&self, operation: &'static str, kind: &str) -> Arc<Calls> {
        if let Some(calls) = self.0.read().get(operation).and_then(|kinds| kinds.get(kind)) {
            return calls.clone();
        }
        self.0.write().entry(operation).or_default().entry(kind.to_owned()).or_default().clone()
    }

    fn note<T>(&self, operation: &'static str, kind: &str, began: Instant, result: &Result<T, StoreError>) {
        let calls = self.calls(operation, kind);
        calls.seconds.observe(began.elapsed().as_secs_f64());
        // A write that came second and a page that is forgotten are answers of a store that works.
        if result.as_ref().is_err_and(|e| !matches!(e, StoreError::Conflict(_) | StoreError::Compacted { .. })) {
            calls.errors.inc();
        }
    }

    pub fn write(&self, text: &mut Text) {
        let all = self.0.read().clone();
        let each = || {
            all.iter().flat_map(|(operation, kinds)| {
                kinds.iter().map(|(kind, calls)| {
                    let (plural, group) = kind.split_once('.').unwrap_or((kind, ""));
                    ([("group", group), ("operation", *operation), ("resource", plural)], calls)
                })
            })
        };
        text.family("etcd_request_duration_seconds", "histogram", "How long the store took, by operation and kind");
        for (labels, calls) in each() {
            text.histogram("etcd_request_duration_seconds", &labels, &calls.seconds);
        }
        text.family("etcd_requests_total", "counter", "Calls of the store, by operation and kind");
        for (labels, calls) in each() {
            text.count("etcd_requests_total", &labels, calls.seconds.count());
        }
        text.family("etcd_request_errors_total", "counter", "Those that failed");
        for (labels, calls) in each() {
            text.count("etcd_request_errors_total", &labels, calls.errors.get());
        }
    }
}

/// What a write does, in one word.
fn operation(compares: &[Compare], ops: &[Op]) -> &'static str {
    match ops.first() {
        Some(Op::Delete { .. }) => "delete",
        Some(Op::Put { key, .. }) if compares.iter().any(|c| c.key == *key && c.expect == Expect::Absent) => "create",
        _ => "update",
    }
}

/// A store with its counters.
pub struct Measured {
    inner: Arc<dyn Store>,
    metrics: Arc<Metrics>,
}

impl Measured {
    pub fn new(inner: Arc<dyn Store>, metrics: Arc<Metrics>) -> Measured {
        Measured { inner, metrics }
    }
}

impl Store for Measured {
    fn get<'a>(&'a self, key: &'a Key, at: Option<Revision>) -> BoxFuture<'a, Result<Option<Versioned>, StoreError>> {
        Box::pin(async move {
            let began = Instant::now();
            let result = self.inner.get(key, at).await;
            self.metrics.note("get", key.kind(), began, &result);
            result
        })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: &'a str,
        limit: usize,
        at: Option<Revision>,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(async move {
            let began = Instant::now();
            let result = self.inner.list(prefix, after, limit, at).await;
            self.metrics.note("list", prefix.split('/').next().unwrap_or(""), began, &result);
            result
        })
    }

    fn write(&self, compares: Vec<Compare>, ops: Vec<Op>) -> BoxFuture<'_, Result<Revision, StoreError>> {
        let operation = operation(&compares, &ops);
        let key = ops.first().map(|op| op.key().clone());
        let write = self.inner.write(compares, ops);
        Box::pin(async move {
            let began = Instant::now();
            let result = write.await;
            self.metrics.note(operation, key.as_ref().map_or("", Key::kind), began, &result);
            result
        })
    }

    fn watch<'a>(&'a self, prefix: &'a str, from: Revision) -> BoxFuture<'a, Result<Box<dyn Watch>, StoreError>> {
        self.inner.watch(prefix, from)
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.compact(revision)
    }

    fn current(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        self.inner.current()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Embedded;
    use bytes::Bytes;

    #[tokio::test]
    async fn what_the_store_does_is_told_by_operation_and_kind() {
        let metrics = Arc::new(Metrics::default());
        let store = Measured::new(Arc::new(Embedded::in_memory().unwrap()), metrics.clone());
        let key = Key::parse("deployments.apps/a/b").unwrap();
        let absent = || vec![Compare { key: key.clone(), expect: Expect::Absent }];
        let put = || vec![Op::Put { key: key.clone(), value: Bytes::from_static(b"{}") }];
        store.write(absent(), put()).await.unwrap();
        assert!(store.write(absent(), put()).await.is_err());
        store.write(Vec::new(), put()).await.unwrap();
        store.get(&key, None).await.unwrap();
        store.write(Vec::new(), vec![Op::Delete { key: key.clone() }]).await.unwrap();
        let mut text = Text::default();
        metrics.write(&mut text);
        let text = text.done();
        for (operation, count) in [("create", 2), ("update", 1), ("get", 1), ("delete", 1)] {
            let labels = format!("{{group=\"apps\",operation=\"{operation}\",resource=\"deployments\"}}");
            assert!(text.contains(&format!("etcd_requests_total{labels} {count}\n")), "{text}");
            assert!(text.contains(&format!("etcd_request_errors_total{labels} 0\n")), "{text}");
        }
    }
}
