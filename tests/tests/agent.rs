//! The node agent over a runtime that only pretends: against the real API, and under paused time without one.

use std::path::Path;
use std::time::Duration;

use gantry_env::Env;
use gantry_tests::agent::{Node, apply, manifest, nobody, node_identity, pod, until, until_pod};
use gantry_tests::api::Api;
use gantry_tests::fake_cri::FakeCri;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_the_api_live_and_die() {
    let (api, folder, env) = (Api::start().await, TempDir::new().unwrap(), Env::system());
    let cri = FakeCri::new(env.clone());
    let node = Node::start(folder.path(), api.control().client(node_identity()), &cri, &env, false).await;
    until("the node", async || {
        let node = api.get("/api/v1/nodes/n1").await.json();
        node["status"]["conditions"]
            .as_array()
            .is_some_and(|c| c.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
    })
    .await;
    api.kubectl(&["create", "configmap", "m", "--from-literal=k=v"]).await.unwrap();
    apply(
        &api,
        "web",
        json!({
            "terminationGracePeriodSeconds": 3,
            "containers": [{"name": "c", "image": "run:1", "env": [
                {"name": "K", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            ], "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            "volumes": [{"name": "v", "configMap": {"name": "m"}}],
        }),
    )
    .await;
    let found = until_pod(&api, "web", "Running", |p| p["status"]["phase"] == "Running").await;
    let status = &found["status"];
    assert_eq!(status["containerStatuses"][0]["ready"], true);
    assert_eq!(status["qosClass"], "BestEffort");
    assert!(status["conditions"].as_array().unwrap().iter().any(|c| c["type"] == "Ready" && c["status"] == "True"));
    let config = cri.config("c").unwrap();
    let env_of =
        |name: &str| config.envs.iter().find(|e| e.key == name).map(|e| String::from_utf8_lossy(&e.value).into_owned());
    assert_eq!(env_of("K").as_deref(), Some("v"));
    assert_eq!(env_of("IP").as_deref(), status["podIP"].as_str());
    assert_eq!(env_of("KUBERNETES_SERVICE_HOST").as_deref(), Some("10.96.0.1"));
    let volume = config.mounts.iter().find(|m| m.container_path == "/v").unwrap();
    assert_eq!(std::fs::read_to_string(Path::new(&volume.host_path).join("k")).unwrap(), "v");
    assert!(config.mounts.iter().any(|m| m.container_path == "/var/run/secrets/kubernetes.io/serviceaccount"));

    // A restart of the agent touches nothing.
    let before = cri.calls().len();
    node.stop().await;
    let node = Node::start(folder.path(), api.control().client(node_identity()), &cri, &env, false).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cri.calls().len(), before, "a restart of the agent did something: {:?}", cri.calls());

    // It runs again when it ends, and says so.
    cri.exit("c", 3);
    let found = until_pod(&api, "web", "a restart", |p| p["status"]["containerStatuses"][0]["restartCount"] == 1).await;
    assert_eq!(found["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 3);

    api.kubectl(&["delete", "pod", "web", "--wait=false"]).await.unwrap();
    until("the end of the pod", async || pod(&api, "web").await["code"] == 404).await;
    assert_eq!(cri.times("stop c 3").len(), 1, "{:?}", cri.calls());
    until("an empty runtime", async || cri.sandboxes() == 0).await;
    let events = api.kubectl(&["get", "events", "-o", "jsonpath={.items[*].reason}"]).await.unwrap();
    for reason in ["Pulling", "Pulled", "Created", "Started", "Killing"] {
        assert!(events.contains(reason), "no event {reason} in {events}");
    }
    node.stop().await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_is_said_in_the_words_that_users_know() {
    let (api, folder, env) = (Api::start().await, TempDir::new().unwrap(), Env::system());
    let cri = FakeCri::new(env.clone());
    let node = Node::start(folder.path(), api.control().client(node_identity()), &cri, &env, false).await;
    apply(
        &api,
        "nomap",
        json!({"containers": [{"name": "c", "image": "run:1", "envFrom": [{"configMapRef": {"name": "no"}}]}]}),
    )
    .await;
    apply(&api, "noimage", json!({"containers": [{"name": "c", "image": "missing:1"}]})).await;
    apply(&api, "done", json!({"restartPolicy": "Never", "containers": [{"name": "d", "image": "exit:0"}]})).await;
    apply(&api, "failed", json!({"restartPolicy": "Never", "containers": [{"name": "f", "image": "startfail:0"}]}))
        .await;
    apply(&api, "loop", json!({"containers": [{"name": "l", "image": "exit:1"}]})).await;
    let waits = |reason: &'static str| {
        move |p: &Value| p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == reason
    };
    let found = until_pod(&api, "nomap", "its error", waits("CreateContainerConfigError")).await;
    let message = &found["status"]["containerStatuses"][0]["state"]["waiting"]["message"];
    assert_eq!(message, "configmap \"no\" not found");
    until_pod(&api, "noimage", "ErrImagePull", waits("ErrImagePull")).await;
    until_pod(&api, "noimage", "ImagePullBackOff", waits("ImagePullBackOff")).await;
    until_pod(&api, "loop", "CrashLoopBackOff", waits("CrashLoopBackOff")).await;
    until_pod(&api, "done", "Succeeded", |p| p["status"]["phase"] == "Succeeded").await;
    let found = until_pod(&api, "failed", "Failed", |p| p["status"]["phase"] == "Failed").await;
    let ended = &found["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((&ended["reason"], &ended["exitCode"]), (&json!("StartError"), &json!(128)));
    node.stop().await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_run_as_its_class_says() {
    let (api, folder, env) = (Api::start().await, TempDir::new().unwrap(), Env::system());
    let cri = FakeCri::new(env.clone());
    let node = Node::start(folder.path(), api.control().client(node_identity()), &cri, &env, false).await;
    for (name, handler) in [("known", "boxed"), ("unknown", "elsewhere")] {
        let class =
            json!({"metadata": {"name": name}, "handler": handler, "overhead": {"podFixed": {"memory": "1Mi"}}});
        let made = api.post("/apis/node.k8s.io/v1/runtimeclasses", &class).await;
        assert_eq!(made.code, 201, "{}", made.text());
        let containers = json!([{"name": name, "image": "run:1"}]);
        apply(&api, name, json!({"runtimeClassName": name, "containers": containers})).await;
    }
    until_pod(&api, "known", "Running", |p| p["status"]["phase"] == "Running").await;
    assert_eq!(cri.times("sandbox by boxed").len(), 1, "{:?}", cri.calls());
    let events =
        ["get", "events", "--field-selector=involvedObject.name=unknown", "-o", "jsonpath={.items[*].message}"];
    until("its event", async || {
        let told = api.kubectl(&events).await.unwrap();
        ["Failed to create pod sandbox", "runtime handler", "elsewhere"].iter().all(|words| told.contains(words))
    })
    .await;
    node.stop().await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_pod_is_mirrored() {
    let (api, folder, env) = (Api::start().await, TempDir::new().unwrap(), Env::system());
    let manifests = folder.path().join("manifests");
    std::fs::create_dir_all(&manifests).unwrap();
    std::fs::write(manifests.join("s.json"), manifest("s", json!({"containers": [{"name": "s", "image": "run:1"}]})))
        .unwrap();
    let cri = FakeCri::new(env.clone());
    let node = Node::start(folder.path(), api.control().client(node_identity()), &cri, &env, true).await;
    until_pod(&api, "s-n1", "Running", |p| p["status"]["phase"] == "Running").await;
    std::fs::remove_file(manifests.join("s.json")).unwrap();
    until("the end of the mirror", async || pod(&api, "s-n1").await["code"] == 404).await;
    until("an empty runtime", async || cri.sandboxes() == 0).await;
    node.stop().await;
    api.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_an_api_a_static_pod_runs_and_its_crashes_wait_longer() {
    let folder = TempDir::new().unwrap();
    let env = Env::simulated("2026-01-01T00:00:00Z".parse().unwrap(), 1);
    let manifests = folder.path().join("manifests");
    std::fs::create_dir_all(&manifests).unwrap();
    std::fs::write(manifests.join("s.json"), manifest("s", json!({"containers": [{"name": "s", "image": "exit:1"}]})))
        .unwrap();
    let cri = FakeCri::new(env.clone());
    let node = Node::start(folder.path(), nobody(), &cri, &env, true).await;
    tokio::time::sleep(Duration::from_secs(700)).await;
    let starts = cri.times("start s");
    let waits: Vec<u64> = starts.windows(2).map(|w| (w[1] - w[0]).as_millis() as u64 / 1000).collect();
    assert_eq!(waits[..7], [0, 10, 20, 40, 80, 160, 300], "{:?}", cri.calls());
    assert_eq!(cri.ready_sandboxes(), 1);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stubborn_container_has_its_grace_and_a_liveness_probe_restarts() {
    let folder = TempDir::new().unwrap();
    let env = Env::simulated("2026-01-01T00:00:00Z".parse().unwrap(), 1);
    let manifests = folder.path().join("manifests");
    std::fs::create_dir_all(&manifests).unwrap();
    let stubborn = json!({"terminationGracePeriodSeconds": 7, "containers": [{"name": "s", "image": "stubborn:1"}]});
    let probed = json!({"containers": [{"name": "p", "image": "run:1", "livenessProbe":
        {"exec": {"command": ["exit", "1"]}, "periodSeconds": 5, "initialDelaySeconds": 10}}]});
    std::fs::write(manifests.join("s.json"), manifest("s", stubborn)).unwrap();
    std::fs::write(manifests.join("p.json"), manifest("p", probed)).unwrap();
    let cri = FakeCri::new(env.clone());
    let node = Node::start(folder.path(), nobody(), &cri, &env, true).await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(cri.running().len(), 2);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(cri.times("stop p 30").len(), 1, "{:?}", cri.calls());
    assert_eq!(cri.times("start p").len(), 2);
    let since = Instant::now();
    std::fs::remove_file(manifests.join("s.json")).unwrap();
    while cri.running().contains(&"s".to_owned()) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let took = since.elapsed().as_secs();
    assert!((7..=10).contains(&took), "it took {took} s");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_had_its_run_does_not_run_again_after_a_reboot() {
    let (api, folder, env) = (Api::start().await, TempDir::new().unwrap(), Env::system());
    let cri = FakeCri::new(env.clone());
    let node = Node::start(folder.path(), api.control().client(node_identity()), &cri, &env, false).await;
    let once = |image: &str, policy: &str, name: &str| json!({"restartPolicy": policy, "containers": [{"name": name, "image": image}]});
    apply(&api, "never", once("run:1", "Never", "never")).await;
    apply(&api, "done", once("exit:0", "OnFailure", "done")).await;
    apply(&api, "again", once("run:1", "OnFailure", "again")).await;
    for name in ["never", "again"] {
        until_pod(&api, name, "Running", |p| p["status"]["phase"] == "Running").await;
    }
    let done = until_pod(&api, "done", "its end", |p| p["status"]["phase"] == "Succeeded").await;
    let uid = done["metadata"]["uid"].as_str().unwrap().to_owned();
    let checkpoint = folder.path().join("pods").join(uid).join("pod.json");
    until("the end of its checkpoint", async || !checkpoint.exists()).await;
    node.stop().await;
    cri.reboot();

    let node = Node::start(folder.path(), api.control().client(node_identity()), &cri, &env, false).await;
    let found = until_pod(&api, "never", "Failed", |p| p["status"]["phase"] == "Failed").await;
    let ended = &found["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((&ended["reason"], &ended["exitCode"]), (&json!("ContainerStatusUnknown"), &json!(137)));
    let found =
        until_pod(&api, "again", "a restart", |p| p["status"]["containerStatuses"][0]["restartCount"] == 1).await;
    assert_eq!(found["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 137);
    let starts = |name: &str| cri.times(&format!("start {name}")).len();
    assert_eq!((starts("never"), starts("done"), starts("again")), (1, 1, 2), "{:?}", cri.calls());
    node.stop().await;
    api.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_an_api_a_reboot_starts_what_may_run_again_and_nothing_else() {
    let folder = TempDir::new().unwrap();
    let env = Env::simulated("2026-01-01T00:00:00Z".parse().unwrap(), 1);
    let save = |name: &str, policy: &str, state: Value| {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": {"restartPolicy": policy, "containers": [{"name": name, "image": "run:1"}]},
            "status": {"phase": "Running", "containerStatuses": [
                {"name": name, "restartCount": 0, "containerID": "gantry://old", "state": state}]},
        });
        let pods = folder.path().join("pods").join(name);
        std::fs::create_dir_all(&pods).unwrap();
        std::fs::write(pods.join("pod.json"), pod.to_string()).unwrap();
    };
    save("always", "Always", json!({"running": {}}));
    save("never", "Never", json!({"running": {}}));
    save("done", "OnFailure", json!({"terminated": {"exitCode": 0}}));
    std::fs::create_dir_all(folder.path().join("pods/node")).unwrap();
    std::fs::write(folder.path().join("pods/node/pod-cidr"), "10.244.7.0/24").unwrap();
    let cri = FakeCri::new(env.clone());
    for _life in 0..2 {
        let node = Node::start(folder.path(), nobody(), &cri, &env, false).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(cri.running(), ["always"], "{:?}", cri.calls());
        assert_eq!(cri.pod_cidr(), "10.244.7.0/24", "the node still has the range that it had");
        node.stop().await;
        cri.reboot();
    }
    assert_eq!(cri.times("start always").len(), 2);
    assert_eq!(cri.config("always").map(|c| c.log_path), None, "its records are gone");
    assert!(!folder.path().join("pods/never/pod.json").exists() && folder.path().join("pods/always/pod.json").exists());
}

#[tokio::test(start_paused = true)]
async fn an_edited_static_pod_waits_until_the_one_before_it_is_gone() {
    let folder = TempDir::new().unwrap();
    let env = Env::simulated("2026-01-01T00:00:00Z".parse().unwrap(), 1);
    let manifests = folder.path().join("manifests");
    std::fs::create_dir_all(&manifests).unwrap();
    let write = |name: &str| {
        let spec = json!({"terminationGracePeriodSeconds": 20, "containers": [{"name": name, "image": "stubborn:1"}]});
        std::fs::write(manifests.join("s.json"), manifest("s", spec)).unwrap();
    };
    let cri = FakeCri::new(env.clone());
    write("one");
    let node = Node::start(folder.path(), nobody(), &cri, &env, true).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    write("two");
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(cri.running(), ["one"], "the one before it has its grace period still");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(cri.running(), ["two"]);

    // The same when it is edited while no agent runs.
    node.stop().await;
    write("three");
    let node = Node::start(folder.path(), nobody(), &cri, &env, true).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(cri.running(), ["two"]);
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(cri.running(), ["three"]);
    assert_eq!(cri.ready_sandboxes(), 1);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_fills_its_volume_is_evicted() {
    let folder = TempDir::new().unwrap();
    let env = Env::simulated("2026-01-01T00:00:00Z".parse().unwrap(), 1);
    let manifests = folder.path().join("manifests");
    std::fs::create_dir_all(&manifests).unwrap();
    let spec = json!({
        "containers": [{"name": "s", "image": "run:1", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}],
    });
    std::fs::write(manifests.join("s.json"), manifest("s", spec)).unwrap();
    let cri = FakeCri::new(env.clone());
    let node = Node::start(folder.path(), nobody(), &cri, &env, true).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(cri.running(), ["s"]);
    let config = cri.config("s").unwrap();
    let volume = config.mounts.iter().find(|m| m.container_path == "/v").unwrap();
    std::fs::write(Path::new(&volume.host_path).join("large"), vec![1_u8; 2 << 20]).unwrap();
    let end = Instant::now() + Duration::from_secs(120);
    while !cri.running().is_empty() {
        assert!(Instant::now() < end, "it was not evicted: {:?}", cri.calls());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(cri.times("stop s 1").len(), 1, "{:?}", cri.calls());
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(cri.times("start s").len(), 1, "an evicted pod ran again");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_agent_makes_nothing_unready_and_keeps_the_mirror_current() {
    let (api, folder, env) = (Api::start().await, TempDir::new().unwrap(), Env::system());
    let manifests = folder.path().join("manifests");
    std::fs::create_dir_all(&manifests).unwrap();
    let probed = |name: &str| {
        let probe = |seconds: u32| json!({"exec": {"command": ["exit", "0"]}, "periodSeconds": 1, "initialDelaySeconds": seconds});
        json!({"containers": [{"name": name, "image": "run:1", "startupProbe": probe(0), "readinessProbe": probe(1)}]})
    };
    std::fs::write(manifests.join("s.json"), manifest("s", probed("s"))).unwrap();
    let cri = FakeCri::new(env.clone());
    let node = Node::start(folder.path(), api.control().client(node_identity()), &cri, &env, true).await;
    apply(&api, "web", probed("w")).await;
    let ready = |p: &Value| p["status"]["containerStatuses"][0]["ready"] == true;
    let before = until_pod(&api, "web", "ready", ready).await;
    until_pod(&api, "s-n1", "ready", ready).await;
    let reason = |p: &Value| {
        let conditions = p["status"]["conditions"].as_array().unwrap().iter();
        conditions.filter(|c| c["type"] == "Ready").map(|c| c["reason"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(reason(&before), [Value::Null], "the reason for which it was not ready once");
    node.stop().await;
    let node = Node::start(folder.path(), api.control().client(node_identity()), &cri, &env, true).await;
    cri.exit("s", 1);
    let restarted = |p: &Value| p["status"]["containerStatuses"][0]["restartCount"] == 1;
    until_pod(&api, "s-n1", "a restart in its mirror", restarted).await;
    let after = pod(&api, "web").await;
    assert_eq!(
        after["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"],
        "its status went to and fro"
    );
    node.stop().await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_runs_out_of_memory_evicts_who_takes_more_than_it_asked_for() {
    let (api, folder, env) = (Api::start().await, TempDir::new().unwrap(), Env::system());
    let proc = folder.path().join("proc");
    let memory = |free_mi: u64| {
        std::fs::create_dir_all(&proc).unwrap();
        let text = format!("MemTotal: {} kB\nMemFree: {} kB\n", 1000 << 10, free_mi << 10);
        std::fs::write(proc.join("new"), text).unwrap();
        std::fs::rename(proc.join("new"), proc.join("meminfo")).unwrap();
    };
    memory(500);
    let cri = FakeCri::new(env.clone());
    let client = api.control().client(node_identity());
    let node = Node::start_on(proc.clone(), folder.path(), client, &cri, &env, false).await;
    let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "dear"}, "value": 1000});
    assert_eq!(api.post("/apis/scheduling.k8s.io/v1/priorityclasses", &class).await.code, 201);
    let spec = |name: &str, asked: &str, class: &str| {
        json!({"priorityClassName": class, "containers": [
            {"name": name, "image": "run:1", "resources": {"requests": {"memory": asked}}}]})
    };
    for (name, asked, class, used) in
        [("modest", "64Mi", "", 32_u64), ("greedy", "16Mi", "", 200), ("precious", "16Mi", "dear", 300)]
    {
        cri.use_memory(name, used << 20);
        apply(&api, name, spec(name, asked, class)).await;
        until_pod(&api, name, "Running", |p| p["status"]["phase"] == "Running").await;
    }
    let condition = async |status: &str| {
        let node = api.get("/api/v1/nodes/n1").await.json();
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == "MemoryPressure" && c["status"] == status)
    };
    assert!(condition("False").await);

    memory(50);
    let found = until_pod(&api, "greedy", "evicted", |p| p["status"]["phase"] == "Failed").await;
    let status = &found["status"];
    assert_eq!(
        (status["reason"].as_str(), status["message"].as_str()),
        (
            Some("Evicted"),
            Some(
                "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. \
                 Container greedy was using 200Mi, request is 16Mi, has larger consumption of memory. "
            )
        )
    );
    memory(500);
    let target = status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "DisruptionTarget");
    assert_eq!(target.map(|c| c["reason"].clone()), Some(json!("TerminationByKubelet")), "{found:#}");
    assert_eq!(cri.times("stop greedy 1").len(), 1, "{:?}", cri.calls());
    until("the node's condition", async || condition("True").await).await;
    let taint = async || api.get("/api/v1/nodes/n1").await.text().contains("node.kubernetes.io/memory-pressure");
    until("its taint", taint).await;
    for name in ["modest", "precious"] {
        assert_eq!(pod(&api, name).await["status"]["phase"], "Running", "{name}");
    }
    // What asks for nothing is not taken now, even where nobody asked the scheduler.
    let bound = json!({"nodeName": "n1", "containers": [{"name": "late", "image": "run:1"}]});
    apply(&api, "late", bound).await;
    let late = until_pod(&api, "late", "rejected", |p| p["status"]["phase"] == "Failed").await;
    assert_eq!(late["status"]["reason"], "Evicted");
    assert_eq!(late["status"]["message"], "Pod was rejected: The node had condition: [MemoryPressure]. ");
    assert!(cri.times("start late").is_empty());
    let events = api.kubectl(&["get", "events", "-o", "jsonpath={.items[*].reason}"]).await.unwrap();
    assert!(events.contains("Evicted") && events.contains("EvictionThresholdMet"), "{events}");

    // The verdict outlives the agent.
    node.stop().await;
    let client = api.control().client(node_identity());
    let node = Node::start_on(proc, folder.path(), client, &cri, &env, false).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = pod(&api, "greedy").await;
    assert_eq!((&after["status"]["reason"], &after["status"]["message"]), (&status["reason"], &status["message"]));
    assert_eq!(cri.times("start greedy").len(), 1, "an evicted pod ran again");
    node.stop().await;
    api.stop().await;
}
