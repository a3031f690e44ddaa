//! What pods and images take of the disk, found by walking: volumes, logs, and what the runtime says of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gantry_cri::v1;
use gantry_kube::storage::claim_use;
use serde_json::Value;
use tracing::debug;

use super::host::Room;
use crate::pod::cri::log_folder;
use crate::pods::views::Views;
use crate::runtime::Runtime;
use crate::volume::usage::{Walked, walk as walk_folder};
use crate::volume::{Volumes, is_mount_point};

/// Whose bytes those of a volume are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lies {
    /// The pod's, on the node's disk.
    OnDisk,
    InMemory,
    /// A claim's, by its name; what is told of it is told of its whole file system.
    InClaim(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeUse {
    pub name: String,
    pub used: Walked,
    /// Of the file system that it is on.
    pub room: Room,
    pub lies: Lies,
}

/// One pod's part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodDisk {
    pub volumes: Vec<VolumeUse>,
    /// By container name.
    pub logs: BTreeMap<String, Walked>,
}

impl PodDisk {
    /// Of the node's disk, the containers' layers apart.
    pub fn total(&self) -> Walked {
        let volumes = self.volumes.iter().filter(|v| v.lies == Lies::OnDisk).map(|v| v.used);
        volumes.chain(self.logs.values().copied()).fold(Walked::default(), |mut sum, one| {
            sum.bytes = sum.bytes.saturating_add(one.bytes);
            sum.files = sum.files.saturating_add(one.files);
            sum
        })
    }
}

/// The file system of images and layers, and what is used of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageDisk {
    pub mountpoint: PathBuf,
    pub room: Room,
    pub images: Walked,
    pub containers: Walked,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Disks {
    /// By uid.
    pub pods: BTreeMap<String, PodDisk>,
    pub images: Option<ImageDisk>,
}

/// What is looked at of one pod.
struct Places {
    uid: String,
    logs: PathBuf,
    containers: Vec<String>,
    volumes: Vec<(String, PathBuf, Lies)>,
}

/// Kinds that lie in folders of the agent's own; others' sizes are nobody's here.
const OWN_KINDS: [&str; 5] = ["emptyDir", "configMap", "secret", "projected", "downwardAPI"];

fn lies(pod: &str, volume: &Value) -> Option<Lies> {
    if let Some(used) = claim_use(pod, volume) {
        return Some(Lies::InClaim(used.claim));
    }
    if !OWN_KINDS.iter().any(|kind| volume[*kind].is_object()) {
        return None;
    }
    let in_memory = volume["emptyDir"]["medium"] == "Memory";
    let is_secret = volume["secret"].is_object() || volume["projected"].is_object();
    Some(if in_memory || is_secret { Lies::InMemory } else { Lies::OnDisk })
}

fn places(views: &Views, volumes: &Volumes, log_dir: &Path) -> Vec<Places> {
    let of = |pod: &gantry_kube::Object| {
        let volume = |v: &Value| {
            let lies = lies(pod.name(), v)?;
            Some((v["name"].as_str().unwrap_or("").to_owned(), volumes.host_path(pod, v), lies))
        };
        let all = gantry_kube::pod::containers(pod).iter().chain(gantry_kube::pod::init_containers(pod));
        Places {
            uid: pod.uid().to_owned(),
            logs: log_dir.join(log_folder(pod)),
            containers: all.filter_map(|c| c["name"].as_str().map(str::to_owned)).collect(),
            volumes: pod.array_at("/spec/volumes").iter().filter_map(volume).collect(),
        }
    };
    views.all().values().map(|view| of(&view.pod)).collect()
}

/// Looks at every pod's folders, one after the other. What cannot be looked at counts as nothing.
pub async fn walk(runtime: &Runtime, views: &Views, volumes: &Volumes, log_dir: &Path) -> Disks {
    let places = places(views, volumes, log_dir);
    let pods = tokio::task::spawn_blocking(move || places.into_iter().map(look).collect()).await.unwrap_or_default();
    let images = match runtime.image_fs().await {
        Ok(info) => info.and_then(|(images, containers)| image_disk(images.as_ref(), containers.as_ref())),
        Err(error) => {
            debug!(error = %gantry_env::chain(&error), "the runtime's disk is not known");
            None
        }
    };
    Disks { pods, images }
}

/// The volumes of claims alone, which nothing has to be walked for.
pub async fn claims(views: &Views, volumes: &Volumes) -> Disks {
    let mut places = places(views, volumes, Path::new(""));
    for place in &mut places {
        place.containers.clear();
        place.volumes.retain(|(_, _, lies)| matches!(lies, Lies::InClaim(_)));
    }
    let looked = tokio::task::spawn_blocking(move || places.into_iter().map(look).collect());
    Disks { pods: looked.await.unwrap_or_default(), images: None }
}

fn look(places: Places) -> (String, PodDisk) {
    let volume = |(name, path, lies): (String, PathBuf, Lies)| {
        let room = Room::of(&path)?;
        let whole = match lies {
            Lies::OnDisk => false,
            // A tmpfs knows by itself what is in it.
            Lies::InMemory => is_mount_point(&path),
            Lies::InClaim(_) => true,
        };
        let used = match whole {
            true => Walked { bytes: room.used_bytes(), files: room.inodes_used() },
            false => walk_folder(&path).unwrap_or_default(),
        };
        Some(VolumeUse { name, used, room, lies })
    };
    let log = |name: String| {
        let used = walk_folder(&places.logs.join(&name)).unwrap_or_default();
        (name, used)
    };
    let logs = places.containers.into_iter().map(log).collect();
    (places.uid, PodDisk { volumes: places.volumes.into_iter().filter_map(volume).collect(), logs })
}

fn image_disk(images: Option<&v1::FilesystemUsage>, containers: Option<&v1::FilesystemUsage>) -> Option<ImageDisk> {
    let used = |usage: Option<&v1::FilesystemUsage>| {
        let number = |value: Option<v1::UInt64Value>| value.map_or(0, |v| v.value);
        usage.map_or(Walked::default(), |u| Walked { bytes: number(u.used_bytes), files: number(u.inodes_used) })
    };
    let mountpoint = PathBuf::from(&images?.fs_id.as_ref()?.mountpoint);
    let room = Room::of(&mountpoint)?;
    Some(ImageDisk { mountpoint, room, images: used(images), containers: used(containers) })
}
