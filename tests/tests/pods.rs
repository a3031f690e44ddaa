//! What pods may ask for beyond a command: hooks, deadlines, names, and company while they run.

use gantry_tests::cluster::{Cluster, IMAGE, with};
use gantry_tests::kubectl::Kubectl;

/// A pod of one container that runs a shell line.
fn pod(name: &str, line: &str, of_pod: &str, of_container: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 0{of_pod}, \
         containers: [{{name: main, image: \"{IMAGE}\", command: [sh, -c, {line:?}]{of_container}}}]}}}}"
    )
}

async fn phase(cluster: &Cluster<'_>, name: &str, wanted: &str) {
    let what = format!("{name} is {wanted}");
    cluster.until(&what, async || cluster.field("pod", name, ".status.phase").await == wanted).await;
}

async fn events_of(cluster: &Cluster<'_>, name: &str) -> String {
    let of = format!("--field-selector=involvedObject.name={name}");
    cluster.kubectl().run(&["get", "events", &of, "-o", "jsonpath={.items[*].reason}"]).await.unwrap_or_default()
}

#[test]
fn a_pod_gets_what_it_asks_for() {
    with(async |machine| {
        let cluster = Cluster::up(machine).await;
        hooks(&cluster).await;
        deadline(&cluster).await;
        names(&cluster).await;
        company(&cluster).await;
        restarts(&cluster).await;
        shared_processes(&cluster).await;
        live_volumes(&cluster).await;
        image_volumes(&cluster).await;
        cluster.uninstall().await;
    });
}

/// A container whose start has a hook is not shown as running before that ends; where it fails, the container is ended.
async fn hooks(cluster: &Cluster<'_>) {
    let after =
        ", lifecycle: {postStart: {exec: {command: [sh, -c, 'while ! [ -e /go ]; do sleep 0.1; done; touch /done']}}}";
    cluster.apply(&pod("hooked", "sleep 1000", "", after)).await;
    cluster
        .until("its command runs", async || cluster.running().await.iter().any(|(_, name, ..)| name == "main"))
        .await;
    assert_eq!(cluster.field("pod", "hooked", ".status.phase").await, "Pending");
    let reason = ".status.containerStatuses[0].state.waiting.reason";
    assert_eq!(cluster.field("pod", "hooked", reason).await, "ContainerCreating");
    cluster.kubectl().must(&["exec", "hooked", "--", "touch", "/go"]).await;
    phase(cluster, "hooked", "Running").await;
    cluster.kubectl().must(&["exec", "hooked", "--", "test", "-e", "/done"]).await;

    let fails = ", lifecycle: {postStart: {exec: {command: [sh, -c, 'exit 3']}}}";
    cluster.apply(&pod("unhooked", "sleep 1000", ", restartPolicy: Never", fails)).await;
    phase(cluster, "unhooked", "Failed").await;
    cluster.until("it says why", async || events_of(cluster, "unhooked").await.contains("FailedPostStartHook")).await;
    cluster.kubectl().must(&["delete", "pod", "hooked", "unhooked"]).await;
}

/// A pod that has been active for as long as it may be is failed, and nothing of it runs on.
async fn deadline(cluster: &Cluster<'_>) {
    cluster.apply(&pod("late", "sleep 1000", ", activeDeadlineSeconds: 1", "")).await;
    phase(cluster, "late", "Failed").await;
    assert_eq!(cluster.field("pod", "late", ".status.reason").await, "DeadlineExceeded");
    assert_eq!(cluster.running().await, []);
    cluster.apply(&pod("early", "true", ", restartPolicy: Never, activeDeadlineSeconds: 600", "")).await;
    phase(cluster, "early", "Succeeded").await;
    cluster.kubectl().must(&["delete", "pod", "late", "early"]).await;
}

async fn names(cluster: &Cluster<'_>) {
    let asked = ", restartPolicy: Never, hostname: host, subdomain: sub, setHostnameAsFQDN: true";
    cluster.apply(&pod("named", "hostname", asked, "")).await;
    phase(cluster, "named", "Succeeded").await;
    let said = cluster.kubectl().must(&["logs", "named"]).await;
    assert_eq!(said.trim(), "host.sub.default.svc.cluster.local");
    let long = "a".repeat(60);
    let asked = format!(", hostname: {long}, subdomain: sub, setHostnameAsFQDN: true");
    cluster.apply(&pod("long", "hostname", &asked, "")).await;
    cluster.until("it says why", async || events_of(cluster, "long").await.contains("FailedCreatePodSandBox")).await;
    cluster.kubectl().must(&["delete", "pod", "named", "long"]).await;
}

/// `kubectl debug`: who comes to look sees the container's processes, runs once, and stays in the status.
async fn company(cluster: &Cluster<'_>) {
    // Before 1.23 it asks for a kind that no server has any more.
    let kubectl = Kubectl::every(&cluster.machine().kubeconfig()).pop().unwrap();
    assert_ne!(kubectl.name(), "kubectl-1.20", "a newer one is to be installed: tests/install.sh tests");
    cluster.apply(&pod("looked-at", "sleep 1000", "", "")).await;
    phase(cluster, "looked-at", "Running").await;
    let image = format!("--image={IMAGE}");
    let look = ["debug", "looked-at", &image, "-c", "look", "--profile=general", "--target=main", "--", "ps"];
    kubectl.must(&look).await;
    let state = ".status.ephemeralContainerStatuses[0].state.terminated";
    cluster
        .until("it has looked", async || {
            cluster.field("pod", "looked-at", &format!("{state}.reason")).await == "Completed"
        })
        .await;
    let seen = kubectl.must(&["logs", "looked-at", "-c", "look"]).await;
    assert!(seen.contains("sleep 1000"), "{seen}");
    let again = kubectl.run(&look).await.unwrap_err();
    assert!(again.contains("look") && !again.contains("panic"), "{again}");
    // One that may do what the pod's own may not.
    let all =
        ["debug", "looked-at", &image, "-c", "all", "--profile=sysadmin", "--", "grep", "CapEff", "/proc/self/status"];
    kubectl.must(&all).await;
    let may = async || kubectl.run(&["logs", "looked-at", "-c", "all"]).await.unwrap_or_default();
    cluster.until("it has every capability", async || may().await.contains("1fff")).await;
    let change = r#"{"spec":{"ephemeralContainers":[{"name":"look","image":"other"}]}}"#;
    let refused = kubectl.run(&["patch", "pod", "looked-at", "--subresource=ephemeralcontainers", "-p", change]).await;
    let refused = refused.unwrap_err();
    assert!(refused.contains("existing ephemeral containers \"look\" may not be changed"), "{refused}");
    assert_eq!(cluster.field("pod", "looked-at", ".status.containerStatuses[0].restartCount").await, "0");
    kubectl.must(&["delete", "pod", "looked-at"]).await;
}

/// Containers of a pod that share their processes signal each other; where the first of these is killed, the pod begins anew.
async fn shared_processes(cluster: &Cluster<'_>) {
    let other = format!("}}, {{name: other, image: \"{IMAGE}\", command: [sleep, '2000']");
    cluster.apply(&pod("sharing", "exec sleep 1000", ", shareProcessNamespace: true", &other)).await;
    phase(cluster, "sharing", "Running").await;
    let end_main = "kill $(grep -l '[1]000' /proc/[0-9]*/cmdline | grep -v self | head -n 1 | cut -d / -f 3)";
    let restarts = async |container: &str| {
        let path = format!(".status.containerStatuses[?(@.name=='{container}')].restartCount");
        cluster.field("pod", "sharing", &path).await
    };
    cluster.kubectl().must(&["exec", "sharing", "-c", "other", "--", "sh", "-c", end_main]).await;
    cluster.until("main runs again", async || restarts("main").await == "1").await;
    assert_eq!(restarts("other").await, "0");

    let (_, _, _, pid) = cluster.running().await.into_iter().find(|(_, name, ..)| name == "other").expect("it runs");
    let namespace = |pid: i64| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let init =
        |pid: &i64| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "gantry-init\n");
    let all =
        std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let first =
        all.into_iter().find(|other| init(other) && namespace(*other) == namespace(pid)).expect("a first process");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first as i32), nix::sys::signal::SIGKILL).expect("it runs");
    cluster.until("the other runs again", async || restarts("other").await == "1").await;
    phase(cluster, "sharing", "Running").await;
    let seen =
        async || cluster.kubectl().run(&["exec", "sharing", "-c", "other", "--", "ps"]).await.unwrap_or_default();
    cluster
        .until("they see each other", async || {
            let seen = seen().await;
            ["gantry-init", "sleep 1000", "sleep 2000"].iter().all(|word| seen.contains(word))
        })
        .await;
    cluster.kubectl().must(&["delete", "pod", "sharing"]).await;
}

/// What volumes are made from reaches them when it changes, and a pod that waits for it starts when it comes.
async fn live_volumes(cluster: &Cluster<'_>) {
    let kubectl = cluster.kubectl();
    let volumes = ", volumes: [{name: map, configMap: {name: live}}, {name: all, projected: {sources: [\
                   {secret: {name: live}}, {downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}]}}]";
    let mounts = ", volumeMounts: [{name: map, mountPath: /map}, {name: all, mountPath: /all}]";
    cluster.apply(&pod("live", "sleep 1000", volumes, mounts)).await;
    cluster.until("it says what it waits for", async || events_of(cluster, "live").await.contains("FailedMount")).await;
    kubectl.must(&["create", "configmap", "live", "--from-literal=k=first"]).await;
    kubectl.must(&["create", "secret", "generic", "live", "--from-literal=s=hidden"]).await;
    phase(cluster, "live", "Running").await;
    let reads = async |path: &str, wanted: &str| {
        let text = async || cluster.kubectl().run(&["exec", "live", "--", "cat", path]).await.unwrap_or_default();
        cluster.until(&format!("{path} says {wanted}"), async || text().await.contains(wanted)).await;
    };
    reads("/map/k", "first").await;
    kubectl.must(&["patch", "configmap", "live", "-p", r#"{"data":{"k":"second","more":"file"}}"#]).await;
    reads("/map/k", "second").await;
    reads("/map/more", "file").await;
    kubectl.must(&["patch", "secret", "live", "-p", r#"{"stringData":{"s":"found"}}"#]).await;
    reads("/all/s", "found").await;
    kubectl.must(&["label", "pod", "live", "colour=blue"]).await;
    reads("/all/labels", "colour=\"blue\"").await;
    // What is gone leaves a running pod what it had.
    kubectl.must(&["delete", "configmap", "live"]).await;
    kubectl.must(&["create", "configmap", "live", "--from-literal=k=third"]).await;
    reads("/map/k", "third").await;
    kubectl.must(&["delete", "pod", "live"]).await;
    kubectl.must(&["delete", "configmap,secret", "live"]).await;
}

/// A container's own policy and rules say whether it is run again, whatever its pod's says.
async fn restarts(cluster: &Cluster<'_>) {
    let line = "n=$(cat /d/n 2>/dev/null || echo 0); echo $((n + 1)) > /d/n; [ $n -ge 1 ] && exit 7; exit 42";
    let volume = ", restartPolicy: Always, volumes: [{name: d, emptyDir: {}}]";
    let ruled = ", restartPolicy: Never, volumeMounts: [{name: d, mountPath: /d}], \
                 restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]";
    cluster.apply(&pod("ruled", line, volume, ruled)).await;
    phase(cluster, "ruled", "Failed").await;
    let status = async |of: &str| cluster.field("pod", "ruled", &format!(".status.containerStatuses[0].{of}")).await;
    assert_eq!(status("restartCount").await, "1");
    assert_eq!(
        (status("state.terminated.exitCode").await, status("lastState.terminated.exitCode").await),
        ("7".into(), "42".into())
    );
    // Where an init container gives up, so does its pod.
    let init = format!(
        ", initContainers: [{{name: once, image: \"{IMAGE}\", command: [sh, -c, 'exit 3'], restartPolicy: Never}}]"
    );
    cluster.apply(&pod("given-up", "sleep 1000", &init, "")).await;
    phase(cluster, "given-up", "Failed").await;
    cluster.kubectl().must(&["delete", "pod", "ruled", "given-up"]).await;
}

/// An image is mounted, whole and in part, and told of; one that cannot be had keeps its container waiting, and no other.
async fn image_volumes(cluster: &Cluster<'_>) {
    let kubectl = cluster.kubectl();
    let volume = |image: &str, policy: &str| {
        format!(", volumes: [{{name: v, image: {{reference: \"{image}\", pullPolicy: {policy}}}}}]")
    };
    let mounts = ", volumeMounts: [{name: v, mountPath: /whole}, {name: v, mountPath: /part, subPath: bin}]";
    let line = "exec 2>&1; /part/busybox echo it runs; touch /whole/x || echo read-only; sleep 1000";
    cluster.apply(&pod("mounts", line, &volume(IMAGE, "IfNotPresent"), mounts)).await;
    phase(cluster, "mounts", "Running").await;
    let said = "it runs\ntouch: /whole/x: Read-only file system\nread-only\n";
    cluster
        .until("it says what it mounts", async || kubectl.run(&["logs", "mounts"]).await.is_ok_and(|log| log == said))
        .await;
    let told = ".status.containerStatuses[0].volumeMounts[0].volumeStatus.image.imageRef";
    assert!(cluster.field("pod", "mounts", told).await.starts_with("sha256:"));
    let reason = ".status.containerStatuses[0].state.waiting.reason";
    for (name, volume, wanted) in [
        ("never", volume("gantry.local/none:1", "Never"), "ErrImageNeverPull"),
        ("wrong", volume("UPPER", "IfNotPresent"), "InvalidImageName"),
        ("nowhere", volume("127.0.0.1:1/none:1", "IfNotPresent"), "ErrImagePull"),
    ] {
        cluster.apply(&pod(name, "true", &volume, mounts)).await;
        cluster.until(wanted, async || cluster.field("pod", name, reason).await == wanted).await;
    }
    let missing = mounts.replace("subPath: bin", "subPath: none");
    cluster.apply(&pod("missing", "true", &volume(IMAGE, "Never"), &missing)).await;
    cluster
        .until("a part that is not there is told", async || {
            cluster.field("pod", "missing", reason).await == "CreateContainerError"
        })
        .await;
    let words = cluster.field("pod", "missing", ".status.containerStatuses[0].state.waiting.message").await;
    assert!(words.contains("has nothing at \"none\""), "{words}");
    kubectl.must(&["delete", "pod", "mounts", "never", "wrong", "nowhere", "missing"]).await;
}
