//! How a property that is no identifier of CEL is named in expressions: `x-y` is `x__dash__y`, `namespace` is
//! `__namespace__`. Source: the Kubernetes documentation "Validation rules", on escaping of property names.

use super::parser::RESERVED;

const MARKS: [(&str, &str); 4] = [("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__")];
const KEYWORDS: [&str; 4] = ["true", "false", "null", "in"];

/// The name in expressions; None for a name that no expression can say.
pub fn escape(name: &str) -> Option<String> {
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if RESERVED.contains(&name) || KEYWORDS.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        if let Some((mark, escaped)) = MARKS.into_iter().find(|(mark, _)| rest.starts_with(mark)) {
            out.push_str(escaped);
            rest = &rest[mark.len()..];
        } else if c.is_ascii_alphanumeric() || c == '_' {
            out.push(c);
            rest = &rest[1..];
        } else {
            return None;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_as_documented() {
        for (name, escaped) in [
            ("name", Some("name")),
            ("_a1", Some("_a1")),
            ("namespace", Some("__namespace__")),
            ("in", Some("__in__")),
            ("x-prop", Some("x__dash__prop")),
            ("redact__d", Some("redact__underscores__d")),
            ("a.b/c", Some("a__dot__b__slash__c")),
            ("___", Some("__underscores___")),
            ("1a", None),
            ("", None),
            ("a b", None),
            ("é", None),
        ] {
            assert_eq!(escape(name).as_deref(), escaped, "{name}");
        }
    }
}
