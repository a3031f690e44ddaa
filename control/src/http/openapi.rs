//! `/openapi/v2` (JSON, or protobuf for old clients) and `/openapi/v3`: made from the schema table, once.

use bytes::Bytes;
use gantry_kube::openapi;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::body::Body;
use super::{media, respond};

pub fn serve(path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
    let gzip = respond::takes_gzip(headers);
    let json = |document: &'static [u8]| respond::maybe_gzip(Bytes::from_static(document), "application/json", gzip);
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    match parts.as_slice() {
        ["openapi", "v2"] => Some(v2(headers, gzip)),
        ["openapi", "v3"] => Some(json(openapi::v3_root())),
        ["openapi", "v3", "api", version] => openapi::v3("", version).map(json),
        ["openapi", "v3", "apis", group, version] => openapi::v3(group, version).map(json),
        _ => None,
    }
}

fn v2(headers: &HeaderMap, gzip: bool) -> Response<Body> {
    let first = media::accepted(headers).into_iter().map(|range| range.essence).find(|essence| {
        matches!(essence.as_str(), "application/json" | "*/*" | "application/*")
            || essence == openapi::V2_PROTOBUF_ACCEPT
    });
    let protobuf = first.is_some_and(|essence| essence == openapi::V2_PROTOBUF_ACCEPT);
    if !protobuf {
        return respond::maybe_gzip(Bytes::from_static(openapi::v2()), "application/json", gzip);
    }
    let mut response = respond::bytes(StatusCode::OK, "application/octet-stream", openapi::v2_protobuf());
    let content_type = HeaderValue::from_static(openapi::V2_PROTOBUF_CONTENT_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}
