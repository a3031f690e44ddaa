//! What pods and images take of the disk, found by walking: volumes, logs, and what the runtime says of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gantry_cri::v1;
use serde_json::Value;
use tracing::debug;

use super::host::Room;
use crate::pod::cri::log_folder;
use crate::pods::views::Views;
use crate::runtime::Runtime;
use crate::volume::usage::{Walked, walk as walk_folder};
use crate::volume::{Volumes, is_mount_point};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeUse {
    pub name: String,
    pub used: Walked,
    /// Of the file system that it is on.
    pub room: Room,
    /// It takes nothing of the node's disk.
    pub in_memory: bool,
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
        let volumes = self.volumes.iter().filter(|v| !v.in_memory).map(|v| v.used);
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
    /// Names, folders, and whether they are in memory.
    volumes: Vec<(String, PathBuf, bool)>,
}

/// Kinds that lie in folders of the agent's own; others' sizes are not the pod's.
const OWN_KINDS: [&str; 5] = ["emptyDir", "configMap", "secret", "projected", "downwardAPI"];

fn places(views: &Views, volumes: &Volumes, log_dir: &Path) -> Vec<Places> {
    let own = |v: &&Value| OWN_KINDS.iter().any(|kind| v[*kind].is_object());
    let of = |pod: &gantry_kube::Object| {
        let volume = |v: &Value| {
            let in_memory =
                v["emptyDir"]["medium"] == "Memory" || v["secret"].is_object() || v["projected"].is_object();
            (v["name"].as_str().unwrap_or("").to_owned(), volumes.host_path(pod, v), in_memory)
        };
        let all = gantry_kube::pod::containers(pod).iter().chain(gantry_kube::pod::init_containers(pod));
        Places {
            uid: pod.uid().to_owned(),
            logs: log_dir.join(log_folder(pod)),
            containers: all.filter_map(|c| c["name"].as_str().map(str::to_owned)).collect(),
            volumes: pod.array_at("/spec/volumes").iter().filter(own).map(volume).collect(),
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

fn look(places: Places) -> (String, PodDisk) {
    let volume = |(name, path, in_memory): (String, PathBuf, bool)| {
        let room = Room::of(&path)?;
        // A tmpfs knows by itself what is in it.
        let used = match in_memory && is_mount_point(&path) {
            true => Walked { bytes: room.used_bytes(), files: room.inodes_used() },
            false => walk_folder(&path).unwrap_or_default(),
        };
        Some(VolumeUse { name, used, room, in_memory })
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
