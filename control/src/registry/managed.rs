//! managedFields: who wrote which fields last, one entry a manager, operation and subresource.

use gantry_kube::Object;
use serde_json::{Map, Value, json};

/// Fields of metadata that nobody owns.
const SYSTEM_METADATA: &[&str] = &[
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "generation",
    "managedFields",
    "selfLink",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generateName",
];
const MANAGERS_MAX: usize = 32;

/// A set of fields: `f:name` to what is below; an empty set is a leaf.
type Fields = Map<String, Value>;

fn is_leaf(value: &Value) -> bool {
    value.as_object().is_none_or(Map::is_empty)
}

/// Every field that is set, lists as a whole.
fn fields_of(map: &Map<String, Value>, skip: &[&str]) -> Fields {
    map.iter()
        .filter(|(key, _)| !skip.contains(&key.as_str()))
        .map(|(key, value)| (format!("f:{key}"), below(value)))
        .collect()
}

fn below(value: &Value) -> Value {
    match value.as_object() {
        Some(map) => Value::Object(fields_of(map, &[])),
        None => json!({}),
    }
}

/// The fields of an object's body and of the metadata that is the client's.
fn all_fields(object: &Object) -> Fields {
    let mut fields = fields_of(&object.0, &["apiVersion", "kind", "metadata"]);
    if let Some(metadata) = object.0.get("metadata").and_then(Value::as_object) {
        let own = fields_of(metadata, SYSTEM_METADATA);
        if !own.is_empty() {
            fields.insert("f:metadata".to_owned(), Value::Object(own));
        }
    }
    fields
}

/// The fields that `new` sets to something other than `old` does.
fn changed(new: &Map<String, Value>, old: &Map<String, Value>, skip: &[&str]) -> Fields {
    let mut fields = Fields::new();
    for (key, value) in new.iter().filter(|(key, _)| !skip.contains(&key.as_str())) {
        let set = match (value, old.get(key)) {
            (value, Some(before)) if value == before => continue,
            (Value::Object(now), Some(Value::Object(before))) => Value::Object(changed(now, before, &[])),
            (value, _) => below(value),
        };
        fields.insert(format!("f:{key}"), set);
    }
    fields
}

fn changed_fields(new: &Object, old: &Object) -> Fields {
    let mut fields = changed(&new.0, &old.0, &["apiVersion", "kind", "metadata"]);
    let empty = Map::new();
    let metadata = |o: &Object| o.0.get("metadata").and_then(Value::as_object).cloned();
    let own = changed(&metadata(new).unwrap_or_default(), metadata(old).as_ref().unwrap_or(&empty), SYSTEM_METADATA);
    if !own.is_empty() {
        fields.insert("f:metadata".to_owned(), Value::Object(own));
    }
    fields
}

fn union(into: &mut Fields, other: &Fields) {
    for (key, value) in other {
        match (into.get_mut(key), value) {
            (Some(Value::Object(into)), Value::Object(other)) => union(into, other),
            _ => {
                into.insert(key.clone(), value.clone());
            }
        }
    }
}

/// Takes the leaves of `other` out of `from`, and what becomes empty by it.
fn subtract(from: &mut Fields, other: &Fields) {
    for (key, value) in other {
        let gone = match (from.get_mut(key), value) {
            (None, _) => false,
            (Some(Value::Object(below)), Value::Object(other)) if !other.is_empty() && !below.is_empty() => {
                subtract(below, other);
                below.is_empty()
            }
            (Some(found), other) => is_leaf(other) || is_leaf(found),
        };
        if gone {
            from.remove(key);
        }
    }
}

/// Drops the fields that the object no longer has.
fn retain_set(fields: &mut Fields, set: &Fields) {
    fields.retain(|key, value| match (set.get(key), value) {
        (None, _) => false,
        (Some(Value::Object(set)), Value::Object(below)) if !below.is_empty() && !set.is_empty() => {
            retain_set(below, set);
            !below.is_empty()
        }
        _ => true,
    });
}

fn entry(api_version: &str, manager: &str, subresource: &str, time: &str, fields: Fields) -> Value {
    let mut entry = json!({"manager": manager, "operation": "Update", "apiVersion": api_version, "time": time,
        "fieldsType": "FieldsV1", "fieldsV1": fields});
    if !subresource.is_empty() {
        entry["subresource"] = json!(subresource);
    }
    entry
}

pub(super) fn on_create(object: &mut Object, manager: &str, time: &str) {
    let fields = all_fields(object);
    if fields.is_empty() {
        return;
    }
    let entry = entry(object.api_version(), named(manager), "", time, fields);
    object.metadata_mut().insert("managedFields".to_owned(), json!([entry]));
}

fn named(manager: &str) -> &str {
    if manager.is_empty() { "unknown" } else { manager }
}

/// Notes what `manager` changed; what others owned of it passes to `manager`.
pub(super) fn on_update(new: &mut Object, old: &Object, manager: &str, subresource: &str, time: &str) {
    let manager = named(manager);
    // An explicitly empty list drops the record.
    let dropped = new.get("/metadata/managedFields").and_then(Value::as_array).is_some_and(Vec::is_empty);
    let kept = if dropped { Vec::new() } else { old.array_at("/metadata/managedFields").to_vec() };
    let fields = changed_fields(new, old);
    let removed = !changed_fields(old, new).is_empty();
    if fields.is_empty() && !removed && !dropped {
        restore(new, kept);
        return;
    }
    let set = all_fields(new);
    let mut entries: Vec<Value> = Vec::new();
    let mut own: Option<Fields> = None;
    for mut entry in kept {
        let mine = entry["manager"] == manager
            && entry["operation"] == "Update"
            && entry["subresource"].as_str().unwrap_or("") == subresource
            && entry["apiVersion"] == new.api_version();
        let Some(owned) = entry["fieldsV1"].as_object_mut() else { continue };
        if mine {
            own.get_or_insert_default().extend(std::mem::take(owned));
            continue;
        }
        subtract(owned, &fields);
        retain_set(owned, &set);
        if !owned.is_empty() {
            entries.push(entry);
        }
    }
    let mut mine = own.unwrap_or_default();
    retain_set(&mut mine, &set);
    union(&mut mine, &fields);
    if !mine.is_empty() {
        entries.push(entry(new.api_version(), manager, subresource, time, mine));
    }
    let excess = entries.len().saturating_sub(MANAGERS_MAX);
    entries.drain(..excess);
    restore(new, entries);
}

fn restore(object: &mut Object, entries: Vec<Value>) {
    if entries.is_empty() {
        object.metadata_mut().remove("managedFields");
    } else {
        object.metadata_mut().insert("managedFields".to_owned(), Value::Array(entries));
    }
}

#[cfg(test)]
fn managers(object: &Object) -> std::collections::BTreeMap<String, Value> {
    object
        .array_at("/metadata/managedFields")
        .iter()
        .map(|e| (e["manager"].as_str().unwrap_or("").to_owned(), e["fieldsV1"].clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(data: Value) -> Object {
        Object::from_value(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "uid": "u"},
            "data": data}))
        .unwrap()
    }

    #[test]
    fn fields_pass_from_manager_to_manager() {
        let mut old = config(json!({"a": "1", "b": "2"}));
        on_create(&mut old, "first", "t0");
        assert_eq!(managers(&old)["first"], json!({"f:data": {"f:a": {}, "f:b": {}}}));
        let mut new = old.clone();
        new.map_mut("data").insert("b".into(), json!("3"));
        new.map_mut("data").insert("c".into(), json!("4"));
        on_update(&mut new, &old, "second", "", "t1");
        assert_eq!(managers(&new)["first"], json!({"f:data": {"f:a": {}}}));
        assert_eq!(managers(&new)["second"], json!({"f:data": {"f:b": {}, "f:c": {}}}));
        let mut less = new.clone();
        less.map_mut("data").remove("a");
        on_update(&mut less, &new, "second", "", "t2");
        assert_eq!(managers(&less).keys().collect::<Vec<_>>(), ["second"]);
    }

    #[test]
    fn a_change_of_nothing_changes_nothing() {
        let mut old = config(json!({"a": "1"}));
        on_create(&mut old, "first", "t0");
        let mut new = old.clone();
        new.metadata_mut().remove("managedFields");
        on_update(&mut new, &old, "second", "", "t1");
        assert_eq!(new, old);
    }
}
