//! What a cluster has before anyone asks: its CA and credentials on disk, its namespaces, roles, priority classes and
//! the services of the API and of DNS.
//!
//! [`Credentials`] are made, or found, before the API listens. [`apply::seed`] brings the objects of [`objects::seeds`]
//! and [`policy`] up to what [`plan::plan`] says once it answers, and [`apply::keep`] looks after `default/kubernetes`
//! while it runs. All of it may be repeated at any time: a second start changes nothing.

pub mod apply;
pub mod credentials;
pub mod kubeconfig;
pub mod objects;
pub mod peers;
pub mod plan;
pub mod policy;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net};

pub use apply::{keep, seed};
pub use credentials::{BootstrapError, Credentials, NodeCredentials, keep_certificates, node_credentials};
pub use peers::Peers;

/// Where the cluster's own things are. The defaults are a cluster's on its one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The control service's own folder (`/var/lib/gantry/control`); keys are in `pki` below it.
    pub data: PathBuf,
    pub admin_kubeconfig: PathBuf,
    pub hostname: String,
    /// Every address of the host by which the API may be called.
    pub addresses: Vec<IpAddr>,
    /// The address behind the `kubernetes` service.
    pub advertise: IpAddr,
    pub port: u16,
    /// Where the addresses of Services come from.
    pub service_cidr: IpNet,
    pub service_ip: IpAddr,
    pub dns_ip: IpAddr,
    pub domain: String,
    /// Whether there may be other API servers beside this one.
    pub shared: bool,
}

impl Default for Cluster {
    fn default() -> Cluster {
        Cluster {
            data: PathBuf::from("/var/lib/gantry/control"),
            admin_kubeconfig: PathBuf::from("/etc/gantry/admin.kubeconfig"),
            hostname: "localhost".to_owned(),
            addresses: Vec::new(),
            advertise: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 6443,
            service_cidr: Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16).into(),
            service_ip: IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1)),
            dns_ip: IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10)),
            domain: "cluster.local".to_owned(),
            shared: false,
        }
    }
}

impl Cluster {
    /// Every name that the API server's certificate answers to.
    pub fn api_names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned).to_vec();
        names.push(format!("kubernetes.default.svc.{}", self.domain));
        names.push(self.hostname.clone());
        let own = [IpAddr::V4(Ipv4Addr::LOCALHOST), self.service_ip, self.advertise];
        names.extend(own.iter().chain(&self.addresses).map(IpAddr::to_string));
        names.sort();
        names.dedup();
        names
    }
}

#[cfg(test)]
mod tests;
