//! Objects whose owners are gone go too; owners that wait for their dependents (foreground) or let them go (orphan) are
//! released once that is done.
//!
//! One informer a kind keeps only metadata. Whether an owner is really gone is asked of the API, not of a cache that may be
//! behind: an object is deleted only after a live read did not find any of its owners.

pub mod plan;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use gantry_client::{Change, Client, ClientError, DeleteOptions, Informer, Patch, Scope, WorkQueue};
use gantry_kube::{Ref, Resource, resource};
use parking_lot::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Context;
use super::frame::{Controller, Frame};
use super::informers::CustomKind;
use plan::{Meta, Verdict};

const COMPONENT: &str = "garbage-collector";
const WORKERS: usize = 4;

/// A kind, in whichever version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Kind {
    group: &'static str,
    kind: &'static str,
}

impl Kind {
    fn of(resource: &Resource) -> Kind {
        Kind { group: resource.group, kind: resource.kind }
    }

    fn is_of(self, owner: &plan::Owner) -> bool {
        self.kind == owner.kind && self.group == owner.api_version.split_once('/').map_or("", |(group, _)| group)
    }
}

/// An object of any kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    kind: Kind,
    at: Ref,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.kind, self.at)
    }
}

struct Garbage {
    client: Client,
    kinds: RwLock<BTreeMap<Kind, Followed>>,
    /// Owner uid → dependents.
    dependents: Mutex<plan::Graph<Key>>,
}

/// A kind whose objects are followed.
#[derive(Clone)]
struct Followed {
    resource: &'static Resource,
    informer: Informer<Meta>,
    stop: CancellationToken,
}

impl Followed {
    fn new(resource: &'static Resource, context: &Context) -> Followed {
        let (client, env, stop) = (context.client.clone(), context.env.clone(), context.stop.child_token());
        let informer = Informer::spawn(client, resource, Scope::default(), env, stop.clone(), Meta::project);
        Followed { resource, informer, stop }
    }
}

pub async fn run(context: Context) {
    let stored = resource::ALL.iter().copied().filter(|r| !r.virtual_only && r.kind != "Event");
    let kinds: BTreeMap<_, _> = stored.map(|r| (Kind::of(r), Followed::new(r, &context))).collect();
    let client = context.client.named(COMPONENT);
    let this = Arc::new(Garbage { client, kinds: RwLock::new(kinds.clone()), dependents: Mutex::default() });
    let frame = kinds.iter().fold(Frame::new(COMPONENT, &context), |frame, (kind, followed)| {
        let (this, kind) = (this.clone(), *kind);
        frame.hears(&followed.informer, move |change| this.concerned(kind, change))
    });
    let follow = this.clone().follow_custom_kinds(context.clone(), frame.queue());
    tokio::spawn(context.stop.clone().run_until_cancelled_owned(follow));
    frame.run(WORKERS, this).await;
}

impl Controller for Garbage {
    type Key = Key;

    async fn turn(&self, key: &Key, _again: &mut Option<Duration>) -> Result<(), ClientError> {
        let Some(Followed { resource: kind, informer, .. }) = self.followed(key.kind) else { return Ok(()) };
        let Some(meta) = informer.get(&key.at) else { return Ok(()) };
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
            alive.push(self.owner_state(owner, &key.at).await?);
        }
        if let Some(verdict) = plan::judge(&meta, &alive) {
            self.apply(kind, key, &meta, verdict).await?;
        }
        Ok(())
    }
}

impl Garbage {
    fn followed(&self, kind: Kind) -> Option<Followed> {
        self.kinds.read().get(&kind).cloned()
    }

    /// Custom kinds come and go while this runs.
    async fn follow_custom_kinds(self: Arc<Self>, context: Context, queue: WorkQueue<Key>) {
        let mut definitions = context.informers.custom_kinds.subscribe();
        loop {
            for change in definitions.changes().await {
                let resource = |side: &Option<Arc<CustomKind>>| side.as_ref().and_then(|kind| kind.resource);
                let (before, now) = (resource(&change.before), resource(&change.now));
                if before == now {
                    continue;
                }
                if let Some(gone) = before.and_then(|before| self.kinds.write().remove(&Kind::of(before))) {
                    gone.stop.cancel();
                }
                if let Some(now) = now {
                    self.clone().follow(Followed::new(now, &context), &queue);
                }
            }
        }
    }

    fn follow(self: Arc<Self>, followed: Followed, queue: &WorkQueue<Key>) {
        let (kind, queue) = (Kind::of(followed.resource), queue.clone());
        self.kinds.write().insert(kind, followed.clone());
        let this = self.clone();
        let feed = async move {
            let mut changes = followed.informer.subscribe();
            loop {
                let changes = changes.changes().await;
                changes.into_iter().flat_map(|change| this.concerned(kind, change)).for_each(|key| queue.add(key));
            }
        };
        tokio::spawn(followed.stop.run_until_cancelled_owned(feed));
    }

    /// Notes who depends on whom, and names those that a change concerns.
    fn concerned(&self, kind: Kind, change: Change<Meta>) -> Vec<Key> {
        let key = Key { kind, at: change.at };
        let (mut graph, mut concerned) = (self.dependents.lock(), Vec::new());
        if let Some(before) = &change.before {
            graph.remove(&key, before);
        }
        if let Some(now) = &change.now {
            graph.insert(key.clone(), now);
            if !now.owners.is_empty() || now.waits() {
                concerned.push(key.clone());
            }
        }
        // Deleted and made anew between two looks: the old one's dependents have no owner.
        if let (Some(before), Some(now)) = (&change.before, &change.now)
            && before.uid != now.uid
        {
            concerned.extend(graph.of(&before.uid));
        }
        // An owner that went, or began to wait, concerns its dependents; a dependent that went concerns its owners.
        if let Some(meta) = change.now.as_ref().or(change.before.as_ref()) {
            if change.now.is_none() || meta.waits() {
                concerned.extend(graph.of(&meta.uid));
            }
            for owner in meta.owners.iter().filter(|_| change.now.is_none()) {
                let kind = self.kinds.read().keys().find(|kind| kind.is_of(owner)).copied();
                concerned.extend(kind.map(|kind| Key { kind, at: owner.at(&key.at) }));
            }
        }
        concerned
    }

    fn blocks(&self, dependent: &Key, owner_uid: &str) -> bool {
        let meta = self.followed(dependent.kind).and_then(|followed| followed.informer.get(&dependent.at));
        meta.is_some_and(|m| m.owners.iter().any(|o| o.uid == owner_uid && o.blocks))
    }

    /// Asks the API: a cache may not know an owner that was just made.
    async fn owner_state(&self, owner: &plan::Owner, dependent: &Ref) -> Result<plan::OwnerState, ClientError> {
        let built_in = || resource::served().find(|r| r.kind == owner.kind && r.api_version() == owner.api_version);
        let custom = || self.kinds.read().iter().find(|(kind, _)| kind.is_of(owner)).map(|(_, of)| of.resource);
        let Some(kind) = built_in().or_else(custom) else {
            return Ok(plan::OwnerState::Unknown);
        };
        if kind.namespaced && dependent.namespace.is_empty() {
            // An owner that cannot be named from here is not one that is gone.
            return Ok(plan::OwnerState::Unknown);
        }
        let at = if kind.namespaced { owner.at(dependent) } else { Ref::cluster(owner.name.clone()) };
        let found = self.client.find(kind, &at).await?.filter(|o| o.uid() == owner.uid);
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
        let client = &self.client;
        match verdict {
            Verdict::Delete { propagation_policy } => {
                info!(kind = key.kind.kind, object = %key.at, "owners are gone, deleting");
                // The verdict stands for the owners that we saw: whoever orphans it meanwhile keeps it.
                let options = DeleteOptions {
                    uid: Some(meta.uid.clone()),
                    resource_version: Some(meta.resource_version.clone()),
                    propagation_policy,
                    ..DeleteOptions::default()
                };
                client.delete(kind, &key.at, &options).await
            }
            Verdict::Patch(patch) => client.patch(kind, &key.at, "", Patch::Merge(patch)).await.map(|_| ()),
            Verdict::Orphan(dependents) => {
                for Key { kind, at } in dependents {
                    let Some(Followed { resource: kind, informer, .. }) = self.followed(kind) else { continue };
                    let Some(dependent) = informer.get(&at) else { continue };
                    let patch = plan::without_owner(&dependent, &meta.uid);
                    match client.patch(kind, &at, "", Patch::Merge(patch)).await {
                        Err(error) if !error.is_not_found() => return Err(error),
                        _ => {}
                    }
                }
                let patch = plan::without_finalizer(meta, plan::ORPHAN);
                client.patch(kind, &key.at, "", Patch::Merge(patch)).await.map(|_| ())
            }
        }
    }
}
