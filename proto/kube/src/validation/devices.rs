//! Dynamic resource allocation (resource.k8s.io/v1): what its four kinds have in common.
//!
//! [`claim`] has the rules of ResourceClaim, ResourceClaimTemplate and DeviceClass, [`allocation`] those of a claim's status,
//! [`slice`] those of ResourceSlice. CEL expressions are bounded and not compiled: what selects devices by them is not here.

pub mod allocation;
pub mod claim;
pub mod slice;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::at::{At, Errors};
use super::format::{self, driver_name, label, label_value, qualified, subdomain};
use crate::FieldError;

const REQUESTS_MAX: usize = 32;
const CONFIGS_MAX: usize = 32;
const PARAMETERS_MAX_BYTES: usize = 10 << 10;
const POOL_NAME_MAX_BYTES: usize = 253;
const IDENTIFIER_MAX_BYTES: usize = 32;
const BINDING_CONDITIONS_MAX: usize = 4;
const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];
const REQUEST_NAME: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
const IDENTIFIER: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string of \
    alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is \
    '[A-Za-z_][A-Za-z0-9_]*')";

/// Looks at each item of a list that is not too long; one that is costs no more than its length.
fn each<'a>(list: &At<'a>, max: usize, errors: &mut Errors, mut check: impl FnMut(&At<'a>, &mut Errors)) {
    if list.count() > max {
        return list.too_many(errors, max);
    }
    list.items().for_each(|item| check(&item, errors));
}

/// The same for a list whose items are told apart by a key.
fn each_once<'a>(
    list: &At<'a>,
    max: usize,
    key: impl Fn(&At<'a>) -> String,
    errors: &mut Errors,
    check: impl FnMut(&At<'a>, &mut Errors),
) {
    each(list, max, errors, check);
    if list.count() > max {
        return;
    }
    let mut seen = BTreeSet::new();
    for item in list.items() {
        let key = key(&item);
        if !seen.insert(key.clone()) {
            errors.push(FieldError::duplicate(item.path.as_str(), key));
        }
    }
}

fn own_name(item: &At<'_>) -> String {
    item.text_of("name").to_owned()
}

fn own_text(item: &At<'_>) -> String {
    item.text().to_owned()
}

/// A text that must keep a rule, be it there or not.
fn must_be(at: &At<'_>, errors: &mut Errors, problem: impl Fn(&str) -> Option<String>) {
    if let Some(why) = problem(at.text()) {
        errors.push(FieldError::invalid(at.path.as_str(), at.text(), why));
    }
}

fn pool_name(at: &At<'_>, errors: &mut Errors) {
    if !at.present(errors) {
        return;
    }
    if at.text().len() > POOL_NAME_MAX_BYTES {
        errors.push(FieldError::too_long(at.path.as_str(), POOL_NAME_MAX_BYTES));
    }
    for part in at.text().split('/') {
        if let Some(why) = subdomain(part) {
            errors.push(FieldError::invalid(at.path.as_str(), part, why));
        }
    }
}

/// An attribute's or a capacity's name: an identifier, perhaps of somebody's domain.
fn qualified_identifier(name: &str, path: &str, errors: &mut Errors) {
    let part = |text: &str, problem: &str, errors: &mut Errors, check: &dyn Fn(&str, &mut Errors)| match text {
        "" => errors.push(FieldError::invalid(path, "", problem)),
        text => check(text, errors),
    };
    let identifier = |text: &str, errors: &mut Errors| {
        if text.len() > IDENTIFIER_MAX_BYTES {
            errors.push(FieldError::too_long(path, IDENTIFIER_MAX_BYTES));
        }
        let first = |b: u8| b.is_ascii_alphabetic() || b == b'_';
        let good = text.bytes().next().is_some_and(first) && text.bytes().all(|b| first(b) || b.is_ascii_digit());
        if !good {
            errors.push(FieldError::invalid(path, text, IDENTIFIER));
        }
    };
    match name.split('/').collect::<Vec<_>>().as_slice() {
        [own] => identifier(own, errors),
        [domain, own] => {
            part(domain, "the domain must not be empty", errors, &|text, errors| {
                let value = Value::from(text);
                driver_name(&At { path: path.to_owned(), value: &value }, errors);
            });
            part(own, "the name must not be empty", errors, &identifier);
        }
        // Upstream lets the others pass.
        _ => {}
    }
}

fn fully_qualified(at: &At<'_>, errors: &mut Errors) {
    qualified_identifier(at.text(), &at.path, errors);
    if !at.text().contains('/') {
        at.invalid(errors, "a fully qualified name must be a domain and a name separated by a slash");
    }
}

/// The requests of a claim by name, with the alternatives that each has.
struct Requests<'a>(BTreeMap<&'a str, BTreeSet<&'a str>>);

impl<'a> Requests<'a> {
    fn of(devices: &At<'a>) -> Requests<'a> {
        let alternatives = |request: &At<'a>| {
            let names = request.field("firstAvailable").items().map(|one| one.text_of("name"));
            names.collect::<BTreeSet<_>>()
        };
        let requests = devices.field("requests").items();
        Requests(requests.map(|request| (request.text_of("name"), alternatives(&request))).collect())
    }

    fn has(&self, name: &str) -> bool {
        match name.split_once('/') {
            None => self.0.contains_key(name),
            Some((request, alternative)) => self.0.get(request).is_some_and(|all| all.contains(alternative)),
        }
    }

    /// Checks that a text names one of them.
    fn check(&self, at: &At<'_>, errors: &mut Errors) {
        let parts: Vec<&str> = at.text().split('/').collect();
        if parts.len() > 2 {
            return at.invalid(errors, REQUEST_NAME);
        }
        for part in parts {
            if let Some(why) = label(part) {
                errors.push(FieldError::invalid(at.path.as_str(), part, why));
            }
        }
        if !self.has(at.text()) {
            errors.push(FieldError::invalid(at.path.as_str(), at.text(), REQUEST_NAME));
        }
    }
}

/// What a driver alone understands.
fn configuration(at: &At<'_>, errors: &mut Errors) {
    let opaque = at.field("opaque");
    if !opaque.is_set() {
        return opaque.required(errors, "");
    }
    driver_name(&opaque.field("driver"), errors);
    json_object(&opaque.field("parameters"), errors);
}

fn json_object(at: &At<'_>, errors: &mut Errors) {
    if !at.is_set() {
        return at.required(errors, "");
    }
    if at.value.to_string().len() > PARAMETERS_MAX_BYTES {
        errors.push(FieldError::too_long(at.path.as_str(), PARAMETERS_MAX_BYTES));
    } else if !at.value.is_object() {
        errors.push(FieldError::invalid(at.path.as_str(), "<value omitted>", "must be a valid JSON object"));
    }
}

fn toleration(at: &At<'_>, errors: &mut Errors) {
    at.field("key").optional_as(errors, qualified);
    let (operator, value) = (at.field("operator"), at.field("value"));
    match operator.text() {
        "Exists" if !value.text().is_empty() => value.invalid(errors, "must be empty for operator `Exists`"),
        "Exists" => {}
        "Equal" => must_be(&value, errors, label_value),
        "" => operator.required(errors, ""),
        _ => operator.not_supported(errors, &["Equal", "Exists"]),
    }
    let effect = at.field("effect");
    if !effect.text().is_empty() {
        effect.one_of(errors, &EFFECTS);
    }
}

fn taint(at: &At<'_>, errors: &mut Errors) {
    must_be(&at.field("key"), errors, qualified);
    at.field("value").optional_as(errors, label_value);
    at.field("effect").one_of(errors, &EFFECTS);
}

/// What has to happen before a pod is bound to a device, and what would keep it from being.
fn binding_conditions(at: &At<'_>, errors: &mut Errors) {
    let lists = [at.field("bindingConditions"), at.field("bindingFailureConditions")];
    for list in &lists {
        each(list, BINDING_CONDITIONS_MAX, errors, |name, errors| must_be(name, errors, qualified));
    }
    let [wanted, feared] = &lists;
    let all_wanted: BTreeSet<&str> = wanted.items().map(|name| name.text()).collect();
    for list in &lists {
        let mut seen = BTreeSet::new();
        for name in list.items() {
            name.unique(errors, &mut seen);
            if list.path == feared.path && all_wanted.contains(name.text()) {
                name.invalid(errors, "bindingFailureConditions must not overlap with bindingConditions");
            }
        }
    }
    if wanted.count() == 0 && feared.count() > 0 {
        wanted.invalid(errors, "bindingConditions are required to use bindingFailureConditions");
    }
    if feared.count() == 0 && wanted.count() > 0 {
        feared.invalid(errors, "bindingFailureConditions are required to use bindingConditions");
    }
}

fn node_name(at: &At<'_>, errors: &mut Errors) {
    must_be(at, errors, subdomain);
}

/// A DNS label that must be there.
fn required_label(at: &At<'_>, errors: &mut Errors) {
    at.required_as(errors, format::label);
}
