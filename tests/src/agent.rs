//! A node's agent in the test's own process, over a runtime that only pretends, and ways to wait for what it does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_agent::eviction::Signal;
use gantry_agent::shutdown::Switch;
use gantry_agent::{Agent, Config};
use gantry_client::Client;
use gantry_control::auth::Identity;
use gantry_env::Env;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::fake_cri::FakeCri;

const WAIT: Duration = Duration::from_secs(20);

/// Its name is `n1`.
pub struct Node {
    pub switch: Switch,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Node {
    pub async fn start(folder: &Path, client: kube::Client, cri: &FakeCri, env: &Env, manifests: bool) -> Node {
        Node::start_on("/proc".into(), folder, client, cri, env, manifests).await
    }

    /// On a machine whose kernel tells of itself in the folder `proc`.
    pub async fn start_on(
        proc: PathBuf,
        folder: &Path,
        client: kube::Client,
        cri: &FakeCri,
        env: &Env,
        manifests: bool,
    ) -> Node {
        Node::start_as(folder, client, cri, env, |config| {
            config.static_pod_dir = manifests.then(|| folder.join("manifests"));
            config.proc_dir = proc;
        })
        .await
    }

    /// As `configure` wants it.
    pub async fn start_as(
        folder: &Path,
        client: kube::Client,
        cri: &FakeCri,
        env: &Env,
        configure: impl FnOnce(&mut Config),
    ) -> Node {
        let mut config = Config::new("n1", [127, 0, 0, 1].into(), cri.serve());
        config.data_dir = folder.join("pods");
        config.run_dir = folder.join("run");
        config.log_dir = folder.join("logs");
        config.static_pod_dir = None;
        config.listen = None;
        config.mounts = false;
        // How full the disk of the test's own machine is decides nothing here.
        config.eviction.thresholds.retain(|threshold| threshold.signal == Signal::MemoryAvailable);
        configure(&mut config);
        let stop = CancellationToken::new();
        let client = Client::new(client, "gantry-agent");
        let agent = Agent::start(config, client, env.clone(), stop.clone()).await.expect("the agent starts");
        Node { switch: agent.switch(), stop, task: tokio::spawn(agent.run()) }
    }

    pub async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(WAIT, self.task).await.expect("the agent ends in time").expect("it does not panic");
    }
}

pub fn node_identity() -> Identity {
    Identity::new("system:node:n1", ["system:nodes"])
}

/// A pod as the API has it.
pub async fn pod(api: &Api, name: &str) -> Value {
    api.get(&format!("/api/v1/namespaces/default/pods/{name}")).await.json()
}

/// Waits until `ask` answers true.
pub async fn until(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + WAIT;
    while !ask().await {
        assert!(Instant::now() < end, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn until_pod(api: &Api, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + WAIT;
    loop {
        let found = pod(api, name).await;
        if holds(&found) {
            return found;
        }
        assert!(Instant::now() < end, "{name}: {what} did not come about: {found:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn manifest(name: &str, spec: Value) -> String {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec})
        .to_string()
}

pub async fn apply(api: &Api, name: &str, spec: Value) {
    let path = api.file(&format!("{name}.json"), &manifest(name, spec));
    api.kubectl(&["apply", "-f", &path]).await.expect("the pod is taken");
}

/// An API that is not there.
pub fn nobody() -> kube::Client {
    let service = tower::service_fn(|_request: http::Request<kube::client::Body>| async {
        Err::<http::Response<kube::client::Body>, std::io::Error>(std::io::ErrorKind::ConnectionRefused.into())
    });
    kube::Client::new(service, "default")
}
