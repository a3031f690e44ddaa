//! `runtime_bench`: what the runtime costs at its CRI socket, beside an OCI runtime in the same run. See tests/bench/README.md.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use gantry_cri::{RuntimeServiceClient, v1};
use gantry_tests::figures::{self, Cpu, line};
use gantry_tests::peer::{self, Containerd, Cost, MASKED, Oci, READ_ONLY};
use gantry_tests::system_calls;
use tokio::time::Instant;
use tonic::transport::Channel;

/// Containers that are started at once where starts are counted.
const AT_ONCE: usize = 4;
/// What ends at once takes no longer to be heard of.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the runtime costs at its CRI socket, beside an OCI runtime in the same run
#[derive(Parser)]
struct Cli {
    #[arg(long, default_value = "/run/gantry/cri.sock")]
    socket: PathBuf,
    /// An image with busybox in /bin that the runtime has
    #[arg(long)]
    image: String,
    #[arg(long, default_value_t = 30)]
    pods: usize,
    #[arg(long, default_value_t = 100)]
    containers: usize,
    /// How long starts are counted
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    peer::own_mounts();
    let cli = Cli::parse();
    tokio::runtime::Runtime::new()?.block_on(run(cli))
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let runtime = RuntimeServiceClient::new(gantry_cri::connect::unix(&cli.socket));
    let bench = Bench { runtime, image: cli.image, cgroup_parent: String::new(), host_network: false };
    bench.pods(cli.pods).await?;
    beside_containerd(&bench, cli.pods).await?;
    let config = bench.pod("containers");
    let sandbox = bench.run_pod(&config).await?;
    let peers = Oci::all()?;
    let done = async {
        bench.containers(&sandbox, &config, cli.containers, &peers).await?;
        figures::memory("with one pod");
        bench.commands(&sandbox, &config, cli.containers, &peers).await?;
        bench.sustained(&sandbox, &config, Duration::from_secs(cli.seconds)).await?;
        bench.system_calls(&sandbox, &config).await
    };
    let done = done.await;
    bench.remove_pod(&sandbox).await?;
    done
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

#[derive(Clone)]
struct Bench {
    runtime: RuntimeServiceClient<Channel>,
    image: String,
    /// Empty: the runtime's own.
    cgroup_parent: String,
    host_network: bool,
}

impl Bench {
    fn pod(&self, name: &str) -> v1::PodSandboxConfig {
        let metadata = v1::PodSandboxMetadata {
            name: format!("bench-{name}"),
            uid: format!("bench-{}-{name}", std::process::id()),
            namespace: "bench".to_owned(),
            attempt: 0,
        };
        let network = if self.host_network { v1::NamespaceMode::Node } else { v1::NamespaceMode::Pod };
        // As the kubelet asks for an ordinary pod.
        let pid = v1::NamespaceMode::Container.into();
        let namespaces = v1::NamespaceOption { network: network.into(), pid, ..Default::default() };
        let security = v1::LinuxSandboxSecurityContext { namespace_options: Some(namespaces), ..Default::default() };
        let linux = v1::LinuxPodSandboxConfig {
            cgroup_parent: self.cgroup_parent.clone(),
            security_context: Some(security),
            ..Default::default()
        };
        // A host's name is the host's to give.
        let hostname = if self.host_network { "" } else { "bench" }.to_owned();
        v1::PodSandboxConfig { metadata: Some(metadata), hostname, linux: Some(linux), ..Default::default() }
    }

    async fn run_pod(&self, config: &v1::PodSandboxConfig) -> Result<String, tonic::Status> {
        let message = v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
        Ok(self.runtime.clone().run_pod_sandbox(message).await?.into_inner().pod_sandbox_id)
    }

    async fn remove_pod(&self, id: &str) -> Result<(), tonic::Status> {
        let message = v1::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.runtime.clone().stop_pod_sandbox(message).await?;
        let message = v1::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.runtime.clone().remove_pod_sandbox(message).await.map(drop)
    }

    async fn create(
        &self,
        sandbox: &str,
        pod: &v1::PodSandboxConfig,
        name: &str,
        command: &[&str],
    ) -> Result<String, tonic::Status> {
        let profile = v1::SecurityProfile::default();
        let paths = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
        let security = v1::LinuxContainerSecurityContext {
            seccomp: Some(profile),
            masked_paths: paths(&MASKED),
            readonly_paths: paths(&READ_ONLY),
            namespace_options: pod.linux.as_ref().and_then(|l| l.security_context.clone()?.namespace_options),
            ..Default::default()
        };
        let config = v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(v1::ImageSpec { image: self.image.clone(), ..v1::ImageSpec::default() }),
            command: ["/bin/busybox"].iter().chain(command).map(|word| (*word).to_owned()).collect(),
            linux: Some(v1::LinuxContainerConfig { security_context: Some(security), ..Default::default() }),
            ..v1::ContainerConfig::default()
        };
        let (pod_sandbox_id, sandbox_config) = (sandbox.to_owned(), Some(pod.clone()));
        let message = v1::CreateContainerRequest { pod_sandbox_id, config: Some(config), sandbox_config };
        Ok(self.runtime.clone().create_container(message).await?.into_inner().container_id)
    }

    async fn start(&self, id: &str) -> Result<(), tonic::Status> {
        let message = v1::StartContainerRequest { container_id: id.to_owned() };
        self.runtime.clone().start_container(message).await.map(drop)
    }

    async fn remove(&self, id: &str) -> Result<(), tonic::Status> {
        let message = v1::RemoveContainerRequest { container_id: id.to_owned() };
        self.runtime.clone().remove_container(message).await.map(drop)
    }

    async fn pods(&self, count: usize) -> Result<(), Failure> {
        let (mut run, mut stop, mut remove) = (Vec::new(), Vec::new(), Vec::new());
        for n in 0..count {
            let at = Instant::now();
            let id = self.run_pod(&self.pod(&n.to_string())).await?;
            run.push(millis(at));
            let at = Instant::now();
            let message = v1::StopPodSandboxRequest { pod_sandbox_id: id.clone() };
            self.runtime.clone().stop_pod_sandbox(message).await?;
            stop.push(millis(at));
            let at = Instant::now();
            self.runtime.clone().remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id: id }).await?;
            remove.push(millis(at));
        }
        line("RunPodSandbox", run, "ms");
        line("StopPodSandbox", stop, "ms");
        line("RemovePodSandbox", remove, "ms");
        Ok(())
    }

    /// A pod with a container that stays, from its creation until both are removed.
    async fn pod_with_container(&self, name: &str) -> Result<f64, Failure> {
        let (begin, config) = (Instant::now(), self.pod(name));
        let sandbox = self.run_pod(&config).await?;
        let id = self.create(&sandbox, &config, "main", &["sleep", "1000"]).await?;
        self.start(&id).await?;
        let took = millis(begin);
        self.remove_pod(&sandbox).await?;
        Ok(took)
    }

    /// Containers that run `true`, one after the other, from their creation until they are removed; the peers' in between.
    async fn containers(
        &self,
        sandbox: &str,
        pod: &v1::PodSandboxConfig,
        count: usize,
        peers: &[Oci],
    ) -> Result<(), Failure> {
        let mut events = self.runtime.clone().get_container_events(v1::GetEventsRequest {}).await?.into_inner();
        let (mut create, mut start, mut remove, mut whole) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut theirs: Vec<Vec<Cost>> = peers.iter().map(|_| Vec::new()).collect();
        let (mut bare, mut floor) = (Vec::new(), Vec::new());
        let mut spent = 0.0;
        for n in 0..count {
            for (peer, costs) in peers.iter().zip(&mut theirs) {
                costs.extend(peer.run());
            }
            bare.extend(peer::fork_exec());
            floor.extend(peers.first().and_then(|peer| peer::namespaces(&peer.rootfs())));
            let (cpu, begin) = (Cpu::now(), Instant::now());
            let id = self.create(sandbox, pod, &format!("c{n}"), &["true"]).await?;
            create.push(millis(begin));
            let at = Instant::now();
            self.start(&id).await?;
            start.push(millis(at));
            let ended = async {
                while let Some(event) = events.message().await? {
                    let stopped = v1::ContainerEventType::ContainerStoppedEvent;
                    if event.container_id == id && event.container_event_type() == stopped {
                        return Ok(());
                    }
                }
                Err(tonic::Status::aborted("the runtime tells of no more ends"))
            };
            tokio::time::timeout(PATIENCE, ended).await??;
            let at = Instant::now();
            self.remove(&id).await?;
            remove.push(millis(at));
            whole.push(millis(begin));
            spent += cpu.spent();
        }
        line("CreateContainer", create, "ms");
        line("StartContainer", start, "ms");
        line("RemoveContainer", remove, "ms");
        let ours = told("create, start, wait and delete of true", whole, spent);
        for (peer, costs) in peers.iter().zip(&theirs) {
            ours_beside(ours, &format!("run of true by {}", peer.name), costs);
        }
        ours_beside(ours, "floor: fork, exec and wait", &bare);
        ours_beside(ours, "floor: namespaces, pivot_root, exec", &floor);
        Ok(())
    }

    /// Commands in a container that runs, and the peers' in one of theirs.
    async fn commands(
        &self,
        sandbox: &str,
        pod: &v1::PodSandboxConfig,
        count: usize,
        peers: &[Oci],
    ) -> Result<(), Failure> {
        let id = self.create(sandbox, pod, "stays", &["sleep", "1000"]).await?;
        self.start(&id).await?;
        let running: Vec<_> = peers.iter().filter_map(Oci::start).collect();
        let mut theirs: Vec<Vec<Cost>> = running.iter().map(|_| Vec::new()).collect();
        let (mut took, mut spent, mut bare) = (Vec::new(), 0.0, Vec::new());
        for _ in 0..count {
            for (peer, costs) in running.iter().zip(&mut theirs) {
                costs.extend(peer.exec());
            }
            bare.extend(peer::fork_exec());
            let (cpu, at) = (Cpu::now(), Instant::now());
            let cmd = ["/bin/busybox", "true"].map(str::to_owned).to_vec();
            let message = v1::ExecSyncRequest { container_id: id.clone(), cmd, timeout: 30 };
            self.runtime.clone().exec_sync(message).await?;
            took.push(millis(at));
            spent += cpu.spent();
        }
        let ours = told("ExecSync of true", took, spent);
        for (peer, costs) in running.iter().zip(&theirs) {
            ours_beside(ours, &format!("exec of true by {}", peer.runtime().name), costs);
        }
        ours_beside(ours, "floor: fork, exec and wait", &bare);
        self.remove(&id).await?;
        Ok(())
    }

    /// As many starts as there can be.
    async fn sustained(&self, sandbox: &str, pod: &v1::PodSandboxConfig, period: Duration) -> Result<(), Failure> {
        let begin = Instant::now();
        let worker = async |worker: usize| -> Result<usize, tonic::Status> {
            let mut started = 0;
            while begin.elapsed() < period {
                let id = self.create(sandbox, pod, &format!("w{worker}-{started}"), &["true"]).await?;
                self.start(&id).await?;
                self.remove(&id).await?;
                started += 1;
            }
            Ok(started)
        };
        let started = futures::future::try_join_all((0..AT_ONCE).map(worker)).await?;
        let rate = started.iter().sum::<usize>() as f64 / begin.elapsed().as_secs_f64();
        println!("{:<44} {rate:>12.0} /s", format!("containers created, started and removed, {AT_ONCE} at once"));
        Ok(())
    }

    /// Where the time of one start goes, as the system calls of the pod's supervisor and its children tell.
    async fn system_calls(&self, sandbox: &str, pod: &v1::PodSandboxConfig) -> Result<(), Failure> {
        let Some(trace) = system_calls::Trace::of_supervisors()? else {
            println!("system calls of one start: strace is not installed");
            return Ok(());
        };
        let id = self.create(sandbox, pod, "traced", &["true"]).await?;
        self.start(&id).await?;
        self.remove(&id).await?;
        for (class, sum) in trace.finish()? {
            println!("{:<44} {:>12} calls {:>8.2} ms, traced", format!("one start: {class}"), sum.calls, sum.millis);
        }
        Ok(())
    }
}

/// A pod of one container by ours and by containerd, in turns, on the host's network: containerd has no pod network of its own.
async fn beside_containerd(bench: &Bench, count: usize) -> Result<(), Failure> {
    let Some(containerd) = Containerd::start().await? else {
        println!("peer: containerd is not installed");
        return Ok(());
    };
    let ours = Bench { host_network: true, ..bench.clone() };
    let theirs = Bench {
        runtime: containerd.runtime(),
        image: peer::CONTAINERD_IMAGE.to_owned(),
        cgroup_parent: containerd.cgroup_parent(),
        host_network: true,
    };
    let (mut took, mut spent, mut costs, mut runs) = (Vec::new(), 0.0, Vec::new(), Vec::new());
    for n in 0..count {
        let before = containerd.cpu();
        let wall = theirs.pod_with_container(&format!("theirs-{n}")).await?;
        costs.push(Cost { wall, cpu: containerd.cpu() - before });
        runs.extend(containerd.run());
        let cpu = Cpu::now();
        took.push(ours.pod_with_container(&format!("ours-{n}")).await?);
        spent += cpu.spent();
    }
    // The time is that until it runs, the CPU that until it is removed.
    let ours = told("pod and container on the host's network", took, spent);
    ours_beside(ours, &format!("the same by {}", containerd.name), &costs);
    ours_beside(ours, &format!("ctr run of true by {}", containerd.name), &runs);
    Ok(())
}

/// Prints what ours took, and what CPU each of them cost.
fn told(what: &str, took: Vec<f64>, spent: f64) -> Cost {
    let cpu = spent / took.len().max(1) as f64;
    let wall = line(what, took, "ms");
    println!("{:<44} {cpu:>12.2} ms", "CPU of each");
    Cost { wall, cpu }
}

/// A peer's figures, and what ours are beside its medians.
fn ours_beside(ours: Cost, what: &str, theirs: &[Cost]) {
    if theirs.is_empty() {
        return println!("{what:<44} did not run");
    }
    let wall = line(what, theirs.iter().map(|cost| cost.wall).collect(), "ms");
    let cpu = theirs.iter().map(|cost| cost.cpu).sum::<f64>() / theirs.len() as f64;
    println!("{:<44} {:>12.2} x that; CPU {:.2} x its {cpu:.2} ms", "ours is", ours.wall / wall, ours.cpu / cpu);
}
