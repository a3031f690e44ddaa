//! A one-machine cluster as its user runs it: the program `gantry`, in folders, cgroups, and a mount and a network
//! namespace of the test's own. Needs root, Debian's static busybox, and the programs built beside the test
//! (`cargo build --workspace --bins`).

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use gantry_cri::v1::{ContainerStatusRequest, ListContainersRequest, PodSandboxStatusRequest};
use gantry_cri::{RuntimeServiceClient, connect};
use nix::sched::CloneFlags;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::image::Build;
use crate::kubectl::Kubectl;
use crate::vm;

pub const IMAGE: &str = "gantry.local/demo:1";
pub const NODE: &str = "node-under-test";
pub const NODE_IP: &str = "192.0.2.10";
const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(25);

/// A limit as this machine needs it.
fn here(limit: Duration) -> Duration {
    limit * vm::patience()
}

/// Where one cluster has its files and cgroups.
pub struct Machine {
    root: PathBuf,
    cgroup: String,
}

/// Runs a test on a machine of its own, which must be as empty afterwards as it was before. Tests take turns: two cores
/// are soon busy.
pub fn with(test: impl AsyncFnOnce(&Machine)) {
    let folder = tempfile::Builder::new().prefix("gantry-cluster-").tempdir().expect("a folder");
    with_root(folder.path(), test);
}

/// The same in a folder that is there already.
pub fn with_root(root: &Path, test: impl AsyncFnOnce(&Machine)) {
    static TURN: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
    let _turn = TURN.lock();
    assert!(nix::unistd::geteuid().is_root(), "needs root");
    nix::sched::unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).expect("own namespaces");
    let private = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).expect("private mounts");
    for command in [
        "link set lo up",
        "link add node0 type veth peer name segment",
        "addr add 192.0.2.10/24 dev node0",
        "link set node0 up",
        "link set segment up",
    ] {
        let done = std::process::Command::new("ip").args(command.split(' ')).status();
        assert!(done.is_ok_and(|status| status.success()), "ip {command}");
    }
    let machine = Machine { root: root.to_owned(), cgroup: format!("/gantry-test-{}", std::process::id()) };
    let before = machine.inventory();
    // Threads begin in the namespaces of the one that makes them.
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio");
    tokio.block_on(test(&machine));
    drop(tokio);
    assert_eq!(before, machine.inventory(), "something is left behind");
}

/// A program of this workspace, in the folder of the test's own.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let program = test.parent().and_then(Path::parent).expect("target/debug/deps").join(name);
    assert!(program.exists(), "{} is not built: cargo build --workspace --bins", program.display());
    program
}

impl Machine {
    /// One that is a machine's own already: nothing is put around it, and it is gone with the machine.
    pub fn whole(root: &Path) -> Machine {
        Machine { root: root.to_owned(), cgroup: "/gantry".to_owned() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.root().join("etc/gantry/admin.kubeconfig")
    }

    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// `gantry` with this machine's folders and cgroups.
    pub fn gantry(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("gantry"));
        command.arg("--root").arg(self.root()).args(arguments);
        if matches!(arguments.first(), Some(&("up" | "agent" | "runtime" | "down" | "uninstall"))) {
            command.arg("--cgroup-root").arg(&self.cgroup);
        }
        command.kill_on_drop(true);
        command
    }

    /// Runs `gantry` to its end: what it prints, or what it complains of.
    pub async fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let output = tokio::time::timeout(here(STOP_TIMEOUT * 2), self.gantry(arguments).output()).await;
        let output = output.unwrap_or_else(|_| panic!("gantry {arguments:?} does not end")).expect("it is built");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Everything that a cluster could leave: processes, mounts, links, routes, tables, cgroups.
    fn inventory(&self) -> Vec<String> {
        let shown = |command: &str, arguments: &[&str]| {
            let output = std::process::Command::new(command).args(arguments).output().expect("iproute2 and nftables");
            String::from_utf8_lossy(&output.stdout).lines().map(|l| format!("{command}: {l}")).collect::<Vec<_>>()
        };
        let own = std::fs::read_link("/proc/thread-self/ns/mnt").expect("a namespace");
        let mut all = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
            let pid = entry.file_name().to_string_lossy().into_owned();
            let inside = std::fs::read_link(entry.path().join("ns/mnt")).is_ok_and(|ns| ns == own);
            if inside && pid != std::process::id().to_string() {
                let line = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
                all.push(format!("process: {}", line.replace('\0', " ")));
            }
        }
        let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").expect("mounts");
        let root = self.root().to_string_lossy().into_owned();
        let ours = mounts.lines().filter(|line| line.contains(&root) || line.contains("/run/gantry"));
        all.extend(ours.map(|line| format!("mount: {line}")));
        // By name alone: whether a link has its carrier yet is nobody's doing.
        let links = shown("ip", &["-o", "-br", "link"]);
        let names = links.iter().map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "));
        all.extend(names.filter(|line| !line.contains("tunl0")));
        all.extend(shown("ip", &["rule"]));
        let routes = shown("ip", &["-4", "route", "show", "table", "all"]);
        all.extend(routes.into_iter().map(|line| line.replace(" linkdown", "")));
        all.extend(shown("nft", &["list", "tables"]));
        let name = self.cgroup.trim_start_matches('/');
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten().map(|e| e.path());
        for hierarchy in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]) {
            let entries = std::fs::read_dir(&hierarchy).into_iter().flatten().flatten();
            let left = entries.filter(|e| e.file_name().to_string_lossy().starts_with(name));
            all.extend(left.map(|e| format!("cgroup: {}", e.path().display())));
        }
        all.sort();
        all
    }
}

/// Of a container: pod uid, name, attempt, pid.
pub type Running = (String, String, u32, i64);

/// A running daemon of ours.
struct Daemon {
    role: &'static str,
    child: Child,
}

/// The daemons of one machine, and the ways to talk to them.
pub struct Cluster<'a> {
    machine: &'a Machine,
    daemons: Vec<Daemon>,
    extra: Vec<String>,
    node: String,
    ip: String,
}

impl<'a> Cluster<'a> {
    /// `gantry up`, with the demo image imported.
    pub async fn up(machine: &'a Machine) -> Cluster<'a> {
        Cluster::up_with(machine, &[]).await
    }

    pub async fn up_with(machine: &'a Machine, extra: &[&str]) -> Cluster<'a> {
        let mut cluster = Cluster::idle(machine, NODE, NODE_IP);
        cluster.extra = extra.iter().map(|a| (*a).to_owned()).collect();
        cluster.start("up").await;
        cluster.import().await;
        cluster
    }

    /// A machine on which nothing runs yet: a node of this name at this address.
    pub fn idle(machine: &'a Machine, node: &str, ip: &str) -> Cluster<'a> {
        Cluster { machine, daemons: Vec::new(), extra: Vec::new(), node: node.to_owned(), ip: ip.to_owned() }
    }

    /// `gantry control` and `gantry agent`: the same cluster as two processes that meet on TLS.
    pub async fn apart(machine: &'a Machine) -> Cluster<'a> {
        let mut cluster = Cluster::idle(machine, NODE, NODE_IP);
        cluster.start("control").await;
        cluster.credentials(NODE, NODE_IP, &machine.root().join("etc/gantry/node")).await;
        cluster.start("agent").await;
        cluster.import().await;
        cluster.until("the node is ready", async || cluster.ready().await).await;
        cluster
    }

    /// The same two processes on what is there of before.
    pub async fn again(machine: &'a Machine) -> Cluster<'a> {
        let mut cluster = Cluster::idle(machine, NODE, NODE_IP);
        cluster.start("control").await;
        cluster.start("agent").await;
        cluster
    }

    /// Writes what a node needs that joins the control service of this machine.
    pub async fn credentials(&self, node: &str, ip: &str, out: &Path) {
        let (server, out) = (format!("https://{}:6443", self.ip), out.display().to_string());
        let join = ["control", "node-credentials", node, "--ip", ip, "--server", &server, "--out", &out];
        self.machine.run(&join).await.expect("credentials");
    }

    /// What the API says of the node.
    pub async fn ready(&self) -> bool {
        let ready = r#"jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}"#;
        self.kubectl().run(&["get", "nodes", "-o", ready]).await.is_ok_and(|s| s == "True")
    }

    pub async fn import(&self) {
        let archive = self.machine.root().join("demo.tar");
        std::fs::write(&archive, demo_image()).expect("an archive");
        let done = self.machine.run(&["image", "import", &archive.display().to_string()]).await;
        done.expect("the demo image is imported");
    }

    /// Starts a role and waits until it says that it is there.
    pub async fn start(&mut self, role: &'static str) {
        let mut arguments = vec![role];
        match role {
            "up" | "agent" => {
                arguments.extend(["--node-name", &self.node, "--node-ip", &self.ip]);
                // Neither a full disk of the host nor faults that fill one are a reason to take from a test what it looks
                // at, unless it is about that.
                if !self.extra.iter().any(|argument| argument.starts_with("--eviction")) {
                    arguments.extend(["--eviction-hard=", "--image-gc-high-threshold=100"]);
                }
            }
            _ => arguments.extend(["--advertise", &self.ip]),
        }
        arguments.extend(self.extra.iter().map(String::as_str));
        let log = std::fs::File::options().create(true).append(true).open(self.log()).expect("a log");
        let mut command = self.machine.gantry(&arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("it is built");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let first = tokio::time::timeout(here(START_TIMEOUT), lines.next_line()).await;
        match first {
            Ok(Ok(Some(_))) => {}
            other => panic!("gantry {role} does not start: {other:?}\n{}", self.log_tail()),
        }
        self.daemons.push(Daemon { role, child });
    }

    fn daemon(&mut self, role: &str) -> Daemon {
        let at = self.daemons.iter().position(|d| d.role == role).expect("it runs");
        self.daemons.remove(at)
    }

    /// The process of a role that was started.
    pub fn pid(&self, role: &str) -> i32 {
        let daemon = self.daemons.iter().find(|d| d.role == role).expect("it was started");
        i32::try_from(daemon.child.id().expect("it runs")).expect("a pid")
    }

    /// kill -9.
    pub async fn kill(&mut self, role: &str) {
        let mut daemon = self.daemon(role);
        daemon.child.kill().await.expect("it is ours");
    }

    /// SIGTERM, and the wait for its end.
    pub async fn stop(&mut self, role: &str) {
        let mut daemon = self.daemon(role);
        let pid = i32::try_from(daemon.child.id().expect("it runs")).expect("a pid");
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it is ours");
        let ended = tokio::time::timeout(here(STOP_TIMEOUT), daemon.child.wait()).await.expect("it ends in time");
        assert!(ended.expect("a status").success(), "{}", self.log_tail());
    }

    /// `gantry down`: the data stays.
    pub async fn down(&mut self) {
        self.take_away("down").await;
    }

    async fn take_away(&mut self, command: &str) {
        let done = self.machine.run(&[command, "--grace", "1"]).await;
        done.unwrap_or_else(|error| panic!("{error}\n{}", self.log_tail()));
        for mut daemon in self.daemons.drain(..) {
            let _ = daemon.child.wait().await;
        }
    }

    /// Takes everything away, as a user does.
    pub async fn uninstall(mut self) {
        self.take_away("uninstall").await;
        for folder in ["var/lib/gantry", "run/gantry", "etc/gantry", "var/log/pods", "var/log/containers"] {
            assert!(!self.machine.root().join(folder).exists(), "{folder} is left");
        }
    }

    pub fn machine(&self) -> &'a Machine {
        self.machine
    }

    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(&self.machine.kubeconfig())
    }

    pub fn log(&self) -> PathBuf {
        self.machine.root().join("daemons.log")
    }

    pub fn log_tail(&self) -> String {
        let mut text = String::new();
        let _ = std::fs::File::open(self.log()).and_then(|mut file| file.read_to_string(&mut text));
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Waits for what must come true; the poll is not the measure of anything.
    pub async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let start = Instant::now();
        while !holds().await {
            if start.elapsed() > here(PATIENCE) {
                let pods = self.kubectl().run(&["get", "pods,events", "-A", "-o", "wide"]).await;
                let pods = pods.unwrap_or_else(|error| error);
                panic!("never: {what}\n{pods}\n{}", self.log_tail());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Applies a manifest that must be taken.
    pub async fn apply(&self, manifest: &str) {
        let done = self.kubectl().with_input(&["apply", "-f", "-"], manifest).await;
        done.unwrap_or_else(|error| panic!("{error}\n{manifest}"));
    }

    /// A field of a pod, by JSON path; empty where it is not there.
    pub async fn field(&self, kind: &str, name: &str, path: &str) -> String {
        self.kubectl().run(&["get", kind, name, "-o", &format!("jsonpath={{{path}}}")]).await.unwrap_or_default()
    }

    fn cri(&self) -> RuntimeServiceClient<tonic::transport::Channel> {
        RuntimeServiceClient::new(connect::unix(&self.machine.root().join("run/gantry/cri.sock")))
    }

    /// Every container that runs.
    pub async fn running(&self) -> Vec<Running> {
        running(&self.machine.root().join("run/gantry/cri.sock")).await
    }

    /// The supervisors' pids.
    pub async fn supervisors(&self) -> Vec<i32> {
        let mut cri = self.cri();
        let list = cri.list_pod_sandbox(gantry_cri::v1::ListPodSandboxRequest::default()).await.expect("a list");
        let mut pids = Vec::new();
        for sandbox in list.into_inner().items {
            let request = PodSandboxStatusRequest { pod_sandbox_id: sandbox.id, verbose: true };
            let Ok(answer) = cri.pod_sandbox_status(request).await else { continue };
            let info: Value = serde_json::from_str(&answer.into_inner().info["info"]).expect("JSON");
            pids.extend(info["supervisorPid"].as_i64().and_then(|pid| i32::try_from(pid).ok()));
        }
        pids
    }
}

/// Every container that runs, as the runtime on this socket tells it.
pub async fn running(socket: &Path) -> Vec<Running> {
    let mut cri = RuntimeServiceClient::new(connect::unix(socket));
    let list = cri.list_containers(ListContainersRequest::default()).await.expect("a list").into_inner();
    let mut all = Vec::new();
    for container in list.containers {
        if container.state() != gantry_cri::v1::ContainerState::ContainerRunning {
            continue;
        }
        let request = ContainerStatusRequest { container_id: container.id.clone(), verbose: true };
        let Ok(answer) = cri.container_status(request).await else { continue };
        let info: Value = serde_json::from_str(&answer.into_inner().info["info"]).expect("JSON");
        let metadata = container.metadata.expect("a name");
        let uid = container.labels.get("io.kubernetes.pod.uid").cloned().unwrap_or_default();
        all.push((uid, metadata.name, metadata.attempt, info["pid"].as_i64().unwrap_or(0)));
    }
    all.sort();
    all
}

impl Drop for Cluster<'_> {
    /// What a failed test leaves would be in the way of the next.
    fn drop(&mut self) {
        if self.daemons.is_empty() {
            return;
        }
        let mut command = std::process::Command::new(program("gantry"));
        command.arg("--root").arg(self.machine.root());
        command.args(["uninstall", "--grace", "0", "--cgroup-root", self.machine.cgroup()]);
        let _ = command.stdout(Stdio::null()).status();
    }
}

/// The image of the quickstart: busybox, and a page for its web server.
pub fn demo_image() -> Vec<u8> {
    let mut build = Build::busybox(Path::new("/bin/busybox")).expect("busybox-static");
    build.file("www/index.html", 0o644, "Hello from the image.\n");
    build.cmd = ["httpd", "-f", "-p", "8080", "-h", "/www"].map(str::to_owned).to_vec();
    build.build().archive(IMAGE)
}
