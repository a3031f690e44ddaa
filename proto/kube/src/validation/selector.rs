//! Selectors as objects carry them: of labels, and of nodes.

use super::at::{At, Errors};
use super::format::{label_value, labels, qualified};

const NO_OPERATOR: &str = "not a valid selector operator";

/// A LabelSelector (`matchLabels`, `matchExpressions`).
pub fn label_selector(at: &At<'_>, errors: &mut Errors) {
    labels(&at.field("matchLabels"), errors);
    for expression in at.field("matchExpressions").items() {
        let values = expression.field("values");
        match expression.text_of("operator") {
            "In" | "NotIn" if values.count() == 0 => {
                values.required(errors, "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if values.count() > 0 => {
                values.forbidden(errors, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => expression.field("operator").invalid(errors, NO_OPERATOR),
        }
        key(&expression, errors);
        for value in values.items() {
            value.optional_as(errors, label_value);
        }
    }
}

/// Whether a LabelSelector names no label at all.
pub fn is_empty(at: &At<'_>) -> bool {
    at.field("matchLabels").map().is_none_or(|map| map.is_empty()) && at.field("matchExpressions").count() == 0
}

/// A NodeSelector: at least one term.
pub fn node_selector(at: &At<'_>, errors: &mut Errors) {
    let terms = at.field("nodeSelectorTerms");
    if terms.count() == 0 {
        terms.required(errors, "must have at least one node selector term");
    }
    for term in terms.items() {
        node_selector_term(&term, errors);
    }
}

pub fn node_selector_term(term: &At<'_>, errors: &mut Errors) {
    for expression in term.field("matchExpressions").items() {
        let values = expression.field("values");
        match expression.text_of("operator") {
            "In" | "NotIn" if values.count() == 0 => {
                values.required(errors, "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if values.count() > 0 => {
                values.forbidden(errors, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            }
            "Gt" | "Lt" if values.count() != 1 => {
                values.required(errors, "must be specified single value when `operator` is 'Lt' or 'Gt'");
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            _ => expression.field("operator").invalid(errors, NO_OPERATOR),
        }
        key(&expression, errors);
    }
    for expression in term.field("matchFields").items() {
        let values = expression.field("values");
        match expression.text_of("operator") {
            "In" | "NotIn" if values.count() != 1 => {
                let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                values.required(errors, why);
            }
            "In" | "NotIn" => {}
            _ => expression.field("operator").invalid(errors, NO_OPERATOR),
        }
        if expression.text_of("key") != "metadata.name" {
            expression.field("key").invalid(errors, "not a valid field selector key");
        }
    }
}

fn key(expression: &At<'_>, errors: &mut Errors) {
    let key = expression.field("key");
    if let Some(why) = qualified(key.text()) {
        key.invalid(errors, why);
    }
}
