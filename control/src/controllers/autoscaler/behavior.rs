//! How fast an autoscaler may go: the highest and lowest of what was wanted lately, and how many pods may come and go in a
//! time. Pure.

use gantry_kube::pod::resources::quantity;
use gantry_kube::{Object, defaults};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// How long fewer pods must be wanted before some go, where an autoscaler does not say.
const DOWN_WINDOW_SECONDS: i64 = 300;
const TOLERANCE: f64 = 0.1;
/// The longest window or period that may be asked for.
const MEMORY_SECONDS: i64 = 3600;

/// The rules of one direction.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    window_seconds: i64,
    select: Select,
    policies: Vec<Policy>,
    pub tolerance: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Select {
    Max,
    Min,
    Disabled,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Policy {
    percent: bool,
    value: i64,
    period_seconds: i64,
}

impl Rules {
    pub fn up(autoscaler: &Object) -> Rules {
        Rules::read(autoscaler.get("/spec/behavior/scaleUp"), &defaults::scale_up_rules(), 0)
    }

    pub fn down(autoscaler: &Object) -> Rules {
        Rules::read(autoscaler.get("/spec/behavior/scaleDown"), &defaults::scale_down_rules(), DOWN_WINDOW_SECONDS)
    }

    fn read(said: Option<&Value>, otherwise: &Value, window_seconds: i64) -> Rules {
        let said = said.unwrap_or(otherwise);
        let policy = |policy: &Value| Policy {
            percent: policy["type"] == "Percent",
            value: policy["value"].as_i64().unwrap_or(0),
            period_seconds: policy["periodSeconds"].as_i64().unwrap_or(0),
        };
        Rules {
            window_seconds: said["stabilizationWindowSeconds"].as_i64().unwrap_or(window_seconds),
            select: match said["selectPolicy"].as_str() {
                Some("Min") => Select::Min,
                Some("Disabled") => Select::Disabled,
                _ => Select::Max,
            },
            policies: said["policies"].as_array().into_iter().flatten().map(policy).collect(),
            tolerance: quantity(&said["tolerance"]).map_or(TOLERANCE, |share| share.milli_value() as f64 / 1000.0),
        }
    }
}

/// What was wanted and done lately.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    begun: bool,
    wanted: Vec<(Timestamp, i64)>,
    /// By how many pods there were more, or fewer.
    scaled: Vec<(Timestamp, i64)>,
}

fn within(at: Timestamp, seconds: i64, now: Timestamp) -> bool {
    now.duration_since(at) < SignedDuration::from_secs(seconds)
}

impl Memory {
    /// An autoscaler that is seen for the first time is taken to have wanted what there is.
    pub fn begin(&mut self, current: i64, now: Timestamp) {
        if !std::mem::replace(&mut self.begun, true) {
            self.wanted.push((now, current));
        }
    }

    pub fn scaled(&mut self, from: i64, to: i64, now: Timestamp) {
        self.scaled.push((now, to - from));
    }

    fn change_within(&self, seconds: i64, now: Timestamp) -> i64 {
        self.scaled.iter().filter(|(at, _)| within(*at, seconds, now)).map(|(_, change)| change).sum()
    }

    fn forget(&mut self, now: Timestamp) {
        self.wanted.retain(|(at, _)| within(*at, MEMORY_SECONDS, now));
        self.scaled.retain(|(at, _)| within(*at, MEMORY_SECONDS, now));
    }
}

/// What is to be done about `desired`, and the reason and message of the condition that tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub replicas: i64,
    pub reason: &'static str,
    pub message: &'static str,
}

/// Within what was wanted in the windows of both directions.
pub fn stabilize(memory: &mut Memory, up: &Rules, down: &Rules, current: i64, desired: i64, now: Timestamp) -> Verdict {
    memory.forget(now);
    let lately = |rules: &Rules| {
        let seconds = rules.window_seconds;
        memory.wanted.iter().filter(move |(at, _)| within(*at, seconds, now)).map(|(_, wanted)| *wanted)
    };
    let least = lately(up).fold(desired, i64::min);
    let most = lately(down).fold(desired, i64::max);
    let replicas = current.max(least).min(most);
    memory.wanted.push((now, desired));
    let (reason, message) = match desired {
        _ if replicas == desired => ("ReadyForNewScale", "recommended size matches current size"),
        _ if desired >= current => (
            "ScaleUpStabilized",
            "recent recommendations were lower than current one, applying the lowest recent recommendation",
        ),
        _ => (
            "ScaleDownStabilized",
            "recent recommendations were higher than current one, applying the highest recent recommendation",
        ),
    };
    Verdict { replicas, reason, message }
}

/// Within the bounds, and no faster than the policies allow.
pub fn limit(
    memory: &Memory,
    up: &Rules,
    down: &Rules,
    (min, max): (i64, i64),
    current: i64,
    desired: i64,
    now: Timestamp,
) -> Verdict {
    if desired > current {
        let fastest = limit_up(memory, up, current, now).max(current);
        let most = max.min(fastest);
        if desired > most {
            let (reason, message) = if max > fastest {
                ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate")
            } else {
                ("TooManyReplicas", "the desired replica count is more than the maximum replica count")
            };
            return Verdict { replicas: most, reason, message };
        }
    } else if desired < current {
        let fastest = limit_down(memory, down, current, now).min(current);
        let least = min.max(fastest);
        if desired < least {
            let (reason, message) = if min < fastest {
                ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate")
            } else {
                ("TooFewReplicas", "the desired replica count is less than the minimum replica count")
            };
            return Verdict { replicas: least, reason, message };
        }
    }
    let message = "the desired count is within the acceptable range";
    Verdict { replicas: desired, reason: "DesiredWithinRange", message }
}

/// What each policy allows, from what there was when its period began.
fn allowed<'a>(
    memory: &'a Memory,
    rules: &'a Rules,
    current: i64,
    now: Timestamp,
    by_percent: impl Fn(f64, f64) -> f64 + 'a,
    sign: i64,
) -> impl Iterator<Item = i64> + 'a {
    rules.policies.iter().map(move |policy| {
        let before = current - memory.change_within(policy.period_seconds, now);
        if policy.percent {
            by_percent(before as f64, policy.value as f64 / 100.0) as i64
        } else {
            before + sign * policy.value
        }
    })
}

fn limit_up(memory: &Memory, rules: &Rules, current: i64, now: Timestamp) -> i64 {
    let mut allowed = allowed(memory, rules, current, now, |before, share| (before * (1.0 + share)).ceil(), 1);
    let chosen = match rules.select {
        Select::Disabled => None,
        Select::Max => allowed.max(),
        Select::Min => allowed.by_ref().min(),
    };
    chosen.unwrap_or(current)
}

fn limit_down(memory: &Memory, rules: &Rules, current: i64, now: Timestamp) -> i64 {
    let mut allowed = allowed(memory, rules, current, now, |before, share| (before * (1.0 - share)).trunc(), -1);
    // The greatest change leaves the fewest.
    let chosen = match rules.select {
        Select::Disabled => None,
        Select::Max => allowed.min(),
        Select::Min => allowed.by_ref().max(),
    };
    chosen.unwrap_or(current)
}
