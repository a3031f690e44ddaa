//! A machine that goes down ends its pods first, in the order of their priority: over a runtime that only pretends, and with
//! containers that write down when they were told to end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_agent::shutdown::plan::Period;
use gantry_agent::shutdown::wire::{Outcome, Progress};
use gantry_agent::shutdown::{Watch, times};
use gantry_env::Env;
use gantry_tests::agent::{Node, apply, manifest, nobody, node_identity, pod, until, until_pod};
use gantry_tests::api::Api;
use gantry_tests::cluster::{Cluster, IMAGE, Machine, NODE, with};
use gantry_tests::fake_cri::FakeCri;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

const MESSAGE: &str = "Pod was terminated in response to imminent node shutdown.";
const CRITICAL: i64 = 2_000_000_000;

async fn done(watch: &mut Watch) -> Outcome {
    loop {
        match watch.next().await.expect("nobody calls it off") {
            Progress::Done(outcome) => return outcome,
            Progress::Serving | Progress::Ending { .. } | Progress::Telling => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pods_end_by_groups_and_none_has_more_than_its_own_time() {
    let folder = TempDir::new().unwrap();
    let env = Env::simulated("2026-01-01T00:00:00Z".parse().unwrap(), 1);
    let manifests = folder.path().join("manifests");
    std::fs::create_dir_all(&manifests).unwrap();
    let write = |name: &str, image: &str, grace: i64, priority: i64| {
        let hook = json!({"preStop": {"sleep": {"seconds": 3}}});
        let container =
            json!({"name": name, "image": image, "lifecycle": if name == "hooked" { hook } else { json!({}) }});
        let spec = json!({"terminationGracePeriodSeconds": grace, "priority": priority, "containers": [container]});
        std::fs::write(manifests.join(format!("{name}.json")), manifest(name, spec)).unwrap();
    };
    write("quick", "run:1", 30, -10);
    write("slow", "stubborn:1", 7, 0);
    write("late", "stubborn:1", 100, 5);
    write("hooked", "run:1", 30, 0);
    write("crashes", "exit:1", 30, 0);
    write("critical", "stubborn:1", 4, CRITICAL);
    write("more", "run:1", 30, CRITICAL + 1000);
    let cri = FakeCri::new(env.clone());
    let node = Node::start(folder.path(), nobody(), &cri, &env, true).await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(cri.running().len(), 6, "{:?}", cri.running());
    let crashes = cri.times("start crashes").len();

    // The node gives twenty seconds, and ten more to critical pods.
    assert_eq!(node.switch.within_seconds(), 35);
    let start = Instant::now();
    let mut watch = node.switch.shut_down();
    assert_eq!(watch.next().await, Some(Progress::Ending { priority: 0, pods: 5, seconds: 20 }));
    // Whoever asks meanwhile joins in, and what comes meanwhile is not begun.
    let mut second = node.switch.shut_down();
    write("new", "run:1", 30, 0);
    let outcome = done(&mut watch).await;
    assert_eq!(done(&mut second).await, outcome);
    assert!(start.elapsed() <= Duration::from_secs(node.switch.within_seconds() + 1), "{:?}", start.elapsed());
    // No API has heard of it.
    assert_eq!((outcome.ended, outcome.running.len(), outcome.untold.len()), (7, 0, 7), "{outcome:?}");
    let at = |call: &str| {
        let times = cri.times(call);
        assert_eq!(times.len(), 1, "{call}: {:?}", cri.calls());
        (times[0] - start).as_secs()
    };
    for (call, seconds) in [("stop quick 20", 0), ("stop slow 7", 0), ("stop late 20", 0), ("stop hooked 17", 3)] {
        assert_eq!(at(call), seconds, "{call}");
    }
    for call in ["stop critical 4", "stop more 10"] {
        assert_eq!(at(call), 20, "the group before had its time: {call}");
    }
    assert!(cri.running().is_empty() && cri.times("start new").is_empty(), "{:?}", cri.calls());
    tokio::time::sleep(Duration::from_secs(400)).await;
    assert!(cri.running().is_empty(), "{:?}", cri.calls());
    assert_eq!(cri.times("start crashes").len(), crashes, "a pod that waits to run again has ended, too");
    let known = times::load(&folder.path().join("pods"));
    assert!(known.end > known.start && known.start.is_some(), "{known:?}");
    node.stop().await;

    // The next start is one like any other: static pods have nobody else who would bring them back.
    for reboot in [false, true] {
        if reboot {
            cri.reboot();
        }
        let node = Node::start(folder.path(), nobody(), &cri, &env, true).await;
        tokio::time::sleep(Duration::from_secs(15)).await;
        assert_eq!(cri.running().len(), 7, "{:?}", cri.running());
        let outcome = done(&mut node.switch.shut_down()).await;
        assert_eq!((outcome.ended, outcome.running.len()), (8, 0), "{outcome:?}");
        node.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_end_in_time_keeps_nobody_waiting() {
    let folder = TempDir::new().unwrap();
    let env = Env::simulated("2026-01-01T00:00:00Z".parse().unwrap(), 1);
    let manifests = folder.path().join("manifests");
    std::fs::create_dir_all(&manifests).unwrap();
    for (name, priority) in [("low", 0), ("high", 7)] {
        // Its runtime takes as long as it likes: more than it is given.
        let hook = json!({"preStop": {"sleep": {"seconds": 100}}});
        let container = json!({"name": name, "image": "stubborn:1", "lifecycle": hook});
        let spec = json!({"terminationGracePeriodSeconds": 60, "priority": priority, "containers": [container]});
        std::fs::write(manifests.join(format!("{name}.json")), manifest(name, spec)).unwrap();
    }
    let cri = FakeCri::new(env.clone());
    let node = Node::start_as(folder.path(), nobody(), &cri, &env, |config| {
        config.static_pod_dir = Some(manifests.clone());
        config.shutdown_periods = vec![Period { priority: 0, seconds: 10 }, Period { priority: 5, seconds: 3 }];
    })
    .await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let start = Instant::now();
    let outcome = done(&mut node.switch.shut_down()).await;
    assert_eq!(start.elapsed().as_secs(), 10 + 3 + 5);
    // A hook that takes all of the time leaves its container two seconds, as upstream has it.
    let at = |call: &str| cri.times(call).first().map(|at| (*at - start).as_secs());
    assert_eq!((at("stop low 2"), at("stop high 2")), (Some(10), Some(13)), "{:?}", cri.calls());
    assert_eq!((outcome.ended, outcome.running.len()), (2, 0), "{outcome:?}");
    node.stop().await;
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let list = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().find(|c| c["type"] == kind).unwrap_or(&Value::Null)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_hears_how_they_ended_and_that_the_node_takes_no_more() {
    let (api, folder, env) = (Api::start().await, TempDir::new().unwrap(), Env::system());
    let manifests = folder.path().join("manifests");
    std::fs::create_dir_all(&manifests).unwrap();
    let runs = |name: &str| json!({"containers": [{"name": name, "image": "run:1"}], "restartPolicy": "Always"});
    std::fs::write(manifests.join("s.json"), manifest("s", runs("s"))).unwrap();
    let cri = FakeCri::new(env.clone());
    let start = async || {
        let client = api.control().client(node_identity());
        Node::start_as(folder.path(), client, &cri, &env, |config| config.static_pod_dir = Some(manifests.clone()))
            .await
    };
    let node = start().await;
    for name in ["a", "b"] {
        apply(&api, name, runs(name)).await;
        until_pod(&api, name, "Running", |p| p["status"]["phase"] == "Running").await;
    }
    // One has had its run, another is going, and has more time than the shutdown leaves it.
    apply(&api, "over", json!({"restartPolicy": "Never", "containers": [{"name": "over", "image": "exit:0"}]})).await;
    until_pod(&api, "over", "its end", |p| p["status"]["phase"] == "Succeeded").await;
    let mirror = until_pod(&api, "s-n1", "Running", |p| p["status"]["phase"] == "Running").await;
    let outcome = done(&mut node.switch.shut_down()).await;
    assert_eq!(outcome, Outcome { ended: 3, ..Outcome::default() });
    // All of it is there by now.
    for name in ["a", "b", "s-n1"] {
        let found = pod(&api, name).await;
        let status = &found["status"];
        let said = [&status["phase"], &status["reason"], &status["message"]].map(|v| v.as_str().unwrap_or(""));
        assert_eq!(said, ["Failed", "Terminated", MESSAGE], "{found:#}");
        let target = condition(&found, "DisruptionTarget");
        assert_eq!([&target["reason"], &target["message"]], ["TerminationByKubelet", MESSAGE]);
        assert_eq!(condition(&found, "Ready")["status"], "False");
        assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["exitCode"], 0);
    }
    assert_eq!(pod(&api, "over").await["status"]["phase"], "Succeeded");
    let ready = async || {
        let node = api.get("/api/v1/nodes/n1").await.json();
        let ready = condition(&node, "Ready");
        [&ready["status"], &ready["reason"], &ready["message"]].map(|v| v.as_str().unwrap_or("").to_owned())
    };
    assert_eq!(ready().await, ["False", "KubeletNotReady", "node is shutting down"]);
    // Whoever comes now was not asked for by the scheduler, and is refused.
    let mut bound = runs("late");
    bound["nodeName"] = json!("n1");
    apply(&api, "late", bound).await;
    let late = until_pod(&api, "late", "refused", |p| p["status"]["phase"] == "Failed").await;
    assert_eq!(late["status"]["reason"], "NodeShutdown");
    assert_eq!(late["status"]["message"], "Pod was rejected: Pod was rejected as the node is shutting down.");
    assert!(cri.times("start late").is_empty());
    let events = api.kubectl(&["get", "events", "-o", "jsonpath={.items[*].message}"]).await.unwrap();
    assert!(events.contains("Shutdown manager detected shutdown event"), "{events}");

    // Called off: the node takes pods, and what has ended has ended.
    node.switch.cancel().await;
    until("the node is ready", async || ready().await[0] == "True").await;
    apply(&api, "next", runs("next")).await;
    until_pod(&api, "next", "Running", |p| p["status"]["phase"] == "Running").await;
    assert_eq!(pod(&api, "a").await["status"]["phase"], "Failed");
    node.stop().await;

    // After the agent's next start the static pod runs again, and another mirror tells of it.
    let node = start().await;
    let runs_again = |p: &Value| {
        let container = &p["status"]["containerStatuses"][0];
        container["restartCount"] == 1 && container["state"]["running"].is_object()
    };
    let again = until_pod(&api, "s-n1", "Running again", runs_again).await;
    assert_ne!(again["metadata"]["uid"], mirror["metadata"]["uid"]);
    assert_eq!(again["status"]["phase"], "Running");
    assert_eq!((&again["status"]["reason"], condition(&again, "DisruptionTarget")), (&Value::Null, &Value::Null));
    assert_eq!(cri.times("start a").len(), 1, "{:?}", cri.calls());
    assert_eq!(ready().await[0], "True");
    node.stop().await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_being_deleted_has_no_more_time_than_the_others() {
    let (api, folder, env) = (Api::start().await, TempDir::new().unwrap(), Env::system());
    let cri = FakeCri::new(env.clone());
    let node = Node::start_as(folder.path(), api.control().client(node_identity()), &cri, &env, |config| {
        config.shutdown_periods = vec![Period { priority: 0, seconds: 2 }];
    })
    .await;
    let spec = json!({"terminationGracePeriodSeconds": 3600, "containers": [{"name": "c", "image": "stubborn:1"}]});
    apply(&api, "going", spec).await;
    until_pod(&api, "going", "Running", |p| p["status"]["phase"] == "Running").await;
    api.kubectl(&["delete", "pod", "going", "--wait=false"]).await.unwrap();
    until("it is told to end", async || cri.times("stop c 3600").len() == 1).await;
    let outcome = done(&mut node.switch.shut_down()).await;
    assert_eq!(outcome, Outcome { ended: 1, ..Outcome::default() });
    assert_eq!(cri.times("stop c 2").len(), 1, "{:?}", cri.calls());
    until("it is gone", async || api.get("/api/v1/namespaces/default/pods/going").await.code == 404).await;
    node.stop().await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_asked_before_it_knows_its_pods_ends_them_alike() {
    let (api, folder, env) = (Api::start().await, TempDir::new().unwrap(), Env::system());
    let cri = FakeCri::new(env.clone());
    let start = async || Node::start_as(folder.path(), api.control().client(node_identity()), &cri, &env, |_| {}).await;
    let node = start().await;
    apply(&api, "a", json!({"containers": [{"name": "a", "image": "run:1"}]})).await;
    until_pod(&api, "a", "Running", |p| p["status"]["phase"] == "Running").await;
    node.stop().await;
    let node = start().await;
    let outcome = done(&mut node.switch.shut_down()).await;
    assert_eq!(outcome, Outcome { ended: 1, ..Outcome::default() });
    let found = pod(&api, "a").await;
    assert_eq!((&found["status"]["phase"], &found["status"]["reason"]), (&json!("Failed"), &json!("Terminated")));
    assert_eq!(condition(&found, "DisruptionTarget")["reason"], "TerminationByKubelet");
    node.stop().await;
    api.stop().await;
}

/// A pod of which a container writes a line once it is told to end, and then ends.
fn writes(name: &str, out: &Path, spec: &str, told: &str) -> String {
    let script = format!("trap '{told}' TERM; echo up-{name} >> /out/up; while :; do sleep 0.1; done");
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{{spec}, volumes: [{{name: out, hostPath: \
         {{path: {out:?}}}}}], containers: [{{name: main, image: \"{IMAGE}\", command: [sh, -c, {script:?}], volumeMounts: \
         [{{name: out, mountPath: /out}}]}}]}}}}\n"
    )
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn out(machine: &Machine) -> PathBuf {
    let out = machine.root().join("out");
    std::fs::create_dir_all(&out).unwrap();
    out
}

#[test]
fn gantry_shutdown_ends_containers_in_order_and_waits_for_them() {
    with(async |machine| {
        let out = out(machine);
        let periods = "--shutdown-grace-period-by-pod-priority=0=8,1000=8,2000000000=8";
        let mut cluster = Cluster::up_with(machine, &[periods]).await;
        let class =
            "---\n{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: dear}, value: 1000}\n";
        cluster.apply(class).await;
        let ends = |name: &str, seconds: &str| format!("sleep {seconds}; echo {name} >> /out/order; exit 0");
        let common = "terminationGracePeriodSeconds: 60";
        cluster.apply(&writes("low", &out, common, &ends("low", "1"))).await;
        cluster.apply(&writes("deaf", &out, common, "")).await;
        cluster.apply(&writes("dear", &out, &format!("priorityClassName: dear, {common}"), &ends("dear", "1"))).await;
        let critical = format!("priorityClassName: system-node-critical, priority: 2000001000, {common}");
        let last = writes("last", &out, &critical, &ends("last", "0"));
        let manifests = machine.root().join("etc/gantry/manifests");
        std::fs::create_dir_all(&manifests).unwrap();
        std::fs::write(manifests.join("last.yaml"), last).unwrap();
        let up = |count: usize| {
            let path = out.join("up");
            async move || lines(&path).len() == count
        };
        cluster.until("all run", up(4)).await;
        let mirror = format!("last-{NODE}");
        cluster
            .until("it is mirrored", async || cluster.field("pod", &mirror, ".status.phase").await == "Running")
            .await;

        let said = machine.run(&["shutdown"]).await.unwrap();
        assert!(said.contains("end within 29 s"), "{said}");
        assert!(said.contains("pods that have ended: 4") && !said.contains("time is over"), "{said}");
        // Who was told to end has, and in its turn: the one that heard nothing had its group's time, and no more.
        assert_eq!(lines(&out.join("order")), ["low", "dear", "last"]);
        assert_eq!(cluster.running().await, []);
        for name in ["low", "deaf", "dear", mirror.as_str()] {
            let field = async |path: &str| cluster.field("pod", name, path).await;
            assert_eq!(field(".status.phase").await, "Failed", "{name}");
            assert_eq!(
                (field(".status.reason").await, field(".status.message").await),
                ("Terminated".into(), MESSAGE.into())
            );
            let target = ".status.conditions[?(@.type==\"DisruptionTarget\")].reason";
            assert_eq!(field(target).await, "TerminationByKubelet", "{name}");
            let code = field(".status.containerStatuses[0].state.terminated.exitCode").await;
            assert_eq!(code, if name == "deaf" { "137" } else { "0" }, "{name}");
        }
        let ready = async |what: &str| {
            cluster.field("node", NODE, &format!(".status.conditions[?(@.type==\"Ready\")].{what}")).await
        };
        assert_eq!((ready("status").await, ready("message").await), ("False".into(), "node is shutting down".into()));
        let metrics = format!("/api/v1/nodes/{NODE}/proxy/metrics");
        let metrics = cluster.kubectl().must(&["get", "--raw", &metrics]).await;
        for which in ["start", "end"] {
            let name = format!("kubelet_graceful_shutdown_{which}_time_seconds ");
            let value = metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse::<f64>().ok());
            assert!(value.is_some_and(|at| at > 1.7e9), "{name}: {value:?}");
        }
        // Once more is no more to do.
        assert!(machine.run(&["shutdown"]).await.unwrap().contains("pods that have ended: 4"));

        // The machine stays: pods may come again, and another daemon knows nothing of a shutdown.
        assert!(machine.run(&["shutdown", "--cancel"]).await.unwrap().contains("takes pods"));
        cluster.until("the node is ready", async || cluster.ready().await).await;
        cluster.apply(&writes("next", &out, common, &ends("next", "0"))).await;
        cluster.until("the next one runs", up(5)).await;
        cluster.stop("up").await;
        let error = machine.run(&["shutdown"]).await.unwrap_err();
        assert!(error.contains("no agent runs on this machine"), "{error}");
        cluster.start("up").await;
        cluster.until("the static pod runs again", up(6)).await;
        assert_eq!(lines(&out.join("order")), ["low", "dear", "last"], "a stop of the daemon ends nobody");
        cluster.down().await;
        cluster.uninstall().await;
    });
}

#[test]
fn an_agent_that_is_killed_in_the_middle_is_asked_again() {
    with(async |machine| {
        let out = out(machine);
        // Apart: what is killed and back again is the agent alone, and it says that it runs before its node is ready.
        let mut cluster = Cluster::apart(machine).await;
        let ends = "echo told >> /out/told; sleep 2; echo ended >> /out/order; exit 0";
        cluster.apply(&writes("slow", &out, "terminationGracePeriodSeconds: 60", ends)).await;
        cluster.until("it runs", async || lines(&out.join("up")).len() == 1).await;
        let asked = tokio::spawn({
            let mut command = machine.gantry(&["shutdown"]);
            async move { command.output().await.unwrap() }
        });
        cluster.until("it is told", async || lines(&out.join("told")).len() == 1).await;
        cluster.kill("agent").await;
        cluster.start("agent").await;
        let output = tokio::time::timeout(Duration::from_secs(120), asked).await.expect("it ends").unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("the agent went away") && said.contains("pods that have ended: 1"), "{said}");
        assert_eq!(cluster.running().await, []);
        assert_eq!(cluster.field("pod", "slow", ".status.phase").await, "Failed");
        assert_eq!(cluster.field("pod", "slow", ".status.reason").await, "Terminated");
        assert!(lines(&out.join("order")).iter().all(|line| line == "ended"));
        cluster.down().await;
        cluster.uninstall().await;
    });
}
