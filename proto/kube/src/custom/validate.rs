//! Whether an object keeps what its schema says of its values, in the words of Kubernetes. A new object keeps all of it; a change need
//! not mend what it does not touch (Kubernetes: "Validation ratcheting").
//!
//! The object's own metadata is [`crate::validation::meta`]'s; rules written as expressions come after these, and only where nothing
//! that [`blocks_rules`] was found.

use serde_json::{Map, Value};

use super::structural::Structural;
use crate::field::FieldErrorKind;
use crate::{FieldError, validation::at::ERRORS_MAX};

mod embedded;
pub(super) mod formats;
mod lists;
mod node;
mod number;
pub(super) mod old;
mod value;

#[cfg(test)]
mod tests;

use old::Old;

/// What is wrong with a new object.
pub fn create(schema: &Structural, object: &Map<String, Value>) -> Vec<FieldError> {
    let mut errors = value::check(schema, "", Root::Object(object), None);
    errors.extend(embedded::check(schema, object));
    errors.extend(lists::check(schema, object));
    errors.truncate(ERRORS_MAX);
    errors
}

/// What is wrong with a change of an object.
pub fn update(schema: &Structural, new: &Map<String, Value>, old: &Map<String, Value>) -> Vec<FieldError> {
    let before = Old::of_object(schema, old);
    let mut errors = value::check(schema, "", Root::Object(new), Some(before));
    errors.extend(embedded::check(schema, new));
    // A list that had its items twice may keep them.
    if lists::check(schema, old).is_empty() {
        errors.extend(lists::check(schema, new));
    }
    errors.truncate(ERRORS_MAX);
    errors
}

/// What is wrong with a change that is of the status alone, written through its own path.
pub fn status_update(schema: &Structural, new: &Map<String, Value>, old: &Map<String, Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let (Some(status), Some(own)) = (new.get("status"), schema.properties.get("status")) {
        let before = old.get("status").map(|old| Old::of_value(own, old));
        errors = value::check(own, "status", Root::Value(status), before);
    }
    if lists::check(schema, old).is_empty() {
        errors.extend(lists::check(schema, new));
    }
    errors.truncate(ERRORS_MAX);
    errors
}

/// A value by itself, as a default is checked.
pub fn one(schema: &Structural, path: &str, value: &Value) -> Vec<FieldError> {
    let mut errors = value::check(schema, path, Root::Value(value), None);
    errors.extend(embedded::check_value(schema, path, value));
    errors.extend(lists::check_value(schema, path, value));
    errors.truncate(ERRORS_MAX);
    errors
}

/// Whether rules that are expressions cannot be asked: what they would compute with is not what its schema says. The error to add then
/// is [`rules_not_checked`].
pub fn blocks_rules(errors: &[FieldError]) -> bool {
    errors.iter().any(|error| {
        matches!(
            error.kind,
            FieldErrorKind::NotSupported
                | FieldErrorKind::Required
                | FieldErrorKind::TooLong
                | FieldErrorKind::TooMany
                | FieldErrorKind::TypeInvalid
        )
    })
}

/// That rules were not asked.
pub fn rules_not_checked() -> FieldError {
    let why = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
    FieldError::invalid(NO_PATH, Value::Null, why)
}

/// How Kubernetes writes that an error is of no field.
const NO_PATH: &str = "<nil>";

/// What is checked: an object's map, which is borrowed as it is, or any value.
#[derive(Clone, Copy)]
enum Root<'a> {
    Object(&'a Map<String, Value>),
    Value(&'a Value),
}

/// A JSON value, borrowed.
#[derive(Clone, Copy)]
enum Json<'a> {
    Null,
    Bool(bool),
    /// A number, as itself.
    Number(&'a Value),
    String(&'a str),
    Array(&'a [Value]),
    Object(&'a Map<String, Value>),
}

impl Json<'_> {
    fn owned(self) -> Value {
        match self {
            Json::Null => Value::Null,
            Json::Bool(set) => Value::Bool(set),
            Json::Number(number) => number.clone(),
            Json::String(text) => Value::from(text),
            Json::Array(items) => Value::Array(items.to_vec()),
            Json::Object(map) => Value::Object(map.clone()),
        }
    }
}

impl<'a> From<&'a Value> for Json<'a> {
    fn from(value: &'a Value) -> Json<'a> {
        match value {
            Value::Null => Json::Null,
            Value::Bool(set) => Json::Bool(*set),
            number @ Value::Number(_) => Json::Number(number),
            Value::String(text) => Json::String(text),
            Value::Array(items) => Json::Array(items),
            Value::Object(map) => Json::Object(map),
        }
    }
}

impl<'a> From<Root<'a>> for Json<'a> {
    fn from(root: Root<'a>) -> Json<'a> {
        match root {
            Root::Object(map) => Json::Object(map),
            Root::Value(value) => value.into(),
        }
    }
}

/// `spec.map[key]`: as errors of a field name what stands under a key of any name.
fn map_key(path: &str, key: &str) -> String {
    format!("{path}[{key}]")
}

fn child(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
