//! Label selectors and field selectors: parsed once, matched often.

mod parse;

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::{FieldError, Object};

/// One requirement on a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    DoesNotExist(String),
    GreaterThan(String, i64),
    LessThan(String, i64),
}

/// All requirements hold. The empty selector matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector(pub Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SelectorError {
    #[error("unable to parse requirement: found '{found}', expected: {expected}")]
    Requirement { found: String, expected: &'static str },
    #[error("found '{found}', expected: {expected}")]
    Selector { found: String, expected: &'static str },
    #[error("unable to parse requirement: {0}")]
    Invalid(FieldError),
    #[error("{0:?} is not a valid label selector operator")]
    Operator(String),
    #[error("invalid selector: '{selector}'; can't understand '{term}'")]
    Term { selector: String, term: String },
}

/// A label key: an optional DNS prefix and a name of at most 63 characters.
pub fn is_label_key(key: &str) -> bool {
    let name = match key.split_once('/') {
        Some((prefix, name)) => {
            if prefix.is_empty() || prefix.len() > 253 || !prefix.split('.').all(is_dns_label) {
                return false;
            }
            name
        }
        None => key,
    };
    !name.is_empty() && is_label_value(name)
}

/// A label value: at most 63 characters, alphanumeric at both ends, `-`, `_` and `.` between; or empty.
pub fn is_label_value(value: &str) -> bool {
    let bytes = value.as_bytes();
    let Some((first, last)) = bytes.first().zip(bytes.last()) else { return true };
    bytes.len() <= 63
        && first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// RFC 1123 label: lower-case alphanumerics and `-`, at most 63.
pub fn is_dns_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= 63
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

impl LabelSelector {
    /// The query-string form: `a=b,c!=d,e in (f,g),h,!i`.
    pub fn parse(text: &str) -> Result<LabelSelector, SelectorError> {
        parse::selector(text).map(LabelSelector)
    }

    /// The object form: `matchLabels` and `matchExpressions`.
    pub fn from_value(value: &Value) -> Result<LabelSelector, SelectorError> {
        let mut all = Vec::new();
        for (key, want) in value["matchLabels"].as_object().into_iter().flatten() {
            all.push(Requirement::In(key.clone(), vec![want.as_str().unwrap_or("").to_owned()]));
        }
        for expression in value["matchExpressions"].as_array().into_iter().flatten() {
            let key = expression["key"].as_str().unwrap_or("").to_owned();
            let values = || -> Vec<String> {
                expression["values"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect()
            };
            all.push(match expression["operator"].as_str().unwrap_or("") {
                "In" => Requirement::In(key, values()),
                "NotIn" => Requirement::NotIn(key, values()),
                "Exists" => Requirement::Exists(key),
                "DoesNotExist" => Requirement::DoesNotExist(key),
                other => return Err(SelectorError::Operator(other.to_owned())),
            });
        }
        Ok(LabelSelector(all))
    }

    /// A plain map of labels (a Service's selector, a pod's nodeSelector).
    pub fn from_map(map: &Map<String, Value>) -> LabelSelector {
        LabelSelector(
            map.iter().map(|(k, v)| Requirement::In(k.clone(), vec![v.as_str().unwrap_or("").to_owned()])).collect(),
        )
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.matches_by(|key| labels.and_then(|map| map.get(key)).and_then(Value::as_str))
    }

    /// On labels that were read before.
    pub fn matches_by<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|requirement| requirement.matches(&get))
    }

    pub fn matches_object(&self, object: &Object) -> bool {
        self.is_empty() || self.matches(object.labels())
    }
}

impl Requirement {
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        let number = |key: &str| get(key).and_then(|v| v.parse::<i64>().ok());
        match self {
            Requirement::In(key, values) => get(key).is_some_and(|v| values.iter().any(|w| w == v)),
            Requirement::NotIn(key, values) => get(key).is_none_or(|v| values.iter().all(|w| w != v)),
            Requirement::Exists(key) => get(key).is_some(),
            Requirement::DoesNotExist(key) => get(key).is_none(),
            Requirement::GreaterThan(key, bound) => number(key).is_some_and(|n| n > *bound),
            Requirement::LessThan(key, bound) => number(key).is_some_and(|n| n < *bound),
        }
    }
}

/// One `path=value` or `path!=value` of a field selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    pub path: String,
    pub value: String,
    pub equal: bool,
}

/// A field selector; which paths a kind knows is the registry's to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(pub Vec<FieldRequirement>);

impl FieldSelector {
    pub fn parse(text: &str) -> Result<FieldSelector, SelectorError> {
        text.split(',')
            .filter(|part| !part.is_empty())
            .map(|part| {
                let (path, value, equal) = if let Some((p, v)) = part.split_once("!=") {
                    (p, v, false)
                } else if let Some((p, v)) = part.split_once("==") {
                    (p, v, true)
                } else if let Some((p, v)) = part.split_once('=') {
                    (p, v, true)
                } else {
                    return Err(SelectorError::Term { selector: text.to_owned(), term: part.to_owned() });
                };
                Ok(FieldRequirement { path: path.trim().to_owned(), value: value.to_owned(), equal })
            })
            .collect::<Result<_, _>>()
            .map(FieldSelector)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Matches on the object's own fields: `metadata.name` is `/metadata/name`; numbers and booleans by their text.
    pub fn matches(&self, object: &Object) -> bool {
        self.matches_by(|path| object.get(&path.replace('.', "/")).and_then(field_text))
    }

    /// On fields that were read before, by their text.
    pub fn matches_by<'a>(&self, get: impl Fn(&str) -> Option<Cow<'a, str>>) -> bool {
        self.0.iter().all(|r| {
            let found = match get(&r.path) {
                Some(text) => text == r.value,
                None => r.value.is_empty() || r.value == "false",
            };
            found == r.equal
        })
    }
}

/// How a field selector reads a value; what is neither text, number nor boolean is as good as absent.
pub fn field_text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Bool(flag) => Some(Cow::Borrowed(if *flag { "true" } else { "false" })),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn matches(selector: &str, labels: Value) -> bool {
        LabelSelector::parse(selector).unwrap().matches(labels.as_object())
    }

    #[test]
    fn the_forms_of_a_requirement() {
        assert!(matches("a=b,c!=d", json!({"a": "b"})));
        assert!(matches("a in (b, c),!x", json!({"a": "c"})));
        assert!(!matches("a notin (b)", json!({"a": "b"})));
        assert!(matches("a notin (b)", json!({})));
        assert!(matches("n>3", json!({"n": "4"})));
        assert!(!matches("a", json!({})));
        assert!(matches("", json!({})));
    }

    #[test]
    fn what_is_not_a_selector_is_refused() {
        for bad in ["a in b", "-a=b", "a=b c", "a in (b", "x y (z)", "n>q", "=b"] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn fields_match_by_their_text() {
        let pod = Object::from_value(json!({"metadata": {"name": "a"}, "spec": {"hostNetwork": true}})).unwrap();
        let matches = |s: &str| FieldSelector::parse(s).unwrap().matches(&pod);
        assert!(matches("metadata.name=a,spec.hostNetwork=true"));
        assert!(matches("spec.nodeName="));
        assert!(!matches("metadata.name!=a"));
    }
}
