//! JSON laid out over lines: two blanks a level, a line for each member and item, as Go's `MarshalIndent` does it.

use bytes::Bytes;

const INDENT: &[u8] = b"  ";

/// Where in the JSON we are. It comes in pieces, which may end anywhere.
#[derive(Default)]
pub struct Layout {
    depth: usize,
    /// A list or map was opened, and nothing has come of it yet: what is empty stays on its line.
    opened: bool,
    in_text: bool,
    escaped: bool,
}

impl Layout {
    /// The next piece, laid out.
    pub fn push(&mut self, json: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(json.len() * 2);
        for byte in json {
            if self.in_text {
                out.push(*byte);
                self.in_text = self.escaped || *byte != b'"';
                self.escaped = !self.escaped && *byte == b'\\';
            } else if !byte.is_ascii_whitespace() {
                self.token(*byte, &mut out);
            }
        }
        out.into()
    }

    fn token(&mut self, byte: u8, out: &mut Vec<u8>) {
        let closes = matches!(byte, b'}' | b']');
        match (std::mem::take(&mut self.opened), closes) {
            (true, false) => {
                self.depth += 1;
                self.line(out);
            }
            (false, true) => {
                self.depth = self.depth.saturating_sub(1);
                self.line(out);
            }
            (true, true) | (false, false) => {}
        }
        out.push(byte);
        match byte {
            b'"' => self.in_text = true,
            b'{' | b'[' => self.opened = true,
            b',' => self.line(out),
            b':' => out.push(b' '),
            _ => {}
        }
    }

    fn line(&self, out: &mut Vec<u8>) {
        out.push(b'\n');
        (0..self.depth).for_each(|_| out.extend_from_slice(INDENT));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn laid_out<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> String {
        let mut layout = Layout::default();
        String::from_utf8(pieces.flat_map(|piece| layout.push(piece)).collect()).unwrap()
    }

    #[test]
    fn as_the_reference_lays_it_out() {
        let value = json!({"a": [], "b": {}, "c": [1, {"d": "x\"}{][,: \\"}], "e": {"f": null, "g": [[]]}});
        let expected = serde_json::to_string_pretty(&value).unwrap();
        for compact in [value.to_string(), format!("{expected}\n")] {
            assert_eq!(laid_out(std::iter::once(compact.as_bytes())), expected);
        }
    }

    #[test]
    fn what_is_no_json_does_no_harm() {
        for cut in ["\"a", "\"a\\", "{", "[1,", "]]]", "", "}{"] {
            laid_out(std::iter::once(cut.as_bytes()));
        }
    }

    proptest! {
        #[test]
        fn it_says_the_same_in_whatever_pieces(texts in prop::collection::vec(".*", 0..6), piece in 1usize..20) {
            let value = json!({"list": texts, "map": {texts.concat(): [texts.len(), 1.5, true, null]}, "none": {}});
            let compact = value.to_string();
            prop_assert_eq!(laid_out(compact.as_bytes().chunks(piece)), serde_json::to_string_pretty(&value).unwrap());
        }
    }
}
