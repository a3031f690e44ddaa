//! Manifests, indexes and image configurations: parsed from bounded, untrusted bytes, without I/O.
//!
//! A document says what it is by its media type or, where it names none, by its fields. One that has the fields of
//! both an index and a manifest is refused (CVE-2021-41190): two readers would see two images.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::digest::Digest;

mod platform;

pub use platform::{Platform, PlatformError};

pub const MANIFEST_MAX_BYTES: u64 = 4 << 20;
pub const CONFIG_MAX_BYTES: u64 = 8 << 20;
/// A layer costs about 15 bytes of the page that mount(2) takes its options in.
pub const LAYERS_MAX: usize = 200;

pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// What a registry is asked for, most wanted first.
pub const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("{what} is {bytes} bytes long, more than {max}")]
    TooLong { what: &'static str, bytes: u64, max: u64 },
    #[error("{what} is not valid JSON of its kind")]
    Json {
        what: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("media type {0:?} is not that of an image or an index")]
    MediaType(String),
    #[error("layer media type {0:?} is not supported")]
    LayerMediaType(String),
    #[error("the document says media type {inside:?}, its envelope {outside:?}")]
    MediaTypesDiffer { inside: String, outside: String },
    #[error("the document has the fields of both an index and a manifest")]
    Ambiguous,
    #[error("no image for platform {wanted}, only for {offered}")]
    NoPlatform { wanted: Platform, offered: String },
    #[error("indexes are nested more than {0} deep")]
    TooDeep(usize),
    #[error("{layers} layers, more than {max}")]
    TooManyLayers { layers: usize, max: usize },
    #[error("the manifest lists {layers} layers, the configuration {diff_ids} diffIDs")]
    LayersDiffer { layers: usize, diff_ids: usize },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<DescriptorPlatform>,
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescriptorPlatform {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    Index(Vec<Descriptor>),
    Manifest(Manifest),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: u32,
    media_type: Option<String>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<serde::de::IgnoredAny>,
}

/// Parses a manifest or an index. `outside` is the media type that the registry or the descriptor gave it, if any.
pub fn parse_document(bytes: &[u8], outside: Option<&str>) -> Result<Document, ManifestError> {
    const WHAT: &str = "manifest";
    bounded(WHAT, bytes, MANIFEST_MAX_BYTES)?;
    let raw: Raw = serde_json::from_slice(bytes).map_err(|source| ManifestError::Json { what: WHAT, source })?;
    // A parameter (`; charset=utf-8`) and types that say nothing are no statement.
    let outside = outside
        .map(|text| text.split(';').next().unwrap_or("").trim())
        .filter(|text| !matches!(*text, "" | "application/json" | "application/octet-stream" | "text/plain"));
    if raw.schema_version == 1 || raw.fs_layers.is_some() {
        return Err(ManifestError::MediaType("application/vnd.docker.distribution.manifest.v1+json".into()));
    }
    if let (Some(inside), Some(outside)) = (raw.media_type.as_deref(), outside)
        && inside != outside
    {
        return Err(ManifestError::MediaTypesDiffer { inside: clip(inside), outside: clip(outside) });
    }
    if raw.manifests.is_some() && (raw.layers.is_some() || raw.config.is_some()) {
        return Err(ManifestError::Ambiguous);
    }
    let index = match raw.media_type.as_deref().or(outside) {
        Some(OCI_INDEX | DOCKER_LIST) => true,
        Some(OCI_MANIFEST | DOCKER_MANIFEST) => false,
        Some(other) => return Err(ManifestError::MediaType(clip(other))),
        None => raw.manifests.is_some(),
    };
    match (index, raw.manifests, raw.config, raw.layers) {
        (true, Some(manifests), _, _) => Ok(Document::Index(manifests)),
        (false, None, Some(config), layers) => manifest(config, layers.unwrap_or_default()),
        _ => Err(ManifestError::Ambiguous),
    }
}

fn manifest(config: Descriptor, layers: Vec<Descriptor>) -> Result<Document, ManifestError> {
    if layers.len() > LAYERS_MAX {
        return Err(ManifestError::TooManyLayers { layers: layers.len(), max: LAYERS_MAX });
    }
    if config.size > CONFIG_MAX_BYTES {
        return Err(ManifestError::TooLong { what: "image configuration", bytes: config.size, max: CONFIG_MAX_BYTES });
    }
    if let Some(layer) = layers.iter().find(|layer| !is_layer_type(&layer.media_type)) {
        return Err(ManifestError::LayerMediaType(clip(&layer.media_type)));
    }
    Ok(Document::Manifest(Manifest { config, layers }))
}

/// How a layer is compressed is read from its first bytes; its type only has to be that of a layer.
fn is_layer_type(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    )
}

/// The entry of an index that fits best; the first among equals.
pub fn choose<'a>(entries: &'a [Descriptor], platform: &Platform) -> Result<&'a Descriptor, ManifestError> {
    let mut best: Option<(u8, &Descriptor)> = None;
    for entry in entries {
        let fit = match &entry.platform {
            Some(offer) => platform.fit(offer),
            // An index of one image need not name a platform.
            None if matches!(entry.media_type.as_str(), OCI_MANIFEST | DOCKER_MANIFEST | OCI_INDEX | DOCKER_LIST) => 1,
            None => 0,
        };
        if fit > 0 && best.is_none_or(|(score, _)| fit > score) {
            best = Some((fit, entry));
        }
    }
    best.map(|(_, entry)| entry)
        .ok_or_else(|| ManifestError::NoPlatform { wanted: platform.clone(), offered: offered(entries) })
}

fn offered(entries: &[Descriptor]) -> String {
    let names: Vec<String> = entries
        .iter()
        .filter_map(|entry| entry.platform.as_ref())
        .take(16)
        .map(|p| {
            clip(&format!(
                "{}/{}{}",
                p.os,
                p.architecture,
                p.variant.as_deref().map(|v| format!("/{v}")).unwrap_or_default()
            ))
        })
        .collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// What an image says about running it (OCI image spec, config.md).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    #[serde(deserialize_with = "null_as_default")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub entrypoint: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub cmd: Vec<String>,
    /// `user`, `uid`, `user:group`, …; empty means root.
    #[serde(deserialize_with = "null_as_default")]
    pub user: String,
    #[serde(deserialize_with = "null_as_default")]
    pub working_dir: String,
    #[serde(deserialize_with = "null_as_default")]
    pub stop_signal: String,
    #[serde(deserialize_with = "null_as_default")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "null_as_default")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageConfig {
    pub os: String,
    pub architecture: String,
    pub variant: Option<String>,
    pub created: Option<String>,
    pub run: RunConfig,
    pub diff_ids: Vec<Digest>,
}

impl ImageConfig {
    /// What the image is made for, where it says so.
    pub fn platform(&self) -> Option<Platform> {
        Platform::said(&self.os, &self.architecture, self.variant.as_deref())
    }
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(default, deserialize_with = "null_as_default")]
    os: String,
    #[serde(default, deserialize_with = "null_as_default")]
    architecture: String,
    variant: Option<String>,
    created: Option<String>,
    config: Option<RunConfig>,
    rootfs: RawRootfs,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(default, deserialize_with = "null_as_default")]
    diff_ids: Vec<Digest>,
}

/// Parses an image configuration, OCI's or docker's.
pub fn parse_config(bytes: &[u8]) -> Result<ImageConfig, ManifestError> {
    const WHAT: &str = "image configuration";
    bounded(WHAT, bytes, CONFIG_MAX_BYTES)?;
    let raw: RawConfig = serde_json::from_slice(bytes).map_err(|source| ManifestError::Json { what: WHAT, source })?;
    Ok(ImageConfig {
        os: raw.os,
        architecture: raw.architecture,
        variant: raw.variant,
        created: raw.created,
        run: raw.config.unwrap_or_default(),
        diff_ids: raw.rootfs.diff_ids,
    })
}

fn bounded(what: &'static str, bytes: &[u8], max: u64) -> Result<(), ManifestError> {
    let length = bytes.len() as u64;
    if length > max { Err(ManifestError::TooLong { what, bytes: length, max }) } else { Ok(()) }
}

fn clip(text: &str) -> String {
    text.chars().take(200).collect()
}

/// Go writes null for an empty list, map or string.
fn null_as_default<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests;
