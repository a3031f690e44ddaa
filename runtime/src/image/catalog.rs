//! Which images there are, by id, tag and digest: pure changes to a small record, which is written whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::manifest::Platform;
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

/// A name by which an image was brought for a platform that is not this machine's. It is no tag: what pods, and whoever
/// names no platform, mean by a name is this machine's image of that name, whether it is here or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForPlatform {
    pub name: String,
    pub platform: Platform,
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
    /// Each name and platform is owned by one image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub for_platforms: Vec<ForPlatform>,
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

    /// Makes the names that it came by those of an image for another platform. What a digest of an index stands for
    /// depends on the platform; that of the manifest names this image alone.
    pub fn set_platform(&mut self, platform: &Platform, names: &[String]) {
        let repositories = names.iter().filter_map(|name| name.parse::<Reference>().ok());
        self.digests = repositories.map(|name| name.with_digest(&self.manifest)).collect();
        self.digests.dedup();
        let of = |name: &String| ForPlatform { name: name.clone(), platform: platform.clone() };
        self.for_platforms = names.iter().map(of).collect();
        self.tags = Vec::new();
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
            other.for_platforms.retain(|name| !record.for_platforms.contains(name));
        }
        match self.images.get_mut(&record.id) {
            None => {
                self.images.insert(record.id.clone(), record);
            }
            Some(known) => {
                merge(&mut known.tags, record.tags);
                merge(&mut known.digests, record.digests);
                merge(&mut known.for_platforms, record.for_platforms);
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

    /// The images that are here by this name for other platforms, each with its platform.
    pub fn for_platforms(&self, text: &str) -> Vec<(&ImageRecord, &Platform)> {
        let Ok(reference) = text.parse::<Reference>() else { return Vec::new() };
        let name = reference.to_string();
        let named = |image| names_of(image, &name).map(move |platform| (image, platform));
        self.images.values().flat_map(named).collect()
    }

    /// The image of this name that fits a platform best, which is not this machine's.
    pub fn find_for(&self, text: &str, platform: &Platform) -> Option<&ImageRecord> {
        let offers =
            self.for_platforms(text).into_iter().map(|(image, offered)| (platform.fit(&offered.offer()), image));
        offers.filter(|(fit, _)| *fit > 0).max_by_key(|(fit, _)| *fit).map(|(_, image)| image)
    }

    /// The ids of all images that a name stands for, this machine's first.
    pub fn named(&self, text: &str) -> Vec<Digest> {
        let mut ids: Vec<Digest> = self.find(text).map(|image| image.id.clone()).into_iter().collect();
        merge(&mut ids, self.for_platforms(text).into_iter().map(|(image, _)| image.id.clone()).collect());
        ids
    }

    /// Takes images away with all their names, by whichever of them they are called: CRI's RemoveImage removes images,
    /// not names.
    pub fn remove(&mut self, text: &str) -> Vec<ImageRecord> {
        self.named(text).iter().filter_map(|id| self.images.remove(id)).collect()
    }
}

fn names_of<'i>(image: &'i ImageRecord, name: &str) -> impl Iterator<Item = &'i Platform> + use<'i> {
    let platforms: Vec<&Platform> =
        image.for_platforms.iter().filter(|known| known.name == name).map(|known| &known.platform).collect();
    platforms.into_iter()
}

fn merge<T: PartialEq>(into: &mut Vec<T>, more: Vec<T>) {
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
            for_platforms: Vec::new(),
        }
    }

    fn brought_for(id: &str, name: &str, platform: &str) -> ImageRecord {
        let mut image = image(id, &[]);
        image.set_platform(&platform.parse().unwrap(), &[name.to_owned()]);
        image
    }

    #[test]
    fn a_name_is_each_platforms_own() {
        const NAME: &str = "docker.io/library/a:latest";
        let mut catalog = Catalog::default();
        catalog.add(brought_for("arm64", NAME, "linux/arm64"));
        assert_eq!(catalog.find("a"), None, "it is not this machine's");
        catalog.add(image("own", &[NAME]));
        catalog.add(brought_for("arm", NAME, "linux/arm/v6"));
        catalog.add(brought_for("other", "docker.io/library/b:latest", "linux/arm64"));
        let found = |text: &str, platform: &str| {
            catalog.find_for(text, &platform.parse().unwrap()).map(|image| image.id.clone())
        };
        assert_eq!(catalog.find("a").unwrap().id, Digest::of(b"own"));
        assert_eq!(found("a", "linux/aarch64"), Some(Digest::of(b"arm64")));
        assert_eq!(found("a", "linux/arm/v7"), Some(Digest::of(b"arm")), "what is older runs there");
        assert_eq!((found("a", "linux/arm/v5"), found("c", "linux/arm64")), (None, None));
        let arm64 = brought_for("arm64", NAME, "linux/arm64");
        assert_eq!(catalog.find(&arm64.digests[0]).unwrap().id, arm64.id, "by its manifest it is found by anybody");
        // The name goes to what is brought next for the same platform, and to that alone.
        catalog.add(brought_for("newer", NAME, "linux/arm64/v8"));
        assert!(catalog.images[&arm64.id].for_platforms.is_empty());
        assert_eq!(catalog.find("a").unwrap().tags.len(), 1);
        let removed = catalog.remove("a").into_iter().map(|image| image.id).collect::<Vec<_>>();
        assert_eq!(removed[0], Digest::of(b"own"));
        assert_eq!(removed.len(), 3, "a name stands for the images of all platforms");
        assert_eq!(catalog.images.len(), 2);
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
            assert_eq!(catalog.remove("localhost/a:z"), []);
            let removed = catalog.remove(name).remove(0);
            assert_eq!((removed.id, removed.tags.len()), (id.clone(), 2), "{name}");
            assert_eq!(catalog.images.into_keys().collect::<Vec<_>>(), [Digest::of(b"2")], "{name}");
        }
    }
}
