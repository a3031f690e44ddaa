//! The whole house as its user meets it: real containers, real packets, the stock kubectl in an old and a new version.

use std::path::Path;
use std::time::Duration;

use gantry_tests::cluster::{Cluster, IMAGE, NODE, NODE_IP, with};
use gantry_tests::image::Build;
use gantry_tests::kubectl::Kubectl;
use gantry_tests::registry::Registry;
use gantry_tests::workload::{COUNTS, all_run, counters, logs_are_whole, restarts};

const DEMO: &str = include_str!("../quickstart/demo.yaml");

fn demo() -> String {
    DEMO.replace("DEMO_IMAGE", IMAGE)
}

/// A pod that runs one shell line.
fn pod(name: &str, line: &str, more: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {name}}}}}, spec: {{\
         terminationGracePeriodSeconds: 1, containers: [{{name: main, image: \"{IMAGE}\", \
         command: [sh, -c, {line:?}]}}]{more}}}}}"
    )
}

/// Fetches a page over plain HTTP from where the test is, which is where the node is.
async fn fetch(address: &str) -> Option<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
        stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        text.split_whitespace().nth(1).is_some_and(|code| code == "200").then_some(text)
    };
    tokio::time::timeout(Duration::from_secs(2), ask).await.ok().flatten()
}

async fn serves(cluster: &Cluster<'_>, kubectl: &Kubectl) {
    cluster.kubectl().with_input(&["apply", "-f", "-"], &demo()).await.unwrap();
    kubectl.must(&["-n", "demo", "rollout", "status", "deployment/web", "--timeout=90s"]).await;
    let pods = kubectl.must(&["-n", "demo", "get", "pods", "-o", "wide"]).await;
    assert_eq!(pods.lines().filter(|l| l.contains("1/1") && l.contains("Running") && l.contains(NODE)).count(), 3);
    let ip = kubectl.must(&["-n", "demo", "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"]).await;
    for address in [format!("{ip}:80"), format!("{NODE_IP}:30080")] {
        cluster
            .until(&format!("{address} answers"), async || {
                fetch(&address).await.is_some_and(|page| page.contains("Hello from Gantry"))
            })
            .await;
    }
    let name = kubectl.must(&["-n", "demo", "get", "pods", "-o", "jsonpath={.items[0].metadata.name}"]).await;
    let exec = ["-n", "demo", "exec", &name, "--", "wget", "-qO-"];
    for host in ["web.demo.svc.cluster.local", "web.demo", "web"] {
        let url = format!("http://{host}/index.html");
        let page = kubectl.must(&[&exec[..], &[&url]].concat()).await;
        assert!(page.contains("Hello from Gantry"), "{host}: {page}");
    }
    let word = kubectl.must(&["-n", "demo", "exec", &name, "--", "sh", "-c", "echo $WORD"]).await;
    assert_eq!(word, "xyzzy\n");
}

#[test]
fn a_deployment_serves_whichever_kubectl_made_it() {
    with(async |machine| {
        let cluster = Cluster::up(machine).await;
        for kubectl in Kubectl::every(&machine.kubeconfig()) {
            serves(&cluster, &kubectl).await;
            day(&cluster, &kubectl).await;
            kubectl.must(&["delete", "namespace", "demo", "--timeout=60s"]).await;
            assert!(cluster.running().await.iter().all(|(_, name, ..)| name != "web"), "a container outlived its pod");
        }
        cluster.uninstall().await;
    });
}

/// What people do all day, as both programs do it.
async fn day(cluster: &Cluster<'_>, kubectl: &Kubectl) {
    let demo = async |arguments: &[&str]| kubectl.must(&[&["-n", "demo"], arguments].concat()).await;
    demo(&["scale", "deployment/web", "--replicas=2"]).await;
    cluster
        .until("two are left", async || {
            demo(&["get", "pods", "--no-headers"]).await.lines().count() == 2
                && demo(&["get", "deployment", "web", "--no-headers"]).await.contains("2/2")
        })
        .await;
    demo(&["set", "env", "deployment/web", "SECOND=yes"]).await;
    demo(&["rollout", "status", "deployment/web", "--timeout=90s"]).await;
    assert!(demo(&["rollout", "history", "deployment/web"]).await.contains('2'));
    demo(&["rollout", "undo", "deployment/web"]).await;
    demo(&["rollout", "status", "deployment/web", "--timeout=90s"]).await;
    assert!(!demo(&["get", "deployment", "web", "-o", "yaml"]).await.contains("SECOND"));
    // The rollout is over before the last pod of the other revision has gone.
    let pods = async || demo(&["get", "pods", "-o", "jsonpath={.items[*].metadata.name}"]).await;
    cluster.until("the other revision's pods are gone", async || pods().await.split(' ').count() == 2).await;
    let name = pods().await.split(' ').next().unwrap_or_default().to_owned();
    let described = demo(&["describe", "pod", &name]).await;
    for words in ["Successfully assigned demo/", "Created container", "Started container", "Burstable", "web:"] {
        assert!(described.contains(words), "{words} is not in {described}");
    }
    assert!(demo(&["describe", "deployment", "web"]).await.contains("ScalingReplicaSet"));
    assert!(demo(&["describe", "service", "web"]).await.contains("Endpoints:"));
    let pod = demo(&["get", "pod", &name, "-o", "jsonpath={.status.podIP}"]).await;
    cluster.until("the pod answers", async || fetch(&format!("{pod}:8080")).await.is_some()).await;
    assert!(demo(&["logs", &name]).await.contains("response:200"));
    assert_eq!(demo(&["logs", "deployment/web", "--tail=1"]).await.lines().count(), 1);
    for (kind, words) in [("deployments", "Deployment"), ("pods.spec.containers", "image")] {
        assert!(kubectl.must(&["explain", kind]).await.contains(words), "explain {kind}");
    }
    demo(&["create", "configmap", "literal", "--from-literal=a=b"]).await;
    demo(&["create", "deployment", "other", &format!("--image={IMAGE}")]).await;
    demo(&["create", "secret", "generic", "s", "--from-literal=a=b"]).await;
    demo(&["create", "service", "clusterip", "other", "--tcp=80:8080"]).await;
    demo(&["label", "pod", &name, "seen=yes"]).await;
    demo(&["annotate", "pod", &name, "note=here"]).await;
    assert!(demo(&["get", "pods", "-l", "seen=yes", "-o", "name"]).await.contains(&name));
    demo(&["rollout", "status", "deployment/other", "--timeout=90s"]).await;
    demo(&["patch", "deployment", "other", "-p", r#"{"spec":{"replicas":0}}"#]).await;
    demo(&["wait", "pod", "-l", "app=other", "--for=delete", "--timeout=60s"]).await;
    demo(&["delete", "deployment", "other"]).await;
    demo(&["get", "all"]).await;
    assert!(kubectl.must(&["api-resources"]).await.contains("deployments"));
    assert!(kubectl.must(&["api-versions"]).await.contains("apps/v1"));
    assert!(kubectl.must(&["cluster-info"]).await.contains("https://"));
    assert_eq!(kubectl.must(&["auth", "can-i", "create", "pods"]).await.trim(), "yes");
    assert!(kubectl.must(&["get", "nodes", "-o", "wide"]).await.contains("Ready"));
    assert!(kubectl.must(&["describe", "node", NODE]).await.contains("Allocated resources"));
    kubectl.must(&["cordon", NODE]).await;
    assert!(kubectl.must(&["get", "nodes"]).await.contains("SchedulingDisabled"));
    kubectl.must(&["uncordon", NODE]).await;
}

#[test]
fn the_ten_steps_of_a_pod_are_told() {
    with(async |machine| {
        let cluster = Cluster::apart(machine).await;
        cluster.apply(&demo()).await;
        let kubectl = cluster.kubectl();
        kubectl.must(&["-n", "demo", "rollout", "status", "deployment/web", "--timeout=90s"]).await;
        let name = kubectl.must(&["-n", "demo", "get", "pods", "-o", "jsonpath={.items[0].metadata.name}"]).await;
        let kubeconfig = machine.kubeconfig().display().to_string();
        let trace = ["trace", "pod", &name, "-n", "demo", "--kubeconfig", &kubeconfig];
        cluster
            .until("all ten steps are told", async || {
                let text = machine.run(&trace).await.unwrap();
                let step = |line: &str| line.split_whitespace().next().and_then(|word| word.parse::<u8>().ok());
                let steps: std::collections::BTreeSet<u8> = text.lines().filter_map(step).collect();
                steps == (1..=10).collect()
            })
            .await;
        let missing = machine.run(&["trace", "pod", "nobody", "--kubeconfig", &kubeconfig]).await.unwrap_err();
        assert!(missing.contains(r#"pods "nobody" not found"#), "{missing}");
        cluster.uninstall().await;
    });
}

#[test]
fn killing_everything_of_ours_touches_no_container() {
    with(async |machine| {
        let mut cluster = Cluster::apart(machine).await;
        cluster.apply(&counters(3)).await;
        all_run(&cluster, 3).await;
        let before = cluster.running().await;
        assert_eq!(before.len(), 3);
        for roles in [&["control"][..], &["agent"], &["control", "agent"]] {
            for role in roles {
                cluster.kill(role).await;
            }
            for role in roles {
                cluster.start(if *role == "control" { "control" } else { "agent" }).await;
            }
            all_run(&cluster, 3).await;
            assert_eq!(cluster.running().await, before, "after kill -9 of {roles:?}");
        }
        // Supervisors too, with the agent alive and then with it dead.
        for with_agent in [false, true] {
            let supervisors = cluster.supervisors().await;
            assert_eq!(supervisors.len(), 3);
            if with_agent {
                cluster.kill("agent").await;
            }
            for pid in supervisors {
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
            }
            if with_agent {
                cluster.start("agent").await;
            } else {
                cluster.until("new supervisors", async || cluster.supervisors().await.len() == 3).await;
            }
            all_run(&cluster, 3).await;
            let after = cluster.running().await;
            if with_agent {
                // Both at once: the pipes are gone, and so may be who wrote into them; what runs, runs once.
                assert_eq!(after.len(), 3, "{after:?}");
            } else {
                assert_eq!(after, before, "after kill -9 of the supervisors");
                assert_eq!(restarts(&cluster).await, "0 0 0");
                logs_are_whole(&cluster).await;
            }
        }
        cluster.uninstall().await;
    });
}

/// kill -9 in the middle of starting and of ending pods, at moments that a seed chose.
#[test]
fn killed_in_the_middle_of_everything_it_converges() {
    const ROUNDS: u64 = 6;
    with(async |machine| {
        let mut cluster = Cluster::up(machine).await;
        let mut seed: u64 = 0x9e37_79b9_7f4a_7c15;
        for round in 0..ROUNDS {
            // splitmix64: chance that replays.
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = seed;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let wait = Duration::from_millis((z >> 33) % 700);
            let replicas = if round % 2 == 0 { 8 } else { 2 };
            eprintln!("round {round}: {replicas} replicas, killed after {wait:?}");
            cluster.apply(&counters(replicas)).await;
            tokio::time::sleep(wait).await;
            cluster.kill("up").await;
            cluster.start("up").await;
            all_run(&cluster, replicas).await;
            cluster
                .until("each pod has one container and no other runs", async || {
                    let running = cluster.running().await;
                    let uids: std::collections::BTreeSet<&String> = running.iter().map(|(uid, ..)| uid).collect();
                    running.len() == replicas && uids.len() == replicas
                })
                .await;
            // A sandbox goes after its containers.
            cluster.until("no sandbox is left over", async || cluster.supervisors().await.len() == replicas).await;
        }
        logs_are_whole(&cluster).await;
        cluster.uninstall().await;
    });
}

/// The reason for which a pod's container waits, and the words with it.
async fn waits(cluster: &Cluster<'_>, name: &str, reason: &str) -> String {
    let path = ".status.containerStatuses[0].state.waiting";
    cluster
        .until(&format!("{name} waits with {reason}"), async || {
            cluster.field("pod", name, &format!("{path}.reason")).await == reason
        })
        .await;
    cluster.field("pod", name, &format!("{path}.message")).await
}

#[test]
fn a_pod_that_cannot_run_says_why() {
    with(async |machine| {
        let cluster = Cluster::up(machine).await;
        let registry = Registry::start(machine.root(), "").await.expect("docker-registry is installed");
        let with_image = |name: &str, image: &str| pod(name, "sleep 60", "").replace(IMAGE, image);

        cluster.apply(&with_image("no-image", &registry.name("nobody/nothing:1"))).await;
        let words = waits(&cluster, "no-image", "ErrImagePull").await;
        assert!(words.contains("nobody/nothing:1") && words.contains("unknown"), "{words}");
        let words = waits(&cluster, "no-image", "ImagePullBackOff").await;
        assert!(words.contains("Back-off pulling image") && words.contains("unknown"), "{words}");

        let digest = format!("{}@sha256:{}", registry.name("demo"), "0".repeat(64));
        cluster.apply(&with_image("wrong-digest", &digest)).await;
        assert!(waits(&cluster, "wrong-digest", "ErrImagePull").await.contains("unknown"));

        let built = Build::busybox(Path::new("/bin/busybox")).unwrap().build();
        built.push(&registry.name("tampered:1")).await.unwrap();
        registry.tamper(&built.layer_digest());
        cluster.apply(&with_image("tampered", &registry.name("tampered:1"))).await;
        let words = waits(&cluster, "tampered", "ErrImagePull").await;
        assert!(words.contains("tampered:1") && words.contains(built.layer_digest().hex()), "{words}");

        cluster.apply(&with_image("no-name", "Not/A_Name:::")).await;
        assert!(waits(&cluster, "no-name", "InvalidImageName").await.contains("Not/A_Name"));

        cluster
            .apply(&with_image("never", "gantry.local/absent:1").replace("image:", "imagePullPolicy: Never, image:"))
            .await;
        assert!(waits(&cluster, "never", "ErrImageNeverPull").await.contains("absent"));

        cluster.apply(&pod("no-command", "", "").replace("[sh, -c, \"\"]", "[/nowhere/program]")).await;
        cluster
            .until("the start fails", async || {
                cluster.field("pod", "no-command", ".status.containerStatuses[0].lastState.terminated.reason").await
                    == "StartError"
            })
            .await;
        let last = ".status.containerStatuses[0].lastState.terminated";
        assert_eq!(cluster.field("pod", "no-command", &format!("{last}.exitCode")).await, "128");
        let words = cluster.field("pod", "no-command", &format!("{last}.message")).await;
        assert!(
            words.contains("/nowhere/program") && words.to_lowercase().contains("no such file or directory"),
            "{words}"
        );

        let env = ", envFrom: [{configMapRef: {name: absent}}]}]";
        cluster.apply(&pod("no-map", "sleep 60", "").replacen("}]", env, 1)).await;
        let words = waits(&cluster, "no-map", "CreateContainerConfigError").await;
        assert!(words.contains(r#"configmap "absent" not found"#), "{words}");
        cluster.kubectl().must(&["create", "configmap", "absent", "--from-literal=a=b"]).await;
        cluster
            .until("it runs at last", async || cluster.field("pod", "no-map", ".status.phase").await == "Running")
            .await;

        let volume = ", volumes: [{name: v, configMap: {name: missing}}]";
        let mounted =
            pod("no-volume", "sleep 60", volume).replacen("}]", ", volumeMounts: [{name: v, mountPath: /v}]}]", 1);
        cluster.apply(&mounted).await;
        cluster
            .until("the event names the map", async || {
                let events = cluster.kubectl().run(&["describe", "pod", "no-volume"]).await.unwrap_or_default();
                events.contains("FailedMount") && events.contains(r#"configmap "missing" not found"#)
            })
            .await;

        cluster.apply(&pod("crashes", "exit 3", "")).await;
        waits(&cluster, "crashes", "CrashLoopBackOff").await;
        assert_eq!(cluster.field("pod", "crashes", &format!("{last}.exitCode")).await, "3");
        let table = cluster.kubectl().must(&["get", "pods"]).await;
        for words in ["CrashLoopBackOff", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"] {
            assert!(table.contains(words), "{table}");
        }
        let port = ", ports: [{containerPort: 8080, hostPort: 18080}]}]";
        for name in ["port-first", "port-second"] {
            cluster.apply(&pod(name, "httpd -f -p 8080 -h /www", "").replacen("}]", port, 1)).await;
        }
        cluster.until("the first has the port", async || fetch(&format!("{NODE_IP}:18080")).await.is_some()).await;
        cluster
            .until("the second is told", async || {
                let events = cluster.kubectl().run(&["get", "events", "-o", "wide"]).await.unwrap_or_default();
                events.contains("FailedScheduling") && events.contains("free ports")
            })
            .await;
        drop(registry);
        cluster.uninstall().await;
    });
}

#[test]
fn what_the_host_refuses_is_named_at_the_start() {
    with(async |machine| {
        let out = machine.root().join("out").display().to_string();
        let join = ["control", "node-credentials", "x", "--ip", NODE_IP, "--server", "https://x", "--out", &out];
        let error = machine.run(&join).await.unwrap_err();
        assert!(error.contains("no cluster CA"), "{error}");
        let cluster = Cluster::up(machine).await;
        let same = ["up", "--node-name", NODE, "--node-ip", NODE_IP];
        let second = machine.run(&same).await.unwrap_err();
        assert!(second.contains("gantry runs already as process"), "{second}");
        let second = machine.run(&["runtime"]).await.unwrap_err();
        assert!(second.contains("gantry runs already as process"), "{second}");
        cluster.uninstall().await;

        let taken = tokio::net::TcpListener::bind("0.0.0.0:6443").await.unwrap();
        let error = machine.run(&same).await.unwrap_err();
        assert!(error.contains("cannot listen on 0.0.0.0:6443") && error.contains("Address already in use"), "{error}");
        drop(taken);
        let taken = tokio::net::TcpListener::bind("0.0.0.0:10250").await.unwrap();
        let error = machine.run(&same).await.unwrap_err();
        assert!(error.contains("10250") && error.contains("Address already in use"), "{error}");
        drop(taken);
        for (arguments, words) in [
            (&["up", "--node-name", "Bad_Name"][..], "Bad_Name"),
            (&["up", "--service-cidr", "10.96.0.0/33"], "10.96.0.0/33"),
            (&["up", "--service-cidr", "fd00::/112", "--node-ip", NODE_IP], "fd00::/112"),
            (&["agent", "--node-ip", NODE_IP], "kubelet.kubeconfig"),
        ] {
            let error = machine.run(arguments).await.unwrap_err();
            assert!(error.contains(words), "{arguments:?}: {error}");
        }
        // An ordinary user of the host, who may not look into the folder of a build.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        let folder = tempfile::Builder::new().permissions(open).tempdir().unwrap();
        let copy = folder.path().join("gantry");
        std::fs::copy(gantry_tests::cluster::program("gantry"), &copy).unwrap();
        let mut nobody = tokio::process::Command::new(copy);
        let output = nobody.args(same).uid(65534).gid(65534).output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains("gantry must run as root"), "{text}");
        machine.run(&["uninstall"]).await.unwrap();
        assert!(!machine.root().join("var/lib/gantry").exists());
    });
}

#[test]
fn a_full_disk_refuses_writes_and_loses_nothing() {
    const DISK_BYTES: u64 = 96 << 20;
    with(async |machine| {
        let disk = machine.root().join("var/lib/gantry");
        std::fs::create_dir_all(&disk).unwrap();
        let size = format!("size={DISK_BYTES},mode=0700");
        nix::mount::mount(Some("disk"), &disk, Some("tmpfs"), nix::mount::MsFlags::empty(), Some(&*size)).unwrap();
        let mut cluster = Cluster::up(machine).await;
        cluster.apply(&counters(2)).await;
        all_run(&cluster, 2).await;
        let before = cluster.running().await;
        let kubectl = cluster.kubectl();
        kubectl.must(&["create", "configmap", "before", "--from-literal=a=b"]).await;

        let filler = disk.join("filler");
        let mut file = std::fs::File::create(&filler).unwrap();
        let block = vec![0u8; 64 << 10];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
        drop(file);
        let mut refused = String::new();
        let mut written = Vec::new();
        // What the file has room for is still taken; then the refusal comes, and it is plain.
        for n in 0..2000 {
            let (name, value) = (format!("full-{n}"), format!("--from-literal=v={}", "x".repeat(60_000)));
            match kubectl.run(&["create", "configmap", &name, &value]).await {
                Ok(_) => written.push(name),
                Err(error) => {
                    refused = error;
                    break;
                }
            }
        }
        assert!(refused.contains("no space is left on the disk of the store"), "{refused}");
        assert_eq!(kubectl.must(&["get", "configmap", "before", "-o", "jsonpath={.data.a}"]).await, "b");
        assert_eq!(cluster.running().await, before, "containers go on");

        std::fs::remove_file(&filler).unwrap();
        cluster
            .until("writes are taken again, without a restart", async || {
                kubectl.run(&["create", "configmap", "after", "--from-literal=a=b"]).await.is_ok()
            })
            .await;
        // Nothing that was answered is lost, not even to a kill.
        cluster.kill("up").await;
        cluster.start("up").await;
        let names = kubectl.must(&["get", "configmaps", "-o", "name"]).await;
        for name in written.iter().map(String::as_str).chain(["before", "after"]) {
            assert!(names.contains(&format!("configmap/{name}\n")), "{name} is lost");
        }
        all_run(&cluster, 2).await;
        assert_eq!(cluster.running().await, before);
        cluster.down().await;
        nix::mount::umount(&disk).unwrap();
        cluster.uninstall().await;
    });
}

#[test]
fn static_pods_run_without_the_api_and_are_shown_by_it() {
    with(async |machine| {
        let manifests = machine.root().join("etc/gantry/manifests");
        std::fs::create_dir_all(&manifests).unwrap();
        let mut cluster = Cluster::up(machine).await;
        std::fs::write(manifests.join("fixed.yaml"), pod("fixed", COUNTS, "")).unwrap();
        let name = format!("fixed-{NODE}");
        cluster
            .until("its mirror runs", async || cluster.field("pod", &name, ".status.phase").await == "Running")
            .await;
        assert!(cluster.kubectl().must(&["logs", &name]).await.starts_with("0\n"));
        // Whoever deletes the mirror deletes no pod.
        let before = cluster.running().await;
        cluster.kubectl().must(&["delete", "pod", &name, "--wait=false"]).await;
        cluster
            .until("a new mirror runs", async || cluster.field("pod", &name, ".status.phase").await == "Running")
            .await;
        assert_eq!(cluster.running().await, before);
        // A manifest that no one can read harms no other.
        std::fs::write(manifests.join("broken.yaml"), "kind: [").unwrap();
        cluster.kill("up").await;
        cluster.start("up").await;
        cluster.until("it runs on", async || cluster.field("pod", &name, ".status.phase").await == "Running").await;
        assert_eq!(cluster.running().await, before);
        std::fs::remove_file(manifests.join("fixed.yaml")).unwrap();
        cluster.until("it is gone", async || cluster.running().await.is_empty()).await;
        cluster.until("its mirror too", async || cluster.kubectl().run(&["get", "pod", &name]).await.is_err()).await;
        cluster.uninstall().await;
    });
}

/// What the runtime started while nobody watched is what the API tells afterwards.
#[test]
fn exit_codes_and_restarts_are_told() {
    with(async |machine| {
        let mut cluster = Cluster::apart(machine).await;
        let never = ", restartPolicy: Never";
        cluster.apply(&pod("ends", "sleep 2; echo done; exit 7", never)).await;
        cluster.until("it runs", async || cluster.field("pod", "ends", ".status.phase").await == "Running").await;
        cluster.kill("agent").await;
        cluster.kill("control").await;
        // It ends meanwhile: its supervisor is all that is there to see it.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        cluster.start("control").await;
        cluster.start("agent").await;
        cluster.until("it has failed", async || cluster.field("pod", "ends", ".status.phase").await == "Failed").await;
        let ended = ".status.containerStatuses[0].state.terminated";
        assert_eq!(cluster.field("pod", "ends", &format!("{ended}.exitCode")).await, "7");
        assert_eq!(cluster.field("pod", "ends", &format!("{ended}.reason")).await, "Error");
        assert_eq!(cluster.kubectl().must(&["logs", "ends"]).await, "done\n");

        cluster.apply(&pod("again", "echo once more; exit 1", "")).await;
        cluster
            .until("it has restarted twice", async || {
                cluster.field("pod", "again", ".status.containerStatuses[0].restartCount").await == "2"
            })
            .await;
        assert_eq!(cluster.kubectl().must(&["logs", "again", "--previous"]).await, "once more\n");
        cluster.apply(&pod("completes", "true", never)).await;
        cluster
            .until("it has succeeded", async || cluster.field("pod", "completes", ".status.phase").await == "Succeeded")
            .await;
        assert!(cluster.kubectl().must(&["get", "pod", "completes"]).await.contains("Completed"));
        cluster.kubectl().must(&["delete", "pod", "ends", "again", "completes", "--timeout=30s"]).await;
        cluster.uninstall().await;
    });
}
