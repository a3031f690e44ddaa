//! What runs on every node: runtime, agent, services and DNS.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gantry_agent::eviction::Settings;
use gantry_agent::eviction::thresholds::{self, ImageLimits};
use gantry_agent::logs::Limits;
use gantry_agent::shutdown::plan::Period;
use gantry_agent::shutdown::settings;
use gantry_agent::{Agent, Pulse};
use gantry_client::Client;
use gantry_cri::RuntimeServiceClient;
use gantry_cri::v1::VersionRequest;
use gantry_env::{Backoff, Env, chain};
use gantry_netlink::nft::Nft;
use gantry_netproxy::{Programmed, Proxy, dns};
use gantry_runtime::image::Policy;
use gantry_runtime::image::registry::{Proxies, ProxyError};
use gantry_runtime::{LogLimits, Runtime};
use ipnet::Ipv4Net;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tracing::{error, warn};

use crate::cli::{CgroupArgs, CgroupPolicy, ClusterArgs, DeviceArgs, EndingArgs, EvictionArgs, NodeArgs, RegistryArgs};
use crate::control::v4;
use crate::paths::Paths;
use crate::{Failure, delegated};

const STOP_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_CAP: Duration = Duration::from_secs(10);
const CGROUP: &str = "/gantry";
/// The supervisor's program, in the folder of ours.
const SUPERVISOR: &str = "gantry-supervisor";

#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("the program {SUPERVISOR} is not beside gantry (looked for {path})", path = .0.display())]
    NoSupervisor(PathBuf),
    #[error("eviction: {0}")]
    Eviction(String),
    #[error("--shutdown-grace-period-critical-pods: {0}")]
    Shutdown(String),
    #[error("node address {0}: only IPv4 is supported")]
    Address(IpAddr),
    #[error("the agent has ended")]
    NoPulse,
}

/// How the node's parts reach the API, and who they are.
pub struct Wires {
    pub name: String,
    pub ip: IpAddr,
    pub agent: Client,
    pub proxy: Client,
    pub tls: Arc<rustls::ServerConfig>,
}

pub struct Node {
    agent: JoinHandle<()>,
    pulse: Pulse,
    proxy: JoinHandle<()>,
    runtime: Runtime,
    cri: RuntimeServiceClient<Channel>,
}

impl NodeArgs {
    pub fn requires_v2(&self) -> bool {
        self.cgroups == CgroupPolicy::RequireV2
    }
}

impl CgroupArgs {
    /// Below the one that systemd has delegated, if it has: what is below any other of its cgroups is its own.
    pub fn root(&self) -> String {
        match &self.cgroup_root {
            Some(root) => root.clone(),
            None => format!("{}{CGROUP}", delegated::cgroup().unwrap_or_default()),
        }
    }
}

impl EvictionArgs {
    fn settings(&self) -> Result<Settings, NodeError> {
        let made = thresholds::thresholds(&self.hard, &self.soft, &self.graces, &self.reclaims);
        let (high_percent, low_percent) = (self.images_high_percent, self.images_low_percent);
        if low_percent >= high_percent {
            let why =
                format!("--image-gc-low-threshold {low_percent} is not below --image-gc-high-threshold {high_percent}");
            return Err(NodeError::Eviction(why));
        }
        Ok(Settings {
            thresholds: made.map_err(NodeError::Eviction)?,
            transition: self.transition,
            max_pod_grace_seconds: self.max_pod_grace_seconds,
            images: ImageLimits { high_percent, low_percent, age_min: self.image_age_min },
        })
    }
}

impl EndingArgs {
    fn periods(&self) -> Result<Vec<Period>, NodeError> {
        match &self.periods {
            Some(periods) => Ok(periods.0.clone()),
            None => settings::two(self.period, self.critical_period).map_err(NodeError::Shutdown),
        }
    }
}

impl RegistryArgs {
    pub fn give(&self, config: &mut gantry_runtime::Config) -> Result<(), ProxyError> {
        config.insecure_registries.clone_from(&self.insecure);
        config.registry_ca_files.clone_from(&self.ca_files);
        if let Some(path) = &self.config_path {
            config.registry_config_paths = vec![path.clone()];
        }
        config.proxies = Proxies::new(|name| std::env::var(name).ok())?;
        config.keeps_layers = !self.discard_layers;
        config.image_policy = Policy::of(self.verifier.as_deref());
        if let Some(verifier) = &self.verifier {
            error!(verifier, "this build has no image verifier: no image is let in");
        }
        Ok(())
    }
}

impl DeviceArgs {
    pub fn give(&self, config: &mut gantry_runtime::Config) {
        if !self.cdi_dirs.is_empty() {
            config.cdi_dirs.clone_from(&self.cdi_dirs);
        }
    }
}

pub fn has_nf_tables() -> bool {
    Nft::open().is_ok_and(|mut nft| nft.generation().is_ok())
}

pub fn runtime_config(
    paths: &Paths,
    cluster_cidr: Ipv4Net,
    cgroup: &CgroupArgs,
) -> Result<gantry_runtime::Config, Failure> {
    let supervisor = std::env::current_exe()?.with_file_name(SUPERVISOR);
    if !supervisor.exists() {
        return Err(NodeError::NoSupervisor(supervisor).into());
    }
    let mut config = gantry_runtime::Config {
        state_dir: paths.state.clone(),
        run_dir: paths.run.clone(),
        socket: Some(paths.cri_socket()),
        supervisor,
        cgroup_parent: cgroup.root(),
        supervisor_cgroup: format!("{}-supervisors", cgroup.root()),
        ..gantry_runtime::Config::default()
    };
    config.network.cluster_cidr = cluster_cidr;
    Ok(config)
}

pub fn proxy_config(
    node_name: &str,
    service_cidr: Ipv4Net,
    pod_cidr: Ipv4Net,
    cluster_dns: IpAddr,
    domain: &str,
) -> Result<gantry_netproxy::Config, Failure> {
    let IpAddr::V4(service_ip) = cluster_dns else { return Err(NodeError::Address(cluster_dns).into()) };
    let dns = Some(dns::Config::new(domain, service_ip));
    Ok(gantry_netproxy::Config {
        node_name: node_name.to_owned(),
        cluster_cidr: pod_cidr,
        service_cidr,
        dns,
        programmed: Programmed::default(),
    })
}

impl Node {
    pub async fn start(
        paths: &Paths,
        args: &NodeArgs,
        cluster: &ClusterArgs,
        wires: Wires,
        stop: CancellationToken,
        env: &Env,
    ) -> Result<Node, Failure> {
        let (services, pods) = (v4("--service-cidr", cluster.service_cidr)?, v4("--pod-cidr", cluster.pod_cidr)?);
        let mut config = runtime_config(paths, pods, &args.cgroup)?;
        args.registries.give(&mut config)?;
        args.devices.give(&mut config);
        config.log_limits = LogLimits { max_bytes: args.logs.max_bytes, max_files: args.logs.max_files.into() };
        let runtime = Runtime::start(config, env.clone()).await?;
        let (dns, domain) = (args.cluster_dns, &cluster.cluster_domain);
        let proxy = proxy_config(&wires.name, services, pods, dns, domain)?;
        let mut config = gantry_agent::Config::new(wires.name.clone(), wires.ip, runtime.channel());
        config.data_dir = paths.pods();
        config.volumes_dir = paths.volumes();
        config.run_dir = paths.run.clone();
        config.log_dir = paths.pod_logs.clone();
        config.static_pod_dir = Some(paths.manifests());
        config.cluster_dns = vec![args.cluster_dns];
        config.cluster_domain = cluster.cluster_domain.clone();
        config.cgroup_root = args.cgroup.root();
        config.pod_pids_max = args.pod_max_pids;
        config.eviction = args.eviction.settings()?;
        config.shutdown_periods = args.ending.periods()?;
        config.socket = Some(paths.agent_socket());
        config.log_limits = Limits { max_bytes: args.logs.max_bytes, max_files: args.logs.max_files.into() };
        let programmed = proxy.programmed.clone();
        config.programmed = Some(Arc::new(move |uid| programmed.at(uid)));
        config.listen = Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, args.kubelet_port)));
        config.tls = Some(wires.tls.clone());
        let agent = Agent::start(config, wires.agent.clone(), env.clone(), stop.clone()).await?;
        let (pulse, agent) = (agent.pulse(), tokio::spawn(agent.run()));
        let proxy = tokio::spawn(keep_proxy(proxy, wires.proxy, env.clone(), stop));
        let cri = RuntimeServiceClient::new(runtime.channel());
        Ok(Node { agent, pulse, proxy, runtime, cri })
    }

    /// Whether the node is well: the runtime answers, and the one task that all pods hang on turns.
    pub async fn look(&self) -> Result<(), Failure> {
        look(&self.cri).await?;
        if self.pulse.beats().await { Ok(()) } else { Err(NodeError::NoPulse.into()) }
    }

    /// Ends what watches and serves. Containers live on: their supervisors keep them.
    pub async fn stop(self) {
        for (name, task) in [("agent", self.agent), ("netproxy", self.proxy)] {
            if tokio::time::timeout(STOP_TIMEOUT, task).await.is_err() {
                warn!(part = name, "still busy when the node stopped");
            }
        }
        self.runtime.stop().await;
    }
}

/// Whether the runtime answers.
pub async fn look(cri: &RuntimeServiceClient<Channel>) -> Result<(), Failure> {
    cri.clone().version(VersionRequest::default()).await?;
    Ok(())
}

/// The proxy is begun again where it cannot begin, or where it failed: the rest of the node goes on meanwhile.
async fn keep_proxy(config: gantry_netproxy::Config, client: Client, env: Env, stop: CancellationToken) {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
    while !stop.is_cancelled() {
        match Proxy::run(config.clone(), client.clone(), env.clone(), stop.clone()).await {
            Ok(()) => return,
            Err(failure) => error!(error = %chain(&failure), "services are not served"),
        }
        let _ = stop.run_until_cancelled(tokio::time::sleep(backoff.next(&env.rng))).await;
    }
}
