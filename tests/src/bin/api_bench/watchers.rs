//! One event to a thousand watchers, each with a connection of its own.

use std::time::Duration;

use gantry_tests::figures::{line, median};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::child::Server;
use crate::wire::{Connection, Wire};
use crate::{CONFIG_MAPS, Failure, Setting, creates, millis, ratio, show};

const PATIENCE: Duration = Duration::from_secs(30);
/// Between two events, so that each is alone.
const PAUSE: Duration = Duration::from_millis(20);

/// What an event cost on its way to all.
#[derive(Default)]
struct Told {
    first: Vec<f64>,
    last: Vec<f64>,
    cpu: Vec<f64>,
}

/// Open answers, and the times at which each heard something.
struct Watchers {
    heard: mpsc::Receiver<Instant>,
    count: usize,
}

impl Watchers {
    async fn open(wire: &Wire, path: &str, count: usize) -> Result<Watchers, Failure> {
        let (told, heard) = mpsc::channel(count);
        for mut connection in wire.connections(count).await? {
            let mut response = connection.send(Method::GET, path, bytes::Bytes::new()).await?;
            if response.status() != StatusCode::OK {
                return Err(format!("{path}: {}", response.status()).into());
            }
            let told = told.clone();
            tokio::spawn(async move {
                // The connection lives as long as its answer is read.
                let _open = connection;
                while let Some(Ok(_)) = response.body_mut().frame().await {
                    if told.send(Instant::now()).await.is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Watchers { heard, count })
    }

    /// Sends one event and waits until everybody has heard of it.
    async fn tell(
        &mut self,
        server: &Server,
        writer: &mut Connection,
        (path, name): (&str, &str),
        told: &mut Told,
    ) -> Result<(), Failure> {
        tokio::time::sleep(PAUSE).await;
        let (at, before) = (Instant::now(), server.cpu_millis());
        let body = creates::config_map(name);
        // Once in its way, whoever hears of it first may hear before the writer does.
        let written = writer.exchange(Method::POST, path, body, StatusCode::CREATED);
        let heard = async {
            let mut times = Vec::with_capacity(self.count);
            while times.len() < self.count {
                let heard = tokio::time::timeout(PATIENCE, self.heard.recv()).await;
                let missing = || format!("{} of {} heard nothing", self.count - times.len(), self.count);
                times.push(millis(heard.ok().flatten().ok_or_else(missing)?.duration_since(at)));
            }
            Ok::<_, Failure>(times)
        };
        let (written, times) = tokio::join!(written, heard);
        written?;
        let times = times?;
        told.first.push(times.iter().copied().fold(f64::INFINITY, f64::min));
        told.last.push(times.iter().copied().fold(0.0, f64::max));
        told.cpu.push(server.cpu_millis() - before);
        Ok(())
    }
}

pub async fn watchers(setting: &Setting, count: usize, events: usize) -> Result<(), Failure> {
    let server = setting.control().await?;
    let bare = setting.bare()?;
    let (wire, bare_wire) = (setting.wire(&server)?, setting.wire(&bare)?);
    let (mut writer, mut teller) = (wire.connect().await?, bare_wire.connect().await?);
    let list: serde_json::Value = serde_json::from_slice(&writer.read(&format!("{CONFIG_MAPS}?limit=1")).await?)?;
    let from = list["metadata"]["resourceVersion"].as_str().ok_or("a list has no resourceVersion")?;
    let idle = server.memory().now;
    let path = format!("{CONFIG_MAPS}?watch=1&resourceVersion={from}&timeoutSeconds=3600");
    let mut ours = Watchers::open(&wire, &path, count).await?;
    let open = server.memory().now;
    let mut theirs = Watchers::open(&bare_wire, "/watch", count).await?;
    let (mut own, mut peer) = (Told::default(), Told::default());
    for event in 0..events {
        ours.tell(&server, &mut writer, (CONFIG_MAPS, &format!("w-{event}")), &mut own).await?;
        // About as long as the line that a watcher gets.
        theirs.tell(&bare, &mut teller, ("/tell", &format!("w-{event}-{}", "x".repeat(300))), &mut peer).await?;
    }
    println!("one event to {count} watchers, a TLS connection each, {}", setting.version.name());
    line("  from its POST to the first who hears", own.first, "ms");
    let last = line("  to the last", own.last, "ms");
    show("  server's CPU", "ms", &own.cpu);
    let bare_last = line("  peer: bare hyper, to the last", peer.last, "ms");
    show("  peer: its CPU", "ms", &peer.cpu);
    ratio("  the last hears after", last / bare_last, "of the peer's time");
    ratio("  the server's CPU is", median(own.cpu) / median(peer.cpu), "of the peer's");
    println!(
        "{:<44} {:>12.1} KiB",
        "  memory of one watcher and its connection",
        (open - idle) * 1024.0 / count as f64
    );
    server.stop()
}
