//! LimitRange: what a namespace's containers are given where they ask for nothing, and the bounds that they keep.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_kube::pod::resources::{quantity, total};
use gantry_kube::quantity::Quantity;
use gantry_kube::resource::{LIMIT_RANGE, PERSISTENT_VOLUME_CLAIM, POD};
use gantry_kube::{Object, Status};
use serde_json::{Value, json};

use super::{AdmissionContext, Operation};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";
const LISTS: [(&str, &str); 2] = [("initContainers", "init container"), ("containers", "container")];

type Amounts = BTreeMap<String, Quantity>;

/// Whether limit ranges are about the request. What a pod's containers ask for changes by its resize alone.
fn applies(context: &AdmissionContext<'_>, old: Option<&Object>) -> bool {
    let deleted = old.is_some_and(|old| old.deletion_timestamp().is_some());
    let written = match context.operation {
        Operation::Create => context.is(&POD, "") || context.is(&PERSISTENT_VOLUME_CLAIM, ""),
        Operation::Update => context.is(&POD, "resize") || context.is(&PERSISTENT_VOLUME_CLAIM, ""),
        Operation::Delete | Operation::Connect => false,
    };
    written && !deleted
}

pub fn fill_in(context: &AdmissionContext<'_>, object: &mut Object, old: Option<&Object>) {
    if applies(context, old) && context.resource == &POD {
        for range in context.lookup.list(&LIMIT_RANGE, Some(context.namespace)) {
            give(&range, object);
        }
    }
}

/// What the first limit range that is broken has against it.
pub fn check(context: &AdmissionContext<'_>, object: &Object, old: Option<&Object>) -> Result<(), Status> {
    if !applies(context, old) {
        return Ok(());
    }
    for range in context.lookup.list(&LIMIT_RANGE, Some(context.namespace)) {
        let mut broken = Vec::new();
        if context.resource == &POD {
            check_pod(&range, object, &mut broken);
        } else {
            check_claim(&range, object, &mut broken);
        }
        // What several containers break is said once.
        let mut told = BTreeSet::new();
        broken.retain(|words| told.insert(words.clone()));
        match &broken[..] {
            [] => {}
            [one] => return Err(context.forbidden(object, one)),
            all => return Err(context.forbidden(object, &format!("[{}]", all.join(", ")))),
        }
    }
    Ok(())
}

/// A claim only asks: it has no limit of its own.
fn check_claim(range: &Arc<Object>, claim: &Object, broken: &mut Vec<String>) {
    let requests = amounts(claim.get("/spec/resources/requests").unwrap_or(&Value::Null));
    for item in items(range, "PersistentVolumeClaim") {
        minimum(item, &requests, &Amounts::new(), broken);
        for (name, most) in amounts(&item["max"]) {
            let head = format!("maximum {name} usage per PersistentVolumeClaim is {most}");
            match requests.get(&name) {
                None => broken.push(format!("{head}.  No request is specified")),
                Some(request) if *request > most => broken.push(format!("{head}, but request is {request}")),
                Some(_) => {}
            }
        }
    }
}

fn items<'a>(range: &'a Arc<Object>, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    range.array_at("/spec/limits").iter().filter(move |item| item["type"] == kind)
}

fn amounts(list: &Value) -> Amounts {
    let all = list.as_object().into_iter().flatten();
    all.filter_map(|(name, value)| Some((name.clone(), quantity(value)?))).collect()
}

/// Fills in what containers do not say, and notes what was filled in.
fn give(range: &Arc<Object>, pod: &mut Object) {
    let mut told: Vec<String> = Vec::new();
    let mut defaults = [("requests", "request", json!({})), ("limits", "limit", json!({}))];
    for item in items(range, "Container") {
        for (list, (_, _, into)) in ["defaultRequest", "default"].iter().zip(&mut defaults) {
            for (name, value) in item[*list].as_object().into_iter().flatten() {
                into[name] = value.clone();
            }
        }
    }
    for (list, called) in [LISTS[1], LISTS[0]] {
        for container in pod.map_mut("spec").get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            for (field, word, values) in &defaults {
                let set = merge(container, field, values);
                if !set.is_empty() {
                    let name = container["name"].as_str().unwrap_or("");
                    told.push(format!("{} {word} for {called} {name}", set.join(", ")));
                }
            }
        }
    }
    if !told.is_empty() {
        let annotations = pod.metadata_mut().entry("annotations").or_insert_with(|| json!({}));
        annotations[ANNOTATION] = json!(format!("LimitRanger plugin set: {}", told.join("; ")));
    }
}

/// Adds the values that the container's list lacks; answers their names.
fn merge(container: &mut Value, field: &str, values: &Value) -> Vec<String> {
    let mut set = Vec::new();
    for (name, value) in values.as_object().into_iter().flatten() {
        if container["resources"][field].get(name).is_none() {
            container["resources"][field][name] = value.clone();
            set.push(name.clone());
        }
    }
    set
}

fn check_pod(range: &Arc<Object>, pod: &Object, broken: &mut Vec<String>) {
    for item in items(range, "Container") {
        for (list, _) in [LISTS[1], LISTS[0]] {
            for container in pod.array_at(&format!("/spec/{list}")) {
                let resources = &container["resources"];
                bounds(item, &amounts(&resources["requests"]), &amounts(&resources["limits"]), broken);
            }
        }
    }
    for item in items(range, "Pod") {
        bounds(item, &total(pod, "requests"), &total(pod, "limits"), broken);
    }
}

fn minimum(item: &Value, requests: &Amounts, limits: &Amounts, broken: &mut Vec<String>) {
    let kind = item["type"].as_str().unwrap_or("");
    for (name, least) in amounts(&item["min"]) {
        let head = format!("minimum {name} usage per {kind} is {least}");
        match (requests.get(&name), limits.get(&name)) {
            (None, _) => broken.push(format!("{head}.  No request is specified")),
            (Some(request), _) if *request < least => broken.push(format!("{head}, but request is {request}")),
            (_, Some(limit)) if *limit < least => broken.push(format!("{head}, but limit is {limit}")),
            _ => {}
        }
    }
}

fn bounds(item: &Value, requests: &Amounts, limits: &Amounts, broken: &mut Vec<String>) {
    let kind = item["type"].as_str().unwrap_or("");
    minimum(item, requests, limits, broken);
    for (name, most) in amounts(&item["max"]) {
        let head = format!("maximum {name} usage per {kind} is {most}");
        match (requests.get(&name), limits.get(&name)) {
            (_, None) => broken.push(format!("{head}.  No limit is specified")),
            (_, Some(limit)) if *limit > most => broken.push(format!("{head}, but limit is {limit}")),
            (Some(request), _) if *request > most => broken.push(format!("{head}, but request is {request}")),
            _ => {}
        }
    }
    for (name, most) in amounts(&item["maxLimitRequestRatio"]) {
        let head = format!("{name} max limit to request ratio per {kind} is {most}");
        let set = |all: &Amounts| all.get(&name).copied().filter(|amount| !amount.is_zero());
        match (set(requests), set(limits)) {
            (None, _) => broken.push(format!("{head}, but no request is specified or request is 0")),
            (_, None) => broken.push(format!("{head}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) => {
                let ratio = limit.milli_value() as f64 / request.milli_value() as f64;
                if ratio > most.milli_value() as f64 / 1000.0 {
                    broken.push(format!("{head}, but provided ratio is {ratio:.6}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(limits: Value) -> Arc<Object> {
        Arc::new(Object::from_value(json!({"spec": {"limits": limits}})).unwrap())
    }

    fn pod(resources: Value) -> Object {
        let containers = json!([{"name": "c", "resources": resources}]);
        Object::from_value(json!({"metadata": {}, "spec": {"containers": containers}})).unwrap()
    }

    fn broken(limit: Value, resources: Value) -> Vec<String> {
        let mut all = Vec::new();
        check_pod(&range(json!([limit])), &pod(resources), &mut all);
        all
    }

    #[test]
    fn what_is_not_said_is_given_and_noted() {
        let range = range(json!([
            {"type": "Container", "default": {"cpu": "2", "memory": "1Gi"}, "defaultRequest": {"cpu": "1", "memory": "1Gi"}},
            {"type": "Pod", "max": {"cpu": "4"}},
        ]));
        let mut given = pod(json!({"requests": {"cpu": "500m"}}));
        give(&range, &mut given);
        let resources = json!({"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "1Gi"}});
        assert_eq!(given.get("/spec/containers/0/resources"), Some(&resources));
        let note = "LimitRanger plugin set: memory request for container c; cpu, memory limit for container c";
        assert_eq!(given.annotation(ANNOTATION), Some(note));
        let before = given.clone();
        give(&range, &mut given);
        assert_eq!(given, before, "it gives once");
    }

    #[test]
    fn bounds_are_told() {
        let container = |list: &str, amount: &str| json!({"type": "Container", list: {"cpu": amount}});
        let cpu = |request: &str, limit: &str| json!({"requests": {"cpu": request}, "limits": {"cpu": limit}});
        for (limit, resources, wanted) in [
            (container("min", "1"), cpu("1", "2"), ""),
            (container("min", "1"), json!({}), "minimum cpu usage per Container is 1.  No request is specified"),
            (container("min", "1"), cpu("500m", "2"), "minimum cpu usage per Container is 1, but request is 500m"),
            (container("max", "1"), json!({}), "maximum cpu usage per Container is 1.  No limit is specified"),
            (container("max", "1"), cpu("1", "1500m"), "maximum cpu usage per Container is 1, but limit is 1500m"),
            (
                container("maxLimitRequestRatio", "2"),
                cpu("1", "3"),
                "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
            ),
            (
                container("maxLimitRequestRatio", "2"),
                json!({}),
                "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
            ),
            (
                json!({"type": "Pod", "max": {"cpu": "1"}}),
                cpu("1", "2"),
                "maximum cpu usage per Pod is 1, but limit is 2",
            ),
        ] {
            assert_eq!(broken(limit.clone(), resources).join(", "), wanted, "{limit}");
        }
    }
}
