//! Images that nobody uses are removed when their disk fills: the longest unused first, never a young or a pinned one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gantry_cri::v1;
use gantry_env::chain;
use serde_json::Value;
use tokio::time::Instant;
use tracing::{info, warn};

use super::thresholds::ImageLimits;
use crate::events::Kind;
use crate::pods::views::PodView;
use crate::shared::Shared;
use crate::stats::host::Room;

/// As the kubelet does.
const COLLECT_EVERY: Duration = Duration::from_secs(300);

/// What is known of one image.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    pub id: String,
    pub bytes: u64,
    pub pinned: bool,
    pub used: bool,
    pub first_seen: Instant,
    pub last_used: Option<Instant>,
}

/// Which images to remove so that `wanted` bytes become free, in that order. Pure.
pub fn plan(images: &[Known], wanted: u64, age_min: Duration, now: Instant) -> Vec<String> {
    let may_go = |image: &&Known| !image.used && !image.pinned && now.duration_since(image.first_seen) >= age_min;
    let mut unused: Vec<&Known> = images.iter().filter(may_go).collect();
    // One that was never used is as old as it is known.
    unused.sort_by_key(|image| (image.last_used.unwrap_or(image.first_seen), image.first_seen, image.id.clone()));
    let mut freed = 0_u64;
    let enough = |image: &&Known| {
        let more = freed < wanted;
        freed = freed.saturating_add(image.bytes);
        more
    };
    unused.into_iter().take_while(enough).map(|image| image.id.clone()).collect()
}

/// How much is to become free: nothing below the high mark, and down to the low one above it. A mark of 100 % is none.
pub fn wanted(room: &Room, limits: &ImageLimits) -> Option<u64> {
    let percent = u128::from(room.used_bytes()) * 100 / u128::from(room.capacity_bytes.max(1));
    if limits.high_percent >= 100 || percent < u128::from(limits.high_percent) {
        return None;
    }
    let free = u128::from(room.capacity_bytes) * u128::from(100 - limits.low_percent.min(100)) / 100;
    Some(u64::try_from(free).unwrap_or(u64::MAX).saturating_sub(room.available_bytes))
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
            let mut in_use = shared.runtime.images_in_use().await?;
            for reference in volumes(shared) {
                in_use.extend(shared.runtime.image(&reference).await?.map(|image| image.image_ref));
            }
            Ok((shared.runtime.list_images().await?, in_use))
        };
        let (images, in_use): (Vec<v1::Image>, BTreeSet<String>) = match read.await {
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
            let names = image.repo_tags.iter().chain(&image.repo_digests).chain([&image.id]);
            let used = names.into_iter().any(|name| in_use.contains(name));
            let record = self.records.entry(image.id.clone()).or_insert((now, None));
            if used {
                record.1 = Some(now);
            }
            let (first_seen, last_used) = *record;
            Known { id: image.id, bytes: image.size, pinned: image.pinned, used, first_seen, last_used }
        };
        Some(images.into_iter().map(known).collect())
    }
}

/// Images that pods mount as volumes, which no list of containers tells of.
fn volumes(shared: &Shared) -> BTreeSet<String> {
    let reference = |volume: &Value| volume["image"]["reference"].as_str().map(str::to_owned);
    let of_pod = |view: &PodView| view.pod.array_at("/spec/volumes").iter().filter_map(reference).collect::<Vec<_>>();
    shared.views.all().values().flat_map(of_pod).collect()
}
