//! Names, subresources, printer columns and selectable fields.

use std::collections::BTreeSet;

use crate::FieldError;
use crate::custom::path::resolve;
use crate::custom::structural::{JsonType, Structural};
use crate::validation::at::{At, Errors};
use crate::validation::format::dns_1035;

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
/// Fields that a version's objects can be selected by.
const SELECTABLE_MAX: usize = 8;

pub(super) fn required_names(names: &At<'_>, errors: &mut Errors) {
    for key in ["plural", "singular", "kind", "listKind"] {
        let at = names.field(key);
        if at.text().is_empty() {
            at.required(errors, "");
        }
    }
}

/// Names where they are there.
pub(super) fn names(names: &At<'_>, errors: &mut Errors) {
    names.field("plural").optional_as(errors, dns_1035);
    names.field("singular").optional_as(errors, dns_1035);
    for key in ["kind", "listKind"] {
        names.field(key).optional_as(errors, |kind| {
            let why = dns_1035(&kind.to_lowercase())?;
            Some(format!("may have mixed case, but should otherwise match: {why}"))
        });
    }
    let each = |key: &str, errors: &mut Errors| {
        for name in names.field(key).items() {
            if let Some(why) = dns_1035(name.text()) {
                name.invalid(errors, why);
            }
        }
    };
    each("shortNames", errors);
    let (kind, list) = (names.field("kind"), names.field("listKind"));
    if !kind.text().is_empty() && kind.text() == list.text() {
        list.invalid(errors, "kind and listKind may not be the same");
    }
    each("categories", errors);
}

pub(super) fn subresources(at: &At<'_>, errors: &mut Errors) {
    let Some(scale) = at.get("scale") else { return };
    let place = |key: &str| At { path: format!("{}.scale.{key}", at.path), value: scale.field(key).value };
    for (key, root) in [("specReplicasPath", ".spec"), ("statusReplicasPath", ".status")] {
        let path = place(key);
        if path.text().is_empty() {
            path.required(errors, "");
        } else if is_simple(&path, errors) && !path.text().starts_with(&format!("{root}.")) {
            path.invalid(errors, format!("should be a json path under {root}"));
        }
    }
    let selector = place("labelSelectorPath");
    if !selector.text().is_empty()
        && is_simple(&selector, errors)
        && !selector.text().starts_with(".spec.")
        && !selector.text().starts_with(".status.")
    {
        selector.invalid(errors, "should be a json path under either .spec or .status");
    }
}

fn is_simple(at: &At<'_>, errors: &mut Errors) -> bool {
    let good = at.text().starts_with('.');
    if !good {
        at.invalid(errors, "must be a simple json path starting with .");
    }
    good
}

pub(super) fn column(at: &At<'_>, errors: &mut Errors) {
    let name = at.field("name");
    if name.text().is_empty() {
        name.required(errors, "");
    }
    let kind = at.field("type");
    let why = format!("must be one of {}", COLUMN_TYPES.join(","));
    if kind.text().is_empty() {
        kind.required(errors, &why);
    } else if !COLUMN_TYPES.contains(&kind.text()) {
        kind.invalid(errors, why);
    }
    let format = at.field("format");
    if !format.text().is_empty() && !COLUMN_FORMATS.contains(&format.text()) {
        format.invalid(errors, format!("must be one of {}", COLUMN_FORMATS.join(",")));
    }
    // Kubernetes' own form writes it so.
    let path = At { path: format!("{}.JSONPath", at.path), value: at.field("jsonPath").value };
    if path.text().is_empty() {
        path.required(errors, "");
    } else {
        is_simple(&path, errors);
    }
}

pub(super) fn selectable_fields(fields: &At<'_>, schema: &Structural, unchanged: bool, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for field in fields.items() {
        let at = field.field("jsonPath");
        if at.text().is_empty() {
            at.required(errors, "");
            continue;
        }
        let (names, place) = match resolve(at.text(), schema, false) {
            Ok(found) => found,
            Err(why) => {
                at.invalid(errors, format!("is an invalid path: {why}"));
                continue;
            }
        };
        if names.first().is_some_and(|name| name == "metadata") {
            at.invalid(errors, "must not point to fields in metadata");
        }
        if !matches!(place.ty, Some(JsonType::String | JsonType::Boolean | JsonType::Integer)) {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats \
                       are allowed.";
            at.invalid(errors, why);
        }
        if !seen.insert(names) {
            errors.push(FieldError::duplicate(at.path.as_str(), at.text()));
        }
    }
    if seen.len() > SELECTABLE_MAX && !unchanged {
        errors.push(FieldError::too_many(fields.path.as_str(), seen.len(), SELECTABLE_MAX));
    }
}
