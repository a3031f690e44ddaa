//! URLs: Kubernetes' library. Read as Go's `net/url` reads requests: an absolute URI or an absolute path.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Sig::*;
use super::{Function, STRINGS, URL, call, method};
use crate::cel::price::Price;
use crate::cel::value::{Key, Outcome, Value, no_such_overload, raise};

const STRINGS_BY_NAME: super::Sig = Map(&String, &STRINGS);

/// The parts of a URL, as they were written but for the host, which is unescaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    scheme: std::string::String,
    host: std::string::String,
    escaped_path: std::string::String,
    query: std::string::String,
    /// All of it.
    text: std::string::String,
}

const GETTER: &[super::Overload] = &[method(&[URL], String)];

const fn getter(name: &'static str, run: super::Run) -> Function {
    Function { name, overloads: GETTER, price: Price::Nominal, run }
}

pub const FUNCTIONS: &[Function] = &[
    Function {
        name: "url",
        overloads: &[call(&[String], URL)],
        price: Price::Scan,
        run: |_, args| match args {
            [Value::String(text)] => match Url::parse(text) {
                Ok(url) => Ok(Value::Url(Arc::new(url))),
                Err(why) => raise(format!("URL parse error during conversion from string: parse {:?}: {why}", &**text)),
            },
            _ => no_such_overload(),
        },
    },
    Function {
        name: "isURL",
        overloads: &[call(&[String], Bool)],
        price: Price::Nominal,
        run: |_, args| match args {
            [Value::String(text)] => Ok(Value::Bool(Url::parse(text).is_ok())),
            _ => no_such_overload(),
        },
    },
    getter("getScheme", |_, args| part(args, |url| url.scheme.clone())),
    getter("getHost", |_, args| part(args, |url| url.host.clone())),
    getter("getHostname", |_, args| part(args, |url| host_and_port(&url.host).0.to_owned())),
    getter("getPort", |_, args| part(args, |url| host_and_port(&url.host).1.to_owned())),
    getter("getEscapedPath", |_, args| part(args, |url| url.escaped_path.clone())),
    Function {
        name: "getQuery",
        overloads: &[method(&[URL], STRINGS_BY_NAME)],
        price: Price::Nominal,
        run: |_, args| match args {
            [Value::Url(url)] => Ok(query(&url.query)),
            _ => no_such_overload(),
        },
    },
];

fn part<'a>(args: &[Value<'a>], part: fn(&Url) -> std::string::String) -> Outcome<'a> {
    match args {
        [Value::Url(url)] => Ok(Value::text(part(url))),
        _ => no_such_overload(),
    }
}

impl Url {
    pub fn parse(text: &str) -> Result<Url, &'static str> {
        if text.bytes().any(|b| b < b' ' || b == 0x7f) {
            return Err("net/url: invalid control character in URL");
        }
        if text.is_empty() {
            return Err("empty url");
        }
        let url = Url::read(text.split('#').next().unwrap_or_default(), text)?;
        // What a request says is read once more with its fragment, which belongs to the path or the query there.
        if text.contains('#') {
            Url::read(text, text)?;
        }
        Ok(url)
    }

    fn read(text: &str, whole: &str) -> Result<Url, &'static str> {
        let (scheme, rest) = scheme_of(text)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !rest.starts_with('/') {
            // `mailto:somebody`: opaque, and fine; without a scheme it leads nowhere.
            if scheme.is_empty() {
                return Err("invalid URI for request");
            }
            return Ok(Url {
                scheme,
                host: std::string::String::new(),
                escaped_path: std::string::String::new(),
                query: query.to_owned(),
                text: whole.to_owned(),
            });
        }
        let authority = if scheme.is_empty() && rest.starts_with("///") { None } else { rest.strip_prefix("//") };
        // A request without a scheme is a path, however it begins.
        let authority = if scheme.is_empty() { None } else { authority };
        let (authority, path) = match authority {
            Some(after) => after.split_at(after.find('/').unwrap_or(after.len())),
            None => ("", rest),
        };
        let host = authority_host(authority)?;
        unescape(path, Place::Path)?;
        Ok(Url { scheme, host, escaped_path: escape_path(path), query: query.to_owned(), text: whole.to_owned() })
    }
}

fn scheme_of(text: &str) -> Result<(std::string::String, &str), &'static str> {
    let Some(end) = text.find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c))) else {
        return Ok((std::string::String::new(), text));
    };
    if !text[end..].starts_with(':') {
        return Ok((std::string::String::new(), text));
    }
    if end == 0 {
        return Err("missing protocol scheme");
    }
    if !text.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Err("first path segment in URL cannot contain colon");
    }
    Ok((text[..end].to_ascii_lowercase(), &text[end + 1..]))
}

/// The host and its port, without who asks.
fn authority_host(authority: &str) -> Result<std::string::String, &'static str> {
    let host = match authority.rsplit_once('@') {
        Some((user, host)) => {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c);
            if !user.chars().all(allowed) {
                return Err("net/url: invalid userinfo");
            }
            unescape(user, Place::Path)?;
            host
        }
        None => authority,
    };
    if host.starts_with('[') {
        let end = host.rfind(']').ok_or("missing ']' in host")?;
        check_port(&host[end + 1..])?;
    } else if let Some(colon) = host.rfind(':') {
        check_port(&host[colon..])?;
        // Go takes one port and no more.
        if host[..colon].contains(':') {
            return Err("invalid port after host");
        }
    }
    unescape(host, Place::Host)
}

fn check_port(text: &str) -> Result<(), &'static str> {
    match text.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => Ok(()),
        None if text.is_empty() => Ok(()),
        _ => Err("invalid port after host"),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Path,
    Host,
    Query,
}

fn unescape(text: &str, place: Place) -> Result<std::string::String, &'static str> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let hex = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
                let (Some(high), Some(low)) = (hex(bytes.next()), hex(bytes.next())) else {
                    return Err("invalid URL escape");
                };
                out.push((high * 16 + low) as u8);
            }
            b'+' if place == Place::Query => out.push(b' '),
            b if place == Place::Host && b < 0x80 && !is_host_byte(b) => return Err("invalid character in host name"),
            b => out.push(b),
        }
    }
    Ok(std::string::String::from_utf8_lossy(&out).into_owned())
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:[]<>\"".contains(&byte)
}

/// As it was written, if that needs no further escapes.
fn escape_path(path: &str) -> std::string::String {
    let stays = |b: u8| b.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@%!'()*[]".contains(&b);
    if path.bytes().all(stays) {
        return path.to_owned();
    }
    let mut out = std::string::String::with_capacity(path.len() + 8);
    for byte in unescape(path, Place::Path).unwrap_or_default().bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn host_and_port(host: &str) -> (&str, &str) {
    let colon = host.rfind(':').filter(|colon| host[colon + 1..].bytes().all(|b| b.is_ascii_digit()));
    let (name, port) = colon.map_or((host, ""), |colon| (&host[..colon], &host[colon + 1..]));
    (name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name), port)
}

/// Every key with all its values. What cannot be unescaped is left out.
fn query<'a>(text: &str) -> Value<'a> {
    let mut values: BTreeMap<Key<'a>, Vec<Value<'a>>> = BTreeMap::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if let (Ok(key), Ok(value)) = (unescape(key, Place::Query), unescape(value, Place::Query)) {
            values.entry(Key::String(key.into())).or_default().push(Value::text(value));
        }
    }
    Value::map(values.into_iter().map(|(key, values)| (key, Value::list(values))).collect())
}
