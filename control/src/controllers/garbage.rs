//! Objects whose owners are gone go too; owners that wait for their dependents (foreground) or let them go (orphan) are
//! released once that is done.
//!
//! One informer a kind keeps only metadata. Whether an owner is really gone is asked of the API, not of a cache that may be
//! behind: an object is deleted only after a live read did not find any of its owners.

pub mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_client::{ClientError, DeleteOptions, Informer, Patch, Scope, WorkQueue, run_workers};
use gantry_env::chain;
use gantry_kube::{Ref, Resource, resource};
use parking_lot::Mutex;
use tracing::{info, warn};

use super::Context;
use plan::{Meta, Verdict};

const WORKERS: usize = 4;

/// An object of any kind.
type Key = (&'static str, Ref);

struct Garbage {
    context: Context,
    kinds: BTreeMap<&'static str, (&'static Resource, Informer<Meta>)>,
    /// Owner uid → dependents.
    dependents: Mutex<plan::Graph<Key>>,
}

pub async fn run(context: Context) {
    let stored = resource::ALL.iter().copied().filter(|r| !r.virtual_only && r.kind != "Event");
    let kinds: BTreeMap<_, _> = stored
        .map(|r| {
            let (client, env, stop) = (context.client.clone(), context.env.clone(), context.stop.clone());
            (r.kind, (r, Informer::spawn(client, r, Scope::default(), env, stop, Meta::project)))
        })
        .collect();
    for (_, informer) in kinds.values() {
        informer.synced().await;
    }
    let queue: WorkQueue<Key> = WorkQueue::new();
    let this = Arc::new(Garbage { context: context.clone(), kinds, dependents: Mutex::default() });
    for (kind, (_, informer)) in &this.kinds {
        tokio::spawn(feed(this.clone(), kind, informer.clone(), queue.clone()));
    }
    let requeue = queue.clone();
    run_workers(queue, WORKERS, context.stop.clone(), move |key: Key| {
        let (this, queue) = (this.clone(), requeue.clone());
        async move {
            match this.reconcile(&key).await {
                Ok(()) => Ok(()),
                Err(error) if error.is_conflict() || error.is_not_found() => {
                    queue.add_after(key, Duration::from_millis(50));
                    Ok(())
                }
                Err(error) => {
                    warn!(kind = key.0, object = %key.1, error = %chain(&error), "turn failed");
                    Err(())
                }
            }
        }
    })
    .await;
}

async fn feed(this: Arc<Garbage>, kind: &'static str, informer: Informer<Meta>, queue: WorkQueue<Key>) {
    let mut changes = informer.subscribe();
    while let Some(changes) = this.context.stop.run_until_cancelled(changes.changes()).await {
        for change in changes {
            let key = (kind, change.at);
            let mut graph = this.dependents.lock();
            if let Some(before) = &change.before {
                graph.remove(&key, before);
            }
            if let Some(now) = &change.now {
                graph.insert(key.clone(), now);
                if !now.owners.is_empty() || now.waits() {
                    queue.add(key.clone());
                }
            }
            // Deleted and made anew between two looks: the old one's dependents have no owner.
            if let (Some(before), Some(now)) = (&change.before, &change.now)
                && before.uid != now.uid
            {
                graph.of(&before.uid).for_each(|dependent| queue.add(dependent));
            }
            // An owner that went, or began to wait, concerns its dependents; a dependent that went concerns its owners.
            if let Some(meta) = change.now.as_ref().or(change.before.as_ref()) {
                if change.now.is_none() || meta.waits() {
                    graph.of(&meta.uid).for_each(|dependent| queue.add(dependent));
                }
                for owner in meta.owners.iter().filter(|_| change.now.is_none()) {
                    if let Some(kind) = this.kinds.keys().find(|k| **k == owner.kind) {
                        queue.add((kind, owner.at(&key.1)));
                    }
                }
            }
        }
    }
}

impl Garbage {
    async fn reconcile(&self, key: &Key) -> Result<(), ClientError> {
        let Some((kind, informer)) = self.kinds.get(key.0) else { return Ok(()) };
        let Some(meta) = informer.get(&key.1) else { return Ok(()) };
        let dependents: Vec<Key> = self.dependents.lock().of(&meta.uid).collect();
        let blocking = dependents.iter().filter(|d| self.blocks(d, &meta.uid)).count();
        if let Some(verdict) = plan::release(&meta, dependents, blocking) {
            self.apply(kind, key, &meta, verdict).await?;
        }
        if meta.owners.is_empty() || meta.deleting {
            return Ok(());
        }
        let mut alive = Vec::new();
        for owner in &meta.owners {
            alive.push(self.owner_state(owner, &key.1).await?);
        }
        if let Some(verdict) = plan::judge(&meta, &alive) {
            self.apply(kind, key, &meta, verdict).await?;
        }
        Ok(())
    }

    fn blocks(&self, dependent: &Key, owner_uid: &str) -> bool {
        let meta = self.kinds.get(dependent.0).and_then(|(_, informer)| informer.get(&dependent.1));
        meta.is_some_and(|m| m.owners.iter().any(|o| o.uid == owner_uid && o.blocks))
    }

    /// Asks the API: a cache may not know an owner that was just made.
    async fn owner_state(&self, owner: &plan::Owner, dependent: &Ref) -> Result<plan::OwnerState, ClientError> {
        let Some(kind) = resource::served().find(|r| r.kind == owner.kind && r.api_version() == owner.api_version)
        else {
            return Ok(plan::OwnerState::Unknown);
        };
        if kind.namespaced && dependent.namespace.is_empty() {
            // An owner that cannot be named from here is not one that is gone.
            return Ok(plan::OwnerState::Unknown);
        }
        let at = if kind.namespaced { owner.at(dependent) } else { Ref::cluster(owner.name.clone()) };
        let found = self.context.client.find(kind, &at).await?.filter(|o| o.uid() == owner.uid);
        Ok(match found.map(Meta::project) {
            None => plan::OwnerState::Gone,
            Some(meta) if meta.deleting && meta.foreground => plan::OwnerState::WaitsForUs,
            Some(_) => plan::OwnerState::There,
        })
    }

    async fn apply(
        &self,
        kind: &'static Resource,
        key: &Key,
        meta: &Meta,
        verdict: Verdict<Key>,
    ) -> Result<(), ClientError> {
        let client = self.context.client.named("garbage-collector");
        match verdict {
            Verdict::Delete { propagation_policy } => {
                info!(kind = key.0, object = %key.1, "owners are gone, deleting");
                // The verdict stands for the owners that we saw: whoever orphans it meanwhile keeps it.
                let options = DeleteOptions {
                    uid: Some(meta.uid.clone()),
                    resource_version: Some(meta.resource_version.clone()),
                    propagation_policy,
                    ..DeleteOptions::default()
                };
                client.delete(kind, &key.1, &options).await
            }
            Verdict::Patch(patch) => client.patch(kind, &key.1, "", Patch::Merge(patch)).await.map(|_| ()),
            Verdict::Orphan(dependents) => {
                for (kind_name, at) in dependents {
                    let Some((kind, informer)) = self.kinds.get(kind_name) else { continue };
                    let Some(dependent) = informer.get(&at) else { continue };
                    let patch = plan::without_owner(&dependent, &meta.uid);
                    match client.patch(kind, &at, "", Patch::Merge(patch)).await {
                        Err(error) if !error.is_not_found() => return Err(error),
                        _ => {}
                    }
                }
                let patch = plan::without_finalizer(meta, plan::ORPHAN);
                client.patch(kind, &key.1, "", Patch::Merge(patch)).await.map(|_| ())
            }
        }
    }
}
