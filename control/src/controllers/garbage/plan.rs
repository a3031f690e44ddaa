use std::collections::{BTreeMap, BTreeSet};

use gantry_kube::{Object, Ref};
use serde_json::{Value, json};

pub const ORPHAN: &str = "orphan";
pub const FOREGROUND: &str = "foregroundDeletion";

/// What the collector keeps of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meta {
    pub uid: String,
    pub resource_version: String,
    pub owners: Vec<Owner>,
    pub finalizers: Vec<String>,
    pub deleting: bool,
    pub orphan: bool,
    pub foreground: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Owner {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
    pub blocks: bool,
    pub raw: Value,
}

impl Owner {
    /// An owner lives in its dependent's namespace.
    pub fn at(&self, dependent: &Ref) -> Ref {
        Ref::new(dependent.namespace.clone(), self.name.clone())
    }
}

impl Meta {
    pub fn project(object: Object) -> Meta {
        let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
        let owner = |raw: &Value| Owner {
            api_version: text(&raw["apiVersion"]),
            kind: text(&raw["kind"]),
            name: text(&raw["name"]),
            uid: text(&raw["uid"]),
            blocks: raw["blockOwnerDeletion"].as_bool().unwrap_or(false),
            raw: raw.clone(),
        };
        let finalizers: Vec<String> = object.finalizers().map(str::to_owned).collect();
        Meta {
            uid: object.uid().to_owned(),
            resource_version: object.resource_version().to_owned(),
            owners: object.array_at("/metadata/ownerReferences").iter().map(owner).collect(),
            deleting: object.deletion_timestamp().is_some(),
            orphan: finalizers.iter().any(|f| f == ORPHAN),
            foreground: finalizers.iter().any(|f| f == FOREGROUND),
            finalizers,
        }
    }

    /// The object is held by a finalizer of the collector.
    pub fn waits(&self) -> bool {
        self.deleting && (self.orphan || self.foreground)
    }
}

/// Who depends on whom, by the owner's uid.
#[derive(Debug)]
pub struct Graph<K>(BTreeMap<String, BTreeSet<K>>);

impl<K> Default for Graph<K> {
    fn default() -> Self {
        Graph(BTreeMap::new())
    }
}

impl<K: Ord + Clone> Graph<K> {
    pub fn insert(&mut self, key: K, meta: &Meta) {
        for owner in &meta.owners {
            self.0.entry(owner.uid.clone()).or_default().insert(key.clone());
        }
    }

    pub fn remove(&mut self, key: &K, meta: &Meta) {
        for owner in &meta.owners {
            if let Some(set) = self.0.get_mut(&owner.uid) {
                set.remove(key);
                if set.is_empty() {
                    self.0.remove(&owner.uid);
                }
            }
        }
    }

    pub fn of(&self, uid: &str) -> impl Iterator<Item = K> {
        self.0.get(uid).cloned().unwrap_or_default().into_iter()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerState {
    There,
    /// Deleting in the foreground: it goes when its blocking dependents are gone.
    WaitsForUs,
    Gone,
    /// A kind that is not served: nothing is concluded from it.
    Unknown,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Verdict<K> {
    Delete {
        propagation_policy: Option<&'static str>,
    },
    Patch(Value),
    /// Take ourselves off these dependents, then off our own finalizer.
    Orphan(Vec<K>),
}

/// What a deleted owner that is held by a finalizer of ours needs.
pub fn release<K>(meta: &Meta, dependents: Vec<K>, blocking: usize) -> Option<Verdict<K>> {
    if !meta.waits() {
        return None;
    }
    if meta.orphan {
        return Some(Verdict::Orphan(dependents));
    }
    (blocking == 0).then(|| Verdict::Patch(without_finalizer(meta, FOREGROUND)))
}

/// What becomes of a dependent, by the states of its owners (in their order).
pub fn judge<K>(meta: &Meta, owners: &[OwnerState]) -> Option<Verdict<K>> {
    let any = |state| owners.contains(&state);
    if any(OwnerState::Unknown) {
        return None;
    }
    if any(OwnerState::There) {
        if !any(OwnerState::Gone) && !any(OwnerState::WaitsForUs) {
            return None;
        }
        // One owner keeps it; the others are struck from the list.
        let kept: Vec<&Value> =
            meta.owners.iter().zip(owners).filter(|(_, s)| **s == OwnerState::There).map(|(o, _)| &o.raw).collect();
        return Some(Verdict::Patch(
            json!({"metadata": {"resourceVersion": meta.resource_version, "ownerReferences": kept}}),
        ));
    }
    let propagation_policy = if any(OwnerState::WaitsForUs) { Some("Foreground") } else { Some("Background") };
    Some(Verdict::Delete { propagation_policy })
}

pub fn without_owner(meta: &Meta, uid: &str) -> Value {
    let kept: Vec<&Value> = meta.owners.iter().filter(|o| o.uid != uid).map(|o| &o.raw).collect();
    json!({"metadata": {"resourceVersion": meta.resource_version, "ownerReferences": kept}})
}

pub fn without_finalizer(meta: &Meta, finalizer: &str) -> Value {
    let kept: Vec<&String> = meta.finalizers.iter().filter(|f| *f != finalizer).collect();
    json!({"metadata": {"resourceVersion": meta.resource_version, "finalizers": kept}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(owners: &[&str], finalizers: &[&str], deleting: bool) -> Meta {
        let owners: Vec<Value> =
            owners.iter().map(|u| json!({"uid": u, "kind": "ReplicaSet", "blockOwnerDeletion": true})).collect();
        let mut value = json!({"metadata": {"uid": "me", "resourceVersion": "1", "ownerReferences": owners, "finalizers": finalizers}});
        if deleting {
            value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        Meta::project(Object::from_value(value).unwrap())
    }

    #[test]
    fn a_dependent_goes_with_its_last_owner() {
        use OwnerState::{Gone, There, Unknown, WaitsForUs};
        let one = meta(&["a"], &[], false);
        assert_eq!(judge::<()>(&one, &[Gone]), Some(Verdict::Delete { propagation_policy: Some("Background") }));
        assert_eq!(judge::<()>(&one, &[WaitsForUs]), Some(Verdict::Delete { propagation_policy: Some("Foreground") }));
        assert_eq!(judge::<()>(&one, &[There]), None);
        assert_eq!(judge::<()>(&one, &[Unknown]), None, "what we do not know, we do not delete for");
        let two = meta(&["a", "b"], &[], false);
        let Some(Verdict::Patch(patch)) = judge::<()>(&two, &[Gone, There]) else { panic!() };
        assert_eq!(patch["metadata"]["ownerReferences"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn owners_are_held_until_their_turn() {
        assert_eq!(release(&meta(&[], &[FOREGROUND], true), vec![1], 1), None);
        assert!(matches!(release(&meta(&[], &[FOREGROUND, "x"], true), Vec::<i32>::new(), 0),
            Some(Verdict::Patch(p)) if p["metadata"]["finalizers"] == json!(["x"])));
        assert_eq!(release(&meta(&[], &[ORPHAN], true), vec![1, 2], 2), Some(Verdict::Orphan(vec![1, 2])));
        assert_eq!(release(&meta(&[], &[ORPHAN], false), vec![1], 1), None);
    }

    #[test]
    fn the_graph_forgets_what_goes() {
        let (mut graph, a) = (Graph::default(), meta(&["o"], &[], false));
        graph.insert(1, &a);
        graph.insert(2, &a);
        graph.remove(&1, &a);
        assert_eq!(graph.of("o").collect::<Vec<_>>(), [2]);
        graph.remove(&2, &a);
        assert!(graph.0.is_empty());
    }
}
