//! SECURITY 17 (CVE-2025-5187, CVE-2025-4563): a node's credential tries each field, by each way of writing.

use gantry_client::{Client, ClientError, DeleteOptions, Patch, Query};
use gantry_control::auth::Identity;
use gantry_kube::resource::{CONFIG_MAP, CSI_NODE, LEASE, NODE, POD, SECRET, SERVICE_ACCOUNT};
use gantry_kube::{Object, Ref, Resource};
use serde_json::{Value, json};

use crate::house::House;

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

fn code<T>(answer: Result<T, ClientError>) -> u16 {
    match answer {
        Ok(_) => 200,
        Err(error) => error.status().map_or(0, |status| status.code),
    }
}

struct Cluster {
    house: House,
    admin: Client,
    node: Client,
}

fn pod(name: &str, node: &str, secret: &str) -> Object {
    object(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "nodeName": node, "containers": [{"name": "c", "image": "x"}],
            "volumes": [{"name": "s", "secret": {"secretName": secret}}],
        },
    }))
}

/// A cluster with the nodes n and m, and a pod with a secret on each.
async fn cluster() -> Cluster {
    let house = House::start().await;
    let admin = house.client(Identity::new("root", ["system:masters"]));
    let node = house.client(Identity::new("system:node:n", ["system:nodes"]));
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "default"}});
    admin.create(&SERVICE_ACCOUNT, &object(account)).await.unwrap();
    let own = json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "n", "labels": {"kubernetes.io/hostname": "n"}}});
    node.create(&NODE, &object(own)).await.unwrap();
    admin.create(&NODE, &object(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "m"}}))).await.unwrap();
    for (on, secret) in [("n", "own"), ("m", "foreign")] {
        let body = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret, "namespace": "default"}});
        admin.create(&SECRET, &object(body)).await.unwrap();
        admin.create(&POD, &pod(&format!("on-{on}"), on, secret)).await.unwrap();
    }
    Cluster { house, admin, node }
}

impl Cluster {
    /// Clients first: each holds the service that it speaks to.
    async fn stop(self) {
        let Cluster { house, admin, node } = self;
        drop((admin, node));
        house.control.stop().await;
    }

    async fn guarded(&self, resource: &Resource, at: &Ref) -> Value {
        let found = self.admin.get(resource, at).await.unwrap();
        let part = |pointer: &str| found.get(pointer).cloned();
        json!([
            part("/metadata/labels"),
            part("/metadata/ownerReferences"),
            part("/metadata/annotations"),
            part("/spec")
        ])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_cannot_change_what_draws_pods_to_it() {
    let cluster = cluster().await;
    let (own, other) = (Ref::cluster("n"), Ref::cluster("m"));
    let before = cluster.guarded(&NODE, &own).await;
    assert_eq!(before[3]["taints"][0]["key"], "node.kubernetes.io/not-ready");
    for attempt in [
        json!({"metadata": {"labels": {"node-restriction.kubernetes.io/tenant": "a"}}}),
        json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}}),
        json!({"metadata": {"ownerReferences": [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "00000000-0000-0000-0000-000000000000"}]}}),
        json!({"spec": {"taints": []}}),
        json!({"spec": {"taints": null}}),
    ] {
        for subresource in ["", "status"] {
            let answer = cluster.node.patch(&NODE, &own, subresource, Patch::Merge(attempt.clone())).await;
            assert!(subresource == "status" || code(answer) == 403, "{attempt}");
            assert_eq!(cluster.guarded(&NODE, &own).await, before, "{attempt} by {subresource:?}");
            let answer = cluster.node.patch(&NODE, &other, subresource, Patch::Merge(attempt.clone())).await;
            assert_eq!(code(answer), 403, "{attempt} on another node");
        }
    }
    let mut whole = cluster.node.get(&NODE, &own).await.unwrap();
    whole.map_mut("spec").remove("taints");
    assert_eq!(code(cluster.node.update(&NODE, &whole).await), 403);
    assert_eq!(code(cluster.node.delete(&NODE, &own, &DeleteOptions::default()).await), 403);
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    assert_eq!(code(cluster.node.patch(&NODE, &own, "status", Patch::Strategic(ready)).await), 200);
    let zone = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "z"}}});
    assert_eq!(code(cluster.node.patch(&NODE, &own, "", Patch::Merge(zone)).await), 200);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_reaches_its_own_pods_and_what_they_name() {
    let cluster = cluster().await;
    let at = |name: &str| Ref::new("default", name);
    let node = &cluster.node;
    for (pod, expected) in [("on-n", 200), ("on-m", 403)] {
        let status = json!({"status": {"phase": "Running"}});
        assert_eq!(code(node.patch(&POD, &at(pod), "status", Patch::Merge(status)).await), expected, "{pod}");
        let uid = cluster.admin.get(&POD, &at(pod)).await.unwrap().uid().to_owned();
        let bound = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid}}});
        let answer = node.post(&SERVICE_ACCOUNT, &at("default"), "token", &bound).await;
        assert_eq!(code(answer), if expected == 200 { 200 } else { 403 }, "a token of {pod}");
    }
    let free = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    assert_eq!(code(node.post(&SERVICE_ACCOUNT, &at("default"), "token", &free).await), 403);
    for (name, expected) in [("own", 200), ("foreign", 403)] {
        assert_eq!(code(node.get(&SECRET, &at(name)).await), expected, "{name}");
    }
    assert_eq!(code(node.list(&SECRET, None, &Query::default()).await), 403);
    assert_eq!(code(node.get(&CONFIG_MAP, &at("kube-root-ca.crt")).await), 404, "its pod names it; nobody has made it");
    let own = json!({"metadata": {"labels": {"app": "stolen"}}});
    let before = cluster.guarded(&POD, &at("on-n")).await;
    assert_eq!(code(node.patch(&POD, &at("on-n"), "", Patch::Merge(own.clone())).await), 403);
    let _ = node.patch(&POD, &at("on-n"), "status", Patch::Merge(own)).await;
    assert_eq!(cluster.guarded(&POD, &at("on-n")).await, before);
    assert_eq!(code(node.create(&POD, &pod("new", "n", "foreign")).await), 403);
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "on-m"}, "target": {"name": "n"}});
    assert_eq!(code(node.post(&POD, &at("on-m"), "binding", &binding).await), 403);
    assert_eq!(code(node.delete(&POD, &at("on-m"), &DeleteOptions::default()).await), 403);
    let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    assert_eq!(code(node.delete(&POD, &at("on-n"), &now).await), 200);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_tells_of_its_own_drivers_alone() {
    let cluster = cluster().await;
    let drivers = |name: &str| {
        object(
            json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": name}, "spec": {"drivers": []}}),
        )
    };
    cluster.admin.create(&CSI_NODE, &drivers("m")).await.unwrap();
    for (name, expected) in [("n", 200), ("x", 403)] {
        assert_eq!(code(cluster.node.create(&CSI_NODE, &drivers(name)).await), expected, "{name}");
    }
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    for (name, expected) in [("n", 200), ("m", 403)] {
        let at = Ref::cluster(name);
        assert_eq!(
            code(cluster.node.patch(&CSI_NODE, &at, "", Patch::Merge(labels.clone())).await),
            expected,
            "{name}"
        );
        assert_eq!(code(cluster.node.delete(&CSI_NODE, &at, &DeleteOptions::default()).await), expected, "{name}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_beats_for_itself_alone() {
    let cluster = cluster().await;
    let lease = |namespace: &str, name: &str| {
        object(json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"holderIdentity": "n", "leaseDurationSeconds": 40}}))
    };
    for (namespace, name, expected) in
        [("kube-node-lease", "n", 200), ("kube-node-lease", "m", 403), ("default", "n", 403), ("kube-system", "x", 403)]
    {
        assert_eq!(code(cluster.node.create(&LEASE, &lease(namespace, name)).await), expected, "{namespace}/{name}");
    }
    cluster.stop().await;
}
