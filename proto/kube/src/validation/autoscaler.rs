//! HorizontalPodAutoscalers.

use super::at::{At, Errors};
use super::meta::{NameRule, name_problem};
use crate::Object;
use crate::quantity::Quantity;

const PERIOD_MAX_SECONDS: i64 = 1800;
const WINDOW_MAX_SECONDS: i64 = 3600;
/// Types of metrics, and the field that tells more of each.
const SOURCES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];
const EITHER: &str = "must set either a target raw value or a target utilization";
const NOT_BOTH: &str = "may not set both a target raw value and a target utilization";

pub fn autoscaler(object: &Object, errors: &mut Errors) {
    let spec = At::of(object, "spec");
    let (min, max) = (spec.field("minReplicas"), spec.field("maxReplicas"));
    let most = max.int().unwrap_or(0);
    if min.int().is_some_and(|min| min < 1) {
        min.invalid(errors, "must be greater than or equal to 1");
    }
    if most < 1 {
        max.invalid(errors, "must be greater than 0");
    }
    if min.int().is_some_and(|min| most < min) {
        max.invalid(errors, "must be greater than or equal to `minReplicas`");
    }
    reference(&spec.field("scaleTargetRef"), errors);
    for metric in spec.field("metrics").items() {
        metric_spec(&metric, errors);
    }
    for side in ["scaleUp", "scaleDown"] {
        if let Some(rules) = spec.field("behavior").get(side) {
            scaling_rules(&rules, errors);
        }
    }
}

fn path_segment(name: &str) -> Option<String> {
    name_problem(NameRule::PathSegment, name)
}

/// A kind and a name, each fit to stand in a path.
fn reference(at: &At<'_>, errors: &mut Errors) {
    for field in ["kind", "name"] {
        at.field(field).required_as(errors, path_segment);
    }
}

fn metric_spec(at: &At<'_>, errors: &mut Errors) {
    let kind = at.field("type");
    if kind.text().is_empty() {
        kind.required(errors, "must specify a metric source type");
    }
    let wanted = SOURCES.iter().find(|(name, _)| *name == kind.text()).map(|(_, field)| *field);
    if wanted.is_none() {
        kind.not_supported(errors, &SOURCES.map(|(name, _)| name));
    }
    let mut first = true;
    for field in ["object", "external", "pods", "resource", "containerResource"] {
        let Some(source) = at.get(field) else { continue };
        if std::mem::take(&mut first) {
            metric_source(field, &source, errors);
        }
    }
    if let Some(wanted) = wanted
        && at.get(wanted).is_none()
    {
        at.field(wanted).required(errors, "must populate information for the given metric source");
    }
    let there: Vec<_> = SOURCES.iter().filter(|(_, field)| at.get(field).is_some()).collect();
    for (_, field) in there.iter().filter(|(_, field)| there.len() > 1 && Some(*field) != wanted) {
        at.field(field).forbidden(errors, "must populate the given metric source only");
    }
}

fn metric_source(kind: &str, at: &At<'_>, errors: &mut Errors) {
    let of_resource = matches!(kind, "resource" | "containerResource");
    if of_resource {
        needed(&at.field("name"), errors, "must specify a resource name");
        if kind == "containerResource" {
            needed(&at.field("container"), errors, "must specify a container");
        }
    } else {
        if kind == "object" {
            reference(&at.field("describedObject"), errors);
        }
        let name = at.field("metric").field("name");
        needed(&name, errors, "must specify a metric name");
        name.optional_as(errors, path_segment);
    }
    let target = at.field("target");
    metric_target(&target, errors);
    let (value, average, share) = (target.get("value"), target.get("averageValue"), target.get("averageUtilization"));
    match (kind, value, average, share) {
        ("object", None, None, _) => {
            target.field("averageValue").required(errors, "must set either a target value or averageValue");
        }
        ("external", None, None, _) => {
            let why = "must set either a target value for metric or a per-pod target";
            target.field("averageValue").required(errors, why);
        }
        ("external", Some(value), Some(_), _) => {
            value.forbidden(errors, "may not set both a target value for metric and a per-pod target");
        }
        ("pods", _, None, _) => {
            target.field("averageValue").required(errors, "must specify a positive target averageValue");
        }
        (_, _, None, None) if of_resource => target.field("averageUtilization").required(errors, EITHER),
        (_, _, Some(average), Some(_)) if of_resource => average.forbidden(errors, NOT_BOTH),
        _ => {}
    }
}

fn metric_target(at: &At<'_>, errors: &mut Errors) {
    let kind = at.field("type");
    if kind.text().is_empty() {
        kind.required(errors, "must specify a metric target type");
    } else if !["Utilization", "Value", "AverageValue"].contains(&kind.text()) {
        kind.invalid(errors, "must be either Utilization, Value, or AverageValue");
    }
    for field in ["value", "averageValue"] {
        let amount = at.field(field);
        if quantity(&amount).is_some_and(|amount| amount <= Quantity::ZERO) {
            amount.invalid(errors, "must be positive");
        }
    }
    let share = at.field("averageUtilization");
    if share.int().is_some_and(|share| share < 1) {
        share.invalid(errors, "must be greater than 0");
    }
}

fn scaling_rules(at: &At<'_>, errors: &mut Errors) {
    let window = at.field("stabilizationWindowSeconds");
    match window.int().unwrap_or(0) {
        ..0 => window.invalid(errors, "must be greater than or equal to zero"),
        seconds if seconds > WINDOW_MAX_SECONDS => {
            window.invalid(errors, format!("must be less than or equal to {WINDOW_MAX_SECONDS}"));
        }
        _ => {}
    }
    at.field("selectPolicy").maybe_one_of(errors, &["Disabled", "Max", "Min"]);
    let policies = at.field("policies");
    if policies.count() == 0 {
        policies.required(errors, "must specify at least one Policy");
    }
    for policy in policies.items() {
        let (kind, value, period) = (policy.field("type"), policy.field("value"), policy.field("periodSeconds"));
        if !["Percent", "Pods"].contains(&kind.text()) {
            kind.not_supported(errors, &["Percent", "Pods"]);
        }
        for number in [&value, &period] {
            if number.int().unwrap_or(0) <= 0 {
                number.invalid(errors, "must be greater than zero");
            }
        }
        if period.int().is_some_and(|seconds| seconds > PERIOD_MAX_SECONDS) {
            period.invalid(errors, format!("must be less than or equal to {PERIOD_MAX_SECONDS}"));
        }
    }
    let tolerance = at.field("tolerance");
    if quantity(&tolerance).is_some_and(|share| share.is_negative()) {
        tolerance.invalid(errors, "must be greater than or equal to 0");
    }
}

fn needed(at: &At<'_>, errors: &mut Errors, why: &str) {
    if at.text().is_empty() {
        at.required(errors, why);
    }
}

fn quantity(at: &At<'_>) -> Option<Quantity> {
    crate::pod::resources::quantity(at.value)
}
