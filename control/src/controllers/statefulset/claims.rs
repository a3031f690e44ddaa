//! The claims of a set's members: made of its templates before the pod that uses them, and kept or not as its retention
//! policy says, by whom they have as their owner.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_kube::Object;
use serde_json::{Map, Value, json};

use super::order::Rules;
use crate::controllers::dependents::plan::owner_reference;
use crate::controllers::informers::Pod;

fn templates(set: &Object) -> impl Iterator<Item = (&str, &Value)> {
    let all = set.array_at("/spec/volumeClaimTemplates").iter();
    all.map(|template| (template["metadata"]["name"].as_str().unwrap_or(""), template))
}

fn claim_name(template: &str, set: &Object, ordinal: i64) -> String {
    format!("{template}-{}-{ordinal}", set.name())
}

fn deletes(set: &Object, when: &str) -> bool {
    set.str_at(&format!("/spec/persistentVolumeClaimRetentionPolicy/{when}")) == "Delete"
}

/// The claims that a member lacks; `None` where one of them is still going: the member waits for that.
pub fn missing(set: &Object, ordinal: i64, claims: &[Arc<Object>]) -> Option<Vec<Object>> {
    let mut made = Vec::new();
    for (template, of) in templates(set) {
        let name = claim_name(template, set, ordinal);
        match claims.iter().find(|claim| claim.name() == name) {
            Some(claim) if claim.deletion_timestamp().is_some() => return None,
            Some(_) => {}
            None => made.push(make(set, &name, of)),
        }
    }
    Some(made)
}

fn make(set: &Object, name: &str, template: &Value) -> Object {
    let map = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let mut labels = map(&template["metadata"]["labels"]);
    labels.extend(map(set.get("/spec/selector/matchLabels").unwrap_or(&Value::Null)));
    let mut metadata = json!({"name": name, "namespace": set.namespace(), "labels": labels});
    if template["metadata"]["annotations"].is_object() {
        metadata["annotations"] = template["metadata"]["annotations"].clone();
    }
    if deletes(set, "whenDeleted") {
        metadata["ownerReferences"] = json!([owner_reference(set)]);
    }
    let spec = template["spec"].clone();
    let body = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec});
    Object::from_value(body).unwrap_or_default()
}

/// Gives a member's pod its claims as volumes; they take the place of the template's volumes of the same names.
pub fn mount(set: &Object, ordinal: i64, spec: &mut Map<String, Value>) {
    let volume = |(template, _): (&str, &Value)| json!({"name": template, "persistentVolumeClaim": {"claimName": claim_name(template, set, ordinal)}});
    let mut volumes: Vec<Value> = templates(set).map(volume).collect();
    if volumes.is_empty() {
        return;
    }
    let others = spec.get("volumes").and_then(Value::as_array).into_iter().flatten();
    let kept: Vec<Value> =
        others.filter(|other| volumes.iter().all(|own| own["name"] != other["name"])).cloned().collect();
    volumes.extend(kept);
    spec.insert("volumes".to_owned(), json!(volumes));
}

/// Claims that need another owner than they have: the set, where they go with it; the pod, where it is about to go for good
/// and they with it; nobody, where they stay.
pub fn owners(set: &Object, rules: &Rules<'_>, members: &BTreeMap<i64, &Pod>, claims: &[Arc<Object>]) -> Vec<Object> {
    let mut changed = Vec::new();
    for (ordinal, pod) in members {
        let goes = deletes(set, "whenScaled") && !rules.wanted.contains(ordinal);
        let stays_with_set = deletes(set, "whenDeleted") && !goes;
        for (template, _) in templates(set) {
            let name = claim_name(template, set, *ordinal);
            let found = claims.iter().find(|claim| claim.name() == name && claim.deletion_timestamp().is_none());
            let Some(claim) = found else { continue };
            let is_ours = |owner: &Value| {
                let of_pod = owner["kind"] == "Pod" && owner["name"] == pod.reference().name;
                owner["uid"] == set.uid() || owner["uid"] == pod.uid || of_pod
            };
            // One that another controller has is that one's to keep.
            if claim.controller().is_some_and(|owner| !is_ours(owner)) {
                continue;
            }
            let before = claim.array_at("/metadata/ownerReferences");
            let mut after: Vec<Value> = before.iter().filter(|owner| !is_ours(owner)).cloned().collect();
            if stays_with_set {
                after.push(owner_reference(set));
            } else if goes {
                after.push(of_pod(pod));
            }
            let holder = |owners: &[Value]| -> Vec<Value> { owners.iter().map(|owner| owner["uid"].clone()).collect() };
            if holder(before) != holder(&after) {
                let mut wanted = (**claim).clone();
                wanted.metadata_mut().insert("ownerReferences".to_owned(), json!(after));
                changed.push(wanted);
            }
        }
    }
    changed
}

fn of_pod(pod: &Pod) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "name": pod.reference().name, "uid": pod.uid, "controller": true,
        "blockOwnerDeletion": true,
    })
}
