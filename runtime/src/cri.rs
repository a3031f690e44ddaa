//! CRI v1: a file an RPC, named noun_verb; this file only leads to them. Calls that change something run to their end
//! even when the caller goes away, because half a sandbox helps nobody.

use std::future::Future;
use std::sync::Arc;

use gantry_cri::{Archives, ImageService, RuntimeService, archives, v1};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status, Streaming};

use crate::fault::{Point, point};
use crate::node::{Node, NodeError};
use pages::{Streamed, pages};

mod archive_export;
mod archive_import;
mod attach;
mod cdi;
mod config_update;
mod container_checkpoint;
mod container_create;
mod container_list;
mod container_remove;
mod container_start;
mod container_stats;
mod container_status;
mod container_stop;
mod container_update;
mod devices;
mod exec;
pub(crate) mod exec_sync;
mod image_fs_info;
mod image_list;
mod image_pull;
mod image_remove;
mod image_status;
mod image_watch;
mod log_reopen;
mod metric_descriptors;
mod pages;
mod port_forward;
mod runtime_status;
mod sandbox_list;
mod sandbox_metrics;
pub(crate) mod sandbox_remove;
pub(crate) mod sandbox_run;
mod sandbox_stats;
mod sandbox_status;
pub(crate) mod sandbox_stop;
mod sandbox_update;

/// Both services of CRI v1 over one node.
#[derive(Clone)]
pub struct Services {
    pub node: Arc<Node>,
}

/// Runs a change to its end, whatever becomes of the caller.
async fn whole<T, F>(work: F) -> Result<Response<T>, Status>
where
    T: Send + 'static,
    F: Future<Output = Result<T, NodeError>> + Send + 'static,
{
    match tokio::spawn(work).await {
        Ok(result) => {
            point(Point::Answer);
            Ok(Response::new(result?))
        }
        Err(_) => Err(NodeError::Interrupted.into()),
    }
}

macro_rules! change {
    ($self:ident, $request:ident, $module:ident) => {{
        let node = Arc::clone(&$self.node);
        whole(async move { $module::run(&node, $request.into_inner()).await }).await
    }};
}

#[tonic::async_trait]
impl RuntimeService for Services {
    async fn version(&self, _: Request<v1::VersionRequest>) -> Result<Response<v1::VersionResponse>, Status> {
        Ok(Response::new(v1::VersionResponse {
            version: "0.1.0".to_owned(),
            runtime_name: "gantry".to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime_api_version: gantry_cri::API_VERSION.to_owned(),
        }))
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<v1::RunPodSandboxRequest>,
    ) -> Result<Response<v1::RunPodSandboxResponse>, Status> {
        change!(self, request, sandbox_run)
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<v1::StopPodSandboxRequest>,
    ) -> Result<Response<v1::StopPodSandboxResponse>, Status> {
        change!(self, request, sandbox_stop)
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<v1::RemovePodSandboxRequest>,
    ) -> Result<Response<v1::RemovePodSandboxResponse>, Status> {
        change!(self, request, sandbox_remove)
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<v1::PodSandboxStatusRequest>,
    ) -> Result<Response<v1::PodSandboxStatusResponse>, Status> {
        Ok(Response::new(sandbox_status::run(&self.node, request.get_ref())?))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<v1::ListPodSandboxRequest>,
    ) -> Result<Response<v1::ListPodSandboxResponse>, Status> {
        Ok(Response::new(sandbox_list::run(&self.node, request.get_ref())))
    }

    type StreamPodSandboxesStream = Streamed<v1::StreamPodSandboxesResponse>;
    async fn stream_pod_sandboxes(
        &self,
        request: Request<v1::StreamPodSandboxesRequest>,
    ) -> Result<Response<Self::StreamPodSandboxesStream>, Status> {
        let request = v1::ListPodSandboxRequest { filter: request.into_inner().filter };
        let listed = sandbox_list::run(&self.node, &request);
        Ok(pages(listed.items, |pod_sandboxes| v1::StreamPodSandboxesResponse { pod_sandboxes }))
    }

    async fn create_container(
        &self,
        request: Request<v1::CreateContainerRequest>,
    ) -> Result<Response<v1::CreateContainerResponse>, Status> {
        change!(self, request, container_create)
    }

    async fn start_container(
        &self,
        request: Request<v1::StartContainerRequest>,
    ) -> Result<Response<v1::StartContainerResponse>, Status> {
        change!(self, request, container_start)
    }

    async fn stop_container(
        &self,
        request: Request<v1::StopContainerRequest>,
    ) -> Result<Response<v1::StopContainerResponse>, Status> {
        change!(self, request, container_stop)
    }

    async fn remove_container(
        &self,
        request: Request<v1::RemoveContainerRequest>,
    ) -> Result<Response<v1::RemoveContainerResponse>, Status> {
        change!(self, request, container_remove)
    }

    async fn list_containers(
        &self,
        request: Request<v1::ListContainersRequest>,
    ) -> Result<Response<v1::ListContainersResponse>, Status> {
        Ok(Response::new(container_list::run(&self.node, request.get_ref())))
    }

    type StreamContainersStream = Streamed<v1::StreamContainersResponse>;
    async fn stream_containers(
        &self,
        request: Request<v1::StreamContainersRequest>,
    ) -> Result<Response<Self::StreamContainersStream>, Status> {
        let request = v1::ListContainersRequest { filter: request.into_inner().filter };
        let listed = container_list::run(&self.node, &request);
        Ok(pages(listed.containers, |containers| v1::StreamContainersResponse { containers }))
    }

    async fn container_status(
        &self,
        request: Request<v1::ContainerStatusRequest>,
    ) -> Result<Response<v1::ContainerStatusResponse>, Status> {
        Ok(Response::new(container_status::run(&self.node, request.get_ref())?))
    }

    async fn update_container_resources(
        &self,
        request: Request<v1::UpdateContainerResourcesRequest>,
    ) -> Result<Response<v1::UpdateContainerResourcesResponse>, Status> {
        change!(self, request, container_update)
    }

    async fn reopen_container_log(
        &self,
        request: Request<v1::ReopenContainerLogRequest>,
    ) -> Result<Response<v1::ReopenContainerLogResponse>, Status> {
        change!(self, request, log_reopen)
    }

    /// Not run to its end: a caller that gives up ends the command.
    async fn exec_sync(&self, request: Request<v1::ExecSyncRequest>) -> Result<Response<v1::ExecSyncResponse>, Status> {
        Ok(Response::new(exec_sync::run(&self.node, request.into_inner()).await?))
    }

    async fn exec(&self, request: Request<v1::ExecRequest>) -> Result<Response<v1::ExecResponse>, Status> {
        Ok(Response::new(exec::run(&self.node, request.into_inner())?))
    }

    async fn attach(&self, request: Request<v1::AttachRequest>) -> Result<Response<v1::AttachResponse>, Status> {
        Ok(Response::new(attach::run(&self.node, request.get_ref())?))
    }

    async fn port_forward(
        &self,
        request: Request<v1::PortForwardRequest>,
    ) -> Result<Response<v1::PortForwardResponse>, Status> {
        Ok(Response::new(port_forward::run(&self.node, request.get_ref())?))
    }

    async fn container_stats(
        &self,
        request: Request<v1::ContainerStatsRequest>,
    ) -> Result<Response<v1::ContainerStatsResponse>, Status> {
        Ok(Response::new(container_stats::run(&self.node, request.into_inner()).await?))
    }

    async fn list_container_stats(
        &self,
        request: Request<v1::ListContainerStatsRequest>,
    ) -> Result<Response<v1::ListContainerStatsResponse>, Status> {
        Ok(Response::new(container_stats::list(&self.node, request.into_inner()).await))
    }

    type StreamContainerStatsStream = Streamed<v1::StreamContainerStatsResponse>;
    async fn stream_container_stats(
        &self,
        request: Request<v1::StreamContainerStatsRequest>,
    ) -> Result<Response<Self::StreamContainerStatsStream>, Status> {
        let request = v1::ListContainerStatsRequest { filter: request.into_inner().filter };
        let listed = container_stats::list(&self.node, request).await;
        Ok(pages(listed.stats, |container_stats| v1::StreamContainerStatsResponse { container_stats }))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<v1::PodSandboxStatsRequest>,
    ) -> Result<Response<v1::PodSandboxStatsResponse>, Status> {
        Ok(Response::new(sandbox_stats::run(&self.node, request.into_inner()).await?))
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<v1::ListPodSandboxStatsRequest>,
    ) -> Result<Response<v1::ListPodSandboxStatsResponse>, Status> {
        Ok(Response::new(sandbox_stats::list(&self.node, request.into_inner()).await))
    }

    type StreamPodSandboxStatsStream = Streamed<v1::StreamPodSandboxStatsResponse>;
    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<v1::StreamPodSandboxStatsRequest>,
    ) -> Result<Response<Self::StreamPodSandboxStatsStream>, Status> {
        let request = v1::ListPodSandboxStatsRequest { filter: request.into_inner().filter };
        let listed = sandbox_stats::list(&self.node, request).await;
        Ok(pages(listed.stats, |pod_sandbox_stats| v1::StreamPodSandboxStatsResponse { pod_sandbox_stats }))
    }

    async fn update_runtime_config(
        &self,
        request: Request<v1::UpdateRuntimeConfigRequest>,
    ) -> Result<Response<v1::UpdateRuntimeConfigResponse>, Status> {
        Ok(Response::new(config_update::run(&self.node, request.into_inner())?))
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(runtime_status::run(&self.node, request.get_ref()).await))
    }

    async fn checkpoint_container(
        &self,
        request: Request<v1::CheckpointContainerRequest>,
    ) -> Result<Response<v1::CheckpointContainerResponse>, Status> {
        Ok(Response::new(container_checkpoint::run(&self.node, request.get_ref())?))
    }

    type GetContainerEventsStream = Streamed<v1::ContainerEventResponse>;
    /// A listener that lags behind is cut off: it lists, and listens again.
    async fn get_container_events(
        &self,
        _: Request<v1::GetEventsRequest>,
    ) -> Result<Response<Self::GetContainerEventsStream>, Status> {
        let events = BroadcastStream::new(self.node.events.subscribe());
        let events = events.map(|event| event.map_err(|_| Status::data_loss("events were missed: list again")));
        Ok(Response::new(Box::pin(events)))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<v1::ListMetricDescriptorsRequest>,
    ) -> Result<Response<v1::ListMetricDescriptorsResponse>, Status> {
        Ok(Response::new(metric_descriptors::run()))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<v1::ListPodSandboxMetricsRequest>,
    ) -> Result<Response<v1::ListPodSandboxMetricsResponse>, Status> {
        let pod_metrics = sandbox_metrics::list(&self.node).await?;
        Ok(Response::new(v1::ListPodSandboxMetricsResponse { pod_metrics }))
    }

    type StreamPodSandboxMetricsStream = Streamed<v1::StreamPodSandboxMetricsResponse>;
    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<v1::StreamPodSandboxMetricsRequest>,
    ) -> Result<Response<Self::StreamPodSandboxMetricsStream>, Status> {
        let listed = sandbox_metrics::list(&self.node).await?;
        Ok(pages(listed, |pod_sandbox_metrics| v1::StreamPodSandboxMetricsResponse { pod_sandbox_metrics }))
    }

    async fn runtime_config(
        &self,
        _: Request<v1::RuntimeConfigRequest>,
    ) -> Result<Response<v1::RuntimeConfigResponse>, Status> {
        let linux = v1::LinuxRuntimeConfiguration { cgroup_driver: v1::CgroupDriver::Cgroupfs as i32 };
        Ok(Response::new(v1::RuntimeConfigResponse { linux: Some(linux) }))
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<v1::UpdatePodSandboxResourcesRequest>,
    ) -> Result<Response<v1::UpdatePodSandboxResourcesResponse>, Status> {
        change!(self, request, sandbox_update)
    }
}

#[tonic::async_trait]
impl ImageService for Services {
    async fn list_images(
        &self,
        request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        Ok(Response::new(image_list::run(&self.node, request.get_ref())))
    }

    type StreamImagesStream = Streamed<v1::StreamImagesResponse>;
    async fn stream_images(
        &self,
        request: Request<v1::StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        let images = image_list::filtered(&self.node, request.get_ref().filter.as_ref());
        Ok(pages(images, |images| v1::StreamImagesResponse { images }))
    }

    async fn image_status(
        &self,
        request: Request<v1::ImageStatusRequest>,
    ) -> Result<Response<v1::ImageStatusResponse>, Status> {
        Ok(Response::new(image_status::run(&self.node, request.get_ref())))
    }

    /// Not run to its end: a caller that gives up, or goes away, ends the transfers. What is whole by then stays whole.
    async fn pull_image(
        &self,
        request: Request<v1::PullImageRequest>,
    ) -> Result<Response<v1::PullImageResponse>, Status> {
        Ok(Response::new(image_pull::run(&self.node, request.into_inner()).await?))
    }

    async fn remove_image(
        &self,
        request: Request<v1::RemoveImageRequest>,
    ) -> Result<Response<v1::RemoveImageResponse>, Status> {
        change!(self, request, image_remove)
    }

    async fn image_fs_info(
        &self,
        _: Request<v1::ImageFsInfoRequest>,
    ) -> Result<Response<v1::ImageFsInfoResponse>, Status> {
        Ok(Response::new(image_fs_info::run(&self.node).await?))
    }
}

#[tonic::async_trait]
impl Archives for Services {
    async fn import(
        &self,
        request: Request<Streaming<archives::ImportRequest>>,
    ) -> Result<Response<archives::ImportResponse>, Status> {
        let imported = archive_import::run(&self.node, request.into_inner()).await?;
        point(Point::Answer);
        Ok(Response::new(imported))
    }

    type ExportStream = Streamed<archives::ExportResponse>;
    async fn export(&self, request: Request<archives::ExportRequest>) -> Result<Response<Self::ExportStream>, Status> {
        Ok(Response::new(archive_export::run(&self.node, request.into_inner()).await?))
    }

    type PullStream = Streamed<archives::PullResponse>;
    async fn pull(&self, request: Request<archives::PullRequest>) -> Result<Response<Self::PullStream>, Status> {
        Ok(Response::new(image_watch::run(&self.node, request.into_inner())))
    }
}
