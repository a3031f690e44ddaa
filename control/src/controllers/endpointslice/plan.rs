use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_kube::selector::LabelSelector;
use gantry_kube::{Object, Ref, Resource, resource};
use serde_json::{Value, json};

use crate::controllers::informers::Pod;

pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub const OURS: &str = "endpointslice-controller.k8s.io";
/// Endpoints in one slice, as upstream's default has it.
pub const SLICE_MAX_ENDPOINTS: usize = 100;

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Create(&'static Resource, Object),
    Update(&'static Resource, Object),
    Delete(Ref, String),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub actions: Vec<Action>,
}

/// The pods that a service selects, but for those that run no more or have no address yet.
pub fn selected<'a>(service: &Object, pods: &'a [Arc<Pod>]) -> Vec<&'a Pod> {
    let selector = service.get("/spec/selector").and_then(Value::as_object).map(LabelSelector::from_map);
    let Some(selector) = selector.filter(|s| !s.is_empty()) else { return Vec::new() };
    let mut chosen: Vec<&Pod> = pods
        .iter()
        .map(Arc::as_ref)
        .filter(|p| !p.finished() && !p.ips.is_empty() && selector.matches(Some(&p.labels)))
        .collect();
    chosen.sort_by_key(|pod| pod.reference());
    chosen
}

pub fn has_selector(service: &Object) -> bool {
    service.get("/spec/selector").and_then(Value::as_object).is_some_and(|s| !s.is_empty())
        && service.str_at("/spec/type") != "ExternalName"
}

/// A service's ports as this pod answers them: named target ports differ from pod to pod.
pub fn ports_of(service: &Object, pod: &Pod) -> Vec<Value> {
    let port = |p: &Value| {
        let protocol = p["protocol"].as_str().unwrap_or("TCP");
        let number = match &p["targetPort"] {
            Value::Number(n) => n.as_i64().filter(|n| *n > 0),
            Value::String(name) => {
                pod.ports.iter().find(|(n, proto, _)| n == name && proto == protocol).map(|(_, _, n)| *n)
            }
            _ => p["port"].as_i64(),
        };
        let mut out = json!({"name": p["name"].as_str().unwrap_or(""), "port": number?, "protocol": protocol});
        if let Some(app) = p["appProtocol"].as_str() {
            out["appProtocol"] = json!(app);
        }
        Some(out)
    };
    service.array_at("/spec/ports").iter().filter_map(port).collect()
}

fn endpoint(service: &Object, pod: &Pod, zone: &dyn Fn(&str) -> Option<String>) -> Value {
    let publish = service.bool_at("/spec/publishNotReadyAddresses").unwrap_or(false);
    let at = pod.reference();
    let mut out = json!({
        "addresses": [pod.ips[0]],
        "conditions": {"ready": publish || (pod.ready && !pod.deleting), "serving": pod.ready, "terminating": pod.deleting},
        "targetRef": {"kind": "Pod", "namespace": at.namespace, "name": at.name, "uid": pod.uid},
    });
    if !pod.node.is_empty() {
        out["nodeName"] = json!(pod.node);
        if let Some(zone) = zone(&pod.node) {
            out["zone"] = json!(zone);
        }
    }
    if !pod.hostname.is_empty() && pod.subdomain == service.name() {
        out["hostname"] = json!(pod.hostname);
    }
    out
}

/// `zone` tells a node's zone; `suffix` gives the random part of a name.
pub fn plan(
    service: Option<&Object>,
    at: &Ref,
    pods: &[Arc<Pod>],
    slices: &[Arc<Object>],
    zone: impl Fn(&str) -> Option<String>,
    suffix: impl Fn(usize) -> String,
) -> Plan {
    let ours = |s: &&Arc<Object>| {
        s.label(SERVICE_LABEL) == Some(at.name.as_str())
            && s.label(MANAGED_BY) == Some(OURS)
            && s.deletion_timestamp().is_none()
    };
    let existing: Vec<&Object> = slices.iter().filter(ours).map(Arc::as_ref).collect();
    let Some(service) = service.filter(|s| has_selector(s) && s.deletion_timestamp().is_none()) else {
        return Plan { actions: existing.iter().map(|s| Action::Delete(s.reference(), s.uid().to_owned())).collect() };
    };
    let mut wanted: BTreeMap<String, (Vec<Value>, BTreeMap<String, Value>)> = BTreeMap::new();
    for pod in selected(service, pods) {
        let ports = ports_of(service, pod);
        let group = wanted.entry(json!(ports).to_string()).or_insert_with(|| (ports, BTreeMap::new()));
        group.1.insert(pod.uid.clone(), endpoint(service, pod, &zone));
    }
    if wanted.is_empty() {
        // A service without pods still has a slice, so that its state can be told from one that nobody has looked at.
        wanted.insert("[]".to_owned(), (Vec::new(), BTreeMap::new()));
    }
    let mut spare: Vec<&Object> = Vec::new();
    let mut actions = Vec::new();
    for slice in &existing {
        if !wanted.contains_key(&json!(slice.array_at("/ports")).to_string()) {
            spare.push(slice);
        }
    }
    for (ports, endpoints) in wanted.into_values() {
        let mine: Vec<&Object> = existing.iter().copied().filter(|s| s.array_at("/ports") == ports).collect();
        actions.extend(fill(service, &ports, endpoints, &mine, &mut spare, &suffix));
    }
    actions.extend(spare.iter().map(|s| Action::Delete(s.reference(), s.uid().to_owned())));
    Plan { actions }
}

/// Endpoints stay in the slice they are in; new ones fill the room that is left, then take over spare slices, then new ones.
fn fill<'a>(
    service: &Object,
    ports: &[Value],
    mut endpoints: BTreeMap<String, Value>,
    mine: &[&'a Object],
    spare: &mut Vec<&'a Object>,
    suffix: &impl Fn(usize) -> String,
) -> Vec<Action> {
    let mut kept: Vec<(&Object, Vec<Value>)> = Vec::new();
    for slice in mine {
        let stay = |e: &Value| endpoints.remove(e["targetRef"]["uid"].as_str().unwrap_or(""));
        kept.push((slice, slice.array_at("/endpoints").iter().filter_map(stay).collect()));
    }
    let mut fresh = endpoints.into_values();
    for (_, content) in &mut kept {
        let room = SLICE_MAX_ENDPOINTS.saturating_sub(content.len());
        content.extend(fresh.by_ref().take(room));
    }
    let mut actions = Vec::new();
    let mut rest: Vec<Value> = fresh.collect();
    while !rest.is_empty() || (kept.is_empty() && actions.is_empty()) {
        let chunk: Vec<Value> = rest.drain(..rest.len().min(SLICE_MAX_ENDPOINTS)).collect();
        match spare.pop() {
            Some(slice) => kept.push((slice, chunk)),
            None => actions.push(Action::Create(&resource::ENDPOINT_SLICE, slice(service, ports, chunk, &suffix(5)))),
        }
    }
    let only = kept.len() + actions.len() == 1;
    for (old, content) in kept {
        if content.is_empty() && !only {
            actions.push(Action::Delete(old.reference(), old.uid().to_owned()));
            continue;
        }
        let mut new = old.clone();
        let wanted = slice(service, ports, content, "");
        for key in ["endpoints", "ports"] {
            new.0.insert(key.to_owned(), wanted.0[key].clone());
        }
        new.metadata_mut().insert("labels".to_owned(), wanted.0["metadata"]["labels"].clone());
        if !same(&new, old) {
            actions.push(Action::Update(&resource::ENDPOINT_SLICE, new));
        }
    }
    // Deletes go last: an endpoint that moved is in its new slice before the old one goes.
    actions.sort_by_key(|a| matches!(a, Action::Delete(..)));
    actions
}

/// An empty list and an absent one say the same.
fn same(a: &Object, b: &Object) -> bool {
    a.array_at("/endpoints") == b.array_at("/endpoints")
        && a.array_at("/ports") == b.array_at("/ports")
        && a.labels() == b.labels()
}

fn slice(service: &Object, ports: &[Value], endpoints: Vec<Value>, suffix: &str) -> Object {
    let skip: BTreeSet<&str> = ["kubectl.kubernetes.io/last-applied-configuration"].into();
    let mut labels = service.labels().cloned().unwrap_or_default();
    labels.retain(|key, _| !skip.contains(key.as_str()));
    labels.insert(SERVICE_LABEL.to_owned(), json!(service.name()));
    labels.insert(MANAGED_BY.to_owned(), json!(OURS));
    if service.str_at("/spec/clusterIP") == "None" {
        labels.insert("service.kubernetes.io/headless".to_owned(), json!(""));
    }
    Object::from_value(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{}-{suffix}", service.name()), "generateName": format!("{}-", service.name()),
            "namespace": service.namespace(), "labels": labels,
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Service", "name": service.name(), "uid": service.uid(),
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "addressType": "IPv4", "endpoints": endpoints, "ports": ports,
    }))
    .unwrap_or_default()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
