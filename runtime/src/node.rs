//! What the runtime knows of this host's sandboxes and containers. The maps are a copy of the journal plus what only
//! lives in a process: connections, pidfds, waiters. Nothing is decided here; each change is journalled before it shows.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use gantry_base::Id;
use gantry_base::exit::{ExitRecord, START_ERROR_EXIT_CODE, UNKNOWN_EXIT_CODE};
use gantry_cri::v1::{self, ContainerEventType};
use gantry_env::{Env, chain};
use parking_lot::Mutex;
use tokio::sync::{OwnedRwLockReadGuard, broadcast, watch};

use crate::cdi::Specifications;
use crate::cgroup::Hierarchies;
use crate::cgroup::programs::Programs;
use crate::cgroup::rates::Rates;
use crate::config::Config;
use crate::container::modules::Modules;
use crate::container::seccomp::Filters;
use crate::image::Images;
use crate::network::Network;
use crate::network::loopback::Loopback;
use crate::records::{ContainerRecord, ContainerState, Records, SandboxRecord, SandboxState};
use crate::sandbox::namespaces::Pins;
use crate::stream::Streams;
use crate::supervisor::{Link, Listener, Notice, Program};

mod error;
mod exec;
mod held;
mod names;
mod turns;
pub mod view;

pub use error::{Foreign, NodeError};
pub use exec::{Process, Streams as ExecStreams, encode as encode_launch, kill_all};
pub use held::Held;
pub use names::Names;
pub use turns::{Turn, Turns};

/// Events that a slow listener may lag behind before it misses some (and lists again).
pub const EVENTS_MAX: usize = 1024;

#[derive(Debug)]
pub struct Sandbox {
    pub record: SandboxRecord,
    /// It is being stopped, or was: nothing may begin in it.
    pub stopping: bool,
    pub link: Option<Arc<Link>>,
    /// One change of the sandbox, or of its connection, at a time.
    pub lock: Arc<tokio::sync::Mutex<()>>,
    pub link_lock: Arc<tokio::sync::Mutex<()>>,
    /// Held by each who makes a container in it, and alone by who removes it.
    pub making: Arc<tokio::sync::RwLock<()>>,
}

#[derive(Debug)]
pub struct Container {
    pub record: ContainerRecord,
    /// Second copies of what its supervisor holds; there while it runs.
    pub held: Option<Held>,
    /// Its supervisor says that it runs.
    pub supervised: bool,
    /// Bytes of its log that were dropped, as its supervisor told since this runtime was started.
    pub log_lost_bytes: u64,
    /// Whether it has ended; waited upon by those who stop it.
    pub ended: watch::Sender<bool>,
    pub lock: Arc<tokio::sync::Mutex<()>>,
    /// Filled when it has ended and nothing of it is left but what it wrote: see [`Node::settle`].
    pub settled: Arc<tokio::sync::OnceCell<()>>,
    /// Of commands that are to be started in it.
    pub turns: Arc<Turns>,
}

#[derive(Debug, Default)]
pub struct Pods {
    pub sandboxes: BTreeMap<String, Sandbox>,
    pub containers: BTreeMap<String, Container>,
}

pub struct Node {
    pub config: Config,
    pub env: Env,
    pub images: Images,
    pub network: Network,
    pub loopback: Loopback,
    pub cgroups: Hierarchies,
    pub device_programs: Programs,
    pub rates: Rates,
    pub records: Records,
    pub program: Program,
    pub filters: Filters,
    pub cdi: Specifications,
    pub streams: Streams,
    /// What this process may hand out.
    pub capabilities: u64,
    pub oom_score_adj_min: i32,
    pub modules: Modules,
    /// Whether pods may have users of their own, and why not; known once somebody has asked.
    pub users: tokio::sync::OnceCell<Result<(), String>>,
    pub pod_cidr_known: std::sync::atomic::AtomicBool,
    pub pods: Mutex<Pods>,
    pub names: Names,
    pub events: broadcast::Sender<v1::ContainerEventResponse>,
    pub me: Weak<Node>,
}

impl Sandbox {
    pub fn new(record: SandboxRecord) -> Sandbox {
        Sandbox {
            stopping: record.stopping,
            record,
            link: None,
            lock: Arc::default(),
            link_lock: Arc::default(),
            making: Arc::default(),
        }
    }
}

impl Container {
    pub fn new(record: ContainerRecord) -> Container {
        let ended = watch::Sender::new(record.state() == ContainerState::Exited);
        Container {
            record,
            held: None,
            supervised: false,
            log_lost_bytes: 0,
            ended,
            lock: Arc::default(),
            settled: Arc::default(),
            turns: Arc::default(),
        }
    }
}

/// Finds by id, or by the beginning of one when that is unique.
fn find<'a, T>(map: &'a BTreeMap<String, T>, id: &str) -> Option<&'a T> {
    if let Some(found) = map.get(id) {
        return Some(found);
    }
    if id.is_empty() {
        return None;
    }
    let mut matches = map.range(id.to_owned()..).take_while(|(key, _)| key.starts_with(id));
    match (matches.next(), matches.next()) {
        (Some((_, one)), None) => Some(one),
        _ => None,
    }
}

impl Node {
    pub fn now_ns(&self) -> i64 {
        i64::try_from(self.env.clock.now().as_nanosecond()).unwrap_or(i64::MAX)
    }

    /// 64 hexadecimal digits.
    pub fn new_id(&self) -> String {
        let mut bytes = [0; 32];
        self.env.rng.fill(&mut bytes);
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    pub fn set_pod_cidr(&self, cidr: ipnet::Ipv4Net) -> Result<(), NodeError> {
        self.network.set_pod_cidr(cidr)?;
        self.pod_cidr_known.store(true, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }

    pub fn network_ready(&self) -> bool {
        self.pod_cidr_known.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Whether this host has what pods with users of their own need.
    pub async fn check_users(&self) -> Result<(), NodeError> {
        let probed = self.users.get_or_init(|| async {
            let node = self.me.upgrade().ok_or_else(|| NodeError::Interrupted.to_string())?;
            let probe = move || Ok(node.program.probe_namespaces(&node.config.state_dir)?);
            blocking(probe).await.map_err(|error| chain(&error).to_string())
        });
        probed.await.clone().map_err(NodeError::NoUsers)
    }

    pub fn pins(&self, sandbox: &str) -> Pins {
        Pins(self.config.run_dir.join("ns").join(sandbox))
    }

    pub fn sandbox(&self, id: &str) -> Result<SandboxRecord, NodeError> {
        let pods = self.pods.lock();
        find(&pods.sandboxes, id).map(|s| s.record.clone()).ok_or_else(|| NodeError::NoSandbox(id.to_owned()))
    }

    /// Where the network of a running sandbox is; None where that is the host's.
    pub fn network_namespace(&self, sandbox: &str) -> Result<Option<std::path::PathBuf>, NodeError> {
        let record = self.ready_sandbox(sandbox)?;
        let linux = record.config.as_ref().and_then(|c| c.linux.as_ref()?.security_context.as_ref());
        let options = linux.and_then(|c| c.namespace_options.clone()).unwrap_or_default();
        let own = options.network() != v1::NamespaceMode::Node;
        Ok(own.then(|| self.pins(&record.id).net()))
    }

    /// A sandbox in which something may begin.
    pub fn ready_sandbox(&self, id: &str) -> Result<SandboxRecord, NodeError> {
        let pods = self.pods.lock();
        let sandbox = find(&pods.sandboxes, id).ok_or_else(|| NodeError::NoSandbox(id.to_owned()))?;
        if sandbox.stopping || sandbox.record.state() != SandboxState::Ready {
            return Err(NodeError::NotReady(sandbox.record.id.clone()));
        }
        Ok(sandbox.record.clone())
    }

    /// A sandbox in which something may begin, and a hold on it: its folder stays until that is done.
    pub async fn hold_sandbox(&self, id: &str) -> Result<(SandboxRecord, OwnedRwLockReadGuard<()>), NodeError> {
        let making = self.making(&self.ready_sandbox(id)?.id)?;
        let hold = making.read_owned().await;
        Ok((self.ready_sandbox(id)?, hold))
    }

    pub fn making(&self, sandbox: &str) -> Result<Arc<tokio::sync::RwLock<()>>, NodeError> {
        let pods = self.pods.lock();
        let sandbox = pods.sandboxes.get(sandbox).ok_or_else(|| NodeError::NoSandbox(sandbox.to_owned()))?;
        Ok(Arc::clone(&sandbox.making))
    }

    pub fn container(&self, id: &str) -> Result<ContainerRecord, NodeError> {
        let pods = self.pods.lock();
        find(&pods.containers, id).map(|c| c.record.clone()).ok_or_else(|| NodeError::NoContainer(id.to_owned()))
    }

    pub fn containers_of(&self, sandbox: &str) -> Vec<ContainerRecord> {
        let pods = self.pods.lock();
        pods.containers.values().map(|c| &c.record).filter(|r| r.sandbox == sandbox).cloned().collect()
    }

    /// The container whose processes another of its sandbox shares (CRI's TARGET mode).
    pub fn target(&self, sandbox: &str, options: &v1::NamespaceOption) -> Result<ContainerRecord, NodeError> {
        let target = self.container(&options.target_id)?;
        if target.sandbox != sandbox {
            let why = "it is in another sandbox";
            return Err(NodeError::Invalid { what: "target container", value: target.id, why });
        }
        if target.state() != ContainerState::Running {
            let state = target.state().in_words();
            return Err(NodeError::WrongState { id: target.id, state, wanted: "running" });
        }
        Ok(target)
    }

    /// Where the processes are that a container shares with its target, if it has one.
    pub fn target_pids(&self, record: &ContainerRecord) -> Result<Option<OwnedFd>, NodeError> {
        let config = record.config.clone().unwrap_or_default();
        let options = crate::container::spec::security(&config).namespace_options.unwrap_or_default();
        if options.pid() != v1::NamespaceMode::Target {
            return Ok(None);
        }
        let target = self.target(&record.sandbox, &options)?;
        let opened = {
            let pods = self.pods.lock();
            let held = pods.containers.get(&target.id).and_then(|c| c.held.as_ref());
            held.map(|held| held.pid_namespace(target.pid))
        };
        // One that is not held has ended since.
        let gone = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let path = || format!("/proc/{}/ns/pid", target.pid).into();
        let opened = opened.unwrap_or_else(|| Err(gone()));
        opened.map(Some).map_err(|source| NodeError::Io { what: "open", path: path(), source })
    }

    /// The lock under which a container is started, stopped or removed.
    pub fn container_lock(&self, id: &str) -> Option<Arc<tokio::sync::Mutex<()>>> {
        self.pods.lock().containers.get(id).map(|c| Arc::clone(&c.lock))
    }

    pub fn sandbox_lock(&self, id: &str) -> Option<Arc<tokio::sync::Mutex<()>>> {
        self.pods.lock().sandboxes.get(id).map(|s| Arc::clone(&s.lock))
    }

    /// Journals a sandbox, then shows it.
    pub fn put_sandbox(&self, record: SandboxRecord) -> Result<(), NodeError> {
        self.records.save_sandbox(&record)?;
        let mut pods = self.pods.lock();
        match pods.sandboxes.get_mut(&record.id) {
            Some(sandbox) => sandbox.record = record,
            None => {
                pods.sandboxes.insert(record.id.clone(), Sandbox::new(record));
            }
        }
        Ok(())
    }

    /// Journals a container that was made and shows it, unless its sandbox is being stopped: whoever stops a sandbox, or
    /// removes it, ends what is in it once.
    pub fn put_new_container(&self, record: ContainerRecord) -> Result<(), NodeError> {
        let mut pods = self.pods.lock();
        match pods.sandboxes.get(&record.sandbox) {
            Some(sandbox) if !sandbox.stopping => {}
            _ => return Err(NodeError::NotReady(record.sandbox)),
        }
        self.records.save_container(&record)?;
        pods.containers.insert(record.id.clone(), Container::new(record));
        Ok(())
    }

    /// Changes a container in the journal and in the map, if `change` says that there is something to change.
    fn change_container(&self, id: &str, change: impl FnOnce(&mut ContainerRecord) -> bool) -> bool {
        let mut pods = self.pods.lock();
        let Some(container) = pods.containers.get_mut(id) else { return false };
        let mut record = container.record.clone();
        if !change(&mut record) {
            return false;
        }
        if let Err(error) = self.records.save_container(&record) {
            // The map must not claim less than what is true: a full /run costs the memory of it, not the pod.
            tracing::error!(container = id, error = %chain(&error), "journal not written");
        }
        container.record = record;
        true
    }

    /// Notes the limits of a container; false when it is gone.
    pub fn set_resources(&self, id: &str, resources: v1::LinuxContainerResources) -> bool {
        self.change_container(id, |record| {
            record.resources = Some(resources);
            true
        })
    }

    /// Asked of its supervisor; false when it was not waiting to be started.
    pub fn mark_starting(&self, id: &str) -> bool {
        self.change_container(id, |record| {
            let created = record.state() == ContainerState::Created;
            if created {
                record.set_state(ContainerState::Starting);
            }
            created
        })
    }

    /// Its supervisor says that it runs.
    pub fn mark_running(&self, id: &str, pid: i32, start_ticks: u64, held: Held) -> bool {
        let now = self.now_ns();
        let known = self.change_container(id, |record| match record.state() {
            ContainerState::Starting => {
                record.set_state(ContainerState::Running);
                record.started_at = now;
                (record.pid, record.start_ticks) = (pid, start_ticks);
                true
            }
            ContainerState::Running => true,
            ContainerState::Created | ContainerState::Exited => false,
        });
        if known && let Some(container) = self.pods.lock().containers.get_mut(id) {
            container.held = Some(held);
            container.supervised = true;
        }
        known
    }

    /// It has ended; how is on record.
    pub fn mark_ended(&self, id: &str, exit: &ExitRecord) -> bool {
        let cgroup = self.container(id).map(|r| r.cgroup).unwrap_or_default();
        let out_of_memory = !cgroup.is_empty() && self.cgroups.oom_killed(&cgroup);
        let now = self.now_ns();
        self.finish(id, |record| {
            // A short one has ended before the news of its start was here.
            if record.started_at == 0 || (exit.finished_at_ns != 0 && record.started_at > exit.finished_at_ns) {
                record.started_at = exit.finished_at_ns;
            }
            record.finished_at = if exit.finished_at_ns == 0 { now } else { exit.finished_at_ns };
            record.exit_code = exit.code;
            record.reason = match (out_of_memory, exit.unknown, exit.code) {
                (true, _, _) => "OOMKilled",
                (_, true, _) => "ContainerStatusUnknown",
                (_, _, 0) => "Completed",
                _ => "Error",
            }
            .to_owned();
        })
    }

    /// It has ended and nobody saw how.
    pub fn mark_unknown(&self, id: &str) -> bool {
        self.mark_ended(id, &ExitRecord { code: UNKNOWN_EXIT_CODE, finished_at_ns: 0, unknown: true })
    }

    /// It never reached its program.
    pub fn mark_start_failed(&self, id: &str, message: &str) -> bool {
        let now = self.now_ns();
        self.finish(id, |record| {
            record.finished_at = now;
            record.exit_code = START_ERROR_EXIT_CODE;
            "StartError".clone_into(&mut record.reason);
            message.clone_into(&mut record.message);
        })
    }

    fn finish(&self, id: &str, change: impl FnOnce(&mut ContainerRecord)) -> bool {
        let ended = self.change_container(id, |record| {
            let live = matches!(record.state(), ContainerState::Starting | ContainerState::Running);
            if live {
                change(record);
                record.set_state(ContainerState::Exited);
                record.pid = 0;
            }
            live
        });
        if ended {
            if let Some(container) = self.pods.lock().containers.get_mut(id) {
                container.held = None;
                container.supervised = false;
                container.ended.send_replace(true);
            }
            self.emit(id, ContainerEventType::ContainerStoppedEvent);
        }
        ended
    }

    /// Kills what is left of an ended container and removes its cgroup.
    pub async fn sweep(&self, record: &ContainerRecord) -> Result<(), NodeError> {
        let (cgroups, cgroup) = (self.cgroups.clone(), record.cgroup.clone());
        blocking(move || Ok(cgroups.end(&cgroup)?)).await
    }

    /// Takes leave of a container that has ended: its supervisor forgets it, what is left of it is killed, its cgroup goes. Done
    /// once, whoever comes first; the others wait for it.
    pub async fn settle(&self, record: &ContainerRecord) -> Result<(), NodeError> {
        let settled = self.pods.lock().containers.get(&record.id).map(|c| Arc::clone(&c.settled));
        let Some(settled) = settled else { return Ok(()) };
        let settle = || async {
            if let Some(link) = self.current_link(&record.sandbox) {
                // It has nothing more to say of it; should this be lost, the end is only told once more.
                let _ = link.forget(Id::parse(&record.id)?).await;
            }
            self.sweep(record).await
        };
        settled.get_or_try_init(settle).await.copied()
    }

    /// A connection to the sandbox's supervisor, which is started if need be.
    pub async fn link(&self, sandbox: &str) -> Result<Arc<Link>, NodeError> {
        let gone = || NodeError::NoSandbox(sandbox.to_owned());
        let current = |node: &Node| {
            let pods = node.pods.lock();
            let sandbox = pods.sandboxes.get(sandbox)?;
            Some((sandbox.link.clone().filter(|l| !l.is_gone()), Arc::clone(&sandbox.link_lock)))
        };
        let (link, lock) = current(self).ok_or_else(gone)?;
        if let Some(link) = link {
            return Ok(link);
        }
        let _one_at_a_time = lock.lock().await;
        if let Some((Some(link), _)) = current(self) {
            return Ok(link);
        }
        crate::recover::take_up(self, sandbox, true).await?.ok_or(NodeError::NoSupervisor)
    }

    pub fn current_link(&self, sandbox: &str) -> Option<Arc<Link>> {
        self.pods.lock().sandboxes.get(sandbox)?.link.clone().filter(|l| !l.is_gone())
    }

    /// The cgroup under which a sandbox's containers are.
    pub fn sandbox_cgroup(&self, record: &SandboxRecord) -> String {
        let parent = record.config.as_ref().and_then(|c| c.linux.as_ref()).map_or("", |l| l.cgroup_parent.as_str());
        if parent.is_empty() {
            format!("{}/{}", self.config.cgroup_parent, record.id)
        } else {
            parent.trim_end_matches('/').to_owned()
        }
    }

    fn ended(&self, sandbox: &str, container: &Id) {
        let exit = crate::recover::read_exit(&self.records.bundle(sandbox, container));
        let first = match &exit {
            Some(exit) => self.mark_ended(container.as_str(), exit),
            None => self.mark_unknown(container.as_str()),
        };
        if !first {
            return;
        }
        let Some(node) = self.me.upgrade() else { return };
        let container = container.clone();
        tokio::spawn(async move {
            if let Ok(record) = node.container(container.as_str())
                && let Err(error) = node.settle(&record).await
            {
                tracing::warn!(container = %container, error = %chain(&error), "cgroup stays for now");
            }
        });
    }

    fn started(&self, unit: &gantry_base::frame::Unit, pid: i32, start_ticks: u64, sandbox: &str, fds: Vec<OwnedFd>) {
        let id = unit.id.as_str();
        let bundle = self.records.bundle(sandbox, &unit.id);
        let starting = self.container(id).is_ok_and(|r| r.state() == ContainerState::Starting);
        if self.mark_running(id, pid, start_ticks, Held::new(fds, unit, &bundle)) {
            if starting {
                self.emit(id, ContainerEventType::ContainerStartedEvent);
            }
            return;
        }
        // Started after all, for a runtime that had given it up: it must not live on unseen.
        tracing::warn!(container = id, "a container that nobody waits for has started: it is killed");
        let Some(node) = self.me.upgrade() else { return };
        if let Ok(record) = self.container(id) {
            tokio::spawn(async move { node.sweep(&record).await });
        }
    }
}

impl Listener for Node {
    fn notice(&self, sandbox: &str, notice: Notice) {
        match notice {
            Notice::Started { unit, pid, start_ticks, fds } => self.started(&unit, pid, start_ticks, sandbox, fds),
            Notice::Exited { container } => self.ended(sandbox, &container),
            Notice::LogLost { container, bytes } => {
                let id = container.as_str();
                tracing::warn!(container = id, sandbox, bytes, "the disk of its log stands still: lines are dropped");
                if let Some(container) = self.pods.lock().containers.get_mut(id) {
                    container.log_lost_bytes = bytes;
                }
            }
            Notice::Gone => {
                let ready = self.sandbox(sandbox).is_ok_and(|r| r.state() == SandboxState::Ready);
                let alive = self
                    .containers_of(sandbox)
                    .iter()
                    .any(|c| matches!(c.state(), ContainerState::Starting | ContainerState::Running));
                if !ready || !alive {
                    return;
                }
                tracing::warn!(sandbox, "supervisor has gone: another takes over");
                let Some(node) = self.me.upgrade() else { return };
                let sandbox = sandbox.to_owned();
                tokio::spawn(async move {
                    if let Err(error) = node.link(&sandbox).await {
                        tracing::error!(sandbox, error = %chain(&error), "no supervisor could take over");
                    }
                });
            }
        }
    }
}

/// Work that blocks, off the async threads.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NodeError> + Send + 'static,
) -> Result<T, NodeError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(NodeError::Interrupted))
}
