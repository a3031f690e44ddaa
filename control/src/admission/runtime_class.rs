//! RuntimeClass: a pod of a class carries what its sandbox costs, and goes to the nodes that have the runtime.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_kube::pod::resources::quantity;
use gantry_kube::quantity::Quantity;
use gantry_kube::resource::{POD, RUNTIME_CLASS};
use gantry_kube::{Object, Ref, Status};
use serde_json::{Map, Value};

use super::service_account::list;
use super::{AdmissionContext, Operation};

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
const ABSENT: &str = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";

fn applies(context: &AdmissionContext<'_>) -> bool {
    context.is(&POD, "") && context.operation == Operation::Create
}

fn class_of(context: &AdmissionContext<'_>, pod: &Object) -> Result<Option<Arc<Object>>, Status> {
    // An empty name is a name, and the validation has its words for it.
    let Some(name) = pod.get("/spec/runtimeClassName").and_then(Value::as_str) else { return Ok(None) };
    match context.lookup.get(&RUNTIME_CLASS, &Ref::cluster(name)) {
        Some(class) => Ok(Some(class)),
        None => Err(context.forbidden(pod, &format!("pod rejected: RuntimeClass {name:?} not found"))),
    }
}

/// The amounts of a list, by value: `1` and `1000m` are the same.
fn amounts(list: Option<&Value>) -> BTreeMap<&str, Option<Quantity>> {
    let all = list.and_then(Value::as_object).into_iter().flatten();
    all.map(|(name, amount)| (name.as_str(), quantity(amount))).collect()
}

pub fn provide(context: &AdmissionContext<'_>, pod: &mut Object) -> Result<(), Status> {
    if !applies(context) {
        return Ok(());
    }
    let Some(class) = class_of(context, pod)? else { return Ok(()) };
    if class.get("/overhead").is_some() {
        let fixed = class.get("/overhead/podFixed");
        let own = pod.get("/spec/overhead");
        if own.is_some() && amounts(own) != amounts(fixed) {
            return Err(context.forbidden(pod, MISMATCH));
        }
        if let Some(fixed) = fixed {
            pod.map_mut("spec").insert("overhead".to_owned(), fixed.clone());
        }
    }
    schedule(context, &class, pod)
}

fn schedule(context: &AdmissionContext<'_>, class: &Object, pod: &mut Object) -> Result<(), Status> {
    if let Some(wanted) = class.get("/scheduling/nodeSelector").and_then(Value::as_object) {
        let own = pod.get("/spec/nodeSelector").and_then(Value::as_object);
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let conflict = wanted.iter().find_map(|(key, value)| {
            let own = own?.get(key).filter(|own| *own != value)?;
            let (class, own) = (text(value), text(own));
            Some(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {class}; pod.spec.nodeSelector[{key}] = {own}"
            ))
        });
        if let Some(why) = conflict {
            return Err(context.forbidden(pod, &why));
        }
        let selector = pod.map_mut("spec").entry("nodeSelector").or_insert_with(|| Value::Object(Map::new()));
        if let Some(selector) = selector.as_object_mut() {
            selector.extend(wanted.clone());
        }
    }
    let more = class.array_at("/scheduling/tolerations");
    if !more.is_empty() {
        let own = list(pod.map_mut("spec"), "tolerations");
        own.extend_from_slice(more);
        *own = widest(own);
    }
    Ok(())
}

/// The tolerations without those that another makes needless; of two that are equal the first stays.
pub(super) fn widest(all: &[Value]) -> Vec<Value> {
    let mut kept: Vec<Value> = Vec::new();
    for (index, toleration) in all.iter().enumerate() {
        let later = all[index + 1..].iter().any(|later| later != toleration && covers(later, toleration));
        if !later && !kept.iter().any(|kept| covers(kept, toleration)) {
            kept.push(toleration.clone());
        }
    }
    kept
}

/// Whether `wide` tolerates whatever `narrow` does, and for as long.
fn covers(wide: &Value, narrow: &Value) -> bool {
    let text = |toleration: &Value, key: &str| toleration[key].as_str().unwrap_or("").to_owned();
    let (operator, key, effect) = (text(wide, "operator"), text(wide, "key"), text(wide, "effect"));
    // Without a key it is about all keys, where no value is asked for.
    let keys = key == text(narrow, "key") || (key.is_empty() && operator == "Exists");
    let effects = effect.is_empty() || effect == text(narrow, "effect");
    let shorter = wide["tolerationSeconds"]
        .as_i64()
        .is_some_and(|wide| narrow["tolerationSeconds"].as_i64().is_none_or(|narrow| narrow > wide));
    let values = match operator.as_str() {
        "Exists" => true,
        "" | "Equal" => {
            matches!(text(narrow, "operator").as_str(), "" | "Equal") && text(wide, "value") == text(narrow, "value")
        }
        _ => false,
    };
    wide == narrow || (keys && effects && values && !(effect == "NoExecute" && shorter))
}

/// Nobody claims a cost that no class has, and nobody is spared one.
pub fn check(context: &AdmissionContext<'_>, pod: &Object) -> Result<(), Status> {
    if !applies(context) {
        return Ok(());
    }
    let class = class_of(context, pod)?;
    let own = pod.get("/spec/overhead");
    match class.as_ref().filter(|class| class.get("/overhead").is_some()) {
        Some(class) if amounts(class.get("/overhead/podFixed")) != amounts(own) => {
            Err(context.forbidden(pod, MISMATCH))
        }
        None if own.is_some() => Err(context.forbidden(pod, ABSENT)),
        _ => Ok(()),
    }
}
