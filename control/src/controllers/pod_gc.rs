//! Pods that nobody will ever finish: bound to a node that is gone, or terminating without ever having been bound; and the
//! oldest finished ones where there are too many.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gantry_client::{DeleteOptions, Patch};
use gantry_env::chain;
use gantry_kube::{Ref, resource};
use serde_json::json;
use tracing::{info, warn};

use super::Context;
use super::informers::Pod;

const EVERY: Duration = Duration::from_secs(20);
/// Finished pods are kept up to this many, as upstream's default has it.
const FINISHED_MAX: usize = 12_500;
/// A node may be written a moment after its pod: only one that is missing for so long is gone.
const NODE_MISSING_TURNS: u32 = 2;

#[derive(Clone, Debug, PartialEq)]
struct Doomed {
    at: Ref,
    uid: String,
    why: &'static str,
    /// A pod that still says it runs is first told Failed, so that its owner and its readers know.
    fail_first: bool,
}

fn plan(pods: &[Arc<Pod>], gone_nodes: &BTreeSet<String>, finished_max: usize) -> Vec<Doomed> {
    let doom = |pod: &Pod, why| Doomed { at: pod.reference(), uid: pod.uid.clone(), why, fail_first: !pod.finished() };
    let mut doomed = Vec::new();
    for pod in pods {
        if gone_nodes.contains(&pod.node) {
            doomed.push(doom(pod, "its node is gone"));
        } else if pod.deleting && pod.node.is_empty() && !pod.finalizers {
            doomed.push(doom(pod, "it was deleted before it was bound"));
        }
    }
    let mut finished: Vec<&Arc<Pod>> = pods.iter().filter(|p| p.finished() && !p.deleting).collect();
    if finished.len() > finished_max {
        finished.sort_by(|a, b| a.created.cmp(&b.created));
        let surplus = finished.len() - finished_max;
        doomed.extend(finished[..surplus].iter().map(|pod| doom(pod, "too many finished pods")));
    }
    doomed
}

pub async fn run(context: Context) {
    context.informers.pods.synced().await;
    context.informers.nodes.synced().await;
    let mut missing: std::collections::BTreeMap<String, u32> = std::collections::BTreeMap::new();
    let mut ticks = tokio::time::interval(EVERY);
    while context.stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let pods = context.informers.pods.list();
        let nodes: BTreeSet<&str> = pods.iter().map(|p| p.node.as_str()).filter(|n| !n.is_empty()).collect();
        let absent = |name: &&str| context.informers.nodes.get(&Ref::cluster(*name)).is_none();
        missing = nodes
            .into_iter()
            .filter(absent)
            .map(|n| (n.to_owned(), missing.get(n).copied().unwrap_or(0) + 1))
            .collect();
        let gone: BTreeSet<String> =
            missing.iter().filter(|(_, turns)| **turns >= NODE_MISSING_TURNS).map(|(n, _)| n.clone()).collect();
        for pod in plan(&pods, &gone, FINISHED_MAX) {
            remove(&context, pod).await;
        }
    }
}

async fn remove(context: &Context, pod: Doomed) {
    let client = context.client.named("pod-garbage-collector");
    if pod.fail_first {
        let patch = json!({"metadata": {"uid": pod.uid}, "status": {"phase": "Failed", "reason": "NodeLost", "message": pod.why}});
        if let Err(error) = client.patch(&resource::POD, &pod.at, "status", Patch::Strategic(patch)).await
            && !error.is_not_found()
        {
            warn!(pod = %pod.at, error = %chain(&error), "pod not failed");
        }
    }
    let options = DeleteOptions { uid: Some(pod.uid), grace_period_seconds: Some(0), ..DeleteOptions::default() };
    match client.delete(&resource::POD, &pod.at, &options).await {
        Ok(()) => info!(pod = %pod.at, why = pod.why, "pod collected"),
        Err(error) if error.is_not_found() || error.is_conflict() => {}
        Err(error) => warn!(pod = %pod.at, error = %chain(&error), "pod not collected"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, node: &str, phase: &str, deleting: bool) -> Arc<Pod> {
        Arc::new(Pod {
            at: Some(Ref::new("a", name)),
            uid: name.into(),
            node: node.into(),
            phase: phase.into(),
            deleting,
            created: name.into(),
            ..Pod::default()
        })
    }

    #[test]
    fn only_what_nobody_else_finishes_goes() {
        let pods = [
            pod("lost", "gone", "Running", false),
            pod("well", "n1", "Running", false),
            pod("never-bound", "", "Pending", true),
            pod("ending", "n1", "Running", true),
            pod("done-1", "n1", "Succeeded", false),
            pod("done-2", "n1", "Failed", false),
        ];
        let doomed = plan(&pods, &BTreeSet::from(["gone".to_owned()]), 1);
        assert_eq!(doomed.iter().map(|d| d.uid.as_str()).collect::<Vec<_>>(), ["lost", "never-bound", "done-1"]);
        assert!(doomed[0].fail_first);
    }
}
