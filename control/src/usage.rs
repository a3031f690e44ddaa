//! What nodes and pods use, for metrics.k8s.io: fetched from the nodes' `/metrics/resource` when somebody asks, and kept for
//! a moment. Nothing is fetched while nobody asks.
//!
//! A rate takes two readings. Where the one before is too old, or was never made, a second follows the first at once, over a
//! short window that the answer names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use gantry_kube::Status;
use tokio::time::Instant;

pub mod scrape;

pub use scrape::{Measure, PodMeasure, Scrape};

/// A reading that is no older answers again, as metrics-server's default resolution has it.
const FRESH: Duration = Duration::from_secs(15);
/// A rate over a longer time says nothing of now.
const WINDOW_MAX: Duration = Duration::from_secs(120);
/// Between two readings of a node that nobody asked about before: more than a node keeps its own.
const WINDOW_FIRST: Duration = Duration::from_millis(1200);
/// A node that takes longer is left out.
const NODE_TIMEOUT: Duration = Duration::from_secs(6);
/// Nodes that are asked at a time.
const NODES_AT_ONCE: usize = 32;

/// Two readings of one node.
#[derive(Clone, Debug, Default)]
pub struct Window {
    older: Arc<Scrape>,
    newer: Arc<Scrape>,
}

impl Window {
    pub fn node(&self) -> Option<Measure> {
        scrape::node(&self.older, &self.newer)
    }

    pub fn pod(&self, namespace: &str, name: &str) -> Option<PodMeasure> {
        scrape::pod(&self.older, &self.newer, namespace, name)
    }
}

#[derive(Default)]
struct Kept {
    window: Option<Window>,
    read_at: Option<Instant>,
}

/// The readings of every node that was asked about. A node's entry is locked while it is read: who asks meanwhile waits for
/// the same reading.
#[derive(Default)]
pub struct Usage {
    nodes: parking_lot::Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<Kept>>>>,
}

impl Usage {
    /// What the named nodes use; those that cannot be read are left out.
    pub async fn of<F>(&self, names: BTreeSet<String>, fetch: impl Fn(String) -> F) -> BTreeMap<String, Window>
    where
        F: Future<Output = Result<Scrape, Status>>,
    {
        let fetch = &fetch;
        let read = futures::stream::iter(names).map(|name| async move {
            let kept = self.nodes.lock().entry(name.clone()).or_default().clone();
            match tokio::time::timeout(NODE_TIMEOUT, window(&kept, || fetch(name.clone()))).await {
                Ok(Ok(window)) => Some((name, window)),
                Ok(Err(status)) => {
                    tracing::debug!(node = name, error = status.message, "the node does not tell what it uses");
                    None
                }
                Err(_) => {
                    tracing::debug!(node = name, "the node took too long to tell what it uses");
                    None
                }
            }
        });
        let mut read = read.buffer_unordered(NODES_AT_ONCE);
        let mut found = BTreeMap::new();
        while let Some(one) = read.next().await {
            found.extend(one);
        }
        found
    }

    /// Forgets nodes that are no more.
    pub fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.nodes.lock().retain(|name, _| exists(name));
    }
}

async fn window<F>(kept: &tokio::sync::Mutex<Kept>, fetch: impl Fn() -> F) -> Result<Window, Status>
where
    F: Future<Output = Result<Scrape, Status>>,
{
    let mut kept = kept.lock().await;
    let age = kept.read_at.map(|at| at.elapsed());
    if let Some(window) = kept.window.as_ref().filter(|_| age.is_some_and(|age| age < FRESH)) {
        return Ok(window.clone());
    }
    let first = Arc::new(fetch().await?);
    let before = kept.window.take().map(|window| window.newer).filter(|_| age.is_some_and(|age| age <= WINDOW_MAX));
    let window = match before {
        Some(older) => Window { older, newer: first },
        None => {
            tokio::time::sleep(WINDOW_FIRST).await;
            Window { older: first, newer: Arc::new(fetch().await?) }
        }
    };
    kept.window = Some(window.clone());
    kept.read_at = Some(Instant::now());
    Ok(window)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[tokio::test(start_paused = true)]
    async fn a_node_is_read_when_it_is_asked_about_and_no_more_often() {
        let (usage, reads, begun) = (Usage::default(), AtomicU64::new(0), Instant::now());
        let fetch = |name: String| {
            reads.fetch_add(1, Ordering::Relaxed);
            let (begun, gone) = (begun, name == "gone");
            async move {
                let at = begun.elapsed().as_millis();
                // A quarter of a core.
                let text = format!(
                    "node_cpu_usage_seconds_total {} {at}\nnode_memory_working_set_bytes 4096 {at}\n",
                    at as f64 / 4000.0
                );
                if gone { Err(Status::unavailable("gone")) } else { Ok(scrape::parse(&text, 0)) }
            }
        };
        let ask = async |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            let found = usage.of(names, fetch).await;
            let one = |w: &Window| w.node().map(|m| (m.cpu_nano_cores / 1_000_000, m.window_millis)).unwrap();
            found.iter().map(|(name, window)| (name.clone(), one(window))).collect::<BTreeMap<_, _>>()
        };
        let count = || reads.load(Ordering::Relaxed);
        assert_eq!(ask(&["a", "gone"]).await, BTreeMap::from([("a".to_owned(), (250, 1200))]));
        assert_eq!(count(), 3, "two readings of the one, a try of the other");
        tokio::time::advance(FRESH / 2).await;
        ask(&["a"]).await;
        assert_eq!(count(), 3);
        tokio::time::advance(FRESH).await;
        let later = ask(&["a"]).await["a"];
        assert_eq!((later, count()), ((250, (FRESH + FRESH / 2).as_millis() as i64), 4));
        tokio::time::advance(WINDOW_MAX * 2).await;
        assert_eq!(ask(&["a"]).await["a"], (250, 1200), "a reading of long ago is none");
        assert_eq!(count(), 6);
        usage.retain(|name| name != "a");
        assert_eq!(usage.nodes.lock().len(), 1);
    }
}
