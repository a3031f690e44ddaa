//! Revisions: which set is the current one, what a new one is called, which old ones are kept.

use gantry_kube::Object;
use serde_json::{Map, Value, json};

use super::plan::{Action, DESIRED, HASH_LABEL, MAXIMUM, REVISION, View, size};
use crate::controllers::dependents::plan::owner_reference;
use crate::controllers::revisions::short_hash;

/// Annotations that describe the deployment itself and are not handed on to its sets.
const NOT_HANDED_ON: [&str; 5] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    "deployment.kubernetes.io/revision-history",
    DESIRED,
    MAXIMUM,
];

/// The set whose template is the deployment's; the oldest where there are several.
pub fn current<'a>(deployment: &Object, owned: &[&'a Object]) -> Option<&'a Object> {
    owned.iter().copied().find(|set| same_template(set, deployment))
}

fn same_template(set: &Object, deployment: &Object) -> bool {
    set.get("/spec/template").map(without_hash).as_ref() == deployment.get("/spec/template")
}

/// Whether the set is the one that the deployment would make now.
pub fn is_set_of(set: &Object, deployment: &Object) -> bool {
    set.controller().is_some_and(|owner| owner["uid"] == deployment.uid()) && same_template(set, deployment)
}

fn without_hash(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove(HASH_LABEL);
    }
    template
}

pub fn revision(set: &Object) -> i64 {
    set.annotation(REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
}

/// The deployment's size changed since its sets were last sized.
pub fn is_scaling(view: &View<'_>, owned: &[&Object]) -> bool {
    owned.iter().filter(|set| size(set) > 0).any(|set| {
        set.annotation(DESIRED).and_then(|d| d.parse::<i64>().ok()).is_some_and(|desired| desired != view.replicas)
    })
}

pub fn new_set(view: &View<'_>, old: &[&Object], replicas: i64) -> Object {
    let deployment = view.object;
    let mut template = deployment.get("/spec/template").cloned().unwrap_or_default();
    let hash = short_hash(&template, deployment.i64_at("/status/collisionCount").unwrap_or(0));
    let mut labels = template["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    labels.insert(HASH_LABEL.to_owned(), json!(hash));
    template["metadata"]["labels"] = json!(labels);
    let mut selector = deployment.get("/spec/selector").cloned().unwrap_or_default();
    selector["matchLabels"][HASH_LABEL] = json!(hash);
    let mut annotations = handed_on(deployment);
    annotations.insert(REVISION.to_owned(), json!((newest(old) + 1).to_string()));
    annotations.insert(DESIRED.to_owned(), json!(view.replicas.to_string()));
    annotations.insert(MAXIMUM.to_owned(), json!((view.replicas + view.max_surge).to_string()));
    let mut spec = json!({"replicas": replicas, "selector": selector, "template": template});
    if let Some(seconds) = deployment.i64_at("/spec/minReadySeconds").filter(|s| *s > 0) {
        spec["minReadySeconds"] = json!(seconds);
    }
    Object::from_value(json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": format!("{}-{hash}", deployment.name()), "namespace": deployment.namespace(),
            "labels": labels, "annotations": annotations, "ownerReferences": [owner_reference(deployment)],
        },
        "spec": spec,
    }))
    .unwrap_or_default()
}

fn newest(sets: &[&Object]) -> i64 {
    sets.iter().map(|set| revision(set)).max().unwrap_or(0)
}

fn handed_on(deployment: &Object) -> Map<String, Value> {
    let all = deployment.get("/metadata/annotations").and_then(Value::as_object).cloned().unwrap_or_default();
    all.into_iter().filter(|(key, _)| !NOT_HANDED_ON.contains(&key.as_str())).collect()
}

/// The current set carries the newest revision (a rollback lifts an old one), and so does the deployment.
pub fn annotate(view: &View<'_>, current: Option<&Object>, owned: &[&Object]) -> Vec<Action> {
    let Some(set) = current else { return Vec::new() };
    let others: Vec<&Object> = owned.iter().copied().filter(|o| o.uid() != set.uid()).collect();
    let mut actions = Vec::new();
    let wanted = revision(set).max(newest(&others) + 1);
    let mut annotations = handed_on(view.object);
    annotations.retain(|key, value| set.annotation(key) != value.as_str());
    if wanted != revision(set) {
        annotations.insert(REVISION.to_owned(), json!(wanted.to_string()));
    }
    let mut patch = json!({"metadata": {"uid": set.uid()}});
    if !annotations.is_empty() {
        patch["metadata"]["annotations"] = json!(annotations);
    }
    let min_ready = view.object.i64_at("/spec/minReadySeconds").unwrap_or(0);
    if set.i64_at("/spec/minReadySeconds").unwrap_or(0) != min_ready {
        patch["spec"]["minReadySeconds"] = json!(min_ready);
    }
    if patch != json!({"metadata": {"uid": set.uid()}}) {
        actions.push(Action::Patch { at: set.reference(), patch });
    }
    if view.object.annotation(REVISION) != Some(wanted.to_string().as_str()) {
        actions.push(Action::Annotate(json!({
            "metadata": {"uid": view.object.uid(), "annotations": {REVISION: wanted.to_string()}},
        })));
    }
    actions
}

/// Empty sets beyond the history limit go, the oldest revision first.
pub fn clean_up(view: &View<'_>, old: &[&Object]) -> Vec<Action> {
    let limit = view.object.i64_at("/spec/revisionHistoryLimit").and_then(|l| usize::try_from(l).ok()).unwrap_or(10);
    let idle = |set: &&&Object| {
        size(set) == 0 && set.i64_at("/status/replicas").unwrap_or(0) == 0 && set.deletion_timestamp().is_none()
    };
    let mut spent: Vec<&&Object> = old.iter().filter(idle).collect();
    spent.sort_by_key(|set| revision(set));
    let surplus = old.len().saturating_sub(limit).min(spent.len());
    spent[..surplus].iter().map(|set| Action::Delete { at: set.reference(), uid: set.uid().to_owned() }).collect()
}
