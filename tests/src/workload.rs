//! What runs in a cluster under test, so that whoever lost something can be told: containers that count into their logs.

use crate::cluster::{Cluster, IMAGE};

/// A container that counts, and says when it is asked to end.
pub const COUNTS: &str = "i=0; trap 'echo ended; exit 0' TERM; while :; do echo $i; i=$((i+1)); sleep 0.05; done";

/// A Deployment of counters.
pub fn counters(replicas: usize) -> String {
    format!(
        "---\n{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: counters}}, spec: {{replicas: {replicas}, \
         selector: {{matchLabels: {{app: counters}}}}, template: {{metadata: {{labels: {{app: counters}}}}, spec: {{\
         terminationGracePeriodSeconds: 1, containers: [{{name: main, image: \"{IMAGE}\", \
         command: [sh, -c, {COUNTS:?}]}}]}}}}}}}}"
    )
}

pub async fn all_run(cluster: &Cluster<'_>, count: usize) {
    let kubectl = cluster.kubectl();
    cluster
        .until(&format!("{count} counters run"), async || {
            let pods = kubectl.run(&["get", "pods", "-l", "app=counters", "--no-headers"]).await.unwrap_or_default();
            pods.lines().count() == count && pods.lines().all(|l| l.contains("1/1") && l.contains("Running"))
        })
        .await;
}

/// No number is missing and none comes twice, in what the API serves of each log.
pub async fn logs_are_whole(cluster: &Cluster<'_>) {
    let kubectl = cluster.kubectl();
    let names = kubectl.must(&["get", "pods", "-l", "app=counters", "-o", "jsonpath={.items[*].metadata.name}"]).await;
    for name in names.split(' ') {
        let log = kubectl.must(&["logs", name]).await;
        for (i, line) in log.lines().enumerate() {
            assert_eq!(line, i.to_string(), "of pod {name}");
        }
    }
}

pub async fn restarts(cluster: &Cluster<'_>) -> String {
    let path = "jsonpath={.items[*].status.containerStatuses[*].restartCount}";
    cluster.kubectl().must(&["get", "pods", "-l", "app=counters", "-o", path]).await
}

/// A number that who runs the test may choose: `GANTRY_FAULT_SEED` replays a run, `GANTRY_FAULT_ROUNDS` makes it longer.
pub fn setting(name: &str, or: u64) -> u64 {
    std::env::var(name).ok().map_or(or, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}
