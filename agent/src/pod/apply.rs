//! What the actions of a plan do. Each is safe to do again; what failed is remembered, and the next plan decides.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use gantry_cri::v1::{Mount, PodSandboxConfig};
use gantry_env::chain;
use gantry_kube::{Object, Ref, resource};
use jiff::Timestamp;
use serde_json::Value;
use tracing::{info, warn};

use super::cri::{self, Given, bind};
use super::dns::{self, NodeDns};
use super::env::{Sources, references, service_variables, variables};
use super::memory::{Failure, RETRY_SECONDS, VOLUME_RETRY_SECONDS, Volumes, after, image_key};
use super::plan::{Action, KillReason};
use super::seen::{Seen, State};
use super::want::{Wanted, WantedImage};
use super::worker::{Desired, Effect, Source, Worker, spec_of};
use super::{hosts, pull, users};
use crate::events::Kind;

mod hooks;
mod resize;

use hooks::pre_stop;

/// How long a container that is about to be made waits for the services that its environment names.
const SERVICES_FIRST: Duration = Duration::from_secs(2);

/// The reason and the words with which a container's start fails.
struct Refusal {
    reason: &'static str,
    message: String,
}

impl Worker {
    /// `true` when the facts have changed at once, so that the plan is to be made anew.
    pub(super) async fn apply(&mut self, desired: &Desired, want: &Wanted, seen: &Seen, action: Action) -> bool {
        match action {
            Action::PrepareVolumes => self.prepare_volumes(desired, seen).await,
            Action::RunSandbox { attempt } => self.run_sandbox(desired, attempt).await,
            Action::StopSandbox { id } => {
                let done = self.shared.runtime.stop_sandbox(&id).await;
                self.done(done, "sandbox not stopped")
            }
            Action::RemoveSandbox { id } => {
                let done = self.shared.runtime.remove_sandbox(&id).await;
                self.done(done, "sandbox not removed")
            }
            Action::RemoveContainer { id } => {
                let done = self.shared.runtime.remove_container(&id).await;
                if let (Ok(()), Some(container)) = (&done, seen.container(&id)) {
                    // Its log goes with it, or a crash loop fills the disk.
                    let folder = self.shared.config.log_dir.join(cri::log_folder(&desired.pod)).join(&container.name);
                    crate::logs::remove(&folder, &format!("{}.log", container.attempt));
                }
                self.done(done, "container not removed")
            }
            Action::Resize { sandbox_id, containers } => {
                self.resize(desired, want, seen, &sandbox_id, &containers).await;
                true
            }
            Action::ReleaseVolumes => self.release_volumes(),
            Action::Pull { name, image } => self.pull(desired, name, image),
            Action::Run { name, attempt, sandbox_id, images, ended_at } => {
                let run = Run { name: &name, attempt, sandbox_id: &sandbox_id, images: &images, ended_at };
                self.run_container(desired, want, seen, run).await
            }
            Action::Start { id, name } => {
                self.start(desired, seen, &id, &name).await;
                true
            }
            Action::Kill { id, name, grace_seconds, reason } => {
                self.kill(desired, seen, Kill { id, name, grace_seconds, reason });
                false
            }
        }
    }

    fn done(&mut self, result: Result<(), crate::runtime::RuntimeError>, what: &'static str) -> bool {
        if let Err(error) = result {
            warn!(pod = %self.uid, error = %chain(&error), "{what}");
            self.retry_soon();
            return false;
        }
        true
    }

    async fn prepare_volumes(&mut self, desired: &Desired, seen: &Seen) -> bool {
        let facts = self.pod_facts(&desired.pod, seen);
        if self.following.is_none() {
            self.following = Some(self.shared.volumes.objects.follow(&desired.pod, &self.sources));
        }
        match self.shared.volumes.prepare(&desired.pod, &facts).await {
            Ok(()) => {
                self.memory.volumes = Volumes::Ready;
                self.refresh_when_due();
            }
            Err(error) => {
                let message = chain(&error);
                self.shared.events.pod(&desired.pod, None, Kind::Warning, "FailedMount", error.to_string());
                let known = matches!(&self.memory.volumes, Volumes::Failed(before) if before.message == message);
                if !known {
                    warn!(pod = %desired.pod.reference(), error = message, "the pod waits for its volumes");
                }
                self.memory.volumes = Volumes::Failed(self.failure("FailedMount", message, VOLUME_RETRY_SECONDS));
            }
        }
        true
    }

    fn release_volumes(&mut self) -> bool {
        let released = self.shared.volumes.release(&self.uid).map_err(|error| chain(&error));
        match released.and_then(|()| self.shared.users.release(&self.uid).map_err(|error| error.to_string())) {
            Ok(()) => {
                self.memory.volumes = Volumes::Gone;
                self.following = None;
                true
            }
            Err(error) => {
                warn!(pod = %self.uid, error, "volumes not released");
                self.retry_soon();
                false
            }
        }
    }

    fn failure(&self, reason: &str, message: String, seconds: i64) -> Failure {
        let at = self.shared.env.clock.now();
        Failure { reason: reason.to_owned(), message, at, until: after(at, seconds) }
    }

    fn sandbox_config(&self, pod: &Object, attempt: u32) -> Result<PodSandboxConfig, String> {
        let config = &self.shared.config;
        let node = NodeDns {
            cluster_servers: config.cluster_dns.clone(),
            cluster_domain: config.cluster_domain.clone(),
            host: read_bounded(&config.resolv_conf),
        };
        let log_root = config.log_dir.to_string_lossy();
        let hostname = hosts::kernel_hostname(pod, &config.cluster_domain)?;
        let dns = dns::config(pod, &node);
        let mut sandbox =
            cri::sandbox(pod, attempt, hostname, dns, &config.cgroup_root, &log_root, config.pod_pids_max);
        if users::are_own(pod) {
            users::tell_sandbox(&mut sandbox, self.shared.users.of(&self.uid).map_err(|error| chain(&error))?);
        }
        Ok(sandbox)
    }

    /// What the runtime calls the way in which the pod's class wants it to be run.
    async fn runtime_handler(&self, pod: &Object) -> Result<String, String> {
        let class = pod.str_at("/spec/runtimeClassName");
        if class.is_empty() {
            return Ok(String::new());
        }
        let found = self.shared.client.get(&resource::RUNTIME_CLASS, &Ref::cluster(class)).await;
        found.map(|class| class.str_at("/handler").to_owned()).map_err(|error| chain(&error))
    }

    async fn make_sandbox(&self, pod: &Object, attempt: u32) -> Result<String, String> {
        let config = self.sandbox_config(pod, attempt)?;
        let handler = self.runtime_handler(pod).await?;
        self.shared.runtime.run_sandbox(config, handler).await.map_err(|error| chain(&error))
    }

    async fn run_sandbox(&mut self, desired: &Desired, attempt: u32) -> bool {
        match self.make_sandbox(&desired.pod, attempt).await {
            Ok(id) => {
                info!(pod = %self.uid, sandbox = %id, "sandbox is ready");
                self.shared.trace.mark(&self.uid, 8, "sandbox is ready");
                self.memory.sandbox_failure = None;
            }
            Err(error) => {
                let words = format!("Failed to create pod sandbox: {error}");
                self.shared.events.pod(&desired.pod, None, Kind::Warning, "FailedCreatePodSandBox", words.clone());
                if self.memory.sandbox_failure.as_ref().is_none_or(|before| before.message != words) {
                    warn!(pod = %desired.pod.reference(), error = words, "the pod waits for its sandbox");
                }
                self.memory.sandbox_failure = Some(self.failure("FailedCreatePodSandBox", words, RETRY_SECONDS));
            }
        }
        true
    }

    fn pull(&mut self, desired: &Desired, container: String, wanted: WantedImage) -> bool {
        let image = image_key(&container, &wanted);
        self.memory.note_pulling(image.clone());
        let (shared, pod) = (self.shared.clone(), desired.pod.clone());
        self.effects.spawn(async move {
            let result = pull::ensure(&shared, &pod, &container, &wanted).await;
            Effect::Pulled { image, result }
        });
        false
    }

    async fn run_container(&mut self, desired: &Desired, want: &Wanted, seen: &Seen, run: Run<'_>) -> bool {
        let made = self.create(desired, want, seen, &run).await;
        match made {
            Ok(id) => {
                if let Some(ended) = run.ended_at {
                    self.memory.note_rerun(run.name, ended, self.shared.env.clock.now());
                }
                self.memory.note_created(run.name);
                let words = format!("Created container: {}", run.name);
                self.shared.events.pod(&desired.pod, Some(run.name), Kind::Normal, "Created", words);
                self.shared.trace.mark(&self.uid, 8, "container created");
                self.start(desired, seen, &id, run.name).await;
            }
            Err(refusal) => {
                let words = format!("Error: {}", refusal.message);
                self.shared.events.pod(&desired.pod, Some(run.name), Kind::Warning, "Failed", words);
                if self.memory.create_failures.get(run.name).is_none_or(|before| before.message != refusal.message) {
                    let (pod, container) = (desired.pod.reference(), run.name);
                    warn!(%pod, container, error = refusal.message, "the container is not made");
                }
                let failure = self.failure(refusal.reason, refusal.message, RETRY_SECONDS);
                self.memory.create_failures.insert(run.name.to_owned(), failure);
                self.memory.forget_image(run.name);
            }
        }
        true
    }

    async fn create(&self, desired: &Desired, want: &Wanted, seen: &Seen, run: &Run<'_>) -> Result<String, Refusal> {
        let pod = &desired.pod;
        let config_error = |message: String| Refusal { reason: "CreateContainerConfigError", message };
        let (Some(spec), Some(wanted)) = (spec_of(pod, run.name), want.container(run.name)) else {
            return Err(config_error(format!("container {} is not in the pod", run.name)));
        };
        let image_ref = run.images.get(&wanted.image.reference).map_or("", String::as_str);
        let image = match self.shared.runtime.image(image_ref).await {
            Ok(Some(image)) => image,
            Ok(None) => return Err(config_error(format!("image {image_ref} is gone"))),
            Err(error) => return Err(config_error(chain(&error))),
        };
        let sources = self.sources(desired, spec, seen).await.map_err(config_error)?;
        let list = variables(pod, spec, &sources).map_err(|e| config_error(e.to_string()))?;
        let mut mounts =
            self.shared.volumes.binds(pod, spec, &list, run.images).map_err(|e| config_error(e.to_string()))?;
        self.own_files(pod, spec, seen, run, &mut mounts)
            .map_err(|e| Refusal { reason: "CreateContainerError", message: format!("pod folder: {e}") })?;
        let target_id = target(spec, seen, run.sandbox_id)
            .map_err(|message| Refusal { reason: "CreateContainerError", message })?;
        let given = Given {
            target_id,
            attempt: run.attempt,
            image: &image,
            variables: list,
            mounts,
            node_memory_bytes: self.shared.node_facts().capacity.memory_bytes,
            cgroup_v2: Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
        };
        let mut config = cri::container(pod, spec, wanted, given).map_err(|e| config_error(e.to_string()))?;
        if users::are_own(pod) {
            let block = self.shared.users.of(&self.uid).map_err(|error| config_error(chain(&error)))?;
            users::tell_container(&mut config, block);
        }
        let attempt = seen.sandbox().map_or(0, |s| s.attempt);
        let sandbox_config = self.sandbox_config(pod, attempt).map_err(config_error)?;
        let made = self.shared.runtime.create_container(run.sandbox_id, config, sandbox_config).await;
        made.map_err(|error| Refusal { reason: "CreateContainerError", message: error.words() })
    }

    /// The objects that the container's environment draws on, as they are now.
    async fn sources(&self, desired: &Desired, spec: &Value, seen: &Seen) -> Result<Sources, String> {
        let pod = &*desired.pod;
        // Where the API has told of the pod, it is about to tell of the services too; without it, the pod starts anyway.
        if desired.source == Source::Api
            && tokio::time::timeout(SERVICES_FIRST, self.shared.services.synced()).await != Ok(true)
        {
            return Err("services have not yet been read at least once, cannot construct envvars".to_owned());
        }
        let (maps, secrets) = references(spec);
        let mut sources = Sources { facts: self.pod_facts(pod, seen), ..Sources::default() };
        for name in maps {
            let found = self.shared.client.find(&resource::CONFIG_MAP, &Ref::new(pod.namespace(), &*name)).await;
            if let Some(object) = found.map_err(|e| chain(&e))? {
                sources.config_maps.insert(name, object);
            }
        }
        for name in secrets {
            let found = self.shared.client.find(&resource::SECRET, &Ref::new(pod.namespace(), &*name)).await;
            if let Some(object) = found.map_err(|e| chain(&e))? {
                sources.secrets.insert(name, object);
            }
        }
        let links = pod.bool_at("/spec/enableServiceLinks").unwrap_or(true);
        sources.services = service_variables(&self.shared.services.list(), pod.namespace(), links);
        Ok(sources)
    }

    /// /etc/hosts and the file for last words, unless the spec mounts something there.
    fn own_files(
        &self,
        pod: &Object,
        spec: &Value,
        seen: &Seen,
        run: &Run<'_>,
        mounts: &mut Vec<Mount>,
    ) -> std::io::Result<()> {
        let folder = self.shared.volumes.pod_folder(&self.uid);
        let taken = |mounts: &[Mount], path: &str| mounts.iter().any(|m| m.container_path == path);
        if !taken(mounts, "/etc/hosts") {
            let facts = self.pod_facts(pod, seen);
            let domain = hosts::domain(pod, &self.shared.config.cluster_domain);
            let host_file = read_bounded(Path::new("/etc/hosts"));
            let text = hosts::content(pod, &facts.pod_ips, &hosts::hostname(pod), &domain, &host_file);
            std::fs::create_dir_all(&folder)?;
            let path = folder.join("etc-hosts");
            if read_bounded(&path) != text {
                std::fs::write(&path, text)?;
            }
            mounts.push(bind("/etc/hosts", path.to_string_lossy().into_owned(), false, &Value::Null));
        }
        let last_words = spec["terminationMessagePath"].as_str().unwrap_or("");
        if !last_words.is_empty() && !taken(mounts, last_words) {
            use std::os::unix::fs::PermissionsExt;
            let container = folder.join("containers").join(run.name);
            std::fs::create_dir_all(&container)?;
            let path = container.join(run.attempt.to_string());
            std::fs::write(&path, "")?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
            mounts.push(bind(last_words, path.to_string_lossy().into_owned(), false, &Value::Null));
        }
        Ok(())
    }

    async fn start(&mut self, desired: &Desired, seen: &Seen, id: &str, name: &str) {
        let events = &self.shared.events;
        match self.shared.runtime.start_container(id).await {
            Ok(()) => {
                events.pod(&desired.pod, Some(name), Kind::Normal, "Started", format!("Started container {name}"));
                self.shared.trace.mark(&self.uid, 8, "container started");
                self.post_start(desired, seen, id, name);
            }
            Err(error) => {
                events.pod(&desired.pod, Some(name), Kind::Warning, "Failed", format!("Error: {}", error.words()));
                self.memory.start_failed.insert(id.to_owned());
                let failure = self.failure("RunContainerError", error.words(), RETRY_SECONDS);
                self.memory.create_failures.insert(name.to_owned(), failure);
            }
        }
    }

    fn kill(&mut self, desired: &Desired, seen: &Seen, kill: Kill) {
        let Kill { id, name, grace_seconds, reason } = kill;
        let message = match reason {
            KillReason::PodEnds => format!("Stopping container {name}"),
            KillReason::DefinitionChanged => format!("Container {name} definition changed, will be restarted"),
            KillReason::Unhealthy => self.memory.unhealthy.get(&id).map(|why| why.message.clone()).unwrap_or_default(),
            KillReason::Resized => {
                // Whatever code it ends with, it runs again.
                let message = format!("Container {name} resize requires restart");
                self.note_unhealthy(&id, &message);
                message
            }
            KillReason::Unknown => format!("Container {name} is in unknown state, try killing it before restart"),
        };
        let again = self.memory.killing.contains_key(&id);
        if !again {
            self.shared.events.pod(&desired.pod, Some(&name), Kind::Normal, "Killing", message);
        }
        let deadline = after(self.shared.env.clock.now(), grace_seconds);
        self.memory.killing.insert(id.clone(), deadline);
        if reason == KillReason::PodEnds {
            self.memory.note_stopping(deadline);
        }
        let (shared, pod) = (self.shared.clone(), desired.pod.clone());
        let ip = self.pod_facts(&desired.pod, seen).pod_ips.first().cloned().unwrap_or_default();
        self.effects.spawn(async move {
            let spec = spec_of(&pod, &name).cloned().unwrap_or_default();
            let left =
                if again { grace_seconds } else { pre_stop(&shared, &pod, &spec, &id, &ip, grace_seconds).await };
            if let Err(error) = shared.runtime.stop_container(&id, left).await {
                warn!(container = %id, error = %chain(&error), "container not stopped");
                // The next plan asks again; not at once, for a runtime that refuses would be asked in a loop.
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Effect::Killed { id }
        });
    }
}

/// One container's end.
struct Kill {
    id: String,
    name: String,
    grace_seconds: i64,
    reason: KillReason,
}

/// One run of a container.
struct Run<'a> {
    name: &'a str,
    attempt: u32,
    sandbox_id: &'a str,
    images: &'a BTreeMap<String, String>,
    ended_at: Option<Timestamp>,
}

/// A file of the host, up to a bound; nothing where there is none.
fn read_bounded(path: &Path) -> String {
    use std::io::Read;
    let mut text = String::new();
    if let Ok(file) = std::fs::File::open(path) {
        let _ = file.take(hosts::HOSTS_MAX_BYTES as u64).read_to_string(&mut text);
    }
    text
}

/// The container whose processes an ephemeral one is to see.
fn target(spec: &Value, seen: &Seen, sandbox: &str) -> Result<Option<String>, String> {
    let Some(name) = spec["targetContainerName"].as_str().filter(|name| !name.is_empty()) else { return Ok(None) };
    let running = seen.latest(name).filter(|c| c.sandbox_id == sandbox && c.state == State::Running);
    running.map(|c| Some(c.id.clone())).ok_or_else(|| format!("unable to find target container {name}"))
}
