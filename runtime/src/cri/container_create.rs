use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_base::codec::Wire;
use gantry_base::launch::{CgroupWrite, Root, Users};
use gantry_base::{Id, layout};
use gantry_cri::v1::{self, ContainerEventType, NamespaceMode};
use gantry_env::chain;

use crate::cdi::inject::Injection;
use crate::cgroup::plan;
use crate::container::seccomp::{Filter, ProfileError};
use crate::container::{capabilities, spec};
use crate::fault::{Point, point};
use crate::image::{Image, Rootfs};
use crate::node::{Node, NodeError, blocking, encode_launch};
use crate::records::{ContainerRecord, ContainerState, SandboxRecord, private_dir};
use crate::sandbox::users::{self, Ranges};
use crate::sandbox::{files, processes};

/// Prepares a container: its root, its configuration, its pipes. No process is made before it is started.
pub async fn run(node: &Node, request: v1::CreateContainerRequest) -> Result<v1::CreateContainerResponse, NodeError> {
    let (sandbox, _hold) = node.hold_sandbox(&request.pod_sandbox_id).await?;
    let mut config = request.config.ok_or(NodeError::Missing("config"))?;
    let metadata = config.metadata.clone().ok_or(NodeError::Missing("metadata"))?;
    let container = format!("attempt {} of container {}", metadata.attempt, metadata.name);
    let _reserved = node.names.reserve(format!("{container} in sandbox {}", sandbox.id)).await;
    match same(node, &sandbox.id, &metadata) {
        // Asked again, as by one that has not heard the answer.
        Some(same) if same.state() == ContainerState::Created => {
            return Ok(v1::CreateContainerResponse { container_id: same.id });
        }
        // What has run is no answer to who is about to start it, and its log is not another's to write.
        Some(same) => {
            let state = same.state().in_words();
            return Err(NodeError::Exists { what: container, id: same.id, state });
        }
        None => {}
    }
    check(node, &sandbox, request.sandbox_config.as_ref(), &config)?;
    let wanted = config.image.clone().unwrap_or_default().image;
    let image = node.images.resolve(&wanted).ok_or(NodeError::NoImage(wanted))?;
    let id = Id::parse(&node.new_id())?;
    let volumes = image_volumes(node, &mut config)?;
    let shared = node.me.upgrade().ok_or(NodeError::Interrupted)?;
    let (pod, own) = (sandbox.clone(), id.clone());
    // Volumes may be on slow disks, and profiles are compiled.
    let prepared = blocking(move || {
        let images: Vec<Arc<Image>> = volumes.values().cloned().collect();
        let rootfs = shared.images.prepare(own.as_str(), &image, &images)?;
        prepare(&shared, &pod, config, &image, &volumes, &rootfs, &own)
    });
    let prepared = prepared.await;
    // A sandbox that is stopped or removed meanwhile has not seen this container: it must not outlive it.
    match prepared.and_then(|record| node.put_new_container(record)) {
        Ok(()) => {
            node.emit(id.as_str(), ContainerEventType::ContainerCreatedEvent);
            Ok(v1::CreateContainerResponse { container_id: id.to_string() })
        }
        Err(error) => {
            if let Err(left) = node.images.remove_snapshot(id.as_str()).await {
                tracing::warn!(container = %id, error = %chain(&left), "snapshot of a failed container stays");
            }
            if let Err(left) = node.records.remove_container(&sandbox.id, &id) {
                tracing::warn!(container = %id, error = %chain(&left), "folder of a failed container stays");
            }
            Err(error)
        }
    }
}

/// `pod` is the sandbox's configuration as the request has it.
fn check(
    node: &Node,
    sandbox: &SandboxRecord,
    pod: Option<&v1::PodSandboxConfig>,
    config: &v1::ContainerConfig,
) -> Result<(), NodeError> {
    if let Some(resources) = config.linux.as_ref().and_then(|l| l.resources.as_ref()) {
        super::container_update::check(resources)?;
    }
    let security = spec::security(config);
    node.modules.selinux(security.selinux_options.as_ref())?;
    check_users(users_of(sandbox)?, &security, config)?;
    // LinuxSandboxSecurityContext.privileged. A pod may come to it while it runs, by an ephemeral container.
    let of_pod = pod.or(sandbox.config.as_ref()).and_then(|c| c.linux.as_ref()?.security_context.as_ref());
    if security.privileged && !of_pod.is_some_and(|pod| pod.privileged) {
        let (value, why) = (sandbox.id.clone(), "a privileged container needs one that was made for it");
        return Err(NodeError::Invalid { what: "sandbox", value, why });
    }
    Ok(())
}

fn users_of(sandbox: &SandboxRecord) -> Result<Option<Ranges>, NodeError> {
    let config = sandbox.config.clone().unwrap_or_default();
    users::wanted(&super::sandbox_run::namespaces(&config))
}

/// The record of the sandbox decides, not what the request says of it.
fn check_users(
    of_sandbox: Option<Ranges>,
    security: &v1::LinuxContainerSecurityContext,
    config: &v1::ContainerConfig,
) -> Result<(), NodeError> {
    let own = security.namespace_options.clone().unwrap_or_default();
    users::same(of_sandbox, &own)?;
    if of_sandbox.is_some() && own.pid() == NamespaceMode::Node {
        let (value, why) = ("NODE".to_owned(), "the pod has users of its own");
        return Err(NodeError::Invalid { what: "pid namespace", value, why });
    }
    for mount in &config.mounts {
        users::is_mapped(mount, of_sandbox)?;
        if of_sandbox.is_some() && mount.propagation() == v1::MountPropagation::PropagationBidirectional {
            let (value, why) =
                (mount.container_path.clone(), "the pod has users of its own, who mount nothing on the host");
            return Err(NodeError::Invalid { what: "mount propagation of", value, why });
        }
    }
    Ok(())
}

/// The container that is this attempt, until it is removed.
fn same(node: &Node, sandbox: &str, wanted: &v1::ContainerMetadata) -> Option<ContainerRecord> {
    let mut containers = node.containers_of(sandbox).into_iter();
    containers.find(|r| r.config.as_ref().and_then(|c| c.metadata.as_ref()) == Some(wanted))
}

/// The images that are mounted as volumes, by where; the configuration is told which they are now.
fn image_volumes(node: &Node, config: &mut v1::ContainerConfig) -> Result<BTreeMap<String, Arc<Image>>, NodeError> {
    let mut volumes = BTreeMap::new();
    for mount in &mut config.mounts {
        let Some(wanted) = &mut mount.image else { continue };
        let image = node.images.resolve(&wanted.image).ok_or_else(|| NodeError::NoImage(wanted.image.clone()))?;
        wanted.image_ref = image.id().to_string();
        volumes.insert(mount.container_path.clone(), image);
    }
    Ok(volumes)
}

fn prepare(
    node: &Node,
    sandbox: &SandboxRecord,
    config: v1::ContainerConfig,
    image: &Image,
    volumes: &BTreeMap<String, Arc<Image>>,
    rootfs: &Rootfs,
    id: &Id,
) -> Result<ContainerRecord, NodeError> {
    let pod = sandbox.config.clone().unwrap_or_default();
    let stop_signal = stop_signal(&config, image)?;
    let mut host = host(node, sandbox, &pod, &config, rootfs, id)?;
    let cgroup = host.cgroup.clone();
    for (at, image) in volumes {
        let layers = node.images.layers(image).into_iter().map(|path| path.to_string_lossy().into_owned());
        host.image_layers.insert(at.clone(), layers.collect());
    }
    super::cdi::give(node, &config, image.run(), &mut host)?;
    let declared = spec::declared_volumes(&config, image.run())?;
    let folders = node.images.make_volumes(rootfs, &declared)?;
    host.image_volumes = folders.into_iter().map(|path| path.to_string_lossy().into_owned()).zip(declared).collect();
    let mut spec = spec::build(&config, image.run(), &host)?;
    for mount in &config.mounts {
        if let Some(image) = volumes.get(&mount.container_path).filter(|_| mount.image.is_some()) {
            node.images.check_part(image, &mount.image_sub_path, &rootfs.merged)?;
            continue;
        }
        let path = Path::new(&mount.host_path);
        // A volume whose folder is not there is made, as hostPath volumes without a type expect.
        if !path.exists() {
            std::fs::create_dir_all(path).map_err(io_at("make", path))?;
        }
    }
    let bundle = node.records.bundle(&sandbox.id, id);
    super::cdi::name_container(&mut spec.launch, id, &bundle);
    let rootfs_dir = bundle.join(layout::ROOTFS);
    point(Point::BundleMake);
    private_dir(&rootfs_dir).map_err(io_at("make", &rootfs_dir))?;
    let mut limits = Vec::new();
    node.config.log_limits.put(&mut limits);
    let files = [
        (layout::CONFIG, spec.config.to_string().into_bytes()),
        (layout::LAUNCH, encode_launch(&spec.launch)?),
        (layout::LOG_LIMITS, limits),
    ];
    for (name, bytes) in files {
        let path = bundle.join(name);
        point(Point::BundleMake);
        write_private(&path, &bytes).map_err(io_at("write", &path))?;
    }
    for name in [layout::STDOUT, layout::STDERR] {
        let path = bundle.join(name);
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
        point(Point::BundleMake);
        nix::unistd::mkfifo(&path, mode).map_err(|e| io_at("make", &path)(e.into()))?;
    }
    let log_path = match (pod.log_directory.is_empty(), config.log_path.is_empty()) {
        (_, true) => String::new(),
        (true, false) => config.log_path.clone(),
        (false, false) => Path::new(&pod.log_directory).join(&config.log_path).to_string_lossy().into_owned(),
    };
    if let Some(folder) = Path::new(&log_path).parent().filter(|_| !log_path.is_empty()) {
        std::fs::create_dir_all(folder).map_err(io_at("make", folder))?;
    }
    Ok(ContainerRecord {
        id: id.to_string(),
        sandbox: sandbox.id.clone(),
        state: ContainerState::Created as i32,
        image_id: image.id().to_string(),
        image_ref: image.repo_digests().first().cloned().unwrap_or_else(|| image.id().to_string()),
        created_at: node.now_ns(),
        cgroup,
        log_path,
        stop_signal,
        resources: config.linux.as_ref().and_then(|l| l.resources.clone()),
        cdi_devices: super::cdi::records(&host.cdi),
        config: Some(config),
        ..ContainerRecord::default()
    })
}

fn io_at(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> NodeError {
    let path = path.to_owned();
    move |source| NodeError::Io { what, path, source }
}

fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    std::io::Write::write_all(&mut file, bytes)
}

/// What CRI asks for, else what the image says.
fn stop_signal(config: &v1::ContainerConfig, image: &Image) -> Result<i32, NodeError> {
    let name = match config.stop_signal() {
        v1::Signal::RuntimeDefault => image.run().stop_signal.clone(),
        signal => signal.as_str_name().replace("RTMINPLUS", "RTMIN+").replace("RTMAXMINUS", "RTMAX-"),
    };
    Ok(spec::signal_number(&name)?)
}

/// Gathers what the specification needs to know of the host and the sandbox.
fn host(
    node: &Node,
    sandbox: &SandboxRecord,
    pod: &v1::PodSandboxConfig,
    config: &v1::ContainerConfig,
    rootfs: &Rootfs,
    id: &Id,
) -> Result<spec::Host, NodeError> {
    let security = spec::security(config);
    let cgroup = format!("{}/{id}", node.sandbox_cgroup(sandbox));
    let options = super::sandbox_run::namespaces(pod);
    let own = security.namespace_options.clone().unwrap_or_default();
    let pins = node.pins(&sandbox.id);
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let users = users_of(sandbox)?;
    let pod_net = options.network() != NamespaceMode::Node;
    let pod_ipc = options.ipc() != NamespaceMode::Node;
    // What the pod's users cannot reach has a link where the container is made.
    let pinned = |own: bool, path: PathBuf| match (own, users) {
        (false, _) => String::new(),
        (true, None) => text(path),
        (true, Some(_)) => linked(&path.file_name().unwrap_or_default().to_string_lossy()),
    };
    let names = ["resolv.conf", "hosts", "hostname"];
    let files = names.iter().map(|name| (text(pins.etc().join(name)), format!("/etc/{name}"))).collect();
    let resources = config.linux.as_ref().and_then(|l| l.resources.clone()).unwrap_or_default();
    let unified = node.cgroups.unified();
    let quota = node.cgroups.resolve(&cgroup, &plan::quota(&resources, unified));
    Ok(spec::Host {
        unified,
        capabilities: node.capabilities,
        oom_score_adj_min: node.oom_score_adj_min,
        cgroup_folders: node.cgroups.folders(&cgroup).into_iter().map(text).collect(),
        cgroup,
        before_start: quota.into_iter().map(|(path, value)| CgroupWrite { path: text(path), value }).collect(),
        seccomp: seccomp(node, &security)?,
        apparmor: node.modules.apparmor(&security)?,
        devices: super::devices::gather(config, security.privileged)?,
        net: pinned(pod_net, pins.net()),
        ipc: pinned(pod_ipc, pins.ipc()),
        uts: pinned(pod_net, pins.uts()),
        pid: match (shared_pid(node, sandbox, &own, id)?, users) {
            (path, Some(_)) if !path.is_empty() => linked("pid"),
            (path, _) => path,
        },
        shm: if pod_ipc { text(pins.shm()) } else { "/dev/shm".to_owned() },
        files,
        hostname: files::hostname(pod),
        image_layers: BTreeMap::new(),
        image_volumes: Vec::new(),
        cdi: Injection::default(),
        users: users.map(|of| Users { pins: text(pins.0.clone()), uids: of.uids, gids: of.gids, mapped: Vec::new() }),
        rootfs: Root {
            lower: rootfs.lower.iter().cloned().map(text).collect(),
            upper: text(rootfs.upper.clone()),
            work: text(rootfs.work.clone()),
            read_only: false,
        },
    })
}

fn linked(kind: &str) -> String {
    format!("{}/{kind}", layout::STAGE_NAMESPACES)
}

/// The pid namespace that it shares: the pod's, or for debugging that of another container.
fn shared_pid(
    node: &Node,
    sandbox: &SandboxRecord,
    options: &v1::NamespaceOption,
    id: &Id,
) -> Result<String, NodeError> {
    match options.pid() {
        NamespaceMode::Container | NamespaceMode::Node => Ok(String::new()),
        NamespaceMode::Pod if !sandbox.config.as_ref().is_some_and(processes::shared) => {
            let (value, why) = ("POD".to_owned(), "its sandbox was made without one to share");
            Err(NodeError::Invalid { what: "pid namespace", value, why })
        }
        NamespaceMode::Pod => Ok(node.pins(&sandbox.id).pid().to_string_lossy().into_owned()),
        NamespaceMode::Target => {
            node.target(&sandbox.id, options)?;
            // What is there is known when it is started: until then its target may have ended.
            let link = node.records.bundle(&sandbox.id, id).join(layout::TARGET_PIDS);
            Ok(link.to_string_lossy().into_owned())
        }
    }
}

fn seccomp(node: &Node, security: &v1::LinuxContainerSecurityContext) -> Result<Filter, NodeError> {
    if security.privileged {
        return Ok(Filter::default());
    }
    let bad = |e: ProfileError| NodeError::Profile(e);
    // Over CRI an unset profile is unconfined: the kubelet asks for what it wants.
    let Some(profile) = asked_seccomp(security)? else { return Ok(Filter::default()) };
    match profile.profile_type() {
        v1::security_profile::ProfileType::Unconfined => Ok(Filter::default()),
        v1::security_profile::ProfileType::RuntimeDefault => {
            let empty = v1::Capability::default();
            let asked = security.capabilities.as_ref().unwrap_or(&empty);
            let (add, drop) = (&asked.add_capabilities, &asked.drop_capabilities);
            let sets = capabilities::sets(false, add, drop, &asked.add_ambient_capabilities, node.capabilities)
                .map_err(spec::SpecError::from)?;
            Ok(Filter::clone(&*node.filters.runtime_default(sets.bounding).map_err(bad)?))
        }
        v1::security_profile::ProfileType::Localhost => {
            let filter = node.filters.localhost(&node.config.seccomp_dir, &profile.localhost_ref).map_err(bad)?;
            Ok(Filter::clone(&filter))
        }
    }
}

/// The newer field counts where both are set. Who fills the older one alone is not left without any filter.
#[expect(deprecated, reason = "callers of old fill only that one")]
fn asked_seccomp(security: &v1::LinuxContainerSecurityContext) -> Result<Option<v1::SecurityProfile>, NodeError> {
    use v1::security_profile::ProfileType;
    if let Some(profile) = &security.seccomp {
        return Ok(Some(profile.clone()));
    }
    let path = security.seccomp_profile_path.as_str();
    let (kind, localhost_ref) = match path {
        "" => return Ok(None),
        "unconfined" => (ProfileType::Unconfined, ""),
        "runtime/default" | "docker/default" => (ProfileType::RuntimeDefault, ""),
        other => match other.strip_prefix("localhost/") {
            Some(name) => (ProfileType::Localhost, name),
            None => {
                let (value, why) = (path.to_owned(), "it is none of runtime/default, unconfined and localhost/NAME");
                return Err(NodeError::Invalid { what: "seccomp profile", value, why });
            }
        },
    };
    Ok(Some(v1::SecurityProfile { profile_type: kind as i32, localhost_ref: localhost_ref.to_owned() }))
}
