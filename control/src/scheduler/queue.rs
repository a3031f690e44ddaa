//! Pods that wait for a node: ready ones by priority and age, refused ones until something changes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use gantry_kube::Ref;
use tokio::time::Instant;

use super::snapshot::PodInfo;

const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_CAP: Duration = Duration::from_secs(10);

/// Highest priority first, then the oldest, then by name.
type Order = (Reverse<i64>, String, Ref);

#[derive(Default)]
pub struct Queue {
    ready: BTreeMap<Order, Arc<PodInfo>>,
    /// Refused; nothing has changed since.
    parked: BTreeMap<Ref, Arc<PodInfo>>,
    /// Something changed, but the pod was refused a moment ago.
    backing_off: BTreeMap<(Instant, Ref), Arc<PodInfo>>,
    attempts: HashMap<Ref, (u32, Instant)>,
}

/// How many pods wait for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub ready: usize,
    pub backing_off: usize,
    pub parked: usize,
}

fn order(at: &Ref, pod: &PodInfo) -> Order {
    (Reverse(pod.priority), pod.created.clone(), at.clone())
}

impl Queue {
    /// A pod that is new, or whose content changed.
    pub fn add(&mut self, at: Ref, pod: Arc<PodInfo>) {
        // Our own condition came back: nothing about the pod's wishes is new.
        if self.parked.get(&at).is_some_and(|known| known.same_wishes(&pod)) {
            self.parked.insert(at, pod);
            return;
        }
        if let Some(slot) = self.backing_off.iter().find(|((_, r), known)| *r == at && known.same_wishes(&pod)) {
            let slot = slot.0.clone();
            self.backing_off.insert(slot, pod);
            return;
        }
        self.take_out(&at);
        self.ready.insert(order(&at, &pod), pod);
    }

    pub fn remove(&mut self, at: &Ref) {
        self.take_out(at);
        self.attempts.remove(at);
    }

    fn take_out(&mut self, at: &Ref) {
        self.ready.retain(|(_, _, r), _| r != at);
        self.backing_off.retain(|(_, r), _| r != at);
        self.parked.remove(at);
    }

    pub fn pop(&mut self) -> Option<(Ref, Arc<PodInfo>)> {
        let now = Instant::now();
        while let Some(entry) = self.backing_off.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let ((_, at), pod) = entry.remove_entry();
            self.ready.insert(order(&at, &pod), pod);
        }
        self.ready.pop_first().map(|((_, _, at), pod)| (at, pod))
    }

    /// The pod was refused.
    pub fn park(&mut self, at: Ref, pod: Arc<PodInfo>) {
        let attempts = self.attempts.entry(at.clone()).or_insert((0, Instant::now()));
        *attempts = (attempts.0 + 1, Instant::now());
        self.parked.insert(at, pod);
    }

    /// The pod's bind failed: it comes back after its back-off.
    pub fn retry(&mut self, at: Ref, pod: Arc<PodInfo>) {
        self.park(at, pod);
        self.flush_unschedulable();
    }

    /// Something changed that may make room: every refused pod tries again once its back-off is over.
    pub fn flush_unschedulable(&mut self) {
        self.flush(|_| true);
    }

    /// A pod was placed: only those that look at others may fit now.
    pub fn flush_social(&mut self) {
        self.flush(|pod| !pod.wishes.is_empty());
    }

    /// A claim, a volume or a class changed.
    pub fn flush_claiming(&mut self) {
        self.flush(|pod| !pod.claims.is_empty());
    }

    fn flush(&mut self, concerned: impl Fn(&PodInfo) -> bool) {
        for (at, pod) in self.parked.extract_if(.., |_, pod| concerned(pod)) {
            let (count, since) = self.attempts.get(&at).copied().unwrap_or((1, Instant::now()));
            let wait = BACKOFF_FIRST.saturating_mul(1 << (count - 1).min(8)).min(BACKOFF_CAP);
            self.backing_off.insert((since + wait, at), pod);
        }
    }

    pub fn waiting(&self) -> Waiting {
        Waiting { ready: self.ready.len(), backing_off: self.backing_off.len(), parked: self.parked.len() }
    }

    /// How often the pod was refused so far.
    pub fn refusals(&self, at: &Ref) -> u32 {
        self.attempts.get(at).map_or(0, |(count, _)| *count)
    }

    pub fn next_backoff(&self) -> Option<Instant> {
        self.backing_off.keys().next().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(priority: i64, created: &str) -> Arc<PodInfo> {
        Arc::new(PodInfo {
            priority,
            created: created.into(),
            uid: format!("{priority}{created}"),
            ..PodInfo::default()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn priority_then_age() {
        let mut queue = Queue::default();
        queue.add(Ref::new("a", "young"), pod(0, "2"));
        queue.add(Ref::new("a", "old"), pod(0, "1"));
        queue.add(Ref::new("a", "important"), pod(5, "3"));
        let order: Vec<String> = std::iter::from_fn(|| queue.pop()).map(|(at, _)| at.name).collect();
        assert_eq!(order, ["important", "old", "young"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_pod_waits_for_a_change_and_its_back_off() {
        let (mut queue, at) = (Queue::default(), Ref::new("a", "p"));
        queue.park(at.clone(), pod(0, "1"));
        assert!(queue.pop().is_none() && queue.next_backoff().is_none());
        queue.add(at, pod(0, "1"));
        assert!(queue.pop().is_none(), "its own condition woke it");
        queue.flush_unschedulable();
        assert!(queue.pop().is_none());
        tokio::time::advance(BACKOFF_FIRST).await;
        assert!(queue.pop().is_some());
    }
}
