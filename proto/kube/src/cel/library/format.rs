//! Named formats: Kubernetes' library. A format answers with what is wrong with a text, or with none.

use super::Sig::*;
use super::{FORMAT, Function, Overload, STRINGS, call, method, time, url};
use crate::cel::price::Price;
use crate::cel::value::{Value, no_such_overload};
use crate::validation::format as rules;
use crate::validation::meta::{NameRule, name_problem};

/// A rule for texts under a name.
pub struct Format {
    /// In `format.NAME()` and `format.named("NAME")`.
    key: &'static str,
    pub name: &'static str,
    /// The length of a pattern that would say as much: by it calls are charged.
    pub pattern_chars: u64,
    problem: fn(&str) -> Option<std::string::String>,
}

impl std::fmt::Debug for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

const fn format(
    key: &'static str,
    name: &'static str,
    pattern_chars: u64,
    problem: fn(&str) -> Option<std::string::String>,
) -> Format {
    Format { key, name, pattern_chars, problem }
}

static FORMATS: [Format; 13] = [
    format("dns1123Label", "DNS1123Label", 30, rules::label),
    format("dns1123Subdomain", "DNS1123Subdomain", 60, rules::subdomain),
    format("dns1035Label", "DNS1035Label", 30, dns_1035),
    format("qualifiedName", "QualifiedName", 60, rules::qualified),
    format("dns1123LabelPrefix", "DNS1123LabelPrefix", 30, |text| rules::label(&as_name(text))),
    format("dns1123SubdomainPrefix", "DNS1123SubdomainPrefix", 60, |text| rules::subdomain(&as_name(text))),
    format("dns1035LabelPrefix", "DNS1035LabelPrefix", 30, |text| dns_1035(&as_name(text))),
    format("labelValue", "LabelValue", 40, rules::label_value),
    format("uri", "URI", 1_103, |text| url::Url::parse(text).err().map(|why| format!("parse {text:?}: {why}"))),
    format("uuid", "uuid", 100, |text| unless(is_uuid(text), "does not match the UUID format")),
    format("byte", "byte", 84, |text| unless(is_base64(text), "invalid base64")),
    format("date", "date", 166, |text| unless(time::parse_date(text).is_some(), "invalid date")),
    format("datetime", "datetime", 166, |text| unless(time::parse_date_time(text).is_some(), "invalid datetime")),
];

pub const FUNCTIONS: &[Function] = &[
    Function {
        name: "format.named",
        overloads: &[call(&[String], Optional(&FORMAT))],
        price: Price::Nominal,
        run: |_, args| match args {
            [Value::String(name)] => match FORMATS.iter().find(|format| *format.key == **name) {
                Some(format) => Ok(Value::some(Value::Format(format))),
                None => Ok(Value::Optional(None)),
            },
            _ => no_such_overload(),
        },
    },
    Function {
        name: "validate",
        overloads: &[method(&[FORMAT, String], Optional(&STRINGS))],
        price: Price::Validate,
        run: |_, args| match args {
            [Value::Format(format), Value::String(text)] => Ok(match (format.problem)(text) {
                Some(problem) => Value::some(Value::list(vec![Value::text(problem)])),
                None => Value::Optional(None),
            }),
            _ => no_such_overload(),
        },
    },
];

const NO_ARGUMENTS: &[Overload] = &[call(&[], FORMAT)];

const fn constant(name: &'static str, run: super::Run) -> Function {
    Function { name, overloads: NO_ARGUMENTS, price: Price::Nominal, run }
}

/// Each format as a function without arguments.
pub const CONSTANTS: &[Function] = &[
    constant("format.dns1123Label", |_, _| Ok(Value::Format(&FORMATS[0]))),
    constant("format.dns1123Subdomain", |_, _| Ok(Value::Format(&FORMATS[1]))),
    constant("format.dns1035Label", |_, _| Ok(Value::Format(&FORMATS[2]))),
    constant("format.qualifiedName", |_, _| Ok(Value::Format(&FORMATS[3]))),
    constant("format.dns1123LabelPrefix", |_, _| Ok(Value::Format(&FORMATS[4]))),
    constant("format.dns1123SubdomainPrefix", |_, _| Ok(Value::Format(&FORMATS[5]))),
    constant("format.dns1035LabelPrefix", |_, _| Ok(Value::Format(&FORMATS[6]))),
    constant("format.labelValue", |_, _| Ok(Value::Format(&FORMATS[7]))),
    constant("format.uri", |_, _| Ok(Value::Format(&FORMATS[8]))),
    constant("format.uuid", |_, _| Ok(Value::Format(&FORMATS[9]))),
    constant("format.byte", |_, _| Ok(Value::Format(&FORMATS[10]))),
    constant("format.date", |_, _| Ok(Value::Format(&FORMATS[11]))),
    constant("format.datetime", |_, _| Ok(Value::Format(&FORMATS[12]))),
];

fn unless(good: bool, problem: &str) -> Option<std::string::String> {
    (!good).then(|| problem.to_owned())
}

fn dns_1035(text: &str) -> Option<std::string::String> {
    name_problem(NameRule::Dns1035, text)
}

/// A prefix may end with a hyphen, for a name goes on behind it.
fn as_name(prefix: &str) -> std::string::String {
    match prefix.strip_suffix('-') {
        Some(before) if !before.is_empty() => format!("{before}a"),
        _ => prefix.to_owned(),
    }
}

/// With or without hyphens.
fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = if text.contains('-') { text.split('-').collect() } else { vec![text] };
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') && matches!(lengths[..], [8, 4, 4, 4, 12] | [32])
}

fn is_base64(text: &str) -> bool {
    use base64::Engine as _;
    !text.is_empty() && base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}
