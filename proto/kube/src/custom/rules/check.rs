//! What is wrong with rules themselves: asked when a definition is written, in the words of Kubernetes. What can be told of rules
//! without reading their expressions is told by the validation of definitions, before.

use std::fmt::Write as _;

use serde_json::Value as Json;

use super::ask::Asking;
use super::declare::REQUEST_MAX_BYTES;
use super::{CompiledRule, Place, Rules, has_rules};
use crate::FieldError;
use crate::custom::definition::Ruled;
use crate::custom::structural::{Additional, JsonType, Rule, Structural};

/// The most that one rule may cost, for all values together that it is asked of.
const RULE_COST_MAX: u64 = 10_000_000;
/// The most that all rules of a schema may cost.
const SCHEMA_COST_MAX: u64 = 100_000_000;
/// Rules that are named where the schema's cost is too high, of those that add a hundredth to it.
const COSTLY_MAX: usize = 4;

/// Checks the rules of a schema, which stands at the path of the definition: each compiles, and the defaults keep it.
pub fn check(ruled: &Ruled<'_>) -> Vec<FieldError> {
    let rules = Rules::compile(ruled.schema);
    let mut search = Search { costs: !ruled.unchanged, total: 0, costly: Vec::new(), problems: Vec::new() };
    search.place(rules.root.as_ref(), ruled.schema, &Way::root(ruled.path));
    let mut problems = search.problems;
    if search.total > SCHEMA_COST_MAX {
        for (path, _) in search.costly {
            let why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            problems.push(FieldError::forbidden(path, why));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        problems.push(FieldError::forbidden(ruled.path, too_costly(what, search.total, SCHEMA_COST_MAX)));
    }
    if problems.is_empty() {
        let mut asking = Asking::default();
        defaults(&mut asking, ruled.schema, ruled.path, true);
        problems = asking.asked.errors;
    }
    problems
}

/// Asks the rules of every default: as a value that was there before, and as one that is new.
fn defaults(asking: &mut Asking, schema: &Structural, path: &str, root: bool) {
    if !has_rules(schema) || asking.is_over() {
        return;
    }
    if let Some(default) = &schema.default {
        let rules = Rules::at(schema, root || schema.embedded);
        let path = format!("{path}.default");
        let before = asking.asked.errors.len();
        rules.ask_one(asking, schema, &path, default, true);
        if asking.asked.errors.len() == before && !asking.is_over() {
            rules.ask_one(asking, schema, &path, default, false);
        }
    }
    if let Some(items) = &schema.items {
        defaults(asking, items, &format!("{path}.items"), false);
    }
    for (name, property) in &schema.properties {
        defaults(asking, property, &format!("{path}.properties[{name}]"), false);
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
    problems: Vec<FieldError>,
}

impl Search {
    fn place(&mut self, place: Option<&Place>, schema: &Structural, way: &Way) {
        if !has_rules(schema) {
            return;
        }
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
        if schema.rules.is_empty() {
            return;
        }
        let Some(place) = place.filter(|place| place.decl.is_some()) else {
            let why = "internal error: failed to construct type information for x-kubernetes-validations rules: unable to \
                       convert structural schema to CEL declarations";
            return self.problems.push(FieldError::internal(format!("{}.x-kubernetes-validations", way.path), why));
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
            Some(Err(why)) => self.problems.push(of_rule(at("rule"), &rule.rule, why)),
            None => {}
        }
        match &rule.message {
            Some(Ok(program)) => {
                self.cost(at("messageExpression"), "estimated messageExpression cost", program.cost_max());
            }
            Some(Err(why)) => self.problems.push(of_rule(at("messageExpression"), &rule.rule, why)),
            None => {}
        }
        if !rule.uses_old_self {
            if let Some(optional) = rule.rule.optional_old_self {
                let why = "may not be set if oldSelf is not used in rule";
                self.problems.push(FieldError::invalid(at("optionalOldSelf"), optional, why));
            }
        } else if let Some(uncorrelatable) = &way.uncorrelatable {
            let why =
                format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {uncorrelatable}");
            self.problems.push(FieldError::invalid(at("rule"), rule.rule.rule.as_str(), why));
        }
    }

    fn cost(&mut self, path: String, what: &str, cost: u64) {
        if self.costs && cost > RULE_COST_MAX {
            self.problems.push(FieldError::forbidden(path.as_str(), too_costly(what, cost, RULE_COST_MAX)));
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
