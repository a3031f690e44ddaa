//! The CustomResourceDefinition object itself: its defaults, what it must keep, and what of it may change. Objects are canonical (their
//! own schema is in the table of built-in kinds).
//!
//! Paths of errors are those that users know: what all versions have alike is told of the whole (`spec.validation`, not
//! `spec.versions[0].schema`), as in the form that Kubernetes validates. Rules that are expressions are checked by whom the caller names.

mod conversion;
mod parts;
mod schema;
mod schema_defaults;
mod schema_lists;
mod spec;
mod structure;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

use super::structural::Structural;
use super::validate::formats;
use crate::validation::at::{At, Errors};
use crate::{FieldError, Object};

pub use conversion::has_bad_ca_bundle;

pub const GROUP: &str = "apiextensions.k8s.io";
pub const KIND: &str = "CustomResourceDefinition";
/// By which groups of Kubernetes' own domains tell that they were reviewed.
pub const APPROVED_ANNOTATION: &str = "api-approved.kubernetes.io";
const WEBHOOK_PORT: i64 = 443;

/// A schema whose rules are to be checked: each compiles, and holds for the defaults.
pub struct Ruled<'a> {
    pub schema: &'a Structural,
    /// Of the schema in the definition (`spec.validation.openAPIV3Schema`).
    pub path: &'a str,
    /// The version's schema was there before this change, so that what its rules cost is no longer asked.
    pub unchanged: bool,
}

/// Checks the rules of a schema.
pub type RuleCheck<'a> = &'a dyn Fn(&Ruled<'_>) -> Vec<FieldError>;

/// Fills in what a definition leaves out.
pub fn default(object: &mut Object) {
    let spec = object.map_mut("spec");
    let names = map_in(spec, "names");
    let kind = names.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    let is_empty =
        |names: &Map<String, Value>, key: &str| names.get(key).and_then(Value::as_str).is_none_or(str::is_empty);
    if !kind.is_empty() {
        if is_empty(names, "singular") {
            names.insert("singular".to_owned(), Value::from(kind.to_lowercase()));
        }
        if is_empty(names, "listKind") {
            names.insert("listKind".to_owned(), Value::from(format!("{kind}List")));
        }
    }
    if spec.get("conversion").is_none_or(Value::is_null) {
        spec.insert("conversion".to_owned(), json!({"strategy": "None"}));
    }
    let service = spec.get_mut("conversion").and_then(|c| c.pointer_mut("/webhook/clientConfig/service"));
    if let Some(service) = service.and_then(Value::as_object_mut) {
        service.entry("port").or_insert_with(|| Value::from(WEBHOOK_PORT));
    }
    if object.array_at("/status/storedVersions").is_empty() {
        note_stored_version(object);
    }
}

/// Notes that objects may be stored in the version that is marked so: to be called on a new definition, whose status is its own no
/// more, and on each change.
pub fn note_stored_version(object: &mut Object) {
    let stored = object.array_at("/spec/versions").iter().find(|version| version["storage"] == true);
    let Some(name) = stored.and_then(|version| version["name"].as_str()).map(str::to_owned) else { return };
    let versions = object.map_mut("status").entry("storedVersions").or_insert_with(|| json!([]));
    if let Some(versions) = versions.as_array_mut()
        && !versions.iter().any(|known| *known == name.as_str())
    {
        versions.push(Value::from(name));
    }
}

fn map_in<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let slot = map.entry(key).or_insert_with(|| json!({}));
    if !slot.is_object() {
        *slot = json!({});
    }
    slot.as_object_mut().unwrap_or_else(|| unreachable!("made a map above"))
}

/// What is wrong with a new definition. Its metadata is [`crate::validation::meta`]'s, but for the name.
pub fn create(object: &Object, rules: RuleCheck<'_>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let name = object.name();
    if name != format!("{}.{}", object.str_at("/spec/names/plural"), object.str_at("/spec/group")) {
        errors.push(FieldError::invalid("metadata.name", name, "must be spec.names.plural+\".\"+spec.group"));
    }
    spec::check(&Change { new: object, old: None, rules }, &mut errors);
    status(object, &mut errors);
    approval_check(object, None, &mut errors);
    unknown_fields(object, None, &mut errors);
    errors.into_vec()
}

/// What is wrong with a change of a definition.
pub fn update(new: &Object, old: &Object, rules: RuleCheck<'_>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    spec::check(&Change { new, old: Some(old), rules }, &mut errors);
    let (spec, before) = (At::of(new, "spec"), At::of(old, "spec"));
    let immutable = |path: &[&str], errors: &mut Errors| {
        let field =
            |at: &At<'_>| path.iter().fold(at.value, |value, key| value.get(*key).unwrap_or(&Value::Null)).clone();
        let (now, then) = (field(&spec), field(&before));
        if now != then {
            errors.push(FieldError::invalid(format!("spec.{}", path.join(".")), now, "field is immutable"));
        }
    };
    if condition(old, "Established").is_some_and(|established| established["status"] == "True") {
        immutable(&["scope"], &mut errors);
        immutable(&["names", "kind"], &mut errors);
    }
    immutable(&["group"], &mut errors);
    immutable(&["names", "plural"], &mut errors);
    status(new, &mut errors);
    approval_check(new, Some(old), &mut errors);
    unknown_fields(new, Some(old), &mut errors);
    errors.into_vec()
}

/// What is wrong with a change of the status alone.
pub fn status_update(new: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    parts::names(&At::of(new, "status").field("acceptedNames"), &mut errors);
    errors.into_vec()
}

/// A change, or a new object.
struct Change<'a> {
    new: &'a Object,
    old: Option<&'a Object>,
    rules: RuleCheck<'a>,
}

fn status(object: &Object, errors: &mut Errors) {
    let status = At::of(object, "status");
    parts::names(&status.field("acceptedNames"), errors);
    let stored = status.field("storedVersions");
    if stored.count() == 0 {
        let none = json!([]);
        errors.push(FieldError::invalid(stored.path, none, "must have at least one stored version"));
        return;
    }
    let names: Vec<&str> = stored.items().map(|name| name.text()).collect();
    let versions = object.array_at("/spec/versions");
    let name_of = |version: &'_ Value| version["name"].as_str().unwrap_or_default().to_owned();
    for name in versions.iter().filter(|version| version["storage"] == true).map(name_of) {
        if !names.contains(&name.as_str()) {
            stored.invalid(errors, format!("must have the storage version {name}"));
        }
    }
    for at in stored.items().filter(|at| !versions.iter().any(|version| name_of(version) == at.text())) {
        let v = at.text();
        at.invalid(
            errors,
            format!(
                "missing from spec.versions; {v} was previously a storage version, and must remain in spec.versions until a \
                 storage migration ensures no data remains persisted in {v} and removes {v} from status.storedVersions"
            ),
        );
    }
}

/// A condition of the status.
pub fn condition<'a>(object: &'a Object, kind: &str) -> Option<&'a Value> {
    object.array_at("/status/conditions").iter().find(|condition| condition["type"] == kind)
}

/// Whether a group of Kubernetes' own domains was reviewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    Invalid,
    Given,
    /// Not, and it says so.
    Bypassed,
    Missing,
}

/// None for a group of any other domain.
pub fn approval(object: &Object) -> Option<(Approval, String)> {
    let group = object.str_at("/spec/group");
    let is_in = |domain: &str| group == domain || group.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    if !is_in("k8s.io") && !is_in("kubernetes.io") {
        return None;
    }
    let annotation = object.annotation(APPROVED_ANNOTATION).unwrap_or_default();
    let needed = format!("protected groups must have approval annotation {APPROVED_ANNOTATION:?}");
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    let is_url = annotation.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty() && !rest.is_empty() && !rest.starts_with('/') && formats::is_request_uri(annotation)
    });
    Some(match annotation {
        "" => (Approval::Missing, format!("{needed}, {see}")),
        text if text.starts_with("unapproved") => (Approval::Bypassed, format!("not approved: {text:?}")),
        text if is_url => (Approval::Given, format!("approved in {text}")),
        _ => (Approval::Invalid, format!("{needed} with either a URL or a reason starting with \"unapproved\", {see}")),
    })
}

fn approval_check(new: &Object, old: Option<&Object>, errors: &mut Errors) {
    let Some((state, why)) = approval(new) else { return };
    // Who changes nothing about it need not mend it.
    if old.and_then(approval).is_some_and(|(before, _)| before == state) {
        return;
    }
    let path = format!("metadata.annotations[{APPROVED_ANNOTATION}]");
    match state {
        Approval::Given | Approval::Bypassed => {}
        Approval::Missing => errors.push(FieldError::required(path, why)),
        Approval::Invalid => {
            let annotation = new.annotation(APPROVED_ANNOTATION).unwrap_or_default();
            errors.push(FieldError::invalid(path, annotation, why));
        }
    }
}

fn unknown_fields(new: &Object, old: Option<&Object>, errors: &mut Errors) {
    let keeps = |object: &Object| object.bool_at("/spec/preserveUnknownFields") == Some(true);
    if keeps(new) && !old.is_some_and(keeps) {
        let why =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(FieldError::invalid("spec.preserveUnknownFields", true, why));
    }
}

/// What a definition is warned of: formats that say nothing, and sets of what cannot be told apart.
pub fn warnings(new: &Object, old: Option<&Object>) -> Vec<String> {
    let known = old.map(all_warnings).unwrap_or_default();
    all_warnings(new).into_iter().filter(|warning| !known.contains(warning)).collect()
}

fn all_warnings(object: &Object) -> Vec<String> {
    let (mut formats_of, mut sets) = (Vec::new(), std::collections::BTreeSet::new());
    for schema in spec::schemas(object) {
        schema::each(schema, &mut |schema| {
            let text = |key: &str| schema.get(key).and_then(Value::as_str).unwrap_or_default();
            let types: Vec<_> = super::JsonType::of(text("type")).into_iter().collect();
            if !text("format").is_empty() && formats::known(&types, text("format")).is_none() {
                formats_of.push(format!("unrecognized format {:?}", text("format")));
            }
            let items =
                schema.get("items").and_then(|items| items.get("type")).and_then(Value::as_str).unwrap_or_default();
            if text("x-kubernetes-list-type") == "set" && matches!(items, "object" | "array") {
                sets.insert(format!(
                    "x-kubernetes-list-type: set for items of type {items:?} is not supported by server-side apply or CEL \
                     validation rules"
                ));
            }
        });
    }
    formats_of.extend(sets);
    formats_of
}
