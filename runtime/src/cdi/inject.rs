//! What a container is given: edits put together, and filled in with what the host has.

use std::collections::BTreeMap;
use std::io;

use gantry_base::launch::Volume;

use super::CdiError;
use super::document::{DeviceNode, Edits, Hook, HookName, Mount};
use super::name::Name;
use super::resolve::Wanted;
use crate::container::spec::Device;

/// Each is a descriptor until it is in place.
const MOUNTS_MAX: usize = 512;
const NODES_MAX: usize = 4096;
const HOOKS_MAX: usize = 256;

/// A node of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostNode {
    /// `c`, `b` or `p`
    pub kind: char,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
}

/// What is known of the container and of the host.
pub struct Facts<'a> {
    /// Its pod has users of its own.
    pub own_users: bool,
    /// Who runs in it, as far as that is said by number: whose its devices are.
    pub user: (Option<u32>, Option<u32>),
    /// The node at a path of the host, and no link's.
    pub node: &'a dyn Fn(&str) -> io::Result<HostNode>,
    /// Whether something is at a path of the host.
    pub exists: &'a dyn Fn(&str) -> bool,
}

/// A path of the host that is seen in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    pub volume: Volume,
    /// MOUNT_ATTR_* of mount_setattr(2).
    pub attributes: u64,
    /// Without what is mounted below it.
    pub shallow: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tmpfs {
    pub destination: String,
    pub source: String,
    pub options: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Injection {
    pub env: Vec<(String, String)>,
    pub devices: Vec<Device>,
    pub binds: Vec<Bind>,
    pub tmpfs: Vec<Tmpfs>,
    pub hooks: Vec<Hook>,
    pub gids: Vec<u32>,
}

impl Injection {
    /// Some hooks change the container's root from outside, before the container is in it, and expect its mounts there.
    pub fn early(&self) -> bool {
        use HookName::{CreateContainer, CreateRuntime, Prestart};
        self.hooks.iter().any(|hook| matches!(hook.hook_name, Prestart | CreateRuntime | CreateContainer))
    }
}

pub fn inject(wanted: &[Wanted<'_>], facts: &Facts<'_>) -> Result<Injection, CdiError> {
    let mut all = Injection::default();
    let mut nodes = BTreeMap::new();
    let mut mounts = BTreeMap::new();
    for (name, edits) in wanted {
        refuse(name, edits)?;
        for entry in edits.env.iter().flatten() {
            let (variable, value) = entry.split_once('=').unwrap_or((entry, ""));
            all.env.retain(|(known, _)| known != variable);
            all.env.push((variable.to_owned(), value.to_owned()));
        }
        for node in edits.device_nodes.iter().flatten() {
            let device = device(name, node, facts)?;
            nodes.insert(device.path.clone(), device);
        }
        for mount in edits.mounts.iter().flatten() {
            let mount = Placed::new(name, mount, facts)?;
            mounts.insert(mount.destination().to_owned(), mount);
        }
        for hook in edits.hooks.iter().flatten() {
            check_hook(name, hook, facts)?;
            all.hooks.push(hook.clone());
        }
        // Zero stands for none.
        let gids = edits.additional_gids.iter().flatten().filter(|gid| **gid != 0);
        for gid in gids {
            if !all.gids.contains(gid) {
                all.gids.push(*gid);
            }
        }
    }
    let bound = |what, count, most| if count > most { Err(CdiError::TooMany { what, count, most }) } else { Ok(()) };
    bound("device nodes", nodes.len(), NODES_MAX)?;
    bound("mounts", mounts.len(), MOUNTS_MAX)?;
    bound("hooks", all.hooks.len(), HOOKS_MAX)?;
    all.devices = nodes.into_values().collect();
    for mount in mounts.into_values() {
        match mount {
            Placed::Bind(bind) => all.binds.push(bind),
            Placed::Tmpfs(tmpfs) => all.tmpfs.push(tmpfs),
        }
    }
    Ok(all)
}

fn unsupported(name: &Name, what: String) -> CdiError {
    CdiError::Unsupported { device: name.to_string(), what }
}

fn of_host(name: &Name, why: String) -> CdiError {
    CdiError::Host { device: name.to_string(), why }
}

/// What a container would be without is not left out silently.
fn refuse(name: &Name, edits: &Edits) -> Result<(), CdiError> {
    if edits.intel_rdt.is_some() {
        return Err(unsupported(name, "intelRdt (a class of service of the processor)".to_owned()));
    }
    match edits.net_devices.iter().flatten().next() {
        Some(device) => Err(unsupported(name, format!("the host's network device {:?}", device.host_interface_name))),
        None => Ok(()),
    }
}

fn check_hook(name: &Name, hook: &Hook, facts: &Facts<'_>) -> Result<(), CdiError> {
    let (kind, path) = (hook.hook_name.as_str(), &hook.path);
    if facts.own_users {
        return Err(of_host(name, format!("its {kind} hook {path:?} cannot run for a pod that has users of its own")));
    }
    if hook.hook_name != HookName::StartContainer && !(facts.exists)(path) {
        return Err(of_host(name, format!("its {kind} hook {path:?} is not on this host")));
    }
    Ok(())
}

fn device(name: &Name, node: &DeviceNode, facts: &Facts<'_>) -> Result<Device, CdiError> {
    let path = node.path.as_str();
    if !path.starts_with("/dev/") {
        return Err(unsupported(name, format!("a device node outside of /dev, {path:?}")));
    }
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let source = given(&node.host_path).unwrap_or_else(|| path.to_owned());
    let kind =
        given(&node.r#type).and_then(|kind| kind.chars().next()).map(|kind| if kind == 'u' { 'c' } else { kind });
    let number = |number: Option<i64>| u32::try_from(number.unwrap_or_default()).unwrap_or_default();
    let (mut major, mut minor) = (number(node.major), number(node.minor));
    let whole = kind.is_some() && (major != 0 || kind == Some('p'));
    let found = (facts.node)(&source);
    let kind = match (&found, kind) {
        (Ok(there), None) => there.kind,
        // What its users are given is the host's node itself.
        (Ok(there), Some(kind)) if there.kind != kind && (!whole || facts.own_users) => {
            return Err(of_host(name, format!("{source:?} of the host is of type {}, not {kind}", there.kind)));
        }
        (_, Some(kind)) if whole && (!facts.own_users || found.is_ok()) => kind,
        (Ok(_), Some(kind)) => kind,
        (Err(error), _) => return Err(of_host(name, format!("{source:?} is no device node of the host: {error}"))),
    };
    if let Ok(there) = &found {
        if major == 0 && kind != 'p' {
            (major, minor) = (there.major, there.minor);
        }
        if facts.own_users && kind != 'p' && (there.major, there.minor) != (major, minor) {
            let (own_major, own_minor) = (there.major, there.minor);
            let why = format!("{source:?} of the host is {own_major}:{own_minor}, not {major}:{minor}");
            return Err(of_host(name, why));
        }
    }
    let access = match node.permissions.as_deref().unwrap_or_default() {
        "" => "rwm",
        "none" => "",
        some => some,
    };
    Ok(Device {
        path: path.to_owned(),
        source,
        kind,
        major: if kind == 'p' { 0 } else { major },
        minor: if kind == 'p' { 0 } else { minor },
        mode: node.file_mode.or(found.ok().map(|there| there.mode)).unwrap_or(0o666) & 0o777,
        uid: node.uid.or(facts.user.0).unwrap_or_default(),
        gid: node.gid.or(facts.user.1).unwrap_or_default(),
        access: access.to_owned(),
    })
}

enum Placed {
    Bind(Bind),
    Tmpfs(Tmpfs),
}

impl Placed {
    fn new(name: &Name, mount: &Mount, facts: &Facts<'_>) -> Result<Placed, CdiError> {
        let parts: Vec<&str> = mount.container_path.split('/').filter(|part| !part.is_empty()).collect();
        let destination = format!("/{}", parts.join("/"));
        if parts.first() == Some(&"proc") {
            return Err(unsupported(name, format!("a mount over the kernel's own files, at {destination:?}")));
        }
        let options = mount.options.clone().unwrap_or_default();
        let is_bind = options.iter().any(|option| option == "bind" || option == "rbind");
        match mount.r#type.as_deref().unwrap_or_default() {
            _ if is_bind => {}
            "" | "bind" | "none" => {}
            "tmpfs" => return Ok(Placed::Tmpfs(Tmpfs { destination, source: mount.host_path.clone(), options })),
            other => return Err(unsupported(name, format!("a mount of type {other:?}, at {destination:?}"))),
        }
        if !mount.host_path.starts_with('/') {
            return Err(of_host(name, format!("{:?}, which it mounts, is no absolute path", mount.host_path)));
        }
        if !(facts.exists)(&mount.host_path) {
            return Err(of_host(name, format!("{:?}, which it mounts, is not on this host", mount.host_path)));
        }
        let volume = Volume { source: mount.host_path.clone(), destination, ..Volume::default() };
        let mut bind = Bind { volume, attributes: 0, shallow: options.iter().any(|option| option == "bind") };
        for option in &options {
            if !bind.take(option) {
                let at = &bind.volume.destination;
                return Err(unsupported(name, format!("the mount option {option:?}, at {at:?}")));
            }
        }
        if facts.own_users && bind.volume.propagation == SHARED {
            let at = &bind.volume.destination;
            let why = format!(
                "its mount at {at:?} is shared, and the pod has users of its own, who mount nothing on the host"
            );
            return Err(of_host(name, why));
        }
        Ok(Placed::Bind(bind))
    }

    fn destination(&self) -> &str {
        match self {
            Placed::Bind(bind) => &bind.volume.destination,
            Placed::Tmpfs(tmpfs) => &tmpfs.destination,
        }
    }
}

const SLAVE: u8 = 1;
const SHARED: u8 = 2;

impl Bind {
    /// Takes an option of a bind mount (OCI runtime-spec, config.md, Linux mount options); false of one that is not known.
    fn take(&mut self, option: &str) -> bool {
        let volume = &mut self.volume;
        let mut set = |attribute: u64, on: bool| {
            if on {
                self.attributes |= attribute;
            } else {
                self.attributes &= !attribute;
            }
        };
        match option {
            // Copied mounts keep their times of access as they have them.
            "bind" | "defaults" | "relatime" => {}
            "rbind" => self.shallow = false,
            "ro" => volume.read_only = true,
            "rro" => (volume.read_only, volume.recursive_read_only) = (true, true),
            "rw" => (volume.read_only, volume.recursive_read_only) = (false, false),
            "nosuid" => set(libc::MOUNT_ATTR_NOSUID, true),
            "suid" => set(libc::MOUNT_ATTR_NOSUID, false),
            "nodev" => set(libc::MOUNT_ATTR_NODEV, true),
            "dev" => set(libc::MOUNT_ATTR_NODEV, false),
            "noexec" => volume.no_exec = true,
            "exec" => volume.no_exec = false,
            "nodiratime" => set(libc::MOUNT_ATTR_NODIRATIME, true),
            "diratime" => set(libc::MOUNT_ATTR_NODIRATIME, false),
            "nosymfollow" => set(libc::MOUNT_ATTR_NOSYMFOLLOW, true),
            "symfollow" => set(libc::MOUNT_ATTR_NOSYMFOLLOW, false),
            "private" | "rprivate" => volume.propagation = 0,
            "slave" | "rslave" => volume.propagation = SLAVE,
            "shared" | "rshared" => volume.propagation = SHARED,
            _ => return false,
        }
        true
    }
}
