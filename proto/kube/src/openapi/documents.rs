//! The documents of a server that has custom kinds: those of the built-in kinds, and what custom kinds add to them. Each is made when it
//! is first asked for; a change of the kinds makes a new set.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::custom::CustomVersion;
use super::paths::{self, Served};
use super::schemas::{self, Dialect};
use super::{Document, bytes, etag, gnostic, v2_document_of, v3_document_of};
use crate::resource;

/// A document and its ETag.
#[derive(Clone, Debug)]
pub struct Tagged {
    pub bytes: Bytes,
    pub tag: String,
}

impl Tagged {
    fn new(bytes: Vec<u8>) -> Tagged {
        Tagged { tag: etag(&bytes), bytes: bytes.into() }
    }
}

/// All documents together.
#[derive(Debug, Default)]
pub struct Documents {
    custom: Vec<CustomVersion>,
    /// Of each group and version that has custom kinds: which, and its document.
    v3: BTreeMap<(String, String), (Vec<usize>, OnceLock<Tagged>)>,
    v3_root: OnceLock<Tagged>,
    v2: OnceLock<Tagged>,
    v2_protobuf: OnceLock<Tagged>,
}

impl Documents {
    /// The documents of the built-in kinds and these.
    pub fn with(custom: Vec<CustomVersion>) -> Documents {
        let mut v3: BTreeMap<(String, String), (Vec<usize>, OnceLock<Tagged>)> = BTreeMap::new();
        for (index, version) in custom.iter().enumerate() {
            v3.entry((version.group.clone(), version.version.clone())).or_default().0.push(index);
        }
        Documents { custom, v3, ..Documents::default() }
    }

    /// `/openapi/v2` as JSON.
    pub fn v2(&self) -> &Tagged {
        self.v2.get_or_init(|| Tagged::new(bytes(&self.v2_document())))
    }

    /// `/openapi/v2` as an `openapi.v2.Document` message.
    pub fn v2_protobuf(&self) -> &Tagged {
        self.v2_protobuf.get_or_init(|| Tagged::new(gnostic::document(&self.v2_document())))
    }

    /// `/openapi/v3/apis/GROUP/VERSION`, or `/openapi/v3/api/VERSION` for the core group ("").
    pub fn v3(&self, group: &str, version: &str) -> Option<Tagged> {
        let Some((indices, document)) = self.v3.get(&(group.to_owned(), version.to_owned())) else {
            return super::find(group, version).map(built_in);
        };
        let made = document.get_or_init(|| {
            let custom: Vec<&CustomVersion> = indices.iter().filter_map(|index| self.custom.get(*index)).collect();
            let built_in = resource::served().filter(|served| (served.group, served.version) == (group, version));
            let served: Vec<Served> =
                built_in.flat_map(paths::of).chain(custom.iter().flat_map(|version| version.served())).collect();
            Tagged::new(bytes(&v3_document_of(&served, definitions(&served, &custom, Dialect::V3))))
        });
        Some(made.clone())
    }

    /// `/openapi/v3`: where the document of each group and version is, under a URL that changes when it does.
    pub fn v3_root(&self) -> &Tagged {
        self.v3_root.get_or_init(|| {
            let built_in =
                super::v3_documents().keys().map(|(group, version)| ((*group).to_owned(), (*version).to_owned()));
            let mut all: Vec<(String, String)> = built_in.chain(self.v3.keys().cloned()).collect();
            all.sort();
            all.dedup();
            let path = |(group, version): (String, String)| {
                let tag = self.v3(&group, &version)?.tag;
                Some(super::v3_path(&group, &version, &tag))
            };
            let paths: Map<String, Value> = all.into_iter().filter_map(path).collect();
            Tagged::new(bytes(&json!({"paths": paths})))
        })
    }

    fn v2_document(&self) -> Value {
        let custom: Vec<&CustomVersion> = self.custom.iter().collect();
        let built_in = resource::served().flat_map(paths::of);
        let served: Vec<Served> = built_in.chain(custom.iter().flat_map(|version| version.served())).collect();
        v2_document_of(&served, definitions(&served, &custom, Dialect::V2))
    }
}

fn built_in(document: &'static Document) -> Tagged {
    Tagged { bytes: Bytes::from_static(&document.bytes), tag: document.hash.clone() }
}

fn definitions(served: &[Served], custom: &[&CustomVersion], dialect: Dialect) -> Map<String, Value> {
    let mut roots = paths::roots(served);
    if !custom.is_empty() {
        roots.extend(CustomVersion::roots());
    }
    let mut all = schemas::definitions(roots, dialect);
    all.extend(custom.iter().flat_map(|version| version.definitions(dialect)));
    all
}
