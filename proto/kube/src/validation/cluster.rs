//! The kinds that describe the cluster itself: namespaces, nodes, leases, priorities, addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::at::{At, Errors};
use super::format::{cidr, label_value, qualified, subdomain};
use super::meta::{NameRule, name_problem};
use crate::{FieldError, Object};

const LEASE_STRATEGY: &str = "OldestEmulationVersion";
const USER_PRIORITY_MAX: i64 = 1_000_000_000;
const SYSTEM_PREFIX: &str = "system-";
/// The system's own classes, whose values are known to schedulers and agents.
const SYSTEM_CLASSES: [(&str, i64); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

pub fn namespace(object: &Object, errors: &mut Errors) {
    for finalizer in At::of(object, "spec").field("finalizers").items() {
        let name = finalizer.text();
        if let Some(why) = qualified(name) {
            finalizer.invalid(errors, why);
        } else if name != "kubernetes" && !name.contains('/') {
            finalizer.invalid(errors, "name is neither a standard finalizer name nor is it fully qualified");
        }
    }
}

pub fn node(object: &Object, errors: &mut Errors) {
    let spec = At::of(object, "spec");
    let mut seen = BTreeSet::new();
    for taint in spec.field("taints").items() {
        let key = taint.field("key");
        if let Some(why) = qualified(key.text()) {
            errors.push(FieldError::invalid(key.path.as_str(), key.text(), why));
        }
        taint.field("value").optional_as(errors, label_value);
        taint.field("effect").one_of(errors, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        if !seen.insert((key.text(), taint.text_of("effect"))) {
            errors.push(FieldError::duplicate(taint.path.as_str(), taint.value.clone()));
        }
    }
    spec.field("podCIDR").optional_as(errors, cidr);
    let ranges = spec.field("podCIDRs");
    for range in ranges.items() {
        range.required_as(errors, cidr);
    }
    let single = spec.text_of("podCIDR");
    if let Some(first) = ranges.items().next()
        && !single.is_empty()
        && first.text() != single
    {
        ranges.invalid(errors, "first value must match `podCIDR`");
    }
}

pub fn node_update(new: &Object, old: &Object, errors: &mut Errors) {
    let (spec, before) = (At::of(new, "spec"), At::of(old, "spec"));
    for (field, words) in [("podCIDR", "podCIDRs"), ("providerID", "providerID")] {
        let was = before.text_of(field);
        if !was.is_empty() && spec.text_of(field) != was {
            let name = if field == "podCIDR" { "podCIDR" } else { "providerID" };
            let why = format!("node updates may not change {name} except from \"\" to valid");
            spec.field(words).forbidden(errors, &why);
        }
    }
}

pub fn lease(object: &Object, errors: &mut Errors) {
    let spec = At::of(object, "spec");
    let duration = spec.field("leaseDurationSeconds");
    if duration.int().is_some_and(|seconds| seconds <= 0) {
        duration.invalid(errors, "must be greater than 0");
    }
    spec.field("leaseTransitions").at_least_zero(errors);
    if spec.field("strategy").is_set() {
        lease_strategy(&spec.field("strategy"), errors);
    }
    if !spec.text_of("preferredHolder").is_empty() && spec.text_of("strategy").is_empty() {
        spec.field("preferredHolder").forbidden(errors, "may only be specified if `strategy` is defined");
    }
}

/// How a lease's holder is chosen: by a rule of Kubernetes, or by somebody's own.
fn lease_strategy(at: &At<'_>, errors: &mut Errors) {
    // Upstream names it twice.
    let path = format!("{}.strategy", at.path);
    let text = at.text();
    if !text.contains('/') {
        if text != LEASE_STRATEGY {
            errors.push(FieldError::not_supported(path, text, &[LEASE_STRATEGY]));
        }
    } else if let Some(why) = qualified(text) {
        errors.push(FieldError::invalid(path, text, why));
    }
}

pub fn priority_class(object: &Object, errors: &mut Errors) {
    let (name, value) = (object.name(), At::of(object, "value"));
    let number = value.int().unwrap_or(0);
    if name.starts_with(SYSTEM_PREFIX) {
        let why = match SYSTEM_CLASSES.iter().find(|(known, _)| *known == name) {
            Some((_, known)) if *known == number => None,
            Some((_, known)) => Some(format!("value of {name} PriorityClass must be {known}")),
            None => Some(format!("{name} is not a known system priority class")),
        };
        if let Some(why) = why {
            let reserved = "priority class names with 'system-' prefix are reserved for system use only. error: ";
            errors.push(FieldError::forbidden("metadata.name", format!("{reserved}{why}")));
        }
    } else if number > USER_PRIORITY_MAX {
        let why = format!("maximum allowed value of a user defined priority is {USER_PRIORITY_MAX}");
        value.forbidden(errors, &why);
    }
    At::of(object, "preemptionPolicy").maybe_one_of(errors, &["PreemptLowerPriority", "Never"]);
}

pub fn priority_class_update(new: &Object, old: &Object, errors: &mut Errors) {
    let (value, was) = (At::of(new, "value"), At::of(old, "value"));
    if value.int().unwrap_or(0) != was.int().unwrap_or(0) {
        value.forbidden(errors, "may not be changed in an update.");
    }
    At::of(new, "preemptionPolicy").immutable(errors, &At::of(old, "preemptionPolicy"));
}

pub fn ip_address(object: &Object, errors: &mut Errors) {
    let name = object.name();
    match name.parse::<IpAddr>() {
        Ok(ip) if ip.to_string() == name => {}
        Ok(ip) => {
            let why = format!("must be in canonical form (\"{ip}\")");
            errors.push(FieldError::invalid("metadata.name", name, why));
        }
        Err(_) => {
            let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            errors.push(FieldError::invalid("metadata.name", name, why));
        }
    }
    let parent = At::of(object, "spec").field("parentRef");
    if !parent.is_set() {
        parent.required(errors, "");
        return;
    }
    parent.field("group").optional_as(errors, subdomain);
    for field in ["resource", "name"] {
        parent.field(field).required_as(errors, |text| name_problem(NameRule::PathSegment, text));
    }
    parent.field("namespace").optional_as(errors, |text| name_problem(NameRule::PathSegment, text));
}

pub fn ip_address_update(new: &Object, old: &Object, errors: &mut Errors) {
    At::of(new, "spec").field("parentRef").immutable(errors, &At::of(old, "spec").field("parentRef"));
}
