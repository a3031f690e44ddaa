//! nodeSelector, node affinity, taints: what a pod says about nodes and nodes about pods.

use gantry_kube::selector::Requirement;
use serde_json::{Map, Value};

/// `nodeSelectorTerms` and `preference`: all expressions of a term hold; an empty term matches nothing.
pub fn term_matches(term: &Value, name: &str, labels: &Map<String, Value>) -> bool {
    let list = |key: &str| term[key].as_array().map(Vec::as_slice).unwrap_or(&[]);
    let (expressions, fields) = (list("matchExpressions"), list("matchFields"));
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let label = |key: &str| labels.get(key).and_then(Value::as_str);
    let field = |key: &str| (key == "metadata.name").then_some(name);
    expressions.iter().all(|e| requirement(e).is_some_and(|r| r.matches(label)))
        && fields.iter().all(|e| requirement(e).is_some_and(|r| r.matches(field)))
}

fn requirement(expression: &Value) -> Option<Requirement> {
    let key = expression["key"].as_str()?.to_owned();
    let values: Vec<String> =
        expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let number = || values.first().and_then(|v| v.parse().ok());
    Some(match expression["operator"].as_str()? {
        "In" => Requirement::In(key, values),
        "NotIn" => Requirement::NotIn(key, values),
        "Exists" => Requirement::Exists(key),
        "DoesNotExist" => Requirement::DoesNotExist(key),
        "Gt" => Requirement::GreaterThan(key, number()?),
        "Lt" => Requirement::LessThan(key, number()?),
        _ => return None,
    })
}

/// nodeSelector and required node affinity.
pub fn selects(spec: &Value, name: &str, labels: &Map<String, Value>) -> bool {
    let selector = spec["nodeSelector"].as_object();
    if !selector.into_iter().flatten().all(|(key, want)| labels.get(key) == Some(want)) {
        return false;
    }
    let required = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    match required["nodeSelectorTerms"].as_array() {
        Some(terms) => terms.iter().any(|term| term_matches(term, name, labels)),
        None => true,
    }
}

pub fn tolerates(toleration: &Value, taint: &Value) -> bool {
    let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
    let (key, effect) = (text(&toleration["key"]), text(&toleration["effect"]));
    if !effect.is_empty() && effect != text(&taint["effect"]) || !key.is_empty() && key != text(&taint["key"]) {
        return false;
    }
    match toleration["operator"].as_str().unwrap_or("Equal") {
        "Exists" => true,
        _ => !key.is_empty() && text(&toleration["value"]) == text(&taint["value"]),
    }
}

/// The first taint of these effects that no toleration answers.
pub fn untolerated<'a>(taints: &'a [Value], tolerations: &[Value], effects: &[&str]) -> Option<&'a Value> {
    let matters = |t: &&Value| t["effect"].as_str().is_some_and(|e| effects.contains(&e));
    taints.iter().filter(matters).find(|taint| !tolerations.iter().any(|t| tolerates(t, taint)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn terms_are_alternatives_and_an_empty_one_matches_nothing() {
        let labels = json!({"zone": "a", "cpus": "8"}).as_object().cloned().unwrap();
        let spec = |terms: Value| {
            json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
        };
        let zone = |z: &str| json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": [z]}]});
        assert!(selects(&spec(json!([zone("b"), zone("a")])), "n", &labels));
        assert!(!selects(&spec(json!([zone("b")])), "n", &labels));
        assert!(!selects(&spec(json!([{}])), "n", &labels));
        assert!(selects(
            &spec(json!([{"matchExpressions": [{"key": "cpus", "operator": "Gt", "values": ["4"]}]}])),
            "n",
            &labels
        ));
        assert!(selects(
            &spec(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}])),
            "n",
            &labels
        ));
        assert!(!selects(&json!({"nodeSelector": {"zone": "b"}}), "n", &labels));
    }

    #[test]
    fn tolerations_answer_taints() {
        let taint = json!({"key": "k", "value": "v", "effect": "NoSchedule"});
        for (toleration, answer) in [
            (json!({"operator": "Exists"}), true),
            (json!({"key": "k", "operator": "Equal", "value": "v"}), true),
            (json!({"key": "k", "value": "w"}), false),
            (json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), false),
        ] {
            assert_eq!(tolerates(&toleration, &taint), answer, "{toleration}");
        }
    }
}
