//! The formats that texts and numbers may be of. Those that Kubernetes does not know say nothing (`format` in the documentation of
//! structural schemas), and neither do those of another type than the value's.

mod net;

use std::net::Ipv6Addr;
use std::sync::OnceLock;

use crate::custom::pattern::Pattern;
use crate::custom::structural::JsonType;
use crate::validation::meta::NameRule;
use crate::validation::meta::{is_subdomain, name_problem};

pub(in crate::custom) use net::is_request_uri;
use net::{is_cidr, is_email, is_hostname, is_ipv4, is_mac};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::custom) enum Format {
    Int32,
    Int64,
    Float,
    Double,
    BsonObjectId,
    Uri,
    Email,
    Hostname,
    Ipv4,
    Ipv6,
    Cidr,
    Mac,
    /// With the digit that tells the version, where one is asked for.
    Uuid(Option<char>),
    Isbn,
    Isbn10,
    Isbn13,
    CreditCard,
    Ssn,
    HexColor,
    RgbColor,
    Byte,
    Password,
    Date,
    Duration,
    DateTime,
    ShortName,
    LongName,
}

/// The format by its name, where a value of these types can be of it. Dashes in names are passed over.
pub(in crate::custom) fn known(types: &[JsonType], name: &str) -> Option<Format> {
    if name.is_empty() {
        return None;
    }
    match types {
        [JsonType::Integer] => match name {
            "int32" => Some(Format::Int32),
            "int64" => Some(Format::Int64),
            _ => None,
        },
        [JsonType::Number] => match name {
            "float" => Some(Format::Float),
            "double" => Some(Format::Double),
            _ => None,
        },
        [JsonType::Object | JsonType::Array | JsonType::Boolean] => None,
        _ => of_texts(&name.replace('-', "")),
    }
}

fn of_texts(name: &str) -> Option<Format> {
    Some(match name {
        "bsonobjectid" => Format::BsonObjectId,
        "uri" => Format::Uri,
        "email" => Format::Email,
        "hostname" => Format::Hostname,
        "ipv4" => Format::Ipv4,
        "ipv6" => Format::Ipv6,
        "cidr" => Format::Cidr,
        "mac" => Format::Mac,
        "uuid" => Format::Uuid(None),
        "uuid3" => Format::Uuid(Some('3')),
        "uuid4" => Format::Uuid(Some('4')),
        "uuid5" => Format::Uuid(Some('5')),
        "isbn" => Format::Isbn,
        "isbn10" => Format::Isbn10,
        "isbn13" => Format::Isbn13,
        "creditcard" => Format::CreditCard,
        "ssn" => Format::Ssn,
        "hexcolor" => Format::HexColor,
        "rgbcolor" => Format::RgbColor,
        "byte" => Format::Byte,
        "password" => Format::Password,
        "date" => Format::Date,
        "duration" => Format::Duration,
        "datetime" => Format::DateTime,
        "k8sshortname" => Format::ShortName,
        "k8slongname" => Format::LongName,
        _ => return None,
    })
}

impl Format {
    pub(super) fn is_of_texts(self) -> bool {
        !matches!(self, Format::Int32 | Format::Int64 | Format::Float | Format::Double)
    }

    pub(super) fn is_kept_by(self, text: &str) -> bool {
        match self {
            Format::Int32 | Format::Int64 | Format::Float | Format::Double | Format::Password => true,
            Format::BsonObjectId => text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit()),
            Format::Uri => is_request_uri(text),
            Format::Email => is_email(text),
            Format::Hostname => is_hostname(text),
            Format::Ipv4 => is_ipv4(text),
            Format::Ipv6 => text.parse::<Ipv6Addr>().is_ok(),
            Format::Cidr => is_cidr(text),
            Format::Mac => is_mac(text),
            Format::Uuid(version) => is_uuid(text, version),
            Format::Isbn => is_isbn10(text) || is_isbn13(text),
            Format::Isbn10 => is_isbn10(text),
            Format::Isbn13 => is_isbn13(text),
            Format::CreditCard => is_credit_card(text),
            Format::Ssn => text.len() == 11 && matches(r"^\d{3}[- ]?\d{2}[- ]?\d{4}$", &SSN, text),
            Format::HexColor => {
                let digits = text.strip_prefix('#').unwrap_or(text);
                matches!(digits.len(), 3 | 6) && digits.bytes().all(|b| b.is_ascii_hexdigit())
            }
            Format::RgbColor => is_rgb_color(text),
            Format::Byte => is_base64(text),
            Format::Date => is_date(text),
            Format::Duration => is_duration(text),
            Format::DateTime => is_date_time(text),
            Format::ShortName => name_problem(NameRule::Label, text).is_none(),
            Format::LongName => is_subdomain(text),
        }
    }
}

static SSN: OnceLock<Option<Pattern>> = OnceLock::new();
static CARD: OnceLock<Option<Pattern>> = OnceLock::new();
static TIME: OnceLock<Option<Pattern>> = OnceLock::new();

fn matches(pattern: &str, compiled: &OnceLock<Option<Pattern>>, text: &str) -> bool {
    compiled.get_or_init(|| Pattern::compile(pattern).ok()).as_ref().is_some_and(|pattern| pattern.is_match(text))
}

/// Thirty-two digits; each of the four dashes may be left out.
fn is_uuid(text: &str, version: Option<char>) -> bool {
    let mut rest = text;
    let mut groups = Vec::with_capacity(5);
    for (index, length) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if index > 0 {
            rest = rest.strip_prefix('-').unwrap_or(rest);
        }
        let Some((group, after)) = rest.split_at_checked(length) else { return false };
        if !group.bytes().all(|b| b.is_ascii_hexdigit()) {
            return false;
        }
        groups.push(group);
        rest = after;
    }
    let fits = match version {
        None => true,
        Some('3') => groups[2].starts_with('3'),
        Some(version) => groups[2].starts_with(version) && groups[3].starts_with(['8', '9', 'a', 'b', 'A', 'B']),
    };
    rest.is_empty() && fits
}

fn is_isbn10(text: &str) -> bool {
    let plain: String = text.chars().filter(|c| !c.is_ascii_whitespace() && *c != '-').collect();
    let digits = plain.strip_suffix('X').unwrap_or(&plain);
    if plain.len() != 10 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return false;
    }
    let value = |byte: u8| if byte == b'X' { 10 } else { u32::from(byte - b'0') };
    plain.bytes().zip(1..).map(|(byte, place)| value(byte) * place).sum::<u32>().is_multiple_of(11)
}

fn is_isbn13(text: &str) -> bool {
    let plain: String = text.chars().filter(|c| !c.is_ascii_whitespace() && *c != '-').collect();
    if plain.len() != 13 || !plain.bytes().all(|b| b.is_ascii_digit()) {
        return false;
    }
    let weights = [1u32, 3].into_iter().cycle();
    plain.bytes().zip(weights).map(|(byte, weight)| u32::from(byte - b'0') * weight).sum::<u32>().is_multiple_of(10)
}

fn is_credit_card(text: &str) -> bool {
    const PATTERN: &str = r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35\d{3})\d{11})$";
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    if !matches(PATTERN, &CARD, &digits) {
        return false;
    }
    // Every second digit from the right counts twice (Luhn).
    let counted = |(place, byte): (usize, u8)| {
        let digit = u32::from(byte - b'0') * if place % 2 == 1 { 2 } else { 1 };
        if digit > 9 { digit - 9 } else { digit }
    };
    digits.bytes().rev().enumerate().map(counted).sum::<u32>().is_multiple_of(10)
}

fn is_rgb_color(text: &str) -> bool {
    let Some(parts) = text.strip_prefix("rgb(").and_then(|rest| rest.strip_suffix(')')) else { return false };
    let parts: Vec<&str> = parts.split(',').map(str::trim_ascii).collect();
    let good = |part: &&str| {
        part.bytes().all(|b| b.is_ascii_digit())
            && (part.len() == 1 || !part.starts_with('0'))
            && part.parse::<u8>().is_ok()
    };
    parts.len() == 3 && parts.iter().all(good)
}

/// In the standard alphabet, padded, and not empty.
fn is_base64(text: &str) -> bool {
    let plain = text.strip_suffix("==").or_else(|| text.strip_suffix('=')).unwrap_or(text);
    let is_digit = |b: u8| b.is_ascii_alphanumeric() || b == b'+' || b == b'/';
    !text.is_empty() && text.len().is_multiple_of(4) && plain.len() >= text.len() - 2 && plain.bytes().all(is_digit)
}

fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_digit = |at: usize| bytes[at].is_ascii_digit();
    bytes.len() == 10
        && [0, 1, 2, 3, 5, 6, 8, 9].into_iter().all(is_digit)
        && bytes[4] == b'-'
        && bytes[7] == b'-'
        && text.parse::<jiff::civil::Date>().is_ok()
}

fn is_date_time(text: &str) -> bool {
    const PATTERN: &str = r"^([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$";
    let text = text.to_lowercase();
    let mut parts = text.split('t');
    let (Some(date), Some(time)) = (parts.next(), parts.next()) else { return false };
    if !is_date(date) || !matches(PATTERN, &TIME, time) {
        return false;
    }
    &time[..2] <= "23" && &time[3..5] <= "59" && &time[6..8] <= "59"
}

const UNITS: [&[&str]; 8] = [
    &["ns", "nano"],
    &["us", "µs", "micro"],
    &["ms", "milli"],
    &["s", "sec"],
    &["m", "min"],
    &["h", "hr", "hour"],
    &["d", "day"],
    &["w", "wk", "week"],
];

/// As Go reads durations (`1h30m`), or words of them (`2 days`).
fn is_duration(text: &str) -> bool {
    is_go_duration(text) || has_duration_words(text)
}

fn is_go_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let number_length = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (number, after) = rest.split_at(number_length);
        if number.matches('.').count() > 1 || !number.bytes().any(|b| b.is_ascii_digit()) {
            return false;
        }
        let unit_length = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_length);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return false,
        };
        // No longer than 64 bits of nanoseconds can tell.
        if number.parse::<f64>().is_ok_and(|number| number * seconds > i64::MAX as f64 / 1e9) {
            return false;
        }
        rest = after;
    }
    true
}

/// Whether there is a number with a unit behind it anywhere.
fn has_duration_words(text: &str) -> bool {
    let mut found = false;
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let number = &rest[start..];
        let length = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
        let after = number[length..].trim_start_matches([' ', '\t', '\n', '\r', '\x0c']);
        let unit_length = after.find(|c: char| !c.is_ascii_alphabetic() && c != 'µ').unwrap_or(after.len());
        let unit = after[..unit_length].to_lowercase();
        rest = &after[unit_length..];
        if unit.is_empty() {
            continue;
        }
        if number[..length].parse::<i64>().is_err() {
            return false;
        }
        let is_of = |variants: &&[&str]| {
            variants.contains(&unit.as_str()) || variants.last().is_some_and(|last| unit.starts_with(last))
        };
        found |= UNITS.iter().any(is_of);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_knows_its_own() {
        let all: [(&str, &[&str], &[&str]); 25] = [
            ("bsonobjectid", &["507f1f77bcf86cd799439011"], &["507f", "x07f1f77bcf86cd799439011"]),
            (
                "uri",
                &["http://a.b/c?d=e", "/a/b", "mailto:a@b", "https://[::1]:80/", "http://u:p@h:1"],
                &["a/b", "", ":x", "http://h:port", "/%zz"],
            ),
            (
                "email",
                &["a@b", "a.b+c@d.e", "A B <a@b.c>", "\"q q\"@b.c", "\"A, B\" <a@b>"],
                &["a", "a@", "@b", "a b@c", "a..b@c", "<a@b"],
            ),
            (
                "hostname",
                &["a", "a-b", "my-own-host.com", "1.example.org", "é.com"],
                &["", "-a", "a_b", "a..b", "a.1", "a.b-", "ab-c", "a.-b.com"],
            ),
            ("ipv4", &["1.2.3.4", "01.2.3.4", "::ffff:1.2.3.4"], &["1.2.3", "1.2.3.256", "::1"]),
            ("ipv6", &["::1", "fe80::1", "::ffff:1.2.3.4"], &["1.2.3.4", ":::", "fe80::1%eth0"]),
            ("cidr", &["10.0.0.0/8", "010.0.0.0/8", "fd00::/8"], &["10.0.0.0", "10.0.0.0/33", "a/8", "10.0.0.0/+8"]),
            (
                "mac",
                &["01:23:45:67:89:ab", "01-23-45-67-89-ab-cd-ef", "0123.4567.89ab"],
                &["01:23:45:67:89", "01:23-45:67:89:ab", "0g:23:45:67:89:ab"],
            ),
            (
                "uuid",
                &["123e4567-e89b-12d3-a456-426614174000", "123E4567E89B12D3A456426614174000"],
                &["123e4567-e89b-12d3-a456", "123e4567-e89b-12d3-a456-42661417400g"],
            ),
            ("uuid3", &["123e4567-e89b-32d3-0456-426614174000"], &["123e4567-e89b-42d3-a456-426614174000"]),
            ("uuid4", &["123e4567-e89b-42d3-a456-426614174000"], &["123e4567-e89b-42d3-c456-426614174000"]),
            ("uuid5", &["123e4567-e89b-52d3-8456-426614174000"], &["123e4567-e89b-42d3-a456-426614174000"]),
            ("isbn", &["0321751043", "978-0321751041"], &["0321751044"]),
            ("isbn10", &["0-8044-2957-X"], &["978-0321751041", "X321751043"]),
            ("isbn13", &["978-0321751041"], &["9780321751042", "0321751043"]),
            ("creditcard", &["4111 1111 1111 1111", "5500-0000-0000-0004"], &["4111111111111112", "1234"]),
            ("ssn", &["111-11-1111", "111 11 1111"], &["111111111", "111-111-111"]),
            ("hexcolor", &["#fff", "FFFFFF"], &["#ffff", "#ggg"]),
            ("rgbcolor", &["rgb(0, 10,255)"], &["rgb(256,0,0)", "rgb(00,0,0)", "rgb(1,2)"]),
            ("byte", &["aGVsbG8=", "aGk+"], &["", "aGVsbG8", "a===", "aGV*"]),
            ("date", &["2024-02-29"], &["2023-02-29", "2024-2-29", "20240229"]),
            ("duration", &["1h30m", "-1.5s", "0", "2 days", "3w"], &["", "1", "h", "1x"]),
            (
                "date-time",
                &["2024-01-02T03:04:05Z", "2024-01-02t03:04:05.678+02:00"],
                &["2024-01-02", "2024-01-02T24:04:05Z", "2024-01-02 03:04:05Z"],
            ),
            ("k8s-short-name", &["a-b"], &["a.b", "A", ""]),
            ("k8s-long-name", &["a.b"], &["a_b", "-a"]),
        ];
        for (name, good, bad) in all {
            let format = known(&[JsonType::String], name).unwrap_or_else(|| panic!("{name} is known"));
            for text in good {
                assert!(format.is_kept_by(text), "{name} {text:?}");
            }
            for text in bad {
                assert!(!format.is_kept_by(text), "{name} {text:?}");
            }
        }
    }

    #[test]
    fn formats_are_of_their_types() {
        assert_eq!(known(&[JsonType::Integer], "int32"), Some(Format::Int32));
        assert_eq!(known(&[JsonType::Integer], "double"), None);
        assert_eq!(known(&[JsonType::String], "int32"), None);
        assert_eq!(known(&[], "date"), Some(Format::Date));
        assert_eq!(known(&[JsonType::Object], "date"), None);
    }
}
