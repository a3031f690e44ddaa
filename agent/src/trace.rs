//! When each pod passed the agent's steps: bounded, in memory, asked for by `gantry trace`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use gantry_env::{Env, format_micros};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

/// Pods that are remembered.
const PODS_MAX: usize = 512;
/// Marks that are remembered of one pod.
const MARKS_MAX: usize = 64;

/// A record shared by everything in the agent that works on pods. Cheap to clone.
#[derive(Clone)]
pub struct Trace {
    env: Env,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    pods: HashMap<String, Vec<(u8, &'static str, Timestamp)>>,
    order: VecDeque<String>,
}

impl Trace {
    pub fn new(env: Env) -> Trace {
        Trace { env, kept: Arc::default() }
    }

    /// The pod passed a step (of the ten in ARCHITECTURE) just now. The first time counts.
    pub fn mark(&self, uid: &str, step: u8, what: &'static str) {
        let now = self.env.clock.now();
        let mut kept = self.kept.lock();
        if !kept.pods.contains_key(uid) {
            kept.order.push_back(uid.to_owned());
            if kept.order.len() > PODS_MAX
                && let Some(oldest) = kept.order.pop_front()
            {
                kept.pods.remove(&oldest);
            }
        }
        let marks = kept.pods.entry(uid.to_owned()).or_default();
        if marks.len() < MARKS_MAX && !marks.iter().any(|(s, w, _)| (*s, *w) == (step, what)) {
            marks.push((step, what, now));
        }
    }

    /// `{"now": …, "steps": [{"step", "what", "at"}]}`: the reader compares `now` with its own clock.
    pub fn get(&self, uid: &str) -> Value {
        let kept = self.kept.lock();
        let mark =
            |(step, what, at): &(u8, &str, Timestamp)| json!({"step": step, "what": what, "at": format_micros(*at)});
        let steps: Vec<Value> = kept.pods.get(uid).into_iter().flatten().map(mark).collect();
        json!({"now": format_micros(self.env.clock.now()), "steps": steps})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_time_counts_and_old_pods_are_forgotten() {
        let trace = Trace::new(Env::system());
        trace.mark("a", 7, "heard");
        let first = trace.get("a")["steps"].clone();
        trace.mark("a", 7, "heard");
        assert_eq!(trace.get("a")["steps"], first);
        for n in 0..PODS_MAX {
            trace.mark(&n.to_string(), 7, "heard");
        }
        assert_eq!(trace.get("a")["steps"], json!([]));
    }
}
