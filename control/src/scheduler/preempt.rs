//! Whom a pod that fits nowhere may drive away: pods of lower priority, as few and as unimportant as will do, and those that
//! a disruption budget protects only where nothing else helps.

use std::cmp::Reverse;
use std::sync::Arc;

use gantry_kube::Object;
use gantry_kube::selector::LabelSelector;
use serde_json::Value;

use super::filter;
use super::snapshot::{NodeInfo, PodInfo, Snapshot};
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
    let lower = |node: &&NodeInfo| node.pods.values().any(|other| other.priority < pod.priority);
    let mut nodes = snapshot.nodes().iter().filter(lower).take(TRIED_MAX).peekable();
    if nodes.peek().is_none() {
        return Hope::None;
    }
    let mut around = Around { pod, topology: Topology::of(snapshot, pod), needs: Needs::of(snapshot, pod) };
    let found = nodes.filter_map(|node| on_node(&mut around, node, budgets));
    let best = found.min_by_key(|(cost, _)| cost.clone());
    best.map_or(Hope::None, |(_, preemption)| Hope::MakesRoom(preemption))
}

fn waits_for_victims(snapshot: &Snapshot, pod: &PodInfo) -> bool {
    let node = snapshot.node(&pod.nominated);
    node.is_some_and(|node| node.pods.values().any(|other| other.deleting && other.priority < pod.priority))
}

/// What all placed pods mean for one: counted once, then changed by those that go or stay for a trial.
struct Around<'a> {
    pod: &'a PodInfo,
    topology: Topology,
    needs: Needs<'a>,
}

impl Around<'_> {
    fn take(&mut self, node: &mut NodeInfo, other: &PodInfo) {
        node.remove(&other.uid);
        self.topology.part(self.pod, other, node);
        self.needs.part(other);
    }

    fn put(&mut self, node: &mut NodeInfo, other: &Arc<PodInfo>) {
        node.add(other.clone());
        self.topology.meet(self.pod, other, node);
        self.needs.meet(self.pod, other);
    }

    fn fits(&self, node: &NodeInfo) -> bool {
        filter::reject(node, self.pod).is_none()
            && self.needs.refusal.is_none()
            && self.needs.reject(node).is_none()
            && self.topology.reject(node, self.pod).is_none()
    }
}

/// What is to be as small as can be, in this order: budgets broken, the priority of the most important victim, the sum of
/// their priorities, their number; then those that have run the shortest go.
type Cost = (usize, i64, i128, usize, Reverse<String>);

/// What is around is the same afterwards as it was before.
fn on_node(around: &mut Around<'_>, node: &NodeInfo, budgets: &[Arc<Budget>]) -> Option<(Cost, Preemption)> {
    let priority = around.pod.priority;
    let mut lower: Vec<Arc<PodInfo>> = node.pods.values().filter(|other| other.priority < priority).cloned().collect();
    let mut trial = node.clone();
    lower.iter().for_each(|other| around.take(&mut trial, other));
    let mut victims: Vec<(Arc<PodInfo>, bool)> = Vec::new();
    let possible = around.fits(&trial);
    if possible {
        // The most important, and of these the oldest, are spared first; those that a budget protects before all others.
        lower.sort_by_key(|other| (Reverse(other.priority), other.started.clone(), other.uid.clone()));
        let (protected, free) = protected(&lower, budgets);
        for (other, breaks) in protected.into_iter().map(|p| (p, true)).chain(free.into_iter().map(|p| (p, false))) {
            around.put(&mut trial, &other);
            if !around.fits(&trial) {
                around.take(&mut trial, &other);
                victims.push((other, breaks));
            }
        }
    }
    let away: Vec<&Arc<PodInfo>> = lower.iter().filter(|other| !trial.pods.contains_key(&other.uid)).collect();
    away.into_iter().for_each(|other| around.put(&mut trial, other));
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
    Some((
        cost,
        Preemption { node: node.name.clone(), victims: victims.into_iter().map(|(victim, _)| victim).collect() },
    ))
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
mod tests;
