//! Which of the nodes that fit is best: room left, balance, preferences, tolerable taints, the pods around, the pod's image
//! at hand.

use serde_json::Value;

use super::affinity;
use super::snapshot::{NodeInfo, PodInfo};
use super::topology::Topology;

/// Each term is 0..=100 and weighs as upstream's default profile weighs it.
const AFFINITY_WEIGHT: i64 = 2;
const TAINT_WEIGHT: i64 = 3;
const SPREAD_WEIGHT: i64 = 2;
const POD_AFFINITY_WEIGHT: i64 = 2;
/// What a pod without requests counts as, so that such pods spread too.
const DEFAULT_CPU_MILLI: i64 = 100;
const DEFAULT_MEMORY_BYTES: i64 = 200 << 20;

/// Scores of the candidates, in their order.
pub fn scores(candidates: &[&NodeInfo], pod: &PodInfo, topology: &Topology) -> Vec<i64> {
    let preferred: Vec<i64> = candidates.iter().map(|node| preference(node, pod)).collect();
    let intolerable: Vec<i64> = candidates.iter().map(|node| soft_taints(node, pod)).collect();
    let siblings: Vec<i64> = candidates.iter().map(|node| same_owner(node, pod)).collect();
    let liked = stretched(candidates.iter().map(|node| topology.liking(node)).collect());
    let free = stretched(uncrowded(candidates, pod, topology));
    let (best, worst, most) = (max(&preferred), max(&intolerable), max(&siblings));
    let one = |i: usize, node: &NodeInfo| {
        let affinity = if best > 0 { preferred[i] * 100 / best } else { 0 };
        let taints = if worst > 0 { 100 - intolerable[i] * 100 / worst } else { 100 };
        let spread = if most > 0 { 100 - siblings[i] * 100 / most } else { 100 };
        let image = i64::from(pod.images.iter().any(|image| node.images.contains(image))) * 100;
        let (room, balance) = resources(node, pod);
        room + balance
            + image
            + AFFINITY_WEIGHT * affinity
            + TAINT_WEIGHT * taints
            + SPREAD_WEIGHT * (spread + free[i])
            + POD_AFFINITY_WEIGHT * liked[i]
    };
    candidates.iter().enumerate().map(|(i, node)| one(i, node)).collect()
}

/// The soft spread constraints: the fewer pods in the node's domains the better; worst without such a domain.
fn uncrowded(candidates: &[&NodeInfo], pod: &PodInfo, topology: &Topology) -> Vec<i64> {
    let crowds: Vec<Option<i64>> = candidates.iter().map(|node| topology.crowd(node, pod)).collect();
    let most = crowds.iter().flatten().copied().max().unwrap_or(0);
    crowds.into_iter().map(|crowd| crowd.map_or(-1, |crowd| most - crowd)).collect()
}

/// From the least, which is 0, to the greatest, which is 100.
fn stretched(all: Vec<i64>) -> Vec<i64> {
    let least = all.iter().copied().min().unwrap_or(0);
    let range = (max(&all) - least).max(1);
    all.into_iter().map(|n| (n - least) * 100 / range).collect()
}

fn max(all: &[i64]) -> i64 {
    all.iter().copied().max().unwrap_or(0)
}

/// The least allocated node first, and one whose processors and memory fill alike.
fn resources(node: &NodeInfo, pod: &PodInfo) -> (i64, i64) {
    let share = |name: &str, default: i64| {
        let total = node.allocatable.get(name).copied().unwrap_or(0);
        let own = |p: &PodInfo| i128::from(p.requests.get(name).copied().filter(|n| *n > 0).unwrap_or(default));
        let used = node.pods.values().map(|p| own(p)).sum::<i128>() + own(pod);
        if total <= 0 { 100 } else { (used * 100 / i128::from(total)).min(100) as i64 }
    };
    let (cpu, memory) = (share("cpu", DEFAULT_CPU_MILLI), share("memory", DEFAULT_MEMORY_BYTES));
    ((100 - cpu + 100 - memory) / 2, 100 - (cpu - memory).abs())
}

fn preference(node: &NodeInfo, pod: &PodInfo) -> i64 {
    let terms = &pod.spec["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"];
    let wins = |term: &&Value| affinity::term_matches(&term["preference"], &node.name, &node.labels);
    terms.as_array().into_iter().flatten().filter(wins).filter_map(|term| term["weight"].as_i64()).sum()
}

fn soft_taints(node: &NodeInfo, pod: &PodInfo) -> i64 {
    let soft = node.taints.iter().filter(|t| t["effect"] == "PreferNoSchedule");
    soft.filter(|taint| !pod.tolerations().iter().any(|t| affinity::tolerates(t, taint))).count() as i64
}

fn same_owner(node: &NodeInfo, pod: &PodInfo) -> i64 {
    if pod.owner_uid.is_empty() {
        return 0;
    }
    node.pods.values().filter(|other| other.owner_uid == pod.owner_uid).count() as i64
}
