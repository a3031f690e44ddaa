//! The scale of a custom object: where its definition says the replicas and the selector stand.

use serde_json::{Map, Value};

use super::print::float;
use crate::{FieldError, Object};

/// The paths of a version's `subresources.scale`, as they are written there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    pub spec_replicas: String,
    pub status_replicas: String,
    pub label_selector: Option<String>,
}

/// What stands there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scale {
    /// None where the object does not say.
    pub spec_replicas: Option<i64>,
    pub status_replicas: i64,
    /// As text; empty where there is none.
    pub selector: String,
}

impl ScalePaths {
    /// Reads a version's `subresources`.
    pub fn of(subresources: &Value) -> Option<ScalePaths> {
        let scale = subresources.get("scale")?.as_object()?;
        let text = |key: &str| scale.get(key).and_then(Value::as_str).map(str::to_owned);
        Some(ScalePaths {
            spec_replicas: text("specReplicasPath")?,
            status_replicas: text("statusReplicasPath")?,
            label_selector: text("labelSelectorPath").filter(|path| !path.is_empty()),
        })
    }

    /// The scale of an object; a value of a wrong type is none.
    pub fn read(&self, object: &Object) -> Scale {
        let number = |path: &str| find(object, path).ok().flatten().and_then(Value::as_i64);
        let selector = self.label_selector.as_ref().and_then(|path| find(object, path).ok().flatten());
        Scale {
            spec_replicas: number(&self.spec_replicas),
            status_replicas: number(&self.status_replicas).unwrap_or(0),
            selector: selector.and_then(Value::as_str).unwrap_or_default().to_owned(),
        }
    }

    /// Asks for a number of replicas. The error tells what is in the way.
    pub fn write(&self, object: &mut Object, replicas: i64) -> Result<(), String> {
        let mut place = &mut object.0;
        let mut names = steps(&self.spec_replicas).peekable();
        while let Some(name) = names.next() {
            if names.peek().is_none() {
                place.insert(name.to_owned(), Value::from(replicas));
                return Ok(());
            }
            let inner = place.entry(name).or_insert_with(|| Value::Object(Map::new()));
            place = inner
                .as_object_mut()
                .ok_or_else(|| format!("value cannot be set because {} has no fields", self.spec_replicas))?;
        }
        Err("the path of the replicas is empty".to_owned())
    }

    /// What is wrong with the scale of an object: with all of it, or with its status alone.
    pub fn check(&self, object: &Object, status_alone: bool) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let numbers = [&self.spec_replicas, &self.status_replicas];
        for path in numbers.into_iter().skip(usize::from(status_alone)) {
            match typed(object, path, "int64", Value::is_i64).map(|value| value.and_then(Value::as_i64).unwrap_or(0)) {
                Err(why) => errors.push(FieldError::invalid(path.as_str(), 0, why)),
                Ok(replicas) if replicas < 0 => {
                    errors.push(FieldError::invalid(path.as_str(), replicas, "should be a non-negative integer"));
                }
                Ok(replicas) if replicas > i64::from(i32::MAX) => {
                    let why = format!("should be less than or equal to {}", i32::MAX);
                    errors.push(FieldError::invalid(path.as_str(), replicas, why));
                }
                Ok(_) => {}
            }
        }
        if let Some(path) = &self.label_selector
            && let Err(why) = typed(object, path, "string", Value::is_string)
        {
            errors.push(FieldError::invalid(path.as_str(), "", why));
        }
        errors
    }
}

fn steps(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('.').unwrap_or(path).split('.')
}

/// The value at a plain path; the error tells what on the way is no object.
fn find<'a>(object: &'a Object, path: &str) -> Result<Option<&'a Value>, String> {
    let mut place = &object.0;
    let mut names = steps(path).peekable();
    while let Some(name) = names.next() {
        let Some(value) = place.get(name) else { return Ok(None) };
        if names.peek().is_none() {
            return Ok(Some(value));
        }
        place = value.as_object().ok_or_else(|| accessor_error(path, value, "map[string]interface {}"))?;
    }
    Ok(None)
}

fn typed<'a>(
    object: &'a Object,
    path: &str,
    wanted: &str,
    fits: fn(&Value) -> bool,
) -> Result<Option<&'a Value>, String> {
    match find(object, path)? {
        Some(value) if !fits(value) => Err(accessor_error(path, value, wanted)),
        value => Ok(value),
    }
}

fn accessor_error(path: &str, value: &Value, wanted: &str) -> String {
    let (shown, ty) = match value {
        Value::Null => ("<nil>".to_owned(), "<nil>"),
        Value::Bool(set) => (set.to_string(), "bool"),
        Value::Number(number) if number.is_i64() => (number.to_string(), "int64"),
        Value::Number(number) => (number.as_f64().map(float).unwrap_or_default(), "float64"),
        Value::String(text) => (text.clone(), "string"),
        Value::Array(_) => (value.to_string(), "[]interface {}"),
        Value::Object(_) => (value.to_string(), "map[string]interface {}"),
    };
    format!("{path} accessor error: {shown} is of the type {ty}, expected {wanted}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn paths() -> ScalePaths {
        let scale = json!({"scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.n", "labelSelectorPath": ".status.s"}});
        ScalePaths::of(&scale).unwrap()
    }

    #[test]
    fn the_scale_stands_where_the_paths_say() {
        let mut object = Object::from_value(json!({"status": {"n": 2, "s": "a=b"}})).unwrap();
        assert_eq!(
            paths().read(&object),
            Scale { spec_replicas: None, status_replicas: 2, selector: "a=b".to_owned() }
        );
        paths().write(&mut object, 3).unwrap();
        assert_eq!(object.0["spec"], json!({"replicas": 3}));
        assert_eq!(paths().check(&object, false), vec![]);
        let mut odd = Object::from_value(json!({"spec": 1})).unwrap();
        assert!(paths().write(&mut odd, 3).is_err());
    }

    #[test]
    fn replicas_are_numbers_in_their_range() {
        let told = |object: Value, status_alone| -> Vec<String> {
            let errors = paths().check(&Object::from_value(object).unwrap(), status_alone);
            errors.iter().map(ToString::to_string).collect()
        };
        let bad = json!({"spec": {"replicas": -1}, "status": {"n": 1i64 << 40, "s": 1}});
        assert_eq!(
            told(bad.clone(), false),
            [
                ".spec.replicas: Invalid value: -1: should be a non-negative integer",
                ".status.n: Invalid value: 1099511627776: should be less than or equal to 2147483647",
                ".status.s: Invalid value: \"\": .status.s accessor error: 1 is of the type int64, expected string",
            ]
        );
        assert_eq!(told(bad, true).len(), 2);
        assert_eq!(
            told(json!({"spec": {"replicas": 1.5}}), false),
            [
                ".spec.replicas: Invalid value: 0: .spec.replicas accessor error: 1.5 is of the type float64, expected int64"
            ]
        );
    }
}
