//! What the scheduler counts, under the names of kube-scheduler.

use std::time::Duration;

use gantry_env::metrics::{Counter, Gauge, Histogram, Text};

use super::NAME;
use super::queue::Waiting;

/// A millisecond and its doubles.
const SECONDS: &[f64] =
    &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];
const ATTEMPTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0];
const VICTIMS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

/// How attempts end.
const RESULTS: [&str; 3] = ["scheduled", "unschedulable", "error"];

/// How an attempt to place a pod ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Scheduled,
    Unschedulable,
    /// A node was found, and the bind failed.
    Error,
}

#[derive(Debug)]
pub struct Metrics {
    durations: [Histogram; RESULTS.len()],
    /// How many attempts pods took that were placed.
    attempts: Histogram,
    preemptions: Counter,
    victims: Histogram,
    ready: Gauge,
    backing_off: Gauge,
    parked: Gauge,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            durations: std::array::from_fn(|_| Histogram::new(SECONDS)),
            attempts: Histogram::new(ATTEMPTS),
            preemptions: Counter::default(),
            victims: Histogram::new(VICTIMS),
            ready: Gauge::default(),
            backing_off: Gauge::default(),
            parked: Gauge::default(),
        }
    }
}

impl Metrics {
    pub(super) fn attempt(&self, ended: Ended, took: Duration) {
        self.durations[ended as usize].observe(took.as_secs_f64());
    }

    pub(super) fn placed(&self, attempts: u32) {
        self.attempts.observe(f64::from(attempts));
    }

    pub(super) fn preempted(&self, victims: usize) {
        self.preemptions.inc();
        self.victims.observe(victims as f64);
    }

    pub(super) fn waiting(&self, waiting: Waiting) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.ready.set(number(waiting.ready));
        self.backing_off.set(number(waiting.backing_off));
        self.parked.set(number(waiting.parked));
    }

    pub fn write(&self, text: &mut Text) {
        let labels = |result: &'static str| [("profile", NAME), ("result", result)];
        text.family("scheduler_schedule_attempts_total", "counter", "Attempts to place a pod, by how they ended");
        for (result, durations) in RESULTS.iter().zip(&self.durations) {
            text.count("scheduler_schedule_attempts_total", &labels(result), durations.count());
        }
        let name = "scheduler_scheduling_attempt_duration_seconds";
        text.family(name, "histogram", "How long attempts took, the bind with them");
        for (result, durations) in RESULTS.iter().zip(&self.durations) {
            text.histogram(name, &labels(result), durations);
        }
        let name = "scheduler_pod_scheduling_attempts";
        text.family(name, "histogram", "How many attempts it took to place a pod");
        text.histogram(name, &[], &self.attempts);
        let name = "scheduler_pending_pods";
        text.family(name, "gauge", "Pods that wait for a node");
        for (queue, gauge) in [("active", &self.ready), ("backoff", &self.backing_off), ("unschedulable", &self.parked)]
        {
            text.sample(name, &[("queue", queue)], gauge.get() as f64, None);
        }
        text.family("scheduler_preemption_attempts_total", "counter", "Times that room was made for a pod");
        text.count("scheduler_preemption_attempts_total", &[], self.preemptions.get());
        text.family("scheduler_preemption_victims", "histogram", "How many pods had to go each time");
        text.histogram("scheduler_preemption_victims", &[], &self.victims);
    }
}
