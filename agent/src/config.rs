//! What the agent is told at its start.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use tonic::transport::Channel;

/// The version of the Kubernetes API that this agent speaks, as `kubectl get nodes` shows it.
pub const KUBELET_VERSION: &str = "v1.36.0";
/// Pods that a node takes, unless it is told otherwise.
pub const PODS_MAX: i64 = 110;
/// Processes and threads of one pod, unless the node is told otherwise: one must not take all that the kernel has.
pub const POD_PIDS_MAX: i64 = 4096;

pub type Programmed = Arc<dyn Fn(&str) -> Option<Timestamp> + Send + Sync>;

/// Everything that differs between nodes, and between a node and a test.
#[derive(Clone)]
pub struct Config {
    pub node_name: String,
    pub node_ip: IpAddr,
    /// What outlives a reboot: checkpoints, volumes on disk (`/var/lib/gantry/pods`).
    pub data_dir: PathBuf,
    /// Persistent volumes of the built-in provisioner (`/var/lib/gantry/volumes`).
    pub volumes_dir: PathBuf,
    /// What does not: volumes that hold secrets (`/run/gantry`).
    pub run_dir: PathBuf,
    /// Where container logs lie (`/var/log/pods`).
    pub log_dir: PathBuf,
    /// Manifests of static pods (`/etc/gantry/manifests`).
    pub static_pod_dir: Option<PathBuf>,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    /// Where the kernel tells of the machine (`/proc`).
    pub proc_dir: PathBuf,
    /// The host's resolver configuration (`/etc/resolv.conf`).
    pub resolv_conf: PathBuf,
    /// Where the kubelet API listens; `None` on a hollow node.
    pub listen: Option<SocketAddr>,
    /// TLS of the kubelet API: it asks for, and does not require, a client certificate of the cluster's CA.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// When the node's services first led to a pod, by its uid: step 10 of the pod's way, which another part knows.
    pub programmed: Option<Programmed>,
    /// The cgroup under which pods lie (`/gantry`).
    pub cgroup_root: String,
    /// The runtime.
    pub cri: Channel,
    /// Pods that the node takes at most.
    pub max_pods: i64,
    /// When a container's log is rotated, and how many files of it are kept.
    pub log_limits: crate::logs::Limits,
    /// Processes and threads that a pod has at most.
    pub pod_pids_max: i64,
    /// Whether volumes in memory are mounted; on a hollow node they are plain folders.
    pub mounts: bool,
    /// When the node runs short, and what it does then.
    pub eviction: crate::eviction::Settings,
    /// What pods get to end when the machine goes down, by their priority, the lowest first; where there is none, nothing ends.
    pub shutdown_periods: Vec<crate::shutdown::plan::Period>,
    /// Where to listen for the machine's end (`/run/gantry/agent.sock`); nowhere on a hollow node.
    pub socket: Option<PathBuf>,
    /// Labels that the node registers with, beside the standard ones.
    pub labels: Vec<(String, String)>,
    /// Resources kept back from pods: thousandths of a core, and bytes.
    pub reserved_cpu_milli: i64,
    pub reserved_memory_bytes: i64,
}

impl Config {
    /// A node with the standard folders and the cluster's standard addresses.
    pub fn new(node_name: impl Into<String>, node_ip: IpAddr, cri: Channel) -> Config {
        Config {
            node_name: node_name.into(),
            node_ip,
            data_dir: "/var/lib/gantry/pods".into(),
            volumes_dir: "/var/lib/gantry/volumes".into(),
            run_dir: "/run/gantry".into(),
            log_dir: "/var/log/pods".into(),
            static_pod_dir: Some("/etc/gantry/manifests".into()),
            cluster_dns: vec![IpAddr::from([10, 96, 0, 10])],
            cluster_domain: "cluster.local".to_owned(),
            proc_dir: "/proc".into(),
            resolv_conf: "/etc/resolv.conf".into(),
            listen: Some(SocketAddr::from(([0, 0, 0, 0], 10250))),
            tls: None,
            programmed: None,
            cgroup_root: "/gantry".to_owned(),
            cri,
            max_pods: PODS_MAX,
            log_limits: crate::logs::Limits::default(),
            pod_pids_max: POD_PIDS_MAX,
            mounts: true,
            eviction: crate::eviction::Settings::default(),
            shutdown_periods: crate::shutdown::settings::standard(),
            socket: None,
            labels: Vec::new(),
            reserved_cpu_milli: 0,
            reserved_memory_bytes: 0,
        }
    }
}
