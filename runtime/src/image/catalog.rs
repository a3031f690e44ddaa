//! Which images there are, by id, tag and digest: pure changes to a small record, which is written whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::reference::Reference;

/// Shorter prefixes of an id could be anything.
const ID_PREFIX_MIN_DIGITS: usize = 12;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// The compressed layer's, as the manifest names it.
    pub digest: Digest,
    pub size: u64,
    pub diff_id: Digest,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The digest of the configuration: what CRI calls the image's id.
    pub id: Digest,
    pub manifest: Digest,
    /// Bytes in the registry: configuration and compressed layers.
    pub size: u64,
    /// `name:tag`, each owned by one image.
    pub tags: Vec<String>,
    /// `name@digest`.
    pub digests: Vec<String>,
    pub layers: Vec<LayerRecord>,
    #[serde(default)]
    pub pinned: bool,
}

impl ImageRecord {
    /// The chain ids of the layers, lowest first.
    pub fn chains(&self) -> Vec<Digest> {
        let mut chains: Vec<Digest> = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            chains.push(Digest::chain(chains.last(), &layer.diff_id));
        }
        chains
    }
}

/// The file's content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    pub images: BTreeMap<Digest, ImageRecord>,
}

impl Catalog {
    /// Adds an image or more names for one. A tag moves to the image that took it last.
    pub fn add(&mut self, record: ImageRecord) {
        for other in self.images.values_mut() {
            other.tags.retain(|tag| !record.tags.contains(tag));
        }
        match self.images.get_mut(&record.id) {
            None => {
                self.images.insert(record.id.clone(), record);
            }
            Some(known) => {
                merge(&mut known.tags, record.tags);
                merge(&mut known.digests, record.digests);
                known.pinned |= record.pinned;
                (known.manifest, known.layers, known.size) = (record.manifest, record.layers, record.size);
            }
        }
    }

    /// What an image is called by: a reference, an id, or at least twelve digits of one.
    pub fn find(&self, text: &str) -> Option<&ImageRecord> {
        if let Ok(id) = text.parse::<Digest>() {
            return self.images.get(&id);
        }
        self.find_reference(text).or_else(|| self.find_prefix(text))
    }

    fn find_reference(&self, text: &str) -> Option<&ImageRecord> {
        let reference: Reference = text.parse().ok()?;
        self.images.values().find(|image| match reference.digest() {
            Some(digest) => image.digests.contains(&reference.with_digest(digest)),
            None => reference.tagged().is_some_and(|tag| image.tags.contains(&tag)),
        })
    }

    fn find_prefix(&self, text: &str) -> Option<&ImageRecord> {
        if text.len() < ID_PREFIX_MIN_DIGITS || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut found = self.images.values().filter(|image| image.id.hex().starts_with(text));
        // A prefix of two images names neither.
        found.next().filter(|_| found.next().is_none())
    }

    /// Takes an image away with all its names, by whichever of them it is called: CRI's RemoveImage removes images, not
    /// names.
    pub fn remove(&mut self, text: &str) -> Option<ImageRecord> {
        let id = self.find(text)?.id.clone();
        self.images.remove(&id)
    }
}

fn merge(into: &mut Vec<String>, more: Vec<String>) {
    for name in more {
        if !into.contains(&name) {
            into.push(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, tags: &[&str]) -> ImageRecord {
        let id = Digest::of(id.as_bytes());
        ImageRecord {
            manifest: Digest::of(id.as_str().as_bytes()),
            digests: vec![format!("localhost/a@{}", Digest::of(id.as_str().as_bytes()))],
            id,
            size: 1,
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            layers: Vec::new(),
            pinned: false,
        }
    }

    #[test]
    fn a_tag_belongs_to_one_image() {
        let mut catalog = Catalog::default();
        catalog.add(image("1", &["docker.io/library/a:latest"]));
        catalog.add(image("2", &["docker.io/library/a:latest"]));
        assert_eq!(catalog.find("a").unwrap().id, Digest::of(b"2"));
        assert!(catalog.find(Digest::of(b"1").as_str()).unwrap().tags.is_empty());
        assert_eq!(catalog.find(&Digest::of(b"1").hex()[..12]).unwrap().id, Digest::of(b"1"));
        assert!(catalog.find(&Digest::of(b"1").hex()[..11]).is_none());
    }

    #[test]
    fn an_image_goes_with_all_its_names() {
        let id = Digest::of(b"1");
        let by_digest = format!("localhost/a@{}", Digest::of(id.as_str().as_bytes()));
        for name in ["localhost/a:x", "docker.io/library/b:y", id.as_str(), &id.hex()[..12], &by_digest] {
            let mut catalog = Catalog::default();
            catalog.add(image("1", &["localhost/a:x"]));
            catalog.add(image("1", &["docker.io/library/b:y"]));
            catalog.add(image("2", &["localhost/a:other"]));
            assert_eq!(catalog.remove("localhost/a:z"), None);
            let removed = catalog.remove(name).unwrap();
            assert_eq!((removed.id, removed.tags.len()), (id.clone(), 2), "{name}");
            assert_eq!(catalog.images.into_keys().collect::<Vec<_>>(), [Digest::of(b"2")], "{name}");
        }
    }
}
