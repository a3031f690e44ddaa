//! What a pod's failure means for its Job, and which successes are enough.

use gantry_kube::Object;
use serde_json::Value;

use super::indexes::{self, Indexes};
use crate::controllers::informers::{JobPod, Pod};

/// What is done about a pod that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Count,
    Ignore,
    FailIndex,
    /// The whole Job fails, with this message.
    FailJob(String),
}

pub fn verdict(job: &Object, pod: &Pod, run: &JobPod) -> Verdict {
    let rules = job.array_at("/spec/podFailurePolicy/rules");
    let matched = rules.iter().enumerate().find_map(|(n, rule)| Some((n, rule, matches(rule, pod, run)?)));
    let Some((n, rule, why)) = matched else { return Verdict::Count };
    match rule["action"].as_str().unwrap_or("") {
        "FailJob" => Verdict::FailJob(format!("{why} matching FailJob rule at index {n}")),
        "FailIndex" => Verdict::FailIndex,
        "Ignore" => Verdict::Ignore,
        _ => Verdict::Count,
    }
}

fn matches(rule: &Value, pod: &Pod, run: &JobPod) -> Option<String> {
    let at = pod.reference();
    if let Some(patterns) = rule["onPodConditions"].as_array() {
        let holds = |pattern: &&Value| {
            run.conditions
                .iter()
                .any(|(kind, status)| pattern["type"] == kind.as_str() && pattern["status"] == status.as_str())
        };
        let found = patterns.iter().find(holds)?;
        return Some(format!("Pod {at} has condition {}", found["type"].as_str().unwrap_or("")));
    }
    let asked = rule.get("onExitCodes")?;
    let listed =
        |code: i64| asked["values"].as_array().is_some_and(|values| values.iter().any(|v| v.as_i64() == Some(code)));
    let wanted = |code: i64| listed(code) == (asked["operator"] == "In");
    let named = |name: &str| asked["containerName"].as_str().is_none_or(|only| only == name);
    // A container that did not fail tells nothing.
    let (name, code) = run.exits.iter().find(|(name, code)| *code != 0 && named(name) && wanted(*code))?;
    Some(format!("Container {name} for pod {at} failed with exit code {code}"))
}

/// The first rule of the success policy that the completed indexes satisfy.
pub fn success_rule(job: &Object, completed: &Indexes, completions: i64) -> Option<usize> {
    job.array_at("/spec/successPolicy/rules").iter().position(|rule| {
        let of = rule["succeededIndexes"].as_str().map(|text| indexes::parse(text, completions));
        let done = of.as_ref().map_or(completed.len(), |of| of.intersection(completed).count());
        match (rule["succeededCount"].as_u64(), of) {
            (Some(count), _) => done as u64 >= count,
            (None, Some(of)) => done == of.len(),
            (None, None) => false,
        }
    })
}
