//! Which of several control services runs a loop of which there is to be one: controllers, scheduler.
//!
//! ```text
//!                 the lease is free, or silent for 15 s
//!   waiting ───────────────────────────────────────────▶ leading, which renews it every 2 s
//!      ▲                                                    │
//!      └── the loop has ended ◀── not renewed for 10 s ─────┘
//!                                 or another's
//! ```
//! The times and the names of the leases are those of upstream's components, so that one of those can take part. A lease
//! fences nothing: two may lead for a moment, and every write of theirs carries a uid or resourceVersion.

mod plan;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::time::Duration;

use gantry_client::{Client, ClientError};
use gantry_env::{Env, chain};
use gantry_kube::resource::LEASE;
use gantry_kube::{Object, Ref};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use plan::{Step, plan, release};

/// How long a lease is good for without being renewed.
const LEASE_SECONDS: u64 = 15;
/// Who could not renew for so long steps down, in time before another may take the lease.
const RENEW_WITHIN: Duration = Duration::from_secs(10);
const RETRY_EVERY: Duration = Duration::from_secs(2);
/// What a loop gets to end by itself once it does not lead any more.
const STEP_DOWN_WITHIN: Duration = Duration::from_secs(4);

/// One who stands for a lease of `kube-system`.
pub struct Candidate {
    client: Client,
    at: Ref,
    identity: String,
    env: Env,
    stop: CancellationToken,
    /// The lease as it was last seen, and since when.
    seen: Option<(Object, Instant)>,
}

impl Candidate {
    /// `host` makes the identity readable; what is behind it makes it this process's.
    pub fn new(client: Client, name: &str, host: &str, env: Env, stop: CancellationToken) -> Candidate {
        let identity = format!("{host}_{}", env.rng.uuid());
        Candidate { client, at: Ref::new("kube-system", name), identity, env, stop, seen: None }
    }

    /// Runs what `lead` makes, anew for each time that this one leads, with a token that ends it.
    pub async fn run<F>(mut self, lead: impl Fn(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        while self.wait_for_the_lease().await {
            tracing::info!(lease = %self.at.name, identity = self.identity, "leads");
            let term = self.stop.child_token();
            let mut work = tokio::spawn(lead(term.clone()));
            self.hold().await;
            term.cancel();
            if timeout(STEP_DOWN_WITHIN, &mut work).await.is_err() {
                tracing::warn!(lease = %self.at.name, "what it led does not end by itself");
                work.abort();
            }
            tracing::info!(lease = %self.at.name, identity = self.identity, "leads no more");
        }
        self.give_back().await;
    }

    /// Answers whether it leads; else it is to stop.
    async fn wait_for_the_lease(&mut self) -> bool {
        loop {
            match timeout(RENEW_WITHIN, self.look()).await {
                Ok(Ok(true)) => return !self.stop.is_cancelled(),
                Ok(Ok(false)) => {}
                Ok(Err(error)) => {
                    tracing::debug!(lease = %self.at.name, error = chain(&error), "the lease cannot be had");
                }
                Err(_) => tracing::debug!(lease = %self.at.name, "the lease cannot be read in time"),
            }
            if self.pause().await {
                return false;
            }
        }
    }

    /// Renews the lease until that fails for too long, or somebody else has it, or this is to stop.
    async fn hold(&mut self) {
        let mut renewed = Instant::now();
        loop {
            if self.pause().await {
                return;
            }
            let left = RENEW_WITHIN.saturating_sub(renewed.elapsed());
            let start = Instant::now();
            match timeout(left, self.look()).await {
                // It counts from when it was asked for: others count from when they see it.
                Ok(Ok(true)) => renewed = start,
                Ok(Ok(false)) => return,
                Ok(Err(error)) => {
                    tracing::warn!(lease = %self.at.name, error = chain(&error), "the lease was not renewed");
                }
                Err(_) => {
                    tracing::warn!(lease = %self.at.name, "the lease was not renewed in time");
                    return;
                }
            }
        }
    }

    /// Waits until the next look; answers whether this is to stop.
    async fn pause(&self) -> bool {
        tokio::select! {
            biased;
            // Cancel-safe: a token only remembers that it was cancelled.
            () = self.stop.cancelled() => true,
            // Cancel-safe: nothing but a timer.
            () = sleep(RETRY_EVERY) => false,
        }
    }

    /// Looks at the lease, and takes or renews it where it may; answers whether it is this one's.
    async fn look(&mut self) -> Result<bool, ClientError> {
        let found = self.client.find(&LEASE, &self.at).await?;
        let changed = self.seen.as_ref().map(|(seen, _)| seen) != found.as_ref();
        if changed {
            self.seen = found.clone().map(|found| (found, Instant::now()));
        }
        let silent = self.seen.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        match plan(&self.at, found.as_ref(), &self.identity, silent, self.env.clock.now()) {
            Step::Wait => return Ok(false),
            // Where another was quicker, this fails, and the next look tells who.
            Step::Create(lease) => self.client.create(&LEASE, &lease).await?,
            Step::Update(lease) => self.client.update(&LEASE, &lease).await?,
        };
        Ok(true)
    }

    async fn give_back(&self) {
        let back = async {
            let Some(found) = self.client.find(&LEASE, &self.at).await? else { return Ok(()) };
            match release(&found, &self.identity, self.env.clock.now()) {
                Some(free) => self.client.update(&LEASE, &free).await.map(drop),
                None => Ok(()),
            }
        };
        if let Ok(Err(error)) = timeout(RETRY_EVERY, back).await {
            tracing::debug!(lease = %self.at.name, error = chain(&error), "the lease was not given back");
        }
    }
}
