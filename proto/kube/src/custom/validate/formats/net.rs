//! Names, addresses and URIs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::OnceLock;

use super::matches;
use crate::custom::pattern::Pattern;

const HOSTNAME_MAX_BYTES: usize = 255;
const LABEL_MAX_BYTES: usize = 63;

static LABEL: OnceLock<Option<Pattern>> = OnceLock::new();
static LETTERS: OnceLock<Option<Pattern>> = OnceLock::new();

/// Labels of letters, digits and symbols of any script, the last of letters alone; or one label, whose only dash is its second
/// character (both are what Kubernetes takes).
pub(super) fn is_hostname(text: &str) -> bool {
    let is_label = |text: &str| matches(r"^[a-zA-Z0-9\p{S}\p{L}-]+$", &LABEL, text);
    let without_dashes = |text: &str| !text.contains('-');
    let is_edged = |label: &str| !label.starts_with('-') && !label.ends_with('-');
    if text.len() > HOSTNAME_MAX_BYTES || text.split('.').any(|label| label.len() > LABEL_MAX_BYTES || !is_label(label))
    {
        return false;
    }
    match text.rsplit_once('.') {
        None => {
            let mut rest = text.chars();
            let first = rest.next();
            let rest = rest.as_str();
            first != Some('-') && without_dashes(rest.strip_prefix('-').unwrap_or(rest))
        }
        Some((before, last)) => {
            before.split('.').all(is_edged) && last.chars().count() >= 2 && matches(r"^[a-zA-Z\p{L}]+$", &LETTERS, last)
        }
    }
}

/// Leading zeros are passed over, as they were once.
fn without_zeros(text: &str) -> String {
    let trimmed = |part: &str| match part.trim_start_matches('0') {
        "" if !part.is_empty() => "0".to_owned(),
        rest => rest.to_owned(),
    };
    let parts: Vec<String> = text.split('.').map(trimmed).collect();
    parts.join(".")
}

pub(super) fn is_ipv4(text: &str) -> bool {
    without_zeros(text).parse::<Ipv4Addr>().is_ok() || text.contains('.') && text.parse::<Ipv6Addr>().is_ok()
}

pub(super) fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let address = address.parse::<IpAddr>().or_else(|_| without_zeros(address).parse::<Ipv4Addr>().map(IpAddr::V4));
    let most = match address {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
    digits && length.parse::<u8>().is_ok_and(|length| length <= most)
}

/// 6, 8 or 20 bytes: in pairs of digits between colons or dashes, or in fours between dots.
pub(super) fn is_mac(text: &str) -> bool {
    let groups_of = |separator: char, digits: usize, counts: [usize; 3]| {
        let groups: Vec<&str> = text.split(separator).collect();
        let good = |group: &&str| group.len() == digits && group.bytes().all(|b| b.is_ascii_hexdigit());
        counts.contains(&groups.len()) && groups.iter().all(good)
    };
    groups_of(':', 2, [6, 8, 20]) || groups_of('-', 2, [6, 8, 20]) || groups_of('.', 4, [3, 4, 10])
}

/// An absolute URI, or an absolute path (RFC 3986, as Go's `ParseRequestURI` reads it).
pub(in crate::custom) fn is_request_uri(text: &str) -> bool {
    if text.is_empty() || text.bytes().any(|b| b < b' ' || b == 0x7f) {
        return false;
    }
    if text == "*" {
        return true;
    }
    let Some((scheme, rest)) = scheme(text) else { return false };
    let (rest, _) = rest.split_once('?').unwrap_or((rest, ""));
    if !rest.starts_with('/') {
        return !scheme.is_empty();
    }
    let (authority, path) = match rest.strip_prefix("//").filter(|_| !scheme.is_empty() || !rest.starts_with("///")) {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None => ("", rest),
    };
    is_authority(authority) && is_escaped(path)
}

/// The scheme (which may be missing) and what is behind it; None where there is a colon and no scheme before it.
fn scheme(text: &str) -> Option<(&str, &str)> {
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' if at > 0 => return Some((&text[..at], &text[at + 1..])),
            b':' => return None,
            _ => return Some(("", text)),
        }
    }
    Some(("", text))
}

fn is_escaped(text: &str) -> bool {
    let mut parts = text.split('%');
    parts.next();
    parts.all(|part| part.len() >= 2 && part.bytes().take(2).all(|b| b.is_ascii_hexdigit()))
}

fn is_authority(text: &str) -> bool {
    let (user, host) = text.rsplit_once('@').unwrap_or(("", text));
    let is_user = |b: u8| b.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&b);
    if !user.bytes().all(is_user) || !is_escaped(user) {
        return false;
    }
    let is_port =
        |port: &str| port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()));
    if let Some(bracketed) = host.strip_prefix('[') {
        return bracketed.rsplit_once(']').is_some_and(|(_, port)| is_port(port));
    }
    let (name, port) = host.split_at(host.rfind(':').unwrap_or(host.len()));
    let is_host = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]<>\"%".contains(&b) || b >= 0x80;
    is_port(port) && name.bytes().all(is_host) && is_escaped(name)
}

/// An address by itself, or behind a name and in angle brackets (RFC 5322, as Go's `ParseAddress` reads it).
pub(super) fn is_email(text: &str) -> bool {
    let text = text.trim_matches([' ', '\t']);
    if is_address(text) {
        return true;
    }
    let Some((name, address)) = text.strip_suffix('>').and_then(|rest| rest.rsplit_once('<')) else { return false };
    is_phrase(name.trim_matches([' ', '\t'])) && is_address(address)
}

fn is_address(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let is_literal = |domain: &str| {
        domain
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .is_some_and(|inner| inner.parse::<IpAddr>().is_ok())
    };
    (is_dot_atom(local) || is_quoted(local)) && (is_dot_atom(domain) || is_literal(domain))
}

fn is_atom_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || !c.is_ascii()
}

fn is_dot_atom(text: &str) -> bool {
    text.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atom_char))
}

fn is_quoted(text: &str) -> bool {
    let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return false };
    let mut escaped = false;
    let good = inner.chars().all(|c| {
        let good = if escaped { c >= ' ' || c == '\t' } else { c != '"' && (c >= ' ' || c == '\t') };
        escaped = !escaped && c == '\\';
        good
    });
    good && !escaped && !inner.is_empty()
}

/// Words, quoted or not, before an address.
fn is_phrase(text: &str) -> bool {
    if text.is_empty() || is_quoted(text) {
        return true;
    }
    text.split([' ', '\t'])
        .all(|word| word.is_empty() || is_quoted(word) || word.chars().all(|c| is_atom_char(c) || c == '.'))
}
