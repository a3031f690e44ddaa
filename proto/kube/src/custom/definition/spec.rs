//! The spec: versions, and what they have together or each.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Change, conversion, parts, schema};
use crate::validation::at::{At, Errors};
use crate::validation::format::dns_1035;
use crate::validation::meta::is_subdomain;
use crate::{FieldError, Object};

/// What versions may have alike, under their own key and under that of the whole.
const SHARED: [(&str, &str); 4] = [
    ("schema", "validation"),
    ("subresources", "subresources"),
    ("additionalPrinterColumns", "additionalPrinterColumns"),
    ("selectableFields", "selectableFields"),
];

/// The parts of one version, or of all of them where they are the same.
#[derive(Clone)]
struct Parts<'a> {
    path: String,
    /// Empty for all together.
    version: &'a str,
    schema: Option<At<'a>>,
    subresources: Option<At<'a>>,
    columns: Option<At<'a>>,
    selectable: Option<At<'a>>,
}

/// The OpenAPI schemas of a definition, one a version.
pub(super) fn schemas(object: &Object) -> impl Iterator<Item = &Map<String, Value>> {
    let versions = object.array_at("/spec/versions").iter();
    versions.filter_map(|version| version.pointer("/schema/openAPIV3Schema")?.as_object())
}

pub(super) fn check(change: &Change<'_>, errors: &mut Errors) {
    let spec = At::of(change.new, "spec");
    group(&spec.field("group"), errors);
    spec.field("scope").one_of(errors, &["Cluster", "Namespaced"]);
    let versions = spec.field("versions");
    let shared = |key: &str| {
        let all: Vec<Option<&Value>> = versions.items().map(|version| version.value.get(key)).collect();
        all.windows(2).all(|pair| pair[0] == pair[1])
    };
    let are_shared = SHARED.map(|(own, _)| shared(own));
    for version in versions.items() {
        let own = version.field("schema").field("openAPIV3Schema");
        if !own.is_set() {
            own.required(errors, "");
        }
    }
    names_of_versions(&versions, errors);
    let options = schema::Options::of(change);
    for version in versions.items() {
        let part = |index: usize| version.get(SHARED[index].0).filter(|_| !are_shared[index]);
        let parts = Parts {
            path: version.path.clone(),
            version: version.text_of("name"),
            schema: part(0),
            subresources: part(1),
            columns: part(2),
            selectable: part(3),
        };
        let has_status = version.field("subresources").get("status").is_some();
        deprecation(&version, errors);
        parts_of(change, &parts, has_status, &options, errors);
    }
    storage(&versions, errors);
    parts::required_names(&spec.field("names"), errors);
    parts::names(&spec.field("names"), errors);
    let part = |index: usize| {
        let first = versions.items().next()?;
        let value = first.value.get(SHARED[index].0).filter(|value| are_shared[index] && !value.is_null())?;
        Some(At { path: format!("spec.{}", SHARED[index].1), value })
    };
    let parts = Parts {
        path: "spec".to_owned(),
        version: "",
        schema: part(0),
        subresources: part(1),
        columns: part(2),
        selectable: part(3),
    };
    let has_status = versions.items().any(|version| version.field("subresources").get("status").is_some());
    parts_of(change, &parts, has_status, &options, errors);
    conversion::check(&spec.field("conversion"), change.old, errors);
}

fn group(at: &At<'_>, errors: &mut Errors) {
    let group = at.text();
    if !at.present(errors) {
        return;
    }
    if !is_subdomain(group) {
        at.required_as(errors, crate::validation::format::subdomain);
    } else if !group.contains('.') {
        at.invalid(errors, "should be a domain with at least one dot");
    }
}

fn names_of_versions(versions: &At<'_>, errors: &mut Errors) {
    for version in versions.items() {
        let name = version.field("name");
        if let Some(why) = dns_1035(name.text()) {
            errors.push(FieldError::invalid(name.path.as_str(), name.text(), why));
        }
    }
}

fn storage(versions: &At<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    if !versions.items().all(|version| seen.insert(version.text_of("name"))) {
        versions.invalid(errors, "must contain unique version names");
    }
    if versions.items().filter(|version| version.is_true("storage")).count() != 1 {
        versions.invalid(errors, "must have exactly one version marked as storage version");
    }
}

/// What clients of a deprecated version are warned with.
fn deprecation(version: &At<'_>, errors: &mut Errors) {
    const WARNING_MAX_BYTES: usize = 256;
    let Some(warning) = version.get("deprecationWarning") else { return };
    if !version.is_true("deprecated") {
        warning.invalid(errors, "can only be set for deprecated versions");
        return;
    }
    if warning.text().len() > WARNING_MAX_BYTES {
        warning.invalid(errors, format!("must be <= {WARNING_MAX_BYTES} characters long"));
    }
    if warning.text().is_empty() {
        warning.invalid(errors, "must not be an empty string");
    }
    if let Some((at, _)) = warning.text().char_indices().find(|(_, c)| c.is_control() || c.is_whitespace() && *c != ' ')
    {
        let why = format!("must only contain printable UTF-8 characters; non-printable character found at index {at}");
        warning.invalid(errors, why);
    }
}

fn parts_of(change: &Change<'_>, parts: &Parts<'_>, has_status: bool, options: &schema::Options, errors: &mut Errors) {
    let mut compiled = None;
    if let Some(own) = parts.schema.as_ref().and_then(|schema| schema.get("openAPIV3Schema")) {
        let unchanged = is_unchanged(change, parts.version, own.value);
        compiled = schema::check(change, &own, has_status, unchanged, options, errors);
    }
    if let Some(subresources) = &parts.subresources {
        parts::subresources(subresources, errors);
    }
    if let Some(columns) = &parts.columns {
        columns.items().for_each(|column| parts::column(&column, errors));
    }
    let Some(selectable) = parts.selectable.as_ref().filter(|fields| fields.count() > 0) else { return };
    // Schema and fields are told apart where only one of the two is the same for all versions.
    let version_of = |object: &'_ Object| -> Option<Value> {
        let mut versions = object.array_at("/spec/versions").iter();
        versions.find(|version| parts.version.is_empty() || version["name"] == parts.version).cloned()
    };
    let raw = version_of(change.new).and_then(|version| version.pointer("/schema/openAPIV3Schema").cloned());
    let Some(raw) = raw else {
        let why = match parts.path.as_str() {
            "spec" => "may only be set when validations.schema is included",
            _ => "may only be set when `version.schema.openAPIV3Schema` is not included",
        };
        return errors.push(FieldError::invalid(selectable.path.as_str(), "", why));
    };
    // What cannot be compiled was told of above.
    let Some(schema) = compiled.or_else(|| super::Structural::compile(&raw).ok()) else { return };
    let before = change.old.and_then(version_of).and_then(|version| version.get("selectableFields").cloned());
    parts::selectable_fields(selectable, &schema, before.as_ref() == Some(selectable.value), errors);
}

fn is_unchanged(change: &Change<'_>, version: &str, schema: &Value) -> bool {
    let Some(old) = change.old else { return false };
    let versions = old.array_at("/spec/versions").iter();
    let mut named = versions.filter(|before| version.is_empty() || before["name"] == version);
    named.any(|before| before.pointer("/schema/openAPIV3Schema") == Some(schema))
}
