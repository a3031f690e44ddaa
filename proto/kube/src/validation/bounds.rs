//! What bounds a namespace: LimitRanges and ResourceQuotas.

use std::collections::BTreeSet;

use serde_json::Value;

use super::at::{At, Errors};
use super::format::qualified;
use crate::quantity::Quantity;
use crate::{FieldError, Object};

const HUGE_PAGES: &str = "hugepages-";
const LIMIT_TYPES: [&str; 3] = ["Pod", "Container", "PersistentVolumeClaim"];
const CONTAINER_RESOURCES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// What a quota may bound without naming a group.
const QUOTA_RESOURCES: [&str; 19] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];
/// What a scope of pods may be about.
const SCOPED_RESOURCES: [&str; 7] =
    ["pods", "cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];

fn is_quota_resource(name: &str) -> bool {
    let huge = name.strip_prefix("requests.").unwrap_or(name).starts_with(HUGE_PAGES);
    QUOTA_RESOURCES.contains(&name) || huge
}

/// A sum of a time of processors, of bytes, or of things that only come whole.
fn comes_whole(name: &str) -> bool {
    const PARTS: [&str; 3] = ["cpu", "memory", "storage"];
    !PARTS
        .iter()
        .any(|part| name == *part || name.ends_with(&format!(".{part}")) || name.ends_with("ephemeral-storage"))
}

pub fn quota(object: &Object, errors: &mut Errors) {
    let spec = At::of(object, "spec");
    let hard = spec.field("hard");
    for (name, amount) in hard.entries() {
        if let Some(why) = qualified(name) {
            errors.push(FieldError::invalid(amount.path.as_str(), name, why));
        } else if !name.contains('/') && !is_quota_resource(name) {
            errors.push(FieldError::invalid(amount.path.as_str(), name, "must be a standard resource for quotas"));
        }
        let Ok(value) = Quantity::parse(amount.text()) else { continue };
        if value.is_negative() {
            amount.invalid(errors, "must be greater than or equal to 0");
        }
        if comes_whole(name) && Quantity::from_i64(value.value(), value.format()) != value {
            amount.invalid(errors, "must be an integer");
        }
    }
    let named: BTreeSet<&str> = hard.map().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    scopes(&spec.field("scopes"), &named, errors);
    for term in spec.field("scopeSelector").field("matchExpressions").items() {
        scope_term(&term, &named, errors);
    }
}

fn is_about(scope: &str, resource: &str) -> bool {
    let plain = is_quota_resource(resource);
    match scope {
        "BestEffort" => !plain || resource == "pods",
        "VolumeAttributesClass" => !plain || matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ => !plain || SCOPED_RESOURCES.contains(&resource),
    }
}

fn scopes(at: &At<'_>, named: &BTreeSet<&str>, errors: &mut Errors) {
    let all: BTreeSet<&str> = at.items().map(|scope| scope.text()).collect();
    for scope in &all {
        if !SCOPES.contains(scope) {
            at.invalid(errors, "unsupported scope");
        }
        for _ in named.iter().filter(|resource| !is_about(scope, resource)) {
            at.invalid(errors, "unsupported scope applied to resource");
        }
    }
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|scope| all.contains(scope)) {
            at.invalid(errors, "conflicting scopes");
        }
    }
}

fn scope_term(term: &At<'_>, named: &BTreeSet<&str>, errors: &mut Errors) {
    let (scope, operator, values) = (term.field("scopeName"), term.field("operator"), term.field("values"));
    if !SCOPES.contains(&scope.text()) {
        scope.invalid(errors, "unsupported scope");
    }
    for _ in named.iter().filter(|resource| !is_about(scope.text(), resource)) {
        scope.invalid(errors, "unsupported scope applied to resource");
    }
    let takes_values = matches!(scope.text(), "PriorityClass" | "VolumeAttributesClass");
    if SCOPES.contains(&scope.text()) && !takes_values && operator.text() != "Exists" {
        let why = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
                   ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                   ResourceQuotaScopeCrossNamespacePodAffinity";
        operator.invalid(errors, why);
    }
    match operator.text() {
        "In" | "NotIn" if values.count() == 0 => {
            values.required(errors, "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector");
        }
        "Exists" | "DoesNotExist" if values.count() > 0 => {
            values.invalid(errors, "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        _ => operator.invalid(errors, "not a valid selector operator"),
    }
}

/// A quota is about the same pods for as long as it is there.
pub fn quota_update(new: &Object, old: &Object, errors: &mut Errors) {
    let (new, old) = (At::of(new, "spec").field("scopes"), At::of(old, "spec").field("scopes"));
    let set = |at: &At<'_>| at.items().map(|scope| scope.text().to_owned()).collect::<BTreeSet<_>>();
    if set(&new) != set(&old) {
        new.invalid(errors, "field is immutable");
    }
}

pub fn limit_range(object: &Object, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for limit in At::of(object, "spec").field("limits").items() {
        let kind = limit.field("type");
        if let Some(why) = qualified(kind.text()) {
            kind.invalid(errors, why);
        } else if !kind.text().contains('/') && !LIMIT_TYPES.contains(&kind.text()) {
            kind.invalid(errors, "must be a standard limit type or fully qualified");
        }
        kind.unique(errors, &mut seen);
        limit_item(&limit, errors);
    }
}

fn limit_item(limit: &At<'_>, errors: &mut Errors) {
    let kind = limit.text_of("type");
    let on_pods = matches!(kind, "Pod" | "Container");
    for list in ["max", "min"] {
        names(&limit.field(list), on_pods, errors);
    }
    for list in ["default", "defaultRequest"] {
        let at = limit.field(list);
        if kind == "Pod" && at.map().is_some_and(|map| !map.is_empty()) {
            at.forbidden(errors, "may not be specified when `type` is 'Pod'");
        } else {
            names(&at, on_pods, errors);
        }
    }
    names(&limit.field("maxLimitRequestRatio"), on_pods, errors);
    let storage = |list: &str| limit.field(list).value.get("storage").is_some();
    if kind == "PersistentVolumeClaim" && !storage("min") && !storage("max") {
        let why = "either minimum or maximum storage value is required, but neither was provided";
        limit.field("limits").required(errors, why);
    }
    let lists = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];
    let all: BTreeSet<&str> = lists
        .iter()
        .flat_map(|list| limit.field(list).map().into_iter().flatten())
        .map(|(name, _)| name.as_str())
        .collect();
    for name in all {
        limit_amounts(limit, name, errors);
    }
}

fn names(at: &At<'_>, on_pods: bool, errors: &mut Errors) {
    for (name, amount) in at.entries() {
        if let Some(why) = qualified(name) {
            errors.push(FieldError::invalid(amount.path.as_str(), name, why));
        } else if on_pods
            && !name.contains('/')
            && !CONTAINER_RESOURCES.contains(&name)
            && !name.starts_with(HUGE_PAGES)
        {
            errors.push(FieldError::invalid(
                amount.path.as_str(),
                name,
                "must be a standard resource type or fully qualified",
            ));
        }
    }
}

/// The amounts of one resource beside each other: min ≤ request ≤ limit ≤ max.
fn limit_amounts(limit: &At<'_>, name: &str, errors: &mut Errors) {
    let amount = |list: &str| {
        let text = limit.value.get(list).and_then(|map| map.get(name)).and_then(Value::as_str)?;
        Quantity::parse(text).ok()
    };
    let mut tell = |list: &str, value: Quantity, why: String| {
        errors.push(FieldError::invalid(format!("{}.{list}[{name}]", limit.path), value.to_string(), why));
    };
    let (min, max, ratio) = (amount("min"), amount("max"), amount("maxLimitRequestRatio"));
    let (request, default) = (amount("defaultRequest"), amount("default"));
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        tell("min", min, format!("min value {min} is greater than max value {max}"));
    }
    if let (Some(request), Some(min)) = (request, min)
        && min > request
    {
        tell("defaultRequest", request, format!("min value {min} is greater than default request value {request}"));
    }
    if let (Some(request), Some(max)) = (request, max)
        && request > max
    {
        tell("defaultRequest", request, format!("default request value {request} is greater than max value {max}"));
    }
    if let (Some(request), Some(default)) = (request, default)
        && request > default
    {
        let why = format!("default request value {request} is greater than default limit value {default}");
        tell("defaultRequest", request, why);
    }
    if let (Some(default), Some(min)) = (default, min)
        && min > default
    {
        tell("default", min, format!("min value {min} is greater than default value {default}"));
    }
    if let (Some(default), Some(max)) = (default, max)
        && default > max
    {
        tell("default", max, format!("default value {default} is greater than max value {max}"));
    }
    if let Some(ratio) = ratio.filter(|ratio| *ratio < Quantity::from_i64(1, ratio.format())) {
        tell("maxLimitRequestRatio", ratio, format!("ratio {ratio} is less than 1"));
    }
    if let (Some(ratio), Some(min), Some(max)) = (ratio, min, max)
        && !min.is_zero()
    {
        let most = max.milli_value() as f64 / min.milli_value() as f64;
        if ratio.milli_value() as f64 / 1000.0 > most {
            tell("maxLimitRequestRatio", ratio, format!("ratio {ratio} is greater than max/min = {most:.6}"));
        }
    }
    if name.contains('/') && request != default {
        let words = |amount: Option<Quantity>| amount.unwrap_or(Quantity::ZERO).to_string();
        let why =
            format!("default value {} must equal to defaultRequest value {} in {name}", words(default), words(request));
        tell("default", default.unwrap_or(Quantity::ZERO), why);
    }
}
