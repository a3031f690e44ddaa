//! Images that nobody uses are removed when their disk fills: the longest unused first, never a young or a pinned one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gantry_cri::v1;
use gantry_env::chain;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{info, warn};

use super::thresholds::ImageLimits;
use crate::events::Kind;
use crate::pods::views::PodView;
use crate::shared::Shared;
use crate::stats::host::Room;

pub mod report;

use report::{Disk, Fate, Report, Verdict};

/// As the kubelet does.
const COLLECT_EVERY: Duration = Duration::from_secs(300);

/// What is known of one image.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    pub id: String,
    pub names: Vec<String>,
    pub bytes: u64,
    pub pinned: bool,
    /// Who uses it, in words.
    pub used_by: BTreeSet<String>,
    pub first_seen: Instant,
    pub last_used: Option<Instant>,
}

/// What becomes of each image where `wanted` bytes are to become free: those that go, in their order, then those that
/// stay. Pure.
pub fn judge(images: &[Known], wanted: u64, age_min: Duration, now: Instant) -> Vec<(&Known, Fate)> {
    let age = |image: &Known| now.duration_since(image.first_seen);
    let stays = |image: &Known| match image {
        image if !image.used_by.is_empty() => Some(Fate::Used { by: image.used_by.iter().cloned().collect() }),
        image if image.pinned => Some(Fate::Pinned),
        image if age(image) < age_min => Some(Fate::Young { seconds: (age_min - age(image)).as_secs() }),
        _ => None,
    };
    let mut unused: Vec<&Known> = images.iter().filter(|image| stays(image).is_none()).collect();
    // One that was never used is as old as it is known.
    unused.sort_by_key(|image| (image.last_used.unwrap_or(image.first_seen), image.first_seen, image.id.clone()));
    let mut freed = 0_u64;
    let by_need = unused.into_iter().map(|image| {
        let fate = if freed < wanted { Fate::Goes } else { Fate::Enough };
        freed = freed.saturating_add(image.bytes);
        (image, fate)
    });
    let mut judged: Vec<(&Known, Fate)> = by_need.collect();
    judged.extend(images.iter().filter_map(|image| Some((image, stays(image)?))));
    judged
}

/// Which images to remove so that `wanted` bytes become free, in that order. Pure.
pub fn plan(images: &[Known], wanted: u64, age_min: Duration, now: Instant) -> Vec<String> {
    let judged = judge(images, wanted, age_min, now).into_iter();
    judged.filter(|(_, fate)| *fate == Fate::Goes).map(|(image, _)| image.id.clone()).collect()
}

/// How much is to become free: nothing below the high mark, and down to the low one above it. A mark of 100 % is none.
pub fn wanted(room: &Room, limits: &ImageLimits) -> Option<u64> {
    if limits.high_percent >= 100 || used_percent(room) < limits.high_percent {
        return None;
    }
    let free = u128::from(room.capacity_bytes) * u128::from(100 - limits.low_percent.min(100)) / 100;
    Some(u64::try_from(free).unwrap_or(u64::MAX).saturating_sub(room.available_bytes))
}

fn used_percent(room: &Room) -> u8 {
    let percent = u128::from(room.used_bytes()) * 100 / u128::from(room.capacity_bytes.max(1));
    u8::try_from(percent).unwrap_or(100)
}

/// One who asks from outside what becomes of the images, and lets go those that may.
#[derive(Debug)]
pub struct Ask {
    pub remove: bool,
    pub answer: oneshot::Sender<Option<Report>>,
}

/// Remembers when images were used.
pub struct Collector {
    limits: ImageLimits,
    records: BTreeMap<String, (Instant, Option<Instant>)>,
    collected_at: Option<Instant>,
}

impl Collector {
    pub fn new(limits: ImageLimits) -> Collector {
        Collector { limits, records: BTreeMap::new(), collected_at: None }
    }

    /// Every few minutes: notes what is used, and keeps the disk below its mark.
    pub async fn keep(&mut self, shared: &Shared, room: Room) {
        if self.collected_at.is_some_and(|at| at.elapsed() < COLLECT_EVERY) {
            return;
        }
        self.collected_at = Some(Instant::now());
        let Some(images) = self.look(shared).await else { return };
        let Some(wanted) = wanted(&room, &self.limits) else { return };
        let chosen = plan(&images, wanted, self.limits.age_min, Instant::now());
        let freed = self.remove(shared, &images, &chosen).await;
        if freed < wanted {
            let words = format!(
                "Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, but only found \
                 {freed} bytes eligible to free."
            );
            let node = &shared.config.node_name;
            shared.events.node(node, &shared.node_uid(), Kind::Warning, "FreeDiskSpaceFailed", words);
        }
    }

    /// All that may go.
    pub async fn remove_unused(&mut self, shared: &Shared) {
        let Some(images) = self.look(shared).await else { return };
        let chosen = plan(&images, u64::MAX, self.limits.age_min, Instant::now());
        self.remove(shared, &images, &chosen).await;
    }

    /// What would become of each image if all went that may go now.
    pub async fn explain(&mut self, shared: &Shared, room: Option<Room>) -> Option<Report> {
        let images = self.look(shared).await?;
        let (now, age_min) = (Instant::now(), self.limits.age_min);
        let short = room.as_ref().and_then(|room| wanted(room, &self.limits));
        let by_itself = plan(&images, short.unwrap_or(0), age_min, now);
        let verdict = |(image, fate): (&Known, Fate)| Verdict {
            id: image.id.clone(),
            names: image.names.clone(),
            bytes: image.bytes,
            fate,
            by_itself: by_itself.contains(&image.id),
        };
        let disk = room.map(|room| Disk {
            used_percent: used_percent(&room),
            high_percent: self.limits.high_percent,
            low_percent: self.limits.low_percent,
            wanted_bytes: short,
        });
        let images = judge(&images, u64::MAX, age_min, now).into_iter().map(verdict).collect();
        Some(Report { images, disk, failed: Vec::new() })
    }

    /// Removes all that may go now, and tells of it as [`Collector::explain`] would have.
    pub async fn prune(&mut self, shared: &Shared, room: Option<Room>) -> Option<Report> {
        let mut report = self.explain(shared, room).await?;
        let chosen: Vec<String> =
            report.images.iter().filter(|image| image.fate == Fate::Goes).map(|image| image.id.clone()).collect();
        self.remove(shared, &[], &chosen).await;
        let left = shared.runtime.list_images().await.unwrap_or_default();
        report.failed = chosen.into_iter().filter(|id| left.iter().any(|image| image.id == *id)).collect();
        Some(report)
    }

    async fn remove(&mut self, shared: &Shared, images: &[Known], chosen: &[String]) -> u64 {
        let mut freed = 0_u64;
        for id in chosen {
            match shared.runtime.remove_image(id).await {
                Ok(()) => {
                    info!(image = id, "an unused image makes room");
                    let bytes = images.iter().find(|image| image.id == *id).map_or(0, |image| image.bytes);
                    freed = freed.saturating_add(bytes);
                    self.records.remove(id);
                }
                Err(error) => warn!(image = id, error = %chain(&error), "an unused image stays"),
            }
        }
        freed
    }

    /// The images as they are now, and who uses them.
    async fn look(&mut self, shared: &Shared) -> Option<Vec<Known>> {
        let read = async {
            let mut users = shared.runtime.users_of_images().await?;
            for (pod, reference) in volumes(shared) {
                if let Some(image) = shared.runtime.image(&reference).await? {
                    users.entry(image.image_ref).or_default().insert(format!("pod {pod}, as a volume"));
                }
            }
            Ok((shared.runtime.list_images().await?, users))
        };
        let (images, users): (Vec<v1::Image>, BTreeMap<String, BTreeSet<String>>) = match read.await {
            Ok(both) => both,
            Err(error) => {
                let error: crate::runtime::RuntimeError = error;
                tracing::debug!(error = %chain(&error), "images are not looked at");
                return None;
            }
        };
        let now = Instant::now();
        self.records.retain(|id, _| images.iter().any(|image| image.id == *id));
        let known = |image: v1::Image| {
            let called = image.repo_tags.iter().chain(&image.repo_digests).chain([&image.id]);
            let used_by: BTreeSet<String> = called.filter_map(|name| users.get(name)).flatten().cloned().collect();
            let record = self.records.entry(image.id.clone()).or_insert((now, None));
            if !used_by.is_empty() {
                record.1 = Some(now);
            }
            let (first_seen, last_used) = *record;
            let names = gantry_cri::names(&image);
            Known { id: image.id, names, bytes: image.size, pinned: image.pinned, used_by, first_seen, last_used }
        };
        Some(images.into_iter().map(known).collect())
    }
}

/// Images that pods mount as volumes, which no list of containers tells of: the pod, and what it calls the image.
fn volumes(shared: &Shared) -> Vec<(String, String)> {
    let reference = |volume: &Value| volume["image"]["reference"].as_str().map(str::to_owned);
    let of_pod = |view: &PodView| {
        let pod = view.pod.reference().to_string();
        let references = view.pod.array_at("/spec/volumes").iter().filter_map(reference);
        references.map(|reference| (pod.clone(), reference)).collect::<Vec<_>>()
    };
    shared.views.all().values().flat_map(of_pod).collect()
}
