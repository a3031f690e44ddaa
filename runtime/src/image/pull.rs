//! A pull: reference → manifest (through indexes, by platform) → configuration → layers.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Image;
use super::catalog::ImageRecord;
use super::digest::Digest;
use super::error::ImageError;
use super::install::{Candidate, Source, install};
use super::layer::{Expected, LayerLimits};
use super::manifest::{
    Descriptor, DescriptorPlatform, Document, Manifest, ManifestError, Platform, choose, parse_config, parse_document,
};
use super::progress::Progress;
use super::reference::Reference;
use super::registry::{Auth, Fetched, Registries, RegistryError, Repository};
use super::store::Store;

/// An index of indexes is allowed; a third one serves no one.
const INDEXES_MAX: usize = 2;

pub(super) struct Pull<'p> {
    pub reference: &'p Reference,
    pub auth: &'p Auth,
    /// This machine's, where none is said.
    pub platform: Option<&'p Platform>,
    pub limits: LayerLimits,
}

impl Pull<'_> {
    pub(super) async fn run(
        &self,
        store: &Arc<Store>,
        registries: &Arc<Registries>,
        progress: &Arc<Progress>,
    ) -> Result<Arc<Image>, ImageError> {
        let shown = self.reference.to_string();
        let repository = registries.repository(self.reference, self.auth).await;
        let repository = repository.map_err(|error| PullError::from(error).named(&shown))?;
        let host = Platform::host();
        let wanted = self.platform.unwrap_or(&host);
        let resolved = resolve(&repository, self.reference, wanted).await.map_err(|error| error.named(&shown))?;
        tracing::info!(image = %shown, manifest = %resolved.fetched.digest, layers = resolved.manifest.layers.len(), "pulling");
        let candidate = candidate(self.reference, &resolved, &self.limits)
            .and_then(|candidate| candidate.meant_for(self.platform, resolved.offered.as_ref()));
        let candidate = candidate.map_err(|error| PullError::from(error).named(&shown))?;
        let source = Blobs { repository, layers: resolved.manifest.layers, shown };
        install(store, candidate, &source, self.limits, progress).await
    }
}

/// What goes wrong before the layers.
#[derive(Debug, thiserror::Error)]
enum PullError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

impl PullError {
    fn named(self, image: &str) -> ImageError {
        match self {
            PullError::Registry(source) => ImageError::Registry { image: image.to_owned(), source },
            PullError::Manifest(source) => ImageError::Manifest { image: image.to_owned(), source },
        }
    }
}

struct Resolved {
    /// The digest that the reference stands for: an index's where it names one.
    top: Digest,
    fetched: Fetched,
    manifest: Manifest,
    config: Bytes,
    /// What the index that led to the manifest says that it is for.
    offered: Option<DescriptorPlatform>,
}

async fn resolve(repository: &Repository, reference: &Reference, platform: &Platform) -> Result<Resolved, PullError> {
    let mut fetched = repository.manifest(reference.wanted()).await?;
    let top = fetched.digest.clone();
    let mut offered = None;
    for _ in 0..=INDEXES_MAX {
        match parse_document(&fetched.bytes, fetched.media_type.as_deref())? {
            Document::Manifest(manifest) => {
                let config = repository.small_blob(&manifest.config).await?;
                return Ok(Resolved { top, fetched, manifest, config, offered });
            }
            Document::Index(entries) => {
                let chosen = choose(&entries, platform)?;
                offered = chosen.platform.clone().or(offered);
                fetched = repository.manifest(chosen.digest.as_str()).await?;
                if fetched.bytes.len() as u64 != chosen.size {
                    let actual = fetched.bytes.len() as u64;
                    return Err(RegistryError::Shorter { wanted: chosen.size, actual }.into());
                }
            }
        }
    }
    Err(ManifestError::TooDeep(INDEXES_MAX).into())
}

fn candidate(reference: &Reference, resolved: &Resolved, limits: &LayerLimits) -> Result<Candidate, ManifestError> {
    let config = parse_config(&resolved.config)?;
    // What a layer holds is bounded, but what holds nothing may be long.
    let max = limits.unpack.data_max_bytes;
    if let Some(layer) = resolved.manifest.layers.iter().find(|layer| layer.size > max) {
        return Err(ManifestError::TooLong { what: "layer", bytes: layer.size, max });
    }
    let blobs: Vec<(Digest, u64)> =
        resolved.manifest.layers.iter().map(|layer| (layer.digest.clone(), layer.size)).collect();
    let layers = Candidate::layers(&blobs, &config.diff_ids)?;
    let expected = layers
        .iter()
        .map(|layer| Expected { blob: Some((layer.digest.clone(), layer.size)), diff_id: layer.diff_id.clone() })
        .collect();
    let size = blobs.iter().fold(resolved.manifest.config.size, |sum, (_, size)| sum.saturating_add(*size));
    let record = ImageRecord {
        id: resolved.manifest.config.digest.clone(),
        manifest: resolved.fetched.digest.clone(),
        size,
        tags: reference.tagged().into_iter().collect(),
        digests: vec![reference.with_digest(&resolved.top)],
        layers,
        pinned: false,
        for_platforms: Vec::new(),
    };
    Ok(Candidate {
        shown: reference.to_string(),
        record,
        platform: config.platform(),
        expected,
        manifest: resolved.fetched.bytes.clone(),
        config: resolved.config.clone(),
    })
}

struct Blobs {
    repository: Repository,
    layers: Vec<Descriptor>,
    shown: String,
}

impl Source for Blobs {
    async fn send(&self, at: usize, sink: mpsc::Sender<Bytes>) -> Result<(), ImageError> {
        let sent = self.repository.blob(&self.layers[at], &sink).await;
        sent.map_err(|source| ImageError::Registry { image: self.shown.clone(), source })
    }

    fn distrust(&self, at: usize) -> bool {
        self.repository.distrust(&self.layers[at])
    }
}
