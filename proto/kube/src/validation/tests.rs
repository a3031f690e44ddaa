//! One table a kind: an object that keeps every rule, and one change for each rule that breaks it.

use serde_json::{Value, json};

use super::*;
use crate::resource::*;
use crate::{canonical, defaults, schema};

mod autoscaler;
mod certificate;
mod csi;
mod devices;
mod flow;
mod laws;
mod machine;
mod network;
mod others;
mod rarer;
mod service;
mod slices;
mod storage;
mod workload;

/// As the registry sees an object: canonical, with its defaults.
pub(super) fn prepared(resource: &Resource, value: &Value) -> Object {
    let mut object = Object::from_value(value.clone()).unwrap();
    let ty = schema::for_kind(resource.group, resource.version, resource.kind).unwrap();
    let findings = canonical::normalize(ty, &mut object);
    assert_eq!(findings, canonical::Findings::default(), "the test's object is not of its kind");
    defaults::apply(resource, &mut object);
    object
}

/// `base` with the value at `pointer` (made where it is not there) replaced; null takes it away.
pub(super) fn with(base: &Value, pointer: &str, value: Value) -> Value {
    let mut result = base.clone();
    let mut at = &mut result;
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/");
        at = match part.parse::<usize>() {
            Ok(index) if !at.is_object() => {
                if at.is_null() {
                    *at = json!([]);
                }
                let list = at.as_array_mut().unwrap();
                while list.len() <= index {
                    list.push(Value::Null);
                }
                &mut list[index]
            }
            _ => &mut at[part],
        };
    }
    *at = value;
    result
}

fn words(errors: Vec<FieldError>) -> Vec<String> {
    errors.iter().map(FieldError::to_string).collect()
}

/// Each change alone gives exactly the errors that stand beside it.
pub(super) fn refuses(resource: &Resource, base: &Value, table: &[(&str, Value, &[&str])]) {
    assert_eq!(words(create(resource, &prepared(resource, base))), [""; 0], "the base is not valid");
    for (pointer, value, expected) in table {
        let object = prepared(resource, &with(base, pointer, value.clone()));
        assert_eq!(words(create(resource, &object)), *expected, "{pointer} = {value}");
    }
}

/// Each change alone is as good as what it changes.
pub(super) fn accepts(resource: &Resource, base: &Value, table: &[(&str, Value)]) {
    for (pointer, value) in table {
        let object = prepared(resource, &with(base, pointer, value.clone()));
        assert_eq!(words(create(resource, &object)), [""; 0], "{pointer} = {value}");
    }
}

/// Each change of a stored object gives exactly the errors that stand beside it.
pub(super) fn changes(resource: &Resource, base: &Value, table: &[(&str, Value, &[&str])]) {
    let old = prepared(resource, base);
    for (pointer, value, expected) in table {
        let new = prepared(resource, &with(base, pointer, value.clone()));
        let found = words(update(resource, &new, &old));
        // What differs is listed below the message, for people.
        let heads: Vec<&str> = found.iter().map(|text| text.lines().next().unwrap_or("")).collect();
        assert_eq!(heads, *expected, "{pointer} = {value}");
    }
}

/// Each change of a stored object's status, through that subresource, gives exactly the errors that stand beside it.
pub(super) fn statuses(resource: &Resource, subresource: &str, base: &Value, table: &[(&str, Value, &[&str])]) {
    let old = prepared(resource, base);
    for (pointer, value, expected) in table {
        let new = prepared(resource, &with(base, pointer, value.clone()));
        assert_eq!(words(status(resource, subresource, &new, &old)), *expected, "{pointer} = {value}");
    }
}
