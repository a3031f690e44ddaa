use std::sync::Arc;

use gantry_kube::Object;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn node(name: &str, cpu: &str, extra: Value) -> Object {
    let mut value = json!({"metadata": {"name": name, "labels": {"name": name}}, "spec": {},
        "status": {"allocatable": {"cpu": cpu, "memory": "1Gi", "pods": "3"}}});
    json_patch::merge(&mut value, &extra);
    Object::from_value(value).unwrap()
}

fn pod(uid: &str, cpu: &str, extra: Value) -> Arc<PodInfo> {
    let mut value = json!({"metadata": {"name": uid, "namespace": "a", "uid": uid},
        "spec": {"schedulerName": "default-scheduler", "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
    json_patch::merge(&mut value, &extra);
    Arc::new(PodInfo::project(Object::from_value(value).unwrap()))
}

fn snapshot(nodes: &[Object]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    nodes.iter().for_each(|node| {
        snapshot.set_node(node);
    });
    snapshot
}

fn refused(decision: Decision) -> String {
    match decision {
        Decision::Unschedulable { message } => message,
        Decision::Bind { node } => panic!("bound to {node}"),
    }
}

#[test]
fn every_node_has_its_reason() {
    let snapshot = snapshot(&[
        node("small", "100m", json!({})),
        node("cordoned", "4", json!({"spec": {"unschedulable": true}})),
        node("tainted", "4", json!({"spec": {"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}})),
    ]);
    assert_eq!(
        refused(decide(&snapshot, &pod("p", "1", json!({})), 0)),
        "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {gpu: yes}, 1 node(s) were unschedulable."
    );
    let wants = json!({"spec": {"nodeSelector": {"disk": "ssd"}}});
    assert!(
        refused(decide(&snapshot, &pod("p", "10m", wants), 0))
            .contains("1 node(s) didn't match Pod's node affinity/selector")
    );
    assert_eq!(
        refused(decide(&Snapshot::default(), &pod("p", "1", json!({})), 0)),
        "no nodes available to schedule pods"
    );
}

#[test]
fn host_ports_and_the_number_of_pods_are_limits() {
    let mut one = snapshot(&[node("n", "4", json!({}))]);
    let port = json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}]}]}});
    one.assume(&pod("a", "0", port.clone()), "n");
    assert!(refused(decide(&one, &pod("b", "0", port), 0)).contains("free ports"));
    one.assume(&pod("b", "0", json!({})), "n");
    one.assume(&pod("c", "0", json!({})), "n");
    assert!(refused(decide(&one, &pod("d", "0", json!({})), 0)).contains("Too many pods"));
}

#[test]
fn an_assumed_pod_counts_and_a_forgotten_one_does_not() {
    let mut one = snapshot(&[node("n", "1", json!({}))]);
    let first = pod("a", "800m", json!({}));
    one.assume(&first, "n");
    refused(decide(&one, &pod("b", "800m", json!({})), 0));
    one.forget("a");
    assert_eq!(decide(&one, &pod("b", "800m", json!({})), 0), Decision::Bind { node: "n".into() });
}

#[test]
fn preferences_decide_between_equals() {
    let two = snapshot(&[node("x", "4", json!({})), node("y", "4", json!({}))]);
    let prefers = json!({"spec": {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 10, "preference": {"matchExpressions": [{"key": "name", "operator": "In", "values": ["y"]}]}}]}}}});
    for die in 0..4 {
        assert_eq!(decide(&two, &pod("p", "1", prefers.clone()), die), Decision::Bind { node: "y".into() });
    }
}

/// Pods that name their node are not asked whether they fit; what they ask for must not wrap around into room.
#[test]
fn the_largest_requests_leave_no_room() {
    let mut world = snapshot(&[node("x", "4", json!({"status": {"allocatable": {"pods": "110"}}}))]);
    for uid in ["a", "b", "c"] {
        world.assume(&pod(uid, "9223372036854775807", json!({})), "x");
    }
    assert!(refused(decide(&world, &pod("p", "1m", json!({})), 0)).contains("Insufficient cpu"));
    let greedy = pod("p", "9223372036854775807", json!({}));
    score::scores(&[&world.nodes()[0]], &greedy, &Topology::of(&world, &greedy));
    for uid in ["a", "b", "c"] {
        world.remove_pod(uid);
    }
    assert_eq!(decide(&world, &pod("p", "1m", json!({})), 0), Decision::Bind { node: "x".into() });
}

proptest! {
    /// No node is ever given more than it has, whatever comes and goes.
    #[test]
    fn never_overcommitted(steps in proptest::collection::vec((0_u8..12, 1_i64..900, any::<bool>()), 1..60), die in any::<u64>()) {
        let mut world = snapshot(&[node("x", "1", json!({})), node("y", "2", json!({}))]);
        for (id, cpu, goes) in steps {
            let uid = format!("p{id}");
            if goes {
                world.remove_pod(&uid);
            } else if !world.nodes().iter().any(|n| n.pods.contains_key(&uid)) {
                let pod = pod(&uid, &format!("{cpu}m"), json!({}));
                if let Decision::Bind { node } = decide(&world, &pod, die) {
                    world.assume(&pod, &node);
                }
            }
            for node in world.nodes() {
                prop_assert!(node.used.get("cpu").copied().unwrap_or(0) <= i128::from(node.allocatable["cpu"]));
                prop_assert!(node.pods.len() <= 3);
                let sum: i128 = node.pods.values().filter_map(|p| p.requests.get("cpu")).map(|n| i128::from(*n)).sum();
                prop_assert_eq!(sum, node.used.get("cpu").copied().unwrap_or(0));
            }
        }
    }
}
