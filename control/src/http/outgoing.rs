//! What is the same for every answer: a refusal in the encoding that the client takes, and JSON that people can read.
//!
//! JSON is laid out over lines for those who ask for it (`pretty=1`) and for programs that show it as it comes: curl, Wget
//! and browsers, unless they say `pretty=0`. What others say through us (nodes, pods, services) goes out as they said it.

mod layout;

use gantry_kube::Status;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use smallvec::SmallVec;

use super::body::{self, Body};
use super::media::{self, BodyFormat, MediaType};
use super::query::Query;
use super::request_info::RequestInfo;
use super::respond;
use layout::Layout;

/// By what the agents of people are known.
const READ_BY_PEOPLE: [&str; 3] = ["curl", "Wget", "Mozilla/5.0"];

/// What a request says of its answer, whatever it is.
pub struct Outgoing {
    accept: SmallVec<[HeaderValue; 1]>,
    /// Set where JSON is laid out; true, where it is compressed after that.
    pretty: Option<bool>,
}

impl Outgoing {
    /// Takes note of it. What is laid out is compressed afterwards: nobody else needs to know that it may be.
    pub fn of(parts: &mut Parts, query: &Query, info: &RequestInfo) -> Outgoing {
        let accept = parts.headers.get_all(header::ACCEPT).iter().cloned().collect();
        let pretty = (is_ours(info) && is_pretty(&parts.headers, query)).then(|| {
            let gzip = respond::takes_gzip(&parts.headers);
            parts.headers.remove(header::ACCEPT_ENCODING);
            gzip
        });
        Outgoing { accept, pretty }
    }

    pub fn refusal(&self, status: &Status) -> Response<Body> {
        respond::status(status, media::format_of_made(self.accept.iter()))
    }

    /// The answer as it goes out. Long ones pass through in their pieces.
    pub fn finish(&self, response: Response<Body>) -> Response<Body> {
        let Some(gzip) = self.pretty.filter(|_| is_json(response.headers())) else { return response };
        let (parts, content) = response.into_parts();
        let long = content.size_hint().exact().is_none_or(|bytes| bytes >= respond::STREAMED_MIN_BYTES as u64);
        let mut layout = Layout::default();
        let laid_out = body::wrap(content.map_frame(move |frame| frame.map_data(|json| layout.push(&json))));
        let mut response = Response::from_parts(parts, laid_out);
        if gzip && long {
            respond::mark_gzipped(response.headers_mut());
            return response.map(body::gzipped);
        }
        response
    }
}

/// Neither what has no end nor what somebody else says.
fn is_ours(info: &RequestInfo) -> bool {
    let relayed = matches!(info.subresource.as_str(), "proxy" | "log" | "exec" | "attach" | "portforward");
    info.verb != "watch" && !relayed && !info.path.starts_with("/openapi")
}

fn is_pretty(headers: &HeaderMap, query: &Query) -> bool {
    if let Some(said) = query.get("pretty") {
        return matches!(said, "1" | "t" | "T" | "true" | "TRUE" | "True");
    }
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or("");
    let by_accept = |range: &MediaType| range.covers(BodyFormat::Json) && range.param("pretty") == "1";
    READ_BY_PEOPLE.iter().any(|known| agent.starts_with(known))
        || media::accepted(headers).first().is_some_and(by_accept)
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    content_type.is_some_and(|media| media.starts_with(b"application/json"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::Request;

    async fn sent(uri: &str, headers: &[(&str, &str)], content: Vec<u8>) -> (HeaderMap, Bytes) {
        let request = headers.iter().fold(Request::get(uri), |request, (name, value)| request.header(*name, *value));
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let query = Query::parse(parts.uri.query().unwrap_or(""));
        let info = RequestInfo::parse(&parts.method, parts.uri.path(), &query);
        let outgoing = Outgoing::of(&mut parts, &query, &info);
        let response = respond::bytes(http::StatusCode::OK, "application/json", content);
        let (parts, body) = outgoing.finish(response).into_parts();
        (parts.headers, body.collect().await.unwrap().to_bytes())
    }

    #[tokio::test]
    async fn people_get_lines_and_programs_do_not() {
        let agent = |name: &'static str| ("user-agent", name);
        for (uri, headers, lines) in [
            ("/api/v1/pods", vec![], false),
            ("/api/v1/pods?pretty=1", vec![], true),
            ("/api/v1/pods?pretty=true", vec![], true),
            ("/api/v1/pods", vec![agent("curl/8.5.0")], true),
            ("/api/v1/pods", vec![agent("Mozilla/5.0 (X11)")], true),
            ("/api/v1/pods?pretty=0", vec![agent("curl/8.5.0")], false),
            ("/api/v1/pods?pretty=no", vec![agent("curl/8.5.0")], false),
            ("/api/v1/pods", vec![agent("kubectl/v1.36.0")], false),
            ("/api/v1/pods", vec![("accept", "application/json;pretty=1")], true),
            ("/api/v1/pods", vec![("accept", "application/yaml,application/json;pretty=1;q=0.1")], false),
            ("/api/v1/pods?watch=1", vec![agent("curl/8.5.0")], false),
            ("/api/v1/namespaces/a/pods/b/proxy/x", vec![agent("curl/8.5.0")], false),
            ("/openapi/v2", vec![agent("curl/8.5.0")], false),
            ("/apis", vec![agent("Wget/1.21")], true),
        ] {
            let (_, content) = sent(uri, &headers, br#"{"a":1}"#.to_vec()).await;
            assert_eq!(content == "{\n  \"a\": 1\n}", lines, "{uri} {headers:?}: {content:?}");
        }
    }

    #[tokio::test]
    async fn what_is_laid_out_is_compressed_afterwards() {
        let long = format!("[{}1]", "1,".repeat(80_000)).into_bytes();
        let (headers, packed) = sent("/api/v1/pods?pretty=1", &[("accept-encoding", "gzip")], long.clone()).await;
        assert_eq!(headers[header::CONTENT_ENCODING], "gzip");
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed[..]), &mut content).unwrap();
        assert!(content.starts_with(b"[\n  1,\n  1,\n"));
        let (headers, plain) = sent("/api/v1/pods?pretty=1", &[], long).await;
        assert!(headers.get(header::CONTENT_ENCODING).is_none() && plain == content);
    }

    #[test]
    fn a_refusal_is_in_what_the_client_takes() {
        for (accept, content_type) in [
            ("application/vnd.kubernetes.protobuf, */*", media::PROTOBUF),
            ("application/yaml", "application/yaml"),
            ("text/html", "application/json"),
            ("application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1,application/json", "application/json"),
        ] {
            let (mut parts, ()) = Request::get("/api/v1/x").header("accept", accept).body(()).unwrap().into_parts();
            let info = RequestInfo::parse(&parts.method, parts.uri.path(), &Query::default());
            let response = Outgoing::of(&mut parts, &Query::default(), &info).refusal(&Status::unauthorized());
            assert_eq!(
                (response.status().as_u16(), &response.headers()["content-type"]),
                (401, &content_type.parse::<HeaderValue>().unwrap())
            );
        }
    }
}
