//! Keys that want a turn of work: each waits at most once, and no key has two turns at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt::Debug;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::metrics::{Metrics, QueueMetrics};

/// Back-off after a failed turn: doubles from the first to the cap.
const RETRY_FIRST: Duration = Duration::from_millis(5);
const RETRY_CAP: Duration = Duration::from_secs(60);

/// A work queue shared by its workers. Cheap to clone.
pub struct WorkQueue<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        WorkQueue { shared: self.shared.clone() }
    }
}

struct Shared<K> {
    state: Mutex<State<K>>,
    notify: Notify,
    metrics: Arc<QueueMetrics>,
}

struct State<K> {
    ready: VecDeque<K>,
    /// Since when.
    waiting: BTreeMap<K, Instant>,
    running: BTreeMap<K, Instant>,
    /// Keys that were added while they ran: they go on once they are done.
    again: BTreeSet<K>,
    later: BTreeMap<(Instant, u64), K>,
    sequence: u64,
    failures: HashMap<K, u32>,
}

impl<K: Clone + Ord + Hash + Send + 'static> Default for WorkQueue<K> {
    fn default() -> Self {
        WorkQueue::new()
    }
}

impl<K: Clone + Ord + Hash + Send + 'static> WorkQueue<K> {
    pub fn new() -> WorkQueue<K> {
        WorkQueue::counted(Arc::default())
    }

    /// One that is told of under a name.
    pub fn named(name: &'static str, metrics: &Metrics) -> WorkQueue<K> {
        WorkQueue::counted(metrics.queue(name))
    }

    fn counted(metrics: Arc<QueueMetrics>) -> WorkQueue<K> {
        let state = State {
            ready: VecDeque::new(),
            waiting: BTreeMap::new(),
            running: BTreeMap::new(),
            again: BTreeSet::new(),
            later: BTreeMap::new(),
            sequence: 0,
            failures: HashMap::new(),
        };
        WorkQueue { shared: Arc::new(Shared { state: Mutex::new(state), notify: Notify::new(), metrics }) }
    }

    pub fn add(&self, key: K) {
        self.shared.state.lock().make_ready(key, &self.shared.metrics);
        self.shared.notify.notify_one();
    }

    pub fn add_after(&self, key: K, wait: Duration) {
        let mut state = self.shared.state.lock();
        state.sequence += 1;
        let slot = (Instant::now() + wait, state.sequence);
        state.later.insert(slot, key);
        drop(state);
        self.shared.notify.notify_one();
    }

    /// Adds the key after a wait that doubles with each failure since [`WorkQueue::forget`].
    pub fn retry(&self, key: K) {
        let failures = {
            let mut state = self.shared.state.lock();
            let count = state.failures.entry(key.clone()).or_insert(0);
            *count += 1;
            *count
        };
        self.shared.metrics.retried();
        let wait = RETRY_FIRST.saturating_mul(1_u32 << (failures - 1).min(20)).min(RETRY_CAP);
        self.add_after(key, wait);
    }

    /// The key succeeded: its next failure waits shortest again.
    pub fn forget(&self, key: &K) {
        self.shared.state.lock().failures.remove(key);
    }

    /// The next key to work on; it counts as running until [`WorkQueue::done`]. Cancel-safe: a key is only taken when returned.
    pub async fn next(&self) -> K {
        loop {
            let wake = {
                let mut state = self.shared.state.lock();
                let now = Instant::now();
                state.promote(now, &self.shared.metrics);
                if let Some(key) = state.ready.pop_front() {
                    let since = state.waiting.remove(&key).unwrap_or(now);
                    state.running.insert(key.clone(), now);
                    self.shared.metrics.taken(since, now);
                    if !state.ready.is_empty() {
                        self.shared.notify.notify_one();
                    }
                    return key;
                }
                state.later.keys().next().map(|(at, _)| *at)
            };
            match wake {
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, self.shared.notify.notified()).await;
                }
                None => self.shared.notify.notified().await,
            }
        }
    }

    pub fn done(&self, key: &K) {
        let mut state = self.shared.state.lock();
        if let Some(since) = state.running.remove(key) {
            self.shared.metrics.done(since);
        }
        if state.again.remove(key) {
            state.make_ready(key.clone(), &self.shared.metrics);
            drop(state);
            self.shared.notify.notify_one();
        }
    }
}

impl<K: Clone + Ord> State<K> {
    fn make_ready(&mut self, key: K, metrics: &QueueMetrics) {
        if self.running.contains_key(&key) {
            self.again.insert(key);
        } else if !self.waiting.contains_key(&key) {
            metrics.added();
            self.waiting.insert(key.clone(), Instant::now());
            self.ready.push_back(key);
        }
    }

    fn promote(&mut self, now: Instant, metrics: &QueueMetrics) {
        while let Some(entry) = self.later.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let key = entry.remove();
            self.make_ready(key, metrics);
        }
    }
}

/// Runs `count` workers until the token ends them. A turn that returns `Err` has logged why and is tried again; one that
/// panics is logged here and tried again too: its key must not take the worker away from all others.
pub async fn run_workers<K, F, R>(queue: WorkQueue<K>, count: usize, stop: CancellationToken, turn: F)
where
    K: Clone + Ord + Hash + Debug + Send + 'static,
    F: Fn(K) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Result<(), ()>> + Send,
{
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..count {
        let (queue, stop, turn) = (queue.clone(), stop.clone(), turn.clone());
        workers.spawn(async move {
            while let Some(key) = stop.run_until_cancelled(queue.next()).await {
                let (turn, taken) = (&turn, key.clone());
                match caught(async move { turn(taken).await }).await {
                    Ok(Ok(())) => queue.forget(&key),
                    Ok(Err(())) => queue.retry(key.clone()),
                    Err(why) => {
                        error!(?key, why, "turn panicked");
                        queue.retry(key.clone());
                    }
                }
                queue.done(&key);
            }
        });
    }
    while workers.join_next().await.is_some() {}
}

/// What the future gives, or the words of its panic; it is not polled again after one.
async fn caught<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let mut work = pin!(work);
    std::future::poll_fn(move |context| {
        match std::panic::catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => {
                let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
                Poll::Ready(Err(text.unwrap_or_else(|| "a panic without words".to_owned())))
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_once_and_never_runs_twice_at_a_time() {
        let queue = WorkQueue::new();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        assert_eq!(queue.next().await, "b");
        queue.done(&"b");
        assert!(tokio::time::timeout(Duration::from_secs(1), queue.next()).await.is_err(), "a had a second turn");
        queue.done(&"a");
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_and_what_works_is_told() {
        let metrics = Metrics::default();
        let queue = WorkQueue::named("test", &metrics);
        let told = |line: &str| {
            let mut text = gantry_env::metrics::Text::default();
            metrics.write(&mut text);
            let text = text.done();
            assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        };
        queue.add("a");
        queue.add("a");
        queue.add("b");
        told("workqueue_depth{name=\"test\"} 2");
        tokio::time::advance(Duration::from_secs(3)).await;
        let key = queue.next().await;
        tokio::time::advance(Duration::from_secs(2)).await;
        told("workqueue_depth{name=\"test\"} 1");
        told("workqueue_unfinished_work_seconds{name=\"test\"} 2");
        queue.retry(key);
        queue.done(&key);
        told("workqueue_queue_duration_seconds_sum{name=\"test\"} 3");
        told("workqueue_work_duration_seconds_sum{name=\"test\"} 2");
        told("workqueue_adds_total{name=\"test\"} 2");
        told("workqueue_retries_total{name=\"test\"} 1");
        told("workqueue_longest_running_processor_seconds{name=\"test\"} 0");
    }

    #[tokio::test(start_paused = true)]
    async fn retries_wait_longer_each_time() {
        let queue = WorkQueue::new();
        let start = Instant::now();
        for _ in 0..3 {
            queue.retry("a");
            let key = queue.next().await;
            queue.done(&key);
        }
        assert_eq!(start.elapsed().as_millis() / 5, 7, "5 + 10 + 20 ms");
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_panics_takes_neither_its_worker_nor_its_key_away() {
        let (queue, stop) = (WorkQueue::new(), CancellationToken::new());
        let turns = Arc::new(Mutex::new(Vec::new()));
        queue.add("bad");
        queue.add("good");
        let (seen, end) = (turns.clone(), stop.clone());
        run_workers(queue, 1, stop, move |key| {
            let (seen, end) = (seen.clone(), end.clone());
            async move {
                let tries = {
                    let mut seen = seen.lock();
                    seen.push(key);
                    seen.iter().filter(|k| **k == key).count()
                };
                assert!(key != "bad" || tries > 2, "try {tries}");
                if key == "bad" {
                    end.cancel();
                }
                Ok(())
            }
        })
        .await;
        assert_eq!(*turns.lock(), ["bad", "good", "bad", "bad"]);
    }
}
