use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::scheduler::cycle::{Decision, decide};

fn world(zones: &[&str]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (n, zone) in zones.iter().enumerate() {
        let mut labels = json!({"host": format!("n{n}")});
        if !zone.is_empty() {
            labels["zone"] = json!(zone);
        }
        let node = json!({"metadata": {"name": format!("n{n}"), "labels": labels}, "spec": {},
            "status": {"allocatable": {"cpu": "64", "memory": "64Gi", "pods": "110"}}});
        snapshot.set_node(&Object::from_value(node).unwrap());
    }
    snapshot
}

fn pod(uid: &str, app: &str, spec: Value) -> Arc<PodInfo> {
    Arc::new(PodInfo::project(
        Object::from_value(json!({
            "metadata": {"name": uid, "namespace": "a", "uid": uid, "labels": {"app": app}}, "spec": spec,
        }))
        .unwrap(),
    ))
}

fn term(key: &str, app: &str) -> Value {
    json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}})
}

fn required(field: &str, key: &str, app: &str) -> Value {
    json!({"affinity": {field: {REQUIRED: [term(key, app)]}}})
}

fn spread_over(key: &str, app: &str, when: &str) -> Value {
    let mut constraint = term(key, app);
    constraint["maxSkew"] = json!(1);
    constraint["whenUnsatisfiable"] = json!(when);
    json!({"topologySpreadConstraints": [constraint]})
}

fn refused(decision: Decision) -> String {
    match decision {
        Decision::Unschedulable { message } => message,
        Decision::Bind { node } => panic!("bound to {node}"),
    }
}

fn bound(decision: Decision) -> String {
    match decision {
        Decision::Bind { node } => node,
        Decision::Unschedulable { message } => panic!("{message}"),
    }
}

#[test]
fn affinity_follows_and_the_first_of_a_group_starts_it() {
    let mut world = world(&["x", "y", ""]);
    let wants = pod("w", "web", required("podAffinity", "zone", "db"));
    assert_eq!(
        refused(decide(&world, &wants, 0)),
        "0/3 nodes are available: 3 node(s) didn't match pod affinity rules."
    );
    world.assume(&pod("d", "db", json!({})), "n1");
    assert_eq!(bound(decide(&world, &wants, 0)), "n1");
    let group = pod("g", "new", required("podAffinity", "zone", "new"));
    assert_ne!(bound(decide(&world, &group, 1)), "n2", "a node without the key is in no domain");
}

#[test]
fn anti_affinity_holds_both_ways() {
    let mut world = world(&["x", "x", "y"]);
    world.assume(&pod("loner", "db", required("podAntiAffinity", "zone", "web")), "n0");
    assert_eq!(bound(decide(&world, &pod("w", "web", json!({})), 0)), "n2", "the placed pod keeps it out");
    world.assume(&pod("w", "web", json!({})), "n2");
    let message = refused(decide(&world, &pod("v", "web", required("podAntiAffinity", "zone", "web")), 0));
    assert!(message.contains("1 node(s) didn't match pod anti-affinity rules"), "{message}");
    assert!(message.contains("2 node(s) didn't satisfy existing pods anti-affinity rules"), "{message}");
}

#[test]
fn terms_look_into_the_namespaces_they_name() {
    let mut world = world(&["x"]);
    world.assume(&pod("d", "db", json!({})), "n0");
    let anti = |more: Value| {
        let mut term = term("zone", "db");
        json_patch::merge(&mut term, &more);
        pod("p", "web", json!({"affinity": {"podAntiAffinity": {REQUIRED: [term]}}}))
    };
    bound(decide(&world, &anti(json!({"namespaces": ["b"]})), 0));
    refused(decide(&world, &anti(json!({"namespaces": ["b"], "namespaceSelector": {}})), 0));
    let by_label = anti(json!({"namespaceSelector": {"matchLabels": {"team": "a"}}}));
    let message = refused(decide(&world, &by_label, 0));
    assert!(message.contains("podAntiAffinity: namespaceSelector"), "{message}");
}

#[test]
fn constraints_refuse_and_preferences_choose() {
    let mut world = world(&["x", "y", ""]);
    let message = |decision| refused(decision);
    world.assume(&pod("1", "web", json!({})), "n0");
    assert_eq!(bound(decide(&world, &pod("2", "web", spread_over("zone", "web", "DoNotSchedule")), 0)), "n1");
    let mut pinned = spread_over("zone", "web", "DoNotSchedule");
    pinned["tolerations"] = json!([]);
    pinned["topologySpreadConstraints"][0]["minDomains"] = json!(3);
    world.assume(&pod("2", "web", json!({})), "n1");
    assert_eq!(
        message(decide(&world, &pod("3", "web", pinned), 0)),
        "0/3 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label), \
         2 node(s) didn't match pod topology spread constraints."
    );
    world.remove_pod("2");
    for die in 0..3 {
        let soft = pod("3", "web", spread_over("zone", "web", "ScheduleAnyway"));
        assert_eq!(bound(decide(&world, &soft, die)), "n1");
        let near = json!([{"weight": 100, "podAffinityTerm": term("zone", "web")}]);
        let near = pod("4", "x", json!({"affinity": {"podAffinity": {PREFERRED: near}}}));
        assert_eq!(bound(decide(&world, &near, die)), "n0");
    }
}

proptest! {
    /// Whatever comes and goes: no two loners share a domain, and no bind widens the skew beyond its bound.
    #[test]
    fn placed_pods_keep_to_their_rules(
        zones in proptest::collection::vec(0_u8..3, 1..6),
        steps in proptest::collection::vec((0_u8..12, any::<bool>(), any::<bool>(), any::<u64>()), 1..40),
    ) {
        let zones: Vec<&str> = zones.iter().map(|z| ["x", "y", "z"][usize::from(*z)]).collect();
        let mut world = world(&zones);
        let pods_in = |world: &Snapshot, app: &str| {
            let mut by_zone: BTreeMap<&str, usize> = zones.iter().map(|z| (*z, 0)).collect();
            for (node, zone) in world.nodes().iter().zip(&zones) {
                *by_zone.entry(zone).or_default() += node.pods.values().filter(|p| p.labels["app"] == app).count();
            }
            by_zone.into_values().collect::<Vec<usize>>()
        };
        for (id, loner, goes, die) in steps {
            let uid = format!("p{id}");
            if goes {
                world.remove_pod(&uid);
                continue;
            }
            if world.nodes().iter().any(|node| node.pods.contains_key(&uid)) {
                continue;
            }
            let pod = if loner {
                pod(&uid, "loner", required("podAntiAffinity", "zone", "loner"))
            } else {
                pod(&uid, "web", spread_over("zone", "web", "DoNotSchedule"))
            };
            let before = pods_in(&world, "web");
            match decide(&world, &pod, die) {
                Decision::Bind { node } => {
                    world.assume(&pod, &node);
                    let after = pods_in(&world, "web");
                    let skew = |all: &[usize]| all.iter().max().unwrap() - all.iter().min().unwrap();
                    prop_assert!(skew(&after) <= skew(&before).max(1), "{before:?} {after:?}");
                }
                Decision::Unschedulable { .. } => {
                    prop_assert!(loner, "the emptiest zone always takes one more");
                    prop_assert!(pods_in(&world, "loner").iter().all(|n| *n > 0));
                }
            }
            prop_assert!(pods_in(&world, "loner").iter().all(|n| *n <= 1));
        }
    }
}
