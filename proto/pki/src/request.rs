//! What others send to have signed: PKCS #10 requests, and the chains that they are answered with.

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;

const REQUEST: &str = "CERTIFICATE REQUEST";
const CERTIFICATE: &str = "CERTIFICATE";

/// Why bytes are no request, or no chain, that can be dealt with.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("PEM block type must be {REQUEST}")]
    NoRequest,
    #[error("not a PKCS #10 request: {0}")]
    Request(String),
    #[error("the request is not signed with the key that it names: {0}")]
    Signature(String),
    #[error("must contain at least one {CERTIFICATE} PEM block")]
    NoCertificate,
    #[error("only {CERTIFICATE} PEM blocks are allowed, found {0:?}")]
    Block(String),
    #[error("not a certificate: {0}")]
    Certificate(String),
}

/// A request whose sender holds the key that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningRequest {
    pub common_name: String,
    pub organizations: Vec<String>,
}

impl SigningRequest {
    /// Reads the first PEM block, which must be a request, and checks its signature.
    pub fn verified(pem: &[u8]) -> Result<SigningRequest, RequestError> {
        let block = match Pem::iter_from_buffer(pem).next() {
            Some(Ok(block)) if block.label == REQUEST => block,
            _ => return Err(RequestError::NoRequest),
        };
        let (_, request) = X509CertificationRequest::from_der(&block.contents)
            .map_err(|error| RequestError::Request(error.to_string()))?;
        request.verify_signature().map_err(|error| RequestError::Signature(error.to_string()))?;
        let subject = &request.certification_request_info.subject;
        let text = |name: &x509_parser::x509::AttributeTypeAndValue<'_>| name.as_str().unwrap_or("").to_owned();
        Ok(SigningRequest {
            common_name: subject.iter_common_name().next().map(text).unwrap_or_default(),
            organizations: subject.iter_organization().map(text).collect(),
        })
    }
}

/// Checks that a text is a chain: certificates in PEM, at least one, and nothing else.
pub fn check_chain(pem: &[u8]) -> Result<(), RequestError> {
    let mut count = 0;
    for block in Pem::iter_from_buffer(pem) {
        let block = block.map_err(|error| RequestError::Certificate(error.to_string()))?;
        if block.label != CERTIFICATE {
            return Err(RequestError::Block(block.label));
        }
        block.parse_x509().map_err(|error| RequestError::Certificate(error.to_string()))?;
        count += 1;
    }
    if count == 0 { Err(RequestError::NoCertificate) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Authority;
    use crate::authority::request;
    use gantry_env::Env;

    #[test]
    fn a_request_says_whom_it_is_for() {
        let (_, pem) = request("system:node:a", Some("system:nodes")).unwrap();
        let read = SigningRequest::verified(pem.as_bytes()).unwrap();
        assert_eq!(
            (read.common_name.as_str(), read.organizations.as_slice()),
            ("system:node:a", &["system:nodes".to_owned()][..])
        );
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let verified = |text: &str| SigningRequest::verified(text.as_bytes());
        for text in ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert_eq!(verified(text), Err(RequestError::NoRequest));
        }
        let empty = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n";
        assert!(matches!(verified(empty), Err(RequestError::Request(_))));
        // The last bytes of a request are its signature.
        let (_, good) = request("a", None).unwrap();
        let mut block = Pem::iter_from_buffer(good.as_bytes()).next().unwrap().unwrap();
        *block.contents.last_mut().unwrap() ^= 1;
        let (_, parsed) = X509CertificationRequest::from_der(&block.contents).unwrap();
        assert!(parsed.verify_signature().is_err());
    }

    #[test]
    fn a_chain_is_certificates_alone() {
        let authority = Authority::create("ca", &Env::system()).unwrap();
        let one = authority.certificate_pem();
        assert_eq!(check_chain(format!("{one}{one}").as_bytes()), Ok(()));
        assert_eq!(check_chain(b"nothing"), Err(RequestError::NoCertificate));
        let (_, request) = request("a", None).unwrap();
        assert_eq!(check_chain(format!("{one}{request}").as_bytes()), Err(RequestError::Block(REQUEST.to_owned())));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(check_chain(broken.as_bytes()), Err(RequestError::Certificate(_))));
    }
}
