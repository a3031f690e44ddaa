//! Who the other side of a connection is, by the certificate that the handshake has already verified.

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::PkiError;
use crate::credential::fingerprint;

/// A verified client certificate as Kubernetes reads it: the common name is the user, each organization a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub user: String,
    pub groups: Vec<String>,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
}

impl Peer {
    /// Reads the leaf of a chain that was verified against the client CA. A certificate that names nobody is refused.
    pub fn from_der(certificate: &CertificateDer<'_>) -> Result<Peer, PkiError> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|e| PkiError::Parse { why: e.to_string() })?;
        let text = |name: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            name.as_str().map(str::to_owned).map_err(|e| PkiError::Parse { why: e.to_string() })
        };
        let mut names = parsed.subject().iter_common_name();
        let user = match (names.next(), names.next()) {
            (Some(name), None) => text(name)?,
            _ => return Err(PkiError::Parse { why: "the subject has no single common name".to_owned() }),
        };
        if user.is_empty() {
            return Err(PkiError::Parse { why: "the subject's common name is empty".to_owned() });
        }
        let groups = parsed.subject().iter_organization().map(text).collect::<Result<_, _>>()?;
        Ok(Peer { user, groups, fingerprint: fingerprint(certificate) })
    }

    /// The identity that a finished server-side handshake verified, if the client showed a certificate.
    pub fn of_connection(connection: &rustls::ServerConnection) -> Result<Option<Peer>, PkiError> {
        match connection.peer_certificates().and_then(<[_]>::first) {
            Some(leaf) => Peer::from_der(leaf).map(Some),
            None => Ok(None),
        }
    }
}
