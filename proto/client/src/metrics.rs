//! What the clients of a process count: their calls, and the work that waits in their queues. The names are those of
//! client-go and of Kubernetes' work queues.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_env::metrics::{Counter, Gauge, Histogram, Text};
use parking_lot::Mutex;
use tokio::time::Instant;

const CALL_SECONDS: &[f64] = &[0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];
const WORK_SECONDS: &[f64] = &[0.00000001, 0.0000001, 0.000001, 0.00001, 0.0001, 0.001, 0.01, 0.1, 1.0, 10.0];
/// Whom our own components call: there is one server, and it is in this process.
const HOST: &str = "in-process";
/// The code of a call that nobody answered, as client-go calls it.
const NO_ANSWER: &str = "<error>";

/// Shared by all clients and queues of a process.
#[derive(Debug, Default)]
pub struct Metrics {
    /// By method and code; 0 where nobody answered.
    calls: Mutex<BTreeMap<(&'static str, u16), u64>>,
    durations: Mutex<BTreeMap<&'static str, Arc<Histogram>>>,
    queues: Mutex<BTreeMap<&'static str, Arc<QueueMetrics>>>,
}

impl Metrics {
    pub(crate) fn call(&self, method: &'static str, code: Option<u16>, took: Duration) {
        *self.calls.lock().entry((method, code.unwrap_or(0))).or_default() += 1;
        let histogram =
            self.durations.lock().entry(method).or_insert_with(|| Arc::new(Histogram::new(CALL_SECONDS))).clone();
        histogram.observe(took.as_secs_f64());
    }

    /// The counters of a queue; queues of one name count together.
    pub(crate) fn queue(&self, name: &'static str) -> Arc<QueueMetrics> {
        self.queues.lock().entry(name).or_default().clone()
    }

    pub fn write(&self, text: &mut Text) {
        text.family("rest_client_requests_total", "counter", "Calls of the API by method and the answer's code");
        for ((method, code), count) in &*self.calls.lock() {
            let code = if *code == 0 { NO_ANSWER.to_owned() } else { code.to_string() };
            let labels = [("code", code.as_str()), ("host", HOST), ("method", method)];
            text.count("rest_client_requests_total", &labels, *count);
        }
        text.family("rest_client_request_duration_seconds", "histogram", "How long calls of the API took");
        for (method, histogram) in &*self.durations.lock() {
            text.histogram("rest_client_request_duration_seconds", &[("host", HOST), ("verb", method)], histogram);
        }
        let queues = self.queues.lock().clone();
        QueueMetrics::write(&queues, text);
    }
}

/// What one work queue counts.
#[derive(Debug)]
pub(crate) struct QueueMetrics {
    adds: Counter,
    retries: Counter,
    depth: Gauge,
    waited: Histogram,
    worked: Histogram,
    /// When each turn that is under way began.
    running: Mutex<Vec<Instant>>,
}

impl Default for QueueMetrics {
    fn default() -> QueueMetrics {
        QueueMetrics {
            adds: Counter::default(),
            retries: Counter::default(),
            depth: Gauge::default(),
            waited: Histogram::new(WORK_SECONDS),
            worked: Histogram::new(WORK_SECONDS),
            running: Mutex::default(),
        }
    }
}

impl QueueMetrics {
    /// A key waits now that did not before.
    pub fn added(&self) {
        self.adds.inc();
        self.depth.inc();
    }

    pub fn retried(&self) {
        self.retries.inc();
    }

    /// A key that waited since then has its turn.
    pub fn taken(&self, since: Instant, now: Instant) {
        self.depth.dec();
        self.waited.observe(now.saturating_duration_since(since).as_secs_f64());
        self.running.lock().push(now);
    }

    /// The turn is over that began then.
    pub fn done(&self, since: Instant) {
        self.worked.observe(since.elapsed().as_secs_f64());
        let mut running = self.running.lock();
        if let Some(at) = running.iter().position(|began| *began == since) {
            running.swap_remove(at);
        }
    }

    fn write(queues: &BTreeMap<&'static str, Arc<QueueMetrics>>, text: &mut Text) {
        let mut one = |name: &str, kind: &str, help: &str, value: &dyn Fn(&QueueMetrics) -> f64| {
            text.family(name, kind, help);
            for (queue, metrics) in queues {
                text.sample(name, &[("name", queue)], value(metrics), None);
            }
        };
        one("workqueue_adds_total", "counter", "Keys that came into the queue", &|m| m.adds.get() as f64);
        one("workqueue_retries_total", "counter", "Keys whose turn failed", &|m| m.retries.get() as f64);
        one("workqueue_depth", "gauge", "Keys that wait", &|m| m.depth.get() as f64);
        let ages = |m: &QueueMetrics| -> Vec<f64> {
            m.running.lock().iter().map(|began| began.elapsed().as_secs_f64()).collect()
        };
        let unfinished = "How long the turns that are under way have taken so far, together";
        one("workqueue_unfinished_work_seconds", "gauge", unfinished, &|m| ages(m).iter().sum());
        let longest = "How long the longest turn has taken so far that is under way";
        one("workqueue_longest_running_processor_seconds", "gauge", longest, &|m| {
            ages(m).into_iter().fold(0.0, f64::max)
        });
        let mut many = |name: &str, help: &str, histogram: &dyn Fn(&QueueMetrics) -> &Histogram| {
            text.family(name, "histogram", help);
            for (queue, metrics) in queues {
                text.histogram(name, &[("name", queue)], histogram(metrics));
            }
        };
        many("workqueue_queue_duration_seconds", "How long keys waited", &|m| &m.waited);
        many("workqueue_work_duration_seconds", "How long turns took", &|m| &m.worked);
    }
}
