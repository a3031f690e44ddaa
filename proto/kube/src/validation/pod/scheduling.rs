//! Where a pod may run: tolerations, affinity, spreading, gates.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::at::{At, Errors};
use super::super::format::{label, label_value, labels, qualified};
use super::super::selector::{label_selector, node_selector, node_selector_term};
use crate::FieldError;

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub fn scheduling(spec: &At<'_>, errors: &mut Errors) {
    labels(&spec.field("nodeSelector"), errors);
    for toleration in spec.field("tolerations").items() {
        self::toleration(&toleration, errors);
    }
    if let Some(affinity) = spec.get("affinity") {
        node_affinity(&affinity.field("nodeAffinity"), errors);
        pod_affinity(&affinity.field("podAffinity"), errors);
        pod_affinity(&affinity.field("podAntiAffinity"), errors);
    }
    spread(&spec.field("topologySpreadConstraints"), errors);
    let mut gates = BTreeSet::new();
    for gate in spec.field("schedulingGates").items() {
        let name = gate.field("name");
        if let Some(why) = qualified(name.text()) {
            name.invalid(errors, why);
        }
        if !gates.insert(name.text()) {
            errors.push(FieldError::duplicate(gate.path.as_str(), gate.value.clone()));
        }
    }
}

/// One toleration, a pod's or a runtime class's.
pub fn toleration(at: &At<'_>, errors: &mut Errors) {
    let (key, operator, effect) = (at.field("key"), at.field("operator"), at.field("effect"));
    key.optional_as(errors, qualified);
    if key.text().is_empty() && operator.text() != "Exists" {
        let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.push(FieldError::invalid(operator.path.as_str(), operator.text(), why));
    }
    if at.field("tolerationSeconds").is_set() && effect.text() != "NoExecute" {
        let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.push(FieldError::invalid(effect.path.as_str(), effect.text(), why));
    }
    match operator.text() {
        "" | "Equal" => {
            if let Some(why) = label_value(at.text_of("value")) {
                errors.push(FieldError::invalid(operator.path.as_str(), at.text_of("value"), why));
            }
        }
        "Exists" => {
            if !at.text_of("value").is_empty() {
                let why = "value must be empty when `operator` is 'Exists'";
                errors.push(FieldError::invalid(operator.path.as_str(), at.value.clone(), why));
            }
        }
        _ => operator.not_supported(errors, &["Equal", "Exists"]),
    }
    if !effect.text().is_empty() {
        effect.one_of(errors, &EFFECTS);
    }
}

fn node_affinity(at: &At<'_>, errors: &mut Errors) {
    if let Some(required) = at.get("requiredDuringSchedulingIgnoredDuringExecution") {
        node_selector(&required, errors);
    }
    for term in at.field("preferredDuringSchedulingIgnoredDuringExecution").items() {
        weight(&term, errors);
        node_selector_term(&term.field("preference"), errors);
    }
}

fn pod_affinity(at: &At<'_>, errors: &mut Errors) {
    for term in at.field("requiredDuringSchedulingIgnoredDuringExecution").items() {
        pod_affinity_term(&term, errors);
    }
    for term in at.field("preferredDuringSchedulingIgnoredDuringExecution").items() {
        weight(&term, errors);
        pod_affinity_term(&term.field("podAffinityTerm"), errors);
    }
}

fn weight(term: &At<'_>, errors: &mut Errors) {
    let weight = term.field("weight");
    if !weight.int().is_some_and(|weight| (1..=100).contains(&weight)) {
        weight.invalid(errors, "must be in the range 1-100");
    }
}

fn pod_affinity_term(term: &At<'_>, errors: &mut Errors) {
    label_selector(&term.field("labelSelector"), errors);
    label_selector(&term.field("namespaceSelector"), errors);
    for name in term.field("namespaces").items() {
        name.required_as(errors, label);
    }
    topology_key(term, errors);
}

fn topology_key(at: &At<'_>, errors: &mut Errors) {
    let key = at.field("topologyKey");
    match key.text() {
        "" => key.required(errors, "can not be empty"),
        text => {
            if let Some(why) = qualified(text) {
                key.invalid(errors, why);
            }
        }
    }
}

fn spread(constraints: &At<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for at in constraints.items() {
        let (skew, domains, action) = (at.field("maxSkew"), at.field("minDomains"), at.field("whenUnsatisfiable"));
        if skew.int().unwrap_or(0) <= 0 {
            let value = skew.int().unwrap_or(0);
            errors.push(FieldError::invalid(skew.path.as_str(), value, "must be greater than zero"));
        }
        if domains.int().is_some_and(|domains| domains <= 0) {
            domains.invalid(errors, "must be greater than zero");
        }
        if domains.is_set() && action.text() != "DoNotSchedule" {
            let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}", action.text());
            domains.invalid(errors, why);
        }
        topology_key(&at, errors);
        if !["DoNotSchedule", "ScheduleAnyway"].contains(&action.text()) {
            let value: Value = json!(action.text());
            let words = ["DoNotSchedule", "ScheduleAnyway"];
            errors.push(FieldError::not_supported(action.path.as_str(), value, &words));
        }
        at.field("nodeAffinityPolicy").maybe_one_of(errors, &["Honor", "Ignore"]);
        at.field("nodeTaintsPolicy").maybe_one_of(errors, &["Honor", "Ignore"]);
        label_selector(&at.field("labelSelector"), errors);
        let pair = (at.text_of("topologyKey"), action.text());
        if !seen.insert(pair) {
            let path = format!("{}.{{topologyKey, whenUnsatisfiable}}", at.path);
            errors.push(FieldError::duplicate(path, format!("{{{}, {}}}", pair.0, pair.1)));
        }
    }
}
