//! A value beside its path, and the list that broken rules go into.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::{FieldError, Object};

/// Broken rules that are named; more help nobody, and would let one body be answered with a thousand times its size.
pub const ERRORS_MAX: usize = 100;

static ABSENT: Value = Value::Null;

/// What was found, up to [`ERRORS_MAX`].
#[derive(Debug, Default)]
pub struct Errors(Vec<FieldError>);

impl Errors {
    pub fn push(&mut self, error: FieldError) {
        if self.0.len() < ERRORS_MAX {
            self.0.push(error);
        }
    }

    pub fn into_vec(self) -> Vec<FieldError> {
        self.0
    }
}

/// A value that may be absent, and its path as errors name it.
#[derive(Clone, Debug)]
pub struct At<'a> {
    pub path: String,
    pub value: &'a Value,
}

impl<'a> At<'a> {
    /// A top-level field of an object.
    pub fn of(object: &'a Object, key: &str) -> At<'a> {
        At { path: key.to_owned(), value: object.0.get(key).unwrap_or(&ABSENT) }
    }

    pub fn field(&self, key: &str) -> At<'a> {
        At { path: format!("{}.{key}", self.path), value: self.value.get(key).unwrap_or(&ABSENT) }
    }

    /// The field where it is there.
    pub fn get(&self, key: &str) -> Option<At<'a>> {
        let value = self.value.get(key).filter(|value| !value.is_null())?;
        Some(At { path: format!("{}.{key}", self.path), value })
    }

    /// The elements of a list; none where it is no list.
    pub fn items(&self) -> impl Iterator<Item = At<'a>> + use<'a> {
        let path = self.path.clone();
        let items = self.value.as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().enumerate().map(move |(i, value)| At { path: format!("{path}[{i}]"), value })
    }

    /// The entries of a map with their keys; none where it is no map.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, At<'a>)> + use<'a> {
        let path = self.path.clone();
        let entries = self.value.as_object().into_iter().flatten();
        entries.map(move |(key, value)| (key.as_str(), At { path: format!("{path}[{key}]"), value }))
    }

    pub fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    pub fn text(&self) -> &'a str {
        self.value.as_str().unwrap_or("")
    }

    /// The text of a field of this map.
    pub fn text_of(&self, key: &str) -> &'a str {
        self.value.get(key).and_then(Value::as_str).unwrap_or("")
    }

    pub fn int(&self) -> Option<i64> {
        self.value.as_i64()
    }

    pub fn int_of(&self, key: &str) -> Option<i64> {
        self.value.get(key).and_then(Value::as_i64)
    }

    pub fn is_true(&self, key: &str) -> bool {
        self.value.get(key).and_then(Value::as_bool) == Some(true)
    }

    pub fn map(&self) -> Option<&'a Map<String, Value>> {
        self.value.as_object()
    }

    pub fn count(&self) -> usize {
        self.value.as_array().map_or(0, Vec::len)
    }

    pub fn required(&self, errors: &mut Errors, detail: &str) {
        errors.push(FieldError::required(self.path.as_str(), detail));
    }

    pub fn invalid(&self, errors: &mut Errors, detail: impl Into<String>) {
        errors.push(FieldError::invalid(self.path.as_str(), self.value.clone(), detail));
    }

    pub fn forbidden(&self, errors: &mut Errors, detail: &str) {
        errors.push(FieldError::forbidden(self.path.as_str(), detail));
    }

    pub fn not_supported(&self, errors: &mut Errors, supported: &[&str]) {
        errors.push(FieldError::not_supported(self.path.as_str(), self.value.clone(), supported));
    }

    pub fn too_many(&self, errors: &mut Errors, max: usize) {
        let count = self.count();
        if count > max {
            errors.push(FieldError::too_many(self.path.as_str(), count, max));
        }
    }

    /// A text that must be there. True where it is.
    pub fn present(&self, errors: &mut Errors) -> bool {
        let there = !self.text().is_empty();
        if !there {
            self.required(errors, "");
        }
        there
    }

    /// A text that must be there and keep a rule.
    pub fn required_as(&self, errors: &mut Errors, problem: impl Fn(&str) -> Option<String>) {
        if self.present(errors) {
            self.text_as(errors, problem);
        }
    }

    /// A text that must keep a rule where it is there.
    pub fn optional_as(&self, errors: &mut Errors, problem: impl Fn(&str) -> Option<String>) {
        if !self.text().is_empty() {
            self.text_as(errors, problem);
        }
    }

    fn text_as(&self, errors: &mut Errors, problem: impl Fn(&str) -> Option<String>) {
        if let Some(why) = problem(self.text()) {
            self.invalid(errors, why);
        }
    }

    /// One of a closed set of words.
    pub fn one_of(&self, errors: &mut Errors, words: &[&str]) {
        if self.present(errors) && !words.contains(&self.text()) {
            self.not_supported(errors, words);
        }
    }

    /// One of a closed set of words, or nothing.
    pub fn maybe_one_of(&self, errors: &mut Errors, words: &[&str]) {
        if self.is_set() && !words.contains(&self.text()) {
            self.not_supported(errors, words);
        }
    }

    pub fn at_least_zero(&self, errors: &mut Errors) {
        if self.int().is_some_and(|number| number < 0) {
            self.invalid(errors, "must be greater than or equal to 0");
        }
    }

    /// A number that, where it is there, lies in a closed range.
    pub fn within(&self, errors: &mut Errors, first: i64, last: i64) {
        if self.int().is_some_and(|number| !(first..=last).contains(&number)) {
            self.invalid(errors, format!("must be between {first} and {last}, inclusive"));
        }
    }

    /// A text that no element before it has.
    pub fn unique(&self, errors: &mut Errors, seen: &mut BTreeSet<&'a str>) {
        if !self.text().is_empty() && !seen.insert(self.text()) {
            errors.push(FieldError::duplicate(self.path.as_str(), self.text()));
        }
    }

    /// What may not differ from what was stored.
    pub fn immutable(&self, errors: &mut Errors, old: &At<'_>) {
        if self.value != old.value {
            self.invalid(errors, "field is immutable");
        }
    }
}
