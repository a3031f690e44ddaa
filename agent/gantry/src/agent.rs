//! The role `agent`: a node alone, for a control service that runs elsewhere.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use gantry_client::Client;
use gantry_control::bootstrap::credentials::node_files;
use gantry_control::bootstrap::{NodeCredentials, node_credentials};
use gantry_env::Env;
use gantry_pki::{Authority, Credential, Reloading, files, tls};
use tokio_util::sync::CancellationToken;

use crate::cli::AgentArgs;
use crate::lock::{self, Lock};
use crate::node::{Node, Wires};
use crate::notify::Manager;
use crate::paths::Paths;
use crate::{Failure, host};

#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("{path} is not there; write it on the control host with `gantry control node-credentials`", path = .0.display())]
    Missing(PathBuf),
    #[error("the certificate in {path} is for {found:?}, not for the node {node}", path = path.display())]
    OtherNode { path: PathBuf, found: String, node: String },
    #[error("no cluster CA in {path}: the control service has not run here yet", path = .0.display())]
    NoAuthority(PathBuf),
}

pub async fn run(paths: Paths, args: AgentArgs, env: Env) -> Result<(), Failure> {
    let manager = Manager::from_env()?;
    crate::up::check_host(args.node.requires_v2())?;
    let _lock = Lock::of(&paths, lock::NODE)?;
    let name = host::node_name(args.node.node_name.as_deref())?;
    let ip = host::node_ip(args.node.node_ip)?;
    let folder = args.credentials.clone().unwrap_or_else(|| paths.node_credentials());
    let stop = CancellationToken::new();
    let wires = Wires {
        ip,
        agent: connect(&folder.join(node_files::CLIENT), "gantry-agent").await?,
        proxy: connect(&folder.join(node_files::PROXY), "gantry-netproxy").await?,
        tls: serving(&folder, &name, &env)?.into(),
        name: name.clone(),
    };
    let node = Node::start(&paths, &args.node, &args.cluster, wires, stop.clone(), &env).await?;
    println!("the agent of node {name} runs");
    manager.ready(&format!("the agent of node {name} runs")).await;
    manager.until_terminated(async || node.look().await).await?;
    stop.cancel();
    node.stop().await;
    Ok(())
}

async fn connect(path: &Path, manager: &str) -> Result<Client, Failure> {
    if !path.exists() {
        return Err(CredentialsError::Missing(path.to_owned()).into());
    }
    Ok(Client::connect(path, manager).await?)
}

fn serving(folder: &Path, node: &str, env: &Env) -> Result<rustls::ServerConfig, Failure> {
    let path = folder.join(node_files::SERVING);
    let credential = Credential::load(&path)?.ok_or_else(|| CredentialsError::Missing(path.clone()))?;
    let names = credential.facts()?.names;
    if !names.iter().any(|name| name == node) {
        return Err(CredentialsError::OtherNode { path, found: names.join(", "), node: node.to_owned() }.into());
    }
    let ca = folder.join(node_files::CA);
    let ca_pem = files::read(&ca)?.ok_or(CredentialsError::Missing(ca))?;
    let clients = tls::ClientAuth::Optional { ca_pem: &ca_pem };
    Ok(tls::server_config(&Reloading::new(&credential)?, clients, &env.clock)?)
}

/// `gantry control node-credentials`.
pub fn write_credentials(
    paths: &Paths,
    name: &str,
    ip: &[IpAddr],
    server: &str,
    out: &Path,
    env: &Env,
) -> Result<(), Failure> {
    let name = host::node_name(Some(name))?;
    let pki = paths.control().join("pki");
    if !pki.join("ca.crt").exists() {
        return Err(CredentialsError::NoAuthority(pki).into());
    }
    let authority = Authority::load_or_create(&pki, "gantry-ca", env)?;
    let credentials: NodeCredentials = node_credentials(&authority, &name, ip, env)?;
    credentials.write(out, authority.certificate_pem(), server)?;
    println!("the credentials of node {name} are in {}", out.display());
    Ok(())
}
