//! The values of an object against those that its schema allows, one place at a time: the type first, then what the schema combines,
//! then texts, numbers, lists, the closed set of values, and objects.
//!
//! Of alternatives that all fail, the one that came furthest is told of: each check that was passed counts (Kubernetes' validator of
//! OpenAPI schemas counts so too).

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::formats::{self, Format};
use super::node::{Node, Others};
use super::number::{compare, is_multiple, is_whole, out_of_range};
use super::old::{Old, OldItems};
use super::{Json, NO_PATH, Root};
use crate::FieldError;
use crate::custom::print::float;
use crate::custom::structural::{JsonType, Nested, Structural, ValueValidation};
use crate::validation::at::ERRORS_MAX;

/// Checks a value whose place is `base`. With `old`, what did not change is not told of.
pub(super) fn check(schema: &Structural, base: &str, value: Root<'_>, old: Option<Old<'_>>) -> Vec<FieldError> {
    let mut checks = Checks { base, path: String::new() };
    let outcome = checks.ratcheted(Node::Whole(schema), value.into(), old);
    outcome.broken.into_iter().map(|broken| broken.error).collect()
}

/// A rule that is broken, and how alternatives tell it.
struct Broken {
    message: String,
    error: FieldError,
}

#[derive(Default)]
struct Outcome {
    broken: Vec<Broken>,
    /// Checks that were made and passed.
    passed: usize,
}

impl Outcome {
    fn is_good(&self) -> bool {
        self.broken.is_empty()
    }

    /// Enough is told: what else is wrong is not looked for.
    fn is_full(&self) -> bool {
        self.broken.len() >= ERRORS_MAX
    }

    /// What was told once is not told again.
    fn push(&mut self, broken: Broken) {
        if !self.is_full() && self.broken.iter().all(|known| known.message != broken.message) {
            self.broken.push(broken);
        }
    }

    fn merge(&mut self, other: Outcome) {
        self.passed += other.passed;
        other.broken.into_iter().for_each(|broken| self.push(broken));
    }
}

struct Checks<'a> {
    /// The place of what is checked, and where below it we are.
    base: &'a str,
    path: String,
}

impl Checks<'_> {
    /// What is as it was before need not be mended.
    fn ratcheted(&mut self, node: Node<'_>, value: Json<'_>, old: Option<Old<'_>>) -> Outcome {
        let mut outcome = self.value(node, value, old);
        if !outcome.is_good() && old.is_some_and(|old| old.is(value)) {
            outcome.broken.clear();
        }
        outcome
    }

    fn value(&mut self, node: Node<'_>, value: Json<'_>, old: Option<Old<'_>>) -> Outcome {
        let mut outcome = Outcome::default();
        let (types, rules) = (node.types(), node.value());
        let format = formats::known(types, &rules.format);
        if let Json::Null = value {
            if !types.is_empty() && !node.nullable() {
                self.wrong_type(&mut outcome, &type_names(types), "null");
            }
            self.one_of_values(rules, value, &mut outcome);
            return outcome;
        }
        if !types.is_empty() || format.is_some() {
            self.type_of(types, format.map(|format| (format, rules.format.as_str())), value, &mut outcome);
            outcome.passed += 1;
        }
        self.combined(rules, value, old, &mut outcome);
        match value {
            Json::String(text) => {
                self.text(rules, text, &mut outcome);
                if let Some(format) = format.filter(|format| format.is_of_texts()) {
                    if !format.is_kept_by(text) {
                        let message = format!("{} in body must be of type {}: {text:?}", self.path, rules.format);
                        self.type_invalid(&mut outcome, text, message);
                    }
                    outcome.passed += 1;
                }
                outcome.passed += 1;
            }
            Json::Number(number) => {
                self.number(types, format, rules, number, &mut outcome);
                outcome.passed += 2;
            }
            Json::Array(items) => {
                self.items(node, items, old, &mut outcome);
                outcome.passed += 2;
            }
            _ => {}
        }
        self.one_of_values(rules, value, &mut outcome);
        outcome.passed += 1;
        if let Json::Object(map) = value {
            self.object(node, map, old, &mut outcome);
            outcome.passed += 1;
        }
        outcome.passed += 1;
        outcome
    }

    fn type_of(&self, types: &[JsonType], format: Option<(Format, &str)>, value: Json<'_>, outcome: &mut Outcome) {
        let (own, own_format) = type_of(value);
        let is_numeric = |ty: &JsonType| matches!(ty, JsonType::Integer | JsonType::Number);
        let fits = match value {
            Json::Number(number) => {
                types.contains(&own)
                    || own == JsonType::Integer && types.contains(&JsonType::Number)
                    || types.contains(&JsonType::Integer) && number.as_f64().is_some_and(is_whole)
            }
            Json::Array(_) if types.is_empty() => true,
            _ => types.contains(&own),
        };
        let is_text = matches!(value, Json::String(_));
        match format {
            // A text of a form: whether it has the form is asked apart.
            Some(_) if is_text && !types.iter().any(is_numeric) => outcome.passed += 1,
            Some((_, name)) if !fits && !is_text && !matches!(value, Json::Array(_)) => {
                self.wrong_type(outcome, name, own_format);
            }
            _ if !fits => self.wrong_type(outcome, &type_names(types), own.name()),
            _ => outcome.passed += 1,
        }
    }

    fn text(&mut self, rules: &ValueValidation, text: &str, outcome: &mut Outcome) {
        let path = &self.path;
        let count =
            if rules.max_length.is_some() || rules.min_length.is_some() { text.chars().count() as i64 } else { 0 };
        if let Some(max) = rules.max_length.filter(|max| count > *max) {
            let message = format!("{path} in body should be at most {max} chars long");
            let error = FieldError::too_long(self.place(path), usize::try_from(max).unwrap_or(0));
            outcome.push(Broken { message, error });
        } else if let Some(min) = rules.min_length.filter(|min| count < *min) {
            let message = format!("{path} in body should be at least {min} chars long");
            self.invalid(outcome, text, message);
        } else if let Some(pattern) = rules.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
            let message = format!("{path} in body should match '{}'", pattern.source());
            self.invalid(outcome, text, message);
        }
    }

    fn number(
        &mut self,
        types: &[JsonType],
        format: Option<Format>,
        rules: &ValueValidation,
        number: &Value,
        outcome: &mut Outcome,
    ) {
        if let ([ty], Some(value)) = (types, number.as_f64())
            && let Some(format) = out_of_range(*ty, format, number, value)
        {
            let message = format!("Checked value must be of type {} {format} in {}", ty.name(), self.path);
            self.of_all(outcome, message);
        }
        let path = &self.path;
        let mut broken = Vec::new();
        if let Some(factor) = rules.multiple_of {
            match is_multiple(number, factor) {
                None => {
                    broken.push(format!("factor MultipleOf declared for {path} must be positive: {}", float(factor)))
                }
                Some(false) => broken.push(format!("{path} in body should be a multiple of {}", float(factor))),
                Some(true) => {}
            }
        }
        let bounds = [
            (rules.minimum, rules.exclusive_minimum, std::cmp::Ordering::Less, "greater than"),
            (rules.maximum, rules.exclusive_maximum, std::cmp::Ordering::Greater, "less than"),
        ];
        for (bound, exclusive, beyond, words) in bounds {
            let Some(bound) = bound else { continue };
            let order = compare(number, bound);
            if order == Some(beyond) || exclusive && order == Some(std::cmp::Ordering::Equal) {
                let words = if exclusive { words.to_owned() } else { format!("{words} or equal to") };
                let shown = if number.is_i64() && is_whole(bound) { format!("{bound:.0}") } else { float(bound) };
                broken.push(format!("{path} in body should be {words} {shown}"));
            }
        }
        for message in broken {
            self.invalid(outcome, number.clone(), message);
        }
    }

    fn items(&mut self, node: Node<'_>, items: &[Value], old: Option<Old<'_>>, outcome: &mut Outcome) {
        if let Some(inner) = node.items() {
            let before: Option<OldItems<'_>> = old.and_then(Old::items);
            let length = self.path.len();
            for (index, item) in items.iter().enumerate() {
                if outcome.is_full() {
                    break;
                }
                crate::canonical::push_index(&mut self.path, index);
                let old = before.as_ref().and_then(|before| before.of(item));
                outcome.merge(self.ratcheted(inner, item.into(), old));
                self.path.truncate(length);
            }
        }
        let (rules, path, count) = (node.value(), &self.path, items.len() as i64);
        if let Some(min) = rules.min_items.filter(|min| count < *min) {
            let message = format!("{path} in body should have at least {min} items");
            self.invalid(outcome, count, message);
        }
        if let Some(max) = rules.max_items.filter(|max| count > *max) {
            let message = format!("{path} in body should have at most {max} items");
            let error = FieldError::too_many(self.place(path), items.len(), usize::try_from(max).unwrap_or(0));
            outcome.push(Broken { message, error });
        }
        let mut seen = BTreeSet::new();
        if rules.unique_items && !items.iter().all(|item| seen.insert(item.to_string())) {
            let message = format!("{path} in body shouldn't contain duplicates");
            self.invalid(outcome, "", message);
        }
    }

    fn object(&mut self, node: Node<'_>, map: &Map<String, Value>, old: Option<Old<'_>>, outcome: &mut Outcome) {
        let (rules, count, length) = (node.value(), map.len() as i64, self.path.len());
        let path = self.path.clone();
        if let Some(min) = rules.min_properties.filter(|min| count < *min) {
            self.invalid(outcome, count, format!("{path} in body should have at least {min} properties"));
        }
        if let Some(max) = rules.max_properties.filter(|max| count > *max) {
            let message = format!("{path} in body should have at most {max} properties");
            let error = FieldError::too_many(self.place(&path), map.len(), usize::try_from(max).unwrap_or(0));
            outcome.push(Broken { message, error });
        }
        for (key, value) in map {
            if outcome.is_full() {
                break;
            }
            let known = node.property(key);
            let inner = match (known, node.others()) {
                (Some(known), _) => known,
                (None, Others::Each(any)) => any,
                (None, Others::Any) => continue,
                (None, Others::None) => {
                    self.invalid(outcome, key.as_str(), format!("{path}.{key} in body is a forbidden property"));
                    continue;
                }
            };
            // The version and kind that an object is sent with are not those that it is stored with.
            let is_type = path.is_empty() && (key == "apiVersion" || key == "kind");
            let before = old.filter(|_| !is_type).and_then(|old| old.key(key));
            if known.is_none() || !path.is_empty() {
                self.path.push('.');
            }
            self.path.push_str(key);
            outcome.merge(self.ratcheted(inner, value.into(), before));
            self.path.truncate(length);
        }
        for name in rules.required.iter().filter(|name| !map.contains_key(*name)) {
            let path = format!("{path}.{name}");
            let error = FieldError::required(self.place(&path), "");
            outcome.push(Broken { message: format!("{path} in body is required"), error });
        }
    }

    /// anyOf, oneOf, allOf and not. Their own value is not compared with what it was, but what is below it is.
    fn combined(&mut self, rules: &ValueValidation, value: Json<'_>, old: Option<Old<'_>>, outcome: &mut Outcome) {
        if !rules.any_of.is_empty() {
            let (good, worst) = self.alternatives(&rules.any_of, value, old, true);
            if good == 0 {
                self.of_all(outcome, format!("{:?} must validate at least one schema (anyOf)", self.path));
            }
            outcome.merge(worst);
        }
        if !rules.one_of.is_empty() {
            let (good, worst) = self.alternatives(&rules.one_of, value, old, false);
            if good != 1 {
                let found =
                    if good == 0 { "Found none valid".to_owned() } else { format!("Found {good} valid alternatives") };
                let path = &self.path;
                self.of_all(outcome, format!("{path:?} must validate one and only one schema (oneOf). {found}"));
            }
            if good <= 1 {
                outcome.merge(worst);
            }
        }
        if !rules.all_of.is_empty() {
            let mut good = 0;
            for part in &rules.all_of {
                let result = self.value(Node::Part(part), value, old);
                good += usize::from(result.is_good());
                outcome.merge(result);
            }
            if good != rules.all_of.len() {
                let none = if good == 0 { ". None validated" } else { "" };
                self.of_all(outcome, format!("{:?} must validate all the schemas (allOf){none}", self.path));
            }
        }
        if let Some(not) = &rules.not
            && self.value(Node::Part(not), value, old).is_good()
        {
            self.of_all(outcome, format!("{:?} must not validate the schema (not)", self.path));
        }
        outcome.passed += 2;
    }

    /// How many alternatives hold, up to the first where that is enough; and the first that does, or the one that came furthest.
    fn alternatives(
        &mut self,
        parts: &[Nested],
        value: Json<'_>,
        old: Option<Old<'_>>,
        one_is_enough: bool,
    ) -> (usize, Outcome) {
        let mut good = 0;
        let mut told: Option<Outcome> = None;
        for part in parts {
            let result = self.value(Node::Part(part), value, old);
            let is_good = result.is_good();
            let is_further = told.as_ref().is_none_or(|told| result.passed > told.passed);
            if good == 0 && (is_good || is_further) {
                told = Some(result);
            }
            good += usize::from(is_good);
            if is_good && one_is_enough {
                break;
            }
        }
        (good, told.unwrap_or_default())
    }

    fn one_of_values(&mut self, rules: &ValueValidation, value: Json<'_>, outcome: &mut Outcome) {
        if rules.enumeration.is_empty() || rules.enumeration.iter().any(|known| is_same(known, value)) {
            return;
        }
        let texts: Vec<String> = rules.enumeration.iter().map(shown).collect();
        let message = format!("{} in body should be one of [{}]", self.path, texts.join(" "));
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let error = FieldError::not_supported(self.place(&self.path), value.owned(), &texts);
        outcome.push(Broken { message, error });
    }

    fn wrong_type(&self, outcome: &mut Outcome, wanted: &str, own: &str) {
        let message = format!("{} in body must be of type {wanted}: {own:?}", self.path);
        self.type_invalid(outcome, own, message);
    }

    fn type_invalid(&self, outcome: &mut Outcome, value: &str, message: String) {
        let error = FieldError::type_invalid(self.place(&self.path), value, message.as_str());
        outcome.push(Broken { message, error });
    }

    fn invalid(&self, outcome: &mut Outcome, value: impl Into<Value>, message: String) {
        let error = FieldError::invalid(self.place(&self.path), value, message.as_str());
        outcome.push(Broken { message, error });
    }

    /// An error that is told of the whole, and names its place itself.
    fn of_all(&self, outcome: &mut Outcome, message: String) {
        let error = FieldError::invalid(self.place(""), "", message.as_str());
        outcome.push(Broken { message, error });
    }

    /// A path as errors of the object have it.
    fn place(&self, path: &str) -> String {
        let path = path.strip_prefix('.').unwrap_or(path);
        match (self.base, path) {
            ("", "") => NO_PATH.to_owned(),
            ("", path) => path.to_owned(),
            (base, "") => base.to_owned(),
            (base, path) => format!("{base}.{path}"),
        }
    }
}

/// The JSON type of a value, and the name of Go's for it.
fn type_of(value: Json<'_>) -> (JsonType, &'static str) {
    match value {
        Json::Null | Json::Object(_) => (JsonType::Object, ""),
        Json::Bool(_) => (JsonType::Boolean, ""),
        Json::String(_) => (JsonType::String, ""),
        Json::Array(_) => (JsonType::Array, ""),
        Json::Number(number) if number.is_i64() => (JsonType::Integer, "int64"),
        Json::Number(_) => (JsonType::Number, "float64"),
    }
}

fn type_names(types: &[JsonType]) -> String {
    let names: Vec<&str> = types.iter().map(|ty| ty.name()).collect();
    names.join(",")
}

/// Whether a value is one of the allowed: numbers are the same however they are written, and null is none of them.
fn is_same(known: &Value, value: Json<'_>) -> bool {
    match (known, value) {
        (Value::Number(known), Json::Number(value)) => match (known.as_i64(), value.as_i64()) {
            (Some(known), Some(value)) => known == value,
            _ => known.as_f64() == value.as_f64(),
        },
        (Value::Null, _) | (_, Json::Null) => false,
        (Value::String(known), Json::String(value)) => known == value,
        (Value::Bool(known), Json::Bool(value)) => *known == value,
        (Value::Array(known), Json::Array(value)) => known == value,
        (Value::Object(known), Json::Object(value)) => known == value,
        _ => false,
    }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
