//! `bench`: the figures of a running cluster, printed. See tests/bench/README.md for what each says and leaves out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, Subcommand};
use gantry_client::{Client, DeleteOptions, Query, WatchEvent};
use gantry_kube::{Object, Ref, resource};
use gantry_tests::figures::{Cpu, line, memory, supervisors};
use gantry_tests::peer::{self, Oci};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

const NAMESPACE: &str = "bench";
/// How often a peer is run; its best counts.
const PEER_ROUNDS: usize = 20;
/// What the API server of the peer would store for such a ConfigMap.
const PEER_VALUE_BYTES: usize = 500;
const MANAGER: &str = "bench";
const PROXY_PORT: u16 = 8080;

#[derive(Parser)]
struct Cli {
    #[arg(long, env = "KUBECONFIG", default_value = "/etc/gantry/admin.kubeconfig")]
    kubeconfig: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// POST to Running: some pods one after the other, then a burst; CPU per pod; memory idle and with the burst
    Pods {
        #[arg(long)]
        image: String,
        #[arg(long, default_value_t = 10)]
        in_a_row: usize,
        #[arg(long, default_value_t = 30)]
        burst: usize,
    },
    /// A full node: its pods at once, what they cost when nothing happens, and with an exec probe each second; a ConfigMap's way
    /// into a volume
    Full {
        #[arg(long)]
        image: String,
        #[arg(long, default_value_t = 110)]
        pods: usize,
        #[arg(long, default_value_t = 100)]
        probed: usize,
        /// How long the cost of a second is taken
        #[arg(long, default_value_t = 30)]
        seconds: u64,
        /// Where the agent keeps its pods' volumes
        #[arg(long, default_value = "/var/lib/gantry/pods")]
        pods_folder: PathBuf,
    },
    /// Durable creates of 100-byte ConfigMaps
    Creates {
        #[arg(long, default_value_t = 32)]
        clients: usize,
        #[arg(long, default_value_t = 10_000)]
        count: usize,
        /// Where the peer's files are made: on the disk that the cluster's store is on
        #[arg(long, default_value = "/var/lib")]
        peer_folder: PathBuf,
    },
    /// How soon a new service answers
    Service {
        #[arg(long)]
        image: String,
        #[arg(long, default_value_t = 10)]
        count: usize,
    },
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let cli = Cli::parse();
    let client = Client::connect(&cli.kubeconfig, MANAGER).await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    match client.create(&resource::NAMESPACE, &object(namespace)).await {
        Err(error) if !error.is_already_exists() => return Err(error.into()),
        _ => {}
    }
    // The namespace's service account and CA come a moment after it.
    until(&client, "the default service account", async |c: &Client| {
        let account = c.find(&resource::SERVICE_ACCOUNT, &Ref::new(NAMESPACE, "default")).await.ok().flatten();
        let ca = c.find(&resource::CONFIG_MAP, &Ref::new(NAMESPACE, "kube-root-ca.crt")).await.ok().flatten();
        account.is_some() && ca.is_some()
    })
    .await;
    let done = match cli.what {
        What::Pods { image, in_a_row, burst } => pods(&client, &image, in_a_row, burst).await,
        What::Full { image, pods, probed, seconds, pods_folder } => {
            full(&client, &image, pods, probed, Duration::from_secs(seconds), &pods_folder).await
        }
        What::Creates { clients, count, peer_folder } => creates(&cli.kubeconfig, clients, count, &peer_folder).await,
        What::Service { image, count } => service(&client, &image, count).await,
    };
    client.delete(&resource::NAMESPACE, &Ref::cluster(NAMESPACE), &DeleteOptions::default()).await?;
    // The next run finds none of it.
    until(&client, "the end of the namespace", async |c: &Client| {
        c.find(&resource::NAMESPACE, &Ref::cluster(NAMESPACE)).await.is_ok_and(|found| found.is_none())
    })
    .await;
    done
}

fn object(value: Value) -> Object {
    Object::from_value(value).expect("a literal map")
}

async fn until(client: &Client, what: &str, ready: impl AsyncFn(&Client) -> bool) {
    let start = Instant::now();
    while !ready(client).await {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} never came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The probe pod of the goals: pod network, default token volume, RuntimeDefault, `sleep`.
fn probe(name: &str, image: &str, command: &[&str]) -> Object {
    object(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"bench": "probe"}},
        "spec": {
            "terminationGracePeriodSeconds": 0, "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "c", "image": image, "imagePullPolicy": "IfNotPresent", "command": command}],
        },
    }))
}

/// Creates the pods at once and waits for each to be Running, as a watcher sees it; milliseconds from each POST.
async fn start(client: &Client, pods: Vec<Object>) -> Result<Vec<f64>, Failure> {
    let list = client.list(&resource::POD, Some(NAMESPACE), &Query::default()).await?;
    let query = Query { resource_version: list.resource_version, ..Query::default() };
    let mut watch = client.watch(&resource::POD, Some(NAMESPACE), &query, 300).await?;
    let mut posts = JoinSet::new();
    let mut posted: BTreeMap<String, Instant> = BTreeMap::new();
    for pod in pods {
        posted.insert(pod.name().to_owned(), Instant::now());
        let client = client.clone();
        posts.spawn(async move { client.create(&resource::POD, &pod).await });
    }
    let mut took = Vec::new();
    while !posted.is_empty() {
        let event = tokio::time::timeout(Duration::from_secs(120), watch.next()).await??;
        match event {
            Some(WatchEvent::Modified(pod) | WatchEvent::Added(pod)) if pod.str_at("/status/phase") == "Running" => {
                if let Some(at) = posted.remove(pod.name()) {
                    took.push(at.elapsed().as_secs_f64() * 1000.0);
                }
            }
            None => return Err("the watch ended before every pod ran".into()),
            _ => {}
        }
    }
    while let Some(done) = posts.join_next().await {
        done??;
    }
    Ok(took)
}

async fn remove(client: &Client) -> Result<Duration, Failure> {
    let start = Instant::now();
    let query = Query { label_selector: "bench=probe".into(), ..Query::default() };
    let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    client.delete_collection(&resource::POD, NAMESPACE, &query, &options).await?;
    until(client, "the end of the pods", async |c: &Client| {
        c.list(&resource::POD, Some(NAMESPACE), &Query::default()).await.is_ok_and(|l| l.items.is_empty())
    })
    .await;
    Ok(start.elapsed())
}

async fn pods(client: &Client, image: &str, in_a_row: usize, burst: usize) -> Result<(), Failure> {
    let sleep = ["/bin/busybox", "sleep", "3600"];
    memory("idle");
    // One to warm what is warm in any cluster that has run a pod of this image.
    start(client, vec![probe("warm", image, &sleep)]).await?;
    remove(client).await?;
    let (mut took, cpu) = (Vec::new(), Cpu::now());
    for n in 0..in_a_row {
        took.extend(start(client, vec![probe(&format!("row-{n}"), image, &sleep)]).await?);
    }
    let spent = cpu.spent() / in_a_row.max(1) as f64;
    let p50 = line("pod POST to Running, one after the other", took, "ms");
    println!("{:<44} {spent:>12.1} ms", "CPU per pod (gantry and supervisors)");
    let runtimes = Oci::all()?;
    match runtimes.iter().find_map(|runtime| Some((&runtime.name, runtime.best_run(PEER_ROUNDS)?))) {
        Some((name, cost)) => {
            println!("{:<44} {:>12.1} ms", format!("peer: {name} run of true, the best"), cost.wall);
            println!("{:<44} {:>12.1} ms", format!("peer: CPU of {name} and that container"), cost.cpu);
            let (wall, cpu) = (p50 / cost.wall, spent / cost.cpu);
            println!("{:<44} {wall:>12.1} x that, CPU {cpu:.1} x", "a whole pod, through API and scheduler, is");
        }
        None => println!("peer: neither crun nor runc runs here"),
    }
    println!("{:<44} {:>12.1} ms", "delete of those, to the last gone", remove(client).await?.as_secs_f64() * 1000.0);
    let cpu = Cpu::now();
    let took = start(client, (0..burst).map(|n| probe(&format!("burst-{n}"), image, &sleep)).collect()).await?;
    let spent = cpu.spent() / burst.max(1) as f64;
    line(&format!("pod POST to Running, burst of {burst}"), took, "ms");
    println!("{:<44} {spent:>12.1} ms", "CPU per pod in the burst");
    memory(&format!("with {burst} pods"));
    remove(client).await?;
    Ok(())
}

async fn full(
    client: &Client,
    image: &str,
    pods: usize,
    probed: usize,
    period: Duration,
    folder: &Path,
) -> Result<(), Failure> {
    let sleep = ["/bin/busybox", "sleep", "3600"];
    let before = supervisors();
    start(client, vec![probe("warm", image, &sleep)]).await?;
    remove(client).await?;
    println!("{:<44} {:>12.2} % of a core", "idle with no pod", percent_of_a_core(period).await);
    let took = start(client, (0..pods).map(|n| probe(&format!("full-{n}"), image, &sleep)).collect()).await?;
    line(&format!("pod POST to Running, {pods} at once"), took, "ms");
    let idle = percent_of_a_core(period).await;
    println!("{:<44} {idle:>12.2} % of a core", format!("idle with {pods} pods"));
    memory(&format!("with {pods} pods"));
    remove(client).await?;
    // A node counts a pod until it has ended, and is full meanwhile.
    until(client, "the end of the pods on the node", async |_: &Client| supervisors() <= before).await;

    let asked = |n: usize| {
        let mut pod = probe(&format!("probed-{n}"), image, &sleep).into_value();
        pod["spec"]["containers"][0]["readinessProbe"] =
            json!({"exec": {"command": ["/bin/busybox", "true"]}, "periodSeconds": 1});
        object(pod)
    };
    start(client, (0..probed).map(asked).collect()).await?;
    let busy = percent_of_a_core(period).await;
    println!("{:<44} {busy:>12.2} % of a core", format!("{probed} pods with an exec probe each second"));
    let each = busy * 10.0 / probed.max(1) as f64;
    println!("{:<44} {each:>12.2} ms", "CPU of one probe, its command's included");
    let bare: Vec<f64> = (0..PEER_ROUNDS).filter_map(|_| Some(peer::fork_exec()?.cpu)).collect();
    match bare.len() {
        1.. => {
            let cost = bare.iter().sum::<f64>() / bare.len() as f64;
            println!("{:<44} {cost:>12.2} ms", "peer: CPU of a bare fork and exec of it");
        }
        0 => println!("peer: busybox is not installed"),
    }
    remove(client).await?;
    live(client, image, folder).await?;
    remove(client).await?;
    Ok(())
}

/// What our processes take of one processor, once what was just done has settled.
async fn percent_of_a_core(period: Duration) -> f64 {
    tokio::time::sleep(Duration::from_secs(5)).await;
    let cpu = Cpu::now();
    tokio::time::sleep(period).await;
    cpu.spent() / period.as_secs_f64() / 10.0
}

/// From the PUT of a ConfigMap to its file in a pod's volume, as seen on the node.
async fn live(client: &Client, image: &str, folder: &Path) -> Result<(), Failure> {
    const ROUNDS: usize = 20;
    let map = |value: usize| {
        object(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "live", "namespace": NAMESPACE},
            "data": {"k": value.to_string()},
        }))
    };
    client.create(&resource::CONFIG_MAP, &map(0)).await?;
    let mut pod = probe("live", image, &["/bin/busybox", "sleep", "3600"]).into_value();
    pod["spec"]["volumes"] = json!([{"name": "v", "configMap": {"name": "live"}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
    start(client, vec![object(pod)]).await?;
    let pod = client.get(&resource::POD, &Ref::new(NAMESPACE, "live")).await?;
    let file = folder.join(pod.uid()).join("volumes/kubernetes.io~configmap/v/k");
    let mut took = Vec::new();
    for round in 1..=ROUNDS {
        let (wanted, at) = (round.to_string(), Instant::now());
        client.update(&resource::CONFIG_MAP, &map(round)).await?;
        while std::fs::read_to_string(&file)? != wanted {
            if at.elapsed() > Duration::from_secs(120) {
                return Err(format!("{} never changed", file.display()).into());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        took.push(at.elapsed().as_secs_f64() * 1000.0);
    }
    line("ConfigMap PUT to its file in a volume", took, "ms");
    Ok(())
}

async fn creates(kubeconfig: &Path, clients: usize, count: usize, peer_folder: &Path) -> Result<(), Failure> {
    let mut tasks = JoinSet::new();
    let connections = futures::future::try_join_all((0..clients).map(|_| Client::connect(kubeconfig, MANAGER))).await?;
    let (start, cpu) = (Instant::now(), Cpu::now());
    for (n, client) in connections.into_iter().enumerate() {
        tasks.spawn(async move {
            let mut took = Vec::new();
            for i in (n..count).step_by(clients) {
                let map = object(json!({
                    "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("c-{i}"), "namespace": NAMESPACE},
                    "data": {"v": "x".repeat(100)},
                }));
                let at = Instant::now();
                client.create(&resource::CONFIG_MAP, &map).await?;
                took.push(at.elapsed().as_secs_f64() * 1000.0);
            }
            Ok::<_, gantry_client::ClientError>(took)
        });
    }
    let mut took = Vec::new();
    while let Some(done) = tasks.join_next().await {
        took.extend(done??);
    }
    let rate = took.len() as f64 / start.elapsed().as_secs_f64();
    println!("{:<44} {rate:>12.0} /s", format!("ConfigMap creates, {clients} clients over TLS"));
    println!("{:<44} {:>12.2} ms", "server CPU per create", cpu.spent() / took.len().max(1) as f64);
    line("latency of a create", took, "ms");
    match peer::etcd_puts(peer_folder, clients, count, PEER_VALUE_BYTES).await? {
        Some(puts) => {
            println!("{:<44} {puts:>12.0} /s", format!("peer: etcd alone, puts by {clients} clients, no TLS"));
            println!("{:<44} {:>12.2} x etcd's puts", "creates through our API are", rate / puts);
        }
        None => println!("peer: etcd is not installed"),
    }
    Ok(())
}

async fn service(client: &Client, image: &str, count: usize) -> Result<(), Failure> {
    let port = PROXY_PORT.to_string();
    let server = ["/bin/busybox", "httpd", "-f", "-p", port.as_str()];
    start(client, vec![probe("server", image, &server)]).await?;
    let mut took = Vec::new();
    for n in 0..count {
        let name = format!("svc-{n}");
        let service = object(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"selector": {"bench": "probe"}, "ports": [{"port": 80, "targetPort": PROXY_PORT}]},
        }));
        let at = Instant::now();
        let made = client.create(&resource::SERVICE, &service).await?;
        let address = format!("{}:80", made.str_at("/spec/clusterIP"));
        loop {
            let attempt =
                tokio::time::timeout(Duration::from_millis(20), tokio::net::TcpStream::connect(&address)).await;
            if matches!(attempt, Ok(Ok(_))) {
                break;
            }
            if at.elapsed() > Duration::from_secs(30) {
                return Err(format!("service {name} at {address} never answered").into());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        took.push(at.elapsed().as_secs_f64() * 1000.0);
    }
    line("new service, POST to the first connection", took, "ms");
    Ok(())
}
