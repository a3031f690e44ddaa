//! The folders of the built-in provisioner that are not needed any more: a volume whose object is on its way out waits, by a
//! finalizer, for its node to take the folder away.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gantry_client::{ClientError, Informer, Patch, Scope, WorkQueue, run_workers};
use gantry_env::chain;
use gantry_kube::resource::PERSISTENT_VOLUME;
use gantry_kube::{Object, Ref, storage};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{VolumeError, remove};
use crate::shared::Shared;

const WORKERS: usize = 1;
/// A pod that still has the folder is given so long to end before it is looked for again.
const IN_USE_FOR: Duration = Duration::from_secs(1);

/// What is to be done about a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Stays,
    /// Its folder goes, then its finalizer; a folder that is to be kept, or is not below ours, stays.
    Goes(Option<PathBuf>),
}

/// `folder` is the volume's folder, where that is one of ours.
fn judge(volume: &Object, folder: Option<PathBuf>) -> Verdict {
    let holds = |finalizer: &str| volume.finalizers().any(|known| known == finalizer);
    // While a claim is bound to it, its data may be in use.
    if volume.deletion_timestamp().is_none() || !holds(storage::LOCAL_PATH) || holds(storage::VOLUME_PROTECTION) {
        return Verdict::Stays;
    }
    Verdict::Goes(folder.filter(|_| volume.str_at("/spec/persistentVolumeReclaimPolicy") == "Delete"))
}

fn release(volume: &Object) -> Patch {
    let kept: Vec<&str> = volume.finalizers().filter(|finalizer| *finalizer != storage::LOCAL_PATH).collect();
    let version = volume.resource_version();
    Patch::Merge(json!({"metadata": {"uid": volume.uid(), "resourceVersion": version, "finalizers": kept}}))
}

pub async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let scope = Scope {
        label_selector: format!("{}={}", storage::LOCAL_PATH_NODE, shared.config.node_name),
        ..Scope::default()
    };
    let (client, env) = (shared.client.clone(), shared.env.clone());
    let volumes = Informer::spawn(client, &PERSISTENT_VOLUME, scope, env, stop.clone(), |object| object);
    let queue: WorkQueue<Ref> = WorkQueue::new();
    let (feed, mut changes, ears) = (queue.clone(), volumes.subscribe(), stop.clone());
    tokio::spawn(async move {
        while let Some(changes) = ears.run_until_cancelled(changes.changes()).await {
            changes.into_iter().for_each(|change| feed.add(change.at));
        }
    });
    let again = queue.clone();
    run_workers(queue, WORKERS, stop, move |at: Ref| {
        let (shared, volumes, again) = (shared.clone(), volumes.clone(), again.clone());
        async move {
            let Some(volume) = volumes.get(&at) else { return Ok(()) };
            match turn(&shared, &volume).await {
                Ok(true) => Ok(()),
                Ok(false) => {
                    again.add_after(at, IN_USE_FOR);
                    Ok(())
                }
                Err(error) => {
                    warn!(volume = %at, error = %error, "volume not reclaimed");
                    Err(())
                }
            }
        }
    })
    .await;
}

/// False where the folder is still in use.
async fn turn(shared: &Arc<Shared>, volume: &Object) -> Result<bool, String> {
    let Verdict::Goes(folder) = judge(volume, shared.volumes.own_folder(volume)) else { return Ok(true) };
    if let Some(folder) = folder {
        if shared.volumes.is_in_use(&folder).map_err(|error| chain(&error))? {
            return Ok(false);
        }
        let path = folder.clone();
        let removed = tokio::task::spawn_blocking(move || remove(&path)).await;
        removed.map_err(|error| error.to_string())?.map_err(|error: VolumeError| chain(&error))?;
        info!(volume = volume.name(), folder = %folder.display(), "folder of a volume removed");
    }
    match shared.client.patch(&PERSISTENT_VOLUME, &volume.reference(), "", release(volume)).await {
        Err(error) if !error.is_not_found() => Err(words(&error)),
        _ => Ok(true),
    }
}

fn words(error: &ClientError) -> String {
    error.status().map_or_else(|| chain(error), |status| status.message.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(deleting: bool, finalizers: &[&str], policy: &str) -> Object {
        let mut metadata = json!({"name": "v", "finalizers": finalizers});
        if deleting {
            metadata["deletionTimestamp"] = json!("t");
        }
        let spec = json!({"persistentVolumeReclaimPolicy": policy});
        Object::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    #[test]
    fn a_folder_goes_only_when_its_volume_does_and_its_policy_says_so() {
        let both = [storage::VOLUME_PROTECTION, storage::LOCAL_PATH];
        let own = [storage::LOCAL_PATH];
        let folder = || Some(PathBuf::from("/volumes/v"));
        for (volume, verdict) in [
            (volume(false, &own, "Delete"), Verdict::Stays),
            (volume(true, &both, "Delete"), Verdict::Stays),
            (volume(true, &["x/y"], "Delete"), Verdict::Stays),
            (volume(true, &own, "Delete"), Verdict::Goes(folder())),
            (volume(true, &own, "Retain"), Verdict::Goes(None)),
        ] {
            assert_eq!(judge(&volume, folder()), verdict, "{volume:?}");
        }
        assert_eq!(judge(&volume(true, &own, "Delete"), None), Verdict::Goes(None), "a folder elsewhere is not ours");
    }
}
