//! ES256 (ECDSA over P-256 with SHA-256, RFC 7518 section 3.4): the one algorithm of service-account tokens.

use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;

use crate::{PkiError, files};

/// `r` and `s`, 32 bytes each.
pub const SIGNATURE_BYTES: usize = 64;
/// The uncompressed point: a byte 4, then x and y of 32 bytes each.
pub const POINT_BYTES: usize = 65;
/// DER of SubjectPublicKeyInfo up to the point, the same for every P-256 key (RFC 5480).
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A key that signs tokens.
#[derive(Debug)]
pub struct SigningKey {
    pair: EcdsaKeyPair,
    public: VerifyingKey,
}

/// The public half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyingKey {
    point: [u8; POINT_BYTES],
}

impl SigningKey {
    pub fn generate() -> Result<SigningKey, PkiError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| PkiError::Key)?;
        SigningKey::of(pair)
    }

    fn of(pair: EcdsaKeyPair) -> Result<SigningKey, PkiError> {
        let point = pair.public_key().as_ref().try_into().map_err(|_| PkiError::Key)?;
        Ok(SigningKey { pair, public: VerifyingKey { point } })
    }

    /// Reads the key (PKCS #8, PEM) from `path`, or makes it there, 0600.
    pub fn load_or_create(path: &Path) -> Result<SigningKey, PkiError> {
        let pem = match files::read(path)? {
            Some(pem) => pem,
            None => {
                let pair = rcgen::KeyPair::generate()
                    .map_err(|source| PkiError::Certificate { doing: "make a signing key", source })?;
                let pem = pair.serialize_pem();
                files::write_private(path, pem.as_bytes())?;
                pem
            }
        };
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| PkiError::Key)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der())
            .map_err(|_| PkiError::Key)?;
        SigningKey::of(pair)
    }

    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PkiError> {
        let signature =
            self.pair.sign(&SystemRandom::new(), message).map_err(|_| PkiError::Sign { bytes: message.len() })?;
        Ok(signature.as_ref().to_vec())
    }

    pub fn verifying(&self) -> &VerifyingKey {
        &self.public
    }
}

impl VerifyingKey {
    pub fn from_point(point: &[u8]) -> Result<VerifyingKey, PkiError> {
        Ok(VerifyingKey { point: point.try_into().map_err(|_| PkiError::Key)? })
    }

    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        signature.len() == SIGNATURE_BYTES
            && UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.point).verify(message, signature).is_ok()
    }

    pub fn x(&self) -> &[u8] {
        &self.point[1..33]
    }

    pub fn y(&self) -> &[u8] {
        &self.point[33..]
    }

    /// SHA-256 of the SubjectPublicKeyInfo: what the key id is made from.
    pub fn digest(&self) -> Vec<u8> {
        let mut der = SPKI_PREFIX.to_vec();
        der.extend_from_slice(&self.point);
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der).as_ref().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_bound_to_key_and_message() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("sa.key");
        let key = SigningKey::load_or_create(&path).unwrap();
        let same = SigningKey::load_or_create(&path).unwrap();
        let signature = key.sign(b"message").unwrap();
        assert!(same.verifying().verifies(b"message", &signature));
        assert!(!same.verifying().verifies(b"massage", &signature));
        assert!(!SigningKey::generate().unwrap().verifying().verifies(b"message", &signature));
        assert!(!same.verifying().verifies(b"message", &signature[1..]));
        assert_eq!(same.verifying().digest(), key.verifying().digest());
    }
}
