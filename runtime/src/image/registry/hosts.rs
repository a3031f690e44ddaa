//! Where a registry's images may be had: `hosts.toml`, as containerd's registry host configuration describes it
//! (`docs/hosts.md`). Pure; [`load`] finds and reads the files.
//!
//! ```text
//! server = "https://registry-1.docker.io"      asked last; the image's own registry where there is none
//! [host."https://mirror.example:5000"]         asked first, in the order of the file
//!   capabilities = ["pull", "resolve"]         all where nothing is said
//!   ca = "ca.pem"                              a file or a list of them; relative to the folder of hosts.toml
//!   client = [["client.cert", "client.key"]]   pairs, or files that hold both
//!   skip_verify = false
//!   override_path = true                       the URL's path is the whole root, without /v2 behind it
//!   dial_timeout = "3s"
//!   [host."https://mirror.example:5000".header]
//!     x-team = "red"                           a value or a list of them
//! ```
//!
//! The same keys at the top of the file are the server's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use toml::{Table, Value};

pub mod load;
#[cfg(test)]
mod tests;

/// Hosts of one file; each may be asked for every part of an image.
const HOSTS_MAX: usize = 32;
const SHOWN_MAX_CHARS: usize = 200;
/// What a request is made of, and no setting's to change.
const OWN_HEADERS: &[&str] = &["host", "connection", "content-length", "transfer-encoding", "range", "upgrade"];

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HostsError {
    #[error("line {line}: {message}")]
    Syntax { line: usize, message: String },
    #[error("{key:?} is not {wanted}")]
    Kind { key: String, wanted: &'static str },
    #[error("{0:?} is no capability (pull, resolve, push, referrers)")]
    Capability(String),
    #[error("{0:?} is no URL of a registry")]
    Url(String),
    #[error("{0:?} is no duration")]
    Duration(String),
    #[error("header {0:?} cannot be set")]
    Header(String),
    #[error("{0} hosts, more than {HOSTS_MAX}")]
    TooMany(usize),
}

/// What a file says, before it is known for which registry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostsFile {
    /// In the order in which they are asked.
    pub mirrors: Vec<(ApiRoot, Settings)>,
    /// None leaves the image's own registry.
    pub server: Option<ApiRoot>,
    pub server_settings: Settings,
}

/// Below which URL a host serves the distribution API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiRoot {
    pub plain: bool,
    pub authority: Authority,
    /// Empty, or a path that begins with a slash and ends without one: `/v2`.
    pub path: String,
}

/// How one host is spoken to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    pub capabilities: Capabilities,
    pub tls: TlsSettings,
    pub headers: HeaderMap,
    pub dial_timeout: Option<Duration>,
}

/// Those of them that a puller needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Serves manifests by digest, and blobs.
    pub pull: bool,
    /// Is believed what a tag stands for.
    pub resolve: bool,
}

impl Default for Capabilities {
    fn default() -> Capabilities {
        Capabilities { pull: true, resolve: true }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// Trusted besides those that every registry is checked by.
    pub ca_files: Vec<PathBuf>,
    pub clients: Vec<ClientPair>,
    pub skip_verify: Option<bool>,
}

impl TlsSettings {
    pub fn is_empty(&self) -> bool {
        *self == TlsSettings::default()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientPair {
    pub certificate: PathBuf,
    /// None: the key stands in the certificate's file.
    pub key: Option<PathBuf>,
}

/// A host that an image is asked of.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    pub root: ApiRoot,
    pub settings: Settings,
    /// The registry of the reference itself: credentials are for it alone, and it need not be told whose images are meant.
    pub own: bool,
}

/// The hosts of a registry, in the order in which they are asked. `domain` is its name in references, `endpoint` who
/// serves it; `plain` says that this one speaks no TLS where no setting wants it.
pub fn resolve(domain: &str, endpoint: &Authority, plain: bool, file: HostsFile) -> Vec<Host> {
    let HostsFile { mirrors, server, mut server_settings } = file;
    let server = server.unwrap_or_else(|| {
        // The keys at the top do not say what the image's own registry is able to do: it is all that it is.
        server_settings.capabilities = Capabilities::default();
        let plain = plain && server_settings.tls.is_empty();
        ApiRoot { plain, authority: endpoint.clone(), path: "/v2".to_owned() }
    });
    mirrors
        .into_iter()
        .chain([(server, server_settings)])
        .map(|(root, settings)| {
            let own = [domain, endpoint.as_str()].iter().any(|name| same_authority(&root, name));
            Host { root, settings, own }
        })
        .collect()
}

/// The default port may be left out of either.
fn same_authority(root: &ApiRoot, name: &str) -> bool {
    let default = if root.plain { ":80" } else { ":443" };
    let bare = |text: &str| text.strip_suffix(default).unwrap_or(text).to_ascii_lowercase();
    bare(root.authority.as_str()) == bare(name)
}

/// Reads a file; `folder` is where it lies.
pub fn parse(text: &str, folder: &Path) -> Result<HostsFile, HostsError> {
    // Of the library's error only the message and the place: the line that it would print may hold a header's secret.
    let document: Table = text.parse().map_err(|error: toml::de::Error| HostsError::Syntax {
        line: error.span().map_or(1, |span| 1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count()),
        message: shown(error.message()),
    })?;
    let mut mirrors = Vec::new();
    if let Some(hosts) = document.get("host") {
        let hosts = hosts.as_table().ok_or_else(|| kind("host", "a table"))?;
        if hosts.len() > HOSTS_MAX {
            return Err(HostsError::TooMany(hosts.len()));
        }
        for (url, table) in hosts {
            let table = table.as_table().ok_or_else(|| kind(url, "a table"))?;
            mirrors.push((api_root(url, override_path(table)?)?, settings(table, folder)?));
        }
    }
    let override_server_path = override_path(&document)?;
    let server = match document.get("server") {
        None => None,
        // As absent, where somebody writes it down.
        Some(Value::String(url)) if url.is_empty() => None,
        Some(Value::String(url)) => Some(api_root(url, override_server_path)?),
        Some(_) => return Err(kind("server", "a string")),
    };
    Ok(HostsFile { mirrors, server, server_settings: settings(&document, folder)? })
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_MAX_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn kind(key: &str, wanted: &'static str) -> HostsError {
    HostsError::Kind { key: shown(key), wanted }
}

fn override_path(table: &Table) -> Result<bool, HostsError> {
    match table.get("override_path") {
        None => Ok(false),
        Some(value) => value.as_bool().ok_or_else(|| kind("override_path", "true or false")),
    }
}

fn api_root(url: &str, override_path: bool) -> Result<ApiRoot, HostsError> {
    let wrong = || HostsError::Url(shown(url));
    // A `#` is no part of what the parser sees.
    if url.contains('#') {
        return Err(wrong());
    }
    let absolute = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
    let uri: Uri = absolute.parse().map_err(|_| wrong())?;
    let plain = match uri.scheme_str() {
        Some("http") => true,
        Some("https") => false,
        _ => return Err(wrong()),
    };
    let authority = uri.authority().ok_or_else(wrong)?.clone();
    // Credentials come with a pull, and a query would end up in the midst of a path.
    if authority.as_str().contains('@') || authority.host().is_empty() || uri.query().is_some() {
        return Err(wrong());
    }
    // `host:` and `host:99999` are authorities too.
    if authority.as_str() != authority.host() && authority.port_u16().is_none() {
        return Err(wrong());
    }
    let path = clean(uri.path());
    let path = if override_path || path.ends_with("/v2") { path } else { format!("{path}/v2") };
    Ok(ApiRoot { plain, authority, path })
}

/// A path without empty and dotted parts, and without a slash at its end.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.iter().flat_map(|part| ["/", part]).collect()
}

fn settings(table: &Table, folder: &Path) -> Result<Settings, HostsError> {
    let skip_verify = match table.get("skip_verify") {
        None => None,
        Some(value) => Some(value.as_bool().ok_or_else(|| kind("skip_verify", "true or false"))?),
    };
    let ca_files = match table.get("ca") {
        None => Vec::new(),
        Some(value) => strings(value, "ca")?.into_iter().map(|file| folder.join(file)).collect(),
    };
    let dial_timeout = match table.get("dial_timeout") {
        None => None,
        Some(Value::String(text)) if text.is_empty() => None,
        Some(Value::String(text)) => Some(duration(text).ok_or_else(|| HostsError::Duration(shown(text)))?),
        Some(_) => return Err(kind("dial_timeout", "a duration in quotes")),
    };
    Ok(Settings {
        capabilities: capabilities(table)?,
        tls: TlsSettings { ca_files, clients: clients(table, folder)?, skip_verify },
        headers: headers(table)?,
        dial_timeout,
    })
}

/// A string, or a list of them.
fn strings<'t>(value: &'t Value, key: &str) -> Result<Vec<&'t str>, HostsError> {
    let wrong = || kind(key, "a string or a list of strings");
    match value {
        Value::String(one) => Ok(vec![one]),
        Value::Array(list) => list.iter().map(|item| item.as_str().ok_or_else(wrong)).collect(),
        _ => Err(wrong()),
    }
}

/// An empty list says no more than none.
fn capabilities(table: &Table) -> Result<Capabilities, HostsError> {
    let named = match table.get("capabilities") {
        None => return Ok(Capabilities::default()),
        Some(Value::Array(named)) if named.is_empty() => return Ok(Capabilities::default()),
        Some(Value::Array(named)) => named,
        Some(_) => return Err(kind("capabilities", "a list of strings")),
    };
    let mut able = Capabilities { pull: false, resolve: false };
    for name in named {
        let name = name.as_str().ok_or_else(|| kind("capabilities", "a list of strings"))?;
        match name.to_ascii_lowercase().as_str() {
            "pull" => able.pull = true,
            "resolve" => able.resolve = true,
            "push" | "referrers" => {}
            _ => return Err(HostsError::Capability(shown(name))),
        }
    }
    Ok(able)
}

fn clients(table: &Table, folder: &Path) -> Result<Vec<ClientPair>, HostsError> {
    let wrong = || kind("client", "a file, a list of files, or a list of pairs of files");
    let both = |file: &str| ClientPair { certificate: folder.join(file), key: None };
    let list = match table.get("client") {
        None => return Ok(Vec::new()),
        Some(Value::String(file)) => return Ok(vec![both(file)]),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(wrong()),
    };
    list.iter()
        .map(|item| match item {
            Value::String(file) => Ok(both(file)),
            Value::Array(_) => match strings(item, "client")?[..] {
                [certificate, key] => {
                    Ok(ClientPair { certificate: folder.join(certificate), key: Some(folder.join(key)) })
                }
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        })
        .collect()
}

fn headers(table: &Table) -> Result<HeaderMap, HostsError> {
    let mut headers = HeaderMap::new();
    let Some(given) = table.get("header") else { return Ok(headers) };
    for (name, value) in given.as_table().ok_or_else(|| kind("header", "a table"))? {
        let wrong = || HostsError::Header(shown(name));
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
        if OWN_HEADERS.contains(&key.as_str()) {
            return Err(wrong());
        }
        for text in strings(value, name)? {
            // Whoever sets headers by hand may well set a secret.
            let mut value = HeaderValue::from_str(text).map_err(|_| wrong())?;
            value.set_sensitive(true);
            headers.try_append(key.clone(), value).map_err(|_| wrong())?;
        }
    }
    Ok(headers)
}

/// A duration as Go writes it (`time.ParseDuration`): `1m30s`, `1.5h`, `300ms`; none that is negative or none at all.
fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut seconds) = (text.strip_prefix('+').unwrap_or(text), 0.0_f64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let unit_end =
            rest[digits..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |at| digits + at);
        let unit = match &rest[digits..unit_end] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += rest[..digits].parse::<f64>().ok()? * unit;
        rest = &rest[unit_end..];
    }
    Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero())
}
