//! Paths that are no resources: discovery, OpenAPI, version, health, metrics, keys, traces.

use futures::StreamExt;
use gantry_env::chain;
use gantry_env::metrics::{CONTENT_TYPE, OPEN_CONTENT_TYPE, Text};
use gantry_kube::Status;
use http::{HeaderMap, HeaderValue, Method, Response, header};
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::{Value, json};

use super::body::{self, Body};
use super::health::Endpoint;
use super::inflight::Share;
use super::resources::no_such_path;
use super::router::{Call, Server};
use super::{discovery, media, metrics, openapi, respond};
use crate::store::snapshot;

const TRACE_PREFIX: &str = "/debug/gantry/trace/";
/// Everything that is stored, at one revision, for `gantry control snapshot save`. Whoever may read it may read every secret.
pub const SNAPSHOT: &str = "/gantry/v1/snapshot";

pub async fn serve(server: &Server, call: Call) -> Result<Response<Body>, Status> {
    if !matches!(call.parts.method, Method::GET | Method::HEAD) {
        return Err(Status::method_not_allowed());
    }
    let path = call.info.path.as_str();
    if path.contains("//") {
        return Err(no_such_path());
    }
    let headers = &call.parts.headers;
    if let Some(response) = discovery::serve(&server.registry.kinds().table(), path, headers) {
        return Ok(response);
    }
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    if let Some((endpoint, check)) = parts.split_first().and_then(|(first, rest)| Some((Endpoint::of(first)?, rest))) {
        return match check {
            [] => Ok(server.health.serve(endpoint, &call.query).await),
            check => server.health.serve_one(endpoint, &check.join("/")).await,
        };
    }
    match parts.as_slice() {
        [] => Ok(respond::json(&root())),
        ["version"] => Ok(respond::json(&version())),
        ["configz"] => Ok(respond::json(&server.configuration)),
        ["metrics"] => Ok(exposed(headers, |text| metrics::text(server, text))),
        ["metrics", "slis"] => Ok(exposed(headers, |mut text| {
            server.health.write(&mut text);
            text.done()
        })),
        ["openapi", ..] => openapi::serve(server.registry.kinds(), path, &call.query, headers).ok_or_else(no_such_path),
        [".well-known", "openid-configuration"] => {
            Ok(respond::json(&server.authenticator.tokens().openid_configuration()))
        }
        ["openid", "v1", "jwks"] => Ok(respond::json(&server.authenticator.tokens().jwks())),
        ["gantry", "v1", "snapshot"] => Ok(snapshot(server, call.seat)),
        ["debug", "gantry", "trace", uid] => Ok(respond::json(&server.registry.trace().report(uid))),
        _ => Err(no_such_path()),
    }
}

/// Numbers in the form that a scraper likes best: the older one, unless it asks for the newer.
fn exposed(headers: &HeaderMap, write: impl FnOnce(Text) -> String) -> Response<Body> {
    let known = |essence: &str| matches!(essence, "application/openmetrics-text" | "text/plain" | "text/*" | "*/*");
    let open = media::accepted(headers)
        .iter()
        .find(|range| known(&range.essence))
        .is_some_and(|range| range.essence == "application/openmetrics-text");
    let (text, content_type) =
        if open { (Text::open_metrics(), OPEN_CONTENT_TYPE) } else { (Text::default(), CONTENT_TYPE) };
    respond::maybe_gzip(write(text).into(), content_type, respond::takes_gzip(headers))
}

fn root() -> Value {
    let paths = [
        "/.well-known/openid-configuration",
        "/api",
        "/api/v1",
        "/apis",
        "/configz",
        "/healthz",
        "/livez",
        "/metrics",
        "/metrics/slis",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
        TRACE_PREFIX,
        SNAPSHOT,
    ];
    json!({ "paths": paths })
}

fn snapshot(server: &Server, seat: Share) -> Response<Body> {
    let pieces = snapshot::stream(server.backend.clone()).map(|piece| {
        let piece = piece.inspect_err(|error| tracing::warn!(error = chain(error), "a snapshot was broken off"));
        piece.map(Frame::data)
    });
    let mut response = Response::new(body::holding(StreamBody::new(pieces), seat));
    let media = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, media);
    response
}

/// What `kubectl version` shows: the Kubernetes version whose API this is, and the build of Gantry.
pub fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
        "gitVersion": concat!("v1.36.0+gantry-", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none",
        "compiler": "rustc", "platform": format!("linux/{}", architecture()),
    })
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
