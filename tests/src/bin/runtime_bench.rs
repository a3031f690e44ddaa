//! `runtime_bench`: what the runtime costs at its CRI socket, beside an OCI runtime in the same run. See tests/bench/README.md.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use gantry_cri::{RuntimeServiceClient, v1};
use gantry_tests::figures::{Cpu, line};
use gantry_tests::peer::{self, Cost};
use tokio::time::Instant;
use tonic::transport::Channel;

/// How often a peer is run; its best counts.
const PEER_ROUNDS: usize = 20;
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

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let cli = Cli::parse();
    let bench = Bench { runtime: RuntimeServiceClient::new(gantry_cri::connect::unix(&cli.socket)), image: cli.image };
    bench.pods(cli.pods).await?;
    let config = pod("containers");
    let sandbox = bench.run_pod(&config).await?;
    let done = async {
        bench.containers(&sandbox, &config, cli.containers).await?;
        bench.commands(&sandbox, &config, cli.containers).await?;
        bench.sustained(&sandbox, &config, Duration::from_secs(cli.seconds)).await
    };
    let done = done.await;
    bench.remove_pod(&sandbox).await?;
    done
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

fn pod(name: &str) -> v1::PodSandboxConfig {
    let metadata = v1::PodSandboxMetadata {
        name: format!("bench-{name}"),
        uid: format!("bench-{}-{name}", std::process::id()),
        namespace: "bench".to_owned(),
        attempt: 0,
    };
    v1::PodSandboxConfig { metadata: Some(metadata), hostname: "bench".to_owned(), ..v1::PodSandboxConfig::default() }
}

#[derive(Clone)]
struct Bench {
    runtime: RuntimeServiceClient<Channel>,
    image: String,
}

impl Bench {
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
        let security = v1::LinuxContainerSecurityContext { seccomp: Some(profile), ..Default::default() };
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
            let id = self.run_pod(&pod(&n.to_string())).await?;
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

    /// Containers that run `true`, one after the other, from their creation until they are removed.
    async fn containers(&self, sandbox: &str, pod: &v1::PodSandboxConfig, count: usize) -> Result<(), Failure> {
        let mut events = self.runtime.clone().get_container_events(v1::GetEventsRequest {}).await?.into_inner();
        let (mut create, mut start, mut remove, mut whole) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let cpu = Cpu::now();
        for n in 0..count {
            let begin = Instant::now();
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
        }
        let spent = cpu.spent() / count.max(1) as f64;
        line("CreateContainer", create, "ms");
        line("StartContainer", start, "ms");
        line("RemoveContainer", remove, "ms");
        let p50 = line("create, start, wait and delete of true", whole, "ms");
        println!("{:<44} {spent:>12.2} ms", "CPU of each");
        beside("run of true", p50, spent, peer::oci_run(PEER_ROUNDS));
        Ok(())
    }

    /// Commands in a container that runs.
    async fn commands(&self, sandbox: &str, pod: &v1::PodSandboxConfig, count: usize) -> Result<(), Failure> {
        let id = self.create(sandbox, pod, "stays", &["sleep", "1000"]).await?;
        self.start(&id).await?;
        let (mut took, cpu) = (Vec::new(), Cpu::now());
        for _ in 0..count {
            let at = Instant::now();
            let cmd = ["/bin/busybox", "true"].map(str::to_owned).to_vec();
            let message = v1::ExecSyncRequest { container_id: id.clone(), cmd, timeout: 30 };
            self.runtime.clone().exec_sync(message).await?;
            took.push(millis(at));
        }
        let spent = cpu.spent() / count.max(1) as f64;
        let p50 = line("ExecSync of true", took, "ms");
        println!("{:<44} {spent:>12.2} ms", "CPU of each");
        beside("exec of true", p50, spent, peer::oci_exec(PEER_ROUNDS));
        if let Some(floor) = peer::fork_exec(PEER_ROUNDS) {
            println!("{:<44} {floor:>12.2} ms", "peer: CPU of a bare fork and exec of it");
        }
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
}

fn beside(what: &str, wall: f64, cpu: f64, peer: Option<(&str, Cost)>) {
    let Some((name, cost)) = peer else { return println!("peer: neither crun nor runc runs here") };
    println!("{:<44} {:>12.1} ms, CPU {:.1} ms", format!("peer: {what} by {name}, the best"), cost.wall, cost.cpu);
    println!("{:<44} {:>12.2} x that, CPU {:.2} x", "ours is", wall / cost.wall, cpu / cost.cpu);
}
