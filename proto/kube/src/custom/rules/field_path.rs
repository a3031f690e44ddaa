//! The `fieldPath` of a rule: names of fields and keys below the place of the rule (`.spec.labels['a.b']`).

use crate::custom::structural::{Additional, Structural};

/// Why a path leads nowhere.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FieldPathError {
    #[error("expected [ or . but got: {0}")]
    Start(String),
    #[error("unexpected end of JSON path")]
    End,
    #[error("expected single quoted string but got {0}")]
    Unquoted(String),
    #[error("expected ] but got {0}")]
    Unclosed(String),
    #[error("invalid string literal: invalid escape char {0}")]
    Escape(String),
    #[error("does not refer to a valid field")]
    NoField,
}

/// The path as errors print it: `spec.labels[a.b]`.
pub(super) fn below(path: &str, schema: &Structural) -> Result<String, FieldPathError> {
    let (mut out, mut schema, mut rest) = (String::new(), schema, path);
    while !rest.is_empty() {
        let (name, after) = if let Some(after) = rest.strip_prefix('[') {
            let (name, after) = quoted(after)?;
            let closed = after.strip_prefix(']').ok_or_else(|| match after {
                "" => FieldPathError::End,
                _ => FieldPathError::Unclosed(word(after).to_owned()),
            })?;
            (name, closed)
        } else if let Some(after) = rest.strip_prefix('.') {
            let name = word(after);
            if name.is_empty() {
                return Err(FieldPathError::End);
            }
            (name.to_owned(), &after[name.len()..])
        } else {
            return Err(FieldPathError::Start(word(rest).to_owned()));
        };
        rest = after;
        schema = match &schema.additional {
            _ if !schema.properties.is_empty() => {
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(&name);
                schema.properties.get(&name).ok_or(FieldPathError::NoField)?
            }
            Additional::Schema(values) => {
                out.push_str(&format!("[{name}]"));
                values
            }
            _ => return Err(FieldPathError::NoField),
        };
    }
    Ok(out)
}

/// Up to the next delimiter; a delimiter by itself.
fn word(text: &str) -> &str {
    let end = text.find(['.', '[', ']']).unwrap_or(text.len());
    &text[..if end == 0 { text.len().min(1) } else { end }]
}

/// What stands between single quotes, unescaped, and what follows.
fn quoted(text: &str) -> Result<(String, &str), FieldPathError> {
    let Some(inner) = text.strip_prefix('\'') else {
        return Err(if text.is_empty() {
            FieldPathError::End
        } else {
            FieldPathError::Unquoted(word(text).to_owned())
        });
    };
    let mut out = String::new();
    let mut chars = inner.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' => return Ok((out, &inner[at + 1..])),
            '\\' => {
                let (_, escape) = chars.next().ok_or(FieldPathError::End)?;
                out.push(match escape {
                    'a' => '\u{7}',
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'v' => '\u{b}',
                    '\'' | '\\' => escape,
                    other => return Err(FieldPathError::Escape(format!("\\{other}"))),
                });
            }
            c => out.push(c),
        }
    }
    Err(FieldPathError::Unquoted(format!("'{inner}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_lead_to_fields_and_keys() {
        let schema = Structural::compile(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "a.b": {"type": "string"},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "list": {"type": "array", "items": {"type": "string"}},
            }},
        }}))
        .unwrap();
        for (path, expected) in [
            (".spec", Ok("spec")),
            (".spec.labels", Ok("spec.labels")),
            (".spec.labels['x.y']", Ok("spec.labels[x.y]")),
            (".spec.labels.x", Ok("spec.labels[x]")),
            ("['spec']['a.b']", Ok("spec.a.b")),
            (".spec.labels['it\\'s']", Ok("spec.labels[it's]")),
            ("spec", Err("expected [ or . but got: spec")),
            (".", Err("unexpected end of JSON path")),
            (".spec[0]", Err("expected single quoted string but got 0")),
            (".spec['a", Err("expected single quoted string but got 'a")),
            (".spec['labels'", Err("unexpected end of JSON path")),
            (".spec['labels'.", Err("expected ] but got .")),
            (".spec['\\q']", Err("invalid string literal: invalid escape char \\q")),
            (".none", Err("does not refer to a valid field")),
            (".spec.list.x", Err("does not refer to a valid field")),
        ] {
            let found = below(path, &schema).map_err(|error| error.to_string());
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{path}");
        }
    }
}
