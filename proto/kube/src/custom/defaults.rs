//! The defaults of a structural schema. Source: the Kubernetes documentation "Defaulting" and "Defaulting and Nullable".

use serde_json::{Map, Value};

use super::structural::Structural;

/// What defaults may add to one object: those of a list's items are added to each of them.
pub const DEFAULTS_MAX_BYTES: usize = 8 << 20;
/// What any JSON value costs beside its text.
const VALUE_BYTES: usize = 32;

/// The defaults of a schema would make an object too large.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the defaults of the schema add more than {DEFAULTS_MAX_BYTES} bytes to the object")]
pub struct TooLarge;

/// Takes out nulls where null is no value, and fills in what is absent. Nulls that have a default become it.
pub fn fill(schema: &Structural, object: &mut Map<String, Value>) -> Result<(), TooLarge> {
    drop_nulls_of(object, Some(schema));
    Filling { bytes_left: DEFAULTS_MAX_BYTES }.object(object, schema)
}

fn drop_nulls_of(map: &mut Map<String, Value>, schema: Option<&Structural>) {
    map.retain(|key, value| {
        let inner = schema.and_then(|schema| schema.under(key));
        if value.is_null() && inner.is_some_and(|inner| !inner.nullable && inner.default.is_none()) {
            return false;
        }
        drop_nulls(value, inner);
        true
    });
}

fn drop_nulls(value: &mut Value, schema: Option<&Structural>) {
    // Below what has no schema null is a value like any other.
    let Some(schema) = schema else { return };
    match value {
        Value::Object(map) => drop_nulls_of(map, Some(schema)),
        Value::Array(items) => items.iter_mut().for_each(|item| drop_nulls(item, schema.items.as_deref())),
        _ => {}
    }
}

struct Filling {
    bytes_left: usize,
}

impl Filling {
    fn object(&mut self, map: &mut Map<String, Value>, schema: &Structural) -> Result<(), TooLarge> {
        for (name, property) in &schema.properties {
            let Some(default) = &property.default else { continue };
            if map.get(name).is_none_or(|value| value.is_null() && !property.nullable) {
                let copy = self.copy(default)?;
                map.insert(name.clone(), copy);
            }
        }
        for (key, value) in map {
            if let Some(inner) = schema.under(key) {
                self.null(value, inner)?;
                self.value(value, inner)?;
            }
        }
        Ok(())
    }

    fn value(&mut self, value: &mut Value, schema: &Structural) -> Result<(), TooLarge> {
        match (value, &schema.items) {
            (Value::Object(map), _) => self.object(map, schema),
            (Value::Array(items), Some(inner)) => items.iter_mut().try_for_each(|item| {
                self.null(item, inner)?;
                self.value(item, inner)
            }),
            _ => Ok(()),
        }
    }

    /// A null that is none becomes the default.
    fn null(&mut self, value: &mut Value, schema: &Structural) -> Result<(), TooLarge> {
        if let (true, false, Some(default)) = (value.is_null(), schema.nullable, &schema.default) {
            *value = self.copy(default)?;
        }
        Ok(())
    }

    fn copy(&mut self, default: &Value) -> Result<Value, TooLarge> {
        self.bytes_left = self.bytes_left.checked_sub(weight(default)).ok_or(TooLarge)?;
        Ok(default.clone())
    }
}

fn weight(value: &Value) -> usize {
    let inner: usize = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Object(map) => map.iter().map(|(key, value)| key.len() + weight(value)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    };
    inner + VALUE_BYTES
}
