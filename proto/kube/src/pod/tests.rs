use serde_json::{Value, json};

use super::phase::{Phase, conditions, merge_conditions, phase};
use super::qos::{self, QosClass};
use super::resources::{limits, requests, total};
use crate::Object;

fn pod(spec: Value) -> Object {
    Object::from_value(json!({"metadata": {"name": "p", "namespace": "d"}, "spec": spec})).unwrap()
}

fn asks(cpu: &str) -> Value {
    json!({"requests": {"cpu": cpu}})
}

#[test]
fn init_containers_take_turns_and_sidecars_stay() {
    let plain = pod(json!({
        "initContainers": [{"name": "i", "resources": asks("3")}],
        "containers": [{"name": "a", "resources": asks("1")}, {"name": "b", "resources": asks("500m")}],
    }));
    assert_eq!(requests(&plain).cpu_milli, 3000);
    let sidecar = pod(json!({
        "initContainers": [
            {"name": "s", "restartPolicy": "Always", "resources": asks("1")},
            {"name": "i", "resources": asks("2")},
        ],
        "containers": [{"name": "a", "resources": asks("1")}],
        "overhead": {"cpu": "10m"},
    }));
    assert_eq!(requests(&sidecar).cpu_milli, 3010);
}

#[test]
fn what_is_said_of_the_whole_pod_stands_in_the_place_of_the_sum() {
    let whole = pod(json!({
        "resources": {"requests": {"cpu": "3", "hugepages-2Mi": "4Mi"}, "limits": {"memory": "1Gi"}},
        "containers": [{"name": "a", "resources": {"requests": {"cpu": "1", "memory": "1Mi"}, "limits": {"cpu": "2"}}}],
        "overhead": {"cpu": "10m", "memory": "1Mi", "ephemeral-storage": "5"},
    }));
    let (asked, most) = (requests(&whole), limits(&whole));
    assert_eq!((asked.cpu_milli, asked.memory_bytes, asked.ephemeral_storage_bytes), (3010, 2 << 20, 5));
    assert_eq!(asked.other["hugepages-2Mi"], 4 << 20);
    assert_eq!((most.cpu_milli, most.memory_bytes), (2010, (1 << 30) + (1 << 20)));
    assert_eq!(most.ephemeral_storage_bytes, 0, "what has no limit has none with its overhead, either");
    let written: Vec<String> =
        total(&whole, "requests").iter().map(|(name, amount)| format!("{name}={amount}")).collect();
    assert_eq!(written, ["cpu=3", "hugepages-2Mi=4Mi", "memory=1Mi"]);
}

#[test]
fn the_class_follows_requests_and_limits() {
    let one = |resources: Value| qos::class(&pod(json!({"containers": [{"name": "a", "resources": resources}]})));
    assert_eq!(one(json!({})), QosClass::BestEffort);
    assert_eq!(one(json!({"requests": {"cpu": "0"}})), QosClass::BestEffort);
    assert_eq!(one(json!({"requests": {"cpu": "1"}})), QosClass::Burstable);
    let both = json!({"cpu": "1", "memory": "1Gi"});
    assert_eq!(one(json!({"limits": both, "requests": both})), QosClass::Guaranteed);
    assert_eq!(one(json!({"limits": {"cpu": "1"}})), QosClass::Burstable);
}

#[test]
fn the_kernels_numbers() {
    let burst = pod(json!({"containers": [{"name": "a", "resources": {"requests": {"memory": "4Gi"}}}]}));
    assert_eq!(qos::oom_score_adj(&burst, &burst.array_at("/spec/containers")[0], 8 << 30), 500);
    let best = pod(json!({"containers": [{"name": "a"}]}));
    assert_eq!(qos::oom_score_adj(&best, &best.array_at("/spec/containers")[0], 8 << 30), 1000);
    assert_eq!((qos::cpu_shares(0), qos::cpu_shares(1000)), (2, 1024));
    assert_eq!((qos::cpu_quota_micros(0), qos::cpu_quota_micros(1), qos::cpu_quota_micros(500)), (0, 1000, 50_000));
}

fn running(name: &str) -> Value {
    json!({"name": name, "state": {"running": {}}, "ready": true, "started": true})
}

fn ended(name: &str, code: i64) -> Value {
    json!({"name": name, "state": {"terminated": {"exitCode": code}}})
}

#[test]
fn phases() {
    let of = |policy: &str, statuses: &[Value]| {
        let two = json!({"restartPolicy": policy, "containers": [{"name": "a"}, {"name": "b"}]});
        phase(&pod(two), statuses, &[])
    };
    let waits = json!({"name": "b", "state": {"waiting": {"reason": "ContainerCreating"}}});
    let loops = json!({"name": "b", "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                       "lastState": {"terminated": {"exitCode": 1}}});
    assert_eq!(of("Always", &[]), Phase::Pending);
    assert_eq!(of("Always", &[running("a"), waits.clone()]), Phase::Pending);
    assert_eq!(of("Always", &[running("a"), running("b")]), Phase::Running);
    assert_eq!(of("Always", &[running("a"), loops.clone()]), Phase::Running);
    assert_eq!(of("Always", &[ended("a", 0), ended("b", 0)]), Phase::Running);
    assert_eq!(of("OnFailure", &[ended("a", 0), ended("b", 0)]), Phase::Succeeded);
    assert_eq!(of("OnFailure", &[ended("a", 0), ended("b", 1)]), Phase::Running);
    assert_eq!(of("Never", &[ended("a", 0), ended("b", 1)]), Phase::Failed);
    assert_eq!(of("Never", &[ended("a", 1), running("b")]), Phase::Running);
}

#[test]
fn an_init_container_decides_before_the_rest() {
    let with_init = |policy: &str| {
        pod(json!({"restartPolicy": policy, "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]}))
    };
    let waits = [json!({"name": "a", "state": {"waiting": {}}})];
    assert_eq!(phase(&with_init("Never"), &waits, &[ended("i", 1)]), Phase::Failed);
    assert_eq!(phase(&with_init("Always"), &waits, &[ended("i", 1)]), Phase::Pending);
    assert_eq!(phase(&with_init("Always"), &[running("a")], &[ended("i", 0)]), Phase::Running);
    let list = conditions(&with_init("Always"), Phase::Pending, &waits, &[running("i")], true);
    assert_eq!(list[1].message, "containers with incomplete status: [i]");
    assert_eq!(list[2].message, "containers with unready status: [a]");
}

#[test]
fn a_condition_keeps_its_time_and_strangers_stay() {
    let one = pod(json!({"containers": [{"name": "a"}]}));
    let old = [
        json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": "then"}),
        json!({"type": "Ready", "status": "True", "lastTransitionTime": "then"}),
        json!({"type": "ContainersReady", "status": "False", "lastTransitionTime": "then"}),
    ];
    let new = conditions(&one, Phase::Running, &[running("a")], &[], true);
    let merged = merge_conditions(&old, &new, 0, "now");
    let time = |kind: &str| merged.iter().find(|c| c["type"] == kind).map(|c| c["lastTransitionTime"].clone());
    assert_eq!(time("Ready"), Some(json!("then")));
    assert_eq!(time("ContainersReady"), Some(json!("now")));
    assert_eq!(time("PodScheduled"), Some(json!("then")));
}
