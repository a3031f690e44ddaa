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

    /// The node's domain. One without the keys of all constraints of its kind belongs to none.
    fn domain<'a>(&self, node: &'a NodeInfo, pod: &PodInfo) -> Option<&'a str> {
        let here = value(&node.labels, &self.key)?;
        let effects = ["NoSchedule", "NoExecute"];
        let counts = pod.wishes.spread.iter().all(|c| c.hard != self.hard || node.labels.contains_key(&c.key))
            && (!self.honors_affinity || node.selected_by(pod))
            && (!self.honors_taints || affinity::untolerated(&node.taints, pod.tolerations(), &effects).is_none());
        counts.then_some(here)
    }

    fn counts(&self, pod: &PodInfo, other: &PodInfo) -> bool {
        !other.deleting && other.namespace == pod.namespace && self.selects(other)
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

/// How many pods there are of something in each domain that has any.
type Counts = BTreeMap<Domain, i64>;

fn add(counts: &mut Counts, domain: Domain, by: i64) {
    let count = counts.entry(domain.clone()).or_default();
    *count += by;
    if *count == 0 {
        counts.remove(&domain);
    }
}

/// The pods of one spread constraint, by the values of its key that nodes have.
#[derive(Debug, Default, PartialEq)]
struct Crowd {
    pods: BTreeMap<String, i64>,
    /// How many values have so many pods.
    levels: BTreeMap<i64, usize>,
}

impl Crowd {
    fn add(&mut self, value: &str, by: i64) {
        let before = self.pods.get(value).copied();
        if let Some(before) = before
            && let Some(values) = self.levels.get_mut(&before)
        {
            *values -= 1;
            if *values == 0 {
                self.levels.remove(&before);
            }
        }
        let now = before.unwrap_or(0) + by;
        self.pods.insert(value.to_owned(), now);
        *self.levels.entry(now).or_default() += 1;
    }

    fn least(&self) -> i64 {
        self.levels.keys().next().copied().unwrap_or(0)
    }

    fn at(&self, value: &str) -> i64 {
        self.pods.get(value).copied().unwrap_or(0)
    }
}

/// What the placed pods mean for one that is to be placed. One of them that goes for a trial is taken out again, and put
/// back, without a look at the others.
#[derive(Debug, Default, PartialEq)]
pub struct Topology {
    /// Of pods that all required affinity terms match.
    friends: Counts,
    /// The pod itself is one of those: the first of a group starts it.
    own: bool,
    /// Of pods that a required anti-affinity term matches.
    foes: Counts,
    /// Of pods whose own anti-affinity matches this one.
    closed: Counts,
    /// Weights, not numbers.
    preferred: Counts,
    /// For each constraint.
    spread: Vec<Crowd>,
}

impl Topology {
    pub fn of(snapshot: &Snapshot, pod: &PodInfo) -> Topology {
        let own = pod.wishes.affinity.iter().all(|term| term.matches(pod));
        let spread = pod.wishes.spread.iter().map(|_| Crowd::default()).collect();
        let mut topology = Topology { own, spread, ..Topology::default() };
        for node in snapshot.nodes() {
            // A domain without pods is one, too.
            for (constraint, crowd) in pod.wishes.spread.iter().zip(&mut topology.spread) {
                if let Some(value) = constraint.domain(node, pod) {
                    crowd.add(value, 0);
                }
            }
            node.pods.values().for_each(|other| topology.meet(pod, other, node));
        }
        topology
    }

    /// The other is on the node from now on.
    pub fn meet(&mut self, pod: &PodInfo, other: &PodInfo, node: &NodeInfo) {
        self.count(pod, other, node, 1);
    }

    /// The other is on the node no longer.
    pub fn part(&mut self, pod: &PodInfo, other: &PodInfo, node: &NodeInfo) {
        self.count(pod, other, node, -1);
    }

    fn count(&mut self, pod: &PodInfo, other: &PodInfo, node: &NodeInfo, by: i64) {
        if other.uid == pod.uid {
            return;
        }
        let (own, theirs) = (&pod.wishes, &other.wishes);
        let here = |term: &Term| domain(node, &term.key);
        if !own.affinity.is_empty() && own.affinity.iter().all(|term| term.matches(other)) {
            own.affinity.iter().filter_map(here).for_each(|domain| add(&mut self.friends, domain, by));
        }
        let foes = own.anti_affinity.iter().filter(|term| term.matches(other));
        foes.filter_map(here).for_each(|domain| add(&mut self.foes, domain, by));
        let closed = theirs.anti_affinity.iter().filter(|term| term.matches(pod));
        closed.filter_map(here).for_each(|domain| add(&mut self.closed, domain, by));
        let ours = own.preferred.iter().filter(|(_, term)| term.matches(other)).map(|(weight, term)| (*weight, term));
        let likes = theirs.preferred.iter().map(|(weight, term)| (*weight, term));
        let needs = theirs.affinity.iter().map(|term| (HARD_AFFINITY_WEIGHT, term));
        for (weight, term) in ours.chain(likes.chain(needs).filter(|(_, term)| term.matches(pod))) {
            if let Some(domain) = here(term) {
                add(&mut self.preferred, domain, by * weight);
            }
        }
        for (constraint, crowd) in own.spread.iter().zip(&mut self.spread) {
            if constraint.counts(pod, other)
                && let Some(value) = constraint.domain(node, pod)
            {
                crowd.add(value, by);
            }
        }
    }

    /// The first reason for which the node cannot take the pod, in upstream's order and words.
    pub fn reject(&self, node: &NodeInfo, pod: &PodInfo) -> Option<&'static str> {
        let within = |domains: &Counts, key: &str| domain(node, key).is_some_and(|d| domains.contains_key(&d));
        let first = self.own && self.friends.is_empty();
        self.unspread(node, pod).or_else(|| {
            let near = |term: &Term| {
                if first { domain(node, &term.key).is_some() } else { within(&self.friends, &term.key) }
            };
            if !pod.wishes.affinity.iter().all(near) {
                return Some("node(s) didn't match pod affinity rules");
            }
            if pod.wishes.anti_affinity.iter().any(|term| within(&self.foes, &term.key)) {
                return Some("node(s) didn't match pod anti-affinity rules");
            }
            let closed = self.closed.keys().any(|(key, wanted)| value(&node.labels, key) == Some(wanted));
            closed.then_some("node(s) didn't satisfy existing pods anti-affinity rules")
        })
    }

    fn unspread(&self, node: &NodeInfo, pod: &PodInfo) -> Option<&'static str> {
        for (constraint, crowd) in pod.wishes.spread.iter().zip(&self.spread).filter(|(c, _)| c.hard) {
            let Some(value) = value(&node.labels, &constraint.key) else {
                return Some("node(s) didn't match pod topology spread constraints (missing required label)");
            };
            let enough = crowd.pods.len() as i64 >= constraint.min_domains;
            let least = if enough { crowd.least() } else { 0 };
            let here = crowd.at(value) + i64::from(constraint.selects(pod));
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
        soft.map(|(c, crowd)| value(&node.labels, &c.key).map(|value| crowd.at(value))).sum()
    }
}

#[cfg(test)]
mod tests;
