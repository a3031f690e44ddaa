//! The API over a store in memory, for tests of whole controllers under paused time: without a thread or a socket, so that
//! an hour is over at once.

use std::sync::Arc;
use std::time::Duration;

use gantry_client::Client;
use gantry_env::Env;
use gantry_kube::{Object, Ref, Resource};
use gantry_pki::{Authority, es256::SigningKey, tls};
use tokio_util::sync::CancellationToken;

use super::{Context, Informers, USER};
use crate::auth::{Authenticator, Authorizer, Identity, Lookup, Tokens};
use crate::bootstrap::{self, Cluster};
use crate::control;
use crate::http::health::Health;
use crate::http::metrics::Metrics;
use crate::http::{Kubelets, Router, Server};
use crate::registry::{Registry, ServiceAllocator};
use crate::store::Cache;
use crate::store::embedded::Embedded;
use crate::trace::Trace;
use crate::usage::Usage;

/// When it begins.
pub const BEGIN: &str = "2026-01-01T00:00:00Z";
/// In this time everything that can happen at once has happened.
const SOON: Duration = Duration::from_secs(1);

pub struct House {
    router: Router,
    pub env: Env,
    pub stop: CancellationToken,
}

impl House {
    /// With everything that a cluster begins with: the controllers may do what their role lets them.
    pub async fn new() -> House {
        let env = Env::simulated(BEGIN.parse().unwrap(), 1);
        let cache = Cache::start(Arc::new(Embedded::in_memory().unwrap())).await.unwrap();
        let lookup: Arc<dyn Lookup> = Arc::new(cache.clone());
        let stop = CancellationToken::new();
        let authority = Authority::create("test", &env).unwrap();
        let tokens = Tokens::new(SigningKey::generate().unwrap(), lookup.clone(), env.clone());
        let allocator = ServiceAllocator::new("10.96.0.0/16".parse().unwrap());
        let server = Server {
            registry: Registry::new(cache.clone(), env.clone(), allocator, Trace::new(env.clock.clone())),
            authenticator: Authenticator::new(Arc::new(tokens)),
            authorizer: Authorizer::new(lookup),
            kubelets: Kubelets::new(tls::client_config(authority.certificate_pem(), None, &env.clock).unwrap()),
            usage: Usage::default(),
            metrics: Metrics::default(),
            inflight: Arc::default(),
            backend: cache.store().clone(),
            health: Health::new(cache, stop.clone()),
            configuration: serde_json::Value::Null,
            stop: stop.clone(),
        };
        let house = House { router: Router::new(server), env, stop };
        bootstrap::seed(&house.admin(), &Cluster::default()).await.unwrap();
        house
    }

    pub fn admin(&self) -> Client {
        let identity = Identity::new(bootstrap::credentials::ADMIN_USER, ["system:masters"]);
        Client::new(control::client(&self.router, identity), "test")
    }

    /// A component of the cluster, which may do what its role lets it.
    pub fn client(&self, user: &str) -> Client {
        Client::new(control::client(&self.router, Identity::component(user)), user)
    }

    /// What a controller is given.
    pub fn context(&self) -> Context {
        let client = self.client(USER);
        let informers = Informers::spawn(&client, &self.env, &self.stop);
        Context { client, informers, env: self.env.clone(), stop: self.stop.clone() }
    }

    pub async fn make(&self, kind: &Resource, value: serde_json::Value) -> Object {
        self.admin().create(kind, &Object::from_value(value).unwrap()).await.unwrap()
    }

    pub async fn has(&self, kind: &Resource, at: &Ref) -> bool {
        self.admin().find(kind, at).await.unwrap().is_some()
    }

    /// Until that many seconds have passed since the beginning.
    pub async fn until(&self, seconds: u64) {
        let passed = self.env.clock.now().duration_since(BEGIN.parse().unwrap()).unsigned_abs();
        tokio::time::sleep(Duration::from_secs(seconds) - passed).await;
    }

    pub async fn settle(&self) {
        tokio::time::sleep(SOON).await;
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
