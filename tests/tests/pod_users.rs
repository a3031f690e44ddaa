//! `hostUsers: false` from kubectl to the kernel: pods whose users are nobody on the host, with everything that pods have.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use gantry_tests::cluster::{Cluster, IMAGE, with};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// A pod of one container, with more of its own for pod and container.
fn pod(name: &str, line: &str, of_pod: &str, of_container: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 0, \
         hostUsers: false{of_pod}, containers: [{{name: main, image: \"{IMAGE}\", command: [sh, -c, {line:?}]{of_container}}}]}}}}"
    )
}

async fn runs(cluster: &Cluster<'_>, name: &str) {
    let what = format!("{name} runs");
    cluster.until(&what, async || cluster.field("pod", name, ".status.phase").await == "Running").await;
}

async fn exec(cluster: &Cluster<'_>, name: &str, line: &str) -> String {
    cluster.kubectl().must(&["exec", name, "--", "sh", "-c", line]).await.trim().to_owned()
}

/// The first id on the host of a pod's users, as its container sees it; its first process is nobody else to the host.
async fn first_id(cluster: &Cluster<'_>, name: &str) -> u32 {
    let uid = cluster.field("pod", name, ".metadata.uid").await;
    let (.., pid) = cluster.running().await.into_iter().find(|(of, ..)| *of == uid).expect("it runs");
    let map = exec(cluster, name, "cat /proc/self/uid_map").await;
    let words: Vec<u32> = map.split_whitespace().map(|word| word.parse().expect("a number")).collect();
    let [0, first, 65_536] = words[..] else { panic!("{map}") };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let ids: BTreeSet<&str> = status
        .lines()
        .filter_map(|line| line.strip_prefix("Uid:").or_else(|| line.strip_prefix("Gid:")))
        .flat_map(str::split_whitespace)
        .collect();
    assert_eq!(ids.into_iter().collect::<Vec<_>>(), [first.to_string()], "{status}");
    assert!(first >= 65_536 && first.is_multiple_of(65_536), "{first}");
    first
}

/// Where this machine has none, that is loud: the tests' own machine has.
async fn are_here(cluster: &Cluster<'_>) -> bool {
    cluster.until("the node is ready", async || cluster.ready().await).await;
    let feature = "jsonpath={.items[0].status.runtimeHandlers[0].features.userNamespaces}";
    if cluster.kubectl().must(&["get", "nodes", "-o", feature]).await == "true" {
        return true;
    }
    assert!(std::env::var_os("GANTRY_VM_PATIENCE").is_none(), "the tests' own machine has user namespaces");
    eprintln!("SKIPPED, WITH EVERYTHING THAT IT PROVES: this kernel maps no ids; run `vm run pod_users --on uml-6.12`");
    false
}

#[test]
fn a_pods_users_are_nobody_on_the_host() {
    with(async |machine| {
        let mut cluster = Cluster::up(machine).await;
        if are_here(&cluster).await {
            everything_of_a_pod(&cluster).await;
            refused(&cluster).await;
            killed(&mut cluster).await;
        }
        cluster.uninstall().await;
    });
}

async fn everything_of_a_pod(cluster: &Cluster<'_>) {
    let kubectl = cluster.kubectl();
    let folder = cluster.machine().root().join("of-the-host");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join("given"), "by the host").expect("a file");
    kubectl.must(&["create", "configmap", "words", "--from-literal=k=configured"]).await;
    kubectl.must(&["create", "secret", "generic", "hidden", "--from-literal=s=secret"]).await;
    let volumes = format!(
        ", securityContext: {{fsGroup: 2000}}, volumes: [{{name: map, configMap: {{name: words}}}}, \
         {{name: secret, secret: {{secretName: hidden, defaultMode: 256}}}}, {{name: empty, emptyDir: {{}}}}, \
         {{name: memory, emptyDir: {{medium: Memory}}}}, {{name: host, hostPath: {{path: \"{}\"}}}}]",
        folder.display()
    );
    let mounts = ", volumeMounts: [{name: map, mountPath: /map}, {name: map, mountPath: /key, subPath: k}, \
                  {name: secret, mountPath: /secret}, {name: empty, mountPath: /empty}, {name: memory, mountPath: /memory}, \
                  {name: host, mountPath: /host}], securityContext: {procMount: Unmasked}";
    let line = "echo started as $(id -u); cat /map/k /secret/s; echo; exec nc -ll -p 9000 -e cat";
    cluster.apply(&pod("own", line, &volumes, mounts)).await;
    runs(cluster, "own").await;
    first_id(cluster, "own").await;
    let logs = async || kubectl.run(&["logs", "own"]).await.unwrap_or_default();
    cluster.until("it has said all", async || logs().await.contains("secret")).await;
    assert!(logs().await.starts_with("started as 0\nconfigured"), "{}", logs().await);

    // Files have the owners that they have for a pod with the host's users.
    let owners =
        exec(cluster, "own", "stat -L -c %u:%g /map/k /key /secret/s /empty /memory /host/given /etc/hosts").await;
    let group = "0:2000";
    assert_eq!(owners.lines().collect::<Vec<_>>(), [group, group, group, group, group, "0:0", "0:0"]);
    let token = "cat /var/run/secrets/kubernetes.io/serviceaccount/token | wc -c";
    assert!(exec(cluster, "own", token).await.parse::<u32>().is_ok_and(|length| length > 100));
    let write = "echo x > /host/made && echo x > /empty/made && echo x > /memory/made && echo x >> /etc/hosts && \
                 echo words > /dev/termination-log && touch /anywhere && cat /host/given";
    assert_eq!(exec(cluster, "own", write).await, "by the host");
    let made = std::fs::metadata(folder.join("made")).expect("it is there");
    assert_eq!((made.uid(), made.gid()), (0, 0));
    // Nothing hides what the kernel shows in its own /proc.
    assert_eq!(exec(cluster, "own", "grep -c ' /proc/' /proc/mounts || true").await, "0");

    let mut command = kubectl.command(&["port-forward", "own", ":9000", "--address=127.0.0.1"]);
    let mut forward = command.stdout(Stdio::piped()).spawn().expect("kubectl");
    let mut words = BufReader::new(forward.stdout.take().expect("a pipe")).lines();
    let line = words.next_line().await.expect("it speaks").unwrap_or_default();
    let port = line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.split(' ').next());
    let port: u16 = port.and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("{line}"));
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    stream.write_all(b"there and back").await.expect("it takes");
    let mut back = [0; 14];
    stream.read_exact(&mut back).await.expect("it answers");
    assert_eq!(&back, b"there and back");
    forward.kill().await.expect("it is ours");

    // Beside each other: containers that share their processes, and a probe that runs a command.
    let shared = ", shareProcessNamespace: true";
    let probed = ", readinessProbe: {exec: {command: [test, -e, /proc/self]}, periodSeconds: 1}, \
                  securityContext: {capabilities: {add: [SYS_ADMIN]}}";
    cluster.apply(&pod("other", "sleep 100000", shared, probed)).await;
    runs(cluster, "other").await;
    let ready = ".status.conditions[?(@.type=='Ready')].status";
    cluster.until("its probe succeeds", async || cluster.field("pod", "other", ready).await == "True").await;
    assert_ne!(first_id(cluster, "own").await, first_id(cluster, "other").await, "no pod has another's users");
    assert_eq!(
        exec(cluster, "other", "cat /proc/1/comm; mkdir /m && mount -t tmpfs none /m && echo mounted").await,
        "gantry-init\nmounted"
    );
}

/// What cannot be together is refused where it is asked for, with its path.
async fn refused(cluster: &Cluster<'_>) {
    for (field, path) in [("hostNetwork", "spec.hostNetwork"), ("hostPID", "spec.hostPID"), ("hostIPC", "spec.hostIPC")]
    {
        let manifest = pod("refused", "true", &format!(", {field}: true"), "");
        let error = cluster.kubectl().with_input(&["apply", "-f", "-"], &manifest).await.unwrap_err();
        assert!(error.contains(path) && error.contains("when `hostUsers` is false"), "{error}");
    }
    let unmasked = pod("refused", "true", "", ", securityContext: {procMount: Unmasked}")
        .replace("hostUsers: false", "hostUsers: true");
    let error = cluster.kubectl().with_input(&["apply", "-f", "-"], &unmasked).await.unwrap_err();
    assert!(error.contains("`hostUsers` must be false to use `Unmasked`"), "{error}");
}

/// Whoever of ours is killed finds pods and their users again; ids that a pod had are free when it has gone.
async fn killed(cluster: &mut Cluster<'_>) {
    let (own, other) = (first_id(cluster, "own").await, first_id(cluster, "other").await);
    for supervisor in cluster.supervisors().await {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(supervisor), nix::sys::signal::SIGKILL);
    }
    cluster.kill("up").await;
    cluster.start("up").await;
    cluster
        .until("commands run there again", async || {
            cluster.kubectl().run(&["exec", "own", "--", "true"]).await.is_ok()
                && cluster.kubectl().run(&["exec", "other", "--", "true"]).await.is_ok()
        })
        .await;
    assert_eq!((first_id(cluster, "own").await, first_id(cluster, "other").await), (own, other));
    cluster.kubectl().must(&["delete", "pod", "own"]).await;
    cluster.apply(&pod("next", "sleep 100000", "", "")).await;
    runs(cluster, "next").await;
    assert_ne!(first_id(cluster, "next").await, other);
    cluster.kubectl().must(&["delete", "pod", "next", "other"]).await;
}
