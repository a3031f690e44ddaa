use super::*;

fn node(ready: &str, taints: Value) -> Object {
    Object::from_value(json!({"metadata": {"name": "n"}, "spec": {"taints": taints},
        "status": {"conditions": [{"type": "Ready", "status": ready}]}}))
    .unwrap()
}

fn look(node: &Object, pods: &[Arc<Pod>], silence: Duration, may_evict: bool, patience: &Patience) -> Vec<Action> {
    plan(&View { node, pods, silence, may_evict, patience }, Instant::now(), Timestamp::UNIX_EPOCH)
}

fn patient(uid: &str, key: &str, seconds: i64) -> Pod {
    let toleration = json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
    Pod { uid: uid.into(), node: "n".into(), ready: true, tolerations: vec![toleration], ..Pod::default() }
}

#[tokio::test(start_paused = true)]
async fn a_ready_node_is_left_alone() {
    let ready = node("True", json!([]));
    assert_eq!(look(&ready, &[], Duration::ZERO, false, &Patience::new()), []);
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_is_unknown_and_tainted_and_its_pods_serve_nobody() {
    let pod = patient("u", UNREACHABLE, 300);
    let (mut patience, pods) = (Patience::new(), [Arc::new(pod.clone())]);
    let actions = look(&node("True", json!([])), &pods, GRACE, true, &patience);
    assert!(matches!(&actions[..], [Action::Unknown(_), Action::Taints(_), Action::NotReady { .. }]), "{actions:?}");
    let Action::Taints(taints) = &actions[1] else { panic!() };
    let tainted = Arc::new(node("Unknown", json!(taints)));
    let pods = [Arc::new(Pod { ready: false, ..pod })];
    let by_node = BTreeMap::from([("n".to_owned(), pods.to_vec())]);
    for (seconds, evicted) in [(0, false), (299, false), (1, true)] {
        tokio::time::advance(Duration::from_secs(seconds)).await;
        keep_patience(&mut patience, std::slice::from_ref(&tainted), &by_node, Instant::now());
        let actions = look(&tainted, &pods, GRACE, true, &patience);
        assert_eq!(matches!(&actions[..], [Action::Evict { .. }]), evicted, "{seconds}: {actions:?}");
    }
}

/// `kubectl taint` writes no timeAdded.
#[tokio::test(start_paused = true)]
async fn patience_with_a_taint_by_hand_ends_too() {
    let tainted = Arc::new(node("True", json!([{"key": "k", "effect": "NoExecute"}])));
    let pods = vec![Arc::new(patient("u", "k", 5))];
    let by_node = BTreeMap::from([("n".to_owned(), pods.clone())]);
    let mut patience = Patience::new();
    keep_patience(&mut patience, std::slice::from_ref(&tainted), &by_node, Instant::now());
    assert_eq!(look(&tainted, &pods, Duration::ZERO, false, &patience), []);
    tokio::time::advance(Duration::from_secs(5)).await;
    let actions = look(&tainted, &pods, Duration::ZERO, false, &patience);
    assert!(matches!(&actions[..], [Action::Evict { .. }]), "{actions:?}");
}

#[tokio::test(start_paused = true)]
async fn without_a_permit_a_node_keeps_its_pods() {
    let pods = [Arc::new(Pod { uid: "u".into(), ..Pod::default() })];
    let effects = |actions: &[Action]| -> Vec<String> {
        let taints = actions.iter().filter_map(|a| if let Action::Taints(taints) = a { Some(taints) } else { None });
        taints.flatten().map(|t| t["effect"].as_str().unwrap_or("").to_owned()).collect()
    };
    let actions = look(&node("Unknown", json!([])), &pods, GRACE, false, &Patience::new());
    assert_eq!(effects(&actions), ["NoSchedule"]);
    assert!(!actions.iter().any(|a| matches!(a, Action::Evict { .. })), "{actions:?}");
}

/// Whoever is not ready but speaks writes its pods' conditions itself.
#[tokio::test(start_paused = true)]
async fn an_agent_that_speaks_is_not_contradicted() {
    let pods = [Arc::new(patient("u", NOT_READY, 300))];
    let actions = look(&node("False", json!([])), &pods, Duration::ZERO, false, &Patience::new());
    assert!(matches!(&actions[..], [Action::Taints(_)]), "{actions:?}");
}

#[tokio::test(start_paused = true)]
async fn taints_of_others_stay() {
    let own = json!([{"key": "mine", "effect": "NoSchedule"}, {"key": NOT_READY, "effect": "NoSchedule"}]);
    let actions = look(&node("True", own), &[], Duration::ZERO, false, &Patience::new());
    assert_eq!(actions, [Action::Taints(vec![json!({"key": "mine", "effect": "NoSchedule"})])]);
}
