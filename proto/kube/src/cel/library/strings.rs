//! The strings extension of cel-go, version 2, and the standard functions of texts. Positions count characters.

use super::Sig::*;
use super::{Function, LIST, MAP, STRINGS, call, lists, method};
use crate::cel::meter::Meter;
use crate::cel::price::Price;
use crate::cel::value::{Fault, List, Outcome, Text, Value, no_such_overload, raise};

/// What one call can make: more than any object has.
const MADE_MAX_BYTES: usize = 16 << 20;

pub const FUNCTIONS: &[Function] = &[
    Function {
        name: "size",
        overloads: &[
            call(&[Bytes], Int),
            method(&[Bytes], Int),
            call(&[LIST], Int),
            method(&[LIST], Int),
            call(&[MAP], Int),
            method(&[MAP], Int),
            call(&[String], Int),
            method(&[String], Int),
        ],
        price: Price::Nominal,
        run: |_, args| match args {
            [value @ (Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_))] => {
                Ok(Value::Int(value.size() as i64))
            }
            _ => no_such_overload(),
        },
    },
    Function {
        name: "contains",
        overloads: &[method(&[String, String], Bool)],
        price: Price::Contains,
        run: |_, args| two_texts(args, |text, part| text.contains(part)),
    },
    Function {
        name: "startsWith",
        overloads: &[method(&[String, String], Bool)],
        price: Price::Scan,
        run: |_, args| two_texts(args, |text, part| text.starts_with(part)),
    },
    Function {
        name: "endsWith",
        overloads: &[method(&[String, String], Bool)],
        price: Price::Scan,
        run: |_, args| two_texts(args, |text, part| text.ends_with(part)),
    },
    Function {
        name: "charAt",
        overloads: &[method(&[String, Int], String)],
        price: Price::Nominal,
        run: |_, args| match args {
            [Value::String(text), Value::Int(at)] => {
                let from = offset(text, *at).ok_or_else(|| out_of_range(*at))?;
                Ok(Value::text(text[from..].chars().take(1).collect::<std::string::String>()))
            }
            _ => no_such_overload(),
        },
    },
    Function {
        name: "indexOf",
        overloads: &[method(&[LIST, A], Int), method(&[String, String], Int), method(&[String, String, Int], Int)],
        price: Price::Traverse,
        run: |meter, args| match args {
            [Value::String(text), Value::String(part)] => Ok(Value::Int(index_of(text, part, 0))),
            [Value::String(_), Value::String(_), Value::Int(from)] if *from < 0 => Err(out_of_range(*from)),
            [Value::String(text), Value::String(part), Value::Int(from)] => Ok(Value::Int(index_of(text, part, *from))),
            [Value::List(list), value] => lists::position(meter, list, value, false),
            _ => no_such_overload(),
        },
    },
    Function {
        name: "lastIndexOf",
        overloads: &[method(&[LIST, A], Int), method(&[String, String], Int), method(&[String, String, Int], Int)],
        price: Price::Traverse,
        run: |meter, args| match args {
            [Value::String(text), Value::String(part)] => Ok(Value::Int(last_index_of(text, part, None))),
            [Value::String(_), Value::String(_), Value::Int(from)] if *from < 0 => Err(out_of_range(*from)),
            [Value::String(text), Value::String(part), Value::Int(from)] => {
                Ok(Value::Int(last_index_of(text, part, Some(*from))))
            }
            [Value::List(list), value] => lists::position(meter, list, value, true),
            _ => no_such_overload(),
        },
    },
    Function {
        name: "lowerAscii",
        overloads: &[method(&[String], String)],
        price: Price::Scan,
        run: |meter, args| one_text(meter, args, |text| text.to_ascii_lowercase()),
    },
    Function {
        name: "upperAscii",
        overloads: &[method(&[String], String)],
        price: Price::Scan,
        run: |meter, args| one_text(meter, args, |text| text.to_ascii_uppercase()),
    },
    Function {
        name: "trim",
        overloads: &[method(&[String], String)],
        price: Price::Scan,
        run: |_, args| match args {
            [Value::String(text)] => Ok(Value::String(part_of(text, text.trim()))),
            _ => no_such_overload(),
        },
    },
    Function {
        name: "strings.quote",
        overloads: &[call(&[String], String)],
        price: Price::Scan,
        run: |meter, args| one_text(meter, args, quote),
    },
    Function {
        name: "replace",
        overloads: &[method(&[String, String, String], String), method(&[String, String, String, Int], String)],
        price: Price::ScanTwice,
        run: |meter, args| match args {
            [Value::String(text), Value::String(old), Value::String(new)] => replace(meter, text, old, new, -1),
            [Value::String(text), Value::String(old), Value::String(new), Value::Int(limit)] => {
                replace(meter, text, old, new, *limit)
            }
            _ => no_such_overload(),
        },
    },
    Function {
        name: "split",
        overloads: &[method(&[String, String], STRINGS), method(&[String, String, Int], STRINGS)],
        price: Price::ScanTwice,
        run: |meter, args| match args {
            [Value::String(text), Value::String(separator)] => split(meter, text, separator, -1),
            [Value::String(text), Value::String(separator), Value::Int(limit)] => split(meter, text, separator, *limit),
            _ => no_such_overload(),
        },
    },
    Function {
        name: "substring",
        overloads: &[method(&[String, Int], String), method(&[String, Int, Int], String)],
        price: Price::Scan,
        run: |_, args| match args {
            [Value::String(text), Value::Int(from)] => {
                let from = offset(text, *from).ok_or_else(|| out_of_range(*from))?;
                Ok(Value::String(part_of(text, &text[from..])))
            }
            [Value::String(text), Value::Int(from), Value::Int(to)] => substring(text, *from, *to),
            _ => no_such_overload(),
        },
    },
    Function {
        name: "join",
        overloads: &[method(&[STRINGS], String), method(&[STRINGS, String], String)],
        price: Price::Join,
        run: |meter, args| match args {
            [Value::List(list)] => join(meter, list, ""),
            [Value::List(list), Value::String(separator)] => join(meter, list, separator),
            _ => no_such_overload(),
        },
    },
];

fn two_texts<'a>(args: &[Value<'a>], test: fn(&str, &str) -> bool) -> Outcome<'a> {
    match args {
        [Value::String(text), Value::String(part)] => Ok(Value::Bool(test(text, part))),
        _ => no_such_overload(),
    }
}

fn one_text<'a>(meter: &mut Meter, args: &[Value<'a>], make: fn(&str) -> std::string::String) -> Outcome<'a> {
    match args {
        [Value::String(text)] => {
            meter.work(text.len() as u64)?;
            Ok(Value::text(make(text)))
        }
        _ => no_such_overload(),
    }
}

fn out_of_range(index: i64) -> Fault {
    Fault::Raised(format!("index out of range: {index}").into())
}

/// Where a character begins, in bytes; the end is behind the last.
fn offset(text: &str, index: i64) -> Option<usize> {
    let index = usize::try_from(index).ok()?;
    if text.is_ascii() {
        return (index <= text.len()).then_some(index);
    }
    text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(index)
}

/// A part of a text, borrowed where the text is.
pub fn part_of<'a>(text: &Text<'a>, part: &str) -> Text<'a> {
    if let Text::Borrowed(whole) = text {
        let from = part.as_ptr() as usize - whole.as_ptr() as usize;
        if let Some(part) = whole.get(from..from + part.len()) {
            return Text::Borrowed(part);
        }
    }
    part.to_owned().into()
}

fn chars_before(text: &str, at: usize) -> i64 {
    text[..at].chars().count() as i64
}

fn index_of(text: &str, part: &str, from: i64) -> i64 {
    let Some(start) = offset(text, from) else {
        return if part.is_empty() { text.chars().count() as i64 } else { -1 };
    };
    text[start..].find(part).map_or(-1, |at| chars_before(text, start + at))
}

/// The last place at which the part begins, not behind `from`.
fn last_index_of(text: &str, part: &str, from: Option<i64>) -> i64 {
    let Some(from) = from else {
        return text.rfind(part).map_or(-1, |at| chars_before(text, at));
    };
    let Some(start) = offset(text, from).filter(|start| *start < text.len() || part.is_empty()) else {
        return if part.is_empty() { text.chars().count() as i64 } else { -1 };
    };
    let end = text.floor_char_boundary((start + part.len()).min(text.len()));
    let found = text[..end].rfind(part).filter(|at| *at <= start);
    found.map_or(-1, |at| chars_before(text, at))
}

fn substring<'a>(text: &Text<'a>, from: i64, to: i64) -> Outcome<'a> {
    if from > to {
        return raise(format!("invalid substring range. start: {from}, end: {to}"));
    }
    let first = offset(text, from).ok_or_else(|| out_of_range(from))?;
    let end = offset(text, to).ok_or_else(|| out_of_range(to))?;
    Ok(Value::String(part_of(text, &text[first..end])))
}

/// A text grows by so many bytes, if that does not make it too long.
fn grow(meter: &mut Meter, before: usize, by: Option<usize>) -> Result<(), Fault> {
    let by = by.filter(|by| before.saturating_add(*by) <= MADE_MAX_BYTES).ok_or(Fault::Exhausted)?;
    meter.work(by as u64)
}

fn replace<'a>(meter: &mut Meter, text: &str, old: &str, new: &str, limit: i64) -> Outcome<'a> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let count = text.matches(old).take(limit).count();
    let made = count.checked_mul(new.len()).and_then(|added| added.checked_add(text.len()));
    grow(meter, 0, made)?;
    Ok(Value::text(text.replacen(old, new, limit)))
}

fn split<'a>(meter: &mut Meter, text: &Text<'a>, separator: &str, limit: i64) -> Outcome<'a> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut parts = Vec::new();
    let mut push = |meter: &mut Meter, part: &str| {
        meter.work(size_of::<Value<'_>>() as u64 + part.len() as u64)?;
        parts.push(Value::String(part_of(text, part)));
        Ok::<(), Fault>(())
    };
    if limit == 0 {
    } else if separator.is_empty() {
        // Into characters; with a limit the last part is the rest.
        let mut rest = &**text;
        for taken in 1.. {
            let Some(first) = rest.chars().next() else { break };
            let (part, after) = rest.split_at(if taken == limit { rest.len() } else { first.len_utf8() });
            push(meter, part)?;
            rest = after;
        }
    } else {
        for part in text.splitn(limit, separator) {
            push(meter, part)?;
        }
    }
    Ok(Value::list(parts))
}

fn join<'a>(meter: &mut Meter, list: &List<'a>, separator: &str) -> Outcome<'a> {
    let mut out = std::string::String::new();
    for (index, item) in list.iter().enumerate() {
        let item = item?;
        let Value::String(text) = &item else { return raise(format!("join: invalid input: {item}")) };
        let separator = if index > 0 { separator } else { "" };
        grow(meter, out.len(), Some(separator.len() + text.len()))?;
        out.push_str(separator);
        out.push_str(text);
    }
    Ok(Value::text(out))
}

/// Quoted, with what does not print escaped.
pub fn quote(text: &str) -> std::string::String {
    let mut out = std::string::String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' | '"' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
