//! When a pod passed which step of its way, as this process saw it: bounded, in memory, never written anywhere.
//!
//! Steps 1 to 6 of the way of a pod are the control service's; the node's agent keeps the rest, and `gantry trace` joins
//! the two by uid.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use gantry_env::{Clock, format_micros};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

pub const PODS_MAX: usize = 4096;

/// A step of a pod's way through the control service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The request arrived.
    Received = 1,
    /// It is authenticated, authorised, admitted and validated.
    Admitted = 2,
    /// It is durable.
    Stored = 3,
    /// Watchers have been told.
    Published = 4,
    /// A controller asked for it (for a pod that has an owner: its creation by that controller).
    Controlled = 5,
    /// It is bound to a node.
    Bound = 6,
}

impl Step {
    pub fn name(self) -> &'static str {
        match self {
            Step::Received => "received",
            Step::Admitted => "admitted",
            Step::Stored => "stored",
            Step::Published => "published",
            Step::Controlled => "controlled",
            Step::Bound => "bound",
        }
    }
}

#[derive(Default)]
struct Pods {
    steps: HashMap<String, BTreeMap<Step, Timestamp>>,
    /// Oldest first, so that the record stays bounded.
    order: VecDeque<String>,
}

/// The record. Clones share it.
#[derive(Clone)]
pub struct Trace {
    clock: Clock,
    pods: Arc<Mutex<Pods>>,
}

impl Trace {
    pub fn new(clock: Clock) -> Trace {
        Trace { clock, pods: Arc::default() }
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Notes that the pod passed `step` at `at`. The first time counts.
    pub fn record(&self, uid: &str, step: Step, at: Timestamp) {
        if uid.is_empty() {
            return;
        }
        let mut pods = self.pods.lock();
        if !pods.steps.contains_key(uid) {
            if pods.order.len() >= PODS_MAX
                && let Some(oldest) = pods.order.pop_front()
            {
                pods.steps.remove(&oldest);
            }
            pods.order.push_back(uid.to_owned());
        }
        pods.steps.entry(uid.to_owned()).or_default().entry(step).or_insert(at);
    }

    /// The steps of a pod as JSON: `{"uid", "now", "steps": [{"step": 1, "what", "at"}]}`; no steps where none are kept.
    pub fn report(&self, uid: &str) -> Value {
        let pods = self.pods.lock();
        let steps: Vec<Value> = pods
            .steps
            .get(uid)
            .into_iter()
            .flatten()
            .map(|(step, at)| json!({"step": *step as u8, "what": step.name(), "at": format_micros(*at)}))
            .collect();
        json!({"uid": uid, "now": format_micros(self.clock.now()), "steps": steps})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_is_bounded_and_the_first_time_counts() {
        let trace = Trace::new(Clock::system());
        let at = |seconds| Timestamp::from_second(seconds).unwrap_or_default();
        trace.record("a", Step::Received, at(0));
        trace.record("a", Step::Received, at(1));
        trace.record("a", Step::Bound, at(1));
        let report = trace.report("a");
        assert_eq!(report["steps"][0]["at"], "1970-01-01T00:00:00.000000Z");
        assert_eq!(report["steps"][1], json!({"step": 6, "what": "bound", "at": "1970-01-01T00:00:01.000000Z"}));
        for i in 0..PODS_MAX {
            trace.record(&format!("p{i}"), Step::Stored, at(2));
        }
        assert_eq!(trace.report("a")["steps"], json!([]));
    }
}
