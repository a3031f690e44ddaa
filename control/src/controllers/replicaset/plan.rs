use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_kube::selector::LabelSelector;
use gantry_kube::{Object, Ref};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::controllers::dependents::plan::{Outstanding, claim, pod_from};
use crate::controllers::informers::Pod;

/// At most so many pods are made in one turn.
const BURST_MAX: usize = 500;

/// What one turn does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Pods to adopt or release: strategic patches with a uid precondition.
    pub ownership: Vec<(Ref, Value)>,
    pub create: Vec<Object>,
    pub delete: Vec<(Ref, String)>,
    pub counts: Counts,
    /// When a pod becomes available without any event telling us.
    pub check_again_seconds: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    pub replicas: i64,
    pub fully_labeled: i64,
    pub ready: i64,
    pub available: i64,
    pub terminating: i64,
}

/// `suffix` gives the random part of a name.
pub fn plan(
    set: &Object,
    pods: &[Arc<Pod>],
    outstanding: &Outstanding,
    now: Timestamp,
    suffix: impl Fn(usize) -> String,
) -> Plan {
    let (mine, ownership) = claim(set, pods);
    let mut plan = Plan { ownership, ..Plan::default() };
    let active: Vec<&Pod> =
        mine.iter().copied().filter(|p| p.active() && !outstanding.deleted.contains(&p.uid)).collect();
    (plan.counts, plan.check_again_seconds) = count(set, &mine, &active, now);
    if set.deletion_timestamp().is_none() {
        let wanted = usize::try_from(set.i64_at("/spec/replicas").unwrap_or(1)).unwrap_or(0);
        let have = active.len() + outstanding.created.len();
        if have < wanted {
            let missing = (wanted - have).min(BURST_MAX);
            plan.create = (0..missing).map(|_| pod_from(set, &suffix(5))).collect();
        } else if active.len() > wanted {
            plan.delete = victims(active, wanted);
        }
    }
    plan
}

fn count(set: &Object, mine: &[&Pod], active: &[&Pod], now: Timestamp) -> (Counts, Option<u64>) {
    let min_ready = set.i64_at("/spec/minReadySeconds").unwrap_or(0);
    let template = set.get("/spec/template/metadata/labels").and_then(Value::as_object).cloned().unwrap_or_default();
    let template = LabelSelector::from_map(&template);
    let (mut counts, mut again) = (Counts::default(), None::<i64>);
    counts.terminating = mine.iter().filter(|p| p.deleting && !p.finished()).count() as i64;
    for pod in active {
        counts.replicas += 1;
        counts.fully_labeled += i64::from(template.matches(Some(&pod.labels)));
        match pod.available_in(min_ready, now) {
            None => continue,
            Some(0) => counts.available += 1,
            Some(wait) => again = Some(again.map_or(wait, |a| a.min(wait))),
        }
        counts.ready += 1;
    }
    (counts, again.and_then(|s| u64::try_from(s).ok()))
}

/// The pods that go first: not yet bound, pending, unready, cheap to delete, doubled up on a node, ready for the shortest
/// time, restarted most, youngest.
fn victims(active: Vec<&Pod>, keep: usize) -> Vec<(Ref, String)> {
    let mut per_node: BTreeMap<&str, usize> = BTreeMap::new();
    for pod in &active {
        *per_node.entry(pod.node.as_str()).or_default() += 1;
    }
    let phase = |pod: &Pod| match pod.phase.as_str() {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    let mut ranked = active;
    ranked.sort_by_key(|pod| {
        (
            !pod.node.is_empty(),
            phase(pod),
            pod.ready,
            pod.deletion_cost,
            std::cmp::Reverse(per_node[pod.node.as_str()]),
            std::cmp::Reverse(pod.ready_since.clone()),
            std::cmp::Reverse(pod.restarts),
            std::cmp::Reverse(pod.created.clone()),
            pod.uid.clone(),
        )
    });
    let surplus = ranked.len() - keep;
    ranked[..surplus].iter().map(|pod| (pod.reference(), pod.uid.clone())).collect()
}

impl Plan {
    /// The status to write, or `None` where the set's own says the same.
    pub fn status(&self, set: &Object, failure: Option<String>) -> Option<Value> {
        let old = set.get("/status").cloned().unwrap_or_else(|| json!({}));
        let mut status = json!({"replicas": self.counts.replicas, "observedGeneration": set.generation()});
        for (key, value) in [
            ("fullyLabeledReplicas", self.counts.fully_labeled),
            ("readyReplicas", self.counts.ready),
            ("availableReplicas", self.counts.available),
            ("terminatingReplicas", self.counts.terminating),
        ] {
            let has = key != "terminatingReplicas" || set.kind() != "ReplicationController";
            if value > 0 && has {
                status[key] = json!(value);
            }
        }
        let had = old["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == "ReplicaFailure").cloned();
        match (failure, had) {
            // The words name a generated pod: written anew at each try they would wake us at once, for ever.
            (Some(_), Some(condition)) => status["conditions"] = json!([condition]),
            (Some(message), None) => {
                let reason = if self.delete.is_empty() { "FailedCreate" } else { "FailedDelete" };
                status["conditions"] =
                    json!([{"type": "ReplicaFailure", "status": "True", "reason": reason, "message": message}]);
            }
            (None, _) => {}
        }
        (status != old).then_some(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(replicas: i64) -> Object {
        Object::from_value(json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": "web", "namespace": "a", "uid": "s", "generation": 1},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                     "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c"}]}}},
        }))
        .unwrap()
    }

    fn pod(n: usize, owner: &str, phase: &str, ready: bool, deleting: bool) -> Pod {
        Pod {
            at: Some(Ref::new("a", format!("web-{n}"))),
            uid: format!("u{n}"),
            labels: json!({"app": "web"}).as_object().cloned().unwrap(),
            controller_uid: owner.to_owned(),
            phase: phase.to_owned(),
            node: if phase == "Running" { "n1".to_owned() } else { String::new() },
            ready,
            deleting,
            ..Pod::default()
        }
    }

    fn suffixes() -> impl Fn(usize) -> String {
        let next = std::cell::Cell::new(0);
        move |_| {
            next.set(next.get() + 1);
            format!("n{:04}", next.get())
        }
    }

    fn at() -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    #[test]
    fn what_was_just_created_is_not_created_again() {
        let first = plan(&set(3), &[], &Outstanding::default(), at(), suffixes());
        assert_eq!(first.create.len(), 3);
        assert_eq!(first.create[0].array_at("/metadata/ownerReferences")[0]["uid"], "s");
        let outstanding = Outstanding {
            created: first.create.iter().map(|p| p.name().to_owned()).collect(),
            ..Outstanding::default()
        };
        assert!(plan(&set(3), &[], &outstanding, at(), suffixes()).create.is_empty());
    }

    #[test]
    fn the_least_useful_pod_goes_first() {
        let pods = [
            pod(1, "s", "Running", true, false),
            pod(2, "s", "Pending", false, false),
            pod(3, "s", "Running", false, false),
        ];
        let pods: Vec<Arc<Pod>> = pods.into_iter().map(Arc::new).collect();
        let plan = plan(&set(1), &pods, &Outstanding::default(), at(), suffixes());
        assert_eq!(plan.delete.iter().map(|(_, uid)| uid.as_str()).collect::<Vec<_>>(), ["u2", "u3"]);
    }

    #[test]
    fn an_orphan_that_fits_is_adopted_and_a_stray_released() {
        let mut stray = pod(2, "s", "Running", true, false);
        stray.labels.clear();
        let pods = [Arc::new(pod(1, "", "Running", true, false)), Arc::new(stray)];
        let plan = plan(&set(1), &pods, &Outstanding::default(), at(), suffixes());
        assert_eq!(plan.ownership.len(), 2);
        assert!(plan.create.is_empty() && plan.delete.is_empty());
    }

    #[test]
    fn a_failure_stands_in_the_status_until_it_is_over() {
        let plan = plan(&set(1), &[], &Outstanding::default(), at(), suffixes());
        let status = plan.status(&set(1), Some("no quota".into())).unwrap();
        assert_eq!(status["conditions"][0]["message"], "no quota");
        let mut failed = set(1);
        failed.0.insert("status".into(), status);
        assert!(plan.status(&failed, None).unwrap().get("conditions").is_none());
    }

    proptest! {
        /// After a full apply, the plan is empty.
        #[test]
        fn fixpoint(wanted in 0_i64..6, pods in proptest::collection::vec((0_u8..3, any::<bool>(), any::<bool>(), any::<bool>()), 0..8)) {
            let mut world: Vec<Arc<Pod>> = pods.iter().enumerate().map(|(n, (phase, ready, deleting, owned))| {
                let phase = ["Pending", "Running", "Failed"][usize::from(*phase)];
                Arc::new(pod(n, if *owned { "s" } else { "" }, phase, *ready, *deleting))
            }).collect();
            let first = plan(&set(wanted), &world, &Outstanding::default(), at(), suffixes());
            for (at, patch) in &first.ownership {
                for p in &mut world {
                    if &p.reference() == at && patch["metadata"]["ownerReferences"][0]["controller"] == true {
                        Arc::make_mut(p).controller_uid = "s".into();
                    }
                }
            }
            for (_, uid) in &first.delete {
                for p in &mut world {
                    if &p.uid == uid { Arc::make_mut(p).deleting = true; }
                }
            }
            for (n, made) in first.create.iter().enumerate() {
                let mut p = pod(100 + n, "s", "Pending", false, false);
                p.at = Some(made.reference());
                world.push(Arc::new(p));
            }
            let second = plan(&set(wanted), &world, &Outstanding::default(), at(), suffixes());
            prop_assert!(second.ownership.is_empty() && second.create.is_empty() && second.delete.is_empty());
            prop_assert_eq!(second.counts.replicas, wanted);
        }
    }
}
