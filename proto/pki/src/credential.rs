//! A certificate with its key, in one file, and what the certificate says.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use jiff::Timestamp;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{PkiError, files};

/// Part of a certificate's life after which it is replaced, in hundredths: early enough that a week of outage does no harm.
const RENEW_AFTER_PERCENT: i64 = 70;

/// A chain (leaf first) and the leaf's private key, both PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    pub certificate_pem: String,
    pub key_pem: String,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("facts", &self.facts().ok()).finish_non_exhaustive()
    }
}

/// What a certificate says, as far as anyone here asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub common_name: String,
    pub organizations: Vec<String>,
    /// DNS names and IP addresses, sorted.
    pub names: Vec<String>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub fingerprint: String,
}

impl Facts {
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Facts, PkiError> {
        let parse = |why: String| PkiError::Parse { why };
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|e| parse(e.to_string()))?;
        let time = |seconds: i64| Timestamp::from_second(seconds).map_err(|_| PkiError::Time { seconds });
        let mut names = Vec::new();
        if let Some(san) = parsed.subject_alternative_name().map_err(|e| parse(e.to_string()))? {
            for name in &san.value.general_names {
                match name {
                    GeneralName::DNSName(name) => names.push((*name).to_owned()),
                    GeneralName::IPAddress(bytes) => {
                        let ip = match <[u8; 4]>::try_from(*bytes) {
                            Ok(v4) => IpAddr::from(v4),
                            Err(_) => <[u8; 16]>::try_from(*bytes)
                                .map(IpAddr::from)
                                .map_err(|_| parse(format!("an address of {} bytes", bytes.len())))?,
                        };
                        names.push(ip.to_string());
                    }
                    _ => {}
                }
            }
        }
        names.sort();
        let subject = parsed.subject();
        let text = |name: &x509_parser::x509::AttributeTypeAndValue<'_>| name.as_str().unwrap_or("").to_owned();
        Ok(Facts {
            common_name: subject.iter_common_name().next().map(text).unwrap_or_default(),
            organizations: subject.iter_organization().map(text).collect(),
            names,
            not_before: time(parsed.validity().not_before.timestamp())?,
            not_after: time(parsed.validity().not_after.timestamp())?,
            fingerprint: fingerprint(certificate),
        })
    }

    /// When the certificate should be replaced.
    pub fn renew_at(&self) -> Timestamp {
        let (from, until) = (self.not_before.as_second(), self.not_after.as_second());
        Timestamp::from_second(from + (until - from) / 100 * RENEW_AFTER_PERCENT).unwrap_or(self.not_after)
    }

    pub fn needs_renewal(&self, now: Timestamp) -> bool {
        now >= self.renew_at()
    }

    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

impl Credential {
    /// Reads what [`Credential::store`] wrote; `None` where there is no such file.
    pub fn load(path: &Path) -> Result<Option<Credential>, PkiError> {
        let Some(text) = files::read(path)? else { return Ok(None) };
        let at = text.find("-----BEGIN PRIVATE KEY-----").ok_or(PkiError::Pem { wanted: "a private key" })?;
        let (certificate_pem, key_pem) = text.split_at(at);
        Ok(Some(Credential { certificate_pem: certificate_pem.to_owned(), key_pem: key_pem.to_owned() }))
    }

    /// Writes certificate and key into one 0600 file, so that no crash can part them.
    pub fn store(&self, path: &Path) -> Result<(), PkiError> {
        let mut text = self.certificate_pem.clone();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&self.key_pem);
        files::write_private(path, text.as_bytes())
    }

    pub fn facts(&self) -> Result<Facts, PkiError> {
        let chain = certificates(&self.certificate_pem)?;
        Facts::of(chain.first().ok_or(PkiError::Pem { wanted: "a certificate" })?)
    }

    /// The form that rustls wants; refuses a key that is not the certificate's own.
    pub fn certified(&self) -> Result<CertifiedKey, PkiError> {
        let chain = certificates(&self.certificate_pem)?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())
            .map_err(|_| PkiError::Pem { wanted: "a private key" })?;
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).map_err(PkiError::Tls)?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) => Ok(certified),
            Err(_) => Err(PkiError::Mismatch { subject: self.facts()?.common_name }),
        }
    }
}

/// Every certificate of a PEM text; at least one.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let wanted = PkiError::Pem { wanted: "a certificate" };
    match CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>() {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(wanted),
    }
}

pub(crate) fn fingerprint(der: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
