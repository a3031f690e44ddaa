//! Which values are encrypted by what, and how: pure but for the nonces, which come from the library that encrypts.

use std::fmt;

use aws_lc_rs::aead::{
    AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use aws_lc_rs::rand;
use bytes::Bytes;

use crate::store::{Key, StoreError};

/// With what every encrypted value begins, whoever has encrypted it.
const ENCRYPTED: &[u8] = b"k8s:enc:";
const AES_GCM: &str = "k8s:enc:aesgcm:v1:";
/// What the store keeps of its own is no object of anybody's, and is read by tools that have no key.
const OWN_KINDS: &str = ".internal.gantry";

/// For each group of kinds, who encrypts and who decrypts. The first rule that names a kind is that kind's.
#[derive(Debug, Default)]
pub struct Rules(pub(super) Vec<Rule>);

#[derive(Debug)]
pub struct Rule {
    pub kinds: Vec<Kinds>,
    /// The first one writes, all of them read.
    pub providers: Vec<Provider>,
}

/// Kinds as a configuration names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kinds {
    /// `secrets`, `deployments.apps`.
    One(String),
    /// `*.apps`; `*.` is the core group.
    Group(String),
    /// `*.*`
    All,
}

impl Kinds {
    pub fn hold(&self, kind: &str) -> bool {
        let group = kind.split_once('.').map_or("", |(_, group)| group);
        match self {
            Kinds::One(one) => one == kind,
            Kinds::Group(wanted) => wanted == group,
            Kinds::All => true,
        }
    }
}

#[derive(Debug)]
pub enum Provider {
    AesGcm(Vec<AesKey>),
    /// Leaves values as they are.
    Identity,
}

/// A key and what values that it has encrypted begin with.
pub struct AesKey {
    prefix: String,
    key: LessSafeKey,
}

impl fmt::Debug for AesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.prefix)
    }
}

impl AesKey {
    /// Absent where the key is not of 16, 24 or 32 bytes.
    pub fn new(name: &str, secret: &[u8]) -> Option<AesKey> {
        let algorithm: &'static Algorithm = match secret.len() {
            16 => &AES_128_GCM,
            24 => &AES_192_GCM,
            32 => &AES_256_GCM,
            _ => return None,
        };
        let key = UnboundKey::new(algorithm, secret).ok()?;
        Some(AesKey { prefix: format!("{AES_GCM}{name}:"), key: LessSafeKey::new(key) })
    }

    /// Under a nonce of chance: a key is good for 2^32 values, which is why keys are exchanged from time to time.
    ///
    /// The place of a value is part of what is proved: one that was moved to another key does not open.
    fn seal(&self, place: &Key, value: &[u8]) -> Option<Bytes> {
        let mut body = value.to_vec();
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let unique = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(unique, Aad::from(place.as_str()), &mut body).ok()?;
        let mut out = Vec::with_capacity(self.prefix.len() + NONCE_LEN + body.len());
        out.extend_from_slice(self.prefix.as_bytes());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&body);
        Some(out.into())
    }

    fn open(&self, place: &Key, sealed: &[u8]) -> Option<Bytes> {
        let (nonce, body) = sealed.strip_prefix(self.prefix.as_bytes())?.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut body = body.to_vec();
        let plain = self.key.open_in_place(nonce, Aad::from(place.as_str()), &mut body).ok()?.len();
        body.truncate(plain);
        Some(body.into())
    }
}

impl Rules {
    fn providers(&self, kind: &str) -> &[Provider] {
        if kind.ends_with(OWN_KINDS) {
            return &[Provider::Identity];
        }
        let rule = self.0.iter().find(|rule| rule.kinds.iter().any(|kinds| kinds.hold(kind)));
        rule.map_or(&[Provider::Identity], |rule| &rule.providers)
    }

    /// The value as it is stored.
    pub fn seal(&self, key: &Key, value: Bytes) -> Result<Bytes, StoreError> {
        match self.providers(key.kind()).first() {
            Some(Provider::AesGcm(keys)) => {
                let sealed = keys.first().and_then(|first| first.seal(key, &value));
                sealed.ok_or_else(|| refused(key, "it cannot be encrypted"))
            }
            Some(Provider::Identity) | None => Ok(value),
        }
    }

    /// The value as it was before it was stored.
    pub fn open(&self, key: &Key, stored: Bytes) -> Result<Bytes, StoreError> {
        let mut known = false;
        for provider in self.providers(key.kind()) {
            match provider {
                Provider::Identity if !stored.starts_with(ENCRYPTED) => return Ok(stored),
                Provider::Identity => {}
                Provider::AesGcm(keys) => {
                    for candidate in keys {
                        if let Some(value) = candidate.open(key, &stored) {
                            return Ok(value);
                        }
                        known |= stored.starts_with(candidate.prefix.as_bytes());
                    }
                }
            }
        }
        Err(refused(key, &why(&stored, known)))
    }

    /// Whether a stored value is one that would be stored otherwise today.
    pub fn is_stale(&self, key: &Key, stored: &[u8]) -> bool {
        match self.providers(key.kind()).first() {
            Some(Provider::AesGcm(keys)) => keys.first().is_none_or(|key| !stored.starts_with(key.prefix.as_bytes())),
            Some(Provider::Identity) | None => stored.starts_with(ENCRYPTED),
        }
    }
}

fn why(stored: &[u8], known: bool) -> String {
    if known {
        return "the key of its name does not open it: it is another key, or the value is damaged".to_owned();
    }
    if !stored.starts_with(ENCRYPTED) {
        return "it is not encrypted, and the provider identity is not among those of its kind".to_owned();
    }
    // `k8s:enc:PROVIDER:v1:KEY:`
    let head = String::from_utf8_lossy(&stored[..stored.len().min(128)]).into_owned();
    let mut parts = head.split(':').skip(2);
    let (provider, name) = (parts.next().unwrap_or(""), parts.nth(1).unwrap_or(""));
    format!("no provider of its kind has the key {name:?} of {provider} that it is encrypted with")
}

fn refused(key: &Key, why: &str) -> StoreError {
    StoreError::Sealed { key: key.clone(), why: why.to_owned() }
}
