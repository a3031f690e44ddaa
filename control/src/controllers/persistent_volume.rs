//! PersistentVolumes and the claims to them: each claim gets a volume of its own, and a volume whose claim is gone is
//! reclaimed as its policy says.

mod local_path;
pub mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_client::{ClientError, DeleteOptions, WorkQueue, run_workers};
use gantry_env::chain;
use gantry_kube::resource::{PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM};
use gantry_kube::{Object, Ref, storage};
use parking_lot::Mutex;
use tracing::{debug, info, warn};

use super::events::Subject;
use super::{Context, Recorder};
use plan::{Told, Turn, World, Write};

const COMPONENT: &str = "persistentvolume-controller";
/// One at a time: of two claims in need of a volume, the second is to see that the first has taken one.
const WORKERS: usize = 1;

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key {
    Claim(Ref),
    Volume(Ref),
}

struct Binder {
    context: Context,
    recorder: Recorder,
    queue: WorkQueue<Key>,
    /// What was last told of each object, by uid: it is not told again at every turn.
    told: Mutex<BTreeMap<String, Told>>,
}

pub async fn run(context: Context) {
    let informers = &context.informers;
    informers.claims.synced().await;
    informers.persistent_volumes.synced().await;
    informers.storage_classes.synced().await;
    informers.nodes.synced().await;
    let recorder = context.recorder(COMPONENT);
    let this = Arc::new(Binder { recorder, queue: WorkQueue::new(), told: Mutex::default(), context });
    let (queue, stop) = (this.queue.clone(), this.context.stop.clone());
    tokio::spawn(this.clone().feed());
    run_workers(queue, WORKERS, stop, move |key| {
        let this = this.clone();
        async move { this.reconcile(key).await }
    })
    .await;
}

impl Binder {
    async fn feed(self: Arc<Self>) {
        let informers = &self.context.informers;
        let mut claims = informers.claims.subscribe();
        let mut volumes = informers.persistent_volumes.subscribe();
        let mut classes = informers.storage_classes.subscribe();
        loop {
            tokio::select! {
                biased;
                // Every arm waits on a mailbox and takes nothing before it returns.
                () = self.context.stop.cancelled() => return,
                changes = claims.changes() => for change in changes {
                    for claim in [&change.before, &change.now].into_iter().flatten() {
                        let name = claim.str_at("/spec/volumeName");
                        if !name.is_empty() {
                            self.queue.add(Key::Volume(Ref::cluster(name)));
                        }
                    }
                    if let Some(gone) = change.before.filter(|_| change.now.is_none()) {
                        self.told.lock().remove(gone.uid());
                        self.claimed_by(&change.at);
                    }
                    self.queue.add(Key::Claim(change.at));
                },
                changes = volumes.changes() => {
                    for change in changes {
                        for volume in [&change.before, &change.now].into_iter().flatten() {
                            let part = |part: &str| volume.str_at(&format!("/spec/claimRef/{part}")).to_owned();
                            if storage::is_claimed(volume) {
                                self.queue.add(Key::Claim(Ref::new(part("namespace"), part("name"))));
                            }
                        }
                        if let Some(gone) = change.before.filter(|_| change.now.is_none()) {
                            self.told.lock().remove(gone.uid());
                        }
                        self.queue.add(Key::Volume(change.at));
                    }
                    self.queue_waiting();
                }
                _ = classes.changes() => self.queue_waiting(),
            }
        }
    }

    /// The volumes that are set aside for a claim, also where it does not name them.
    fn claimed_by(&self, at: &Ref) {
        for volume in self.context.informers.persistent_volumes.list() {
            let part = |part: &str| volume.str_at(&format!("/spec/claimRef/{part}")).to_owned();
            if part("name") == at.name && part("namespace") == at.namespace {
                self.queue.add(Key::Volume(volume.reference()));
            }
        }
    }

    fn queue_waiting(&self) {
        for claim in self.context.informers.claims.list() {
            if !storage::is_bound(&claim) {
                self.queue.add(Key::Claim(claim.reference()));
            }
        }
    }

    async fn reconcile(&self, key: Key) -> Result<(), ()> {
        let done = match &key {
            Key::Claim(at) => self.claim(at).await,
            Key::Volume(at) => self.volume(at).await,
        };
        match done {
            Ok(()) => Ok(()),
            // The informers are behind; what they bring queues the key again, and so does the back-off.
            Err(error) if error.is_not_found() || error.is_conflict() => {
                debug!(?key, error = %chain(&error), "turn overtaken");
                Err(())
            }
            Err(error) => {
                warn!(?key, error = %chain(&error), "turn failed");
                Err(())
            }
        }
    }

    async fn claim(&self, at: &Ref) -> Result<(), ClientError> {
        let informers = &self.context.informers;
        let Some(claim) = informers.claims.get(at) else { return Ok(()) };
        let volumes = informers.persistent_volumes.list();
        let world =
            World { volumes: &volumes, classes: &informers.storage_classes.list(), nodes: &informers.nodes.list() };
        let turn = plan::claim(&claim, &world);
        self.apply(&claim, turn).await
    }

    async fn volume(&self, at: &Ref) -> Result<(), ClientError> {
        let informers = &self.context.informers;
        let Some(volume) = informers.persistent_volumes.get(at) else { return Ok(()) };
        let part = |part: &str| volume.str_at(&format!("/spec/claimRef/{part}")).to_owned();
        let (place, uid) = (Ref::new(part("namespace"), part("name")), part("uid"));
        let mut claim = informers.claims.get(&place).filter(|claim| claim.uid() == uid);
        if claim.is_none() && !uid.is_empty() {
            // That it is gone is asked of the API, not of a cache that may be behind: data hangs on it.
            let live = self.context.client.named(COMPONENT).find(&PERSISTENT_VOLUME_CLAIM, &place).await?;
            claim = live.filter(|claim| claim.uid() == uid).map(Arc::new);
        }
        let turn = plan::volume(&volume, claim.as_deref(), &self.context.env.clock.now_rfc3339());
        self.apply(&volume, turn).await
    }

    async fn apply(&self, object: &Object, turn: Turn) -> Result<(), ClientError> {
        let client = self.context.client.named(COMPONENT);
        let kind = |object: &Object| match object.kind() {
            "PersistentVolume" => &PERSISTENT_VOLUME,
            _ => &PERSISTENT_VOLUME_CLAIM,
        };
        match turn.write {
            None => {}
            Some(Write::Create(made)) => {
                info!(volume = made.name(), claim = %object.reference(), "volume provisioned");
                match client.create(kind(&made), &made).await {
                    Err(error) if error.is_already_exists() => {}
                    done => drop(done?),
                }
            }
            Some(Write::Update(after)) => drop(client.update(kind(&after), &after).await?),
            Some(Write::Status(after)) => drop(client.update_status(kind(&after), &after).await?),
            Some(Write::Delete { at, uid, resource_version }) => {
                info!(volume = %at, "volume reclaimed");
                let options = DeleteOptions {
                    uid: Some(uid),
                    resource_version: Some(resource_version),
                    ..DeleteOptions::default()
                };
                client.delete(&PERSISTENT_VOLUME, &at, &options).await?;
            }
        }
        if let Some(told) = turn.told {
            let (kind, reason, message) = told.clone();
            if self.told.lock().insert(object.uid().to_owned(), told.clone()) != Some(told) {
                self.recorder.record(&Subject::of(object), kind, reason, message);
            }
        }
        Ok(())
    }
}
