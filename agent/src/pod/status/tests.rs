use std::collections::BTreeMap;

use serde_json::json;

use super::super::plan::Waiting;
use super::super::seen::User;
use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn pod(policy: &str) -> Object {
    Object::from_value(json!({"metadata": {"name": "p", "namespace": "d", "uid": "u"},
        "spec": {"restartPolicy": policy, "containers": [{"name": "c", "image": "i"}]}}))
    .unwrap()
}

fn run(attempt: u32, state: State, exit_code: i32) -> Container {
    Container {
        id: format!("id{attempt}"),
        sandbox_id: "s".into(),
        name: "c".into(),
        attempt,
        state,
        created_at: at(1),
        started_at: Some(at(2)),
        finished_at: (state == State::Exited).then(|| at(3)),
        exit_code,
        reason: String::new(),
        message: String::new(),
        image: "i".into(),
        image_ref: "i@sha256:1".into(),
        hash: String::new(),
        log_path: String::new(),
        termination_log: String::new(),
        termination_from_log: false,
        limits: None,
        user: None,
        mounted_images: BTreeMap::new(),
    }
}

fn of(pod: &Object, containers: Vec<Container>, waiting: Option<&str>, previous: &Value) -> Value {
    let sandbox = super::super::seen::Sandbox {
        id: "s".into(),
        attempt: 0,
        ready: true,
        created_at: at(1),
        ips: vec!["10.0.0.2".into()],
    };
    let mut plan = Plan::default();
    if let Some(reason) = waiting {
        plan.waiting.insert("c".into(), Waiting { reason: reason.into(), message: String::new() });
    }
    status(&Inputs {
        pod,
        goal: Goal::Run,
        failed: None,
        resize: None,
        seen: &Seen { sandboxes: vec![sandbox], containers },
        plan: &plan,
        memory: &Memory::default(),
        ready: &BTreeSet::new(),
        host_ip: "1.1.1.1",
        previous,
        now: at(10),
    })
}

#[test]
fn running_and_ready() {
    let found = of(&pod("Always"), vec![run(0, State::Running, 0)], None, &Value::Null);
    assert_eq!(found["phase"], "Running");
    assert_eq!(found["podIP"], "10.0.0.2");
    assert_eq!(found["containerStatuses"][0]["containerID"], "gantry://id0");
    assert_eq!(found["containerStatuses"][0]["ready"], true);
    assert_eq!(found["qosClass"], "BestEffort");
    let again = of(&pod("Always"), vec![run(0, State::Running, 0)], None, &found);
    assert_eq!(again, found, "the same facts make the same status");
}

#[test]
fn a_crash_loop_shows_its_last_run() {
    let found = of(&pod("Always"), vec![run(1, State::Exited, 3)], Some("CrashLoopBackOff"), &Value::Null);
    let c = &found["containerStatuses"][0];
    assert_eq!(c["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert_eq!(c["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(c["lastState"]["terminated"]["reason"], "Error");
    assert_eq!(c["restartCount"], 1);
    assert_eq!(found["phase"], "Running");
}

#[test]
fn an_end_is_final() {
    let found = of(&pod("Never"), vec![run(0, State::Exited, 0)], None, &Value::Null);
    assert_eq!(found["phase"], "Succeeded");
    assert_eq!(found["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    let later = of(&pod("Never"), Vec::new(), None, &found);
    assert_eq!(later["phase"], "Succeeded");
    assert_eq!(later["containerStatuses"], found["containerStatuses"]);
}

#[test]
fn what_ran_before_a_reboot_is_remembered_from_the_api() {
    let before = of(&pod("Always"), vec![run(2, State::Running, 0)], None, &Value::Null);
    let after = of(&pod("Always"), Vec::new(), Some("ContainerCreating"), &before);
    let c = &after["containerStatuses"][0];
    assert_eq!(
        (&c["restartCount"], &c["lastState"]["terminated"]["reason"]),
        (&json!(2), &json!("ContainerStatusUnknown"))
    );
}

#[test]
fn a_pod_that_never_restarts_has_failed_after_a_reboot() {
    let before = of(&pod("Never"), vec![run(0, State::Running, 0)], None, &Value::Null);
    let after = of(&pod("Never"), Vec::new(), None, &before);
    let ended = &after["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(after["phase"], "Failed");
    assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(137), &json!("ContainerStatusUnknown")));
    assert_eq!(of(&pod("Never"), Vec::new(), None, &after)["containerStatuses"], after["containerStatuses"]);
}

#[test]
fn an_evicted_pod_has_failed_once_nothing_of_it_runs_and_keeps_its_reason() {
    let evicted = |state| {
        let one = pod("Always");
        let seen = Seen { containers: vec![run(0, state, 137)], ..Seen::default() };
        let failed = Failed {
            reason: "Evicted".into(),
            message: "too much".into(),
            disrupted: true,
            grace_max_seconds: Some(1),
        };
        status(&Inputs {
            pod: &one,
            goal: Goal::Fail { grace_seconds: 1 },
            failed: Some(&failed),
            resize: None,
            seen: &seen,
            plan: &Plan::default(),
            memory: &Memory::default(),
            ready: &BTreeSet::new(),
            host_ip: "1.1.1.1",
            previous: &Value::Null,
            now: at(10),
        })
    };
    assert_eq!(evicted(State::Running)["phase"], "Running");
    let ended = evicted(State::Exited);
    assert_eq!((&ended["phase"], &ended["reason"]), (&json!("Failed"), &json!("Evicted")));
    let later = of(&pod("Always"), vec![run(0, State::Exited, 137)], None, &ended);
    assert_eq!((&later["reason"], &later["message"]), (&json!("Evicted"), &json!("too much")));
    // So much a next life of the agent reads of it.
    let known = failed_by(&ended).unwrap();
    assert_eq!((known.reason.as_str(), known.message.as_str(), known.disrupted), ("Evicted", "too much", true));
    assert_eq!(failed_by(&evicted(State::Running)), None);
}

#[test]
fn the_patch_removes_a_reason_that_holds_no_more() {
    let old =
        json!({"conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "m"}]});
    let new = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    let condition = &patch("u", &old, &new)["status"]["conditions"][0];
    assert_eq!(*condition, json!({"type": "Ready", "status": "True", "reason": null, "message": null}));
}

#[test]
fn the_patch_removes_what_is_no_more() {
    let patch = patch("u", &json!({"reason": "x"}), &json!({"phase": "Running"}));
    assert_eq!(patch["status"], json!({"phase": "Running", "reason": null}));
}

#[test]
fn a_new_address_replaces_the_old_one() {
    let (old, new) = (json!({"podIPs": [{"ip": "a"}]}), json!({"podIPs": [{"ip": "b"}]}));
    assert_eq!(patch("u", &old, &new)["status"]["podIPs"], json!([{"$patch": "replace"}, {"ip": "b"}]));
    assert_eq!(patch("u", &old, &old)["status"]["podIPs"], json!([{"ip": "a"}]));
}

#[test]
fn a_resize_shows_how_far_it_is_and_leaves_nothing_behind() {
    let given = json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "200m", "memory": "1Mi"}});
    let one = json!({"metadata": {"uid": "u"}, "spec": {"restartPolicy": "Always",
        "containers": [{"name": "c", "image": "i", "resources": given}]}});
    let one = Object::from_value(one).unwrap();
    let limits = |memory_bytes| Some(Limits { cpu_shares: 102, cpu_quota: 20_000, memory_bytes });
    let show = |memory_bytes, pending: Option<&Pending>, previous: &Value| {
        let running = Container { limits: limits(memory_bytes), ..run(0, State::Running, 0) };
        status(&Inputs {
            pod: &one,
            goal: Goal::Run,
            failed: None,
            resize: pending,
            seen: &Seen { containers: vec![running], ..Seen::default() },
            plan: &Plan::default(),
            memory: &Memory::default(),
            ready: &BTreeSet::new(),
            host_ip: "1.1.1.1",
            previous,
            now: at(10),
        })
    };
    let kinds = |status: &Value| -> Vec<String> {
        let conditions = status["conditions"].as_array().unwrap().iter();
        conditions.filter_map(|c| c["type"].as_str()?.strip_prefix("PodResize").map(str::to_owned)).collect()
    };
    let done = show(1 << 20, None, &Value::Null);
    assert_eq!(kinds(&done), [""; 0]);
    let container = &done["containerStatuses"][0];
    assert_eq!((&container["resources"], &container["allocatedResources"]), (&given, &json!({"cpu": "100m"})));
    // While the runtime is being told, the container has what it had.
    let mut before = done.clone();
    before["containerStatuses"][0]["resources"]["limits"]["memory"] = json!("2Mi");
    let pending = Pending { reason: "Deferred", message: "full".into() };
    let working = show(2 << 20, Some(&pending), &before);
    assert_eq!(kinds(&working), ["Pending", "InProgress"]);
    assert_eq!(working["containerStatuses"][0]["resources"]["limits"]["memory"], "2Mi");
    // What is over is taken back from the API by name.
    let patched = patch("u", &working, &done);
    let conditions = patched["status"]["conditions"].as_array().unwrap();
    for kind in ["PodResizePending", "PodResizeInProgress"] {
        assert!(conditions.contains(&json!({"$patch": "delete", "type": kind})), "{conditions:?}");
    }
    let untouched = patch("u", &done, &done);
    assert!(!untouched.to_string().contains("delete"));
}

#[test]
fn a_container_shows_who_it_is_and_how_its_volumes_are_mounted() {
    let mounts = json!([
        {"name": "a", "mountPath": "/a"},
        {"name": "b", "mountPath": "/b", "readOnly": true, "subPath": "x"},
        {"name": "c", "mountPath": "/c", "readOnly": true, "recursiveReadOnly": "IfPossible"},
    ]);
    let one = json!({"metadata": {"uid": "u"}, "spec": {"restartPolicy": "Always",
        "containers": [{"name": "c", "image": "i", "volumeMounts": mounts}]}});
    let one = Object::from_value(one).unwrap();
    let shown = json!([
        {"name": "a", "mountPath": "/a"},
        {"name": "b", "mountPath": "/b", "readOnly": true, "recursiveReadOnly": "Disabled"},
        {"name": "c", "mountPath": "/c", "readOnly": true, "recursiveReadOnly": "Enabled"},
    ]);
    let user = Some(User { uid: 7, gid: 8, supplemental_groups: vec![8, 9] });
    let mounted_images = BTreeMap::from([("/c".to_owned(), "sha256:1".to_owned())]);
    let running = Container { user, mounted_images, ..run(0, State::Running, 0) };
    let running = of(&one, vec![running], None, &Value::Null);
    let container = &running["containerStatuses"][0];
    let mut mounted = shown.clone();
    mounted[2]["volumeStatus"] = json!({"image": {"imageRef": "sha256:1"}});
    assert_eq!(container["volumeMounts"], mounted);
    assert_eq!(container["user"], json!({"linux": {"uid": 7, "gid": 8, "supplementalGroups": [8, 9]}}));
    let waiting = of(&one, vec![], Some("ContainerCreating"), &Value::Null);
    assert_eq!(waiting["containerStatuses"][0]["volumeMounts"], shown);
    assert!(
        of(&pod("Always"), vec![run(0, State::Running, 0)], None, &Value::Null)["containerStatuses"][0]
            .get("volumeMounts")
            .is_none()
    );
}
