//! Which pods are an owner's own, and what is made of its template.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use gantry_kube::selector::LabelSelector;
use gantry_kube::{Object, Ref};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::controllers::informers::Pod;
use crate::controllers::revisions::Change;
use crate::controllers::time::{parse, seconds_since};

/// A pod's name is at most 63 characters, five of them the suffix and one the dash.
const NAME_PREFIX_MAX: usize = 57;

/// A pod that a node refuses at once is not made anew more often than this.
const ENDED_FOR_SECONDS: i64 = 15;

pub type Names = BTreeSet<String>;

/// Our own writes that the informer has not shown yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outstanding {
    /// Names of pods that were created.
    pub created: Names,
    /// Uids of pods that were deleted.
    pub deleted: Names,
}

/// What one turn of a kind does that keeps the revisions of its template.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Turn {
    pub revisions: Vec<Change>,
    pub ownership: Vec<(Ref, Value)>,
    /// Reason and message of events.
    pub warnings: Vec<(&'static str, String)>,
    /// Claims that change hands, and new ones with the names of the pods that they are for.
    pub claim_owners: Vec<Object>,
    pub claims: Vec<(Object, String)>,
    pub delete: Vec<(Ref, String)>,
    pub create: Vec<Object>,
    pub status: Option<Value>,
    /// When a pod becomes available, or may be made anew, without any event telling us.
    pub check_again: Option<Duration>,
}

impl Outstanding {
    pub fn is_empty(&self) -> bool {
        self.created.is_empty() && self.deleted.is_empty()
    }

    /// Drops what the informer shows by now.
    pub fn settle(&mut self, pods: &[Arc<Pod>]) {
        let present: BTreeMap<&str, &Pod> = pods.iter().map(|pod| (pod.uid.as_str(), pod.as_ref())).collect();
        self.created.retain(|name| !pods.iter().any(|pod| &pod.reference().name == name));
        self.deleted.retain(|uid| present.get(uid.as_str()).is_some_and(|pod| !pod.deleting));
    }
}

/// Which pods an owner calls its own; a ReplicationController names labels alone.
pub fn selector(owner: &Object) -> Option<LabelSelector> {
    let value = owner.get("/spec/selector")?;
    let selector = match value.as_object().filter(|_| owner.kind() == "ReplicationController") {
        Some(labels) => LabelSelector::from_map(labels),
        None => LabelSelector::from_value(value).ok()?,
    };
    (!selector.is_empty()).then_some(selector)
}

pub fn selects(owner: &Object, pod: &Pod) -> bool {
    selector(owner).is_some_and(|selector| selector.matches(Some(&pod.labels)))
}

/// Batches of one, two, four and so on.
pub fn slow_start<T>(mut all: &[T]) -> impl Iterator<Item = &[T]> {
    let mut size = 1;
    std::iter::from_fn(move || {
        let (batch, rest) = all.split_at(all.len().min(size));
        (all, size) = (rest, size * 2);
        (!batch.is_empty()).then_some(batch)
    })
}

/// The pods that are the owner's, with those that it adopts, and the patches that adopt and release: strategic, with a uid
/// precondition.
pub fn claim<'a>(owner: &Object, pods: &'a [Arc<Pod>]) -> (Vec<&'a Pod>, Vec<(Ref, Value)>) {
    let (selector, stays) = (selector(owner), owner.deletion_timestamp().is_none());
    let (mut mine, mut patches) = (Vec::new(), Vec::new());
    for pod in pods {
        let owned = pod.controller_uid == owner.uid();
        let fits = selector.as_ref().is_some_and(|selector| selector.matches(Some(&pod.labels)));
        if owned && fits {
            mine.push(pod.as_ref());
        } else if owned && !pod.deleting && stays {
            patches.push((pod.reference(), release(owner, pod)));
        } else if fits && pod.controller_uid.is_empty() && pod.active() && stays {
            patches.push((pod.reference(), adopt(owner, pod)));
            mine.push(pod.as_ref());
        }
    }
    (mine, patches)
}

fn adopt(owner: &Object, pod: &Pod) -> Value {
    json!({"metadata": {"uid": pod.uid, "ownerReferences": [owner_reference(owner)]}})
}

fn release(owner: &Object, pod: &Pod) -> Value {
    json!({"metadata": {"uid": pod.uid, "ownerReferences": [{"$patch": "delete", "uid": owner.uid()}]}})
}

/// The seconds before a pod that has ended, and should not have, is made anew: none but where it ended at once.
pub fn replace_in(pod: &Pod, now: Timestamp) -> i64 {
    parse(&pod.created).map_or(0, |created| ENDED_FOR_SECONDS - seconds_since(created, now)).max(0)
}

/// The owner reference of a controller, as its dependents carry it.
pub fn owner_reference(owner: &Object) -> Value {
    json!({
        "apiVersion": owner.api_version(), "kind": owner.kind(), "name": owner.name(), "uid": owner.uid(),
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// A pod of the owner's template under a name of chance.
pub fn pod_from(owner: &Object, suffix: &str) -> Object {
    let prefix = &owner.name()[..owner.name().len().min(NAME_PREFIX_MAX)];
    let mut pod = named_pod(owner, owner.get("/spec/template").unwrap_or(&Value::Null), &format!("{prefix}-{suffix}"));
    pod.metadata_mut().insert("generateName".to_owned(), json!(format!("{prefix}-")));
    pod
}

/// A pod of a template, named.
pub fn named_pod(owner: &Object, template: &Value, name: &str) -> Object {
    let mut pod = Object::from_value(json!({"apiVersion": "v1", "kind": "Pod"})).unwrap_or_default();
    let metadata = pod.metadata_mut();
    for key in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template["metadata"].get(key).filter(|v| !v.is_null()) {
            metadata.insert(key.to_owned(), value.clone());
        }
    }
    metadata.insert("name".to_owned(), json!(name));
    metadata.insert("namespace".to_owned(), json!(owner.namespace()));
    metadata.insert("ownerReferences".to_owned(), json!([owner_reference(owner)]));
    pod.0.insert("spec".to_owned(), template["spec"].clone());
    pod
}

/// One more entry of `metadata.labels` (or `annotations`).
pub fn mark(pod: &mut Object, map: &str, key: &str, value: &str) {
    let entries = pod.metadata_mut().entry(map).or_insert_with(|| json!({}));
    if let Some(entries) = entries.as_object_mut() {
        entries.insert(key.to_owned(), json!(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn creations_start_slowly() {
        let sizes: Vec<usize> = slow_start(&[(); 12]).map(<[()]>::len).collect();
        assert_eq!(sizes, [1, 2, 4, 5]);
        assert_eq!(slow_start::<()>(&[]).count(), 0);
    }
}
