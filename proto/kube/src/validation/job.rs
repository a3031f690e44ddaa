//! Jobs.

use std::collections::BTreeSet;

use serde_json::Value;

use super::at::{At, Errors};
use super::{pod, selector};
use crate::selector::LabelSelector;
use crate::{FieldError, Object};

const INDEXED_PARALLELISM_MAX: i64 = 100_000;
const POLICY_RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
const NEEDS_INDEXED: &str = "requires indexed completion mode";

pub fn job(object: &Object, errors: &mut Errors) {
    let spec = At::of(object, "spec");
    generated_selector(object, &spec, errors);
    job_spec(&spec, errors);
    let (selector, labels) = (spec.field("selector"), spec.field("template").field("metadata").field("labels"));
    if !selector.is_set() {
        selector.required(errors, "");
        return;
    }
    selector::label_selector(&selector, errors);
    if LabelSelector::from_value(selector.value).is_ok_and(|wanted| !wanted.matches(labels.map())) {
        labels.invalid(errors, "`selector` does not match template `labels`");
    }
}

/// Unless its author says otherwise, a Job selects the pods of its own uid.
fn generated_selector(object: &Object, spec: &At<'_>, errors: &mut Errors) {
    if spec.is_true("manualSelector") || !spec.field("selector").is_set() {
        return;
    }
    let label = spec.field("template").field("metadata").field("labels");
    let expected = [(UID_LABEL, object.uid()), ("batch.kubernetes.io/job-name", object.name())];
    for (key, value) in expected {
        if label.text_of(key) != value {
            let path = format!("{}[{key}]", label.path);
            errors.push(FieldError::invalid(path, label.text_of(key), format!("must be '{value}'")));
        }
    }
    let own = serde_json::json!({UID_LABEL: object.uid()});
    let selector = spec.field("selector");
    if LabelSelector::from_value(selector.value).is_ok_and(|selector| !selector.matches(own.as_object())) {
        selector.invalid(errors, "`selector` not auto-generated");
    }
}

/// What a Job and the template of one have in common.
pub fn job_spec(spec: &At<'_>, errors: &mut Errors) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        spec.field(field).at_least_zero(errors);
    }
    let per_index = spec.field("backoffLimitPerIndex");
    let failed = spec.field("maxFailedIndexes");
    if failed.is_set() && !per_index.is_set() {
        per_index.required(errors, "when maxFailedIndexes is specified");
    }
    let mode = spec.field("completionMode");
    mode.maybe_one_of(errors, &["Indexed", "NonIndexed"]);
    if mode.text() == "Indexed" {
        indexed(spec, errors);
    } else {
        for field in [&per_index, &failed].into_iter().filter(|field| field.is_set()) {
            field.invalid(errors, NEEDS_INDEXED);
        }
    }
    let replaced = spec.field("podReplacementPolicy");
    if spec.field("podFailurePolicy").is_set() {
        replaced.maybe_one_of(errors, &["Failed"]);
        failure_policy(spec, errors);
    } else {
        replaced.maybe_one_of(errors, &["Failed", "TerminatingOrFailed"]);
    }
    success_policy(spec, errors);
    pod_template(spec, errors);
}

fn indexed(spec: &At<'_>, errors: &mut Errors) {
    let (completions, parallelism) = (spec.field("completions"), spec.field("parallelism"));
    if !completions.is_set() {
        completions.required(errors, "when completion mode is Indexed");
    }
    if parallelism.int().is_some_and(|number| number > INDEXED_PARALLELISM_MAX) {
        let why = format!("must be less than or equal to {INDEXED_PARALLELISM_MAX} when completion mode is Indexed");
        parallelism.invalid(errors, why);
    }
    let failed = spec.field("maxFailedIndexes");
    if let (Some(failures), Some(all)) = (failed.int(), completions.int())
        && failures > all
    {
        failed.invalid(errors, "must be less than or equal to completions");
    }
}

fn pod_template(spec: &At<'_>, errors: &mut Errors) {
    let template = spec.field("template");
    pod::template(&template, errors);
    let restart = template.field("spec").field("restartPolicy");
    match restart.text() {
        "" | "Always" => restart.required(errors, "valid values: \"OnFailure\", \"Never\""),
        "Never" => {}
        "OnFailure" => {
            for field in ["podFailurePolicy", "backoffLimitPerIndex"] {
                if spec.field(field).is_set() {
                    restart.invalid(errors, format!("only \"Never\" is supported when {field} is specified"));
                }
            }
        }
        _ => restart.not_supported(errors, &["Never", "OnFailure"]),
    }
}

fn failure_policy(spec: &At<'_>, errors: &mut Errors) {
    let template = spec.field("template").field("spec");
    let names: BTreeSet<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| template.field(list).items())
        .map(|container| container.text_of("name"))
        .collect();
    let rules = spec.field("podFailurePolicy").field("rules");
    rules.too_many(errors, POLICY_RULES_MAX);
    for rule in rules.items() {
        let action = rule.field("action");
        action.one_of(errors, &["Count", "FailIndex", "FailJob", "Ignore"]);
        if action.text() == "FailIndex" && !spec.field("backoffLimitPerIndex").is_set() {
            action.invalid(errors, "requires the backoffLimitPerIndex to be set");
        }
        let (codes, conditions) = (rule.field("onExitCodes"), rule.field("onPodConditions"));
        match (codes.is_set(), conditions.count() > 0) {
            (true, true) => rule.invalid(errors, "specifying both OnExitCodes and OnPodConditions is not supported"),
            (false, false) => rule.invalid(errors, "specifying one of OnExitCodes and OnPodConditions is required"),
            _ => {}
        }
        if codes.is_set() {
            exit_codes(&codes, &names, errors);
        }
        for condition in conditions.items() {
            condition.field("type").present(errors);
            condition.field("status").one_of(errors, &["False", "True", "Unknown"]);
        }
    }
}

fn exit_codes(at: &At<'_>, names: &BTreeSet<&str>, errors: &mut Errors) {
    at.field("operator").one_of(errors, &["In", "NotIn"]);
    let name = at.field("containerName");
    if name.is_set() && !names.contains(name.text()) {
        name.invalid(errors, "must be one of the container or initContainer names in the pod template");
    }
    let values = at.field("values");
    if values.count() == 0 {
        values.invalid(errors, "at least one value is required");
    }
    values.too_many(errors, EXIT_CODES_MAX);
    for value in values.items().filter(|value| value.value == 0 && at.text_of("operator") == "In") {
        value.invalid(errors, "must not be 0 for the In operator");
    }
}

fn success_policy(spec: &At<'_>, errors: &mut Errors) {
    let Some(policy) = spec.get("successPolicy") else { return };
    if spec.text_of("completionMode") != "Indexed" {
        policy.invalid(errors, NEEDS_INDEXED);
        return;
    }
    let rules = policy.field("rules");
    if rules.count() == 0 {
        rules.required(errors, "at least one rules must be specified when the successPolicy is specified");
    }
    rules.too_many(errors, POLICY_RULES_MAX);
    let all = spec.int_of("completions").unwrap_or(0);
    for rule in rules.items() {
        let (indexes, count) = (rule.field("succeededIndexes"), rule.field("succeededCount"));
        if !indexes.is_set() && !count.is_set() {
            rule.required(errors, "at least one of succeededCount or succeededIndexes must be specified");
        }
        count.at_least_zero(errors);
        if count.int().is_some_and(|count| count > all) {
            count.invalid(errors, format!("must be less than or equal to {all} (the number of specified completions)"));
        }
        if indexes.is_set() && !are_indexes(indexes.text(), all) {
            indexes
                .invalid(errors, "error parsing succeededIndexes: not ascending ranges of indexes below completions");
        }
    }
}

/// `0,2-5,9`: ascending, each below `end`.
fn are_indexes(text: &str, end: i64) -> bool {
    let mut next = 0;
    text.split(',').all(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.parse::<i64>().ok().filter(|n| (next..end).contains(n));
        let (Some(first), Some(last)) = (number(first), number(last)) else { return false };
        next = last + 1;
        first <= last
    })
}

pub fn update(new: &Object, old: &Object, errors: &mut Errors) {
    let (spec, before) = (At::of(new, "spec"), At::of(old, "spec"));
    for field in
        ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
    {
        spec.field(field).immutable(errors, &before.field(field));
    }
    // An indexed Job may be resized where each index has its pod.
    let follows = |at: &At<'_>| at.int_of("completions") == at.int_of("parallelism");
    if spec.text_of("completionMode") != "Indexed" || !follows(&spec) || !follows(&before) {
        spec.field("completions").immutable(errors, &before.field("completions"));
    }
    let waits = before.is_true("suspend") && old.str_at("/status/startTime").is_empty();
    if fixed(&spec, waits) != fixed(&before, waits) {
        spec.field("template").invalid(errors, "field is immutable");
    }
}

/// The template, but for what says where its pods run while the Job has not started.
fn fixed(spec: &At<'_>, waits: bool) -> Value {
    let mut template = spec.field("template").value.clone();
    if waits {
        for pointer in ["/metadata", "/spec"] {
            let Some(map) = template.pointer_mut(pointer).and_then(Value::as_object_mut) else { continue };
            for field in ["labels", "annotations", "nodeSelector", "affinity", "tolerations", "schedulingGates"] {
                map.remove(field);
            }
        }
    }
    template
}
