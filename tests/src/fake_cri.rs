//! A runtime that only pretends: it keeps sandboxes and containers in memory and says what happens to them.
//!
//! What a container does is said by its image: `run` goes on until it is stopped, `exit:3` ends at once with that code,
//! `stubborn` ends only when it is killed, `startfail` cannot be started; `missing` cannot be pulled.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_cri::v1::{self, ContainerConfig, ContainerState, PodSandboxConfig, PodSandboxState};
use gantry_cri::{ImageServiceServer, RuntimeServiceServer};
use gantry_env::Env;
use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;
use tonic::transport::{Channel, Server};

mod service;

const EVENTS_MAX: usize = 1024;

struct Sandbox {
    config: PodSandboxConfig,
    state: PodSandboxState,
    created_at: i64,
    ip: String,
}

struct Container {
    sandbox: String,
    config: ContainerConfig,
    state: ContainerState,
    created_at: i64,
    started_at: i64,
    finished_at: i64,
    exit_code: i32,
    reason: &'static str,
    message: String,
}

#[derive(Default)]
struct State {
    next: u32,
    sandboxes: BTreeMap<String, Sandbox>,
    containers: BTreeMap<String, Container>,
    images: BTreeMap<String, u32>,
    calls: Vec<(Instant, String)>,
    /// Bytes that containers of a name use.
    memory: BTreeMap<String, u64>,
    pod_cidr: String,
}

/// The fake, shared by its server and the test. Cheap to clone.
#[derive(Clone)]
pub struct FakeCri {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<v1::ContainerEventResponse>,
    env: Env,
}

impl FakeCri {
    pub fn new(env: Env) -> FakeCri {
        FakeCri { state: Arc::default(), events: broadcast::channel(EVENTS_MAX).0, env }
    }

    /// Serves over duplex streams alone; the channel reaches it.
    pub fn serve(&self) -> Channel {
        let (accept, connections) = mpsc::channel(8);
        let incoming = futures::stream::unfold(connections, |mut connections| async move {
            let next = connections.recv().await?;
            Some((Ok::<_, std::io::Error>(next), connections))
        });
        let server = Server::builder()
            .add_service(RuntimeServiceServer::new(self.clone()))
            .add_service(ImageServiceServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(incoming));
        gantry_cri::connect::in_process(accept)
    }

    /// Every call that changed something, with the time at which it came: `start a`, `stop a 30`.
    pub fn calls(&self) -> Vec<(Instant, String)> {
        self.state.lock().calls.clone()
    }

    /// The times of the calls of that text.
    pub fn times(&self, call: &str) -> Vec<Instant> {
        self.state.lock().calls.iter().filter(|(_, c)| c == call).map(|(at, _)| *at).collect()
    }

    pub fn sandboxes(&self) -> usize {
        self.state.lock().sandboxes.len()
    }

    pub fn ready_sandboxes(&self) -> usize {
        self.state.lock().sandboxes.values().filter(|s| s.state == PodSandboxState::SandboxReady).count()
    }

    /// Names of the containers that run.
    pub fn running(&self) -> Vec<String> {
        let state = self.state.lock();
        let running = state.containers.values().filter(|c| c.state == ContainerState::ContainerRunning);
        running.map(|c| name_of(&c.config)).collect()
    }

    /// The configuration with which the container of that name was made last.
    pub fn config(&self, name: &str) -> Option<ContainerConfig> {
        let state = self.state.lock();
        state
            .containers
            .values()
            .filter(|c| name_of(&c.config) == name)
            .max_by_key(|c| c.created_at)
            .map(|c| c.config.clone())
    }

    pub fn pod_cidr(&self) -> String {
        self.state.lock().pod_cidr.clone()
    }

    /// From now on the container of that name uses so much memory.
    pub fn use_memory(&self, name: &str, bytes: u64) {
        self.state.lock().memory.insert(name.to_owned(), bytes);
    }

    /// Lets the running container of that name end by itself.
    pub fn exit(&self, name: &str, code: i32) {
        let id = {
            let state = self.state.lock();
            let mut all = state.containers.iter();
            all.find(|(_, c)| name_of(&c.config) == name && c.state == ContainerState::ContainerRunning)
                .map(|(id, _)| id.clone())
        };
        if let Some(id) = id {
            self.end(&id, code, "");
        }
    }

    /// What a reboot leaves of a runtime: its images.
    pub fn reboot(&self) {
        let mut state = self.state.lock();
        state.sandboxes.clear();
        state.containers.clear();
    }

    fn now(&self) -> i64 {
        i64::try_from(self.env.clock.now().as_nanosecond()).unwrap_or(0)
    }

    fn note(&self, call: String) {
        let now = Instant::now();
        self.state.lock().calls.push((now, call));
    }

    fn end(&self, id: &str, code: i32, reason: &'static str) {
        let now = self.now();
        {
            let mut state = self.state.lock();
            let Some(container) = state.containers.get_mut(id) else { return };
            if container.state != ContainerState::ContainerRunning {
                return;
            }
            container.state = ContainerState::ContainerExited;
            (container.exit_code, container.reason, container.finished_at) = (code, reason, now);
        }
        self.tell(id, v1::ContainerEventType::ContainerStoppedEvent);
    }

    fn tell(&self, id: &str, kind: v1::ContainerEventType) {
        let state = self.state.lock();
        let Some(container) = state.containers.get(id) else { return };
        let sandbox = state.sandboxes.get(&container.sandbox).map(|s| sandbox_status(&container.sandbox, s));
        let event = v1::ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind.into(),
            created_at: self.now(),
            pod_sandbox_status: sandbox,
            containers_statuses: Vec::new(),
        };
        // Nobody may be listening.
        let _ = self.events.send(event);
    }

    fn start(&self, id: &str) -> Result<(), tonic::Status> {
        let (name, image) = {
            let mut state = self.state.lock();
            let container = state.containers.get_mut(id).ok_or_else(|| tonic::Status::not_found(id.to_owned()))?;
            container.state = ContainerState::ContainerRunning;
            container.started_at = i64::try_from(self.env.clock.now().as_nanosecond()).unwrap_or(0);
            (name_of(&container.config), image_of(&container.config))
        };
        self.note(format!("start {name}"));
        if image.starts_with("startfail") {
            self.end(id, 128, "StartError");
            return Err(tonic::Status::unknown("exec: \"nothing\": no such file or directory"));
        }
        self.tell(id, v1::ContainerEventType::ContainerStartedEvent);
        if let Some(code) = image.strip_prefix("exit:").and_then(|c| c.parse().ok()) {
            self.end(id, code, "");
        }
        Ok(())
    }

    async fn stop(&self, id: &str, grace_seconds: i64) {
        let found = {
            let state = self.state.lock();
            let container = state.containers.get(id).filter(|c| c.state == ContainerState::ContainerRunning);
            container.map(|c| (name_of(&c.config), image_of(&c.config)))
        };
        let Some((name, image)) = found else { return };
        self.note(format!("stop {name} {grace_seconds}"));
        if image.starts_with("stubborn") {
            tokio::time::sleep(Duration::from_secs(u64::try_from(grace_seconds).unwrap_or(0))).await;
            self.end(id, 137, "");
        } else {
            self.end(id, 0, "");
        }
    }
}

fn name_of(config: &ContainerConfig) -> String {
    config.metadata.as_ref().map(|m| m.name.clone()).unwrap_or_default()
}

fn image_of(config: &ContainerConfig) -> String {
    config.image.as_ref().map(|i| i.user_specified_image.clone()).unwrap_or_default()
}

fn sandbox_status(id: &str, sandbox: &Sandbox) -> v1::PodSandboxStatus {
    v1::PodSandboxStatus {
        id: id.to_owned(),
        metadata: sandbox.config.metadata.clone(),
        state: sandbox.state.into(),
        created_at: sandbox.created_at,
        network: Some(v1::PodSandboxNetworkStatus { ip: sandbox.ip.clone(), additional_ips: Vec::new() }),
        labels: sandbox.config.labels.clone(),
        annotations: sandbox.config.annotations.clone(),
        ..v1::PodSandboxStatus::default()
    }
}

fn container_status(id: &str, container: &Container) -> v1::ContainerStatus {
    v1::ContainerStatus {
        id: id.to_owned(),
        metadata: container.config.metadata.clone(),
        state: container.state.into(),
        created_at: container.created_at,
        started_at: container.started_at,
        finished_at: container.finished_at,
        exit_code: container.exit_code,
        reason: container.reason.to_owned(),
        message: container.message.clone(),
        image: container.config.image.clone(),
        image_ref: format!("{}@sha256:0", image_of(&container.config)),
        labels: container.config.labels.clone(),
        annotations: container.config.annotations.clone(),
        mounts: container.config.mounts.clone(),
        ..v1::ContainerStatus::default()
    }
}
