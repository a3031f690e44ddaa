//! The kinds that run pods besides Deployments, as the stock kubectl meets them: one cluster, one namespace a kind.

use gantry_tests::cluster::{Cluster, IMAGE, NODE, with};
use gantry_tests::kubectl::Kubectl;
use gantry_tests::room::{Room, STAYS, spec};

/// The kinds of one machine, one after another.
#[test]
fn every_kind_of_workload_does_its_work() {
    with(async |machine| {
        let cluster = Cluster::up(machine).await;
        daemon_set(&cluster).await;
        stateful_set(&cluster).await;
        replication_controller(&cluster).await;
        job(&cluster).await;
        cluster.uninstall().await;
    });
}

#[test]
fn jobs_come_by_the_clock() {
    with(async |machine| {
        let cluster = Cluster::up(machine).await;
        for kubectl in Kubectl::every(&machine.kubeconfig()) {
            cron_job(&cluster, &kubectl).await;
        }
        cluster.uninstall().await;
    });
}

#[test]
fn pods_come_by_what_they_use() {
    with(async |machine| {
        let cluster = Cluster::up(machine).await;
        for kubectl in Kubectl::every(&machine.kubeconfig()) {
            autoscaler(&cluster, &kubectl).await;
        }
        cluster.uninstall().await;
    });
}

/// A template of that.
fn template(app: &str, line: &str) -> String {
    format!("{{metadata: {{labels: {{app: {app}}}}}, spec: {}}}", spec(line, ""))
}

async fn daemon_set(cluster: &Cluster<'_>) {
    let room = Room::new(cluster, "daemons").await;
    let manifest = |strategy: &str| {
        let template = template("d", STAYS);
        format!(
            "{{apiVersion: apps/v1, kind: DaemonSet, metadata: {{name: d}}, spec: {{updateStrategy: {strategy}, \
             selector: {{matchLabels: {{app: d}}}}, template: {template}}}}}"
        )
    };
    let refused = room.try_apply(&manifest("{type: Recreate}")).await.unwrap_err();
    assert!(refused.contains("spec.updateStrategy.type: Unsupported value"), "{refused}");
    room.apply(&manifest("{rollingUpdate: {maxUnavailable: 1}}")).await;
    room.must("rollout status ds/d --timeout=60s").await;
    let row = room.must("get ds d --no-headers").await;
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[..7], ["d", "1", "1", "1", "1", "1", "<none>"], "{row}");
    assert_eq!(room.field("pods", ".items[*].spec.nodeName").await, NODE);
    room.must("annotate ds/d kubernetes.io/change-cause=first").await;
    room.must("set env ds/d SECOND=yes").await;
    room.must("rollout status ds/d --timeout=60s").await;
    let history = room.must("rollout history ds/d").await;
    assert!(history.lines().any(|line| line.starts_with('2')), "{history}");
    assert!(room.must("rollout history ds/d --revision=2").await.contains("SECOND"));
    room.must("rollout undo ds/d").await;
    room.must("rollout status ds/d --timeout=60s").await;
    assert!(!room.must("get ds d -o yaml").await.contains("SECOND"));
    let revisions = room.field("controllerrevisions", ".items[*].revision").await;
    assert_eq!(revisions.split(' ').max(), Some("3"), "{revisions}");
    // A rollout with surge, and a restart.
    room.apply(&manifest("{rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}")).await;
    room.must("rollout restart ds/d").await;
    room.must("rollout status ds/d --timeout=60s").await;
    let restarted = ".spec.template.metadata.annotations.kubectl\\.kubernetes\\.io/restartedAt";
    assert!(!room.field("ds/d", restarted).await.is_empty());
    let described = room.must("describe ds d").await;
    assert!(described.contains("SuccessfulCreate") && described.contains("Created pod: d-"), "{described}");
    // Where nobody may run, nobody runs; and back.
    let away = r#"{"spec":{"template":{"spec":{"nodeSelector":{"here":"yes"}}}}}"#;
    room.run(&["patch", "ds", "d", "-p", away]).await.unwrap();
    room.until("ds/d", ".status.desiredNumberScheduled", "0").await;
    room.until("pods", ".items[*].metadata.name", "").await;
    cluster.kubectl().must(&["label", "node", NODE, "here=yes"]).await;
    room.must("rollout status ds/d --timeout=60s").await;
    room.until("ds/d", ".status.numberAvailable", "1").await;
    cluster.kubectl().must(&["label", "node", NODE, "here-"]).await;
    assert!(cluster.kubectl().must(&["explain", "ds.spec.updateStrategy"]).await.contains("rollingUpdate"));
    room.must("delete ds d --cascade=foreground").await;
    room.until("pods", ".items[*].metadata.name", "").await;
    room.leave().await;
}

async fn stateful_set(cluster: &Cluster<'_>) {
    let room = Room::new(cluster, "ordered").await;
    let manifest = |more: &str| {
        let template = template("db", STAYS);
        format!(
            "{{apiVersion: apps/v1, kind: StatefulSet, metadata: {{name: db}}, spec: {{replicas: 2, serviceName: dbs, \
             selector: {{matchLabels: {{app: db}}}}, template: {template}{more}}}}}"
        )
    };
    let refused = room.try_apply(&manifest(", volumeClaimTemplates: [{metadata: {name: data}}]")).await.unwrap_err();
    assert!(refused.contains("spec.volumeClaimTemplates[0].spec.accessModes: Required value"), "{refused}");
    room.apply("{apiVersion: v1, kind: Service, metadata: {name: dbs}, spec: {clusterIP: None, selector: {app: db}}}")
        .await;
    room.apply(&manifest("")).await;
    room.must("rollout status sts/db --timeout=60s").await;
    assert_eq!(room.field("pods", ".items[*].metadata.name").await, "db-0 db-1");
    assert_eq!(room.must("get sts db --no-headers").await.split_whitespace().nth(1), Some("2/2"));
    assert_eq!(room.field("pod/db-1", ".spec.hostname").await, "db-1");
    let asks = "until nslookup db-1.dbs.ordered.svc.cluster.local; do sleep 0.2; done";
    let asker = spec(asks, "").replacen('{', "{restartPolicy: Never, ", 1);
    room.apply(&format!("{{apiVersion: v1, kind: Pod, metadata: {{name: asks}}, spec: {asker}}}")).await;
    room.until("pod/asks", ".status.phase", "Succeeded").await;
    assert!(room.must("logs asks").await.contains(&room.field("pod/db-1", ".status.podIP").await));
    room.must("delete pod asks").await;
    room.must("scale sts/db --replicas=3").await;
    room.must("rollout status sts/db --timeout=60s").await;
    room.must("scale sts/db --replicas=1").await;
    room.until("pods", ".items[*].metadata.name", "db-0").await;
    room.must("scale sts/db --replicas=2").await;
    room.must("rollout status sts/db --timeout=60s").await;
    // A canary: the last member alone, then all, then back.
    let partition = r#"{"spec":{"updateStrategy":{"rollingUpdate":{"partition":1}}}}"#;
    room.run(&["patch", "sts", "db", "-p", partition]).await.unwrap();
    room.must("set env sts/db SECOND=yes").await;
    room.must("rollout status sts/db --timeout=60s").await;
    let with_it = ".items[?(@.spec.containers[0].env)].metadata.name";
    assert_eq!(room.field("pods", with_it).await, "db-1");
    room.run(&["patch", "sts", "db", "-p", &partition.replace('1', "0")]).await.unwrap();
    room.must("rollout status sts/db --timeout=60s").await;
    assert_eq!(room.field("pods", with_it).await, "db-0 db-1");
    room.must("rollout undo sts/db").await;
    room.must("rollout status sts/db --timeout=60s").await;
    assert_eq!(room.field("pods", with_it).await, "");
    assert!(room.must("rollout history sts/db").await.lines().any(|line| line.starts_with('3')));
    let immutable = room.run(&["patch", "sts", "db", "-p", r#"{"spec":{"serviceName":"x"}}"#]).await.unwrap_err();
    assert!(immutable.contains("spec: Forbidden: updates to statefulset spec for fields other than"), "{immutable}");
    assert!(room.must("describe sts db").await.contains("create Pod db-0 in StatefulSet db successful"));
    // Whoever is left alone is taken in again.
    room.must("delete sts db --cascade=orphan").await;
    let uid = room.field("pod/db-0", ".metadata.uid").await;
    room.apply(&manifest(", podManagementPolicy: Parallel")).await;
    room.must("rollout status sts/db --timeout=60s").await;
    room.until("pods", ".items[*].metadata.ownerReferences[0].kind", "StatefulSet StatefulSet").await;
    assert_eq!(room.field("pod/db-0", ".metadata.uid").await, uid);
    room.leave().await;
}

async fn replication_controller(cluster: &Cluster<'_>) {
    let room = Room::new(cluster, "old").await;
    let template = template("rc", STAYS);
    room.apply(&format!(
        "{{apiVersion: v1, kind: ReplicationController, metadata: {{name: rc}}, spec: {{replicas: 1, template: {template}}}}}"
    ))
    .await;
    room.until("rc/rc", ".status.readyReplicas", "1").await;
    room.must("scale rc rc --replicas=2").await;
    room.until("rc/rc", ".status.readyReplicas", "2").await;
    assert!(room.must("get rc rc -o wide --no-headers").await.contains("app=rc"));
    assert!(room.must("describe rc rc").await.contains("SuccessfulCreate"));
    room.must("delete rc rc").await;
    room.until("pods", ".items[*].metadata.name", "").await;
    room.leave().await;
}

async fn job(cluster: &Cluster<'_>) {
    let room = Room::new(cluster, "work").await;
    let manifest = |name: &str, line: &str, more: &str| {
        let template = spec(line, "").replacen('{', "{restartPolicy: Never, ", 1);
        format!(
            "{{apiVersion: batch/v1, kind: Job, metadata: {{name: {name}}}, spec: {{template: {{spec: {template}}}{more}}}}}"
        )
    };
    room.run(&["create", "job", "pi", &format!("--image={IMAGE}"), "--", "echo", "3.14"]).await.unwrap();
    room.must("wait job/pi --for=condition=complete --timeout=60s").await;
    assert_eq!(room.must("logs job/pi").await, "3.14\n");
    let row = room.must("get job pi --no-headers").await;
    assert_eq!(row.split_whitespace().collect::<Vec<_>>()[..3], ["pi", "Complete", "1/1"], "{row}");
    assert_eq!(room.field("pods", ".items[*].metadata.finalizers").await, "", "a counted pod is held");
    room.apply(&manifest(
        "many",
        "echo $JOB_COMPLETION_INDEX",
        ", completions: 3, parallelism: 3, completionMode: Indexed",
    ))
    .await;
    room.must("wait job/many --for=condition=complete --timeout=60s").await;
    assert_eq!(room.field("job/many", ".status.completedIndexes").await, "0-2");
    assert_eq!(room.must("logs -l batch.kubernetes.io/job-completion-index=2").await, "2\n");
    let policy = ", podFailurePolicy: {rules: [{action: FailJob, onExitCodes: {operator: In, values: [42]}}]}";
    room.apply(&manifest("broken", "exit 42", policy)).await;
    room.must("wait job/broken --for=condition=failed --timeout=60s").await;
    let described = room.must("describe job broken").await;
    assert!(described.contains("PodFailurePolicy") && described.contains("exit code 42"), "{described}");
    room.apply(&manifest("waits", "true", ", suspend: true, ttlSecondsAfterFinished: 0")).await;
    room.until("job/waits", ".status.conditions[0].reason", "JobSuspended").await;
    assert!(room.must("get pods").await.lines().all(|line| !line.starts_with("waits")));
    room.run(&["patch", "job", "waits", "-p", r#"{"spec":{"suspend":false}}"#]).await.unwrap();
    room.must("wait job/waits --for=delete --timeout=60s").await;
    // One that is deleted in the middle of its work leaves no pod behind.
    room.apply(&manifest("long", STAYS, "")).await;
    room.until("job/long", ".status.ready", "1").await;
    room.must("delete job long --timeout=60s").await;
    cluster
        .until("its pod is gone", async || room.must("get pods").await.lines().all(|line| !line.starts_with("long")))
        .await;
    let refused =
        room.try_apply(&manifest("bad", "true", ", completionMode: Indexed, parallelism: 2")).await.unwrap_err();
    assert!(refused.contains("spec.completions: Required value: when completion mode is Indexed"), "{refused}");
    room.leave().await;
}

async fn cron_job(cluster: &Cluster<'_>, kubectl: &Kubectl) {
    let room = Room::with(cluster, kubectl, "clock").await;
    // Before batch/v1 had CronJobs, kubectl made them, and Jobs of them, in a version that is no more.
    let knows = kubectl.name() != "kubectl-1.20";
    let manifest = |name: &str, more: &str| {
        let pod = spec("echo ran", "").replacen('{', "{restartPolicy: Never, ", 1);
        format!(
            "{{apiVersion: batch/v1, kind: CronJob, metadata: {{name: {name}}}, spec: {{schedule: \"0 0 1 1 *\"{more}, \
             jobTemplate: {{spec: {{template: {{spec: {pod}}}}}}}}}}}"
        )
    };
    for (more, words) in [
        (", timeZone: Mars/Olympus", "spec.timeZone: Invalid value: \"Mars/Olympus\": unknown time zone Mars/Olympus"),
        (", concurrencyPolicy: Queue", "spec.concurrencyPolicy: Unsupported value: \"Queue\""),
    ] {
        let refused = room.try_apply(&manifest("bad", more)).await.unwrap_err();
        assert!(refused.contains(words), "{refused}");
    }
    room.apply(&manifest("yearly", ", timeZone: Asia/Kolkata")).await;
    if knows {
        let image = format!("--image={IMAGE}");
        let made = room.run(&["create", "cronjob", "hello", &image, "--schedule=@daily", "--", "echo", "hello"]).await;
        assert!(made.is_ok_and(|words| words.contains("cronjob.batch/hello created")));
        room.must("create job by-hand --from=cronjob/yearly").await;
        room.must("wait job/by-hand --for=condition=complete --timeout=60s").await;
        assert_eq!(room.must("logs job/by-hand").await, "ran\n");
        let instantiated = ".metadata.annotations.cronjob\\.kubernetes\\.io/instantiate";
        assert_eq!(room.field("job/by-hand", instantiated).await, "manual");
        room.until("cj/yearly", ".status.lastScheduleTime", "").await;
    }
    let row = room.must("get cj yearly --no-headers").await;
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[..5], ["yearly", "0", "0", "1", "1"], "{row}");
    assert_eq!(cells[6..10], ["Asia/Kolkata", "False", "0", "<none>"], "{row}");
    // One whose moment has come: the clock of a past year is made up for at once.
    room.run(&["patch", "cj", "yearly", "-p", r#"{"spec":{"schedule":"@every 1s","concurrencyPolicy":"Forbid"}}"#])
        .await
        .unwrap();
    // The one that was made by hand is over, too.
    let runs = async || room.field("jobs", ".items[?(@.metadata.name!=\"by-hand\")].metadata.name").await;
    cluster.until("its moment has come", async || runs().await.starts_with("yearly-")).await;
    cluster
        .until("a run is over", async || !room.field("cj/yearly", ".status.lastSuccessfulTime").await.is_empty())
        .await;
    let run = runs().await;
    let run = run.split(' ').next().unwrap_or_default().to_owned();
    let minute = run.strip_prefix("yearly-").and_then(|minute| minute.parse::<u64>().ok());
    assert!(minute.is_some_and(|minute| minute > 29_000_000), "{run}");
    let owner = room.field(&format!("job/{run}"), ".metadata.ownerReferences[0].kind").await;
    assert_eq!(owner, "CronJob");
    room.run(&["patch", "cj", "yearly", "-p", r#"{"spec":{"suspend":true}}"#]).await.unwrap();
    cluster.until("no run is left", async || room.field("cj/yearly", ".status.active").await.is_empty()).await;
    let told = room.must(if knows { "describe cj yearly" } else { "get events" }).await;
    assert!(told.contains("SuccessfulCreate") && told.contains("Created job yearly-"), "{told}");
    room.must("delete cj yearly").await;
    room.until("jobs", ".items[*].metadata.name", "").await;
    room.leave().await;
}

async fn autoscaler(cluster: &Cluster<'_>, kubectl: &Kubectl) {
    let room = Room::with(cluster, kubectl, "busy").await;
    let resources = ", resources: {requests: {cpu: 20m}, limits: {cpu: 50m}}";
    let busy = spec("while :; do :; done", resources);
    room.apply(&format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web}}, spec: {{selector: {{matchLabels: {{app: web}}}}, \
         template: {{metadata: {{labels: {{app: web}}}}, spec: {busy}}}}}}}"
    ))
    .await;
    let words = room.must("autoscale deployment web --min=1 --max=3 --cpu-percent=50").await;
    assert!(words.contains("horizontalpodautoscaler.autoscaling/web autoscaled"), "{words}");
    room.until("deploy/web", ".spec.replicas", "3").await;
    room.must("rollout status deploy/web --timeout=60s").await;
    // Both versions tell of the same object, the older one in annotations what it has no field for.
    let limited = ".status.conditions[?(@.type==\"ScalingLimited\")].reason";
    room.until("horizontalpodautoscalers.v2.autoscaling/web", limited, "TooManyReplicas").await;
    room.until("horizontalpodautoscalers.v1.autoscaling/web", ".status.currentReplicas", "3").await;
    let percent =
        room.field("horizontalpodautoscalers.v1.autoscaling/web", ".status.currentCPUUtilizationPercentage").await;
    assert!(percent.parse::<i64>().is_ok_and(|percent| percent > 100), "{percent}");
    let row = room.must("get hpa web --no-headers").await;
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(
        (cells[..3].to_vec(), &cells[4..7]),
        (vec!["web", "Deployment/web", "cpu:"], &["1", "3", "3"][..]),
        "{row}"
    );
    assert!(cells[3].ends_with("%/50%"), "{row}");
    let described = room.must("describe hpa web").await;
    let scaled = "reason: cpu resource utilization (percentage of request) above target";
    assert!(described.contains("SuccessfulRescale") && described.contains(scaled), "{described}");
    // What only the newer version has a field for survives a change by the older one.
    let slow = r#"{"spec":{"behavior":{"scaleDown":{"stabilizationWindowSeconds":0,"policies":[{"type":"Pods","value":1,"periodSeconds":60}]}}}}"#;
    room.run(&["patch", "horizontalpodautoscalers.v2.autoscaling", "web", "--type=merge", "-p", slow]).await.unwrap();
    room.run(&["patch", "horizontalpodautoscalers.v1.autoscaling", "web", "-p", r#"{"spec":{"maxReplicas":2}}"#])
        .await
        .unwrap();
    assert_eq!(
        room.field("horizontalpodautoscalers.v2.autoscaling/web", ".spec.behavior.scaleDown.policies[0].value").await,
        "1"
    );
    room.until("deploy/web", ".spec.replicas", "2").await;
    let watched = "get --raw /apis/autoscaling/v1/namespaces/busy/horizontalpodautoscalers?watch=true&timeoutSeconds=1";
    let event = room.must(watched).await;
    assert!(
        event.starts_with(r#"{"type":"ADDED","object":{"#) && event.contains(r#""apiVersion":"autoscaling/v1""#),
        "{event}"
    );
    let refused = room
        .run(&["patch", "horizontalpodautoscalers.v1.autoscaling", "web", "-p", r#"{"spec":{"maxReplicas":0}}"#])
        .await
        .unwrap_err();
    assert!(refused.contains("spec.maxReplicas: Invalid value: 0: must be greater than 0"), "{refused}");
    // A metric that nobody serves is said to be none.
    let elsewhere = r#"{"spec":{"metrics":[{"type":"Pods","pods":{"metric":{"name":"m"},"target":{"type":"AverageValue","averageValue":"1"}}}]}}"#;
    room.run(&["patch", "horizontalpodautoscalers.v2.autoscaling", "web", "--type=merge", "-p", elsewhere])
        .await
        .unwrap();
    let active = ".status.conditions[?(@.type==\"ScalingActive\")].reason";
    room.until("horizontalpodautoscalers.v2.autoscaling/web", active, "FailedGetPodsMetric").await;
    room.must("delete hpa web").await;
    room.must("scale deploy web --replicas=0").await;
    room.leave().await;
}
