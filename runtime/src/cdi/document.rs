//! A CDI specification: one vendor's devices of one class. What is not known in it is an error, as its makers have it: a
//! device that is given in part is worse than none.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::name::{check_device, check_kind};

#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    #[error("is not a CDI specification: {0}")]
    Json(#[from] serde_json::Error),
    #[error("is not a CDI specification: {0}")]
    Yaml(String),
    #[error("cdiVersion {0:?} is not known")]
    Version(String),
    #[error("cdiVersion is {version:?}, and {what} is of {since}")]
    TooOld { version: String, what: &'static str, since: &'static str },
    #[error("kind {kind:?}: {why}")]
    Kind { kind: String, why: &'static str },
    #[error("device {name:?}: {why}")]
    Device { name: String, why: &'static str },
    #[error("has no devices")]
    NoDevices,
    #[error("{what} {value:?} {why}")]
    Edit { what: &'static str, value: String, why: &'static str },
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Document {
    pub cdi_version: String,
    pub kind: String,
    pub annotations: Option<BTreeMap<String, String>>,
    pub devices: Vec<Device>,
    /// Once for a container that has any of the devices.
    pub container_edits: Option<Edits>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Device {
    pub name: String,
    pub annotations: Option<BTreeMap<String, String>>,
    pub container_edits: Option<Edits>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Edits {
    pub env: Option<Vec<String>>,
    pub device_nodes: Option<Vec<DeviceNode>>,
    pub net_devices: Option<Vec<NetDevice>>,
    pub hooks: Option<Vec<Hook>>,
    pub mounts: Option<Vec<Mount>>,
    pub intel_rdt: Option<IntelRdt>,
    /// The specification's text spells it in both ways.
    #[serde(alias = "additionalGIDs")]
    pub additional_gids: Option<Vec<u32>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceNode {
    pub path: String,
    /// The same path where it is not said.
    pub host_path: Option<String>,
    /// `b`, `c`, `u` or `p`; what the host has where it is not said.
    pub r#type: Option<String>,
    pub major: Option<i64>,
    pub minor: Option<i64>,
    pub file_mode: Option<u32>,
    /// Of `rwm`, all of them where it is not said; or `none`.
    pub permissions: Option<String>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetDevice {
    pub host_interface_name: String,
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hook {
    pub hook_name: HookName,
    pub path: String,
    /// The first is what the program finds as its own name.
    pub args: Option<Vec<String>>,
    pub env: Option<Vec<String>>,
    /// Seconds.
    pub timeout: Option<u32>,
}

/// A hook that does not end would keep a pod from ever being removed.
const HOOK_SECONDS: u32 = 120;

impl Hook {
    /// How long it may take.
    pub fn seconds(&self) -> u32 {
        self.timeout.unwrap_or(HOOK_SECONDS)
    }
}

/// When a hook runs (OCI runtime-spec, config.md, POSIX-platform Hooks).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HookName {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl HookName {
    /// As the OCI configuration has it.
    pub fn as_str(self) -> &'static str {
        match self {
            HookName::Prestart => "prestart",
            HookName::CreateRuntime => "createRuntime",
            HookName::CreateContainer => "createContainer",
            HookName::StartContainer => "startContainer",
            HookName::Poststart => "poststart",
            HookName::Poststop => "poststop",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mount {
    pub host_path: String,
    pub container_path: String,
    pub options: Option<Vec<String>>,
    pub r#type: Option<String>,
}

/// Known so that a specification with it is a good one; nothing is made of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IntelRdt {
    #[serde(rename = "closID")]
    _clos_id: Option<String>,
    #[serde(rename = "l3CacheSchema")]
    _l3_cache_schema: Option<String>,
    #[serde(rename = "memBwSchema")]
    _mem_bw_schema: Option<String>,
    schemata: Option<Vec<String>>,
    enable_monitoring: Option<bool>,
    /// Both were there before 1.1.0.
    #[serde(rename = "enableCMT")]
    _enable_cmt: Option<bool>,
    #[serde(rename = "enableMBM")]
    _enable_mbm: Option<bool>,
}

/// Those that were released; none of before 0.3.0 has another form than that.
const VERSIONS: [&str; 10] = ["0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"];

/// How much the aliases of a YAML text may repeat.
const ALIASED_MAX_EVENTS: usize = 10_000;

/// Reads one that is written in JSON, or in YAML.
pub fn parse(text: &str, yaml: bool) -> Result<Document, DocumentError> {
    let document: Document = if yaml {
        let aliases = serde_saphyr::alias_limits! { max_total_replayed_events: ALIASED_MAX_EVENTS };
        // A mode is written as 0660.
        let options = serde_saphyr::options! { alias_limits: aliases, legacy_octal_numbers: true };
        serde_saphyr::from_str_with_options(text, options).map_err(|e| DocumentError::Yaml(e.to_string()))?
    } else {
        serde_json::from_str(text)?
    };
    check(&document)?;
    Ok(document)
}

fn check(document: &Document) -> Result<(), DocumentError> {
    let kind = &document.kind;
    check_kind(kind).map_err(|why| DocumentError::Kind { kind: kind.clone(), why })?;
    if document.devices.is_empty() {
        return Err(DocumentError::NoDevices);
    }
    let mut names = BTreeSet::new();
    for device in &document.devices {
        let bad = |why| DocumentError::Device { name: device.name.clone(), why };
        check_device(&device.name).map_err(bad)?;
        if !names.insert(&device.name) {
            return Err(bad("comes twice"));
        }
        if device.container_edits.as_ref().is_none_or(|edits| *edits == Edits::default()) {
            return Err(bad("changes nothing in a container"));
        }
    }
    all(document).try_for_each(Edits::check)?;
    check_version(document)
}

fn all(document: &Document) -> impl Iterator<Item = &Edits> {
    document.container_edits.iter().chain(document.devices.iter().filter_map(|device| device.container_edits.as_ref()))
}

/// A specification of an older version that has a newer one's fields was not written for what they mean.
fn check_version(document: &Document) -> Result<(), DocumentError> {
    let version = document.cdi_version.as_str();
    let place = |wanted: &str| VERSIONS.iter().position(|known| *known == wanted);
    let unknown = || DocumentError::Version(version.to_owned());
    let own = place(version.strip_prefix('v').unwrap_or(version)).ok_or_else(unknown)?;
    let some = |of: fn(&Edits) -> bool| all(document).any(of);
    let annotated = |of: &Option<BTreeMap<String, String>>| of.as_ref().is_some_and(|all| !all.is_empty());
    let newer = [
        ("a network device", "1.1.0", some(|e| e.net_devices.as_ref().is_some_and(|all| !all.is_empty()))),
        (
            "schemata or enableMonitoring of intelRdt",
            "1.1.0",
            some(|e| e.intel_rdt.as_ref().is_some_and(|r| r.schemata.is_some() || r.enable_monitoring == Some(true))),
        ),
        ("intelRdt", "0.7.0", some(|e| e.intel_rdt.is_some())),
        ("additionalGids", "0.7.0", some(|e| e.additional_gids.as_ref().is_some_and(|all| !all.is_empty()))),
        (
            "an annotation",
            "0.6.0",
            annotated(&document.annotations) || document.devices.iter().any(|device| annotated(&device.annotations)),
        ),
        ("a class with a dot", "0.6.0", document.kind.split_once('/').is_some_and(|(_, class)| class.contains('.'))),
        (
            "a device whose name starts with a digit",
            "0.5.0",
            document.devices.iter().any(|d| d.name.starts_with(|c: char| c.is_ascii_digit())),
        ),
        (
            "the host's path of a device",
            "0.5.0",
            some(|e| {
                e.device_nodes.iter().flatten().any(|n| n.host_path.as_ref().is_some_and(|path| !path.is_empty()))
            }),
        ),
        (
            "the type of a mount",
            "0.4.0",
            some(|e| e.mounts.iter().flatten().any(|m| m.r#type.as_ref().is_some_and(|kind| !kind.is_empty()))),
        ),
    ];
    match newer.into_iter().find(|(_, since, is_there)| *is_there && place(since) > Some(own)) {
        Some((what, since, _)) => Err(DocumentError::TooOld { version: version.to_owned(), what, since }),
        None => Ok(()),
    }
}

impl Edits {
    fn check(&self) -> Result<(), DocumentError> {
        let bad = |what, value: &str, why| DocumentError::Edit { what, value: value.to_owned(), why };
        let variables = |list: &Option<Vec<String>>, what| match list.iter().flatten().find(|e| !is_variable(e)) {
            Some(entry) => Err(bad(what, entry, "is not NAME=VALUE")),
            None => Ok(()),
        };
        variables(&self.env, "environment variable")?;
        for node in self.device_nodes.iter().flatten() {
            let of_path = |why| bad("device node", &node.path, why);
            if !is_plain_path(&node.path) {
                return Err(of_path("has a path that is not absolute and plain"));
            }
            if node.host_path.as_ref().is_some_and(|path| !path.is_empty() && !is_absolute(path)) {
                return Err(of_path("has a path on the host that is not absolute"));
            }
            if !["", "b", "c", "u", "p"].contains(&node.r#type.as_deref().unwrap_or_default()) {
                return Err(of_path("has a type that is none of b, c, u and p"));
            }
            let access = node.permissions.as_deref().unwrap_or_default();
            if access != "none" && !access.chars().all(|c| "rwm".contains(c)) {
                return Err(of_path("has permissions that are neither of rwm nor none"));
            }
            let is_number = |number: Option<i64>| u32::try_from(number.unwrap_or_default()).is_ok();
            if !is_number(node.major) || !is_number(node.minor) {
                return Err(of_path("has a number that is out of range"));
            }
        }
        for hook in self.hooks.iter().flatten() {
            if !is_absolute(&hook.path) {
                return Err(bad("hook", &hook.path, "has a path that is not absolute"));
            }
            if hook.timeout == Some(0) {
                return Err(bad("hook", &hook.path, "has a timeout that is not above zero"));
            }
            if hook.args.iter().flatten().any(|argument| argument.contains('\0')) {
                return Err(bad("hook", &hook.path, "has an argument with a zero byte"));
            }
            variables(&hook.env, "environment variable of a hook")?;
        }
        for mount in self.mounts.iter().flatten() {
            if mount.host_path.is_empty() || mount.host_path.contains('\0') {
                return Err(bad("mount", &mount.container_path, "has no path on the host"));
            }
            if !is_plain_path(&mount.container_path) {
                return Err(bad("mount", &mount.container_path, "has a path that is not absolute and plain"));
            }
        }
        let mut interfaces = BTreeSet::new();
        for device in self.net_devices.iter().flatten() {
            let (host, name) = (device.host_interface_name.as_str(), device.name.as_str());
            if host.is_empty() || name.is_empty() {
                return Err(bad("network device", host, "has an empty name"));
            }
            if !interfaces.insert(("host", host)) || !interfaces.insert(("container", name)) {
                return Err(bad("network device", host, "comes twice"));
            }
        }
        Ok(())
    }
}

fn is_variable(entry: &str) -> bool {
    entry.find('=').is_some_and(|at| at > 0) && !entry.contains('\0')
}

fn is_absolute(path: &str) -> bool {
    path.starts_with('/') && !path.contains('\0')
}

fn is_plain_path(path: &str) -> bool {
    let mut parts = path.split('/').filter(|part| !part.is_empty()).peekable();
    is_absolute(path) && parts.peek().is_some() && parts.all(|part| part != "." && part != "..")
}
