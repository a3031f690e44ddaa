use std::net::{IpAddr, Ipv4Addr};

use gantry_cri::v1::{self, ContainerEventType, NamespaceMode};
use gantry_env::chain;

use crate::network::{HostPort, Protocol};
use crate::node::{Node, NodeError, blocking};
use crate::records::{SandboxRecord, SandboxState, write_atomically};
use crate::sandbox::namespaces::Wanted;
use crate::sandbox::{cgroup, files, namespaces as pinned, processes, users};

/// Makes a pod's namespaces, address, files and cgroup. The record is written before anything is made; what fails is
/// taken down again.
pub async fn run(node: &Node, request: v1::RunPodSandboxRequest) -> Result<v1::RunPodSandboxResponse, NodeError> {
    let config = request.config.ok_or(NodeError::Missing("config"))?;
    let metadata = config.metadata.clone().ok_or(NodeError::Missing("metadata"))?;
    check(&config, &request.runtime_handler)?;
    if users::wanted(&namespaces(&config))?.is_some() {
        node.check_users().await?;
    }
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
            serve_on_loopback(node, &record);
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

/// The one runtime that there is, by the names that it is asked for: none, its own, and what RuntimeClasses that were
/// written for containerd call the ordinary one.
pub const HANDLERS: [&str; 3] = ["", "gantry", "runc"];

fn check(config: &v1::PodSandboxConfig, handler: &str) -> Result<(), NodeError> {
    if !HANDLERS.contains(&handler) {
        let (value, why) = (handler.to_owned(), "it is neither \"gantry\" nor \"runc\" nor left out");
        return Err(NodeError::Invalid { what: "runtime handler", value, why });
    }
    host_ports(config)?;
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
    users::check(&options, users::wanted(&options)?)
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
        let users = users::wanted(&options)?;
        if let Some(users) = users {
            pins.create_users(&node.program, users)?;
        }
        let mut ip = String::new();
        let mut netns = None;
        if options.network() != NamespaceMode::Node {
            match users {
                Some(_) => node.network.take_netns(&pins.net())?,
                None => node.network.create_netns(&pins.net())?,
            }
            ip = node.network.attach(&record.id, &pins.net(), &host_ports(&config)?)?.ip.to_string();
            netns = Some(pins.net());
        }
        pins.create(Wanted {
            ipc: options.ipc() != NamespaceMode::Node,
            uts: options.network() != NamespaceMode::Node,
            hostname: files::hostname(&config),
            netns,
            users,
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
    let users = users::wanted(&namespaces(config))?;
    let dns = config.dns_config.clone().unwrap_or_default();
    let resolv_conf =
        files::resolv_conf(&dns).unwrap_or_else(|| std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    // What the host knows its neighbours by, a pod on its network knows too.
    let of_host = || std::fs::read_to_string("/etc/hosts").ok().filter(|_| ip.is_empty());
    let hostname = files::hostname(config);
    let texts = [
        ("resolv.conf", resolv_conf),
        ("hosts", of_host().unwrap_or_else(|| files::hosts(&hostname, ip))),
        ("hostname", format!("{hostname}\n")),
    ];
    for (name, text) in texts {
        let path = dir.join(name);
        write_atomically(&path, text.as_bytes())
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)))
            .and_then(|()| pinned::give(&path, users))
            .map_err(|source| NodeError::Io { what: "write", path, source })?;
    }
    if !config.log_directory.is_empty() {
        let path = std::path::PathBuf::from(&config.log_directory);
        std::fs::create_dir_all(&path).map_err(|source| NodeError::Io { what: "make", path, source })?;
    }
    Ok(())
}

/// The ports of the node that lead to the pod. A mapping without one only says what a container listens on.
pub fn host_ports(config: &v1::PodSandboxConfig) -> Result<Vec<HostPort>, NodeError> {
    config.port_mappings.iter().filter(|mapping| mapping.host_port != 0).map(host_port).collect()
}

/// Its host ports at 127.0.0.1, from now until it is stopped.
pub fn serve_on_loopback(node: &Node, record: &SandboxRecord) {
    let ip = record.ip.parse::<Ipv4Addr>().ok().filter(|_| record.state() == SandboxState::Ready);
    let ports = record.config.as_ref().map(host_ports);
    if let (Some(ip), Some(Ok(ports))) = (ip, ports) {
        node.loopback.open(&record.id, ip, &ports);
    }
}

fn host_port(mapping: &v1::PortMapping) -> Result<HostPort, NodeError> {
    let port = |what, number: i32| {
        let why = "ports are from 1 to 65535";
        let port = u16::try_from(number).ok().filter(|port| *port != 0);
        port.ok_or_else(|| NodeError::Invalid { what, value: number.to_string(), why })
    };
    Ok(HostPort {
        protocol: match mapping.protocol() {
            v1::Protocol::Tcp => Protocol::Tcp,
            v1::Protocol::Udp => Protocol::Udp,
            v1::Protocol::Sctp => Protocol::Sctp,
        },
        host_ip: host_ip(&mapping.host_ip)?,
        host_port: port("host port", mapping.host_port)?,
        container_port: port("container port", mapping.container_port)?,
    })
}

/// None for every address of the node. Pods have no IPv6 address that a port of one of the node's could lead to.
fn host_ip(text: &str) -> Result<Option<Ipv4Addr>, NodeError> {
    let refused = |why| NodeError::Invalid { what: "host address of a port", value: text.to_owned(), why };
    if text.is_empty() {
        return Ok(None);
    }
    let ip: IpAddr = text.parse().map_err(|_| refused("it is no address"))?;
    match ip.to_canonical() {
        ip if ip.is_unspecified() => Ok(None),
        IpAddr::V4(ip) => Ok(Some(ip)),
        IpAddr::V6(_) => Err(refused("pods have IPv4 addresses alone")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_one_address_is_not_widened_to_all() {
        for any in ["", "0.0.0.0", "::"] {
            assert_eq!(host_ip(any).unwrap(), None, "{any:?}");
        }
        for one in ["192.0.2.1", "::ffff:192.0.2.1"] {
            assert_eq!(host_ip(one).unwrap(), Some(Ipv4Addr::new(192, 0, 2, 1)), "{one:?}");
        }
        for refused in ["fd00::1", "::1", "localhost", "192.0.2.1/24", " "] {
            assert!(host_ip(refused).unwrap_err().to_string().contains(refused), "{refused:?}");
        }
    }

    #[test]
    fn a_port_that_is_none_is_refused() {
        let mapping = |host_port, container_port| v1::PortMapping { host_port, container_port, ..Default::default() };
        let config = |mapping| v1::PodSandboxConfig { port_mappings: vec![mapping], ..Default::default() };
        assert_eq!(host_ports(&config(mapping(0, 80))).unwrap(), []);
        assert_eq!(host_ports(&config(mapping(8080, 80))).unwrap().len(), 1);
        for (host, container) in [(65_536, 80), (-1, 80), (8080, 0), (8080, 70_000)] {
            assert!(host_ports(&config(mapping(host, container))).is_err(), "{host}:{container}");
        }
    }
}
