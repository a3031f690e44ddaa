//! Containers that are added to a pod that runs, to look at it: they come, end, and never change.

use std::collections::BTreeSet;

use super::super::at::{At, Errors};
use super::{Pod, container, volume};
use crate::pod::is_mirror;
use crate::{FieldError, Object};

/// What the API has of a container for one that comes late: nothing that the pod's plans would have had to know.
const ALLOWED: [&str; 16] = [
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "env",
    "envFrom",
    "volumeMounts",
    "volumeDevices",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "imagePullPolicy",
    "securityContext",
    "stdin",
    "stdinOnce",
    "tty",
];
const TARGET: &str = "targetContainerName";

/// A change of `spec.ephemeralContainers`, all else being as it was.
pub fn ephemeral_containers(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::of(new, "spec");
    if is_mirror(new) {
        spec.field("ephemeralContainers").forbidden(&mut errors, "static pods do not support ephemeral containers");
        return errors.into_vec();
    }
    let volumes = volume::volumes(&spec.field("volumes"), &mut Errors::default());
    let grace = spec.int_of("terminationGracePeriodSeconds");
    let pod = Pod { volumes, claims: BTreeSet::new(), grace, never_restarts: false };
    let named = ["containers", "initContainers"].map(|list| spec.field(list));
    let targets: BTreeSet<&str> = named.iter().flat_map(At::items).map(|at| at.text_of("name")).collect();
    let mut names = targets.clone();
    for at in spec.field("ephemeralContainers").items() {
        container::container(&at, &pod, &mut names, &mut errors);
        only_allowed(&at, &mut errors);
        let target = at.field(TARGET);
        if !target.text().is_empty() && !targets.contains(target.text()) {
            errors.push(FieldError::not_found(target.path.as_str(), target.text()));
        }
    }
    kept(&spec, &At::of(old, "spec"), &mut errors);
    errors.into_vec()
}

fn only_allowed(at: &At<'_>, errors: &mut Errors) {
    const WHY: &str = "cannot be set for an Ephemeral Container";
    for key in at.map().into_iter().flat_map(serde_json::Map::keys) {
        let field = at.field(key);
        let empty =
            field.map().is_some_and(serde_json::Map::is_empty) || (field.count() == 0 && field.value.is_array());
        if !ALLOWED.contains(&key.as_str()) && key != TARGET && field.is_set() && !empty {
            field.forbidden(errors, WHY);
        }
    }
    for mount in at.field("volumeMounts").items() {
        for key in ["subPath", "subPathExpr"] {
            if !mount.text_of(key).is_empty() {
                mount.field(key).forbidden(errors, WHY);
            }
        }
    }
}

/// What was there is there still, as it was.
fn kept(spec: &At<'_>, before: &At<'_>, errors: &mut Errors) {
    let list = spec.field("ephemeralContainers");
    for old in before.field("ephemeralContainers").items() {
        let name = old.text_of("name");
        match list.items().find(|at| at.text_of("name") == name) {
            None => list.forbidden(errors, &format!("existing ephemeral containers {name:?} may not be removed\n")),
            Some(new) if new.value != old.value => {
                list.forbidden(errors, &format!("existing ephemeral containers {name:?} may not be changed\n"));
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(ephemeral: Value) -> Object {
        let spec = json!({"containers": [{"name": "c", "image": "i"}], "volumes": [{"name": "v", "emptyDir": {}}],
            "ephemeralContainers": ephemeral});
        Object::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    fn look(more: Value) -> Value {
        let mut container = json!({"name": "look", "image": "i", "imagePullPolicy": "Always",
            "terminationMessagePolicy": "File"});
        container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        container
    }

    fn words(new: Value, old: Value) -> Vec<String> {
        ephemeral_containers(&pod(new), &pod(old)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn one_may_come_and_must_then_stay_as_it_is() {
        let full = json!({"targetContainerName": "c", "stdin": true, "tty": true, "command": ["sh"], "ports": [],
            "resources": {}, "env": [{"name": "A", "value": "b"}], "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            "securityContext": {"privileged": true}});
        assert_eq!(words(json!([look(full.clone())]), json!([])), [] as [&str; 0]);
        assert_eq!(words(json!([look(full.clone())]), json!([look(full.clone())])), [] as [&str; 0]);
        let at = "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"look\" may not be";
        assert_eq!(words(json!([]), json!([look(json!({}))])), [format!("{at} removed\n")]);
        assert_eq!(words(json!([look(full)]), json!([look(json!({}))])), [format!("{at} changed\n")]);
    }

    #[test]
    fn what_a_running_pod_cannot_give_is_refused() {
        let at = "spec.ephemeralContainers[0]";
        let why = "Forbidden: cannot be set for an Ephemeral Container";
        for (more, wanted) in [
            (json!({"name": "c"}), format!("{at}.name: Duplicate value: \"c\"")),
            (json!({"targetContainerName": "x"}), format!("{at}.targetContainerName: Not found: \"x\"")),
            (json!({"ports": [{"containerPort": 1, "protocol": "TCP"}]}), format!("{at}.ports: {why}")),
            (json!({"resources": {"limits": {"cpu": "1"}}}), format!("{at}.resources: {why}")),
            (json!({"lifecycle": {"stopSignal": "SIGTERM"}}), format!("{at}.lifecycle: {why}")),
            (
                json!({"volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "s"}]}),
                format!("{at}.volumeMounts[0].subPath: {why}"),
            ),
        ] {
            let found = words(json!([look(more)]), json!([]));
            assert!(found.contains(&wanted), "{found:?} lacks {wanted:?}");
        }
        let mut mirror = pod(json!([look(json!({}))]));
        mirror.metadata_mut().insert("annotations".into(), json!({(crate::pod::MIRROR_ANNOTATION): "h"}));
        let found = ephemeral_containers(&mirror, &mirror)[0].to_string();
        assert_eq!(found, "spec.ephemeralContainers: Forbidden: static pods do not support ephemeral containers");
    }
}
