//! A runtime of a test's own: folders, cgroups, mount and network namespace that nobody else sees. Needs root, busybox
//! (static), and the supervisor built beside the test (`cargo build -p gantry-supervisor`).
#![allow(dead_code, reason = "each test program uses its part of this")]

pub mod rude;
pub mod served;
pub mod shelves;

use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_cri::{ImageServiceClient, RuntimeServiceClient, v1};
use gantry_runtime::image::ImageError;
use gantry_runtime::{Config, NetworkConfig, Runtime, StartError};
use sha2::Digest;
use tonic::transport::Channel;

pub const IMAGE: &str = "test.invalid/busybox:1";

/// What the kubelet asks for in a container whose pod wants nothing else of its procMount.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

pub struct Ground {
    pub dir: tempfile::TempDir,
    pub config: Config,
}

/// Runs a test in namespaces of its own, on a tokio runtime whose threads share them.
pub fn with<F: Future<Output = ()>>(test: impl FnOnce(Ground) -> F) {
    use nix::sched::CloneFlags;
    if !nix::unistd::geteuid().is_root() {
        panic!("needs root");
    }
    nix::sched::unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).expect("own namespaces");
    rustix::mount::mount_change(
        "/",
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC,
    )
    .expect("private mounts");
    // What /sys shows of the network is that of its mounter.
    let up = std::process::Command::new("busybox").args(["ip", "link", "set", "lo", "up"]).status();
    assert!(up.is_ok_and(|s| s.success()), "loopback comes up");
    let ground = Ground::new();
    let (parent, supervisors) = (ground.config.cgroup_parent.clone(), ground.config.supervisor_cgroup.clone());
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio");
    let dir = ground.dir.path().to_owned();
    tokio.block_on(test(ground));
    drop(tokio);
    assert_eq!(cgroups_named(&parent), Vec::<PathBuf>::new(), "cgroups are left");
    assert_eq!(cgroups_named(&supervisors), Vec::<PathBuf>::new(), "cgroups are left");
    let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let left: Vec<_> = mounts.lines().filter(|l| l.contains(&*dir.to_string_lossy())).collect();
    assert!(left.is_empty(), "mounts are left: {left:#?}");
}

/// Lets this test's namespace see cgroup v2 alone. On a machine whose controllers are on v1 hierarchies it has none.
pub fn with_v2_only() {
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("cgroup2", "/sys/fs/cgroup", "cgroup2", flags, None).expect("cgroup v2 is mounted");
    }
}

/// How many times longer than on a host who waits here has to wait: emulated machines of ours say so.
pub fn patience() -> u32 {
    std::env::var("GANTRY_VM_PATIENCE").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Folders of that name in any hierarchy.
fn cgroups_named(name: &str) -> Vec<PathBuf> {
    let name = name.trim_start_matches('/');
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|e| e.path());
    hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]).map(|h| h.join(name)).filter(|p| p.exists()).collect()
}

pub fn supervisor_program() -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let program = test.parent().and_then(Path::parent).expect("target/debug/deps").join("gantry-supervisor");
    assert!(program.exists(), "build gantry-supervisor first");
    program
}

impl Ground {
    fn new() -> Ground {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir = tempfile::Builder::new().prefix("gantry-runtime-").tempdir().expect("a folder");
        let tag = format!("{}-{number}", std::process::id());
        let config = config(dir.path(), &tag);
        Ground { dir, config }
    }

    /// A runtime that was stopped in this process lets go of its images with the last of its blocking calls.
    pub async fn start(&self) -> (Runtime, Client) {
        let runtime = self.begin().await;
        import(&runtime).await;
        let client = Client::new(runtime.channel());
        (runtime, client)
    }

    /// The same, spoken to over its socket as by any other process.
    pub async fn serve(&self) -> (Runtime, Client) {
        let (runtime, _) = self.start().await;
        let socket = self.config.socket.as_ref().expect("it has one");
        (runtime, Client::new(gantry_cri::connect::unix(socket)))
    }

    async fn begin(&self) -> Runtime {
        const TRIES: u32 = 500;
        let mut tries = 0;
        loop {
            match Runtime::start(self.config.clone(), gantry_env::Env::system()).await {
                Ok(runtime) => return runtime,
                Err(StartError::Images(ImageError::Locked(_))) if tries < TRIES => tries += 1,
                Err(error) => panic!("it does not start: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join("logs").join(name)).unwrap_or_default()
    }

    /// The text of a log without times and tags.
    pub fn lines(&self, name: &str) -> Vec<String> {
        self.log(name).lines().map(|l| l.splitn(4, ' ').nth(3).unwrap_or("").to_owned()).collect()
    }

    /// As a client asks that says no more than it must: CRI's defaults are what it gets.
    pub fn plain_pod(&self, name: &str) -> v1::PodSandboxConfig {
        v1::PodSandboxConfig { linux: None, hostname: String::new(), ..self.pod(name) }
    }

    pub fn plain_container(&self, name: &str, command: &[&str]) -> v1::ContainerConfig {
        v1::ContainerConfig { linux: None, ..self.container(name, command) }
    }

    pub fn pod(&self, name: &str) -> v1::PodSandboxConfig {
        let node = v1::NamespaceMode::Node as i32;
        let namespaces = v1::NamespaceOption {
            network: node,
            pid: v1::NamespaceMode::Container as i32,
            ..v1::NamespaceOption::default()
        };
        v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: name.into(),
                uid: format!("uid-{name}"),
                namespace: "default".into(),
                attempt: 0,
            }),
            hostname: name.into(),
            log_directory: self.dir.path().join("logs").to_string_lossy().into_owned(),
            linux: Some(v1::LinuxPodSandboxConfig {
                security_context: Some(v1::LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// A pod that may have privileged containers.
    pub fn privileged_pod(&self, name: &str) -> v1::PodSandboxConfig {
        let mut pod = self.pod(name);
        let security = pod.linux.as_mut().and_then(|l| l.security_context.as_mut());
        security.expect("it has one").privileged = true;
        pod
    }

    pub fn container(&self, name: &str, command: &[&str]) -> v1::ContainerConfig {
        v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: name.into(), attempt: 0 }),
            image: Some(v1::ImageSpec { image: IMAGE.into(), ..Default::default() }),
            command: command.iter().map(|s| (*s).to_owned()).collect(),
            log_path: format!("{name}.log"),
            linux: Some(v1::LinuxContainerConfig {
                security_context: Some(v1::LinuxContainerSecurityContext {
                    namespace_options: Some(v1::NamespaceOption {
                        pid: v1::NamespaceMode::Container as i32,
                        ..Default::default()
                    }),
                    seccomp: Some(v1::SecurityProfile::default()),
                    masked_paths: MASKED.map(str::to_owned).to_vec(),
                    readonly_paths: READ_ONLY.map(str::to_owned).to_vec(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }
}

pub fn config(dir: &Path, tag: &str) -> Config {
    Config {
        state_dir: dir.join("state"),
        run_dir: dir.join("run"),
        socket: Some(dir.join("cri.sock")),
        supervisor: supervisor_program(),
        cgroup_parent: format!("/gantry-test-{tag}"),
        supervisor_cgroup: format!("/gantry-test-supervisors-{tag}"),
        registry_config_paths: Vec::new(),
        network: NetworkConfig { pod_cidr: Some("10.250.0.0/24".parse().unwrap()), ..Config::default().network },
        seccomp_dir: dir.join("seccomp"),
        cdi_dirs: vec![dir.join("cdi"), dir.join("cdi-run")],
        ..Config::default()
    }
}

#[derive(Clone)]
pub struct Client {
    pub runtime: RuntimeServiceClient<Channel>,
    pub images: ImageServiceClient<Channel>,
}

impl Client {
    pub fn new(channel: Channel) -> Client {
        Client { runtime: RuntimeServiceClient::new(channel.clone()), images: ImageServiceClient::new(channel) }
    }

    pub async fn run_pod(&self, config: &v1::PodSandboxConfig) -> String {
        let request = v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
        self.runtime.clone().run_pod_sandbox(request).await.expect("a sandbox").into_inner().pod_sandbox_id
    }

    pub async fn create(
        &self,
        pod: &str,
        config: v1::ContainerConfig,
        sandbox: &v1::PodSandboxConfig,
    ) -> Result<String, tonic::Status> {
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: pod.into(),
            config: Some(config),
            sandbox_config: Some(sandbox.clone()),
        };
        Ok(self.runtime.clone().create_container(request).await?.into_inner().container_id)
    }

    pub async fn start(&self, container: &str) -> Result<(), tonic::Status> {
        let request = v1::StartContainerRequest { container_id: container.into() };
        self.runtime.clone().start_container(request).await.map(drop)
    }

    /// A container that was made and started.
    pub async fn started(&self, pod: &str, config: v1::ContainerConfig, sandbox: &v1::PodSandboxConfig) -> String {
        let id = self.create(pod, config, sandbox).await.expect("created");
        self.start(&id).await.expect("started");
        id
    }

    /// What a shell in the container says on both of its outputs, without the last line's end.
    pub async fn said(&self, container: &str, script: &str) -> String {
        let answer = self.exec(container, &["sh", "-c", script]).await;
        String::from_utf8([answer.stdout, answer.stderr].concat()).expect("text").trim_end().to_owned()
    }

    pub async fn pod_status(&self, pod: &str) -> v1::PodSandboxStatus {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.into(), verbose: false };
        self.runtime.clone().pod_sandbox_status(request).await.expect("a status").into_inner().status.expect("one")
    }

    pub async fn status(&self, container: &str) -> v1::ContainerStatus {
        let request = v1::ContainerStatusRequest { container_id: container.into(), verbose: true };
        self.runtime.clone().container_status(request).await.expect("a status").into_inner().status.expect("one")
    }

    pub async fn pid(&self, container: &str) -> i32 {
        let request = v1::ContainerStatusRequest { container_id: container.into(), verbose: true };
        let info = self.runtime.clone().container_status(request).await.expect("a status").into_inner().info;
        let info: serde_json::Value = serde_json::from_str(&info["info"]).expect("JSON");
        info["pid"].as_i64().expect("a number") as i32
    }

    pub async fn supervisor_pid(&self, pod: &str) -> i32 {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.into(), verbose: true };
        let info = self.runtime.clone().pod_sandbox_status(request).await.expect("a status").into_inner().info;
        let info: serde_json::Value = serde_json::from_str(&info["info"]).expect("JSON");
        info["supervisorPid"].as_i64().expect("a number") as i32
    }

    /// Waits until the container has ended.
    pub async fn ended(&self, container: &str) -> v1::ContainerStatus {
        for _ in 0..2000 * patience() {
            let status = self.status(container).await;
            if status.state() == v1::ContainerState::ContainerExited {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("container {container} does not end");
    }

    pub async fn stop(&self, container: &str, timeout: i64) {
        let request = v1::StopContainerRequest { container_id: container.into(), timeout };
        self.runtime.clone().stop_container(request).await.expect("it stops");
    }

    pub async fn exec(&self, container: &str, cmd: &[&str]) -> v1::ExecSyncResponse {
        let request = v1::ExecSyncRequest {
            container_id: container.into(),
            cmd: cmd.iter().map(|s| (*s).to_owned()).collect(),
            timeout: 20 * i64::from(patience()),
        };
        self.runtime.clone().exec_sync(request).await.expect("exec").into_inner()
    }

    pub async fn remove_pod(&self, pod: &str) {
        let request = v1::StopPodSandboxRequest { pod_sandbox_id: pod.into() };
        self.runtime.clone().stop_pod_sandbox(request).await.expect("it stops");
        let request = v1::RemovePodSandboxRequest { pod_sandbox_id: pod.into() };
        self.runtime.clone().remove_pod_sandbox(request).await.expect("it goes");
    }
}

/// Ends a test: nothing may be left.
pub async fn finish(runtime: Runtime) {
    runtime.remove_all().await.expect("all goes");
    runtime.network().cleanup().expect("the network goes");
    runtime.stop().await;
}

/// An image of busybox, made like `docker save` makes one.
pub async fn import(runtime: &Runtime) {
    import_layer(runtime, IMAGE, busybox_layer()).await;
}

pub async fn import_layer(runtime: &Runtime, name: &str, layer: Vec<u8>) {
    import_layers(runtime, name, &[layer]).await;
}

/// Layers from below to above.
pub async fn import_layers(runtime: &Runtime, name: &str, layers: &[Vec<u8>]) {
    import_for(runtime, name, layers, "").await;
}

/// An image whose containers run as this user where nobody says more.
pub async fn import_for(runtime: &Runtime, name: &str, layers: &[Vec<u8>], user: &str) {
    let run = serde_json::json!({"Env": ["PATH=/bin"], "Cmd": ["sh"], "User": user});
    import_image(runtime, name, layers, run).await;
}

/// The same, with a configuration of its own.
pub async fn import_image(runtime: &Runtime, name: &str, layers: &[Vec<u8>], run: serde_json::Value) {
    let archive = archive(name, layers, run);
    runtime.images().import(std::io::Cursor::new(archive), Default::default()).await.expect("it imports");
}

/// What `docker save` writes.
pub fn archive(name: &str, layers: &[Vec<u8>], run: serde_json::Value) -> Vec<u8> {
    let diff_ids: Vec<String> =
        layers.iter().map(|layer| format!("sha256:{:x}", sha2::Sha256::digest(layer))).collect();
    let files: Vec<String> = (0..layers.len()).map(|n| format!("layer{n}.tar")).collect();
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" },
        "os": "linux",
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
    .to_string();
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": [name], "Layers": files}]).to_string();
    let mut archive = Tar::default();
    file(&mut archive, "config.json", config.as_bytes(), 0o644);
    for (name, bytes) in files.iter().zip(layers) {
        file(&mut archive, name, bytes, 0o644);
    }
    file(&mut archive, "manifest.json", manifest.as_bytes(), 0o644);
    archive.finish()
}

/// A ustar archive, entry by entry.
#[derive(Default)]
pub struct Tar(Vec<u8>);

impl Tar {
    fn entry(&mut self, kind: u8, name: &str, target: &str, mode: u32, bytes: &[u8]) {
        self.entry_with(kind, name, target, mode, bytes, (0, 0));
    }

    fn entry_with(&mut self, kind: u8, name: &str, target: &str, mode: u32, bytes: &[u8], device: (u32, u32)) {
        let mut header = [0u8; 512];
        let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, &format!("{mode:07o}"));
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{:011o}", bytes.len()));
        put(136, "00000000000");
        put(148, "        ");
        put(157, target);
        put(257, "ustar\x0000");
        put(329, &format!("{:07o}", device.0));
        put(337, &format!("{:07o}", device.1));
        header[156] = kind;
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

pub fn file(archive: &mut Tar, name: &str, bytes: &[u8], mode: u32) {
    archive.entry(b'0', name, "", mode, bytes);
}

pub fn folder(archive: &mut Tar, name: &str, mode: u32) {
    archive.entry(b'5', name, "", mode, b"");
}

pub fn link(archive: &mut Tar, name: &str, target: &str) {
    archive.entry(b'2', name, target, 0o777, b"");
}

/// A hard link.
pub fn hard_link(archive: &mut Tar, name: &str, target: &str) {
    archive.entry(b'1', name, target, 0o644, b"");
}

/// A character device.
pub fn node(archive: &mut Tar, name: &str, major: u32, minor: u32) {
    archive.entry_with(b'3', name, "", 0o666, b"", (major, minor));
}

pub fn base_layer() -> Tar {
    let mut layer = Tar::default();
    folder(&mut layer, "bin", 0o755);
    file(&mut layer, "bin/busybox", &std::fs::read("/bin/busybox").expect("busybox-static"), 0o755);
    let applets = "sh echo cat sleep true false ls id kill head dd test env stat grep wc readlink seq touch mkdir stty \
                   mount nc ip hostname nproc tr cut";
    for applet in applets.split_whitespace() {
        link(&mut layer, &format!("bin/{applet}"), "busybox");
    }
    layer
}

fn busybox_layer() -> Vec<u8> {
    busybox_tar().finish()
}

pub fn busybox_tar() -> Tar {
    let mut layer = base_layer();
    folder(&mut layer, "tmp", 0o1777);
    folder(&mut layer, "etc", 0o755);
    file(&mut layer, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/srv:/bin/sh\n", 0o644);
    file(&mut layer, "etc/group", b"root:x:0:\nweb:x:34:\nlogs:x:4:web\n", 0o644);
    layer
}
