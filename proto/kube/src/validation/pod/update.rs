//! What may change of a pod that is there: hardly anything.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::super::at::{At, Errors};
use crate::{FieldError, Object};

const ONLY: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
    tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
/// Differences that are shown in the message.
const SHOWN_MAX: usize = 8;
/// Longer values are named, and not shown.
const SHOWN_VALUE_MAX_BYTES: usize = 120;

pub fn update(new: &Object, old: &Object, errors: &mut Errors) {
    let (spec, before) = (At::of(new, "spec"), At::of(old, "spec"));
    super::spec(&spec, true, errors);
    for list in ["containers", "initContainers"] {
        if spec.field(list).count() != before.field(list).count() {
            spec.field(list).forbidden(errors, "pod updates may not add or remove containers");
            return;
        }
    }
    active_deadline(&spec, &before, errors);
    tolerations(&spec, &before, errors);
    gates(&spec, &before, errors);
    let (Some(new), Some(old)) = (spec.map(), before.map()) else { return };
    let munged = munge(new, old);
    if munged != *old {
        let mut shown = Vec::new();
        difference("spec", &Value::Object(old.clone()), &Value::Object(munged), &mut shown);
        errors.push(FieldError::forbidden("spec", format!("{ONLY}\n{}", shown.join("\n"))));
    }
}

fn active_deadline(spec: &At<'_>, before: &At<'_>, errors: &mut Errors) {
    let at = spec.field("activeDeadlineSeconds");
    let old = before.int_of("activeDeadlineSeconds");
    match (at.int(), old) {
        (Some(new), Some(old)) if new > old => at.invalid(errors, "must be less than or equal to previous value"),
        (None, Some(_)) => at.invalid(errors, "must not update from a positive integer to nil value"),
        _ => {}
    }
}

/// A toleration as a text that tells it from others, its seconds apart.
fn without_seconds(toleration: &Value) -> String {
    let mut toleration = toleration.clone();
    if let Some(map) = toleration.as_object_mut() {
        map.remove("tolerationSeconds");
    }
    toleration.to_string()
}

/// Each toleration of before is still there, its seconds apart.
fn tolerations(spec: &At<'_>, before: &At<'_>, errors: &mut Errors) {
    let at = spec.field("tolerations");
    if at.value == before.field("tolerations").value {
        return;
    }
    let now: BTreeSet<String> = at.items().map(|at| without_seconds(at.value)).collect();
    if before.field("tolerations").items().any(|old| !now.contains(&without_seconds(old.value))) {
        at.forbidden(errors, "existing toleration can not be modified except its tolerationSeconds");
    }
}

fn gates(spec: &At<'_>, before: &At<'_>, errors: &mut Errors) {
    let gates = before.field("schedulingGates");
    let old: BTreeSet<&str> = gates.items().map(|gate| gate.text_of("name")).collect();
    for gate in spec.field("schedulingGates").items() {
        if !old.contains(gate.text_of("name")) {
            let why = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.text_of("name"));
            gate.forbidden(errors, &why);
        }
    }
}

/// The new spec with everything that may change put back.
fn munge(new: &Map<String, Value>, old: &Map<String, Value>) -> Map<String, Value> {
    let mut munged = new.clone();
    let mut restore = |key: &str| match old.get(key) {
        Some(value) => munged.insert(key.to_owned(), value.clone()),
        None => munged.remove(key),
    };
    for key in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        restore(key);
    }
    let grace = |spec: &Map<String, Value>| spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
    if grace(old).is_some_and(|old| old < 0) && grace(new) == Some(1) {
        restore("terminationGracePeriodSeconds");
    }
    // A pod that waits behind a gate may be held to more nodes' labels than it was made with, never to fewer.
    let gated = old.get("schedulingGates").and_then(Value::as_array).is_some_and(|gates| !gates.is_empty());
    if gated && extends(new.get("nodeSelector"), old.get("nodeSelector")) {
        restore("nodeSelector");
    }
    for list in ["containers", "initContainers"] {
        let before = old.get(list).and_then(Value::as_array);
        let containers = munged.get_mut(list).and_then(Value::as_array_mut);
        for (container, before) in containers.into_iter().flatten().zip(before.into_iter().flatten()) {
            if let (Some(container), Some(image)) = (container.as_object_mut(), before.get("image")) {
                container.insert("image".to_owned(), image.clone());
            }
        }
    }
    munged
}

fn extends(new: Option<&Value>, old: Option<&Value>) -> bool {
    let old = old.and_then(Value::as_object);
    old.into_iter().flatten().all(|(key, value)| new.and_then(|new| new.get(key)) == Some(value))
}

/// The first fields that differ, as lines that a person reads.
fn difference(path: &str, old: &Value, new: &Value, shown: &mut Vec<String>) {
    if old == new || shown.len() >= SHOWN_MAX {
        return;
    }
    match (old, new) {
        (Value::Object(before), Value::Object(after)) => {
            let added = after.keys().filter(|key| !before.contains_key(*key));
            for key in before.keys().chain(added) {
                let of = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                difference(&format!("{path}.{key}"), &of(before), &of(after), shown);
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (i, (before, after)) in before.iter().zip(after).enumerate() {
                difference(&format!("{path}[{i}]"), before, after, shown);
            }
        }
        _ => shown.push(format!("  {path}: {} -> {}", brief(old), brief(new))),
    }
}

fn brief(value: &Value) -> String {
    let text = value.to_string();
    if text.len() > SHOWN_VALUE_MAX_BYTES { "...".to_owned() } else { text }
}
