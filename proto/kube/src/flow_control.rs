//! The objects of flow control that every cluster has: one level that is never held up, and one for what no other flow takes.

use serde_json::{Value, json};

use crate::resource::{self, Resource};

const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// The kind, the name and the spec of each.
pub fn mandatory() -> [(&'static Resource, &'static str, Value); 4] {
    let group = |name: &str| json!({"kind": "Group", "group": {"name": name}});
    let flow = |level: &str, precedence: i64, method: Option<&str>, subjects: &[&str]| {
        let everything =
            json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]});
        let mut spec = json!({
            "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence,
            "rules": [{
                "subjects": subjects.iter().map(|name| group(name)).collect::<Vec<_>>(), "resourceRules": [everything],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            }],
        });
        if let Some(method) = method {
            spec["distinguisherMethod"] = json!({"type": method});
        }
        spec
    };
    let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    let limited = json!({"nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"}});
    let all = ["system:unauthenticated", "system:authenticated"];
    [
        (&resource::PRIORITY_LEVEL_CONFIGURATION, "catch-all", json!({"type": "Limited", "limited": limited})),
        (&resource::PRIORITY_LEVEL_CONFIGURATION, "exempt", exempt),
        (&resource::FLOW_SCHEMA, "exempt", flow("exempt", 1, None, &["system:masters"])),
        (&resource::FLOW_SCHEMA, "catch-all", flow("catch-all", 10_000, Some("ByUser"), &all)),
    ]
}

/// The spec that an object of that kind and name has to have, if it is one of these.
pub fn fixed_spec(kind: &Resource, name: &str) -> Option<Value> {
    mandatory().into_iter().find(|(of, its, _)| *of == kind && *its == name).map(|(_, _, spec)| spec)
}

/// The metadata that it is made with.
pub fn metadata(name: &str) -> Value {
    json!({"name": name, "annotations": {AUTO_UPDATE: "true"}})
}
