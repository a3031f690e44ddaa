use gantry_cri::v1::{self, ContainerEventType, NamespaceMode};
use gantry_env::chain;

use crate::network::{HostPort, Protocol};
use crate::node::{Node, NodeError, blocking};
use crate::records::{SandboxRecord, SandboxState, write_atomically};
use crate::sandbox::namespaces::Wanted;
use crate::sandbox::{cgroup, files, processes};

/// Makes a pod's namespaces, address, files and cgroup. The record is written before anything is made; what fails is
/// taken down again.
pub async fn run(node: &Node, request: v1::RunPodSandboxRequest) -> Result<v1::RunPodSandboxResponse, NodeError> {
    let config = request.config.ok_or(NodeError::Missing("config"))?;
    let metadata = config.metadata.clone().ok_or(NodeError::Missing("metadata"))?;
    check(&config, &request.runtime_handler)?;
    let security = config.linux.as_ref().and_then(|l| l.security_context.as_ref());
    node.modules.selinux(security.and_then(|s| s.selinux_options.as_ref()))?;
    let pod = format!("attempt {} of pod {}/{}", metadata.attempt, metadata.namespace, metadata.name);
    let _reserved = node.names.reserve(format!("{pod} ({})", metadata.uid)).await;
    if let Some(ready) = same(node, &metadata) {
        return Ok(v1::RunPodSandboxResponse { pod_sandbox_id: ready });
    }
    let id = node.new_id();
    let mut record = SandboxRecord {
        id: id.clone(),
        state: SandboxState::Creating as i32,
        created_at: node.now_ns(),
        config: Some(config),
        ip: String::new(),
        runtime_handler: request.runtime_handler,
        stopping: false,
    };
    node.put_sandbox(record.clone())?;
    // Whoever stops or removes it waits until it is made. One that came before has found nothing to take away.
    let lock = node.sandbox_lock(&id).ok_or(NodeError::Interrupted)?;
    let _one_at_a_time = lock.lock().await;
    if node.sandbox(&id)?.state() != SandboxState::Creating {
        return Err(NodeError::NotReady(id));
    }
    match make(node, &record).await {
        Ok(ip) => {
            record.ip = ip;
            record.set_state(SandboxState::Ready);
            node.put_sandbox(record.clone())?;
            processes::watch(node, &record);
            node.emit(&id, ContainerEventType::ContainerCreatedEvent);
            node.emit(&id, ContainerEventType::ContainerStartedEvent);
            Ok(v1::RunPodSandboxResponse { pod_sandbox_id: id })
        }
        Err(error) => {
            let undone = async {
                super::sandbox_stop::tear_down(node, &record).await?;
                super::sandbox_remove::forget(node, &record).await
            };
            if let Err(left) = undone.await {
                tracing::warn!(sandbox = id, error = %chain(&left), "failed sandbox not taken down");
            }
            Err(error)
        }
    }
}

fn check(config: &v1::PodSandboxConfig, handler: &str) -> Result<(), NodeError> {
    if !handler.is_empty() {
        let (value, why) = (handler.to_owned(), "there is one runtime, without a name");
        return Err(NodeError::Invalid { what: "runtime handler", value, why });
    }
    if files::has_line_break(config) {
        let (value, why) = (config.hostname.clone(), "it holds a line break");
        return Err(NodeError::Invalid { what: "host name or DNS setting", value, why });
    }
    if config.hostname.len() > 64 {
        let (value, why) = (config.hostname.clone(), "the kernel takes 64 bytes");
        return Err(NodeError::Invalid { what: "host name", value, why });
    }
    if let Some(resources) = config.linux.as_ref().and_then(|l| l.resources.as_ref()) {
        super::container_update::check(resources)?;
    }
    let options = namespaces(config);
    if options.userns_options.is_some_and(|u| u.mode() != NamespaceMode::Node) {
        return Err(NodeError::Unsupported("a user namespace"));
    }
    Ok(())
}

pub fn namespaces(config: &v1::PodSandboxConfig) -> v1::NamespaceOption {
    let security = config.linux.as_ref().and_then(|l| l.security_context.as_ref());
    security.and_then(|s| s.namespace_options.clone()).unwrap_or_default()
}

/// At most one ready sandbox a pod and attempt: asked again, the same one is the answer.
fn same(node: &Node, wanted: &v1::PodSandboxMetadata) -> Option<String> {
    let pods = node.pods.lock();
    let ready = pods.sandboxes.values().map(|s| &s.record).find(|r| {
        r.state() == SandboxState::Ready && r.config.as_ref().and_then(|c| c.metadata.as_ref()) == Some(wanted)
    });
    ready.map(|r| r.id.clone())
}

/// Everything that a sandbox is on this host; its address is the answer.
async fn make(node: &Node, record: &SandboxRecord) -> Result<String, NodeError> {
    let shared = node.me.upgrade().ok_or(NodeError::Interrupted)?;
    let record = record.clone();
    blocking(move || {
        let node = shared;
        let config = record.config.clone().unwrap_or_default();
        let options = namespaces(&config);
        let pins = node.pins(&record.id);
        let mut ip = String::new();
        let mut netns = None;
        if options.network() != NamespaceMode::Node {
            node.network.create_netns(&pins.net())?;
            ip = node.network.attach(&record.id, &pins.net(), &host_ports(&config))?.ip.to_string();
            netns = Some(pins.net());
        }
        pins.create(Wanted {
            ipc: options.ipc() != NamespaceMode::Node,
            uts: options.network() != NamespaceMode::Node,
            hostname: config.hostname.clone(),
            netns,
            sysctls: config.linux.iter().flat_map(|l| l.sysctls.clone()).collect(),
        })?;
        write_files(&node, &record, &config, &ip)?;
        cgroup::make(&node, &record)?;
        processes::make(&node, &record)?;
        Ok(ip)
    })
    .await
}

fn write_files(node: &Node, record: &SandboxRecord, config: &v1::PodSandboxConfig, ip: &str) -> Result<(), NodeError> {
    use std::os::unix::fs::PermissionsExt;
    let dir = node.pins(&record.id).etc();
    let dns = config.dns_config.clone().unwrap_or_default();
    let resolv_conf =
        files::resolv_conf(&dns).unwrap_or_else(|| std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    let texts = [
        ("resolv.conf", resolv_conf),
        ("hostname", format!("{}\n", config.hostname)),
        ("hosts", files::hosts(&config.hostname, ip)),
    ];
    for (name, text) in texts {
        let path = dir.join(name);
        write_atomically(&path, text.as_bytes())
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)))
            .map_err(|source| NodeError::Io { what: "write", path, source })?;
    }
    if !config.log_directory.is_empty() {
        let path = std::path::PathBuf::from(&config.log_directory);
        std::fs::create_dir_all(&path).map_err(|source| NodeError::Io { what: "make", path, source })?;
    }
    Ok(())
}

pub fn host_ports(config: &v1::PodSandboxConfig) -> Vec<HostPort> {
    config.port_mappings.iter().filter_map(host_port).collect()
}

/// A mapping without a host port only says what a container listens on.
fn host_port(mapping: &v1::PortMapping) -> Option<HostPort> {
    let host_port = u16::try_from(mapping.host_port).ok().filter(|p| *p != 0)?;
    Some(HostPort {
        protocol: match mapping.protocol() {
            v1::Protocol::Tcp => Protocol::Tcp,
            v1::Protocol::Udp => Protocol::Udp,
            v1::Protocol::Sctp => Protocol::Sctp,
        },
        host_ip: mapping.host_ip.parse().ok().filter(|ip: &std::net::Ipv4Addr| !ip.is_unspecified()),
        host_port,
        container_port: u16::try_from(mapping.container_port).ok()?,
    })
}
