//! What a schema does not know is taken out of an object and named; metadata, the object's own and that of objects in it, takes the
//! form of every object's metadata. Source: the Kubernetes documentation "Field pruning".

use serde_json::{Map, Value};

use super::structural::{Additional, Structural};
use crate::canonical::{Findings, UNKNOWN_MAX, WRONG_MAX, Wrong, named, normalize_value, push_index, push_key};
use crate::schema;
use crate::{FieldError, Object};

/// The fields that every object has, whatever its schema says.
pub(super) const META_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Prunes a whole object.
pub fn prune(schema: &Structural, object: &mut Object) -> Findings {
    let mut walk = Walk::default();
    walk.fields(&mut object.0, Some(schema), schema.preserve_unknown, true);
    let wrong = walk.wrong.into_iter().map(|(is_own, error)| {
        // What is wrong with the object's own metadata makes it unreadable; elsewhere a field is wrong.
        let message = if is_own { error.detail.clone() } else { error.to_string() };
        Wrong { path: error.path, message }
    });
    Findings { unknown: walk.unknown, wrong: wrong.collect() }
}

/// Prunes a value by itself, which stands at `path`: what was unknown in it, and what was wrong.
pub(super) fn prune_value(schema: &Structural, path: &str, value: &mut Value) -> (Vec<String>, Vec<FieldError>) {
    let mut walk = Walk { path: path.to_owned(), field: path.to_owned(), ..Walk::default() };
    walk.value(value, Some(schema));
    (walk.unknown, walk.wrong.into_iter().map(|(_, error)| error).collect())
}

#[derive(Default)]
struct Walk {
    unknown: Vec<String>,
    /// And whether it is of the object's own metadata.
    wrong: Vec<(bool, FieldError)>,
    /// As unknown fields are named (`spec.map.key`), and as wrong values are (`spec.map[key]`).
    path: String,
    field: String,
}

impl Walk {
    fn value(&mut self, value: &mut Value, schema: Option<&Structural>) {
        let keep = schema.is_some_and(|schema| schema.preserve_unknown);
        self.walk(value, schema, keep);
    }

    /// `keep` is true where unknown fields stay, in this value and in the items of lists in lists that it may be. The known ones among
    /// them are pruned by their own schemas.
    fn walk(&mut self, value: &mut Value, schema: Option<&Structural>, keep: bool) {
        match (value, schema) {
            (Value::Object(map), _) => self.fields(map, schema, keep, schema.is_some_and(|schema| schema.embedded)),
            (Value::Array(items), schema) => {
                let items_schema = schema.and_then(|list| list.items.as_deref());
                if keep && items_schema.is_none() {
                    return;
                }
                let (path, field) = (self.path.len(), self.field.len());
                for (index, item) in items.iter_mut().enumerate() {
                    push_index(&mut self.path, index);
                    push_index(&mut self.field, index);
                    match keep {
                        true => self.walk(item, items_schema, true),
                        false => self.value(item, items_schema),
                    }
                    self.path.truncate(path);
                    self.field.truncate(field);
                }
            }
            _ => {}
        }
    }

    fn fields(
        &mut self,
        map: &mut Map<String, Value>,
        schema: Option<&Structural>,
        keep_unknown: bool,
        embedded: bool,
    ) {
        let (path, field) = (self.path.len(), self.field.len());
        map.retain(|key, value| {
            push_key(&mut self.path, key);
            let known = schema.and_then(|schema| schema.properties.get(key));
            let additional = schema.map_or(&Additional::Absent, |schema| &schema.additional);
            let mut kept = true;
            match (known, additional) {
                _ if embedded && META_FIELDS.contains(&key.as_str()) => {
                    push_key(&mut self.field, key);
                    kept = self.meta(key, value);
                }
                (Some(known), _) => {
                    push_key(&mut self.field, key);
                    self.value(value, Some(known));
                }
                (None, Additional::Schema(any)) => {
                    push_map_key(&mut self.field, key);
                    self.value(value, Some(any));
                }
                // Keys of any name, and nothing known of what is under them.
                (None, Additional::Bool(_)) => {
                    push_map_key(&mut self.field, key);
                    self.value(value, None);
                }
                (None, Additional::Absent) if keep_unknown => {}
                (None, Additional::Absent) => {
                    kept = false;
                    if self.unknown.len() < UNKNOWN_MAX {
                        self.unknown.push(named(&self.path));
                    }
                }
            }
            self.path.truncate(path);
            self.field.truncate(field);
            kept
        });
    }

    /// One of the fields of every object; false where it cannot be what it is.
    fn meta(&mut self, key: &str, value: &mut Value) -> bool {
        let Some(metadata) = schema::by_name("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta") else { return true };
        match (key, &mut *value) {
            ("metadata", Value::Object(map)) => {
                let found = normalize_value(metadata, map);
                let room = UNKNOWN_MAX.saturating_sub(self.unknown.len());
                let unknown = found.unknown.iter().take(room).map(|path| named(&format!("{}.{path}", self.path)));
                self.unknown.extend(unknown);
                for wrong in found.wrong {
                    self.wrong(value, wrong.message);
                }
                true
            }
            // Not set at all, as upstream reads it.
            ("metadata", Value::Null) if self.is_root() => false,
            ("metadata", Value::Null) => {
                *value = Value::Object(Map::new());
                true
            }
            ("metadata", other) => {
                let kind = kind_of(other);
                self.wrong(value, format!("json: cannot unmarshal {kind} into Go value of type v1.ObjectMeta"));
                false
            }
            (_, Value::String(_)) => true,
            _ => {
                self.wrong(value, "must be a string".to_owned());
                false
            }
        }
    }

    fn is_root(&self) -> bool {
        self.field == "metadata"
    }

    fn wrong(&mut self, value: &Value, message: String) {
        if self.wrong.len() < WRONG_MAX {
            let error = FieldError::invalid(named(&self.field), value.clone(), message);
            self.wrong.push((self.is_root(), error));
        }
    }
}

fn push_map_key(path: &mut String, key: &str) {
    path.push('[');
    path.push_str(key);
    path.push(']');
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
