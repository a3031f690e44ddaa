//! What `x-kubernetes-list-type` asks of a list's schema.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::schema::{Options, flag, is_set, list, map, text};
use crate::FieldError;
use crate::validation::at::Errors;

const TYPES: [&str; 3] = ["atomic", "set", "map"];

pub(super) fn check(schema: &Map<String, Value>, path: &str, options: &Options, errors: &mut Errors) {
    let kind = schema.get("x-kubernetes-list-type").and_then(Value::as_str);
    if let Some(kind) = kind {
        let why = "must be array if x-kubernetes-list-type is specified";
        match text(schema, "type") {
            Some("array") if options.atomic_sets => item_of_set(schema, path).into_iter().for_each(|e| errors.push(e)),
            Some("array") => {}
            Some(other) => errors.push(FieldError::invalid(format!("{path}.type"), other, why)),
            None => errors.push(FieldError::required(format!("{path}.type"), why)),
        }
        if !TYPES.contains(&kind) {
            errors.push(FieldError::not_supported(format!("{path}.x-kubernetes-list-type"), kind, &TYPES));
        }
    }
    if !list(schema, "x-kubernetes-list-map-keys").is_empty() {
        let path = format!("{path}.x-kubernetes-list-type");
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        match kind {
            None => errors.push(FieldError::required(path, why)),
            Some("map") => {}
            Some(other) => errors.push(FieldError::invalid(path, other, why)),
        }
    }
    if kind == Some("map") {
        list_map(schema, path, errors);
    }
    if options.list_keys {
        keys(schema, path).into_iter().for_each(|error| errors.push(error));
    }
}

/// The items of a set are compared as a whole, and so are owned as a whole.
pub(super) fn item_of_set(schema: &Map<String, Value>, path: &str) -> Option<FieldError> {
    if text(schema, "x-kubernetes-list-type") != Some("set") {
        return None;
    }
    let items = map(schema, "items")?;
    let (key, good) = match text(items, "type") {
        Some("array") => {
            let kind = text(items, "x-kubernetes-list-type");
            ("x-kubernetes-list-type", kind.is_none_or(|kind| kind == "atomic"))
        }
        Some("object") => ("x-kubernetes-map-type", text(items, "x-kubernetes-map-type") == Some("atomic")),
        _ => return None,
    };
    let value = items.get("x-kubernetes-list-type").cloned().unwrap_or(Value::Null);
    let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
    (!good).then(|| FieldError::invalid(format!("{path}.items.{key}"), value, why))
}

fn list_map(schema: &Map<String, Value>, path: &str, errors: &mut Errors) {
    let keys = list(schema, "x-kubernetes-list-map-keys");
    let keys_path = || format!("{path}.x-kubernetes-list-map-keys");
    if keys.is_empty() {
        let why = "must not be empty if x-kubernetes-list-type is map";
        errors.push(FieldError::required(keys_path(), why));
    }
    let items = match schema.get("items") {
        None | Some(Value::Null) => {
            let why = "must have a schema if x-kubernetes-list-type is map";
            return errors.push(FieldError::required(format!("{path}.items"), why));
        }
        Some(Value::Object(items)) => items,
        Some(other) => {
            let why = "must only have a single schema if x-kubernetes-list-type is map";
            return errors.push(FieldError::invalid(format!("{path}.items"), other.clone(), why));
        }
    };
    if text(items, "type") != Some("object") {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        let ty = text(items, "type").unwrap_or_default();
        return errors.push(FieldError::invalid(format!("{path}.items.type"), ty, why));
    }
    let mut seen = BTreeSet::new();
    for key in keys.iter().filter_map(Value::as_str) {
        match map(items, "properties").and_then(|all| all.get(key)) {
            Some(property) if property["type"] == "array" || property["type"] == "object" => {
                let path = format!("{path}.items.properties[{key}].type");
                let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                errors.push(FieldError::invalid(path, "object", why));
            }
            Some(_) => {}
            None => errors.push(FieldError::invalid(
                keys_path(),
                json!(keys),
                "entries must all be names of item properties",
            )),
        }
        if !seen.insert(key) {
            errors.push(FieldError::invalid(keys_path(), json!(keys), "must not contain duplicate entries"));
        }
    }
}

/// Items of sets and maps are there, and have their keys.
pub(super) fn keys(schema: &Map<String, Value>, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let kind = text(schema, "x-kubernetes-list-type").unwrap_or_default();
    let Some(items) = map(schema, "items").filter(|_| matches!(kind, "set" | "map")) else { return errors };
    if flag(items, "nullable") {
        let why = format!("cannot be nullable when x-kubernetes-list-type is {kind}");
        errors.push(FieldError::forbidden(format!("{path}.items.nullable"), why));
    }
    if kind == "set" {
        return errors;
    }
    const OF_KEYS: &str = "this property is in x-kubernetes-list-map-keys, so it";
    let required = list(items, "required");
    for key in list(schema, "x-kubernetes-list-map-keys").iter().filter_map(Value::as_str) {
        let Some(property) = map(items, "properties").and_then(|all| all.get(key)).and_then(Value::as_object) else {
            continue;
        };
        let path = format!("{path}.items.properties[{key}]");
        let has_default = property.get("default").is_some_and(|default| !default.is_null());
        if !has_default && !required.iter().any(|name| name == key) {
            let why = format!("{OF_KEYS} must have a default or be a required property");
            errors.push(FieldError::required(format!("{path}.default"), why));
        }
        if property.get("nullable").is_some_and(is_set) {
            errors.push(FieldError::forbidden(format!("{path}.nullable"), format!("{OF_KEYS} cannot be nullable")));
        }
    }
    errors
}
