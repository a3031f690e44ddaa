//! What is in use does not go: a claim stays while a pod that was given a node uses it, a volume while a claim is bound to
//! it or its folder is on a node. Claims and volumes carry finalizers for that from their birth; the first two go here.
//!
//! The third, of the folder, is the node's to take away (`agent/src/volume/reclaim.rs`). Only where its Node object is gone,
//! and stays so, is it taken away here: nobody else ever would.

pub mod plan;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use gantry_client::{Change, ClientError, Query};
use gantry_kube::resource::{NODE, PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, POD};
use gantry_kube::storage::LOCAL_PATH_NODE;
use gantry_kube::{Object, Ref};
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::warn;

use super::events::Subject;
use super::frame::{Controller, Frame};
use super::informers::Pod;
use super::{Context, Recorder};
use plan::Hold;

const CLAIMS: &str = "pvc-protection-controller";
const VOLUMES: &str = "pv-protection-controller";
const WORKERS: usize = 2;
/// A node whose object somebody deleted registers anew while it runs: only one that is missing for so long is gone.
const MISSING_FOR: Duration = Duration::from_secs(60);

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

struct Protection {
    context: Context,
    recorder: Recorder,
    /// Since when nodes are missing that have folders of volumes on their way out.
    missing: Mutex<BTreeMap<String, Instant>>,
}

pub async fn run(context: Context) {
    let (informers, recorder) = (context.informers.clone(), context.recorder(VOLUMES));
    let frame = Frame::new(VOLUMES, &context);
    let this = Arc::new(Protection { context, recorder, missing: Mutex::default() });
    let of_nodes = this.clone();
    let frame = frame
        .hears(&informers.claims, |change| [Key::Claim(change.at)])
        .hears(&informers.persistent_volumes, |change| [Key::Volume(change.at)])
        .hears(&informers.pods, left)
        .hears(&informers.nodes, move |change| of_nodes.kept_by(&change));
    frame.run(WORKERS, this).await;
}

/// The claims of a pod that is gone, or has another in its place.
fn left(change: Change<Pod>) -> Vec<Key> {
    let replaced = |before: &Pod| change.now.as_ref().is_none_or(|now| now.uid != before.uid);
    let Some(gone) = change.before.as_ref().filter(|before| replaced(before)) else { return Vec::new() };
    let claim = |name: &str| Key::Claim(Ref::new(change.at.namespace.as_str(), name));
    gone.claims.iter().map(|used| claim(&used.claim)).collect()
}

impl Controller for Protection {
    type Key = Key;

    async fn turn(&self, key: &Key, again: &mut Option<Duration>) -> Result<(), ClientError> {
        match key {
            Key::Claim(at) => self.claim(at).await,
            Key::Volume(at) => self.volume(at, again).await,
        }
    }
}

impl Protection {
    /// The volumes that have their folders on a node that is gone.
    fn kept_by(&self, change: &Change<Object>) -> Vec<Key> {
        if change.now.is_some() {
            self.missing.lock().remove(&change.at.name);
            return Vec::new();
        }
        let volumes = self.context.informers.persistent_volumes.list();
        let theirs = volumes.iter().filter(|volume| volume.label(LOCAL_PATH_NODE) == Some(&change.at.name));
        theirs.map(|volume| Key::Volume(volume.reference())).collect()
    }

    async fn claim(&self, at: &Ref) -> Result<(), ClientError> {
        let informers = &self.context.informers;
        let Some(claim) = informers.claims.get(at) else { return Ok(()) };
        let known = informers.pods.list_namespace(&at.namespace);
        if plan::claim(&claim, known.iter().map(Arc::as_ref)).is_none() {
            return Ok(());
        }
        // The cache may be behind: a pod may have been given its node a moment ago.
        let client = self.context.client.named(CLAIMS);
        let pods = client.list(&POD, Some(&at.namespace), &Query::default()).await?.items;
        let pods: Vec<Pod> = pods.into_iter().map(Pod::project).collect();
        match plan::claim(&claim, pods.iter()) {
            Some(after) => client.update(&PERSISTENT_VOLUME_CLAIM, &after).await.map(drop),
            None => Ok(()),
        }
    }

    async fn volume(&self, at: &Ref, again: &mut Option<Duration>) -> Result<(), ClientError> {
        let Some(volume) = self.context.informers.persistent_volumes.get(at) else { return Ok(()) };
        let client = self.context.client.named(VOLUMES);
        let after = match plan::volume(&volume) {
            Hold::Stays => return Ok(()),
            Hold::Released(after) => after,
            Hold::Folder { node, after } => {
                if let Some(wait) = self.missing_for(&node) {
                    *again = wait;
                    return Ok(());
                }
                // The cache may be behind, and whoever takes the folder for gone does not look for it again.
                if client.find(&NODE, &Ref::cluster(node.as_str())).await?.is_some() {
                    return Ok(());
                }
                warn!(volume = %at, node, "node is gone, its volume is let go");
                let message = format!("node {node:?} is gone: what the volume left there is not waited for");
                self.recorder.record(&Subject::of(&volume), "Warning", "NodeGone", message);
                after
            }
        };
        client.update(&PERSISTENT_VOLUME, &after).await.map(drop)
    }

    /// `None` where the node has been missing for long enough; else when to look again, if ever without a change.
    fn missing_for(&self, node: &str) -> Option<Option<Duration>> {
        if self.context.informers.nodes.get(&Ref::cluster(node)).is_some() {
            return Some(None);
        }
        let since = *self.missing.lock().entry(node.to_owned()).or_insert_with(Instant::now);
        let left = MISSING_FOR.saturating_sub(since.elapsed());
        (!left.is_zero()).then_some(Some(left))
    }
}

#[cfg(test)]
mod tests {
    use super::super::house::House;
    use super::*;
    use gantry_client::DeleteOptions;
    use gantry_kube::storage::LOCAL_PATH;
    use serde_json::json;

    async fn node(house: &House) -> Ref {
        house.make(&NODE, json!({"metadata": {"name": "n"}})).await.reference()
    }

    /// A volume on its way out that waits for node n, where no agent runs.
    async fn leaving(house: &House, name: &str) -> Ref {
        let metadata = json!({"name": name, "labels": {LOCAL_PATH_NODE: "n"}, "finalizers": [LOCAL_PATH]});
        let term = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]});
        let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "local": {"path": "/x"},
            "persistentVolumeReclaimPolicy": "Delete", "storageClassName": "local-path",
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}}});
        let at = house.make(&PERSISTENT_VOLUME, volume).await.reference();
        house.admin().delete(&PERSISTENT_VOLUME, &at, &DeleteOptions::default()).await.unwrap();
        at
    }

    #[tokio::test(start_paused = true)]
    async fn a_volume_waits_for_its_node_while_there_is_one() {
        let house = House::new().await;
        let at = node(&house).await;
        let volume = leaving(&house, "v").await;
        tokio::spawn(run(house.context()));
        tokio::time::sleep(10 * MISSING_FOR).await;
        assert!(house.has(&PERSISTENT_VOLUME, &volume).await, "the node is there");
        // One that comes back in time was not gone.
        house.admin().delete(&NODE, &at, &DeleteOptions::default()).await.unwrap();
        tokio::time::sleep(MISSING_FOR / 2).await;
        node(&house).await;
        tokio::time::sleep(10 * MISSING_FOR).await;
        assert!(house.has(&PERSISTENT_VOLUME, &volume).await, "the node is there again");

        house.admin().delete(&NODE, &at, &DeleteOptions::default()).await.unwrap();
        tokio::time::sleep(MISSING_FOR / 2).await;
        assert!(house.has(&PERSISTENT_VOLUME, &volume).await, "the node may come back");
        tokio::time::sleep(MISSING_FOR).await;
        assert!(!house.has(&PERSISTENT_VOLUME, &volume).await, "nobody else would let it go");
        let events =
            house.admin().list(&gantry_kube::resource::EVENT, Some("default"), &Query::default()).await.unwrap();
        let told = events.items.iter().find(|event| event.str_at("/reason") == "NodeGone").unwrap();
        assert_eq!(told.str_at("/involvedObject/name"), "v");
        assert!(told.str_at("/message").contains("\"n\" is gone"), "{told:?}");
    }
}
