//! What the node does when memory, disk or process numbers run short: it says so in its conditions, takes no more pods,
//! makes room of its own (ended containers, unused images), and then evicts one pod at a time until there is enough.
//!
//! ```text
//!   enough ──threshold met──▶ pressure ──(soft: for its grace period)──▶ make room ──not enough──▶ evict one pod
//!      ▲                        │ ▲                                                                      │
//!      └── for the transition ──┘ └────────────────────── once the pod has ended, or in time ────────────┘
//!          period: none met
//! ```
//! [`thresholds`] are the kubelet's, [`plan`] judges what is observed, [`rank`] says which pod goes and why, [`images`]
//! which images. A look costs the reading of three small files and two calls of statfs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gantry_env::chain;
use gantry_kube::pod::{SOURCE_ANNOTATION, is_terminal};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::events::Kind;
use crate::pod::cri::log_folder;
use crate::pod::seen::{Seen, State};
use crate::pod::want::grace_seconds;
use crate::pods::orders::{Order, Termination};
use crate::pods::views::PodView;
use crate::shared::Shared;
use crate::stats::disk::Disks;
use crate::stats::host::Room;
use crate::stats::{Snapshot, summary};

pub mod images;
pub mod plan;
pub mod rank;
pub mod thresholds;

#[cfg(test)]
mod tests;

use images::{Ask, Collector};
use plan::{Memory, Observation, Observed, judge};
use rank::Candidate;
pub use thresholds::{Pressure, Settings, Signal, Threshold};

/// As the kubelet looks.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// While a pod is being evicted, its end is noticed soon.
const LOOK_SOON: Duration = Duration::from_secs(1);
/// A pod that does not end keeps the next one waiting no longer.
const END_PATIENCE: Duration = Duration::from_secs(30);
/// What a pod gets to end at a hard threshold.
const HARD_GRACE_SECONDS: i64 = 1;
/// Whose images lie on which file system changes hardly ever.
const IMAGE_PLACE_FOR: Duration = Duration::from_secs(300);

pub type Pressures = BTreeSet<Pressure>;

/// The reason in the status of a pod that was evicted, or not taken for the same reason.
pub const EVICTED: &str = "Evicted";

/// The loop of one node.
pub struct Evictor {
    shared: Arc<Shared>,
    settings: Settings,
    pressures: watch::Sender<Pressures>,
    orders: mpsc::Sender<Order>,
    memory: Memory,
    images: Collector,
    /// Those who ask what becomes of the images.
    asks: mpsc::Receiver<Ask>,
    /// Where images lie, and when that was asked.
    image_place: Option<(Option<PathBuf>, Instant)>,
    /// Pods that were told to go.
    evicted: BTreeSet<String>,
    /// The one whose end is waited for.
    ending: Option<(String, Instant)>,
}

impl Evictor {
    pub fn new(
        shared: Arc<Shared>,
        pressures: watch::Sender<Pressures>,
        orders: mpsc::Sender<Order>,
        asks: mpsc::Receiver<Ask>,
    ) -> Evictor {
        let settings = shared.config.eviction.clone();
        Evictor {
            images: Collector::new(settings.images),
            shared,
            settings,
            pressures,
            orders,
            asks,
            memory: Memory::default(),
            image_place: None,
            evicted: BTreeSet::new(),
            ending: None,
        }
    }

    /// Works for as long as it is polled.
    pub async fn run(mut self) {
        loop {
            self.round().await;
            let next = Instant::now() + if self.ending.is_some() { LOOK_SOON } else { LOOK_EVERY };
            loop {
                tokio::select! {
                    biased;
                    // A point in time, waited for anew.
                    () = tokio::time::sleep_until(next) => break,
                    // recv takes an ask only when it returns it.
                    Some(ask) = self.asks.recv() => self.answer(ask).await,
                }
            }
        }
    }

    async fn answer(&mut self, ask: Ask) {
        let room = self.image_room().await;
        let report = match ask.remove {
            true => self.images.prune(&self.shared, room).await,
            false => self.images.explain(&self.shared, room).await,
        };
        // One who has gone away needs no answer.
        let _ = ask.answer.send(report);
    }

    /// Looks once, and does what follows from it.
    pub async fn round(&mut self) {
        let views = self.shared.views.all();
        self.evicted.retain(|uid| views.contains_key(uid));
        let images = self.image_room().await;
        if let Some(room) = images {
            self.images.keep(&self.shared, room).await;
        }
        let observed = self.observe(images);
        let verdict = judge(&self.settings, &observed, &self.memory, Instant::now());
        self.tell(&verdict.pressures);
        self.memory = verdict.memory;
        if self.is_ending(&views) {
            return;
        }
        let Some(threshold) = verdict.act else { return };
        warn!(signal = threshold.signal.name(), "the node runs short, making room");
        let words = format!("Attempting to reclaim {}", threshold.signal.resource());
        let (node, uid) = (&self.shared.config.node_name, self.shared.node_uid());
        self.shared.events.node(node, &uid, Kind::Warning, "EvictionThresholdMet", words);
        if threshold.signal.pressure() == Pressure::Disk {
            self.make_room(&views).await;
            let images = self.image_room().await;
            let again = judge(&self.settings, &self.observe(images), &self.memory, Instant::now());
            let Some(still) = again.act else { return };
            return self.evict(&still, &views).await;
        }
        self.evict(&threshold, &views).await;
    }

    fn tell(&self, pressures: &Pressures) {
        self.pressures.send_if_modified(|told| {
            let changed = told != pressures;
            if changed {
                info!(?pressures, "the node's pressures changed");
                told.clone_from(pressures);
            }
            changed
        });
    }

    /// The file system of images, where the runtime tells of it.
    async fn image_room(&mut self) -> Option<Room> {
        let known = self.image_place.as_ref().filter(|(_, at)| at.elapsed() < IMAGE_PLACE_FOR);
        let place = match known {
            Some((place, _)) => place.clone(),
            None => {
                // A runtime that does not tell is asked again as rarely.
                let told = self.shared.runtime.image_fs().await.ok().flatten();
                let place = told.and_then(|(images, _)| Some(PathBuf::from(images?.fs_id?.mountpoint)));
                self.image_place = Some((place.clone(), Instant::now()));
                place
            }
        };
        Room::of(&place?)
    }

    fn observe(&self, images: Option<Room>) -> Observed {
        let host = self.shared.stats.host();
        let mut observed = Observed::new();
        let (available, capacity) = host.memory();
        // A machine that does not tell has not run out.
        if capacity > 0 {
            observed.insert(Signal::MemoryAvailable, Observation { available, capacity });
        }
        let (used, capacity) = host.processes();
        observed.insert(Signal::PidAvailable, Observation { available: capacity.saturating_sub(used), capacity });
        let rooms = [
            (Room::of(&host.data_dir), Signal::NodeFsAvailable, Signal::NodeFsInodesFree),
            (images, Signal::ImageFsAvailable, Signal::ImageFsInodesFree),
        ];
        for (room, bytes, inodes) in rooms {
            let Some(room) = room else { continue };
            observed.insert(bytes, Observation { available: room.available_bytes, capacity: room.capacity_bytes });
            // Some file systems do not count files.
            if room.inodes > 0 {
                observed.insert(inodes, Observation { available: room.inodes_free, capacity: room.inodes });
            }
        }
        observed
    }

    /// Whether the pod that was told to go still takes what it took.
    fn is_ending(&mut self, views: &BTreeMap<String, PodView>) -> bool {
        let Some((uid, since)) = &self.ending else { return false };
        let lives = views.get(uid).is_some_and(|view| lives(&view.seen));
        if lives && since.elapsed() < END_PATIENCE {
            return true;
        }
        self.ending = None;
        false
    }

    /// What nobody misses goes first.
    async fn make_room(&mut self, views: &BTreeMap<String, PodView>) {
        for (uid, view) in views {
            let over = self.evicted.contains(uid) || is_terminal(&view.pod);
            for (id, name, attempt) in spent(&view.seen, over) {
                match self.shared.runtime.remove_container(&id).await {
                    Ok(()) => {
                        info!(pod = %view.pod.reference(), container = name, "an ended container makes room");
                        let folder = self.shared.config.log_dir.join(log_folder(&view.pod)).join(&name);
                        crate::logs::remove(&folder, &format!("{attempt}.log"));
                    }
                    Err(error) => warn!(container = id, error = %chain(&error), "an ended container stays"),
                }
            }
        }
        self.images.remove_unused(&self.shared).await;
    }

    async fn evict(&mut self, threshold: &Threshold, views: &BTreeMap<String, PodView>) {
        let signal = threshold.signal;
        let snapshot = match self.shared.stats.usage().await {
            Ok(snapshot) => snapshot,
            Err(error) => return warn!(error = %chain(&error), "no pod can be chosen, the runtime does not tell"),
        };
        let disks = match signal.pressure() {
            Pressure::Disk => self.shared.stats.walk().await,
            Pressure::Memory | Pressure::Pids => Disks::default(),
        };
        let mut candidates: Vec<Candidate> = views
            .iter()
            .filter(|(uid, view)| lives(&view.seen) && !self.evicted.contains(*uid) && may_go(view))
            .map(|(uid, view)| candidate(uid, view, &snapshot, &disks))
            .collect();
        rank::rank(signal, &mut candidates);
        let Some(chosen) = candidates.first() else {
            return warn!(signal = signal.name(), "the node runs short, and there is no pod that may be evicted");
        };
        let images = self.image_room().await;
        let observed = self.observe(images).get(&signal).copied();
        let message = rank::message(threshold, observed, chosen);
        let grace_seconds = match (threshold.grace, views.get(&chosen.uid)) {
            (Some(_), Some(view)) => grace_seconds(&view.pod).min(self.settings.max_pod_grace_seconds),
            _ => HARD_GRACE_SECONDS,
        };
        self.shared.counters.evicted(signal.name());
        self.evicted.insert(chosen.uid.clone());
        self.ending = Some((chosen.uid.clone(), Instant::now()));
        let uid = chosen.uid.clone();
        let termination = Termination { uid, grace_seconds, reason: EVICTED, message, is_event: true };
        // Where nobody takes it, the agent ends.
        let _ = self.orders.send(Order::End(termination)).await;
    }
}

fn lives(seen: &Seen) -> bool {
    seen.containers.iter().any(crate::pod::seen::Container::is_alive)
}

/// Neither what keeps the cluster going nor what would only be started again from its manifest.
fn may_go(view: &PodView) -> bool {
    let critical = view.pod.i64_at("/spec/priority").is_some_and(|p| p >= rank::CRITICAL_PRIORITY);
    let is_static = view.pod.annotation(SOURCE_ANNOTATION) == Some("file");
    !critical && !is_static && view.pod.deletion_timestamp().is_none() && !is_terminal(&view.pod)
}

/// Containers whose records nobody needs: all that have ended of a pod that is over; of others, all but the last run of
/// each name. By id, name and attempt.
fn spent(seen: &Seen, over: bool) -> Vec<(String, String, u32)> {
    let names: BTreeSet<&str> = seen.containers.iter().map(|c| c.name.as_str()).collect();
    let kept = usize::from(!over);
    let runs = names.into_iter().flat_map(|name| seen.runs(name).into_iter().skip(kept));
    runs.filter(|c| c.state == State::Exited).map(|c| (c.id.clone(), c.name.clone(), c.attempt)).collect()
}

fn candidate(uid: &str, view: &PodView, snapshot: &Snapshot, disks: &Disks) -> Candidate {
    let mut candidate = Candidate::of(&view.pod);
    let on_disk = disks.pods.get(uid).cloned().unwrap_or_default();
    // A pod of which nothing is told takes nothing that its end would give back.
    let Some(used) = snapshot.pods.iter().find(|pod| pod.uid == uid) else { return candidate };
    let total = summary::total(used, &on_disk);
    let memory = |used: &crate::stats::Use| used.memory.working_set_bytes.map_or(0, |v| v.value);
    candidate.memory_bytes = memory(&used.used);
    (candidate.disk_bytes, candidate.inodes) = (total.bytes, total.files);
    candidate.processes = used.processes.unwrap_or(0);
    for container in &mut candidate.containers {
        let Some(found) = used.containers.iter().find(|c| c.name == container.name) else { continue };
        let logs = on_disk.logs.get(&container.name).copied().unwrap_or_default();
        container.memory_bytes = memory(&found.used);
        container.disk_bytes = summary::layer(found).bytes.saturating_add(logs.bytes);
    }
    candidate
}
