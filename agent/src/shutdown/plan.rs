//! Which pods end together, in which order and in what time, when the machine goes down: as the kubelet groups them by their
//! priority. Pure.

use std::collections::BTreeMap;

/// Pods of this priority and above, up to the next period's, have so long to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    pub priority: i32,
    pub seconds: u32,
}

/// A pod that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub uid: String,
    pub priority: i64,
    /// What it has to end by itself.
    pub grace_seconds: i64,
}

/// Pods that end at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub priority: i32,
    /// The next group waits no longer.
    pub seconds: u32,
    /// By uid: what each gets to end.
    pub pods: BTreeMap<String, i64>,
}

/// `periods` are sorted by their priorities. A pod belongs to the last whose priority it reaches; one below all of them, to the
/// first. A group without pods takes no time, and is left out.
pub fn plan(periods: &[Period], pods: &[Candidate]) -> Vec<Group> {
    let empty = |period: &Period| Group { priority: period.priority, seconds: period.seconds, pods: BTreeMap::new() };
    let mut groups: Vec<Group> = periods.iter().map(empty).collect();
    for pod in pods {
        let reached = periods.iter().filter(|period| i64::from(period.priority) <= pod.priority).count();
        let Some(group) = groups.get_mut(reached.saturating_sub(1)) else { return groups };
        group.pods.insert(pod.uid.clone(), pod.grace_seconds.min(group.seconds.into()));
    }
    groups.retain(|group| !group.pods.is_empty());
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pod(name: &str, priority: i64, grace_seconds: i64) -> Candidate {
        Candidate { uid: name.to_owned(), priority, grace_seconds }
    }

    fn period(priority: i32, seconds: u32) -> Period {
        Period { priority, seconds }
    }

    /// The example of Kubernetes' documentation, where 10000 is left out.
    #[test]
    fn pods_of_the_documentation_end_in_its_order() {
        let periods = [period(0, 60), period(1000, 120), period(100_000, 300)];
        let pods =
            [pod("a", 100_000, 30), pod("b", 10_000, 500), pod("c", 1000, 30), pod("d", 0, 30), pod("e", -5, 70)];
        let made = plan(&periods, &pods);
        let shown: Vec<(i32, Vec<(&str, i64)>)> =
            made.iter().map(|g| (g.priority, g.pods.iter().map(|(uid, s)| (uid.as_str(), *s)).collect())).collect();
        assert_eq!(
            shown,
            [(0, vec![("d", 30), ("e", 60)]), (1000, vec![("b", 120), ("c", 30)]), (100_000, vec![("a", 30)])]
        );
    }

    #[test]
    fn who_has_no_periods_ends_nobody() {
        assert_eq!(plan(&[], &[pod("a", 0, 1)]), []);
    }

    fn periods() -> impl Strategy<Value = Vec<Period>> {
        let all = proptest::collection::btree_map(any::<i32>(), 0..1000_u32, 1..6);
        all.prop_map(|all| all.into_iter().map(|(priority, seconds)| period(priority, seconds)).collect())
    }

    fn pods() -> impl Strategy<Value = Vec<Candidate>> {
        // Priorities beyond what the API takes: a pod of the runtime's alone may say anything.
        let priority = prop_oneof![any::<i32>().prop_map(i64::from), any::<i64>(), -2..3_i64];
        let all = proptest::collection::btree_map("[a-h]{1,2}", (priority, 0..2000_i64), 0..20);
        all.prop_map(|all| all.into_iter().map(|(uid, (priority, grace))| pod(&uid, priority, grace)).collect())
    }

    proptest! {
        #[test]
        fn every_pod_ends_once_in_its_turn_and_in_time(periods in periods(), pods in pods()) {
            let made = plan(&periods, &pods);
            let told: Vec<&String> = made.iter().flat_map(|group| group.pods.keys()).collect();
            prop_assert_eq!(told.len(), pods.len());
            for pod in &pods {
                let groups: Vec<&Group> = made.iter().filter(|group| group.pods.contains_key(&pod.uid)).collect();
                prop_assert_eq!(groups.len(), 1);
                let seconds = groups[0].pods[&pod.uid];
                prop_assert!(seconds <= pod.grace_seconds && seconds <= i64::from(groups[0].seconds));
                prop_assert!(seconds == pod.grace_seconds || seconds == i64::from(groups[0].seconds));
            }
            prop_assert!(made.is_sorted_by(|a, b| a.priority < b.priority));
            prop_assert!(made.iter().all(|group| periods.contains(&period(group.priority, group.seconds))));
            let sum: u64 = periods.iter().map(|period| u64::from(period.seconds)).sum();
            prop_assert!(made.iter().map(|group| u64::from(group.seconds)).sum::<u64>() <= sum);
            // Nobody goes after one of higher priority.
            let turn = |uid: &String| made.iter().position(|group| group.pods.contains_key(uid));
            for (one, other) in pods.iter().flat_map(|one| pods.iter().map(move |other| (one, other))) {
                prop_assert!(one.priority > other.priority || turn(&one.uid) <= turn(&other.uid));
            }
        }

        #[test]
        fn fixpoint(periods in periods()) {
            prop_assert_eq!(plan(&periods, &[]), vec![]);
        }
    }
}
