//! When answers become a verdict, and where verdicts are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;

use super::Kind;

/// How a probe is asked and believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    pub initial_delay: Duration,
    pub period: Duration,
    pub timeout: Duration,
    pub successes: u32,
    pub failures: u32,
}

impl Rules {
    pub fn from_spec(spec: &Value, kind: Kind) -> Rules {
        let number = |key: &str, default: u64| spec[key].as_u64().filter(|n| *n > 0).unwrap_or(default);
        let count = |key: &str, default: u64| u32::try_from(number(key, default)).unwrap_or(u32::MAX);
        Rules {
            initial_delay: Duration::from_secs(spec["initialDelaySeconds"].as_u64().unwrap_or(0)),
            period: Duration::from_secs(number("periodSeconds", 10)),
            timeout: Duration::from_secs(number("timeoutSeconds", 1)),
            successes: if kind == Kind::Readiness { count("successThreshold", 1) } else { 1 },
            failures: count("failureThreshold", 3),
        }
    }
}

/// Equal answers in a row.
#[derive(Clone, Debug, Default)]
pub struct Streak {
    last: Option<bool>,
    length: u32,
}

impl Streak {
    /// The verdict that the answer completes; `None` while there are too few of its like.
    pub fn feed(&mut self, good: bool, rules: &Rules) -> Option<bool> {
        if self.last == Some(good) {
            self.length = self.length.saturating_add(1);
        } else {
            self.last = Some(good);
            self.length = 1;
        }
        let needed = if good { rules.successes } else { rules.failures };
        (self.length >= needed).then_some(good)
    }
}

/// Why a probe wants a container ended, and the grace period where the probe names its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unhealthy {
    pub message: String,
    pub grace_seconds: Option<i64>,
}

#[derive(Default)]
struct Kept {
    started: BTreeSet<String>,
    ready: BTreeSet<String>,
    unhealthy: BTreeMap<String, Unhealthy>,
}

/// The verdicts on a pod's containers, by container id.
#[derive(Default)]
pub struct Verdicts(Mutex<Kept>);

impl Verdicts {
    pub fn has_started(&self, id: &str) -> bool {
        self.0.lock().started.contains(id)
    }

    /// `true` when that is news; so do the other two.
    pub fn set_started(&self, id: &str) -> bool {
        self.0.lock().started.insert(id.to_owned())
    }

    pub fn set_ready(&self, id: &str, ready: bool) -> bool {
        let mut kept = self.0.lock();
        if ready { kept.ready.insert(id.to_owned()) } else { kept.ready.remove(id) }
    }

    pub fn set_unhealthy(&self, id: &str, why: Unhealthy) -> bool {
        self.0.lock().unhealthy.insert(id.to_owned(), why).is_none()
    }

    pub fn started(&self) -> BTreeSet<String> {
        self.0.lock().started.clone()
    }

    pub fn ready(&self) -> BTreeSet<String> {
        self.0.lock().ready.clone()
    }

    pub fn unhealthy(&self) -> BTreeMap<String, Unhealthy> {
        self.0.lock().unhealthy.clone()
    }

    /// Keeps verdicts on what lives. That a container was to be ended holds as long as there is a record of it: it is
    /// run again, whatever code it ended with.
    pub fn retain(&self, lives: impl Fn(&str) -> bool, is_there: impl Fn(&str) -> bool) {
        let mut kept = self.0.lock();
        kept.started.retain(|id| lives(id));
        kept.ready.retain(|id| lives(id));
        kept.unhealthy.retain(|id, _| is_there(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_verdict_takes_as_many_answers_as_the_rules_say() {
        let rules = Rules::from_spec(&json!({"successThreshold": 2, "failureThreshold": 3}), Kind::Readiness);
        let mut streak = Streak::default();
        let verdicts: Vec<Option<bool>> =
            [true, true, false, false, true, false, false, false].map(|a| streak.feed(a, &rules)).into();
        assert_eq!(verdicts, [None, Some(true), None, None, None, None, None, Some(false)]);
    }

    #[test]
    fn defaults_are_those_of_the_api() {
        let rules = Rules::from_spec(&json!({}), Kind::Liveness);
        assert_eq!((rules.period.as_secs(), rules.timeout.as_secs(), rules.failures), (10, 1, 3));
    }
}
