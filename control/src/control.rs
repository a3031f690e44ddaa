//! Composition: the store, the API over both wires, bootstrap, controllers and scheduler, as one running thing.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gantry_client::{Client, ClientError};
use gantry_env::{Env, chain};
use http::Request;
use ipnet::{IpNet, Ipv4Net};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::auth::{Authenticator, Authorizer, Identity, Lookup, Tokens};
use crate::bootstrap::{self, BootstrapError, Cluster, Credentials};
use crate::http::health::Health;
use crate::http::metrics::Metrics;
use crate::http::{Kubelets, Router, Server, configz, listener};
use crate::registry::{Registry, ServiceAllocator};
use crate::store::embedded::Embedded;
use crate::store::{Cache, Measured, Store, StoreError, compact_periodically};
use crate::trace::Trace;
use crate::usage::Usage;
use crate::{controllers, scheduler};

const STOP_TIMEOUT: Duration = Duration::from_secs(15);
const RELEASE_POLL: Duration = Duration::from_millis(5);
const STORE_FILE: &str = "store.redb";
const DNS_OFFSET: u32 = 10;

/// What one control service is told. Everything that it leaves behind is below `data_dir`, but for the kubeconfig.
#[derive(Clone, Debug)]
pub struct Config {
    pub data_dir: PathBuf,
    pub admin_kubeconfig: PathBuf,
    pub listen: SocketAddr,
    /// The address behind the `kubernetes` service.
    pub advertise: IpAddr,
    /// Further addresses by which the API may be called.
    pub addresses: Vec<IpAddr>,
    pub hostname: String,
    pub service_cidr: Ipv4Net,
    pub pod_cidr: Ipv4Net,
    pub node_cidr_mask: u8,
    pub cluster_domain: String,
    /// Off where a test wants the API alone.
    pub run_controllers: bool,
    pub env: Env,
}

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("cannot prepare the credentials")]
    Credentials(#[from] BootstrapError),
    #[error("cannot open the store in {path}")]
    Store {
        path: PathBuf,
        #[source]
        source: StoreError,
    },
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot make the cluster's own objects")]
    Seed(#[source] ClientError),
    #[error("the service range {range} has no room for the API's own address and that of DNS")]
    ServiceRange { range: Ipv4Net },
}

/// A running control service. It stops with [`Control::stop`].
pub struct Control {
    router: Router,
    credentials: Arc<Credentials>,
    cluster: Arc<Cluster>,
    address: SocketAddr,
    store: Arc<Embedded>,
    env: Env,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Control {
    /// Opens the store, makes what a cluster has before anyone asks, listens, and runs controllers and scheduler.
    pub async fn start(config: Config) -> Result<Control, ControlError> {
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(|source| ControlError::Listen { address: config.listen, source })?;
        let address =
            listener.local_addr().map_err(|source| ControlError::Listen { address: config.listen, source })?;
        let cluster = Arc::new(cluster(&config, address)?);
        let env = config.env.clone();
        let credentials = Arc::new(Credentials::prepare(&cluster, &env)?);
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let metrics = Metrics::default();
        let (store, cache) = open_store(&config, &metrics).await?;
        let server = server(&config, &credentials, cache, metrics, stop.child_token())?;
        let health = server.health.clone();
        let tls = Arc::new(credentials.server_config(&env)?);
        let router = Router::new(server);
        let control = Control { router, credentials, cluster, address, store, env, stop, tasks };
        control.keep_store();
        control.spawn(control.router.server().registry.clone().keep_addresses());
        control.spawn(control.router.server().registry.clone().keep_quotas());
        let source: listener::TlsSource = Arc::new(move || tls.clone());
        control.tasks.spawn(listener::serve(listener, source, control.router.clone(), control.stop.child_token()));
        let seeder = Identity::new(bootstrap::credentials::ADMIN_USER, ["system:masters"]);
        let seeder = Client::new(control.client(seeder), "gantry-bootstrap");
        bootstrap::seed(&seeder, &control.cluster).await.map_err(ControlError::Seed)?;
        health.set_seeded();
        control.keep_cluster(seeder);
        if config.run_controllers {
            control.run_loops(&config);
        }
        tracing::info!(address = %control.address, "the API answers");
        Ok(control)
    }

    /// A client over the in-process wire that speaks as `identity`.
    pub fn client(&self, identity: Identity) -> kube::Client {
        client(&self.router, identity)
    }

    /// Where the API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn credentials(&self) -> &Arc<Credentials> {
        &self.credentials
    }

    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub fn router(&self) -> &Router {
        &self.router
    }

    /// Ends watches and loops, lets open requests end, persists what the store still holds in memory, and lets go of its
    /// file.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(STOP_TIMEOUT, self.tasks.wait()).await.is_err() {
            tracing::warn!("parts of the control service were still busy when it stopped");
        }
        if let Err(error) = self.store.persist_heartbeats().await {
            tracing::warn!(error = chain(&error), "the last heartbeats were not persisted");
        }
        let Control { store, router, .. } = self;
        drop(router);
        // In-process clients and the cache's feed let go of the store in tasks of their own.
        let released = async {
            while Arc::strong_count(&store) > 1 {
                tokio::time::sleep(RELEASE_POLL).await;
            }
        };
        if tokio::time::timeout(STOP_TIMEOUT, released).await.is_err() {
            tracing::warn!("the store is still in use, its file stays open");
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                // What is dropped here keeps nothing but timers.
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }

    fn keep_store(&self) {
        let store: Arc<dyn Store> = self.store.clone();
        self.spawn(compact_periodically(store, self.env.clock.clone()));
        self.spawn(self.store.clone().persist_heartbeats_periodically());
    }

    fn keep_cluster(&self, client: Client) {
        let (cluster, stop) = (self.cluster.clone(), self.stop.clone());
        self.tasks.spawn(async move { bootstrap::keep(&client, &cluster, &stop).await });
        let (credentials, cluster) = (self.credentials.clone(), self.cluster.clone());
        let (env, stop) = (self.env.clone(), self.stop.clone());
        self.tasks.spawn(async move { bootstrap::keep_certificates(&credentials, &cluster, &env, &stop).await });
    }

    fn run_loops(&self, config: &Config) {
        let settings = controllers::Config {
            ca_pem: self.credentials.ca_pem().to_owned(),
            cluster_cidr: IpNet::V4(config.pod_cidr),
            node_cidr_mask: config.node_cidr_mask,
        };
        let metrics = &self.router.server().metrics;
        let client = self.client(Identity::component(controllers::USER));
        let client = Client::new(client, "kube-controller-manager").counted(metrics.clients.clone());
        self.tasks.spawn(controllers::run(client, settings, self.env.clone(), self.stop.clone()));
        let client = Client::new(self.client(Identity::component(scheduler::USER)), "kube-scheduler");
        let (client, counted) = (client.counted(metrics.clients.clone()), metrics.scheduler.clone());
        self.tasks.spawn(scheduler::run(client, self.env.clone(), counted, self.stop.clone()));
    }
}

pub(crate) fn client(router: &Router, identity: Identity) -> kube::Client {
    let service = router.clone().map_request(move |mut request: Request<kube::client::Body>| {
        request.extensions_mut().clear();
        request.extensions_mut().insert(identity.clone());
        request
    });
    kube::Client::new(service, "default")
}

fn cluster(config: &Config, address: SocketAddr) -> Result<Cluster, ControlError> {
    let range = config.service_cidr;
    let nth = |n: u32| {
        let ip = std::net::Ipv4Addr::from(u32::from(range.network()).saturating_add(n));
        if range.contains(&ip) && ip != range.broadcast() {
            Ok(IpAddr::V4(ip))
        } else {
            Err(ControlError::ServiceRange { range })
        }
    };
    Ok(Cluster {
        data: config.data_dir.clone(),
        admin_kubeconfig: config.admin_kubeconfig.clone(),
        hostname: config.hostname.clone(),
        addresses: config.addresses.clone(),
        advertise: config.advertise,
        port: address.port(),
        service_ip: nth(1)?,
        dns_ip: nth(DNS_OFFSET)?,
        domain: config.cluster_domain.clone(),
    })
}

async fn open_store(config: &Config, metrics: &Metrics) -> Result<(Arc<Embedded>, Cache), ControlError> {
    let path = config.data_dir.join(STORE_FILE);
    let failed = |source| ControlError::Store { path: path.clone(), source };
    let store = Arc::new(Embedded::open_file(&path).map_err(failed)?);
    let measured = Measured::new(store.clone(), metrics.store.clone());
    let cache = Cache::start(Arc::new(measured)).await.map_err(failed)?;
    Ok((store, cache))
}

fn server(
    config: &Config,
    credentials: &Credentials,
    cache: Cache,
    metrics: Metrics,
    stop: CancellationToken,
) -> Result<Server, ControlError> {
    let env = &config.env;
    let lookup: Arc<dyn Lookup> = Arc::new(cache.clone());
    let tokens = Arc::new(Tokens::new(credentials.token_key()?, lookup.clone(), env.clone()));
    let trace = Trace::new(env.clock.clone());
    let allocator = ServiceAllocator::new(config.service_cidr);
    Ok(Server {
        registry: Registry::new(cache.clone(), env.clone(), allocator, trace),
        authenticator: Authenticator::new(tokens),
        authorizer: Authorizer::new(lookup),
        kubelets: Kubelets::new(credentials.kubelet_client_config(env)?),
        usage: Usage::default(),
        metrics,
        inflight: Arc::default(),
        health: Health::new(cache, stop.clone()),
        configuration: configz::of(config),
        stop,
    })
}
