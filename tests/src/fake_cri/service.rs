//! The RPCs of the fake. What the agent does not call is refused by name.

use std::collections::HashMap;
use std::pin::Pin;

use futures::Stream;
use gantry_cri::v1::{self, ContainerState, PodSandboxState};
use gantry_cri::{ImageService, RuntimeService};
use tokio::sync::broadcast;
use tonic::{Request, Response, Status};

use super::{Container, FakeCri, Sandbox, container_status, name_of, sandbox_status};

/// The ways in which it claims to run a sandbox.
const HANDLERS: [&str; 2] = ["", "boxed"];

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn carries(labels: &HashMap<String, String>, wanted: &HashMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn refused(call: &str) -> Status {
    Status::unimplemented(format!("the fake runtime has no {call}"))
}

#[tonic::async_trait]
impl RuntimeService for FakeCri {
    async fn version(&self, _request: Request<v1::VersionRequest>) -> Result<Response<v1::VersionResponse>, Status> {
        Ok(Response::new(v1::VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "fake".into(),
            runtime_version: "1".into(),
            runtime_api_version: "v1".into(),
        }))
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<v1::RunPodSandboxRequest>,
    ) -> Result<Response<v1::RunPodSandboxResponse>, Status> {
        let request = request.into_inner();
        let (config, handler) = (request.config.unwrap_or_default(), request.runtime_handler);
        if !HANDLERS.contains(&handler.as_str()) {
            return Err(Status::invalid_argument(format!("runtime handler {handler:?}: there is none")));
        }
        let created_at = self.now();
        let id = {
            let mut state = self.state.lock();
            state.next += 1;
            let (id, ip) = (format!("sandbox{}", state.next), format!("10.244.0.{}", state.next % 250 + 2));
            state
                .sandboxes
                .insert(id.clone(), Sandbox { config, state: PodSandboxState::SandboxReady, created_at, ip });
            id
        };
        self.note(if handler.is_empty() { "sandbox".to_owned() } else { format!("sandbox by {handler}") });
        Ok(Response::new(v1::RunPodSandboxResponse { pod_sandbox_id: id }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<v1::StopPodSandboxRequest>,
    ) -> Result<Response<v1::StopPodSandboxResponse>, Status> {
        let id = request.into_inner().pod_sandbox_id;
        let inside: Vec<String> = {
            let state = self.state.lock();
            state.containers.iter().filter(|(_, c)| c.sandbox == id).map(|(id, _)| id.clone()).collect()
        };
        for container in inside {
            self.stop(&container, 0).await;
        }
        if let Some(sandbox) = self.state.lock().sandboxes.get_mut(&id) {
            sandbox.state = PodSandboxState::SandboxNotready;
        }
        Ok(Response::new(v1::StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<v1::RemovePodSandboxRequest>,
    ) -> Result<Response<v1::RemovePodSandboxResponse>, Status> {
        let id = request.into_inner().pod_sandbox_id;
        let mut state = self.state.lock();
        state.sandboxes.remove(&id);
        state.containers.retain(|_, c| c.sandbox != id);
        Ok(Response::new(v1::RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<v1::PodSandboxStatusRequest>,
    ) -> Result<Response<v1::PodSandboxStatusResponse>, Status> {
        let id = request.into_inner().pod_sandbox_id;
        let state = self.state.lock();
        let sandbox = state.sandboxes.get(&id).ok_or_else(|| Status::not_found(id.clone()))?;
        let status = Some(sandbox_status(&id, sandbox));
        Ok(Response::new(v1::PodSandboxStatusResponse { status, ..Default::default() }))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<v1::ListPodSandboxRequest>,
    ) -> Result<Response<v1::ListPodSandboxResponse>, Status> {
        let wanted = request.into_inner().filter.unwrap_or_default().label_selector;
        let state = self.state.lock();
        let found = state.sandboxes.iter().filter(|(_, s)| carries(&s.config.labels, &wanted));
        let items = found.map(|(id, s)| v1::PodSandbox {
            id: id.clone(),
            metadata: s.config.metadata.clone(),
            state: s.state.into(),
            created_at: s.created_at,
            labels: s.config.labels.clone(),
            annotations: s.config.annotations.clone(),
            runtime_handler: String::new(),
        });
        Ok(Response::new(v1::ListPodSandboxResponse { items: items.collect() }))
    }

    type StreamPodSandboxesStream = Answers<v1::StreamPodSandboxesResponse>;

    async fn stream_pod_sandboxes(
        &self,
        _request: Request<v1::StreamPodSandboxesRequest>,
    ) -> Result<Response<Self::StreamPodSandboxesStream>, Status> {
        Err(refused("stream_pod_sandboxes"))
    }

    async fn create_container(
        &self,
        request: Request<v1::CreateContainerRequest>,
    ) -> Result<Response<v1::CreateContainerResponse>, Status> {
        let request = request.into_inner();
        let config = request.config.unwrap_or_default();
        let created_at = self.now();
        let name = name_of(&config);
        let id = {
            let mut state = self.state.lock();
            let ready =
                state.sandboxes.get(&request.pod_sandbox_id).is_some_and(|s| s.state == PodSandboxState::SandboxReady);
            if !ready {
                return Err(Status::failed_precondition("the sandbox is not ready"));
            }
            state.next += 1;
            let id = format!("container{}", state.next);
            let container = Container {
                sandbox: request.pod_sandbox_id,
                config,
                state: ContainerState::ContainerCreated,
                created_at,
                started_at: 0,
                finished_at: 0,
                exit_code: 0,
                reason: "",
                message: String::new(),
            };
            state.containers.insert(id.clone(), container);
            id
        };
        self.note(format!("create {name}"));
        Ok(Response::new(v1::CreateContainerResponse { container_id: id }))
    }

    async fn start_container(
        &self,
        request: Request<v1::StartContainerRequest>,
    ) -> Result<Response<v1::StartContainerResponse>, Status> {
        self.start(&request.into_inner().container_id)?;
        Ok(Response::new(v1::StartContainerResponse {}))
    }

    async fn stop_container(
        &self,
        request: Request<v1::StopContainerRequest>,
    ) -> Result<Response<v1::StopContainerResponse>, Status> {
        let request = request.into_inner();
        self.stop(&request.container_id, request.timeout).await;
        Ok(Response::new(v1::StopContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<v1::RemoveContainerRequest>,
    ) -> Result<Response<v1::RemoveContainerResponse>, Status> {
        self.state.lock().containers.remove(&request.into_inner().container_id);
        Ok(Response::new(v1::RemoveContainerResponse {}))
    }

    async fn list_containers(
        &self,
        request: Request<v1::ListContainersRequest>,
    ) -> Result<Response<v1::ListContainersResponse>, Status> {
        let wanted = request.into_inner().filter.unwrap_or_default().label_selector;
        let state = self.state.lock();
        let found = state.containers.iter().filter(|(_, c)| carries(&c.config.labels, &wanted));
        let containers = found.map(|(id, c)| v1::Container {
            id: id.clone(),
            pod_sandbox_id: c.sandbox.clone(),
            metadata: c.config.metadata.clone(),
            state: c.state.into(),
            created_at: c.created_at,
            labels: c.config.labels.clone(),
            annotations: c.config.annotations.clone(),
            ..Default::default()
        });
        Ok(Response::new(v1::ListContainersResponse { containers: containers.collect() }))
    }

    type StreamContainersStream = Answers<v1::StreamContainersResponse>;

    async fn stream_containers(
        &self,
        _request: Request<v1::StreamContainersRequest>,
    ) -> Result<Response<Self::StreamContainersStream>, Status> {
        Err(refused("stream_containers"))
    }

    async fn container_status(
        &self,
        request: Request<v1::ContainerStatusRequest>,
    ) -> Result<Response<v1::ContainerStatusResponse>, Status> {
        let id = request.into_inner().container_id;
        let state = self.state.lock();
        let container = state.containers.get(&id).ok_or_else(|| Status::not_found(id.clone()))?;
        let status = Some(container_status(&id, container));
        Ok(Response::new(v1::ContainerStatusResponse { status, ..Default::default() }))
    }

    async fn update_container_resources(
        &self,
        _request: Request<v1::UpdateContainerResourcesRequest>,
    ) -> Result<Response<v1::UpdateContainerResourcesResponse>, Status> {
        Err(refused("update_container_resources"))
    }

    async fn reopen_container_log(
        &self,
        _request: Request<v1::ReopenContainerLogRequest>,
    ) -> Result<Response<v1::ReopenContainerLogResponse>, Status> {
        Err(refused("reopen_container_log"))
    }

    async fn exec_sync(&self, request: Request<v1::ExecSyncRequest>) -> Result<Response<v1::ExecSyncResponse>, Status> {
        let command = request.into_inner().cmd;
        // `exit N`: what a probe is to be told.
        let exit_code = command.get(1).and_then(|c| c.parse().ok()).unwrap_or(0);
        Ok(Response::new(v1::ExecSyncResponse { stdout: Vec::new(), stderr: b"no".to_vec(), exit_code }))
    }

    async fn exec(&self, _request: Request<v1::ExecRequest>) -> Result<Response<v1::ExecResponse>, Status> {
        Err(refused("exec"))
    }

    async fn attach(&self, _request: Request<v1::AttachRequest>) -> Result<Response<v1::AttachResponse>, Status> {
        Err(refused("attach"))
    }

    async fn port_forward(
        &self,
        _request: Request<v1::PortForwardRequest>,
    ) -> Result<Response<v1::PortForwardResponse>, Status> {
        Err(refused("port_forward"))
    }

    async fn container_stats(
        &self,
        _request: Request<v1::ContainerStatsRequest>,
    ) -> Result<Response<v1::ContainerStatsResponse>, Status> {
        Err(refused("container_stats"))
    }

    async fn list_container_stats(
        &self,
        _request: Request<v1::ListContainerStatsRequest>,
    ) -> Result<Response<v1::ListContainerStatsResponse>, Status> {
        Err(refused("list_container_stats"))
    }

    type StreamContainerStatsStream = Answers<v1::StreamContainerStatsResponse>;

    async fn stream_container_stats(
        &self,
        _request: Request<v1::StreamContainerStatsRequest>,
    ) -> Result<Response<Self::StreamContainerStatsStream>, Status> {
        Err(refused("stream_container_stats"))
    }

    async fn pod_sandbox_stats(
        &self,
        _request: Request<v1::PodSandboxStatsRequest>,
    ) -> Result<Response<v1::PodSandboxStatsResponse>, Status> {
        Err(refused("pod_sandbox_stats"))
    }

    async fn list_pod_sandbox_stats(
        &self,
        _request: Request<v1::ListPodSandboxStatsRequest>,
    ) -> Result<Response<v1::ListPodSandboxStatsResponse>, Status> {
        let timestamp = self.now();
        let state = self.state.lock();
        let number = |value| Some(v1::UInt64Value { value });
        let memory =
            |bytes| Some(v1::MemoryUsage { timestamp, working_set_bytes: number(bytes), ..v1::MemoryUsage::default() });
        let ready = state.sandboxes.iter().filter(|(_, s)| s.state == PodSandboxState::SandboxReady);
        let stats = ready.map(|(id, sandbox)| {
            let running =
                |(_, c): &(&String, &Container)| c.sandbox == *id && c.state == ContainerState::ContainerRunning;
            let mut all = 0;
            let containers = state.containers.iter().filter(running).map(|(id, container)| {
                let bytes = state.memory.get(&name_of(&container.config)).copied().unwrap_or(0);
                all += bytes;
                let attributes = v1::ContainerAttributes {
                    id: id.clone(),
                    metadata: container.config.metadata.clone(),
                    labels: container.config.labels.clone(),
                    annotations: container.config.annotations.clone(),
                };
                v1::ContainerStats { attributes: Some(attributes), memory: memory(bytes), ..Default::default() }
            });
            let containers = containers.collect();
            let attributes = v1::PodSandboxAttributes {
                id: id.clone(),
                metadata: sandbox.config.metadata.clone(),
                labels: sandbox.config.labels.clone(),
                annotations: sandbox.config.annotations.clone(),
            };
            let linux = v1::LinuxPodSandboxStats { memory: memory(all), containers, ..Default::default() };
            v1::PodSandboxStats { attributes: Some(attributes), linux: Some(linux), windows: None }
        });
        Ok(Response::new(v1::ListPodSandboxStatsResponse { stats: stats.collect() }))
    }

    type StreamPodSandboxStatsStream = Answers<v1::StreamPodSandboxStatsResponse>;

    async fn stream_pod_sandbox_stats(
        &self,
        _request: Request<v1::StreamPodSandboxStatsRequest>,
    ) -> Result<Response<Self::StreamPodSandboxStatsStream>, Status> {
        Err(refused("stream_pod_sandbox_stats"))
    }

    async fn update_runtime_config(
        &self,
        request: Request<v1::UpdateRuntimeConfigRequest>,
    ) -> Result<Response<v1::UpdateRuntimeConfigResponse>, Status> {
        let network = request.into_inner().runtime_config.and_then(|c| c.network_config).unwrap_or_default();
        self.state.lock().pod_cidr = network.pod_cidr;
        Ok(Response::new(v1::UpdateRuntimeConfigResponse {}))
    }

    async fn status(&self, _request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let condition =
            |kind: &str| v1::RuntimeCondition { r#type: kind.to_owned(), status: true, ..Default::default() };
        let status = v1::RuntimeStatus { conditions: vec![condition("RuntimeReady"), condition("NetworkReady")] };
        Ok(Response::new(v1::StatusResponse { status: Some(status), ..Default::default() }))
    }

    async fn checkpoint_container(
        &self,
        _request: Request<v1::CheckpointContainerRequest>,
    ) -> Result<Response<v1::CheckpointContainerResponse>, Status> {
        Err(refused("checkpoint_container"))
    }

    type GetContainerEventsStream = Answers<v1::ContainerEventResponse>;

    async fn get_container_events(
        &self,
        _request: Request<v1::GetEventsRequest>,
    ) -> Result<Response<Self::GetContainerEventsStream>, Status> {
        let stream = futures::stream::unfold(self.events.subscribe(), |mut events| async move {
            loop {
                match events.recv().await {
                    Ok(event) => return Some((Ok(event), events)),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn list_metric_descriptors(
        &self,
        _request: Request<v1::ListMetricDescriptorsRequest>,
    ) -> Result<Response<v1::ListMetricDescriptorsResponse>, Status> {
        Err(refused("list_metric_descriptors"))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _request: Request<v1::ListPodSandboxMetricsRequest>,
    ) -> Result<Response<v1::ListPodSandboxMetricsResponse>, Status> {
        Err(refused("list_pod_sandbox_metrics"))
    }

    type StreamPodSandboxMetricsStream = Answers<v1::StreamPodSandboxMetricsResponse>;

    async fn stream_pod_sandbox_metrics(
        &self,
        _request: Request<v1::StreamPodSandboxMetricsRequest>,
    ) -> Result<Response<Self::StreamPodSandboxMetricsStream>, Status> {
        Err(refused("stream_pod_sandbox_metrics"))
    }

    async fn runtime_config(
        &self,
        _request: Request<v1::RuntimeConfigRequest>,
    ) -> Result<Response<v1::RuntimeConfigResponse>, Status> {
        Err(refused("runtime_config"))
    }

    async fn update_pod_sandbox_resources(
        &self,
        _request: Request<v1::UpdatePodSandboxResourcesRequest>,
    ) -> Result<Response<v1::UpdatePodSandboxResourcesResponse>, Status> {
        Err(refused("update_pod_sandbox_resources"))
    }
}

#[tonic::async_trait]
impl ImageService for FakeCri {
    async fn list_images(
        &self,
        _request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        Err(refused("list_images"))
    }

    type StreamImagesStream = Answers<v1::StreamImagesResponse>;

    async fn stream_images(
        &self,
        _request: Request<v1::StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        Err(refused("stream_images"))
    }

    async fn image_status(
        &self,
        request: Request<v1::ImageStatusRequest>,
    ) -> Result<Response<v1::ImageStatusResponse>, Status> {
        let image = request.into_inner().image.unwrap_or_default().image;
        let state = self.state.lock();
        let known = state.images.contains_key(&image).then(|| v1::Image {
            id: image.clone(),
            size: 1,
            uid: Some(v1::Int64Value { value: 0 }),
            ..Default::default()
        });
        Ok(Response::new(v1::ImageStatusResponse { image: known, ..Default::default() }))
    }

    async fn pull_image(
        &self,
        request: Request<v1::PullImageRequest>,
    ) -> Result<Response<v1::PullImageResponse>, Status> {
        let image = request.into_inner().image.unwrap_or_default().image;
        self.note(format!("pull {image}"));
        if image.starts_with("missing") {
            return Err(Status::not_found(format!("{image}: not found")));
        }
        *self.state.lock().images.entry(image.clone()).or_insert(0) += 1;
        Ok(Response::new(v1::PullImageResponse { image_ref: image }))
    }

    async fn remove_image(
        &self,
        _request: Request<v1::RemoveImageRequest>,
    ) -> Result<Response<v1::RemoveImageResponse>, Status> {
        Err(refused("remove_image"))
    }

    async fn image_fs_info(
        &self,
        _request: Request<v1::ImageFsInfoRequest>,
    ) -> Result<Response<v1::ImageFsInfoResponse>, Status> {
        Err(refused("image_fs_info"))
    }
}
