//! Whom a pod that fits nowhere may drive away: pods of lower priority, as few and as unimportant as will do, and those that
//! a disruption budget protects only where nothing else helps.

use std::cmp::Reverse;
use std::sync::Arc;

use gantry_kube::Object;
use gantry_kube::selector::LabelSelector;
use serde_json::Value;

use super::filter;
use super::snapshot::{PodInfo, Snapshot};
use super::topology::Topology;
use super::volumes::Needs;

/// Of a very large cluster so many nodes are tried, from the first on.
const TRIED_MAX: usize = 100;

/// What a disruption budget still gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    namespace: String,
    selector: LabelSelector,
    allowed: i64,
    /// Names of pods that it has let go already.
    spent: Vec<String>,
}

impl Budget {
    pub fn project(object: Object) -> Budget {
        let selector = object.get("/spec/selector").filter(|selector| !selector.is_null());
        let nothing = || LabelSelector(vec![gantry_kube::selector::Requirement::In(String::new(), Vec::new())]);
        let spent = object.get("/status/disruptedPods").and_then(Value::as_object);
        Budget {
            namespace: object.namespace().to_owned(),
            selector: selector.and_then(|s| LabelSelector::from_value(s).ok()).unwrap_or_else(nothing),
            allowed: object.i64_at("/status/disruptionsAllowed").unwrap_or(0),
            spent: spent.into_iter().flatten().map(|(name, _)| name.clone()).collect(),
        }
    }

    fn protects(&self, pod: &PodInfo) -> bool {
        self.namespace == pod.namespace && self.selector.matches(Some(&pod.labels)) && !self.spent.contains(&pod.name)
    }
}

/// A node, and whom the pod needs gone from there.
#[derive(Clone, Debug, PartialEq)]
pub struct Preemption {
    pub node: String,
    pub victims: Vec<Arc<PodInfo>>,
}

/// What a pod that was refused everywhere may hope for.
#[derive(Clone, Debug, PartialEq)]
pub enum Hope {
    /// Nobody makes way for it.
    None,
    /// Those whom it drove away before are not all gone yet.
    Waits,
    MakesRoom(Preemption),
}

pub fn plan(snapshot: &Snapshot, pod: &PodInfo, budgets: &[Arc<Budget>]) -> Hope {
    if pod.never_preempts || pod.wishes.unsupported.is_some() {
        return Hope::None;
    }
    if waits_for_victims(snapshot, pod) {
        return Hope::Waits;
    }
    let nodes = snapshot.nodes().iter().filter(|node| node.pods.values().any(|other| other.priority < pod.priority));
    let names: Vec<String> = nodes.take(TRIED_MAX).map(|node| node.name.clone()).collect();
    if names.is_empty() {
        return Hope::None;
    }
    let mut trial = snapshot.clone();
    let found = names.into_iter().filter_map(|name| on_node(&mut trial, pod, name, budgets));
    let best = found.min_by_key(|(cost, _)| cost.clone());
    best.map_or(Hope::None, |(_, preemption)| Hope::MakesRoom(preemption))
}

fn waits_for_victims(snapshot: &Snapshot, pod: &PodInfo) -> bool {
    let node = snapshot.nodes().iter().find(|node| node.name == pod.nominated);
    node.is_some_and(|node| node.pods.values().any(|other| other.deleting && other.priority < pod.priority))
}

fn fits(trial: &Snapshot, pod: &PodInfo, name: &str) -> bool {
    let Some(node) = trial.nodes().iter().find(|node| node.name == name) else { return false };
    let needs = Needs::of(trial, pod);
    filter::reject(node, pod).is_none()
        && needs.refusal.is_none()
        && needs.reject(node).is_none()
        && Topology::of(trial, pod).reject(node, pod).is_none()
}

/// What is to be as small as can be, in this order: budgets broken, the priority of the most important victim, the sum of
/// their priorities, their number; then those that have run the shortest go.
type Cost = (usize, i64, i128, usize, Reverse<String>);

/// The trial is the same afterwards as it was before.
fn on_node(trial: &mut Snapshot, pod: &PodInfo, name: String, budgets: &[Arc<Budget>]) -> Option<(Cost, Preemption)> {
    let node = trial.nodes().iter().find(|node| node.name == name)?;
    let mut lower: Vec<Arc<PodInfo>> =
        node.pods.values().filter(|other| other.priority < pod.priority).cloned().collect();
    for other in &lower {
        trial.remove_pod(&other.uid);
    }
    let mut victims: Vec<(Arc<PodInfo>, bool)> = Vec::new();
    let possible = fits(trial, pod, &name);
    if possible {
        // The most important, and of these the oldest, are spared first; those that a budget protects before all others.
        lower.sort_by_key(|other| (Reverse(other.priority), other.started.clone(), other.uid.clone()));
        let (protected, free) = protected(&lower, budgets);
        for (other, breaks) in protected.into_iter().map(|p| (p, true)).chain(free.into_iter().map(|p| (p, false))) {
            trial.put(&other, &name);
            if !fits(trial, pod, &name) {
                trial.remove_pod(&other.uid);
                victims.push((other, breaks));
            }
        }
    }
    for other in &lower {
        trial.remove_pod(&other.uid);
        trial.put(other, &name);
    }
    if !possible || victims.is_empty() {
        return None;
    }
    let highest = victims.iter().map(|(victim, _)| victim.priority).max().unwrap_or(i64::MIN);
    let oldest =
        victims.iter().filter(|(victim, _)| victim.priority == highest).map(|(victim, _)| &victim.started).min();
    let cost = (
        victims.iter().filter(|(_, breaks)| *breaks).count(),
        highest,
        victims.iter().map(|(victim, _)| i128::from(victim.priority)).sum(),
        victims.len(),
        Reverse(oldest.cloned().unwrap_or_default()),
    );
    Some((cost, Preemption { node: name, victims: victims.into_iter().map(|(victim, _)| victim).collect() }))
}

/// Those whose end would break a budget if all before them ended, and the rest.
fn protected(pods: &[Arc<PodInfo>], budgets: &[Arc<Budget>]) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let mut left: Vec<i64> = budgets.iter().map(|budget| budget.allowed).collect();
    pods.iter().cloned().partition(|pod| {
        let mut breaks = false;
        for (_, left) in budgets.iter().zip(&mut left).filter(|(budget, _)| budget.protects(pod)) {
            *left -= 1;
            breaks |= *left < 0;
        }
        breaks
    })
}

#[cfg(test)]
mod tests {
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
        for (name, node, cpu, priority) in
            [("a", "x", 600, 5), ("b", "x", 300, 1), ("c", "y", 500, 2), ("d", "y", 400, 2)]
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
        let fits = |world: &Snapshot, priority| super::fits(world, &pod("q", "", 500, priority, json!({})), "x");
        assert_eq!((fits(&world, 1), fits(&world, 10)), (false, true));
        assert!(super::fits(&world, &pod("p", "", 700, 9, json!({})), "x"));
        world.remove_pod("p");
        assert!(fits(&world, 1));
    }

    proptest! {
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
}
