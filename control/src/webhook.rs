//! Webhooks: what the API server asks of servers that users name, over HTTPS. Source: the Kubernetes documentation "Webhook request and
//! response", which conversion and admission share.
//!
//! A service is dialled at one of its ready endpoints, as the network of this host leads there, and must prove to be
//! `NAME.NAMESPACE.svc`; a URL's host is resolved as any program here would. Redirects are not followed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gantry_env::{Env, chain};
use gantry_kube::{Ref, Status};
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::http::proxy;
use crate::store::Cache;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What a webhook may answer: as much as a list of objects that were sent to it can become.
const ANSWER_MAX_BYTES: usize = 64 << 20;
/// What is shown of an answer that is a refusal.
const REFUSAL_SHOWN_BYTES: usize = 1024;
const SERVICE_PORT: u16 = 443;

/// Where a webhook is, and whom to believe there: a WebhookClientConfig.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    target: Target,
    /// PEM; the public authorities where it is absent.
    ca: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Url(Uri),
    Service { at: Ref, port: u16, path: String },
}

#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error("its configuration names neither a URL nor a service")]
    Nowhere,
    #[error("its URL {0:?} names no host")]
    NoHost(String),
    #[error("its caBundle holds no certificate that can be used")]
    Authorities(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("{at}")]
    Service { at: Ref, source: Box<Status> },
    #[error("dial tcp {host}")]
    Dial {
        host: String,
        #[source]
        source: std::io::Error,
    },
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the connection to it broke")]
    Http(#[from] hyper::Error),
    #[error("its answer cannot be read")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("it answered {code}: {body}")]
    Refused { code: u16, body: String },
    #[error("its answer is not JSON")]
    NotJson(#[from] serde_json::Error),
}

impl Webhook {
    /// Reads a `clientConfig`.
    pub fn read(config: &Value) -> Result<Webhook, WebhookError> {
        let bundle = config["caBundle"].as_str().filter(|bundle| !bundle.is_empty());
        let ca = match bundle.map(|bundle| STANDARD.decode(bundle)).transpose() {
            Ok(bytes) => bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) => return Err(WebhookError::Authorities(error.into())),
        };
        let service = &config["service"];
        let target = match (config["url"].as_str(), service["name"].as_str()) {
            (Some(url), None) => {
                let uri: Uri = url.parse().map_err(|_| WebhookError::NoHost(url.to_owned()))?;
                if uri.host().is_none_or(str::is_empty) {
                    return Err(WebhookError::NoHost(url.to_owned()));
                }
                Target::Url(uri)
            }
            (None, Some(name)) => Target::Service {
                at: Ref::new(service["namespace"].as_str().unwrap_or(""), name),
                port: service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(SERVICE_PORT),
                path: service["path"].as_str().unwrap_or("/").to_owned(),
            },
            _ => return Err(WebhookError::Nowhere),
        };
        Ok(Webhook { target, ca })
    }

    /// The name that the server must prove.
    fn host(&self) -> String {
        match &self.target {
            Target::Url(uri) => uri.host().unwrap_or("").to_owned(),
            Target::Service { at, .. } => format!("{}.{}.svc", at.name, at.namespace),
        }
    }

    fn port(&self) -> u16 {
        match &self.target {
            Target::Url(uri) => uri.port_u16().unwrap_or(SERVICE_PORT),
            Target::Service { port, .. } => *port,
        }
    }

    fn path(&self) -> &str {
        match &self.target {
            Target::Url(uri) => uri.path_and_query().map_or("/", |path| path.as_str()),
            Target::Service { path, .. } => path,
        }
    }
}

/// Asks webhooks. Cheap to clone.
#[derive(Clone)]
pub struct Webhooks {
    cache: Cache,
    env: Env,
}

impl Webhooks {
    pub fn new(cache: Cache, env: Env) -> Webhooks {
        Webhooks { cache, env }
    }

    /// Posts a review and reads the answer's, within `timeout` altogether.
    pub async fn call(&self, webhook: &Webhook, review: &Value, timeout: Duration) -> Result<Value, WebhookError> {
        match tokio::time::timeout(timeout, self.ask(webhook, review)).await {
            Ok(answered) => answered,
            Err(_) => Err(WebhookError::Timeout(timeout)),
        }
    }

    async fn ask(&self, webhook: &Webhook, review: &Value) -> Result<Value, WebhookError> {
        let host = webhook.host();
        let failed = |source| WebhookError::Dial { host: format!("{host}:{}", webhook.port()), source };
        let name = ServerName::try_from(host.clone()).map_err(|_| WebhookError::NoHost(host.clone()))?;
        let connector = TlsConnector::from(Arc::new(self.tls(webhook)?));
        let addresses = self.addresses(webhook).await?;
        let stream = dial(&addresses).await.map_err(failed)?;
        let stream = connector.connect(name, stream).await.map_err(failed)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the sender, whichever way this call does.
        tokio::spawn(connection);
        let body = serde_json::to_vec(review)?;
        let request = Request::post(webhook.path())
            .header(header::HOST, host.as_str())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .body(Full::new(bytes::Bytes::from(body)));
        let request = request.map_err(|error| WebhookError::Body(error.into()))?;
        let response = sender.send_request(request).await?;
        let code = response.status();
        let body = Limited::new(response.into_body(), ANSWER_MAX_BYTES).collect().await.map_err(WebhookError::Body)?;
        let bytes = body.to_bytes();
        if !code.is_success() {
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(REFUSAL_SHOWN_BYTES)]).into_owned();
            return Err(WebhookError::Refused { code: code.as_u16(), body: shown });
        }
        Ok(serde_json::from_slice(&bytes)?)
    }

    fn tls(&self, webhook: &Webhook) -> Result<ClientConfig, WebhookError> {
        let bad = |error: gantry_pki::PkiError| WebhookError::Authorities(error.into());
        let roots = match &webhook.ca {
            Some(pem) => gantry_pki::tls::roots(pem).map_err(bad)?,
            None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
        };
        let mut config = gantry_pki::tls::client_config_of(roots, &self.env.clock).map_err(bad)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    async fn addresses(&self, webhook: &Webhook) -> Result<Vec<SocketAddr>, WebhookError> {
        let Target::Service { at, port, .. } = &webhook.target else {
            let (host, port) = (webhook.host(), webhook.port());
            let found = gantry_env::resolve(&host, port).await;
            return found.map_err(|source| WebhookError::Dial { host: format!("{host}:{port}"), source });
        };
        let failed = |status: Status| WebhookError::Service { at: at.clone(), source: Box::new(status) };
        let mut all = proxy::endpoints_of(&self.cache, at, *port).map_err(failed)?;
        if all.is_empty() {
            return Err(failed(Status::unavailable(format!("no endpoints available for service {:?}", at.name))));
        }
        let first = self.env.rng.below(all.len() as u64) as usize;
        all.rotate_left(first);
        Ok(all)
    }
}

/// The first of the addresses that answers.
async fn dial(addresses: &[SocketAddr]) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = std::io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// How a refusal tells what went wrong with a webhook.
pub fn told(error: &WebhookError) -> String {
    chain(error).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_client_config_is_a_url_or_a_service() {
        let service = json!({"service": {"namespace": "n", "name": "s", "path": "/convert", "port": 8443}});
        let webhook = Webhook::read(&service).unwrap();
        assert_eq!((webhook.host().as_str(), webhook.port(), webhook.path()), ("s.n.svc", 8443, "/convert"));
        let plain = Webhook::read(&json!({"service": {"namespace": "n", "name": "s"}})).unwrap();
        assert_eq!((plain.port(), plain.path()), (443, "/"));
        let url = Webhook::read(&json!({"url": "https://example.com:9443/a?b=c"})).unwrap();
        assert_eq!((url.host().as_str(), url.port(), url.path()), ("example.com", 9443, "/a?b=c"));
        for bad in [json!({}), json!({"url": "/convert"}), json!({"url": "https://a", "caBundle": "!"})] {
            assert!(Webhook::read(&bad).is_err(), "{bad}");
        }
    }
}
