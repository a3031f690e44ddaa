//! The way to a node's kubelet API: logs and streams are relayed, never interpreted.
//!
//! The address is the one that the Node object names, and the peer must prove by certificate to be the node of that
//! name. Redirects are not followed; raw bytes flow only after the node has answered 101.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_kube::{Object, Ref, Status, resource};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::body::{self, Body, BoxError};
use super::relay;
use super::request_info::RequestInfo;
use super::router::{Call, Server, action};

const KUBELET_PORT: u16 = 10_250;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A kubelet may take its time to start a command, not to answer at all.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const REFUSAL_MAX_BYTES: usize = 64 * 1024;
/// What an upgrade consists of, in both directions.
const UPGRADE_HEADERS: [HeaderName; 7] = [
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SEC_WEBSOCKET_ACCEPT,
    header::SEC_WEBSOCKET_EXTENSIONS,
];
/// SPDY clients negotiate their version of the streams by this header.
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// How kubelets are dialled.
#[derive(Clone)]
pub struct Kubelets {
    tls: TlsConnector,
}

impl Kubelets {
    pub fn new(mut config: rustls::ClientConfig) -> Kubelets {
        // Upgrades exist in HTTP/1.1 alone.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Kubelets { tls: TlsConnector::from(Arc::new(config)) }
    }

    pub(super) async fn connect<B>(&self, node: &Endpoint) -> Result<http1::SendRequest<B>, Status>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let unreachable =
            |why: String| Status::new(502, "BadGateway", format!("error dialing node {}: {why}", node.name));
        let name = ServerName::try_from(node.name.clone()).map_err(|error| unreachable(error.to_string()))?;
        let dial = async {
            let stream = TcpStream::connect((node.address, node.port)).await?;
            stream.set_nodelay(true)?;
            self.tls.connect(name, stream).await
        };
        let stream = match tokio::time::timeout(CONNECT_TIMEOUT, dial).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unreachable(error.to_string())),
            Err(_) => return Err(unreachable("it did not answer in time".to_owned())),
        };
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(error.to_string()))?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "connection to a kubelet ended with an error");
            }
        });
        Ok(sender)
    }
}

/// Where a node's kubelet API is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) name: String,
    address: IpAddr,
    pub(super) port: u16,
}

pub(super) fn endpoint(node: &Object) -> Result<Endpoint, Status> {
    let name = node.name().to_owned();
    let address = node
        .array_at("/status/addresses")
        .iter()
        .filter(|a| a["type"] == "InternalIP")
        .find_map(|a| a["address"].as_str()?.parse().ok())
        .ok_or_else(|| Status::internal(format!("node {name} has no InternalIP")))?;
    let port = node.i64_at("/status/daemonEndpoints/kubeletEndpoint/Port").and_then(|p| u16::try_from(p).ok());
    Ok(Endpoint { name, address, port: port.filter(|p| *p > 0).unwrap_or(KUBELET_PORT) })
}

/// The container that is meant: the only one, where none is named.
fn container(pod: &Object, asked: Option<&str>) -> Result<String, Status> {
    let names = |list: &str| -> Vec<String> {
        let all = pod.array_at(&format!("/spec/{list}"));
        all.iter().filter_map(|c| c["name"].as_str().map(str::to_owned)).collect()
    };
    let (main, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let pod = pod.name();
    match asked {
        Some(asked) if main.iter().chain(&init).chain(&ephemeral).any(|n| n == asked) => Ok(asked.to_owned()),
        Some(asked) => Err(Status::bad_request(format!("container {asked} is not valid for pod {pod}"))),
        None if main.len() == 1 => Ok(main[0].clone()),
        None => {
            let mut text =
                format!("a container name must be specified for pod {pod}, choose one of: [{}]", main.join(" "));
            if !init.is_empty() {
                text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(Status::bad_request(text))
        }
    }
}

/// Where a pod's subresource is at its node's kubelet.
#[derive(Clone, Copy)]
enum Root {
    OfContainer(&'static str),
    OfPod(&'static str),
}

/// The node of a pod, and what is asked of its kubelet about the pod, or about one container of it.
fn target(server: &Server, call: &Call, root: Root) -> Result<(Endpoint, String), Status> {
    let at = super::resources::place(&resource::POD, call);
    let pod = server.registry.get(&resource::POD, &at)?.object();
    let path = match root {
        Root::OfContainer(root) => {
            let container = container(&pod, call.query.get("container"))?;
            format!("/{root}/{}/{}/{container}", at.namespace, at.name)
        }
        Root::OfPod(root) => format!("/{root}/{}/{}", at.namespace, at.name),
    };
    let node = pod.str_at("/spec/nodeName");
    if node.is_empty() {
        return Err(Status::bad_request(format!("pod {} does not have a host assigned", at.name)));
    }
    let node = server.registry.get(&resource::NODE, &Ref::cluster(node))?.object();
    Ok((endpoint(&node)?, format!("{path}?{}", kubelet_query(call))))
}

/// Everything but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// Parameters that are the API server's own business.
const OWN_PARAMETERS: [&str; 4] = ["container", "insecureSkipTLSVerifyBackend", "pretty", "timeout"];

/// The parameters of a pod's subresource as a kubelet knows them.
fn kubelet_query(call: &Call) -> String {
    let pairs: Vec<String> = call
        .query
        .pairs()
        .filter(|(key, _)| !OWN_PARAMETERS.contains(key))
        .filter_map(|(key, value)| {
            let stream = match key {
                "stdin" => "input",
                "stdout" => "output",
                "stderr" => "error",
                "tty" => "tty",
                _ => return Some(format!("{}={}", encode(key), encode(value))),
            };
            matches!(value, "true" | "1").then(|| format!("{stream}=1"))
        })
        .collect();
    pairs.join("&")
}

fn request(
    call: &Call,
    node: &Endpoint,
    path_and_query: &str,
    headers: HeaderMap,
) -> Result<Request<Empty<Bytes>>, Status> {
    let uri: Uri = path_and_query.parse().map_err(Status::internal)?;
    let mut request = Request::new(Empty::new());
    *request.method_mut() = call.parts.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    let host = HeaderValue::from_str(&format!("{}:{}", node.name, node.port)).map_err(Status::internal)?;
    request.headers_mut().insert(header::HOST, host);
    Ok(request)
}

async fn send(
    server: &Server,
    node: &Endpoint,
    request: Request<Empty<Bytes>>,
) -> Result<Response<hyper::body::Incoming>, Status> {
    let mut sender = server.kubelets.connect(node).await?;
    match tokio::time::timeout(ANSWER_TIMEOUT, sender.send_request(request)).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => Err(Status::new(502, "BadGateway", format!("node {} broke off: {error}", node.name))),
        Err(_) => Err(Status::timeout(format!("node {} did not answer in time", node.name))),
    }
}

/// A document of a node's kubelet API, whole.
pub async fn fetch(server: &Server, node: &str, path: &str, max_bytes: usize) -> Result<String, Status> {
    let node = endpoint(&server.registry.get(&resource::NODE, &Ref::cluster(node))?.object())?;
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = path.parse().map_err(Status::internal)?;
    let host = HeaderValue::from_str(&format!("{}:{}", node.name, node.port)).map_err(Status::internal)?;
    request.headers_mut().insert(header::HOST, host);
    let response = send(server, &node, request).await?;
    if response.status() != StatusCode::OK {
        return Err(refusal(&node, response).await);
    }
    let content = Limited::new(response.into_body(), max_bytes).collect().await;
    let content = content.map_err(|error| Status::internal(format!("node {} broke off: {error}", node.name)))?;
    Ok(String::from_utf8_lossy(&content.to_bytes()).into_owned())
}

/// What a kubelet refused, in the API's form. A redirect is a refusal, too.
pub(super) async fn refusal(node: &Endpoint, response: Response<hyper::body::Incoming>) -> Status {
    let code = response.status();
    let text = match Limited::new(response.into_body(), REFUSAL_MAX_BYTES).collect().await {
        Ok(collected) => String::from_utf8_lossy(&collected.to_bytes()).trim().to_owned(),
        Err(_) => String::new(),
    };
    if let Some(status) = serde_json::from_str(&text).ok().and_then(|value| Status::from_value(&value)) {
        return status;
    }
    match code {
        StatusCode::BAD_REQUEST => Status::bad_request(text),
        StatusCode::NOT_FOUND => Status::new(404, "NotFound", text),
        code if code.is_redirection() => Status::new(
            502,
            "BadGateway",
            format!("node {} answered with a redirect, which is not followed", node.name),
        ),
        code => Status::internal(format!("node {} answered {code}: {text}", node.name)),
    }
}

pub async fn log(server: &Server, call: Call) -> Result<Response<Body>, Status> {
    if let Some(stream) = call.query.get("stream").filter(|s| *s != "All") {
        return Err(Status::bad_request(format!("stream {stream:?} of a log is not served, All is")));
    }
    let (node, path) = target(server, &call, Root::OfContainer("containerLogs"))?;
    let response = send(server, &node, request(&call, &node, &path, HeaderMap::new())?).await?;
    if response.status() != StatusCode::OK {
        return Err(refusal(&node, response).await);
    }
    let mut answer = Response::new(body::holding(response.into_body(), call.seat));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(answer)
}

pub async fn exec(server: Arc<Server>, call: Call) -> Result<Response<Body>, Status> {
    stream(server, call, Root::OfContainer("exec")).await
}

pub async fn attach(server: Arc<Server>, call: Call) -> Result<Response<Body>, Status> {
    stream(server, call, Root::OfContainer("attach")).await
}

/// Which ports are meant is said within the stream.
pub async fn port_forward(server: Arc<Server>, call: Call) -> Result<Response<Body>, Status> {
    // The first WebSocket protocol named ports here; the ones that are spoken name them as they go.
    if call.query.get("ports").is_some() {
        return Err(Status::bad_request("query parameter \"ports\" is not supported for portforward"));
    }
    stream(server, call, Root::OfPod("portForward")).await
}

async fn stream(server: Arc<Server>, mut call: Call, root: Root) -> Result<Response<Body>, Status> {
    // A WebSocket opens with a GET, and who may only look must not be able to run anything.
    let run = RequestInfo { verb: "create", ..call.info.clone() };
    server.authorizer.check(&call.identity, &action(&run))?;
    let Some(client) = call.parts.extensions.remove::<OnUpgrade>() else {
        return Err(Status::bad_request("Upgrade request required"));
    };
    let (node, path) = target(&server, &call, root)?;
    let request = request(&call, &node, &path, upgrade_headers(&call.parts.headers))?;
    let mut response = send(&server, &node, request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refusal(&node, response).await);
    }
    let mut answer = Response::new(body::full(Bytes::new()));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *answer.headers_mut() = upgrade_headers(response.headers());
    relay::splice(&server, call.seat.take(), client, hyper::upgrade::on(&mut response));
    Ok(answer)
}

fn upgrade_headers(from: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for name in UPGRADE_HEADERS.into_iter().chain([STREAM_PROTOCOL]) {
        for value in from.get_all(&name) {
            headers.append(name.clone(), value.clone());
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_only_container_needs_no_name() {
        let pod = |names: &[&str]| {
            let containers: Vec<_> = names.iter().map(|n| json!({ "name": n })).collect();
            Object::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": containers}})).unwrap()
        };
        assert_eq!(container(&pod(&["a"]), None).unwrap(), "a");
        assert_eq!(container(&pod(&["a", "b"]), Some("b")).unwrap(), "b");
        assert_eq!(container(&pod(&["a", "b"]), None).unwrap_err().code, 400);
        assert_eq!(container(&pod(&["a"]), Some("../x")).unwrap_err().code, 400);
    }

    #[test]
    fn nodes_are_dialled_where_they_say() {
        let node = Object::from_value(json!({"metadata": {"name": "n"}, "status": {"addresses": [
            {"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "10.0.0.1"}]}}))
        .unwrap();
        let wanted = Endpoint { name: "n".into(), address: "10.0.0.1".parse().unwrap(), port: KUBELET_PORT };
        assert_eq!(endpoint(&node).unwrap(), wanted);
        assert!(endpoint(&Object::default()).is_err());
    }

    #[test]
    fn only_the_upgrade_is_passed_on() {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer secret"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        let passed = upgrade_headers(&headers);
        assert!(passed.contains_key(header::UPGRADE) && !passed.contains_key(header::AUTHORIZATION));
    }
}
