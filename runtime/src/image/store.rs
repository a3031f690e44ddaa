//! What is in use, and what may go: the record of images, the layers on disk, the containers that stand on them.
//!
//! ```text
//! <images>/lock                  held by the one process that writes here
//! <images>/images.json           the record: images, their names and layers
//! <images>/images.copy.json      the same once more, written after it
//! <images>/blobs/sha256/<hex>    manifests and configurations (layers live unpacked, see snapshots.rs)
//! <images>/ingest/<random>/      archives being imported
//! ```
//! Recovery: no kill and no power cut damages the record, but disks do, and what was imported can be had nowhere else: one that
//! cannot be read is set aside, and its copy counts. The copy is that of the present, not of a state before, whose newest
//! image would be missing and its layers removed. The record is replaced atomically, after the blobs and layers that it names were synced. Whatever it does
//! not name, nor a container, was left over by a crash and is removed at start. An image whose layers or configuration
//! are missing is dropped with a warning, so that it is pulled again. The order "sync, then record" holds for every
//! writer: that is why several pulls may share layers that one of them has just unpacked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_env::Env;
use parking_lot::{Mutex, RwLock};

use crate::fault::{Point, point};

use super::Image;
use super::catalog::{Catalog, ImageRecord};
use super::digest::Digest;
use super::disk::{lock, names, private_folder, remove_below, sync_filesystem, write_atomically};
use super::error::ImageError;
use super::install::Gates;
use super::manifest::{Platform, parse_config};
use super::policy::Policy;
use super::rootfs::{ContainerRecord, Rootfs, check_container_id};
use super::snapshots::Snapshots;
use super::usage::Usage;

pub(super) struct Settings {
    /// Whether layers are kept as they came, too.
    pub keeps_blobs: bool,
    pub policy: Policy,
}

pub(super) struct Store {
    folder: PathBuf,
    pub(super) snapshots: Snapshots,
    pub(super) env: Env,
    pub(super) gates: Gates,
    pub(super) settings: Settings,
    state: Mutex<State>,
    /// Held by whoever changes the record of images, while it is on its way to the disk; nobody else waits for that.
    recording: Mutex<()>,
    /// The images as readers see them, who must not wait for a disk: replaced after each change of the record.
    published: RwLock<Arc<Published>>,
    _lock: fs::File,
}

/// The record, and its images with their configurations parsed.
#[derive(Clone, Default)]
struct Published {
    catalog: Catalog,
    images: BTreeMap<Digest, Arc<Image>>,
}

impl Published {
    fn platform(&self, image: &ImageRecord) -> Option<Platform> {
        self.images.get(&image.id)?.platform()
    }

    /// What says nothing of its platform, and was brought for none, is this machine's.
    fn is_for(&self, image: &ImageRecord, platform: &Platform) -> bool {
        let is_own = image.for_platforms.is_empty() && *platform == Platform::host();
        is_own || self.platform(image).is_some_and(|said| platform.fit(&said.offer()) > 0)
    }
}

#[derive(Default)]
struct State {
    catalog: Catalog,
    images: BTreeMap<Digest, Arc<Image>>,
    /// The layers on disk.
    layers: BTreeMap<Digest, Usage>,
    containers: BTreeMap<String, ContainerRecord>,
    /// Layers and blobs that a pull is about to name, with the number of pulls.
    leases: BTreeMap<Digest, usize>,
}

impl State {
    /// Layers that nothing needs any more.
    fn unused_layers(&self) -> Vec<Digest> {
        let mut used: BTreeSet<&Digest> = self.leases.keys().collect();
        used.extend(self.containers.values().flat_map(ContainerRecord::layers));
        let chains: Vec<Digest> = self.catalog.images.values().flat_map(ImageRecord::chains).collect();
        used.extend(&chains);
        self.layers.keys().filter(|chain| !used.contains(chain)).cloned().collect()
    }

    fn used_blobs(&self) -> BTreeSet<String> {
        let named = self.catalog.images.values().flat_map(|image| [&image.id, &image.manifest]);
        named.chain(self.leases.keys()).map(|digest| digest.hex().to_owned()).collect()
    }
}

impl Store {
    pub(super) fn open(folder: &Path, snapshots: &Path, settings: Settings, env: Env) -> Result<Store, ImageError> {
        private_folder(folder)?;
        private_folder(&folder.join("blobs/sha256"))?;
        private_folder(&folder.join("ingest"))?;
        let held = lock(&folder.join("lock"))?;
        let store = Store {
            folder: folder.to_owned(),
            snapshots: Snapshots::open(snapshots)?,
            env,
            gates: Gates::default(),
            settings,
            state: Mutex::new(State::default()),
            recording: Mutex::default(),
            published: RwLock::default(),
            _lock: held,
        };
        store.load()?;
        Ok(store)
    }

    fn load(&self) -> Result<(), ImageError> {
        let mut random = || self.env.rng.uuid();
        self.snapshots.sweep(&mut random)?;
        for name in names(&self.folder.join("ingest"))? {
            remove_below(&self.folder.join("ingest"), &name)?;
        }
        let mut state = self.state.lock();
        state.layers = self.snapshots.layers()?.into_iter().collect();
        for (container, record) in self.snapshots.containers()? {
            match record {
                Some(record) => drop(state.containers.insert(container, record)),
                // Torn by a power cut: the container cannot have outlived it.
                None => self.snapshots.discard_container(&container, &random())?,
            }
        }
        let catalog = self.recorded()?;
        for record in catalog.images.into_values() {
            let whole = record.chains().iter().all(|chain| state.layers.contains_key(chain));
            match self.image(&record) {
                Ok(image) if whole => {
                    state.images.insert(record.id.clone(), Arc::new(image));
                    state.catalog.images.insert(record.id.clone(), record);
                }
                _ => tracing::warn!(image = %record.id, tags = ?record.tags, "an image is incomplete and was dropped"),
            }
        }
        self.publish(&state);
        self.collect(&mut state)?;
        let used = state.used_blobs();
        let blobs = self.folder.join("blobs/sha256");
        for name in names(&blobs)? {
            if !used.contains(&name) {
                remove_below(&blobs, &name)?;
            }
        }
        Ok(())
    }

    fn record_path(&self) -> PathBuf {
        self.folder.join("images.json")
    }

    fn copy_path(&self) -> PathBuf {
        self.folder.join("images.copy.json")
    }

    /// What the record says, or its copy, and afterwards both. A host that runs no container at all would be worse than one
    /// that pulls its images again: where both say nothing there is no image.
    fn recorded(&self) -> Result<Catalog, ImageError> {
        let paths = [self.record_path(), self.copy_path()];
        let (record, copy) = (read_or_set_aside(&paths[0])?, read_or_set_aside(&paths[1])?);
        let catalog = record.as_ref().or(copy.as_ref()).cloned().unwrap_or_default();
        if record.is_none() && copy.is_some() {
            tracing::warn!(copy = %paths[1].display(), "the record of images is made again from its copy");
        }
        for (path, said) in paths.iter().zip([&record, &copy]) {
            // An upgrade finds no copy, and a kill may have come between the two.
            if said.as_ref() != Some(&catalog) && catalog != Catalog::default() {
                write_atomically(path, &encoded(&catalog, path)?, true)?;
            }
        }
        Ok(catalog)
    }

    /// Of a manifest or a configuration.
    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.folder.join("blobs/sha256").join(digest.hex())
    }

    /// A folder for an archive that is being imported; the caller removes it.
    pub(super) fn spool_folder(&self) -> PathBuf {
        self.folder.join("ingest").join(self.env.rng.uuid())
    }

    fn image(&self, record: &ImageRecord) -> Result<Image, ImageError> {
        let path = self.blob_path(&record.id);
        let bytes = fs::read(&path).map_err(|e| ImageError::disk("read", &path, e))?;
        let manifest_error = |source| ImageError::Manifest { image: record.id.to_string(), source };
        let config = parse_config(&bytes).map_err(manifest_error)?;
        Ok(Image { record: record.clone(), chains: record.chains(), config })
    }

    fn publish(&self, state: &State) {
        let published = Published { catalog: state.catalog.clone(), images: state.images.clone() };
        *self.published.write() = Arc::new(published);
    }

    pub(super) fn list(&self) -> Vec<Arc<Image>> {
        self.published.read().images.values().cloned().collect()
    }

    pub(super) fn find(&self, text: &str) -> Option<Arc<Image>> {
        let published = Arc::clone(&self.published.read());
        let id = &published.catalog.find(text)?.id;
        published.images.get(id).cloned()
    }

    /// An image by one of its names, for a platform; where none is said this machine's, or the only one that there is.
    pub(super) fn find_for(&self, text: &str, platform: Option<&Platform>) -> Result<Arc<Image>, ImageError> {
        let published = Arc::clone(&self.published.read());
        let (catalog, own) = (&published.catalog, published.catalog.find(text));
        let found = match platform {
            Some(platform) => catalog.find_for(text, platform).or(own.filter(|own| published.is_for(own, platform))),
            None => own.or_else(|| match catalog.named(text).as_slice() {
                [only] => catalog.images.get(only),
                _ => None,
            }),
        };
        if let Some(image) = found.and_then(|image| published.images.get(&image.id)) {
            return Ok(Arc::clone(image));
        }
        let own = own.map(|own| published.platform(own).unwrap_or_else(Platform::host));
        let others = catalog.for_platforms(text).into_iter().map(|(_, platform)| platform.clone());
        let here: Vec<String> = own.into_iter().chain(others).map(|platform| platform.to_string()).collect();
        let (image, here) = (text.to_owned(), here.join(", "));
        Err(match platform {
            _ if here.is_empty() => ImageError::NotFound(image),
            Some(wanted) => ImageError::NotForPlatform { image, wanted: wanted.to_string(), here },
            None => ImageError::WhichPlatform { image, here },
        })
    }

    /// Keeps layers and blobs from being collected until the lease is dropped.
    pub(super) fn lease(self: &Arc<Store>, digests: Vec<Digest>) -> Lease {
        let mut state = self.state.lock();
        for digest in &digests {
            *state.leases.entry(digest.clone()).or_default() += 1;
        }
        Lease { store: Arc::clone(self), digests }
    }

    pub(super) fn has_layer(&self, chain: &Digest) -> bool {
        self.state.lock().layers.contains_key(chain)
    }

    /// Called by the unpacker once the layer's folder has its name.
    pub(super) fn layer_committed(&self, chain: Digest, usage: Usage) {
        self.state.lock().layers.insert(chain, usage);
    }

    /// Makes an image known. Its layers are on disk and leased; `manifest` and `config` are verified.
    pub(super) fn commit(&self, record: ImageRecord, manifest: &[u8], config: &[u8]) -> Result<Arc<Image>, ImageError> {
        for (digest, bytes) in [(&record.manifest, manifest), (&record.id, config)] {
            let path = self.blob_path(digest);
            if !path.exists() {
                write_atomically(&path, bytes, true)?;
            }
        }
        if !self.is_synced(&record) {
            sync_filesystem(self.snapshots.base())?;
        }
        let _one_at_a_time = self.recording.lock();
        let before = self.state.lock().catalog.clone();
        let mut catalog = before.clone();
        let id = record.id.clone();
        catalog.add(record);
        if catalog != before {
            self.replace_catalog(catalog)?;
        }
        self.state.lock().images.get(&id).cloned().ok_or_else(|| ImageError::NotFound(id.to_string()))
    }

    /// Whether the record on disk names all of an image's layers already: then they were synced before it was written.
    fn is_synced(&self, record: &ImageRecord) -> bool {
        let state = self.state.lock();
        let known: BTreeSet<Digest> = state.catalog.images.values().flat_map(ImageRecord::chains).collect();
        record.chains().iter().all(|chain| known.contains(chain))
    }

    /// Takes an image away, by any of its names; says whether there was one. Layers in use stay.
    pub(super) fn remove(&self, text: &str) -> Result<bool, ImageError> {
        let _one_at_a_time = self.recording.lock();
        let mut catalog = self.state.lock().catalog.clone();
        let removed = catalog.remove(text);
        if removed.iter().any(|image| image.pinned) {
            return Err(ImageError::Pinned(text.to_owned()));
        }
        if removed.is_empty() {
            return Ok(false);
        }
        self.replace_catalog(catalog)?;
        for removed in removed {
            // Under the lock, so that no pull counts on a blob that is about to go.
            let state = self.state.lock();
            let used = state.used_blobs();
            for digest in [&removed.id, &removed.manifest] {
                if !used.contains(digest.hex()) {
                    point(Point::BlobRemove);
                    let _ = fs::remove_file(self.blob_path(digest));
                }
            }
        }
        Ok(true)
    }

    /// On disk first, then in memory: a full disk changes nothing. The caller is the one that records.
    fn replace_catalog(&self, catalog: Catalog) -> Result<(), ImageError> {
        let known_images = self.state.lock().images.clone();
        let path = self.record_path();
        let content = encoded(&catalog, &path)?;
        let mut images = BTreeMap::new();
        for record in catalog.images.values() {
            let known = known_images.get(&record.id).filter(|image| image.record == *record);
            let image = match known {
                Some(image) => Arc::clone(image),
                None => Arc::new(self.image(record)?),
            };
            images.insert(record.id.clone(), image);
        }
        write_atomically(&path, &content, true)?;
        // The record stands; a copy that could not be written is written at the next start.
        if let Err(error) = write_atomically(&self.copy_path(), &content, true) {
            tracing::warn!(error = %gantry_env::chain(&error), "copy of the record of images not written");
        }
        let mut state = self.state.lock();
        state.catalog = catalog;
        state.images = images;
        self.publish(&state);
        self.collect(&mut state).map(drop)
    }

    /// Moves unused layers to the trash; says whether there were any.
    fn collect(&self, state: &mut State) -> Result<bool, ImageError> {
        let unused = state.unused_layers();
        for chain in &unused {
            self.snapshots.discard_layer(chain, &self.env.rng.uuid())?;
            state.layers.remove(chain);
        }
        Ok(!unused.is_empty())
    }

    /// A root filesystem for a container, which mounts some more images. One that is removed meanwhile keeps the layers it gives.
    pub(super) fn prepare(&self, container: &str, image: &Digest, more: &[Digest]) -> Result<Rootfs, ImageError> {
        check_container_id(container)?;
        let mut state = self.state.lock();
        let known = |image: &Digest| {
            let known = state.images.get(image).cloned();
            known.ok_or_else(|| ImageError::NotFound(image.to_string()))
        };
        let (image, more) = (known(image)?, more.iter().map(known).collect::<Result<Vec<_>, _>>()?);
        if state.containers.contains_key(container) {
            return Err(ImageError::ContainerExists(container.to_owned()));
        }
        let record = ContainerRecord {
            image: image.record.id.clone(),
            chains: image.chains.clone(),
            volumes: more.iter().flat_map(|image| image.chains.clone()).collect(),
        };
        let rootfs = self.snapshots.make_container(container, &record)?;
        state.containers.insert(container.to_owned(), record);
        Ok(rootfs)
    }

    /// The folders of an image's layers, topmost first.
    pub(super) fn layers_of(&self, image: &Image) -> Vec<PathBuf> {
        self.snapshots.folders(&image.chains)
    }

    pub(super) fn rootfs(&self, container: &str) -> Option<Rootfs> {
        let state = self.state.lock();
        state.containers.get(container).map(|record| self.snapshots.rootfs(container, record))
    }

    pub(super) fn remove_container(&self, container: &str) -> Result<(), ImageError> {
        check_container_id(container)?;
        let mut state = self.state.lock();
        self.snapshots.discard_container(container, &self.env.rng.uuid())?;
        if state.containers.remove(container).is_some() {
            self.collect(&mut state)?;
        }
        Ok(())
    }

    pub(super) fn containers(&self) -> Vec<String> {
        self.state.lock().containers.keys().cloned().collect()
    }

    /// What images take: unpacked layers, manifests and configurations.
    pub(super) fn usage(&self) -> Usage {
        let state = self.state.lock();
        let mut usage = Usage::default();
        for layer in state.layers.values() {
            usage += *layer;
        }
        for image in state.catalog.images.values() {
            for digest in [&image.id, &image.manifest] {
                if let Ok(metadata) = fs::metadata(self.blob_path(digest)) {
                    usage += Usage::of(&metadata);
                }
            }
        }
        usage
    }
}

fn encoded(catalog: &Catalog, path: &Path) -> Result<Vec<u8>, ImageError> {
    serde_json::to_vec_pretty(catalog).map_err(|source| ImageError::Record { path: path.to_owned(), source })
}

/// None where there is no file, or none that says anything: that is moved aside, over an older one.
fn read_or_set_aside(path: &Path) -> Result<Option<Catalog>, ImageError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(ImageError::disk("read", path, e)),
    };
    match serde_json::from_slice(&bytes) {
        Ok(catalog) => Ok(Some(catalog)),
        Err(source) => {
            let aside = path.with_extension("damaged");
            fs::rename(path, &aside).map_err(|e| ImageError::disk("set aside", path, e))?;
            let error = ImageError::Record { path: path.to_owned(), source };
            tracing::error!(error = %gantry_env::chain(&error), ?aside, "record of images set aside");
            Ok(None)
        }
    }
}

/// See [`Store::lease`].
pub(super) struct Lease {
    store: Arc<Store>,
    digests: Vec<Digest>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.store.state.lock();
        for digest in &self.digests {
            if let Some(count) = state.leases.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    state.leases.remove(digest);
                }
            }
        }
        // A pull that failed leaves whole layers that no image names.
        match self.store.collect(&mut state) {
            Ok(true) => self.store.snapshots.empty_trash(),
            Ok(false) => {}
            Err(error) => tracing::warn!(error = %gantry_env::chain(&error), "unused layers stay for now"),
        }
    }
}
