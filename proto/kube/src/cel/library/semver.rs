//! Versions by the rules of semver.org 2.0.0: Kubernetes' library.

use std::cmp::Ordering;
use std::sync::Arc;

use super::Sig::*;
use super::{Function, SEMVER, call, method};
use crate::cel::price::Price;
use crate::cel::value::{Outcome, Value, no_such_overload, raise};

/// No version is longer.
const TEXT_MAX_BYTES: usize = 1_024;

/// A version; what stands behind a plus is checked, and says nothing of the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Semver {
    numbers: [u64; 3],
    pre: Vec<Pre>,
}

/// One identifier of a pre-release: numbers come before words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pre {
    Number(u64),
    Word(std::string::String),
}

pub const FUNCTIONS: &[Function] = &[
    Function {
        name: "semver",
        overloads: &[call(&[String], SEMVER), call(&[String, Bool], SEMVER)],
        price: Price::Scan,
        run: |_, args| match parsed(args) {
            Some(Ok(version)) => Ok(Value::Semver(Arc::new(version))),
            Some(Err(why)) => raise(why),
            None => no_such_overload(),
        },
    },
    Function {
        name: "isSemver",
        overloads: &[call(&[String], Bool), call(&[String, Bool], Bool)],
        price: Price::Scan,
        run: |_, args| parsed(args).map_or_else(no_such_overload, |parsed| Ok(Value::Bool(parsed.is_ok()))),
    },
    Function {
        name: "major",
        overloads: &[method(&[SEMVER], Int)],
        price: Price::Nominal,
        run: |_, args| number(args, 0),
    },
    Function {
        name: "minor",
        overloads: &[method(&[SEMVER], Int)],
        price: Price::Nominal,
        run: |_, args| number(args, 1),
    },
    Function {
        name: "patch",
        overloads: &[method(&[SEMVER], Int)],
        price: Price::Nominal,
        run: |_, args| number(args, 2),
    },
];

fn parsed(args: &[Value<'_>]) -> Option<Result<Semver, &'static str>> {
    Some(match args {
        [Value::String(text)] | [Value::String(text), Value::Bool(false)] => Semver::parse(text),
        [Value::String(text), Value::Bool(true)] => normalized(text).and_then(|text| Semver::parse(&text)),
        _ => return None,
    })
}

fn number<'a>(args: &[Value<'a>], index: usize) -> Outcome<'a> {
    match args {
        [Value::Semver(version)] => Ok(Value::Int(version.numbers[index] as i64)),
        _ => no_such_overload(),
    }
}

impl Semver {
    pub fn parse(text: &str) -> Result<Semver, &'static str> {
        if text.is_empty() {
            return Err("Version string empty");
        }
        if text.len() > TEXT_MAX_BYTES {
            return Err("Version string too long");
        }
        let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
        let (core, pre) = text.split_once('-').map_or((text, None), |(core, pre)| (core, Some(pre)));
        let mut parts = core.split('.');
        let mut numbers = [0; 3];
        for number in &mut numbers {
            *number = plain_number(parts.next().ok_or("No Major.Minor.Patch elements found")?)?;
        }
        if parts.next().is_some() {
            return Err("Invalid character(s) found in patch number");
        }
        if let Some(build) = build {
            build.split('.').try_for_each(|part| {
                if is_identifier(part) { Ok(()) } else { Err("Build meta data is empty or invalid") }
            })?;
        }
        let pre = pre.map_or(Ok(Vec::new()), |pre| pre.split('.').map(Pre::parse).collect())?;
        Ok(Semver { numbers, pre })
    }
}

impl Pre {
    fn parse(text: &str) -> Result<Pre, &'static str> {
        if !is_identifier(text) {
            return Err("Prerelease is empty or has invalid characters");
        }
        if !text.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(Pre::Word(text.to_owned()));
        }
        plain_number(text).map(Pre::Number)
    }
}

impl Ord for Semver {
    /// A version comes after its pre-releases.
    fn cmp(&self, other: &Semver) -> Ordering {
        let released = self.pre.is_empty().cmp(&other.pre.is_empty());
        self.numbers.cmp(&other.numbers).then(released).then_with(|| self.pre.cmp(&other.pre))
    }
}

impl PartialOrd for Semver {
    fn partial_cmp(&self, other: &Semver) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn plain_number(text: &str) -> Result<u64, &'static str> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err("Invalid character(s) found in version number");
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err("Version number must not contain leading zeroes");
    }
    text.parse().map_err(|_| "Version number is too large")
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// A `v` in front, leading zeros and missing numbers are mended.
fn normalized(text: &str) -> Result<std::string::String, &'static str> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts: Vec<std::string::String> = Vec::with_capacity(3);
    for part in text.splitn(3, '.') {
        let trimmed = part.trim_start_matches('0');
        let needs_digit = !trimmed.starts_with(|c: char| c.is_ascii_digit());
        parts.push(if part.len() > 1 && needs_digit {
            format!("0{trimmed}")
        } else if part.len() > 1 {
            trimmed.to_owned()
        } else {
            part.to_owned()
        });
    }
    if parts.len() < 3 && parts.last().is_some_and(|last| last.contains(['+', '-'])) {
        return Err("short version cannot contain PreRelease/Build meta data");
    }
    parts.resize(3, "0".to_owned());
    Ok(parts.join("."))
}
