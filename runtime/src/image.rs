//! Images: pulled from registries or imported from archives, verified as they stream, unpacked once, shared by the
//! containers that stand on them.
//!
//! The way of an image: [`reference`] names it, [`registry`] fetches it, [`manifest`] says what it is made of,
//! [`layer`] decompresses, verifies and hands each layer to [`tar`] and [`unpack`], `snapshots` keeps the layers by
//! chain id, `catalog` the names, `store` both, and [`rootfs`] gives a container its own view.
//!
//! **Invariant** (held by `image/tests.rs`): an image that can be resolved has all its layers on disk, verified; a
//! layer that an image or a container needs is never removed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_env::Env;

mod catalog;
mod copy;
pub mod digest;
mod disk;
mod error;
mod export;
#[cfg(test)]
mod fixture;
pub mod import;
mod install;
pub mod layer;
pub mod manifest;
pub mod policy;
mod progress;
mod pull;
pub mod reference;
pub mod registry;
pub mod rootfs;
mod snapshots;
mod store;
pub mod tar;
pub mod unpack;
mod usage;
mod volume;

pub use catalog::ForPlatform;
use catalog::ImageRecord;
pub use digest::Digest;
pub use error::ImageError;
pub use export::{Export, Exported};
pub use import::ImportOptions;
pub use layer::LayerLimits;
use manifest::ImageConfig;
pub use manifest::{Platform, PlatformError, RunConfig};
pub use policy::Policy;
pub use progress::{LayerProgress, Progress};
pub use reference::Reference;
use registry::Registries;
pub use registry::{Auth, Patience, Proxies};
pub use rootfs::Rootfs;
use store::{Settings, Store};
pub use usage::Usage;

/// Where images live and how registries are spoken to.
#[derive(Clone, Debug)]
pub struct Config {
    /// Record, manifests, configurations: `/var/lib/gantry/images`.
    pub images: PathBuf,
    /// Layers and containers' folders, on a filesystem that overlayfs can stand on: `/var/lib/gantry/snapshots`.
    pub snapshots: PathBuf,
    /// Registries (`host` or `host:port`) spoken to over plain HTTP. Loopback ones always are.
    pub insecure_registries: Vec<String>,
    /// Certificates, in PEM files, trusted besides the system's and the bundled ones.
    pub ca_files: Vec<PathBuf>,
    /// Folders with one for each registry, and in it a `hosts.toml` or certificates: the first that is there counts.
    pub registry_config_paths: Vec<PathBuf>,
    pub proxies: Proxies,
    /// Keep layers as they came besides their files, as containerd does: an export needs them.
    pub keeps_blobs: bool,
    /// Which images may come here.
    pub policy: Policy,
    pub limits: LayerLimits,
    pub patience: Patience,
}

impl Config {
    /// The defaults below one state folder.
    pub fn below(state: &std::path::Path) -> Config {
        Config {
            images: state.join("images"),
            snapshots: state.join("snapshots"),
            insecure_registries: Vec::new(),
            ca_files: Vec::new(),
            registry_config_paths: Vec::new(),
            proxies: Proxies::default(),
            keeps_blobs: true,
            policy: Policy::default(),
            limits: LayerLimits::default(),
            patience: Patience::default(),
        }
    }
}

/// An image on this host, whole and verified.
#[derive(Debug)]
pub struct Image {
    record: ImageRecord,
    chains: Vec<Digest>,
    config: ImageConfig,
}

impl Image {
    /// The digest of the configuration: CRI's image id (and `imageRef`).
    pub fn id(&self) -> &Digest {
        &self.record.id
    }

    pub fn repo_tags(&self) -> &[String] {
        &self.record.tags
    }

    pub fn repo_digests(&self) -> &[String] {
        &self.record.digests
    }

    /// Bytes of the configuration and the compressed layers.
    pub fn size(&self) -> u64 {
        self.record.size
    }

    pub fn pinned(&self) -> bool {
        self.record.pinned
    }

    /// What it was brought for or, where that is this machine's, what it says that it is made for.
    pub fn platform(&self) -> Option<Platform> {
        let brought = self.record.for_platforms.first().map(|name| name.platform.clone());
        brought.or_else(|| self.config.platform())
    }

    /// The names by which it was brought for another platform than this machine's.
    pub fn for_platforms(&self) -> &[ForPlatform] {
        &self.record.for_platforms
    }

    /// Env, Entrypoint, Cmd, User, WorkingDir, StopSignal, Volumes, Labels.
    pub fn run(&self) -> &RunConfig {
        &self.config.run
    }

    pub fn config(&self) -> &ImageConfig {
        &self.config
    }

    /// The chain ids of the layers, lowest first.
    pub fn layers(&self) -> &[Digest] {
        &self.chains
    }
}

/// What CRI's ImageFsInfo tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FsInfo {
    pub mountpoint: PathBuf,
    pub images: Usage,
    /// All that containers wrote.
    pub containers: Usage,
}

/// The images of one host. Clones share one store.
#[derive(Clone)]
pub struct Images {
    store: Arc<Store>,
    registries: Arc<Registries>,
    limits: LayerLimits,
}

impl Images {
    /// Opens the store, for this process alone, and removes what a crash left over.
    pub async fn open(config: Config, env: Env) -> Result<Images, ImageError> {
        let (images, snapshots) = (config.images.clone(), config.snapshots.clone());
        let registries = Registries::new(&config, env.clone());
        let settings = Settings { keeps_blobs: config.keeps_blobs, policy: config.policy };
        let store = blocking(move || Store::open(&images, &snapshots, settings, env)).await?;
        let images = Images { store: Arc::new(store), registries: Arc::new(registries), limits: config.limits };
        images.store.snapshots.empty_trash();
        Ok(images)
    }

    /// An image by reference, id, or the beginning of an id.
    pub fn resolve(&self, image: &str) -> Option<Arc<Image>> {
        self.store.find(image)
    }

    pub fn list(&self) -> Vec<Arc<Image>> {
        self.store.list()
    }

    /// Pulls what `reference` names now, unless all of it is here. The platform is this machine's by default; an image for
    /// another is kept beside this machine's of that name, which [`Images::resolve`] finds.
    pub async fn pull(
        &self,
        reference: &str,
        auth: &Auth,
        platform: Option<Platform>,
    ) -> Result<Arc<Image>, ImageError> {
        self.pull_watched(reference, auth, platform, &Arc::default()).await
    }

    /// As [`Images::pull`], and `progress` says meanwhile how far it is.
    pub async fn pull_watched(
        &self,
        reference: &str,
        auth: &Auth,
        platform: Option<Platform>,
        progress: &Arc<Progress>,
    ) -> Result<Arc<Image>, ImageError> {
        let reference: Reference = reference.parse()?;
        let pull = pull::Pull { reference: &reference, auth, platform: platform.as_ref(), limits: self.limits };
        pull.run(&self.store, &self.registries, progress).await
    }

    /// Imports an OCI layout or a `docker save` archive, compressed or not. The reader gets a thread of its own.
    pub async fn import(
        &self,
        reader: impl std::io::Read + Send + 'static,
        options: ImportOptions,
    ) -> Result<Vec<Arc<Image>>, ImageError> {
        import::import(&self.store, reader, options, self.limits).await
    }

    /// As [`Images::import`], from pieces that arrive over a channel; its end is the archive's end.
    pub async fn import_pieces(
        &self,
        pieces: tokio::sync::mpsc::Receiver<bytes::Bytes>,
        options: ImportOptions,
    ) -> Result<Vec<Arc<Image>>, ImageError> {
        self.import(install::Pieces::new(pieces), options).await
    }

    /// Finds images, for one platform if that is said, and all that an archive of them is made of.
    pub async fn export(&self, images: &[String], platform: Option<Platform>) -> Result<Export, ImageError> {
        let (store, images) = (Arc::clone(&self.store), images.to_vec());
        blocking(move || Export::plan(&store, &images, platform.as_ref())).await
    }

    /// Removes an image with all its names, called by any of them; a name stands for the images of all platforms. No such
    /// image is no error. Layers that containers stand on stay until those are removed.
    pub async fn remove(&self, image: &str) -> Result<bool, ImageError> {
        let (store, text) = (Arc::clone(&self.store), image.to_owned());
        let removed = blocking(move || store.remove(&text)).await?;
        self.store.snapshots.empty_trash();
        Ok(removed)
    }

    /// Folders for a container upon an image's layers; mount with [`Rootfs::mount`]. The layers of `volumes`, images that it
    /// mounts, stay as long as it does. The call blocks.
    pub fn prepare(&self, container: &str, image: &Image, volumes: &[Arc<Image>]) -> Result<Rootfs, ImageError> {
        let volumes: Vec<Digest> = volumes.iter().map(|image| image.id().clone()).collect();
        self.store.prepare(container, image.id(), &volumes)
    }

    /// The folders of an image's layers, topmost first.
    pub fn layers(&self, image: &Image) -> Vec<PathBuf> {
        self.store.layers_of(image)
    }

    /// Refuses a part that the image does not have. `at` is an empty folder of the caller's; the call blocks.
    pub fn check_part(&self, image: &Image, path: &str, at: &Path) -> Result<(), ImageError> {
        if path.is_empty() || rootfs::holds(&self.layers(image), at, path)? {
            return Ok(());
        }
        Err(ImageError::NoPart { image: image.id().to_string(), path: path.to_owned() })
    }

    /// Folders for the volumes that the image of a container declares, at these paths, with what it has there. The call blocks.
    pub fn make_volumes(&self, rootfs: &Rootfs, paths: &[String]) -> Result<Vec<PathBuf>, ImageError> {
        volume::make(rootfs, paths)
    }

    /// The folders that [`Images::prepare`] made for a container, as after a restart.
    pub fn rootfs(&self, container: &str) -> Option<Rootfs> {
        self.store.rootfs(container)
    }

    /// Removes a container's folders and what it wrote. None there is no error.
    pub async fn remove_snapshot(&self, container: &str) -> Result<(), ImageError> {
        let (store, container) = (Arc::clone(&self.store), container.to_owned());
        let (tell, told) = tokio::sync::oneshot::channel();
        // The thread that has put it into the trash empties that too. Nobody waits for it, nor for its hold on the store, which
        // may be closed by then, and be opened again.
        let discard = move || {
            let removed = store.remove_container(&container);
            let snapshots = store.snapshots.clone();
            drop(store);
            let _ = tell.send(removed);
            snapshots.empty_trash_here();
        };
        drop(tokio::task::spawn_blocking(discard));
        told.await.unwrap_or(Err(ImageError::Interrupted))
    }

    /// The containers that have folders here: whoever knows of fewer containers removes the rest.
    pub fn snapshots(&self) -> Vec<String> {
        self.store.containers()
    }

    /// What a container wrote, its image's volumes included.
    pub async fn snapshot_usage(&self, container: &str) -> Result<Usage, ImageError> {
        let (store, container) = (Arc::clone(&self.store), container.to_owned());
        blocking(move || {
            rootfs::check_container_id(&container)?;
            store.snapshots.container_usage(&container)
        })
        .await
    }

    pub async fn fs_info(&self) -> Result<FsInfo, ImageError> {
        let store = Arc::clone(&self.store);
        blocking(move || {
            let mut containers = Usage::default();
            for container in store.containers() {
                // One that is removed meanwhile takes nothing.
                containers += store.snapshots.container_usage(&container).unwrap_or_default();
            }
            Ok(FsInfo { mountpoint: store.snapshots.base().to_owned(), images: store.usage(), containers })
        })
        .await
    }
}

/// Disk work off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(ImageError::Interrupted))
}

#[cfg(test)]
mod tests;
