//! A change of what the containers of a running pod ask for, all else being as it was.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::at::{At, Errors};
use super::resources;
use crate::pod::{is_mirror, is_terminal, qos};
use crate::{FieldError, Object};

/// What can be changed while a container runs.
const MUTABLE: [&str; 2] = ["cpu", "memory"];
const ONLY: &str = "only cpu and memory resources are mutable";

pub fn resize(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::of(new, "spec");
    if is_mirror(old) {
        errors.push(FieldError::forbidden("spec", "static pods cannot be resized"));
        return errors.into_vec();
    }
    if is_terminal(old) {
        errors.push(FieldError::forbidden("spec", "terminated pods cannot be resized"));
        return errors.into_vec();
    }
    let claims = spec.field("resourceClaims");
    let claims: BTreeSet<&str> = claims.items().map(|claim| claim.text_of("name")).collect();
    let before = At::of(old, "spec");
    for list in ["containers", "initContainers"] {
        for (at, before) in spec.field(list).items().zip(before.field(list).items()) {
            let (at, before) = (at.field("resources"), before.field("resources"));
            resources::resources(&at, &claims, &mut errors);
            mutable(&at, &before, &mut errors);
        }
    }
    if qos::class(new) != qos::class(old) {
        let why = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid("spec", qos::class(new).as_str(), why));
    }
    errors.into_vec()
}

/// Nothing but processor and memory changes, and neither is taken back: a container that had a limit keeps one.
fn mutable(at: &At<'_>, before: &At<'_>, errors: &mut Errors) {
    for (list, gone) in
        [("requests", "resource requests cannot be removed"), ("limits", "resource limits cannot be removed")]
    {
        let (now, was) = (at.field(list), before.field(list));
        let rest = |at: &At<'_>| -> Vec<(String, Value)> {
            let others = at.entries().filter(|(name, _)| !MUTABLE.contains(name));
            others.map(|(name, amount)| (name.to_owned(), amount.value.clone())).collect()
        };
        if rest(&now) != rest(&was) {
            now.forbidden(errors, ONLY);
        }
        if was.entries().any(|(name, _)| MUTABLE.contains(&name) && !now.field(name).is_set()) {
            now.forbidden(errors, gone);
        }
    }
    if at.field("claims").value != before.field("claims").value {
        at.field("claims").forbidden(errors, ONLY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(resources: Value) -> Object {
        let spec = json!({"containers": [{"name": "a", "image": "i", "resources": resources}]});
        Object::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    fn errors(old: Value, new: Value) -> Vec<String> {
        resize(&pod(new), &pod(old)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn processor_and_memory_change_and_the_class_does_not() {
        let old = json!({"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "64Mi"}});
        let with = |pointer: &str, value: Value| {
            let mut new = old.clone();
            *new.pointer_mut(pointer).unwrap() = value;
            errors(old.clone(), new)
        };
        assert_eq!(with("/requests/cpu", json!("200m")), [""; 0]);
        assert_eq!(
            with("/requests", json!({"cpu": "100m"})),
            ["spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"]
        );
        let path = "spec.containers[0].resources.limits";
        assert_eq!(
            with("/limits", json!({"memory": "64Mi", "ephemeral-storage": "1Gi"})),
            [format!("{path}: Forbidden: only cpu and memory resources are mutable")]
        );
        assert!(
            with("/requests/memory", json!("1Gi"))[0].contains("must be less than or equal to memory limit of 64Mi")
        );
        let exact = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}});
        let more = json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}});
        assert_eq!(
            errors(exact, more),
            ["spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing"]
        );
    }
}
