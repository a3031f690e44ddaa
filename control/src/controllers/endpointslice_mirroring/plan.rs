use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use gantry_kube::{Object, Ref, resource};
use serde_json::{Map, Value, json};

use crate::controllers::endpointslice::plan::{Action, MANAGED_BY, Plan, SERVICE_LABEL, has_selector};

pub const OURS: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Endpoints that elections keep their leader in lead nowhere.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// What is about the Endpoints object itself.
const NOT_COPIED: [&str; 2] =
    ["kubectl.kubernetes.io/last-applied-configuration", "endpoints.kubernetes.io/last-change-trigger-time"];
/// Of one subset, as upstream's default has it; a slice holds as many.
const SUBSET_MAX_ADDRESSES: usize = 1000;

/// `suffix` gives the random part of a name.
pub fn plan(
    service: Option<&Object>,
    endpoints: Option<&Object>,
    at: &Ref,
    slices: &[Arc<Object>],
    suffix: impl Fn(usize) -> String,
) -> Plan {
    let mirrored = |endpoints: &&Object| {
        endpoints.deletion_timestamp().is_none()
            && endpoints.label(SKIP) != Some("true")
            && endpoints.annotation(LEADER).is_none()
            && service.is_some_and(|service| !has_selector(service) && service.str_at("/spec/type") != "ExternalName")
    };
    let mut left: Vec<&Object> = slices
        .iter()
        .map(Arc::as_ref)
        .filter(|slice| slice.label(SERVICE_LABEL) == Some(at.name.as_str()) && slice.label(MANAGED_BY) == Some(OURS))
        .filter(|slice| slice.deletion_timestamp().is_none())
        .collect();
    let wanted = endpoints.filter(mirrored).map(wanted).unwrap_or_default();
    // What is as it should be stays with its name; the rest takes over what is of its kind, and then new ones.
    let (same, rest): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|wanted| {
        let found = left.iter().position(|slice| same(slice, wanted));
        found.map(|i| left.remove(i)).is_some()
    });
    drop(same);
    let mut actions = Vec::new();
    for wanted in rest {
        let spare = left.iter().position(|slice| slice.0.get("addressType") == wanted.0.get("addressType"));
        match spare.map(|i| left.remove(i)) {
            Some(slice) => actions.push(Action::Update(&resource::ENDPOINT_SLICE, changed(slice, &wanted))),
            None => {
                let mut new = wanted;
                let name = format!("{}-{}", at.name, suffix(5));
                new.metadata_mut().insert("name".to_owned(), json!(name));
                actions.push(Action::Create(&resource::ENDPOINT_SLICE, new));
            }
        }
    }
    actions.extend(left.iter().map(|slice| Action::Delete(slice.reference(), slice.uid().to_owned())));
    Plan { actions }
}

/// The slices of an Endpoints object, without their names.
fn wanted(endpoints: &Object) -> Vec<Object> {
    type Group = (Vec<Value>, BTreeMap<String, Value>);
    let mut groups: BTreeMap<(&str, String), Group> = BTreeMap::new();
    for subset in endpoints.array_at("/subsets") {
        let ports: Vec<Value> = subset["ports"].as_array().into_iter().flatten().map(port).collect();
        let lists = [("addresses", true), ("notReadyAddresses", false)];
        let all = lists.into_iter().flat_map(|(list, ready)| {
            subset[list].as_array().into_iter().flatten().map(move |address| (address, ready))
        });
        for (address, ready) in all.take(SUBSET_MAX_ADDRESSES) {
            let Some(ip) = address["ip"].as_str().and_then(|ip| ip.parse::<IpAddr>().ok()) else { continue };
            let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            let group =
                groups.entry((family, json!(ports).to_string())).or_insert_with(|| (ports.clone(), BTreeMap::new()));
            // One that is ready in any subset is ready.
            let there = group.1.entry(ip.to_string()).or_insert_with(|| endpoint(address, ready));
            if ready {
                *there = endpoint(address, ready);
            }
        }
    }
    let mut slices = Vec::new();
    for ((family, _), (ports, addresses)) in groups {
        let addresses: Vec<Value> = addresses.into_values().collect();
        slices.extend(addresses.chunks(SUBSET_MAX_ADDRESSES).map(|some| slice(endpoints, family, &ports, some)));
    }
    slices
}

fn port(port: &Value) -> Value {
    let mut out = json!({"name": port["name"].as_str().unwrap_or(""), "port": port["port"],
        "protocol": port["protocol"].as_str().unwrap_or("TCP")});
    if let Some(protocol) = port["appProtocol"].as_str() {
        out["appProtocol"] = json!(protocol);
    }
    out
}

fn endpoint(address: &Value, ready: bool) -> Value {
    let mut out = json!({"addresses": [address["ip"]], "conditions": {"ready": ready}});
    for field in ["hostname", "nodeName", "targetRef"] {
        if let Some(value) = address.get(field).filter(|value| !value.is_null()) {
            out[field] = value.clone();
        }
    }
    out
}

fn slice(endpoints: &Object, family: &str, ports: &[Value], addresses: &[Value]) -> Object {
    let mut labels = endpoints.labels().cloned().unwrap_or_default();
    labels.insert(SERVICE_LABEL.to_owned(), json!(endpoints.name()));
    labels.insert(MANAGED_BY.to_owned(), json!(OURS));
    let mut metadata = json!({
        "generateName": format!("{}-", endpoints.name()), "namespace": endpoints.namespace(), "labels": labels,
        "ownerReferences": [{
            "apiVersion": "v1", "kind": "Endpoints", "name": endpoints.name(), "uid": endpoints.uid(),
            "controller": true, "blockOwnerDeletion": true,
        }],
    });
    let annotations = endpoints.get("/metadata/annotations").and_then(Value::as_object).into_iter().flatten();
    let copied: Map<String, Value> = annotations
        .filter(|(key, _)| !NOT_COPIED.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if !copied.is_empty() {
        metadata["annotations"] = Value::Object(copied);
    }
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
        "addressType": family, "ports": ports, "endpoints": addresses});
    Object::from_value(slice).unwrap_or_default()
}

const OWN: [&str; 3] = ["labels", "annotations", "ownerReferences"];

fn same(slice: &Object, wanted: &Object) -> bool {
    let metadata = |object: &Object, field: &str| object.get(&format!("/metadata/{field}")).cloned();
    slice.0.get("addressType") == wanted.0.get("addressType")
        && slice.array_at("/ports") == wanted.array_at("/ports")
        && slice.array_at("/endpoints") == wanted.array_at("/endpoints")
        && OWN.iter().all(|field| metadata(slice, field) == metadata(wanted, field))
}

fn changed(slice: &Object, wanted: &Object) -> Object {
    let mut out = slice.clone();
    for field in ["ports", "endpoints"] {
        out.0.insert(field.to_owned(), json!(wanted.array_at(&format!("/{field}"))));
    }
    for field in OWN {
        match wanted.get(&format!("/metadata/{field}")) {
            Some(value) => out.metadata_mut().insert(field.to_owned(), value.clone()),
            None => out.metadata_mut().remove(field),
        };
    }
    out
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
