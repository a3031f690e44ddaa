use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::scheduler::cycle::{Decision, decide};

fn object(mut value: Value, more: &Value) -> Arc<Object> {
    json_patch::merge(&mut value, more);
    Arc::new(Object::from_value(value).unwrap())
}

fn world(nodes: &[&str]) -> Snapshot {
    let mut world = Snapshot::default();
    for name in nodes {
        let status = json!({"allocatable": {"cpu": "4", "pods": "10"}});
        let labels = json!({"kubernetes.io/hostname": name});
        let node = json!({"metadata": {"name": name, "labels": labels}, "spec": {}, "status": status});
        world.set_node(&Object::from_value(node).unwrap());
    }
    for (name, provisioner, mode) in [
        ("late", "gantry.dev/local-path", "WaitForFirstConsumer"),
        ("by-hand", "kubernetes.io/no-provisioner", "WaitForFirstConsumer"),
        ("now", "example.com/disk", "Immediate"),
    ] {
        let class = json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode});
        world.storage.classes.insert(Ref::cluster(name), object(class, &json!({})));
    }
    world
}

fn claim(world: &mut Snapshot, name: &str, class: &str, more: Value) {
    let value = json!({
        "metadata": {"name": name, "namespace": "a", "uid": name, "resourceVersion": "5"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class, "resources": {"requests": {"storage": "1Gi"}}},
    });
    world.storage.claims.insert(Ref::new("a", name), object(value, &more));
}

fn bound_to(volume: &str) -> Value {
    json!({"metadata": {"annotations": {storage::BIND_COMPLETED: "yes"}}, "spec": {"volumeName": volume}})
}

fn volume(world: &mut Snapshot, name: &str, class: &str, node: &str) {
    let expression = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [node]});
    let value = json!({
        "metadata": {"name": name}, "status": {"phase": "Available"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class, "capacity": {"storage": "1Gi"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}},
    });
    world.storage.volumes.insert(Ref::cluster(name), object(value, &json!({})));
}

fn pod(name: &str, claims: &[&str]) -> Arc<PodInfo> {
    let volumes: Vec<Value> =
        claims.iter().map(|claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}})).collect();
    let metadata = json!({"name": name, "namespace": "a", "uid": name});
    let spec = json!({"containers": [{"name": "c"}], "volumes": volumes});
    Arc::new(PodInfo::project(Object::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()))
}

fn outcome(world: &Snapshot, pod: &PodInfo) -> String {
    match decide(world, pod, 0) {
        Decision::Bind { node } => node,
        Decision::Unschedulable { message } => message,
    }
}

#[test]
fn what_a_claim_lacks_is_told() {
    let mut one = world(&["n"]);
    claim(&mut one, "unbound", "now", json!({}));
    claim(&mut one, "leaving", "late", json!({"metadata": {"deletionTimestamp": "t"}}));
    claim(&mut one, "nowhere", "now", bound_to("gone"));
    claim(&mut one, "lonely", "by-hand", json!({}));
    claim(&mut one, "lost", "now", json!({"spec": {"volumeName": "x"}, "status": {"phase": "Lost"}}));
    for (name, why) in [
        ("missing", "persistentvolumeclaim \"missing\" not found"),
        ("unbound", "pod has unbound immediate PersistentVolumeClaims"),
        ("leaving", "persistentvolumeclaim \"leaving\" is being deleted"),
        ("lost", "persistentvolumeclaim \"lost\" bound to non-existent persistentvolume \"x\""),
        ("nowhere", "1 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"),
        ("lonely", "1 node(s) didn't find available persistent volumes to bind"),
    ] {
        assert_eq!(outcome(&one, &pod("p", &[name])), format!("0/1 nodes are available: {why}."));
    }
}

#[test]
fn a_pod_goes_where_its_volume_is() {
    let mut two = world(&["n", "m"]);
    volume(&mut two, "v", "now", "m");
    claim(&mut two, "data", "now", bound_to("v"));
    assert_eq!(outcome(&two, &pod("p", &["data"])), "m");
    volume(&mut two, "w", "now", "n");
    claim(&mut two, "other", "now", bound_to("w"));
    let message = outcome(&two, &pod("p", &["data", "other"]));
    assert_eq!(message, "0/2 nodes are available: 2 node(s) didn't match PersistentVolume's node affinity.");
}

#[test]
fn a_claim_that_waits_gets_what_the_node_has_or_has_it_made() {
    let mut two = world(&["n", "m"]);
    volume(&mut two, "v", "by-hand", "m");
    claim(&mut two, "data", "by-hand", json!({}));
    claim(&mut two, "scratch", "late", json!({}));
    let both = pod("p", &["data", "scratch"]);
    assert_eq!(outcome(&two, &both), "m");
    let node = two.nodes().iter().find(|node| node.name == "m").unwrap();
    let chosen = Needs::of(&two, &both).choose(node).unwrap();
    let kinds: Vec<(&str, bool)> =
        chosen.iter().map(|b| (b.claim().name(), matches!(b, Binding::Volume { .. }))).collect();
    assert_eq!(kinds, [("data", true), ("scratch", false)]);
    // What is promised to one is no other's.
    two.storage.promise(&chosen);
    claim(&mut two, "second", "by-hand", json!({}));
    assert!(outcome(&two, &pod("q", &["second"])).contains("2 node(s) didn't find available persistent volumes"));
    assert_eq!(outcome(&two, &both), "m");
    two.storage.withdraw(&chosen);
    assert_eq!(outcome(&two, &pod("q", &["second"])), "m");
}

#[test]
fn one_pod_alone_may_have_an_exclusive_claim() {
    let mut two = world(&["n", "m"]);
    claim(&mut two, "data", "late", json!({"spec": {"accessModes": ["ReadWriteOncePod"]}}));
    two.assume(&pod("first", &["data"]), "n");
    let message = outcome(&two, &pod("second", &["data"]));
    assert_eq!(message, format!("0/2 nodes are available: 2 {EXCLUSIVE}."));
    assert!(!outcome(&two, &pod("first", &["data"])).contains("available"), "its own claim is not in its way");
    two.remove_pod("first");
    assert!(!outcome(&two, &pod("second", &["data"])).contains("available"));
}

#[test]
fn a_bind_waits_for_its_claims_and_no_longer() {
    let mut one = world(&["n"]);
    claim(&mut one, "data", "late", json!({}));
    let claim = one.storage.claims[&Ref::new("a", "data")].clone();
    let binding = Binding::Provision { claim: claim.clone() };
    assert_eq!(progress(&binding, Some(&claim), "n", 6), Progress::Waits, "our own write is not seen yet");
    let seen = |more: Value| object((*claim).clone().into_value(), &more);
    let chosen = json!({"metadata": {"resourceVersion": "6", "annotations": {storage::SELECTED_NODE: "n"}}});
    assert_eq!(progress(&binding, Some(&seen(chosen)), "n", 6), Progress::Waits);
    let refused = json!({"metadata": {"resourceVersion": "7"}});
    assert_eq!(progress(&binding, Some(&seen(refused)), "n", 6), Progress::Failed);
    assert_eq!(progress(&binding, Some(&seen(bound_to("v"))), "n", 6), Progress::Bound);
    assert_eq!(progress(&binding, None, "n", 6), Progress::Failed);
}

proptest! {
    /// However pods come, no volume is promised twice, and each is where its pod goes.
    #[test]
    fn no_volume_is_given_twice(
        volumes in prop::collection::vec(0_usize..2, 0..5), pods in prop::collection::vec(1_usize..4, 1..5),
    ) {
        let nodes = ["n", "m"];
        let mut world = world(&nodes);
        for (i, node) in volumes.iter().enumerate() {
            volume(&mut world, &format!("v{i}"), "by-hand", nodes[*node]);
        }
        let mut given = BTreeSet::new();
        for (i, count) in pods.iter().enumerate() {
            let names: Vec<String> = (0..*count).map(|n| format!("c{i}-{n}")).collect();
            names.iter().for_each(|name| claim(&mut world, name, "by-hand", json!({})));
            let pod = pod(&format!("p{i}"), &names.iter().map(String::as_str).collect::<Vec<_>>());
            let Decision::Bind { node } = decide(&world, &pod, 0) else { continue };
            let info = world.nodes().iter().find(|info| info.name == node).unwrap();
            let chosen = Needs::of(&world, &pod).choose(info).unwrap();
            prop_assert_eq!(chosen.len(), *count);
            for binding in &chosen {
                let Binding::Volume { volume, .. } = binding else { panic!("nobody makes such volumes") };
                prop_assert!(given.insert(volume.name().to_owned()), "{} is given twice", volume.name());
                prop_assert!(suits(volume, &node, &world));
            }
            world.storage.promise(&chosen);
            world.assume(&pod, &node);
        }
    }
}
