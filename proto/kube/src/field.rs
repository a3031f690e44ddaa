//! What is wrong with one field: the path, the value and the rule, worded as Kubernetes clients expect.

use serde_json::{Value, json};

use crate::custom::print::float;

/// The closed set of field errors, as `reason` in a metav1.StatusCause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorKind {
    Required,
    Invalid,
    Duplicate,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    TypeInvalid,
    NotFound,
    Internal,
}

/// One broken rule at one field path (`spec.containers[0].name`).
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    pub kind: FieldErrorKind,
    pub path: String,
    pub value: Value,
    pub detail: String,
    /// Whether the message shows the value.
    shows_value: bool,
}

impl FieldError {
    fn new(kind: FieldErrorKind, path: impl Into<String>, value: Value, detail: impl Into<String>) -> FieldError {
        FieldError { kind, path: path.into(), value, detail: detail.into(), shows_value: true }
    }

    pub fn required(path: impl Into<String>, detail: impl Into<String>) -> FieldError {
        FieldError::new(FieldErrorKind::Required, path, Value::Null, detail)
    }

    pub fn invalid(path: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> FieldError {
        FieldError::new(FieldErrorKind::Invalid, path, value.into(), detail)
    }

    pub fn type_invalid(path: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> FieldError {
        FieldError::new(FieldErrorKind::TypeInvalid, path, value.into(), detail)
    }

    pub fn duplicate(path: impl Into<String>, value: impl Into<Value>) -> FieldError {
        FieldError::new(FieldErrorKind::Duplicate, path, value.into(), "")
    }

    pub fn not_found(path: impl Into<String>, value: impl Into<Value>) -> FieldError {
        FieldError::new(FieldErrorKind::NotFound, path, value.into(), "")
    }

    pub fn forbidden(path: impl Into<String>, detail: impl Into<String>) -> FieldError {
        FieldError::new(FieldErrorKind::Forbidden, path, Value::Null, detail)
    }

    pub fn internal(path: impl Into<String>, detail: impl Into<String>) -> FieldError {
        FieldError::new(FieldErrorKind::Internal, path, Value::Null, detail)
    }

    pub fn not_supported(path: impl Into<String>, value: impl Into<Value>, supported: &[&str]) -> FieldError {
        let list: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        FieldError::new(
            FieldErrorKind::NotSupported,
            path,
            value.into(),
            format!("supported values: {}", list.join(", ")),
        )
    }

    pub fn too_long(path: impl Into<String>, max_bytes: usize) -> FieldError {
        let unit = if max_bytes == 1 { "byte" } else { "bytes" };
        FieldError::new(FieldErrorKind::TooLong, path, Value::Null, format!("may not be more than {max_bytes} {unit}"))
    }

    pub fn too_many(path: impl Into<String>, actual: usize, max: usize) -> FieldError {
        let unit = if max == 1 { "item" } else { "items" };
        FieldError::new(FieldErrorKind::TooMany, path, Value::from(actual), format!("must have at most {max} {unit}"))
    }

    /// The same without its value, which may be large, and is said elsewhere or not at all.
    #[must_use]
    pub fn without_value(self) -> FieldError {
        FieldError { shows_value: false, ..self }
    }

    /// The cause's `reason`.
    pub fn reason(&self) -> &'static str {
        match self.kind {
            FieldErrorKind::Required => "FieldValueRequired",
            FieldErrorKind::Invalid => "FieldValueInvalid",
            FieldErrorKind::Duplicate => "FieldValueDuplicate",
            FieldErrorKind::NotSupported => "FieldValueNotSupported",
            FieldErrorKind::Forbidden => "FieldValueForbidden",
            FieldErrorKind::TooLong => "FieldValueTooLong",
            FieldErrorKind::TooMany => "FieldValueTooMany",
            FieldErrorKind::TypeInvalid => "FieldValueTypeInvalid",
            FieldErrorKind::NotFound => "FieldValueNotFound",
            FieldErrorKind::Internal => "InternalError",
        }
    }

    /// The message without its path.
    pub fn body(&self) -> String {
        let head = match self.kind {
            FieldErrorKind::Required => "Required value",
            FieldErrorKind::Invalid | FieldErrorKind::TypeInvalid => "Invalid value",
            FieldErrorKind::Duplicate => "Duplicate value",
            FieldErrorKind::NotSupported => "Unsupported value",
            FieldErrorKind::Forbidden => "Forbidden",
            FieldErrorKind::TooLong => "Too long",
            FieldErrorKind::TooMany => "Too many",
            FieldErrorKind::NotFound => "Not found",
            FieldErrorKind::Internal => "Internal error",
        };
        let unvalued = matches!(
            self.kind,
            FieldErrorKind::Required | FieldErrorKind::Forbidden | FieldErrorKind::TooLong | FieldErrorKind::Internal
        );
        let valued = self.shows_value && !unvalued;
        let mut text = if valued { format!("{head}: {}", shown(&self.value)) } else { head.to_owned() };
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }

    pub fn cause(&self) -> Value {
        json!({"reason": self.reason(), "message": self.body(), "field": self.path})
    }
}

/// JSON, but that broken numbers are shown as Go shows them.
fn shown(value: &Value) -> String {
    match value {
        Value::Number(number) if number.is_f64() => number.as_f64().map(float).unwrap_or_default(),
        other => other.to_string(),
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}
