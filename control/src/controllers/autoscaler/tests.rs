use super::metrics::{Scene, Tolerance, evaluate};
use super::plan::{Observed, plan};
use super::*;
use crate::controllers::house::House;

use gantry_kube::defaults;
use gantry_kube::selector::LabelSelector;
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::Value;

const BEGIN: i64 = 1_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

fn autoscaler(spec: Value) -> Object {
    let mut value = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h", "namespace": "n", "uid": "u", "generation": 1},
        "spec": {"minReplicas": 1, "maxReplicas": 10, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}});
    json_patch::merge(&mut value, &json!({ "spec": spec }));
    let mut object = object(value);
    defaults::apply(&resource::HORIZONTAL_POD_AUTOSCALER, &mut object);
    object
}

fn cpu(target: Value) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu", "target": target}})
}

fn share(percent: i64) -> Value {
    cpu(json!({"type": "Utilization", "averageUtilization": percent}))
}

/// A pod that asks for 100m and has been ready for long.
fn pod(n: i64) -> Object {
    object(json!({"metadata": {"name": format!("p{n}"), "namespace": "n"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "100m"}}}]},
        "status": {"phase": "Running", "startTime": at(0).to_string(),
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": at(5).to_string()}]}}))
}

fn with(mut pod: Object, status: Value) -> Object {
    let mut value = pod.0.remove("status").unwrap();
    json_patch::merge(&mut value, &status);
    pod.0.insert("status".into(), value);
    pod
}

fn used(pod: &Object, milli: i64, second: i64) -> Object {
    object(json!({"metadata": {"name": pod.name()}, "timestamp": at(second).to_string(), "window": "15s",
        "containers": [{"name": "c", "usage": {"cpu": format!("{milli}m"), "memory": "64Mi"}}]}))
}

fn scale(replicas: i64) -> Object {
    object(json!({"spec": {"replicas": replicas}, "status": {"replicas": replicas, "selector": "app=web"}}))
}

fn condition<'a>(status: &'a Value, kind: &str) -> (&'a str, &'a str) {
    let found = status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == kind);
    found.map_or(("", ""), |c| (c["status"].as_str().unwrap(), c["reason"].as_str().unwrap()))
}

/// What one metric makes of these pods, each with what it uses.
fn asked(spec: &Value, current: i64, pods: &[(Object, Option<i64>)]) -> Result<i64, String> {
    let metrics: Vec<Object> = pods.iter().filter_map(|(pod, milli)| Some(used(pod, (*milli)?, BEGIN))).collect();
    let pods: Vec<Object> = pods.iter().map(|(pod, _)| pod.clone()).collect();
    let scene = Scene {
        namespace: "n",
        current,
        pods: &pods,
        metrics: Ok(&metrics),
        tolerance: Tolerance { up: 0.1, down: 0.1 },
        now: at(BEGIN),
    };
    evaluate(spec, &scene).map(|proposal| proposal.replicas).map_err(|refusal| refusal.why)
}

fn all(milli: &[i64]) -> Vec<(Object, Option<i64>)> {
    milli.iter().enumerate().map(|(n, milli)| (pod(n as i64), Some(*milli))).collect()
}

#[test]
fn as_many_as_what_is_used_asks_for() {
    assert_eq!(asked(&share(50), 2, &all(&[100, 100])), Ok(4));
    assert_eq!(asked(&share(50), 4, &all(&[10, 10, 10, 10])), Ok(1));
    // 54 % of 50 % is as good as 50 %.
    assert_eq!(asked(&share(50), 3, &all(&[54, 54, 54])), Ok(3));
    let average = cpu(json!({"type": "AverageValue", "averageValue": "20m"}));
    assert_eq!(asked(&average, 2, &all(&[50, 50])), Ok(5));
    let memory = json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "32Mi"}}});
    assert_eq!(asked(&memory, 2, &all(&[1, 1])), Ok(4));
    let container = |name: &str| {
        json!({"type": "ContainerResource", "containerResource":
        {"name": "cpu", "container": name, "target": {"type": "Utilization", "averageUtilization": 50}}})
    };
    assert_eq!(asked(&container("c"), 1, &all(&[100])), Ok(2));
}

#[test]
fn what_is_not_known_holds_back() {
    let unknown = |n| (pod(n), None);
    // One that tells nothing idles where more are wanted: (100 + 0) of 200 is 50 %.
    assert_eq!(asked(&share(50), 2, &[(pod(0), Some(100)), unknown(1)]), Ok(2));
    // And uses all that it asks for where fewer are wanted.
    assert_eq!(asked(&share(50), 2, &[(pod(0), Some(1)), unknown(1)]), Ok(2));
    let average = cpu(json!({"type": "AverageValue", "averageValue": "20m"}));
    assert_eq!(asked(&average, 2, &[(pod(0), Some(10)), unknown(1)]), Ok(2));
    // One that is about to go counts for nothing.
    let mut leaving = pod(1);
    leaving.metadata_mut().insert("deletionTimestamp".into(), json!("x"));
    assert_eq!(asked(&share(50), 2, &[(pod(0), Some(100)), (leaving, Some(900))]), Ok(2));
    let failed = with(pod(1), json!({"phase": "Failed"}));
    assert_eq!(asked(&share(50), 2, &[(pod(0), Some(100)), (failed, None)]), Ok(2));
}

#[test]
fn pods_that_begin_are_not_believed() {
    let young = |status: &str, ready: i64| {
        let ready = json!([{"type": "Ready", "status": status, "lastTransitionTime": at(ready).to_string()}]);
        with(pod(1), json!({"startTime": at(BEGIN - 60).to_string(), "conditions": ready}))
    };
    let two = |second: Object| asked(&share(50), 2, &[(pod(0), Some(100)), (second, Some(900))]);
    // What it used while it began would ask for twenty.
    assert_eq!(two(young("True", BEGIN - 10)), Ok(2));
    assert_eq!(two(young("False", BEGIN - 50)), Ok(2));
    assert_eq!(two(young("True", BEGIN - 20)), Ok(20));
    assert_eq!(two(with(pod(1), json!({"phase": "Pending"}))), Ok(2));
    let old = |status: &str, ready: i64| {
        with(
            pod(1),
            json!({"conditions": [{"type": "Ready", "status": status, "lastTransitionTime": at(ready).to_string()}]}),
        )
    };
    // It never was ready, or is so no longer.
    assert_eq!(two(old("False", 20)), Ok(2));
    assert_eq!(two(old("False", 40)), Ok(20));
    let nobody = asked(&share(50), 1, &[(young("False", BEGIN - 50), Some(900))]).unwrap_err();
    assert_eq!(
        nobody,
        "failed to get cpu utilization: did not receive metrics for targeted pods (pods might be unready)"
    );
}

#[test]
fn what_cannot_be_had_is_named() {
    let no_request = {
        let mut pod = pod(0);
        pod.map_mut("spec").insert("containers".into(), json!([{"name": "c"}]));
        pod
    };
    let why = |spec: &Value, pods: &[(Object, Option<i64>)]| asked(spec, 1, pods).unwrap_err();
    assert_eq!(
        why(&share(50), &[(no_request, Some(1))]),
        "failed to get cpu utilization: missing request for cpu in container c of Pod p0"
    );
    assert_eq!(
        why(&share(50), &[(pod(0), None)]),
        "failed to get cpu utilization: unable to get metrics for resource cpu: no metrics returned from resource metrics API"
    );
    let metric = json!({"name": "m"});
    let elsewhere = json!({"type": "Pods", "pods": {"metric": metric, "target": {"averageValue": "1"}}});
    assert_eq!(
        why(&elsewhere, &all(&[1])),
        "unable to get metric m: no custom metrics API (custom.metrics.k8s.io) registered"
    );
    let elsewhere = json!({"type": "External", "external": {"metric": metric, "target": {"value": "1"}}});
    assert_eq!(
        why(&elsewhere, &all(&[1])),
        "unable to get external metric n/m: no external metrics API (external.metrics.k8s.io) registered"
    );
}

/// A target whose autoscaler has its way.
struct World {
    autoscaler: Object,
    replicas: i64,
    memory: Memory,
    second: i64,
}

impl World {
    fn new(spec: Value, replicas: i64) -> World {
        World { autoscaler: autoscaler(spec), replicas, memory: Memory::default(), second: BEGIN }
    }

    fn observed(&self, milli: i64) -> Observed {
        let pods: Vec<Object> = (0..self.replicas).map(pod).collect();
        let metrics = Ok(pods.iter().map(|pod| used(pod, milli, self.second)).collect());
        Observed { scale: Ok(scale(self.replicas)), pods, metrics, others: Vec::new(), now: at(self.second) }
    }

    /// A turn, in which what is planned happens; true where nothing was to be done.
    fn turn(&mut self, observed: &Observed) -> bool {
        let plan = plan(&self.autoscaler, observed, &self.memory);
        let quiet = plan.rescale.is_none();
        if let Some(rescale) = &plan.rescale {
            assert_eq!(rescale.from, self.replicas);
            self.replicas = rescale.to;
        }
        self.memory = plan.memory_after(true);
        let status = plan.status(Ok(()));
        let same = self.autoscaler.get("/status") == Some(&status);
        self.autoscaler.0.insert("status".into(), status);
        self.second += 15;
        quiet && same
    }

    fn status(&self) -> &Value {
        self.autoscaler.get("/status").unwrap()
    }
}

#[test]
fn it_tells_what_it_does() {
    let mut world = World::new(json!({"metrics": [share(50)]}), 2);
    world.turn(&world.observed(100));
    assert_eq!(world.replicas, 4);
    let status = world.status();
    assert_eq!(condition(status, "AbleToScale"), ("True", "SucceededRescale"));
    assert_eq!(condition(status, "ScalingActive"), ("True", "ValidMetricFound"));
    assert_eq!(condition(status, "ScalingLimited"), ("False", "DesiredWithinRange"));
    assert_eq!((&status["currentReplicas"], &status["desiredReplicas"]), (&json!(2), &json!(4)));
    assert_eq!(status["lastScaleTime"], at(BEGIN).to_string());
    assert_eq!(
        status["currentMetrics"][0]["resource"]["current"],
        json!({"averageUtilization": 100, "averageValue": "100m"})
    );
    // Far too much: four more at most in a quarter of a minute, ten in all.
    world.turn(&world.observed(1000));
    assert_eq!((world.replicas, condition(world.status(), "ScalingLimited")), (8, ("True", "ScaleUpLimit")));
    world.turn(&world.observed(1000));
    assert_eq!((world.replicas, condition(world.status(), "ScalingLimited")), (10, ("True", "TooManyReplicas")));
    // Less is not believed for five minutes.
    world.turn(&world.observed(1));
    assert_eq!((world.replicas, condition(world.status(), "AbleToScale")), (10, ("True", "ScaleDownStabilized")));
    while world.replicas == 10 {
        world.turn(&world.observed(1));
    }
    assert_eq!(world.second - BEGIN, 45 + 300);
    assert_eq!((world.replicas, condition(world.status(), "ScalingLimited")), (1, ("False", "DesiredWithinRange")));
}

#[test]
fn it_tells_what_it_cannot_do() {
    let mut world = World::new(json!({"metrics": [share(50)]}), 2);
    let no_scale = Observed { scale: Err("gone".into()), ..world.observed(1) };
    world.turn(&no_scale);
    assert_eq!(condition(world.status(), "AbleToScale"), ("False", "FailedGetScale"));
    world.turn(&Observed { metrics: Err("no".into()), ..world.observed(1) });
    assert_eq!(condition(world.status(), "ScalingActive"), ("False", "FailedGetResourceMetric"));
    assert_eq!(world.status()["currentMetrics"], json!([{"type": ""}]));
    let off = Observed { scale: Ok(scale(0)), ..world.observed(1) };
    world.turn(&off);
    assert_eq!(condition(world.status(), "ScalingActive"), ("False", "ScalingDisabled"));
    let plan = plan(&world.autoscaler, &world.observed(1000), &world.memory);
    let memory = plan.memory_after(false);
    assert_ne!(memory, plan.memory_after(true));
    assert_eq!(condition(&plan.status(Err("refused")), "AbleToScale"), ("False", "FailedUpdateScale"));
    // Where one metric cannot be had, pods may come and none may go.
    let unknown = json!({"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"averageValue": "1"}}});
    let mut half = World::new(json!({"metrics": [unknown, share(50)]}), 2);
    assert!(!half.turn(&half.observed(1)) && half.replicas == 2);
    assert_eq!(condition(half.status(), "ScalingActive"), ("False", "FailedGetPodsMetric"));
    half.turn(&half.observed(100));
    assert_eq!((half.replicas, condition(half.status(), "ScalingActive")), (4, ("True", "ValidMetricFound")));
}

/// Two autoscalers that count the same pods would undo what the other does: neither does anything.
#[test]
fn pods_that_two_would_scale_by_are_scaled_by_neither() {
    let mut world = World::new(json!({"metrics": [share(50)]}), 2);
    let with_labels = |world: &World, others: &[(&str, &str)]| {
        let mut observed = world.observed(100);
        for pod in &mut observed.pods {
            pod.metadata_mut().insert("labels".into(), json!({"app": "web", "tier": "front"}));
        }
        let parse = |text: &str| LabelSelector::parse(text).unwrap();
        observed.others = others.iter().map(|(name, selector)| ((*name).to_owned(), parse(selector))).collect();
        observed
    };
    let ambiguous = with_labels(&world, &[("z", "tier=front"), ("other", "app=db"), ("a", "app in (web)")]);
    world.turn(&ambiguous);
    assert_eq!((world.replicas, condition(world.status(), "ScalingActive")), (2, ("False", "AmbiguousSelector")));
    let message = "pods by selector app=web are controlled by multiple HPAs: [n/a n/h n/z]";
    assert!(world.status()["conditions"].as_array().unwrap().iter().any(|c| c["message"] == message));
    assert_eq!(world.status().get("currentMetrics"), None);
    let told = plan(&world.autoscaler, &ambiguous, &world.memory).events;
    assert_eq!(told, ["AmbiguousSelector", "FailedComputeMetricsReplicas"].map(|r| ("Warning", r, message.to_owned())));
    assert!(world.turn(&ambiguous), "it is told once");
    // Once there are no pods that the others select, it goes on.
    world.turn(&with_labels(&world, &[("other", "app=db")]));
    assert_eq!((world.replicas, condition(world.status(), "ScalingActive")), (4, ("True", "ValidMetricFound")));
    let mut none = with_labels(&world, &[("z", "tier=front")]);
    none.pods.clear();
    world.turn(&none);
    assert_ne!(condition(world.status(), "ScalingActive").1, "AmbiguousSelector");
}

/// The same over the API: of two on one target, both are told, and one alone goes on.
#[tokio::test(start_paused = true)]
async fn of_two_on_one_target_both_are_told() {
    let house = House::new().await;
    let labels = json!({"app": "web"});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let web = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {
        "replicas": 1, "selector": {"matchLabels": labels}, "template": template}});
    house.make(&resource::DEPLOYMENT, web).await;
    house.make(&resource::SERVICE_ACCOUNT, json!({"metadata": {"name": "default", "namespace": "default"}})).await;
    let pod = json!({"metadata": {"name": "p", "namespace": "default", "labels": labels}, "spec": template["spec"]});
    house.make(&resource::POD, pod).await;
    let make = async |name: &str| {
        let mut asks = autoscaler(json!({"metrics": [share(50)]}));
        *asks.metadata_mut() = json!({"name": name, "namespace": "default"}).as_object().cloned().unwrap();
        house.make(&resource::HORIZONTAL_POD_AUTOSCALER, Value::Object(asks.0)).await.reference()
    };
    let (one, two) = (make("one").await, make("two").await);
    tokio::spawn(run(house.context()));
    let why = async |at: &Ref| {
        let found = house.admin().get(&resource::HORIZONTAL_POD_AUTOSCALER, at).await.unwrap();
        condition(found.get("/status").unwrap(), "ScalingActive").1.to_owned()
    };
    tokio::time::sleep(2 * INTERVAL).await;
    assert_eq!([why(&one).await, why(&two).await], ["AmbiguousSelector", "AmbiguousSelector"]);
    let options = gantry_client::DeleteOptions::default();
    house.admin().delete(&resource::HORIZONTAL_POD_AUTOSCALER, &two, &options).await.unwrap();
    tokio::time::sleep(2 * INTERVAL).await;
    assert_eq!(why(&one).await, "FailedGetResourceMetric", "no node tells what its pod uses");
}

#[test]
fn behaviour_is_kept() {
    let behavior = |scale: Value| json!({"metrics": [share(50)], "behavior": scale});
    let policy = |kind: &str, value: i64, period: i64| json!({"type": kind, "value": value, "periodSeconds": period});
    let slow = json!({"scaleUp": {"policies": [policy("Pods", 1, 60)], "stabilizationWindowSeconds": 30}});
    let mut world = World::new(behavior(slow), 2);
    // What was wanted half a minute ago holds it back; then it is one a minute.
    let mut seen = Vec::new();
    for _ in 0..10 {
        world.turn(&world.observed(1000));
        seen.push(world.replicas);
    }
    assert_eq!(seen, [2, 2, 3, 3, 3, 3, 4, 4, 4, 4]);
    let select = |select: &str| {
        let rules = json!({"selectPolicy": select, "stabilizationWindowSeconds": 0,
            "policies": [policy("Pods", 1, 60), policy("Percent", 50, 60)]});
        let mut world = World::new(behavior(json!({"scaleDown": rules, "scaleUp": rules})), 8);
        world.turn(&world.observed(1));
        let down = world.replicas;
        let mut world = World::new(behavior(json!({"scaleDown": rules, "scaleUp": rules})), 4);
        world.turn(&world.observed(1000));
        (down, world.replicas)
    };
    assert_eq!([select("Max"), select("Min"), select("Disabled")], [(4, 6), (7, 5), (8, 4)]);
    let exact = json!({"scaleUp": {"tolerance": "0"}});
    let mut world = World::new(behavior(exact), 9);
    world.turn(&world.observed(51));
    assert_eq!(world.replicas, 10);
}

prop_compose! {
    fn rules()(window in 0..400_i64, select in 0..3_usize, percent in 1..300_i64, pods in 1..20_i64, period in 1..120_i64) -> Value {
        json!({"stabilizationWindowSeconds": window, "selectPolicy": (["Max", "Min", "Disabled"][select]), "policies": [
            {"type": "Percent", "value": percent, "periodSeconds": period}, {"type": "Pods", "value": pods, "periodSeconds": period}]})
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_bounds_are_never_exceeded(
        min in 1..8_i64, more in 0..20_i64, replicas in 1..30_i64, up in rules(), down in rules(),
        loads in proptest::collection::vec((0..2000_i64, 0..10_i64), 1..30),
    ) {
        let max = min + more;
        let spec = json!({"minReplicas": min, "maxReplicas": max, "metrics": [share(50)], "behavior": {"scaleUp": up, "scaleDown": down}});
        let mut world = World::new(spec, replicas);
        for (milli, silent) in loads {
            let mut observed = world.observed(milli);
            observed.metrics.as_mut().unwrap().truncate((world.replicas - silent).max(0) as usize);
            world.turn(&observed);
            prop_assert!((min..=max).contains(&world.replicas), "{} is not {min} to {max}", world.replicas);
        }
    }

    /// Where what pods use does not change, there is an end to it, and then nothing is written.
    #[test]
    fn fixpoint(milli in 0..500_i64, replicas in 1..30_i64, up in rules(), down in rules()) {
        let spec = json!({"maxReplicas": 20, "metrics": [share(50)], "behavior": {"scaleUp": up, "scaleDown": down}});
        let mut world = World::new(spec, replicas);
        let mut quiet = 0;
        for _ in 0..400 {
            quiet = if world.turn(&world.observed(milli)) { quiet + 1 } else { 0 };
        }
        prop_assert!(quiet > 30, "it never settles");
    }

    /// A load that is shared by more and more pods settles, too, near what was wanted.
    #[test]
    fn a_shared_load_settles(load in 1..1500_i64, replicas in 1..30_i64, percent in 20..90_i64) {
        let mut world = World::new(json!({"maxReplicas": 1000, "metrics": [share(percent)]}), replicas);
        let mut quiet = 0;
        for _ in 0..100 {
            let milli = load / world.replicas;
            quiet = if world.turn(&world.observed(milli)) { quiet + 1 } else { 0 };
        }
        prop_assert!(quiet > 10, "it never settles");
        let each = (load / world.replicas) as f64;
        prop_assert!(each <= percent as f64 * 1.1 + 1.0, "{each} of {percent}");
        prop_assert!(world.replicas == 1 || load as f64 / (world.replicas - 1) as f64 >= percent as f64 * 0.85, "too many");
    }
}
