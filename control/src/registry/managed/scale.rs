//! Who owns the replicas: the one field that the Scale of an object has, between that object's record and the Scale's own. An
//! entry that was made through the Scale says so (`subresource: scale`), and has the field by the name that the object has for
//! it, in the version of the object. The rules are those of Kubernetes' scale handler.

use gantry_kube::Object;
use gantry_kube::apply::Fields;
use serde_json::{Map, Value, json};

use super::{Entry, entries, put, restore};
use crate::registry::subresource::REPLICAS;

const API_VERSION: &str = "autoscaling/v1";

/// The one field at a path: of a Scale `.spec.replicas`, of most objects the same.
fn field(path: &str) -> Fields {
    let under = |inner: Value, name: &str| json!({ format!("f:{name}"): inner });
    let fields = path.rsplit('.').filter(|name| !name.is_empty()).fold(json!({}), under);
    Fields::read(fields.as_object().unwrap_or(&Map::new()))
}

impl Entry {
    fn has(&self, fields: &Fields) -> bool {
        !self.fields.intersection(fields).is_empty()
    }
}

impl Entry {
    /// The same manager, through the same part.
    fn is_same_as(&self, other: &Entry) -> bool {
        let who = |entry: &Entry| (entry.manager.clone(), entry.operation.clone(), entry.subresource.clone());
        who(self) == who(other)
    }
}

/// The Scale of an object, with the entries of those who own its replicas. The object has them at `path`.
pub(in crate::registry) fn of(parent: &Object, mut scale: Object, path: &str) -> Object {
    let (theirs, replicas) = (field(path), field(REPLICAS));
    let owners = entries(parent).into_iter().filter(|entry| entry.has(&theirs));
    let owners = owners.map(|entry| Entry { api_version: API_VERSION.to_owned(), fields: replicas.clone(), ..entry });
    let written: Vec<Value> = owners.map(|entry| entry.write()).collect();
    restore(&mut scale, written);
    scale
}

/// The object with the replicas' owners that its Scale has now: who is no more among them loses the field alone.
pub(in crate::registry) fn hand_back(parent: &mut Object, scale: &Object, path: &str) {
    let (theirs, replicas) = (field(path), field(REPLICAS));
    let mut owners: Vec<Entry> = entries(scale).into_iter().filter(|entry| entry.has(&replicas)).collect();
    let mut kept = entries(parent);
    for entry in kept.iter_mut().filter(|entry| entry.has(&theirs)) {
        match owners.iter().position(|owner| owner.is_same_as(entry)) {
            Some(at) => drop(owners.swap_remove(at)),
            None => entry.fields.subtract(&theirs),
        }
    }
    let api_version = parent.api_version().to_owned();
    kept.extend(owners.into_iter().map(|owner| Entry {
        api_version: api_version.clone(),
        fields: theirs.clone(),
        ..owner
    }));
    put(parent, kept);
}
