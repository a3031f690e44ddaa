//! Lists whose items stand once: sets by their values, maps by their keys.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{child, map_key};
use crate::custom::structural::{Additional, Structural};
use crate::schema::ListType;
use crate::{FieldError, validation::at::Errors};

pub(super) fn check(schema: &Structural, object: &Map<String, Value>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    fields("", schema, object, &mut errors);
    errors.into_vec()
}

pub(super) fn check_value(schema: &Structural, path: &str, value: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    walk(path, schema, value, &mut errors);
    errors.into_vec()
}

fn fields(path: &str, schema: &Structural, object: &Map<String, Value>, errors: &mut Errors) {
    for (key, value) in object {
        match (schema.properties.get(key), &schema.additional) {
            (Some(own), _) => walk(&child(path, key), own, value, errors),
            (None, Additional::Schema(any)) => walk(&map_key(path, key), any, value, errors),
            _ => {}
        }
    }
}

fn walk(path: &str, schema: &Structural, value: &Value, errors: &mut Errors) {
    match value {
        Value::Object(map) => fields(path, schema, map, errors),
        Value::Array(list) => {
            match schema.list_type {
                Some(ListType::Set) => set(path, list.iter().cloned(), errors),
                Some(ListType::Map) => map(path, schema, list, errors),
                Some(ListType::Atomic) | None => {}
            }
            if let Some(inner) = &schema.items {
                for (index, item) in list.iter().enumerate() {
                    // Only lists have anything to say here.
                    if item.is_array() || item.is_object() {
                        walk(&format!("{path}[{index}]"), inner, item, errors);
                    }
                }
            }
        }
        _ => {}
    }
}

/// Names each value that stands more than once, at its second place.
fn set(path: &str, values: impl Iterator<Item = Value>, errors: &mut Errors) {
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for (index, value) in values.enumerate() {
        let count = times.entry(value.to_string()).or_default();
        *count += 1;
        if *count == 2 {
            errors.push(FieldError::duplicate(format!("{path}[{index}]"), value));
        }
    }
}

fn map(path: &str, schema: &Structural, list: &[Value], errors: &mut Errors) {
    if let Some((index, item)) = list.iter().enumerate().find(|(_, item)| !item.is_object() && !item.is_null()) {
        let why = "must be an object for an array of list-type map";
        errors.push(FieldError::invalid(format!("{path}[{index}]"), item.clone(), why));
        return;
    }
    let keys = |item: &Value| {
        let own = schema.list_map_keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
        Value::Object(own.collect())
    };
    set(path, list.iter().map(keys), errors);
}
