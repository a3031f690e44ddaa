//! Answers: JSON bytes, Status objects, warnings, and gzip where a client takes it.

use std::collections::BTreeSet;

use bytes::Bytes;
use gantry_kube::{Object, Status};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::Value;

use super::body::{self, Body, Packer};
use super::media::BodyFormat;
use crate::registry::encoded;

/// Below this, compressing costs more than it saves.
const GZIP_MIN_BYTES: usize = 128 * 1024;
/// Warnings are sent as they are up to this, so that headers stay within every client's limits.
const WARNINGS_MAX_CHARS: usize = 4 * 1024;
/// Many clients take a hundred headers at most, and refuse an answer that has more.
const WARNINGS_MAX: usize = 40;
/// Where they come to more, each is cut at this.
const CUT_WARNING_MAX_CHARS: usize = 256;

pub fn bytes(code: StatusCode, content_type: &'static str, content: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(body::full(content));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

pub fn json(value: &Value) -> Response<Body> {
    bytes(StatusCode::OK, "application/json", serde_json::to_vec(value).unwrap_or_default())
}

/// A refusal, in the encoding that the client takes.
pub fn status(status: &Status, format: BodyFormat) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let value = status.to_value();
    let written = Object::from_value(value.clone()).ok().and_then(|object| encoded::made(&object, format).ok());
    let mut response = match written {
        Some(written) => bytes(code, format.content_type(), written),
        None => bytes(code, "application/json", serde_json::to_vec(&value).unwrap_or_default()),
    };
    if let Some(seconds) = status.details["retryAfterSeconds"].as_u64() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Adds `Warning: 299 - "…"` lines (RFC 7234), as clients of Kubernetes print them: each once.
pub fn add_warnings(headers: &mut HeaderMap, warnings: &[String]) {
    let mut told = BTreeSet::new();
    let printable = warnings.iter().map(|warning| warning.chars().filter(|c| !c.is_control()).collect::<String>());
    let all: Vec<String> = printable.filter(|warning| !warning.is_empty() && told.insert(warning.clone())).collect();
    let whole = all.iter().map(|warning| warning.chars().count()).sum::<usize>() <= WARNINGS_MAX_CHARS;
    let mut sent_chars = 0;
    for warning in all.into_iter().take(WARNINGS_MAX) {
        if sent_chars >= WARNINGS_MAX_CHARS {
            return;
        }
        let kept: String = if whole { warning } else { warning.chars().take(CUT_WARNING_MAX_CHARS).collect() };
        sent_chars += kept.chars().count();
        let quoted = kept.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            headers.append(header::WARNING, value);
        }
    }
}

pub fn takes_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|v| v.trim() == "gzip" || v.trim().starts_with("gzip;") && !v.contains("q=0"))
}

/// The body of a large answer, compressed where the client takes it.
pub fn maybe_gzip(content: Bytes, content_type: &'static str, gzip: bool) -> Response<Body> {
    if !gzip || content.len() < GZIP_MIN_BYTES {
        return bytes(StatusCode::OK, content_type, content);
    }
    let mut packer = Packer::default();
    let packed = [packer.push(&content), packer.finish()].into_iter().flatten().flatten();
    let mut response = bytes(StatusCode::OK, content_type, packed.collect::<Vec<u8>>());
    mark_gzipped(response.headers_mut());
    response
}

pub fn mark_gzipped(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
}

/// From here on an answer is made while it is sent.
pub const STREAMED_MIN_BYTES: usize = GZIP_MIN_BYTES;

/// An answer of many pieces, compressed where the client takes it.
pub fn streamed(
    chunks: impl Iterator<Item = Bytes> + Send + 'static,
    content_type: &'static str,
    gzip: bool,
) -> Response<Body> {
    let mut response = bytes(StatusCode::OK, content_type, Bytes::new());
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    *response.body_mut() = if gzip {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        body::pieces(gzipped(chunks))
    } else {
        body::pieces(chunks)
    };
    response
}

/// The pieces as they come out of the compressor.
fn gzipped(mut chunks: impl Iterator<Item = Bytes>) -> impl Iterator<Item = Bytes> {
    let mut packer = Some(Packer::default());
    std::iter::from_fn(move || {
        loop {
            let Some(chunk) = chunks.next() else { return packer.take()?.finish() };
            if let Some(packed) = packer.as_mut()?.push(&chunk) {
                return Some(packed);
            }
        }
    })
}

/// The answer that `make` makes, under a tag that changes when its content does; 304 for a client that has it already.
pub fn tagged(asked: &HeaderMap, tag: &str, make: impl FnOnce() -> Response<Body>) -> Response<Body> {
    let quoted = format!("\"{tag}\"");
    let listed = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    let known = listed.map(str::trim).any(|known| known == "*" || known.trim_start_matches("W/") == quoted);
    let mut response = if known {
        let mut unchanged = Response::new(body::full(Bytes::new()));
        *unchanged.status_mut() = StatusCode::NOT_MODIFIED;
        unchanged.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        unchanged
    } else {
        make()
    };
    if let Ok(tag) = HeaderValue::from_str(&quoted) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_in_pieces_comes_out_whole() {
        let pieces = || (0..50_u8).map(|i| Bytes::from(vec![i; 3000 * usize::from(i)]));
        let packed: Vec<u8> = gzipped(pieces()).flatten().collect();
        let mut found = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(packed.as_slice()), &mut found).unwrap();
        assert!(found == pieces().flatten().collect::<Vec<u8>>());
        assert!(packed.len() < found.len() / 50);
    }

    #[test]
    fn what_a_client_has_is_not_sent_again() {
        let ask = |known: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, known.parse().unwrap());
            let answer = tagged(&headers, "AB", || bytes(StatusCode::OK, "text/plain", "x"));
            assert_eq!(answer.headers()[header::ETAG], "\"AB\"", "{known}");
            answer.status().as_u16()
        };
        assert_eq!(
            [ask("\"AB\""), ask("\"x\", W/\"AB\""), ask("*"), ask("\"A\""), ask("AB")],
            [304, 304, 304, 200, 200]
        );
    }

    #[test]
    fn a_warning_cannot_break_its_header() {
        let mut headers = HeaderMap::new();
        add_warnings(&mut headers, &["unknown field \"a\"\r\nX: y".to_owned(), "é".repeat(300)]);
        let lines: Vec<_> = headers.get_all(header::WARNING).iter().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0], "299 - \"unknown field \\\"a\\\"X: y\"");
    }

    #[test]
    fn warnings_are_told_once_and_cut_where_they_are_many() {
        let sent = |warnings: &[String]| {
            let mut headers = HeaderMap::new();
            add_warnings(&mut headers, warnings);
            headers.get_all(header::WARNING).iter().map(HeaderValue::len).collect::<Vec<_>>()
        };
        let around = "299 - \"\"".len();
        assert_eq!(sent(&["a".repeat(4096), "a".repeat(4096)]), [4096 + around]);
        assert_eq!(sent(&["a".repeat(4096), "b".to_owned()]), [256 + around, 1 + around]);
        let many: Vec<String> = (0..100).map(|index| format!("{index:0300}")).collect();
        assert_eq!(sent(&many), [256 + around; 16]);
    }
}
