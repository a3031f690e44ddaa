//! Durable creates: as many as 32 clients get through, and how long one waits who is alone.

use bytes::Bytes;
use gantry_tests::figures::{line, median};
use gantry_tests::peer;
use http::Method;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::child::Server;
use crate::wire::{Connection, Wire};
use crate::{CONFIG_MAPS, Failure, NAMESPACE, Setting, millis, ratio, show};

/// What etcd is given for such a ConfigMap: about what the store writes of it.
const PEER_VALUE_BYTES: usize = 500;

/// What a load of requests came to.
struct Load {
    per_second: f64,
    /// Of the server, a request.
    cpu_micros: f64,
    took: Vec<f64>,
}

/// A ConfigMap with 100 bytes in it.
pub fn config_map(name: &str) -> Bytes {
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": NAMESPACE},
        "data": {"v": "x".repeat(100)},
    });
    map.to_string().into()
}

/// `count` creates by one client each; `path` and the names' stem tell rounds apart.
async fn load(
    server: &Server,
    wire: &Wire,
    clients: usize,
    count: usize,
    (path, stem): (&str, &str),
) -> Result<Load, Failure> {
    let connections = wire.connections(clients).await?;
    let (start, before) = (Instant::now(), server.cpu_millis());
    let mut tasks = JoinSet::new();
    for (n, mut connection) in connections.into_iter().enumerate() {
        let (path, stem) = (path.to_owned(), stem.to_owned());
        tasks.spawn(async move {
            let mut took = Vec::new();
            for i in (n..count).step_by(clients) {
                let at = Instant::now();
                connection.create(&path, config_map(&format!("{stem}-{i}"))).await?;
                took.push(millis(at.elapsed()));
            }
            Ok::<_, Failure>(took)
        });
    }
    let mut took = Vec::new();
    while let Some(done) = tasks.join_next().await {
        took.extend(done??);
    }
    let per_second = took.len() as f64 / start.elapsed().as_secs_f64();
    Ok(Load { per_second, cpu_micros: (server.cpu_millis() - before) * 1000.0 / count as f64, took })
}

/// How long an answer to a create is.
async fn answer_bytes(connection: &mut Connection) -> Result<usize, Failure> {
    connection.create(CONFIG_MAPS, config_map("sample")).await
}

pub async fn rate(setting: &Setting, clients: usize, count: usize, rounds: usize) -> Result<(), Failure> {
    let server = setting.control().await?;
    let bare = setting.bare()?;
    let wire = setting.wire(&server)?;
    let bare_wire = setting.wire(&bare)?;
    let echo = format!("/echo/{}", answer_bytes(&mut wire.connect().await?).await?);
    // What a server does for the first time is not what is measured.
    load(&server, &wire, clients, count / 10, (CONFIG_MAPS, "warm")).await?;
    let (mut ours, mut echoes, mut puts) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        ours.push(load(&server, &wire, clients, count, (CONFIG_MAPS, &format!("r{round}"))).await?);
        echoes.push(load(&bare, &bare_wire, clients, count, (&echo, "e")).await?);
        puts.extend(peer::etcd_puts(setting.folder(), clients, count, PEER_VALUE_BYTES).await?);
    }
    println!("creates of 100-byte ConfigMaps, {clients} clients over TLS and {}", setting.version.name());
    let rates = |loads: &[Load]| loads.iter().map(|load| load.per_second).collect::<Vec<_>>();
    let cpu = |loads: &[Load]| loads.iter().map(|load| load.cpu_micros).collect::<Vec<_>>();
    show("  durable creates", "/s", &rates(&ours));
    show("  server's CPU of one", "us", &cpu(&ours));
    line("  latency", ours.iter().flat_map(|load| load.took.clone()).collect(), "ms");
    show("  peer: bare hyper that echoes", "/s", &rates(&echoes));
    show("  peer: its CPU of one", "us", &cpu(&echoes));
    ratio("  creates are", median(rates(&ours)) / median(rates(&echoes)), "of its rate");
    ratio("  a create's CPU is", median(cpu(&ours)) / median(cpu(&echoes)), "of its CPU");
    if puts.is_empty() {
        println!("  peer: etcd is not installed");
    } else {
        show("  peer: etcd alone, puts without TLS", "/s", &puts);
        ratio("  creates are", median(rates(&ours)) / median(puts), "of its rate");
    }
    server.stop()
}

/// One create, one trip and one write of a page in turns, so that what else happens on the machine and its disk meets all alike.
pub async fn alone(setting: &Setting, count: usize) -> Result<(), Failure> {
    let server = setting.control().await?;
    let bare = setting.bare()?;
    let mut ours = setting.wire(&server)?.connect().await?;
    let mut peer = setting.wire(&bare)?.connect().await?;
    let echo = format!("/echo/{}", answer_bytes(&mut ours).await?);
    let mut disk = peer::SyncedWrites::new(setting.folder())?;
    let (mut creates, mut trips, mut writes) = (Vec::new(), Vec::new(), Vec::new());
    let mut cpu = 0.0;
    for i in 0..count {
        let (at, before) = (Instant::now(), server.cpu_millis());
        ours.create(CONFIG_MAPS, config_map(&format!("a-{i}"))).await?;
        creates.push(millis(at.elapsed()) * 1000.0);
        cpu += server.cpu_millis() - before;
        let at = Instant::now();
        peer.create(&echo, config_map("e")).await?;
        trips.push(millis(at.elapsed()) * 1000.0);
        writes.push(disk.write()? * 1000.0);
    }
    println!("creates of 100-byte ConfigMaps, one client over TLS and {}", setting.version.name());
    let create = line("  latency", creates, "us");
    show("  server's CPU of one", "us", &[cpu * 1000.0 / count as f64]);
    let trip = line("  peer: bare hyper that echoes", trips, "us");
    let write = line("  peer: write of a page and fdatasync", writes, "us");
    ratio("  a create takes", create / (trip + write), "of the two together (p50)");
    server.stop()
}

/// Fills the namespace with `count` ConfigMaps.
pub async fn fill(server: &Server, wire: &Wire, count: usize) -> Result<(), Failure> {
    const CLIENTS: usize = 16;
    load(server, wire, CLIENTS, count, (CONFIG_MAPS, "c")).await.map(drop)
}

/// Creates one after the other until `stop`; how long each took.
pub async fn until(wire: &Wire, stem: &str, stop: tokio_util::sync::CancellationToken) -> Result<Vec<f64>, Failure> {
    let mut connection = wire.connect().await?;
    let mut took = Vec::new();
    while !stop.is_cancelled() {
        let at = Instant::now();
        let body = config_map(&format!("{stem}-{}", took.len()));
        connection.exchange(Method::POST, CONFIG_MAPS, body, http::StatusCode::CREATED).await?;
        took.push(millis(at.elapsed()));
    }
    Ok(took)
}
