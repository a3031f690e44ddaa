//! TCP and TLS to registries.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Where distributions keep the bundle of trusted certificates.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

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
    #[error("connecting to {host} took longer than {after:?}")]
    Slow { host: String, after: Duration },
    #[error("TLS handshake with {host}")]
    Tls {
        host: String,
        #[source]
        source: io::Error,
    },
    #[error("certificates in {path:?}")]
    Certificates {
        path: PathBuf,
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    #[error("TLS settings")]
    Settings(#[source] rustls::Error),
}

/// Connects as a URL's scheme says. The TLS settings are made at the first https URL and shared from then on.
#[derive(Clone)]
pub struct Connector {
    ca_files: Arc<Vec<PathBuf>>,
    tls: Arc<OnceLock<TlsConnector>>,
    patience: Duration,
}

impl Connector {
    pub fn new(ca_files: Vec<PathBuf>, patience: Duration) -> Connector {
        Connector { ca_files: Arc::new(ca_files), tls: Arc::default(), patience }
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<Stream>, ConnectError> {
        let plain = uri.scheme_str() == Some("http");
        let host = uri.host().ok_or_else(|| ConnectError::NoHost(uri.to_string()))?.to_owned();
        let port = uri.port_u16().unwrap_or(if plain { 80 } else { 443 });
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let connecting = async {
            let failed = |source| ConnectError::Tcp { host: format!("{host}:{port}"), source };
            let addresses = gantry_env::resolve(&host, port).await.map_err(failed)?;
            let tcp = TcpStream::connect(&*addresses).await.map_err(failed)?;
            let _ = tcp.set_nodelay(true);
            if plain {
                return Ok(TokioIo::new(Stream::Plain(tcp)));
            }
            let name = ServerName::try_from(bare.clone())
                .map_err(|_| ConnectError::NoHost(bare.chars().take(200).collect()))?;
            let tls = self.tls()?.connect(name, tcp).await;
            let tls = tls.map_err(|source| ConnectError::Tls { host: host.clone(), source })?;
            Ok(TokioIo::new(Stream::Tls(Box::new(tls))))
        };
        match tokio::time::timeout(self.patience, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(ConnectError::Slow { host: format!("{host}:{port}"), after: self.patience }),
        }
    }

    fn tls(&self) -> Result<TlsConnector, ConnectError> {
        if let Some(tls) = self.tls.get() {
            return Ok(tls.clone());
        }
        let made = tls_connector(&self.ca_files)?;
        Ok(self.tls.get_or_init(|| made).clone())
    }
}

fn tls_connector(ca_files: &[PathBuf]) -> Result<TlsConnector, ConnectError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(bundle) = SYSTEM_BUNDLES.iter().map(Path::new).find(|path| path.exists()) {
        // One odd certificate of the system must not keep all others from being used.
        let (_, odd) =
            roots.add_parsable_certificates(CertificateDer::pem_file_iter(bundle).into_iter().flatten().flatten());
        if odd > 0 {
            tracing::debug!(path = %bundle.display(), odd, "certificates of the system left out");
        }
    }
    for path in ca_files {
        let failed = |source| ConnectError::Certificates { path: path.clone(), source };
        for certificate in CertificateDer::pem_file_iter(path).map_err(failed)? {
            roots.add(certificate.map_err(failed)?).map_err(ConnectError::Settings)?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(ConnectError::Settings)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
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
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
