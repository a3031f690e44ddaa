//! The role `control`: the control service alone.

pub mod store;

use std::net::{IpAddr, SocketAddr};

use gantry_client::Client;
use gantry_control::auth::Identity;
use gantry_control::{Config, Control};
use gantry_env::Env;
use ipnet::{IpNet, Ipv4Net};
use tokio::signal::unix::{SignalKind, signal};

use crate::Failure;
use crate::cli::ControlArgs;
use crate::host;
use crate::lock::{self, Lock};
use crate::notify::Manager;
use crate::paths::Paths;

#[derive(Debug, thiserror::Error)]
#[error("{flag} {range}: only IPv4 ranges are supported")]
pub struct RangeError {
    flag: &'static str,
    range: IpNet,
}

pub fn v4(flag: &'static str, range: IpNet) -> Result<Ipv4Net, RangeError> {
    match range {
        IpNet::V4(range) => Ok(range),
        IpNet::V6(_) => Err(RangeError { flag, range }),
    }
}

pub fn config(paths: &Paths, args: &ControlArgs, node_ip: IpAddr, env: &Env) -> Result<Config, Failure> {
    Ok(Config {
        data_dir: paths.control(),
        admin_kubeconfig: paths.kubeconfig(),
        listen: SocketAddr::new(args.listen, args.port),
        advertise: args.advertise.unwrap_or(node_ip),
        addresses: vec![node_ip],
        hostname: host::node_name(None).unwrap_or_else(|_| "localhost".to_owned()),
        service_cidr: v4("--service-cidr", args.cluster.service_cidr)?,
        pod_cidr: v4("--pod-cidr", args.cluster.pod_cidr)?,
        node_cidr_mask: args.node_cidr_mask,
        cluster_domain: args.cluster.cluster_domain.clone(),
        store: store::config(&args.store, env)?,
        encryption: store::encryption(&args.store)?,
        run_controllers: true,
        env: env.clone(),
    })
}

pub async fn run(paths: Paths, args: ControlArgs, env: Env) -> Result<(), Failure> {
    let manager = Manager::from_env()?;
    let _lock = Lock::of(&paths, lock::CONTROL)?;
    let ip = host::node_ip(args.advertise)?;
    let control = Control::start(config(&paths, &args, ip, &env)?).await?;
    println!("the API answers on {}; KUBECONFIG={}", control.address(), paths.kubeconfig().display());
    manager.ready(&format!("the API answers on {}", control.address())).await;
    let client = admin(&control, "gantry-control");
    manager.until_terminated(async || look(&client).await).await?;
    // It would keep the store from being closed.
    drop(client);
    control.stop().await;
    Ok(())
}

/// The service's own client, which may do everything.
pub fn admin(control: &Control, name: &str) -> Client {
    Client::new(control.client(Identity::new(name, ["system:masters"])), name)
}

/// Whether the control service is well: the API answers, and its store answers it. On a full disk both do.
pub async fn look(admin: &Client) -> Result<(), Failure> {
    admin.raw("/livez").await?;
    Ok(())
}

/// Resolves when the process is asked to end.
pub async fn terminated() -> std::io::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        biased;
        // Signals are only counted: nothing is lost with the arm that is dropped.
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}
