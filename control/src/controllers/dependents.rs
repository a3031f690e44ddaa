//! The pods that a controller makes and deletes, whatever its kind.
//!
//! The informer lags behind our own writes, so what a turn has just created or deleted is remembered until the informer
//! shows it (names are chosen in the plan, so a pod can be recognised): no pod is made twice, none is counted twice.

pub mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use gantry_client::{Change, Client, ClientError, DeleteOptions, Informer, Patch, WorkQueue};
use gantry_env::chain;
use gantry_kube::{Object, Ref, Resource, resource};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::info;

use super::events::Subject;
use super::frame::{Frame, sides};
use super::informers::Pod;
use super::revisions::{self, Applied};
use super::{Context, Recorder};
use plan::{Outstanding, Turn};

/// Creates and deletes of one turn that are under way at once.
const PARALLEL_MAX: usize = 16;
/// A pod of ours that the informer never showed is forgotten after this.
const OUTSTANDING_FOR: Duration = Duration::from_secs(300);

/// The pods of every object of one kind.
pub struct Dependents {
    resource: &'static Resource,
    pub client: Client,
    recorder: Recorder,
    queue: WorkQueue<Ref>,
    owners: Informer<Object>,
    /// By the owner's uid.
    outstanding: Mutex<BTreeMap<String, Expected>>,
}

struct Expected {
    owner: Ref,
    what: Outstanding,
    since: Instant,
    /// A turn is due when it is over.
    queued: bool,
}

impl Dependents {
    /// The pods of every owner, and a frame that hears of both.
    pub fn framed(
        context: &Context,
        component: &'static str,
        resource: &'static Resource,
        owners: &Informer<Object>,
    ) -> (Arc<Dependents>, Frame<Ref>) {
        let frame = Frame::new(component, context);
        let this = Arc::new(Dependents {
            resource,
            client: context.client.named(component),
            recorder: context.recorder(component),
            queue: frame.queue(),
            owners: owners.clone(),
            outstanding: Mutex::default(),
        });
        let (of_owners, of_pods) = (this.clone(), this.clone());
        let frame = frame
            .hears(owners, move |change| of_owners.owner(change))
            .hears(&context.informers.pods, move |change| of_pods.concerned(&change));
        (this, frame)
    }

    fn owner(&self, change: Change<Object>) -> [Ref; 1] {
        let replaced = |before: &Object| change.now.as_ref().is_none_or(|now| now.uid() != before.uid());
        if let Some(before) = change.before.as_ref().filter(|before| replaced(before)) {
            self.outstanding.lock().remove(before.uid());
        }
        [change.at]
    }

    /// The owners of a pod and those that may want it.
    fn concerned(&self, change: &Change<Pod>) -> Vec<Ref> {
        if change.now.is_none() {
            self.never_seen(&change.at);
        }
        let owns = |owner: &Object, pod: &Pod| {
            owner.uid() == pod.controller_uid || (pod.controller_uid.is_empty() && plan::selects(owner, pod))
        };
        let owners = self.owners.list_namespace(&change.at.namespace);
        owners.iter().filter(|owner| sides(change).any(|pod| owns(owner, pod))).map(|owner| owner.reference()).collect()
    }

    /// A pod that came and went between two looks of ours: its create is not to be waited for.
    fn never_seen(&self, pod: &Ref) {
        for expected in self.outstanding.lock().values_mut().filter(|e| e.owner.namespace == pod.namespace) {
            if expected.what.created.remove(&pod.name) {
                self.queue.add(expected.owner.clone());
            }
        }
    }

    /// What of our own writes the informer has not shown yet.
    pub fn settle(&self, uid: &str, pods: &[Arc<Pod>]) -> Outstanding {
        let mut all = self.outstanding.lock();
        let Some(expected) = all.get_mut(uid) else { return Outstanding::default() };
        expected.what.settle(pods);
        if expected.what.is_empty() || expected.since.elapsed() > OUTSTANDING_FOR {
            all.remove(uid);
            return Outstanding::default();
        }
        // Nothing else may come to tell us that it is over.
        if !std::mem::replace(&mut expected.queued, true) {
            self.queue.add_after(expected.owner.clone(), OUTSTANDING_FOR + Duration::from_secs(1));
        }
        expected.what.clone()
    }

    fn expect(&self, owner: &Object, note: impl FnOnce(&mut Outstanding)) {
        let mut all = self.outstanding.lock();
        let now = Instant::now();
        let fresh = || Expected { owner: owner.reference(), what: Outstanding::default(), since: now, queued: false };
        let expected = all.entry(owner.uid().to_owned()).or_insert_with(fresh);
        (expected.since, expected.queued) = (now, false);
        note(&mut expected.what);
    }

    /// Adopts and releases pods; false where the owner was deleted, or replaced under its name: the informer may not know
    /// yet, and what it brings queues the key.
    pub async fn claim(&self, owner: &Object, patches: &[(Ref, Value)]) -> Result<bool, ClientError> {
        if patches.is_empty() {
            return Ok(true);
        }
        let live = self.client.find(self.resource, &owner.reference()).await?;
        if live.is_none_or(|live| live.uid() != owner.uid() || live.deletion_timestamp().is_some()) {
            return Ok(false);
        }
        for (at, patch) in patches {
            self.client.patch(&resource::POD, at, "", Patch::Strategic(patch.clone())).await?;
        }
        Ok(true)
    }

    /// One, then two, then four at a time, up to the first failure: what one pod is refused for, all are (a quota, a
    /// missing account), and the server is spared the rest.
    pub async fn create_slowly(&self, owner: &Object, pods: &[Object]) -> Result<(), ClientError> {
        for batch in plan::slow_start(pods) {
            // Noted before the call: the informer may show the pod before the answer arrives.
            self.expect(owner, |o| o.created.extend(batch.iter().map(|pod| pod.name().to_owned())));
            let creates: Vec<BoxFuture<'_, _>> = batch.iter().map(|pod| self.create(owner, pod).boxed()).collect();
            let made: Vec<Result<(), ClientError>> =
                futures::stream::iter(creates).buffer_unordered(PARALLEL_MAX).collect().await;
            made.into_iter().collect::<Result<(), ClientError>>()?;
        }
        Ok(())
    }

    async fn create_claims(&self, owner: &Object, claims: &[(Object, String)]) -> Result<(), ClientError> {
        for (claim, pod) in claims {
            let what = format!("create Claim {} Pod {pod} in StatefulSet {}", claim.name(), owner.name());
            match self.client.create(&resource::PERSISTENT_VOLUME_CLAIM, claim).await {
                Ok(_) => self.tell(owner, "Normal", "SuccessfulCreate", format!("{what} success")),
                // The informer is behind.
                Err(error) if error.is_already_exists() => {}
                Err(error) => {
                    self.tell(owner, "Warning", "FailedCreate", format!("{what} failed error: {}", words(&error)));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    async fn create(&self, owner: &Object, pod: &Object) -> Result<(), ClientError> {
        match self.client.create(&resource::POD, pod).await {
            Ok(_) => {
                self.tell(owner, "Normal", "SuccessfulCreate", self.done("Created", "create", owner, pod.name()));
                info!(kind = owner.kind(), owner = %owner.reference(), pod = pod.name(), "pod created");
                Ok(())
            }
            Err(error) => {
                self.expect(owner, |o| {
                    o.created.remove(pod.name());
                });
                self.tell(owner, "Warning", "FailedCreate", format!("Error creating: {}", words(&error)));
                Err(error)
            }
        }
    }

    /// Deletes pods of these names and uids; all are tried, and the first failure is told.
    pub async fn delete(&self, owner: &Object, pods: &[(Ref, String)]) -> Result<(), ClientError> {
        let deletes: Vec<BoxFuture<'_, _>> =
            pods.iter().map(|(at, uid)| self.delete_one(owner, at, uid).boxed()).collect();
        let gone: Vec<Result<(), ClientError>> =
            futures::stream::iter(deletes).buffer_unordered(PARALLEL_MAX).collect().await;
        gone.into_iter().collect()
    }

    async fn delete_one(&self, owner: &Object, at: &Ref, uid: &str) -> Result<(), ClientError> {
        self.expect(owner, |o| {
            o.deleted.insert(uid.to_owned());
        });
        let options = DeleteOptions { uid: Some(uid.to_owned()), ..DeleteOptions::default() };
        match self.client.delete(&resource::POD, at, &options).await {
            Err(error) if !error.is_not_found() => {
                self.expect(owner, |o| {
                    o.deleted.remove(uid);
                });
                self.tell(owner, "Warning", "FailedDelete", format!("Error deleting: {}", words(&error)));
                Err(error)
            }
            _ => {
                self.tell(owner, "Normal", "SuccessfulDelete", self.done("Deleted", "delete", owner, &at.name));
                Ok(())
            }
        }
    }

    /// StatefulSets have words of their own.
    fn done(&self, past: &str, verb: &str, owner: &Object, pod: &str) -> String {
        if *self.resource == resource::STATEFUL_SET {
            format!("{verb} Pod {pod} in StatefulSet {} successful", owner.name())
        } else {
            format!("{past} pod: {pod}")
        }
    }

    pub async fn write_status(&self, owner: &Object, status: Option<Value>) -> Result<(), ClientError> {
        let Some(status) = status else { return Ok(()) };
        let mut wanted = owner.clone();
        wanted.0.insert("status".to_owned(), status);
        self.client.update_status(self.resource, &wanted).await.map(|_| ())
    }

    /// The effects of a turn. The revision before the pods that carry its name; claims before the pods that use them, or that take them along;
    /// deletes before creates, so that a node's ports are free; status last, so that it tells what was done.
    pub async fn apply(&self, owner: &Object, turn: &Turn) -> Result<(), ClientError> {
        if revisions::apply(&self.client, &turn.revisions).await? == Applied::Collision {
            let mut status = owner.0.get("status").cloned().unwrap_or_default();
            status["collisionCount"] = json!(owner.i64_at("/status/collisionCount").unwrap_or(0) + 1);
            return self.write_status(owner, Some(status)).await;
        }
        if !self.claim(owner, &turn.ownership).await? {
            return Ok(());
        }
        for (reason, message) in &turn.warnings {
            self.tell(owner, "Warning", reason, message.clone());
        }
        for claim in &turn.claim_owners {
            self.client.update(&resource::PERSISTENT_VOLUME_CLAIM, claim).await?;
        }
        let gone = self.delete(owner, &turn.delete).await;
        let made = match self.create_claims(owner, &turn.claims).await {
            Ok(()) => self.create_slowly(owner, &turn.create).await,
            failed => failed,
        };
        let written = self.write_status(owner, turn.status.clone()).await;
        gone.and(made).and(written)
    }

    pub fn tell(&self, owner: &Object, kind: &'static str, reason: &str, message: String) {
        self.recorder.record(&Subject::of(owner), kind, reason, message);
    }
}

/// The server's own words where it answered.
pub fn words(error: &ClientError) -> String {
    error.status().map_or_else(|| chain(error), |status| status.message.clone())
}
