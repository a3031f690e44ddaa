//! The Node object and its Lease: that this machine is here, what it has, and how it is.
//!
//! The Lease is renewed every ten seconds and is all that says "alive". The Node's status is written when it changes, and
//! every five minutes.

pub mod facts;
pub mod plan;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gantry_client::{Client, ClientError, Informer, Patch, Scope};
use gantry_cri::v1::{
    ListImagesRequest, NetworkConfig, RuntimeConfig, RuntimeHandler, StatusRequest, UpdateRuntimeConfigRequest,
    VersionRequest,
};
use gantry_cri::{ImageServiceClient, RuntimeServiceClient};
use gantry_env::{Backoff, Env, chain};
use gantry_kube::{Object, Ref, resource};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tracing::{info, warn};

use crate::eviction::Pressures;
use facts::{Facts, Handler};

/// As upstream's defaults have them.
const LEASE_EVERY: Duration = Duration::from_secs(10);
const LEASE_SECONDS: i64 = 40;
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// While something is not ready yet, its becoming ready is noticed soon.
const LOOK_SOON: Duration = Duration::from_millis(200);
const REPORT_EVERY: Duration = Duration::from_secs(300);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_CAP: Duration = Duration::from_secs(7);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// What a node says of itself that it cannot measure.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    pub name: String,
    pub ip: IpAddr,
    pub kubelet_port: u16,
    pub kubelet_version: String,
    pub max_pods: i64,
    pub labels: Vec<(String, String)>,
    pub reserved_cpu_milli: i64,
    pub reserved_memory_bytes: i64,
    /// The file system whose room counts as ephemeral storage.
    pub data_dir: std::path::PathBuf,
    /// Where local volumes are kept, as the Node tells it.
    pub volumes_dir: std::path::PathBuf,
}

/// What the rest of the agent reads of its Node.
#[derive(Clone, Debug, Default)]
pub struct NodeView {
    /// The Node as the API has it; `None` until it was first seen.
    pub object: Option<Arc<Object>>,
    /// Whether runtime and network are ready for pods.
    pub ready: bool,
}

pub struct Registration {
    config: NodeConfig,
    client: Client,
    cri: Channel,
    env: Env,
    view: watch::Sender<NodeView>,
    pressures: watch::Receiver<Pressures>,
    shutting_down: watch::Receiver<bool>,
}

impl Registration {
    pub fn new(
        config: NodeConfig,
        client: Client,
        cri: Channel,
        env: Env,
        pressures: watch::Receiver<Pressures>,
        shutting_down: watch::Receiver<bool>,
    ) -> (Registration, watch::Receiver<NodeView>) {
        let (view, receiver) = watch::channel(NodeView::default());
        (Registration { config, client, cri, env, view, pressures, shutting_down }, receiver)
    }

    /// Registers, and then keeps Node and Lease until the token ends it.
    pub async fn run(self, stop: CancellationToken) {
        self.give_saved_range().await;
        if stop.run_until_cancelled(self.register()).await.is_none() {
            return;
        }
        let scope = Scope { field_selector: format!("metadata.name={}", self.config.name), ..Scope::default() };
        let node = Informer::spawn(self.client.clone(), &resource::NODE, scope, self.env.clone(), stop.clone(), |o| o);
        tokio::select! {
            biased;
            // Both loops keep nothing that a restart would miss.
            () = stop.cancelled() => {}
            () = self.renew_lease() => {}
            () = self.report(&node) => {}
        }
    }

    async fn register(&self) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
        loop {
            match self.create().await {
                Ok(()) => return,
                Err(error) => warn!(node = self.config.name, error = %chain(&error), "node not registered"),
            }
            tokio::time::sleep(backoff.next(&self.env.rng)).await;
        }
    }

    async fn create(&self) -> Result<(), ClientError> {
        let facts = self.facts().await;
        let node = plan::registration(&self.config, &facts, &self.env.clock.now_rfc3339());
        match self.client.create(&resource::NODE, &node).await {
            Ok(_) => info!(node = self.config.name, "node registered"),
            Err(error) if error.is_already_exists() => {
                let of = |key: &str| node.get(&format!("/metadata/{key}")).cloned().unwrap_or_default();
                let (labels, annotations) = (of("labels"), of("annotations"));
                let patch = Patch::Strategic(json!({"metadata": {"labels": labels, "annotations": annotations}}));
                self.client.patch(&resource::NODE, &self.at(), "", patch).await?;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn at(&self) -> Ref {
        Ref::cluster(self.config.name.clone())
    }

    async fn renew_lease(&self) {
        let mut ticks = tokio::time::interval(LEASE_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut known: Option<Object> = None;
        loop {
            ticks.tick().await;
            for _ in 0..3 {
                match self.renew_once(known.take()).await {
                    Ok(lease) => {
                        known = Some(lease);
                        break;
                    }
                    Err(error) => warn!(node = self.config.name, error = %chain(&error), "lease not renewed"),
                }
            }
        }
    }

    async fn renew_once(&self, known: Option<Object>) -> Result<Object, ClientError> {
        let at = Ref::new("kube-node-lease", self.config.name.clone());
        let current = match known {
            Some(lease) => Some(lease),
            None => self.client.find(&resource::LEASE, &at).await?,
        };
        let now = self.env.clock.now_rfc3339_micro();
        match current {
            Some(mut lease) => {
                let spec = lease.map_mut("spec");
                spec.insert("renewTime".to_owned(), json!(now));
                spec.insert("holderIdentity".to_owned(), json!(self.config.name));
                self.client.update(&resource::LEASE, &lease).await
            }
            None => {
                let uid = self.view.borrow().object.as_ref().map(|o| o.uid().to_owned());
                let mut lease = json!({
                    "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                    "metadata": {"name": at.name, "namespace": at.namespace},
                    "spec": {"holderIdentity": at.name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now},
                });
                if let Some(uid) = uid {
                    lease["metadata"]["ownerReferences"] =
                        json!([{"apiVersion": "v1", "kind": "Node", "name": at.name, "uid": uid}]);
                }
                self.client.create(&resource::LEASE, &Object::from_value(lease).unwrap_or_default()).await
            }
        }
    }

    /// Hands the runtime its pod range, and writes the status when it changed or is due.
    async fn report(&self, node: &Informer<Object>) {
        node.synced().await;
        let mut changes = node.subscribe();
        let (mut pressures, mut shutting_down) = (self.pressures.clone(), self.shutting_down.clone());
        let mut given_range = String::new();
        let mut reported: Option<tokio::time::Instant> = None;
        loop {
            let pause = if self.view.borrow().ready { LOOK_EVERY } else { LOOK_SOON };
            tokio::select! {
                biased;
                // Whichever comes first, the newest facts are read below; a change that is dropped is in the informer.
                _ = changes.changes() => {}
                // A pressure is told at once: the scheduler must not send more.
                Ok(()) = pressures.changed() => {}
                // So is its end.
                Ok(()) = shutting_down.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
            let Some(object) = node.get(&self.at()) else {
                self.register().await;
                continue;
            };
            let range = object.str_at("/spec/podCIDR").to_owned();
            if !range.is_empty() && range != given_range {
                match self.give_range(&range).await {
                    Ok(()) => {
                        if let Err(error) = save_range(&self.config.data_dir, &range) {
                            warn!(range, %error, "the pod range is not kept for a start without the API");
                        }
                        given_range = range;
                    }
                    Err(status) => warn!(range, error = %chain(&status), "the runtime did not take the pod range"),
                }
            }
            let facts = self.facts().await;
            let now = self.env.clock.now_rfc3339();
            let due = reported.is_none_or(|at| at.elapsed() >= REPORT_EVERY);
            self.view.send_replace(NodeView { object: Some(object.clone()), ready: facts.is_ready() });
            let Some(patch) = plan::status_patch(&self.config, &object, &facts, &now, due) else { continue };
            match self.client.patch(&resource::NODE, &self.at(), "status", Patch::Strategic(patch)).await {
                Ok(_) => reported = Some(tokio::time::Instant::now()),
                Err(error) => warn!(node = self.config.name, error = %chain(&error), "node status not written"),
            }
        }
    }

    /// After a reboot pods may have to start while the API is away: then the range that the node had is still its own.
    async fn give_saved_range(&self) {
        let Some(range) = saved_range(&self.config.data_dir) else { return };
        if let Err(status) = self.give_range(&range).await {
            warn!(range, error = %chain(&status), "the runtime did not take the pod range of before");
        }
    }

    async fn give_range(&self, range: &str) -> Result<(), tonic::Status> {
        let message = UpdateRuntimeConfigRequest {
            runtime_config: Some(RuntimeConfig { network_config: Some(NetworkConfig { pod_cidr: range.to_owned() }) }),
        };
        let mut runtime = RuntimeServiceClient::new(self.cri.clone());
        within(runtime.update_runtime_config(message)).await.map(|_| ())
    }

    /// What the machine and the runtime say right now.
    async fn facts(&self) -> Facts {
        let mut runtime = RuntimeServiceClient::new(self.cri.clone());
        let mut facts = Facts::read(&self.config.data_dir);
        facts.pressures = self.pressures.borrow().clone();
        facts.shutting_down = *self.shutting_down.borrow();
        match within(runtime.status(StatusRequest { verbose: false })).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                facts.supplemental_groups_policy = answer.features.is_some_and(|f| f.supplemental_groups_policy);
                facts.handlers = answer.runtime_handlers.into_iter().map(handler).collect();
                for condition in answer.status.map(|s| s.conditions).unwrap_or_default() {
                    let message = format!("{}: {}", condition.reason, condition.message);
                    match condition.r#type.as_str() {
                        "RuntimeReady" => facts.runtime = if condition.status { Ok(()) } else { Err(message) },
                        "NetworkReady" => facts.network = if condition.status { Ok(()) } else { Err(message) },
                        _ => {}
                    }
                }
            }
            Err(status) => facts.runtime = Err(format!("container runtime is down: {}", status.message())),
        }
        if let Ok(answer) = within(runtime.version(VersionRequest { version: "0.1.0".to_owned() })).await {
            let version = answer.into_inner();
            facts.runtime_version = format!("{}://{}", version.runtime_name, version.runtime_version);
        }
        let mut images = ImageServiceClient::new(self.cri.clone());
        if let Ok(answer) = within(images.list_images(ListImagesRequest { filter: None })).await {
            facts.images = facts::images(answer.into_inner().images);
        }
        facts
    }
}

fn handler(handler: RuntimeHandler) -> Handler {
    let features = handler.features.unwrap_or_default();
    Handler {
        name: handler.name,
        recursive_read_only_mounts: features.recursive_read_only_mounts,
        user_namespaces: features.user_namespaces,
    }
}

/// Beside the pods' folders, whose names are uids.
fn range_path(data_dir: &Path) -> PathBuf {
    data_dir.join("node").join("pod-cidr")
}

fn save_range(data_dir: &Path, range: &str) -> std::io::Result<()> {
    let path = range_path(data_dir);
    let new = path.with_extension("new");
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&new, range)?;
    std::fs::rename(new, path)
}

/// The longest range in text, with room to spare.
const RANGE_MAX_BYTES: u64 = 64;

fn saved_range(data_dir: &Path) -> Option<String> {
    use std::io::Read;
    let mut text = String::new();
    let file = crate::files::open_regular(&range_path(data_dir)).ok()?;
    file.take(RANGE_MAX_BYTES).read_to_string(&mut text).ok()?;
    text.parse::<ipnet::IpNet>().ok().map(|_| text)
}

async fn within<T>(call: impl Future<Output = Result<T, tonic::Status>>) -> Result<T, tonic::Status> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(answer) => answer,
        Err(_) => Err(tonic::Status::deadline_exceeded("the runtime did not answer in time")),
    }
}
