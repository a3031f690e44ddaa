//! HorizontalPodAutoscaler: v2 is stored, v1 knows one metric, the share of the CPU that pods ask for. The annotations and
//! the names in them are those of autoscaling/v1 and its predecessors.

use serde_json::{Map, Value, json};

use super::VersionError;
use crate::Object;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// A source's name, a field of it in v2, and the same in v1. `*` stands for `target` where a metric is asked for, and for
/// `current` where it is told.
const FIELDS: [(&str, &str, &str); 19] = [
    ("resource", "name", "name"),
    ("resource", "*.averageUtilization", "*AverageUtilization"),
    ("resource", "*.averageValue", "*AverageValue"),
    ("containerResource", "name", "name"),
    ("containerResource", "container", "container"),
    ("containerResource", "*.averageUtilization", "*AverageUtilization"),
    ("containerResource", "*.averageValue", "*AverageValue"),
    ("pods", "metric.name", "metricName"),
    ("pods", "metric.selector", "selector"),
    ("pods", "*.averageValue", "*AverageValue"),
    ("object", "describedObject", "target"),
    ("object", "metric.name", "metricName"),
    ("object", "metric.selector", "selector"),
    ("object", "*.value", "*Value"),
    ("object", "*.averageValue", "averageValue"),
    ("external", "metric.name", "metricName"),
    ("external", "metric.selector", "metricSelector"),
    ("external", "*.value", "*Value"),
    ("external", "*.averageValue", "*AverageValue"),
];
const SOURCES: [&str; 5] = ["resource", "containerResource", "pods", "object", "external"];
/// What v1 has fields of its own for.
const SPEC: [&str; 3] = ["scaleTargetRef", "minReplicas", "maxReplicas"];
const STATUS: [&str; 4] = ["observedGeneration", "lastScaleTime", "currentReplicas", "desiredReplicas"];

pub(super) fn to_v1(stored: &Object) -> Object {
    let mut out = Object(stored.0.iter().filter(|(key, _)| *key != "spec" && *key != "status").map(owned).collect());
    out.0.insert("apiVersion".to_owned(), json!("autoscaling/v1"));
    let mut spec = picked(stored.get("/spec"), &SPEC);
    let mut others = stored.array_at("/spec/metrics").to_vec();
    if let Some(at) = others.iter().position(|metric| cpu(metric, "target").is_some()) {
        spec.insert("targetCPUUtilizationPercentage".to_owned(), json!(cpu(&others.remove(at), "target")));
    }
    out.0.insert("spec".to_owned(), Value::Object(spec));
    let mut status = picked(stored.get("/status"), &STATUS);
    // v1 always says how many there are.
    status.entry("currentReplicas").or_insert(json!(0));
    status.entry("desiredReplicas").or_insert(json!(0));
    let current = stored.array_at("/status/currentMetrics");
    if let Some(percent) = current.iter().find_map(|metric| cpu(metric, "current")) {
        status.insert("currentCPUUtilizationPercentage".to_owned(), json!(percent));
    }
    out.0.insert("status".to_owned(), Value::Object(status));
    let old_form = |metrics: &[Value], side| metrics.iter().map(|metric| old_metric(metric, side)).collect();
    annotate(&mut out, METRICS, old_form(&others, "target"));
    annotate(&mut out, CURRENT_METRICS, old_form(current, "current"));
    annotate(&mut out, CONDITIONS, json!(stored.array_at("/status/conditions")));
    annotate(&mut out, BEHAVIOR, stored.get("/spec/behavior").map(|b| recased(b, true)).unwrap_or_default());
    out
}

pub(super) fn from_v1(served: Object) -> Result<Object, VersionError> {
    let carried = |annotation: &'static str| -> Result<Option<Value>, VersionError> {
        let wrong = |why: String| VersionError { annotation, why };
        let Some(text) = served.annotation(annotation) else { return Ok(None) };
        let value: Value = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let fits = if annotation == BEHAVIOR { value.is_object() } else { value.is_array() };
        if fits { Ok(Some(value)) } else { Err(wrong("not what it is to hold".to_owned())) }
    };
    let new_form = |metrics: Option<Value>, side| -> Vec<Value> {
        metrics.iter().filter_map(Value::as_array).flatten().map(|metric| new_metric(metric, side)).collect()
    };
    let mut spec = picked(served.get("/spec"), &SPEC);
    let mut metrics = Vec::new();
    if let Some(percent) = served.i64_at("/spec/targetCPUUtilizationPercentage") {
        let target = json!({"type": "Utilization", "averageUtilization": percent});
        metrics.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
    }
    metrics.extend(new_form(carried(METRICS)?, "target"));
    spec.insert("metrics".to_owned(), json!(metrics));
    if let Some(behavior) = carried(BEHAVIOR)? {
        spec.insert("behavior".to_owned(), recased(&behavior, false));
    }
    let mut status = picked(served.get("/status"), &STATUS);
    let mut current = new_form(carried(CURRENT_METRICS)?, "current");
    if let Some(percent) = served.i64_at("/status/currentCPUUtilizationPercentage").filter(|_| current.is_empty()) {
        let told = json!({"name": "cpu", "current": {"averageUtilization": percent}});
        current.push(json!({"type": "Resource", "resource": told}));
    }
    status.insert("currentMetrics".to_owned(), json!(current));
    status.insert("conditions".to_owned(), carried(CONDITIONS)?.unwrap_or_default());
    let mut out = served;
    out.0.insert("apiVersion".to_owned(), json!("autoscaling/v2"));
    out.0.insert("spec".to_owned(), Value::Object(spec));
    out.0.insert("status".to_owned(), Value::Object(status));
    if let Some(annotations) = out.metadata_mut().get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.retain(|key, _| ![METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR].contains(&key.as_str()));
    }
    Ok(out)
}

fn owned((key, value): (&String, &Value)) -> (String, Value) {
    (key.clone(), value.clone())
}

fn picked(from: Option<&Value>, fields: &[&str]) -> Map<String, Value> {
    let map = from.and_then(Value::as_object).into_iter().flatten();
    map.filter(|(key, _)| fields.contains(&key.as_str())).map(owned).collect()
}

fn annotate(object: &mut Object, key: &str, value: Value) {
    if value.as_array().is_some_and(|list| !list.is_empty()) || value.is_object() {
        let annotations = object.metadata_mut().entry("annotations").or_insert_with(|| json!({}));
        annotations[key] = json!(value.to_string());
    }
}

/// The share of the CPU, where that is what a metric is about.
fn cpu(metric: &Value, side: &str) -> Option<i64> {
    let source = Some(&metric["resource"]).filter(|source| metric["type"] == "Resource" && source["name"] == "cpu")?;
    source[side]["averageUtilization"].as_i64()
}

/// A metric's source and its fields in both forms, `*` filled in.
fn fields<'a>(metric: &'a Value, side: &'a str) -> impl Iterator<Item = (&'static str, String, String)> + 'a {
    let there = |source: &str| metric.get(source).is_some_and(Value::is_object);
    let filled =
        move |(source, new, old): (&'static str, &str, &str)| (source, new.replace('*', side), old.replace('*', side));
    FIELDS.into_iter().filter(move |(source, ..)| there(source)).map(filled)
}

fn old_metric(metric: &Value, side: &str) -> Value {
    let mut out = json!({"type": metric["type"]});
    for (source, new, old) in fields(metric, side) {
        let value = new.split('.').fold(&metric[source], |at, part| &at[part]);
        if !value.is_null() {
            out[source][old] = value.clone();
        }
    }
    let object = &mut out["object"];
    if object.is_object() && object[format!("{side}Value")].is_null() {
        // It is no pointer there.
        object[format!("{side}Value")] = json!("0");
    } else if object.is_null()
        && let Some(map) = out.as_object_mut()
    {
        map.remove("object");
    }
    out
}

fn new_metric(metric: &Value, side: &str) -> Value {
    let mut out = json!({"type": metric["type"]});
    for (source, new, old) in fields(metric, side) {
        let value = &metric[source][&old];
        let nothing = source == "object" && old == format!("{side}Value") && !metric[source]["averageValue"].is_null();
        if !value.is_null() && !nothing {
            *new.split('.').fold(&mut out[source], |at, part| &mut at[part]) = value.clone();
        }
    }
    for source in SOURCES.into_iter().filter(|_| side == "target") {
        let Some(target) = out.get_mut(source).and_then(|source| source.get_mut("target")) else { continue };
        let kinds = [("averageUtilization", "Utilization"), ("averageValue", "AverageValue"), ("value", "Value")];
        if let Some((_, kind)) = kinds.into_iter().find(|(field, _)| target.get(field).is_some()) {
            target["type"] = json!(kind);
        }
    }
    out
}

/// Behaviour is carried with its fields in capitals, and read either way.
fn recased(value: &Value, capital: bool) -> Value {
    match value {
        Value::Object(map) => {
            let field = |(key, value): (&String, &Value)| {
                let (first, rest) = key.split_at(key.chars().next().map_or(0, char::len_utf8));
                let first = if capital { first.to_uppercase() } else { first.to_lowercase() };
                (first + rest, recased(value, capital))
            };
            Value::Object(map.iter().map(field).collect())
        }
        Value::Array(items) => items.iter().map(|item| recased(item, capital)).collect(),
        other => other.clone(),
    }
}
