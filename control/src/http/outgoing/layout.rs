//! JSON laid out over lines: two blanks a level, a line for each member and item, as Go's `MarshalIndent` does it.

const INDENT: &[u8] = b"  ";
/// Deep lists of small numbers grow by more than a hundred times. What would become longer stays as it is.
const LAID_OUT_MAX_BYTES: usize = 256 << 20;

/// The same JSON over lines, or none where that would be too long.
pub fn over_lines(json: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut depth, mut at) = (Vec::with_capacity(json.len() * 2), 0usize, 0);
    while let Some(&byte) = json.get(at) {
        at += 1;
        match byte {
            b'"' => {
                let end = at + text_bytes(&json[at..]);
                out.extend_from_slice(&json[at - 1..end]);
                at = end;
            }
            b'{' | b'[' => {
                out.push(byte);
                let blanks = json[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
                match json.get(at + blanks) {
                    // What is empty stays on its line.
                    Some(close @ (b'}' | b']')) => {
                        out.push(*close);
                        at += blanks + 1;
                    }
                    _ => {
                        depth += 1;
                        line(&mut out, depth);
                    }
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            blank if blank.is_ascii_whitespace() => {}
            other => out.push(other),
        }
        if out.len() > LAID_OUT_MAX_BYTES {
            return None;
        }
    }
    Some(out)
}

fn line(out: &mut Vec<u8>, depth: usize) {
    out.push(b'\n');
    (0..depth).for_each(|_| out.extend_from_slice(INDENT));
}

/// How long a text is, its closing quote included, from behind the one that opens it.
fn text_bytes(json: &[u8]) -> usize {
    let mut at = 0;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    json.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn as_the_reference_lays_it_out() {
        let value = json!({"a": [], "b": {}, "c": [1, {"d": "x\"}{][,: \\"}], "e": {"f": null, "g": [[]]}});
        let expected = serde_json::to_string_pretty(&value).unwrap();
        for compact in [value.to_string(), format!("{expected}\n")] {
            assert_eq!(String::from_utf8(over_lines(compact.as_bytes()).unwrap()).unwrap(), expected);
        }
    }

    #[test]
    fn what_is_cut_off_or_would_be_too_long_does_no_harm() {
        for cut in ["\"a", "\"a\\", "{", "[1,", "]]]", ""] {
            assert!(over_lines(cut.as_bytes()).is_some(), "{cut}");
        }
        let deep = format!("{}{}{}", "[".repeat(5000), "1,".repeat(40_000), "]".repeat(5000));
        assert!(over_lines(deep.as_bytes()).is_none());
    }

    proptest::proptest! {
        #[test]
        fn it_says_the_same(texts in proptest::collection::vec(".*", 0..6)) {
            let value = json!({"list": texts, "map": {texts.concat(): [texts.len(), 1.5, true, null]}});
            let laid_out = over_lines(value.to_string().as_bytes()).unwrap();
            assert_eq!(String::from_utf8(laid_out.clone()).unwrap(), serde_json::to_string_pretty(&value).unwrap());
            assert_eq!(serde_json::from_slice::<Value>(&laid_out).unwrap(), value);
        }
    }
}
