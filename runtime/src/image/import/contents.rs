//! Which images an archive holds.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;

use super::ImportOptions;
use super::spool::{Spool, SpoolError, Spooled};
use crate::image::catalog::ImageRecord;
use crate::image::digest::Digest;
use crate::image::install::Candidate;
use crate::image::layer::Expected;
use crate::image::manifest::{
    CONFIG_MAX_BYTES, Descriptor, DescriptorPlatform, Document, LAYERS_MAX, MANIFEST_MAX_BYTES, Manifest,
    ManifestError, Platform, choose, parse_config, parse_document,
};
use crate::image::reference::{Reference, ReferenceError};

pub const INDEX: &str = "index.json";
pub const DOCKER_MANIFEST: &str = "manifest.json";
/// Names an image in full; containerd, buildkit and docker write it.
pub const FULL_NAME: &str = "io.containerd.image.name";
/// Names an image, or only its tag (OCI image spec, annotations.md).
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
const INDEXES_MAX: usize = 2;

#[derive(Debug, thiserror::Error)]
pub enum ContentsError {
    #[error("neither an OCI layout (index.json) nor an archive of docker (manifest.json)")]
    Neither,
    #[error("the archive holds no {0:?}")]
    Missing(String),
    #[error("{name:?} has digest {actual}")]
    Digest { name: String, actual: Digest },
    #[error("{name:?} has {actual} bytes, not {wanted}")]
    Size { name: String, wanted: u64, actual: u64 },
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("{DOCKER_MANIFEST} is not valid")]
    DockerManifest(#[source] serde_json::Error),
    #[error("the archive holds no image named {wanted:?}, only {offered}")]
    NoSuchImage { wanted: String, offered: String },
    #[error("a name was given for the archive's one image, but it holds {0}")]
    NotOne(usize),
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// An image of the archive, and where its layers are.
pub(super) struct Found {
    pub candidate: Candidate,
    pub layers: Vec<Spooled>,
    /// What the index that led to it says that it is for.
    offered: Option<DescriptorPlatform>,
}

pub(super) fn read_contents(spool: &Spool, options: &ImportOptions) -> Result<Vec<Found>, ContentsError> {
    let wanted = options.platform.as_ref();
    let mut found = if spool.find(INDEX).is_some() {
        read_layout(spool, wanted.unwrap_or(&Platform::host()))?
    } else if spool.find(DOCKER_MANIFEST).is_some() {
        read_docker(spool)?
    } else {
        return Err(ContentsError::Neither);
    };
    if let Some(only) = &options.only {
        let wanted: Reference = only.parse()?;
        let offered = offered(&found);
        let named = |image: &Found| wanted.tagged().is_some_and(|tag| image.candidate.record.tags.contains(&tag));
        found.retain(named);
        if found.is_empty() {
            return Err(ContentsError::NoSuchImage { wanted: wanted.to_string(), offered });
        }
        for image in &mut found {
            image.candidate.record.tags.retain(|tag| Some(tag) == wanted.tagged().as_ref());
        }
    }
    if let Some(name) = &options.name {
        let reference: Reference = name.parse()?;
        let count = found.len();
        let [image] = found.as_mut_slice() else { return Err(ContentsError::NotOne(count)) };
        add_name(&mut image.candidate, &reference);
    }
    // As with a layout's index: of what an archive holds for several platforms the rest is left out.
    let (mut meant, mut refused) = (Vec::new(), None);
    for mut image in found {
        image.candidate.record.pinned = options.pinned;
        match image.candidate.meant_for(wanted, image.offered.as_ref()) {
            Ok(candidate) => meant.push(Found { candidate, ..image }),
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        Some(error) if meant.is_empty() => Err(error.into()),
        _ => Ok(meant),
    }
}

fn offered(found: &[Found]) -> String {
    let names: Vec<&str> =
        found.iter().flat_map(|image| &image.candidate.record.tags).map(String::as_str).take(16).collect();
    if names.is_empty() { "images without names".to_owned() } else { names.join(", ") }
}

fn add_name(candidate: &mut Candidate, reference: &Reference) {
    candidate.record.tags.extend(reference.tagged().filter(|tag| !candidate.record.tags.contains(tag)));
    candidate.shown = reference.to_string();
}

// ---- OCI image layout -------------------------------------------------------------------------------------------

fn read_layout(spool: &Spool, platform: &Platform) -> Result<Vec<Found>, ContentsError> {
    let index = spool.read(INDEX, MANIFEST_MAX_BYTES)?.ok_or_else(|| ContentsError::Missing(INDEX.into()))?;
    let Document::Index(entries) = parse_document(&index, None)? else { return Err(ContentsError::Neither) };
    // Images of one name are one image for several platforms.
    let mut by_name: BTreeMap<Option<String>, Vec<Descriptor>> = BTreeMap::new();
    for entry in entries {
        let name = annotated_name(&entry).map(|reference| reference.to_string());
        by_name.entry(name).or_default().push(entry);
    }
    let (mut found, mut refused): (Vec<Found>, Option<ContentsError>) = (Vec::new(), None);
    for (name, entries) in by_name {
        // Without a name each entry stands for itself.
        let groups: Vec<Vec<Descriptor>> =
            if name.is_some() { vec![entries] } else { entries.into_iter().map(|entry| vec![entry]).collect() };
        for group in groups {
            match choose(&group, platform)
                .map_err(ContentsError::from)
                .and_then(|entry| layout_image(spool, entry, platform))
            {
                Ok(mut image) => {
                    if let Some(name) = &name {
                        let reference: Reference = name.parse()?;
                        add_name(&mut image.candidate, &reference);
                        let digest = reference.with_digest(&image.candidate.record.manifest);
                        image.candidate.record.digests.push(digest);
                    }
                    found.push(image);
                }
                Err(error @ ContentsError::Manifest(ManifestError::NoPlatform { .. })) => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
    }
    match (found.is_empty(), refused) {
        (true, Some(error)) => Err(error),
        _ => {
            add_docker_names(spool, &mut found)?;
            Ok(found)
        }
    }
}

fn annotated_name(entry: &Descriptor) -> Option<Reference> {
    let full = entry.annotations.get(FULL_NAME);
    // A bare tag names nothing.
    let name = full.or_else(|| entry.annotations.get(REF_NAME).filter(|name| name.contains(['/', ':'])))?;
    name.parse().ok()
}

/// Docker writes both descriptions; where the layout's gives no name, docker's may.
fn add_docker_names(spool: &Spool, found: &mut [Found]) -> Result<(), ContentsError> {
    if spool.find(DOCKER_MANIFEST).is_none() {
        return Ok(());
    }
    for entry in docker_entries(spool)? {
        let Some(config) = spool.find(&entry.config) else { continue };
        for image in found.iter_mut().filter(|image| image.candidate.record.id == config.digest) {
            for tag in entry.repo_tags.iter().flatten() {
                add_name(&mut image.candidate, &tag.parse()?);
            }
        }
    }
    Ok(())
}

fn layout_image(spool: &Spool, entry: &Descriptor, platform: &Platform) -> Result<Found, ContentsError> {
    let mut entry = entry.clone();
    let mut offered = None;
    for _ in 0..=INDEXES_MAX {
        offered = entry.platform.take().or(offered);
        let bytes = read_blob(spool, &entry, MANIFEST_MAX_BYTES)?;
        match parse_document(&bytes, Some(&entry.media_type))? {
            Document::Index(entries) => entry = choose(&entries, platform)?.clone(),
            Document::Manifest(manifest) => {
                let image = from_manifest(spool, entry.digest, bytes, &manifest)?;
                return Ok(Found { offered, ..image });
            }
        }
    }
    Err(ManifestError::TooDeep(INDEXES_MAX).into())
}

fn from_manifest(spool: &Spool, digest: Digest, bytes: Vec<u8>, manifest: &Manifest) -> Result<Found, ContentsError> {
    let config = read_blob(spool, &manifest.config, CONFIG_MAX_BYTES)?;
    let layers = manifest.layers.iter().map(|layer| find_blob(spool, layer).cloned()).collect::<Result<Vec<_>, _>>()?;
    found(digest.to_string(), digest, bytes, manifest.config.digest.clone(), config, layers)
}

fn find_blob<'a>(spool: &'a Spool, blob: &Descriptor) -> Result<&'a Spooled, ContentsError> {
    let name = format!("blobs/sha256/{}", blob.digest.hex());
    let file = spool.find(&name).ok_or_else(|| ContentsError::Missing(name.clone()))?;
    if file.size != blob.size {
        return Err(ContentsError::Size { name, wanted: blob.size, actual: file.size });
    }
    if file.digest != blob.digest {
        return Err(ContentsError::Digest { name, actual: file.digest.clone() });
    }
    Ok(file)
}

fn read_blob(spool: &Spool, blob: &Descriptor, max: u64) -> Result<Vec<u8>, ContentsError> {
    find_blob(spool, blob)?;
    let name = format!("blobs/sha256/{}", blob.digest.hex());
    spool.read(&name, max)?.ok_or(ContentsError::Missing(name))
}

// ---- docker save ------------------------------------------------------------------------------------------------

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

fn docker_entries(spool: &Spool) -> Result<Vec<DockerEntry>, ContentsError> {
    let bytes = spool.read(DOCKER_MANIFEST, MANIFEST_MAX_BYTES)?;
    let bytes = bytes.ok_or_else(|| ContentsError::Missing(DOCKER_MANIFEST.into()))?;
    serde_json::from_slice(&bytes).map_err(ContentsError::DockerManifest)
}

fn read_docker(spool: &Spool) -> Result<Vec<Found>, ContentsError> {
    docker_entries(spool)?.iter().map(|entry| docker_image(spool, entry)).collect()
}

fn docker_image(spool: &Spool, entry: &DockerEntry) -> Result<Found, ContentsError> {
    let missing = |name: &String| ContentsError::Missing(name.clone());
    let names = entry.layers.as_deref().unwrap_or_default();
    if names.len() > LAYERS_MAX {
        return Err(ManifestError::TooManyLayers { layers: names.len(), max: LAYERS_MAX }.into());
    }
    let layers: Vec<Spooled> =
        names.iter().map(|name| spool.find(name).cloned().ok_or_else(|| missing(name))).collect::<Result<_, _>>()?;
    let config = spool.read(&entry.config, CONFIG_MAX_BYTES)?.ok_or_else(|| missing(&entry.config))?;
    let id = Digest::of(&config);
    let manifest = docker_manifest(&id, config.len(), &layers);
    let mut image = found(id.to_string(), Digest::of(&manifest), manifest, id, config, layers)?;
    for tag in entry.repo_tags.iter().flatten() {
        add_name(&mut image.candidate, &tag.parse()?);
    }
    Ok(image)
}

/// Docker's archives hold no manifest; this is what one would say.
fn docker_manifest(config: &Digest, config_bytes: usize, layers: &[Spooled]) -> Vec<u8> {
    let layer = |layer: &Spooled| {
        serde_json::json!({
            "mediaType": "application/vnd.docker.image.rootfs.diff.tar",
            "size": layer.size,
            "digest": layer.digest,
        })
    };
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "size": config_bytes,
            "digest": config,
        },
        "layers": layers.iter().map(layer).collect::<Vec<_>>(),
    });
    manifest.to_string().into_bytes()
}

fn found(
    shown: String,
    manifest_digest: Digest,
    manifest: Vec<u8>,
    id: Digest,
    config: Vec<u8>,
    layers: Vec<Spooled>,
) -> Result<Found, ContentsError> {
    let parsed = parse_config(&config)?;
    let blobs: Vec<(Digest, u64)> = layers.iter().map(|layer| (layer.digest.clone(), layer.size)).collect();
    let records = Candidate::layers(&blobs, &parsed.diff_ids)?;
    let expected = records
        .iter()
        .map(|layer| Expected { blob: Some((layer.digest.clone(), layer.size)), diff_id: layer.diff_id.clone() })
        .collect();
    let record = ImageRecord {
        id,
        manifest: manifest_digest,
        size: blobs.iter().fold(config.len() as u64, |sum, (_, size)| sum.saturating_add(*size)),
        tags: Vec::new(),
        digests: Vec::new(),
        layers: records,
        pinned: false,
        for_platforms: Vec::new(),
    };
    let platform = parsed.platform();
    let (manifest, config) = (Bytes::from(manifest), Bytes::from(config));
    let candidate = Candidate { shown, record, platform, expected, manifest, config };
    Ok(Found { candidate, layers, offered: None })
}
