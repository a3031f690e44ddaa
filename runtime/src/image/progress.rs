//! How far a pull is, for whoever watches it. Nobody has to.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::catalog::LayerRecord;
use super::digest::Digest;

#[derive(Debug, Default)]
pub struct Progress {
    /// Lowest first; not there until the manifest is.
    layers: OnceLock<Vec<Layer>>,
}

#[derive(Debug)]
struct Layer {
    digest: Digest,
    size: u64,
    done: AtomicU64,
    finished: AtomicBool,
}

/// One layer, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerProgress {
    pub digest: Digest,
    /// Bytes as the registry has them.
    pub size: u64,
    /// Bytes of these that have come, or were not needed.
    pub done: u64,
    /// It is unpacked and verified.
    pub finished: bool,
}

impl Progress {
    pub(super) fn begin(&self, layers: &[LayerRecord]) {
        self.layers.get_or_init(|| {
            let layer = |layer: &LayerRecord| Layer {
                digest: layer.digest.clone(),
                size: layer.size,
                done: AtomicU64::new(0),
                finished: AtomicBool::new(false),
            };
            layers.iter().map(layer).collect()
        });
    }

    fn layer(&self, at: usize) -> Option<&Layer> {
        self.layers.get()?.get(at)
    }

    pub(super) fn came(&self, at: usize, bytes: u64) {
        if let Some(layer) = self.layer(at) {
            layer.done.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// What came of a layer was of no use.
    pub(super) fn again(&self, at: usize) {
        if let Some(layer) = self.layer(at) {
            layer.done.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn finish(&self, at: usize) {
        if let Some(layer) = self.layer(at) {
            layer.done.store(layer.size, Ordering::Relaxed);
            layer.finished.store(true, Ordering::Relaxed);
        }
    }

    pub fn layers(&self) -> Vec<LayerProgress> {
        let now = |layer: &Layer| LayerProgress {
            digest: layer.digest.clone(),
            size: layer.size,
            done: layer.done.load(Ordering::Relaxed).min(layer.size),
            finished: layer.finished.load(Ordering::Relaxed),
        };
        self.layers.get().into_iter().flatten().map(now).collect()
    }
}
