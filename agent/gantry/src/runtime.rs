//! The role `runtime`: CRI v1 on a unix socket, and nothing of Kubernetes.

use gantry_cri::RuntimeServiceClient;
use gantry_env::Env;
use gantry_runtime::Runtime;

use crate::Failure;
use crate::cli::RuntimeArgs;
use crate::control::v4;
use crate::lock::{self, Lock};
use crate::node;
use crate::notify::Manager;
use crate::paths::Paths;

pub async fn run(paths: Paths, args: RuntimeArgs, env: Env) -> Result<(), Failure> {
    let manager = Manager::from_env()?;
    crate::up::check_host(false)?;
    let _lock = Lock::of(&paths, lock::NODE)?;
    let mut config = node::runtime_config(&paths, v4("--cluster-cidr", args.cluster_cidr)?, &args.cgroup)?;
    args.registries.give(&mut config)?;
    args.devices.give(&mut config);
    if let Some(socket) = args.socket {
        config.socket = Some(socket);
    }
    config.network.pod_cidr = args.pod_cidr.map(|range| v4("--pod-cidr", range)).transpose()?;
    let socket = config.socket.clone().unwrap_or_default();
    let runtime = Runtime::start(config, env).await?;
    println!("CRI v1 on {}", socket.display());
    manager.ready(&format!("CRI v1 on {}", socket.display())).await;
    let cri = RuntimeServiceClient::new(runtime.channel());
    manager.until_terminated(async || node::look(&cri).await).await?;
    runtime.stop().await;
    Ok(())
}
