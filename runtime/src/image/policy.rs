//! The seat of a signature policy. It is asked for every image that is to come here, pulled or imported, when its manifest is
//! known by its digest and before anything of it is unpacked; what it refuses leaves nothing behind.
//!
//! Nobody sits in it yet: no signature is verified. A configuration that asks for a verifier gets no image at all rather than
//! one that nobody has looked at.

use super::digest::Digest;

/// By what images are let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Digests are verified, and nobody's signature is asked for.
    #[default]
    Unsigned,
    /// A verifier of this name is to decide.
    Verifier(String),
}

/// What a verifier decides upon.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'s> {
    /// As it was asked for, or as an archive calls it.
    pub name: &'s str,
    /// The digest of the manifest that is to be unpacked, verified.
    pub manifest: &'s Digest,
}

/// Kubelets know a refusal by the first word of CRI's answer (k8s.io/cri-api/pkg/errors).
#[derive(Debug, thiserror::Error)]
#[error("SignatureValidationFailed: image {image:?} ({manifest})")]
pub struct Refusal {
    pub image: String,
    pub manifest: Digest,
    #[source]
    pub why: Why,
}

#[derive(Debug, thiserror::Error)]
pub enum Why {
    #[error("the verifier {0:?} is to decide, and this build has none of that name")]
    NoSuchVerifier(String),
}

impl Policy {
    /// From a setting: none is no policy.
    pub fn of(verifier: Option<&str>) -> Policy {
        verifier.map_or(Policy::Unsigned, |name| Policy::Verifier(name.to_owned()))
    }

    pub fn admit(&self, subject: Subject<'_>) -> Result<(), Refusal> {
        let why = match self {
            Policy::Unsigned => return Ok(()),
            Policy::Verifier(name) => Why::NoSuchVerifier(name.clone()),
        };
        Err(Refusal { image: subject.name.to_owned(), manifest: subject.manifest.clone(), why })
    }
}

impl Why {
    pub fn code(&self) -> tonic::Code {
        match self {
            Why::NoSuchVerifier(_) => tonic::Code::FailedPrecondition,
        }
    }
}
