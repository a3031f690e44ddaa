//! ResourceQuota: what a namespace may use in all.
//!
//! What an object will use is added to the quota's status, by compare-and-swap, before the object is written. Writes of one
//! namespace that use a quota take turns, and so does the count that puts the status right: it never sees a quota that is
//! charged for an object that is not yet there, so that what it takes back has been given back.

pub mod plan;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_client::WorkQueue;
use gantry_env::chain;
use gantry_kube::resource::{PERSISTENT_VOLUME_CLAIM, POD, RESOURCE_QUOTA, SERVICE};
use gantry_kube::{Object, Resource, Status, pod};
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use super::Registry;
use super::create::write_status;
use super::update::SWAP_TRIES;
use crate::store::cache::{Stored, WriteError};

/// How often all is counted. What a delete gives back is counted at once.
const PERIOD: Duration = Duration::from_secs(300);
/// A write whose caller went away has reached the store, or has not, long before this.
const UNKNOWN_FOR: Duration = Duration::from_secs(2);

/// Whose turn it is, and which namespaces are to be counted.
#[derive(Clone, Default)]
pub struct Quotas {
    turns: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>,
    queue: WorkQueue<String>,
}

/// A quota was charged for an object that is about to be written. Dropped before it is known what became of that, it has
/// the namespace counted a little later.
pub(super) struct Charged {
    _turn: OwnedMutexGuard<()>,
    queue: WorkQueue<String>,
    namespace: String,
    settled: bool,
}

impl Drop for Charged {
    fn drop(&mut self) {
        if !self.settled {
            self.queue.add_after(std::mem::take(&mut self.namespace), UNKNOWN_FOR);
        }
    }
}

impl Quotas {
    async fn turn(&self, namespace: &str) -> OwnedMutexGuard<()> {
        let turn = self.turns.lock().entry(namespace.to_owned()).or_default().clone();
        turn.lock_owned().await
    }

    fn forget(&self, namespace: &str) {
        // Whoever holds or awaits the turn has a copy of it.
        self.turns.lock().retain(|name, turn| name != namespace || Arc::strong_count(turn) > 1);
    }
}

impl Registry {
    fn quotas_of(&self, namespace: &str) -> Vec<Arc<Stored>> {
        self.cache.list(&RESOURCE_QUOTA, Some(namespace)).items
    }

    /// Charges the namespace's quotas for a new object, or for what it grows by from `old`. None where no quota is about it.
    pub(super) async fn charge(
        &self,
        resource: &Resource,
        new: &Object,
        old: Option<&Object>,
        dry_run: bool,
    ) -> Result<Option<Charged>, Status> {
        let grows = old.is_none_or(|old| {
            *resource == SERVICE
                || (*resource == POD && old.get("/spec/containers") != new.get("/spec/containers"))
                || (*resource == PERSISTENT_VOLUME_CLAIM && old.get("/spec") != new.get("/spec"))
        });
        let namespace = new.namespace();
        if !grows || !plan::is_counted(resource) || self.quotas_of(namespace).is_empty() {
            return Ok(None);
        }
        let turn = self.quotas.turn(namespace).await;
        for attempt in 0..SWAP_TRIES {
            let quotas = self.quotas_of(namespace);
            if attempt > 0 || !quotas.iter().all(|quota| plan::is_counted_out(&quota.object())) {
                let counted = self.recount(namespace).await;
                counted.map_err(|error| write_status(&error, resource, new.name()))?;
            }
            let now = self.env.clock.now();
            let mut charged = Vec::new();
            for quota in self.quotas_of(namespace) {
                let after = plan::charge(&quota.object(), resource, new, old, now);
                if let Some(after) = after.map_err(|why| Status::forbidden(resource, new.name(), &why))? {
                    charged.push((quota, after));
                }
            }
            if charged.is_empty() || dry_run {
                return Ok(None);
            }
            if self.write_charges(charged).await.map_err(|error| write_status(&error, resource, new.name()))? {
                let (queue, namespace) = (self.quotas.queue.clone(), namespace.to_owned());
                return Ok(Some(Charged { _turn: turn, queue, namespace, settled: false }));
            }
        }
        Err(Status::stale(&RESOURCE_QUOTA, namespace))
    }

    /// The object was written; or it was not, and what it was charged for is given back before anybody else has the turn.
    pub(super) async fn settle(&self, charged: Option<Charged>, written: bool) {
        let Some(mut charged) = charged else { return };
        charged.settled = written || self.recount(&charged.namespace).await.is_ok();
    }

    /// False where somebody changed a quota meanwhile: what was charged until then is counted out of it again.
    async fn write_charges(&self, charged: Vec<(Arc<Stored>, Object)>) -> Result<bool, WriteError> {
        for (quota, after) in charged {
            match self.cache.update(&RESOURCE_QUOTA, &after.reference(), quota.revision(), &after).await {
                Ok(_) => {}
                Err(WriteError::Conflict { .. }) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Counts what the namespace uses, for each of its quotas. The caller has the namespace's turn.
    async fn recount(&self, namespace: &str) -> Result<(), WriteError> {
        for quota in self.quotas_of(namespace) {
            let before = quota.object();
            let mut objects = Vec::new();
            for kind in plan::kinds(&before) {
                let all = self.cache.list(kind, Some(namespace)).items;
                objects.extend(all.into_iter().map(|stored| (kind, stored.object())));
            }
            let seen = objects.iter().map(|(kind, object)| (*kind, object.as_ref()));
            let status = plan::recount(&before, seen, self.env.clock.now());
            if before.get("/status") == Some(&status) {
                continue;
            }
            let mut after = before.as_ref().clone();
            after.0.insert("status".to_owned(), status);
            match self.cache.update(&RESOURCE_QUOTA, &after.reference(), quota.revision(), &after).await {
                // Gone, or changed: whoever did it has the namespace counted again.
                Ok(_) | Err(WriteError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Has a namespace counted after a change that may have given something back.
    pub(super) fn count_after(&self, resource: &Resource, old: Option<&Object>, new: Option<&Object>) {
        let Some(object) = new.or(old) else { return };
        if !plan::is_counted(resource) {
            return;
        }
        let ended = |pod: &Object| pod::is_terminal(pod);
        let smaller = |old: &Object, new: &Object| old.get("/spec/containers") != new.get("/spec/containers");
        let gives_back = match (old, new) {
            (_, None) => true,
            (Some(old), Some(new)) if *resource == POD => (!ended(old) && ended(new)) || smaller(old, new),
            (Some(_), Some(_)) => *resource == SERVICE || *resource == RESOURCE_QUOTA,
            (None, Some(_)) => *resource == RESOURCE_QUOTA,
        };
        if gives_back && !self.quotas_of(object.namespace()).is_empty() {
            self.quotas.queue.add(object.namespace().to_owned());
        }
    }

    /// Keeps every quota's status what is used. Runs until dropped.
    pub async fn keep_quotas(self) {
        let mut timer = tokio::time::interval(PERIOD);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let namespace = tokio::select! {
                biased;
                // Cancel-safe: a tick that is not taken stays due.
                _ = timer.tick() => {
                    for quota in self.cache.list(&RESOURCE_QUOTA, None).items {
                        self.quotas.queue.add(quota.key().reference().namespace);
                    }
                    continue;
                }
                // Cancel-safe: a key is only taken when it is returned.
                namespace = self.quotas.queue.next() => namespace,
            };
            let turn = self.quotas.turn(&namespace).await;
            if let Err(error) = self.recount(&namespace).await {
                tracing::warn!(namespace, error = chain(&error), "what a namespace uses was not counted");
                self.quotas.queue.add_after(namespace.clone(), UNKNOWN_FOR);
            }
            drop(turn);
            self.quotas.queue.done(&namespace);
            if self.quotas_of(&namespace).is_empty() {
                self.quotas.forget(&namespace);
            }
        }
    }
}
