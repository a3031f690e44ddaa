//! What pods say about each other: podAffinity, podAntiAffinity, topologySpreadConstraints.
//!
//! A domain is the set of nodes that share a value of a topology key. [`Topology::of`] counts once for a pod, over all
//! placed pods, what the filter and the score then ask of each node.

use std::collections::{BTreeMap, BTreeSet};

use gantry_kube::Object;
use gantry_kube::selector::LabelSelector;
use serde_json::{Map, Value, json};

use super::affinity;
use super::snapshot::{NodeInfo, PodInfo, Snapshot};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
/// What a required affinity of a pod that is already placed weighs with the one that comes (upstream's default).
const HARD_AFFINITY_WEIGHT: i64 = 1;

/// Everything that a pod says about others. Most say nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wishes {
    affinity: Vec<Term>,
    anti_affinity: Vec<Term>,
    /// With their weights; those of anti-affinity are negative.
    preferred: Vec<(i64, Term)>,
    spread: Vec<Spread>,
    /// The first field that we would have to ignore.
    pub unsupported: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
struct Term {
    key: String,
    /// `None`: every namespace.
    namespaces: Option<BTreeSet<String>>,
    /// `None` matches no pod.
    selector: Option<LabelSelector>,
}

#[derive(Clone, Debug, PartialEq)]
struct Spread {
    key: String,
    max_skew: i64,
    min_domains: i64,
    hard: bool,
    selector: Option<LabelSelector>,
    honors_affinity: bool,
    honors_taints: bool,
}

impl Wishes {
    pub fn parse(pod: &Object) -> Wishes {
        let mut wishes = Wishes::default();
        let list = |at: &str| pod.array_at(at).to_vec();
        for (field, sign) in [("podAffinity", 1), ("podAntiAffinity", -1)] {
            for term in list(&format!("/spec/affinity/{field}/{REQUIRED}")) {
                let term = wishes.term(pod, field, &term);
                if sign > 0 { wishes.affinity.push(term) } else { wishes.anti_affinity.push(term) }
            }
            for weighted in list(&format!("/spec/affinity/{field}/{PREFERRED}")) {
                let term = wishes.term(pod, field, &weighted["podAffinityTerm"]);
                wishes.preferred.push((sign * weighted["weight"].as_i64().unwrap_or(0), term));
            }
        }
        wishes.spread = list("/spec/topologySpreadConstraints").iter().map(|c| spread(pod, c)).collect();
        wishes
    }

    pub fn is_empty(&self) -> bool {
        *self == Wishes::default()
    }

    fn term(&mut self, pod: &Object, field: &str, term: &Value) -> Term {
        let mut namespaces: BTreeSet<String> =
            term["namespaces"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        let by_label = &term["namespaceSelector"];
        let every = by_label.is_object() && LabelSelector::from_value(by_label).is_ok_and(|s| s.is_empty());
        if by_label.is_object() && !every {
            self.unsupported = Some(format!("spec.affinity.{field}: namespaceSelector with requirements"));
        }
        if namespaces.is_empty() && by_label.is_null() {
            namespaces.insert(pod.namespace().to_owned());
        }
        Term {
            key: term["topologyKey"].as_str().unwrap_or("").to_owned(),
            namespaces: (!every).then_some(namespaces),
            selector: selector(pod, term),
        }
    }
}

fn spread(pod: &Object, constraint: &Value) -> Spread {
    Spread {
        key: constraint["topologyKey"].as_str().unwrap_or("").to_owned(),
        max_skew: constraint["maxSkew"].as_i64().unwrap_or(1),
        min_domains: constraint["minDomains"].as_i64().unwrap_or(1),
        hard: constraint["whenUnsatisfiable"] != "ScheduleAnyway",
        selector: selector(pod, constraint),
        honors_affinity: constraint["nodeAffinityPolicy"] != "Ignore",
        honors_taints: constraint["nodeTaintsPolicy"] == "Honor",
    }
}

/// The labelSelector, with what matchLabelKeys and mismatchLabelKeys take from the pod's own labels.
fn selector(pod: &Object, term: &Value) -> Option<LabelSelector> {
    let mut selector = term["labelSelector"].as_object().cloned().map(Value::Object)?;
    let mut expressions = selector["matchExpressions"].as_array().cloned().unwrap_or_default();
    for (field, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in term[field].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if let Some(value) = pod.labels().and_then(|labels| labels.get(key)) {
                expressions.push(json!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
    selector["matchExpressions"] = json!(expressions);
    LabelSelector::from_value(&selector).ok()
}

impl Term {
    fn matches(&self, pod: &PodInfo) -> bool {
        self.namespaces.as_ref().is_none_or(|all| all.contains(&pod.namespace))
            && self.selector.as_ref().is_some_and(|s| s.matches(Some(&pod.labels)))
    }
}

impl Spread {
    fn selects(&self, pod: &PodInfo) -> bool {
        self.selector.as_ref().is_some_and(|s| s.matches(Some(&pod.labels)))
    }

    fn counts(&self, node: &NodeInfo, pod: &PodInfo) -> bool {
        let effects = ["NoSchedule", "NoExecute"];
        (!self.honors_affinity || node.selected_by(pod))
            && (!self.honors_taints || affinity::untolerated(&node.taints, pod.tolerations(), &effects).is_none())
    }
}

/// Topology key and value.
type Domain = (String, String);

fn value<'a>(labels: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    labels.get(key).and_then(Value::as_str)
}

fn domain(node: &NodeInfo, key: &str) -> Option<Domain> {
    value(&node.labels, key).map(|value| (key.to_owned(), value.to_owned()))
}

/// What the placed pods mean for one that is to be placed.
#[derive(Debug, Default)]
pub struct Topology {
    /// Domains with a pod that all required affinity terms match.
    friends: BTreeSet<Domain>,
    /// No pod anywhere matches, but the pod itself does: the first of a group starts it.
    first: bool,
    /// Domains with a pod that a required anti-affinity term matches.
    foes: BTreeSet<Domain>,
    /// Domains with a pod whose own anti-affinity matches this one.
    closed: BTreeSet<Domain>,
    preferred: BTreeMap<Domain, i64>,
    /// For each constraint, the number of matching pods in each value of its key.
    spread: Vec<BTreeMap<String, i64>>,
}

impl Topology {
    pub fn of(snapshot: &Snapshot, pod: &PodInfo) -> Topology {
        let mut topology = Topology::default();
        for node in snapshot.nodes() {
            for other in node.pods.values().filter(|other| other.uid != pod.uid) {
                topology.meet(pod, other, node);
            }
        }
        let own = pod.wishes.affinity.iter().all(|term| term.matches(pod));
        topology.first = topology.friends.is_empty() && own;
        topology.spread = pod.wishes.spread.iter().map(|constraint| count(snapshot, pod, constraint)).collect();
        topology
    }

    fn meet(&mut self, pod: &PodInfo, other: &PodInfo, node: &NodeInfo) {
        let (own, theirs) = (&pod.wishes, &other.wishes);
        if !own.affinity.is_empty() && own.affinity.iter().all(|term| term.matches(other)) {
            self.friends.extend(own.affinity.iter().filter_map(|term| domain(node, &term.key)));
        }
        let foes = own.anti_affinity.iter().filter(|term| term.matches(other));
        self.foes.extend(foes.filter_map(|term| domain(node, &term.key)));
        let closed = theirs.anti_affinity.iter().filter(|term| term.matches(pod));
        self.closed.extend(closed.filter_map(|term| domain(node, &term.key)));
        let ours = own.preferred.iter().filter(|(_, term)| term.matches(other)).map(|(weight, term)| (*weight, term));
        let likes = theirs.preferred.iter().map(|(weight, term)| (*weight, term));
        let needs = theirs.affinity.iter().map(|term| (HARD_AFFINITY_WEIGHT, term));
        for (weight, term) in ours.chain(likes.chain(needs).filter(|(_, term)| term.matches(pod))) {
            if let Some(domain) = domain(node, &term.key) {
                *self.preferred.entry(domain).or_default() += weight;
            }
        }
    }

    /// The first reason for which the node cannot take the pod, in upstream's order and words.
    pub fn reject(&self, node: &NodeInfo, pod: &PodInfo) -> Option<&'static str> {
        let within = |domains: &BTreeSet<Domain>, key: &str| domain(node, key).is_some_and(|d| domains.contains(&d));
        self.unspread(node, pod).or_else(|| {
            let near = |term: &Term| {
                if self.first { domain(node, &term.key).is_some() } else { within(&self.friends, &term.key) }
            };
            if !pod.wishes.affinity.iter().all(near) {
                return Some("node(s) didn't match pod affinity rules");
            }
            if pod.wishes.anti_affinity.iter().any(|term| within(&self.foes, &term.key)) {
                return Some("node(s) didn't match pod anti-affinity rules");
            }
            let closed = self.closed.iter().any(|(key, wanted)| value(&node.labels, key) == Some(wanted));
            closed.then_some("node(s) didn't satisfy existing pods anti-affinity rules")
        })
    }

    fn unspread(&self, node: &NodeInfo, pod: &PodInfo) -> Option<&'static str> {
        for (constraint, counts) in pod.wishes.spread.iter().zip(&self.spread).filter(|(c, _)| c.hard) {
            let Some(value) = value(&node.labels, &constraint.key) else {
                return Some("node(s) didn't match pod topology spread constraints (missing required label)");
            };
            let enough = counts.len() as i64 >= constraint.min_domains;
            let least = if enough { counts.values().min().copied().unwrap_or(0) } else { 0 };
            let here = counts.get(value).copied().unwrap_or(0) + i64::from(constraint.selects(pod));
            if here - least > constraint.max_skew {
                return Some("node(s) didn't match pod topology spread constraints");
            }
        }
        None
    }

    /// How much the pods around like it here: the sum of preferred terms.
    pub fn liking(&self, node: &NodeInfo) -> i64 {
        let here = |((key, wanted), _): &(&Domain, &i64)| value(&node.labels, key) == Some(wanted);
        self.preferred.iter().filter(here).map(|(_, weight)| weight).sum()
    }

    /// How many pods there are already in the node's domains of the soft constraints; `None` where it lacks a label.
    pub fn crowd(&self, node: &NodeInfo, pod: &PodInfo) -> Option<i64> {
        let soft = pod.wishes.spread.iter().zip(&self.spread).filter(|(constraint, _)| !constraint.hard);
        soft.map(|(c, counts)| value(&node.labels, &c.key).map(|v| counts.get(v).copied().unwrap_or(0))).sum()
    }
}

/// The pods of one constraint by domain. A node without the keys of all constraints of its kind belongs to none.
fn count(snapshot: &Snapshot, pod: &PodInfo, constraint: &Spread) -> BTreeMap<String, i64> {
    let keys: Vec<&str> =
        pod.wishes.spread.iter().filter(|other| other.hard == constraint.hard).map(|c| c.key.as_str()).collect();
    let mut counts = BTreeMap::new();
    for node in snapshot.nodes() {
        let Some(here) = value(&node.labels, &constraint.key) else { continue };
        if !constraint.counts(node, pod) || !keys.iter().all(|key| node.labels.contains_key(*key)) {
            continue;
        }
        let counted = |other: &PodInfo| {
            other.uid != pod.uid && !other.deleting && other.namespace == pod.namespace && constraint.selects(other)
        };
        *counts.entry(here.to_owned()).or_default() += node.pods.values().filter(|other| counted(other)).count() as i64;
    }
    counts
}

#[cfg(test)]
mod tests;
