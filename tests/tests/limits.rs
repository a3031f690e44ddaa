//! What a pod may take of its node, as the pod itself sees it and as its user is told: limits, out of memory, devices. The
//! same file runs on whichever version of cgroups the host has.

use gantry_tests::cluster::{Cluster, IMAGE, with};

/// A file of the cgroup that a process is in: `controller` names the hierarchy on version 1.
fn read(pid: i64, controller: &str, v1: &str, v2: &str) -> String {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let of = |wanted: &str| {
        let mut lines = groups.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
        lines.find(|(controllers, _)| controllers.split(',').any(|c| c == wanted)).map(|(_, path)| path.to_owned())
    };
    let file = match of(controller) {
        Some(path) => format!("/sys/fs/cgroup/{controller}{path}/{v1}"),
        None => format!("/sys/fs/cgroup{}/{v2}", of("").expect("a cgroup")),
    };
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}")).trim().to_owned()
}

fn quota(pid: i64) -> String {
    read(pid, "cpu", "cpu.cfs_quota_us", "cpu.max").split(' ').next().unwrap_or_default().to_owned()
}

fn memory(pid: i64) -> String {
    read(pid, "memory", "memory.limit_in_bytes", "memory.max")
}

fn weight(pid: i64) -> u64 {
    read(pid, "cpu", "cpu.shares", "cpu.weight").parse().unwrap()
}

fn container(name: &str, script: &str, resources: &str) -> String {
    format!("{{name: {name}, image: \"{IMAGE}\", command: [sh, -c, {script:?}], resources: {{{resources}}}}}")
}

fn pod(name: &str, containers: &[String]) -> String {
    let containers = containers.join(", ");
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, \
         spec: {{terminationGracePeriodSeconds: 0, restartPolicy: Never, containers: [{containers}]}}}}"
    )
}

/// A line of a container's log that begins with `word`, once it is there.
async fn said(cluster: &Cluster<'_>, pod: &str, container: &str, word: &str) -> String {
    let log = async || cluster.kubectl().run(&["logs", pod, "-c", container]).await.unwrap_or_default();
    let line = async || log().await.lines().find_map(|l| l.strip_prefix(word)).map(|rest| rest.trim().to_owned());
    cluster.until(&format!("{pod}/{container} says {word}"), async || line().await.is_some()).await;
    line().await.unwrap_or_default()
}

#[test]
fn a_container_has_the_limits_that_it_asked_for() {
    with(async |machine| {
        let cluster = Cluster::up(machine).await;
        let little = "requests: {cpu: 100m}, limits: {cpu: 500m, memory: 64Mi}";
        let much = "requests: {cpu: 400m}, limits: {cpu: 1500m, memory: 96Mi}";
        let script = "mkdir /sys/fs/cgroup/made 2>/dev/null || echo no cgroup made; exec sleep 3600";
        cluster.apply(&pod("limited", &[container("little", script, little), container("much", script, much)])).await;
        said(&cluster, "limited", "little", "no cgroup made").await;
        said(&cluster, "limited", "much", "no cgroup made").await;
        let running = cluster.running().await;
        let pid = |name: &str| running.iter().find(|(_, container, ..)| container == name).expect("it runs").3;
        let (little, much) = (pid("little"), pid("much"));
        assert_eq!((quota(little), memory(little)), ("50000".to_owned(), (64 << 20).to_string()));
        assert_eq!((quota(much), memory(much)), ("150000".to_owned(), (96 << 20).to_string()));
        assert!(weight(little) < weight(much), "{} and {}", weight(little), weight(much));
        cluster.uninstall().await;
    });
}

#[test]
fn only_the_container_that_took_too_much_is_killed() {
    with(async |machine| {
        let cluster = Cluster::up(machine).await;
        let greedy = container("greedy", "tail /dev/zero", "limits: {memory: 32Mi}");
        let modest = container("modest", "sleep 3600", "limits: {memory: 32Mi}");
        cluster.apply(&pod("hungry", &[greedy, modest])).await;
        let state = |name: &str, path: &str| format!(".status.containerStatuses[?(@.name==\"{name}\")].state.{path}");
        let field = async |name: &str, path: &str| cluster.field("pod", "hungry", &state(name, path)).await;
        cluster.until("it is over", async || !field("greedy", "terminated.reason").await.is_empty()).await;
        assert_eq!(field("greedy", "terminated.reason").await, "OOMKilled");
        assert_eq!(field("greedy", "terminated.exitCode").await, "137");
        assert!(!field("modest", "running.startedAt").await.is_empty());
        cluster.uninstall().await;
    });
}

/// A default container may make device nodes, and may open none but the harmless ones.
#[test]
fn a_made_device_cannot_be_opened() {
    with(async |machine| {
        let cluster = Cluster::up(machine).await;
        // The host's memory (1, 1), and whatever block device has the number of the first disk.
        let script = "mknod /mem c 1 1; mknod /disk b 8 0; \
            for device in /mem /disk; do head -c 1 $device >/dev/null 2>/tmp/why && echo opened $device; cat /tmp/why; done; \
            head -c 1 /dev/zero >/dev/null && echo end";
        cluster.apply(&pod("devices", &[container("main", script, "")])).await;
        said(&cluster, "devices", "main", "end").await;
        let log = cluster.kubectl().must(&["logs", "devices"]).await;
        assert!(!log.contains("opened") && log.matches("Operation not permitted").count() == 2, "{log}");
        cluster.uninstall().await;
    });
}
