use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::Protocol;

/// Why the pod network could not be made, or not be taken down.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("interface prefix {0:?} is empty or longer than {max} bytes", max = super::PREFIX_MAX_BYTES)]
    Prefix(String),
    #[error("no pod CIDR was given to this node yet")]
    NoPodCidr,
    #[error("pod CIDR {0} has no address left")]
    Exhausted(ipnet::Ipv4Net),
    #[error("host port {port} ({protocol:?}) is taken by sandbox {owner}")]
    HostPortTaken { port: u16, protocol: Protocol, owner: String },
    #[error("sandbox id {0:?} cannot name a file")]
    SandboxId(String),
    #[error("network namespace {}", path.display())]
    Netns { path: PathBuf, source: io::Error },
    #[error("state file {}", path.display())]
    State { path: PathBuf, source: io::Error },
    #[error("state file {} is not ours to read", path.display())]
    Decode { path: PathBuf, source: serde_json::Error },
    #[error("kernel setting {name}")]
    Sysctl { name: String, source: io::Error },
    #[error("link of sandbox {sandbox}, address {ip}")]
    Link { sandbox: String, ip: Ipv4Addr, source: gantry_netlink::Error },
    #[error("table gantry-pods")]
    Rules(#[source] gantry_netlink::Error),
    #[error("netlink")]
    Netlink(#[source] gantry_netlink::Error),
    #[error("listen to the kernel's notifications")]
    Notifications(#[source] io::Error),
}
