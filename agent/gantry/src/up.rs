//! The role `up`: a whole cluster in one process, its wires without sockets.

use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use gantry_client::{Client, Informer, Scope};
use gantry_control::Control;
use gantry_control::auth::Identity;
use gantry_control::bootstrap::NodeCredentials;
use gantry_env::Env;
use gantry_kube::{Object, resource};
use gantry_pki::Reloading;
use gantry_pki::tls::{self, ClientAuth};
use tokio_util::sync::CancellationToken;

use crate::cli::UpArgs;
use crate::control;
use crate::lock::{self, Lock};
use crate::node::{self, Node};
use crate::notify::Manager;
use crate::paths::Paths;
use crate::{Failure, host, preflight};

/// What the background process says on its standard output once its node is ready.
const READY: &str = "ready";
/// How long `up --detach` waits for that.
const READY_WITHIN: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LINE_MAX_BYTES: u64 = 4096;
const TAIL_MAX_BYTES: u64 = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum UpError {
    #[error("this host cannot run gantry:\n  - {}", .0.join("\n  - "))]
    Host(Vec<String>),
    #[error("the cluster ended before its node was ready; the end of its log ({path}):\n{tail}")]
    Ended { path: String, tail: String },
    #[error(
        "the node is not ready after {} s; process {pid} goes on (`gantry down` ends it); the end of its log ({path}):\n{tail}",
        READY_WITHIN.as_secs()
    )]
    Late { pid: u32, path: String, tail: String },
}

pub fn check_host(require_v2: bool) -> Result<(), UpError> {
    let facts = preflight::Facts::read(node::has_nf_tables());
    let problems = preflight::problems(&facts, require_v2);
    if problems.is_empty() { Ok(()) } else { Err(UpError::Host(problems.iter().map(ToString::to_string).collect())) }
}

pub async fn run(paths: Paths, args: UpArgs, env: Env) -> Result<(), Failure> {
    if args.background {
        // A session of its own: the terminal that started it may go.
        nix::unistd::setsid()?;
    }
    let manager = Arc::new(Manager::from_env()?);
    check_host(args.node.requires_v2())?;
    let _locks = [Lock::of(&paths, lock::CONTROL)?, Lock::of(&paths, lock::NODE)?];
    let name = host::node_name(args.node.node_name.as_deref())?;
    let ip = host::node_ip(args.node.node_ip)?;
    let control = Control::start(control::config(&paths, &args.control, ip, &env)?).await?;
    let stop = CancellationToken::new();
    let wires = node_wires(&control, &paths, &name, ip, &env)?;
    let node = Node::start(&paths, &args.node, &args.control.cluster, wires, stop.clone(), &env).await?;
    let admin = control::admin(&control, "gantry-up");
    let herald = Herald {
        name,
        kubeconfig: paths.kubeconfig().display().to_string(),
        background: args.background,
        manager: manager.clone(),
    };
    tokio::spawn(herald.announce(admin.clone(), env.clone(), stop.clone()));
    let look = async || {
        control::look(&admin).await?;
        node.look().await
    };
    manager.until_terminated(look).await?;
    drop(admin);
    stop.cancel();
    node.stop().await;
    control.stop().await;
    Ok(())
}

/// The node's own identities on the in-process wire, and what its kubelet API shows.
fn node_wires(control: &Control, paths: &Paths, name: &str, ip: IpAddr, env: &Env) -> Result<node::Wires, Failure> {
    let credentials = control.credentials();
    let issued = NodeCredentials::load_or_issue(&credentials.authority, &paths.pods().join("pki"), name, &[ip], env)?;
    let serving = Reloading::new(&issued.serving)?;
    let ca_pem = credentials.ca_pem();
    let tls = tls::server_config(&serving, ClientAuth::Optional { ca_pem }, &env.clock)?;
    let identity = Identity::new(format!("system:node:{name}"), ["system:nodes"]);
    Ok(node::Wires {
        name: name.to_owned(),
        ip,
        agent: Client::new(control.client(identity), "gantry-agent"),
        proxy: Client::new(control.client(Identity::component("system:kube-proxy")), "gantry-netproxy"),
        tls: tls.into(),
    })
}

/// Whom the node's being ready is told to.
struct Herald {
    name: String,
    kubeconfig: String,
    background: bool,
    manager: Arc<Manager>,
}

impl Herald {
    /// Says once that the node is ready, to whoever waits for it.
    async fn announce(self, client: Client, env: Env, stop: CancellationToken) {
        let scope = Scope { field_selector: format!("metadata.name={}", self.name), ..Scope::default() };
        let nodes = Informer::spawn(client, &resource::NODE, scope, env, stop.clone(), |object| object);
        let mut changes = nodes.subscribe();
        let is_ready = |node: &Object| {
            node.array_at("/status/conditions").iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
                && !node.array_at("/spec/taints").iter().any(|t| t["key"] == "node.kubernetes.io/not-ready")
        };
        while let Some(changes) = stop.run_until_cancelled(changes.changes()).await {
            if changes.iter().filter_map(|c| c.now.as_deref()).any(is_ready) {
                let words = format!("node {} is ready; export KUBECONFIG={}", self.name, self.kubeconfig);
                self.manager.ready(&words).await;
                // Whoever waited may have given up.
                let _ = writeln!(std::io::stdout(), "{}", if self.background { READY } else { &words });
                return;
            }
        }
    }
}

/// `up --detach`: starts the same in the background and waits until its node is ready.
pub fn detach(paths: &Paths) -> Result<(), Failure> {
    std::fs::create_dir_all(&paths.state)?;
    let log = std::fs::File::options().create(true).append(true).open(paths.log())?;
    let start = log.metadata()?.len();
    let arguments = std::env::args_os().skip(1).filter(|a| a != "--detach");
    let mut child = Command::new(std::env::current_exe()?)
        .args(arguments)
        .arg("--background")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()?;
    let path = || paths.log().display().to_string();
    match wait_for_ready(&mut child, READY_WITHIN)? {
        Start::Ready => {}
        Start::Ended => return Err(UpError::Ended { path: path(), tail: tail(paths, start) }.into()),
        Start::Late => return Err(UpError::Late { pid: child.id(), path: path(), tail: tail(paths, start) }.into()),
    }
    println!("the cluster is up (process {}, log {})", child.id(), paths.log().display());
    println!("export KUBECONFIG={}", paths.kubeconfig().display());
    Ok(())
}

/// What became of the background process.
#[derive(Debug, PartialEq)]
enum Start {
    Ready,
    Ended,
    Late,
}

/// Watches the child itself, not only its output: what it started may hold that open when it is gone.
fn wait_for_ready(child: &mut Child, within: Duration) -> std::io::Result<Start> {
    let (said, says) = mpsc::sync_channel(1);
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).take(LINE_MAX_BYTES).read_line(&mut line);
            let _ = said.send(line);
        });
    }
    let looks = within.as_millis() / LOOK_EVERY.as_millis();
    for _ in 0..looks {
        match says.recv_timeout(LOOK_EVERY) {
            Ok(line) if line.trim() == READY => return Ok(Start::Ready),
            // The end of its output is the end of the child, or will be soon.
            Ok(_) | Err(mpsc::RecvTimeoutError::Disconnected) => std::thread::sleep(LOOK_EVERY),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        if child.try_wait()?.is_some() {
            return Ok(Start::Ended);
        }
    }
    Ok(Start::Late)
}

/// The last lines that this start wrote.
fn tail(paths: &Paths, start: u64) -> String {
    let mut fresh = Vec::new();
    let read = |mut log: std::fs::File| {
        let length = log.metadata()?.len();
        log.seek(SeekFrom::Start(start.max(length.saturating_sub(TAIL_MAX_BYTES))))?;
        log.take(TAIL_MAX_BYTES).read_to_end(&mut fresh)
    };
    let _ = std::fs::File::open(paths.log()).and_then(read);
    let fresh = String::from_utf8_lossy(&fresh).into_owned();
    let lines: Vec<&str> = fresh.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str, within: Duration) -> Start {
        let mut child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let became = wait_for_ready(&mut child, within).unwrap();
        let _ = child.kill();
        child.wait().unwrap();
        became
    }

    #[test]
    fn a_start_that_fails_or_hangs_is_not_waited_for() {
        let long = Duration::from_secs(60);
        assert_eq!(start("echo ready; exec sleep 60", long), Start::Ready);
        assert_eq!(start("exit 1", long), Start::Ended);
        assert_eq!(start("echo other; exit 0", long), Start::Ended);
        assert_eq!(start("exec sleep 60", LOOK_EVERY * 3), Start::Late);
    }
}
