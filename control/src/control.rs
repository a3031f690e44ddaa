//! Composition: the store, the API over both wires, bootstrap, controllers and scheduler, as one running thing.

mod backend;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gantry_client::{Client, ClientError};
use gantry_env::Env;
use http::Request;
use ipnet::{IpNet, Ipv4Net};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::auth::{Authenticator, Authorizer, Identity, Lookup, Tokens};
use crate::bootstrap::{self, BootstrapError, Cluster, Credentials, Peers};
use crate::election::Candidate;
use crate::http::health::Health;
use crate::http::metrics::Metrics;
use crate::http::{Kubelets, Router, Server, configz, listener};
use crate::registry::{Registry, ServiceAllocator};
use crate::store::encrypted::Rules;
use crate::store::{Cache, Store, StoreError, compact_periodically, etcd};
use crate::trace::Trace;
use crate::usage::Usage;
use crate::{controllers, scheduler};
use backend::{Backend, rewrite};

const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// The embedded store's file in the data folder.
pub const STORE_FILE: &str = "store.redb";
const DNS_OFFSET: u32 = 10;

/// Where the objects are.
#[derive(Clone, Debug, Default)]
pub enum StoreConfig {
    /// In a file of the data folder: one control service.
    #[default]
    Embedded,
    /// In etcd: as many control services as there are. All of them need the same authority and the same key of
    /// service-account tokens: `ca.crt`, `ca.key` and `service-account.key` of the folder `pki` in the first one's data
    /// folder are copied to the others before they start.
    Etcd(etcd::Config),
}

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
    pub store: StoreConfig,
    /// How values are encrypted in the store; not at all where absent.
    pub encryption: Option<Arc<Rules>>,
    /// Off where a test wants the API alone.
    pub run_controllers: bool,
    pub env: Env,
}

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("cannot prepare the credentials")]
    Credentials(#[from] BootstrapError),
    #[error("cannot open the store in {place}")]
    Store {
        place: String,
        #[source]
        source: StoreError,
    },
    #[error("cannot open the store in etcd")]
    Etcd(#[source] etcd::OpenError),
    #[error(
        "the store in {place} has a cluster already, and {missing} is not here: copy ca.crt, ca.key and \
         service-account.key from {folder} of a host whose control service has it",
        missing = missing.display(), folder = folder.display()
    )]
    NotInvited { place: String, missing: PathBuf, folder: PathBuf },
    #[error(
        "the cluster in {place} has another authority than {path}: ca.crt, ca.key and service-account.key are to be the \
         same on all of its control hosts",
        path = path.display()
    )]
    OtherAuthority { place: String, path: PathBuf },
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
    backend: Backend,
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
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let backend = Backend::open(&config).await?;
        backend.expect_authority(&cluster).await?;
        let credentials = Arc::new(Credentials::prepare(&cluster, &env)?);
        backend.claim_authority(&cluster, &credentials).await?;
        let metrics = Metrics::default();
        let cache = backend.cache(&metrics).await?;
        let server = server(&config, &credentials, backend.raw().clone(), cache, metrics, stop.child_token())?;
        let health = server.health.clone();
        let tls = Arc::new(credentials.server_config(&env)?);
        let router = Router::new(server);
        let control = Control { router, credentials, cluster, address, backend, env, stop, tasks };
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
        let Control { backend, router, .. } = self;
        drop(router);
        backend.close(STOP_TIMEOUT).await;
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
        self.spawn(compact_periodically(self.backend.store().clone(), self.env.clock.clone()));
        if let Some(encrypted) = self.backend.encrypted().cloned() {
            self.spawn(rewrite(encrypted));
        }
        if let Some(embedded) = self.backend.embedded() {
            self.spawn(embedded.clone().persist_heartbeats_periodically());
        }
    }

    fn keep_cluster(&self, client: Client) {
        let (cluster, stop) = (self.cluster.clone(), self.stop.clone());
        let peers = cluster.shared.then(|| Peers::new(&cluster, self.env.clone()));
        self.tasks.spawn(async move { bootstrap::keep(&client, &cluster, peers, &stop).await });
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
        let env = self.env.clone();
        self.lead("kube-controller-manager", client.clone(), move |stop| {
            controllers::run(client.clone(), settings.clone(), env.clone(), stop)
        });
        let client = Client::new(self.client(Identity::component(scheduler::USER)), "kube-scheduler");
        let (client, counted) = (client.counted(metrics.clients.clone()), metrics.scheduler.clone());
        let env = self.env.clone();
        self.lead("kube-scheduler", client.clone(), move |stop| {
            scheduler::run(client.clone(), env.clone(), counted.clone(), stop)
        });
    }

    /// Runs a loop of which the cluster has one: here, or, where there may be other control services, on the one that has
    /// its lease.
    fn lead<F>(&self, name: &'static str, client: Client, run: impl Fn(CancellationToken) -> F + Send + Sync + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if !self.cluster.shared {
            self.tasks.spawn(run(self.stop.clone()));
            return;
        }
        let host = &self.cluster.hostname;
        let candidate = Candidate::new(client, name, host, self.env.clone(), self.stop.clone());
        self.tasks.spawn(candidate.run(run));
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
        service_cidr: range.trunc().into(),
        service_ip: nth(1)?,
        dns_ip: nth(DNS_OFFSET)?,
        domain: config.cluster_domain.clone(),
        shared: matches!(config.store, StoreConfig::Etcd(_)),
    })
}

fn server(
    config: &Config,
    credentials: &Credentials,
    backend: Arc<dyn Store>,
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
        backend,
        health: Health::new(cache, stop.clone()),
        configuration: configz::of(config),
        stop,
    })
}
