//! Persistent volumes as a user of kubectl meets them: claims that wait for their first pod, folders that the node makes and
//! takes away, volumes that people bring, and the claims of StatefulSets.

use gantry_tests::cluster::{Cluster, NODE, with};
use gantry_tests::kubectl::Kubectl;
use gantry_tests::room::{Room, STAYS, spec};

#[test]
fn volumes_outlive_their_pods() {
    with(async |machine| {
        let cluster = Cluster::up(machine).await;
        told(&cluster).await;
        for kubectl in Kubectl::every(&machine.kubeconfig()) {
            by_default(&cluster, &kubectl).await;
            refused(&cluster, &kubectl).await;
        }
        brought(&cluster).await;
        shared(&cluster).await;
        own(&cluster).await;
        parts(&cluster).await;
        stateful(&cluster).await;
        cluster.uninstall().await;
    });
}

fn claim(name: &str, more: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: {name}}}, spec: {{accessModes: \
         [ReadWriteOnce], resources: {{requests: {{storage: 1Mi}}}}{more}}}}}"
    )
}

/// A pod that runs one shell line with a claim on `/data`.
fn pod(name: &str, line: &str, claim: &str, more: &str) -> String {
    let spec = spec(line, ", volumeMounts: [{name: v, mountPath: /data}]");
    let volumes = format!("volumes: [{{name: v, persistentVolumeClaim: {{claimName: {claim}}}}}]{more}, ");
    let spec = spec.replacen('{', &format!("{{{volumes}"), 1);
    format!("{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {spec}}}")
}

const ONCE: &str = ", restartPolicy: Never";

/// Neither the end of the daemon nor its return takes a volume from its pod, or a pod from its volume.
#[test]
fn a_killed_daemon_forgets_no_volume() {
    with(async |machine| {
        let mut cluster = Cluster::up(machine).await;
        cluster.apply(&format!("---\n{}", claim("data", ""))).await;
        cluster.apply(&format!("---\n{}", pod("p", &format!("echo run >> /data/file; {STAYS}"), "data", ""))).await;
        let kubectl = cluster.kubectl();
        kubectl.must(&["wait", "pod/p", "--for=condition=Ready", "--timeout=60s"]).await;
        let before = cluster.running().await;
        cluster.kill("up").await;
        cluster.start("up").await;
        cluster.until("the node is ready", async || cluster.ready().await).await;
        kubectl.must(&["delete", "pvc", "data", "--wait=false"]).await;
        assert_eq!(cluster.running().await, before, "a container was touched");
        // The container's next run has the volume too, though its claim is on its way out.
        kubectl.must(&["exec", "p", "--", "sh", "-c", "kill 1"]).await;
        let restarts = ".status.containerStatuses[0].restartCount";
        cluster.until("it runs again", async || cluster.field("pod", "p", restarts).await == "1").await;
        cluster
            .until("both runs wrote", async || {
                kubectl.run(&["exec", "p", "--", "cat", "/data/file"]).await.is_ok_and(|text| text == "run\nrun\n")
            })
            .await;
        assert_eq!(cluster.field("pvc", "data", ".status.phase").await, "Bound");
        kubectl.must(&["delete", "pod", "p"]).await;
        cluster.until("both are gone", async || kubectl.must(&["get", "pvc,pv", "-o", "name"]).await.is_empty()).await;
        cluster.uninstall().await;
    });
}

/// A pod's status and the node's metrics tell of a claim's volume.
async fn told(cluster: &Cluster<'_>) {
    let kubectl = cluster.kubectl();
    let room = Room::with(cluster, &kubectl, "told").await;
    room.apply(&claim("data", "")).await;
    room.apply(&pod("p", STAYS, "data", "")).await;
    room.must("wait pod/p --for=condition=Ready --timeout=60s").await;
    let mounts = r#".status.containerStatuses[0].volumeMounts[?(@.mountPath=="/data")].name"#;
    assert_eq!(room.field("pod/p", mounts).await, "v");
    let metrics = room.must(&format!("get --raw /api/v1/nodes/{NODE}/proxy/metrics")).await;
    let told = "kubelet_volume_stats_capacity_bytes{namespace=\"told\",persistentvolumeclaim=\"data\"} ";
    let size = metrics.lines().find_map(|line| line.strip_prefix(told)?.parse::<f64>().ok());
    assert!(size.is_some_and(|bytes| bytes > 0.0), "{metrics}");
    room.leave().await;
}

async fn by_default(cluster: &Cluster<'_>, kubectl: &Kubectl) {
    let room = Room::with(cluster, kubectl, "folders").await;
    let class = room.must("get sc --no-headers").await;
    let cells: Vec<&str> = class.split_whitespace().collect();
    let wanted = ["local-path", "(default)", "gantry.dev/local-path", "Delete", "WaitForFirstConsumer", "false"];
    assert_eq!(cells[..6], wanted, "{class}");
    room.apply(&claim("data", "")).await;
    cluster
        .until("the claim says what it waits for", async || {
            let told = room.must("describe pvc data").await;
            told.contains("WaitForFirstConsumer") && told.contains("waiting for first consumer to be created")
        })
        .await;
    let row = room.must("get pvc data --no-headers").await;
    assert_eq!(row.split_whitespace().collect::<Vec<_>>()[..3], ["data", "Pending", "local-path"], "{row}");
    room.apply(&pod("writes", &format!("echo kept > /data/file; {STAYS}"), "data", "")).await;
    room.must("wait pod/writes --for=condition=Ready --timeout=60s").await;
    let row = room.must("get pvc data --no-headers").await;
    let volume = room.field("pvc/data", ".spec.volumeName").await;
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[..6], ["data", "Bound", &volume, "1Mi", "RWO", "local-path"], "{row}");
    let row = room.must("get pv --no-headers").await;
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[..7], [&volume, "1Mi", "RWO", "Delete", "Bound", "folders/data", "local-path"], "{row}");
    assert_eq!(room.field(&format!("pv/{volume}"), ".metadata.labels.gantry\\.dev/node").await, NODE);
    let folder = room.field(&format!("pv/{volume}"), ".spec.local.path").await;
    let file = std::path::Path::new(&folder).join("file");
    cluster.until("the file is there", async || file.exists()).await;
    assert!(file.starts_with(cluster.machine().root().join("var/lib/gantry/volumes")), "{}", file.display());
    room.must("delete pod writes").await;
    assert!(file.exists());
    room.apply(&pod("reads", &format!("cat /data/file; {STAYS}"), "data", "")).await;
    room.must("wait pod/reads --for=condition=Ready --timeout=60s").await;
    cluster.until("the second pod reads it", async || room.must("logs reads").await == "kept\n").await;
    // What is in use stays until it is not.
    room.must("delete pvc data --wait=false").await;
    let row = room.must("get pvc data --no-headers").await;
    assert_eq!(row.split_whitespace().nth(1), Some("Terminating"), "{row}");
    room.apply(&pod("late", STAYS, "data", "")).await;
    let why = r#".status.conditions[?(@.type=="PodScheduled")].message"#;
    room.until("pod/late", why, "0/1 nodes are available: persistentvolumeclaim \"data\" is being deleted.").await;
    assert!(file.exists());
    room.must("delete pod reads").await;
    room.until("pvc", ".items[*].metadata.name", "").await;
    room.until("pv", ".items[*].metadata.name", "").await;
    assert!(!std::path::Path::new(&folder).exists(), "{folder} is left");
    room.until("pod/late", why, "0/1 nodes are available: persistentvolumeclaim \"data\" not found.").await;
    room.leave().await;
}

/// Bad input is answered with the field that is wrong.
async fn refused(cluster: &Cluster<'_>, kubectl: &Kubectl) {
    let room = Room::with(cluster, kubectl, "bad").await;
    let volume = |spec: &str| {
        format!(
            "{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: bad}}, spec: {{accessModes: [ReadWriteOnce], {spec}}}}}"
        )
    };
    for (manifest, words) in [
        (claim("bad", ", volumeMode: Tape"), "spec.volumeMode: Unsupported value: \"Tape\""),
        (claim("bad", "").replace("ReadWriteOnce", "Sometimes"), "spec.accessModes: Unsupported value: \"Sometimes\""),
        (
            claim("bad", "").replace("1Mi", "0"),
            "spec.resources[storage]: Invalid value: \"0\": must be greater than zero",
        ),
        (claim("bad", ", storageClassName: A_B"), "spec.storageClassName: Invalid value: \"A_B\""),
        (volume("hostPath: {path: /x}"), "spec.capacity: Required value"),
        (volume("capacity: {storage: 1Gi}"), "spec: Required value: must specify a volume type"),
        (
            volume("capacity: {storage: 1Gi}, local: {path: /x}"),
            "spec.nodeAffinity: Required value: Local volume requires node affinity",
        ),
        (
            "{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: bad}, provisioner: ''}".to_owned(),
            "provisioner: Required value",
        ),
    ] {
        let refused = room.try_apply(&manifest).await.unwrap_err();
        assert!(refused.contains("is invalid") && refused.contains(words), "{manifest}: {refused}");
    }
    room.apply(&claim("good", "")).await;
    let patch = r#"{"spec":{"accessModes":["ReadWriteMany"]}}"#;
    let refused = room.run(&["patch", "pvc", "good", "-p", patch]).await.unwrap_err();
    assert!(refused.contains("spec: Forbidden: spec is immutable after creation"), "{refused}");
    room.must("delete pvc good").await;
    room.leave().await;
}

/// Volumes that somebody has made by hand.
async fn brought(cluster: &Cluster<'_>) {
    let room = Room::new(cluster, "brought").await;
    let folder = cluster.machine().root().join("brought");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("file"), "from the host\n").expect("a file");
    let manifest = |name: &str, size: &str| {
        format!(
            "{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: {name}, labels: {{made: {name}}}}}, spec: \
             {{accessModes: [ReadWriteOnce], capacity: {{storage: {size}}}, storageClassName: '', hostPath: {{path: {:?}}}}}}}",
            folder.display()
        )
    };
    room.apply(&manifest("first", "1Mi")).await;
    room.apply(&manifest("second", "2Mi")).await;
    room.until("pv/second", ".status.phase", "Available").await;
    room.apply(&claim("data", ", storageClassName: '', selector: {matchLabels: {made: second}}")).await;
    room.until("pvc/data", ".status.phase", "Bound").await;
    assert_eq!(room.field("pvc/data", ".spec.volumeName").await, "second");
    assert_eq!(room.field("pvc/data", ".status.capacity.storage").await, "2Mi");
    assert_eq!(room.field("pv/first", ".status.phase").await, "Available");
    room.apply(&pod("reads", "cat /data/file", "data", ONCE)).await;
    room.until("pod/reads", ".status.phase", "Succeeded").await;
    assert_eq!(room.must("logs reads").await, "from the host\n");
    // Read-only where the pod says so.
    let read_only = pod("tries", "touch /data/other || echo refused", "data", ONCE)
        .replace("claimName: data}", "claimName: data, readOnly: true}");
    room.apply(&read_only).await;
    room.until("pod/tries", ".status.phase", "Succeeded").await;
    assert!(room.must("logs tries").await.contains("refused"));
    assert!(!folder.join("other").exists());
    room.must("delete pod reads tries").await;
    room.must("delete pvc data --timeout=30s").await;
    room.until("pv/second", ".status.phase", "Released").await;
    assert!(folder.join("file").exists(), "what is kept is kept");
    // A claim that fits nothing says so, and gets what comes.
    room.apply(&claim("large", ", storageClassName: ''").replace("1Mi", "3Mi")).await;
    cluster
        .until("the claim says that there is nothing", async || {
            room.must("describe pvc large").await.contains("no persistent volumes available for this claim")
        })
        .await;
    room.apply(&pod("waits", STAYS, "large", "")).await;
    let why = r#".status.conditions[?(@.type=="PodScheduled")].message"#;
    room.until("pod/waits", why, "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.").await;
    room.apply(&manifest("third", "3Mi")).await;
    room.must("wait pod/waits --for=condition=Ready --timeout=60s").await;
    room.must("delete pod waits").await;
    // A local volume, which is a block device to nobody.
    let block = format!(
        "{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: block}}, spec: {{accessModes: [ReadWriteOnce], \
         capacity: {{storage: 9Mi}}, volumeMode: Block, storageClassName: raw, local: {{path: {:?}}}, nodeAffinity: \
         {{required: {{nodeSelectorTerms: [{{matchExpressions: [{{key: kubernetes.io/os, operator: In, values: [linux]}}]}}]}}}}}}}}",
        folder.display()
    );
    room.apply(&block).await;
    room.apply(&claim("raw", ", storageClassName: raw, volumeMode: Block")).await;
    room.until("pvc/raw", ".status.phase", "Bound").await;
    room.apply(&pod("raw", STAYS, "raw", "")).await;
    cluster
        .until("block volumes are refused by name", async || {
            room.must("describe pod raw").await.contains("volumeMode Block is not supported")
        })
        .await;
    room.must("delete pod raw").await;
    room.must("delete pvc raw large").await;
    room.must("delete pv block first second third --timeout=30s").await;
    room.leave().await;
}

/// Who may use a claim beside whom, and as whom.
async fn shared(cluster: &Cluster<'_>) {
    let room = Room::new(cluster, "shared").await;
    room.apply(&claim("alone", "").replace("ReadWriteOnce", "ReadWriteOncePod")).await;
    let group = ", securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000}";
    let line = format!("echo mine > /data/file; stat -c %g /data /data/file; {STAYS}");
    room.apply(&pod("first", &line, "alone", group)).await;
    room.must("wait pod/first --for=condition=Ready --timeout=60s").await;
    cluster.until("both are the group's", async || room.must("logs first").await == "2000\n2000\n").await;
    room.apply(&pod("second", STAYS, "alone", "")).await;
    let why = r#".status.conditions[?(@.type=="PodScheduled")].message"#;
    let words = "0/1 nodes are available: 1 node has pod using PersistentVolumeClaim with the same name and \
                 ReadWriteOncePod access mode.";
    room.until("pod/second", why, words).await;
    room.must("delete pod first").await;
    room.must("wait pod/second --for=condition=Ready --timeout=60s").await;
    room.must("delete pod second").await;
    // What a namespace may claim is bounded.
    room.must("create quota room --hard=persistentvolumeclaims=2,requests.storage=3Mi").await;
    room.until("quota/room", ".status.used.requests\\.storage", "1Mi").await;
    let refused = room.try_apply(&claim("large", "").replace("1Mi", "5Mi")).await.unwrap_err();
    assert!(refused.contains("exceeded quota: room, requested: requests.storage=5Mi"), "{refused}");
    room.apply(&claim("last", "")).await;
    let refused = room.try_apply(&claim("more", "")).await.unwrap_err();
    assert!(refused.contains("exceeded quota: room, requested: persistentvolumeclaims=1"), "{refused}");
    room.must("delete pvc alone last").await;
    room.until("quota/room", ".status.used.persistentvolumeclaims", "0").await;
    room.leave().await;
}

/// A volume that is a pod's own goes with it.
async fn own(cluster: &Cluster<'_>) {
    let room = Room::new(cluster, "own").await;
    let template = "ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: \
                    {storage: 1Mi}}}}}";
    let manifest = pod("p", &format!("echo x > /data/file; {STAYS}"), "data", "")
        .replace("persistentVolumeClaim: {claimName: data}", template);
    room.apply(&manifest).await;
    room.must("wait pod/p --for=condition=Ready --timeout=60s").await;
    assert_eq!(room.field("pvc/p-v", ".status.phase").await, "Bound");
    let volume = room.field("pvc/p-v", ".spec.volumeName").await;
    let folder = room.field(&format!("pv/{volume}"), ".spec.local.path").await;
    room.must("delete pod p").await;
    room.until("pvc", ".items[*].metadata.name", "").await;
    room.until("pv", ".items[*].metadata.name", "").await;
    assert!(!std::path::Path::new(&folder).exists(), "{folder} is left");
    room.leave().await;
}

/// Containers that mount a path inside a volume, and one that is led out of it.
async fn parts(cluster: &Cluster<'_>) {
    let room = Room::new(cluster, "parts").await;
    room.apply(&claim("data", "")).await;
    room.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: page}, data: {index: hello}}").await;
    let line = format!("echo one > /part/file; ln -s / /whole/evil; cat /named/page; find /whole | sort; {STAYS}");
    let mounts = ", env: [{name: WHO, value: me}], volumeMounts: [{name: v, mountPath: /whole}, {name: v, mountPath: \
                  /part, subPath: a/b}, {name: v, mountPath: /mine, subPathExpr: of/$(WHO)}, {name: c, mountPath: \
                  /named/page, subPath: index}]";
    let volumes =
        "{volumes: [{name: v, persistentVolumeClaim: {claimName: data}}, {name: c, configMap: {name: page}}], ";
    let manifest = |name: &str, line: &str, mounts: &str| {
        let spec = spec(line, mounts).replacen('{', volumes, 1);
        format!("{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {spec}}}")
    };
    room.apply(&manifest("p", &line, mounts)).await;
    room.must("wait pod/p --for=condition=Ready --timeout=60s").await;
    let found = "hello/whole\n/whole/a\n/whole/a/b\n/whole/a/b/file\n/whole/evil\n/whole/of\n/whole/of/me\n";
    cluster.until("it has what it asked for", async || room.must("logs p").await == found).await;
    // Its next run has the same, and another pod is not led to the host.
    room.run(&["exec", "p", "--", "sh", "-c", "rm /whole/evil; kill 1"]).await.unwrap();
    room.until("pod/p", ".status.containerStatuses[0].restartCount", "1").await;
    cluster.until("it has that again", async || room.must("logs p").await == found).await;
    room.apply(&manifest("led", STAYS, ", volumeMounts: [{name: v, mountPath: /host, subPath: evil/etc}]")).await;
    let why = ".status.containerStatuses[0].state.waiting.reason";
    room.until("pod/led", why, "CreateContainerConfigError").await;
    let lacks = ", volumeMounts: [{name: v, mountPath: /x, subPathExpr: $(NOBODY)}]";
    room.apply(&manifest("lacks", STAYS, lacks)).await;
    room.until("pod/lacks", why, "CreateContainerConfigError").await;
    assert!(room.must("describe pod lacks").await.contains("missing value for \"NOBODY\""));
    room.must("delete pod p led lacks").await;
    room.leave().await;
}

async fn stateful(cluster: &Cluster<'_>) {
    let room = Room::new(cluster, "members").await;
    let spec =
        spec(&format!("echo $HOSTNAME >> /data/file; {STAYS}"), ", volumeMounts: [{name: data, mountPath: /data}]");
    let manifest = |policy: &str| {
        format!(
            "{{apiVersion: apps/v1, kind: StatefulSet, metadata: {{name: db}}, spec: {{replicas: 2, serviceName: dbs, \
             persistentVolumeClaimRetentionPolicy: {policy}, selector: {{matchLabels: {{app: db}}}}, template: \
             {{metadata: {{labels: {{app: db}}}}, spec: {spec}}}, volumeClaimTemplates: [{{metadata: {{name: data}}, \
             spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Mi}}}}}}}}]}}}}"
        )
    };
    // Kept: members that come back find what they left.
    room.apply(&manifest("{whenDeleted: Retain, whenScaled: Retain}")).await;
    room.must("rollout status sts/db --timeout=60s").await;
    assert_eq!(room.field("pvc", ".items[*].metadata.name").await, "data-db-0 data-db-1");
    assert!(room.must("describe sts db").await.contains("create Claim data-db-0 Pod db-0 in StatefulSet db success"));
    room.must("scale sts/db --replicas=1").await;
    room.until("pods", ".items[*].metadata.name", "db-0").await;
    room.must("scale sts/db --replicas=2").await;
    room.must("rollout status sts/db --timeout=60s").await;
    cluster
        .until("the second member finds what it wrote", async || {
            room.run(&["exec", "db-1", "--", "cat", "/data/file"]).await.is_ok_and(|text| text == "db-1\ndb-1\n")
        })
        .await;
    room.must("delete sts db --timeout=60s").await;
    room.until("pods", ".items[*].metadata.name", "").await;
    assert_eq!(room.field("pvc", ".items[*].status.phase").await, "Bound Bound");
    assert_eq!(room.field("pvc", ".items[*].metadata.ownerReferences").await, "");
    // Not kept: a member that goes for good takes its claim along, and the set takes all.
    room.apply(&manifest("{whenDeleted: Delete, whenScaled: Delete}")).await;
    room.must("rollout status sts/db --timeout=60s").await;
    room.until("pvc", ".items[*].metadata.ownerReferences[0].kind", "StatefulSet StatefulSet").await;
    room.must("scale sts/db --replicas=1").await;
    room.until("pvc", ".items[*].metadata.name", "data-db-0").await;
    room.must("delete sts db --timeout=60s").await;
    room.until("pvc", ".items[*].metadata.name", "").await;
    room.until("pv", ".items[*].metadata.name", "").await;
    let left = std::fs::read_dir(cluster.machine().root().join("var/lib/gantry/volumes")).expect("a folder").count();
    assert_eq!(left, 0, "folders are left");
    room.leave().await;
}
