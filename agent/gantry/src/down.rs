//! `gantry down` and `gantry uninstall`: what `up` made goes, in the order in which it leans on each other.
//!
//! The daemon first, so that nobody makes anything anew; then pods (over CRI, as their graceful end is the runtime's to
//! know); then services, links and cgroups; and, for an uninstall, the files. Every step is safe where there is nothing.

use std::path::Path;
use std::time::Duration;

use gantry_cri::RuntimeServiceClient;
use gantry_cri::v1::{
    ListContainersRequest, ListPodSandboxRequest, RemovePodSandboxRequest, StopContainerRequest, StopPodSandboxRequest,
};
use gantry_env::{Env, chain};
use gantry_netproxy::Proxy;
use gantry_runtime::Runtime;
use tokio::task::JoinSet;
use tracing::warn;

use crate::cli::DownArgs;
use crate::control::v4;
use crate::lock::{self, Lock};
use crate::node;
use crate::paths::Paths;
use crate::{Failure, boot};

/// How long the daemon may take to end before it is killed.
const DAEMON_STOP_MILLIS: u16 = 30_000;
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum DownError {
    #[error("process {0} does not end, not even when killed")]
    Stuck(i32),
    #[error("{path} cannot be removed", path = path.display())]
    Remove {
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
}

pub async fn down(paths: &Paths, args: &DownArgs, env: &Env) -> Result<(), Failure> {
    for part in [lock::CONTROL, lock::NODE] {
        stop_daemon(&paths.lock(part))?;
    }
    let _locks = [Lock::of(paths, lock::CONTROL)?, Lock::of(paths, lock::NODE)?];
    let cluster = &args.cluster;
    let (services, pods) = (v4("--service-cidr", cluster.service_cidr)?, v4("--pod-cidr", cluster.pod_cidr)?);
    stop_pods(paths, args, pods, env).await?;
    let proxy = node::proxy_config("", services, pods, args.cluster_dns, &cluster.cluster_domain)?;
    tokio::task::spawn_blocking(move || Proxy::cleanup(&proxy)).await??;
    gantry_agent::cleanup(&paths.pods(), &paths.run)?;
    boot::release(&paths.run)?;
    println!("the cluster is down; its data is in {}", paths.state.display());
    Ok(())
}

pub async fn uninstall(paths: &Paths, args: &DownArgs, env: &Env) -> Result<(), Failure> {
    down(paths, args, env).await?;
    // What somebody has mounted in a volume is theirs.
    gantry_agent::volume::remove(&paths.volumes())?;
    for folder in [&paths.state, &paths.etc, &paths.run] {
        remove(folder)?;
    }
    // Others may keep logs there too: only what is ours, and the folders if that leaves them empty.
    for folder in [&paths.container_logs, &paths.pod_logs] {
        let _ = std::fs::remove_dir(folder);
    }
    println!("gantry is uninstalled: nothing of it is left");
    Ok(())
}

fn remove(folder: &Path) -> Result<(), DownError> {
    match std::fs::remove_dir_all(folder) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(DownError::Remove { path: folder.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn stop_daemon(path: &Path) -> Result<(), Failure> {
    let Some(holder) = lock::holder(path) else { return Ok(()) };
    holder.terminate()?;
    if !holder.wait(DAEMON_STOP_MILLIS) {
        warn!(pid = holder.pid, "the daemon does not end, killing it");
        holder.kill()?;
        if !holder.wait(DAEMON_STOP_MILLIS) {
            return Err(DownError::Stuck(holder.pid).into());
        }
    }
    Ok(())
}

/// Every container gets its grace at once, then sandboxes go.
async fn stop_pods(paths: &Paths, args: &DownArgs, pods: ipnet::Ipv4Net, env: &Env) -> Result<(), Failure> {
    let grace = args.grace;
    let mut config = node::runtime_config(paths, pods, &args.cgroup)?;
    config.socket = None;
    let runtime = Runtime::start(config, env.clone()).await?;
    let client = RuntimeServiceClient::new(runtime.channel());
    let containers = client.clone().list_containers(ListContainersRequest::default()).await?.into_inner().containers;
    let mut stopping = JoinSet::new();
    for container in containers {
        let (mut client, container_id) = (client.clone(), container.id);
        let request = StopContainerRequest { container_id, timeout: i64::from(grace) };
        stopping.spawn(async move { client.stop_container(request).await.map(|_| ()) });
    }
    wait(stopping, grace).await;
    let sandboxes = client.clone().list_pod_sandbox(ListPodSandboxRequest::default()).await?.into_inner().items;
    let mut removing = JoinSet::new();
    let logs = sandboxes.iter().filter_map(|sandbox| {
        let metadata = sandbox.metadata.as_ref()?;
        Some(paths.pod_logs.join(format!("{}_{}_{}", metadata.namespace, metadata.name, metadata.uid)))
    });
    let logs: Vec<_> = logs.collect();
    for sandbox in sandboxes {
        let mut client = client.clone();
        removing.spawn(async move {
            let pod_sandbox_id = sandbox.id;
            client.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() }).await?;
            client.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id }).await.map(|_| ())
        });
    }
    wait(removing, grace).await;
    for folder in &logs {
        remove(folder)?;
    }
    runtime.remove_all().await?;
    runtime.network().cleanup()?;
    runtime.stop().await;
    Ok(())
}

async fn wait(mut tasks: JoinSet<Result<(), tonic::Status>>, grace: u32) {
    let limit = CALL_TIMEOUT + Duration::from_secs(u64::from(grace));
    let all = async {
        while let Some(done) = tasks.join_next().await {
            if let Ok(Err(status)) = done {
                warn!(error = %chain(&status), "a pod did not stop");
            }
        }
    };
    if tokio::time::timeout(limit, all).await.is_err() {
        warn!("some pods did not stop in time");
    }
}
