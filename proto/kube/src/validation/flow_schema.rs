//! FlowSchema (flowcontrol.apiserver.k8s.io/v1).
//!
//! - `matchingPrecedence` is 1 to 10000, and 1 is the schema `exempt`'s alone.
//! - `distinguisherMethod` is by user or by namespace; the level is named, as a subdomain.
//! - A rule has subjects, each with what its kind asks for and nothing else, and rules about resources or other paths.
//! - Verbs are those that requests have; `*` stands alone in every list. Namespaces are labels, and a rule that is not of the
//!   cluster names one. Paths begin with a slash, have no space, no two slashes in a row, and a `*` at their end alone.
//! - The spec of a mandatory schema is as it is; conditions have a type each, once.

use std::collections::BTreeSet;

use serde_json::Value;

use super::at::{At, Errors};
use super::format::{label, subdomain};
use crate::{FieldError, Object, flow_control, resource};

const PRECEDENCE_MAX: i64 = 10_000;
const EXEMPT: &str = "exempt";
const VERBS: [&str; 9] = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

pub fn schema(object: &Object, errors: &mut Errors) {
    let spec = At::of(object, "spec");
    let precedence = spec.field("matchingPrecedence");
    let number = precedence.int().unwrap_or(0);
    if number <= 0 {
        errors.push(FieldError::invalid(precedence.path.as_str(), number, "must be a positive value"));
    }
    if number > PRECEDENCE_MAX {
        precedence.invalid(errors, format!("must not be greater than {PRECEDENCE_MAX}"));
    }
    if number == 1 && object.name() != EXEMPT {
        precedence.invalid(errors, "only the schema named 'exempt' may have matchingPrecedence 1");
    }
    if let Some(method) = spec.get("distinguisherMethod") {
        let kind = method.field("type");
        if !["ByNamespace", "ByUser"].contains(&kind.text()) {
            errors.push(FieldError::not_supported(kind.path.as_str(), kind.text(), &["ByNamespace", "ByUser"]));
        }
    }
    let level = spec.field("priorityLevelConfiguration").field("name");
    if level.text().is_empty() {
        level.required(errors, "must reference a priority level");
    }
    level.optional_as(errors, subdomain);
    spec.field("rules").items().for_each(|at| rule(&at, errors));
    if flow_control::fixed_spec(&resource::FLOW_SCHEMA, object.name()).is_some_and(|fixed| fixed != *spec.value) {
        spec.invalid(errors, format!("spec of '{}' must equal the fixed value", object.name()));
    }
    conditions(object, errors);
}

/// Of flows and of levels.
pub fn conditions(object: &Object, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for condition in At::of(object, "status").field("conditions").items() {
        let kind = condition.field("type");
        kind.unique(errors, &mut seen);
        kind.present(errors);
    }
}

fn rule(at: &At<'_>, errors: &mut Errors) {
    let subjects = at.field("subjects");
    if subjects.count() == 0 {
        subjects.required(errors, "subjects must contain at least one value");
    }
    subjects.items().for_each(|at| subject(&at, errors));
    let (resources, others) = (at.field("resourceRules"), at.field("nonResourceRules"));
    if resources.count() + others.count() == 0 {
        at.required(errors, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    resources.items().for_each(|at| resource_rule(&at, errors));
    for at in others.items() {
        verbs(&at.field("verbs"), errors);
        let urls = at.field("nonResourceURLs");
        let needed = "nonResourceURLs must contain at least one value";
        for url in unless_all(&urls, needed, "non-resource URLs", errors) {
            url_path(&url, errors);
        }
    }
}

fn subject(at: &At<'_>, errors: &mut Errors) {
    let parts = [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
    let kind = at.field("kind");
    if !parts.iter().any(|(own, _)| *own == kind.text()) {
        return errors.push(FieldError::not_supported(
            kind.path.as_str(),
            kind.text(),
            &["Group", "ServiceAccount", "User"],
        ));
    }
    for (of, field) in parts {
        let part = at.field(field);
        match (of == kind.text(), part.is_set()) {
            (true, true) => named(&part, of == "ServiceAccount", errors),
            (true, false) => part.required(errors, &format!("{field} is required when subject kind is '{of}'")),
            (false, true) => part.forbidden(errors, &format!("{field} is forbidden when subject kind is not '{of}'")),
            (false, false) => {}
        }
    }
}

fn named(at: &At<'_>, is_account: bool, errors: &mut Errors) {
    let name = at.field("name");
    if name.present(errors) && is_account && name.text() != "*" {
        name.optional_as(errors, subdomain);
    }
    if is_account {
        let namespace = at.field("namespace");
        if namespace.text().is_empty() {
            namespace.required(errors, "must specify namespace for service account");
        }
        namespace.optional_as(errors, label);
    }
}

/// The items of a list that must not be empty, and in which `*` must stand alone; none where it is there.
fn unless_all<'a>(list: &At<'a>, needed: &str, what: &str, errors: &mut Errors) -> Vec<At<'a>> {
    if list.count() == 0 {
        list.required(errors, needed);
    }
    let all = list.items().any(|item| item.text() == "*");
    if all && list.count() > 1 {
        list.invalid(errors, format!("if '*' is present, must not specify other {what}"));
    }
    if all { Vec::new() } else { list.items().collect() }
}

fn verbs(list: &At<'_>, errors: &mut Errors) {
    let named = unless_all(list, "verbs must contain at least one value", "verbs", errors);
    if named.iter().any(|verb| !VERBS.contains(&verb.text())) {
        list.not_supported(errors, &VERBS);
    }
}

fn resource_rule(at: &At<'_>, errors: &mut Errors) {
    verbs(&at.field("verbs"), errors);
    unless_all(&at.field("apiGroups"), "resource rules must supply at least one api group", "api groups", errors);
    unless_all(&at.field("resources"), "resource rules must supply at least one resource", "resources", errors);
    let namespaces = at.field("namespaces");
    if namespaces.count() == 0 && at.is_true("clusterScope") {
        return;
    }
    let needed = "resource rules that are not cluster scoped must supply at least one namespace";
    for namespace in unless_all(&namespaces, needed, "namespaces", errors) {
        if let Some(why) = label(namespace.text()) {
            let why = format!("each member of this list must be '*' or a DNS-1123 label; {why}");
            namespace.invalid(errors, why);
        }
    }
}

fn url_path(at: &At<'_>, errors: &mut Errors) {
    let path = at.text();
    let why = match path {
        "/" => return,
        "" => "must not be empty",
        _ if !path.starts_with('/') => "must start with slash",
        _ if path.contains(' ') => "must not contain white-space",
        _ if path.contains("//") => "must not contain double slash",
        _ => match path.find('*') {
            Some(at) if at + 1 != path.len() || !path.ends_with("/*") => "wildcard can only do suffix matching",
            _ => return,
        },
    };
    errors.push(FieldError::invalid(at.path.as_str(), Value::from(path), why));
}
