//! A law for each thing that has a say in where a pod goes, over worlds made by chance. What is right is said by an oracle of
//! a few lines, which knows nothing of how the scheduler finds out. Others stand where they are decided: resources
//! (`tests.rs`), anti-affinity and spreading (`topology/tests.rs`), volumes (`volumes/tests.rs`), preemption
//! (`preempt/tests.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_client::{Client, Patch};
use gantry_kube::{Object, Ref, resource};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::cycle::{Decision, decide};
use super::queue::Queue;
use super::snapshot::{PodInfo, Snapshot};
use super::{NAME, USER};
use crate::controllers::house::House;

fn world(nodes: impl IntoIterator<Item = Value>) -> Snapshot {
    let mut world = Snapshot::default();
    for (n, more) in nodes.into_iter().enumerate() {
        let status = json!({"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "110"}});
        let mut node = json!({"metadata": {"name": format!("n{n}")}, "spec": {}, "status": status});
        json_patch::merge(&mut node, &more);
        world.set_node(&Object::from_value(node).unwrap());
    }
    world
}

fn pod(uid: &str, more: Value) -> Arc<PodInfo> {
    let mut pod =
        json!({"metadata": {"name": uid, "namespace": "a", "uid": uid}, "spec": {"containers": [{"name": "c"}]}});
    json_patch::merge(&mut pod, &more);
    Arc::new(PodInfo::project(Object::from_value(pod).unwrap()))
}

/// The number of the node that it is bound to.
fn chosen(world: &Snapshot, pod: &PodInfo, die: u64) -> Option<usize> {
    match decide(world, pod, die) {
        Decision::Bind { node } => Some(node[1..].parse().unwrap()),
        Decision::Unschedulable { .. } => None,
    }
}

/// The choice is one of those that will do, and there is one where any will.
macro_rules! prop_assert_choice {
    ($chosen:expr, $will_do:expr) => {{
        let (chosen, will_do): (Option<usize>, Vec<bool>) = ($chosen, $will_do);
        match chosen {
            Some(node) => prop_assert!(will_do[node], "{node} of {will_do:?}"),
            None => prop_assert!(!will_do.contains(&true), "none of {will_do:?}"),
        }
    }};
}

/// What a node says of itself, and one requirement: which, and of what.
type Facts = (Option<usize>, usize);
type Requirement = (usize, usize);

fn requires((which, value): &Requirement) -> Value {
    let (key, operator) = [
        ("zone", "In"),
        ("zone", "NotIn"),
        ("zone", "Exists"),
        ("zone", "DoesNotExist"),
        ("cpus", "Gt"),
        ("cpus", "Lt"),
    ][*which];
    let values = if matches!(which, 2 | 3) { json!([]) } else { json!([value.to_string()]) };
    json!({"key": key, "operator": operator, "values": values})
}

fn holds((zone, cpus): &Facts, (which, value): &Requirement) -> bool {
    match which {
        0 => *zone == Some(*value),
        1 => *zone != Some(*value),
        2 => zone.is_some(),
        3 => zone.is_none(),
        4 => cpus > value,
        _ => cpus < value,
    }
}

fn labels((zone, cpus): &Facts) -> Value {
    json!({"metadata": {"labels": {"zone": zone.map(|zone| zone.to_string()), "cpus": cpus.to_string()}}})
}

/// Key, value and effect; of a toleration, what it leaves open is `None`, and without a value any will do.
type Taint = (usize, usize, usize);
type Toleration = (Option<usize>, Option<usize>, Option<usize>);

const EFFECTS: [&str; 3] = ["NoSchedule", "NoExecute", "PreferNoSchedule"];

fn tolerates((key, value, effect): &Toleration, taint: &Taint) -> bool {
    // Without a key, every key is meant, with every value.
    key.is_none_or(|key| key == taint.0 && value.is_none_or(|value| value == taint.1))
        && effect.is_none_or(|effect| effect == taint.2)
}

fn toleration((key, value, effect): &Toleration) -> Value {
    let mut toleration = json!({"operator": "Exists"});
    if let Some(key) = key {
        toleration["key"] = json!(format!("k{key}"));
        if let Some(value) = value {
            toleration["operator"] = json!("Equal");
            toleration["value"] = json!(format!("v{value}"));
        }
    }
    if let Some(effect) = effect {
        toleration["effect"] = json!(EFFECTS[*effect]);
    }
    toleration
}

/// Port, address and protocol on the host.
type Port = (usize, usize, usize);

fn clashes(a: &Port, b: &Port) -> bool {
    a.0 == b.0 && a.2 == b.2 && (a.1 == b.1 || a.1 == 0 || b.1 == 0)
}

fn on_host((port, ip, protocol): &Port) -> Value {
    let mut port = json!({"containerPort": 80, "hostPort": 8000 + port, "protocol": (["TCP", "UDP"][*protocol])});
    if *ip > 0 {
        port["hostIP"] = json!((["", "127.0.0.1", "10.0.0.1"][*ip]));
    }
    json!({"spec": {"containers": [{"name": "c", "ports": [port]}]}})
}

proptest! {
    #[test]
    fn node_affinity_and_selector(
        nodes in vec((prop::option::of(0_usize..3), 0_usize..6), 1..5), selector in prop::option::of(0_usize..3),
        terms in vec(vec((0_usize..6, 0_usize..4), 0..3), 0..3), die in any::<u64>(),
    ) {
        let world = world(nodes.iter().map(labels));
        let mut spec = json!({});
        if let Some(zone) = selector {
            spec["nodeSelector"] = json!({"zone": zone.to_string()});
        }
        if !terms.is_empty() {
            let term = |all: &Vec<Requirement>| json!({"matchExpressions": all.iter().map(requires).collect::<Vec<Value>>()});
            let terms: Vec<Value> = terms.iter().map(term).collect();
            spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] = json!({"nodeSelectorTerms": terms});
        }
        let will_do = |facts: &Facts| {
            let any = |term: &Vec<Requirement>| !term.is_empty() && term.iter().all(|one| holds(facts, one));
            selector.is_none_or(|zone| facts.0 == Some(zone)) && (terms.is_empty() || terms.iter().any(any))
        };
        let pod = pod("p", json!({ "spec": spec }));
        prop_assert_choice!(chosen(&world, &pod, die), nodes.iter().map(will_do).collect());
    }

    #[test]
    fn preferred_node_affinity(
        nodes in vec((prop::option::of(0_usize..3), 0_usize..6), 1..5),
        wishes in vec(((0_usize..6, 0_usize..4), 1_i64..100), 0..4), die in any::<u64>(),
    ) {
        let world = world(nodes.iter().map(labels));
        let wish = |(one, weight): &(Requirement, i64)| json!({"weight": weight, "preference": {"matchExpressions": [requires(one)]}});
        let list: Vec<Value> = wishes.iter().map(wish).collect();
        let affinity = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": list}});
        let chosen = chosen(&world, &pod("p", json!({"spec": {"affinity": affinity}})), die).unwrap();
        let weight = |facts: &Facts| wishes.iter().filter(|(one, _)| holds(facts, one)).map(|(_, w)| w).sum::<i64>();
        let best = nodes.iter().map(weight).max().unwrap();
        // Scores are whole hundredths of the best.
        let share = |weight: i64| if best == 0 { 0 } else { weight * 100 / best };
        prop_assert_eq!(share(weight(&nodes[chosen])), share(best));
    }

    /// Who may not be there is not; of the others, those win with the fewest taints that keep off softly.
    #[test]
    fn taints(
        nodes in vec(vec((0_usize..2, 0_usize..2, 0_usize..3), 0..4), 1..5), cordoned in 0_usize..8,
        tolerations in vec((prop::option::of(0_usize..2), prop::option::of(0_usize..2), prop::option::of(0_usize..3)), 0..3),
        die in any::<u64>(),
    ) {
        let taint = |(key, value, effect): &Taint| {
            json!({"key": format!("k{key}"), "value": format!("v{value}"), "effect": EFFECTS[*effect]})
        };
        let world = world(nodes.iter().enumerate().map(|(n, taints)| {
            json!({"spec": {"unschedulable": n == cordoned, "taints": taints.iter().map(taint).collect::<Vec<Value>>()}})
        }));
        let list: Vec<Value> = tolerations.iter().map(toleration).collect();
        let untolerated = |taints: &[Taint], soft: bool| {
            let of = taints.iter().filter(|taint| (taint.2 == 2) == soft);
            of.filter(|taint| !tolerations.iter().any(|t| tolerates(t, taint))).count()
        };
        // A cordon is a taint like others to who tolerates everything.
        let everything = |(key, _, effect): &Toleration| key.is_none() && effect.is_none_or(|effect| effect == 0);
        let uncordoned = |n: usize| n != cordoned || tolerations.iter().any(everything);
        let will_do: Vec<bool> =
            nodes.iter().enumerate().map(|(n, taints)| uncordoned(n) && untolerated(taints, false) == 0).collect();
        let chosen = chosen(&world, &pod("p", json!({"spec": {"tolerations": list}})), die);
        prop_assert_choice!(chosen, will_do.clone());
        if let Some(chosen) = chosen {
            let soft = |n: usize| untolerated(&nodes[n], true);
            let least = (0..nodes.len()).filter(|n| will_do[*n]).map(soft).min();
            prop_assert_eq!(Some(soft(chosen)), least);
        }
    }

    #[test]
    fn host_ports(nodes in 1_usize..4, pods in vec((0_usize..2, 0_usize..3, 0_usize..2), 1..12), die in any::<u64>()) {
        let mut world = world(vec![json!({}); nodes]);
        let mut taken: Vec<Vec<Port>> = vec![Vec::new(); nodes];
        for (n, port) in pods.iter().enumerate() {
            let pod = pod(&format!("p{n}"), on_host(port));
            let chosen = chosen(&world, &pod, die);
            prop_assert_choice!(chosen, taken.iter().map(|all| !all.iter().any(|other| clashes(port, other))).collect());
            if let Some(node) = chosen {
                taken[node].push(*port);
                world.assume(&pod, &format!("n{node}"));
            }
        }
    }

    /// Who follows another is in its zone; who follows its own kind starts it, and is where it is.
    #[test]
    fn pod_affinity(
        zones in vec(prop::option::of(0_usize..3), 1..6),
        steps in vec((0_usize..3, 0_usize..10, any::<bool>(), any::<u64>()), 1..30),
    ) {
        let mut world = world(zones.iter().map(|zone| labels(&(*zone, 0))));
        let follows = |app: &str| {
            let term = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": app}}});
            json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})
        };
        for (kind, id, goes, die) in steps {
            let (app, spec) =
                [("db", json!({})), ("web", follows("db")), ("group", follows("group"))][kind].clone();
            let uid = format!("{app}{id}");
            if goes {
                world.remove_pod(&uid);
            }
            if goes || world.nodes().iter().any(|node| node.pods.contains_key(&uid)) {
                continue;
            }
            let homes = |app: &str| -> Vec<usize> {
                let has = |n: &usize| world.nodes()[*n].pods.values().any(|pod| pod.labels["app"] == app);
                (0..zones.len()).filter(has).filter_map(|n| zones[n]).collect()
            };
            let (db, group) = (homes("db"), homes("group"));
            let will_do = |zone: &Option<usize>| match kind {
                0 => true,
                1 => zone.is_some_and(|zone| db.contains(&zone)),
                _ => zone.is_some_and(|zone| group.is_empty() || group.contains(&zone)),
            };
            let pod = pod(&uid, json!({"metadata": {"labels": {"app": app}}, "spec": spec}));
            let chosen = chosen(&world, &pod, die);
            prop_assert_choice!(chosen, zones.iter().map(will_do).collect());
            if let Some(node) = chosen {
                world.assume(&pod, &format!("n{node}"));
            }
        }
    }

    #[test]
    fn image_locality(holds in vec(any::<bool>(), 1..6), die in any::<u64>()) {
        let images = |there: &bool| json!([{"names": [(if *there { "web:1" } else { "other:1" })]}]);
        let world = world(holds.iter().map(|there| json!({"status": {"images": images(there)}})));
        let pod = pod("p", json!({"spec": {"containers": [{"name": "c", "image": "web:1"}]}}));
        let chosen = chosen(&world, &pod, die).unwrap();
        prop_assert!(holds[chosen] || !holds.contains(&true));
    }

    /// Room that is made for a pod is no other's but for those above it.
    #[test]
    fn nominated_nodes(
        nodes in 1_usize..4, promised in vec((0_usize..4, 100_i64..700, 0_i64..5), 0..6),
        there in vec((0_usize..4, 100_i64..500), 0..4), cpu in 100_i64..900, priority in 0_i64..5, die in any::<u64>(),
    ) {
        let asks = |cpu: i64, priority: i64| {
            let resources = json!({"requests": {"cpu": format!("{cpu}m")}});
            json!({"spec": {"priority": priority, "containers": [{"name": "c", "resources": resources}]}})
        };
        let mut world = world(vec![json!({}); nodes]);
        for (n, (node, cpu)) in there.iter().enumerate() {
            world.assume(&pod(&format!("t{n}"), asks(*cpu, 9)), &format!("n{}", node % nodes));
        }
        for (n, (node, cpu, priority)) in promised.iter().enumerate() {
            world.nominate(&pod(&format!("p{n}"), asks(*cpu, *priority)), &format!("n{}", node % nodes));
        }
        let has_room = |n: usize| {
            let used: i64 = there.iter().filter(|(node, _)| node % nodes == n).map(|(_, cpu)| cpu).sum();
            let kept = promised.iter().filter(|(node, _, of)| node % nodes == n && *of >= priority);
            used + kept.map(|(_, cpu, _)| cpu).sum::<i64>() + cpu <= 1000
        };
        let pod = pod("p", asks(cpu, priority));
        prop_assert_choice!(chosen(&world, &pod, die), (0..nodes).map(has_room).collect());
    }

    /// The most important first, of these the oldest, whatever came, changed or went in between.
    #[test]
    fn priority(steps in vec((0_usize..8, 0_i64..4, 0_usize..4, any::<bool>()), 0..30)) {
        let (mut queue, mut waiting) = (Queue::default(), BTreeMap::new());
        for (name, priority, created, goes) in steps {
            let at = Ref::new("a", format!("p{name}"));
            if goes {
                queue.remove(&at);
                waiting.remove(&at);
                continue;
            }
            let created = created.to_string();
            let info = PodInfo { priority, created: created.clone(), uid: at.name.clone(), ..PodInfo::default() };
            queue.add(at.clone(), Arc::new(info));
            waiting.insert(at, (priority, created));
        }
        let mut wanted: Vec<(i64, String, Ref)> =
            waiting.into_iter().map(|(at, (priority, created))| (-priority, created, at)).collect();
        wanted.sort();
        let found: Vec<Ref> = std::iter::from_fn(|| queue.pop()).map(|(at, _)| at).collect();
        prop_assert_eq!(found, wanted.into_iter().map(|(_, _, at)| at).collect::<Vec<Ref>>());
    }
}

/// Makes a pod for one of two schedulers, held back by a gate or not.
async fn make(house: &House, name: &str, ours: bool, gated: bool) -> Ref {
    let scheduler = if ours { NAME } else { "another" };
    let gates = if gated { json!([{"name": "example.com/wait"}]) } else { json!([]) };
    let spec =
        json!({"schedulerName": scheduler, "schedulingGates": gates, "containers": [{"name": "c", "image": "i"}]});
    let pod = json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec});
    house.make(&resource::POD, pod).await.reference()
}

async fn is_placed(admin: &Client, at: &Ref) -> bool {
    !admin.get(&resource::POD, at).await.unwrap().str_at("/spec/nodeName").is_empty()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// Over the API: a pod is placed that names this scheduler and that no gate holds back, whenever its gate goes; no other.
    #[test]
    fn gates_and_scheduler_names(pods in vec((any::<bool>(), any::<bool>()), 1..6)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let house = House::new().await;
            let admin = house.admin();
            let account = json!({"metadata": {"name": "default", "namespace": "default"}});
            house.make(&resource::SERVICE_ACCOUNT, account).await;
            let mut node = house.make(&resource::NODE, json!({"metadata": {"name": "n"}})).await;
            // It is born with a taint, which goes once it is ready.
            node.map_mut("spec").remove("taints");
            let mut node = admin.update(&resource::NODE, &node).await.unwrap();
            node.0.insert("status".into(), json!({"allocatable": {"cpu": "8", "memory": "8Gi", "pods": "110"}}));
            admin.update_status(&resource::NODE, &node).await.unwrap();
            let mut all = Vec::new();
            for (n, (ours, gated)) in pods.into_iter().enumerate() {
                all.push((make(&house, &format!("p{n}"), ours, gated).await, ours, gated));
            }
            tokio::spawn(super::run(house.client(USER), house.env.clone(), Arc::default(), house.stop.clone()));
            house.settle().await;
            for (at, ours, gated) in &all {
                prop_assert_eq!(is_placed(&admin, at).await, *ours && !gated, "{} {} {}", at, ours, gated);
            }
            for (at, ..) in all.iter().filter(|(.., gated)| *gated) {
                let patch = Patch::Merge(json!({"spec": {"schedulingGates": []}}));
                admin.patch(&resource::POD, at, "", patch).await.unwrap();
            }
            house.settle().await;
            for (at, ours, _) in &all {
                prop_assert_eq!(is_placed(&admin, at).await, *ours, "{} {} without its gate", at, ours);
            }
            Ok(())
        })?;
    }
}
