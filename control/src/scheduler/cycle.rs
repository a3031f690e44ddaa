use std::collections::BTreeMap;

use super::snapshot::{NodeInfo, PodInfo, Snapshot};
use super::topology::Topology;
use super::volumes::Needs;
use super::{filter, score};

#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    Bind { node: String },
    Unschedulable { message: String },
}

/// Filter, score, pick. `die` breaks ties, so that equal nodes share the load.
pub fn decide(snapshot: &Snapshot, pod: &PodInfo, die: u64) -> Decision {
    if let Some(field) = &pod.wishes.unsupported {
        return Decision::Unschedulable { message: format!("the pod asks for what is not supported yet: {field}") };
    }
    let (topology, needs) = (Topology::of(snapshot, pod), Needs::of(snapshot, pod));
    if let Some(why) = &needs.refusal
        && !snapshot.nodes().is_empty()
    {
        return Decision::Unschedulable {
            message: format!("0/{} nodes are available: {why}.", snapshot.nodes().len()),
        };
    }
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut candidates: Vec<&NodeInfo> = Vec::new();
    for node in snapshot.nodes() {
        let social = || needs.reject(node).or_else(|| topology.reject(node, pod)).map(str::to_owned);
        match filter::reject(node, pod).or_else(social) {
            None => candidates.push(node),
            Some(reason) => *reasons.entry(reason).or_default() += 1,
        }
    }
    if candidates.is_empty() {
        return Decision::Unschedulable { message: explain(snapshot.nodes().len(), &reasons) };
    }
    let scores = score::scores(&candidates, pod, &topology);
    let best = scores.iter().copied().max().unwrap_or(0);
    let winners: Vec<&NodeInfo> =
        candidates.iter().zip(&scores).filter(|(_, s)| **s == best).map(|(node, _)| *node).collect();
    let pick = usize::try_from(die % winners.len() as u64).unwrap_or(0);
    Decision::Bind { node: winners[pick].name.clone() }
}

/// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`
fn explain(nodes: usize, reasons: &BTreeMap<String, usize>) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    let mut parts: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    parts.sort();
    format!("0/{nodes} nodes are available: {}.", parts.join(", "))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
