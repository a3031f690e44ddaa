//! The ears of the agent: what the runtime says as it happens, a relist for what was missed, and the manifest folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use gantry_env::chain;
use gantry_kube::Object;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::runtime::{Held, POD_UID_LABEL, Runtime};
use crate::source::files;

const RELIST: Duration = Duration::from_secs(10);
const RECONNECT: Duration = Duration::from_secs(1);
const MANIFESTS_EVERY: Duration = Duration::from_secs(2);

/// Tells the uid of every pod of which the runtime says something.
pub async fn events(runtime: Runtime, touched: mpsc::Sender<String>) {
    loop {
        match runtime.events().await {
            Ok(mut stream) => loop {
                match stream.message().await {
                    Ok(Some(event)) => {
                        let Some(uid) = uid_of(&event) else { continue };
                        if touched.send(uid).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => break,
                    Err(status) => {
                        debug!(error = %chain(&status), "the runtime's events broke off");
                        break;
                    }
                }
            },
            Err(error) => debug!(error = %chain(&error), "no events from the runtime"),
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

fn uid_of(event: &gantry_cri::v1::ContainerEventResponse) -> Option<String> {
    let sandbox = event.pod_sandbox_status.as_ref();
    let by_metadata = sandbox.and_then(|s| s.metadata.as_ref()).map(|m| m.uid.clone());
    let by_label = || event.containers_statuses.iter().find_map(|c| c.labels.get(POD_UID_LABEL).cloned());
    by_metadata.filter(|uid| !uid.is_empty()).or_else(by_label)
}

/// Lists everything now and then, for events that were missed.
pub async fn relist(runtime: Runtime, held: mpsc::Sender<Vec<Held>>) {
    let mut ticks = tokio::time::interval(RELIST);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match runtime.held().await {
            Ok(list) => {
                if held.send(list).await.is_err() {
                    return;
                }
            }
            Err(error) => warn!(error = %chain(&error), "pods of the runtime not listed"),
        }
    }
}

/// Tells the pods of the folder whenever they have changed, and once at the start.
pub async fn manifests(folder: PathBuf, node_name: String, found: mpsc::Sender<BTreeMap<String, Object>>) {
    let mut ticks = tokio::time::interval(MANIFESTS_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told: Option<files::Manifests> = None;
    let mut complaints = BTreeSet::new();
    loop {
        ticks.tick().await;
        let (pods, problems) = match files::scan(&folder, &node_name, told.as_ref()) {
            Ok((pods, left_out)) => (Some(pods), left_out.iter().map(|error| chain(error)).collect()),
            Err(error) => (None, BTreeSet::from([format!("cannot list {}: {error}", folder.display())])),
        };
        // Each is said once, and again when it comes back.
        for problem in problems.difference(&complaints) {
            warn!(error = problem, "static pods left as they are");
        }
        complaints = problems;
        let Some(pods) = pods.filter(|pods| told.as_ref() != Some(pods)) else { continue };
        let by_uid = pods.values().map(|pod| (pod.uid().to_owned(), pod.clone())).collect();
        if found.send(by_uid).await.is_err() {
            return;
        }
        told = Some(pods);
    }
}
