//! Whether defaults are values that their own schema takes.

use serde_json::{Map, Value, json};

use crate::custom::prune::{META_FIELDS, prune_value};
use crate::custom::structural::{Additional, Structural};
use crate::custom::validate;
use crate::validation::at::Errors;
use crate::{FieldError, Object};

/// Checks the defaults of a schema; with `pruned`, that they have no fields that it does not know.
pub(super) fn check(schema: &Structural, path: &str, pruned: bool) -> Vec<FieldError> {
    let mut walk = Walk { pruned, errors: Errors::default(), steps: Vec::new() };
    walk.place(schema, schema, path, true, false);
    walk.errors.into_vec()
}

/// How a value of the metadata stands in its object.
enum Step {
    Field(String),
    Item,
}

struct Walk {
    pruned: bool,
    errors: Errors,
    /// From the object that we are in.
    steps: Vec<Step>,
}

impl Walk {
    fn place(&mut self, schema: &Structural, object: &Structural, path: &str, is_root: bool, in_meta: bool) {
        let is_object = is_root || schema.embedded;
        let (object, in_meta) = if is_object { (schema, false) } else { (object, in_meta) };
        let outer = if is_object { std::mem::take(&mut self.steps) } else { Vec::new() };
        if let Some(default) = &schema.default {
            match in_meta {
                true => self.in_meta(object, path, default),
                false => self.one(schema, path, default),
            }
        }
        if let Some(items) = &schema.items {
            self.steps.push(Step::Item);
            self.place(items, object, &format!("{path}.items"), false, in_meta);
            self.steps.pop();
        }
        for (name, property) in &schema.properties {
            let in_meta = in_meta || is_object && META_FIELDS.contains(&name.as_str());
            self.steps.push(Step::Field(name.clone()));
            self.place(property, object, &format!("{path}.properties[{name}]"), false, in_meta);
            self.steps.pop();
        }
        if let Additional::Schema(any) = &schema.additional {
            self.steps.push(Step::Field("*".to_owned()));
            self.place(any, object, &format!("{path}.additionalProperties"), false, in_meta);
            self.steps.pop();
        }
        if is_object {
            self.steps = outer;
        }
    }

    fn one(&mut self, schema: &Structural, path: &str, default: &Value) {
        let path = format!("{path}.default");
        let mut copy = default.clone();
        let (unknown, wrong) = prune_value(schema, &path, &mut copy);
        if self.pruned && !unknown.is_empty() {
            self.errors.push(FieldError::invalid(path.as_str(), default.clone(), "must not have unknown fields"));
        }
        if let Some(error) = wrong.into_iter().next() {
            return self.errors.push(error);
        }
        validate::one(schema, &path, default).into_iter().for_each(|error| self.errors.push(error));
    }

    /// A default within the metadata of an object must make good metadata.
    fn in_meta(&mut self, object: &Structural, path: &str, default: &Value) {
        let mut value = default.clone();
        for step in self.steps.iter().rev() {
            value = match step {
                Step::Field(name) => Value::Object(Map::from_iter([(name.clone(), value)])),
                Step::Item => json!([value]),
            };
        }
        let Value::Object(mut whole) = value else { return };
        for (key, text) in [("apiVersion", "validation/v1"), ("kind", "Validation")] {
            whole.entry(key).or_insert_with(|| Value::from(text));
        }
        let mut whole = Object(whole);
        let embedded = Structural { embedded: true, preserve_unknown: true, ..Structural::default() };
        let findings = crate::custom::prune(&embedded, &mut whole);
        let mut problems: Vec<String> = findings.wrong.iter().map(|wrong| wrong.message.clone()).collect();
        if problems.is_empty() {
            problems.extend(validate::create(&embedded, &whole.0).iter().map(ToString::to_string));
        }
        let path = format!("{path}.default");
        if !problems.is_empty() {
            let why = format!("must result in valid metadata: {}", problems.join(", "));
            self.errors.push(FieldError::invalid(path, default.clone(), why));
            return;
        }
        let place = self.steps.iter().try_fold(object, |place, step| match step {
            Step::Field(name) => place.under(name),
            Step::Item => place.items.as_deref(),
        });
        if let Some(place) = place {
            validate::one(place, &path, default).into_iter().for_each(|error| self.errors.push(error));
        }
    }
}
