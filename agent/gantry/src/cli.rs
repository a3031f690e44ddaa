//! The command line: roles that run, and commands that look or clean up.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use gantry_agent::eviction::thresholds;
use gantry_agent::shutdown::settings;
use gantry_runtime::image::Platform;
use ipnet::IpNet;

/// Kubernetes on hosts that have nothing but a kernel.
#[derive(Debug, Parser)]
#[command(name = "gantry", version, about, max_term_width = 100)]
pub struct Cli {
    /// Folder that takes the place of / for Gantry's own files (for tests and second clusters)
    #[arg(long, global = true, default_value = "/", value_name = "DIR")]
    pub root: PathBuf,
    /// What to log: a level, or tracing directives such as gantry_agent=debug
    #[arg(long, global = true, default_value = "info", env = "GANTRY_LOG", value_name = "FILTER")]
    pub log: String,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole cluster on this machine: control, runtime, agent, services and DNS
    Up(UpArgs),
    /// Stop the cluster of this machine: its pods, networks and cgroups go, its data stays
    Down(DownArgs),
    /// Stop the cluster and remove every file of it
    Uninstall(DownArgs),
    /// End this node's pods in the order of their priority, before its machine ends
    Shutdown(ShutdownArgs),
    /// Run the control service alone: API server, store, scheduler, controllers
    Control(ControlRole),
    /// Run a node alone: runtime, agent, services and DNS, for a control service elsewhere
    Agent(AgentArgs),
    /// Run the container runtime alone: CRI v1 on a unix socket
    Runtime(RuntimeArgs),
    /// Follow one object through the house
    Trace(TraceArgs),
    /// Look after the images of this machine
    Image(ImageArgs),
    /// Leave a process in the cgroup that systemd delegates to pods
    #[command(hide = true)]
    HoldCgroup {
        /// Be that process
        #[arg(long)]
        stay: bool,
    },
}

impl Command {
    /// Whether it runs for good.
    pub fn is_role(&self) -> bool {
        match self {
            Command::Up(args) => !args.detach,
            Command::Control(role) => role.what.is_none(),
            Command::Agent(_) | Command::Runtime(_) => true,
            Command::Down(_) | Command::Uninstall(_) | Command::Trace(_) | Command::Image(_) => false,
            Command::Shutdown(_) | Command::HoldCgroup { .. } => false,
        }
    }
}

#[derive(Clone, Debug, Args)]
pub struct UpArgs {
    /// Go to the background once the node is ready
    #[arg(long)]
    pub detach: bool,
    /// What --detach starts
    #[arg(long, hide = true)]
    pub background: bool,
    #[command(flatten)]
    pub control: ControlArgs,
    #[command(flatten)]
    pub node: NodeArgs,
}

#[derive(Clone, Debug, Args)]
pub struct ControlArgs {
    /// Address that the API server listens on
    #[arg(long, default_value = "0.0.0.0", value_name = "IP")]
    pub listen: IpAddr,
    /// Port of the API server
    #[arg(long, default_value_t = 6443, value_name = "PORT")]
    pub port: u16,
    /// Address at which nodes and pods reach the API server (default: the node's)
    #[arg(long, value_name = "IP")]
    pub advertise: Option<IpAddr>,
    /// Prefix length of a node's part of the pod addresses
    #[arg(long, default_value_t = 24, value_name = "BITS")]
    pub node_cidr_mask: u8,
    #[command(flatten)]
    pub cluster: ClusterArgs,
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Where the cluster's objects are, in the words of kube-apiserver's flags.
#[derive(Clone, Debug, Args)]
pub struct StoreArgs {
    /// Where objects are kept: in a file of this host, or in an etcd cluster that several control services may share (each needs
    /// ca.crt, ca.key and service-account.key of /var/lib/gantry/control/pki from the first one)
    #[arg(long, value_enum, default_value_t = StoreKind::Embedded)]
    pub store: StoreKind,
    #[command(flatten)]
    pub etcd: EtcdArgs,
    /// File with an EncryptionConfiguration (apiserver.config.k8s.io/v1; providers aesgcm and identity): which kinds of objects are
    /// encrypted in the store, and with which keys. After a start with another one, what is stored is encrypted anew
    #[arg(long, value_name = "FILE")]
    pub encryption_provider_config: Option<PathBuf>,
}

/// How etcd is reached.
#[derive(Clone, Debug, Args)]
pub struct EtcdArgs {
    /// URLs of the etcd servers
    #[arg(long, value_name = "URL,...", value_delimiter = ',')]
    pub etcd_servers: Vec<String>,
    /// File with the certificate authority of the etcd servers, for https URLs
    #[arg(long, value_name = "FILE")]
    pub etcd_cafile: Option<PathBuf>,
    /// File with the certificate that is shown to etcd
    #[arg(long, value_name = "FILE", requires = "etcd_keyfile")]
    pub etcd_certfile: Option<PathBuf>,
    /// File with the key of that certificate
    #[arg(long, value_name = "FILE", requires = "etcd_certfile")]
    pub etcd_keyfile: Option<PathBuf>,
    /// Prefix of all keys in etcd
    #[arg(long, default_value = gantry_control::store::etcd::PREFIX, value_name = "PREFIX")]
    pub etcd_prefix: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StoreKind {
    Embedded,
    Etcd,
}

/// What every role of one cluster must be told alike.
#[derive(Clone, Debug, Args)]
pub struct ClusterArgs {
    /// Range of service addresses
    #[arg(long, default_value = "10.96.0.0/16", value_name = "CIDR")]
    pub service_cidr: IpNet,
    /// Range of pod addresses; each node gets a part of it
    #[arg(long, default_value = "10.244.0.0/16", value_name = "CIDR")]
    pub pod_cidr: IpNet,
    /// DNS domain of the cluster
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    pub cluster_domain: String,
}

#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ControlRole {
    #[command(subcommand)]
    pub what: Option<ControlWhat>,
    #[command(flatten)]
    pub args: ControlArgs,
}

#[derive(Clone, Debug, Subcommand)]
pub enum ControlWhat {
    /// Write what `gantry agent` needs to join as a node: its identity and no more
    NodeCredentials {
        /// Name of the node
        name: String,
        /// Address of the node; may be given several times
        #[arg(long, required = true, value_name = "IP")]
        ip: Vec<IpAddr>,
        /// URL at which the node reaches the API server
        #[arg(long, value_name = "URL")]
        server: String,
        /// Folder to write to
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Save what the store holds, or make a store of what was saved
    #[command(subcommand)]
    Snapshot(SnapshotWhat),
    /// Move the objects to another store
    #[command(subcommand)]
    Store(StoreWhat),
}

#[derive(Clone, Debug, Subcommand)]
pub enum SnapshotWhat {
    /// Save everything that a running control service stores, as it is at one moment. Secrets are in the file as they are in the
    /// store
    Save {
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Kubeconfig to ask with (default: /etc/gantry/admin.kubeconfig)
        #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
        kubeconfig: Option<PathBuf>,
    },
    /// Make the embedded store of this host be what was saved, while no control service runs
    Restore {
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Replace the store that is there; its file is kept beside the new one
        #[arg(long)]
        replace: bool,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub enum StoreWhat {
    /// Copy everything from one store to another, while no control service runs on either
    Copy {
        /// Where the objects are
        #[arg(long, value_enum)]
        from: StoreKind,
        /// Where they go
        #[arg(long, value_enum)]
        to: StoreKind,
        /// Replace what is there
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        etcd: EtcdArgs,
    },
}

#[derive(Clone, Debug, Args)]
pub struct AgentArgs {
    /// Folder with the node's credentials, as `gantry control node-credentials` writes it (default: /etc/gantry/node)
    #[arg(long, value_name = "DIR")]
    pub credentials: Option<PathBuf>,
    #[command(flatten)]
    pub cluster: ClusterArgs,
    #[command(flatten)]
    pub node: NodeArgs,
}

#[derive(Clone, Debug, Args)]
pub struct NodeArgs {
    /// Name of this node (default: the host's name)
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// Address of this node (default: that of the default route's interface)
    #[arg(long, value_name = "IP")]
    pub node_ip: Option<IpAddr>,
    /// Port of the kubelet API
    #[arg(long, default_value_t = 10250, value_name = "PORT")]
    pub kubelet_port: u16,
    /// What to do where cgroup v2 controllers are missing
    #[arg(long, value_enum, default_value_t = CgroupPolicy::Any)]
    pub cgroups: CgroupPolicy,
    /// Processes and threads that a pod has at most
    #[arg(long, default_value_t = gantry_agent::POD_PIDS_MAX, value_name = "NUMBER", value_parser = clap::value_parser!(i64).range(1..))]
    pub pod_max_pids: i64,
    /// Address of cluster DNS
    #[arg(long, default_value = "10.96.0.10", value_name = "IP")]
    pub cluster_dns: IpAddr,
    #[command(flatten)]
    pub logs: LogArgs,
    #[command(flatten)]
    pub eviction: EvictionArgs,
    #[command(flatten)]
    pub ending: EndingArgs,
    #[command(flatten)]
    pub registries: RegistryArgs,
    #[command(flatten)]
    pub devices: DeviceArgs,
    #[command(flatten)]
    pub cgroup: CgroupArgs,
}

#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// Size at which a container's log is rotated
    #[arg(long = "container-log-max-size", default_value = "10Mi", value_name = "QUANTITY", value_parser = bytes)]
    pub max_bytes: u64,
    /// Files kept of each container's log, the one being written included
    #[arg(long = "container-log-max-files", default_value_t = 5, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(2..))]
    pub max_files: u16,
}

/// A quantity of bytes, at least one.
fn bytes(text: &str) -> Result<u64, String> {
    let quantity = gantry_kube::quantity::Quantity::parse(text).map_err(|error| error.to_string())?;
    u64::try_from(quantity.value()).ok().filter(|n| *n > 0).ok_or_else(|| "a log must hold something".to_owned())
}

/// When a node runs short, in the words of the kubelet's flags.
#[derive(Clone, Debug, Args)]
pub struct EvictionArgs {
    /// Thresholds at which pods are evicted at once; none where it is empty
    #[arg(long = "eviction-hard", default_value = thresholds::HARD_DEFAULT, value_name = "SIGNAL<AMOUNT,...>")]
    pub hard: String,
    /// Thresholds at which pods are evicted after a grace period
    #[arg(long = "eviction-soft", default_value = "", value_name = "SIGNAL<AMOUNT,...>")]
    pub soft: String,
    /// Grace period of each soft threshold
    #[arg(long = "eviction-soft-grace-period", default_value = "", value_name = "SIGNAL=DURATION,...")]
    pub graces: String,
    /// What is to be free beyond a threshold once it was met
    #[arg(long = "eviction-minimum-reclaim", default_value = "", value_name = "SIGNAL=AMOUNT,...")]
    pub reclaims: String,
    /// Seconds that a pod gets to end at a soft threshold, at most
    #[arg(long = "eviction-max-pod-grace-period", default_value_t = 0, value_name = "SECONDS", value_parser = clap::value_parser!(i64).range(0..))]
    pub max_pod_grace_seconds: i64,
    /// How long the node's condition shows a pressure after it was last there
    #[arg(long = "eviction-pressure-transition-period", default_value = "5m", value_name = "DURATION", value_parser = thresholds::duration)]
    pub transition: Duration,
    /// Used percentage of the images' disk from which on unused images are removed; 100 keeps them
    #[arg(long = "image-gc-high-threshold", default_value_t = 85, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub images_high_percent: u8,
    /// Used percentage down to which they are removed
    #[arg(long = "image-gc-low-threshold", default_value_t = 80, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..100))]
    pub images_low_percent: u8,
    /// Age below which an unused image is left alone
    #[arg(long = "minimum-image-ttl-duration", default_value = "2m", value_name = "DURATION", value_parser = thresholds::duration)]
    pub image_age_min: Duration,
}

/// What pods get to end at `gantry shutdown`, in the words of the kubelet's settings.
#[derive(Clone, Debug, Args)]
pub struct EndingArgs {
    /// Time that pods get to end before the machine does, critical ones included; 0 lets them end with it
    #[arg(long = "shutdown-grace-period", default_value = "30s", value_name = "DURATION", value_parser = thresholds::duration)]
    pub period: Duration,
    /// Time of that which is kept for critical pods, who end last (default: a third of it, 10s at most)
    #[arg(long = "shutdown-grace-period-critical-pods", value_name = "DURATION", value_parser = thresholds::duration)]
    pub critical_period: Option<Duration>,
    /// Times by priority, in place of these two: pods of each priority and above, up to the next, end after those below
    #[arg(long = "shutdown-grace-period-by-pod-priority", value_name = "PRIORITY=SECONDS,...",
          value_parser = settings::by_priority, conflicts_with_all = ["period", "critical_period"])]
    pub periods: Option<settings::Periods>,
}

#[derive(Clone, Debug, Args)]
pub struct ShutdownArgs {
    /// The machine stays after all: the node takes pods again (those that have ended have ended)
    #[arg(long)]
    pub cancel: bool,
}

#[derive(Clone, Debug, Args)]
pub struct RegistryArgs {
    /// Registry to speak plain HTTP with (can be repeated; loopback ones always are)
    #[arg(long = "insecure-registry", value_name = "HOST[:PORT]")]
    pub insecure: Vec<String>,
    /// PEM file of certificates to trust registries by, besides the system's (can be repeated)
    #[arg(long = "registry-ca", value_name = "FILE")]
    pub ca_files: Vec<PathBuf>,
    /// Folder with one for each registry, HOST or HOST_PORT_, and in it a hosts.toml as containerd reads it (mirrors, certificates,
    /// headers) or docker's *.crt, *.cert and *.key; read at each pull (default: /etc/gantry/certs.d, or where that is not there
    /// /etc/containerd/certs.d)
    #[arg(long = "registry-config-path", value_name = "FOLDER")]
    pub config_path: Option<PathBuf>,
    /// Do not keep the layers of images as they came besides their files: saves disk, and such images cannot be exported
    #[arg(long = "discard-unpacked-layers")]
    pub discard_layers: bool,
    /// Who verifies the signatures of images. This build has no verifier: whatever is named here, no image is let in
    #[arg(long = "image-verifier", value_name = "NAME")]
    pub verifier: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub struct DeviceArgs {
    /// Folder of CDI specifications, which must be root's and nobody else's to write; read when a container asks for a device (can be
    /// repeated, a later folder's device counts; default: /etc/cdi and /var/run/cdi)
    #[arg(long = "cdi-spec-dir", value_name = "FOLDER")]
    pub cdi_dirs: Vec<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub struct CgroupArgs {
    /// Cgroup under which pods are, below the root of each hierarchy; supervisors are in one beside it (default: /gantry, or
    /// below gantry-pods.service where systemd runs that)
    #[arg(long, value_name = "PATH")]
    pub cgroup_root: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CgroupPolicy {
    /// Go on with what there is, and say once what is missing
    Any,
    /// Refuse to start
    RequireV2,
}

#[derive(Clone, Debug, Args)]
pub struct RuntimeArgs {
    /// Unix socket to serve CRI v1 on (default: /run/gantry/cri.sock)
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Pod addresses of this node, until UpdateRuntimeConfig says otherwise
    #[arg(long, value_name = "CIDR")]
    pub pod_cidr: Option<IpNet>,
    /// Range of pod addresses of the whole cluster
    #[arg(long, default_value = "10.244.0.0/16", value_name = "CIDR")]
    pub cluster_cidr: IpNet,
    #[command(flatten)]
    pub registries: RegistryArgs,
    #[command(flatten)]
    pub devices: DeviceArgs,
    #[command(flatten)]
    pub cgroup: CgroupArgs,
}

#[derive(Clone, Debug, Args)]
pub struct DownArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Address of cluster DNS that the cluster was started with
    #[arg(long, default_value = "10.96.0.10", value_name = "IP")]
    pub cluster_dns: IpAddr,
    /// Seconds that containers get to end by themselves
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    pub grace: u32,
    #[command(flatten)]
    pub cgroup: CgroupArgs,
}

#[derive(Clone, Debug, Args)]
pub struct TraceArgs {
    #[command(subcommand)]
    pub what: TraceWhat,
}

#[derive(Clone, Debug, Subcommand)]
pub enum TraceWhat {
    /// When a pod passed each of the ten steps
    Pod {
        name: String,
        #[arg(short, long, default_value = "default")]
        namespace: String,
        /// Kubeconfig to ask with (default: /etc/gantry/admin.kubeconfig)
        #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
        kubeconfig: Option<PathBuf>,
    },
}

#[derive(Clone, Debug, Args)]
pub struct ImageArgs {
    /// CRI socket to ask (default: /run/gantry/cri.sock)
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    #[command(subcommand)]
    pub what: ImageWhat,
}

#[derive(Clone, Debug, Subcommand)]
pub enum ImageWhat {
    /// List the images of this machine
    #[command(visible_alias = "ls")]
    List,
    /// Pull images from their registries
    Pull {
        #[arg(required = true, value_name = "NAME")]
        references: Vec<String>,
        /// Pull for this platform, linux/arm64 or linux/arm/v7, in place of this machine's. An image for another platform is
        /// kept beside this machine's of that name, which pods go on with: it is exported by its name and --platform, and
        /// found by its id or the digest of its manifest. A pod that names that digest has it started, and the kernel says
        /// whether it runs
        #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
        platform: Option<Platform>,
    },
    /// Import the images of OCI or docker archives
    Import {
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Take the images for this platform, in place of this machine's, and keep them as `pull --platform` does
        #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
        platform: Option<Platform>,
    },
    /// Write images to one archive, an OCI layout that `docker load` and `ctr image import` take too
    Export {
        #[arg(required = true, value_name = "NAME")]
        references: Vec<String>,
        /// Write those that are here for this platform (default: this machine's or, where none is here, the only one)
        #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
        platform: Option<Platform>,
        /// File to write; - is the standard output
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Remove images, each with all its tags; a name stands for its images of all platforms, an id for one image
    Rm {
        #[arg(required = true, value_name = "NAME")]
        references: Vec<String>,
    },
    /// Remove the images that nobody uses, neither pinned nor young ones, as this node's agent does when its disk fills
    Prune {
        /// Say of each image whether it would go, and why not, and remove none
        #[arg(long)]
        dry_run: bool,
    },
}
