//! A runtime: opened, recovered, and served on a socket or inside this process.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use gantry_base::Id;
use gantry_base::id::ID_MAX_CHARS;
use gantry_cri::{ArchivesServer, ImageServiceServer, MESSAGE_MAX_BYTES, RuntimeServiceServer};
use gantry_env::{Env, chain};
use gantry_netlink::nft::Changes;
use gantry_netlink::route::Routes;
use parking_lot::Mutex;
use tokio::io::DuplexStream;
use tokio::net::UnixListener;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Server};

use crate::cdi::Specifications;
use crate::cgroup::programs::Programs;
use crate::cgroup::rates::Rates;
use crate::cgroup::{CgroupError, Hierarchies};
use crate::config::Config;
use crate::container::seccomp::Filters;
use crate::cri::Services;
use crate::heard::{self, Heard};
use crate::image::{self, ImageError, Images};
use crate::network::loopback::Loopback;
use crate::network::{self, Network, NetworkError};
use crate::node::{Container, EVENTS_MAX, Names, Node, NodeError, Pods, Sandbox};
use crate::records::{RecordError, Records, SandboxRecord, SandboxState, private_dir};
use crate::stream::{self, Streams};
use crate::supervisor::{Program, SupervisorError};

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{what} {path:?}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("another runtime serves {0:?}")]
    InUse(PathBuf),
    #[error("open the images")]
    Images(#[from] ImageError),
    #[error("open the pod network")]
    Network(#[from] NetworkError),
    #[error("find the cgroup hierarchies")]
    Cgroups(#[from] CgroupError),
    #[error("open the journal")]
    Records(#[from] RecordError),
    #[error("load the supervisor")]
    Supervisor(#[from] SupervisorError),
}

/// In-process connections waiting to be accepted.
const CONNECTIONS_MAX: usize = 16;

/// A running runtime. Dropping it stops serving and touches no container.
pub struct Runtime {
    node: Arc<Node>,
    connect: mpsc::Sender<DuplexStream>,
    stop: watch::Sender<bool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Runtime {
    /// Opens everything, takes up what runs, and serves. Only then does it return: who connects finds it recovered.
    pub async fn start(config: Config, env: Env) -> Result<Runtime, StartError> {
        let at = |what, path: &Path| {
            let path = path.to_owned();
            move |source| StartError::Io { what, path, source }
        };
        for dir in [&config.run_dir, &config.state_dir] {
            private_dir(dir).map_err(at("make", dir))?;
        }
        let listener = match &config.socket {
            Some(path) => Some(listen(path).await?),
            None => None,
        };
        // From before the table is made: no change of it is missed.
        let (of_rules, of_links) = (Heard::of(Changes::open())?, Heard::of(Routes::link_changes())?);
        let node = open(config, env).await?;
        recover(&node).await?;
        let (streams_listener, node) = node;
        let (connect, accepted) = mpsc::channel(CONNECTIONS_MAX);
        let stop = watch::Sender::new(false);
        let mut tasks = vec![tokio::spawn(stream::serve(streams_listener, Arc::downgrade(&node)))];
        tasks.push(tokio::spawn(heard::keep_rules(of_rules, Arc::downgrade(&node))));
        tasks.push(tokio::spawn(heard::forget_links(of_links, Arc::downgrade(&node))));
        let services = Services { node: Arc::clone(&node) };
        tasks.push(tokio::spawn(serve_in_process(services.clone(), accepted, stop.subscribe())));
        if let Some(listener) = listener {
            tasks.push(tokio::spawn(serve_socket(services, listener, stop.subscribe())));
        }
        Ok(Runtime { node, connect, stop, tasks })
    }

    /// A channel to both services, without a socket.
    pub fn channel(&self) -> Channel {
        gantry_cri::connect::in_process(self.connect.clone())
    }

    /// The images of this host, for importing archives.
    pub fn images(&self) -> &Images {
        &self.node.images
    }

    pub fn network(&self) -> &Network {
        &self.node.network
    }

    /// Stops serving. Containers go on; the next start finds them.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        if let Some(path) = &self.node.config.socket {
            let _ = std::fs::remove_file(path);
        }
        for task in self.tasks.drain(..) {
            task.abort();
            let _ = task.await;
        }
        self.node.loopback.close_all().await;
    }

    /// Stops and removes every sandbox, for an uninstall.
    pub async fn remove_all(&self) -> Result<(), NodeError> {
        let ids: Vec<String> = self.node.pods.lock().sandboxes.keys().cloned().collect();
        for pod_sandbox_id in ids {
            let request = gantry_cri::v1::RemovePodSandboxRequest { pod_sandbox_id };
            crate::cri::sandbox_remove::run(&self.node, request).await?;
        }
        let cgroups = self.node.cgroups.clone();
        let own = [self.node.config.supervisor_cgroup.clone(), self.node.config.cgroup_parent.clone()];
        crate::node::blocking(move || {
            for path in own {
                // A supervisor that has just ended is still counted in its cgroup for a moment.
                if let Err(error) = cgroups.remove(&path) {
                    tracing::warn!(error = %chain(&error), "a cgroup is left");
                }
            }
            Ok(())
        })
        .await
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Binds the socket, 0600. One that is served already belongs to another runtime.
async fn listen(path: &Path) -> Result<UnixListener, StartError> {
    let at = |what| {
        let path = path.to_owned();
        move |source| StartError::Io { what, path, source }
    };
    if let Some(dir) = path.parent() {
        private_dir(dir).map_err(at("make the folder of"))?;
    }
    if let Ok(stream) = tokio::net::UnixStream::connect(path).await
        && is_served(&stream)
    {
        return Err(StartError::InUse(path.to_owned()));
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(at("remove the old")(e)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(at("listen on"))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(at("set the mode of"))?;
    Ok(listener)
}

/// Whether the process that listens is there. One that was killed as it started another may have left that with its socket, until
/// it becomes its program.
fn is_served(stream: &tokio::net::UnixStream) -> bool {
    let pid = stream.peer_cred().ok().and_then(|peer| rustix::process::Pid::from_raw(peer.pid()?));
    // Of whom the number is not known, as of one of another pid namespace, the answer is the careful one.
    pid.is_none_or(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

type Opened = (tokio::net::TcpListener, Arc<Node>);

async fn open(config: Config, env: Env) -> Result<Opened, StartError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let boot_id = std::fs::read_to_string(path).map_err(|source| StartError::Io {
        what: "read",
        path: path.to_owned(),
        source,
    })?;
    let mut images = image::Config::below(&config.state_dir);
    images.insecure_registries.clone_from(&config.insecure_registries);
    images.ca_files.clone_from(&config.registry_ca_files);
    images.registry_config_paths.clone_from(&config.registry_config_paths);
    images.proxies.clone_from(&config.proxies);
    images.keeps_blobs = config.keeps_layers;
    images.policy.clone_from(&config.image_policy);
    let images = Images::open(images, env.clone()).await?;
    let network = Network::open(network::Config {
        run_dir: config.run_dir.join("network"),
        cluster_cidr: config.network.cluster_cidr,
        interface_prefix: config.network.interface_prefix.clone(),
        mtu: config.network.mtu,
    })?;
    let records = Records::open(&config.run_dir, boot_id.trim())?;
    let program = Program::load(&config.supervisor)?;
    let cgroups = Hierarchies::detect(&config.cgroup_parent)?;
    let (streams, listener) = Streams::bind().await.map_err(|source| StartError::Io {
        what: "listen for streams on",
        path: "127.0.0.1".into(),
        source,
    })?;
    let capabilities = own_capabilities();
    let cdi = Specifications::new(config.cdi_dirs.clone());
    let node = Arc::new_cyclic(|me| Node {
        oom_score_adj_min: lowest_oom_score_adj(capabilities),
        modules: crate::container::modules::Modules::of_host(),
        users: tokio::sync::OnceCell::new(),
        capabilities,
        config,
        env,
        images,
        network,
        loopback: Loopback::default(),
        cgroups,
        device_programs: Programs::default(),
        rates: Rates::default(),
        records,
        program,
        filters: Filters::default(),
        cdi,
        streams,
        pod_cidr_known: AtomicBool::new(false),
        pods: Mutex::new(Pods::default()),
        names: Names::default(),
        events: broadcast::Sender::new(EVENTS_MAX),
        me: me.clone(),
    });
    if let Some(cidr) = node.config.network.pod_cidr
        && let Err(error) = node.set_pod_cidr(cidr)
    {
        tracing::warn!(error = %chain(&error), "pod CIDR not set");
    }
    Ok((listener, node))
}

/// What may be handed to containers: what this process has itself.
fn own_capabilities() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bounding = text.lines().find_map(|l| l.strip_prefix("CapBnd:"));
    bounding.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

/// CAP_SYS_RESOURCE is what lowers a score; without it, ours is the lowest there is.
fn lowest_oom_score_adj(capabilities: u64) -> i32 {
    const SYS_RESOURCE: u64 = 1 << 24;
    if capabilities & SYS_RESOURCE != 0 {
        return -1000;
    }
    tracing::warn!("no CAP_SYS_RESOURCE: scores below our own and higher hard limits cannot be given to containers");
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    own.trim().parse().unwrap_or(0)
}

/// The journal into the maps, then each sandbox as it is found. One that cannot be taken up keeps no other from it.
async fn recover((_, node): &Opened) -> Result<(), StartError> {
    let journal = node.records.load()?;
    for bad in journal.bad {
        tracing::error!(sandbox = bad.id, why = bad.why, kept = %bad.path.display(), "record of a sandbox set aside");
        crate::recover::end_unknown(node, bad).await;
    }
    for loaded in journal.sandboxes {
        for bad in loaded.bad {
            let (container, kept) = (&bad.id, bad.path.display());
            tracing::error!(container, sandbox = loaded.sandbox.id, why = bad.why, %kept, "record of a container set aside");
            let cgroup = format!("{}/{container}", node.sandbox_cgroup(&loaded.sandbox));
            crate::recover::kill(node, &cgroup, container).await;
        }
        let mut pods = node.pods.lock();
        for record in loaded.containers {
            pods.containers.insert(record.id.clone(), Container::new(record));
        }
        pods.sandboxes.insert(loaded.sandbox.id.clone(), Sandbox::new(loaded.sandbox));
    }
    let records: Vec<_> = node.pods.lock().sandboxes.values().map(|s| s.record.clone()).collect();
    crate::recover::mend_addresses(node, &records).await;
    for record in records {
        let recovered = async {
            if record.state() == SandboxState::Creating {
                tracing::info!(sandbox = record.id, "half made: taken down");
                crate::cri::sandbox_stop::tear_down(node, &record).await?;
                return crate::cri::sandbox_remove::forget(node, &record).await;
            }
            crate::sandbox::processes::watch(node, &record);
            crate::cri::sandbox_run::serve_on_loopback(node, &record);
            crate::recover::take_up(node, &record.id, false).await?;
            if record.stopping && record.state() == SandboxState::Ready {
                tracing::info!(sandbox = record.id, "half stopped: stopped");
                crate::cri::sandbox_stop::stop(node, record.clone()).await?;
            }
            Ok(())
        };
        if let Err(error) = recovered.await {
            tracing::error!(sandbox = record.id, error = %chain(&error), "sandbox not taken up");
        }
    }
    remove_leftovers(node).await;
    Ok(())
}

/// Addresses, namespaces, cgroups and snapshots of sandboxes and containers that nobody knows any more (a reboot, a crash
/// before a record, a record that was set aside). What cannot be removed now is tried again at the next start.
async fn remove_leftovers(node: &Arc<Node>) {
    let (sandboxes, networked, containers) = {
        let pods = node.pods.lock();
        // Of one that was stopped, the kernel may still have had the link when the runtime was killed.
        let stopped = |record: &SandboxRecord| record.stopping && record.state() == SandboxState::NotReady;
        let networked = pods.sandboxes.values().map(|sandbox| &sandbox.record).filter(|record| !stopped(record));
        let networked: Vec<String> = networked.map(|record| record.id.clone()).collect();
        let sandboxes: Vec<String> = pods.sandboxes.keys().cloned().collect();
        (sandboxes, networked, pods.containers.keys().cloned().collect::<Vec<_>>())
    };
    for container in node.images.snapshots().into_iter().filter(|c| !containers.contains(c)) {
        if let Err(error) = node.images.remove_snapshot(&container).await {
            tracing::warn!(container, error = %chain(&error), "snapshot stays for now");
        }
    }
    let shared = Arc::clone(node);
    let swept = crate::node::blocking(move || {
        // Below ours, pods whose owner says no other place are called by their ids.
        let parent = &shared.config.cgroup_parent;
        let is_sandbox = |name: &String| name.len() == ID_MAX_CHARS && name.bytes().all(|b| b.is_ascii_hexdigit());
        for id in shared.cgroups.names_below(parent).into_iter().filter(is_sandbox).filter(|id| !sandboxes.contains(id))
        {
            let path = format!("{parent}/{id}");
            shared.cgroups.end(&path)?;
        }
        let pinned = std::fs::read_dir(shared.config.run_dir.join("ns")).into_iter().flatten().flatten();
        let mut gone: Vec<String> = pinned.filter_map(|e| e.file_name().into_string().ok()).collect();
        gone.extend(shared.network.sandboxes());
        gone.retain(|id| !networked.contains(id) && Id::parse(id).is_ok());
        gone.sort();
        gone.dedup();
        for id in gone {
            shared.network.detach(&id)?;
            let pins = shared.pins(&id);
            shared.network.delete_netns(&pins.net())?;
            pins.remove()?;
        }
        Ok(())
    });
    if let Err(error) = swept.await {
        tracing::warn!(error = %chain(&error), "leftovers stay for now");
    }
}

fn router(services: Services) -> tonic::transport::server::Router {
    let runtime = RuntimeServiceServer::new(services.clone())
        .max_decoding_message_size(MESSAGE_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_MAX_BYTES);
    let images = ImageServiceServer::new(services.clone())
        .max_decoding_message_size(MESSAGE_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_MAX_BYTES);
    let archives = ArchivesServer::new(services).max_decoding_message_size(MESSAGE_MAX_BYTES);
    Server::builder().add_service(runtime).add_service(images).add_service(archives)
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the runtime itself has gone, which is a stop too.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn serve_in_process(services: Services, accepted: mpsc::Receiver<DuplexStream>, stop: watch::Receiver<bool>) {
    let incoming = ReceiverStream::new(accepted).map(Ok::<_, io::Error>);
    if let Err(error) = router(services).serve_with_incoming_shutdown(incoming, stopped(stop)).await {
        tracing::error!(error = %chain(&error), "in-process CRI server ended");
    }
}

async fn serve_socket(services: Services, listener: UnixListener, stop: watch::Receiver<bool>) {
    let own = nix::unistd::geteuid().as_raw();
    let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener).filter_map(move |stream| match stream {
        // The mode of the socket says the same; this holds even where someone has changed it.
        Ok(stream) => match stream.peer_cred() {
            Ok(peer) if peer.uid() == own => Some(Ok(stream)),
            _ => {
                tracing::warn!("connection of another user refused");
                None
            }
        },
        Err(error) => Some(Err(error)),
    });
    if let Err(error) = router(services).serve_with_incoming_shutdown(incoming, stopped(stop)).await {
        tracing::error!(error = %chain(&error), "CRI server ended");
    }
}
