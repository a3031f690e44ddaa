//! A client of the distribution API (OCI distribution-spec), as much of it as pulling needs.
//!
//! Whatever a registry sends is bounded: manifests and tokens by size, blobs by the size their descriptor gives, waits
//! by [`Patience`], redirects by number. Credentials go to the registry that they are for and to the token server that
//! it names, and to no host that a redirect leads to. A blob's transfer that breaks is taken up where it broke; its
//! digest is checked over all of it by whoever reads the stream.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_env::{Backoff, Env};
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::digest::Digest;
use super::manifest::{self, Descriptor, MANIFEST_MAX_BYTES};
use super::reference::Reference;

mod auth;
mod connect;
mod error;

pub use auth::{Auth, Challenge, parse_challenge, parse_token, token_request};
use connect::Connector;
pub use error::{RegistryError, words};

const REDIRECTS_MAX: usize = 5;
const ERROR_BODY_MAX_BYTES: u64 = 64 << 10;
const TOKEN_MAX_BYTES: u64 = 1 << 20;
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
const USER_AGENT: &str = concat!("gantry/", env!("CARGO_PKG_VERSION"));

/// How long a registry is waited for, and how often it is asked again.
#[derive(Clone, Debug)]
pub struct Patience {
    pub connect: Duration,
    /// From a request to its answer's headers.
    pub answer: Duration,
    /// Between two pieces of a body.
    pub idle: Duration,
    /// Tries in a row that bring nothing.
    pub attempts: u32,
    pub backoff_first: Duration,
    pub backoff_max: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            attempts: 5,
            backoff_first: Duration::from_millis(300),
            backoff_max: Duration::from_secs(8),
        }
    }
}

/// Connections to registries, shared by all pulls.
pub struct Registries {
    http: Client<Connector, Full<Bytes>>,
    insecure: Vec<String>,
    patience: Patience,
    env: Env,
}

impl Registries {
    pub fn new(insecure: Vec<String>, ca_files: Vec<std::path::PathBuf>, patience: Patience, env: Env) -> Registries {
        let connector = Connector::new(ca_files, patience.connect);
        let http = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(4).build(connector);
        Registries { http, insecure, patience, env }
    }

    /// One repository, spoken to on behalf of one pull.
    pub fn repository(self: &Arc<Registries>, reference: &Reference, auth: &Auth) -> Repository {
        let endpoint = reference.endpoint().to_owned();
        let authorization = match auth {
            Auth::Registry(token) => auth::bearer(token).map(|header| (endpoint.clone(), header)),
            _ => None,
        };
        Repository {
            registries: Arc::clone(self),
            scheme: if self.is_plain(&endpoint) { "http" } else { "https" },
            endpoint,
            path: reference.path().to_owned(),
            auth: auth.clone(),
            authorizations: Mutex::new(authorization.into_iter().collect()),
        }
    }

    fn is_plain(&self, authority: &str) -> bool {
        is_loopback(authority) || self.insecure.iter().any(|host| host == authority)
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, RegistryError> {
        let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        match timeout(self.patience.answer, self.http.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(source)) => Err(RegistryError::Connection { host, source: Box::new(source) }),
            Err(_) => Err(RegistryError::Silent { host, after: self.patience.answer }),
        }
    }

    /// A body of at most `max` bytes.
    async fn body(&self, what: &'static str, mut body: Incoming, max: u64) -> Result<Bytes, RegistryError> {
        let mut whole = Vec::new();
        while let Some(chunk) = self.chunk(&mut body).await? {
            if (whole.len() + chunk.len()) as u64 > max {
                return Err(RegistryError::TooLong { what, max });
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.into())
    }

    async fn chunk(&self, body: &mut Incoming) -> Result<Option<Bytes>, RegistryError> {
        loop {
            match timeout(self.patience.idle, body.frame()).await {
                Err(_) => return Err(RegistryError::Stalled { after: self.patience.idle }),
                Ok(None) => return Ok(None),
                Ok(Some(Err(source))) => return Err(RegistryError::Broken(source)),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// Waits as long as the registry asked for, or as the backoff says.
    async fn wait(&self, error: &RegistryError, backoff: &mut Backoff) {
        let own = backoff.next(&self.env.rng);
        let asked = error.retry_after().unwrap_or_default().min(RETRY_AFTER_MAX);
        tracing::debug!(error = %gantry_env::chain(error), "registry is asked again");
        tokio::time::sleep(own.max(asked)).await;
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(self.patience.backoff_first, self.patience.backoff_max)
    }
}

/// A host that no packet leaves the machine for.
fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(""),
        None => authority.split(':').next().unwrap_or(""),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A manifest or index as it came, with its digest.
pub struct Fetched {
    pub digest: Digest,
    pub media_type: Option<String>,
    pub bytes: Bytes,
}

pub struct Repository {
    registries: Arc<Registries>,
    scheme: &'static str,
    endpoint: String,
    path: String,
    auth: Auth,
    /// What each host has been satisfied with.
    authorizations: Mutex<BTreeMap<String, HeaderValue>>,
}

impl Repository {
    /// Fetches a manifest or an index by tag or digest; one by digest is verified.
    pub async fn manifest(&self, wanted: &str) -> Result<Fetched, RegistryError> {
        let url = self.url("manifests", wanted)?;
        let (headers, bytes) = self.get_whole(&url, Some(manifest::ACCEPT), "manifest", MANIFEST_MAX_BYTES).await?;
        let actual = Digest::of(&bytes);
        if let Ok(wanted) = wanted.parse::<Digest>()
            && wanted != actual
        {
            return Err(RegistryError::Digest { wanted, actual });
        }
        let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(Fetched { digest: actual, media_type, bytes })
    }

    /// Fetches a small blob whole, and verifies it.
    pub async fn small_blob(&self, blob: &Descriptor) -> Result<Bytes, RegistryError> {
        let url = self.url("blobs", blob.digest.as_str())?;
        let (_, bytes) = self.get_whole(&url, None, "image configuration", blob.size).await?;
        let actual = Digest::of(&bytes);
        if actual != blob.digest {
            return Err(RegistryError::Digest { wanted: blob.digest.clone(), actual });
        }
        Ok(bytes)
    }

    /// Sends a blob's bytes, exactly as many as its descriptor says, to `sink`; ends early when nobody listens.
    pub async fn blob(&self, blob: &Descriptor, sink: &mpsc::Sender<Bytes>) -> Result<(), RegistryError> {
        let url = self.url("blobs", blob.digest.as_str())?;
        let (mut sent, mut attempts, mut backoff) = (0_u64, 0, self.registries.backoff());
        loop {
            let before = sent;
            let error = match self.blob_from(&url, blob.size, &mut sent, sink).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if sent > before {
                attempts = 0;
                backoff.reset();
            }
            attempts += 1;
            if attempts >= self.registries.patience.attempts || !error.retryable() {
                return Err(error);
            }
            self.registries.wait(&error, &mut backoff).await;
        }
    }

    async fn blob_from(
        &self,
        url: &Uri,
        size: u64,
        sent: &mut u64,
        sink: &mpsc::Sender<Bytes>,
    ) -> Result<(), RegistryError> {
        let response = self.get(url, None, *sent).await?;
        // A registry that knows no ranges begins again: what was sent already is passed over.
        let mut skip = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                check_range(response.headers(), *sent)?;
                0
            }
            _ => *sent,
        };
        let mut body = response.into_body();
        while let Some(mut chunk) = self.registries.chunk(&mut body).await? {
            let passed = skip.min(chunk.len() as u64);
            skip -= passed;
            let chunk = chunk.split_off(passed as usize);
            if *sent + chunk.len() as u64 > size {
                return Err(RegistryError::Longer { wanted: size });
            }
            *sent += chunk.len() as u64;
            if !chunk.is_empty() && sink.send(chunk).await.is_err() {
                return Ok(());
            }
        }
        if *sent == size { Ok(()) } else { Err(RegistryError::Shorter { wanted: size, actual: *sent }) }
    }

    fn url(&self, kind: &str, name: &str) -> Result<Uri, RegistryError> {
        let text = format!("{}://{}/v2/{}/{kind}/{name}", self.scheme, self.endpoint, self.path);
        text.parse().map_err(|_| RegistryError::Url(text))
    }

    async fn get_whole(
        &self,
        url: &Uri,
        accept: Option<&'static str>,
        what: &'static str,
        max: u64,
    ) -> Result<(HeaderMap, Bytes), RegistryError> {
        let (mut attempts, mut backoff) = (0, self.registries.backoff());
        loop {
            let tried = async {
                let (parts, body) = self.get(url, accept, 0).await?.into_parts();
                Ok((parts.headers, self.registries.body(what, body, max).await?))
            };
            let error = match tried.await {
                Err(error) => error,
                got => return got,
            };
            attempts += 1;
            if attempts >= self.registries.patience.attempts || !error.retryable() {
                return Err(error);
            }
            self.registries.wait(&error, &mut backoff).await;
        }
    }

    /// One GET, through redirects and challenges, to a response that succeeded.
    async fn get(
        &self,
        url: &Uri,
        accept: Option<&'static str>,
        from: u64,
    ) -> Result<Response<Incoming>, RegistryError> {
        let mut url = url.clone();
        let (mut redirects, mut challenged) = (0, false);
        loop {
            let host = url.authority().map(ToString::to_string).unwrap_or_default();
            let response = self.registries.send(self.request(&url, &host, accept, from)?).await?;
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && !challenged {
                challenged = true;
                let challenges = challenges(response.headers());
                if self.authorize(&url, &host, &challenges).await? {
                    continue;
                }
            }
            if status.is_redirection() && response.headers().contains_key(LOCATION) {
                redirects += 1;
                if redirects > REDIRECTS_MAX {
                    return Err(RegistryError::Redirects(REDIRECTS_MAX));
                }
                url = self.redirect(&url, response.headers())?;
                challenged = false;
                continue;
            }
            if status == StatusCode::OK || (status == StatusCode::PARTIAL_CONTENT && from > 0) {
                return Ok(response);
            }
            if status == StatusCode::RANGE_NOT_SATISFIABLE {
                return Err(RegistryError::Range(format!("nothing from byte {from} on")));
            }
            return Err(self.failure(host, response).await);
        }
    }

    fn request(
        &self,
        url: &Uri,
        host: &str,
        accept: Option<&'static str>,
        from: u64,
    ) -> Result<Request<Full<Bytes>>, RegistryError> {
        let mut request = Request::builder().method(Method::GET).uri(url).header("user-agent", USER_AGENT);
        if let Some(accept) = accept {
            request = request.header(ACCEPT, accept);
        }
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        if let Some(authorization) = self.authorizations.lock().get(host) {
            request = request.header(AUTHORIZATION, authorization);
        }
        request.body(Full::default()).map_err(|_| RegistryError::Url(url.to_string()))
    }

    /// Where a redirect leads; never from TLS to plain text, except to where plain text is allowed.
    fn redirect(&self, from: &Uri, headers: &HeaderMap) -> Result<Uri, RegistryError> {
        let location = headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let refused = || RegistryError::Redirect(location.chars().take(200).collect());
        let absolute = if location.starts_with('/') && !location.starts_with("//") {
            let authority = from.authority().map(ToString::to_string).unwrap_or_default();
            format!("{}://{authority}{location}", from.scheme_str().unwrap_or("https"))
        } else {
            location.to_owned()
        };
        let to: Uri = absolute.parse().map_err(|_| refused())?;
        let authority = to.authority().map(ToString::to_string).ok_or_else(refused)?;
        match to.scheme_str() {
            Some("https") => Ok(to),
            // A registry far away must not make this host speak to its own loopback.
            Some("http") if from.scheme_str() == Some("http") || self.registries.insecure.contains(&authority) => {
                Ok(to)
            }
            _ => Err(refused()),
        }
    }

    async fn failure(&self, host: String, response: Response<Incoming>) -> RegistryError {
        let status = response.status();
        let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let body = self.registries.body("error", response.into_body(), ERROR_BODY_MAX_BYTES).await.unwrap_or_default();
        RegistryError::answered(host, status, words(status, &body), after.map(Duration::from_secs))
    }

    /// Meets a host's challenge; false when there is nothing to meet it with.
    async fn authorize(&self, url: &Uri, host: &str, challenges: &[Challenge]) -> Result<bool, RegistryError> {
        // Credentials are for the registry alone; elsewhere one may still ask as nobody.
        let auth = if host == self.endpoint { &self.auth } else { &Auth::Anonymous };
        for challenge in challenges {
            let header = match (challenge, auth) {
                (Challenge::Bearer { realm, service, scope }, _) => {
                    let token = self.token(url, realm, service.as_deref(), scope.as_deref(), auth).await?;
                    auth::bearer(&token)
                }
                (Challenge::Basic, Auth::Basic { username, password }) => auth::basic(username, password),
                _ => None,
            };
            if let Some(header) = header {
                self.authorizations.lock().insert(host.to_owned(), header);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Asks a token server (distribution's token authentication specification).
    async fn token(
        &self,
        url: &Uri,
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
        auth: &Auth,
    ) -> Result<String, RegistryError> {
        let default_scope = format!("repository:{}:pull", self.path);
        let scope = scope.unwrap_or(&default_scope);
        let request = auth::token_request(realm, service, scope, auth)
            .ok_or_else(|| RegistryError::Realm(realm.chars().take(200).collect()))?;
        let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let plain = request.uri().scheme_str() == Some("http");
        if plain && url.scheme_str() == Some("https") && !self.registries.insecure.contains(&host) {
            return Err(RegistryError::Realm(realm.chars().take(200).collect()));
        }
        let response = self.registries.send(request).await?;
        if response.status() != StatusCode::OK {
            return Err(self.failure(host, response).await);
        }
        let body = self.registries.body("token", response.into_body(), TOKEN_MAX_BYTES).await?;
        auth::parse_token(&body).ok_or(RegistryError::Token(host))
    }
}

fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| parse_challenge(value.to_str().ok()?)).collect()
}

fn check_range(headers: &HeaderMap, from: u64) -> Result<(), RegistryError> {
    let range = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if range.starts_with(&format!("bytes {from}-")) { Ok(()) } else { Err(RegistryError::Range(range.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_what_stays_here() {
        for yes in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:80"] {
            assert!(is_loopback(yes), "{yes}");
        }
        for no in ["localhost.example.com", "10.0.0.1", "127.0.0.1.example.com", "[::2]:80", "registry:5000"] {
            assert!(!is_loopback(no), "{no}");
        }
    }
}
