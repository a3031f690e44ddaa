//! What a cluster's owners set for those who work in it, as the stock kubectl meets it: disruption
//! budgets, quotas, the limits of containers, and who makes way for whom.

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

#[test]
fn a_namespace_has_bounds() {
    with(async |machine| {
        let cluster = Cluster::up(machine).await;
        for kubectl in Kubectl::every(&machine.kubeconfig()) {
            bounds(&cluster, &kubectl).await;
        }
        cluster.uninstall().await;
    });
}

#[test]
fn the_important_come_first() {
    with(async |machine| {
        let cluster = Cluster::up(machine).await;
        for kubectl in Kubectl::every(&machine.kubeconfig()) {
            preemption(&cluster, &kubectl).await;
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

async fn bounds(cluster: &Cluster<'_>, kubectl: &Kubectl) {
    let room = Room::new(cluster, kubectl, "bounded").await;
    room.apply(
        "{apiVersion: v1, kind: LimitRange, metadata: {name: sizes}, spec: {limits: [{type: Container, default: {cpu: 200m}, \
         defaultRequest: {cpu: 100m}, max: {cpu: 500m}}]}}",
    )
    .await
    .unwrap();
    room.must("create quota most --hard=pods=2,requests.cpu=250m,count/configmaps=3,services.nodeports=0").await;
    room.until("quota/most", ".status.used.pods", "0").await;
    // The root CA is a ConfigMap of every namespace.
    let row = room.must("get quota most").await;
    assert!(row.contains("count/configmaps: 1/3, pods: 0/2, requests.cpu: 0/250m, services.nodeports: 0/0"), "{row}");
    let refused = room.run("create service nodeport web --tcp=80").await.unwrap_err();
    let words = "services \"web\" is forbidden: exceeded quota: most, requested: services.nodeports=1, used: \
                 services.nodeports=0, limited: services.nodeports=0";
    assert!(refused.contains(words), "{refused}");
    let image = format!("--image={IMAGE}");
    let large = format!(
        "run large {image} --overrides={{\"spec\":{{\"containers\":[{{\"name\":\"large\",\"image\":\"{IMAGE}\",\"resources\":{{\"limits\":{{\"cpu\":\"1\"}}}}}}]}}}}"
    );
    let refused = room.run(&large).await.unwrap_err();
    let words = "pods \"large\" is forbidden: [maximum cpu usage per Container is 500m, but limit is 1";
    assert!(refused.contains(&words.replace('[', "")), "{refused}");
    // Three are wanted, and two are had; the third's owner says why.
    let template = template("web");
    room.apply(&format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web}}, spec: {{replicas: 3, selector: {{matchLabels: \
         {{app: web}}}}, template: {template}}}}}"
    ))
    .await
    .unwrap();
    room.until("deployment/web", ".status.readyReplicas", "2").await;
    assert_eq!(
        room.field("pods", ".items[0].spec.containers[0].resources").await.replace(' ', ""),
        "{\"limits\":{\"cpu\":\"200m\"},\"requests\":{\"cpu\":\"100m\"}}"
    );
    let told = "exceeded quota: most, requested: pods=1,requests.cpu=100m, used: pods=2,requests.cpu=200m, limited: pods=2,requests.cpu=250m";
    cluster.until("the owner says why", async || room.must("get events").await.contains(told)).await;
    let described = room.must("describe quota most").await;
    let line = |name: &str| {
        described
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_default()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!((line("pods"), line("requests.cpu")), ("pods 2 2".to_owned(), "requests.cpu 200m 250m".to_owned()));
    assert!(room.must("describe limits sizes").await.contains("Container"));
    // What goes gives back what it had, and what has ended holds nothing.
    room.must("scale deployment/web --replicas=1").await;
    room.until("quota/most", ".status.used.pods", "1").await;
    room.must(&format!("run ends {image} --restart=Never -- true")).await;
    room.until("pod/ends", ".status.phase", "Succeeded").await;
    room.until("quota/most", ".status.used.pods", "1").await;
    room.must("delete deployment web").await;
    room.until(
        "quota/most",
        ".status.used",
        "{\"count/configmaps\":\"1\",\"pods\":\"0\",\"requests.cpu\":\"0\",\"services.nodeports\":\"0\"}",
    )
    .await;
    room.leave().await;
}

/// One processor is asked for more than half of twice.
async fn preemption(cluster: &Cluster<'_>, kubectl: &Kubectl) {
    let room = Room::new(cluster, kubectl, "ranked").await;
    kubectl.must(&["create", "priorityclass", "high", "--value=1000"]).await;
    let processors: u32 = room.field(&format!("node/{NODE}"), ".status.allocatable.cpu").await.parse().unwrap();
    let pod = |name: &str, class: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 1{class}, \
             containers: [{{name: main, image: \"{IMAGE}\", command: [sh, -c, {STAYS:?}], resources: {{requests: {{cpu: {}m}}}}}}]}}}}",
            processors * 600
        )
    };
    room.apply(&pod("low", "")).await.unwrap();
    room.until("pod/low", ".status.phase", "Running").await;
    // An equal waits; one above takes the place.
    room.apply(&pod("equal", "")).await.unwrap();
    room.until("pod/equal", ".status.conditions[0].reason", "Unschedulable").await;
    room.apply(&pod("high", ", priorityClassName: high")).await.unwrap();
    room.until("pod/high", ".status.phase", "Running").await;
    assert!(room.run("get pod low").await.unwrap_err().contains("NotFound"));
    assert_eq!(room.field("pod/equal", ".status.phase").await, "Pending");
    let told = room.must("get events --field-selector=reason=Preempted").await;
    assert!(told.contains("pod/low") && told.contains(&format!("on node {NODE}")), "{told}");
    kubectl.must(&["delete", "priorityclass", "high"]).await;
    room.leave().await;
}
