//! Image references, normalised the way docker and containerd do it: `busybox` is `docker.io/library/busybox:latest`.

use std::fmt;
use std::str::FromStr;

use super::digest::Digest;

const DEFAULT_DOMAIN: &str = "docker.io";
/// The name under which docker.io once listed its repositories; it means the same registry.
const LEGACY_DOMAIN: &str = "index.docker.io";
const DOCKER_ENDPOINT: &str = "registry-1.docker.io";
const DEFAULT_TAG: &str = "latest";
const NAME_MAX_BYTES: usize = 255;
const TAG_MAX_BYTES: usize = 128;

/// A reference with everything that was left out filled in. At least one of tag and digest is there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReferenceError {
    #[error("image reference is empty")]
    Empty,
    #[error("image reference {reference:?} is malformed: {reason}")]
    Malformed { reference: String, reason: &'static str },
}

impl Reference {
    /// `docker.io`, `localhost:5000`, …
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry: `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// `docker.io/library/busybox`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The host (and port) that serves the registry.
    pub fn endpoint(&self) -> &str {
        if self.domain == DEFAULT_DOMAIN { DOCKER_ENDPOINT } else { &self.domain }
    }

    /// What is asked of the registry: the digest where there is one, for it says more than the tag.
    pub fn wanted(&self) -> &str {
        self.digest.as_ref().map(Digest::as_str).or(self.tag.as_deref()).unwrap_or(DEFAULT_TAG)
    }

    /// `name@digest`, as CRI lists it in `repo_digests`.
    pub fn with_digest(&self, digest: &Digest) -> String {
        format!("{}@{digest}", self.name())
    }

    /// `name:tag`, as CRI lists it in `repo_tags`; none for a reference by digest, which moves no tag.
    pub fn tagged(&self) -> Option<String> {
        match (&self.tag, &self.digest) {
            (Some(tag), None) => Some(format!("{}:{tag}", self.name())),
            _ => None,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        let malformed = |reason| ReferenceError::Malformed { reference: text.chars().take(300).collect(), reason };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(digest.parse::<Digest>().map_err(|_| malformed("the digest is not a sha256 digest"))?))
            }
            None => (text, None),
        };
        // A colon after the last slash begins a tag; one before it belongs to a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(malformed("the tag holds characters that no tag may hold"));
        }
        let (domain, path) = split_domain(name);
        if !is_domain(domain) {
            return Err(malformed("the registry's host name is malformed"));
        }
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(malformed("the repository name must be lower case"));
        }
        if !path.split('/').all(is_path_component) {
            return Err(malformed("the repository name is malformed"));
        }
        let domain = if domain == LEGACY_DOMAIN { DEFAULT_DOMAIN } else { domain };
        let path =
            if domain == DEFAULT_DOMAIN && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
        if domain.len() + path.len() >= NAME_MAX_BYTES {
            return Err(malformed("the name is longer than 255 bytes"));
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some(DEFAULT_TAG.to_owned()),
        };
        Ok(Reference { domain: domain.to_owned(), path, tag, digest })
    }
}

/// The first component is a host where it could not be part of a docker.io name: it has a dot, a port, an upper-case
/// letter, or is `localhost`.
fn split_domain(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, name),
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut bytes = tag.bytes();
    tag.len() <= TAG_MAX_BYTES && bytes.next().is_some_and(word) && bytes.all(|b| word(b) || b == b'.' || b == b'-')
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, rest)) => {
            let port = rest.strip_prefix(':');
            if v6.parse::<std::net::Ipv6Addr>().is_err() || (port.is_none() && !rest.is_empty()) {
                return false;
            }
            ("v6", port)
        }
        None => match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(label) && port.is_none_or(|port| !port.is_empty() && port.parse::<u16>().is_ok())
}

/// Runs of lower-case letters and digits, joined by one `.`, one or two `_`, or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let bytes = component.as_bytes();
    let mut at = 0;
    let run = |at: &mut usize| {
        let start = *at;
        while bytes.get(*at).is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
            *at += 1;
        }
        *at > start
    };
    if !run(&mut at) {
        return false;
    }
    while at < bytes.len() {
        match bytes[at] {
            b'.' => at += 1,
            b'_' => at += if bytes.get(at + 1) == Some(&b'_') { 2 } else { 1 },
            b'-' => {
                while bytes.get(at) == Some(&b'-') {
                    at += 1;
                }
            }
            _ => return false,
        }
        if !run(&mut at) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn normal(text: &str) -> String {
        text.parse::<Reference>().map(|r| r.to_string()).unwrap_or_else(|e| format!("error: {e}"))
    }

    #[test]
    fn normalises_as_docker_does() {
        assert_eq!(normal("busybox"), "docker.io/library/busybox:latest");
        assert_eq!(normal("docker.io/busybox"), "docker.io/library/busybox:latest");
        assert_eq!(normal("index.docker.io/library/busybox:1"), "docker.io/library/busybox:1");
        assert_eq!(normal("user/app:v1"), "docker.io/user/app:v1");
        assert_eq!(normal("localhost/app"), "localhost/app:latest");
        assert_eq!(normal("localhost:5000/app"), "localhost:5000/app:latest");
        assert_eq!(normal("registry.k8s.io/pause:3.10"), "registry.k8s.io/pause:3.10");
        assert_eq!(normal("[::1]:5000/a/b:c"), "[::1]:5000/a/b:c");
        assert_eq!(normal(&format!("busybox@{D}")), format!("docker.io/library/busybox@{D}"));
        assert_eq!(normal(&format!("busybox:1@{D}")), format!("docker.io/library/busybox:1@{D}"));
        assert_eq!(normal("a/b__c/d--e.f_g"), "docker.io/a/b__c/d--e.f_g:latest");
    }

    #[test]
    fn refuses_what_docker_refuses() {
        for wrong in [
            "",
            ":",
            "Busybox",
            "busybox:",
            "busybox:-x",
            "a//b",
            "/busybox",
            "busybox/",
            "busybox@sha256:1",
            "a..b",
            "a___b",
            "host:port/app",
            "http://x/y",
            "-a.b/c",
            "../etc",
            "localhost:5000/../x",
            "[::1]x/a",
            "[::1",
            "a b",
            "a\n",
        ] {
            assert!(wrong.parse::<Reference>().is_err(), "{wrong:?} was taken as {}", normal(wrong));
        }
    }

    #[test]
    fn asks_by_digest_where_there_is_one() {
        let both: Reference = format!("localhost:5000/a:t@{D}").parse().unwrap();
        assert_eq!(both.wanted(), D);
        assert_eq!(both.tagged(), None);
        assert_eq!("busybox".parse::<Reference>().unwrap().endpoint(), "registry-1.docker.io");
    }

    proptest::proptest! {
        #[test]
        fn a_normal_form_is_its_own_normal_form(text in "[a-zA-Z0-9./:@_-]{0,40}") {
            if let Ok(reference) = text.parse::<Reference>() {
                let again: Reference = reference.to_string().parse().unwrap();
                proptest::prop_assert_eq!(again, reference);
            }
        }
    }
}
