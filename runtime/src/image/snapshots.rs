//! Layers on disk, by chain id, and the folders of containers.
//!
//! ```text
//! <snapshots>/<chain id>/fs        a layer's files; <chain id>/layer.json: its usage; <chain id>/blob: as it came
//! <snapshots>/l/<16 digits>        short names of the same folders, for overlay's options
//! <snapshots>/c/<container>/       upper, work, merged, rootfs.json; volumes/<n>: those that its image declares
//! <snapshots>/ingest/<random>/     a layer that is being written
//! <snapshots>/trash/<random>       what is being removed
//! ```
//! A layer's folder appears by one rename, complete. It counts only while the record of images, a container or a pull
//! names it: what a crash left over is removed at start. The record names a layer only after the filesystem was synced
//! (see `store.rs`), so that a layer which outlived a power cut unsynced is never trusted.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::fault::{Point, point};

use super::digest::Digest;
use super::disk::{names, open_folder, private_folder, remove_below, write_atomically};
use super::error::ImageError;
use super::rootfs::{ContainerRecord, Rootfs};
use super::unpack::is_opaque;
use super::usage::{Usage, measure};

const LINK_DIGITS: usize = 16;
const BLOB: &str = "blob";
/// What an image without layers stands on.
const EMPTY: &str = "empty";

/// The folder, and every step on it. Holds no state: what is in use is the store's to know.
#[derive(Clone, Debug)]
pub(super) struct Snapshots {
    base: PathBuf,
    sweep: Arc<Mutex<Sweep>>,
}

/// Of the trash.
#[derive(Debug, Default, PartialEq, Eq)]
enum Sweep {
    #[default]
    Idle,
    Running,
    /// What was discarded since the last one began may have been overlooked.
    Asked,
}

/// A layer as it came, compressed or not: kept so that it can be given on byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Blob {
    pub digest: Digest,
    pub size: u64,
}

/// `layer.json`.
#[derive(Serialize, Deserialize)]
struct LayerFile {
    #[serde(flatten)]
    usage: Usage,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blob: Option<Blob>,
}

/// A layer being written; dropped without [`Ingest::commit`], it is removed.
pub(super) struct Ingest {
    snapshots: Snapshots,
    name: String,
    blob: Option<Blob>,
    /// Or gone: nothing is left to remove.
    committed: bool,
}

pub(super) fn short_name(chain: &Digest) -> String {
    format!("l/{}", &chain.hex()[..LINK_DIGITS])
}

/// Names of layers as overlayfs wants them, topmost first.
fn lower(chains: &[Digest]) -> Vec<String> {
    match chains {
        [] => vec![EMPTY.to_owned()],
        chains => chains.iter().rev().map(short_name).collect(),
    }
}

impl Snapshots {
    pub(super) fn open(base: &Path) -> Result<Snapshots, ImageError> {
        private_folder(base)?;
        // Symbolic links in the path must not move under the names that mounts were given.
        let base = fs::canonicalize(base).map_err(|e| ImageError::disk("resolve", base, e))?;
        for folder in ["l", "c", "ingest", "trash"] {
            private_folder(&base.join(folder))?;
        }
        let empty = base.join(EMPTY);
        make_folder(&empty, 0o755)?;
        Ok(Snapshots { base, sweep: Arc::default() })
    }

    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    /// The layers that are there, whole.
    pub(super) fn layers(&self) -> Result<Vec<(Digest, Usage)>, ImageError> {
        let mut layers = Vec::new();
        for name in names(&self.base)? {
            let Ok(chain) = format!("sha256:{name}").parse::<Digest>() else { continue };
            match self.layer_file(&chain) {
                Some(file) if self.layer_folder(&chain).is_dir() => layers.push((chain, file.usage)),
                _ => tracing::warn!(layer = %chain, "a layer on disk is incomplete"),
            }
        }
        Ok(layers)
    }

    fn layer_file(&self, chain: &Digest) -> Option<LayerFile> {
        let bytes = fs::read(self.base.join(chain.hex()).join("layer.json")).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// What was kept of a layer, and where.
    pub(super) fn blob(&self, chain: &Digest) -> Option<(Blob, PathBuf)> {
        let blob = self.layer_file(chain)?.blob?;
        Some((blob, self.base.join(chain.hex()).join(BLOB)))
    }

    pub(super) fn layer_folder(&self, chain: &Digest) -> PathBuf {
        self.base.join(chain.hex()).join("fs")
    }

    pub(super) fn ingest(&self, random: &str) -> Result<Ingest, ImageError> {
        let name = format!("ingest/{random}");
        let ingest = Ingest { snapshots: self.clone(), name, blob: None, committed: false };
        private_folder(&ingest.path())?;
        make_folder(&ingest.folder(), 0o755)?;
        private_folder(&ingest.aside())?;
        Ok(ingest)
    }

    /// Moves something out of sight in one step; [`Snapshots::empty_trash`] removes it in its own time.
    fn discard(&self, name: &str, random: &str) -> Result<(), ImageError> {
        let (from, to) = (self.base.join(name), self.base.join("trash").join(random));
        point(Point::Discard);
        match fs::rename(&from, &to) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(ImageError::disk("discard", &from, e)),
            _ => Ok(()),
        }
    }

    pub(super) fn discard_layer(&self, chain: &Digest, random: &str) -> Result<(), ImageError> {
        let link = self.base.join(short_name(chain));
        point(Point::Discard);
        match fs::remove_file(&link) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(ImageError::disk("remove", &link, e)),
            _ => {}
        }
        self.discard(chain.hex(), random)
    }

    /// Has the trash emptied by a thread that nobody waits for: removal of big trees takes its time, and a crash leaves it to
    /// the next start. However many ask meanwhile, there is one thread.
    pub(super) fn empty_trash(&self) {
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                let snapshots = self.clone();
                drop(runtime.spawn_blocking(move || snapshots.empty_trash_here()));
            }
            Err(_) => self.empty_trash_here(),
        }
    }

    /// The same by the caller, if nobody is at it.
    pub(super) fn empty_trash_here(&self) {
        match std::mem::replace(&mut *self.sweep.lock(), Sweep::Asked) {
            Sweep::Idle => {}
            Sweep::Running | Sweep::Asked => return,
        }
        while self.is_asked() {
            if let Err(error) = self.remove_trash() {
                tracing::warn!(error = %gantry_env::chain(&error), "trash stays for now");
            }
        }
    }

    /// Whether somebody asked since the last sweep began.
    fn is_asked(&self) -> bool {
        let mut sweep = self.sweep.lock();
        *sweep = if *sweep == Sweep::Asked { Sweep::Running } else { Sweep::Idle };
        *sweep == Sweep::Running
    }

    fn remove_trash(&self) -> Result<(), ImageError> {
        let trash = self.base.join("trash");
        names(&trash)?.iter().try_for_each(|name| {
            point(Point::TrashEmpty);
            remove_below(&trash, name)
        })
    }

    /// At start: what was being written when the process ended, folders that are none of ours to keep, dead links.
    pub(super) fn sweep(&self, mut random: impl FnMut() -> String) -> Result<(), ImageError> {
        for name in names(&self.base.join("ingest"))? {
            self.discard(&format!("ingest/{name}"), &random())?;
        }
        let whole: Vec<Digest> = self.layers()?.into_iter().map(|(chain, _)| chain).collect();
        for name in names(&self.base)? {
            let chain = format!("sha256:{name}").parse::<Digest>();
            if chain.is_ok_and(|chain| !whole.contains(&chain)) {
                self.discard(&name, &random())?;
            }
        }
        for name in names(&self.base.join("l"))? {
            let link = self.base.join("l").join(name);
            if !link.exists() {
                fs::remove_file(&link).map_err(|e| ImageError::disk("remove", &link, e))?;
            }
        }
        whole.iter().try_for_each(|chain| self.link(chain))
    }

    fn link(&self, chain: &Digest) -> Result<(), ImageError> {
        let link = self.base.join(short_name(chain));
        let target = PathBuf::from(format!("../{}/fs", chain.hex()));
        let failed = |e| ImageError::disk("make the link", &link, e);
        match symlink(&target, &link) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                // Two chain ids with the same sixteen digits do not happen by chance.
                let same = fs::read_link(&link).map_err(failed)? == target;
                if same { Ok(()) } else { Err(failed(e)) }
            }
            result => result.map_err(failed),
        }
    }

    /// The containers that have folders here, with what they stand on.
    pub(super) fn containers(&self) -> Result<Vec<(String, Option<ContainerRecord>)>, ImageError> {
        let folder = self.base.join("c");
        let record = |name: &str| {
            let bytes = fs::read(folder.join(name).join("rootfs.json")).ok()?;
            serde_json::from_slice(&bytes).ok()
        };
        Ok(names(&folder)?.into_iter().map(|name| (name.clone(), record(&name))).collect())
    }

    pub(super) fn rootfs(&self, container: &str, record: &ContainerRecord) -> Rootfs {
        Rootfs::new(&self.base, container, &self.shown(&record.chains))
    }

    /// The layers that an overlay shows, topmost first. One that hides all that is below its root ends them: the kernel heeds
    /// that mark on any folder but the root.
    fn shown(&self, chains: &[Digest]) -> Vec<String> {
        let mut names = lower(chains);
        if let Some(opaque) = names.iter().position(|name| is_opaque(&self.base.join(name))) {
            names.truncate(opaque + 1);
        }
        names
    }

    /// Where layers lie, topmost first.
    pub(super) fn folders(&self, chains: &[Digest]) -> Vec<PathBuf> {
        self.shown(chains).into_iter().map(|name| self.base.join(name)).collect()
    }

    /// Makes a container's folders. No fsync: they mean nothing after a reboot.
    pub(super) fn make_container(&self, container: &str, record: &ContainerRecord) -> Result<Rootfs, ImageError> {
        let rootfs = self.rootfs(container, record);
        let own = self.base.join("c").join(container);
        let made = (|| {
            point(Point::SnapshotMake);
            private_folder(&own)?;
            let content = serde_json::to_vec(record)
                .map_err(|source| ImageError::Record { path: own.join("rootfs.json"), source })?;
            write_atomically(&own.join("rootfs.json"), &content, false)?;
            point(Point::SnapshotMake);
            make_folder(&rootfs.upper, 0o755)?;
            make_folder(&rootfs.work, 0o700)?;
            point(Point::SnapshotMake);
            make_folder(&rootfs.merged, 0o755)
        })();
        if made.is_err() {
            let _ = remove_below(&self.base.join("c"), container);
        }
        made.map(|()| rootfs)
    }

    pub(super) fn discard_container(&self, container: &str, random: &str) -> Result<(), ImageError> {
        point(Point::SnapshotUnmount);
        Rootfs::unmount(&self.base.join("c").join(container).join("merged"))?;
        self.discard(&format!("c/{container}"), random)
    }

    /// What a container wrote, over its image and to the volumes that this declares.
    pub(super) fn container_usage(&self, container: &str) -> Result<Usage, ImageError> {
        let own = self.base.join("c").join(container);
        let mut usage = measure(open_folder(&own.join("upper"))?);
        if let Ok(volumes) = open_folder(&own.join("volumes")) {
            usage += measure(volumes);
        }
        Ok(usage)
    }
}

impl Ingest {
    fn path(&self) -> PathBuf {
        self.snapshots.base.join(&self.name)
    }

    /// As dropping it, for whoever must not wait until all of it is removed.
    pub(super) fn discard(mut self) {
        let name = self.name.trim_start_matches("ingest/");
        if let Err(error) = self.snapshots.discard(&self.name, name) {
            tracing::warn!(name = %self.name, error = %gantry_env::chain(&error), "an unfinished layer stays until the next start");
        }
        self.committed = true;
        self.snapshots.empty_trash();
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.path().join("fs")
    }

    /// Where an unpacker puts what it replaces.
    pub(super) fn aside(&self) -> PathBuf {
        self.path().join("aside")
    }

    /// Where the layer is kept as it comes.
    pub(super) fn blob(&self) -> PathBuf {
        self.path().join(BLOB)
    }

    /// What is there is whole.
    pub(super) fn keep(&mut self, blob: Blob) {
        self.blob = Some(blob);
    }

    /// Gives the layer its name, and says what it takes; nothing where it is there already. Its content is complete and
    /// verified.
    pub(super) fn commit(mut self, chain: &Digest) -> Result<Option<Usage>, ImageError> {
        let path = self.path();
        remove_below(&path, "aside")?;
        let mut usage = measure(open_folder(&self.folder())?);
        if let Ok(metadata) = fs::metadata(self.blob()) {
            usage += Usage::of(&metadata);
        }
        let content = serde_json::to_vec(&LayerFile { usage, blob: self.blob.take() })
            .map_err(|source| ImageError::Record { path: path.join("layer.json"), source })?;
        write_atomically(&path.join("layer.json"), &content, false)?;
        // The short name first: a dead one is harmless, a layer without one could not be mounted.
        self.snapshots.link(chain)?;
        let to = self.snapshots.base.join(chain.hex());
        point(Point::LayerRename);
        match fs::rename(&path, &to) {
            Err(e) if e.kind() == std::io::ErrorKind::DirectoryNotEmpty => return Ok(None),
            renamed => renamed.map_err(|e| ImageError::disk("commit", &to, e))?,
        }
        self.committed = true;
        Ok(Some(usage))
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        let name = self.name.trim_start_matches("ingest/");
        if let Err(error) = remove_below(&self.snapshots.base.join("ingest"), name) {
            tracing::warn!(name = %self.name, error = %gantry_env::chain(&error), "an unfinished layer stays until the next start");
        }
    }
}

fn make_folder(path: &Path, mode: u32) -> Result<(), ImageError> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        result => result.map_err(|e| ImageError::disk("make the folder", path, e))?,
    }
    // mkdir(2) is subject to the umask.
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|e| ImageError::disk("set the mode of", path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_discarded_while_the_trash_is_emptied_goes_too() {
        let state = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(state.path()).unwrap();
        for n in 0..200 {
            fs::create_dir_all(state.path().join(format!("ingest/{n}/a/b"))).unwrap();
            snapshots.discard(&format!("ingest/{n}"), &n.to_string()).unwrap();
            snapshots.empty_trash();
        }
        let mut tries = 0;
        while *snapshots.sweep.lock() != Sweep::Idle && tries < 1000 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            tries += 1;
        }
        assert_eq!(*snapshots.sweep.lock(), Sweep::Idle);
        assert_eq!(names(&state.path().join("trash")).unwrap(), Vec::<String>::new());
    }
}
