//! ReplicaSet: as many pods of one template as are wanted.
//!
//! The informer lags behind our own writes, so what a turn has just created or deleted is remembered until the informer
//! shows it (names are chosen in the plan, so a pod can be recognised): no pod is made twice, none is counted twice.

pub mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use gantry_client::{Client, ClientError, DeleteOptions, Patch, WorkQueue, run_workers};
use gantry_env::chain;
use gantry_kube::{Object, Ref, resource};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::events::Subject;
use super::informers::Pod;
use super::{Context, Recorder};
use plan::{Outstanding, Plan};

const WORKERS: usize = 4;
/// Creates and deletes of one turn that are under way at once.
const PARALLEL_MAX: usize = 16;
/// A pod of ours that the informer never showed is forgotten after this.
const OUTSTANDING_FOR: Duration = Duration::from_secs(300);

struct ReplicaSets {
    context: Context,
    recorder: Recorder,
    queue: WorkQueue<Ref>,
    /// By ReplicaSet uid.
    outstanding: Mutex<BTreeMap<String, Expected>>,
}

struct Expected {
    set: Ref,
    what: Outstanding,
    since: Instant,
    /// A turn is due when it is over.
    queued: bool,
}

pub async fn run(context: Context) {
    let queue = WorkQueue::new();
    let this = Arc::new(ReplicaSets {
        recorder: context.recorder("replicaset-controller"),
        queue: queue.clone(),
        outstanding: Mutex::default(),
        context: context.clone(),
    });
    context.informers.replica_sets.synced().await;
    context.informers.pods.synced().await;
    tokio::spawn(feed(this.clone()));
    run_workers(queue, WORKERS, context.stop.clone(), move |at| {
        let this = this.clone();
        async move { this.reconcile(at).await }
    })
    .await;
}

/// Turns changes of ReplicaSets and pods into keys.
async fn feed(this: Arc<ReplicaSets>) {
    let informers = &this.context.informers;
    let (mut sets, mut pods) = (informers.replica_sets.subscribe(), informers.pods.subscribe());
    loop {
        tokio::select! {
            biased;
            // Every arm waits on a mailbox and takes nothing before it returns.
            () = this.context.stop.cancelled() => return,
            changes = sets.changes() => for change in changes {
                let went = change.before.filter(|before| change.now.as_ref().is_none_or(|n| n.uid() != before.uid()));
                if let Some(before) = went {
                    this.outstanding.lock().remove(before.uid());
                }
                this.queue.add(change.at);
            },
            changes = pods.changes() => {
                changes.iter().filter(|c| c.now.is_none()).for_each(|c| this.never_seen(&c.at));
                for pod in changes.iter().flat_map(|c| [&c.before, &c.now]).flatten() {
                    this.queue_owners(pod);
                }
            }
        }
    }
}

impl ReplicaSets {
    fn queue_owners(&self, pod: &Pod) {
        let sets = self.context.informers.replica_sets.list_namespace(&pod.reference().namespace);
        for set in sets {
            let owned = set.uid() == pod.controller_uid;
            if owned || (pod.controller_uid.is_empty() && plan::selects(&set, pod)) {
                self.queue.add(set.reference());
            }
        }
    }

    /// A pod that came and went between two looks of ours: its create is not to be waited for.
    fn never_seen(&self, pod: &Ref) {
        for expected in self.outstanding.lock().values_mut().filter(|e| e.set.namespace == pod.namespace) {
            if expected.what.created.remove(&pod.name) {
                self.queue.add(expected.set.clone());
            }
        }
    }

    async fn reconcile(&self, at: Ref) -> Result<(), ()> {
        let Some(set) = self.context.informers.replica_sets.get(&at) else { return Ok(()) };
        let pods = self.context.informers.pods.list_namespace(&at.namespace);
        let outstanding = self.settle(set.uid(), &pods);
        let now = self.context.env.clock.now();
        let plan = plan::plan(&set, &pods, &outstanding, now, |length| self.context.env.rng.name_suffix(length));
        let failed = self.apply(&set, &plan).await;
        if let Some(seconds) = plan.check_again_seconds {
            self.queue.add_after(at.clone(), Duration::from_secs(seconds));
        }
        match failed {
            None => Ok(()),
            Some(error) if error.is_not_found() || error.is_conflict() => {
                debug!(replica_set = %at, error = %chain(&error), "turn overtaken");
                Err(())
            }
            Some(error) => {
                warn!(replica_set = %at, error = %chain(&error), "turn failed");
                Err(())
            }
        }
    }

    /// What of our own writes the informer has not shown yet.
    fn settle(&self, uid: &str, pods: &[Arc<Pod>]) -> Outstanding {
        let mut all = self.outstanding.lock();
        let Some(expected) = all.get_mut(uid) else { return Outstanding::default() };
        expected.what.settle(pods);
        if expected.what.is_empty() || expected.since.elapsed() > OUTSTANDING_FOR {
            all.remove(uid);
            return Outstanding::default();
        }
        // Nothing else may come to tell us that it is over.
        if !std::mem::replace(&mut expected.queued, true) {
            self.queue.add_after(expected.set.clone(), OUTSTANDING_FOR + Duration::from_secs(1));
        }
        expected.what.clone()
    }

    fn expect(&self, set: &Object, note: impl FnOnce(&mut Outstanding)) {
        let mut all = self.outstanding.lock();
        let now = Instant::now();
        let fresh = || Expected { set: set.reference(), what: Outstanding::default(), since: now, queued: false };
        let expected = all.entry(set.uid().to_owned()).or_insert_with(fresh);
        (expected.since, expected.queued) = (now, false);
        note(&mut expected.what);
    }

    /// Adoption before creation, so that a pod that fits is never duplicated; status last, so that it tells what was done.
    async fn apply(&self, set: &Object, plan: &Plan) -> Option<ClientError> {
        let (client, subject) = (self.context.client.named("replicaset-controller"), Subject::of(set));
        match self.may_adopt(&client, set, plan).await {
            Ok(true) => {}
            // Whoever the informer still shows us is another by now; what it brings queues the key.
            Ok(false) => return None,
            Err(error) => return Some(error),
        }
        for (at, patch) in &plan.ownership {
            if let Err(error) = client.patch(&resource::POD, at, "", Patch::Strategic(patch.clone())).await {
                return Some(error);
            }
        }
        let made = self.create_slowly(&client, set, &subject, &plan.create).await;
        let deletes: Vec<BoxFuture<'_, _>> =
            plan.delete.iter().map(|(at, uid)| self.delete(&client, set, &subject, at, uid).boxed()).collect();
        let gone: Vec<Result<(), ClientError>> =
            futures::stream::iter(deletes).buffer_unordered(PARALLEL_MAX).collect().await;
        let failed = made.err().or_else(|| gone.into_iter().find_map(Result::err));
        if let Some(status) = plan.status(set, failed.as_ref().map(chain_text)) {
            let mut wanted = set.clone();
            wanted.0.insert("status".to_owned(), status);
            if let Err(error) = client.update_status(&resource::REPLICA_SET, &wanted).await {
                return failed.or(Some(error));
            }
        }
        failed
    }

    /// A set that was deleted, or replaced under its name, adopts nothing: the informer may not know yet.
    async fn may_adopt(&self, client: &Client, set: &Object, plan: &Plan) -> Result<bool, ClientError> {
        if plan.ownership.is_empty() {
            return Ok(true);
        }
        let live = client.find(&resource::REPLICA_SET, &set.reference()).await?;
        Ok(live.is_some_and(|live| live.uid() == set.uid() && live.deletion_timestamp().is_none()))
    }

    /// One, then two, then four at a time, up to the first failure: what one pod is refused for, all are (a quota, a
    /// missing account), and the server is spared the rest.
    async fn create_slowly(
        &self,
        client: &Client,
        set: &Object,
        subject: &Subject,
        pods: &[Object],
    ) -> Result<(), ClientError> {
        for batch in plan::slow_start(pods) {
            // Noted before the call: the informer may show the pod before the answer arrives.
            self.expect(set, |o| o.created.extend(batch.iter().map(|pod| pod.name().to_owned())));
            let creates: Vec<BoxFuture<'_, _>> =
                batch.iter().map(|pod| self.create(client, set, subject, pod).boxed()).collect();
            let made: Vec<Result<(), ClientError>> =
                futures::stream::iter(creates).buffer_unordered(PARALLEL_MAX).collect().await;
            made.into_iter().collect::<Result<(), ClientError>>()?;
        }
        Ok(())
    }

    async fn create(&self, client: &Client, set: &Object, subject: &Subject, pod: &Object) -> Result<(), ClientError> {
        match client.create(&resource::POD, pod).await {
            Ok(_) => {
                self.recorder.record(subject, "Normal", "SuccessfulCreate", format!("Created pod: {}", pod.name()));
                info!(replica_set = %set.reference(), pod = pod.name(), "pod created");
                Ok(())
            }
            Err(error) => {
                self.expect(set, |o| {
                    o.created.remove(pod.name());
                });
                let why = format!("Error creating: {}", chain_text(&error));
                self.recorder.record(subject, "Warning", "FailedCreate", why);
                Err(error)
            }
        }
    }

    async fn delete(
        &self,
        client: &Client,
        set: &Object,
        subject: &Subject,
        at: &Ref,
        uid: &str,
    ) -> Result<(), ClientError> {
        self.expect(set, |o| {
            o.deleted.insert(uid.to_owned());
        });
        let options = DeleteOptions { uid: Some(uid.to_owned()), ..DeleteOptions::default() };
        match client.delete(&resource::POD, at, &options).await {
            Err(error) if !error.is_not_found() => {
                self.expect(set, |o| {
                    o.deleted.remove(uid);
                });
                self.recorder.record(
                    subject,
                    "Warning",
                    "FailedDelete",
                    format!("Error deleting: {}", chain_text(&error)),
                );
                Err(error)
            }
            _ => {
                self.recorder.record(subject, "Normal", "SuccessfulDelete", format!("Deleted pod: {}", at.name));
                Ok(())
            }
        }
    }
}

/// The server's own words where it answered.
fn chain_text(error: &ClientError) -> String {
    error.status().map_or_else(|| chain(error), |status| status.message.clone())
}

/// The owner reference of a controller, as its dependents carry it.
pub fn owner_reference(owner: &Object) -> serde_json::Value {
    json!({
        "apiVersion": owner.api_version(), "kind": owner.kind(), "name": owner.name(), "uid": owner.uid(),
        "controller": true, "blockOwnerDeletion": true,
    })
}

pub type Names = BTreeSet<String>;
