//! Putting the parts together, and taking what they left on the host away again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_client::{Client, Informer, Scope};
use gantry_env::Env;
use gantry_kube::pod::resources::Amounts;
use gantry_kube::resource;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::config::KUBELET_VERSION;
use crate::events::Events;
use crate::eviction::images::Ask;
use crate::eviction::{Evictor, Pressures};
use crate::logs::Rotation;
use crate::node::facts::Facts;
use crate::node::{NodeConfig, Registration};
use crate::pods::{Inputs, Pods, Pulse, listen, views::Views};
use crate::runtime::Runtime;
use crate::server::{self, ServeError};
use crate::shared::{MEASURES_MAX, PULLS_MAX, Shared};
use crate::shutdown::wire::Progress;
use crate::shutdown::{self, Shutdown, Switch};
use crate::stats::cgroup::Folders;
use crate::stats::host::Host;
use crate::stats::own::Counters;
use crate::stats::{self, Stats};
use crate::trace::Trace;
use crate::users::Users;
use crate::volume::{
    VolumeError, Volumes, follow::Objects, in_memory, is_mount_point, mount_tmpfs, reclaim, token::Tokens,
};
use crate::{Config, volume};

/// Words of the runtime that wait for the owner of the maps.
const TOUCHED_MAX: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("cannot make the folder {path}", path = .path.display())]
    Folder {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the agent's socket {path} cannot be listened on", path = .path.display())]
    Socket {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("secrets need a file system in memory")]
    Memory(#[source] VolumeError),
}

/// The kubelet of one node.
pub struct Agent {
    shared: Arc<Shared>,
    registration: Registration,
    pressures: watch::Sender<Pressures>,
    switch: Switch,
    progress: watch::Sender<Progress>,
    pulse: Pulse,
    asked: mpsc::Receiver<oneshot::Sender<()>>,
    image_asks: mpsc::Receiver<Ask>,
    stop: CancellationToken,
}

impl Agent {
    /// Starts the kubelet API and makes the folders; pods are touched by [`Agent::run`] alone.
    pub async fn start(config: Config, client: Client, env: Env, stop: CancellationToken) -> Result<Agent, StartError> {
        make_folders(&config)?;
        let trace = Trace::new(env.clone(), config.programmed.clone());
        let views = Arc::new(Views::new(config.log_dir.clone()));
        let runtime = Runtime::new(config.cri.clone());
        let volumes = Volumes {
            data_dir: config.data_dir.clone(),
            volumes_dir: config.volumes_dir.clone(),
            run_dir: config.run_dir.clone(),
            mounts: config.mounts,
            client: client.clone(),
            objects: Arc::new(Objects::new(client.clone(), env.clone(), stop.clone())),
            tokens: Tokens::default(),
            env: env.clone(),
        };
        let stats = Arc::new(Stats::new(stats::Config {
            runtime: runtime.clone(),
            views: views.clone(),
            volumes: volumes.clone(),
            log_dir: config.log_dir.clone(),
            cgroup_root: config.cgroup_root.clone(),
            host: Host { proc: config.proc_dir.clone(), cgroups: Folders::detect(), data_dir: config.data_dir.clone() },
            env: env.clone(),
        }));
        let counters = Arc::new(Counters::default());
        counters.shut_down(shutdown::times::load(&config.data_dir));
        let (switch, shutting_down, progress) = shutdown::switch(&config.shutdown_periods);
        let (asks, image_asks) = mpsc::channel(1);
        if let Some(path) = &config.socket {
            let fail = |source| StartError::Socket { path: path.clone(), source };
            let listener = shutdown::socket::listen(path).map_err(fail)?;
            tokio::spawn(shutdown::socket::serve(listener, switch.clone(), asks, stop.clone()));
        }
        let mut port = config.listen.map_or(0, |listen| listen.port());
        if let (Some(listen), Some(tls)) = (config.listen, config.tls.clone()) {
            let server = server::Config {
                listen,
                tls,
                node_name: config.node_name.clone(),
                log_dir: config.log_dir.clone(),
                client: client.clone(),
                cri: config.cri.clone(),
                pods: views.clone(),
                stats: stats.clone(),
                counters: counters.clone(),
                trace: trace.clone(),
                env: env.clone(),
            };
            port = server::serve(server, stop.clone()).await?.port();
        }
        let node = NodeConfig {
            name: config.node_name.clone(),
            ip: config.node_ip,
            kubelet_port: port,
            kubelet_version: KUBELET_VERSION.to_owned(),
            max_pods: config.max_pods,
            labels: config.labels.clone(),
            reserved_cpu_milli: config.reserved_cpu_milli,
            reserved_memory_bytes: config.reserved_memory_bytes,
            data_dir: config.data_dir.clone(),
            volumes_dir: config.volumes_dir.clone(),
        };
        let (pressures, pressed) = watch::channel(Pressures::new());
        let (registration, view) = Registration::new(
            node,
            client.clone(),
            config.cri.clone(),
            env.clone(),
            pressed.clone(),
            shutting_down.clone(),
        );
        let facts = Facts::read(&config.data_dir);
        let capacity = Amounts {
            cpu_milli: facts.cpus * 1000,
            memory_bytes: facts.memory_bytes,
            ephemeral_storage_bytes: facts.storage_bytes,
            ..Amounts::default()
        };
        let allocatable = Amounts {
            cpu_milli: (capacity.cpu_milli - config.reserved_cpu_milli).max(0),
            memory_bytes: (capacity.memory_bytes - config.reserved_memory_bytes).max(0),
            ..capacity.clone()
        };
        let services =
            Informer::spawn(client.clone(), &resource::SERVICE, Scope::default(), env.clone(), stop.clone(), |o| o);
        let users = Users::new(config.data_dir.clone(), config.max_pods);
        let shared = Shared {
            runtime,
            users,
            stats,
            pressures: pressed,
            shutting_down,
            counters,
            events: Events::spawn(client.clone(), config.node_name.clone(), env.clone(), stop.clone()),
            node: view,
            pulls: Semaphore::new(PULLS_MAX),
            measures: Semaphore::new(MEASURES_MAX),
            config,
            env,
            client,
            volumes,
            trace,
            services,
            capacity,
            allocatable,
            views,
        };
        let (pulse, asked) = mpsc::channel(1);
        let (shared, pulse) = (Arc::new(shared), Pulse(pulse));
        Ok(Agent { shared, registration, pressures, switch, progress, pulse, asked, image_asks, stop })
    }

    /// By which to end the node's pods before the end of the machine.
    pub fn switch(&self) -> Switch {
        self.switch.clone()
    }

    /// By which to see, later, whether the agent turns.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Works until the token ends it. Containers live on.
    pub async fn run(self) {
        // The switch is held: where it goes, it cannot be asked for any more.
        let Agent { shared, registration, pressures, switch: _switch, progress, asked, image_asks, stop, pulse: _ } =
            self;
        let (touch, touched) = mpsc::channel(TOUCHED_MAX);
        let (list, held) = mpsc::channel(1);
        let (found, manifests) = mpsc::channel(1);
        let scope = Scope { field_selector: format!("spec.nodeName={}", shared.config.node_name), ..Scope::default() };
        let api =
            Informer::spawn(shared.client.clone(), &resource::POD, scope, shared.env.clone(), stop.clone(), |object| {
                object
            });
        let mut parts = tokio::task::JoinSet::new();
        let ears = stop.clone();
        let runtime = shared.runtime.clone();
        parts.spawn(async move {
            ears.run_until_cancelled(listen::events(runtime, touch)).await;
        });
        let (ears, runtime) = (stop.clone(), shared.runtime.clone());
        parts.spawn(async move {
            ears.run_until_cancelled(listen::relist(runtime, list)).await;
        });
        let ears = stop.clone();
        let (folder, name) = (shared.config.static_pod_dir.clone(), shared.config.node_name.clone());
        parts.spawn(async move {
            match folder {
                Some(folder) => ears.run_until_cancelled(listen::manifests(folder, name, found)).await,
                None => ears.run_until_cancelled(std::future::pending()).await,
            };
        });
        let rotation = Rotation {
            runtime: shared.runtime.clone(),
            log_dir: shared.config.log_dir.clone(),
            limits: shared.config.log_limits,
            env: shared.env.clone(),
        };
        let ears = stop.clone();
        parts.spawn(async move {
            ears.run_until_cancelled(rotation.run()).await;
        });
        let (order, orders) = mpsc::channel(1);
        let evictor = Evictor::new(shared.clone(), pressures, order.clone(), image_asks);
        let ears = stop.clone();
        parts.spawn(async move {
            ears.run_until_cancelled(evictor.run()).await;
        });
        let shutdown = Shutdown::new(shared.clone(), order, progress);
        let ears = stop.clone();
        parts.spawn(async move {
            ears.run_until_cancelled(shutdown.run()).await;
        });
        parts.spawn(registration.run(stop.clone()));
        parts.spawn(reclaim::run(shared.clone(), stop.clone()));
        Pods::new(shared, stop).run(Inputs { api, manifests, held, touched, orders, asked }).await;
        while parts.join_next().await.is_some() {}
    }
}

fn make_folders(config: &Config) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt;
    let memory = config.run_dir.join("pods");
    for (path, mode) in [(&config.data_dir, 0o700), (&memory, 0o700), (&config.log_dir, 0o755)] {
        let made = std::fs::DirBuilder::new().recursive(true).mode(mode).create(path);
        made.map_err(|source| StartError::Folder { path: path.clone(), source })?;
    }
    if config.mounts && !in_memory(&memory) {
        mount_tmpfs(&memory, "mode=0700").map_err(StartError::Memory)?;
    }
    Ok(())
}

/// Unmounts and removes what the agent keeps on the host for pods that are gone. The runtime must have ended them first.
/// Safe to call where there is nothing.
pub fn cleanup(data_dir: &Path, run_dir: &Path) -> Result<(), VolumeError> {
    let memory = run_dir.join("pods");
    for root in [data_dir, &memory] {
        for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
            volume::unmount_below(&entry.path())?;
            volume::remove(&entry.path())?;
        }
    }
    if is_mount_point(&memory) {
        volume::unmount(&memory)?;
    }
    volume::remove(&memory)
}
