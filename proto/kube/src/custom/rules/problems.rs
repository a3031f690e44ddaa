//! What is wrong with rules themselves: asked when a definition is written, in the words of Kubernetes.

use std::fmt::Write as _;

use serde_json::Value as Json;

use super::declare::REQUEST_MAX_BYTES;
use super::{CompiledRule, Place, Rules, field_path, has_rules};
use crate::FieldError;
use crate::custom::structural::{Additional, JsonType, Rule, Structural};

/// The most that one rule may cost, for all values together that it is asked of.
const RULE_COST_MAX: u64 = 10_000_000;
/// The most that all rules of a schema may cost.
const SCHEMA_COST_MAX: u64 = 100_000_000;
/// Rules that are named where the schema's cost is too high, of those that add a hundredth to it.
const COSTLY_MAX: usize = 4;

const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

impl Rules {
    /// What is wrong with the rules of this schema, which stands at that path. `costs`: whether a single rule that costs too much
    /// is wrong, too; a definition that is written again as it was may keep its rules.
    pub fn problems(&self, schema: &Structural, path: &str, costs: bool) -> Vec<FieldError> {
        let mut search = Search { costs, total: 0, costly: Vec::new(), fields: Vec::new(), rules: Vec::new() };
        search.place(self.root.as_ref(), schema, &Way::root(path));
        let mut problems = search.fields;
        problems.append(&mut search.rules);
        if search.total > SCHEMA_COST_MAX {
            for (path, _) in search.costly {
                let why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
                problems.push(FieldError::forbidden(path, why));
            }
            let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
            problems.push(FieldError::forbidden(path, too_costly(what, search.total, SCHEMA_COST_MAX)));
        }
        problems
    }
}

/// Where in the schema a search is.
#[derive(Clone)]
struct Way {
    path: String,
    /// The list or map nearest to the root whose items have no place that would tell them again.
    uncorrelatable: Option<String>,
    /// How many values there can be; None where nothing bounds them.
    count: Option<u64>,
}

impl Way {
    fn root(path: &str) -> Way {
        Way { path: path.to_owned(), uncorrelatable: None, count: Some(1) }
    }

    fn below(&self, schema: &Structural, step: &str) -> Way {
        let most = match schema.ty {
            Some(JsonType::Object) if !matches!(schema.additional, Additional::Absent) => {
                schema.value.max_properties.map(|most| u64::try_from(most).unwrap_or(0))
            }
            Some(JsonType::Array) => schema.value.max_items.map(|most| u64::try_from(most).unwrap_or(0)),
            _ => Some(1),
        };
        Way {
            path: format!("{}{step}", self.path),
            uncorrelatable: self.uncorrelatable.clone(),
            count: self.count.zip(most).map(|(count, most)| count.saturating_mul(most)),
        }
    }
}

struct Search {
    costs: bool,
    total: u64,
    /// Paths of rules with their costs, the highest first.
    costly: Vec<(String, u64)>,
    /// Of fields of rules.
    fields: Vec<FieldError>,
    /// Of expressions.
    rules: Vec<FieldError>,
}

impl Search {
    fn place(&mut self, place: Option<&Place>, schema: &Structural, way: &Way) {
        if !has_rules(schema) {
            return;
        }
        let before = self.fields.len();
        if let Additional::Schema(values) = &schema.additional {
            let below = place.and_then(|place| place.additional.as_deref());
            self.place(below, values, &way.below(schema, ".additionalProperties"));
        }
        for (name, property) in &schema.properties {
            let below = place.and_then(|place| place.properties.get(name));
            self.place(below, property, &way.below(schema, &format!(".properties[{name}]")));
        }
        if let Some(items) = &schema.items {
            let mut way_below = way.below(schema, ".items");
            if schema.list_type != Some(crate::schema::ListType::Map) {
                way_below.uncorrelatable.get_or_insert_with(|| way.path.clone());
            }
            self.place(place.and_then(|place| place.items.as_deref()), items, &way_below);
        }
        for (index, rule) in schema.rules.iter().enumerate() {
            self.fields.extend(rule_fields(rule, schema, &rule_path(way, index)));
        }
        // Where something is wrong with fields here or below, expressions are not looked at.
        if self.fields.len() > before || schema.rules.is_empty() {
            return;
        }
        let Some(place) = place.filter(|place| place.decl.is_some()) else {
            let why = "internal error: failed to construct type information for x-kubernetes-validations rules: unable to \
                       convert structural schema to CEL declarations";
            return self.rules.push(FieldError::internal(format!("{}.x-kubernetes-validations", way.path), why));
        };
        for (index, rule) in place.rules.iter().enumerate() {
            self.expressions(rule, place, way, &rule_path(way, index));
        }
    }

    fn expressions(&mut self, rule: &CompiledRule, place: &Place, way: &Way, path: &str) {
        let at = |field: &str| format!("{path}.{field}");
        let min_bytes = place.decl.as_ref().map_or(0, |decl| decl.min_bytes);
        let count = way.count.unwrap_or(REQUEST_MAX_BYTES / (min_bytes + 1));
        match &rule.program {
            Some(Ok(program)) => {
                let cost = program.cost_max().saturating_mul(count);
                self.cost(at("rule"), "estimated rule cost", cost);
            }
            Some(Err(why)) => self.rules.push(of_rule(at("rule"), &rule.rule, why)),
            None => {}
        }
        match &rule.message {
            Some(Ok(program)) => {
                self.cost(at("messageExpression"), "estimated messageExpression cost", program.cost_max());
            }
            Some(Err(why)) => self.rules.push(of_rule(at("messageExpression"), &rule.rule, why)),
            None => {}
        }
        if !rule.uses_old_self {
            if let Some(optional) = rule.rule.optional_old_self {
                let why = "may not be set if oldSelf is not used in rule";
                self.rules.push(FieldError::invalid(at("optionalOldSelf"), optional, why));
            }
        } else if let Some(uncorrelatable) = &way.uncorrelatable {
            let why =
                format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {uncorrelatable}");
            self.rules.push(FieldError::invalid(at("rule"), rule.rule.rule.as_str(), why));
        }
    }

    fn cost(&mut self, path: String, what: &str, cost: u64) {
        if self.costs && cost > RULE_COST_MAX {
            self.rules.push(FieldError::forbidden(path.as_str(), too_costly(what, cost, RULE_COST_MAX)));
        }
        self.total = self.total.saturating_add(cost);
        if cost >= SCHEMA_COST_MAX / 100 {
            self.costly.push((path, cost));
            self.costly.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
            self.costly.truncate(COSTLY_MAX);
        }
    }
}

fn rule_path(way: &Way, index: usize) -> String {
    format!("{}.x-kubernetes-validations[{index}]", way.path)
}

/// What is wrong with a rule's fields, without a look at its expressions.
fn rule_fields(rule: &Rule, schema: &Structural, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let at = |field: &str| format!("{path}.{field}");
    let has_lines = |text: &str| text.contains(['\n', '\r']);
    let (text, message) = (rule.rule.trim(), rule.message.trim());
    if text.is_empty() {
        errors.push(FieldError::required(at("rule"), "rule is not specified"));
    } else if !rule.message.is_empty() && message.is_empty() {
        errors.push(FieldError::invalid(at("message"), rule.message.as_str(), "must be non-empty if specified"));
    } else if has_lines(message) {
        errors.push(FieldError::invalid(at("message"), rule.message.as_str(), "must not contain line breaks"));
    } else if has_lines(text) && message.is_empty() {
        errors.push(FieldError::required(at("message"), "message must be specified if rule contains line breaks"));
    }
    if !rule.message_expression.is_empty() && rule.message_expression.trim().is_empty() {
        errors.push(FieldError::required(at("messageExpression"), "messageExpression must be non-empty if specified"));
    }
    if !rule.reason.is_empty() && !REASONS.contains(&rule.reason.as_str()) {
        errors.push(FieldError::not_supported(at("reason"), rule.reason.as_str(), &REASONS));
    }
    let field_path = rule.field_path.as_str();
    if !field_path.is_empty() {
        if field_path.trim().is_empty() {
            errors.push(FieldError::invalid(at("fieldPath"), field_path, "must be non-empty if specified"));
        }
        if has_lines(field_path) {
            errors.push(FieldError::invalid(at("fieldPath"), field_path, "must not contain line breaks"));
        }
        if field_path::below(field_path, schema).is_err() {
            errors.push(FieldError::invalid(at("fieldPath"), field_path, "must be a valid path"));
        }
    }
    errors
}

/// An error that shows the whole rule, with the names that Kubernetes has for its parts inside.
fn of_rule(path: String, rule: &Rule, why: &str) -> FieldError {
    let text = |text: &str| {
        let quoted = Json::from(text).to_string();
        // As Go's JSON has them.
        quoted.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
    };
    let reason = if rule.reason.is_empty() { "null".to_owned() } else { text(&rule.reason) };
    let optional = rule.optional_old_self.map_or("null".to_owned(), |optional| optional.to_string());
    let mut shown = String::new();
    let _ = write!(
        shown,
        "{{\"Rule\":{},\"Message\":{},\"MessageExpression\":{},\"Reason\":{reason},\"FieldPath\":{},\"OptionalOldSelf\":{optional}}}",
        text(&rule.rule),
        text(&rule.message),
        text(&rule.message_expression),
        text(&rule.field_path),
    );
    FieldError::invalid(path, Json::Null, format!("{shown}: {why}")).without_value()
}

fn too_costly(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = match factor {
        factor if factor > 100.0 => "more than 100x".to_owned(),
        factor if factor < 1.5 => format!("{factor:.6}x"),
        factor => format!("{factor:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}
