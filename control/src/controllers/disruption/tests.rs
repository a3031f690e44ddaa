use super::*;
use gantry_kube::Ref;
use proptest::prelude::*;

use crate::registry::eviction::{Permit, permit};

fn budget(spec: Value) -> Object {
    let mut value = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "b", "namespace": "a", "uid": "o", "generation": 1},
        "spec": {"selector": {"matchLabels": {"app": "x"}}}, "status": {},
    });
    json_patch::merge(&mut value, &json!({"spec": spec}));
    Object::from_value(value).unwrap()
}

fn pod(name: &str, owner: &str, ready: bool) -> Arc<Pod> {
    let labels = json!({"app": "x"}).as_object().cloned().unwrap();
    let at = Some(Ref::new("a", name));
    Arc::new(Pod { at, labels, controller_uid: owner.to_owned(), ready, uid: name.to_owned(), ..Pod::default() })
}

fn now() -> Timestamp {
    Timestamp::from_second(1000).unwrap()
}

/// Every owner wants four.
fn four(pod: &Pod) -> Result<Scale, String> {
    Ok(Scale { uid: pod.controller_uid.clone(), replicas: 4 })
}

fn turn(budget: &mut Object, pods: &[Arc<Pod>]) -> Vec<&'static str> {
    let plan = plan(budget, pods, four, now());
    if let Some(status) = plan.status {
        budget.0.insert("status".into(), status);
    }
    plan.events.iter().map(|(_, reason, _)| *reason).collect()
}

/// Allowed, current, desired and expected.
fn numbers(budget: &Object) -> [i64; 4] {
    ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"]
        .map(|field| budget.i64_at(&format!("/status/{field}")).unwrap())
}

#[test]
fn what_may_go_is_what_is_beyond_the_wanted() {
    let pods: Vec<Arc<Pod>> = (0..4).map(|n| pod(&n.to_string(), "r", n > 0)).collect();
    for (spec, wanted) in [
        (json!({"minAvailable": 2}), [1, 3, 2, 4]),
        (json!({"minAvailable": "50%"}), [1, 3, 2, 4]),
        (json!({"minAvailable": "51%"}), [0, 3, 3, 4]),
        (json!({"maxUnavailable": 1}), [0, 3, 3, 4]),
        (json!({"maxUnavailable": "26%"}), [1, 3, 2, 4]),
        (json!({"maxUnavailable": "100%"}), [3, 3, 0, 4]),
        (json!({"maxUnavailable": 9}), [3, 3, 0, 4]),
        (json!({"minAvailable": 9}), [0, 3, 9, 4]),
        (json!({"minAvailable": 0, "selector": null}), [0, 0, 0, 0]),
        (json!({"minAvailable": 0, "selector": {"matchLabels": null}}), [3, 3, 0, 4]),
    ] {
        let mut budget = budget(spec.clone());
        turn(&mut budget, &pods);
        assert_eq!(numbers(&budget), wanted, "{spec}");
        assert_eq!(plan(&budget, &pods, four, now()), Plan::default(), "not empty after a full apply");
    }
}

#[test]
fn who_cannot_be_counted_is_not_evicted() {
    let pods = [pod("p", "r", true), pod("q", "", true)];
    let mut percent = budget(json!({"maxUnavailable": "50%"}));
    assert_eq!(turn(&mut percent, &pods), ["UnmanagedPods"]);
    assert_eq!(numbers(&percent), [0, 2, 2, 4]);
    let none = |_: &Pod| Err("found no controllers for pod \"p\"".to_owned());
    let failed = plan(&percent, &pods, none, now());
    let status = failed.status.unwrap();
    assert_eq!((&status["disruptionsAllowed"], &status["conditions"][0]["reason"]), (&json!(0), &json!("SyncFailed")));
    assert_eq!(failed.events[0].1, "CalculateExpectedPodCountFailed");
    let mut counted = budget(json!({"minAvailable": 1}));
    assert_eq!(turn(&mut counted, &pods), [""; 0]);
    assert_eq!((numbers(&counted), turn(&mut counted, &[])), ([1, 2, 1, 2], vec!["NoPods"]));
}

#[test]
fn one_that_was_to_go_and_stays_counts_again() {
    let pods = [pod("p", "r", true), pod("q", "r", true)];
    let mut budget = budget(json!({"minAvailable": 1}));
    let times = json!({"p": "1970-01-01T00:16:30Z", "gone": "1970-01-01T00:16:30Z"});
    budget.map_mut("status").insert("disruptedPods".into(), times);
    let waits = plan(&budget, &pods, four, now());
    assert_eq!(waits.check_again, Some(Duration::from_secs(110)));
    turn(&mut budget, &pods);
    assert_eq!((numbers(&budget), budget.get("/status/disruptedPods/gone")), ([0, 1, 1, 2], None));
    let later = plan(&budget, &pods, four, Timestamp::from_second(1111).unwrap());
    assert_eq!((later.events[0].1, &later.status.unwrap()["disruptionsAllowed"]), ("NotDeleted", &json!(1)));
}

#[derive(Clone, Debug)]
enum Step {
    Evict(usize),
    /// The controller takes a turn, on what it sees.
    Count,
    /// It sees what is there.
    See,
    /// One that was evicted is gone, and another takes its place.
    Replace(usize),
}

proptest! {
    /// However late the controller sees what evictions do, they leave as many healthy pods as the budget asks for.
    #[test]
    fn no_eviction_breaks_a_budget(
        size in 1_usize..6, wanted in 0_usize..6, percent in any::<bool>(),
        steps in prop::collection::vec(prop_oneof![
            3 => (0_usize..6).prop_map(Step::Evict), 2 => Just(Step::Count), 1 => Just(Step::See),
            1 => (0_usize..6).prop_map(Step::Replace),
        ], 1..60),
    ) {
        let spec = if percent { json!({"maxUnavailable": wanted}) } else { json!({"minAvailable": wanted}) };
        let must_stay = if percent { 4_usize.saturating_sub(wanted) } else { wanted };
        let mut budget = budget(spec);
        let mut pods: Vec<Arc<Pod>> = (0..size).map(|n| pod(&format!("p{n}"), "r", true)).collect();
        let (mut seen, mut made) = (pods.clone(), size);
        for step in steps {
            match step {
                Step::See => seen.clone_from(&pods),
                Step::Count => drop(turn(&mut budget, &seen)),
                Step::Replace(n) if pods.get(n).is_some_and(|pod| pod.deleting) => {
                    pods[n] = pod(&format!("p{made}"), "r", true);
                    made += 1;
                }
                Step::Replace(_) => {}
                Step::Evict(n) => {
                    let Some(evicted) = pods.get_mut(n).filter(|pod| !pod.deleting) else { continue };
                    let object = Object::from_value(json!({"metadata": {"name": evicted.reference().name},
                        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}})).unwrap();
                    match permit(&object, &[&budget], now()) {
                        Ok(Permit::Paid(spent)) => budget = *spent,
                        Ok(Permit::Free) => prop_assert!(false, "a healthy pod is free"),
                        Err(_) => continue,
                    }
                    Arc::make_mut(evicted).deleting = true;
                    let left = pods.iter().filter(|pod| pod.ready && !pod.deleting).count();
                    prop_assert!(left >= must_stay, "{} of {} are left", left, must_stay);
                }
            }
        }
        turn(&mut budget, &pods);
        prop_assert_eq!(plan(&budget, &pods, four, now()).status, None);
    }
}
