//! A large cluster at rest: what 150,000 pods take of memory, and how long a start with them takes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gantry_control::store::{Compare, Embedded, Expect, Key, Op, Store, encode};
use gantry_kube::{Object, Ref};
use gantry_tests::figures::line;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::child::Server;
use crate::{Failure, Setting, millis};

const POD_BYTES: usize = 3000;
const PODS_A_NODE: usize = 30;
const NAMESPACES: usize = 100;
const WRITERS: usize = 512;
/// After this the loops have read everything and found nothing to do.
const SETTLED: Duration = Duration::from_secs(20);

/// A running pod of a Deployment as the store has it, filled up to [`POD_BYTES`].
fn pod(number: usize) -> Object {
    let (name, namespace) = (format!("web-{:08x}-{number:06}", number / 50), format!("team-{}", number % NAMESPACES));
    let node = format!("node-{}", number / PODS_A_NODE);
    let time = "2026-01-01T00:00:00Z";
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": time});
    let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(condition);
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": namespace, "uid": format!("00000000-0000-4000-8000-{number:012}"),
            "creationTimestamp": time, "generateName": format!("web-{:08x}-", number / 50),
            "labels": {"app": format!("web-{}", number / 50), "pod-template-hash": "5d4f8c7b9"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("web-{:08x}", number / 50),
                "uid": format!("10000000-0000-4000-8000-{:012}", number / 50), "controller": true}],
        },
        "spec": {
            "nodeName": node, "restartPolicy": "Always", "serviceAccountName": "default", "dnsPolicy": "ClusterFirst",
            "terminationGracePeriodSeconds": 30, "schedulerName": "default-scheduler", "priority": 0,
            "containers": [{
                "name": "web", "image": "registry.example.com/team/web:1.27.3", "imagePullPolicy": "IfNotPresent",
                "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                "env": [{"name": "LOG_LEVEL", "value": "info"}],
                "volumeMounts": [{"name": "kube-api-access", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
            }],
            "tolerations": [
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
            ],
        },
        "status": {
            "phase": "Running", "hostIP": "10.0.0.1", "podIP": "10.244.1.2", "startTime": time,
            "conditions": conditions,
            "containerStatuses": [{"name": "web", "ready": true, "started": true, "restartCount": 0,
                "image": "registry.example.com/team/web:1.27.3", "state": {"running": {"startedAt": time}}}],
        },
    });
    let rest = POD_BYTES.saturating_sub(pod.to_string().len());
    pod["metadata"]["annotations"] = json!({"example.com/notes": "x".repeat(rest)});
    object(pod)
}

fn node(number: usize) -> Object {
    object(json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("node-{number}"),
            "uid": format!("20000000-0000-4000-8000-{number:012}"), "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {},
        "status": {"capacity": {"cpu": "32", "memory": "128Gi", "pods": "110"}, "allocatable": {"cpu": "32",
            "memory": "128Gi", "pods": "110"}, "conditions": [{"type": "Ready", "status": "True"}]},
    }))
}

fn object(value: Value) -> Object {
    Object::from_value(value).expect("a literal map")
}

/// Writes a store with so many pods, as it is when the history has been compacted.
async fn fill(folder: &Path, count: usize) -> Result<(), Failure> {
    std::fs::create_dir_all(folder.join("control"))?;
    let store = Arc::new(Embedded::open_file(folder.join("control/store.redb"))?);
    let put = |store: Arc<Embedded>, kind: &'static str, object: Object| async move {
        let key = Key::new(kind, &Ref::new(object.namespace(), object.name()));
        let value = encode(&object)?.bytes;
        store.write(vec![Compare { key: key.clone(), expect: Expect::Absent }], vec![Op::Put { key, value }]).await?;
        Ok::<_, Failure>(())
    };
    let nodes = count.div_ceil(PODS_A_NODE);
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            for number in (writer..nodes).step_by(WRITERS) {
                put(store.clone(), "nodes", node(number)).await?;
            }
            for number in (writer..count).step_by(WRITERS) {
                put(store.clone(), "pods", pod(number)).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    store.compact(store.current().await?).await?;
    Ok(())
}

pub async fn pods(setting: &Setting, count: usize, rounds: usize) -> Result<(), Failure> {
    let folder = tempfile::tempdir_in(setting.folder())?;
    fill(folder.path(), count).await?;
    println!("{count} pods of {POD_BYTES} bytes on {} nodes", count.div_ceil(PODS_A_NODE));
    let size = std::fs::metadata(folder.path().join("control/store.redb"))?.len();
    println!("{:<44} {:>12.0} MiB", "  the store's file", size as f64 / f64::from(1 << 20));
    read(folder.path())?;
    let mut took = Vec::new();
    for _ in 0..rounds {
        let at = Instant::now();
        let server = Server::start(&["control"], folder.path())?;
        took.push(millis(at.elapsed()));
        memory("  API alone", &server);
        server.stop()?;
    }
    line("  a start, until the API answers", took, "ms");
    let server = Server::start(&["control", "--loops"], folder.path())?;
    tokio::time::sleep(SETTLED).await;
    memory("  with controllers and scheduler", &server);
    server.stop()
}

/// The peer of a start: the file alone, read once from the page cache.
fn read(folder: &Path) -> Result<(), Failure> {
    let at = Instant::now();
    std::io::copy(&mut std::fs::File::open(folder.join("control/store.redb"))?, &mut std::io::sink())?;
    println!("{:<44} {:>12.0} ms", "  peer: its file, read once", millis(at.elapsed()));
    Ok(())
}

fn memory(what: &str, server: &Server) {
    let memory = server.memory();
    let cpu = server.cpu_millis();
    println!("{what:<44} {:>12.0} MiB (at most {:.0}); CPU so far {cpu:.0} ms", memory.now, memory.most);
}
