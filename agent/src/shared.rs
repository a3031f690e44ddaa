//! What every part of the agent holds in common.

use std::sync::Arc;

use gantry_client::{Client, Informer};
use gantry_env::Env;
use gantry_kube::Object;
use gantry_kube::pod::resources::Amounts;
use tokio::sync::{Semaphore, watch};

use crate::Config;
use crate::events::Events;
use crate::eviction::Pressures;
use crate::node::NodeView;
use crate::pods::views::Views;
use crate::runtime::Runtime;
use crate::stats::Stats;
use crate::stats::own::Counters;
use crate::trace::Trace;
use crate::users::Users;
use crate::volume::Volumes;

/// Images that are pulled at a time.
pub const PULLS_MAX: usize = 5;
/// Pods whose use of the disk is measured at a time.
pub const MEASURES_MAX: usize = 1;

/// What the node has, as far as pods depend on it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    /// The labels of the Node object; empty until it is known.
    pub labels: serde_json::Map<String, serde_json::Value>,
    pub capacity: Amounts,
    pub allocatable: Amounts,
}

pub struct Shared {
    pub config: Config,
    pub env: Env,
    pub client: Client,
    pub runtime: Runtime,
    pub volumes: Volumes,
    pub users: Users,
    pub events: Events,
    pub trace: Trace,
    pub services: Informer<Object>,
    pub node: watch::Receiver<NodeView>,
    pub capacity: Amounts,
    pub allocatable: Amounts,
    pub views: Arc<Views>,
    pub stats: Arc<Stats>,
    /// What the node runs short of.
    pub pressures: watch::Receiver<Pressures>,
    /// Whether the node goes down.
    pub shutting_down: watch::Receiver<bool>,
    pub counters: Arc<Counters>,
    pub pulls: Semaphore,
    pub measures: Semaphore,
}

impl Shared {
    pub fn host_ip(&self) -> String {
        self.config.node_ip.to_string()
    }

    pub fn node_facts(&self) -> NodeFacts {
        let labels = self.node.borrow().object.as_ref().and_then(|node| node.labels().cloned());
        NodeFacts {
            labels: labels.unwrap_or_default(),
            capacity: self.capacity.clone(),
            allocatable: self.allocatable.clone(),
        }
    }

    pub fn node_uid(&self) -> String {
        self.node.borrow().object.as_ref().map(|node| node.uid().to_owned()).unwrap_or_default()
    }
}
