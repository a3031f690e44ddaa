//! Keys, certificates and TLS for everything that Gantry lets talk to one another.
//!
//! One cluster CA ([`Authority`]) issues every certificate from a [`Profile`]: who it names, for which addresses, for how
//! long. A [`Credential`] is a certificate with its key, kept in one 0600 file that is replaced as a whole. [`tls`] turns
//! them into rustls configurations whose certificate can be exchanged while connections live, [`peer`] reads who the
//! other side is, and [`es256`] signs service-account tokens. Keys are ECDSA P-256 by aws-lc, and the provider is always
//! passed by hand: no process-wide default is set or read. Time comes from `Env`.

#![forbid(unsafe_code)]

pub mod authority;
pub mod credential;
pub mod es256;
pub mod files;
pub mod peer;
pub mod request;
pub mod tls;

pub use authority::{Authority, Profile, Usage};
pub use credential::{Credential, Facts};
pub use peer::Peer;
pub use request::SigningRequest;
pub use tls::{ClientAuth, Reloading};

use std::path::PathBuf;

/// What can go wrong with keys and certificates.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("cannot {doing} {path}")]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} is larger than {limit_bytes} bytes, which no key or certificate is")]
    TooLarge { path: PathBuf, limit_bytes: u64 },
    #[error("{path} holds a CA certificate without its key {missing}")]
    KeyMissing { path: PathBuf, missing: PathBuf },
    #[error("cannot {doing}")]
    Certificate {
        doing: &'static str,
        #[source]
        source: rcgen::Error,
    },
    #[error("{name:?} is no DNS name, IP address or subject that a certificate can carry")]
    Name { name: String },
    #[error("not a PEM file with {wanted}")]
    Pem { wanted: &'static str },
    #[error("not a valid certificate: {why}")]
    Parse { why: String },
    #[error("the key does not belong to the certificate of {subject:?}")]
    Mismatch { subject: String },
    #[error("the key is not an ECDSA P-256 key in PKCS #8")]
    Key,
    #[error("the signing of {bytes} bytes failed")]
    Sign { bytes: usize },
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
    #[error("cannot check client certificates against the given CA")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    #[error("time {seconds} s is outside what a certificate can say")]
    Time { seconds: i64 },
}

#[cfg(test)]
mod tests;
