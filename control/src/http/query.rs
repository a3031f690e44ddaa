//! The query string: decoded pairs. A parameter that means nothing to a verb is passed over, as in Kubernetes.

use std::num::IntErrorKind;

use gantry_kube::Status;
use percent_encoding::percent_decode_str;

/// The decoded parameters, in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    pub fn parse(text: &str) -> Query {
        let pairs = text
            .split('&')
            .filter(|pair| !pair.is_empty())
            .filter_map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                // As upstream: a pair that cannot be read is none.
                Some((decode(key)?, decode(value)?)).filter(|_| !pair.contains(';'))
            })
            .collect();
        Query { pairs }
    }

    /// The first value, if there is one that is not empty.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// The first value, though it may be empty.
    fn first(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// As Kubernetes reads it: whatever is neither `0` nor `false` is true, a bare `watch` with it.
    pub fn bool(&self, key: &str) -> Option<bool> {
        self.first(key).map(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }

    pub fn flag(&self, key: &str) -> bool {
        self.bool(key) == Some(true)
    }

    /// A whole number. What is none is refused in Go's words, which clients show.
    pub fn number(&self, key: &str) -> Result<Option<i64>, Status> {
        let Some(text) = self.first(key) else { return Ok(None) };
        text.parse().map(Some).map_err(|error: std::num::ParseIntError| {
            Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: {}", parse_words(&error)))
        })
    }
}

/// What Go says of the same number.
pub fn parse_words(error: &std::num::ParseIntError) -> &'static str {
    match error.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
        _ => "invalid syntax",
    }
}

fn decode(text: &str) -> Option<String> {
    if bad_escape(text).is_some() {
        return None;
    }
    let spaced = text.replace('+', " ");
    Some(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

/// The first `%` that no two hexadecimal digits follow, with what does.
pub fn bad_escape(text: &str) -> Option<&str> {
    let is_bad = |at: usize| !text.as_bytes()[at + 1..].iter().take(2).map(u8::is_ascii_hexdigit).eq([true, true]);
    let (at, _) = text.match_indices('%').find(|(at, _)| is_bad(*at))?;
    let end = text[at..].char_indices().nth(3).map_or(text.len(), |(length, _)| at + length);
    Some(&text[at..end])
}

pub fn decode_path_segment(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_kubernetes_reads_them() {
        let query = Query::parse("a&b=&c=0&d=FALSE&e=f&f=7&g=+7&h=x&i=99999999999999999999");
        let bools = ["a", "b", "c", "d", "e", "z"].map(|key| query.bool(key));
        assert_eq!(bools, [Some(true), Some(true), Some(false), Some(false), Some(true), None]);
        assert_eq!((query.number("f"), query.number("z")), (Ok(Some(7)), Ok(None)));
        for (key, words) in [
            ("b", "strconv.ParseInt: parsing \"\": invalid syntax"),
            ("g", "strconv.ParseInt: parsing \" 7\": invalid syntax"),
            ("h", "strconv.ParseInt: parsing \"x\": invalid syntax"),
            ("i", "strconv.ParseInt: parsing \"99999999999999999999\": value out of range"),
        ] {
            assert_eq!(query.number(key).unwrap_err().message, words);
        }
    }

    #[test]
    fn values_are_decoded() {
        let query = Query::parse("labelSelector=a%3Db%2Cc&x=1+2&command=a&command=b");
        assert_eq!(query.get("labelSelector"), Some("a=b,c"));
        assert_eq!(query.get("x"), Some("1 2"));
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["a", "b"]);
        let query = Query::parse("limit=%zz&%=1&a;b=2&c=%41");
        assert_eq!(query.pairs().collect::<Vec<_>>(), [("c", "A")]);
        assert_eq!(["/a%2Fb", "/a%2", "/%é", "/%zz/%"].map(bad_escape), [None, Some("%2"), Some("%é"), Some("%zz")]);
    }
}
