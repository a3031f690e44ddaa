//! The peers that a figure stands beside, measured in the same run on the same machine: crun or runc for a container, etcd
//! for a durable write. Debian packages all; where none is installed, the benchmark says so and prints no ratio.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

/// Milliseconds of wall and CPU time.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub wall: f64,
    pub cpu: f64,
}

/// One `run` of `true` in a minimal container by an OCI runtime: create, start, wait, delete. The quickest of several, of
/// crun, or of runc where there is no crun or the host does not suit it (it refuses hybrid cgroups).
pub fn oci_run(rounds: usize) -> Option<(&'static str, Cost)> {
    let bundle = bundle(&["true"])?;
    ["crun", "runc"].into_iter().find_map(|runtime| {
        let costs = (0..rounds).map_while(|round| oci_once(runtime, bundle.path(), round));
        Some((runtime, costs.min_by(|a, b| a.wall.total_cmp(&b.wall))?))
    })
}

/// One `exec` of `true` in a container of an OCI runtime that runs: as above.
pub fn oci_exec(rounds: usize) -> Option<(&'static str, Cost)> {
    let bundle = bundle(&["sleep", "1000"])?;
    let name = format!("gantry-bench-{}-exec", std::process::id());
    ["crun", "runc"].into_iter().find_map(|runtime| {
        let run = |args: &[&str]| {
            let state = bundle.path().join("state");
            let mut command = Command::new(runtime);
            command.arg("--root").arg(state).args(args).current_dir(bundle.path());
            // A container keeps what it inherits.
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        let once = |_| {
            let (start, before) = (Instant::now(), children_millis());
            run(&["exec", &name, "/bin/busybox", "true"])
                .then(|| Cost { wall: millis(start.elapsed()), cpu: children_millis() - before })
        };
        let best = run(&["run", "--detach", &name])
            .then(|| (0..rounds).map_while(once).min_by(|a, b| a.wall.total_cmp(&b.wall)))
            .flatten();
        run(&["delete", "--force", &name]);
        Some((runtime, best?))
    })
}

/// A minimal bundle of busybox.
fn bundle(command: &[&str]) -> Option<tempfile::TempDir> {
    let bundle = tempfile::tempdir().ok()?;
    let rootfs = bundle.path().join("rootfs");
    for folder in ["bin", "proc", "dev", "sys"] {
        std::fs::create_dir_all(rootfs.join(folder)).ok()?;
    }
    std::fs::copy("/bin/busybox", rootfs.join("bin/busybox")).ok()?;
    let namespaces: Vec<_> =
        ["pid", "mount", "ipc", "uts", "network"].iter().map(|kind| json!({"type": kind})).collect();
    let args: Vec<&str> = ["/bin/busybox"].iter().chain(command).copied().collect();
    let config = json!({
        "ociVersion": "1.0.0",
        "process": {"cwd": "/", "args": args, "user": {"uid": 0, "gid": 0}},
        "root": {"path": "rootfs"},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": namespaces, "cgroupsPath": format!("/gantry-bench-{}", std::process::id())},
    });
    std::fs::write(bundle.path().join("config.json"), config.to_string()).ok()?;
    Some(bundle)
}

/// Milliseconds of CPU of `busybox true`, started and waited for: the least that an exec can cost.
pub fn fork_exec(rounds: usize) -> Option<f64> {
    let before = children_millis();
    for _ in 0..rounds {
        Command::new("busybox").arg("true").status().ok()?.success().then_some(())?;
    }
    Some((children_millis() - before) / rounds.max(1) as f64)
}

fn oci_once(runtime: &str, bundle: &Path, round: usize) -> Option<Cost> {
    let name = format!("gantry-bench-{}-{round}", std::process::id());
    let (start, before) = (Instant::now(), children_millis());
    let status = Command::new(runtime)
        .arg("--root")
        .arg(bundle.join("state"))
        .args(["run", "--bundle"])
        .arg(bundle)
        .arg(name)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .ok()?;
    status.success().then(|| Cost { wall: millis(start.elapsed()), cpu: children_millis() - before })
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// CPU of the children of this process that were waited for.
fn children_millis() -> f64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN);
    usage.map_or(0.0, |usage| {
        let times = [usage.user_time(), usage.system_time()];
        times.iter().map(|time| time.tv_sec() as f64 * 1000.0 + time.tv_usec() as f64 / 1000.0).sum()
    })
}

/// The fields of etcd's `PutRequest` that a create needs.
#[derive(Clone, prost::Message)]
struct Put {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// Whatever else `PutResponse` says is skipped.
#[derive(Clone, prost::Message)]
struct PutAnswer {}

#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    #[error("etcd cannot be started")]
    Start(#[from] io::Error),
    #[error("etcd does not answer")]
    Connect(#[from] tonic::transport::Error),
    #[error("a put failed")]
    Put(#[from] Box<tonic::Status>),
}

/// Durable puts a second of a real etcd over plain gRPC, from `clients` connections, `count` in all, with values of
/// `bytes`; its files are made under `folder`. None where etcd is not installed.
pub async fn etcd_puts(folder: &Path, clients: usize, count: usize, bytes: usize) -> Result<Option<f64>, EtcdError> {
    let folder = tempfile::tempdir_in(folder)?;
    let [client, peer] = free_ports()?.map(|port| format!("http://127.0.0.1:{port}"));
    let mut command = tokio::process::Command::new("etcd");
    command.arg("--data-dir").arg(folder.path()).args(["--name", "bench"]);
    command.args(["--logger", "zap", "--log-outputs", "/dev/null"]);
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.arg(format!("--initial-cluster=bench={peer}"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = match command.spawn() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        started => started?,
    };
    let rate = measure(&client, clients, count, bytes).await;
    child.kill().await?;
    rate.map(Some)
}

async fn measure(url: &str, clients: usize, count: usize, bytes: usize) -> Result<f64, EtcdError> {
    let mut channels = Vec::new();
    for _ in 0..clients {
        channels.push(connect(url).await?);
    }
    // The first put waits until the only member has elected itself.
    put(&channels[0], "warm".to_owned(), bytes).await?;
    let start = Instant::now();
    let puts = channels.iter().enumerate().map(|(n, channel)| async move {
        for i in (n..count).step_by(clients) {
            put(channel, format!("/registry/configmaps/bench/c-{i}"), bytes).await?;
        }
        Ok::<_, EtcdError>(())
    });
    futures::future::try_join_all(puts).await?;
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

async fn connect(url: &str) -> Result<Channel, EtcdError> {
    let endpoint = Channel::from_shared(url.to_owned()).expect("a URL");
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match endpoint.connect().await {
            Err(_) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(20)).await,
            done => return Ok(done?),
        }
    }
}

async fn put(channel: &Channel, key: String, bytes: usize) -> Result<(), EtcdError> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await?;
    let request = tonic::Request::new(Put { key: key.into_bytes(), value: vec![b'x'; bytes] });
    let path = http::uri::PathAndQuery::from_static("/etcdserverpb.KV/Put");
    grpc.unary(request, path, ProstCodec::<Put, PutAnswer>::default()).await.map_err(Box::new)?;
    Ok(())
}

/// Ports that were free a moment ago.
fn free_ports() -> io::Result<[u16; 2]> {
    let take = || std::net::TcpListener::bind("127.0.0.1:0");
    let (first, second) = (take()?, take()?);
    Ok([first.local_addr()?.port(), second.local_addr()?.port()])
}
