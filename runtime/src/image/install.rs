//! From layers as they arrive to an image that is there: shared by pulling and importing.
//!
//! Up to [`PARALLEL_LAYERS`] layers are unpacked at once, each in a folder of its own; they are settled and committed
//! in order, from the lowest, because a layer may need what is below it. Of several installations that want the same
//! layer, one unpacks it and the others wait, as long as it comes along: a registry that drips must hold up nobody else's
//! pull. That cannot deadlock: whoever holds a layer waits only for lower ones of the same chain, and the lowest layer
//! that is missing is always being worked on by whoever holds it.

use std::collections::HashMap;
use std::fs;
use std::future::Future;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, mpsc};

use super::blocking;
use super::catalog::{ImageRecord, LayerRecord};
use super::digest::Digest;
use super::disk::open_folder;
use super::error::ImageError;
use super::layer::{Expected, LayerError, LayerLimits, apply};
use super::manifest::{DescriptorPlatform, ManifestError, Platform};
use super::policy::Subject;
use super::progress::Progress;
use super::snapshots::{Blob, Ingest};
use super::store::{Lease, Store};
use super::unpack::{Unpacked, settle};

pub(super) const PARALLEL_LAYERS: usize = 3;
/// What comes within [`LayerLimits::patience`] where somebody gets on.
const GETS_ON_BYTES: u64 = 256 << 10;
/// Pieces of a layer on their way from the network to the unpacker.
const PIECES_MAX: usize = 16;

/// The layers that are being unpacked right now.
#[derive(Default)]
pub(super) struct Gates(Mutex<HashMap<Digest, Weak<Gate>>>);

#[derive(Default)]
struct Gate {
    lock: Arc<tokio::sync::Mutex<()>>,
    /// What has come for whoever holds it.
    bytes: AtomicU64,
}

impl Gates {
    fn of(&self, chain: &Digest) -> Arc<Gate> {
        let mut gates = self.0.lock();
        gates.retain(|_, gate| gate.strong_count() > 0);
        if let Some(gate) = gates.get(chain).and_then(Weak::upgrade) {
            return gate;
        }
        let gate = Arc::default();
        gates.insert(chain.clone(), Arc::downgrade(&gate));
        gate
    }
}

impl Gate {
    /// Waits for whoever else works on the layer, and no longer than that gets on.
    async fn pass(&self, patience: Duration) -> Option<OwnedMutexGuard<()>> {
        loop {
            let before = self.bytes.load(Ordering::Relaxed);
            if let Ok(guard) = tokio::time::timeout(patience, Arc::clone(&self.lock).lock_owned()).await {
                return Some(guard);
            }
            if self.bytes.load(Ordering::Relaxed).wrapping_sub(before) < GETS_ON_BYTES {
                return None;
            }
        }
    }
}

/// Where layers come from.
pub(super) trait Source {
    /// Sends the stored bytes of a layer (by its place in the image) to `sink`.
    fn send(&self, at: usize, sink: mpsc::Sender<Bytes>) -> impl Future<Output = Result<(), ImageError>> + Send;

    /// What was sent of a layer does not have its digest: whether somebody else may send it.
    fn distrust(&self, _at: usize) -> bool {
        false
    }
}

/// An image that is known by its documents, not yet by its layers.
pub(super) struct Candidate {
    /// What the image is called in messages.
    pub shown: String,
    pub record: ImageRecord,
    /// What its configuration says that it is for.
    pub platform: Option<Platform>,
    /// What each layer must turn out to be.
    pub expected: Vec<Expected>,
    pub manifest: Bytes,
    pub config: Bytes,
}

impl Candidate {
    /// Refuses an image that is not for the platform that was asked for, and keeps one for another platform than this
    /// machine's apart from what pods mean by its name. What an index offers counts before what the image says of itself, as
    /// whoever chose went by that; where nobody named a platform an image of this machine's may be for whatever it wants.
    pub(super) fn meant_for(
        mut self,
        wanted: Option<&Platform>,
        offered: Option<&DescriptorPlatform>,
    ) -> Result<Candidate, ManifestError> {
        let Some(wanted) = wanted else { return Ok(self) };
        let offer = offered.cloned().or_else(|| self.platform.as_ref().map(Platform::offer)).unwrap_or_default();
        let named = Platform::said(&offer.os, &offer.architecture, offer.variant.as_deref());
        let offer = named.as_ref().map(Platform::offer).unwrap_or_default();
        if wanted.fit(&offer) == 0 {
            let offered = named.map_or("no platform that it names".to_owned(), |named| named.to_string());
            return Err(ManifestError::NoPlatform { wanted: wanted.clone(), offered });
        }
        if let Some(named) = named.filter(|_| *wanted != Platform::host()) {
            let names = self.names();
            self.record.set_platform(&named, &names);
        }
        Ok(self)
    }

    /// By tag or, if need be, by digest.
    fn names(&self) -> Vec<String> {
        match self.record.tags.as_slice() {
            [] => self.record.digests.clone(),
            tags => tags.to_vec(),
        }
    }

    /// Pairs the manifest's layers with the configuration's diffIDs.
    pub(super) fn layers(layers: &[(Digest, u64)], diff_ids: &[Digest]) -> Result<Vec<LayerRecord>, ManifestError> {
        if layers.len() != diff_ids.len() {
            return Err(ManifestError::LayersDiffer { layers: layers.len(), diff_ids: diff_ids.len() });
        }
        let pairs = layers.iter().zip(diff_ids);
        Ok(pairs
            .map(|((digest, size), diff_id)| LayerRecord {
                digest: digest.clone(),
                size: *size,
                diff_id: diff_id.clone(),
            })
            .collect())
    }
}

/// A layer in its temporary folder, whole and verified; the gate keeps others from doing it too.
struct Ready {
    ingest: Waiting,
    unpacked: Unpacked,
    _gate: Arc<Gate>,
    _alone: Option<OwnedMutexGuard<()>>,
}

/// Dropped where a lower layer fails, by an async thread: that must not remove a hundred thousand files.
struct Waiting(Option<Ingest>);

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(ingest) = self.0.take() {
            ingest.discard();
        }
    }
}

/// Unpacks what is missing and makes the image known.
pub(super) async fn install(
    store: &Arc<Store>,
    candidate: Candidate,
    source: &impl Source,
    limits: LayerLimits,
    progress: &Arc<Progress>,
) -> Result<Arc<super::Image>, ImageError> {
    let subject = Subject { name: &candidate.shown, manifest: &candidate.record.manifest };
    store.settings.policy.admit(subject)?;
    progress.begin(&candidate.record.layers);
    let chains = candidate.record.chains();
    let mut leased = chains.clone();
    leased.extend([candidate.record.id.clone(), candidate.record.manifest.clone()]);
    // Work on the disk goes on when the caller has given up, and holds the lease as long.
    let lease = Arc::new(store.lease(leased));
    let layer_error = |at: usize, source: LayerError| ImageError::Layer {
        image: candidate.shown.clone(),
        digest: candidate.record.layers[at].digest.clone(),
        source: Box::new(source),
    };
    // A loop, not a closure: the compiler cannot see that a closure over borrowed digests makes futures that are Send.
    let mut layers = Vec::with_capacity(chains.len());
    for (at, chain) in chains.iter().enumerate() {
        let expected = &candidate.expected[at];
        let job = Job { chain, at, expected, progress };
        layers.push(async move { (at, fetch(store, job, source, limits).await) });
    }
    let mut ready = std::pin::pin!(futures::stream::iter(layers).buffered(PARALLEL_LAYERS));
    while let Some((at, fetched)) = ready.next().await {
        let fetched = fetched.map_err(|error| match error {
            FetchError::Image(error) => error,
            FetchError::Layer(error) => layer_error(at, error),
        })?;
        let Some(layer) = fetched else {
            progress.finish(at);
            continue;
        };
        commit(store, layer, &chains[..=at], Arc::clone(&lease)).await?.map_err(|error| layer_error(at, error))?;
        progress.finish(at);
    }
    let store_too = Arc::clone(store);
    let Candidate { record, manifest, config, .. } = candidate;
    blocking(move || {
        let image = store_too.commit(record, &manifest, &config);
        drop(lease);
        image
    })
    .await
}

enum FetchError {
    Image(ImageError),
    Layer(LayerError),
}

/// One layer of an installation.
struct Job<'i> {
    chain: &'i Digest,
    at: usize,
    expected: &'i Expected,
    progress: &'i Arc<Progress>,
}

/// A layer unpacked and verified, or none if it is there already.
async fn fetch(
    store: &Arc<Store>,
    job: Job<'_>,
    source: &impl Source,
    limits: LayerLimits,
) -> Result<Option<Ready>, FetchError> {
    let Job { chain, at, progress, .. } = job;
    if store.has_layer(chain) {
        return Ok(None);
    }
    let gate = store.gates.of(chain);
    let alone = gate.pass(limits.patience).await;
    if store.has_layer(chain) {
        return Ok(None);
    }
    let (ingest, unpacked) = loop {
        match stream(store, &job, source, limits, &gate).await {
            Err(FetchError::Layer(LayerError::Digest { .. })) if source.distrust(at) => progress.again(at),
            ended => break ended?,
        }
    };
    Ok(Some(Ready { ingest: Waiting(Some(ingest)), unpacked, _gate: gate, _alone: alone }))
}

/// A layer on its way from whoever has it to its folder.
async fn stream(
    store: &Arc<Store>,
    job: &Job<'_>,
    source: &impl Source,
    limits: LayerLimits,
    gate: &Arc<Gate>,
) -> Result<(Ingest, Unpacked), FetchError> {
    let at = job.at;
    let (sink, pieces) = mpsc::channel(PIECES_MAX);
    let (store, expected) = (Arc::clone(store), job.expected.clone());
    let (counted, progress) = (Arc::clone(gate), Arc::clone(job.progress));
    let came = move |bytes| {
        counted.bytes.fetch_add(bytes, Ordering::Relaxed);
        progress.came(at, bytes);
    };
    let pieces = Pieces { pieces, current: Bytes::new(), came: Box::new(came) };
    let unpacking = tokio::task::spawn_blocking(move || unpack_layer(&store, pieces, &expected, &limits));
    let (sent, unpacked) = tokio::join!(source.send(at, sink), unpacking);
    match (sent, unpacked.unwrap_or(Err(FetchError::Image(ImageError::Interrupted)))) {
        // The disk's complaint comes first; then the source's, whose end only looks to the unpacker like a short layer.
        (_, Err(FetchError::Image(error))) => Err(FetchError::Image(error)),
        (_, Err(FetchError::Layer(LayerError::Unpack(error)))) if error.is_local() => {
            Err(FetchError::Layer(LayerError::Unpack(error)))
        }
        (Err(error), _) => Err(FetchError::Image(error)),
        (Ok(()), unpacked) => unpacked,
    }
}

fn unpack_layer(
    store: &Store,
    pieces: Pieces,
    expected: &Expected,
    limits: &LayerLimits,
) -> Result<(Ingest, Unpacked), FetchError> {
    let mut ingest = store.snapshots.ingest(&store.env.rng.uuid()).map_err(FetchError::Image)?;
    let folder = open_folder(&ingest.folder()).map_err(FetchError::Image)?;
    let aside = open_folder(&ingest.aside()).map_err(FetchError::Image)?;
    let Some((digest, size)) = expected.blob.clone().filter(|_| store.settings.keeps_blobs) else {
        let unpacked = apply(pieces, expected, &folder, &aside, limits).map_err(FetchError::Layer)?;
        return Ok((ingest, unpacked));
    };
    let path = ingest.blob();
    let failed = |e| FetchError::Image(ImageError::disk("keep the layer in", &path, e));
    let copy = fs::File::options().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
    let mut kept = Kept { pieces, copy, failure: None };
    let unpacked = apply(&mut kept, expected, &folder, &aside, limits);
    if let Some(failure) = kept.failure {
        return Err(failed(failure));
    }
    ingest.keep(Blob { digest, size });
    Ok((ingest, unpacked.map_err(FetchError::Layer)?))
}

/// Writes down what passes. A disk that cannot take it ends the reading, and is not the layer's fault.
struct Kept {
    pieces: Pieces,
    copy: fs::File,
    failure: Option<io::Error>,
}

impl Read for Kept {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.pieces.read(buffer)?;
        if let Err(error) = self.copy.write_all(&buffer[..n]) {
            let kind = error.kind();
            self.failure.get_or_insert(error);
            return Err(kind.into());
        }
        Ok(n)
    }
}

/// `chains` are those of the layers below, and the layer's own as the last. An outer error is the disk's.
async fn commit(
    store: &Arc<Store>,
    layer: Ready,
    chains: &[Digest],
    lease: Arc<Lease>,
) -> Result<Result<(), LayerError>, ImageError> {
    let (store, chains) = (Arc::clone(store), chains.to_vec());
    blocking(move || {
        let _lease = lease;
        // The gate is kept until this ends, whether or not the caller still waits.
        let Ready { mut ingest, unpacked, _gate, _alone } = layer;
        let (Some(ingest), Some((chain, below))) = (ingest.0.take(), chains.split_last()) else { return Ok(Ok(())) };
        if store.has_layer(chain) {
            return Ok(Ok(()));
        }
        let folder = open_folder(&ingest.folder())?;
        let lowers = if unpacked.needs_lowers() {
            below
                .iter()
                .rev()
                .map(|chain| open_folder(&store.snapshots.layer_folder(chain)))
                .collect::<Result<Vec<_>, _>>()?
        } else {
            Vec::new()
        };
        if let Err(error) = settle(unpacked, &folder, &lowers) {
            return Ok(Err(LayerError::Unpack(error)));
        }
        if let Some(usage) = ingest.commit(chain)? {
            store.layer_committed(chain.clone(), usage);
        }
        Ok(Ok(()))
    })
    .await
}

/// The receiving end as a reader, for a blocking thread.
pub(super) struct Pieces {
    pieces: mpsc::Receiver<Bytes>,
    current: Bytes,
    came: Box<dyn Fn(u64) + Send>,
}

impl Pieces {
    pub(super) fn new(pieces: mpsc::Receiver<Bytes>) -> Pieces {
        Pieces { pieces, current: Bytes::new(), came: Box::new(|_| ()) }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => {
                    (self.came)(piece.len() as u64);
                    self.current = piece;
                }
                None => return Ok(0),
            }
        }
        let n = buffer.len().min(self.current.len());
        buffer[..n].copy_from_slice(&self.current.split_to(n));
        Ok(n)
    }
}
