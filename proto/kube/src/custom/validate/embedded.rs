//! Objects within objects (`x-kubernetes-embedded-resource`): each has an apiVersion, a kind and the metadata of any object.

use serde_json::{Map, Value};

use super::{child, map_key};
use crate::custom::structural::{Additional, Structural};
use crate::validation::at::Errors;
use crate::validation::meta::{self, NameRule, name_problem};
use crate::{FieldError, Object};

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

fn walk(path: &str, schema: &Structural, value: &Value, errors: &mut Errors) {
    match (value, &schema.items) {
        (Value::Object(map), _) => fields(path, schema, map, errors),
        (Value::Array(items), Some(inner)) => {
            for (index, item) in items.iter().enumerate().filter(|(_, item)| item.is_object() || item.is_array()) {
                walk(&format!("{path}[{index}]"), inner, item, errors);
            }
        }
        _ => {}
    }
}

fn fields(path: &str, schema: &Structural, object: &Map<String, Value>, errors: &mut Errors) {
    if schema.embedded {
        resource(path, object, errors);
    }
    for (key, value) in object {
        match (schema.properties.get(key), &schema.additional) {
            (Some(own), _) => walk(&child(path, key), own, value, errors),
            (None, Additional::Schema(any)) => walk(&map_key(path, key), any, value, errors),
            _ => {}
        }
    }
}

fn resource(path: &str, object: &Map<String, Value>, errors: &mut Errors) {
    let kind_problem = |kind: &str| {
        let why = name_problem(NameRule::Dns1035, &kind.to_lowercase())?;
        Some(format!("may have mixed case, but should otherwise match: {why}"))
    };
    type_field(&child(path, "apiVersion"), object.get("apiVersion"), api_version_problem, errors);
    type_field(&child(path, "kind"), object.get("kind"), kind_problem, errors);
    let Some(metadata) = object.get("metadata") else { return };
    let inner = Object(Map::from_iter([("metadata".to_owned(), metadata.clone())]));
    for mut error in meta::embedded(&inner) {
        error.path = child(path, &error.path);
        errors.push(error);
    }
}

fn type_field(path: &str, value: Option<&Value>, problem: impl Fn(&str) -> Option<String>, errors: &mut Errors) {
    let why = match value {
        None => return errors.push(FieldError::required(path, "")),
        Some(Value::String(text)) if text.is_empty() => Some("must not be empty".to_owned()),
        Some(Value::String(text)) => problem(text),
        Some(_) => Some("must be a string".to_owned()),
    };
    if let (Some(why), Some(value)) = (why, value) {
        errors.push(FieldError::invalid(path, value.clone(), why));
    }
}

fn api_version_problem(text: &str) -> Option<String> {
    (text.matches('/').count() > 1).then(|| format!("unexpected GroupVersion string: {text}"))
}
