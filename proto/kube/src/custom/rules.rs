//! Rules of custom kinds that are written as expressions (`x-kubernetes-validations`): compiled once for a version of a kind, then
//! asked of every object. Source: the Kubernetes documentation "Validation rules".
//!
//! [`check()`] says what is wrong with the rules themselves, when a definition is written; [`Rules::create`] and [`Rules::update`] what
//! is wrong with an object.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::path::resolve;
use super::structural::{Additional, Nested, Rule, Structural};
use crate::cel::escape::escape;
use crate::cel::{CompileError, Decl, Env, Program, Type};

mod ask;
mod check;
mod declare;
#[cfg(test)]
mod tests;

pub use ask::{ASK_COST_MAX, Asked};
pub use check::check;

/// The places of [`SELF`] and [`OLD_SELF`] among the variables.
const SELF: &str = "self";
const OLD_SELF: &str = "oldSelf";
const OLD_SELF_PLACE: usize = 1;

/// The compiled rules of a schema.
#[derive(Debug)]
pub struct Rules {
    /// None where the schema has no rules at all.
    root: Option<Place>,
}

/// The rules of one place of the schema, and of those below it. It stands beside a [`Structural`], as far as there are rules.
#[derive(Debug, Default)]
struct Place {
    rules: Vec<CompiledRule>,
    /// None where an expression cannot see what is there.
    decl: Option<Arc<Decl>>,
    properties: BTreeMap<String, Place>,
    items: Option<Box<Place>>,
    additional: Option<Box<Place>>,
    /// Rules that stand below `allOf`, for the same places.
    all_of: Vec<Place>,
}

#[derive(Debug)]
struct CompiledRule {
    rule: Rule,
    /// None for an empty rule.
    program: Option<Result<Program, String>>,
    /// None where the rule has no expression for its message, or is no program itself.
    message: Option<Result<Program, String>>,
    uses_old_self: bool,
    /// Where errors of the rule are reported, below its place.
    field_path: Option<String>,
}

impl Rules {
    /// Compiles the rules of a kind's schema. What does not compile is kept as the reason why.
    pub fn compile(schema: &Structural) -> Rules {
        Rules::at(schema, true)
    }

    /// The same for any part of a schema. `root`: an object with a name of its own.
    fn at(schema: &Structural, root: bool) -> Rules {
        let compile = || place(schema, declare::declare(schema, root, "selfType"));
        Rules { root: has_rules(schema).then(compile) }
    }

    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }
}

fn place(schema: &Structural, decl: Option<Arc<Decl>>) -> Place {
    let element = decl.as_ref().and_then(|decl| decl.element().cloned());
    let mut properties = BTreeMap::new();
    for (name, property) in schema.properties.iter().filter(|(_, property)| has_rules(property)) {
        properties.insert(name.clone(), place(property, property_decl(decl.as_ref(), name, property)));
    }
    let items = schema.items.as_deref().filter(|items| has_rules(items));
    let additional = match &schema.additional {
        Additional::Schema(schema) if has_rules(schema) => Some(schema),
        _ => None,
    };
    let nested = schema.value.all_of.iter().filter(|nested| has_nested_rules(nested));
    Place {
        rules: compile_all(&schema.rules, schema, decl.as_ref()),
        properties,
        items: items.map(|items| Box::new(place(items, element.clone()))),
        additional: additional.map(|schema| Box::new(place(schema, element.clone()))),
        all_of: nested.map(|nested| nested_place(nested, schema, decl.as_ref())).collect(),
        decl,
    }
}

/// Rules below `allOf`: as far as their places are those of the schema around them.
fn nested_place(nested: &Nested, schema: &Structural, decl: Option<&Arc<Decl>>) -> Place {
    let element = decl.and_then(|decl| decl.element());
    let mut properties = BTreeMap::new();
    for (name, inner) in nested.properties.iter().filter(|(_, inner)| has_nested_rules(inner)) {
        if let Some(property) = schema.properties.get(name) {
            let decl = property_decl(decl, name, property);
            properties.insert(name.clone(), nested_place(inner, property, decl.as_ref()));
        }
    }
    let items = nested.items.as_deref().zip(schema.items.as_deref());
    let additional = match (nested.additional.as_deref(), &schema.additional) {
        (Some(nested), Additional::Schema(schema)) => Some((nested, &**schema)),
        _ => None,
    };
    let below = |(nested, schema): (&Nested, &Structural)| {
        has_nested_rules(nested).then(|| Box::new(nested_place(nested, schema, element)))
    };
    let all_of = nested.value.all_of.iter().filter(|nested| has_nested_rules(nested));
    Place {
        rules: compile_all(&nested.rules, schema, decl),
        properties,
        items: items.and_then(below),
        additional: additional.and_then(below),
        all_of: all_of.map(|nested| nested_place(nested, schema, decl)).collect(),
        decl: decl.cloned(),
    }
}

/// A property by the declaration of its object, or by itself where no expression can say its name.
fn property_decl(object: Option<&Arc<Decl>>, name: &str, property: &Structural) -> Option<Arc<Decl>> {
    match escape(name) {
        Some(escaped) => object?.object()?.fields.get(&escaped).map(|field| field.decl.clone()),
        None => declare::declare(property, property.embedded, "selfType"),
    }
}

fn has_rules(schema: &Structural) -> bool {
    let below_additional = match &schema.additional {
        Additional::Schema(schema) => has_rules(schema),
        _ => false,
    };
    !schema.rules.is_empty()
        || below_additional
        || schema.items.as_deref().is_some_and(has_rules)
        || schema.properties.values().any(has_rules)
        || schema.value.all_of.iter().any(has_nested_rules)
}

fn has_nested_rules(nested: &Nested) -> bool {
    !nested.rules.is_empty()
        || nested.items.as_deref().is_some_and(has_nested_rules)
        || nested.additional.as_deref().is_some_and(has_nested_rules)
        || nested.properties.values().any(has_nested_rules)
        || nested.value.all_of.iter().any(has_nested_rules)
}

/// The rules of one place; none where an expression cannot see what is there.
fn compile_all(rules: &[Rule], schema: &Structural, decl: Option<&Arc<Decl>>) -> Vec<CompiledRule> {
    let Some(decl) = decl.filter(|_| !rules.is_empty()) else { return Vec::new() };
    let plain = Env::new().declared(SELF, decl).declared(OLD_SELF, decl);
    let optional = Env::new().declared(SELF, decl).variable(OLD_SELF, Type::optional(Type::of(decl)));
    let env = |rule: &Rule| if rule.optional_old_self == Some(true) { &optional } else { &plain };
    rules.iter().map(|rule| compile_one(rule, env(rule), schema)).collect()
}

fn compile_one(rule: &Rule, env: &Env, schema: &Structural) -> CompiledRule {
    let program = (!rule.rule.trim().is_empty())
        .then(|| program(env, &rule.rule, &Type::Bool, ["", "program "], "cel expression must evaluate to a bool"));
    let message = (!rule.message_expression.is_empty() && matches!(program, Some(Ok(_)))).then(|| {
        let words = ["messageExpression ", "messageExpression "];
        self::program(
            env,
            &rule.message_expression,
            &Type::String,
            words,
            "messageExpression must evaluate to a string",
        )
    });
    let uses_old_self = matches!(&program, Some(Ok(program)) if program.names(OLD_SELF_PLACE));
    let field_path = Some(&rule.field_path).filter(|path| !path.is_empty());
    let field_path = field_path.and_then(|path| printed_path(path, schema));
    CompiledRule { rule: rule.clone(), program, message, uses_old_self, field_path }
}

/// A `fieldPath` as errors print it: names of fields after dots, keys of maps in brackets.
fn printed_path(path: &str, schema: &Structural) -> Option<String> {
    let (names, _) = resolve(path, schema, true).ok()?;
    let (mut out, mut schema) = (String::new(), schema);
    for name in names {
        if schema.properties.is_empty() {
            out.push_str(&format!("[{name}]"));
        } else {
            out.push_str(if out.is_empty() { "" } else { "." });
            out.push_str(&name);
        }
        schema = schema.under(&name)?;
    }
    Some(out)
}

fn program(env: &Env, source: &str, ty: &Type, words: [&str; 2], mistyped: &str) -> Result<Program, String> {
    match env.compile(source) {
        Ok(program) if program.ty() == ty => Ok(program),
        Ok(_) => Err(mistyped.to_owned()),
        Err(CompileError::Issues(issues)) => Err(format!("{}compilation failed: {issues}", words[0])),
        Err(CompileError::Instantiation(fault)) => Err(format!("{}instantiation failed: {fault}", words[1])),
    }
}
