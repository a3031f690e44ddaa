//! CertificateSigningRequests: what is asked for is what the requester sent, who asked is what the server knows of them, and
//! conditions and the certificate are written apart.

use std::collections::BTreeMap;

use gantry_kube::Object;
use serde_json::{Value, json};

use super::{keep, set};
use crate::auth::Identity;

pub(super) fn prepare_create(new: &mut Object) {
    set(new, "status", json!({}));
}

/// Whatever the body says of the requester, it is who sent it.
pub(super) fn requested_by(new: &mut Object, identity: &Identity) {
    let spec = new.map_mut("spec");
    for (field, value) in [
        ("username", json!(identity.user)),
        ("uid", json!(identity.uid)),
        ("groups", json!(identity.groups)),
        ("extra", json!(identity.extra)),
    ] {
        let empty = match &value {
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if empty {
            spec.remove(field);
        } else {
            spec.insert(field.to_owned(), value);
        }
    }
}

/// A request never changes.
pub(super) fn prepare_update(new: &mut Object, old: &Object) {
    keep(new, old, "spec");
}

/// What `/approval` writes: the conditions alone.
pub(super) fn approval(new: &Object, old: &Object) -> Object {
    let mut result = old.clone();
    let conditions = new.get("/status/conditions").cloned();
    let status = result.map_mut("status");
    match conditions {
        Some(conditions) => status.insert("conditions".to_owned(), conditions),
        None => status.remove("conditions"),
    };
    result
}

/// Conditions whose writer names no times get this one; one that says what it said before keeps the time of its turn.
pub(super) fn date_conditions(new: &mut Object, old: &Object, now: &str) {
    fn said(condition: &Value) -> [&str; 2] {
        ["type", "status"].map(|part| condition[part].as_str().unwrap_or(""))
    }
    let mut turned: BTreeMap<[&str; 2], &str> = BTreeMap::new();
    for condition in old.array_at("/status/conditions") {
        if let Some(time) = condition["lastTransitionTime"].as_str() {
            turned.entry(said(condition)).or_insert(time);
        }
    }
    let Some(conditions) = new.map_mut("status").get_mut("conditions").and_then(Value::as_array_mut) else { return };
    for condition in conditions.iter_mut().filter(|condition| condition.is_object()) {
        if condition["lastUpdateTime"].is_null() {
            condition["lastUpdateTime"] = json!(now);
        }
        if condition["lastTransitionTime"].is_null() {
            let time = turned.get(&said(condition)).copied().unwrap_or(now);
            condition["lastTransitionTime"] = json!(time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Object {
        Object::from_value(value).unwrap()
    }

    #[test]
    fn a_request_says_who_sent_it() {
        let mut new = object(json!({"spec": {"username": "somebody", "uid": "1", "extra": {"a": ["b"]}}}));
        requested_by(&mut new, &Identity::new("me", ["team"]));
        assert_eq!(new.get("/spec").unwrap(), &json!({"username": "me", "groups": ["team", "system:authenticated"]}));
    }

    #[test]
    fn conditions_are_dated() {
        let old = object(json!({"status": {"conditions": [
            {"type": "Failed", "status": "True", "lastTransitionTime": "t0", "lastUpdateTime": "t0"}]}}));
        let mut new = object(json!({"status": {"conditions": [
            {"type": "Failed", "status": "True"}, {"type": "Approved", "status": "True"},
            {"type": "Other", "status": "True", "lastTransitionTime": "t1", "lastUpdateTime": "t1"}]}}));
        date_conditions(&mut new, &old, "now");
        let times: Vec<_> = new
            .array_at("/status/conditions")
            .iter()
            .map(|c| [c["lastTransitionTime"].as_str().unwrap(), c["lastUpdateTime"].as_str().unwrap()])
            .collect();
        assert_eq!(times, [["t0", "now"], ["now", "now"], ["t1", "t1"]]);
    }

    #[test]
    fn an_approval_writes_conditions_alone() {
        let old = object(json!({"spec": {"request": "a"}, "status": {"certificate": "c"}}));
        let new = object(json!({"spec": {}, "status": {"conditions": [{"type": "Approved"}]}}));
        let wanted =
            json!({"spec": {"request": "a"}, "status": {"certificate": "c", "conditions": [{"type": "Approved"}]}});
        assert_eq!(approval(&new, &old).into_value(), wanted);
    }
}
