//! What nodes and pods use, as the stock kubectl, a scraper and dashboards are told.

use gantry_tests::cluster::{Cluster, IMAGE, NODE, NODE_IP, with};
use gantry_tests::kubectl::Kubectl;
use serde_json::Value;

/// One container that works as much as it may, one that holds 16 MiB of memory, 8 MiB on the disk and 4 MiB in a volume in
/// memory, and one with a probe.
fn manifest() -> String {
    let works = "while :; do :; done";
    let holds = "dd if=/dev/zero of=/dev/shm/x bs=1M count=16; dd if=/dev/zero of=/v/x bs=1M count=8; \
        dd if=/dev/zero of=/m/x bs=1M count=4; dd if=/dev/zero of=/x bs=1M count=2; echo held; exec sleep 3600";
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: busy, labels: {{app: busy}}}}, spec: {{\
         terminationGracePeriodSeconds: 0, volumes: [{{name: v, emptyDir: {{}}}}, {{name: m, emptyDir: {{medium: Memory}}}}], containers: [\
         {{name: works, image: \"{IMAGE}\", command: [sh, -c, {works:?}], resources: {{limits: {{cpu: 200m, memory: 64Mi}}}}}}, \
         {{name: holds, image: \"{IMAGE}\", command: [sh, -c, {holds:?}], \
          volumeMounts: [{{name: v, mountPath: /v}}, {{name: m, mountPath: /m}}]}}]}}}}\n\
         ---\n{{apiVersion: v1, kind: Pod, metadata: {{name: idle, labels: {{app: idle}}}}, spec: {{\
         terminationGracePeriodSeconds: 0, containers: [{{name: main, image: \"{IMAGE}\", command: [sleep, \"3600\"], \
         readinessProbe: {{exec: {{command: [\"true\"]}}, periodSeconds: 1}}}}]}}}}\n"
    )
}

/// `12m` or `34Mi` as a number.
fn amount(cell: &str) -> u64 {
    cell.trim_end_matches(|c: char| c.is_alphabetic()).parse().unwrap_or_else(|_| panic!("{cell} is no amount"))
}

#[test]
fn nodes_and_pods_tell_what_they_use() {
    with(async |machine| {
        let cluster = Cluster::apart(machine).await;
        cluster.apply(&manifest()).await;
        let kubectl = cluster.kubectl();
        let held = async || kubectl.run(&["logs", "busy", "-c", "holds"]).await.unwrap_or_default();
        cluster.until("memory and disk are taken", async || held().await.contains("held")).await;
        cluster
            .until("the other is ready", async || {
                kubectl.run(&["wait", "pod/idle", "--for=condition=Ready", "--timeout=1s"]).await.is_ok()
            })
            .await;
        for kubectl in Kubectl::every(&machine.kubeconfig()) {
            top(&cluster, &kubectl).await;
        }
        api(&cluster).await;
        summary(&cluster).await;
        scraped(&cluster).await;
        authorised(&cluster).await;
        cluster.uninstall().await;
    });
}

/// Lines of a table as cells.
fn cells(table: &str) -> Vec<Vec<&str>> {
    table.lines().map(|line| line.split_whitespace().collect()).collect()
}

async fn top(cluster: &Cluster<'_>, kubectl: &Kubectl) {
    // A container must have run for a moment before there is a rate.
    let told = async || kubectl.run(&["top", "pods", "--no-headers"]).await.unwrap_or_default();
    cluster.until("both pods are told of", async || told().await.lines().count() == 2).await;
    let nodes = kubectl.must(&["top", "nodes", "--no-headers"]).await;
    let node = &cells(&nodes)[0];
    assert_eq!(node[0], NODE, "{nodes}");
    assert!(amount(node[1]) > 0 && amount(node[3]) > 0 && node[2].ends_with('%'), "{nodes}");
    let table = kubectl.must(&["top", "pods", "--containers", "--no-headers"]).await;
    let rows = cells(&table);
    let of = |name: &str| rows.iter().find(|row| row[1] == name).unwrap_or_else(|| panic!("no {name} in {table}"));
    let (works, holds) = (of("works"), of("holds"));
    // It has a fifth of a core at most, and more than nothing however busy the machine is.
    assert!((1..=250).contains(&amount(works[2])), "{table}");
    assert!(amount(holds[3]) >= 20 && amount(holds[3]) < 64, "{table}");
    let selected = kubectl.must(&["top", "pods", "-l", "app=idle", "--no-headers"]).await;
    assert_eq!(cells(&selected).iter().map(|row| row[0]).collect::<Vec<_>>(), ["idle"], "{selected}");
    assert!(kubectl.must(&["top", "node", NODE]).await.contains(NODE));
    assert!(kubectl.run(&["top", "pod", "nobody"]).await.is_err());
}

async fn raw(cluster: &Cluster<'_>, path: &str) -> String {
    cluster.kubectl().must(&["get", "--raw", path]).await
}

async fn json(cluster: &Cluster<'_>, path: &str) -> Value {
    serde_json::from_str(&raw(cluster, path).await).expect("JSON")
}

/// metrics.k8s.io as a client library reads it.
async fn api(cluster: &Cluster<'_>) {
    let kubectl = cluster.kubectl();
    let listed = kubectl.must(&["api-resources", "--api-group", "metrics.k8s.io", "-o", "wide"]).await;
    assert!(listed.contains("NodeMetrics") && listed.contains("PodMetrics"), "{listed}");
    let table = kubectl.must(&["get", "pods.metrics.k8s.io", "-A"]).await;
    let rows = cells(&table);
    assert_eq!(rows[0], ["NAMESPACE", "NAME", "CPU", "MEMORY", "WINDOW"], "{table}");
    assert_eq!(rows[1][..2], ["default", "busy"], "{table}");
    let pod = json(cluster, "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/busy").await;
    assert_eq!((&pod["kind"], &pod["metadata"]["labels"]["app"]), (&"PodMetrics".into(), &"busy".into()));
    assert_eq!(pod["containers"].as_array().map(Vec::len), Some(2), "{pod}");
    let by_label = json(cluster, "/apis/metrics.k8s.io/v1beta1/pods?labelSelector=app%3Didle").await;
    assert_eq!(by_label["kind"], "PodMetricsList");
    assert_eq!(by_label["items"].as_array().map(Vec::len), Some(1), "{by_label}");
    let by_field = json(cluster, "/apis/metrics.k8s.io/v1beta1/pods?fieldSelector=metadata.name%3Dbusy").await;
    assert_eq!(by_field["items"][0]["metadata"]["name"], "busy");
    let missing = kubectl.run(&["get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes/nobody"]).await.unwrap_err();
    assert!(missing.contains("nodemetrics.metrics.k8s.io \"nobody\" not found"), "{missing}");
    let refused = kubectl.run(&["delete", "pods.metrics.k8s.io", "busy"]).await.unwrap_err();
    assert!(refused.contains("does not allow this method"), "{refused}");
    // Who may see pods may see what they use.
    kubectl.must(&["create", "serviceaccount", "viewer"]).await;
    let viewer = "system:serviceaccount:default:viewer";
    let may = async || kubectl.run(&["auth", "can-i", "list", "pods.metrics.k8s.io", "--as", viewer]).await;
    assert!(may().await.is_err());
    kubectl.must(&["create", "clusterrolebinding", "v", "--clusterrole=view", "--serviceaccount=default:viewer"]).await;
    cluster.until("the viewer may look", async || may().await.is_ok()).await;
}

async fn summary(cluster: &Cluster<'_>) {
    let whole = json(cluster, &format!("/api/v1/nodes/{NODE}/proxy/stats/summary")).await;
    let node = &whole["node"];
    assert_eq!(node["nodeName"], NODE);
    for field in ["/cpu/usageNanoCores", "/memory/workingSetBytes", "/fs/capacityBytes", "/runtime/imageFs/usedBytes"] {
        assert!(node.pointer(field).and_then(Value::as_u64).is_some_and(|n| n > 0), "no {field} in {node:#}");
    }
    let told = async || json(cluster, &format!("/api/v1/nodes/{NODE}")).await;
    // Which images it has a node says with its next status, as the kubelet does.
    let has_images = async || told().await["status"]["images"].as_array().is_some_and(|images| !images.is_empty());
    cluster.until("the node tells of its images", has_images).await;
    let told = told().await;
    let images = told["status"]["images"].as_array().expect("images");
    assert!(images.iter().all(|image| image["sizeBytes"].as_u64() > Some(0)), "{images:#?}");
    assert_eq!(told["status"]["features"]["supplementalGroupsPolicy"], true);
    assert_eq!(told["status"]["runtimeHandlers"][0]["features"]["recursiveReadOnlyMounts"], true);
    assert!(node["rlimit"]["curproc"].as_u64().is_some_and(|n| n > 0));
    assert!(node["network"]["interfaces"].as_array().is_some_and(|all| all.iter().any(|i| i["name"] == "node0")));
    let pods = whole["pods"].as_array().expect("pods");
    let pod = |name: &str| pods.iter().find(|p| p["podRef"]["name"] == name).expect("it runs");
    let busy = pod("busy");
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let volume = |name: &str| busy["volume"].as_array().unwrap().iter().find(|v| v["name"] == name).expect("a volume");
    assert!((8 << 20..9 << 20).contains(&number(&volume("v")["usedBytes"])), "{busy:#}");
    assert!((4 << 20..5 << 20).contains(&number(&volume("m")["usedBytes"])), "{busy:#}");
    assert!((10 << 20..12 << 20).contains(&number(&busy["ephemeral-storage"]["usedBytes"])), "{busy:#}");
    assert!(number(&busy["process_stats"]["process_count"]) >= 2);
    let holds = busy["containers"].as_array().unwrap().iter().find(|c| c["name"] == "holds").expect("it runs");
    assert!((2 << 20..3 << 20).contains(&number(&holds["rootfs"]["usedBytes"])), "{holds:#}");
    assert!(number(&holds["logs"]["usedBytes"]) > 0 && number(&holds["memory"]["workingSetBytes"]) >= 16 << 20);
    assert!(holds["startTime"].is_string());
    let network = |pod: &Value| (number(&pod["network"]["rxBytes"]), number(&pod["network"]["txBytes"]));
    let before = network(busy);
    let ping = format!("ping -c 3 -s 5000 {NODE_IP}");
    cluster.kubectl().must(&["exec", "busy", "-c", "holds", "--", "sh", "-c", &ping]).await;
    let path = format!("/api/v1/nodes/{NODE}/proxy/stats/summary?only_cpu_and_memory=true");
    let sent = async || {
        let light = json(cluster, &path).await;
        assert!(light["node"].get("fs").is_none(), "{light:#}");
        let pods = light["pods"].as_array().expect("pods").clone();
        network(pods.iter().find(|p| p["podRef"]["name"] == "busy").expect("it runs"))
    };
    let after = async |more: u64| {
        let now = sent().await;
        now.0 > before.0 + more && now.1 > before.1 + more
    };
    cluster.until("what it sent and received is counted", async || after(15_000).await).await;
}

async fn scraped(cluster: &Cluster<'_>) {
    let of = async |path: &str| raw(cluster, &format!("/api/v1/nodes/{NODE}/proxy/metrics{path}")).await;
    let value = |text: &str, name: &str, labels: &[&str]| {
        let mut lines =
            text.lines().filter(|l| l.starts_with(&format!("{name}{{")) || l.starts_with(&format!("{name} ")));
        let line = lines.find(|l| labels.iter().all(|label| l.contains(label)));
        let line = line.unwrap_or_else(|| panic!("no {name} with {labels:?} in\n{text}"));
        line.rsplit_once("} ")
            .map_or(line.split(' ').nth(1).unwrap(), |(_, v)| v.split(' ').next().unwrap())
            .parse::<f64>()
            .unwrap()
    };
    let resource = of("/resource").await;
    assert!(
        value(&resource, "container_memory_working_set_bytes", &["container=\"holds\"", "pod=\"busy\""])
            >= f64::from(16 << 20)
    );
    assert!(value(&resource, "node_cpu_usage_seconds_total", &[]) > 0.0);
    let throttled = async || {
        let text = of("/cadvisor").await;
        value(&text, "container_cpu_cfs_throttled_periods_total", &["container=\"works\""]) > 0.0
    };
    cluster.until("who works too much is slowed", throttled).await;
    let cadvisor = of("/cadvisor").await;
    let uid = cluster.field("pod", "busy", ".metadata.uid").await;
    let id = format!("id=\"{}/burstable/pod{uid}/", cluster.machine().cgroup());
    let image = format!("image=\"{IMAGE}\"");
    assert!(
        value(&cadvisor, "container_cpu_usage_seconds_total", &["container=\"works\"", "cpu=\"total\"", &id, &image])
            > 0.0
    );
    assert_eq!(value(&cadvisor, "container_spec_memory_limit_bytes", &["container=\"works\""]), f64::from(64 << 20));
    assert_eq!(value(&cadvisor, "container_spec_cpu_quota", &["container=\"works\""]), 20_000.0);
    assert!(value(&cadvisor, "container_network_transmit_bytes_total", &["interface=\"eth0\"", "pod=\"busy\""]) > 0.0);
    assert!(value(&cadvisor, "machine_memory_bytes", &[]) > 0.0);
    let own = of("").await;
    assert_eq!(value(&own, "kubelet_running_pods", &[]), 2.0);
    assert_eq!(value(&own, "kubelet_running_containers", &["container_state=\"running\""]), 3.0);
    let probes = of("/probes").await;
    assert!(value(&probes, "prober_probe_total", &["pod=\"idle\"", "probe_type=\"Readiness\"", "successful"]) >= 1.0);
}

/// The node's own port asks the API server who may look.
async fn authorised(cluster: &Cluster<'_>) {
    let kubectl = cluster.kubectl();
    kubectl.must(&["create", "serviceaccount", "scraper"]).await;
    let token = kubectl.must(&["create", "token", "scraper"]).await;
    let server = format!("https://{NODE_IP}:10250");
    let fetch = async |path: &str| {
        let direct =
            ["--kubeconfig=/dev/null", "--server", &server, "--insecure-skip-tls-verify", "--token", token.trim()];
        kubectl.run(&[&direct[..], &["get", "--raw", path]].concat()).await
    };
    for path in ["/stats/summary", "/metrics/resource", "/metrics/cadvisor", "/metrics"] {
        assert!(fetch(path).await.unwrap_err().contains("Forbidden"), "{path}");
    }
    // Of a second account: a refusal is remembered for a while.
    kubectl.must(&["create", "serviceaccount", "prometheus"]).await;
    kubectl.must(&["create", "clusterrole", "scrape", "--verb=get", "--resource=nodes/metrics"]).await;
    kubectl
        .must(&[
            "create",
            "clusterrolebinding",
            "scrape",
            "--clusterrole=scrape",
            "--serviceaccount=default:prometheus",
        ])
        .await;
    let token = kubectl.must(&["create", "token", "prometheus"]).await;
    let fetch = async |path: &str| {
        let direct =
            ["--kubeconfig=/dev/null", "--server", &server, "--insecure-skip-tls-verify", "--token", token.trim()];
        kubectl.run(&[&direct[..], &["get", "--raw", path]].concat()).await
    };
    assert!(fetch("/metrics/cadvisor").await.unwrap().contains("machine_cpu_cores"));
    assert!(fetch("/stats/summary").await.unwrap_err().contains("Forbidden"), "nodes/metrics is not nodes/stats");
}
