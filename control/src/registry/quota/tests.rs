use super::*;
use gantry_kube::resource::{CONFIG_MAP, DEPLOYMENT, JOB};
use proptest::prelude::*;

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

fn quota(hard: Value, more: Value) -> Object {
    let mut value = json!({"metadata": {"name": "q", "namespace": "n"}, "spec": {"hard": hard}, "status": {}});
    json_patch::merge(&mut value, &json!({"spec": more}));
    let mut made = object(value);
    let status = recount(&made, [].into_iter(), now());
    made.0.insert("status".into(), status);
    made
}

fn pod_with(requests: Value, limits: Value, more: Value) -> Object {
    let mut value = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [
        {"name": "c", "resources": {"requests": requests, "limits": limits}}]}, "status": {"phase": "Running"}});
    json_patch::merge(&mut value, &more);
    object(value)
}

fn now() -> Timestamp {
    Timestamp::from_second(1000).unwrap()
}

fn words(kind: &Resource, object: &Object) -> String {
    let all = usage(kind, object, now());
    all.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn what_objects_use() {
    let pod = pod_with(
        json!({"cpu": "500m", "memory": "1Gi", "example.com/gpu": "1"}),
        json!({"cpu": "1", "example.com/gpu": "1"}),
        json!({"spec": {"overhead": {"cpu": "100m"}, "initContainers": [{"name": "i", "resources": {"requests": {"memory": "2Gi"}}}]}}),
    );
    assert_eq!(
        words(&POD, &pod),
        "count/pods=1 cpu=600m limits.cpu=1100m memory=2Gi pods=1 requests.cpu=600m requests.example.com/gpu=1 requests.memory=2Gi"
    );
    let ended = pod_with(json!({}), json!({}), json!({"status": {"phase": "Failed"}}));
    assert_eq!(words(&POD, &ended), "count/pods=1");
    let stuck = json!({"metadata": {"deletionTimestamp": "1970-01-01T00:10:00Z", "deletionGracePeriodSeconds": 30}});
    assert_eq!(words(&POD, &pod_with(json!({}), json!({}), stuck)), "count/pods=1");
    let claim = json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "2Gi"}}}});
    assert_eq!(
        words(&PERSISTENT_VOLUME_CLAIM, &object(claim)),
        "count/persistentvolumeclaims=1 fast.storageclass.storage.k8s.io/persistentvolumeclaims=1 \
         fast.storageclass.storage.k8s.io/requests.storage=2Gi persistentvolumeclaims=1 requests.storage=2Gi"
    );
    let service = |more: Value| {
        let mut value =
            json!({"spec": {"type": "LoadBalancer", "ports": [{"port": 1}, {"port": 2, "nodePort": 30000}]}});
        json_patch::merge(&mut value, &json!({"spec": more}));
        words(&SERVICE, &object(value))
    };
    assert_eq!(service(json!({"type": "ClusterIP"})), "count/services=1 services=1");
    assert_eq!(service(json!({"type": "NodePort"})), "count/services=1 services=1 services.nodeports=2");
    let balanced = "count/services=1 services=1 services.loadbalancers=1 services.nodeports";
    assert_eq!(service(json!({})), format!("{balanced}=2"));
    assert_eq!(service(json!({"allocateLoadBalancerNodePorts": false})), format!("{balanced}=1"));
    assert_eq!(words(&CONFIG_MAP, &object(json!({}))), "configmaps=1 count/configmaps=1");
    assert_eq!(words(&DEPLOYMENT, &object(json!({}))), "count/deployments.apps=1");
}

#[test]
fn what_is_too_much_is_told() {
    let mut quota = quota(json!({"pods": "2", "requests.cpu": "1", "count/jobs.batch": "0"}), json!({}));
    let small = pod_with(json!({"cpu": "400m"}), json!({}), json!({}));
    for _ in 0..2 {
        quota = charge(&quota, &POD, &small, None, now()).unwrap().unwrap();
    }
    assert_eq!(quota.get("/status/used"), Some(&json!({"pods": "2", "requests.cpu": "800m", "count/jobs.batch": "0"})));
    assert_eq!(
        charge(&quota, &POD, &small, None, now()).unwrap_err(),
        "exceeded quota: q, requested: pods=1,requests.cpu=400m, used: pods=2,requests.cpu=800m, limited: pods=2,requests.cpu=1"
    );
    assert_eq!(
        charge(&quota, &JOB, &object(json!({})), None, now()).unwrap_err(),
        "exceeded quota: q, requested: count/jobs.batch=1, used: count/jobs.batch=0, limited: count/jobs.batch=0"
    );
    let silent = pod_with(json!({}), json!({}), json!({"spec": {"initContainers": [{"name": "a"}]}}));
    assert_eq!(
        charge(&quota, &POD, &silent, None, now()).unwrap_err(),
        "failed quota: q: must specify requests.cpu for: a,c"
    );
    assert_eq!(charge(&quota, &CONFIG_MAP, &object(json!({})), None, now()), Ok(None));
}

#[test]
fn a_change_costs_what_it_adds() {
    let quota = quota(json!({"services": "0", "services.nodeports": "1"}), json!({}));
    let service = |ports: Value| object(json!({"spec": {"type": "NodePort", "ports": ports}}));
    let (none, one, two) =
        (service(json!([])), service(json!([{"port": 1}])), service(json!([{"port": 1}, {"port": 2}])));
    let charged = charge(&quota, &SERVICE, &one, Some(&none), now()).unwrap().unwrap();
    assert_eq!(charged.str_at("/status/used/services.nodeports"), "1");
    assert!(charge(&charged, &SERVICE, &two, Some(&one), now()).is_err());
    assert_eq!(charge(&charged, &SERVICE, &one, Some(&two), now()), Ok(None));
}

#[test]
fn scopes_choose_pods() {
    let careless = pod_with(json!({}), json!({}), json!({}));
    let careful = pod_with(
        json!({"cpu": "1"}),
        json!({}),
        json!({"spec": {"activeDeadlineSeconds": 5, "priorityClassName": "high"}}),
    );
    let term = json!({"topologyKey": "k", "namespaces": ["x"]});
    let affine =
        json!({"spec": {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}});
    let affine = pod_with(json!({}), json!({}), affine);
    let class = |operator: &str, values: Value| {
        let term = json!({"scopeName": "PriorityClass", "operator": operator, "values": values});
        json!({"scopeSelector": {"matchExpressions": [term]}})
    };
    for (more, wanted) in [
        (json!({}), [true, true, true]),
        (json!({"scopes": ["BestEffort"]}), [true, false, true]),
        (json!({"scopes": ["NotBestEffort"]}), [false, true, false]),
        (json!({"scopes": ["Terminating", "NotBestEffort"]}), [false, true, false]),
        (json!({"scopes": ["NotTerminating"]}), [true, false, true]),
        (json!({"scopes": ["CrossNamespacePodAffinity"]}), [false, false, true]),
        (class("In", json!(["high"])), [false, true, false]),
        (class("NotIn", json!(["high"])), [true, false, true]),
        (class("Exists", Value::Null), [false, true, false]),
        (class("DoesNotExist", Value::Null), [true, false, true]),
    ] {
        let quota = quota(json!({"pods": "1"}), more.clone());
        assert_eq!([&careless, &careful, &affine].map(|pod| is_about(&quota, &POD, pod)), wanted, "{more}");
        let scoped = more.as_object().is_some_and(|more| !more.is_empty());
        assert_eq!(is_about(&quota, &CONFIG_MAP, &object(json!({}))), !scoped);
    }
}

#[test]
fn only_what_is_bounded_is_counted() {
    let kinds = |hard: Value| kinds(&quota(hard, json!({}))).iter().map(|kind| kind.plural).collect::<Vec<_>>();
    assert_eq!(kinds(json!({"requests.cpu": "1"})), ["pods"]);
    assert_eq!(kinds(json!({"requests.example.com/gpu": "1"})), ["pods"]);
    assert_eq!(kinds(json!({"count/jobs.batch": "1"})), ["jobs"]);
    assert!(kinds(json!({"services.nodeports": "1"})).contains(&"services"));
    assert_eq!(kinds(json!({"count/events": "1"})), [""; 0]);
}

proptest! {
    /// Charging one after another comes to what counting comes to, never goes over, and counting again changes nothing.
    #[test]
    fn charges_add_up_to_the_count(
        pods in 0_i64..6, cpu in 0_i64..3000,
        asked in prop::collection::vec((0_i64..1500, any::<bool>()), 0..12),
    ) {
        let mut quota = quota(json!({"pods": pods.to_string(), "cpu": format!("{cpu}m")}), json!({}));
        let mut there = Vec::new();
        for (milli, ends) in asked {
            let phase = if ends { "Succeeded" } else { "Running" };
            let more = json!({"status": {"phase": phase}});
            let pod = pod_with(json!({"cpu": format!("{milli}m")}), json!({}), more);
            if let Ok(after) = charge(&quota, &POD, &pod, None, now()) {
                quota = after.unwrap_or(quota);
                there.push(pod);
            }
        }
        let counted = recount(&quota, there.iter().map(|pod| (&POD, pod)), now());
        prop_assert_eq!(Some(&counted), quota.get("/status"));
        let (hard, used) = (hard(&quota), used(&quota));
        prop_assert!(used.iter().all(|(name, amount)| amount <= &hard[name]));
        prop_assert!(is_counted_out(&quota));
    }
}
