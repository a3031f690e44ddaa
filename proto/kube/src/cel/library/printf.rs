//! `"…".format([…])`: cel-go's formatting, version 2, in English.

use super::Sig::*;
use super::{Function, convert, method, number, strings};
use crate::cel::meter::Meter;
use crate::cel::price::Price;
use crate::cel::value::List as Values;
use crate::cel::value::{Fault, Map, Value, no_such_overload};

/// Digits behind the point: Go would print as many as it is told.
const PRECISION_MAX: usize = 1_000;
const PRECISION_DEFAULT: usize = 6;
const MADE_MAX_BYTES: usize = 16 << 20;

pub const FUNCTIONS: &[Function] = &[Function {
    name: "format",
    overloads: &[method(&[String, List(&Dyn)], String)],
    price: Price::Scan,
    run: |meter, args| match args {
        [Value::String(form), Value::List(values)] => format(meter, form, values).map(Value::text),
        _ => no_such_overload(),
    },
}];

/// What one clause of a format does with its argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clause {
    String,
    Decimal,
    Fixed(usize),
    Scientific(usize),
    Binary,
    Hex { upper: bool },
    Octal,
}

/// A format, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    Text(&'a str),
    Clause(Clause),
}

/// Why a format or an argument is no good.
type Problem = std::string::String;

pub fn pieces(form: &str) -> Result<Vec<Piece<'_>>, Problem> {
    let mut pieces = Vec::new();
    let mut rest = form;
    while let Some(at) = rest.find('%') {
        pieces.push(Piece::Text(&rest[..at]));
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            pieces.push(Piece::Text("%"));
            rest = after;
            continue;
        }
        if rest.is_empty() {
            return Err("unexpected end of string".to_owned());
        }
        let (clause, after) = clause(rest).map_err(|why| format!("could not parse formatting clause: {why}"))?;
        pieces.push(Piece::Clause(clause));
        rest = after;
    }
    pieces.push(Piece::Text(rest));
    Ok(pieces)
}

fn clause(text: &str) -> Result<(Clause, &str), Problem> {
    let (precision, rest) = match text.strip_prefix('.') {
        None => (PRECISION_DEFAULT, text),
        Some(after) => {
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            if digits == after.len() {
                return Err("error while parsing precision: could not find end of precision specifier".to_owned());
            }
            let precision = after[..digits].parse().ok().filter(|precision| *precision <= PRECISION_MAX);
            let precision = precision.ok_or_else(|| {
                format!(
                    "error while parsing precision: error while converting precision to integer: {:?}",
                    &after[..digits]
                )
            })?;
            (precision, &after[digits..])
        }
    };
    let letter = rest.chars().next().unwrap_or_default();
    let clause = match letter {
        's' => Clause::String,
        'd' => Clause::Decimal,
        'f' => Clause::Fixed(precision),
        'e' => Clause::Scientific(precision),
        'b' => Clause::Binary,
        'x' | 'X' => Clause::Hex { upper: letter == 'X' },
        'o' => Clause::Octal,
        _ => return Err(format!("unrecognized formatting clause \"{letter}\"")),
    };
    Ok((clause, &rest[letter.len_utf8()..]))
}

impl Clause {
    /// What may stand where, as errors say it.
    pub fn refusal(self, given: &str) -> Problem {
        let rule = match self {
            Clause::String => {
                "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, \
                 and timestamps"
            }
            Clause::Decimal => "decimal clause can only be used on integers",
            Clause::Fixed(_) => "fixed-point clause can only be used on doubles",
            Clause::Scientific(_) => "scientific clause can only be used on doubles",
            Clause::Binary => "only integers and bools can be formatted as binary",
            Clause::Hex { .. } => "only integers, byte buffers, and strings can be formatted as hex",
            Clause::Octal => "octal clause can only be used on integers",
        };
        format!("error during formatting: {rule}, was given {given}")
    }

    fn print(self, value: &Value<'_>) -> Result<Problem, Fault> {
        let refused = || Err(Fault::Raised(self.refusal(value.type_name()).into()));
        Ok(match (self, value) {
            (Clause::String, value) => return show(value, false).or_else(|fault| fault.map_or_else(refused, Err)),
            (Clause::Decimal, Value::Int(number)) => number.to_string(),
            (Clause::Decimal, Value::Uint(number)) => number.to_string(),
            (Clause::Fixed(precision), value) => match double(value) {
                Some(number) => fixed(number, precision),
                None => return refused(),
            },
            (Clause::Scientific(precision), value) => match double(value) {
                Some(number) => scientific(number, precision),
                None => return refused(),
            },
            (Clause::Binary, Value::Int(number)) => signed(*number, |n| format!("{n:b}")),
            (Clause::Binary, Value::Uint(number)) => format!("{number:b}"),
            (Clause::Binary, Value::Bool(value)) => u8::from(*value).to_string(),
            (Clause::Octal, Value::Int(number)) => signed(*number, |n| format!("{n:o}")),
            (Clause::Octal, Value::Uint(number)) => format!("{number:o}"),
            (Clause::Hex { upper }, value) => {
                let bytes = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                let hex: Problem = match value {
                    Value::Int(number) => signed(*number, |n| format!("{n:x}")),
                    Value::Uint(number) => format!("{number:x}"),
                    Value::String(text) => bytes(text.as_bytes()),
                    Value::Bytes(content) => bytes(content),
                    _ => return refused(),
                };
                if upper { hex.to_ascii_uppercase() } else { hex }
            }
            _ => return refused(),
        })
    }
}

fn format(meter: &mut Meter, form: &str, values: &Values<'_>) -> Result<Problem, Fault> {
    let pieces = pieces(form).map_err(|why| Fault::Raised(why.into()))?;
    let (mut out, mut next) = (Problem::new(), 0);
    for piece in pieces {
        let before = out.len();
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Clause(clause) => {
                let value =
                    values.get(next).ok_or_else(|| Fault::Raised(format!("index {next} out of range").into()))??;
                meter.work(value.size())?;
                out.push_str(&clause.print(&value)?);
                next += 1;
            }
        }
        meter.work((out.len() - before) as u64)?;
        if out.len() > MADE_MAX_BYTES {
            return Err(Fault::Exhausted);
        }
    }
    Ok(out)
}

/// The number, or one of the words that stand for what is none.
fn double(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Double(number) => Some(*number),
        Value::String(text) => match &**text {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

fn signed(number: i64, digits: impl Fn(u64) -> Problem) -> Problem {
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{}", digits(number.unsigned_abs()))
}

/// What is no number, in English.
fn sign_of(number: f64) -> Option<&'static str> {
    match number {
        n if n.is_nan() => Some("NaN"),
        n if n.is_infinite() => Some(if n > 0.0 { "\u{221e}" } else { "-\u{221e}" }),
        _ => None,
    }
}

/// With thousands set apart.
fn fixed(number: f64, precision: usize) -> Problem {
    if let Some(sign) = sign_of(number) {
        return sign.to_owned();
    }
    let text = format!("{number:.precision$}");
    let (sign, digits) = text.strip_prefix('-').map_or(("", &*text), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let mut grouped = Problem::from(sign);
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if !fraction.is_empty() {
        grouped.push('.');
        grouped.push_str(fraction);
    }
    grouped
}

/// `2.718280×10⁰⁰`.
fn scientific(number: f64, precision: usize) -> Problem {
    if let Some(sign) = sign_of(number) {
        return sign.to_owned();
    }
    let text = format!("{number:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let small = [
        '\u{2070}', '\u{b9}', '\u{b2}', '\u{b3}', '\u{2074}', '\u{2075}', '\u{2076}', '\u{2077}', '\u{2078}',
        '\u{2079}',
    ];
    let raised: Problem =
        format!("{:02}", exponent.abs()).bytes().map(|digit| small[usize::from(digit - b'0')]).collect();
    let sign = if exponent < 0 { "\u{207b}" } else { "" };
    format!("{digits}\u{d7}10{sign}{raised}")
}

/// A value as text; inside of lists and maps texts are quoted. The error is none where the value has no form at all.
fn show(value: &Value<'_>, inner: bool) -> Result<Problem, Option<Fault>> {
    Ok(match value {
        Value::Null => "null".to_owned(),
        Value::List(list) => {
            let items = list.iter().map(|item| show(&item?, true)).collect::<Result<Vec<_>, _>>()?;
            format!("[{}]", items.join(", "))
        }
        Value::Map(map) => show_map(map)?,
        Value::String(text) if inner => strings::quote(text),
        Value::Bytes(_) if inner => format!("b{}", strings::quote(&plain(value)?)),
        Value::Double(number) if inner => match number::word(*number) {
            Some(word) => strings::quote(word),
            None => format!("{number:.PRECISION_DEFAULT$}"),
        },
        Value::Timestamp(_) if inner => format!("timestamp({})", strings::quote(&plain(value)?)),
        Value::Duration(_) if inner => format!("duration({})", strings::quote(&plain(value)?)),
        Value::Ip(_) | Value::Cidr(_) => return Err(None),
        value => plain(value)?,
    })
}

fn show_map(map: &Map<'_>) -> Result<Problem, Option<Fault>> {
    let mut entries = Vec::new();
    for key in map.keys() {
        let key = key.value();
        if let Some(value) = map.get(&key)? {
            entries.push((show(&key, true)?, show(&value, true)?));
        }
    }
    entries.sort();
    let entries: Vec<Problem> = entries.into_iter().map(|(key, value)| format!("{key}:{value}")).collect();
    Ok(format!("{{{}}}", entries.join(", ")))
}

fn plain(value: &Value<'_>) -> Result<Problem, Option<Fault>> {
    match convert::text(value) {
        Ok(Value::String(text)) => Ok(text.to_string()),
        Err(fault) if matches!(value, Value::Bytes(_)) => Err(Some(fault)),
        _ => Err(None),
    }
}
