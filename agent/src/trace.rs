//! When each pod passed the agent's steps: bounded, in memory, asked for by `gantry trace`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use gantry_env::{Env, format_micros};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::config::Programmed;

/// Pods that are remembered.
const PODS_MAX: usize = 512;
/// Marks that are remembered of one pod.
const MARKS_MAX: usize = 64;

/// A record shared by everything in the agent that works on pods. Cheap to clone.
#[derive(Clone)]
pub struct Trace {
    env: Env,
    programmed: Option<Programmed>,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    pods: HashMap<String, Vec<(u8, &'static str, Timestamp)>>,
    order: VecDeque<String>,
}

impl Trace {
    pub fn new(env: Env, programmed: Option<Programmed>) -> Trace {
        Trace { env, programmed, kept: Arc::default() }
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
        let led = self.programmed.as_ref().and_then(|programmed| programmed(uid));
        let mark =
            |(step, what, at): (u8, &str, Timestamp)| json!({"step": step, "what": what, "at": format_micros(at)});
        let marks = kept.pods.get(uid).into_iter().flatten().copied();
        let steps: Vec<Value> = marks.chain(led.map(|at| (10, "services lead to it", at))).map(mark).collect();
        json!({"now": format_micros(self.env.clock.now()), "steps": steps})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_time_counts_and_old_pods_are_forgotten() {
        let programmed = |uid: &str| (uid == "a").then_some(Timestamp::UNIX_EPOCH);
        let trace = Trace::new(Env::system(), Some(Arc::new(programmed)));
        trace.mark("a", 7, "heard");
        let first = trace.get("a")["steps"].clone();
        assert_eq!((&first[0]["step"], &first[1]["step"]), (&json!(7), &json!(10)));
        trace.mark("a", 7, "heard");
        assert_eq!(trace.get("a")["steps"], first);
        for n in 0..PODS_MAX {
            trace.mark(&n.to_string(), 7, "heard");
        }
        assert_eq!(trace.get("a")["steps"].as_array().map(Vec::len), Some(1), "what others know is theirs to forget");
    }
}
