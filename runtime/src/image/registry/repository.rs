//! One repository, asked of its hosts in their order, on behalf of one pull.
//!
//! They are asked in rounds, each once, and those again that may yet help: a mirror in trouble costs no wait while there is
//! another host, and gets all patience where there is none. What breaks off goes on where it broke, at the same host or at
//! the next: the digest over all of it says whether they agree. (That is also why no If-Range is sent: what a digest names
//! never changes, and whoever serves something else under it would be found out in any case.) If they do not, one of them is
//! asked no more in this pull, and the others have their turn.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_env::Backoff;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::error::RegistryError;
use super::host::{Host, Wanted};
use super::{Fetched, Registries};
use crate::image::digest::Digest;
use crate::image::manifest::{self, Descriptor, MANIFEST_MAX_BYTES};

pub struct Repository {
    pub(super) registries: Arc<Registries>,
    pub(super) hosts: Vec<Host>,
    /// Where the first bytes of each blob are from that came whole.
    pub(super) served: Mutex<BTreeMap<Digest, usize>>,
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
        let (headers, digest, bytes) = self.whole(able, &thing, digest.as_ref()).await?;
        let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(Fetched { digest, media_type, bytes })
    }

    /// Fetches a small blob whole, and verifies it.
    pub async fn small_blob(&self, blob: &Descriptor) -> Result<Bytes, RegistryError> {
        let able = self.able(|able| able.pull);
        let what = "image configuration";
        let thing = Wanted { kind: "blobs", name: blob.digest.as_str(), accept: None, what, max: blob.size };
        self.whole(able, &thing, Some(&blob.digest)).await.map(|(_, _, bytes)| bytes)
    }

    /// Sends a blob's bytes, exactly as many as its descriptor says, to `sink`; ends early when nobody listens.
    pub async fn blob(&self, blob: &Descriptor, sink: &mpsc::Sender<Bytes>) -> Result<(), RegistryError> {
        let (mut sent, mut first) = (0_u64, None);
        let mut rounds = self.rounds(self.able(|able| able.pull));
        while let Some(host) = rounds.next(&self.registries).await {
            let before = sent;
            let ended = host.blob_from(blob, &mut sent, sink).await;
            if first.is_none() && sent > 0 {
                first = Some(host);
            }
            match ended {
                Ok(()) => {
                    self.note(blob, first.unwrap_or(host));
                    return Ok(());
                }
                // Drops do not count, or a transfer that drips would be taken up for ever.
                Err(error) => rounds.failed(host, error, sent - before >= self.registries.patience.pace_bytes),
            }
        }
        Err(rounds.told())
    }

    /// A blob came whole and was not what its digest says: whether there is somebody else who may have it. Of several
    /// who brought parts of it, the first is not asked again; if it was another, the next time tells.
    pub fn distrust(&self, blob: &Descriptor) -> bool {
        if let Some(at) = self.served.lock().remove(&blob.digest) {
            tracing::warn!(host = self.hosts[at].authority(), blob = %blob.digest, "a host of the registry sent something else");
            self.hosts[at].distrust();
        }
        self.hosts.iter().any(|host| host.able().pull && !host.has_lied())
    }

    fn note(&self, blob: &Descriptor, first: &Host) {
        if let Some(at) = self.hosts.iter().position(|host| std::ptr::eq(host, first)) {
            self.served.lock().insert(blob.digest.clone(), at);
        }
    }

    /// The hosts that can be asked, without those that have lied and those that are known to be down, of which the last one
    /// stays.
    fn able(&self, can: impl Fn(super::hosts::Capabilities) -> bool) -> Vec<&Host> {
        let able: Vec<&Host> = self.hosts.iter().filter(|host| can(host.able()) && !host.has_lied()).collect();
        let last = able.len().saturating_sub(1);
        able.iter().enumerate().filter(|(at, host)| *at == last || !host.is_down()).map(|(_, host)| *host).collect()
    }

    async fn whole(
        &self,
        able: Vec<&Host>,
        wanted: &Wanted<'_>,
        digest: Option<&Digest>,
    ) -> Result<(HeaderMap, Digest, Bytes), RegistryError> {
        let mut rounds = self.rounds(able);
        while let Some(host) = rounds.next(&self.registries).await {
            match host.whole(wanted).await {
                Ok((headers, bytes)) => {
                    let actual = Digest::of(&bytes);
                    match digest {
                        Some(wanted) if *wanted != actual => {
                            rounds.failed(host, RegistryError::Digest { wanted: wanted.clone(), actual }, false);
                        }
                        _ => return Ok((headers, actual, bytes)),
                    }
                }
                Err(error) => rounds.failed(host, error, false),
            }
        }
        Err(rounds.told())
    }

    fn rounds<'r>(&self, hosts: Vec<&'r Host>) -> Rounds<'r> {
        Rounds {
            alone: hosts.len() == 1,
            hosts: hosts.into(),
            again: VecDeque::new(),
            attempts: self.registries.patience.attempts,
            rounds_left: self.registries.patience.attempts,
            backoff: self.registries.backoff(),
            pause: None,
            asked_for: Duration::ZERO,
            errors: Vec::new(),
        }
    }
}

/// Who is asked next, until somebody has it.
struct Rounds<'r> {
    /// Nobody else can be asked.
    alone: bool,
    /// Still to be asked in this round.
    hosts: VecDeque<&'r Host>,
    /// To be asked in the next one.
    again: VecDeque<&'r Host>,
    attempts: u32,
    /// With this one, since something last came.
    rounds_left: u32,
    backoff: Backoff,
    /// How long the next question waits, at least.
    pause: Option<Duration>,
    /// How long the hosts of the next round want to be left alone.
    asked_for: Duration,
    errors: Vec<(&'r Host, RegistryError)>,
}

impl<'r> Rounds<'r> {
    async fn next(&mut self, registries: &Registries) -> Option<&'r Host> {
        if self.hosts.is_empty() {
            self.rounds_left = self.rounds_left.saturating_sub(1);
            if self.rounds_left == 0 {
                return None;
            }
            std::mem::swap(&mut self.hosts, &mut self.again);
            self.pause = Some(std::mem::take(&mut self.asked_for));
        }
        let host = self.hosts.pop_front()?;
        if let Some(asked) = self.pause.take() {
            registries.wait(asked, &mut self.backoff).await;
        }
        Some(host)
    }

    /// `brought` says that something worth it came before it went wrong.
    fn failed(&mut self, host: &'r Host, error: RegistryError, brought: bool) {
        let retryable = error.retryable();
        if retryable && brought {
            // Who brought something will bring more.
            self.hosts.push_front(host);
            self.rounds_left = self.attempts;
            self.backoff.reset();
            self.pause = Some(Duration::ZERO);
        } else if retryable && (self.alone || !host.is_down()) {
            self.again.push_back(host);
            self.asked_for = self.asked_for.max(error.retry_after().unwrap_or_default());
        }
        tracing::info!(host = host.authority(), error = %gantry_env::chain(&error), "a host of the registry failed");
        match self.errors.iter_mut().find(|(at, _)| std::ptr::eq(*at, host)) {
            Some((_, last)) => *last = error,
            None => self.errors.push((host, error)),
        }
    }

    /// Of each host's last error, the first; but a host that has an answer says more than one that has not.
    fn told(self) -> RegistryError {
        let first = self.errors.into_iter().map(|(_, error)| error).rev().max_by_key(RegistryError::tells);
        first.unwrap_or(RegistryError::NoHost)
    }
}
