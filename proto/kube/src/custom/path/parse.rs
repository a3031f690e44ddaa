//! The text of paths.

use serde_json::Value;

use super::{Filter, Operand, Operator, Step};

/// Brackets and filters within one another.
const DEPTH_MAX: usize = 16;

pub(super) fn steps(path: &str) -> Result<Vec<Step>, String> {
    let rest = path.strip_prefix(['$', '@']).unwrap_or(path);
    steps_below(rest, 0)
}

fn steps_below(path: &str, depth: usize) -> Result<Vec<Step>, String> {
    if depth > DEPTH_MAX {
        return Err(format!("brackets more than {DEPTH_MAX} deep"));
    }
    let mut steps = Vec::new();
    let mut rest = path;
    let mut first = true;
    while !rest.is_empty() {
        if let Some(below) = rest.strip_prefix("..") {
            steps.push(Step::Descend);
            // A name may follow at once.
            rest = field(below, &mut steps)?;
        } else if let Some(below) = rest.strip_prefix('.') {
            rest = field(below, &mut steps)?;
        } else if let Some(inner) = rest.strip_prefix('[') {
            let end = closing(inner).ok_or("unterminated array")?;
            steps.push(bracket(&inner[..end], depth)?);
            rest = &inner[end + 1..];
        } else if first {
            rest = field(rest, &mut steps)?;
        } else {
            let unknown = rest.chars().next().unwrap_or_default();
            return Err(format!("unrecognized character in action: {unknown:?}"));
        }
        first = false;
    }
    Ok(steps)
}

/// A name, up to the next dot or bracket. A backslash takes what follows for a letter.
fn field<'a>(text: &'a str, steps: &mut Vec<Step>) -> Result<&'a str, String> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    let mut end = text.len();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => {
                end = at;
                break;
            }
            ']' | '{' | '}' | ' ' | '\t' | '\n' | '\r' => {
                return Err(format!("unrecognized character in action: {c:?}"));
            }
            c => name.push(c),
        }
    }
    match name.as_str() {
        "" => {}
        "*" => steps.push(Step::All),
        _ => steps.push(Step::Field(name)),
    }
    Ok(&text[end..])
}

/// Where the bracket that is open closes; those in quotes are letters.
fn closing(text: &str) -> Option<usize> {
    let (mut open, mut quote, mut escaped) = (0usize, None, false);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (_, '\\') => escaped = true,
            (Some(own), c) if own == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => open += 1,
            (None, ']') if open == 0 => return Some(at),
            (None, ']') => open -= 1,
            _ => {}
        }
    }
    None
}

fn bracket(inner: &str, depth: usize) -> Result<Step, String> {
    let inner = inner.trim();
    if let Some(filter) = inner.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        return Ok(Step::Filter(Box::new(self::filter(filter, depth)?)));
    }
    let parts = split(inner, ',');
    if parts.len() > 1 {
        let part = |part: &&str| steps_below(&format!("[{part}]"), depth + 1);
        return Ok(Step::Union(parts.iter().map(part).collect::<Result<_, _>>()?));
    }
    match inner {
        "*" => Ok(Step::All),
        "" => Err("invalid array index".to_owned()),
        _ => match quoted(inner) {
            Some(name) => Ok(Step::Field(name)),
            None => items(inner),
        },
    }
}

/// Parts between separators that stand in no quotes and brackets.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start, mut quote, mut escaped) = (Vec::new(), 0, None, false);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (_, '\\') => escaped = true,
            (Some(own), c) if own == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, c) if c == separator => {
                parts.push(text[start..at].trim());
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

fn quoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|c| *c == '\'' || *c == '"')?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    Some(unescape(inner))
}

pub(super) fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => plain.extend(chars.next()),
            c => plain.push(c),
        }
    }
    plain
}

fn items(text: &str) -> Result<Step, String> {
    let wrong = || format!("invalid array index {text}");
    let number = |part: &str| match part.trim() {
        "" => Ok(None),
        part => part.parse::<i64>().map(Some).map_err(|_| wrong()),
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (start, end, step) = match parts.as_slice() {
        [one] => (number(one)?, None, None),
        [start, end] => (number(start)?, number(end)?, None),
        [start, end, step] => (number(start)?, number(end)?, number(step)?),
        _ => return Err(wrong()),
    };
    let step = step.unwrap_or(1);
    if step <= 0 {
        return Err("step must be > 0".to_owned());
    }
    Ok(Step::Items { start, end, step, single: parts.len() == 1 })
}

fn filter(text: &str, depth: usize) -> Result<Filter, String> {
    const OPERATORS: [(&str, Operator); 6] = [
        ("==", Operator::Equal),
        ("!=", Operator::Unequal),
        ("<=", Operator::LessOrEqual),
        (">=", Operator::GreaterOrEqual),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ];
    let (mut quote, mut escaped) = (None, false);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (_, '\\') => escaped = true,
            (Some(own), c) if own == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, _) => {
                if let Some((sign, operator)) = OPERATORS.iter().find(|(sign, _)| text[at..].starts_with(sign)) {
                    let left = operand(&text[..at], depth)?;
                    let right = operand(&text[at + sign.len()..], depth)?;
                    return Ok(Filter { left, test: Some((*operator, right)) });
                }
            }
        }
    }
    Ok(Filter { left: operand(text, depth)?, test: None })
}

fn operand(text: &str, depth: usize) -> Result<Operand, String> {
    let text = text.trim();
    if let Some(path) = text.strip_prefix('@') {
        return Ok(Operand::Path { of_item: true, steps: steps_below(path, depth + 1)? });
    }
    if let Some(path) = text.strip_prefix('$') {
        return Ok(Operand::Path { of_item: false, steps: steps_below(path, depth + 1)? });
    }
    if let Some(text) = quoted(text) {
        return Ok(Operand::Literal(Value::from(text)));
    }
    let literal = match text {
        "true" => Some(Value::from(true)),
        "false" => Some(Value::from(false)),
        number => serde_json::from_str::<Value>(number).ok().filter(Value::is_number),
    };
    literal.map(Operand::Literal).ok_or_else(|| format!("{text:?} is neither a path nor a value"))
}

/// The delimiters `.`, `[` and `]`, and what stands between them; what is in single quotes is one.
pub(super) fn tokens(path: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = path;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '.' | '[' | ']' => 1,
            '\'' => {
                let bytes = rest.as_bytes();
                let end = (1..bytes.len()).find(|at| bytes[*at] == b'\'' && bytes[at - 1] != b'\\');
                end.map_or(rest.len(), |at| at + 1)
            }
            _ => rest.find(['.', '[', ']']).unwrap_or(rest.len()),
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token);
        rest = after;
    }
    tokens
}
