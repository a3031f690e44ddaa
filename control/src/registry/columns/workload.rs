//! Rows of the kinds around pods: workloads, services and their endpoints, nodes, events.

use gantry_kube::Object;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{age, name, or_none, since};

/// Endpoints and addresses shown before "more".
const SHOWN_MAX: usize = 3;

fn number(object: &Object, pointer: &str) -> i64 {
    object.i64_at(pointer).unwrap_or(0)
}

fn template(object: &Object, field: &str) -> Value {
    containers(object, "/spec/template/spec/containers", field)
}

fn containers(object: &Object, pointer: &str, field: &str) -> Value {
    let all: Vec<&str> = object.array_at(pointer).iter().filter_map(|c| c[field].as_str()).collect();
    json!(all.join(","))
}

/// A selector as kubectl prints it: `a=b,c in (d,e)`.
pub(super) fn selector(value: Option<&Value>) -> Value {
    let mut parts = Vec::new();
    for (key, value) in value.and_then(|v| v["matchLabels"].as_object()).into_iter().flatten() {
        parts.push(format!("{key}={}", value.as_str().unwrap_or("")));
    }
    for expression in value.and_then(|v| v["matchExpressions"].as_array()).into_iter().flatten() {
        let key = expression["key"].as_str().unwrap_or("");
        let values: Vec<&str> =
            expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        parts.push(match expression["operator"].as_str().unwrap_or("") {
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            operator => format!("{key} {} ({})", operator.to_lowercase(), values.join(",")),
        });
    }
    or_none(parts.join(","))
}

pub(super) fn deployment(object: &Object, now: Timestamp) -> Vec<Value> {
    let wanted = number(object, "/spec/replicas");
    vec![
        name(object),
        json!(format!("{}/{wanted}", number(object, "/status/readyReplicas"))),
        json!(number(object, "/status/updatedReplicas").to_string()),
        json!(number(object, "/status/availableReplicas").to_string()),
        age(object, now),
        template(object, "name"),
        template(object, "image"),
        selector(object.get("/spec/selector")),
    ]
}

pub(super) fn pod_template(object: &Object, _: Timestamp) -> Vec<Value> {
    let pointer = "/template/spec/containers";
    let labels = object.get("/template/metadata/labels").map(|labels| json!({ "matchLabels": labels }));
    let (names, images) = (containers(object, pointer, "name"), containers(object, pointer, "image"));
    vec![name(object), names, images, selector(labels.as_ref())]
}

pub(super) fn stateful_set(object: &Object, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        json!(format!("{}/{}", number(object, "/status/readyReplicas"), number(object, "/spec/replicas"))),
        age(object, now),
        template(object, "name"),
        template(object, "image"),
    ]
}

pub(super) fn job(object: &Object, now: Timestamp) -> Vec<Value> {
    let holds =
        |kind: &str| object.array_at("/status/conditions").iter().any(|c| c["type"] == kind && c["status"] == "True");
    let status = match object.deletion_timestamp() {
        _ if holds("Complete") => "Complete",
        _ if holds("Failed") => "Failed",
        Some(_) => "Terminating",
        None => {
            ["Suspended", "FailureTarget", "SuccessCriteriaMet"].into_iter().find(|c| holds(c)).unwrap_or("Running")
        }
    };
    let (done, parallelism) = (number(object, "/status/succeeded"), number(object, "/spec/parallelism"));
    let completions = match object.i64_at("/spec/completions") {
        Some(all) => format!("{done}/{all}"),
        None if parallelism > 1 => format!("{done}/1 of {parallelism}"),
        None => format!("{done}/1"),
    };
    let start = object.str_at("/status/startTime");
    let end = object.str_at("/status/completionTime").parse().unwrap_or(now);
    let duration = if start.is_empty() { String::new() } else { since(start, end) };
    vec![
        name(object),
        json!(status),
        json!(completions),
        json!(duration),
        age(object, now),
        template(object, "name"),
        template(object, "image"),
        selector(object.get("/spec/selector")),
    ]
}

pub(super) fn cron_job(object: &Object, now: Timestamp) -> Vec<Value> {
    let suspended = if object.bool_at("/spec/suspend") == Some(true) { "True" } else { "False" };
    let last = object.str_at("/status/lastScheduleTime");
    let last = if last.is_empty() { String::new() } else { since(last, now) };
    let job = "/spec/jobTemplate/spec";
    vec![
        name(object),
        json!(object.str_at("/spec/schedule")),
        or_none(object.str_at("/spec/timeZone").to_owned()),
        json!(suspended),
        json!(object.array_at("/status/active").len()),
        or_none(last),
        age(object, now),
        containers(object, &format!("{job}/template/spec/containers"), "name"),
        containers(object, &format!("{job}/template/spec/containers"), "image"),
        selector(object.get(&format!("{job}/selector"))),
    ]
}

pub(super) fn replica_set(object: &Object, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        json!(number(object, "/spec/replicas")),
        json!(number(object, "/status/replicas")),
        json!(number(object, "/status/readyReplicas")),
        age(object, now),
        template(object, "name"),
        template(object, "image"),
        // A ReplicationController names labels alone.
        if object.kind() == "ReplicationController" {
            pairs(object, "/spec/selector")
        } else {
            selector(object.get("/spec/selector"))
        },
    ]
}

pub(super) fn daemon_set(object: &Object, now: Timestamp) -> Vec<Value> {
    let counts = ["desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled"];
    let mut cells = vec![name(object)];
    cells.extend(counts.iter().map(|count| json!(number(object, &format!("/status/{count}")))));
    cells.extend([
        json!(number(object, "/status/numberAvailable")),
        pairs(object, "/spec/template/spec/nodeSelector"),
        age(object, now),
        template(object, "name"),
        template(object, "image"),
        selector(object.get("/spec/selector")),
    ]);
    cells
}

/// Whose template it keeps, as `kind.group/name`.
pub(super) fn revision(object: &Object, now: Timestamp) -> Vec<Value> {
    let controller = object.controller().map(|owner| {
        let text = |key: &str| owner[key].as_str().unwrap_or("").to_owned();
        let group = text("apiVersion").split_once('/').map_or(String::new(), |(group, _)| format!(".{group}"));
        format!("{}{group}/{}", text("kind").to_lowercase(), text("name"))
    });
    vec![
        name(object),
        or_none(controller.unwrap_or_default()),
        json!(object.i64_at("/revision").unwrap_or(0)),
        age(object, now),
    ]
}

/// A map of strings as kubectl prints it.
fn pairs(object: &Object, pointer: &str) -> Value {
    let map = object.get(pointer).and_then(Value::as_object).into_iter().flatten();
    or_none(map.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or(""))).collect::<Vec<_>>().join(","))
}

pub(super) fn service(object: &Object, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = object
        .array_at("/spec/ports")
        .iter()
        .map(|port| {
            let protocol = port["protocol"].as_str().unwrap_or("TCP");
            match port["nodePort"].as_i64() {
                Some(node) if node > 0 => format!("{}:{node}/{protocol}", port["port"]),
                _ => format!("{}/{protocol}", port["port"]),
            }
        })
        .collect();
    vec![
        name(object),
        json!(object.str_at("/spec/type")),
        or_none(object.str_at("/spec/clusterIP").to_owned()),
        json!(external_ip(object)),
        or_none(ports.join(",")),
        age(object, now),
        pairs(object, "/spec/selector"),
    ]
}

fn external_ip(object: &Object) -> String {
    let texts = |pointer: &str, field: &str| -> Vec<String> {
        let text = |v: &Value| if field.is_empty() { v.as_str() } else { v[field].as_str() }.map(str::to_owned);
        object.array_at(pointer).iter().filter_map(text).collect()
    };
    let own = texts("/spec/externalIPs", "");
    match object.str_at("/spec/type") {
        "ExternalName" => object.str_at("/spec/externalName").to_owned(),
        "LoadBalancer" => {
            let all = [texts("/status/loadBalancer/ingress", "ip"), own].concat();
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        _ if own.is_empty() => "<none>".to_owned(),
        _ => own.join(","),
    }
}

fn shorten(all: Vec<String>) -> Value {
    let more = all.len().saturating_sub(SHOWN_MAX);
    let shown = all.into_iter().take(SHOWN_MAX).collect::<Vec<_>>().join(",");
    if more > 0 { json!(format!("{shown} + {more} more...")) } else { or_none(shown) }
}

pub(super) fn endpoints(object: &Object, now: Timestamp) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in object.array_at("/subsets") {
        let empty = Vec::new();
        let addresses = subset["addresses"].as_array().unwrap_or(&empty);
        let ports = subset["ports"].as_array().unwrap_or(&empty);
        for address in addresses {
            let ip = address["ip"].as_str().unwrap_or("");
            if ports.is_empty() {
                all.push(ip.to_owned());
            }
            all.extend(ports.iter().map(|port| format!("{ip}:{}", port["port"])));
        }
    }
    vec![name(object), shorten(all), age(object, now)]
}

pub(super) fn endpoint_slice(object: &Object, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = object
        .array_at("/ports")
        .iter()
        .map(|p| p["port"].as_i64().map_or("*".to_owned(), |n| n.to_string()))
        .collect();
    let addresses: Vec<String> = object
        .array_at("/endpoints")
        .iter()
        .flat_map(|e| e["addresses"].as_array().into_iter().flatten())
        .filter_map(|a| a.as_str().map(str::to_owned))
        .collect();
    let unset = |all: &[String]| all.is_empty().then(|| json!("<unset>"));
    vec![
        name(object),
        json!(object.str_at("/addressType")),
        unset(&ports).unwrap_or_else(|| shorten(ports)),
        unset(&addresses).unwrap_or_else(|| shorten(addresses)),
        age(object, now),
    ]
}

pub(super) fn node(object: &Object, now: Timestamp) -> Vec<Value> {
    let ready = object.array_at("/status/conditions").iter().find(|c| c["type"] == "Ready");
    let mut status = match ready.and_then(|c| c["status"].as_str()) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if object.bool_at("/spec/unschedulable") == Some(true) {
        status.push_str(",SchedulingDisabled");
    }
    let roles: Vec<&str> = object
        .labels()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    let address = |kind: &str| {
        let found = object.array_at("/status/addresses").iter().find(|a| a["type"] == kind);
        or_none(found.and_then(|a| a["address"].as_str()).unwrap_or("").to_owned())
    };
    let info = |field: &str| match object.str_at(&format!("/status/nodeInfo/{field}")) {
        "" => json!("<unknown>"),
        text => json!(text),
    };
    vec![
        name(object),
        json!(status),
        or_none(roles.join(",")),
        age(object, now),
        json!(object.str_at("/status/nodeInfo/kubeletVersion")),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

pub(super) fn event(object: &Object, now: Timestamp) -> Vec<Value> {
    let first_of =
        |pointers: &[&str]| pointers.iter().map(|p| object.str_at(p)).find(|t| !t.is_empty()).unwrap_or("").to_owned();
    let first = first_of(&["/firstTimestamp", "/eventTime", "/metadata/creationTimestamp"]);
    let last = first_of(&["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"]);
    let count = object.i64_at("/series/count").or(object.i64_at("/count")).unwrap_or(1).max(1);
    let component = first_of(&["/source/component", "/reportingComponent"]);
    let host = first_of(&["/source/host"]);
    let source = if host.is_empty() { component } else { format!("{component}, {host}") };
    let kind = object.str_at("/involvedObject/kind").to_lowercase();
    vec![
        json!(since(&last, now)),
        json!(object.str_at("/type")),
        json!(object.str_at("/reason")),
        json!(format!("{kind}/{}", object.str_at("/involvedObject/name"))),
        json!(object.str_at("/involvedObject/fieldPath")),
        json!(source),
        json!(object.str_at("/message").trim()),
        json!(since(&first, now)),
        json!(count.to_string()),
        name(object),
    ]
}
