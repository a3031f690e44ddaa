//! When many nodes fall silent at once it is rather the network, or ourselves: evictions then slow down or stop.
//!
//! Kubernetes' rules: nodes are tainted NoExecute one by one, at a rate of their zone's; a zone of which more than half is
//! lost slows down; and when no node of any zone is ready, nobody is evicted at all.

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_kube::Object;
use tokio::time::Instant;

/// One node in so long (0.1/s), and in a zone that is partly lost (0.01/s).
const EVERY: Duration = Duration::from_secs(10);
const EVERY_WHILE_PARTIAL: Duration = Duration::from_secs(100);
/// A zone of at most so many nodes evicts nobody while it is partly lost.
const SMALL_MAX: usize = 50;
/// Partly lost: more than two nodes, and at least so many percent of the zone.
const PARTIAL_MORE_THAN: usize = 2;
const PARTIAL_PERCENT: usize = 55;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    pub ready: usize,
    pub lost: usize,
}

impl Zone {
    /// The pause between two nodes; `None` where no node may be tainted.
    fn pause(self) -> Option<Duration> {
        let all = self.ready + self.lost;
        let partial = self.ready > 0 && self.lost > PARTIAL_MORE_THAN && self.lost * 100 >= all * PARTIAL_PERCENT;
        match partial {
            false => Some(EVERY),
            true => (all > SMALL_MAX).then_some(EVERY_WHILE_PARTIAL),
        }
    }
}

pub fn zone_of(node: &Object) -> String {
    let label = |key: &str| node.labels().and_then(|l| l.get(key)).and_then(|v| v.as_str()).unwrap_or("");
    format!("{}/{}", label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
}

/// The zones as one pass finds them, and when each last lost a node to a taint.
#[derive(Debug, Default)]
pub struct Zones {
    now: BTreeMap<String, Zone>,
    tainted: BTreeMap<String, Instant>,
}

impl Zones {
    /// Takes the zone and readiness of every node.
    pub fn count(&mut self, nodes: impl IntoIterator<Item = (String, bool)>) {
        self.now.clear();
        for (zone, ready) in nodes {
            let zone = self.now.entry(zone).or_default();
            if ready { zone.ready += 1 } else { zone.lost += 1 }
        }
        self.tainted.retain(|zone, _| self.now.contains_key(zone));
    }

    pub fn all_lost(&self) -> bool {
        self.now.values().all(|zone| zone.ready == 0)
    }

    /// Whether a node of the zone that is not ready may get its NoExecute taint now: one node in each pause.
    pub fn permit(&mut self, zone: &str, now: Instant) -> bool {
        if self.all_lost() {
            return false;
        }
        let Some(pause) = self.now.get(zone).copied().unwrap_or_default().pause() else { return false };
        if self.tainted.get(zone).is_some_and(|last| now - *last < pause) {
            return false;
        }
        self.tainted.insert(zone.to_owned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zones(all: &[(&str, usize, usize)]) -> Zones {
        let mut zones = Zones::default();
        zones.count(
            all.iter().flat_map(|(zone, ready, lost)| (0..ready + lost).map(move |n| ((*zone).to_owned(), n < *ready))),
        );
        zones
    }

    #[tokio::test(start_paused = true)]
    async fn one_node_in_ten_seconds() {
        let mut zones = zones(&[("a", 9, 2)]);
        assert!(zones.permit("a", Instant::now()));
        assert!(!zones.permit("a", Instant::now()));
        tokio::time::advance(EVERY).await;
        assert!(zones.permit("a", Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_zone_that_is_partly_lost_slows_down_or_waits() {
        assert!(!zones(&[("a", 3, 4)]).permit("a", Instant::now()));
        let mut large = zones(&[("a", 40, 60)]);
        assert!(large.permit("a", Instant::now()));
        tokio::time::advance(EVERY).await;
        assert!(!large.permit("a", Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_evicted_when_nobody_is_ready() {
        assert!(!zones(&[("a", 0, 3), ("b", 0, 1)]).permit("a", Instant::now()));
        assert!(zones(&[("a", 0, 3), ("b", 1, 0)]).permit("a", Instant::now()));
    }
}
