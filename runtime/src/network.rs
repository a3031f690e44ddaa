//! The pod network: a network namespace and a routed /32 veth per sandbox, addresses from the node's pod CIDR, host
//! ports, and the rules that keep a pod to its own address. Everything here blocks for a few milliseconds at most:
//! call it from a blocking thread.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;

mod error;

pub use error::NetworkError;

/// Where the pod network keeps its state, and what the cluster looks like from here.
#[derive(Clone, Debug)]
pub struct Config {
    /// A folder of this boot (0700): one file a sandbox, plus what cleanup must restore.
    pub run_dir: PathBuf,
    /// All pods of the cluster: traffic from a pod to anything else leaves under the node's address.
    pub cluster_cidr: Ipv4Net,
    /// First letters of every host-side interface, at most [`PREFIX_MAX_BYTES`].
    pub interface_prefix: String,
    pub mtu: u32,
}

/// An interface name has 15 bytes; twelve of them tell sandboxes apart.
pub const PREFIX_MAX_BYTES: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// A port of the node that leads to a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    pub protocol: Protocol,
    /// Any address of the node where there is none.
    pub host_ip: Option<Ipv4Addr>,
    pub host_port: u16,
    pub container_port: u16,
}

/// What a sandbox was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodAddress {
    pub ip: Ipv4Addr,
    pub gateway: Ipv4Addr,
    /// The host's end of the pod's link.
    pub interface: String,
}

/// The pod network of this node.
#[derive(Debug)]
pub struct Network {
    config: Config,
}

impl Network {
    /// Takes up what the state files and the kernel say.
    pub fn open(config: Config) -> Result<Network, NetworkError> {
        Ok(Network { config })
    }

    /// Makes a network namespace with its loopback up and binds it to `path` (made if need be). Idempotent.
    pub fn create_netns(&self, path: &Path) -> Result<(), NetworkError> {
        Err(NetworkError::Netns { path: path.to_owned(), source: std::io::ErrorKind::Unsupported.into() })
    }

    /// Unmounts and removes the file. Idempotent.
    pub fn delete_netns(&self, path: &Path) -> Result<(), NetworkError> {
        Err(NetworkError::Netns { path: path.to_owned(), source: std::io::ErrorKind::Unsupported.into() })
    }

    /// The node's own part of the pod network. Sandboxes that have an address keep it.
    pub fn set_pod_cidr(&self, _cidr: Ipv4Net) -> Result<(), NetworkError> {
        Err(NetworkError::NoPodCidr)
    }

    /// Gives the sandbox an address and a link (the same address again, when it has one), and its host ports.
    pub fn attach(&self, _sandbox: &str, _netns: &Path, _ports: &[HostPort]) -> Result<PodAddress, NetworkError> {
        Err(NetworkError::NoPodCidr)
    }

    /// Takes link, host ports and address away. Safe to call when attach never ran.
    pub fn detach(&self, _sandbox: &str) -> Result<(), NetworkError> {
        Err(NetworkError::NoPodCidr)
    }

    /// What `attach` gave this sandbox.
    pub fn address(&self, _sandbox: &str) -> Option<PodAddress> {
        None
    }

    /// The sandboxes that hold an address, for the caller to detach those that are gone.
    pub fn sandboxes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Removes every link, rule, route and file of ours, and restores what we changed.
    pub fn cleanup(&self) -> Result<(), NetworkError> {
        let _ = &self.config;
        Ok(())
    }
}
