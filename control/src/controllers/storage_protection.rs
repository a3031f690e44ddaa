//! What is in use does not go: a claim stays while a pod that was given a node uses it, a volume while a claim is bound to
//! it. Both carry a finalizer from their birth, which goes here.

use std::sync::Arc;

use gantry_client::{ClientError, Query, WorkQueue, run_workers};
use gantry_env::chain;
use gantry_kube::resource::{PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, POD};
use gantry_kube::storage::{CLAIM_PROTECTION, VOLUME_PROTECTION};
use gantry_kube::{Object, Ref};
use serde_json::json;
use tracing::{debug, warn};

use super::Context;
use super::informers::Pod;

const WORKERS: usize = 2;

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key {
    Claim(Ref),
    Volume(Ref),
}

/// The object without the finalizer that protects it, where it is on its way out and nobody needs it.
fn release(object: &Object, finalizer: &str, in_use: bool) -> Option<Object> {
    let held = object.finalizers().any(|known| known == finalizer);
    if object.deletion_timestamp().is_none() || !held || in_use {
        return None;
    }
    let kept: Vec<&str> = object.finalizers().filter(|known| *known != finalizer).collect();
    let kept = json!(kept);
    let mut after = object.clone();
    after.metadata_mut().insert("finalizers".to_owned(), kept);
    Some(after)
}

/// Whether a pod has been given a node with this claim. One that has ended still counts: it is there.
fn uses(pod: &Pod, claim: &str) -> bool {
    !pod.node.is_empty() && pod.claims.iter().any(|used| used.claim == claim)
}

struct Protection {
    context: Context,
    queue: WorkQueue<Key>,
}

pub async fn run(context: Context) {
    context.informers.claims.synced().await;
    context.informers.persistent_volumes.synced().await;
    context.informers.pods.synced().await;
    let this = Arc::new(Protection { queue: WorkQueue::new(), context });
    let (queue, stop) = (this.queue.clone(), this.context.stop.clone());
    tokio::spawn(this.clone().feed());
    run_workers(queue, WORKERS, stop, move |key| {
        let this = this.clone();
        async move { this.reconcile(key).await }
    })
    .await;
}

impl Protection {
    async fn feed(self: Arc<Self>) {
        let informers = &self.context.informers;
        let mut claims = informers.claims.subscribe();
        let mut volumes = informers.persistent_volumes.subscribe();
        let mut pods = informers.pods.subscribe();
        loop {
            tokio::select! {
                biased;
                // Every arm waits on a mailbox and takes nothing before it returns.
                () = self.context.stop.cancelled() => return,
                changes = claims.changes() => {
                    changes.into_iter().for_each(|change| self.queue.add(Key::Claim(change.at)));
                }
                changes = volumes.changes() => {
                    changes.into_iter().for_each(|change| self.queue.add(Key::Volume(change.at)));
                }
                changes = pods.changes() => for change in changes {
                    let replaced = |before: &Pod| change.now.as_ref().is_none_or(|now| now.uid != before.uid);
                    if let Some(gone) = change.before.as_ref().filter(|before| replaced(before)) {
                        for used in &gone.claims {
                            self.queue.add(Key::Claim(Ref::new(change.at.namespace.as_str(), used.claim.as_str())));
                        }
                    }
                }
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
        let known = informers.pods.list_namespace(&at.namespace).iter().any(|pod| uses(pod, &at.name));
        if release(&claim, CLAIM_PROTECTION, known).is_none() {
            return Ok(());
        }
        // The cache may be behind: a pod may have been given its node a moment ago.
        let client = self.context.client.named("pvc-protection-controller");
        let pods = client.list(&POD, Some(&at.namespace), &Query::default()).await?.items;
        let used = pods.into_iter().map(Pod::project).any(|pod| uses(&pod, &at.name));
        match release(&claim, CLAIM_PROTECTION, used) {
            Some(after) => client.update(&PERSISTENT_VOLUME_CLAIM, &after).await.map(drop),
            None => Ok(()),
        }
    }

    async fn volume(&self, at: &Ref) -> Result<(), ClientError> {
        let Some(volume) = self.context.informers.persistent_volumes.get(at) else { return Ok(()) };
        let bound = volume.str_at("/status/phase") == "Bound";
        match release(&volume, VOLUME_PROTECTION, bound) {
            Some(after) => {
                let client = self.context.client.named("pv-protection-controller");
                client.update(&PERSISTENT_VOLUME, &after).await.map(drop)
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(deleting: bool, finalizers: &[&str]) -> Object {
        let mut metadata = json!({"name": "data", "namespace": "a", "finalizers": finalizers});
        if deleting {
            metadata["deletionTimestamp"] = json!("t");
        }
        Object::from_value(json!({ "metadata": metadata })).unwrap()
    }

    #[test]
    fn only_what_goes_and_is_not_used_is_released() {
        let finalizers = ["x/y", CLAIM_PROTECTION];
        assert_eq!(release(&claim(false, &finalizers), CLAIM_PROTECTION, false), None);
        assert_eq!(release(&claim(true, &finalizers), CLAIM_PROTECTION, true), None);
        let after = release(&claim(true, &finalizers), CLAIM_PROTECTION, false).unwrap();
        assert_eq!(after.finalizers().collect::<Vec<_>>(), ["x/y"]);
        assert_eq!(release(&after, CLAIM_PROTECTION, false), None);
    }

    #[test]
    fn a_pod_without_a_node_uses_nothing_yet() {
        let pod = |node: &str| {
            let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]);
            let spec = json!({"nodeName": node, "volumes": volumes});
            Pod::project(Object::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap())
        };
        assert!(uses(&pod("n"), "data") && !uses(&pod("n"), "other") && !uses(&pod(""), "data"));
    }
}
