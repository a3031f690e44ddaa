//! TCP and TLS to registries.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::Uri;
use http::uri::Authority;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::inward;
use super::proxy::{self, Proxies};
use super::tls::{Tls, TlsError};

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{0:?} names no host")]
    NoHost(String),
    #[error("connecting to {host}")]
    Tcp {
        host: String,
        #[source]
        source: io::Error,
    },
    #[error("connecting to {host} through proxy {proxy}")]
    Proxy {
        host: String,
        proxy: String,
        #[source]
        source: io::Error,
    },
    #[error("connecting to {host} took longer than {after:?}")]
    Slow { host: String, after: Duration },
    #[error("TLS handshake with {host}")]
    Tls {
        host: String,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Settings(#[from] TlsError),
    #[error("{host} is {address}: the registry that led there is not itself on this machine or link")]
    Inward { host: String, address: SocketAddr },
}

/// Connects as a URL's scheme says, through a proxy where the environment wants one.
#[derive(Clone)]
pub struct Connector {
    proxies: Arc<Proxies>,
    tls: Arc<Tls>,
    patience: Duration,
    /// For resolving and connecting alone.
    dial: Duration,
    led: Option<Arc<Led>>,
}

/// Who leads here: not somebody that the operator named.
struct Led {
    by: Authority,
    plain: bool,
    /// Named by the operator after all.
    trusted: Vec<String>,
}

impl Connector {
    pub fn new(proxies: Arc<Proxies>, tls: Arc<Tls>, patience: Duration, dial: Option<Duration>) -> Connector {
        Connector { proxies, tls, patience, dial: dial.unwrap_or(patience), led: None }
    }

    /// The same, with another TLS, for where a registry leads: to this machine itself only from there.
    pub fn led(&self, tls: Arc<Tls>, by: Authority, plain: bool, trusted: Vec<String>) -> Connector {
        let led = Some(Arc::new(Led { by, plain, trusted }));
        Connector { proxies: Arc::clone(&self.proxies), tls, patience: self.patience, dial: self.patience, led }
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<Stream>, ConnectError> {
        let plain = uri.scheme_str() == Some("http");
        let authority = uri.authority().ok_or_else(|| ConnectError::NoHost(uri.to_string()))?.clone();
        let (host, shown) = (authority.host(), format!("{}:{}", authority.host(), port(&authority, plain)));
        let slow = |after| ConnectError::Slow { host: shown.clone(), after };
        let dialled = timeout(self.dial, self.dial(&uri, &authority, plain, &shown)).await;
        let (tcp, proxied) = dialled.map_err(|_| slow(self.dial))??;
        let _ = tcp.set_nodelay(true);
        if plain {
            return Ok(TokioIo::new(Stream::Plain { tcp, proxied }));
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name =
            ServerName::try_from(bare.clone()).map_err(|_| ConnectError::NoHost(bare.chars().take(200).collect()))?;
        let handshake = timeout(self.patience, self.tls.connector()?.connect(name, tcp)).await;
        let tls = handshake
            .map_err(|_| slow(self.patience))?
            .map_err(|source| ConnectError::Tls { host: host.to_owned(), source })?;
        Ok(TokioIo::new(Stream::Tls(Box::new(tls))))
    }

    /// A connection to the host, and whether a proxy is at its other end that wants to be told whole URLs.
    async fn dial(
        &self,
        uri: &Uri,
        authority: &Authority,
        plain: bool,
        shown: &str,
    ) -> Result<(TcpStream, bool), ConnectError> {
        if let Some(proxy) = self.proxies.of(uri) {
            let to = proxy.authority.to_string();
            let failed = |source| ConnectError::Proxy { host: shown.to_owned(), proxy: to.clone(), source };
            // Names are the proxy's to resolve; an address is told right away.
            let literal = literal(authority.host()).map(|ip| SocketAddr::new(ip, port(authority, plain)));
            if let (Some(led), Some(address)) = (&self.led, literal) {
                led.admit(vec![address], authority).await?;
            }
            let port = port(&proxy.authority, true);
            let addresses = gantry_env::resolve(proxy.authority.host(), port).await.map_err(failed)?;
            let mut tcp = TcpStream::connect(&*addresses).await.map_err(failed)?;
            if !plain {
                proxy::tunnel(&mut tcp, proxy, shown).await.map_err(failed)?;
            }
            return Ok((tcp, plain));
        }
        let failed = |source| ConnectError::Tcp { host: shown.to_owned(), source };
        let mut addresses = gantry_env::resolve(authority.host(), port(authority, plain)).await.map_err(failed)?;
        if let Some(led) = &self.led {
            addresses = led.admit(addresses, authority).await?;
        }
        Ok((TcpStream::connect(&*addresses).await.map_err(failed)?, false))
    }
}

impl Led {
    /// The addresses themselves are judged, and then dialled: a name may stand for any.
    async fn admit(&self, addresses: Vec<SocketAddr>, to: &Authority) -> Result<Vec<SocketAddr>, ConnectError> {
        let Some(&first) = addresses.iter().find(|address| inward::is_inward(**address)) else { return Ok(addresses) };
        if self.trusted.iter().any(|host| host == to.as_str()) {
            return Ok(addresses);
        }
        let registry = gantry_env::resolve(self.by.host(), port(&self.by, self.plain)).await.unwrap_or_default();
        let admitted = inward::admitted(&addresses, &registry);
        if admitted.is_empty() {
            return Err(ConnectError::Inward { host: to.to_string(), address: first });
        }
        Ok(admitted)
    }
}

fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn port(authority: &Authority, plain: bool) -> u16 {
    authority.port_u16().unwrap_or(if plain { 80 } else { 443 })
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<TokioIo<Stream>, ConnectError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

pub enum Stream {
    Plain { tcp: TcpStream, proxied: bool },
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new().proxy(matches!(self, Stream::Plain { proxied: true, .. }))
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain { tcp, .. } => Pin::new(tcp).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain { tcp, .. } => Pin::new(tcp).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain { tcp, .. } => Pin::new(tcp).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain { tcp, .. } => Pin::new(tcp).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
