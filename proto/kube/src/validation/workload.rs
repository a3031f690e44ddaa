//! Deployments and ReplicaSets.

use serde_json::Value;

use super::at::{At, Errors};
use super::format::{count_or_percent, percent};
use super::{pod, selector};
use crate::selector::LabelSelector;
use crate::{FieldError, Object};

pub fn deployment(object: &Object, errors: &mut Errors) {
    let spec = At::of(object, "spec");
    common(&spec, errors);
    strategy(&spec.field("strategy"), errors);
    spec.field("revisionHistoryLimit").at_least_zero(errors);
    let deadline = spec.field("progressDeadlineSeconds");
    deadline.at_least_zero(errors);
    if deadline.int().is_some_and(|deadline| deadline <= spec.int_of("minReadySeconds").unwrap_or(0)) {
        deadline.invalid(errors, "must be greater than minReadySeconds");
    }
}

pub fn replica_set(object: &Object, errors: &mut Errors) {
    common(&At::of(object, "spec"), errors);
}

/// A workload's selector says which pods are its own, for ever.
pub fn update(new: &Object, old: &Object, errors: &mut Errors) {
    At::of(new, "spec").field("selector").immutable(errors, &At::of(old, "spec").field("selector"));
}

fn common(spec: &At<'_>, errors: &mut Errors) {
    spec.field("replicas").at_least_zero(errors);
    spec.field("minReadySeconds").at_least_zero(errors);
    let selector = spec.field("selector");
    if selector.is_set() {
        selector::label_selector(&selector, errors);
        if selector::is_empty(&selector) {
            selector.invalid(errors, "empty selector is invalid for deployment");
        }
    } else {
        selector.required(errors, "");
    }
    template(&spec.field("template"), &selector, errors);
}

fn template(at: &At<'_>, selector: &At<'_>, errors: &mut Errors) {
    if !at.is_set() {
        at.required(errors, "");
        return;
    }
    if selector.is_set() && !selector::is_empty(selector) {
        let labels = at.field("metadata").field("labels");
        match LabelSelector::from_value(selector.value) {
            Ok(wanted) if !wanted.matches(labels.map()) => {
                let value = if labels.is_set() { labels.value.clone() } else { Value::Object(Default::default()) };
                let why = "`selector` does not match template `labels`";
                errors.push(FieldError::invalid(labels.path.as_str(), value, why));
            }
            Ok(_) => {}
            Err(_) => selector.invalid(errors, "invalid label selector"),
        }
    }
    pod::template(at, errors);
    let spec = at.field("spec");
    let restart = spec.field("restartPolicy");
    if !matches!(restart.text(), "" | "Always") {
        restart.not_supported(errors, &["Always"]);
    }
    if spec.field("activeDeadlineSeconds").is_set() {
        let why = "activeDeadlineSeconds in ReplicaSet is not Supported";
        spec.field("activeDeadlineSeconds").forbidden(errors, why);
    }
}

fn strategy(at: &At<'_>, errors: &mut Errors) {
    let rolling = at.field("rollingUpdate");
    match at.text_of("type") {
        "Recreate" => {
            if rolling.is_set() {
                rolling.forbidden(errors, "may not be specified when strategy `type` is 'Recreate'");
            }
        }
        "RollingUpdate" => {
            if rolling.is_set() {
                rolling_update(&rolling, errors);
            } else {
                rolling.required(errors, "this should be defaulted and never be nil");
            }
        }
        kind => {
            let words = ["Recreate", "RollingUpdate"];
            errors.push(FieldError::not_supported(at.field("type").path, kind, &words));
        }
    }
}

fn rolling_update(at: &At<'_>, errors: &mut Errors) {
    let (unavailable, surge) = (at.field("maxUnavailable"), at.field("maxSurge"));
    count_or_percent(&unavailable, errors);
    count_or_percent(&surge, errors);
    let zero = |at: &At<'_>| match at.value {
        Value::String(text) => percent(text) == Some(0),
        value => value.as_i64().unwrap_or(0) == 0,
    };
    if zero(&unavailable) && zero(&surge) {
        unavailable.invalid(errors, "may not be 0 when `maxSurge` is 0");
    }
    if percent(unavailable.text()).is_some_and(|percent| percent > 100) {
        unavailable.invalid(errors, "must not be greater than 100%");
    }
}
