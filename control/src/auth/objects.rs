//! A map of objects that tests look things up in.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_kube::{Object, Ref, Resource};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::Lookup;

#[derive(Debug, Default)]
pub struct Objects {
    all: Mutex<BTreeMap<(String, Ref), Arc<Object>>>,
    version: Mutex<u64>,
}

impl Objects {
    pub fn of(values: impl IntoIterator<Item = Value>) -> Objects {
        let objects = Objects::default();
        values.into_iter().for_each(|value| objects.put(value));
        objects
    }

    /// Puts an object in the place that its kind and name say.
    pub fn put(&self, value: Value) {
        let object = Object::from_value(value).unwrap();
        let resource = gantry_kube::resource::ALL.iter().find(|r| r.kind == object.kind()).unwrap();
        self.all.lock().insert((resource.plural.to_owned(), object.reference()), Arc::new(object));
        *self.version.lock() += 1;
    }

    pub fn remove(&self, resource: &Resource, at: &Ref) {
        self.all.lock().remove(&(resource.plural.to_owned(), at.clone()));
        *self.version.lock() += 1;
    }
}

impl Lookup for Objects {
    fn get(&self, resource: &Resource, at: &Ref) -> Option<Arc<Object>> {
        self.all.lock().get(&(resource.plural.to_owned(), at.clone())).cloned()
    }

    fn list(&self, resource: &Resource, namespace: Option<&str>) -> Vec<Arc<Object>> {
        let all = self.all.lock();
        all.iter()
            .filter(|((plural, at), _)| plural == resource.plural && namespace.is_none_or(|ns| at.namespace == ns))
            .map(|(_, object)| Arc::clone(object))
            .collect()
    }

    fn version(&self, _resource: &Resource) -> u64 {
        *self.version.lock()
    }
}

pub fn role(name: &str, rules: Value) -> Value {
    json!({"kind": "ClusterRole", "metadata": {"name": name}, "rules": rules})
}

/// A binding in `namespace`, or in the whole cluster.
pub fn binding(namespace: &str, name: &str, role: &str, subject: Value) -> Value {
    let kind = if namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" };
    json!({
        "kind": kind, "metadata": {"name": name, "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [subject],
    })
}
