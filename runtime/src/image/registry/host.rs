//! One host of a repository, asked on behalf of one pull.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_RANGE, LOCATION, RANGE, RETRY_AFTER, USER_AGENT, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::auth::{self, Auth, Challenge, parse_challenge};
use super::error::{RegistryError, words};
use super::hosts;
use super::{Http, Pace, Registries};
use crate::image::manifest::Descriptor;
use crate::image::reference::Reference;

const REDIRECTS_MAX: usize = 5;
const ERROR_BODY_MAX_BYTES: u64 = 64 << 10;
const TOKEN_MAX_BYTES: u64 = 1 << 20;
const OWN_AGENT: HeaderValue = HeaderValue::from_static(concat!("gantry/", env!("CARGO_PKG_VERSION")));

pub(super) struct Host {
    registries: Arc<Registries>,
    host: hosts::Host,
    /// The registry that a mirror is asked for.
    namespace: Option<String>,
    /// The repository within it.
    path: String,
    /// Nobody's, unless the host is the registry of the reference.
    auth: Auth,
    http: Http,
    /// For where the host leads: without what is the host's own.
    elsewhere: Http,
    /// What each place has been satisfied with, by scheme and authority.
    authorizations: Mutex<BTreeMap<String, HeaderValue>>,
    /// It could not be reached, or kept silent.
    down: AtomicBool,
    /// A blob of its did not have its digest.
    lied: AtomicBool,
}

/// Something to get whole.
pub(super) struct Wanted<'w> {
    pub kind: &'static str,
    pub name: &'w str,
    pub accept: Option<&'static str>,
    pub what: &'static str,
    pub max: u64,
}

impl Host {
    pub fn new(registries: &Arc<Registries>, host: hosts::Host, reference: &Reference, auth: &Auth) -> Host {
        let (http, elsewhere) = registries.clients(&host);
        let auth = if host.own { auth.clone() } else { Auth::Anonymous };
        let given = match &auth {
            Auth::Registry(token) => auth::bearer(token).map(|header| (own_origin(&host), header)),
            _ => None,
        };
        Host {
            registries: Arc::clone(registries),
            namespace: (!host.own).then(|| reference.domain().to_owned()),
            path: reference.path().to_owned(),
            auth,
            http,
            elsewhere,
            authorizations: Mutex::new(given.into_iter().collect()),
            down: AtomicBool::new(false),
            lied: AtomicBool::new(false),
            host,
        }
    }

    pub fn able(&self) -> hosts::Capabilities {
        self.host.settings.capabilities
    }

    pub fn authority(&self) -> &str {
        self.host.root.authority.as_str()
    }

    pub fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    pub fn has_lied(&self) -> bool {
        self.lied.load(Ordering::Relaxed)
    }

    pub fn distrust(&self) {
        self.lied.store(true, Ordering::Relaxed);
    }

    /// Asks once for something small.
    pub async fn whole(&self, wanted: &Wanted<'_>) -> Result<(HeaderMap, Bytes), RegistryError> {
        let url = self.url(wanted.kind, wanted.name)?;
        let (parts, body) = self.get(&url, wanted.accept, 0).await?.into_parts();
        Ok((parts.headers, self.registries.body(wanted.what, body, wanted.max).await?))
    }

    /// Sends a blob's bytes from `sent` on, which counts them, to `sink`.
    pub async fn blob_from(
        &self,
        blob: &Descriptor,
        sent: &mut u64,
        sink: &mpsc::Sender<Bytes>,
    ) -> Result<(), RegistryError> {
        let url = self.url("blobs", blob.digest.as_str())?;
        let response = self.get(&url, None, *sent).await?;
        // A registry that knows no ranges begins again: what was sent already is passed over.
        let mut skip = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                check_range(response.headers(), *sent)?;
                0
            }
            _ => *sent,
        };
        let (mut body, mut pace) = (response.into_body(), Pace::default());
        loop {
            let mut chunk = match self.registries.chunk(&mut body, &mut pace).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                // All of it has come: how the connection ends is of no interest, and nothing is left to ask for.
                Err(_) if *sent == blob.size => break,
                Err(error) => return Err(error),
            };
            let passed = skip.min(chunk.len() as u64);
            skip -= passed;
            let chunk = chunk.split_off(passed as usize);
            if *sent + chunk.len() as u64 > blob.size {
                return Err(RegistryError::Longer { wanted: blob.size });
            }
            *sent += chunk.len() as u64;
            if !chunk.is_empty() && sink.send(chunk).await.is_err() {
                return Ok(());
            }
        }
        if *sent == blob.size { Ok(()) } else { Err(RegistryError::Shorter { wanted: blob.size, actual: *sent }) }
    }

    fn url(&self, kind: &str, name: &str) -> Result<Uri, RegistryError> {
        let root = &self.host.root;
        let mut text = format!("{}{}/{}/{kind}/{name}", own_origin(&self.host), root.path, self.path);
        if let Some(namespace) = &self.namespace {
            text.push_str("?ns=");
            text.push_str(&auth::escape(namespace));
        }
        text.parse().map_err(|_| RegistryError::Url(text))
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
            let response = self.send(self.request(&url, accept, from)?).await?;
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && !challenged {
                challenged = true;
                let challenges = challenges(response.headers());
                if self.authorize(&url, &challenges).await? {
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
            return Err(self.failure(authority(&url), response).await);
        }
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, RegistryError> {
        let own = self.is_own_host(request.uri());
        let sent = self.registries.send(if own { &self.http } else { &self.elsewhere }, request).await;
        if own && sent.as_ref().is_err_and(RegistryError::is_down) {
            self.down.store(true, Ordering::Relaxed);
        }
        sent
    }

    fn is_own_host(&self, url: &Uri) -> bool {
        url.host().is_some_and(|host| host.eq_ignore_ascii_case(self.host.root.authority.host()))
    }

    fn request(
        &self,
        url: &Uri,
        accept: Option<&'static str>,
        from: u64,
    ) -> Result<Request<Full<Bytes>>, RegistryError> {
        let wrong = || RegistryError::Url(url.to_string());
        let mut request = Request::builder().method(Method::GET).uri(url).body(Full::default()).map_err(|_| wrong())?;
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, OWN_AGENT);
        if let Some(accept) = accept {
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
        }
        if from > 0 {
            let range = HeaderValue::try_from(format!("bytes={from}-")).map_err(|_| wrong())?;
            headers.insert(RANGE, range);
        }
        self.add_headers(url, headers);
        if let Some(authorization) = self.authorizations.lock().get(&origin(url)) {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        Ok(request)
    }

    /// The headers that the operator set are the host's alone; they stand in the place of ours.
    fn add_headers(&self, url: &Uri, headers: &mut HeaderMap) {
        if origin(url) != own_origin(&self.host) {
            return;
        }
        for name in self.host.settings.headers.keys() {
            headers.remove(name);
            for value in self.host.settings.headers.get_all(name) {
                headers.append(name, value.clone());
            }
        }
    }

    /// Where a redirect leads; never from TLS to plain text, except to where plain text is allowed. (To this machine
    /// itself it never leads from elsewhere: the connector sees to that.)
    fn redirect(&self, from: &Uri, headers: &HeaderMap) -> Result<Uri, RegistryError> {
        let location = headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let refused = || RegistryError::Redirect(location.chars().take(200).collect());
        let absolute = if location.starts_with('/') && !location.starts_with("//") {
            format!("{}{location}", origin(from))
        } else {
            location.to_owned()
        };
        let to: Uri = absolute.parse().map_err(|_| refused())?;
        let authority = to.authority().map(ToString::to_string).ok_or_else(refused)?;
        match to.scheme_str() {
            Some("https") => Ok(to),
            Some("http") if from.scheme_str() == Some("http") || self.registries.insecure.contains(&authority) => {
                Ok(to)
            }
            _ => Err(refused()),
        }
    }

    async fn failure(&self, host: String, response: Response<Incoming>) -> RegistryError {
        let status = response.status();
        let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let after = asked.and_then(|text| retry_after(text, self.registries.env.clock.now()));
        let body = self.registries.body("error", response.into_body(), ERROR_BODY_MAX_BYTES).await.unwrap_or_default();
        RegistryError::answered(host, status, words(status, &body), after)
    }

    /// Meets a challenge; false when there is nothing to meet it with.
    async fn authorize(&self, url: &Uri, challenges: &[Challenge]) -> Result<bool, RegistryError> {
        // Credentials are for the registry alone; elsewhere one may still ask as nobody.
        let origin = origin(url);
        let auth = if origin == own_origin(&self.host) { &self.auth } else { &Auth::Anonymous };
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
                self.authorizations.lock().insert(origin, header);
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
        let refused = || RegistryError::Realm(realm.chars().take(200).collect());
        let mut request = auth::token_request(realm, service, scope, auth).ok_or_else(refused)?;
        let host = authority(request.uri());
        let plain = request.uri().scheme_str() == Some("http");
        if plain && url.scheme_str() == Some("https") && !self.registries.insecure.contains(&host) {
            return Err(refused());
        }
        let uri = request.uri().clone();
        if !request.headers().contains_key(AUTHORIZATION) {
            self.add_headers(&uri, request.headers_mut());
        }
        let response = self.send(request).await?;
        if response.status() != StatusCode::OK {
            return Err(self.failure(host, response).await);
        }
        let body = self.registries.body("token", response.into_body(), TOKEN_MAX_BYTES).await?;
        auth::parse_token(&body).ok_or(RegistryError::Token(host))
    }
}

fn authority(url: &Uri) -> String {
    url.authority().map(ToString::to_string).unwrap_or_default()
}

/// Two with the same are one place for secrets.
fn origin(url: &Uri) -> String {
    format!("{}://{}", url.scheme_str().unwrap_or("https"), authority(url))
}

fn own_origin(host: &hosts::Host) -> String {
    format!("{}://{}", if host.root.plain { "http" } else { "https" }, host.root.authority)
}

fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| parse_challenge(value.to_str().ok()?)).collect()
}

/// Seconds, or a date in any of the forms that HTTP has had (RFC 9110, sections 10.2.3 and 5.6.7). One that has passed asks
/// for nothing; what is neither says nothing.
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    const DATES: [&str; 3] = ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DATES.iter().find_map(|format| DateTime::strptime(format, text).ok())?;
    let at = TimeZone::UTC.to_timestamp(date).ok()?;
    Some(Duration::try_from(at.duration_since(now)).unwrap_or_default())
}

fn check_range(headers: &HeaderMap, from: u64) -> Result<(), RegistryError> {
    let range = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if range.starts_with(&format!("bytes {from}-")) { Ok(()) } else { Err(RegistryError::Range(range.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_says_in_seconds_or_as_a_date_when_to_come_again() {
        let now = "1994-11-06T08:49:07Z".parse().unwrap();
        let after = |text: &str| retry_after(text, now);
        assert_eq!(after(" 120 "), Some(Duration::from_secs(120)));
        for date in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(after(date), Some(Duration::from_secs(30)), "{date}");
        }
        assert_eq!(after("Sun, 06 Nov 1994 08:49:06 GMT"), Some(Duration::ZERO), "it has passed");
        for nothing in ["", "soon", "-5", "1.5", "Sun, 06 Nov 1994 08:49:37 CET", "99999999999999999999"] {
            assert_eq!(after(nothing), None, "{nothing:?}");
        }
    }
}
