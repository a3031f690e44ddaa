//! What containers and pods ask for: requests, limits, claims.

use std::collections::BTreeSet;

use crate::quantity::Quantity;

use super::super::at::{At, Errors};
use super::super::format::qualified;
use crate::FieldError;

const NATIVE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
const HUGE_PAGES: &str = "hugepages-";
const NOT_STANDARD: &str = "must be a standard resource for containers";

/// The `resources` of one container; `claims` are the names of the pod's resource claims.
pub fn resources(at: &At<'_>, claims: &BTreeSet<&str>, errors: &mut Errors) {
    let (limits, requests) = (at.field("limits"), at.field("requests"));
    for list in [&limits, &requests] {
        for (name, amount) in list.entries() {
            quantity(name, &amount, errors);
        }
    }
    for (name, amount) in requests.entries() {
        compare(name, &requests, &amount, &limits, errors);
    }
    for claim in at.field("claims").items() {
        let name = claim.field("name");
        if name.present(errors) && !claims.contains(name.text()) {
            errors.push(FieldError::not_found(name.path.as_str(), name.text()));
        }
    }
}

/// The requests and limits of a pod as a whole.
pub fn pod_level(at: &At<'_>, errors: &mut Errors) {
    for list in ["limits", "requests"] {
        for (name, amount) in at.field(list).entries() {
            if name != "cpu" && name != "memory" && !name.starts_with(HUGE_PAGES) {
                errors.push(FieldError::not_supported(amount.path.as_str(), name, &["cpu", "hugepages-", "memory"]));
            }
            quantity(name, &amount, errors);
        }
    }
    let requests = at.field("requests");
    for (name, amount) in requests.entries() {
        compare(name, &requests, &amount, &at.field("limits"), errors);
    }
}

fn is_native(name: &str) -> bool {
    NATIVE.contains(&name) || name.starts_with(HUGE_PAGES)
}

/// Whether nodes may promise more of it than they have.
fn is_shared(name: &str) -> bool {
    NATIVE.contains(&name)
}

fn quantity(name: &str, amount: &At<'_>, errors: &mut Errors) {
    if let Some(why) = qualified(name) {
        errors.push(FieldError::invalid(amount.path.as_str(), name, why));
    } else if !is_native(name) && !name.contains('/') {
        errors.push(FieldError::invalid(amount.path.as_str(), name, NOT_STANDARD));
    }
    let Ok(value) = Quantity::parse(amount.text()) else { return };
    if value.is_negative() {
        amount.invalid(errors, "must be greater than or equal to 0");
    }
    if !is_shared(name) && Quantity::from_i64(value.value(), value.format()) != value {
        amount.invalid(errors, "must be an integer");
    }
}

fn compare(name: &str, requests: &At<'_>, amount: &At<'_>, limits: &At<'_>, errors: &mut Errors) {
    let Ok(request) = Quantity::parse(amount.text()) else { return };
    let limit_at = limits.field(name);
    let Ok(limit) = Quantity::parse(limit_at.text()) else {
        if !is_shared(name) {
            limits.required(errors, "Limit must be set for non overcommitable resources");
        }
        return;
    };
    let why = if !is_shared(name) && request != limit {
        "must be equal to"
    } else if request > limit {
        "must be less than or equal to"
    } else {
        return;
    };
    let why = format!("{why} {name} limit of {limit}");
    errors.push(FieldError::invalid(requests.path.as_str(), request.to_string(), why));
}
