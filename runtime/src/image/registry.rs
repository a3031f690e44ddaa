//! A client of the distribution API (OCI distribution-spec), as much of it as pulling needs.
//!
//! Whatever a registry sends is bounded: manifests and tokens by size, blobs by the size their descriptor gives, waits
//! by [`Patience`], redirects by number. Credentials go to the registry that they are for and to the token server that
//! it names, and to no mirror and no host that a redirect leads to; nobody is led to this machine's own addresses from
//! elsewhere. A blob's transfer that breaks is taken up where it broke; its digest is checked over all of it by whoever
//! reads the stream.
//!
//! [`hosts`] says where a registry's images may be had, a [`Repository`] asks those hosts in their order, `host` is how
//! one of them is asked, `connect`, `tls` and `proxy` how it is reached.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_env::{Backoff, Env};
use http::header::PROXY_AUTHORIZATION;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::digest::Digest;
use super::reference::Reference;

mod auth;
mod connect;
mod error;
mod host;
pub mod hosts;
mod inward;
mod proxy;
mod repository;
mod tls;

pub use auth::{Auth, Challenge, parse_challenge, parse_token, token_request};
use connect::Connector;
pub use error::{RegistryError, words};
use host::Host;
use hosts::TlsSettings;
use inward::is_loopback;
pub use proxy::{Proxies, ProxyError};
pub use repository::Repository;
use tls::Tls;

const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// Connections to one host that wait for a next request.
const IDLE_MAX: usize = 4;

type Http = Client<Connector, Full<Bytes>>;

/// How long a registry is waited for, and how often it is asked again.
#[derive(Clone, Debug)]
pub struct Patience {
    pub connect: Duration,
    /// From a request to its answer's headers.
    pub answer: Duration,
    /// Between two pieces of a body.
    pub idle: Duration,
    /// What a body brings at least in that time, or it stands still: one that drips would never end.
    pub pace_bytes: u64,
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
            pace_bytes: 64 << 10,
            attempts: 5,
            backoff_first: Duration::from_millis(300),
            backoff_max: Duration::from_secs(8),
        }
    }
}

/// How registries are found and trusted, and the connections to them, shared by all pulls.
pub struct Registries {
    /// For registries without settings of their own.
    http: Http,
    connector: Connector,
    proxies: Arc<Proxies>,
    tls: Arc<Tls>,
    ca_files: Vec<PathBuf>,
    insecure: Vec<String>,
    /// Where the folders with `hosts.toml` are: the first that is there.
    config_paths: Vec<PathBuf>,
    patience: Patience,
    env: Env,
}

impl Registries {
    pub fn new(config: &super::Config, env: Env) -> Registries {
        let (patience, ca_files) = (config.patience.clone(), config.ca_files.clone());
        let tls = Arc::new(Tls::new(TlsSettings { ca_files: ca_files.clone(), ..TlsSettings::default() }));
        let proxies = Arc::new(config.proxies.clone());
        let connector = Connector::new(Arc::clone(&proxies), Arc::clone(&tls), patience.connect, None);
        Registries {
            http: client(connector.clone()),
            connector,
            proxies,
            tls,
            ca_files,
            insecure: config.insecure_registries.clone(),
            config_paths: config.registry_config_paths.clone(),
            patience,
            env,
        }
    }

    /// One repository, spoken to on behalf of one pull. Reads what is configured for it now.
    pub async fn repository(
        self: &Arc<Registries>,
        reference: &Reference,
        auth: &Auth,
    ) -> Result<Repository, RegistryError> {
        let (roots, domain) = (self.config_paths.clone(), reference.domain().to_owned());
        let file = tokio::task::spawn_blocking(move || hosts::load::load(&roots, &domain)).await;
        let file = file.map_err(|_| RegistryError::Interrupted)??;
        let endpoint = reference.endpoint();
        let authority = endpoint.parse().map_err(|_| RegistryError::Url(endpoint.to_owned()))?;
        let hosts = hosts::resolve(reference.domain(), &authority, self.is_plain(endpoint), file);
        let hosts = hosts.into_iter().map(|host| Host::new(self, host, reference, auth)).collect();
        Ok(Repository { registries: Arc::clone(self), hosts, served: Mutex::default() })
    }

    fn is_plain(&self, authority: &str) -> bool {
        is_loopback(authority) || self.insecure.iter().any(|host| host == authority)
    }

    /// A client for a host, and one for where it leads: an authority that is trusted for the one is trusted for its
    /// token server and its storage; but those get no client certificate, and are verified whatever is said of the host.
    fn clients(&self, host: &hosts::Host) -> (Http, Http) {
        let settings = &host.settings;
        let with_roots = |mut tls: TlsSettings| {
            tls.ca_files.extend_from_slice(&self.ca_files);
            Arc::new(Tls::new(tls))
        };
        let own = if settings.tls.is_empty() && settings.dial_timeout.is_none() {
            self.http.clone()
        } else {
            let tls = with_roots(settings.tls.clone());
            let proxies = Arc::clone(&self.proxies);
            client(Connector::new(proxies, tls, self.patience.connect, settings.dial_timeout))
        };
        let tls = match settings.tls.ca_files.clone() {
            none if none.is_empty() => Arc::clone(&self.tls),
            ca_files => with_roots(TlsSettings { ca_files, ..TlsSettings::default() }),
        };
        let root = &host.root;
        let led = self.connector.led(tls, root.authority.clone(), root.plain, self.insecure.clone());
        (own, client(led))
    }

    async fn send(&self, http: &Http, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>, RegistryError> {
        // Through a tunnel the proxy was told already, and sees nothing of the request.
        if request.uri().scheme_str() == Some("http")
            && let Some(authorization) = self.proxies.of(request.uri()).and_then(|proxy| proxy.authorization.clone())
        {
            request.headers_mut().insert(PROXY_AUTHORIZATION, authorization);
        }
        let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        match timeout(self.patience.answer, http.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(source)) => Err(RegistryError::unreached(host, source)),
            Err(_) => Err(RegistryError::Silent { host, after: self.patience.answer }),
        }
    }

    /// A body of at most `max` bytes.
    async fn body(&self, what: &'static str, mut body: Incoming, max: u64) -> Result<Bytes, RegistryError> {
        let (mut whole, mut pace) = (Vec::new(), Pace::default());
        while let Some(chunk) = self.chunk(&mut body, &mut pace).await? {
            if (whole.len() + chunk.len()) as u64 > max {
                return Err(RegistryError::TooLong { what, max });
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.into())
    }

    async fn chunk(&self, body: &mut Incoming, pace: &mut Pace) -> Result<Option<Bytes>, RegistryError> {
        loop {
            let begin = Instant::now();
            let frame = timeout(self.patience.idle, body.frame()).await;
            pace.waited += begin.elapsed();
            match frame {
                Err(_) => return Err(RegistryError::Stalled { after: self.patience.idle }),
                Ok(None) => return Ok(None),
                Ok(Some(Err(source))) => return Err(RegistryError::Broken(source)),
                Ok(Some(Ok(frame))) => {
                    let data = frame.into_data().unwrap_or_default();
                    pace.bytes += data.len() as u64;
                    pace.keep(&self.patience)?;
                    if !data.is_empty() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// Waits as long as a registry asked for, or as the backoff says.
    async fn wait(&self, asked: Duration, backoff: &mut Backoff) {
        tokio::time::sleep(pause(asked, backoff.next(&self.env.rng))).await;
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(self.patience.backoff_first, self.patience.backoff_max)
    }
}

fn pause(asked: Duration, own: Duration) -> Duration {
    own.max(asked.min(RETRY_AFTER_MAX))
}

/// How a body comes along: its time is counted while it is waited for, not while use is made of what has come.
#[derive(Default)]
struct Pace {
    waited: Duration,
    bytes: u64,
}

impl Pace {
    fn keep(&mut self, patience: &Patience) -> Result<(), RegistryError> {
        if self.waited < patience.idle {
            return Ok(());
        }
        let Pace { waited, bytes } = std::mem::take(self);
        if bytes < patience.pace_bytes { Err(RegistryError::Slow { bytes, within: waited }) } else { Ok(()) }
    }
}

fn client(connector: Connector) -> Http {
    Client::builder(TokioExecutor::new()).pool_max_idle_per_host(IDLE_MAX).build(connector)
}

/// A manifest or index as it came, with its digest.
pub struct Fetched {
    pub digest: Digest,
    pub media_type: Option<String>,
    pub bytes: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_asks_for_a_minute_at_most() {
        let seconds = Duration::from_secs;
        assert_eq!(pause(seconds(7), seconds(1)), seconds(7));
        assert_eq!(pause(seconds(86_400), seconds(1)), RETRY_AFTER_MAX);
        assert_eq!(pause(Duration::ZERO, seconds(1)), seconds(1));
    }

    #[test]
    fn what_drips_stands_still_and_what_waits_for_its_reader_does_not() {
        let patience = Patience { idle: Duration::from_secs(60), pace_bytes: 1000, ..Patience::default() };
        let mut pace = Pace::default();
        for (waited, bytes, stands) in [(59, 1, false), (1, 999, false), (50, 5, false), (50, 5, true), (0, 1, false)] {
            pace.waited += Duration::from_secs(waited);
            pace.bytes += bytes;
            assert_eq!(pace.keep(&patience).is_err(), stands, "{waited} s, {bytes} bytes");
        }
    }
}
