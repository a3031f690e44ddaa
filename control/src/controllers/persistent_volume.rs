//! PersistentVolumes and the claims to them: each claim gets a volume of its own, and a volume whose claim is gone is
//! reclaimed as its policy says.

mod local_path;
pub mod plan;
#[cfg(test)]
mod scenario;
mod waiting;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use gantry_client::{Change, Client, ClientError, DeleteOptions};
use gantry_kube::resource::{PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM};
use gantry_kube::{Object, Ref};
use parking_lot::Mutex;
use tracing::info;

use super::events::Subject;
use super::frame::{Controller, Frame, sides};
use super::{Context, Informers, Recorder};
use plan::{Turn, World, Write};
use waiting::Waiting;

const COMPONENT: &str = "persistentvolume-controller";
/// One at a time: of two claims in need of a volume, the second is to see that the first has taken one.
const WORKERS: usize = 1;

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key {
    Claim(Ref),
    Volume(Ref),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Claim(at) => write!(f, "claim {at}"),
            Key::Volume(at) => write!(f, "volume {at}"),
        }
    }
}

struct Binder {
    context: Context,
    client: Client,
    recorder: Recorder,
    waiting: Mutex<Waiting>,
}

pub async fn run(context: Context) {
    let (informers, frame) = (context.informers.clone(), Frame::new(COMPONENT, &context));
    let (client, recorder) = (context.client.named(COMPONENT), context.recorder(COMPONENT));
    let this = Arc::new(Binder { context, client, recorder, waiting: Mutex::default() });
    let (of_claims, of_volumes, of_classes) = (this.clone(), this.clone(), this.clone());
    let frame = frame
        .reads(&informers.nodes)
        .hears(&informers.claims, move |change| of_claims.claim_changed(change))
        .hears(&informers.persistent_volumes, move |change| of_volumes.volume_changed(&change))
        .hears(&informers.storage_classes, move |change| {
            let waiting = of_classes.waiting.lock();
            waiting.of_class(&change.at.name).into_iter().map(Key::Claim).collect::<Vec<Key>>()
        });
    frame.run(WORKERS, this).await;
}

/// The claim that a volume is set aside for.
fn claimed_by(volume: &Object) -> Ref {
    Ref::new(volume.str_at("/spec/claimRef/namespace"), volume.str_at("/spec/claimRef/name"))
}

impl Binder {
    fn claim_changed(&self, change: Change<Object>) -> Vec<Key> {
        self.waiting.lock().note(&change.at, change.before.as_deref(), change.now.as_deref());
        let names = sides(&change).map(|claim| claim.str_at("/spec/volumeName"));
        let mut concerned: Vec<Key> =
            names.filter(|name| !name.is_empty()).map(|name| Key::Volume(Ref::cluster(name))).collect();
        if change.now.is_none() {
            // Those that are set aside for it, also where it did not name them.
            let volumes = self.context.informers.persistent_volumes.list();
            let set_aside = volumes.iter().filter(|volume| claimed_by(volume) == change.at);
            concerned.extend(set_aside.map(|volume| Key::Volume(volume.reference())));
        }
        concerned.push(Key::Claim(change.at));
        concerned
    }

    /// The volume, the claims that it was and is set aside for, and those that may take it.
    fn volume_changed(&self, change: &Change<Object>) -> Vec<Key> {
        let waiting = self.waiting.lock();
        let claims = sides(change).flat_map(|volume| waiting.for_volume(volume));
        [Key::Volume(change.at.clone())].into_iter().chain(claims.map(Key::Claim)).collect()
    }
}

impl Controller for Binder {
    type Key = Key;

    async fn turn(&self, key: &Key, _again: &mut Option<Duration>) -> Result<(), ClientError> {
        match key {
            Key::Claim(at) => self.claim(at).await,
            Key::Volume(at) => self.volume(at).await,
        }
    }
}

impl World for Informers {
    fn volume(&self, name: &str) -> Option<Arc<Object>> {
        self.persistent_volumes.get(&Ref::cluster(name))
    }

    fn volumes(&self) -> Vec<Arc<Object>> {
        self.persistent_volumes.list()
    }

    fn class(&self, name: &str) -> Option<Arc<Object>> {
        self.storage_classes.get(&Ref::cluster(name))
    }

    fn classes(&self) -> Vec<Arc<Object>> {
        self.storage_classes.list()
    }

    fn node(&self, name: &str) -> Option<Arc<Object>> {
        self.nodes.get(&Ref::cluster(name))
    }
}

impl Binder {
    async fn claim(&self, at: &Ref) -> Result<(), ClientError> {
        let informers = &self.context.informers;
        let Some(claim) = informers.claims.get(at) else { return Ok(()) };
        self.apply(&claim, plan::claim(&claim, informers)).await
    }

    async fn volume(&self, at: &Ref) -> Result<(), ClientError> {
        let informers = &self.context.informers;
        let Some(volume) = informers.persistent_volumes.get(at) else { return Ok(()) };
        let (place, uid) = (claimed_by(&volume), volume.str_at("/spec/claimRef/uid"));
        let mut claim = informers.claims.get(&place).filter(|claim| claim.uid() == uid);
        if claim.is_none() && !uid.is_empty() {
            // That it is gone is asked of the API, not of a cache that may be behind: data hangs on it.
            let live = self.client.find(&PERSISTENT_VOLUME_CLAIM, &place).await?;
            claim = live.filter(|claim| claim.uid() == uid).map(Arc::new);
        }
        let turn = plan::volume(&volume, claim.as_deref(), &self.context.env.clock.now_rfc3339());
        self.apply(&volume, turn).await
    }

    async fn apply(&self, object: &Object, turn: Turn) -> Result<(), ClientError> {
        let client = &self.client;
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
        if let Some((kind, reason, message)) = turn.told {
            self.recorder.record(&Subject::of(object), kind, reason, message);
        }
        Ok(())
    }
}
