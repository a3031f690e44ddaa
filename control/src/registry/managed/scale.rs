//! Who owns the replicas: the one field that the Scale of an object has, between that object's record and the Scale's own. An
//! entry that was made through the Scale says so (`subresource: scale`), and has the field by the name that the object has for
//! it, in the version of the object. The rules are those of Kubernetes' scale handler.

use gantry_kube::Object;
use gantry_kube::apply::Fields;
use serde_json::{Map, Value, json};

use super::{Entry, entries, put, restore};

const API_VERSION: &str = "autoscaling/v1";

/// `.spec.replicas`, which objects and their Scales have by the same name.
fn replicas() -> Fields {
    let fields = json!({"f:spec": {"f:replicas": {}}});
    Fields::read(fields.as_object().unwrap_or(&Map::new()))
}

fn has_replicas(entry: &Entry) -> bool {
    !entry.fields.intersection(&replicas()).is_empty()
}

impl Entry {
    /// The same manager, through the same part.
    fn is_same_as(&self, other: &Entry) -> bool {
        let who = |entry: &Entry| (entry.manager.clone(), entry.operation.clone(), entry.subresource.clone());
        who(self) == who(other)
    }
}

/// The Scale of an object, with the entries of those who own its replicas.
pub(in crate::registry) fn of(parent: &Object, mut scale: Object) -> Object {
    let owners = entries(parent).into_iter().filter(has_replicas);
    let owners = owners.map(|entry| Entry { api_version: API_VERSION.to_owned(), fields: replicas(), ..entry });
    let written: Vec<Value> = owners.map(|entry| entry.write()).collect();
    restore(&mut scale, written);
    scale
}

/// The object with the replicas' owners that its Scale has now: who is no more among them loses the field alone.
pub(in crate::registry) fn hand_back(parent: &mut Object, scale: &Object) {
    let mut owners: Vec<Entry> = entries(scale).into_iter().filter(has_replicas).collect();
    let mut kept = entries(parent);
    for entry in kept.iter_mut().filter(|entry| has_replicas(entry)) {
        match owners.iter().position(|owner| owner.is_same_as(entry)) {
            Some(at) => drop(owners.swap_remove(at)),
            None => entry.fields.subtract(&replicas()),
        }
    }
    let api_version = parent.api_version().to_owned();
    kept.extend(owners.into_iter().map(|owner| Entry {
        api_version: api_version.clone(),
        fields: replicas(),
        ..owner
    }));
    put(parent, kept);
}
