//! `/livez`, `/readyz` and `/healthz`, as kube-apiserver serves them: one word, or a line for each check; a check by itself
//! (`/livez/etcd`); checks left out (`?exclude=etcd`). Names of checks are those that probes and people know.

mod logs;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gantry_env::metrics::Text;
use gantry_kube::Status;
use http::{HeaderValue, Response, StatusCode, header};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::body::Body;
use super::query::Query;
use super::{resources, respond};
use crate::store::Cache;
use logs::Logs;

/// A store that does not answer for this long is not healthy.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);
/// What a server does once before it is ready: all of it is one step here (`bootstrap::seed`).
const HOOKS: [&str; 4] = [
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/bootstrap-controller",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
];

/// Where checks are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    Livez,
    Readyz,
    Healthz,
}

impl Endpoint {
    pub fn of(segment: &str) -> Option<Endpoint> {
        [Endpoint::Livez, Endpoint::Readyz, Endpoint::Healthz].into_iter().find(|endpoint| endpoint.name() == segment)
    }

    pub fn name(self) -> &'static str {
        match self {
            Endpoint::Livez => "livez",
            Endpoint::Readyz => "readyz",
            Endpoint::Healthz => "healthz",
        }
    }

    /// What is looked at, in the order in which it is told.
    fn checks(self) -> Vec<&'static str> {
        let ready = self == Endpoint::Readyz;
        let mut checks = vec!["ping", "log", "etcd"];
        checks.extend(["etcd-readiness", "informer-sync"].iter().filter(|_| ready));
        checks.extend(HOOKS);
        checks.extend(["shutdown"].iter().filter(|_| ready));
        checks
    }
}

/// How a check went so far.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    holds: bool,
    successes: u64,
    failures: u64,
}

/// What the checks look at.
#[derive(Clone)]
pub struct Health {
    cache: Cache,
    logs: Logs,
    /// The cluster's own objects are there.
    seeded: Arc<AtomicBool>,
    stopping: CancellationToken,
    records: Arc<Mutex<BTreeMap<(&'static str, Endpoint), Record>>>,
}

impl Health {
    pub fn new(cache: Cache, stopping: CancellationToken) -> Health {
        Health { cache, logs: Logs::default(), seeded: Arc::default(), stopping, records: Arc::default() }
    }

    pub fn set_seeded(&self) {
        self.seeded.store(true, Ordering::Release);
    }

    /// Why a check does not hold.
    async fn check(&self, name: &'static str) -> Result<(), String> {
        let in_time = |done: Result<Result<(), String>, tokio::time::error::Elapsed>| match done {
            Ok(done) => done,
            Err(_) => Err(format!("no answer within {} s", STORE_TIMEOUT.as_secs())),
        };
        let holds = |holds: bool, why: &str| if holds { Ok(()) } else { Err(why.to_owned()) };
        match name {
            "log" => self.logs.check().await,
            "etcd" | "etcd-readiness" => {
                let answer = async { self.cache.store().current().await.map(drop).map_err(|e| gantry_env::chain(&e)) };
                in_time(tokio::time::timeout(STORE_TIMEOUT, answer).await)
            }
            "informer-sync" => {
                let caught_up = async { self.cache.fresh().await.map(drop).map_err(|e| gantry_env::chain(&e)) };
                in_time(tokio::time::timeout(STORE_TIMEOUT, caught_up).await)
            }
            "shutdown" => holds(!self.stopping.is_cancelled(), "process is shutting down"),
            hook if HOOKS.contains(&hook) => holds(self.seeded.load(Ordering::Acquire), "not finished"),
            _ => Ok(()),
        }
    }

    async fn noted(&self, name: &'static str, endpoint: Endpoint) -> Result<(), String> {
        let done = self.check(name).await;
        let mut records = self.records.lock();
        let record = records.entry((name, endpoint)).or_default();
        record.holds = done.is_ok();
        if record.holds {
            record.successes += 1;
        } else {
            record.failures += 1;
        }
        done
    }

    /// Answers `/ENDPOINT`.
    pub async fn serve(&self, endpoint: Endpoint, query: &Query) -> Response<Body> {
        let excluded: Vec<&str> = query.all("exclude").collect();
        let mut lines = String::new();
        let mut failed = Vec::new();
        let checks = endpoint.checks();
        for name in &checks {
            if excluded.contains(name) {
                lines.push_str(&format!("[+]{name} excluded: ok\n"));
            } else if let Err(why) = self.noted(name, endpoint).await {
                // Whoever may look here may be anybody.
                lines.push_str(&format!("[-]{name} failed: reason withheld\n"));
                failed.push(format!("{name}: {why}"));
            } else {
                lines.push_str(&format!("[+]{name} ok\n"));
            }
        }
        let mut unknown: Vec<String> =
            excluded.iter().filter(|name| !checks.contains(name)).map(|name| format!("{name:?}")).collect();
        unknown.sort();
        unknown.dedup();
        if !unknown.is_empty() {
            let unknown = unknown.join(",");
            lines.push_str(&format!("warn: some health checks cannot be excluded: no matches for {unknown}\n"));
        }
        let name = endpoint.name();
        if !failed.is_empty() {
            tracing::info!(endpoint = name, failed = failed.join("; "), "health check failed");
            return words(StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}{name} check failed\n"));
        }
        let verbose = query.all("verbose").next().is_some();
        words(StatusCode::OK, if verbose { format!("{lines}{name} check passed\n") } else { "ok".to_owned() })
    }

    /// Answers `/ENDPOINT/CHECK`.
    pub async fn serve_one(&self, endpoint: Endpoint, check: &str) -> Result<Response<Body>, Status> {
        let known = endpoint.checks().into_iter().find(|known| *known == check);
        Ok(match self.noted(known.ok_or_else(resources::no_such_path)?, endpoint).await {
            Ok(()) => words(StatusCode::OK, "ok".to_owned()),
            Err(why) => words(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n")),
        })
    }

    /// What `/metrics/slis` tells: how each check went, as often as it was asked for.
    pub fn write(&self, text: &mut Text) {
        let records = self.records.lock().clone();
        text.family("kubernetes_healthcheck", "gauge", "Whether a check held when it was last asked for");
        for ((name, endpoint), record) in &records {
            let labels = [("name", *name), ("type", endpoint.name())];
            text.sample("kubernetes_healthcheck", &labels, f64::from(u8::from(record.holds)), None);
        }
        text.family("kubernetes_healthchecks_total", "counter", "How often a check held, and how often it did not");
        for ((name, endpoint), record) in &records {
            for (status, count) in [("error", record.failures), ("success", record.successes)] {
                let labels = [("name", *name), ("status", status), ("type", endpoint.name())];
                text.count("kubernetes_healthchecks_total", &labels, count);
            }
        }
    }
}

fn words(code: StatusCode, words: String) -> Response<Body> {
    let mut response = respond::bytes(code, "text/plain; charset=utf-8", words);
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests;
