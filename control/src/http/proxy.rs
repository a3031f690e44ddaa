//! `…/proxy/PATH` of a node, a pod or a service: the request goes on to what stands behind the name, and the answer comes
//! back, bodies as they flow. A pod is dialled at the address in its status, a service at a ready endpoint that is such a
//! pod's; the way there is the network of the host that this runs on.
//!
//! Addresses come from objects that a node or a user may write: no loopback or link-local one is dialled. What
//! proves who the client is (its token, whom it acts as) ends here.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gantry_kube::{Object, Ref, Resource, Status, resource};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::body::{self, Body};
use super::kubelet::{self, Endpoint};
use super::query::decode_path_segment;
use super::relay;
use super::request_info::RequestInfo;
use super::router::{Call, Server, action};
use crate::store::Cache;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const BEARER_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";
/// What belongs to one connection (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

pub async fn serve(server: Arc<Server>, resource: &Resource, mut call: Call) -> Result<Response<Body>, Status> {
    let (prefix, rest) = split(call.parts.uri.path(), resource);
    let (prefix, rest) = (prefix.to_owned(), rest.to_owned());
    let query = call.parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let client = call.parts.extensions.remove::<OnUpgrade>().filter(|_| asks_for_upgrade(&call.parts.headers));
    if rest.split('/').any(|segment| decode_path_segment(segment) == "..") {
        return Err(Status::bad_request("a path with \"..\" is not relayed"));
    }
    let backend = Backend::of(&server, resource, &call.info)?;
    if rest.is_empty() && client.is_none() && matches!(call.parts.method, Method::GET | Method::HEAD) {
        // Relative links of a page lead below it only where its own path ends so.
        return moved(&format!("{prefix}/{query}"));
    }
    if client.is_some() && matches!(backend, Backend::Node(_)) {
        // Behind an upgrade a kubelet runs commands, and who may only look must not be able to.
        let run = RequestInfo { verb: "create", ..call.info.clone() };
        server.authorizer.check(&call.identity, &action(&run))?;
    }
    let path = format!("{}{query}", if rest.is_empty() { "/" } else { &rest });
    let request = forwarded(&call, &path, client.is_some(), &backend)?;
    let host = request.headers().get(header::HOST).cloned();
    let mut response = backend.send(&server, request).await?;
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if let Backend::Node(node) = &backend
        && (response.status().is_redirection() || (switched && client.is_none()))
    {
        return Err(kubelet::refusal(node, response).await);
    }
    if switched {
        let client = client.ok_or_else(|| backend.unreachable("it switched protocols without being asked"))?;
        let mut answer = Response::new(body::full(bytes::Bytes::new()));
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *answer.headers_mut() = response.headers().clone();
        relay::splice(&server, call.seat.take(), client, hyper::upgrade::on(&mut response));
        return Ok(answer);
    }
    let (mut parts, content) = response.into_parts();
    drop_hop_by_hop(&mut parts.headers);
    let own: Vec<String> =
        [backend.authority(), host.and_then(|h| h.to_str().map(str::to_owned).ok())].into_iter().flatten().collect();
    if let Some(location) = parts.headers.get(header::LOCATION).and_then(|value| value.to_str().ok())
        && let Ok(value) = HeaderValue::from_str(&relocated(location, &prefix, &own))
    {
        parts.headers.insert(header::LOCATION, value);
    }
    let mut answer = Response::new(body::holding(content, call.seat));
    *answer.status_mut() = parts.status;
    *answer.headers_mut() = parts.headers;
    Ok(answer)
}

fn moved(to: &str) -> Result<Response<Body>, Status> {
    let mut answer = Response::new(body::full(bytes::Bytes::new()));
    *answer.status_mut() = StatusCode::MOVED_PERMANENTLY;
    answer.headers_mut().insert(header::LOCATION, HeaderValue::from_str(to).map_err(Status::internal)?);
    Ok(answer)
}

/// The request's path as it was sent: up to and with `/proxy`, and what follows.
fn split<'a>(path: &'a str, resource: &Resource) -> (&'a str, &'a str) {
    let mut left = if resource.namespaced { 7 } else { 5 };
    let mut inside = false;
    for (at, byte) in path.bytes().enumerate() {
        let slash = byte == b'/';
        if slash && inside {
            left -= 1;
            if left == 0 {
                return path.split_at(at);
            }
        }
        inside = !slash;
    }
    (path, "")
}

fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("upgrade"))
}

/// What a request is sent on to.
#[derive(Debug)]
enum Backend {
    Node(Endpoint),
    /// What it is called, where it is, and whether it speaks TLS.
    Pod {
        what: String,
        at: SocketAddr,
        tls: bool,
    },
}

impl Backend {
    fn of(server: &Server, resource: &Resource, info: &RequestInfo) -> Result<Backend, Status> {
        let named = Named::parse(&info.name)
            .ok_or_else(|| Status::bad_request(format!("invalid {} request {:?}", resource.singular, info.name)))?;
        let (namespace, registry) = (info.namespace.as_str(), &server.registry);
        match resource.plural {
            "pods" => {
                let pod = registry.get(&resource::POD, &Ref::new(namespace, named.name))?.object();
                let at = pod_address(&pod, &named)?;
                Ok(Backend::Pod { what: format!("pod {:?}", named.name), at, tls: named.tls })
            }
            "services" => {
                let service = registry.get(&resource::SERVICE, &Ref::new(namespace, named.name))?.object();
                let slices = registry.cache().list(&resource::ENDPOINT_SLICE, Some(namespace)).items;
                let slices: Vec<Arc<Object>> = slices.iter().map(|slice| slice.object()).collect();
                let pod =
                    |name: &str| registry.get(&resource::POD, &Ref::new(namespace, name)).ok().map(|p| p.object());
                let all = ready_endpoints(&service, &named, &slices, pod)?;
                let chosen = registry.env().rng.below(all.len().max(1) as u64) as usize;
                let at = *all.get(chosen).ok_or_else(|| {
                    Status::unavailable(format!("no endpoints available for service {:?}", info.name))
                })?;
                Ok(Backend::Pod { what: format!("service {:?}", named.name), at, tls: named.tls })
            }
            _ => {
                let node = kubelet::endpoint(&registry.get(&resource::NODE, &Ref::cluster(named.name))?.object())?;
                if !named.port.is_empty() && named.port != node.port.to_string() {
                    let why = format!("of a node only its kubelet is reached, at port {}", node.port);
                    return Err(Status::bad_request(why));
                }
                Ok(Backend::Node(node))
            }
        }
    }

    fn authority(&self) -> Option<String> {
        match self {
            Backend::Node(_) => None,
            Backend::Pod { at, .. } => Some(at.to_string()),
        }
    }

    fn unreachable(&self, why: impl std::fmt::Display) -> Status {
        let what = match self {
            Backend::Node(node) => format!("node {:?}", node.name),
            Backend::Pod { what, at, .. } => format!("{what} at {at}"),
        };
        Status::unavailable(format!("error trying to reach service: {what}: {why}"))
    }

    async fn send(&self, server: &Server, request: Request<Body>) -> Result<Response<hyper::body::Incoming>, Status> {
        let mut sender = match self {
            Backend::Node(node) => server.kubelets.connect(node).await?,
            Backend::Pod { at, tls, .. } => match tokio::time::timeout(CONNECT_TIMEOUT, dial(*at, *tls)).await {
                Ok(dialled) => dialled.map_err(|why| self.unreachable(format!("dial tcp {at}: {why}")))?,
                Err(_) => return Err(self.unreachable(format!("dial tcp {at}: i/o timeout"))),
            },
        };
        sender.send_request(request).await.map_err(|error| self.unreachable(gantry_env::chain(&error)))
    }
}

/// Where a service's port is answered: the ready endpoints that are pods.
pub(crate) fn endpoints_of(cache: &Cache, service: &Ref, port: u16) -> Result<Vec<SocketAddr>, Status> {
    let found = cache.get(&resource::SERVICE, service);
    let found = found.ok_or_else(|| Status::not_found(&resource::SERVICE, &service.name))?.object();
    let slices = cache.list(&resource::ENDPOINT_SLICE, Some(&service.namespace)).items;
    let slices: Vec<Arc<Object>> = slices.iter().map(|slice| slice.object()).collect();
    let pod = |name: &str| {
        cache.get(&resource::POD, &Ref::new(service.namespace.as_str(), name)).map(|stored| stored.object())
    };
    let port = port.to_string();
    ready_endpoints(&found, &Named { tls: true, name: &service.name, port: &port }, &slices, pod)
}

async fn dial(at: SocketAddr, tls: bool) -> Result<http1::SendRequest<Body>, String> {
    let stream = TcpStream::connect(at).await.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    if !tls {
        return handshake(stream).await;
    }
    static ANY: OnceLock<Option<TlsConnector>> = OnceLock::new();
    let connector = ANY.get_or_init(|| {
        let config = gantry_pki::tls::unverified_client_config();
        config.ok().map(|config| TlsConnector::from(Arc::new(config)))
    });
    let connector = connector.as_ref().ok_or("no TLS")?;
    // A pod's certificate is nobody's that is known here.
    let name = ServerName::IpAddress(at.ip().into());
    handshake(connector.connect(name, stream).await.map_err(|error| error.to_string())?).await
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<http1::SendRequest<Body>, String> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to a pod ended with an error");
        }
    });
    Ok(sender)
}

/// `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Named<'a> {
    tls: bool,
    name: &'a str,
    port: &'a str,
}

impl<'a> Named<'a> {
    fn parse(text: &'a str) -> Option<Named<'a>> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        let good = !name.is_empty() && matches!(scheme, "" | "http" | "https");
        good.then_some(Named { tls: scheme == "https", name, port })
    }

    fn number(&self) -> Option<u16> {
        self.port.parse().ok().filter(|port| *port > 0)
    }
}

/// An address that another host may have: no loopback or link-local one, nor one of many.
fn proxyable(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || link_local)
}

fn pod_address(pod: &Object, named: &Named<'_>) -> Result<SocketAddr, Status> {
    let first = || {
        let ports = pod.array_at("/spec/containers").iter().find_map(|c| c["ports"][0]["containerPort"].as_u64());
        ports.and_then(|port| u16::try_from(port).ok()).unwrap_or(if named.tls { 443 } else { 80 })
    };
    let port = match named.port {
        "" => first(),
        port => named.number().ok_or_else(|| Status::bad_request(format!("invalid pod request: port {port:?}")))?,
    };
    let text = pod.str_at("/status/podIP");
    if text.is_empty() {
        return Err(Status::unavailable(format!("pod {:?} has no address yet", pod.name())));
    }
    let ip = text.parse().ok().filter(|ip| proxyable(*ip));
    let ip = ip.ok_or_else(|| Status::bad_request(format!("address not allowed: {text} of pod {:?}", pod.name())))?;
    Ok(SocketAddr::new(ip, port))
}

/// The ready endpoints of a service's port that are pods, and at the address that the pod itself has.
fn ready_endpoints(
    service: &Object,
    named: &Named<'_>,
    slices: &[Arc<Object>],
    pod: impl Fn(&str) -> Option<Arc<Object>>,
) -> Result<Vec<SocketAddr>, Status> {
    let mut port = named.port.to_owned();
    if let Some(number) = named.number() {
        let found = service.array_at("/spec/ports").iter().find(|port| port["port"].as_u64() == Some(number.into()));
        let found = found.ok_or_else(|| {
            Status::unavailable(format!("no service port {number} found for service {:?}", service.name()))
        })?;
        port = found["name"].as_str().unwrap_or("").to_owned();
    }
    let mut all = Vec::new();
    for slice in slices.iter().filter(|slice| slice.label("kubernetes.io/service-name") == Some(service.name())) {
        let ports = slice.array_at("/ports").iter().filter(|p| p["name"].as_str().unwrap_or("") == port);
        let numbers: Vec<u16> = ports.filter_map(|p| u16::try_from(p["port"].as_u64()?).ok()).collect();
        for endpoint in slice.array_at("/endpoints").iter().filter(|e| e["conditions"]["ready"] != false) {
            let target = &endpoint["targetRef"];
            let of_pod = target["kind"] == "Pod" && target["namespace"] == service.namespace();
            let Some(pod) = target["name"].as_str().filter(|_| of_pod).and_then(&pod) else { continue };
            for address in endpoint["addresses"].as_array().into_iter().flatten() {
                let own = pod.array_at("/status/podIPs").iter().any(|ip| ip["ip"] == *address);
                let ip = address.as_str().and_then(|text| text.parse().ok()).filter(|ip| own && proxyable(*ip));
                all.extend(ip.into_iter().flat_map(|ip| numbers.iter().map(move |port| SocketAddr::new(ip, *port))));
            }
        }
    }
    Ok(all)
}

fn forwarded(call: &Call, path: &str, upgrade: bool, backend: &Backend) -> Result<Request<Body>, Status> {
    let mut request = Request::new(call.body.pass_on());
    *request.method_mut() = call.parts.method.clone();
    *request.uri_mut() = path.parse::<Uri>().map_err(|error| Status::bad_request(error.to_string()))?;
    let mut headers = call.parts.headers.clone();
    drop_credentials(&mut headers);
    let kept = headers.get(header::UPGRADE).cloned().filter(|_| upgrade);
    drop_hop_by_hop(&mut headers);
    headers.remove(header::EXPECT);
    if let Some(protocol) = kept {
        headers.insert(header::UPGRADE, protocol);
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    if let Ok(own) = HeaderValue::from_str(call.parts.uri.path()) {
        headers.insert(FORWARDED_URI, own);
    }
    let host = match backend {
        Backend::Node(node) => Some(format!("{}:{}", node.name, node.port)),
        // As the client named us: what serves many hosts by their names knows only one of them behind here.
        Backend::Pod { at, .. } => match (headers.contains_key(header::HOST), call.parts.uri.authority()) {
            (true, _) => None,
            (false, Some(authority)) => Some(authority.to_string()),
            (false, None) => Some(at.to_string()),
        },
    };
    if let Some(host) = host {
        headers.insert(header::HOST, HeaderValue::from_str(&host).map_err(Status::internal)?);
    }
    *request.headers_mut() = headers;
    Ok(request)
}

/// Who the client is, it told us alone.
fn drop_credentials(headers: &mut HeaderMap) {
    let ours: Vec<HeaderName> = headers
        .keys()
        .filter(|name| **name == header::AUTHORIZATION || name.as_str().starts_with("impersonate-"))
        .cloned()
        .collect();
    ours.iter().for_each(|name| drop(headers.remove(name)));
    let protocols: Vec<HeaderValue> = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().cloned().collect();
    headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
    for value in protocols.iter().filter_map(|value| value.to_str().ok()) {
        let kept: Vec<&str> =
            value.split(',').map(str::trim).filter(|word| !word.starts_with(BEARER_PROTOCOL)).collect();
        if let Ok(value) = HeaderValue::from_str(&kept.join(", "))
            && !kept.is_empty()
        {
            headers.append(header::SEC_WEBSOCKET_PROTOCOL, value);
        }
    }
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|word| word.trim().parse().ok())
        .collect();
    let plain = ["keep-alive", "proxy-connection"].map(HeaderName::from_static);
    for name in named.iter().chain(&HOP_BY_HOP).chain(&plain) {
        headers.remove(name);
    }
}

/// Where a redirect leads, as seen from outside: what is the backend's own lies below our path.
fn relocated(location: &str, prefix: &str, own: &[String]) -> String {
    let below = |path: &str| {
        let there = path.starts_with(prefix);
        if there { path.to_owned() } else { format!("{prefix}{path}") }
    };
    if location.starts_with('/') && !location.starts_with("//") {
        return below(location);
    }
    let (scheme, rest) = location.split_once("://").unwrap_or(("", ""));
    if !matches!(scheme, "http" | "https") {
        return location.to_owned();
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let port = |text: &str| text.parse::<Authority>().ok().and_then(|a| a.port_u16());
    let default = if scheme == "https" { 443 } else { 80 };
    let with_port = |text: &str| match port(text) {
        Some(_) => text.to_owned(),
        None => format!("{text}:{default}"),
    };
    if !own.iter().any(|own| with_port(own).eq_ignore_ascii_case(&with_port(authority))) {
        return location.to_owned();
    }
    if path.starts_with('/') { below(path) } else { format!("{prefix}/{path}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object(value: Value) -> Arc<Object> {
        Arc::new(Object::from_value(value).unwrap())
    }

    #[test]
    fn the_path_behind_the_name_stays_as_it_is() {
        let root = "/api/v1/namespaces/a/pods/http:b:80/proxy";
        for rest in ["", "/", "/x", "/x//y%2F", "/proxy/x/"] {
            let path = format!("{root}{rest}");
            assert_eq!(split(&path, &resource::POD), (root, rest));
        }
        assert_eq!(
            split("/api/v1/nodes/n/proxy/stats/summary", &resource::NODE),
            ("/api/v1/nodes/n/proxy", "/stats/summary")
        );
    }

    #[test]
    fn names_carry_scheme_and_port() {
        let named = |tls, name, port| Some(Named { tls, name, port });
        assert_eq!(Named::parse("a"), named(false, "a", ""));
        assert_eq!(Named::parse("a:web"), named(false, "a", "web"));
        assert_eq!(Named::parse("https:a:443"), named(true, "a", "443"));
        assert_eq!(Named::parse("http:a:"), named(false, "a", ""));
        for bad in ["", ":80", "ftp:a:80", "a:b:c:d"] {
            assert_eq!(Named::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_forged_address_is_not_dialled() {
        let pod = |ip: &str| {
            let ports = json!([{"ports": [{"containerPort": 8080}]}]);
            object(json!({"metadata": {"name": "p"}, "spec": {"containers": ports}, "status": {"podIP": ip}}))
        };
        let at = |ip: &str, name: &str| pod_address(&pod(ip), &Named::parse(name).unwrap());
        assert_eq!(at("10.0.0.9", "p").unwrap(), "10.0.0.9:8080".parse().unwrap());
        assert_eq!(at("fd00::9", "p:81").unwrap(), "[fd00::9]:81".parse().unwrap());
        for bad in [
            "127.0.0.1",
            "::1",
            "169.254.169.254",
            "fe80::1",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "::ffff:127.0.0.1",
            "localhost",
        ] {
            let refused = at(bad, "p").unwrap_err();
            assert_eq!(refused.code, 400, "{bad}");
            assert!(refused.message.starts_with("address not allowed"), "{}", refused.message);
        }
        assert_eq!(at("", "p").unwrap_err().code, 503);
        assert_eq!(at("10.0.0.9", "p:web").unwrap_err().code, 400);
    }

    #[test]
    fn a_service_leads_to_pods_at_their_own_addresses() {
        let service =
            json!({"metadata": {"name": "s", "namespace": "n"}, "spec": {"ports": [{"name": "web", "port": 80}]}});
        let endpoint = |ip: &str, pod: &str, ready: bool, namespace: &str| {
            json!({"addresses": [ip], "conditions": {"ready": ready},
                "targetRef": {"kind": "Pod", "name": pod, "namespace": namespace}})
        };
        let slice = |of: &str, endpoints: Value| {
            object(json!({"metadata": {"name": "x", "labels": {"kubernetes.io/service-name": of}},
                "ports": [{"name": "web", "port": 8080}, {"name": "", "port": 1}], "endpoints": endpoints}))
        };
        let slices = [
            slice(
                "s",
                json!([
                    endpoint("10.0.0.1", "p1", true, "n"), endpoint("10.0.0.2", "p2", false, "n"),
                    endpoint("10.0.0.3", "p1", true, "n"), endpoint("10.0.0.4", "gone", true, "n"),
                    endpoint("10.0.0.1", "p1", true, "other"), endpoint("127.0.0.1", "evil", true, "n"),
                    {"addresses": ["10.0.0.1"]},
                ]),
            ),
            slice("t", json!([endpoint("10.0.0.2", "p2", true, "n")])),
        ];
        let pod = |name: &str| {
            let ip = match name {
                "p1" => "10.0.0.1",
                "p2" => "10.0.0.2",
                "evil" => "127.0.0.1",
                _ => return None,
            };
            Some(object(json!({"status": {"podIPs": [{"ip": ip}]}})))
        };
        let ask = |name: &str| ready_endpoints(&object(service.clone()), &Named::parse(name).unwrap(), &slices, pod);
        for name in ["s:web", "s:80"] {
            assert_eq!(ask(name).unwrap(), ["10.0.0.1:8080".parse().unwrap()]);
        }
        assert_eq!(ask("s").unwrap(), ["10.0.0.1:1".parse().unwrap()]);
        assert_eq!(ask("s:other").unwrap(), []);
        assert_eq!(ask("s:81").unwrap_err().message, "no service port 81 found for service \"s\"");
    }

    #[test]
    fn redirects_stay_below_the_path_they_came_by() {
        let own = ["10.0.0.1:80".to_owned(), "localhost:8001".to_owned()];
        for (location, leads) in [
            ("/x?y#z", "/p/proxy/x?y#z"),
            ("/p/proxy/x", "/p/proxy/x"),
            ("x/y", "x/y"),
            ("http://10.0.0.1/x", "/p/proxy/x"),
            ("http://10.0.0.1:80?q", "/p/proxy/?q"),
            ("http://LOCALHOST:8001/x", "/p/proxy/x"),
            ("https://10.0.0.1/x", "https://10.0.0.1/x"),
            ("http://example.com/x", "http://example.com/x"),
            ("//example.com/x", "//example.com/x"),
            ("mailto:a", "mailto:a"),
        ] {
            assert_eq!(relocated(location, "/p/proxy", &own), leads, "{location}");
        }
    }

    #[test]
    fn credentials_and_the_connection_end_here() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer secret"),
            ("impersonate-user", "admin"),
            ("impersonate-extra-x", "y"),
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("keep-alive", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("sec-websocket-protocol", "chat, base64url.bearer.authorization.k8s.io.c2VjcmV0"),
            ("cookie", "a=b"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        drop_credentials(&mut headers);
        drop_hop_by_hop(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["cookie", "sec-websocket-protocol"]);
        assert_eq!(headers[header::SEC_WEBSOCKET_PROTOCOL], "chat");
    }
}
