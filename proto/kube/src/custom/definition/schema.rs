//! The OpenAPI schema of a version: what may stand in it, and together with what. Whether it is structural is [`super::structure`]'s.

use serde_json::{Map, Value, json};

use super::{Change, Ruled, schema_defaults, schema_lists, spec, structure};
use crate::FieldError;
use crate::custom::path::resolve;
use crate::custom::prune::META_FIELDS;
use crate::custom::structural::{Additional, CompileError, JsonType, Structural};
use crate::validation::at::{At, Errors};

/// With a status of its own a version's schema has only these at its root, so that what it says of the status stands under `status`.
/// The names are those that the error tells.
const AT_ROOT: [(&str, &str); 22] = [
    ("description", "Description"),
    ("type", "Type"),
    ("format", "Format"),
    ("title", "Title"),
    ("maximum", "Maximum"),
    ("exclusiveMaximum", "ExclusiveMaximum"),
    ("minimum", "Minimum"),
    ("exclusiveMinimum", "ExclusiveMinimum"),
    ("maxLength", "MaxLength"),
    ("minLength", "MinLength"),
    ("pattern", "Pattern"),
    ("maxItems", "MaxItems"),
    ("minItems", "MinItems"),
    ("uniqueItems", "UniqueItems"),
    ("multipleOf", "MultipleOf"),
    ("required", "Required"),
    ("items", "Items"),
    ("properties", "Properties"),
    ("externalDocs", "ExternalDocs"),
    ("example", "Example"),
    ("x-kubernetes-preserve-unknown-fields", "XPreserveUnknownFields"),
    ("x-kubernetes-validations", "XValidations"),
];
const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
const KEYS_OF_MAPS: [&str; 4] = ["properties", "patternProperties", "definitions", "dependencies"];
const KEYS_OF_LISTS: [&str; 3] = ["allOf", "anyOf", "oneOf"];
const KEYS_OF_ONE: [&str; 4] = ["not", "items", "additionalProperties", "additionalItems"];

/// What is asked of a schema only where the definition kept it before.
pub(super) struct Options {
    types: bool,
    pruned_defaults: bool,
    pub atomic_sets: bool,
    pub list_keys: bool,
}

impl Options {
    pub(super) fn of(change: &Change<'_>) -> Options {
        let Some(old) = change.old else {
            return Options { types: true, pruned_defaults: true, atomic_sets: true, list_keys: true };
        };
        let none = |wrong: &dyn Fn(&Map<String, Value>) -> bool| {
            spec::schemas(old).all(|schema| {
                let mut found = false;
                each(schema, &mut |schema| found |= wrong(schema));
                !found
            })
        };
        Options {
            types: none(&|schema| text(schema, "type").is_some_and(|ty| !TYPES.contains(&ty))),
            pruned_defaults: spec::schemas(old).all(|schema| {
                let compiled = Structural::compile(&Value::Object(schema.clone()));
                compiled.is_ok_and(|schema| {
                    schema_defaults::check(&schema, "", true) == schema_defaults::check(&schema, "", false)
                })
            }),
            atomic_sets: none(&|schema| schema_lists::item_of_set(schema, "").is_some()),
            list_keys: none(&|schema| !schema_lists::keys(schema, "").is_empty()),
        }
    }
}

/// Checks a schema, and compiles it where it can be.
pub(super) fn check(
    change: &Change<'_>,
    at: &At<'_>,
    has_status: bool,
    unchanged: bool,
    options: &Options,
    errors: &mut Errors,
) -> Option<Structural> {
    let schema = at.map()?;
    let mut own = Errors::default();
    if has_status {
        root(at, schema, &mut own);
    }
    if at.is_true("nullable") {
        own.push(FieldError::forbidden(format!("{}.nullable", at.path), "nullable cannot be true at the root"));
    }
    let compiled = Structural::compile(at.value);
    // What makes no tree is told by the walk below; a pattern that is none is told as what it is.
    let is_tree = matches!(&compiled, Ok(_) | Err(CompileError::Pattern { .. }));
    let mut found = if is_tree { structure::check(schema, &at.path) } else { Vec::new() };
    if let (Ok(compiled), true) = (&compiled, found.is_empty()) {
        found = schema_defaults::check(compiled, &at.path, options.pruned_defaults);
    }
    found.into_iter().for_each(|error| own.push(error));
    let mut walk = Walk { options, errors: own };
    walk.schema(schema, &at.path, compiled.as_ref().ok(), &Place::default(), true);
    let mut found = walk.errors.into_vec();
    match &compiled {
        Err(error) if found.is_empty() => {
            found.push(FieldError::invalid(at.path.as_str(), "", said(error)));
        }
        Ok(schema) if found.is_empty() => {
            found = (change.rules)(&Ruled { schema, path: &at.path, unchanged });
        }
        _ => {}
    }
    found.into_iter().for_each(|error| errors.push(error));
    compiled.ok()
}

fn said(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

fn root(at: &At<'_>, schema: &Map<String, Value>, errors: &mut Errors) {
    for (key, value) in schema.iter().filter(|(_, value)| is_set(value)) {
        if key == "type" {
            if value != "object" {
                let why = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
                errors.push(FieldError::invalid(format!("{}.type", at.path), value.clone(), why));
                return;
            }
        } else if !AT_ROOT.iter().any(|(name, _)| name == key) {
            let names: Vec<&str> = AT_ROOT.iter().map(|(_, name)| *name).collect();
            let why = format!(
                "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
                names.join(" ")
            );
            at.invalid(errors, why);
            return;
        }
    }
}

/// Not as good as absent.
pub(super) fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(set) => *set,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Number(_) => true,
    }
}

pub(super) fn text<'a>(schema: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    schema.get(key)?.as_str().filter(|text| !text.is_empty())
}

pub(super) fn flag(schema: &Map<String, Value>, key: &str) -> bool {
    schema.get(key) == Some(&Value::Bool(true))
}

pub(super) fn map<'a>(schema: &'a Map<String, Value>, key: &str) -> Option<&'a Map<String, Value>> {
    schema.get(key)?.as_object()
}

pub(super) fn entries<'a>(
    schema: &'a Map<String, Value>,
    key: &str,
) -> impl Iterator<Item = (&'a String, &'a Map<String, Value>)> {
    map(schema, key).into_iter().flatten().filter_map(|(name, value)| Some((name, value.as_object()?)))
}

pub(super) fn list<'a>(schema: &'a Map<String, Value>, key: &str) -> &'a [Value] {
    schema.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Calls for each schema in a schema, itself first.
pub(super) fn each(schema: &Map<String, Value>, found: &mut dyn FnMut(&Map<String, Value>)) {
    found(schema);
    for key in KEYS_OF_ONE {
        match schema.get(key) {
            Some(Value::Object(inner)) => each(inner, found),
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_object).for_each(|inner| each(inner, found)),
            _ => {}
        }
    }
    for key in KEYS_OF_LISTS {
        list(schema, key).iter().filter_map(Value::as_object).for_each(|inner| each(inner, found));
    }
    for key in KEYS_OF_MAPS {
        entries(schema, key).for_each(|(_, inner)| each(inner, found));
    }
}

/// Where in the schema we are.
#[derive(Clone, Default)]
struct Place {
    /// Why there can be no defaults; None where there can.
    no_defaults: Option<String>,
    /// Within the metadata of an object.
    in_meta: bool,
}

struct Walk<'a> {
    options: &'a Options,
    errors: Errors,
}

impl Walk<'_> {
    fn schema(
        &mut self,
        schema: &Map<String, Value>,
        path: &str,
        compiled: Option<&Structural>,
        place: &Place,
        is_root: bool,
    ) {
        self.unsupported(schema, path, place);
        if flag(schema, "uniqueItems") {
            let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.forbidden(format!("{path}.uniqueItems"), why);
        }
        self.additional(schema, path, compiled, place);
        for (name, inner) in entries(schema, "properties") {
            let mut below = place.clone();
            if (is_root || flag(schema, "x-kubernetes-embedded-resource")) && META_FIELDS.contains(&name.as_str()) {
                below.in_meta = true;
                if is_root {
                    below.no_defaults = Some(format!("in top-level {name}"));
                }
            }
            let compiled = compiled.and_then(|compiled| compiled.properties.get(name));
            self.schema(inner, &format!("{path}.properties[{name}]"), compiled, &below, false);
        }
        if let Some(not) = map(schema, "not") {
            self.schema(not, &format!("{path}.not"), None, place, false);
        }
        for key in KEYS_OF_LISTS {
            for (index, inner) in list(schema, key).iter().enumerate() {
                if let Some(inner) = inner.as_object() {
                    self.schema(inner, &format!("{path}.{key}[{index}]"), None, place, false);
                }
            }
        }
        if let Some(items) = map(schema, "items") {
            let compiled = compiled.and_then(|compiled| compiled.items.as_deref());
            self.schema(items, &format!("{path}.items"), compiled, place, false);
        }
        self.extensions(schema, path);
        self.rules(schema, path, compiled);
    }

    fn forbidden(&mut self, path: String, why: &str) {
        self.errors.push(FieldError::forbidden(path, why));
    }

    /// What Kubernetes takes nowhere in a schema.
    fn unsupported(&mut self, schema: &Map<String, Value>, path: &str, place: &Place) {
        let ty = text(schema, "type").unwrap_or_default();
        if self.options.types && !ty.is_empty() && !TYPES.contains(&ty) {
            self.errors.push(FieldError::not_supported(format!("{path}.type"), ty, &TYPES));
        }
        let has_default = schema.get("default").is_some_and(|default| !default.is_null());
        if let Some(why) = place.no_defaults.as_ref().filter(|_| has_default) {
            self.forbidden(format!("{path}.default"), &format!("must not be set {why}"));
        }
        for key in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
            let present =
                schema.get(key).is_some_and(|value| is_set(value) || key == "additionalItems" && !value.is_null());
            if present {
                self.forbidden(format!("{path}.{key}"), &format!("{key} is not supported"));
            }
        }
        if ty == "null" {
            self.forbidden(format!("{path}.type"), "type cannot be set to null, use nullable as an alternative");
        }
        if !list(schema, "items").is_empty() {
            self.forbidden(format!("{path}.items"), "items must be a schema object and not an array");
        }
        if place.in_meta && flag(schema, "x-kubernetes-embedded-resource") {
            let path = format!("{path}.x-kubernetes-embedded-resource");
            self.forbidden(path, "must not be used inside of resource meta");
        }
    }

    fn additional(&mut self, schema: &Map<String, Value>, path: &str, compiled: Option<&Structural>, place: &Place) {
        let Some(additional) = schema.get("additionalProperties").filter(|value| !value.is_null()) else { return };
        let path = format!("{path}.additionalProperties");
        if map(schema, "properties").is_some_and(|all| !all.is_empty()) && *additional != Value::Bool(true) {
            self.forbidden(path.clone(), "additionalProperties and properties are mutual exclusive");
        }
        let Some(inner) = additional.as_object() else { return };
        let mut below = place.clone();
        if place.in_meta {
            below.no_defaults = Some("inside additionalProperties applying to object metadata".to_owned());
        }
        let compiled = compiled.and_then(|compiled| match &compiled.additional {
            Additional::Schema(any) => Some(&**any),
            _ => None,
        });
        self.schema(inner, &path, compiled, &below, false);
    }

    /// `x-kubernetes-…`, but for the rules.
    fn extensions(&mut self, schema: &Map<String, Value>, path: &str) {
        if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
            let path = format!("{path}.x-kubernetes-preserve-unknown-fields");
            self.errors.push(FieldError::invalid(path, false, "must be true or undefined"));
        }
        let ty = text(schema, "type");
        if let Some(kind) = schema.get("x-kubernetes-map-type").and_then(Value::as_str) {
            self.must_be(path, ty, "object", "must be object if x-kubernetes-map-type is specified");
            if !["atomic", "granular"].contains(&kind) {
                let path = format!("{path}.x-kubernetes-map-type");
                self.errors.push(FieldError::not_supported(path, kind, &["atomic", "granular"]));
            }
        }
        schema_lists::check(schema, path, self.options, &mut self.errors);
    }

    fn must_be(&mut self, path: &str, ty: Option<&str>, wanted: &str, why: &str) {
        let path = format!("{path}.type");
        match ty {
            None => self.errors.push(FieldError::required(path, why)),
            Some(ty) if ty != wanted => self.errors.push(FieldError::invalid(path, ty, why)),
            Some(_) => {}
        }
    }

    /// What can be told of rules without reading their expressions.
    fn rules(&mut self, schema: &Map<String, Value>, path: &str, compiled: Option<&Structural>) {
        let has_breaks = |text: &str| text.contains(['\n', '\r']);
        for (index, rule) in list(schema, "x-kubernetes-validations").iter().enumerate() {
            let text = |key: &str| rule.get(key).and_then(Value::as_str).unwrap_or_default();
            let at = |key: &str| format!("{path}.x-kubernetes-validations[{index}].{key}");
            let (expression, message) = (text("rule").trim(), text("message").trim());
            if expression.is_empty() {
                self.errors.push(FieldError::required(at("rule"), "rule is not specified"));
            } else if !text("message").is_empty() && message.is_empty() {
                self.errors.push(FieldError::invalid(at("message"), text("message"), "must be non-empty if specified"));
            } else if has_breaks(message) {
                self.errors.push(FieldError::invalid(at("message"), text("message"), "must not contain line breaks"));
            } else if has_breaks(expression) && message.is_empty() {
                let why = "message must be specified if rule contains line breaks";
                self.errors.push(FieldError::required(at("message"), why));
            }
            if !text("messageExpression").is_empty() && text("messageExpression").trim().is_empty() {
                let why = "messageExpression must be non-empty if specified";
                self.errors.push(FieldError::required(at("messageExpression"), why));
            }
            if rule.get("reason").is_some_and(|reason| !reason.is_null()) && !REASONS.contains(&text("reason")) {
                self.errors.push(FieldError::not_supported(at("reason"), text("reason"), &REASONS));
            }
            let field = text("fieldPath");
            if field.is_empty() {
                continue;
            }
            if field.trim().is_empty() {
                self.errors.push(FieldError::invalid(at("fieldPath"), field, "must be non-empty if specified"));
            }
            if has_breaks(field) {
                self.errors.push(FieldError::invalid(at("fieldPath"), field, "must not contain line breaks"));
            }
            if compiled.is_some_and(|compiled| resolve(field, compiled, true).is_err()) {
                self.errors.push(FieldError::invalid(at("fieldPath"), field, "must be a valid path"));
            }
        }
    }
}

/// The alternatives that say that a value is an integer or a text.
pub(super) fn is_int_or_string(alternatives: &[Value]) -> bool {
    let types = [JsonType::Integer, JsonType::String].map(|ty| json!({"type": ty.name()}));
    alternatives == types
}
