//! What an access review asks about: the attributes of a request that somebody might make.

use gantry_kube::selector::{FieldSelector, LabelSelector};
use gantry_kube::{FieldError, Object};
use serde_json::{Map, Value};

use crate::auth::Action;

const RESOURCE: &str = "/spec/resourceAttributes";
const NON_RESOURCE: &str = "/spec/nonResourceAttributes";

fn set<'a>(body: &'a Object, pointer: &str) -> Option<&'a Value> {
    body.get(pointer).filter(|value| !value.is_null())
}

/// What is wrong with the attributes: exactly one of the two kinds must be there, and a selector must be one.
pub fn check(body: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match (set(body, RESOURCE), set(body, NON_RESOURCE)) {
        (Some(_), Some(path)) => errors.push(FieldError::invalid(
            "spec.nonResourceAttributes",
            path.clone(),
            "cannot be specified in combination with resourceAttributes",
        )),
        (None, None) => errors.push(FieldError::invalid(
            "spec.resourceAttributes",
            Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )),
        _ => {}
    }
    for name in ["fieldSelector", "labelSelector"] {
        if let Some(selector) = set(body, &format!("{RESOURCE}/{name}")) {
            check_selector(selector, &format!("spec.resourceAttributes.{name}"), &mut errors);
        }
    }
    errors
}

fn check_selector(selector: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let raw = selector["rawSelector"].as_str().unwrap_or("");
    let requirements = requirements(selector);
    if !raw.is_empty() && !requirements.is_empty() {
        let why = "may not specified at the same time as requirements";
        errors.push(FieldError::invalid(format!("{path}.rawSelector"), raw, why));
    }
    if raw.is_empty() && requirements.is_empty() {
        let why = format!("when {path} is specified, requirements or rawSelector is required");
        errors.push(FieldError::required(format!("{path}.requirements"), why));
    }
    for (index, requirement) in requirements.iter().enumerate() {
        let at = format!("{path}.requirements[{index}]");
        let values = requirement["values"].as_array().is_some_and(|values| !values.is_empty());
        if requirement["key"].as_str().unwrap_or("").is_empty() {
            errors.push(FieldError::required(format!("{at}.key"), "must be specified"));
        }
        match requirement["operator"].as_str().unwrap_or("") {
            "In" | "NotIn" if !values => {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(format!("{at}.values"), why));
            }
            "Exists" | "DoesNotExist" if values => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(format!("{at}.values"), why));
            }
            // Of an operator that is not known yet the broader question is answered.
            _ => {}
        }
    }
}

fn requirements(selector: &Value) -> &[Value] {
    selector["requirements"].as_array().map_or(&[], Vec::as_slice)
}

/// The attributes, with their selectors as the query of a request has them. What a selector asks for that no query can say
/// is left out, which asks for more.
pub struct Attributes<'a> {
    body: &'a Object,
    fields: String,
    labels: String,
}

impl<'a> Attributes<'a> {
    pub fn of(body: &'a Object) -> Attributes<'a> {
        let selector = |name: &str| set(body, &format!("{RESOURCE}/{name}")).cloned().unwrap_or_default();
        let (fields, labels) = (selector("fieldSelector"), selector("labelSelector"));
        let raw = |selector: &Value| selector["rawSelector"].as_str().unwrap_or("").to_owned();
        let said = |selector: &Value, term: fn(&Value) -> Option<String>| {
            requirements(selector).iter().filter_map(term).collect::<Vec<_>>().join(",")
        };
        let field_text = match raw(&fields) {
            raw if raw.is_empty() => said(&fields, field_term),
            raw if FieldSelector::parse(&raw).is_ok() => raw,
            _ => String::new(),
        };
        let label_text = match raw(&labels) {
            raw if raw.is_empty() => said(&labels, label_term),
            raw if LabelSelector::parse(&raw).is_ok() => raw,
            _ => String::new(),
        };
        Attributes { body, fields: field_text, labels: label_text }
    }

    pub fn action(&self) -> Action<'_> {
        let text = |of: &str, key: &str| self.body.str_at(&format!("{of}/{key}"));
        if set(self.body, RESOURCE).is_none() {
            return Action::NonResource { verb: text(NON_RESOURCE, "verb"), path: text(NON_RESOURCE, "path") };
        }
        let text = |key| text(RESOURCE, key);
        Action::Resource {
            verb: text("verb"),
            group: text("group"),
            resource: text("resource"),
            subresource: text("subresource"),
            namespace: text("namespace"),
            name: text("name"),
            fields: &self.fields,
            labels: &self.labels,
        }
    }
}

fn values(requirement: &Value) -> Vec<&str> {
    requirement["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn field_term(requirement: &Value) -> Option<String> {
    let key = requirement["key"].as_str()?;
    let sign = match requirement["operator"].as_str()? {
        "In" => "=",
        "NotIn" => "!=",
        _ => return None,
    };
    match values(requirement)[..] {
        [value] => Some(format!("{key}{sign}{value}")),
        _ => None,
    }
}

fn label_term(requirement: &Value) -> Option<String> {
    let key = requirement["key"].as_str()?;
    let listed = || values(requirement).join(",");
    let term = match requirement["operator"].as_str()? {
        "In" => format!("{key} in ({})", listed()),
        "NotIn" => format!("{key} notin ({})", listed()),
        "Exists" => key.to_owned(),
        "DoesNotExist" => format!("!{key}"),
        _ => return None,
    };
    LabelSelector::parse(&term).is_ok().then_some(term)
}

/// Of a review's metadata nothing is taken but, where there is one, the namespace.
pub fn check_metadata(body: &Object, namespaced: bool) -> Option<FieldError> {
    let kept = |key: &str| key == "managedFields" || (namespaced && key == "namespace");
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    };
    let metadata = body.0.get("metadata")?.as_object()?;
    let said: Map<String, Value> = metadata
        .iter()
        .filter(|(key, value)| !kept(key) && !empty(value))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let why = if namespaced { "must be empty except for namespace" } else { "must be empty" };
    (!said.is_empty()).then(|| FieldError::invalid("metadata", Value::Object(said), why))
}
