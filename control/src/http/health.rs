//! `/livez`, `/readyz` and `/healthz`: one word, or one line a check.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gantry_kube::Status;
use http::{Response, StatusCode};

use super::body::Body;
use super::query::Query;
use super::respond;
use crate::store::Cache;

/// A store that does not answer for this long is not healthy.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the checks look at.
#[derive(Clone)]
pub struct Health {
    cache: Cache,
    /// The cluster's own objects are there.
    seeded: Arc<AtomicBool>,
    stopping: tokio_util::sync::CancellationToken,
}

impl Health {
    pub fn new(cache: Cache, stopping: tokio_util::sync::CancellationToken) -> Health {
        Health { cache, seeded: Arc::default(), stopping }
    }

    pub fn set_seeded(&self) {
        self.seeded.store(true, Ordering::Release);
    }

    /// The checks of an endpoint with what they found.
    async fn checks(&self, endpoint: &str) -> Vec<(&'static str, bool)> {
        let answered = tokio::time::timeout(STORE_TIMEOUT, self.cache.fresh()).await;
        let mut checks = vec![("ping", true), ("store", matches!(answered, Ok(Ok(_))))];
        if endpoint != "livez" {
            checks.push(("bootstrap", self.seeded.load(Ordering::Acquire)));
        }
        if endpoint == "readyz" {
            checks.push(("shutdown", !self.stopping.is_cancelled()));
        }
        checks
    }

    /// Answers `/ENDPOINT` and `/ENDPOINT/CHECK`.
    pub async fn serve(&self, endpoint: &str, check: Option<&str>, query: &Query) -> Result<Response<Body>, Status> {
        let mut checks = self.checks(endpoint).await;
        if let Some(check) = check {
            checks.retain(|(name, _)| *name == check);
            if checks.is_empty() {
                return Err(super::resources::no_such_path());
            }
        }
        checks.retain(|(name, _)| !query.all("exclude").any(|excluded| excluded == *name));
        let failed: Vec<&str> = checks.iter().filter(|(_, ok)| !ok).map(|(name, _)| *name).collect();
        if failed.is_empty() && !query.flag("verbose") {
            return Ok(respond::text("ok"));
        }
        let lines: String = checks
            .iter()
            .map(
                |(name, ok)| {
                    if *ok { format!("[+]{name} ok\n") } else { format!("[-]{name} failed: reason withheld\n") }
                },
            )
            .collect();
        let (code, word) =
            if failed.is_empty() { (StatusCode::OK, "passed") } else { (StatusCode::INTERNAL_SERVER_ERROR, "failed") };
        Ok(respond::bytes(code, "text/plain; charset=utf-8", format!("{lines}{endpoint} check {word}\n")))
    }
}
