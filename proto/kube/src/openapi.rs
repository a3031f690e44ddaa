//! The OpenAPI documents that clients ask for: v2 as JSON and as gnostic's protobuf, v3 by group and version.
//!
//! All of them are derived from the schema table and the table of served kinds, hold no prose, and are built when they are
//! first asked for. Clients read from them how lists merge, which query parameters a write takes, and what `explain` prints.

mod custom;
mod documents;
mod gnostic;
mod paths;
mod schemas;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use crate::resource;
use crate::schema::KUBERNETES_VERSION;
pub use custom::CustomVersion;
pub use documents::{Documents, Tagged};
use paths::Served;
use schemas::Dialect;

/// The media type by which clients ask for v2 as protobuf. The `@` is theirs, though no media type may have one.
pub const V2_PROTOBUF_ACCEPT: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// The media type of the answer: clients parse this one, and stumble over the `@`.
pub const V2_PROTOBUF_CONTENT_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// `/openapi/v2` as JSON.
pub fn v2() -> &'static [u8] {
    static DOCUMENT: OnceLock<Vec<u8>> = OnceLock::new();
    DOCUMENT.get_or_init(|| bytes(&v2_document()))
}

/// `/openapi/v2` as an `openapi.v2.Document` message.
pub fn v2_protobuf() -> &'static [u8] {
    static DOCUMENT: OnceLock<Vec<u8>> = OnceLock::new();
    DOCUMENT.get_or_init(|| gnostic::document(&v2_document()))
}

/// `/openapi/v3`: where the document of each group and version is, under a URL that changes when it does.
pub fn v3_root() -> &'static [u8] {
    static DOCUMENT: OnceLock<Vec<u8>> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        let paths: Map<String, Value> =
            v3_documents().iter().map(|((group, version), document)| v3_path(group, version, &document.hash)).collect();
        bytes(&json!({"paths": paths}))
    })
}

/// The root's entry of one document.
fn v3_path(group: &str, version: &str, hash: &str) -> (String, Value) {
    let path = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
    let url = format!("/openapi/v3/{path}?hash={hash}");
    (path, json!({"serverRelativeURL": url}))
}

/// `/openapi/v3/apis/GROUP/VERSION`, or `/openapi/v3/api/VERSION` for the core group ("").
pub fn v3(group: &str, version: &str) -> Option<&'static [u8]> {
    find(group, version).map(|document| document.bytes.as_slice())
}

/// The hash that the document's URL carries; it serves as its ETag.
pub fn v3_hash(group: &str, version: &str) -> Option<&'static str> {
    find(group, version).map(|document| document.hash.as_str())
}

/// A tag that changes when the bytes do.
pub fn etag(document: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    document.hash(&mut hasher);
    format!("{:016X}", hasher.finish())
}

struct Document {
    bytes: Vec<u8>,
    hash: String,
}

type BuiltIn = BTreeMap<(&'static str, &'static str), Document>;

fn v3_documents() -> &'static BuiltIn {
    static DOCUMENTS: OnceLock<BuiltIn> = OnceLock::new();
    DOCUMENTS.get_or_init(|| {
        let mut served: BTreeMap<(&str, &str), Vec<Served>> = BTreeMap::new();
        for resource in resource::served() {
            served.entry((resource.group, resource.version)).or_default().extend(paths::of(resource));
        }
        let document = |served: Vec<Served>| {
            let bytes = bytes(&v3_document(&served));
            let hash = etag(&bytes);
            Document { bytes, hash }
        };
        served.into_iter().map(|(at, served)| (at, document(served))).collect()
    })
}

fn find(group: &str, version: &str) -> Option<&'static Document> {
    v3_documents().iter().find(|(at, _)| **at == (group, version)).map(|(_, document)| document)
}

fn v2_document() -> Value {
    let served: Vec<Served> = resource::served().flat_map(paths::of).collect();
    v2_document_of(&served, schemas::definitions(paths::roots(&served), Dialect::V2))
}

fn v2_document_of(served: &[Served], definitions: Map<String, Value>) -> Value {
    json!({
        "swagger": "2.0",
        "info": info(),
        "paths": paths::rendered(served, Dialect::V2),
        "definitions": definitions,
    })
}

fn v3_document(served: &[Served]) -> Value {
    v3_document_of(served, schemas::definitions(paths::roots(served), Dialect::V3))
}

fn v3_document_of(served: &[Served], definitions: Map<String, Value>) -> Value {
    json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": paths::rendered(served, Dialect::V3),
        "components": {"schemas": definitions},
    })
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": format!("v{KUBERNETES_VERSION}.0")})
}

fn bytes(document: &Value) -> Vec<u8> {
    // A map with string keys always serialises.
    serde_json::to_vec(document).unwrap_or_default()
}
