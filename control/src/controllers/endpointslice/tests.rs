use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use proptest::prelude::*;

fn service(target: Value) -> Object {
    Object::from_value(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "a", "uid": "svc"},
        "spec": {"clusterIP": "10.96.0.9", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": target, "protocol": "TCP"}]},
    }))
    .unwrap()
}

fn pod(n: usize, ready: bool, port: i64) -> Pod {
    Pod {
        at: Some(Ref::new("a", format!("web-{n}"))),
        uid: format!("u{n}"),
        labels: json!({"app": "web"}).as_object().cloned().unwrap(),
        phase: "Running".into(),
        node: "n1".into(),
        ips: vec![format!("10.244.0.{}", n % 250 + 1)],
        ready,
        ports: vec![("http".into(), "TCP".into(), port)],
        ..Pod::default()
    }
}

fn run(service: Option<&Object>, pods: &[Arc<Pod>], slices: &[Arc<Object>]) -> Plan {
    // No name comes twice, as no random one does.
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let suffix = |_| format!("s{}", NEXT.fetch_add(1, Ordering::Relaxed));
    plan(service, &Ref::new("a", "web"), pods, slices, |_| None, suffix)
}

fn apply(slices: &mut Vec<Arc<Object>>, plan: &Plan) {
    for action in &plan.actions {
        match action {
            Action::Create(_, slice) => {
                let mut slice = slice.clone();
                let uid = format!("uid-{}", slice.name());
                slice.metadata_mut().insert("uid".into(), json!(uid));
                slices.push(Arc::new(slice));
            }
            Action::Update(_, slice) => {
                let old = slices.iter_mut().find(|s| s.uid() == slice.uid()).unwrap();
                *old = Arc::new(slice.clone());
            }
            Action::Delete(_, uid) => slices.retain(|s| s.uid() != uid),
        }
    }
}

#[test]
fn named_ports_split_the_pods() {
    let pods = [Arc::new(pod(1, true, 80)), Arc::new(pod(2, true, 81))];
    let plan = run(Some(&service(json!("http"))), &pods, &[]);
    assert_eq!(plan.actions.len(), 2, "one slice for each set of ports");
}

#[test]
fn a_service_that_is_gone_takes_its_slices() {
    let mut slices = Vec::new();
    apply(&mut slices, &run(Some(&service(json!(80))), &[Arc::new(pod(1, true, 80))], &[]));
    assert_eq!(slices[0].array_at("/endpoints").len(), 1);
    let plan = run(None, &[], &slices);
    apply(&mut slices, &plan);
    assert!(slices.is_empty());
}

#[test]
fn unready_and_terminating_are_said() {
    let mut leaving = pod(2, true, 80);
    leaving.deleting = true;
    let plan = run(Some(&service(json!(80))), &[Arc::new(pod(1, false, 80)), Arc::new(leaving)], &[]);
    let Action::Create(_, slice) = &plan.actions[0] else { panic!("{plan:?}") };
    assert_eq!(
        slice.array_at("/endpoints")[0]["conditions"],
        json!({"ready": false, "serving": false, "terminating": false})
    );
    assert_eq!(
        slice.array_at("/endpoints")[1]["conditions"],
        json!({"ready": false, "serving": true, "terminating": true})
    );
}

proptest! {
    /// After a full apply the plan is empty, every pod stands in exactly one slice, and no slice is overfull.
    #[test]
    fn fixpoint(worlds in proptest::collection::vec((0_usize..250, any::<bool>(), any::<bool>()), 1..5)) {
        let mut slices = Vec::new();
        for (count, ready, named) in worlds {
            let pods: Vec<Arc<Pod>> = (0..count).map(|n| Arc::new(pod(n, ready, if named && n % 2 == 0 { 81 } else { 80 }))).collect();
            let service = service(if named { json!("http") } else { json!(80) });
            let first = run(Some(&service), &pods, &slices);
            apply(&mut slices, &first);
            let second = run(Some(&service), &pods, &slices);
            prop_assert!(second.actions.is_empty(), "{:?}", second.actions);
            let all: Vec<&str> = slices.iter().flat_map(|s| s.array_at("/endpoints")).filter_map(|e| e["targetRef"]["uid"].as_str()).collect();
            let distinct: BTreeSet<&str> = all.iter().copied().collect();
            prop_assert_eq!((all.len(), distinct.len()), (count, count));
            prop_assert!(slices.iter().all(|s| s.array_at("/endpoints").len() <= SLICE_MAX_ENDPOINTS));
        }
    }
}
