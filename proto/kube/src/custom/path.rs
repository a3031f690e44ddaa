//! Paths into objects of a custom kind.
//!
//! [`JsonPath`] is what printer columns name values with: the JSONPath of kubectl's templates, without its text and ranges. [`resolve`]
//! is the plain form that selectable fields and the field paths of rules take, checked against the schema.

mod eval;
mod parse;
#[cfg(test)]
mod tests;

use serde_json::Value;

use super::structural::{Additional, Structural};

/// Of the path's own text.
pub const PATH_MAX_BYTES: usize = 4 << 10;
/// Values that a path finds; those beyond are not looked for.
pub const FOUND_MAX: usize = 10_000;

/// A path, parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath {
    steps: Vec<Step>,
}

/// Why a text is no path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem} in the path {path:?}")]
pub struct PathError {
    pub path: String,
    pub problem: String,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    /// All values of an object or list.
    All,
    /// What stands anywhere below, the place itself included.
    Descend,
    /// Items `start..end` by `step`; negative ends count from behind.
    Items {
        start: Option<i64>,
        end: Option<i64>,
        step: i64,
        single: bool,
    },
    /// Each of several fields or items.
    Union(Vec<Vec<Step>>),
    /// Items for which the comparison holds.
    Filter(Box<Filter>),
}

#[derive(Clone, Debug, PartialEq)]
struct Filter {
    left: Operand,
    /// None asks whether the left is there.
    test: Option<(Operator, Operand)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Literal(Value),
    /// From the item (`@`), or from the whole object (`$`).
    Path {
        of_item: bool,
        steps: Vec<Step>,
    },
}

impl JsonPath {
    /// Parses `.spec.a['b.c'][0].d[?(@.type=="Ready")].status`, with or without the leading dot or `$`.
    pub fn parse(path: &str) -> Result<JsonPath, PathError> {
        let wrong = |problem: String| PathError { path: path.chars().take(PATH_MAX_BYTES).collect(), problem };
        if path.len() > PATH_MAX_BYTES {
            return Err(wrong(format!("more than {PATH_MAX_BYTES} bytes")));
        }
        Ok(JsonPath { steps: parse::steps(path).map_err(wrong)? })
    }

    /// What it finds, in the order of the object. What is not there is passed over.
    pub fn find<'a>(&self, object: &'a Value) -> Vec<&'a Value> {
        eval::find(&self.steps, object)
    }
}

/// A found value as kubectl prints it: objects and lists as JSON, all else bare.
pub fn printed(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => super::print::float(float),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

/// Follows a plain path (`.spec.name`, and where `brackets` says so `['a.b']`) through a schema: the names on the way, and the schema of
/// the place. The error is Kubernetes' words for what is wrong with it.
pub fn resolve<'a>(
    path: &str,
    schema: &'a Structural,
    brackets: bool,
) -> Result<(Vec<String>, &'a Structural), String> {
    let mut place = schema;
    let mut names = Vec::new();
    let mut tokens = parse::tokens(path).into_iter();
    let end = || "unexpected end of JSON path".to_owned();
    while let Some(token) = tokens.next() {
        let name = match token {
            "[" if !brackets => return Err("array notation is not allowed".to_owned()),
            "[" => {
                let quoted = tokens.next().ok_or_else(end)?;
                let inner = quoted.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
                let inner = inner.ok_or_else(|| format!("expected single quoted string but got {quoted}"))?;
                match tokens.next().ok_or_else(end)? {
                    "]" => parse::unescape(inner),
                    other => return Err(format!("expected ] but got {other}")),
                }
            }
            "." => tokens.next().ok_or_else(end)?.to_owned(),
            other => return Err(format!("expected [ or . but got: {other}")),
        };
        let inner = match &place.additional {
            _ if !place.properties.is_empty() => place.properties.get(&name),
            Additional::Schema(any) => Some(&**any),
            Additional::Bool(_) | Additional::Absent => None,
        };
        place = inner.ok_or_else(|| "does not refer to a valid field".to_owned())?;
        names.push(name);
    }
    Ok((names, place))
}
