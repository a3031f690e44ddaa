//! Archives: OCI image layouts and docker's (`docker save`), plain or compressed.
//!
//! An archive may tell what it holds at its end, so its files are first spooled to disk, bounded and hashed; then the
//! documents are read and the layers installed the way a pull installs them. Nothing in an archive is trusted more
//! than what a registry sends: digests, sizes and diffIDs are verified.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use super::digest::Digest;
use super::error::ImageError;
use super::install::{Source, install};
use super::layer::LayerLimits;
use super::manifest::Platform;
use super::store::Store;
use super::{Image, blocking};

pub(super) mod contents;
mod spool;

pub use contents::ContentsError;
use contents::{Found, read_contents};
use spool::Spool;
pub use spool::SpoolError;

const PIECE_BYTES: usize = 256 << 10;

/// What to take from an archive and how to call it.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Only the image of this name.
    pub only: Option<String>,
    /// A name for the archive's one image, besides those that the archive gives.
    pub name: Option<String>,
    /// Never collected.
    pub pinned: bool,
    /// For which platform an image is chosen, in place of this machine's.
    pub platform: Option<Platform>,
}

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    Contents(#[from] ContentsError),
}

/// Imports from a reader, which blocks a thread of its own.
pub(super) async fn import(
    store: &Arc<Store>,
    reader: impl Read + Send + 'static,
    options: ImportOptions,
    limits: LayerLimits,
) -> Result<Vec<Arc<Image>>, ImageError> {
    let folder = store.spool_folder();
    let (spool, found) = blocking(move || Ok(open(&folder, reader, &options, &limits)?)).await?;
    let spool = Arc::new(spool);
    let mut images = BTreeMap::new();
    for Found { candidate, layers, .. } in found {
        let shown = candidate.shown.clone();
        let files = Files { files: layers.iter().map(|layer| spool.path(layer)).collect() };
        let image = install(store, candidate, &files, limits, &Arc::default()).await?;
        tracing::info!(image = %shown, id = %image.id(), "imported");
        images.insert(image.id().clone(), image);
    }
    // The last state of each: a later entry may have moved a tag.
    let images = images.keys().filter_map(|id| store.find(id.as_str())).collect();
    blocking(move || {
        drop(spool);
        Ok(())
    })
    .await?;
    Ok(images)
}

/// Spools an archive into `folder`, and reads what it holds.
fn open(
    folder: &Path,
    reader: impl Read,
    options: &ImportOptions,
    limits: &LayerLimits,
) -> Result<(Spool, Vec<Found>), ArchiveError> {
    let spool = Spool::fill(folder, reader, limits)?;
    let found = read_contents(&spool, options)?;
    Ok((spool, found))
}

/// The ids of the images that an archive holds, none of which is installed. Public and without a store: a seat for
/// fuzzing.
pub fn survey(
    folder: &Path,
    reader: impl Read,
    options: &ImportOptions,
    limits: &LayerLimits,
) -> Result<Vec<Digest>, ArchiveError> {
    let (_spool, found) = open(folder, reader, options, limits)?;
    Ok(found.into_iter().map(|image| image.candidate.record.id).collect())
}

/// Layers in the spool, by their place in the image.
struct Files {
    files: Vec<PathBuf>,
}

impl Source for Files {
    async fn send(&self, at: usize, sink: mpsc::Sender<Bytes>) -> Result<(), ImageError> {
        let path = &self.files[at];
        let failed = |e| ImageError::disk("read", path, e);
        let mut file = tokio::fs::File::open(path).await.map_err(failed)?;
        loop {
            let mut piece = bytes::BytesMut::with_capacity(PIECE_BYTES);
            if file.read_buf(&mut piece).await.map_err(failed)? == 0 {
                return Ok(());
            }
            if sink.send(piece.freeze()).await.is_err() {
                return Ok(());
            }
        }
    }
}
