use super::*;
use proptest::prelude::*;
use serde_json::json;

fn world(nodes: &[(&str, &str)]) -> Snapshot {
    let mut world = Snapshot::default();
    for (name, cpu) in nodes {
        let status = json!({"allocatable": {"cpu": cpu, "pods": "10"}});
        let node = json!({"metadata": {"name": name}, "spec": {}, "status": status});
        world.set_node(&Object::from_value(node).unwrap());
    }
    world
}

fn pod(name: &str, node: &str, cpu: i64, priority: i64, more: Value) -> Arc<PodInfo> {
    let mut value = json!({
        "metadata": {"name": name, "namespace": "a", "uid": name, "labels": {"app": name}},
        "spec": {"nodeName": node, "priority": priority,
            "containers": [{"name": "c", "resources": {"requests": {"cpu": format!("{cpu}m")}}}]},
        "status": {"phase": "Running", "startTime": "2025-01-01T00:00:00Z"},
    });
    json_patch::merge(&mut value, &more);
    Arc::new(PodInfo::project(Object::from_value(value).unwrap()))
}

fn budget(app: &str, allowed: i64) -> Arc<Budget> {
    let value = json!({"metadata": {"name": app, "namespace": "a"}, "spec": {"selector": {"matchLabels": {"app": app}}},
        "status": {"disruptionsAllowed": allowed}});
    Arc::new(Budget::project(Object::from_value(value).unwrap()))
}

/// Whether it fits, by a look at everything.
fn fits(world: &Snapshot, pod: &PodInfo, node: &str) -> bool {
    let around = Around { pod, topology: Topology::of(world, pod), needs: Needs::of(world, pod) };
    world.node(node).is_some_and(|node| around.fits(node))
}

fn chosen(world: &Snapshot, pod: &PodInfo, budgets: &[Arc<Budget>]) -> Option<(String, Vec<String>)> {
    let Hope::MakesRoom(found) = plan(world, pod, budgets) else { return None };
    Some((found.node, found.victims.iter().map(|victim| victim.name.clone()).collect()))
}

fn some(node: &str, victims: &[&str]) -> Option<(String, Vec<String>)> {
    Some((node.to_owned(), victims.iter().map(|name| (*name).to_owned()).collect()))
}

#[test]
fn the_least_important_go_and_no_more_than_must() {
    let mut world = world(&[("x", "1"), ("y", "1")]);
    for (name, node, cpu, priority) in [("a", "x", 600, 5), ("b", "x", 300, 1), ("c", "y", 500, 2), ("d", "y", 400, 2)]
    {
        world.set_pod(&pod(name, node, cpu, priority, json!({})));
    }
    let asks = |cpu, priority, more| pod("p", "", cpu, priority, more);
    assert_eq!(chosen(&world, &asks(300, 9, json!({})), &[]), some("x", &["b"]));
    assert_eq!(chosen(&world, &asks(500, 9, json!({})), &[]), some("y", &["d"]));
    assert_eq!(chosen(&world, &asks(900, 9, json!({})), &[]), some("y", &["c", "d"]));
    // Nobody makes way for an equal, for one who is too large, or for one who is too polite.
    assert_eq!(chosen(&world, &asks(300, 1, json!({})), &[]), None);
    assert_eq!(chosen(&world, &asks(1100, 9, json!({})), &[]), None);
    let polite = json!({"spec": {"preemptionPolicy": "Never"}});
    assert_eq!(chosen(&world, &asks(300, 9, polite), &[]), None);
    let elsewhere = json!({"spec": {"nodeSelector": {"disk": "ssd"}}});
    assert_eq!(chosen(&world, &asks(300, 9, elsewhere), &[]), None);
}

#[test]
fn budgets_are_broken_last() {
    let mut world = world(&[("x", "1"), ("y", "1")]);
    world.set_pod(&pod("cheap", "x", 900, 1, json!({})));
    world.set_pod(&pod("dear", "y", 900, 5, json!({})));
    let asks = pod("p", "", 500, 9, json!({}));
    assert_eq!(chosen(&world, &asks, &[budget("cheap", 1)]), some("x", &["cheap"]));
    assert_eq!(chosen(&world, &asks, &[budget("cheap", 0)]), some("y", &["dear"]));
    assert_eq!(chosen(&world, &asks, &[budget("cheap", 0), budget("dear", 0)]), some("x", &["cheap"]));
}

#[test]
fn who_waits_for_victims_takes_no_others() {
    let mut world = world(&[("x", "1"), ("y", "1")]);
    let going = json!({"metadata": {"deletionTimestamp": "2025-01-01T00:00:30Z"}});
    world.set_pod(&pod("a", "x", 900, 1, going));
    world.set_pod(&pod("b", "y", 900, 1, json!({})));
    let again = pod("p", "", 500, 9, json!({"status": {"nominatedNodeName": "x"}}));
    assert_eq!(plan(&world, &again, &[]), Hope::Waits);
    world.remove_pod("a");
    world.set_pod(&pod("c", "x", 900, 9, json!({})));
    assert_eq!(chosen(&world, &again, &[]), some("y", &["b"]));
}

#[test]
fn what_was_made_room_for_is_kept_from_those_below() {
    let mut world = world(&[("x", "1")]);
    world.nominate(&pod("p", "", 700, 9, json!({})), "x");
    let fits = |world: &Snapshot, priority| super::tests::fits(world, &pod("q", "", 500, priority, json!({})), "x");
    assert_eq!((fits(&world, 1), fits(&world, 10)), (false, true));
    assert!(super::tests::fits(&world, &pod("p", "", 700, 9, json!({})), "x"));
    world.remove_pod("p");
    assert!(fits(&world, 1));
}

/// What is one pod's alone is another's once that one is gone.
#[test]
fn who_has_an_exclusive_claim_makes_way() {
    let mut world = world(&[("x", "1"), ("y", "1")]);
    let claim = json!({"metadata": {"name": "data", "namespace": "a", "uid": "c",
        "annotations": {gantry_kube::storage::BIND_COMPLETED: "yes"}},
        "spec": {"accessModes": ["ReadWriteOncePod"], "volumeName": "v"}});
    let claim = Arc::new(Object::from_value(claim).unwrap());
    world.storage.claims.insert(claim.reference(), claim);
    let volume = Arc::new(Object::from_value(json!({"metadata": {"name": "v"}})).unwrap());
    world.storage.volumes.insert(volume.reference(), volume);
    let uses = json!({"spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}});
    world.set_pod(&pod("has", "x", 100, 1, uses.clone()));
    world.set_pod(&pod("other", "x", 100, 1, json!({})));
    assert_eq!(chosen(&world, &pod("p", "", 100, 9, uses), &[]), some("x", &["has"]));
}

const ZONES: [(&str, &str); 4] = [("w", "a"), ("x", "a"), ("y", "b"), ("z", "b")];

/// One of two kinds, which may keep its own or the other kind out of its zone or node, and may want to be spread.
fn social(name: &str, node: &str, app: usize, rules: (usize, usize, bool), priority: i64) -> Arc<PodInfo> {
    let (anti, key, spread) = (rules.0, ["zone", "host"][rules.1 % 2], rules.2);
    let of = |app: usize| json!({"matchLabels": {"app": format!("k{app}")}});
    let term = json!({"topologyKey": key, "labelSelector": of(anti % 2)});
    let constraint =
        json!({"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": of(app)});
    let mut more = json!({"metadata": {"labels": {"app": format!("k{app}")}}});
    if anti < 2 {
        more["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] = json!([term]);
    }
    if spread {
        more["spec"]["topologySpreadConstraints"] = json!([constraint]);
    }
    pod(name, node, 100, priority, more)
}

proptest! {
    /// The same where pods keep each other out of zones: a trial of one node sees what a look at everything sees, and
    /// leaves nothing behind.
    #[test]
    fn a_trial_sees_what_a_look_at_everything_sees(
        there in prop::collection::vec((0_usize..4, 0_usize..2, (0_usize..5, 0_usize..2, any::<bool>()), 0_i64..6), 0..16),
        app in 0_usize..2, rules in (0_usize..4, 0_usize..2, any::<bool>()), priority in 1_i64..7,
    ) {
        let mut world = world(&ZONES.map(|(name, _)| (name, "1")));
        for (name, zone) in ZONES {
            let status = json!({"allocatable": {"cpu": "1", "pods": "10"}});
            let labels = json!({"zone": zone, "host": name});
            let node = json!({"metadata": {"name": name, "labels": labels}, "spec": {}, "status": status});
            world.set_node(&Object::from_value(node).unwrap());
        }
        for (n, (node, app, rules, priority)) in there.into_iter().enumerate() {
            world.set_pod(&social(&format!("o{n}"), ZONES[node].0, app, rules, priority));
        }
        let pod = social("p", "", app, rules, priority);
        let mut around = Around { pod: &pod, topology: Topology::of(&world, &pod), needs: Needs::of(&world, &pod) };
        for node in world.nodes() {
            let found = on_node(&mut around, node, &[]);
            prop_assert_eq!(&around.topology, &Topology::of(&world, &pod), "{} left something behind", node.name);
            let gone = |but: &str| {
                let mut after = world.clone();
                let away = found.iter().flat_map(|(_, found)| &found.victims).filter(|victim| victim.uid != but);
                away.for_each(|victim| _ = after.remove_pod(&victim.uid));
                after
            };
            let Some((_, preemption)) = &found else {
                let mut bare = world.clone();
                let lower = node.pods.values().filter(|other| other.priority < priority);
                lower.for_each(|other| _ = bare.remove_pod(&other.uid));
                prop_assert!(fits(&world, &pod, &node.name) || !fits(&bare, &pod, &node.name), "{}", node.name);
                continue;
            };
            prop_assert!(fits(&gone(""), &pod, &node.name), "{} are not enough", node.name);
            for victim in &preemption.victims {
                prop_assert!(!fits(&gone(&victim.uid), &pod, &node.name), "{} need not go", victim.name);
            }
        }
    }

    /// Once the victims are gone the pod fits, all of them were below it, and none of them could have stayed.
    #[test]
    fn victims_are_enough_and_not_too_many(
        there in prop::collection::vec((0_usize..3, 50_i64..600, 0_i64..6), 0..14), cpu in 100_i64..1200, priority in 0_i64..6,
    ) {
        let nodes = ["x", "y", "z"];
        let mut world = world(&nodes.map(|name| (name, "1")));
        for (n, (node, cpu, priority)) in there.into_iter().enumerate() {
            let other = pod(&format!("o{n}"), nodes[node], cpu, priority, json!({}));
            if fits(&world, &other, nodes[node]) {
                world.set_pod(&other);
            }
        }
        let pod = pod("p", "", cpu, priority, json!({}));
        let Hope::MakesRoom(found) = plan(&world, &pod, &[]) else { return Ok(()) };
        prop_assert!(found.victims.iter().all(|victim| victim.priority < priority));
        for spared in &found.victims {
            let mut after = world.clone();
            for victim in found.victims.iter().filter(|victim| victim.uid != spared.uid) {
                after.remove_pod(&victim.uid);
            }
            prop_assert!(!fits(&after, &pod, &found.node), "{} need not go", spared.name);
            after.remove_pod(&spared.uid);
            prop_assert!(fits(&after, &pod, &found.node));
        }
    }
}
