//! Priority: a class by name becomes the number that the scheduler and the agent compare.

use std::sync::Arc;

use gantry_kube::resource::{POD, PRIORITY_CLASS};
use gantry_kube::{Object, Ref, Status};
use serde_json::{Value, json};

use super::{AdmissionContext, Operation};

const DEFAULT_PRIORITY: i64 = 0;
const DEFAULT_PREEMPTION: &str = "PreemptLowerPriority";

pub fn resolve(context: &AdmissionContext<'_>, object: &mut Object, old: Option<&Object>) -> Result<(), Status> {
    if !context.is(&POD, "") {
        return Ok(());
    }
    match context.operation {
        Operation::Create => pod(context, object),
        Operation::Update => {
            keep(object, old);
            Ok(())
        }
        Operation::Delete | Operation::Connect => Ok(()),
    }
}

/// What was computed at the create holds for the pod's life; a client that leaves it out does not change it.
fn keep(pod: &mut Object, old: Option<&Object>) {
    for key in ["priority", "preemptionPolicy"] {
        if let Some(value) = old.and_then(|old| old.get(&format!("/spec/{key}"))).filter(|value| !value.is_null()) {
            let slot = pod.map_mut("spec").entry(key).or_insert(Value::Null);
            if slot.is_null() {
                *slot = value.clone();
            }
        }
    }
}

/// Where two classes claim to be the default, the lower one is it: no pod gains by a mistake.
fn default(context: &AdmissionContext<'_>) -> Option<Arc<Object>> {
    let classes = context.lookup.list(&PRIORITY_CLASS, None).into_iter();
    classes
        .filter(|class| class.bool_at("/globalDefault") == Some(true))
        .min_by_key(|class| (class.i64_at("/value").unwrap_or(0), class.name().to_owned()))
}

fn pod(context: &AdmissionContext<'_>, pod: &mut Object) -> Result<(), Status> {
    let named = pod.str_at("/spec/priorityClassName").to_owned();
    let class = if named.is_empty() {
        default(context)
    } else {
        let found = context.lookup.get(&PRIORITY_CLASS, &Ref::cluster(&named));
        if found.is_none() {
            return Err(context.forbidden(pod, &format!("no PriorityClass with name {named} was found")));
        }
        found
    };
    let value = class.as_ref().and_then(|class| class.i64_at("/value")).unwrap_or(DEFAULT_PRIORITY);
    let preemption = match class.as_ref().map(|class| class.str_at("/preemptionPolicy")) {
        None | Some("") => DEFAULT_PREEMPTION,
        Some(policy) => policy,
    };
    let tail = "must not be provided in pod spec; priority admission controller computed";
    if let Some(given) = pod.i64_at("/spec/priority").filter(|given| *given != value) {
        let why = format!("the integer value of priority ({given}) {tail} {value} from the given PriorityClass name");
        return Err(context.forbidden(pod, &why));
    }
    let given = pod.str_at("/spec/preemptionPolicy");
    if !given.is_empty() && given != preemption {
        let why = format!(
            "the string value of PreemptionPolicy ({given}) {tail} {preemption} from the given PriorityClass name"
        );
        return Err(context.forbidden(pod, &why));
    }
    let preemption = json!(preemption);
    let spec = pod.map_mut("spec");
    spec.insert("priority".to_owned(), json!(value));
    spec.insert("preemptionPolicy".to_owned(), preemption);
    if let Some(class) = class.filter(|_| named.is_empty()) {
        spec.insert("priorityClassName".to_owned(), json!(class.name()));
    }
    Ok(())
}

/// No two classes are the default.
pub fn check(context: &AdmissionContext<'_>, class: &Object) -> Result<(), Status> {
    if !context.is(&PRIORITY_CLASS, "")
        || !matches!(context.operation, Operation::Create | Operation::Update)
        || class.bool_at("/globalDefault") != Some(true)
    {
        return Ok(());
    }
    match default(context).filter(|other| other.name() != class.name()) {
        Some(other) => {
            let why =
                format!("PriorityClass {} is already marked as default. Only one default can exist", other.name());
            Err(context.forbidden(class, &why))
        }
        None => Ok(()),
    }
}
