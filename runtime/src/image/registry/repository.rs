//! One repository, asked of its hosts in their order, on behalf of one pull.
//!
//! A host after which others come is asked once for each thing; the last one with patience. What breaks off goes on
//! where it broke, at the same host or at the next: the digest over all of it says whether they agree.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use tokio::sync::mpsc;

use super::error::RegistryError;
use super::host::{Host, Wanted};
use super::{Fetched, Registries};
use crate::image::digest::Digest;
use crate::image::manifest::{self, Descriptor, MANIFEST_MAX_BYTES};

pub struct Repository {
    pub(super) registries: std::sync::Arc<Registries>,
    pub(super) hosts: Vec<Host>,
}

impl Repository {
    /// Fetches a manifest or an index by tag or digest; one by digest is verified.
    pub async fn manifest(&self, wanted: &str) -> Result<Fetched, RegistryError> {
        let digest = wanted.parse::<Digest>().ok();
        // What a tag stands for is believed to some only.
        let able: Vec<&Host> = self.able(|able| if digest.is_some() { able.pull } else { able.resolve });
        let thing = Wanted {
            kind: "manifests",
            name: wanted,
            accept: Some(manifest::ACCEPT),
            what: "manifest",
            max: MANIFEST_MAX_BYTES,
        };
        let (headers, digest, bytes) = self.whole(&able, &thing, digest.as_ref()).await?;
        let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(Fetched { digest, media_type, bytes })
    }

    /// Fetches a small blob whole, and verifies it.
    pub async fn small_blob(&self, blob: &Descriptor) -> Result<Bytes, RegistryError> {
        let able = self.able(|able| able.pull);
        let what = "image configuration";
        let thing = Wanted { kind: "blobs", name: blob.digest.as_str(), accept: None, what, max: blob.size };
        self.whole(&able, &thing, Some(&blob.digest)).await.map(|(_, _, bytes)| bytes)
    }

    /// Sends a blob's bytes, exactly as many as its descriptor says, to `sink`; ends early when nobody listens.
    pub async fn blob(&self, blob: &Descriptor, sink: &mpsc::Sender<Bytes>) -> Result<(), RegistryError> {
        let attempts_max = self.registries.patience.attempts;
        let (mut failures, mut sent) = (Failures::default(), 0_u64);
        let able = self.able(|able| able.pull);
        for (at, host) in able.iter().enumerate() {
            let last = at + 1 == able.len();
            let (mut attempts, mut backoff) = (0, self.registries.backoff());
            loop {
                let before = sent;
                let Err(error) = host.blob_from(blob, &mut sent, sink).await else { return Ok(()) };
                // A host that brought something will bring more.
                if sent > before {
                    attempts = 0;
                    backoff.reset();
                }
                attempts += 1;
                let again = (last || sent > before) && attempts < attempts_max && error.retryable();
                if !again {
                    failures.add(host, error, last);
                    break;
                }
                self.registries.wait(&error, &mut backoff).await;
            }
        }
        Err(failures.told())
    }

    /// The hosts that can be asked, without those that are known to be down, of which the last one stays.
    fn able(&self, can: impl Fn(super::hosts::Capabilities) -> bool) -> Vec<&Host> {
        let able: Vec<&Host> = self.hosts.iter().filter(|host| can(host.able())).collect();
        let last = able.len().saturating_sub(1);
        able.iter().enumerate().filter(|(at, host)| *at == last || !host.is_down()).map(|(_, host)| *host).collect()
    }

    async fn whole(
        &self,
        able: &[&Host],
        wanted: &Wanted<'_>,
        digest: Option<&Digest>,
    ) -> Result<(http::HeaderMap, Digest, Bytes), RegistryError> {
        let mut failures = Failures::default();
        for (at, host) in able.iter().enumerate() {
            let last = at + 1 == able.len();
            let attempts = if last { self.registries.patience.attempts } else { 1 };
            let error = match host.whole(wanted, attempts).await {
                Ok((headers, bytes)) => {
                    let actual = Digest::of(&bytes);
                    match digest {
                        Some(wanted) if *wanted != actual => RegistryError::Digest { wanted: wanted.clone(), actual },
                        _ => return Ok((headers, actual, bytes)),
                    }
                }
                Err(error) => error,
            };
            failures.add(host, error, last);
        }
        Err(failures.told())
    }
}

/// What went wrong at each host; one of them is told.
#[derive(Default)]
struct Failures(Option<RegistryError>);

impl Failures {
    fn add(&mut self, host: &Host, error: RegistryError, last: bool) {
        if !last {
            tracing::info!(host = host.authority(), error = %gantry_env::chain(&error), "the next host is asked");
        }
        // The first one; but a host that has an answer says more than one that has not.
        if self.0.as_ref().is_none_or(|first| error.tells() > first.tells()) {
            self.0 = Some(error);
        }
    }

    fn told(self) -> RegistryError {
        self.0.unwrap_or(RegistryError::NoHost)
    }
}
