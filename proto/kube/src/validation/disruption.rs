//! PodDisruptionBudgets.
//!
//! - Either `minAvailable` or `maxUnavailable`, a count that is not negative, or a share of at most 100 percent.
//! - The selector selects labels; `unhealthyPodEvictionPolicy` is of two.
//! - The counts of the status are not negative, and its conditions are as newer kinds have them.

use super::at::{At, Errors};
use super::conditions::conditions;
use super::format::{count_or_percent, percent};
use super::selector;
use crate::Object;

pub fn budget(object: &Object, errors: &mut Errors) {
    let spec = At::of(object, "spec");
    let (available, unavailable) = (spec.field("minAvailable"), spec.field("maxUnavailable"));
    if available.is_set() && unavailable.is_set() {
        spec.invalid(errors, "minAvailable and maxUnavailable cannot be both set");
    }
    for share in [&available, &unavailable].into_iter().filter(|share| share.is_set()) {
        count_or_percent(share, errors);
        if percent(share.text()).is_some_and(|percent| percent > 100) {
            share.invalid(errors, "must not be greater than 100%");
        }
    }
    selector::label_selector(&spec.field("selector"), errors);
    spec.field("unhealthyPodEvictionPolicy").maybe_one_of(errors, &["AlwaysAllow", "IfHealthyBudget"]);
}

pub fn budget_status(object: &Object, errors: &mut Errors) {
    let status = At::of(object, "status");
    conditions(&status.field("conditions"), errors);
    for count in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
        status.field(count).at_least_zero(errors);
    }
}
