//! `/openapi/v2` (JSON, or protobuf for old clients) and `/openapi/v3`: made from the schema table and the definitions of custom kinds,
//! anew when one of those has changed.

use gantry_kube::openapi::{self, Tagged};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::body::Body;
use super::query::Query;
use super::{media, respond};
use crate::custom::Kinds;

pub fn serve(kinds: &Kinds, path: &str, query: &Query, headers: &HeaderMap) -> Option<Response<Body>> {
    let documents = kinds.documents();
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    match parts.as_slice() {
        ["openapi", "v2"] if wants_protobuf(headers) => {
            let document = documents.v2_protobuf();
            let made = || respond::bytes(StatusCode::OK, openapi::V2_PROTOBUF_CONTENT_TYPE, document.bytes.clone());
            Some(respond::tagged(headers, &document.tag, made))
        }
        ["openapi", "v2"] => Some(json(headers, documents.v2())),
        ["openapi", "v3"] => Some(json(headers, documents.v3_root())),
        ["openapi", "v3", "api", version] => v3(headers, query, &documents.v3("", version)?),
        ["openapi", "v3", "apis", group, version] => v3(headers, query, &documents.v3(group, version)?),
        _ => None,
    }
}

fn json(headers: &HeaderMap, document: &Tagged) -> Response<Body> {
    respond::tagged(headers, &document.tag, || {
        respond::maybe_gzip(document.bytes.clone(), "application/json", respond::takes_gzip(headers))
    })
}

/// A client that asks by the hash that the root names may keep the answer for good.
fn v3(headers: &HeaderMap, query: &Query, document: &Tagged) -> Option<Response<Body>> {
    let mut response = json(headers, document);
    if query.get("hash") == Some(&document.tag) {
        let forever = HeaderValue::from_static("public, immutable, max-age=31536000");
        response.headers_mut().insert(header::CACHE_CONTROL, forever);
    }
    Some(response)
}

fn wants_protobuf(headers: &HeaderMap) -> bool {
    let first = media::accepted(headers).into_iter().map(|range| range.essence).find(|essence| {
        matches!(essence.as_str(), "application/json" | "*/*" | "application/*")
            || essence == openapi::V2_PROTOBUF_ACCEPT
    });
    first.is_some_and(|essence| essence == openapi::V2_PROTOBUF_ACCEPT)
}
