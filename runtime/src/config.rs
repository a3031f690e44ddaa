use std::path::PathBuf;

use gantry_base::log::LogLimits;

use crate::image::{Policy, Proxies};

/// Where a runtime lives. Every folder comes from here, so that two of them can run beside each other.
#[derive(Clone, Debug)]
pub struct Config {
    /// Images and snapshots, kept over a reboot: `/var/lib/gantry`.
    pub state_dir: PathBuf,
    /// Sockets, journal and namespaces of this boot: `/run/gantry`.
    pub run_dir: PathBuf,
    /// The CRI socket; none serves in-process channels only.
    pub socket: Option<PathBuf>,
    /// The `gantry-supervisor` program.
    pub supervisor: PathBuf,
    /// The parent of pods whose sandbox names no cgroup, below the root of each hierarchy.
    pub cgroup_parent: String,
    /// Where supervisors go, outside every pod's.
    pub supervisor_cgroup: String,
    pub network: NetworkConfig,
    /// Registries spoken to over plain HTTP.
    pub insecure_registries: Vec<String>,
    /// Certificates, in PEM files, that registries are trusted by besides the system's and the bundled ones.
    pub registry_ca_files: Vec<PathBuf>,
    /// Folders with one for each registry (`hosts.toml` or certificates), as containerd's `config_path`; the first that
    /// is there counts.
    pub registry_config_paths: Vec<PathBuf>,
    /// Through which registries are reached.
    pub proxies: Proxies,
    /// Keep the layers of images as they came besides their files: an export needs them.
    pub keeps_layers: bool,
    /// Who decides which images may come here.
    pub image_policy: Policy,
    /// The folder of Localhost seccomp profiles.
    pub seccomp_dir: PathBuf,
    /// Folders of CDI specifications, later ones before earlier ones.
    pub cdi_dirs: Vec<PathBuf>,
    /// When supervisors rotate logs: not at all for a kubelet that does so itself, which is the default. CRI has no word for it.
    pub log_limits: LogLimits,
}

/// The part of the pod network that is not the runtime's to find out.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    pub cluster_cidr: ipnet::Ipv4Net,
    pub interface_prefix: String,
    pub mtu: u32,
    /// The node's part from the start; otherwise it comes by UpdateRuntimeConfig.
    pub pod_cidr: Option<ipnet::Ipv4Net>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            state_dir: "/var/lib/gantry".into(),
            run_dir: "/run/gantry".into(),
            socket: Some("/run/gantry/cri.sock".into()),
            supervisor: "/usr/libexec/gantry-supervisor".into(),
            cgroup_parent: "/gantry".to_owned(),
            supervisor_cgroup: "/gantry-supervisors".to_owned(),
            network: NetworkConfig {
                cluster_cidr: ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 244, 0, 0), 16),
                interface_prefix: "gt".to_owned(),
                mtu: 1500,
                pod_cidr: None,
            },
            insecure_registries: Vec::new(),
            registry_ca_files: Vec::new(),
            registry_config_paths: vec!["/etc/gantry/certs.d".into(), "/etc/containerd/certs.d".into()],
            proxies: Proxies::default(),
            keeps_layers: true,
            image_policy: Policy::default(),
            seccomp_dir: "/var/lib/kubelet/seccomp".into(),
            cdi_dirs: vec!["/etc/cdi".into(), "/var/run/cdi".into()],
            log_limits: LogLimits::default(),
        }
    }
}
