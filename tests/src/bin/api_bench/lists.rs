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

/// How long a write takes alone, and while others list everything without a pause.
pub async fn storm(setting: &Setting, count: usize, seconds: u64, rounds: usize) -> Result<(), Failure> {
    let server = setting.control().await?;
    let wire = setting.wire(&server)?;
    creates::fill(&server, &wire, count).await?;
    let length = Duration::from_secs(seconds);
    let (mut alone, mut beside, mut lists, mut ratios) = (Vec::new(), Vec::new(), 0, Vec::new());
    for round in 0..rounds {
        let quiet = writes(&wire, &format!("q{round}"), length, 0).await?;
        let loud = writes(&wire, &format!("l{round}"), length, STORM_CLIENTS).await?;
        ratios.push(p99(&loud.0) / p99(&quiet.0));
        alone.extend(quiet.0);
        beside.extend(loud.0);
        lists += loud.1;
    }
    println!("a write beside {STORM_CLIENTS} clients that list {count} objects, over {}", setting.version.name());
    line("  alone", alone, "ms");
    line("  in the storm", beside, "ms");
    println!("{:<44} {:>12.0} /s", "  lists meanwhile", lists as f64 / (seconds * rounds as u64) as f64);
    show("  p99 in the storm is, of alone", "x", &ratios);
    server.stop()
}

fn p99(took: &[f64]) -> f64 {
    let mut sorted = took.to_vec();
    sorted.sort_by(f64::total_cmp);
    gantry_tests::figures::percentile(&sorted, 0.99)
}

/// The times of one writer beside so many who list, and how many lists there were. The writer has a thread of its own, so that what
/// the load costs is not counted as the server's delay.
async fn writes(wire: &Wire, stem: &str, length: Duration, listing: usize) -> Result<(Vec<f64>, usize), Failure> {
    let stop = CancellationToken::new();
    let mut lists = JoinSet::new();
    for mut connection in wire.connections(listing).await? {
        let stop = stop.clone();
        lists.spawn(async move {
            let mut count = 0;
            while !stop.is_cancelled() {
                connection.get(CONFIG_MAPS).await?;
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
