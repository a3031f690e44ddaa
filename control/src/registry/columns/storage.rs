//! Rows of volumes, claims and classes.

use gantry_kube::{Object, storage};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{age, name};

/// Short forms, in their fixed order.
fn modes(object: &Object, pointer: &str) -> String {
    let listed = object.array_at(pointer);
    let known = storage::ACCESS_MODES.iter().filter(|(mode, _)| listed.iter().any(|one| one == mode));
    known.map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

fn phase(object: &Object) -> Value {
    json!(if object.deletion_timestamp().is_some() { "Terminating" } else { object.str_at("/status/phase") })
}

fn class_name(object: &Object) -> Value {
    json!(storage::class_of(object).unwrap_or(""))
}

/// The class of attributes, and the mode.
fn attributes(object: &Object) -> [Value; 2] {
    let of = |field: &str| object.get(&format!("/spec/{field}")).and_then(Value::as_str).unwrap_or("<unset>");
    [json!(of("volumeAttributesClassName")), json!(of("volumeMode"))]
}

pub(super) fn volume(object: &Object, now: Timestamp) -> Vec<Value> {
    let part = |field: &str| object.str_at(&format!("/spec/claimRef/{field}"));
    let claim =
        if storage::is_claimed(object) { format!("{}/{}", part("namespace"), part("name")) } else { String::new() };
    let [attributes, mode] = attributes(object);
    vec![
        name(object),
        json!(object.str_at("/spec/capacity/storage")),
        json!(modes(object, "/spec/accessModes")),
        json!(object.str_at("/spec/persistentVolumeReclaimPolicy")),
        phase(object),
        json!(claim),
        class_name(object),
        attributes,
        json!(object.str_at("/status/reason")),
        age(object, now),
        mode,
    ]
}

pub(super) fn claim(object: &Object, now: Timestamp) -> Vec<Value> {
    let volume = object.str_at("/spec/volumeName");
    let bound = |text: String| if volume.is_empty() { String::new() } else { text };
    let [attributes, mode] = attributes(object);
    vec![
        name(object),
        phase(object),
        json!(volume),
        json!(bound(object.str_at("/status/capacity/storage").to_owned())),
        json!(bound(modes(object, "/status/accessModes"))),
        class_name(object),
        attributes,
        age(object, now),
        mode,
    ]
}

pub(super) fn class(object: &Object, now: Timestamp) -> Vec<Value> {
    let mark = if storage::is_default_class(object) { " (default)" } else { "" };
    vec![
        json!(format!("{}{mark}", object.name())),
        json!(object.str_at("/provisioner")),
        json!(object.str_at("/reclaimPolicy")),
        json!(object.str_at("/volumeBindingMode")),
        json!(object.bool_at("/allowVolumeExpansion").unwrap_or(false)),
        age(object, now),
    ]
}
