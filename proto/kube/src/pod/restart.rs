//! Whether a container that has ended is run again: by its own rules and policy, else by its pod's.

use serde_json::Value;

use crate::Object;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

/// A container's rule: an exit with one of these codes, or with none of them, is followed by another run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub among: bool,
    pub codes: Vec<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restart {
    pub policy: RestartPolicy,
    pub rules: Vec<Rule>,
}

impl From<RestartPolicy> for Restart {
    fn from(policy: RestartPolicy) -> Restart {
        Restart { policy, rules: Vec::new() }
    }
}

impl Restart {
    /// Rules count only beside a policy of the container's own, as validation has it.
    pub fn of(pod: &Object, container: &Value) -> Restart {
        let own = container["restartPolicy"].as_str();
        let policy = match own.unwrap_or_else(|| pod.str_at("/spec/restartPolicy")) {
            "Never" => RestartPolicy::Never,
            "OnFailure" => RestartPolicy::OnFailure,
            _ => RestartPolicy::Always,
        };
        let rules = container["restartPolicyRules"].as_array().into_iter().flatten().filter(|_| own.is_some());
        Restart { policy, rules: rules.filter_map(rule).collect() }
    }

    /// After an end with this code. `failed` says whether that is a failure: what a probe had ended is one, whatever its code.
    pub fn again(&self, code: i64, failed: bool) -> bool {
        self.rules.iter().any(|rule| rule.codes.contains(&code) == rule.among)
            || match self.policy {
                RestartPolicy::Always => true,
                RestartPolicy::OnFailure => failed,
                RestartPolicy::Never => false,
            }
    }
}

fn rule(value: &Value) -> Option<Rule> {
    let codes = value["exitCodes"]["values"].as_array().into_iter().flatten().filter_map(Value::as_i64).collect();
    let among = match value["exitCodes"]["operator"].as_str()? {
        "In" => true,
        "NotIn" => false,
        _ => return None,
    };
    (value["action"] == "Restart").then_some(Rule { among, codes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_come_first_then_the_containers_policy_then_the_pods() {
        let pod = Object::from_value(json!({"spec": {"restartPolicy": "OnFailure"}})).unwrap();
        let again = |container: Value, code: i64| Restart::of(&pod, &container).again(code, code != 0);
        assert!(!again(json!({}), 0) && again(json!({}), 1));
        assert!(!again(json!({"restartPolicy": "Never"}), 1) && again(json!({"restartPolicy": "Always"}), 0));
        let ruled = |policy: Value, operator: &str| {
            let exit_codes = json!({"operator": operator, "values": [42, 0]});
            json!({"restartPolicy": policy, "restartPolicyRules": [{"action": "Restart", "exitCodes": exit_codes}]})
        };
        assert!(again(ruled(json!("Never"), "In"), 42) && again(ruled(json!("Never"), "In"), 0));
        assert!(!again(ruled(json!("Never"), "In"), 7) && again(ruled(json!("Never"), "NotIn"), 7));
        assert!(again(ruled(json!("OnFailure"), "In"), 7), "no rule says that it is not");
        assert!(!again(ruled(Value::Null, "In"), 0), "rules without a policy");
    }
}
