//! What a container is made of: the launch file for the supervisor, and the OCI configuration that libcontainer reads where it is
//! needed (and supervisors from before they made containers by themselves). Pure: the CRI request, the image and what is known of the host go in. Every field that oci-spec would
//! default (capabilities, no_new_privs, limits, masked paths) is said or left out on purpose.

use std::collections::{BTreeMap, BTreeSet};

use gantry_base::codec::Appended;
use gantry_base::launch::{CgroupWrite, ImageVolume, Launch, Process, Refined, Root, User, Users, Volume};
use gantry_base::layout;
use gantry_cri::v1;
use serde_json::{Value, json};

use super::capabilities::{self, UnknownCapability};
use super::seccomp::Filter;
use crate::cdi::hooks;
use crate::cdi::inject::Injection;
use crate::image::RunConfig;

mod cdi;
mod direct;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SpecError {
    #[error("no command: neither the container nor its image names one")]
    NoCommand,
    #[error(transparent)]
    Capability(#[from] UnknownCapability),
    #[error("mount destination {0:?} is not absolute and plain")]
    Destination(String),
    #[error("mount destination {0:?} would hide the kernel's own files")]
    KernelPath(String),
    #[error("mount {0:?} has neither host path nor image")]
    NoSource(String),
    #[error("mount {0:?} has both a host path and an image")]
    TwoSources(String),
    #[error("mount {0:?} is of an image, and must be read-only")]
    WritableImage(String),
    #[error("mount {0:?} names a part of an image, and no image")]
    SubPathOfNoImage(String),
    #[error("the volume {0:?} that the image declares is its root")]
    RootVolume(String),
    #[error("the image declares {0} volumes, more than {IMAGE_VOLUMES_MAX}")]
    TooManyVolumes(usize),
    #[error("{0} is not supported yet")]
    Unsupported(&'static str),
    #[error("host path {path:?} of the volume at {at:?} is not absolute")]
    Source { at: String, path: String },
    #[error("the tmpfs that a CDI device has at {at:?} would be hidden by the mount at {by:?}")]
    Hidden { at: String, by: String },
    #[error("uid {0} is out of range")]
    Uid(i64),
    #[error("gid {0} is out of range")]
    Gid(i64),
    #[error("a group is set without a user")]
    GroupAlone,
    #[error("signal {0:?} does not exist")]
    Signal(String),
    #[error("environment variable {0:?} is not utf-8, which is not supported yet")]
    Env(String),
    #[error("working directory {0:?} is not absolute")]
    Cwd(String),
}

/// A device node for the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub path: String,
    /// Where it is on the host.
    pub source: String,
    /// `c` or `b`, from CDI also `p`.
    pub kind: char,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Of `rwm`.
    pub access: String,
}

/// Facts about the host and the sandbox, gathered by the caller.
#[derive(Clone, Debug, Default)]
pub struct Host {
    pub unified: bool,
    /// Capabilities that this runtime can hand out.
    pub capabilities: u64,
    /// The lowest score that this runtime may set.
    pub oom_score_adj_min: i32,
    pub cgroup: String,
    pub cgroup_folders: Vec<String>,
    pub before_start: Vec<CgroupWrite>,
    pub seccomp: Filter,
    pub apparmor: String,
    pub devices: Vec<Device>,
    /// Paths of the pod's pinned namespaces; empty where the pod uses the host's.
    pub net: String,
    pub ipc: String,
    pub uts: String,
    /// The namespace of the process whose pid namespace is shared, if one is.
    pub pid: String,
    pub shm: String,
    /// Files that the sandbox gives: source and destination.
    pub files: Vec<(String, String)>,
    pub hostname: String,
    pub rootfs: Root,
    /// The volumes that the image declares: source and destination.
    pub image_volumes: Vec<(String, String)>,
    /// The layers of each mount that is an image, topmost first, by where it is mounted.
    pub image_layers: BTreeMap<String, Vec<String>>,
    /// Of a pod that has users of its own. Its namespaces are found by the links of [`gantry_base::layout::STAGE_NAMESPACES`].
    pub users: Option<Users>,
    /// What CDI devices need beside their nodes, which are among the others.
    pub cdi: Injection,
}

/// Each is a folder to copy and a mount.
pub const IMAGE_VOLUMES_MAX: usize = 128;

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub struct Spec {
    pub config: Value,
    pub launch: Launch,
}

/// The security context, or the empty one.
pub fn security(config: &v1::ContainerConfig) -> v1::LinuxContainerSecurityContext {
    config.linux.as_ref().and_then(|l| l.security_context.clone()).unwrap_or_default()
}

pub fn build(config: &v1::ContainerConfig, image: &RunConfig, host: &Host) -> Result<Spec, SpecError> {
    let security = security(config);
    let namespaces = security.namespace_options.clone().unwrap_or_default();
    let Volumes { volumes, images, mapped, refined } = volumes(config, host)?;
    let launch = Launch {
        root: Root { read_only: security.readonly_rootfs, ..host.rootfs.clone() },
        volumes,
        images: Appended(images),
        user: cdi::in_groups(user(&security, image)?, &host.cdi.gids),
        process: process(config, image, &security, host)?,
        cgroups: host.cgroup_folders.clone(),
        unified: host.unified,
        before_start: host.before_start.clone(),
        seccomp_flags: Appended(host.seccomp.flags),
        users: Appended(host.users.clone().map(|users| Users { mapped, ..users })),
        refined: Appended(refined),
        start_hooks: Appended(hooks::inside(&host.cdi.hooks)),
        direct: Appended(direct::of(&security, &namespaces, host)),
    };
    Ok(Spec { config: oci(config, &security, &namespaces, host), launch })
}

fn oci(
    config: &v1::ContainerConfig,
    security: &v1::LinuxContainerSecurityContext,
    namespaces: &v1::NamespaceOption,
    host: &Host,
) -> Value {
    let mut list = vec![json!({"type": "mount"})];
    let own_users = host.users.is_some();
    let linked = format!("{}/user", layout::STAGE_NAMESPACES);
    let mut join = |kind: &str, path: &str| {
        if !path.is_empty() {
            list.push(json!({"type": kind, "path": path}));
        }
    };
    join("user", if own_users { &linked } else { "" });
    join("network", &host.net);
    join("ipc", &host.ipc);
    join("uts", &host.uts);
    join("pid", &host.pid);
    if host.pid.is_empty() && namespaces.pid() != v1::NamespaceMode::Node {
        list.push(json!({"type": "pid"}));
    }
    // The cgroup file system is mounted by whom its namespace belongs to.
    if !security.privileged || own_users {
        list.push(json!({"type": "cgroup"}));
    }
    // What hides the kernel's files is the caller's list: the kubelet says by an empty one that a pod wants them unmasked.
    let paths = |given: &[String]| if security.privileged { json!([]) } else { json!(given) };
    let mut mounts = kernel_mounts(security.privileged, host.unified);
    mounts.extend(host.cdi.tmpfs.iter().map(|tmpfs| {
        json!({"destination": tmpfs.destination, "type": "tmpfs", "source": tmpfs.source, "options": tmpfs.options})
    }));
    let mut all = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": config.tty,
            "user": {"uid": 0, "gid": 0},
            // All of these are the last stage's; what stands here is what libcontainer insists on.
            "args": ["init"],
            "env": ["PATH=/", "HOME=/"],
            "cwd": "/",
        },
        "root": {"path": if own_users { layout::STAGE_ROOTFS } else { layout::ROOTFS }, "readonly": security.readonly_rootfs},
        "mounts": mounts,
        "linux": {
            "namespaces": list,
            "cgroupsPath": host.cgroup,
            "devices": host.devices.iter().filter(|_| !own_users).map(device).collect::<Vec<_>>(),
            "maskedPaths": paths(&security.masked_paths),
            "readonlyPaths": paths(&security.readonly_paths),
        },
    });
    if let Some(hooks) = hooks::configured(&host.cdi.hooks) {
        all["hooks"] = hooks;
    }
    all
}

/// What is the kernel's own in a container. Everything else is a volume.
fn kernel_mounts(privileged: bool, unified: bool) -> Vec<Value> {
    let access = if privileged { "rw" } else { "ro" };
    let mount = |at: &str, kind: &str, options: &[&str]| json!({"destination": at, "type": kind, "source": kind, "options": options});
    let mut mounts = vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", access]),
    ];
    // v1's cgroup mount ignores `ro`, so there is none on such hosts.
    if unified {
        mounts.push(mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", access]));
    }
    mounts
}

fn device(d: &Device) -> Value {
    json!({
        "path": d.path, "type": d.kind.to_string(), "major": d.major, "minor": d.minor,
        "fileMode": d.mode, "uid": d.uid, "gid": d.gid,
    })
}

fn process(
    config: &v1::ContainerConfig,
    image: &RunConfig,
    security: &v1::LinuxContainerSecurityContext,
    host: &Host,
) -> Result<Process, SpecError> {
    let empty = v1::Capability::default();
    let asked = security.capabilities.as_ref().unwrap_or(&empty);
    let sets = capabilities::sets(
        security.privileged,
        &asked.add_capabilities,
        &asked.drop_capabilities,
        &asked.add_ambient_capabilities,
        host.capabilities,
    )?;
    let cwd = [&config.working_dir, &image.working_dir].into_iter().find(|d| !d.is_empty());
    let cwd = cwd.map_or("/", String::as_str);
    if !cwd.starts_with('/') {
        return Err(SpecError::Cwd(cwd.to_owned()));
    }
    let resources = config.linux.as_ref().and_then(|l| l.resources.as_ref());
    let score = resources.map_or(0, |r| r.oom_score_adj).clamp(-1000, 1000) as i32;
    Ok(Process {
        args: arguments(config, image)?,
        env: environment(config, image, &host.hostname, &host.cdi.env)?,
        cwd: cwd.to_owned(),
        bounding: sets.bounding,
        effective: sets.bounding,
        permitted: sets.bounding,
        // Inheritable sets hand capabilities to whatever file says so (CVE-2022-24769): only what is ambient.
        inheritable: sets.ambient,
        ambient: sets.ambient,
        no_new_privs: security.no_new_privs,
        rlimits: Vec::new(),
        oom_score_adj: Some(score.max(host.oom_score_adj_min)),
        seccomp: host.seccomp.program.clone(),
        apparmor: host.apparmor.clone(),
        umask: Some(0o022),
    })
}

fn arguments(config: &v1::ContainerConfig, image: &RunConfig) -> Result<Vec<String>, SpecError> {
    let mut all: Vec<String> = match (config.command.is_empty(), config.args.is_empty()) {
        (false, _) => config.command.iter().chain(&config.args).cloned().collect(),
        (true, false) => image.entrypoint.iter().chain(&config.args).cloned().collect(),
        (true, true) => image.entrypoint.iter().chain(&image.cmd).cloned().collect(),
    };
    if all.first().is_none_or(String::is_empty) {
        all.clear();
    }
    if all.is_empty() { Err(SpecError::NoCommand) } else { Ok(all) }
}

fn environment(
    config: &v1::ContainerConfig,
    image: &RunConfig,
    hostname: &str,
    cdi: &[(String, String)],
) -> Result<Vec<String>, SpecError> {
    let mut env: Vec<String> = Vec::new();
    let mut set = |name: &str, value: &str| {
        let prefix = format!("{name}=");
        env.retain(|e| !e.starts_with(&prefix));
        env.push(format!("{prefix}{value}"));
    };
    let (path, value) = DEFAULT_PATH.split_once('=').unwrap_or_default();
    set(path, value);
    if config.tty {
        set("TERM", "xterm");
    }
    if !hostname.is_empty() {
        set("HOSTNAME", hostname);
    }
    for pair in &image.env {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        set(name, value);
    }
    for pair in &config.envs {
        let value = std::str::from_utf8(&pair.value).map_err(|_| SpecError::Env(pair.key.clone()))?;
        set(&pair.key, value);
    }
    for (name, value) in cdi {
        set(name, value);
    }
    Ok(env)
}

fn user(security: &v1::LinuxContainerSecurityContext, image: &RunConfig) -> Result<User, SpecError> {
    let id = |value: i64| u32::try_from(value).ok().filter(|id| *id <= i32::MAX as u32);
    let mut name = image.user.clone();
    if let Some(uid) = &security.run_as_user {
        name = id(uid.value).ok_or(SpecError::Uid(uid.value))?.to_string();
    }
    // CRI: the name wins where both are given.
    if !security.run_as_username.is_empty() {
        name.clone_from(&security.run_as_username);
    }
    let gid = match &security.run_as_group {
        Some(gid) => Some(id(gid.value).ok_or(SpecError::Gid(gid.value))?),
        None => None,
    };
    if gid.is_some() && name.is_empty() {
        return Err(SpecError::GroupAlone);
    }
    let groups = security.supplemental_groups.iter();
    Ok(User {
        name,
        gid,
        extra_gids: groups.map(|g| id(*g).ok_or(SpecError::Gid(*g))).collect::<Result<_, _>>()?,
        merge_groups: security.supplemental_groups_policy() == v1::SupplementalGroupsPolicy::Merge,
    })
}

/// Who runs, as far as that is said by number; names are looked up when the container has its root.
pub fn numbers(config: &v1::ContainerConfig, image: &RunConfig) -> Result<(Option<u32>, Option<u32>), SpecError> {
    let user = user(&security(config), image)?;
    let (uid, gid) = user.name.split_once(':').unwrap_or((&user.name, ""));
    Ok((uid.parse().ok(), user.gid.or_else(|| gid.parse().ok())))
}

/// What libcontainer binds from the host's /dev by itself where nobody may make nodes, and what it links.
const BOUND_DEVICES: [&str; 7] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx"];

/// Users that are not the host's make no device nodes: they are given the host's, with the rights that everybody has on them.
fn devices(host: &Host) -> impl Iterator<Item = Volume> {
    let given = host.devices.iter().filter(|device| host.users.is_some() && !BOUND_DEVICES.contains(&&*device.path));
    given.map(|device| Volume { source: device.source.clone(), destination: device.path.clone(), ..Volume::default() })
}

struct Volumes {
    volumes: Vec<Volume>,
    images: Vec<ImageVolume>,
    /// Those that CRI gives mappings of ids.
    mapped: Vec<u32>,
    refined: Vec<Refined>,
}

/// The sandbox's files first, then the kubelet's mounts, which may replace them; parents before what lies in them.
fn volumes(config: &v1::ContainerConfig, host: &Host) -> Result<Volumes, SpecError> {
    let mut volumes: Vec<Volume> = devices(host).collect();
    let mut mapped = BTreeSet::new();
    let mut images = BTreeMap::new();
    let taken = |path: &str| config.mounts.iter().any(|m| m.container_path.trim_end_matches('/') == path);
    if !host.shm.is_empty() && !taken("/dev/shm") {
        let (source, destination) = (host.shm.clone(), "/dev/shm".to_owned());
        volumes.push(Volume { source, destination, ..Volume::default() });
    }
    for (source, destination) in host.files.iter().filter(|(_, at)| !taken(at)) {
        volumes.push(Volume {
            source: source.clone(),
            destination: destination.clone(),
            read_only: security(config).readonly_rootfs,
            ..Volume::default()
        });
    }
    for (host_path, container_path) in host.image_volumes.iter().cloned() {
        // The sandbox's own files win.
        if volumes.iter().any(|given: &Volume| given.destination == container_path) {
            continue;
        }
        volumes.push(volume(&v1::Mount { host_path, container_path, ..v1::Mount::default() })?);
    }
    for mount in &config.mounts {
        let volume = volume(mount)?;
        if mount.image.is_some() {
            let layers = host.image_layers.get(&mount.container_path).cloned().unwrap_or_default();
            images.insert(volume.destination.clone(), (layers, mount.image_sub_path.clone()));
        }
        if !mount.uid_mappings.is_empty() {
            mapped.insert((volume.source.clone(), volume.destination.clone()));
        }
        volumes.push(volume);
    }
    let own: BTreeSet<&str> = host.cdi.binds.iter().map(|bind| bind.volume.destination.as_str()).collect();
    let given = |at: &str| own.contains(at) || host.cdi.tmpfs.iter().any(|tmpfs| tmpfs.destination == at);
    volumes.retain(|volume: &Volume| !given(&volume.destination));
    images.retain(|at: &String, _| !given(at));
    for bind in &host.cdi.binds {
        if host.users.is_some() {
            mapped.insert((bind.volume.source.clone(), bind.volume.destination.clone()));
        }
        volumes.push(bind.volume.clone());
    }
    cdi::check_seen(host, &volumes)?;
    volumes.sort_by_key(|v| v.destination.split('/').filter(|part| !part.is_empty()).count());
    let image = |(n, volume): (usize, &Volume)| {
        let (layers, sub_path) = images.remove(&volume.destination).filter(|_| volume.source.is_empty())?;
        Some(ImageVolume { volume: u32::try_from(n).ok()?, layers, sub_path })
    };
    let images = volumes.iter().enumerate().filter_map(image).collect();
    let is_mapped = |volume: &Volume| mapped.contains(&(volume.source.clone(), volume.destination.clone()));
    let numbered = volumes.iter().enumerate().filter(|(_, volume)| is_mapped(volume));
    let mapped = numbered.filter_map(|(n, _)| u32::try_from(n).ok()).collect();
    let refined = cdi::refined(host, &volumes);
    Ok(Volumes { volumes, images, mapped, refined })
}

/// Where the image declares volumes that nothing is mounted on anyway. As containerd has it, a path counts from the root
/// and a `..` leads no further up than there.
pub fn declared_volumes(config: &v1::ContainerConfig, image: &RunConfig) -> Result<Vec<String>, SpecError> {
    if image.volumes.len() > IMAGE_VOLUMES_MAX {
        return Err(SpecError::TooManyVolumes(image.volumes.len()));
    }
    let mounted: BTreeSet<String> = config.mounts.iter().map(|mount| clean(&mount.container_path)).collect();
    let mut declared = BTreeSet::new();
    for path in image.volumes.keys() {
        let cleaned = clean(path);
        if cleaned == "/" {
            return Err(SpecError::RootVolume(path.clone()));
        }
        if cleaned == "/proc" || cleaned.starts_with("/proc/") {
            return Err(SpecError::KernelPath(path.clone()));
        }
        if cleaned.contains('\0') {
            return Err(SpecError::Destination(path.clone()));
        }
        if !mounted.contains(&cleaned) {
            declared.insert(cleaned);
        }
    }
    Ok(declared.into_iter().collect())
}

/// A path by its text alone: absolute, without `.`, `..` and empty parts.
fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn volume(mount: &v1::Mount) -> Result<Volume, SpecError> {
    if mount.image.is_some() && !mount.host_path.is_empty() {
        return Err(SpecError::TwoSources(mount.container_path.clone()));
    }
    if mount.image.is_some() && !mount.readonly {
        return Err(SpecError::WritableImage(mount.container_path.clone()));
    }
    if mount.image.is_none() && !mount.image_sub_path.is_empty() {
        return Err(SpecError::SubPathOfNoImage(mount.container_path.clone()));
    }
    let at = mount.container_path.as_str();
    let parts: Vec<&str> = at.split('/').filter(|p| !p.is_empty()).collect();
    if !at.starts_with('/') || parts.is_empty() || parts.iter().any(|p| *p == "." || *p == "..") || at.contains('\0') {
        return Err(SpecError::Destination(at.to_owned()));
    }
    if parts[0] == "proc" {
        return Err(SpecError::KernelPath(at.to_owned()));
    }
    if mount.host_path.is_empty() && mount.image.is_none() {
        return Err(SpecError::NoSource(at.to_owned()));
    }
    if mount.image.is_none() && (!mount.host_path.starts_with('/') || mount.host_path.contains('\0')) {
        return Err(SpecError::Source { at: at.to_owned(), path: mount.host_path.clone() });
    }
    if mount.recursive_read_only && (!mount.readonly || mount.propagation() != v1::MountPropagation::PropagationPrivate)
    {
        return Err(SpecError::Unsupported("recursive read-only without read-only, or with propagation,"));
    }
    Ok(Volume {
        source: mount.host_path.clone(),
        destination: format!("/{}", parts.join("/")),
        read_only: mount.readonly,
        recursive_read_only: mount.recursive_read_only,
        propagation: match mount.propagation() {
            v1::MountPropagation::PropagationPrivate => 0,
            v1::MountPropagation::PropagationHostToContainer => 1,
            v1::MountPropagation::PropagationBidirectional => 2,
        },
        no_exec: false,
    })
}

/// The number of a stop signal by its name, with or without `SIG`, or by number.
pub fn signal_number(name: &str) -> Result<i32, SpecError> {
    let unknown = || SpecError::Signal(name.to_owned());
    if name.is_empty() {
        return Ok(libc::SIGTERM);
    }
    if let Ok(number) = name.parse::<i32>() {
        return if (1..=64).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = short.strip_prefix("RTMIN") {
        let offset: i32 = if offset.is_empty() { 0 } else { offset.parse().map_err(|_| unknown())? };
        return if (0..=30).contains(&offset) { Ok(34 + offset) } else { Err(unknown()) };
    }
    if let Some(offset) = short.strip_prefix("RTMAX") {
        let offset: i32 = if offset.is_empty() { 0 } else { offset.parse().map_err(|_| unknown())? };
        return if (-30..=0).contains(&offset) { Ok(64 + offset) } else { Err(unknown()) };
    }
    let known: nix::sys::signal::Signal = format!("SIG{short}").parse().map_err(|_| unknown())?;
    Ok(known as i32)
}

#[cfg(test)]
mod tests;
