//! The Endpoints object of a Service, for clients that know no slices.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_kube::{Object, Ref, resource};
use serde_json::{Value, json};

use super::plan::{Action, has_selector, ports_of, selected};
use crate::controllers::informers::Pod;

/// Upstream cuts an Endpoints object at this many addresses and says so in an annotation.
const ENDPOINTS_MAX_ADDRESSES: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";

/// Endpoints of a service that is gone are the garbage collector's no more than slices are: they carry the service's
/// name, and are deleted through their owner reference.
pub fn plan(service: Option<&Object>, at: &Ref, pods: &[Arc<Pod>], existing: Option<&Object>) -> Vec<Action> {
    let Some(service) = service.filter(|s| has_selector(s) && s.deletion_timestamp().is_none()) else {
        return Vec::new();
    };
    let (subsets, cut) = subsets(service, pods);
    let mut labels = service.labels().cloned().unwrap_or_default();
    labels.insert(MANAGED_BY.to_owned(), json!("endpoint-controller"));
    if service.str_at("/spec/clusterIP") == "None" {
        labels.insert("service.kubernetes.io/headless".to_owned(), json!(""));
    }
    let owner = json!([{"apiVersion": "v1", "kind": "Service", "name": service.name(), "uid": service.uid(),
                        "controller": true, "blockOwnerDeletion": true}]);
    let mut wanted = existing.cloned().unwrap_or_default();
    wanted.0.insert("apiVersion".to_owned(), json!("v1"));
    wanted.0.insert("kind".to_owned(), json!("Endpoints"));
    wanted.0.remove("subsets");
    if !subsets.is_empty() {
        wanted.0.insert("subsets".to_owned(), json!(subsets));
    }
    let metadata = wanted.metadata_mut();
    metadata.insert("name".to_owned(), json!(at.name));
    metadata.insert("namespace".to_owned(), json!(at.namespace));
    metadata.insert("labels".to_owned(), json!(labels));
    metadata.insert("ownerReferences".to_owned(), owner);
    if cut {
        metadata.insert("annotations".to_owned(), json!({OVER_CAPACITY: "truncated"}));
    }
    match existing {
        None => vec![Action::Create(&resource::ENDPOINTS, wanted)],
        Some(old) if *old != wanted => vec![Action::Update(&resource::ENDPOINTS, wanted)],
        Some(_) => Vec::new(),
    }
}

/// Addresses by the ports they answer, ready ones apart from the others.
fn subsets(service: &Object, pods: &[Arc<Pod>]) -> (Vec<Value>, bool) {
    let publish = service.bool_at("/spec/publishNotReadyAddresses").unwrap_or(false);
    let chosen = selected(service, pods);
    let cut = chosen.len() > ENDPOINTS_MAX_ADDRESSES;
    type Parts = (Vec<Value>, Vec<Value>, Vec<Value>);
    let mut groups: BTreeMap<String, Parts> = BTreeMap::new();
    for pod in chosen.into_iter().take(ENDPOINTS_MAX_ADDRESSES) {
        if pod.deleting && !publish {
            continue;
        }
        let ports = ports_of(service, pod).into_iter().map(unnamed).collect::<Vec<_>>();
        let at = pod.reference();
        let mut address = json!({
            "ip": pod.ips[0],
            "targetRef": {"kind": "Pod", "namespace": at.namespace, "name": at.name, "uid": pod.uid},
        });
        if !pod.node.is_empty() {
            address["nodeName"] = json!(pod.node);
        }
        if !pod.hostname.is_empty() && pod.subdomain == service.name() {
            address["hostname"] = json!(pod.hostname);
        }
        let group = groups.entry(json!(ports).to_string()).or_insert_with(|| (ports, Vec::new(), Vec::new()));
        if pod.ready || publish { group.1.push(address) } else { group.2.push(address) }
    }
    let subset = |(ports, ready, waiting): (Vec<Value>, Vec<Value>, Vec<Value>)| {
        let mut out = json!({});
        for (key, list) in [("addresses", ready), ("notReadyAddresses", waiting), ("ports", ports)] {
            if !list.is_empty() {
                out[key] = json!(list);
            }
        }
        out
    };
    (groups.into_values().map(subset).collect(), cut)
}

/// Endpoints leave an empty port name out, where slices write it.
fn unnamed(mut port: Value) -> Value {
    if port["name"] == ""
        && let Some(map) = port.as_object_mut()
    {
        map.remove("name");
    }
    port
}
