//! Texts against patterns. Where the pattern is a literal, it was compiled with the expression.

use super::Sig::*;
use super::{Function, STRINGS, method, strings};
use crate::cel::meter::Meter;
use crate::cel::price::Price;
use crate::cel::value::{Fault, Outcome, Text, Value, no_such_overload};
use crate::custom::Pattern;

pub const FUNCTIONS: &[Function] = &[
    Function {
        name: "matches",
        overloads: &[super::call(&[String, String], Bool), method(&[String, String], Bool)],
        price: Price::Match,
        run: |meter, args| dynamic(meter, args, "matches"),
    },
    Function {
        name: "find",
        overloads: &[method(&[String, String], String)],
        price: Price::Match,
        run: |meter, args| dynamic(meter, args, "find"),
    },
    Function {
        name: "findAll",
        overloads: &[method(&[String, String], STRINGS), method(&[String, String, Int], STRINGS)],
        price: Price::Match,
        run: |meter, args| dynamic(meter, args, "findAll"),
    },
];

/// Whether the second argument of calls of this function is a pattern.
pub fn takes_pattern(function: &str) -> bool {
    FUNCTIONS.iter().any(|known| known.name == function)
}

fn dynamic<'a>(meter: &mut Meter, args: &[Value<'a>], function: &str) -> Outcome<'a> {
    let Some(Value::String(source)) = args.get(1) else { return no_such_overload() };
    let pattern = meter.pattern(source)?;
    with(meter, args, &pattern, function)
}

/// The call with its pattern compiled.
pub fn with<'a>(meter: &mut Meter, args: &[Value<'a>], pattern: &Pattern, function: &str) -> Outcome<'a> {
    match (function, args) {
        ("matches", [Value::String(text), _]) => Ok(Value::Bool(pattern.is_match(text))),
        ("find", [Value::String(text), _]) => {
            let found = pattern.find(text, 0).map_or("", |(from, to)| &text[from..to]);
            Ok(Value::String(strings::part_of(text, found)))
        }
        ("findAll", [Value::String(text), _]) => find_all(meter, text, pattern, usize::MAX),
        ("findAll", [Value::String(text), _, Value::Int(limit)]) => {
            find_all(meter, text, pattern, usize::try_from(*limit).unwrap_or(usize::MAX))
        }
        _ => no_such_overload(),
    }
}

/// As Go finds all: nothing that is empty right behind what was found before.
fn find_all<'a>(meter: &mut Meter, text: &Text<'a>, pattern: &Pattern, limit: usize) -> Outcome<'a> {
    let mut found = Vec::new();
    let (mut from, mut before) = (0, None);
    while found.len() < limit && from <= text.len() {
        let Some((start, end)) = pattern.find(text, from) else { break };
        if start < end || before != Some(start) {
            meter.work(size_of::<Value<'_>>() as u64 + (end - start) as u64)?;
            found.push(Value::String(strings::part_of(text, &text[start..end])));
        }
        before = Some(end);
        from = if start < end { end } else { next_char(text, end) };
    }
    Ok::<_, Fault>(Value::list(found))
}

fn next_char(text: &str, at: usize) -> usize {
    at + text[at..].chars().next().map_or(1, char::len_utf8)
}
