//! The runtime as the agent sees it: CRI calls with a deadline each, and answers in the terms of [`crate::pod::seen`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use gantry_cri::v1::{self, ContainerConfig, ContainerEventResponse, ImageSpec, PodSandboxConfig};
use gantry_cri::{ImageServiceClient, MESSAGE_MAX_BYTES, RuntimeServiceClient};
use gantry_kube::pod::SOURCE_ANNOTATION;
use jiff::Timestamp;
use tonic::transport::Channel;
use tonic::{Code, Request, Streaming};

use crate::pod::resize::Limits;
use crate::pod::seen::{Container, Sandbox, Seen, State, User};

/// Labels and annotations of CRI objects, as every kubelet sets them; crictl and log shippers read them.
pub const POD_NAME_LABEL: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE_LABEL: &str = "io.kubernetes.pod.namespace";
pub const POD_UID_LABEL: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME_LABEL: &str = "io.kubernetes.container.name";
pub const HASH_ANNOTATION: &str = "io.kubernetes.container.hash";
pub const RESTARTS_ANNOTATION: &str = "io.kubernetes.container.restartCount";
pub const TERMINATION_PATH_ANNOTATION: &str = "io.kubernetes.container.terminationMessagePath";
pub const TERMINATION_POLICY_ANNOTATION: &str = "io.kubernetes.container.terminationMessagePolicy";
pub const GRACE_ANNOTATION: &str = "io.kubernetes.pod.terminationGracePeriod";

/// Who asks for numbers does not wait for long.
const STATS_TIMEOUT: Duration = Duration::from_secs(10);
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// A large image over a slow line.
const PULL_TIMEOUT: Duration = Duration::from_secs(3600);

/// A CRI call that failed.
#[derive(Debug, thiserror::Error)]
#[error("{call}{}", .subject.as_deref().map(|s| format!(" {s}")).unwrap_or_default())]
pub struct RuntimeError {
    pub call: &'static str,
    pub subject: Option<String>,
    #[source]
    pub status: Box<tonic::Status>,
}

impl RuntimeError {
    /// The runtime's own words, which users know from events and statuses.
    pub fn words(&self) -> String {
        self.status.message().to_owned()
    }

    pub fn is_not_found(&self) -> bool {
        self.status.code() == Code::NotFound
    }
}

/// A pod that the runtime holds, by its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub grace_seconds: i64,
    /// It came from a manifest, not from the API.
    pub is_static: bool,
    /// Changes whenever a sandbox or a container of the pod changes its state.
    pub print: String,
}

/// What there is to know of an image before a container is made from it.
#[derive(Clone, Debug)]
pub struct ImageFacts {
    pub image_ref: String,
    pub uid: Option<i64>,
    pub username: String,
    pub size_bytes: u64,
}

/// The file systems of images and of what containers write, as CRI tells of them.
pub type ImageFs = (Option<v1::FilesystemUsage>, Option<v1::FilesystemUsage>);

#[derive(Clone)]
pub struct Runtime {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

fn request<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

fn failed(call: &'static str, subject: &str) -> impl FnOnce(tonic::Status) -> RuntimeError {
    let subject = (!subject.is_empty()).then(|| subject.to_owned());
    move |status| RuntimeError { call, subject, status: Box::new(status) }
}

/// One call with its deadline; the answer's body, or the failure by name.
macro_rules! call {
    ($self:ident . $client:ident . $method:ident($message:expr), $subject:expr) => {
        call!($self.$client.$method($message), $subject, CALL_TIMEOUT)
    };
    ($self:ident . $client:ident . $method:ident($message:expr), $subject:expr, $timeout:expr) => {{
        let timeout = $timeout;
        let answer = tokio::time::timeout(timeout, $self.$client.clone().$method(request($message, timeout))).await;
        match answer {
            Ok(answer) => answer.map(tonic::Response::into_inner).map_err(failed(stringify!($method), $subject)),
            Err(_) => {
                let status = tonic::Status::deadline_exceeded("context deadline exceeded");
                Err(failed(stringify!($method), $subject)(status))
            }
        }
    }};
}

impl Runtime {
    pub fn new(channel: Channel) -> Runtime {
        Runtime {
            runtime: RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_MAX_BYTES)
                .max_encoding_message_size(MESSAGE_MAX_BYTES),
            images: ImageServiceClient::new(channel)
                .max_decoding_message_size(MESSAGE_MAX_BYTES)
                .max_encoding_message_size(MESSAGE_MAX_BYTES),
        }
    }

    pub async fn version(&self) -> Result<v1::VersionResponse, RuntimeError> {
        call!(self.runtime.version(v1::VersionRequest { version: "0.1.0".to_owned() }), "")
    }

    /// The conditions `RuntimeReady` and `NetworkReady`, each as (holds, reason, message).
    pub async fn conditions(&self) -> Result<BTreeMap<String, (bool, String, String)>, RuntimeError> {
        let answer = call!(self.runtime.status(v1::StatusRequest { verbose: false }), "")?;
        let conditions = answer.status.map(|s| s.conditions).unwrap_or_default();
        Ok(conditions.into_iter().map(|c| (c.r#type, (c.status, c.reason, c.message))).collect())
    }

    pub async fn set_pod_cidr(&self, cidr: &str) -> Result<(), RuntimeError> {
        let network = v1::NetworkConfig { pod_cidr: cidr.to_owned() };
        let config = v1::RuntimeConfig { network_config: Some(network) };
        let message = v1::UpdateRuntimeConfigRequest { runtime_config: Some(config) };
        call!(self.runtime.update_runtime_config(message), cidr).map(|_| ())
    }

    /// `runtime_handler` is empty for the ordinary runtime.
    pub async fn run_sandbox(&self, config: PodSandboxConfig, runtime_handler: String) -> Result<String, RuntimeError> {
        let message = v1::RunPodSandboxRequest { config: Some(config), runtime_handler };
        call!(self.runtime.run_pod_sandbox(message), "").map(|answer| answer.pod_sandbox_id)
    }

    pub async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let message = v1::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(call!(self.runtime.stop_pod_sandbox(message), id).map(|_| ()))
    }

    pub async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let message = v1::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(call!(self.runtime.remove_pod_sandbox(message), id).map(|_| ()))
    }

    pub async fn create_container(
        &self,
        sandbox: &str,
        config: ContainerConfig,
        sandbox_config: PodSandboxConfig,
    ) -> Result<String, RuntimeError> {
        let message = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        call!(self.runtime.create_container(message), "").map(|answer| answer.container_id)
    }

    pub async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        call!(self.runtime.start_container(v1::StartContainerRequest { container_id: id.to_owned() }), id).map(|_| ())
    }

    /// Waits until the container has ended.
    pub async fn stop_container(&self, id: &str, grace_seconds: i64) -> Result<(), RuntimeError> {
        let message = v1::StopContainerRequest { container_id: id.to_owned(), timeout: grace_seconds };
        let timeout = CALL_TIMEOUT + Duration::from_secs(u64::try_from(grace_seconds).unwrap_or(0));
        gone_is_fine(call!(self.runtime.stop_container(message), id, timeout).map(|_| ()))
    }

    /// Changes what a running container may take.
    pub async fn update_container(&self, id: &str, linux: v1::LinuxContainerResources) -> Result<(), RuntimeError> {
        let message = v1::UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(linux),
            ..v1::UpdateContainerResourcesRequest::default()
        };
        call!(self.runtime.update_container_resources(message), id).map(|_| ())
    }

    /// The same of a pod as a whole.
    pub async fn update_sandbox(&self, id: &str, resources: v1::LinuxContainerResources) -> Result<(), RuntimeError> {
        let message = v1::UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: id.to_owned(),
            overhead: None,
            resources: Some(resources),
        };
        call!(self.runtime.update_pod_sandbox_resources(message), id).map(|_| ())
    }

    pub async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        let message = v1::RemoveContainerRequest { container_id: id.to_owned() };
        gone_is_fine(call!(self.runtime.remove_container(message), id).map(|_| ()))
    }

    /// Exit code, standard output and error.
    pub async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        timeout: Duration,
    ) -> Result<v1::ExecSyncResponse, RuntimeError> {
        let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
        let message = v1::ExecSyncRequest { container_id: id.to_owned(), cmd: command, timeout: seconds };
        call!(self.runtime.exec_sync(message), id, timeout + Duration::from_secs(5))
    }

    /// Where the containers that run write their logs.
    pub async fn running_logs(&self) -> Result<Vec<(String, PathBuf)>, RuntimeError> {
        let running = v1::ContainerStateValue { state: v1::ContainerState::ContainerRunning.into() };
        let filter = v1::ContainerFilter { state: Some(running), ..v1::ContainerFilter::default() };
        let list = v1::ListContainersRequest { filter: Some(filter) };
        let mut logs = Vec::new();
        for container in call!(self.runtime.list_containers(list), "")?.containers {
            let message = v1::ContainerStatusRequest { container_id: container.id.clone(), verbose: false };
            match call!(self.runtime.container_status(message), &container.id) {
                Ok(answer) => logs.extend(answer.status.map(|status| (container.id, status.log_path.into()))),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(logs)
    }

    /// The log has been renamed: the container goes on in a new file of the old name.
    pub async fn reopen_log(&self, id: &str) -> Result<(), RuntimeError> {
        let message = v1::ReopenContainerLogRequest { container_id: id.to_owned() };
        call!(self.runtime.reopen_container_log(message), id).map(|_| ())
    }

    pub async fn exec_url(&self, message: v1::ExecRequest) -> Result<String, RuntimeError> {
        let id = message.container_id.clone();
        call!(self.runtime.exec(message), &id).map(|answer| answer.url)
    }

    pub async fn attach_url(&self, message: v1::AttachRequest) -> Result<String, RuntimeError> {
        let id = message.container_id.clone();
        call!(self.runtime.attach(message), &id).map(|answer| answer.url)
    }

    pub async fn port_forward_url(&self, message: v1::PortForwardRequest) -> Result<String, RuntimeError> {
        let id = message.pod_sandbox_id.clone();
        call!(self.runtime.port_forward(message), &id).map(|answer| answer.url)
    }

    /// `None` where the image is not on the node.
    pub async fn image(&self, image: &str) -> Result<Option<ImageFacts>, RuntimeError> {
        let spec = ImageSpec { image: image.to_owned(), ..ImageSpec::default() };
        let answer =
            call!(self.images.image_status(v1::ImageStatusRequest { image: Some(spec), verbose: false }), image)?;
        Ok(answer.image.map(|found| ImageFacts {
            image_ref: found.id,
            uid: found.uid.map(|v| v.value),
            username: found.username,
            size_bytes: found.size,
        }))
    }

    pub async fn pull(&self, image: &str, auth: Option<v1::AuthConfig>) -> Result<String, RuntimeError> {
        let spec = ImageSpec { image: image.to_owned(), ..ImageSpec::default() };
        let message = v1::PullImageRequest { image: Some(spec), auth, sandbox_config: None };
        call!(self.images.pull_image(message), image, PULL_TIMEOUT).map(|answer| answer.image_ref)
    }

    pub async fn list_images(&self) -> Result<Vec<v1::Image>, RuntimeError> {
        call!(self.images.list_images(v1::ListImagesRequest { filter: None }), "").map(|answer| answer.images)
    }

    pub async fn remove_image(&self, id: &str) -> Result<(), RuntimeError> {
        let spec = ImageSpec { image: id.to_owned(), ..ImageSpec::default() };
        call!(self.images.remove_image(v1::RemoveImageRequest { image: Some(spec) }), id).map(|_| ())
    }

    /// Who uses which image: of every container, ended ones too, by what it calls its image.
    pub async fn users_of_images(&self) -> Result<BTreeMap<String, BTreeSet<String>>, RuntimeError> {
        let all = call!(self.runtime.list_containers(v1::ListContainersRequest { filter: None }), "")?.containers;
        let mut users: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for container in all {
            let label = |key: &str| container.labels.get(key).map_or("", String::as_str);
            let pod = format!("{}/{}", label(POD_NAMESPACE_LABEL), label(POD_NAME_LABEL));
            let name = container.metadata.map_or(container.id, |metadata| metadata.name);
            let user = format!("container {name} of pod {pod}");
            let called =
                [container.image_ref, container.image_id, container.image.map(|i| i.image).unwrap_or_default()];
            for name in called.into_iter().filter(|name| !name.is_empty()) {
                users.entry(name).or_default().insert(user.clone());
            }
        }
        Ok(users)
    }

    /// Bytes that the containers of a pod have written over their images, by container name.
    pub async fn writable_layers(&self, uid: &str) -> Result<BTreeMap<String, u64>, RuntimeError> {
        let label_selector = HashMap::from([(POD_UID_LABEL.to_owned(), uid.to_owned())]);
        let filter = v1::ContainerStatsFilter { label_selector, ..v1::ContainerStatsFilter::default() };
        let message = v1::ListContainerStatsRequest { filter: Some(filter) };
        let stats = call!(self.runtime.list_container_stats(message), uid)?.stats;
        let mut latest: BTreeMap<String, (u32, u64)> = BTreeMap::new();
        for one in stats {
            let metadata = one.attributes.and_then(|a| a.metadata).unwrap_or_default();
            let used = one.writable_layer.and_then(|l| l.used_bytes).map_or(0, |bytes| bytes.value);
            // Of several runs of a container, the last counts.
            let slot = latest.entry(metadata.name).or_default();
            *slot = (*slot).max((metadata.attempt, used));
        }
        Ok(latest.into_iter().map(|(name, (_, used))| (name, used)).collect())
    }

    /// What every pod that runs uses.
    pub async fn sandbox_stats(&self) -> Result<Vec<v1::PodSandboxStats>, RuntimeError> {
        let message = v1::ListPodSandboxStatsRequest { filter: None };
        call!(self.runtime.list_pod_sandbox_stats(message), "", STATS_TIMEOUT).map(|answer| answer.stats)
    }

    /// What images take of their file system, and what containers wrote there; none where the runtime does not say.
    pub async fn image_fs(&self) -> Result<Option<ImageFs>, RuntimeError> {
        let answer = call!(self.images.image_fs_info(v1::ImageFsInfoRequest {}), "")?;
        let first = |list: Vec<v1::FilesystemUsage>| list.into_iter().next();
        let both = (first(answer.image_filesystems), first(answer.container_filesystems));
        Ok(both.0.is_some().then_some(both))
    }

    /// Events from now on, until the runtime ends.
    pub async fn events(&self) -> Result<Streaming<ContainerEventResponse>, RuntimeError> {
        let answer = self.runtime.clone().get_container_events(v1::GetEventsRequest {}).await;
        answer.map(tonic::Response::into_inner).map_err(failed("get_container_events", ""))
    }

    /// Every pod that the runtime holds.
    pub async fn held(&self) -> Result<Vec<Held>, RuntimeError> {
        let sandboxes = call!(self.runtime.list_pod_sandbox(v1::ListPodSandboxRequest { filter: None }), "")?.items;
        let containers =
            call!(self.runtime.list_containers(v1::ListContainersRequest { filter: None }), "")?.containers;
        let mut held: BTreeMap<String, Held> = BTreeMap::new();
        let mut note = |labels: &HashMap<String, String>, annotations: &HashMap<String, String>, print: String| {
            let text = |key: &str| labels.get(key).cloned().unwrap_or_default();
            let uid = text(POD_UID_LABEL);
            if uid.is_empty() {
                return;
            }
            let grace = annotations.get(GRACE_ANNOTATION).and_then(|g| g.parse().ok()).unwrap_or(30);
            let (namespace, name) = (text(POD_NAMESPACE_LABEL), text(POD_NAME_LABEL));
            let entry = held.entry(uid.clone()).or_insert_with(|| Held {
                uid,
                namespace,
                name,
                grace_seconds: grace,
                is_static: false,
                print: String::new(),
            });
            entry.is_static |= annotations.get(SOURCE_ANNOTATION).is_some_and(|source| source == "file");
            entry.print.push_str(&print);
        };
        for sandbox in &sandboxes {
            note(&sandbox.labels, &sandbox.annotations, format!("{}={} ", sandbox.id, sandbox.state));
        }
        for container in &containers {
            note(&container.labels, &container.annotations, format!("{}={} ", container.id, container.state));
        }
        Ok(held.into_values().collect())
    }

    /// One pod as the runtime has it now.
    pub async fn seen(&self, uid: &str) -> Result<Seen, RuntimeError> {
        let labels = HashMap::from([(POD_UID_LABEL.to_owned(), uid.to_owned())]);
        let filter = v1::PodSandboxFilter { label_selector: labels.clone(), ..v1::PodSandboxFilter::default() };
        let list = v1::ListPodSandboxRequest { filter: Some(filter) };
        let sandboxes = call!(self.runtime.list_pod_sandbox(list), uid)?.items;
        let filter = v1::ContainerFilter { label_selector: labels, ..v1::ContainerFilter::default() };
        let list = v1::ListContainersRequest { filter: Some(filter) };
        let containers = call!(self.runtime.list_containers(list), uid)?.containers;
        let mut seen = Seen::default();
        for sandbox in sandboxes {
            let message = v1::PodSandboxStatusRequest { pod_sandbox_id: sandbox.id.clone(), verbose: false };
            match call!(self.runtime.pod_sandbox_status(message), &sandbox.id) {
                Ok(answer) => seen.sandboxes.extend(answer.status.map(sandbox_from)),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        for container in containers {
            let message = v1::ContainerStatusRequest { container_id: container.id.clone(), verbose: false };
            match call!(self.runtime.container_status(message), &container.id) {
                Ok(answer) => {
                    seen.containers
                        .extend(answer.status.map(|status| container_from(container.pod_sandbox_id, status)));
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(seen)
    }
}

fn gone_is_fine(result: Result<(), RuntimeError>) -> Result<(), RuntimeError> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

fn time(nanos: i64) -> Option<Timestamp> {
    if nanos <= 0 { None } else { Timestamp::from_nanosecond(i128::from(nanos)).ok() }
}

fn sandbox_from(status: v1::PodSandboxStatus) -> Sandbox {
    let network = status.network.unwrap_or_default();
    let first = Some(network.ip).filter(|ip| !ip.is_empty());
    Sandbox {
        ready: status.state == i32::from(v1::PodSandboxState::SandboxReady),
        id: status.id,
        attempt: status.metadata.map_or(0, |m| m.attempt),
        created_at: time(status.created_at).unwrap_or(Timestamp::UNIX_EPOCH),
        ips: first.into_iter().chain(network.additional_ips.into_iter().map(|ip| ip.ip)).collect(),
    }
}

fn container_from(sandbox_id: String, status: v1::ContainerStatus) -> Container {
    let metadata = status.metadata.unwrap_or_default();
    let annotation = |key: &str| status.annotations.get(key).cloned().unwrap_or_default();
    let path = annotation(TERMINATION_PATH_ANNOTATION);
    let mounted = status.mounts.iter().find(|m| !path.is_empty() && m.container_path == path);
    let termination_log = mounted.map(|m| m.host_path.clone()).unwrap_or_default();
    let mounted_image = |mount: v1::Mount| Some((mount.container_path, mount.image?.image_ref));
    Container {
        sandbox_id,
        name: metadata.name,
        attempt: metadata.attempt,
        state: match v1::ContainerState::try_from(status.state) {
            Ok(v1::ContainerState::ContainerCreated) => State::Created,
            Ok(v1::ContainerState::ContainerRunning) => State::Running,
            Ok(v1::ContainerState::ContainerExited) => State::Exited,
            Ok(v1::ContainerState::ContainerUnknown) | Err(_) => State::Unknown,
        },
        created_at: time(status.created_at).unwrap_or(Timestamp::UNIX_EPOCH),
        started_at: time(status.started_at),
        finished_at: time(status.finished_at),
        exit_code: status.exit_code,
        image: status
            .image
            .map(|i| if i.user_specified_image.is_empty() { i.image } else { i.user_specified_image })
            .unwrap_or_default(),
        image_ref: status.image_ref,
        hash: annotation(HASH_ANNOTATION),
        termination_from_log: annotation(TERMINATION_POLICY_ANNOTATION) == "FallbackToLogsOnError",
        termination_log,
        limits: status.resources.and_then(|resources| resources.linux).map(|linux| Limits::of(&linux)),
        user: status.user.and_then(|user| user.linux).map(|linux| User {
            uid: linux.uid,
            gid: linux.gid,
            supplemental_groups: linux.supplemental_groups,
        }),
        mounted_images: status.mounts.into_iter().filter_map(mounted_image).collect(),
        id: status.id,
        reason: status.reason,
        message: status.message,
        log_path: status.log_path,
    }
}
