//! An object: its whole JSON map, with names for the places that everybody reads.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::canonical::{DEPTH_MAX, MAPS_MAX};

/// A Kubernetes object as its JSON map. Nothing that a client sent is dropped by passing through here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object(pub Map<String, Value>);

/// Where an object lives within its kind: namespace (empty for cluster-scoped kinds) and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ref {
    pub namespace: String,
    pub name: String,
}

impl Ref {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Ref {
        Ref { namespace: namespace.into(), name: name.into() }
    }

    pub fn cluster(name: impl Into<String>) -> Ref {
        Ref::new("", name)
    }
}

impl fmt::Display for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// Why bytes are not an object.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("not valid JSON")]
    Json(#[source] serde_json::Error),
    #[error("an object is a JSON map, this is {0}")]
    NotAMap(&'static str),
    #[error("lists and maps stand more than {DEPTH_MAX} deep in one another")]
    TooDeep,
    #[error("more than {MAPS_MAX} JSON objects in one body")]
    TooManyMaps,
}

impl Object {
    pub fn from_slice(bytes: &[u8]) -> Result<Object, DecodeError> {
        Object::from_value(serde_json::from_slice(bytes).map_err(DecodeError::Json)?)
    }

    pub fn from_value(value: Value) -> Result<Object, DecodeError> {
        match value {
            Value::Object(map) => Ok(Object(map)),
            Value::Null => Err(DecodeError::NotAMap("null")),
            Value::Bool(_) => Err(DecodeError::NotAMap("a boolean")),
            Value::Number(_) => Err(DecodeError::NotAMap("a number")),
            Value::String(_) => Err(DecodeError::NotAMap("a string")),
            Value::Array(_) => Err(DecodeError::NotAMap("an array")),
        }
    }

    pub fn to_vec(&self) -> Vec<u8> {
        serde_json::to_vec(&self.0).unwrap_or_default()
    }

    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }

    /// A typed, read-only view. Nothing is ever written back from one: it drops what it does not know.
    pub fn view<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&Value::Object(self.0.clone()))
    }

    pub fn get(&self, pointer: &str) -> Option<&Value> {
        pointer.strip_prefix('/').unwrap_or(pointer).split('/').try_fold(None::<&Value>, |at, key| {
            let next = match at {
                None => self.0.get(key),
                Some(Value::Object(map)) => map.get(key),
                Some(Value::Array(items)) => key.parse::<usize>().ok().and_then(|i| items.get(i)),
                Some(_) => None,
            };
            next.map(Some)
        })?
    }

    /// The string at `pointer` (JSON pointer without escapes), or "" where there is none.
    pub fn str_at(&self, pointer: &str) -> &str {
        self.get(pointer).and_then(Value::as_str).unwrap_or("")
    }

    pub fn i64_at(&self, pointer: &str) -> Option<i64> {
        self.get(pointer).and_then(Value::as_i64)
    }

    pub fn bool_at(&self, pointer: &str) -> Option<bool> {
        self.get(pointer).and_then(Value::as_bool)
    }

    /// The array at `pointer`, empty where there is none.
    pub fn array_at(&self, pointer: &str) -> &[Value] {
        self.get(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or(&[])
    }

    pub fn api_version(&self) -> &str {
        self.str_at("/apiVersion")
    }

    pub fn kind(&self) -> &str {
        self.str_at("/kind")
    }

    pub fn name(&self) -> &str {
        self.str_at("/metadata/name")
    }

    pub fn namespace(&self) -> &str {
        self.str_at("/metadata/namespace")
    }

    pub fn reference(&self) -> Ref {
        Ref::new(self.namespace(), self.name())
    }

    pub fn uid(&self) -> &str {
        self.str_at("/metadata/uid")
    }

    pub fn resource_version(&self) -> &str {
        self.str_at("/metadata/resourceVersion")
    }

    pub fn generation(&self) -> i64 {
        self.i64_at("/metadata/generation").unwrap_or(0)
    }

    pub fn deletion_timestamp(&self) -> Option<&str> {
        self.get("/metadata/deletionTimestamp").and_then(Value::as_str)
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels()?.get(key)?.as_str()
    }

    pub fn labels(&self) -> Option<&Map<String, Value>> {
        self.get("/metadata/labels")?.as_object()
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.get("/metadata/annotations")?.as_object()?.get(key)?.as_str()
    }

    pub fn finalizers(&self) -> impl Iterator<Item = &str> {
        self.array_at("/metadata/finalizers").iter().filter_map(Value::as_str)
    }

    /// The owner that manages this object (`controller: true`), if it has one.
    pub fn controller(&self) -> Option<&Value> {
        self.array_at("/metadata/ownerReferences").iter().find(|r| r["controller"].as_bool() == Some(true))
    }

    pub fn metadata_mut(&mut self) -> &mut Map<String, Value> {
        self.map_mut("metadata")
    }

    /// The map under a top-level key, made where it is absent or not a map.
    pub fn map_mut(&mut self, key: &str) -> &mut Map<String, Value> {
        let slot = self.0.entry(key).or_insert_with(|| Value::Object(Map::new()));
        if !slot.is_object() {
            *slot = Value::Object(Map::new());
        }
        match slot {
            Value::Object(map) => map,
            _ => unreachable!("made a map above"),
        }
    }
}

impl From<Map<String, Value>> for Object {
    fn from(map: Map<String, Value>) -> Object {
        Object(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pointers_walk_maps_and_arrays() {
        let pod = Object::from_value(
            json!({"metadata": {"name": "a", "namespace": "b"}, "spec": {"containers": [{"name": "c"}]}}),
        )
        .unwrap();
        assert_eq!(pod.reference(), Ref::new("b", "a"));
        assert_eq!(pod.str_at("/spec/containers/0/name"), "c");
        assert_eq!(pod.get("/spec/containers/1/name"), None);
        assert_eq!(pod.get("/spec/containers/0/name/x"), None);
    }
}
