//! ResourceSlice.
//!
//! - `driver` is the name of a driver, `pool.name` one of subdomains between slashes; a pool has a slice at least, and its
//!   generation is not negative. Driver, pool and node never change.
//! - Exactly one of `nodeName`, `nodeSelector` (of one term), `allNodes` and `perDeviceNodeSelection`; with the last, each
//!   device has exactly one of the first three, and without it none.
//! - Either devices or shared counters. At most 128 devices (64 where one has taints, uses counters or has lists of values)
//!   and eight sets of counters, with names of their own.
//! - A device has at most 32 attributes and capacities, whose names are identifiers, perhaps of a domain; an attribute has one
//!   value, of at most 64 bytes, and a version is a semantic one.
//! - A capacity that is shared may bound what is asked of it: by values in order, the default among them, or by a range with
//!   steps, the default within it.
//! - At most 16 taints, two sets of counters that are used, and 32 counters in a set.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    binding_conditions, each, each_once, must_be, node_name, own_name, pool_name, qualified_identifier, required_label,
    taint,
};
use crate::pod::resources::quantity;
use crate::quantity::Quantity;
use crate::validation::at::{At, Errors};
use crate::validation::format::{driver_name, label};
use crate::validation::selector::node_selector;
use crate::{FieldError, Object};

const DEVICES_MAX: usize = 128;
const ADVANCED_DEVICES_MAX: usize = 64;
const COUNTER_SETS_MAX: usize = 8;
const COUNTERS_MAX: usize = 32;
const CONSUMED_SETS_MAX: usize = 2;
const PROPERTIES_MAX: usize = 32;
const TAINTS_MAX: usize = 16;
const VALUE_MAX_BYTES: usize = 64;
const REQUEST_VALUES_MAX: usize = 10;
/// The values that an attribute may have, and the lists of them.
const VALUES: [&str; 8] = ["bool", "int", "string", "version", "bools", "ints", "strings", "versions"];
const VERSION: &str = "must be a string compatible with semver.org spec 2.0.0";

pub fn slice(object: &Object, errors: &mut Errors) {
    let spec = At::of(object, "spec");
    driver_name(&spec.field("driver"), errors);
    let pool = spec.field("pool");
    pool_name(&pool.field("name"), errors);
    if pool.int_of("resourceSliceCount").unwrap_or(0) <= 0 {
        pool.field("resourceSliceCount").invalid(errors, "must be greater than zero");
    }
    if pool.int_of("generation").unwrap_or(0) < 0 {
        pool.field("generation").invalid(errors, "must be greater than or equal to zero");
    }
    nodes(&spec, errors);
    let (devices, counters) = (spec.field("devices"), spec.field("sharedCounters"));
    if devices.is_set() && counters.is_set() {
        let why = "only one of `sharedCounters` or `devices` is allowed";
        errors.push(FieldError::invalid(spec.path.as_str(), "", why));
    }
    let max = if devices.items().any(|device| is_advanced(&device)) { ADVANCED_DEVICES_MAX } else { DEVICES_MAX };
    let per_device = spec.is_true("perDeviceNodeSelection");
    each_once(&devices, max, own_name, errors, |at, errors| device(at, per_device, errors));
    each_once(&counters, COUNTER_SETS_MAX, own_name, errors, |set, errors| {
        required_label(&set.field("name"), errors);
        counters_of(&set.field("counters"), errors);
    });
}

pub fn update(new: &Object, old: &Object, errors: &mut Errors) {
    let (spec, before) = (At::of(new, "spec"), At::of(old, "spec"));
    spec.field("pool").field("name").immutable(errors, &before.field("pool").field("name"));
    for field in ["driver", "nodeName"] {
        spec.field(field).immutable(errors, &before.field(field));
    }
}

fn is_advanced(device: &At<'_>) -> bool {
    let listed = |attribute: &Value| VALUES.iter().any(|kind| attribute[*kind].is_array());
    device.field("taints").count() > 0
        || device.field("consumesCounters").count() > 0
        || device.field("attributes").map().is_some_and(|map| map.values().any(listed))
}

/// A choice that is made by setting it to true.
fn chosen(at: &At<'_>, field: &str, errors: &mut Errors) -> bool {
    let choice = at.field(field);
    match choice.value {
        Value::Bool(false) => {
            choice.invalid(errors, "must be either unset or set to true");
            false
        }
        value => !value.is_null(),
    }
}

fn nodes(spec: &At<'_>, errors: &mut Errors) {
    let mut set = Vec::new();
    if let Some(name) = spec.get("nodeName") {
        if name.text().is_empty() {
            name.invalid(errors, "must be either unset or set to a non-empty string");
        } else {
            set.push("`nodeName`");
            node_name(&name, errors);
        }
    }
    if let Some(selector) = spec.get("nodeSelector") {
        set.push("`nodeSelector`");
        node_selector(&selector, errors);
        let terms = selector.field("nodeSelectorTerms");
        if terms.count() != 1 {
            terms.invalid(errors, "must have exactly one node selector term");
        }
    }
    if chosen(spec, "allNodes", errors) {
        set.push("`allNodes`");
    }
    if chosen(spec, "perDeviceNodeSelection", errors) {
        set.push("`perDeviceNodeSelection`");
    }
    let one = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match set.len() {
        0 => spec.required(errors, one),
        1 => {}
        _ => {
            let value = format!("{{{}}}", set.join(", "));
            errors.push(FieldError::invalid(spec.path.as_str(), value, format!("{one}, but multiple fields are set")));
        }
    }
}

fn device(at: &At<'_>, per_device: bool, errors: &mut Errors) {
    must_be(&at.field("name"), errors, label);
    let (attributes, capacity) = (at.field("attributes"), at.field("capacity"));
    let count = [&attributes, &capacity].iter().filter_map(|map| map.map()).map(|map| map.len()).sum::<usize>();
    if count > PROPERTIES_MAX {
        let why = format!("the total number of attributes and capacities must not exceed {PROPERTIES_MAX}");
        errors.push(FieldError::invalid(at.path.as_str(), count, why));
    }
    for (name, value) in attributes.entries() {
        qualified_identifier(name, &value.path, errors);
        attribute(&value, errors);
    }
    let shared = at.is_true("allowMultipleAllocations");
    for (name, value) in capacity.entries() {
        qualified_identifier(name, &value.path, errors);
        match value.get("requestPolicy") {
            Some(policy) if shared => request_policy(&policy, &value.field("value"), errors),
            Some(policy) => policy.forbidden(errors, "allowMultipleAllocations must be true"),
            None => {}
        }
    }
    each(&at.field("taints"), TAINTS_MAX, errors, taint);
    let used = at.field("consumesCounters");
    each_once(
        &used,
        CONSUMED_SETS_MAX,
        |set| set.text_of("counterSet").to_owned(),
        errors,
        |set, errors| {
            required_label(&set.field("counterSet"), errors);
            counters_of(&set.field("counters"), errors);
        },
    );
    device_nodes(at, per_device, errors);
    binding_conditions(at, errors);
}

fn device_nodes(at: &At<'_>, per_device: bool, errors: &mut Errors) {
    if !per_device {
        if ["nodeName", "nodeSelector", "allNodes"].iter().any(|field| at.field(field).is_set()) {
            let why = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true \
                       in the ResourceSlice spec";
            errors.push(FieldError::invalid(at.path.as_str(), Value::Null, why));
        }
        return;
    }
    let mut set = Vec::new();
    if let Some(name) = at.get("nodeName") {
        if name.text().is_empty() {
            name.invalid(errors, "must not be empty");
        } else {
            set.push("`nodeName`");
            node_name(&name, errors);
        }
    }
    if let Some(selector) = at.get("nodeSelector") {
        set.push("`nodeSelector`");
        node_selector(&selector, errors);
    }
    if chosen(at, "allNodes", errors) {
        set.push("`allNodes`");
    }
    let one = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to \
               true in the ResourceSlice spec";
    match set.len() {
        0 => at.required(errors, one),
        1 => {}
        _ => errors.push(FieldError::invalid(at.path.as_str(), format!("{{{}}}", set.join(", ")), one)),
    }
}

fn counters_of(counters: &At<'_>, errors: &mut Errors) {
    let count = counters.map().map_or(0, |map| map.len());
    if count == 0 {
        return counters.required(errors, "");
    }
    if count > COUNTERS_MAX {
        return errors.push(FieldError::too_many(counters.path.as_str(), count, COUNTERS_MAX));
    }
    for (name, at) in counters.entries() {
        if let Some(why) = label(name) {
            errors.push(FieldError::invalid(at.path.as_str(), name, why));
        }
    }
}

fn attribute(at: &At<'_>, errors: &mut Errors) {
    let set = VALUES.iter().filter(|kind| at.field(kind).is_set()).count();
    if let Some(text) = at.get("string") {
        bounded(&text, errors);
    }
    if let Some(version) = at.get("version") {
        must_be(&version, errors, |text| (!is_semantic(text)).then(|| VERSION.to_owned()));
        bounded(&version, errors);
    }
    if set != 1 {
        let value = if set == 0 { Value::from("") } else { at.value.clone() };
        errors.push(FieldError::invalid(at.path.as_str(), value, "exactly one value must be specified"));
    }
}

fn bounded(text: &At<'_>, errors: &mut Errors) {
    if text.text().len() > VALUE_MAX_BYTES {
        errors.push(FieldError::too_long(text.path.as_str(), VALUE_MAX_BYTES));
    }
}

/// `1.2.3-rc.1+build`, by semver.org 2.0.0.
fn is_semantic(text: &str) -> bool {
    let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
    let (core, pre) = text.split_once('-').map_or((text, None), |(core, pre)| (core, Some(pre)));
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let number = |part: &str| digits(part) && (part == "0" || !part.starts_with('0'));
    let numbers: Vec<&str> = core.split('.').collect();
    numbers.len() == 3
        && numbers.into_iter().all(number)
        && pre.is_none_or(|pre| pre.split('.').all(|part| word(part) && (!digits(part) || number(part))))
        && build.is_none_or(|build| build.split('.').all(word))
}

/// What may be asked for of a capacity that several share.
fn request_policy(policy: &At<'_>, capacity: &At<'_>, errors: &mut Errors) {
    let (values, range) = (policy.field("validValues"), policy.field("validRange"));
    let default = policy.field("default");
    match (values.count() > 0, range.is_set()) {
        (true, true) => policy.forbidden(
            errors,
            "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time",
        ),
        (true, false) if !default.is_set() => default.required(errors, "required when validValues is defined"),
        (false, true) if !default.is_set() => default.required(errors, "required when validRange is defined"),
        (true, false) => among(&default, &values, capacity, errors),
        (false, true) => within(&default, &range, capacity, errors),
        (false, false) => {}
    }
}

fn amount(at: &At<'_>) -> Quantity {
    quantity(at.value).unwrap_or(Quantity::ZERO)
}

fn among(default: &At<'_>, values: &At<'_>, capacity: &At<'_>, errors: &mut Errors) {
    let listed: Vec<At<'_>> = values.items().take(REQUEST_VALUES_MAX + 1).collect();
    for pair in listed.windows(2) {
        if amount(&pair[0]) > amount(&pair[1]) {
            pair[1].invalid(errors, "values must be sorted in ascending order");
        }
    }
    let whole = |value: &At<'_>| amount(value).value().to_string();
    each_once(values, REQUEST_VALUES_MAX, whole, errors, |value, errors| {
        if amount(value) > amount(capacity) {
            value.invalid(errors, format!("option is larger than capacity value: {}", capacity.text()));
        }
    });
    if !listed.iter().any(|value| amount(value) == amount(default)) {
        let why = "default value is not valid according to the requestPolicy";
        errors.push(FieldError::invalid(values.path.as_str(), default.value.clone(), why));
    }
}

fn within(default: &At<'_>, range: &At<'_>, capacity: &At<'_>, errors: &mut Errors) {
    let (min, max, step) = (range.field("min"), range.field("max"), range.field("step"));
    if !min.is_set() {
        return min.required(errors, "required when validRange is defined");
    }
    let wrong =
        |at: &At<'_>, value: &At<'_>, why: String| FieldError::invalid(at.path.as_str(), value.value.clone(), why);
    if amount(&min) > amount(capacity) {
        errors.push(wrong(&min, &min, format!("min is larger than capacity value: {}", capacity.text())));
    }
    if amount(default) < amount(&min) {
        errors.push(wrong(&min, default, format!("default is less than min: {}", min.text())));
    }
    if max.is_set() {
        for (value, limit, why) in [
            (&min, &max, "min is larger than max"),
            (&max, capacity, "max is larger than capacity value"),
            (default, &max, "default is more than max"),
        ] {
            if amount(value) > amount(limit) {
                errors.push(wrong(&max, value, format!("{why}: {}", limit.text())));
            }
        }
    }
    if !step.is_set() {
        return;
    }
    let one = amount(&min).add(amount(&step));
    if one > amount(capacity) {
        let why = format!("one step {one} is larger than capacity value: {}", capacity.text());
        errors.push(wrong(&step, &step, why));
    }
    let (from, by) = (amount(&min).value(), amount(&step).value());
    let mut fits = BTreeSet::new();
    for value in [default, &max].into_iter().filter(|value| value.is_set()) {
        // No step at all reaches nothing but where it begins.
        let distance = amount(value).value().saturating_sub(from);
        let reached = if by == 0 { distance == 0 } else { distance.wrapping_rem(by) == 0 };
        if !reached && fits.insert(value.path.clone()) {
            let why = format!("value is not a multiple of a given step ({}) from ({})", step.text(), min.text());
            errors.push(wrong(&step, value, why));
        }
    }
}
