//! Changing what a running pod may take. What the API asks for is given once the node has it; until then the pod goes on
//! with what it was given before. Pure.
//!
//! ```text
//!   spec changed ──fits──▶ given ──runtime told──▶ done
//!        ├── not now ──▶ deferred: tried again when a pod ends
//!        └── never ──▶ infeasible: until the spec changes again
//! ```

use std::sync::Arc;

use gantry_cri::v1::LinuxContainerResources;
use gantry_kube::Object;
use gantry_kube::pod::resources::{Amounts, requests};
use serde_json::Value;

use crate::shared::NodeFacts;

const LISTS: [&str; 2] = ["containers", "initContainers"];

/// Why a pod has not been given what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// `Deferred` or `Infeasible`.
    pub reason: &'static str,
    pub message: String,
}

/// `pod` with the resources of `given`, which is the same pod as it was.
pub fn with_resources_of(pod: &Arc<Object>, given: &Object) -> Arc<Object> {
    if !differs(pod, given) {
        return pod.clone();
    }
    let mut made = (**pod).clone();
    for list in LISTS {
        let before = given.array_at(&format!("/spec/{list}"));
        let containers = made.map_mut("spec").get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let Some(known) = before.iter().find(|known| known["name"] == container["name"]) else { continue };
            match known.get("resources") {
                Some(resources) => container["resources"] = resources.clone(),
                None => drop(container.as_object_mut().and_then(|map| map.remove("resources"))),
            }
        }
    }
    Arc::new(made)
}

/// Whether the two ask for different resources.
pub fn differs(one: &Object, other: &Object) -> bool {
    LISTS.into_iter().any(|list| {
        let of = |pod: &Object| -> Vec<(Value, Value)> {
            let containers = pod.array_at(&format!("/spec/{list}")).iter();
            containers.map(|c| (c["name"].clone(), c.get("resources").cloned().unwrap_or_default())).collect()
        };
        of(one) != of(other)
    })
}

/// Whether the node can give the pod what it asks for now. `others` are the pods that it has taken, with what it gave them.
pub fn admit(pod: &Object, others: &[&Object], node: &NodeFacts) -> Result<(), Pending> {
    let asked = requests(pod);
    let mut used = Amounts::default();
    others.iter().for_each(|other| used.add(&requests(other)));
    let all = &node.allocatable;
    for (name, asked, used, capacity) in [
        ("cpu", asked.cpu_milli, used.cpu_milli, all.cpu_milli),
        ("memory", asked.memory_bytes, used.memory_bytes, all.memory_bytes),
    ] {
        if asked > capacity {
            let message = format!("Node didn't have enough capacity: {name}, requested: {asked}, capacity: {capacity}");
            return Err(Pending { reason: "Infeasible", message });
        }
        if used.saturating_add(asked) > capacity {
            let message = format!(
                "Node didn't have enough resource: {name}, requested: {asked}, used: {used}, capacity: {capacity}"
            );
            return Err(Pending { reason: "Deferred", message });
        }
    }
    Ok(())
}

/// What the runtime can be told of a running container, by which two are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub cpu_shares: i64,
    pub cpu_quota: i64,
    pub memory_bytes: i64,
}

impl Limits {
    pub fn of(resources: &LinuxContainerResources) -> Limits {
        Limits {
            cpu_shares: resources.cpu_shares,
            // Some say "none" with a minus.
            cpu_quota: resources.cpu_quota.max(0),
            memory_bytes: resources.memory_limit_in_bytes.max(0),
        }
    }

    /// As the runtime is to be told: what is no limit any more is said by a minus, for nothing means "as it was".
    pub fn update(self) -> LinuxContainerResources {
        let or_none = |value: i64| if value == 0 { -1 } else { value };
        LinuxContainerResources {
            cpu_period: gantry_kube::pod::qos::CPU_PERIOD_MICROS,
            cpu_quota: or_none(self.cpu_quota),
            cpu_shares: self.cpu_shares,
            memory_limit_in_bytes: or_none(self.memory_bytes),
            ..LinuxContainerResources::default()
        }
    }

    /// On the way to `new`: what becomes less is as it is to be, what becomes more is as it was.
    fn least(self, new: Limits) -> Limits {
        let least = |old: i64, new: i64| if is_less(new, old) { new } else { old };
        Limits {
            cpu_shares: new.cpu_shares,
            cpu_quota: least(self.cpu_quota, new.cpu_quota),
            memory_bytes: least(self.memory_bytes, new.memory_bytes),
        }
    }
}

/// No limit at all is the largest.
fn is_less(one: i64, other: i64) -> bool {
    one != 0 && (other == 0 || one < other)
}

/// A running container that is to have other limits than it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub id: String,
    pub has: Limits,
    pub wanted: Limits,
}

/// One thing that the runtime is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Container {
        id: String,
        limits: Limits,
        /// Below what is in use, the kernel would kill the container.
        less_memory: bool,
    },
    /// The pod as a whole.
    Pod,
}

/// What becomes less comes first, then the pod, then what becomes more: no child may have more than its parent at any time (on
/// cgroup v1 the kernel refuses it). A container of which one limit shrinks and another grows is told twice.
pub fn steps(changes: &[Change]) -> Vec<Step> {
    let step =
        |change: &Change, limits: Limits, less_memory| Step::Container { id: change.id.clone(), limits, less_memory };
    let shrink = changes.iter().filter_map(|change| {
        let least = change.has.least(change.wanted);
        let less_memory = is_less(least.memory_bytes, change.has.memory_bytes);
        (least != change.has).then(|| step(change, least, less_memory))
    });
    let grow = changes.iter().filter_map(|change| {
        let is_there = change.has.least(change.wanted) == change.wanted;
        (!is_there).then(|| step(change, change.wanted, false))
    });
    shrink.chain([Step::Pod]).chain(grow).collect()
}

/// Whether a container has to be started anew for a change of `resource`, by its `resizePolicy`.
pub fn restarts_for(container: &Value, resource: &str) -> bool {
    let mut policies = container["resizePolicy"].as_array().into_iter().flatten();
    policies.find(|p| p["resourceName"] == resource).is_some_and(|p| p["restartPolicy"] == "RestartContainer")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn pod(cpu: &str, memory: &str) -> Object {
        let resources = json!({"requests": {"cpu": cpu, "memory": memory}});
        Object::from_value(
            json!({"spec": {"containers": [{"name": "a", "image": "i", "resources": resources}, {"name": "b"}]}}),
        )
        .unwrap()
    }

    fn node() -> NodeFacts {
        let allocatable = Amounts { cpu_milli: 1000, memory_bytes: 1 << 30, ..Amounts::default() };
        NodeFacts { allocatable, ..NodeFacts::default() }
    }

    #[test]
    fn a_pod_keeps_what_it_was_given_until_it_is_given_more() {
        let (old, new) = (pod("100m", "1Mi"), Arc::new(pod("200m", "2Mi")));
        assert!(differs(&new, &old));
        let kept = with_resources_of(&new, &old);
        assert!(!differs(&kept, &old) && kept.get("/spec/containers/1/resources").is_none());
        assert!(Arc::ptr_eq(&with_resources_of(&new, &new), &new));
    }

    #[test]
    fn what_does_not_fit_now_waits_and_what_never_fits_is_refused() {
        let verdict = |cpu: &str, others: &[&Object]| admit(&pod(cpu, "1Mi"), others, &node());
        assert_eq!(verdict("600m", &[&pod("400m", "1Mi")]), Ok(()));
        let waits = verdict("700m", &[&pod("400m", "1Mi")]).unwrap_err();
        assert_eq!(
            (waits.reason, waits.message.as_str()),
            ("Deferred", "Node didn't have enough resource: cpu, requested: 700, used: 400, capacity: 1000")
        );
        let never = verdict("1001m", &[]).unwrap_err();
        assert_eq!(
            (never.reason, never.message.as_str()),
            ("Infeasible", "Node didn't have enough capacity: cpu, requested: 1001, capacity: 1000")
        );
    }

    #[test]
    fn a_policy_names_what_makes_a_restart() {
        let container = json!({"resizePolicy": [{"resourceName": "memory", "restartPolicy": "RestartContainer"},
            {"resourceName": "cpu", "restartPolicy": "NotRequired"}]});
        assert_eq!((restarts_for(&container, "cpu"), restarts_for(&container, "memory")), (false, true));
        assert!(!restarts_for(&json!({}), "memory"));
    }

    /// Processor, memory and shares.
    type Sizes = (i64, i64, i64);

    proptest! {
        #[test]
        fn the_runtime_is_told_what_it_will_say(cpu_shares in 2..1000_i64, cpu_quota in 0..1000_i64, memory_bytes in 0..1000_i64) {
            let limits = Limits { cpu_shares, cpu_quota, memory_bytes };
            prop_assert_eq!(Limits::of(&limits.update()), limits);
        }

        #[test]
        fn no_container_has_more_than_its_pod_at_any_time(
            sizes in proptest::collection::vec(((0..9_i64, 0..9_i64, 2..4_i64), (0..9_i64, 0..9_i64, 2..4_i64)), 1..5),
        ) {
            let limits = |(cpu_quota, memory_bytes, cpu_shares)| Limits { cpu_shares, cpu_quota, memory_bytes };
            let change = |(n, (has, wanted)): (usize, &(Sizes, Sizes))| {
                Change { id: n.to_string(), has: limits(*has), wanted: limits(*wanted) }
            };
            let changes: Vec<Change> = sizes.iter().enumerate().map(change).collect();
            // A pod has what its containers have together, where each of them has a limit.
            let whole = |all: &[Limits], of: fn(&Limits) -> i64| {
                if all.iter().any(|one| of(one) == 0) { 0 } else { all.iter().map(of).sum() }
            };
            let whole = |all: &[Limits]| (whole(all, |l| l.cpu_quota), whole(all, |l| l.memory_bytes));
            let mut now: Vec<Limits> = changes.iter().map(|change| change.has).collect();
            let wanted: Vec<Limits> = changes.iter().map(|change| change.wanted).collect();
            let (mut pod, mut told) = (whole(&now), vec![0; now.len()]);
            for step in steps(&changes) {
                match step {
                    Step::Pod => pod = whole(&wanted),
                    Step::Container { id, limits, less_memory } => {
                        let at: usize = id.parse().unwrap();
                        prop_assert_ne!(limits, now[at]);
                        prop_assert_eq!(less_memory, is_less(limits.memory_bytes, now[at].memory_bytes));
                        now[at] = limits;
                        told[at] += 1;
                    }
                }
                prop_assert!(now.iter().all(|one| !is_less(pod.0, one.cpu_quota) && !is_less(pod.1, one.memory_bytes)));
            }
            prop_assert_eq!(&now, &wanted);
            prop_assert_eq!(pod, whole(&wanted));
            for (change, told) in changes.iter().zip(told) {
                let mixed = change.has.least(change.wanted) != change.wanted && change.has.least(change.wanted) != change.has;
                prop_assert_eq!(told, if change.has == change.wanted { 0 } else { 1 + usize::from(mixed) });
            }
        }
    }
}
