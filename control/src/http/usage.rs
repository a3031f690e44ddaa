//! metrics.k8s.io/v1beta1: what nodes and pods use, in the form that `kubectl top` and autoscalers read. The objects are
//! made when they are asked for; what they are named and labelled by is that of the nodes and pods themselves.

use std::collections::{BTreeMap, BTreeSet};

use gantry_kube::quantity::{Format, Quantity};
use gantry_kube::{Object, Ref, Resource, Status, resource};
use http::Response;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::body::Body;
use super::media::{self, BodyFormat, Form, Offer, Wanted};
use super::resources::no_such_path;
use super::router::{Call, Server};
use super::{kubelet, respond};
use crate::registry::{ListOptions, encoded};
use crate::usage::{Measure, PodMeasure, Scrape, Window, scrape};

pub const GROUP: &str = resource::NODE_METRICS.group;
const VERSION: &str = resource::NODE_METRICS.version;

/// What is served here, beside the table of stored kinds.
pub static RESOURCES: [&Resource; 2] = [&resource::NODE_METRICS, &resource::POD_METRICS];

pub const VERBS: &[&str] = &["get", "list"];

/// A node of a hundred pods tells some fifty kilobytes.
const SCRAPE_MAX_BYTES: usize = 16 << 20;

pub async fn serve(server: &Server, call: Call) -> Result<Response<Body>, Status> {
    let info = &call.info;
    let known = RESOURCES.into_iter().find(|r| r.version == info.version && r.plural == info.resource);
    let kind = known.filter(|_| info.subresource.is_empty()).ok_or_else(no_such_path)?;
    let named = info.verb == "get";
    if (!kind.namespaced && !info.namespace.is_empty()) || (kind.namespaced && named && info.namespace.is_empty()) {
        return Err(no_such_path());
    }
    if !VERBS.contains(&info.verb) {
        return Err(Status::method_not_allowed());
    }
    let wanted = media::negotiate(&call.parts.headers, Offer::MEASURED)?;
    let content = if named {
        let made = one(server, kind, &Ref::new(info.namespace.as_str(), info.name.as_str())).await?;
        shaped(kind, vec![made], None, wanted)
    } else {
        let (made, metadata) = list(server, kind, &call).await?;
        shaped(kind, made, Some(metadata), wanted)
    };
    let bytes = serde_json::to_vec(&content).map_err(Status::internal)?;
    let bytes = if wanted.format == BodyFormat::Yaml { encoded::yaml(&bytes)? } else { bytes.into() };
    Ok(respond::maybe_gzip(bytes, wanted.content_type(), respond::takes_gzip(&call.parts.headers)))
}

async fn one(server: &Server, kind: &Resource, at: &Ref) -> Result<Value, Status> {
    let none = || {
        let full = if at.namespace.is_empty() { at.name.clone() } else { format!("{}/{}", at.namespace, at.name) };
        let what = if kind.namespaced { "podmetrics" } else { "nodemetrics" };
        let message = format!("{what}.{GROUP} {full:?} not found");
        let details = json!({"name": full, "group": GROUP, "kind": what});
        Status { details, ..Status::new(404, "NotFound", message) }
    };
    let stored = if kind.namespaced { &resource::POD } else { &resource::NODE };
    let object = match server.registry.get(stored, at) {
        Ok(found) => found.object(),
        Err(status) if status.code == 404 => return Err(none()),
        Err(status) => return Err(status),
    };
    let windows = windows(server, [node_of(kind, &object).to_owned()].into()).await;
    let now = server.registry.env().clock.now();
    made(kind, &object, &windows, now).ok_or_else(none)
}

async fn list(server: &Server, kind: &Resource, call: &Call) -> Result<(Vec<Value>, Value), Status> {
    let stored = if kind.namespaced { &resource::POD } else { &resource::NODE };
    let options = ListOptions::read(&call.query, stored, None, false)?;
    let namespace = Some(call.info.namespace.as_str()).filter(|ns| !ns.is_empty());
    let listed = server.registry.list(stored, namespace, &options).await?;
    let mut metadata = listed.metadata();
    if let Some(map) = metadata.as_object_mut() {
        // What was read of nodes has no revision, and nothing can be watched from one.
        map.remove("resourceVersion");
    }
    let objects: Vec<_> = listed.items.iter().map(|item| item.object()).collect();
    let nodes: BTreeSet<String> =
        objects.iter().map(|object| node_of(kind, object).to_owned()).filter(|name| !name.is_empty()).collect();
    let windows = windows(server, nodes).await;
    let now = server.registry.env().clock.now();
    Ok((objects.iter().filter_map(|object| made(kind, object, &windows, now)).collect(), metadata))
}

/// The node that knows what a node or a pod uses.
fn node_of<'a>(kind: &Resource, object: &'a Object) -> &'a str {
    if kind.namespaced { object.str_at("/spec/nodeName") } else { object.name() }
}

async fn windows(server: &Server, nodes: BTreeSet<String>) -> BTreeMap<String, Window> {
    server.usage.retain(|name| server.registry.get(&resource::NODE, &Ref::cluster(name)).is_ok());
    server.usage.of(nodes, |name| fetch(server, name)).await
}

async fn fetch(server: &Server, node: String) -> Result<Scrape, Status> {
    let text = kubelet::fetch(server, &node, "/metrics/resource", SCRAPE_MAX_BYTES).await?;
    Ok(scrape::parse(&text, server.registry.env().clock.now().as_millisecond()))
}

fn made(kind: &Resource, object: &Object, windows: &BTreeMap<String, Window>, now: Timestamp) -> Option<Value> {
    let window = windows.get(node_of(kind, object))?;
    if !kind.namespaced {
        return Some(node_metrics(object, &window.node()?, now));
    }
    (object.str_at("/status/phase") == "Running")
        .then(|| window.pod(object.namespace(), object.name()))?
        .map(|measure| pod_metrics(object, &measure, now))
}

fn metadata(object: &Object, now: Timestamp) -> Value {
    let mut metadata = json!({"name": object.name(), "creationTimestamp": gantry_kube::time::seconds(now)});
    if !object.namespace().is_empty() {
        metadata["namespace"] = json!(object.namespace());
    }
    if let Some(labels) = object.labels() {
        metadata["labels"] = Value::Object(labels.clone());
    }
    metadata
}

fn usage(cpu_nano_cores: u64, memory_bytes: u64) -> Value {
    let cpu = Quantity::parse(&format!("{cpu_nano_cores}n")).unwrap_or(Quantity::ZERO);
    let memory = Quantity::from_i64(i64::try_from(memory_bytes).unwrap_or(i64::MAX), Format::BinarySi);
    json!({"cpu": cpu.to_string(), "memory": memory.to_string()})
}

fn timed(kind: &str, object: &Object, at_millis: i64, window_millis: i64, now: Timestamp) -> Map<String, Value> {
    let at = Timestamp::from_millisecond(at_millis).unwrap_or(now);
    let mut map = Map::new();
    map.insert("kind".to_owned(), json!(kind));
    map.insert("apiVersion".to_owned(), json!(format!("{GROUP}/{VERSION}")));
    map.insert("metadata".to_owned(), metadata(object, now));
    map.insert("timestamp".to_owned(), json!(gantry_kube::time::seconds(at)));
    map.insert("window".to_owned(), json!(duration(window_millis)));
    map
}

fn node_metrics(node: &Object, measure: &Measure, now: Timestamp) -> Value {
    let mut map = timed("NodeMetrics", node, measure.at_millis, measure.window_millis, now);
    map.insert("usage".to_owned(), usage(measure.cpu_nano_cores, measure.memory_bytes));
    Value::Object(map)
}

fn pod_metrics(pod: &Object, measure: &PodMeasure, now: Timestamp) -> Value {
    let mut map = timed("PodMetrics", pod, measure.at_millis, measure.window_millis, now);
    let container =
        |(name, m): &(String, Measure)| json!({"name": name, "usage": usage(m.cpu_nano_cores, m.memory_bytes)});
    map.insert("containers".to_owned(), measure.containers.iter().map(container).collect());
    Value::Object(map)
}

/// As Go prints a duration: `1.5s`, `2m3.25s`.
fn duration(millis: i64) -> String {
    let (minutes, rest) = (millis / 60_000, millis % 60_000);
    let seconds = format!("{}s", rest as f64 / 1000.0);
    if minutes == 0 { seconds } else { format!("{minutes}m{seconds}") }
}

/// The objects as one of them, as a list (which has a metadata), or as rows.
fn shaped(kind: &Resource, mut made: Vec<Value>, list: Option<Value>, wanted: Wanted) -> Value {
    let api_version = kind.api_version();
    match (wanted.form, list) {
        (Form::Object, None) => made.pop().unwrap_or_default(),
        (Form::Object, Some(metadata)) => {
            json!({"kind": format!("{}List", kind.kind), "apiVersion": api_version, "metadata": metadata, "items": made})
        }
        (Form::PartialMetadata { version }, None) => made.first().map(|one| partial(one, version)).unwrap_or_default(),
        (Form::PartialMetadata { version }, Some(metadata)) => {
            let items: Vec<Value> = made.iter().map(|one| partial(one, version)).collect();
            json!({"kind": "PartialObjectMetadataList", "apiVersion": format!("meta.k8s.io/{version}"),
                   "metadata": metadata, "items": items})
        }
        (Form::Table { version }, list) => {
            let column = |name: &str, format: &str| json!({"name": name, "type": "string", "format": format, "description": "", "priority": 0});
            let columns = [
                column("Name", "name"),
                column("CPU", "quantity"),
                column("Memory", "quantity"),
                column("Window", "duration"),
            ];
            let rows: Vec<Value> = made.iter().map(|one| row(one, version)).collect();
            json!({"kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"),
                   "metadata": list.unwrap_or_else(|| json!({})), "columnDefinitions": columns, "rows": rows})
        }
    }
}

fn partial(one: &Value, version: &str) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": one["metadata"]})
}

/// A pod's cells are the sums of its containers'.
fn row(one: &Value, version: &str) -> Value {
    let parts: Vec<&Value> = match one["containers"].as_array() {
        Some(containers) => containers.iter().map(|container| &container["usage"]).collect(),
        None => vec![&one["usage"]],
    };
    let sum = |name: &str| {
        let quantities = parts.iter().filter_map(|usage| Quantity::parse(usage[name].as_str()?).ok());
        quantities.reduce(Quantity::add).unwrap_or(Quantity::ZERO).to_string()
    };
    json!({"cells": [one["metadata"]["name"], sum("cpu"), sum("memory"), one["window"]], "object": partial(one, version)})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Value {
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "labels": {"a": "b"}}});
        let measure =
            |cpu_nano_cores| Measure { at_millis: 9000, window_millis: 4500, cpu_nano_cores, memory_bytes: 3 << 20 };
        let containers = vec![("a".to_owned(), measure(1_500_000)), ("b".to_owned(), measure(7))];
        let whole = PodMeasure { at_millis: 9000, window_millis: 64_500, containers };
        pod_metrics(&Object::from_value(pod).unwrap(), &whole, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn numbers_are_quantities_and_windows_durations() {
        let pod = pod();
        assert_eq!(pod["containers"][0]["usage"], json!({"cpu": "1500u", "memory": "3Mi"}));
        assert_eq!(pod["containers"][1]["usage"]["cpu"], "7n");
        assert_eq!((&pod["window"], &pod["timestamp"]), (&json!("1m4.5s"), &json!("1970-01-01T00:00:09Z")));
        assert_eq!(
            (duration(15_041), duration(1000), duration(120_000)),
            ("15.041s".into(), "1s".into(), "2m0s".into())
        );
    }

    #[test]
    fn a_row_is_the_sum_of_a_pod() {
        let wanted = Wanted { form: Form::Table { version: "v1" }, format: BodyFormat::Json };
        let table = shaped(RESOURCES[1], vec![pod()], Some(json!({})), wanted);
        assert_eq!(table["rows"][0]["cells"], json!(["p", "1500007n", "6Mi", "1m4.5s"]));
        assert_eq!(table["rows"][0]["object"]["metadata"]["labels"]["a"], "b");
        let list = shaped(RESOURCES[1], vec![pod()], Some(json!({})), Wanted::JSON);
        assert_eq!((&list["kind"], &list["items"][0]["kind"]), (&json!("PodMetricsList"), &json!("PodMetrics")));
        assert_eq!(shaped(RESOURCES[1], vec![pod()], None, Wanted::JSON)["kind"], "PodMetrics");
    }
}
