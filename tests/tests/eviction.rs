//! A node whose disk fills: it says so, makes room, evicts who took the room, and takes pods again.

use gantry_tests::cluster::{Cluster, IMAGE, NODE, with};
use gantry_tests::image::Build;
use nix::mount::{MsFlags, mount, umount};

/// Gantry's disk, of which a half is to stay free.
const DISK_BYTES: u64 = 256 << 20;
const THRESHOLDS: [&str; 3] = [
    "--eviction-hard=nodefs.available<50%",
    "--eviction-pressure-transition-period=3s",
    "--minimum-image-ttl-duration=0",
];

fn pod(name: &str, policy: &str, script: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{restartPolicy: {policy}, \
         terminationGracePeriodSeconds: 0, volumes: [{{name: v, emptyDir: {{}}}}], containers: [{{name: main, \
         image: \"{IMAGE}\", command: [sh, -c, {script:?}], volumeMounts: [{{name: v, mountPath: /v}}]}}]}}}}\n"
    )
}

#[test]
fn who_fills_the_disk_is_evicted_and_what_nobody_misses_goes_before() {
    with(async |machine| {
        let state = machine.root().join("var/lib/gantry");
        std::fs::create_dir_all(&state).unwrap();
        let data = format!("size={DISK_BYTES},mode=0700");
        mount(Some("disk"), &state, Some("tmpfs"), MsFlags::empty(), Some(data.as_str())).unwrap();
        let mut cluster = Cluster::up_with(machine, &THRESHOLDS).await;
        let kubectl = cluster.kubectl();
        import(&cluster, "gantry.local/unused:1").await;
        cluster.apply(&pod("modest", "Always", "dd if=/dev/zero of=/v/x bs=1M count=4; exec sleep 3600")).await;
        cluster.apply(&pod("done", "Never", "dd if=/dev/zero of=/x bs=1M count=16")).await;
        cluster
            .until("one has ended", async || cluster.field("pod", "done", ".status.phase").await == "Succeeded")
            .await;
        cluster.until("one runs", async || cluster.field("pod", "modest", ".status.phase").await == "Running").await;
        let images = async || machine.run(&["image", "list"]).await.unwrap();
        assert!(images().await.contains("unused"));
        let uid = cluster.field("pod", "modest", ".metadata.uid").await;
        let done = cluster.field("pod", "done", ".metadata.uid").await;
        assert!(layers(&cluster, &done).await > 0);
        // What would become of the images is told, by the same plan, and nothing becomes of them.
        let told = machine.run(&["image", "prune", "--dry-run"]).await.unwrap();
        let line = |name: &str| told.lines().find(|line| line.contains(name)).unwrap_or_default().to_owned();
        assert!(line("unused").ends_with("would go"), "{told}");
        assert!(line("demo").contains("kept: used by container main of pod default/"), "{told}");
        assert!(images().await.contains("unused"));

        cluster.apply(&pod("greedy", "Always", "dd if=/dev/zero of=/v/x bs=1M count=140; exec sleep 3600")).await;
        let greedy = async |path: &str| cluster.field("pod", "greedy", path).await;
        cluster.until("it is evicted", async || greedy(".status.reason").await == "Evicted").await;
        let message = greedy(".status.message").await;
        assert!(
            message
                .starts_with("The node was low on resource: ephemeral-storage. Threshold quantity: 128Mi, available: "),
            "{message}"
        );
        cluster.until("it has ended", async || greedy(".status.phase").await == "Failed").await;
        let disruption = ".status.conditions[?(@.type==\"DisruptionTarget\")].reason";
        assert_eq!(greedy(disruption).await, "TerminationByKubelet");
        // What was of no use to anybody went first.
        assert!(!images().await.contains("unused"));
        assert!(images().await.contains("demo"), "an image that is used was removed");
        assert_eq!(layers(&cluster, &done).await, 0);
        assert_eq!(cluster.field("pod", "done", ".status.containerStatuses[0].state.terminated.exitCode").await, "0");

        // The node showed it, and shows it no more once there is room.
        let events = kubectl.must(&["get", "events", "-A"]).await;
        assert!(events.contains("EvictionThresholdMet") && events.contains("Evicted"), "{events}");
        let pressure = ".status.conditions[?(@.type==\"DiskPressure\")].status";
        cluster.until("there is room again", async || cluster.field("node", NODE, pressure).await == "False").await;
        let taints = async || cluster.field("node", NODE, ".spec.taints").await;
        cluster.until("the node takes pods again", async || !taints().await.contains("disk-pressure")).await;
        cluster.apply(&pod("next", "Always", "exec sleep 3600")).await;
        cluster
            .until("the next one runs", async || cluster.field("pod", "next", ".status.phase").await == "Running")
            .await;
        assert_eq!(cluster.field("pod", "modest", ".metadata.uid").await, uid);
        assert_eq!(cluster.field("pod", "modest", ".status.phase").await, "Running");
        assert_eq!(cluster.field("pod", "modest", ".status.containerStatuses[0].restartCount").await, "0");
        // Who asks for it has what would go gone, and what is kept told of with its reason.
        import(&cluster, "gantry.local/unused:2").await;
        let would = machine.run(&["image", "prune", "--dry-run"]).await.unwrap();
        let pruned = machine.run(&["image", "prune"]).await.unwrap();
        let line =
            |told: &str, name: &str| told.lines().find(|line| line.contains(name)).unwrap_or_default().to_owned();
        assert!(line(&would, "unused:2").ends_with("would go"), "{would}");
        assert!(line(&pruned, "unused:2").ends_with("gone"), "{pruned}");
        assert!(line(&pruned, "demo").contains("kept: used by container main of pod default/"), "{pruned}");
        let freed = |told: &str, word: &str| told.lines().find_map(|line| line.strip_prefix(word).map(str::to_owned));
        assert_eq!(freed(&would, "would be freed"), freed(&pruned, "freed"), "{would}{pruned}");
        assert!(!images().await.contains("unused") && images().await.contains("demo"));
        cluster.down().await;
        umount(&state).unwrap();
        cluster.uninstall().await;
    });
}

async fn import(cluster: &Cluster<'_>, name: &str) {
    let mut build = Build::scratch();
    build.file("large", 0o644, vec![7; 8 << 20]);
    let archive = cluster.machine().root().join("unused.tar");
    std::fs::write(&archive, build.build().archive(name)).expect("an archive");
    cluster.machine().run(&["image", "import", &archive.display().to_string()]).await.expect("it is imported");
}

/// Containers of a pod that the runtime keeps, running or ended.
async fn layers(cluster: &Cluster<'_>, uid: &str) -> usize {
    let mut cri = gantry_cri::RuntimeServiceClient::new(gantry_cri::connect::unix(
        &cluster.machine().root().join("run/gantry/cri.sock"),
    ));
    let list =
        cri.list_containers(gantry_cri::v1::ListContainersRequest::default()).await.expect("a list").into_inner();
    list.containers.iter().filter(|c| c.labels.get("io.kubernetes.pod.uid").is_some_and(|of| of == uid)).count()
}
