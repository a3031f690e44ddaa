//! TLS as a registry's settings want it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WantsClientCert};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

use super::hosts::{ClientPair, TlsSettings};

/// Where distributions keep the bundle of trusted certificates.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
const PEM_FILE_MAX_BYTES: u64 = 4 << 20;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {path:?}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{0:?} is no file of certificates: it is too large")]
    TooLarge(PathBuf),
    #[error("certificates in {path:?}")]
    Certificates {
        path: PathBuf,
        #[source]
        source: pem::Error,
    },
    #[error("key in {path:?}")]
    Key {
        path: PathBuf,
        #[source]
        source: pem::Error,
    },
    #[error("no certificate in {0:?}")]
    Empty(PathBuf),
    #[error("certificate and key of {path:?}")]
    Pair {
        path: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("TLS settings")]
    Settings(#[source] rustls::Error),
}

/// Made at the first https URL and shared from then on. Files are read then, so that a damaged one is told with the
/// image that needs it.
pub struct Tls {
    settings: TlsSettings,
    made: OnceLock<TlsConnector>,
}

impl Tls {
    pub fn new(settings: TlsSettings) -> Tls {
        Tls { settings, made: OnceLock::new() }
    }

    pub fn connector(&self) -> Result<TlsConnector, TlsError> {
        if let Some(made) = self.made.get() {
            return Ok(made.clone());
        }
        let made = TlsConnector::from(Arc::new(config(&self.settings)?));
        Ok(self.made.get_or_init(|| made).clone())
    }
}

fn config(settings: &TlsSettings) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Settings)?;
    let builder = if settings.skip_verify == Some(true) {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(Arc::clone(&provider))))
    } else {
        builder.with_root_certificates(roots(&settings.ca_files)?)
    };
    with_clients(builder, &settings.clients, &provider)
}

fn roots(ca_files: &[PathBuf]) -> Result<RootCertStore, TlsError> {
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
        for certificate in certificates(path, &read(path)?)? {
            roots.add(certificate).map_err(TlsError::Settings)?;
        }
    }
    Ok(roots)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(PEM_FILE_MAX_BYTES + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > PEM_FILE_MAX_BYTES { Err(TlsError::TooLarge(path.to_owned())) } else { Ok(bytes) }
}

fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Certificates { path: path.to_owned(), source };
    let found: Vec<_> = CertificateDer::pem_slice_iter(bytes).collect::<Result<_, _>>().map_err(failed)?;
    if found.is_empty() { Err(TlsError::Empty(path.to_owned())) } else { Ok(found) }
}

fn with_clients(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    pairs: &[ClientPair],
    provider: &CryptoProvider,
) -> Result<ClientConfig, TlsError> {
    if pairs.is_empty() {
        return Ok(builder.with_no_client_auth());
    }
    let mut keys = Vec::with_capacity(pairs.len());
    for pair in pairs {
        let bytes = read(&pair.certificate)?;
        let chain = certificates(&pair.certificate, &bytes)?;
        let path = pair.key.as_ref().unwrap_or(&pair.certificate);
        let key = match &pair.key {
            Some(path) => PrivateKeyDer::from_pem_slice(&read(path)?),
            None => PrivateKeyDer::from_pem_slice(&bytes),
        };
        let key = key.map_err(|source| TlsError::Key { path: path.clone(), source })?;
        let failed = |source| TlsError::Pair { path: pair.certificate.clone(), source };
        keys.push(Arc::new(CertifiedKey::from_der(chain, key, provider).map_err(failed)?));
    }
    Ok(builder.with_client_cert_resolver(Arc::new(Clients(keys))))
}

/// Several client certificates, of which a server gets one that it can check.
#[derive(Debug)]
struct Clients(Vec<Arc<CertifiedKey>>);

impl ResolvesClientCert for Clients {
    /// One whose chain names an authority that the server named, else the first with a fitting key: some servers name
    /// none, and some forget one.
    fn resolve(&self, authorities: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let mut fitting = self.0.iter().filter(|key| key.key.choose_scheme(schemes).is_some());
        let named = |key: &&Arc<CertifiedKey>| {
            let holds = |der: &[u8], name: &[u8]| der.windows(name.len().max(1)).any(|part| part == name);
            key.cert.iter().any(|der| authorities.iter().any(|name| holds(der, name)))
        };
        fitting.clone().find(named).or_else(|| fitting.next()).cloned()
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

/// `skip_verify`: whoever answers is believed, and still must hold the key of the certificate that it shows.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
