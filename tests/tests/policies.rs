//! What a cluster's owners set for those who work in it, as the stock kubectl meets it: disruption budgets.

use gantry_tests::cluster::{Cluster, IMAGE, NODE, with};
use gantry_tests::kubectl::Kubectl;

#[test]
fn a_drain_respects_budgets() {
    with(async |machine| {
        let cluster = Cluster::up(machine).await;
        for kubectl in Kubectl::every(&machine.kubeconfig()) {
            drain(&cluster, &kubectl).await;
        }
        cluster.uninstall().await;
    });
}

/// kubectl in a namespace of its own.
struct Room<'a> {
    cluster: &'a Cluster<'a>,
    kubectl: &'a Kubectl,
    namespace: &'static str,
}

impl<'a> Room<'a> {
    async fn new(cluster: &'a Cluster<'a>, kubectl: &'a Kubectl, namespace: &'static str) -> Room<'a> {
        kubectl.must(&["create", "namespace", namespace]).await;
        Room { cluster, kubectl, namespace }
    }

    async fn run(&self, line: &str) -> Result<String, String> {
        let arguments: Vec<&str> = ["-n", self.namespace].into_iter().chain(line.split(' ')).collect();
        self.kubectl.run(&arguments).await
    }

    async fn must(&self, line: &str) -> String {
        self.run(line).await.unwrap_or_else(|error| panic!("kubectl {line}: {error}"))
    }

    async fn apply(&self, manifest: &str) -> Result<String, String> {
        self.kubectl.with_input(&["-n", self.namespace, "apply", "-f", "-"], &format!("---\n{manifest}")).await
    }

    async fn field(&self, what: &str, path: &str) -> String {
        self.run(&format!("get {what} -o jsonpath={{{path}}}")).await.unwrap_or_default()
    }

    async fn until(&self, what: &str, path: &str, wanted: &str) {
        let name = format!("{path} of {what} is {wanted}");
        self.cluster.until(&name, async || self.field(what, path).await == wanted).await;
    }

    async fn leave(self) {
        self.kubectl.must(&["delete", "namespace", self.namespace, "--timeout=60s"]).await;
    }
}

const STAYS: &str = "trap exit TERM; while :; do sleep 0.1; done";

fn template(app: &str) -> String {
    format!(
        "{{metadata: {{labels: {{app: {app}}}}}, spec: {{terminationGracePeriodSeconds: 1, containers: [{{name: main, \
         image: \"{IMAGE}\", command: [sh, -c, {STAYS:?}]}}]}}}}"
    )
}

/// Two web servers of which one must stay, and a daemon.
async fn drain(cluster: &Cluster<'_>, kubectl: &Kubectl) {
    let room = Room::new(cluster, kubectl, "drained").await;
    let refused = room.apply(
        "{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: web}, spec: {minAvailable: 1, maxUnavailable: 1}}",
    );
    let refused = refused.await.unwrap_err();
    assert!(refused.contains("minAvailable and maxUnavailable cannot be both set"), "{refused}");
    for (kind, app, more) in [("Deployment", "web", "replicas: 2, "), ("DaemonSet", "daemon", "")] {
        let template = template(app);
        room.apply(&format!(
            "{{apiVersion: apps/v1, kind: {kind}, metadata: {{name: {app}}}, spec: {{{more}selector: {{matchLabels: \
             {{app: {app}}}}}, template: {template}}}}}"
        ))
        .await
        .unwrap();
    }
    room.must("rollout status deployment/web --timeout=60s").await;
    room.must("rollout status ds/daemon --timeout=60s").await;
    if kubectl.name() == "kubectl-1.20" {
        // What it would create is of a version that is no more.
        room.apply(
            "{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: web}, spec: {minAvailable: 50%, \
             selector: {matchLabels: {app: web}}}}",
        )
        .await
        .unwrap();
    } else {
        room.must("create pdb web --selector=app=web --min-available=50%").await;
    }
    room.until("pdb/web", ".status.disruptionsAllowed", "1").await;
    let row = room.must("get pdb web --no-headers").await;
    assert_eq!(row.split_whitespace().collect::<Vec<_>>()[..4], ["web", "50%", "N/A", "1"], "{row}");
    // One goes; the other, which would be the last, stays for as long as the new one has nowhere to run.
    let before = room.field("pods -l app=web", ".items[*].metadata.name").await;
    let drain = format!("drain {NODE} --ignore-daemonsets --pod-selector=app=web");
    assert!(room.must(&format!("{drain} --dry-run=server")).await.contains("server dry run"));
    assert_eq!(room.field("pdb/web", ".status.disruptionsAllowed").await, "1");
    let held = room.run(&format!("{drain} --timeout=7s")).await.unwrap_err();
    assert!(held.contains("Cannot evict pod as it would violate the pod's disruption budget."), "{held}");
    room.until("pods -l app=web", ".items[?(@.status.phase==\"Running\")].status.containerStatuses[0].ready", "true")
        .await;
    let left = room.field("pods -l app=web", ".items[?(@.status.phase==\"Running\")].metadata.name").await;
    assert!(before.split(' ').any(|name| name == left), "{left} is none of {before}");
    assert_eq!(room.field("pdb/web", ".status.conditions[0].reason").await, "InsufficientPods");
    // Where there is no budget, all goes but what is there on every node.
    room.must("delete pdb web").await;
    let done = room.must(&format!("{drain} --timeout=60s")).await;
    assert!(done.contains("drained") || done.contains("evicted"), "{done}");
    assert_eq!(room.field("pods -l app=web", ".items[*].status.phase").await, "Pending Pending");
    assert_eq!(room.field("ds/daemon", ".status.numberReady").await, "1");
    room.must(&format!("uncordon {NODE}")).await;
    room.must("rollout status deployment/web --timeout=60s").await;
    room.leave().await;
}
