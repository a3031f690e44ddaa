//! ObjectMeta: names, labels, annotations, owner references, finalizers, and what may not change after creation.
//! Source: the Kubernetes API conventions and "Object Names and IDs".

use serde_json::Value;

use crate::selector::{is_dns_label, is_label_key, is_label_value};
use crate::{FieldError, Object, Resource};

pub const ANNOTATIONS_MAX_BYTES: usize = 256 * 1024;
pub const NAME_MAX_BYTES: usize = 253;
pub const LABEL_NAME_MAX_BYTES: usize = 63;

pub(super) const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
    and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
    start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const DNS_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
    alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
    validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
pub(super) const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end \
    with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. \
    'example.com/MyName')";
pub(super) const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
    '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex \
    used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// Which names a kind takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    Subdomain,
    Label,
    Dns1035,
    /// One path segment of any characters.
    PathSegment,
}

/// The rule for a kind's names.
pub fn name_rule(resource: &Resource) -> NameRule {
    match (resource.group, resource.kind) {
        ("", "Namespace") => NameRule::Label,
        ("", "Service") => NameRule::Dns1035,
        // Requests may be called anything, and APIs by their version and group.
        ("rbac.authorization.k8s.io" | "certificates.k8s.io" | "apiregistration.k8s.io", _) => NameRule::PathSegment,
        _ => NameRule::Subdomain,
    }
}

pub fn is_subdomain(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_MAX_BYTES && name.split('.').all(subdomain_part)
}

fn subdomain_part(part: &str) -> bool {
    let bytes = part.as_bytes();
    !bytes.is_empty()
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

/// Why `name` breaks `rule`; empty where it does not.
pub fn name_problem(rule: NameRule, name: &str) -> Option<String> {
    let (good, limit, words) = match rule {
        NameRule::Subdomain => (is_subdomain(name), NAME_MAX_BYTES, SUBDOMAIN),
        NameRule::Label => (is_dns_label(name), LABEL_NAME_MAX_BYTES, LABEL),
        NameRule::Dns1035 => {
            (is_dns_label(name) && name.as_bytes()[0].is_ascii_lowercase(), LABEL_NAME_MAX_BYTES, DNS_1035)
        }
        NameRule::PathSegment => {
            return match name {
                _ if name.len() > NAME_MAX_BYTES => Some(format!("must be no more than {NAME_MAX_BYTES} bytes")),
                "." => Some("may not be '.'".to_owned()),
                ".." => Some("may not be '..'".to_owned()),
                _ if name.contains('/') => Some("may not contain '/'".to_owned()),
                _ if name.contains('%') => Some("may not contain '%'".to_owned()),
                _ => None,
            };
        }
    };
    if name.len() > limit {
        return Some(format!("must be no more than {limit} characters"));
    }
    (!good).then(|| words.to_owned())
}

/// The rules for the metadata of a new object, its name already generated.
pub fn create(resource: &Resource, object: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if object.name().is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    }
    errors.extend(of_any(name_rule(resource), resource.namespaced, object));
    errors
}

/// The rules for the metadata of an object that stands in another: it needs no name, and may be of a namespace or of none.
pub fn embedded(object: &Object) -> Vec<FieldError> {
    of_any(NameRule::PathSegment, !object.namespace().is_empty(), object)
}

fn of_any(rule: NameRule, namespaced: bool, object: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let name = object.name();
    if let Some(problem) = Some(name).filter(|name| !name.is_empty()).and_then(|name| name_problem(rule, name)) {
        errors.push(FieldError::invalid("metadata.name", name, problem));
    }
    let namespace = object.namespace();
    if namespaced {
        if namespace.is_empty() {
            errors.push(FieldError::required("metadata.namespace", ""));
        } else if !is_dns_label(namespace) {
            errors.push(FieldError::invalid("metadata.namespace", namespace, LABEL));
        }
    } else if !namespace.is_empty() {
        errors.push(FieldError::forbidden("metadata.namespace", "not allowed on this type"));
    }
    labels(object.get("/metadata/labels"), "metadata.labels", &mut errors);
    annotations(object, &mut errors);
    owner_references(object, &mut errors);
    finalizers(object, &mut errors);
    errors
}

/// The rules for a change of metadata: those of a new object, and what may never change.
pub fn update(resource: &Resource, new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = create(resource, new);
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let pointer = format!("/metadata/{field}");
        if new.get(&pointer) != old.get(&pointer) {
            let value = new.get(&pointer).cloned().unwrap_or(Value::Null);
            errors.push(FieldError::invalid(format!("metadata.{field}"), value, "field is immutable"));
        }
    }
    if old.deletion_timestamp().is_some() {
        let added: Vec<&str> = new.finalizers().filter(|f| !old.finalizers().any(|o| o == *f)).collect();
        if !added.is_empty() {
            errors.push(FieldError::forbidden(
                "metadata.finalizers",
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
                ),
            ));
        }
    }
    errors
}

/// Labels anywhere in an object (a pod template's, too).
pub fn labels(value: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    for (key, value) in value.and_then(Value::as_object).into_iter().flatten() {
        if !is_label_key(key) {
            errors.push(FieldError::invalid(path, key.as_str(), QUALIFIED));
        }
        let text = value.as_str().unwrap_or("");
        if text.len() > LABEL_NAME_MAX_BYTES {
            errors.push(FieldError::invalid(
                path,
                text,
                format!("must be no more than {LABEL_NAME_MAX_BYTES} characters"),
            ));
        } else if !is_label_value(text) {
            errors.push(FieldError::invalid(path, text, LABEL_VALUE));
        }
    }
}

fn annotations(object: &Object, errors: &mut Vec<FieldError>) {
    let Some(map) = object.get("/metadata/annotations").and_then(Value::as_object) else { return };
    let mut total = 0;
    for (key, value) in map {
        if !is_label_key(&key.to_lowercase()) {
            errors.push(FieldError::invalid("metadata.annotations", key.as_str(), QUALIFIED));
        }
        total += key.len() + value.as_str().map_or(0, str::len);
    }
    if total > ANNOTATIONS_MAX_BYTES {
        errors.push(FieldError::too_long("metadata.annotations", ANNOTATIONS_MAX_BYTES));
    }
}

fn owner_references(object: &Object, errors: &mut Vec<FieldError>) {
    let mut controllers = 0;
    for (i, owner) in object.array_at("/metadata/ownerReferences").iter().enumerate() {
        let path = format!("metadata.ownerReferences[{i}]");
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().unwrap_or("").is_empty() {
                errors.push(FieldError::invalid(format!("{path}.{field}"), "", format!("{field} must not be empty")));
            }
        }
        controllers += usize::from(owner["controller"] == true);
    }
    if controllers > 1 {
        errors.push(FieldError::invalid(
            "metadata.ownerReferences",
            Value::Null,
            "only one reference can have controller set to true",
        ));
    }
}

fn finalizers(object: &Object, errors: &mut Vec<FieldError>) {
    for (i, name) in object.finalizers().enumerate() {
        if !is_label_key(name) {
            errors.push(FieldError::invalid(format!("metadata.finalizers[{i}]"), name, QUALIFIED));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{CLUSTER_ROLE, CONFIG_MAP, NAMESPACE, SERVICE};
    use serde_json::json;

    fn object(metadata: Value) -> Object {
        Object::from_value(json!({ "metadata": metadata })).unwrap()
    }

    #[test]
    fn names_follow_their_kind() {
        let named = |r, name: &str| create(r, &object(json!({"name": name, "namespace": "a"}))).len();
        assert_eq!(named(&CONFIG_MAP, "a.b-c"), 0);
        assert_eq!(named(&CONFIG_MAP, "A"), 1);
        assert_eq!(named(&CONFIG_MAP, &"a".repeat(254)), 1);
        assert_eq!(named(&SERVICE, "1a"), 1);
        assert_eq!(create(&NAMESPACE, &object(json!({"name": "a.b"}))).len(), 1);
        assert_eq!(create(&CLUSTER_ROLE, &object(json!({"name": "system:a"}))).len(), 0);
        assert_eq!(create(&CLUSTER_ROLE, &object(json!({"name": "a/b"}))).len(), 1);
    }

    #[test]
    fn labels_and_annotations_are_bounded() {
        let bad = object(json!({"name": "a", "namespace": "b", "labels": {"-x": "y", "z": "no spaces"},
            "annotations": {"big": "x".repeat(ANNOTATIONS_MAX_BYTES)}}));
        assert_eq!(create(&CONFIG_MAP, &bad).len(), 3);
    }

    #[test]
    fn identity_never_changes() {
        let old = object(json!({"name": "a", "namespace": "b", "uid": "1", "creationTimestamp": "x"}));
        let new = object(json!({"name": "a", "namespace": "b", "uid": "2", "creationTimestamp": "y"}));
        let paths: Vec<String> = update(&CONFIG_MAP, &new, &old).into_iter().map(|e| e.path).collect();
        assert_eq!(paths, ["metadata.uid", "metadata.creationTimestamp"]);
    }

    #[test]
    fn an_object_on_its_way_out_takes_no_finalizer() {
        let old = object(json!({"name": "a", "namespace": "b", "deletionTimestamp": "t", "finalizers": ["x/y"]}));
        let new =
            object(json!({"name": "a", "namespace": "b", "deletionTimestamp": "t", "finalizers": ["x/y", "x/z"]}));
        assert_eq!(update(&CONFIG_MAP, &new, &old).len(), 1);
    }
}
