//! rustls configurations: TLS 1.3 first, 1.2 for old clients, HTTP/2 first, and certificates that can be exchanged live.

use std::sync::Arc;

use arc_swap::ArcSwap;
use gantry_env::Clock;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WantsClientCert};
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::PkiError;
use crate::credential::{Credential, certificates};

/// In order of preference.
pub const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The one provider of cryptography, passed by hand.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Whether clients may, must or cannot show a certificate of a CA.
#[derive(Clone, Copy, Debug)]
pub enum ClientAuth<'a> {
    None,
    /// A certificate is checked where one is shown; a wrong one ends the handshake.
    Optional {
        ca_pem: &'a str,
    },
    Required {
        ca_pem: &'a str,
    },
}

/// A certificate and key that live connections' successors pick up as soon as they are replaced.
#[derive(Clone, Debug)]
pub struct Reloading(Arc<ArcSwap<CertifiedKey>>);

impl Reloading {
    pub fn new(credential: &Credential) -> Result<Reloading, PkiError> {
        Ok(Reloading(Arc::new(ArcSwap::from_pointee(credential.certified()?))))
    }

    /// From the next handshake on.
    pub fn replace(&self, credential: &Credential) -> Result<(), PkiError> {
        self.0.store(Arc::new(credential.certified()?));
        Ok(())
    }
}

impl ResolvesServerCert for Reloading {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl ResolvesClientCert for Reloading {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct EnvTime(Clock);

impl TimeProvider for EnvTime {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
    }
}

/// The certificates of a PEM text as trust anchors.
pub fn roots(ca_pem: &str) -> Result<RootCertStore, PkiError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(ca_pem)? {
        store.add(certificate).map_err(PkiError::Tls)?;
    }
    Ok(store)
}

pub fn server_config(
    certificate: &Reloading,
    client_auth: ClientAuth<'_>,
    clock: &Clock,
) -> Result<ServerConfig, PkiError> {
    let builder = ServerConfig::builder_with_details(provider(), Arc::new(EnvTime(clock.clone())))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(PkiError::Tls)?;
    let verifier = |ca_pem: &str| Ok(WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca_pem)?), provider()));
    let builder = match client_auth {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::Optional { ca_pem } => builder
            .with_client_cert_verifier(verifier(ca_pem)?.allow_unauthenticated().build().map_err(PkiError::Verifier)?),
        ClientAuth::Required { ca_pem } => {
            builder.with_client_cert_verifier(verifier(ca_pem)?.build().map_err(PkiError::Verifier)?)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(certificate.clone()));
    config.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

pub fn client_config(ca_pem: &str, identity: Option<&Reloading>, clock: &Clock) -> Result<ClientConfig, PkiError> {
    let builder = trusting(roots(ca_pem)?, clock)?;
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(identity.clone())),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

/// For a client of servers that any of these authorities vouches for, and that asks for no proof of who it is.
pub fn client_config_of(roots: RootCertStore, clock: &Clock) -> Result<ClientConfig, PkiError> {
    Ok(trusting(roots, clock)?.with_no_client_auth())
}

fn trusting(roots: RootCertStore, clock: &Clock) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, PkiError> {
    let builder = ClientConfig::builder_with_details(provider(), Arc::new(EnvTime(clock.clone())))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(PkiError::Tls)?;
    Ok(builder.with_root_certificates(roots))
}

/// For whom it matters what is answered, and not by whom: no certificate is checked.
pub fn unverified_client_config() -> Result<ClientConfig, PkiError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(PkiError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    Ok(config)
}

#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Whether `issuer`'s key signed `leaf`.
pub(crate) fn is_signed_by(leaf: &CertificateDer<'_>, issuer: &CertificateDer<'_>) -> bool {
    match (X509Certificate::from_der(leaf), X509Certificate::from_der(issuer)) {
        (Ok((_, leaf)), Ok((_, issuer))) => leaf.verify_signature(Some(issuer.public_key())).is_ok(),
        _ => false,
    }
}
