//! The loops that make what is wanted: each watches through shared informers, decides in a pure `plan`, and acts through
//! the API as any client would, with a uid or resourceVersion precondition on every write. What they have in common, from a
//! change to a turn and to the next try, is in `frame.rs`.
//!
//! They run in the order in which a change travels: Deployment → ReplicaSet → pods → EndpointSlices; the rest (namespaces,
//! service accounts, nodes, garbage) keeps the house. A stock kube-controller-manager could take the place of any.

pub mod autoscaler;
pub mod cluster_roles;
pub mod cronjob;
pub mod custom_kinds;
pub mod daemonset;
pub(crate) mod dependents;
pub mod deployment;
pub mod disruption;
pub mod endpointslice;
pub mod endpointslice_mirroring;
pub mod ephemeral_volume;
pub mod event_expiry;
pub mod events;
mod frame;
pub mod garbage;
#[cfg(test)]
pub(crate) mod house;
pub mod informers;
pub mod job;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod persistent_volume;
pub mod pod_gc;
pub mod replicaset;
mod revisions;
pub mod service_account;
pub mod statefulset;
pub mod storage_protection;
mod time;
pub mod token_cleaner;

use gantry_client::Client;
use gantry_env::Env;
use ipnet::IpNet;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use events::Recorder;
pub use informers::Informers;

/// The user that the controllers act as.
pub const USER: &str = "system:kube-controller-manager";

/// What the controllers need to know that is not in the API.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster CA, published as `kube-root-ca.crt` in every namespace.
    pub ca_pem: String,
    pub cluster_cidr: IpNet,
    pub node_cidr_mask: u8,
}

/// What every controller is given.
#[derive(Clone)]
pub struct Context {
    pub client: Client,
    pub informers: Informers,
    pub env: Env,
    pub stop: CancellationToken,
}

impl Context {
    fn recorder(&self, component: &'static str) -> Recorder {
        Recorder::new(self.client.named(component), component, self.env.clone())
    }
}

/// Runs every controller until the token ends them.
pub async fn run(client: Client, config: Config, env: Env, stop: CancellationToken) {
    let informers = Informers::spawn(&client, &env, &stop);
    let context = Context { client, informers, env, stop };
    let mut tasks = JoinSet::new();
    tasks.spawn(deployment::run(context.clone()));
    tasks.spawn(replicaset::run(context.clone()));
    tasks.spawn(replicaset::run_replication_controllers(context.clone()));
    tasks.spawn(daemonset::run(context.clone()));
    tasks.spawn(statefulset::run(context.clone()));
    tasks.spawn(job::run(context.clone()));
    tasks.spawn(cronjob::run(context.clone()));
    tasks.spawn(disruption::run(context.clone()));
    tasks.spawn(autoscaler::run(context.clone()));
    tasks.spawn(ephemeral_volume::run(context.clone()));
    tasks.spawn(persistent_volume::run(context.clone()));
    tasks.spawn(storage_protection::run(context.clone()));
    tasks.spawn(endpointslice::run(context.clone()));
    tasks.spawn(endpointslice_mirroring::run(context.clone()));
    tasks.spawn(namespace::run(context.clone()));
    tasks.spawn(cluster_roles::run(context.clone()));
    tasks.spawn(service_account::run(context.clone(), config.ca_pem));
    tasks.spawn(node_ipam::run(context.clone(), config.cluster_cidr, config.node_cidr_mask));
    tasks.spawn(node_lifecycle::run(context.clone()));
    tasks.spawn(pod_gc::run(context.clone()));
    tasks.spawn(garbage::run(context.clone()));
    tasks.spawn(custom_kinds::run(context.clone()));
    tasks.spawn(token_cleaner::run(context.clone()));
    tasks.spawn(event_expiry::run(context));
    while tasks.join_next().await.is_some() {}
}
