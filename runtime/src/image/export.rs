//! Images as one archive, written while it is read: an OCI image layout (image-layout.md) that has docker's `manifest.json`
//! as well, so that `docker load` and `ctr image import` take it. Documents come first, then layers as they came.
//!
//! An image goes out under the digests that it came by. Where another image of the same files brought its layers first,
//! differently compressed, those are what is kept: then the manifest is written anew, and [`Exported`] says so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use super::Image;
use super::catalog::ForPlatform;
use super::digest::{Digest, Hasher};
use super::error::ImageError;
use super::import::contents::{DOCKER_MANIFEST, FULL_NAME, INDEX, REF_NAME};
use super::manifest::{OCI_INDEX, OCI_MANIFEST, Platform};
use super::reference::Reference;
use super::snapshots::Blob;
use super::store::{Lease, Store};

const BLOCK_BYTES: usize = 512;
const PIECE_BYTES: usize = 256 << 10;
const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// An image in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    pub id: Digest,
    pub tags: Vec<String>,
    /// The digest of its manifest there.
    pub manifest: Digest,
    /// That of the manifest it came by, where that is another.
    pub came_by: Option<Digest>,
}

/// What an archive will hold. While it is there, no layer of it goes.
pub struct Export {
    pub images: Vec<Exported>,
    documents: Vec<(String, Vec<u8>)>,
    blobs: BTreeMap<Digest, Content>,
    _lease: Lease,
}

enum Content {
    Bytes(Vec<u8>),
    Layer { path: PathBuf, size: u64 },
}

impl Content {
    fn size(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Layer { size, .. } => *size,
        }
    }
}

impl Export {
    pub(super) fn plan(
        store: &Arc<Store>,
        names: &[String],
        platform: Option<&Platform>,
    ) -> Result<Export, ImageError> {
        let mut wanted: BTreeMap<Digest, (Arc<Image>, BTreeSet<String>)> = BTreeMap::new();
        for name in names {
            let image = store.find_for(name, platform)?;
            let tags = tags(&image, name);
            wanted.entry(image.id().clone()).or_insert_with(|| (image, BTreeSet::new())).1.extend(tags);
        }
        let held = wanted.values().flat_map(|(image, _)| {
            [image.id().clone(), image.record.manifest.clone()].into_iter().chain(image.layers().iter().cloned())
        });
        let mut export = Export {
            images: Vec::new(),
            documents: Vec::new(),
            blobs: BTreeMap::new(),
            _lease: store.lease(held.collect()),
        };
        let (mut entries, mut docker) = (Vec::new(), Vec::new());
        for (image, tags) in wanted.into_values() {
            export.add(store, &image, tags.into_iter().collect(), &mut entries, &mut docker)?;
        }
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries});
        export.documents = vec![
            ("oci-layout".to_owned(), LAYOUT.to_vec()),
            (INDEX.to_owned(), index.to_string().into_bytes()),
            (DOCKER_MANIFEST.to_owned(), Value::from(docker).to_string().into_bytes()),
        ];
        Ok(export)
    }

    fn add(
        &mut self,
        store: &Store,
        image: &Image,
        tags: Vec<String>,
        entries: &mut Vec<Value>,
        docker: &mut Vec<Value>,
    ) -> Result<(), ImageError> {
        let read = |digest: &Digest| {
            let path = store.blob_path(digest);
            fs::read(&path).map_err(|e| ImageError::disk("read", &path, e))
        };
        let layers = kept(store, image)?;
        let (config, came_by) = (read(image.id())?, read(&image.record.manifest)?);
        let manifest = manifest_of(image, &came_by, &layers)?;
        let (digest, media_type) = (Digest::of(&manifest), media_type(&manifest));
        for tag in each(&tags) {
            let mut entry = json!({"mediaType": media_type, "digest": digest, "size": manifest.len()});
            if let Some(platform) = image.platform() {
                entry["platform"] = json!(platform.offer());
            }
            if let Some(tag) = tag {
                let short = tag.parse::<Reference>().ok().and_then(|name| name.tag().map(str::to_owned));
                entry["annotations"] = json!({FULL_NAME: tag, REF_NAME: short.unwrap_or_default()});
            }
            entries.push(entry);
        }
        let name = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
        let names: Vec<String> = layers.iter().map(|(blob, _)| name(&blob.digest)).collect();
        docker.push(json!({"Config": name(image.id()), "RepoTags": tags, "Layers": names}));
        self.blobs.insert(image.id().clone(), Content::Bytes(config));
        self.blobs.insert(digest.clone(), Content::Bytes(manifest));
        for (blob, path) in layers {
            self.blobs.insert(blob.digest, Content::Layer { path, size: blob.size });
        }
        let came_by = Some(image.record.manifest.clone()).filter(|before| *before != digest);
        self.images.push(Exported { id: image.id().clone(), tags, manifest: digest, came_by });
        Ok(())
    }

    /// Writes the archive. What was kept is verified on its way; the call blocks.
    pub fn write(&self, out: &mut impl Write) -> Result<(), ImageError> {
        for (name, content) in &self.documents {
            file(out, name, content)?;
        }
        for folder in ["blobs/", "blobs/sha256/"] {
            put(out, &header(b'5', folder, 0))?;
        }
        for (digest, content) in &self.blobs {
            let name = format!("blobs/sha256/{}", digest.hex());
            match content {
                Content::Bytes(bytes) => file(out, &name, bytes)?,
                Content::Layer { path, .. } => {
                    put(out, &header(b'0', &name, content.size()))?;
                    let from = fs::File::open(path).map_err(|e| ImageError::disk("read", path, e))?;
                    layer(out, from.take(content.size()), digest, content.size())?;
                }
            }
        }
        put(out, &[0; 2 * BLOCK_BYTES])?;
        out.flush().map_err(|_| ImageError::NobodyReads)
    }
}

/// An image that is called by a tag goes by that one.
fn tags(image: &Image, name: &str) -> Vec<String> {
    let by_tag = name.parse::<Reference>().ok().and_then(|name| name.tagged());
    let by_tags = |name: &ForPlatform| name.name.parse::<Reference>().ok()?.tagged();
    let all: Vec<String> =
        image.repo_tags().iter().cloned().chain(image.for_platforms().iter().filter_map(by_tags)).collect();
    match by_tag.filter(|tag| all.contains(tag)) {
        Some(tag) => vec![tag],
        None => all,
    }
}

/// Each tag, or none once: an image without names is an entry too.
fn each(tags: &[String]) -> impl Iterator<Item = Option<&String>> {
    let nameless = tags.is_empty().then_some(None);
    tags.iter().map(Some).chain(nameless)
}

fn kept(store: &Store, image: &Image) -> Result<Vec<(Blob, PathBuf)>, ImageError> {
    let layers = image.layers().iter().zip(&image.record.layers);
    let kept = layers.map(|(chain, layer)| {
        let missing = || ImageError::NotKept { image: image.id().to_string(), layer: layer.digest.clone() };
        store.snapshots.blob(chain).ok_or_else(missing)
    });
    kept.collect()
}

/// The manifest that the image came by, or that of the layers as they are kept.
fn manifest_of(image: &Image, came_by: &[u8], layers: &[(Blob, PathBuf)]) -> Result<Vec<u8>, ImageError> {
    let same = layers.iter().zip(&image.record.layers).all(|((blob, _), layer)| blob.digest == layer.digest);
    if same {
        return Ok(came_by.to_vec());
    }
    let described = |(blob, path): &(Blob, PathBuf)| {
        let failed = |e| ImageError::disk("read", path, e);
        let mut magic = Vec::with_capacity(4);
        fs::File::open(path).map_err(failed)?.take(4).read_to_end(&mut magic).map_err(failed)?;
        let compression = match magic.as_slice() {
            [0x1f, 0x8b, ..] => "+gzip",
            [0x28, 0xb5, 0x2f, 0xfd] => "+zstd",
            _ => "",
        };
        let media_type = format!("application/vnd.oci.image.layer.v1.tar{compression}");
        Ok(json!({"mediaType": media_type, "digest": blob.digest, "size": blob.size}))
    };
    let layers = layers.iter().map(described).collect::<Result<Vec<Value>, ImageError>>()?;
    let config: Value =
        serde_json::from_slice(came_by).map(|manifest: Value| manifest["config"].clone()).unwrap_or_default();
    let config = json!({
        "mediaType": "application/vnd.oci.image.config.v1+json", "digest": image.id(), "size": config["size"],
    });
    let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers});
    Ok(manifest.to_string().into_bytes())
}

/// OCI's manifests need not name their own type.
fn media_type(manifest: &[u8]) -> String {
    let parsed: Value = serde_json::from_slice(manifest).unwrap_or_default();
    parsed["mediaType"].as_str().unwrap_or(OCI_MANIFEST).to_owned()
}

// ---- tar --------------------------------------------------------------------------------------------------------

/// Whoever takes the archive may stop to.
fn put(out: &mut impl Write, bytes: &[u8]) -> Result<(), ImageError> {
    out.write_all(bytes).map_err(|_| ImageError::NobodyReads)
}

fn file(out: &mut impl Write, name: &str, content: &[u8]) -> Result<(), ImageError> {
    put(out, &header(b'0', name, content.len() as u64))?;
    put(out, content)?;
    fill(out, content.len() as u64)
}

fn fill(out: &mut impl Write, written: u64) -> Result<(), ImageError> {
    let beyond = (written % BLOCK_BYTES as u64) as usize;
    put(out, &[0; BLOCK_BYTES][..(BLOCK_BYTES - beyond) % BLOCK_BYTES])
}

fn layer(out: &mut impl Write, mut from: impl Read, digest: &Digest, size: u64) -> Result<(), ImageError> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                hasher.update(&buffer[..n]);
                put(out, &buffer[..n])?;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(ImageError::Damaged(digest.clone())),
        }
    }
    if hasher.bytes() != size || hasher.finish() != *digest {
        return Err(ImageError::Damaged(digest.clone()));
    }
    fill(out, size)
}

/// The same names and sizes make the same bytes: owner root, time zero.
fn header(kind: u8, name: &str, size: u64) -> [u8; BLOCK_BYTES] {
    let mut header = [0_u8; BLOCK_BYTES];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, if kind == b'5' { b"0000755" } else { b"0000644" });
    put(108, b"0000000");
    put(116, b"0000000");
    // Eleven octal digits are eight gigabytes; larger sizes are in base 256, as GNU and every reader of today have it.
    match size {
        0..=0o77_777_777_777 => put(124, format!("{size:011o}").as_bytes()),
        _ => put(124, &[&[0x80_u8, 0, 0, 0][..], &size.to_be_bytes()[..]].concat()),
    }
    put(136, b"00000000000");
    put(148, b"        ");
    put(257, b"ustar\x0000");
    header[156] = kind;
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::super::tar::Archive;
    use super::*;

    #[test]
    fn sizes_of_any_length_are_written() {
        for size in [0, 5, 8 << 30, (8 << 30) - 1, 1 << 40] {
            let block = header(b'0', "a", size);
            assert_eq!(Archive::new(&block[..]).next_entry().unwrap().unwrap().size, size);
        }
    }
}
