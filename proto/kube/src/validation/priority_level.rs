//! PriorityLevelConfiguration (flowcontrol.apiserver.k8s.io/v1).
//!
//! - `type` is `Exempt` for the level `exempt` and for no other, which are `Limited`; only what the type asks for is set.
//! - Shares are not negative, what is lent is 0 to 100 percent, what is borrowed not negative.
//! - A limited level rejects, or queues in 1 to 10⁷ queues of a length of at least 1, of which each flow has a hand of at
//!   least 1, not larger than there are queues, and small enough that 60 bits of a hash can deal it.
//! - The spec of a mandatory level is as it is (what is `exempt` in the level of that name may change); conditions have a type
//!   each, once.

use super::at::{At, Errors};
use super::flow_schema::conditions;
use crate::{FieldError, Object, flow_control, resource};

const EXEMPT: &str = "exempt";
const QUEUES_MAX: i64 = 10_000_000;
const HASH_BITS_MAX: f64 = 60.0;
const PRESERVE_ZERO: &str = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares";

pub fn level(object: &Object, errors: &mut Errors) {
    if object.annotation(PRESERVE_ZERO).is_some() {
        let why = format!("annotation '{PRESERVE_ZERO}' is forbidden");
        errors.push(FieldError::forbidden("metadata.annotations", why));
    }
    let spec = At::of(object, "spec");
    let (kind, limited, exempt) = (spec.field("type"), spec.field("limited"), spec.field("exempt"));
    if (object.name() == EXEMPT) != (kind.text() == "Exempt") {
        let why = "must be 'Exempt' if and only if `name` is 'exempt'";
        errors.push(FieldError::invalid(kind.path.as_str(), kind.text(), why));
    }
    match kind.text() {
        "Exempt" => {
            if limited.is_set() {
                limited.forbidden(errors, "must be nil if the type is not Limited");
            }
            shares(&exempt, errors);
        }
        "Limited" => {
            if exempt.is_set() {
                exempt.forbidden(errors, "must be nil if the type is Limited");
            }
            if limited.is_set() {
                limits(&limited, errors);
            } else {
                limited.required(errors, "must not be empty when type is Limited");
            }
        }
        _ => kind.one_of(errors, &["Exempt", "Limited"]),
    }
    fixed(object, errors);
    conditions(object, errors);
}

fn fixed(object: &Object, errors: &mut Errors) {
    let Some(mut wanted) = flow_control::fixed_spec(&resource::PRIORITY_LEVEL_CONFIGURATION, object.name()) else {
        return;
    };
    let spec = At::of(object, "spec");
    let open = object.name() == EXEMPT;
    let mut own = spec.value.clone();
    if open {
        for spec in [&mut wanted, &mut own] {
            spec.as_object_mut().map(|spec| spec.remove("exempt"));
        }
    }
    let (name, but) = (object.name(), if open { " except the 'spec.exempt' field" } else { "" });
    if wanted != own {
        spec.invalid(errors, format!("spec of '{name}'{but} must equal the fixed value"));
    }
}

fn shares(at: &At<'_>, errors: &mut Errors) {
    let (shares, lent) = (at.field("nominalConcurrencyShares"), at.field("lendablePercent"));
    if shares.int().is_some_and(|shares| shares < 0) {
        shares.invalid(errors, "must be a non-negative integer");
    }
    lent.within(errors, 0, 100);
}

fn limits(at: &At<'_>, errors: &mut Errors) {
    shares(at, errors);
    let borrowed = at.field("borrowingLimitPercent");
    if borrowed.int().is_some_and(|percent| percent < 0) {
        borrowed.invalid(errors, "if specified, must be a non-negative integer");
    }
    let response = at.field("limitResponse");
    let (kind, queuing) = (response.field("type"), response.field("queuing"));
    match (kind.text(), queuing.is_set()) {
        ("Reject", true) => queuing.forbidden(errors, "must be nil if limited.limitResponse.type is not Limited"),
        ("Queue", false) => queuing.required(errors, "must not be empty if limited.limitResponse.type is Limited"),
        ("Queue", true) => queues(&queuing, errors),
        ("Reject", false) => {}
        _ => kind.one_of(errors, &["Queue", "Reject"]),
    }
}

fn queues(at: &At<'_>, errors: &mut Errors) {
    let number = |field: &str| at.int_of(field).unwrap_or(0);
    let mut wrong = |field: &str, why: String| {
        let at = at.field(field);
        errors.push(FieldError::invalid(at.path.as_str(), at.int().unwrap_or(0), why));
    };
    let (queues, hand) = (number("queues"), number("handSize"));
    if number("queueLengthLimit") <= 0 {
        wrong("queueLengthLimit", "must be positive".to_owned());
    }
    if queues <= 0 {
        wrong("queues", "must be positive".to_owned());
    } else if queues > QUEUES_MAX {
        wrong("queues", format!("must not be greater than {QUEUES_MAX}"));
    }
    let bits = ((queues.max(1) as f64).log2() * hand as f64).ceil();
    if hand <= 0 {
        wrong("handSize", "must be positive".to_owned());
    } else if hand > queues {
        wrong("handSize", format!("should not be greater than queues ({queues})"));
    } else if bits > HASH_BITS_MAX {
        let why = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS_MAX}"
        );
        wrong("handSize", why);
    }
}
