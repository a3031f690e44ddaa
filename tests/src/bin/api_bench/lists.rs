//! Lists and pages of them, to the last byte.

use std::time::Duration;

use gantry_tests::figures::{line, median};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::child::Server;
use crate::wire::{Connection, Wire};
use crate::{CONFIG_MAPS, Failure, Setting, creates, millis, ratio, show};

const PAGE_ITEMS: usize = 500;
/// Who lists while somebody writes.
const STORM_CLIENTS: usize = 4;

pub async fn lists(setting: &Setting, count: usize, rounds: usize) -> Result<(), Failure> {
    let server = setting.control().await?;
    let bare = setting.bare()?;
    let wire = setting.wire(&server)?;
    creates::fill(&server, &wire, count).await?;
    let mut ours = wire.connect().await?;
    let mut peer = setting.wire(&bare)?.connect().await?;
    let bytes = ours.get(CONFIG_MAPS).await?;
    let same = format!("/bytes/{bytes}");
    let (mut own, mut theirs) = (Sent::default(), Sent::default());
    for _ in 0..rounds {
        own.add(&server, &mut ours, CONFIG_MAPS).await?;
        theirs.add(&bare, &mut peer, &same).await?;
    }
    println!("list of {count} ConfigMaps, {bytes} bytes over TLS and {}", setting.version.name());
    let (list, memory) = (line("  to its last byte", own.took, "ms"), line("  peer: bare hyper", theirs.took, "ms"));
    show("  server's CPU", "ms", &own.cpu);
    show("  peer: its CPU", "ms", &theirs.cpu);
    ratio("  a list takes", list / memory, "of the peer's time");
    ratio("  and", median(own.cpu) / median(theirs.cpu), "of its CPU");
    pages(&server, &mut ours, &bare, &mut peer, rounds).await?;
    server.stop()
}

#[derive(Default)]
struct Sent {
    took: Vec<f64>,
    cpu: Vec<f64>,
}

impl Sent {
    async fn add(&mut self, server: &Server, connection: &mut Connection, path: &str) -> Result<(), Failure> {
        let (at, before) = (Instant::now(), server.cpu_millis());
        connection.get(path).await?;
        self.took.push(millis(at.elapsed()));
        self.cpu.push(server.cpu_millis() - before);
        Ok(())
    }
}

async fn pages(
    server: &Server,
    ours: &mut Connection,
    bare: &Server,
    peer: &mut Connection,
    rounds: usize,
) -> Result<(), Failure> {
    let (mut own, mut theirs) = (Sent::default(), Sent::default());
    for _ in 0..rounds {
        let mut path = format!("{CONFIG_MAPS}?limit={PAGE_ITEMS}");
        loop {
            own.add(server, ours, &path).await?;
            let page: serde_json::Value = serde_json::from_slice(&ours.read(&path).await?)?;
            let bytes = serde_json::to_vec(&page)?.len();
            theirs.add(bare, peer, &format!("/bytes/{bytes}")).await?;
            let Some(token) = page["metadata"]["continue"].as_str() else { break };
            path = format!("{CONFIG_MAPS}?limit={PAGE_ITEMS}&continue={token}");
        }
    }
    let (page, memory) = (line("  a page of 500", own.took, "ms"), line("  peer: bare hyper", theirs.took, "ms"));
    show("  server's CPU", "ms", &[mean(&own.cpu)]);
    show("  peer: its CPU", "ms", &[mean(&theirs.cpu)]);
    ratio("  a page takes", page / memory, "of the peer's time");
    Ok(())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// How long a write takes alone, while others list everything without a pause, and while they fetch as much from a server that has
/// nothing to do with it: what the last takes is the machine's to give.
pub async fn storm(setting: &Setting, count: usize, seconds: u64, rounds: usize) -> Result<(), Failure> {
    let server = setting.control().await?;
    let bare = setting.bare()?;
    let wire = setting.wire(&server)?;
    creates::fill(&server, &wire, count).await?;
    let bytes = wire.connect().await?.get(CONFIG_MAPS).await?;
    let storms = [
        ("alone", wire.clone(), CONFIG_MAPS.to_owned(), 0),
        ("while others fetch as much elsewhere", setting.wire(&bare)?, format!("/bytes/{bytes}"), STORM_CLIENTS),
        ("in the storm", wire.clone(), CONFIG_MAPS.to_owned(), STORM_CLIENTS),
    ];
    let mut found: [Vec<f64>; 3] = Default::default();
    let mut fetched = [0; 3];
    for round in 0..rounds {
        for (n, (_, from, path, clients)) in storms.iter().enumerate() {
            let length = Duration::from_secs(seconds);
            let (took, fetches) = writes(&wire, &format!("s{round}-{n}"), length, (from, path, *clients)).await?;
            found[n].extend(took);
            fetched[n] += fetches;
        }
    }
    println!("a write beside {STORM_CLIENTS} clients that list {count} objects, over {}", setting.version.name());
    for ((what, ..), (took, fetches)) in storms.iter().zip(found.iter().zip(fetched)) {
        line(&format!("  {what}"), took.clone(), "ms");
        let rate = fetches as f64 / (seconds * rounds as u64) as f64;
        println!("{:<44} {rate:>12.0} /s", "  fetches meanwhile");
    }
    let [alone, elsewhere, storm] = found.map(|took| p99(&took));
    ratio("  p99 in the storm is", storm / alone, "of alone");
    ratio("  and", storm / elsewhere, "of the same load on another server");
    server.stop()
}

fn p99(took: &[f64]) -> f64 {
    let mut sorted = took.to_vec();
    sorted.sort_by(f64::total_cmp);
    gantry_tests::figures::percentile(&sorted, 0.99)
}

/// The times of one writer beside so many who fetch, and how often they did. The writer has a thread of its own, so that what the
/// load costs is not counted as the server's delay.
async fn writes(
    wire: &Wire,
    stem: &str,
    length: Duration,
    (from, path, clients): (&Wire, &str, usize),
) -> Result<(Vec<f64>, usize), Failure> {
    let stop = CancellationToken::new();
    let mut lists = JoinSet::new();
    for mut connection in from.connections(clients).await? {
        let (stop, path) = (stop.clone(), path.to_owned());
        lists.spawn(async move {
            let mut count = 0;
            while !stop.is_cancelled() {
                connection.get(&path).await?;
                count += 1;
            }
            Ok::<usize, Failure>(count)
        });
    }
    let (wire, stem, told) = (wire.clone(), stem.to_owned(), stop.clone());
    let writer = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(creates::until(&wire, &stem, told))
    });
    tokio::time::sleep(length).await;
    stop.cancel();
    let mut count = 0;
    while let Some(done) = lists.join_next().await {
        count += done??;
    }
    let took = tokio::task::spawn_blocking(|| writer.join()).await?;
    Ok((took.map_err(|_| "the writer panicked")??, count))
}
