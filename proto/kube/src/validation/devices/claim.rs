//! ResourceClaim, ResourceClaimTemplate and DeviceClass.
//!
//! ResourceClaim, and the `spec.spec` of a ResourceClaimTemplate
//! - At most 32 requests with names of their own, 32 constraints and 32 configurations.
//! - A request is `exactly` one, or the `firstAvailable` of at most eight that have names of their own.
//! - Each names a device class, and asks for `All` devices, or for an `ExactCount` of at least one.
//! - At most 32 selectors, each with an expression of at most 10 KiB; at most 16 tolerations.
//! - Constraints and configurations name requests of the claim, each once.
//! - A constraint has one fully qualified attribute; a configuration has a driver and an object of at most 10 KiB.
//! - The spec never changes.
//!
//! ResourceClaimTemplate
//! - Labels and annotations of its claims keep the rules of metadata.
//!
//! DeviceClass
//! - At most 32 selectors and 32 configurations; `extendedResourceName` is the name of an extended resource.

use super::{
    CONFIGS_MAX, REQUESTS_MAX, Requests, configuration, each, each_once, fully_qualified, must_be, own_name, own_text,
    toleration,
};
use crate::validation::at::{At, Errors};
use crate::validation::format::{label, labels, qualified, subdomain};
use crate::{FieldError, Object};

const CONSTRAINTS_MAX: usize = 32;
const SELECTORS_MAX: usize = 32;
const ALTERNATIVES_MAX: usize = 8;
const TOLERATIONS_MAX: usize = 16;
const EXPRESSION_MAX_BYTES: usize = 10 << 10;
const NATIVE_DOMAIN: &str = "kubernetes.io/";
/// What quotas put before the names of what is asked for.
const REQUESTS_PREFIX: &str = "requests.";

pub fn claim(object: &Object, errors: &mut Errors) {
    spec(&At::of(object, "spec"), errors);
}

pub fn template(object: &Object, errors: &mut Errors) {
    let outer = At::of(object, "spec");
    labels(&outer.field("metadata").field("labels"), errors);
    let annotations = outer.field("metadata").field("annotations");
    for key in annotations.map().into_iter().flatten().map(|(key, _)| key) {
        if let Some(why) = qualified(&key.to_lowercase()) {
            errors.push(FieldError::invalid(annotations.path.as_str(), key.as_str(), why));
        }
    }
    spec(&outer.field("spec"), errors);
}

/// Of a claim and of a template.
pub fn update(new: &Object, old: &Object, errors: &mut Errors) {
    At::of(new, "spec").immutable(errors, &At::of(old, "spec"));
}

pub fn class(object: &Object, errors: &mut Errors) {
    let spec = At::of(object, "spec");
    selectors(&spec.field("selectors"), errors);
    each(&spec.field("config"), CONFIGS_MAX, errors, configuration);
    let name = spec.field("extendedResourceName");
    if name.is_set() && !is_extended(name.text()) {
        name.invalid(errors, "must be a valid extended resource name");
    }
}

/// What nodes have beyond what Kubernetes itself counts.
fn is_extended(name: &str) -> bool {
    let foreign = name.contains('/') && !name.contains(NATIVE_DOMAIN) && !name.starts_with(REQUESTS_PREFIX);
    foreign && qualified(&format!("{REQUESTS_PREFIX}{name}")).is_none()
}

fn spec(spec: &At<'_>, errors: &mut Errors) {
    let devices = spec.field("devices");
    let requests = Requests::of(&devices);
    each_once(&devices.field("requests"), REQUESTS_MAX, own_name, errors, request);
    each(&devices.field("constraints"), CONSTRAINTS_MAX, errors, |at, errors| {
        names(at, &requests, errors);
        constraint(at, errors);
    });
    each(&devices.field("config"), CONFIGS_MAX, errors, |at, errors| {
        names(at, &requests, errors);
        configuration(at, errors);
    });
}

pub(super) fn names(at: &At<'_>, requests: &Requests<'_>, errors: &mut Errors) {
    let check = |name: &At<'_>, errors: &mut Errors| requests.check(name, errors);
    each_once(&at.field("requests"), REQUESTS_MAX, own_text, errors, check);
}

fn request(at: &At<'_>, errors: &mut Errors) {
    must_be(&at.field("name"), errors, label);
    let (exactly, first) = (at.get("exactly"), at.field("firstAvailable"));
    match (exactly, first.count()) {
        (None, 0) => at.required(errors, "exactly one of `exactly` or `firstAvailable` is required"),
        (Some(exactly), 0) => device(&exactly, errors),
        (None, _) => each_once(&first, ALTERNATIVES_MAX, own_name, errors, |one, errors| {
            must_be(&one.field("name"), errors, label);
            device(one, errors);
        }),
        (Some(_), _) => {
            let why = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.push(FieldError::invalid(at.path.as_str(), serde_json::Value::Null, why));
        }
    }
}

fn device(at: &At<'_>, errors: &mut Errors) {
    at.field("deviceClassName").required_as(errors, subdomain);
    selectors(&at.field("selectors"), errors);
    let (mode, count) = (at.field("allocationMode"), at.field("count"));
    let number = count.int().unwrap_or(0);
    match mode.text() {
        "All" if number != 0 => count.invalid(errors, "must not be specified when allocationMode is 'All'"),
        "All" => {}
        "ExactCount" if number <= 0 => {
            errors.push(FieldError::invalid(count.path.as_str(), number, "must be greater than zero"));
        }
        "ExactCount" => {}
        other => errors.push(FieldError::not_supported(mode.path.as_str(), other, &["All", "ExactCount"])),
    }
    each(&at.field("tolerations"), TOLERATIONS_MAX, errors, toleration);
}

fn selectors(list: &At<'_>, errors: &mut Errors) {
    each(list, SELECTORS_MAX, errors, |selector, errors| {
        let cel = selector.field("cel");
        if !cel.is_set() {
            return cel.required(errors, "");
        }
        let expression = cel.field("expression");
        if expression.present(errors) && expression.text().len() > EXPRESSION_MAX_BYTES {
            errors.push(FieldError::too_long(expression.path.as_str(), EXPRESSION_MAX_BYTES));
        }
    });
}

fn constraint(at: &At<'_>, errors: &mut Errors) {
    match at.get("matchAttribute").or_else(|| at.get("distinctAttribute")) {
        Some(attribute) => fully_qualified(&attribute, errors),
        None => {
            let why =
                "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
            at.required(errors, why);
        }
    }
}
