use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{canonical, defaults, schema};

fn v1() -> &'static Resource {
    Resource::by_kind("autoscaling", "v1", "HorizontalPodAutoscaler").unwrap()
}

fn canonical(resource: &Resource, mut object: Object) -> Object {
    let ty = schema::for_kind(resource.group, resource.version, resource.kind).unwrap();
    assert_eq!(canonical::normalize(ty, &mut object), canonical::Findings::default());
    object
}

/// As a write in v1 is stored.
fn stored_of(served: Object) -> Object {
    let mut stored = canonical(stored(v1()), to_stored(v1(), canonical(v1(), served)).unwrap());
    defaults::apply(stored_resource(), &mut stored);
    stored
}

fn stored_resource() -> &'static Resource {
    stored(v1())
}

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

fn everything() -> Object {
    let metric = |name: &str| json!({"name": name, "selector": {"matchLabels": {"a": "b"}}});
    let whom = json!({"kind": "Service", "name": "s", "apiVersion": "v1"});
    let rules = json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Min", "tolerance": "50m",
        "policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}]});
    object(json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h", "namespace": "n", "annotations": {"mine": "yes"}},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 2, "maxReplicas": 7, "behavior": {"scaleUp": rules, "scaleDown": rules},
            "metrics": [
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}},
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}},
                {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
                {"type": "ContainerResource", "containerResource":
                    {"name": "cpu", "container": "c", "target": {"type": "Utilization", "averageUtilization": 5}}},
                {"type": "Pods", "pods": {"metric": metric("p"), "target": {"type": "AverageValue", "averageValue": "5"}}},
                {"type": "Object", "object": {"metric": metric("o"), "describedObject": whom, "target": {"type": "Value", "value": "5"}}},
                {"type": "Object", "object":
                    {"metric": metric("o"), "describedObject": whom, "target": {"type": "AverageValue", "averageValue": "5"}}},
                {"type": "External", "external": {"metric": metric("e"), "target": {"type": "AverageValue", "averageValue": "5"}}},
                {"type": "External", "external": {"metric": metric("e"), "target": {"type": "Value", "value": "5"}}},
            ],
        },
        "status": {
            "currentReplicas": 2, "desiredReplicas": 3, "observedGeneration": 4, "lastScaleTime": "2026-01-01T00:00:00Z",
            "conditions": [{"type": "AbleToScale", "status": "True", "reason": "R", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            "currentMetrics": [
                {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 33, "averageValue": "33m"}}},
                {"type": "External", "external": {"metric": metric("e"), "current": {"value": "3"}}},
                {"type": "Object", "object": {"metric": metric("o"), "describedObject": whom, "current": {"value": "3"}}},
                {"type": "Pods", "pods": {"metric": metric("p"), "current": {"averageValue": "3"}}},
            ],
        },
    }))
}

#[test]
fn nothing_is_lost_by_the_older_version() {
    let whole = canonical(stored_resource(), everything());
    let old = canonical(v1(), from_stored(v1(), &whole));
    assert_eq!(old.api_version(), "autoscaling/v1");
    let percents = ["/spec/targetCPUUtilizationPercentage", "/status/currentCPUUtilizationPercentage"];
    assert_eq!(percents.map(|at| old.i64_at(at)), [Some(60), Some(33)]);
    assert_eq!(stored_of(old), whole);
}

#[test]
fn annotations_are_as_older_clients_know_them() {
    let old = from_stored(v1(), &everything());
    let carried = |name: &str| -> Value {
        serde_json::from_str(old.annotation(&format!("autoscaling.alpha.kubernetes.io/{name}")).unwrap()).unwrap()
    };
    assert_eq!(
        carried("metrics")[1],
        json!({"type": "Resource", "resource": {"name": "memory", "targetAverageValue": "1Gi"}})
    );
    let of_object = &carried("metrics")[4]["object"];
    assert_eq!(
        (&of_object["metricName"], &of_object["target"]["name"], &of_object["targetValue"]),
        (&json!("o"), &json!("s"), &json!("5"))
    );
    assert_eq!(carried("metrics")[7]["external"]["targetValue"], "5");
    let current = json!({"name": "cpu", "currentAverageUtilization": 33, "currentAverageValue": "33m"});
    assert_eq!(carried("current-metrics")[0]["resource"], current);
    assert_eq!(carried("conditions")[0]["reason"], "R");
    assert_eq!(carried("behavior")["ScaleUp"]["Policies"][0]["PeriodSeconds"], 60);
    assert_eq!(old.annotation("mine"), Some("yes"));
}

#[test]
fn a_plain_one_has_the_defaults() {
    let plain = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "web"}}});
    let stored = stored_of(object(plain));
    assert_eq!(stored.i64_at("/spec/minReplicas"), Some(1));
    assert_eq!(stored.i64_at("/spec/metrics/0/resource/target/averageUtilization"), Some(80));
    assert_eq!(stored.get("/spec/behavior"), None);
    let old = from_stored(v1(), &stored);
    assert_eq!(old.i64_at("/spec/targetCPUUtilizationPercentage"), Some(80));
    assert_eq!(old.get("/metadata/annotations"), None);
}

#[test]
fn annotations_that_hold_something_else_are_named() {
    for (name, text) in
        [("metrics", "{"), ("metrics", "{}"), ("behavior", "[]"), ("conditions", "7"), ("current-metrics", "x")]
    {
        let key = format!("autoscaling.alpha.kubernetes.io/{name}");
        let bad = object(json!({"metadata": {"annotations": {&key: text}}}));
        let error = to_stored(v1(), bad).unwrap_err().to_string();
        assert!(error.starts_with(&format!("annotation {key}: ")), "{error}");
    }
    // What is no metric is left for the schema to judge.
    let odd = object(
        json!({"metadata": {"annotations": {"autoscaling.alpha.kubernetes.io/metrics": "[1,{\"type\":7,\"pods\":[]}]"}}}),
    );
    assert_eq!(to_stored(v1(), odd).unwrap().array_at("/spec/metrics").len(), 2);
}

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[A-Za-z]{0,8}".prop_map(Value::from),
    ];
    let key = prop::sample::select(vec![
        "type",
        "resource",
        "object",
        "pods",
        "external",
        "containerResource",
        "target",
        "current",
        "metric",
        "name",
        "selector",
        "averageValue",
        "targetValue",
        "describedObject",
        "metrics",
        "behavior",
        "ScaleUp",
        "é",
    ]);
    leaf.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.clone().prop_map(str::to_owned), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Whatever annotations hold and a stored object is, there is an answer.
    #[test]
    fn nothing_panics(carried in prop::collection::vec(anything(), 4), spec in anything(), status in anything()) {
        let names = ["metrics", "current-metrics", "conditions", "behavior"];
        let annotations: serde_json::Map<String, Value> = names.iter().zip(&carried)
            .map(|(name, value)| (format!("autoscaling.alpha.kubernetes.io/{name}"), json!(value.to_string()))).collect();
        let object = object(json!({"metadata": {"annotations": annotations}, "spec": spec, "status": status}));
        let _ = from_stored(v1(), &object);
        if let Ok(stored) = to_stored(v1(), object) {
            let again = from_stored(v1(), &stored);
            let _ = to_stored(v1(), again);
        }
    }
}

fn newer_event() -> &'static Resource {
    Resource::by_kind("events.k8s.io", "v1", "Event").unwrap()
}

#[test]
fn an_event_has_other_names_in_its_own_group() {
    let involved = json!({"kind": "Pod", "name": "p", "namespace": "n", "uid": "u", "fieldPath": "spec.containers{c}"});
    let core = canonical(
        &resource::EVENT,
        object(json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "n"}, "involvedObject": involved,
            "reason": "Pulled", "message": "there", "source": {"component": "kubelet", "host": "h"}, "type": "Normal",
            "count": 3, "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:09Z",
            "eventTime": "2026-01-01T00:00:00.000001Z", "series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:00.000001Z"},
            "action": "Pull", "related": {"name": "r"}, "reportingComponent": "kubelet", "reportingInstance": "h",
        })),
    );
    let newer = from_stored(newer_event(), &core);
    assert_eq!(canonical(newer_event(), newer.clone()), newer);
    assert_eq!(newer.api_version(), "events.k8s.io/v1");
    for (core_name, name) in [
        ("/message", "/note"),
        ("/involvedObject", "/regarding"),
        ("/source", "/deprecatedSource"),
        ("/count", "/deprecatedCount"),
        ("/firstTimestamp", "/deprecatedFirstTimestamp"),
        ("/lastTimestamp", "/deprecatedLastTimestamp"),
        ("/reportingComponent", "/reportingController"),
    ] {
        assert!(newer.get(name).is_some() && newer.get(name) == core.get(core_name), "{name}");
        assert!(newer.get(core_name).is_none(), "{core_name}");
    }
    assert_eq!(canonical(&resource::EVENT, to_stored(newer_event(), newer).unwrap()), core);
}

#[test]
fn what_an_event_does_not_say_is_left_out() {
    let core = canonical(&resource::EVENT, object(json!({"metadata": {"name": "e"}, "involvedObject": {}})));
    assert_eq!(core.get("/reportingComponent"), Some(&json!("")));
    let newer = from_stored(newer_event(), &core);
    let wanted =
        json!({"apiVersion": "events.k8s.io/v1", "metadata": {"name": "e"}, "regarding": {}, "deprecatedSource": {}});
    assert_eq!(newer.into_value(), wanted);
}

#[test]
fn field_selectors_follow_the_version() {
    let field = |path| stored_field(newer_event(), path);
    assert_eq!(field("regarding.name").as_deref(), Some("involvedObject.name"));
    assert_eq!(field("reportingController").as_deref(), Some("reportingComponent"));
    assert_eq!(field("type").as_deref(), Some("type"));
    assert_eq!(field("metadata.name").as_deref(), Some("metadata.name"));
    assert_eq!(field("involvedObject.name"), None);
    assert_eq!(stored_field(&resource::EVENT, "involvedObject.name").as_deref(), Some("involvedObject.name"));
    assert_eq!(stored_field(v1(), "metadata.name").as_deref(), Some("metadata.name"));
}

#[test]
fn every_other_version_is_of_a_stored_kind() {
    let others: Vec<_> = resource::served().filter(|served| !is_stored(served)).collect();
    assert_eq!(others.len(), 2);
    for served in others {
        assert!(is_stored(stored(served)) && resource::ALL.contains(&stored(served)));
    }
}
