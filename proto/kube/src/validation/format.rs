//! The forms that texts take in objects: names, ports, addresses, paths, environment variables. Each function answers why
//! a text is not of the form.

use std::net::IpAddr;

use serde_json::Value;

use super::at::{At, Errors};
use super::meta::{self, NameRule, name_problem};
use crate::FieldError;
use crate::selector::{is_label_key, is_label_value};

pub const PORT_LAST: i64 = 65_535;
pub const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const PORT_NAME_MAX_CHARS: usize = 15;
const CONFIG_KEY_MAX_CHARS: usize = 253;
const MODE_LAST: i64 = 0o777;
const DRIVER_NAME_MAX_BYTES: usize = 63;

type Problem = Option<String>;

fn unless(good: bool, why: &str) -> Problem {
    (!good).then(|| why.to_owned())
}

pub fn label(text: &str) -> Problem {
    name_problem(NameRule::Label, text)
}

pub fn dns_1035(text: &str) -> Problem {
    name_problem(NameRule::Dns1035, text)
}

pub fn subdomain(text: &str) -> Problem {
    name_problem(NameRule::Subdomain, text)
}

pub fn qualified(text: &str) -> Problem {
    unless(is_label_key(text), meta::QUALIFIED)
}

pub fn label_value(text: &str) -> Problem {
    if text.len() > meta::LABEL_NAME_MAX_BYTES {
        return Some(format!("must be no more than {} characters", meta::LABEL_NAME_MAX_BYTES));
    }
    unless(is_label_value(text), meta::LABEL_VALUE)
}

/// The name of a container's port, as the registry of services knows them.
pub fn port_name(text: &str) -> Problem {
    if text.len() > PORT_NAME_MAX_CHARS {
        return Some(format!("must be no more than {PORT_NAME_MAX_CHARS} characters"));
    }
    let bytes = text.as_bytes();
    let words = if !bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-') {
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"
    } else if !bytes.iter().any(u8::is_ascii_lowercase) {
        "must contain at least one letter (a-z)"
    } else if text.contains("--") {
        "must not contain consecutive hyphens"
    } else if text.starts_with('-') || text.ends_with('-') {
        "must not begin or end with a hyphen"
    } else {
        return None;
    };
    Some(words.to_owned())
}

pub fn env_name(text: &str) -> Problem {
    let good = text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=');
    unless(good, "a valid environment variable name must consist only of printable ASCII characters other than '='")
}

/// A key of a ConfigMap or a Secret: a file name.
pub fn config_key(text: &str) -> Problem {
    if text.len() > CONFIG_KEY_MAX_CHARS {
        return Some(format!("must be no more than {CONFIG_KEY_MAX_CHARS} characters"));
    }
    let good = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    let words = match text {
        _ if !good => {
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
             'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
        }
        "." => "must not be '.'",
        ".." => "must not be '..'",
        _ if text.starts_with("..") => "must not start with '..'",
        _ => return None,
    };
    Some(words.to_owned())
}

pub fn ip(text: &str) -> Problem {
    unless(text.parse::<IpAddr>().is_ok(), "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")
}

pub fn cidr(text: &str) -> Problem {
    let good = text.parse::<ipnet::IpNet>().is_ok();
    unless(good, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")
}

/// A range in the one form that it is printed in.
pub fn canonical_cidr(text: &str) -> Problem {
    if let Some(why) = cidr(text) {
        return Some(why);
    }
    let net = text.parse::<ipnet::IpNet>().ok()?;
    if let ipnet::IpNet::V6(v6) = net
        && v6.addr().to_ipv4_mapped().is_some()
    {
        return Some("must not have an IPv4-mapped IPv6 address".to_owned());
    }
    if net.addr() != net.network() {
        return Some("must not have bits set beyond the prefix length".to_owned());
    }
    let canonical = net.to_string();
    (canonical != text).then(|| format!("must be in canonical form ({canonical:?})"))
}

/// The name of a driver of storage or of devices.
pub fn driver_name(at: &At<'_>, errors: &mut Errors) {
    if !at.present(errors) {
        return;
    }
    if at.text().len() > DRIVER_NAME_MAX_BYTES {
        errors.push(FieldError::too_long(at.path.as_str(), DRIVER_NAME_MAX_BYTES));
    }
    at.optional_as(errors, |name| subdomain(&name.to_lowercase()));
}

/// An address that traffic of others can be sent to.
pub fn endpoint_ip(text: &str) -> Problem {
    let Ok(address) = text.parse::<IpAddr>() else { return ip(text) };
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    };
    let link_local_multicast = match address {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    };
    let words = if address.is_unspecified() {
        "may not be unspecified (0.0.0.0 or ::)"
    } else if address.is_loopback() {
        "may not be in the loopback range (127.0.0.0/8, ::1/128)"
    } else if link_local {
        "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
    } else if link_local_multicast {
        "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"
    } else {
        return None;
    };
    Some(words.to_owned())
}

/// A path below something, that does not climb out of it.
pub fn local_path(text: &str) -> Problem {
    if text.starts_with('/') {
        return Some("must be a relative path".to_owned());
    }
    no_climbing(text)
}

pub fn no_climbing(text: &str) -> Problem {
    unless(!text.split('/').any(|part| part == ".."), "must not contain '..'")
}

/// A path of a file that a volume makes: relative, and not among the names that the writer keeps for itself.
pub fn file_path(text: &str) -> Problem {
    local_path(text).or_else(|| unless(!text.starts_with(".."), "must not start with '..'"))
}

pub fn http_header(text: &str) -> Problem {
    let good = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    unless(
        good,
        "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for \
         validation is '[-A-Za-z0-9]+')",
    )
}

/// A port number, 1 to 65535.
pub fn port(at: &At<'_>, errors: &mut Errors) {
    if !at.int().is_some_and(|port| (1..=PORT_LAST).contains(&port)) {
        let value = if at.is_set() { at.value.clone() } else { Value::from(0) };
        let why = format!("must be between 1 and {PORT_LAST}, inclusive");
        errors.push(FieldError::invalid(at.path.as_str(), value, why));
    }
}

/// A port by number or by name.
pub fn port_or_name(at: &At<'_>, errors: &mut Errors) {
    match at.value {
        Value::String(name) => {
            if let Some(why) = port_name(name) {
                at.invalid(errors, why);
            }
        }
        _ => port(at, errors),
    }
}

/// The permission bits of a file.
pub fn mode(at: &At<'_>, errors: &mut Errors) {
    if at.int().is_some_and(|mode| !(0..=MODE_LAST).contains(&mode)) {
        at.invalid(errors, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

/// Labels anywhere in an object.
pub fn labels(at: &At<'_>, errors: &mut Errors) {
    for (key, value) in at.map().into_iter().flatten() {
        if let Some(why) = qualified(key) {
            errors.push(FieldError::invalid(at.path.as_str(), key.as_str(), why));
        }
        if let Some(why) = label_value(value.as_str().unwrap_or("")) {
            errors.push(FieldError::invalid(at.path.as_str(), value.clone(), why));
        }
    }
}

/// A percentage (`25%`) as its number.
pub fn percent(text: &str) -> Option<u64> {
    let digits = text.strip_suffix('%')?;
    let good = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    good.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// A number that is not negative, or a percentage.
pub fn count_or_percent(at: &At<'_>, errors: &mut Errors) {
    match at.value {
        Value::String(text) if percent(text).is_none() => at.invalid(
            errors,
            "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex \
             used for validation is '[0-9]+%')",
        ),
        _ => at.at_least_zero(errors),
    }
}
