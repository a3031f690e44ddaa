//! `/openapi/v2` (JSON, or protobuf for old clients) and `/openapi/v3`: made from the schema table, once.

use std::sync::OnceLock;

use bytes::Bytes;
use gantry_kube::openapi;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::body::Body;
use super::query::Query;
use super::{media, respond};

pub fn serve(path: &str, query: &Query, headers: &HeaderMap) -> Option<Response<Body>> {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    match parts.as_slice() {
        ["openapi", "v2"] => Some(v2(headers)),
        ["openapi", "v3"] => {
            static TAG: OnceLock<String> = OnceLock::new();
            Some(json(headers, openapi::v3_root(), &TAG))
        }
        ["openapi", "v3", "api", version] => v3(headers, query, "", version),
        ["openapi", "v3", "apis", group, version] => v3(headers, query, group, version),
        _ => None,
    }
}

fn document(headers: &HeaderMap, document: &'static [u8]) -> Response<Body> {
    respond::maybe_gzip(Bytes::from_static(document), "application/json", respond::takes_gzip(headers))
}

fn json(headers: &HeaderMap, bytes: &'static [u8], tag: &'static OnceLock<String>) -> Response<Body> {
    respond::tagged(headers, tag.get_or_init(|| openapi::etag(bytes)), || document(headers, bytes))
}

/// A client that asks by the hash that the root names may keep the answer for good.
fn v3(headers: &HeaderMap, query: &Query, group: &str, version: &str) -> Option<Response<Body>> {
    let (bytes, hash) = (openapi::v3(group, version)?, openapi::v3_hash(group, version)?);
    let mut response = respond::tagged(headers, hash, || document(headers, bytes));
    if query.get("hash") == Some(hash) {
        let forever = HeaderValue::from_static("public, immutable, max-age=31536000");
        response.headers_mut().insert(header::CACHE_CONTROL, forever);
    }
    Some(response)
}

fn v2(headers: &HeaderMap) -> Response<Body> {
    static JSON_TAG: OnceLock<String> = OnceLock::new();
    static PROTOBUF_TAG: OnceLock<String> = OnceLock::new();
    let first = media::accepted(headers).into_iter().map(|range| range.essence).find(|essence| {
        matches!(essence.as_str(), "application/json" | "*/*" | "application/*")
            || essence == openapi::V2_PROTOBUF_ACCEPT
    });
    if first.is_none_or(|essence| essence != openapi::V2_PROTOBUF_ACCEPT) {
        return json(headers, openapi::v2(), &JSON_TAG);
    }
    let tag = PROTOBUF_TAG.get_or_init(|| openapi::etag(openapi::v2_protobuf()));
    respond::tagged(headers, tag, || {
        respond::bytes(StatusCode::OK, openapi::V2_PROTOBUF_CONTENT_TYPE, openapi::v2_protobuf())
    })
}
