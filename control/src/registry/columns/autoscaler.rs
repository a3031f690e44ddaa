//! Rows of autoscalers.

use gantry_kube::Object;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{age, name};

/// Metrics shown before "more".
const SHOWN_MAX: usize = 2;
const UNKNOWN: &str = "<unknown>";

pub(super) fn cells(object: &Object, now: Timestamp) -> Vec<Value> {
    let target = |field: &str| object.str_at(&format!("/spec/scaleTargetRef/{field}"));
    let min = object.i64_at("/spec/minReplicas");
    vec![
        name(object),
        json!(format!("{}/{}", target("kind"), target("name"))),
        json!(targets(object)),
        json!(min.map_or_else(|| "<unset>".to_owned(), |min| min.to_string())),
        json!(object.i64_at("/spec/maxReplicas").unwrap_or(0)),
        json!(object.i64_at("/status/currentReplicas").unwrap_or(0)),
        age(object, now),
    ]
}

/// What is, over what is wanted: `cpu: 12%/80%, memory: 3Mi/1Gi`.
fn targets(object: &Object) -> String {
    let (specs, current) = (object.array_at("/spec/metrics"), object.array_at("/status/currentMetrics"));
    let all: Vec<String> =
        specs.iter().enumerate().map(|(i, spec)| target(spec, current.get(i).unwrap_or(&Value::Null))).collect();
    match all.len() {
        0 => "<none>".to_owned(),
        count if count > SHOWN_MAX => format!("{} + {} more...", all[..SHOWN_MAX].join(", "), count - SHOWN_MAX),
        _ => all.join(", "),
    }
}

fn target(spec: &Value, status: &Value) -> String {
    let source = match spec["type"].as_str().unwrap_or("") {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        _ => return "<unknown type>".to_owned(),
    };
    let (wanted, current) = (&spec[source]["target"], &status[source]["current"]);
    let pair = |field: &str| {
        let current = current[field].as_str().unwrap_or(UNKNOWN);
        format!("{current}/{}", wanted[field].as_str().unwrap_or(UNKNOWN))
    };
    let averaged = wanted["averageValue"].is_string();
    if !matches!(source, "resource" | "containerResource") {
        return match (source, averaged) {
            ("pods", _) => pair("averageValue"),
            (_, true) => format!("{} (avg)", pair("averageValue")),
            (_, false) => pair("value"),
        };
    }
    let share = |of: &Value| of["averageUtilization"].as_i64().map(|percent| format!("{percent}%"));
    let cell = if averaged {
        pair("averageValue")
    } else {
        let wanted = share(wanted).unwrap_or_else(|| "<auto>".to_owned());
        format!("{}/{wanted}", share(current).unwrap_or_else(|| UNKNOWN.to_owned()))
    };
    format!("{}: {cell}", spec[source]["name"].as_str().unwrap_or(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_worded_as_kubectl_does() {
        let metric = |kind: &str, source: &str, rest: Value| json!({"type": kind, source: rest});
        let share = |name: &str| json!({"name": name, "target": {"averageUtilization": 80}});
        let cpu = metric("Resource", "resource", share("cpu"));
        let used = metric("Resource", "resource", json!({"name": "cpu", "current": {"averageUtilization": 7}}));
        let of = |specs: Value, current: Value| {
            targets(
                &Object::from_value(json!({"spec": {"metrics": specs}, "status": {"currentMetrics": current}}))
                    .unwrap(),
            )
        };
        assert_eq!(of(json!([]), json!([])), "<none>");
        assert_eq!(of(json!([cpu]), json!([])), "cpu: <unknown>/80%");
        assert_eq!(of(json!([cpu]), json!([used])), "cpu: 7%/80%");
        let value = |kind: &str, source: &str, field: &str| metric(kind, source, json!({"target": {field: "5"}}));
        assert_eq!(of(json!([value("External", "external", "averageValue")]), json!([])), "<unknown>/5 (avg)");
        assert_eq!(of(json!([value("Object", "object", "value")]), json!([])), "<unknown>/5");
        assert_eq!(
            of(json!([cpu, value("Pods", "pods", "averageValue"), cpu]), json!([])),
            "cpu: <unknown>/80%, <unknown>/5 + 1 more..."
        );
    }
}
