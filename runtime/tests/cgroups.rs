//! What cgroups hold a pod and its containers to: devices, limits of the pod and of its class, changes of limits.

mod ground;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use gantry_cri::v1;
use ground::{Client, Ground, with};

const MIB: i64 = 1 << 20;

/// Opens a device that every container has; makes and opens the host's kernel log and a disk of it; opens a node that came
/// with the image, the host's console and tun, and one that the container may be given. Nothing is written.
const DEVICES: &str = "exec 2>/dev/null; true > /dev/null && echo null; busybox mknod /log c 1 11 && echo made; \
                       true > /log && echo log; busybox mknod /disk b $DISK && true < /disk && echo disk; \
                       true > /of-the-image && echo image; \
                       for n in '5 1' '10 200'; do busybox mknod /n c $n; true < /n && echo $n; busybox rm /n; done; \
                       [ -c /dev/given ] || exit 0; \
                       true < /dev/given && echo read; true > /dev/given && echo written; true";

/// "major minor" of a disk of this machine that its root may open.
fn disk(ground: &Ground) -> String {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    let node = ground.dir.path().join("disk");
    let opens = |number: &String| {
        let (major, minor) = number.split_once(' ').expect("two numbers");
        let number = makedev(major.parse().expect("a number"), minor.parse().expect("a number"));
        mknod(&node, SFlag::S_IFBLK, Mode::S_IRUSR, number).expect("a node");
        let opened = std::fs::File::open(&node).is_ok();
        std::fs::remove_file(&node).expect("it goes");
        opened
    };
    let disks = std::fs::read_dir("/sys/block").expect("block devices").flatten();
    let numbers = disks.filter_map(|e| std::fs::read_to_string(e.path().join("dev")).ok());
    numbers.map(|n| n.trim().replace(':', " ")).find(opens).expect("a disk")
}

async fn said(
    ground: &Ground,
    client: &Client,
    name: &str,
    change: impl FnOnce(&mut v1::ContainerConfig),
) -> Vec<String> {
    let config = ground.pod(name);
    let pod = client.run_pod(&config).await;
    let mut container = ground.container(name, &["sh", "-c", DEVICES]);
    container.image = Some(v1::ImageSpec { image: "test.invalid/nodes:1".into(), ..v1::ImageSpec::default() });
    container.envs = vec![v1::KeyValue { key: "DISK".into(), value: disk(ground).into() }];
    // Limits too: where the host has no controller for them, they are left out and the container runs.
    container.linux.as_mut().expect("it has one").resources = Some(v1::LinuxContainerResources {
        cpu_shares: 512,
        cpu_quota: 50_000,
        memory_limit_in_bytes: 64 * MIB,
        ..v1::LinuxContainerResources::default()
    });
    change(&mut container);
    let id = client.create(&pod, container, &config).await.expect("created");
    client.start(&id).await.expect("started");
    assert_eq!(client.ended(&id).await.exit_code, 0);
    client.remove_pod(&pod).await;
    ground.lines(&format!("{name}.log"))
}

async fn only_its_own_devices(ground: Ground) {
    let (runtime, client) = ground.start().await;
    let mut layer = ground::busybox_tar();
    ground::node(&mut layer, "of-the-image", 1, 11);
    ground::import_layer(&runtime, "test.invalid/nodes:1", layer.finish()).await;
    assert_eq!(said(&ground, &client, "plain", |_| {}).await, ["null", "made"]);
    let given = |c: &mut v1::ContainerConfig| {
        c.devices = vec![v1::Device {
            container_path: "/dev/given".into(),
            host_path: "/dev/kmsg".into(),
            permissions: "w".into(),
        }];
    };
    // It is one device, by whatever name.
    assert_eq!(said(&ground, &client, "given", given).await, ["null", "made", "log", "image", "written"]);
    let privileged = |c: &mut v1::ContainerConfig| {
        c.linux.as_mut().and_then(|l| l.security_context.as_mut()).expect("it has one").privileged = true;
    };
    assert_eq!(said(&ground, &client, "all", privileged).await[..5], ["null", "made", "log", "disk", "image"]);
    ground::finish(runtime).await;
}

#[test]
fn a_container_opens_no_device_of_the_host() {
    with(only_its_own_devices);
}

#[test]
fn a_container_opens_no_device_of_the_host_on_v2() {
    with(|ground| {
        ground::with_v2_only();
        only_its_own_devices(ground)
    });
}

fn hierarchies() -> Vec<PathBuf> {
    let below = std::fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten().map(|e| e.path());
    below.chain([PathBuf::from("/sys/fs/cgroup")]).collect()
}

/// A cgroup's file, in whichever hierarchy it is: v1's name and v2's.
fn read(cgroup: &str, v1: &str, v2: &str) -> Option<String> {
    let mut files = hierarchies().into_iter().flat_map(|hierarchy| {
        let folder = hierarchy.join(cgroup.trim_start_matches('/'));
        [folder.join(v1), folder.join(v2)]
    });
    files.find_map(|file| std::fs::read_to_string(file).ok()).map(|text| text.trim().to_owned())
}

/// What v1 or v2 says.
fn either(v1: &str, v2: &str) -> Option<String> {
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    Some(if unified { v2 } else { v1 }.to_owned())
}

fn pod_in(ground: &Ground, name: &str, cgroup: &str, resources: v1::LinuxContainerResources) -> v1::PodSandboxConfig {
    let mut config = ground.pod(name);
    let linux = config.linux.as_mut().expect("it has one");
    linux.cgroup_parent = cgroup.to_owned();
    linux.resources = Some(resources);
    config
}

fn shares(cpu_shares: i64) -> v1::LinuxContainerResources {
    v1::LinuxContainerResources { cpu_shares, ..v1::LinuxContainerResources::default() }
}

#[test]
fn a_pod_and_its_class_have_limits_of_their_own() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let root = ground.config.cgroup_parent.clone();
        let pod = format!("{root}/burstable/pod1");
        let limits = v1::LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: 50_000,
            memory_limit_in_bytes: 64 * MIB,
            unified: HashMap::from([("pids.max".to_owned(), "77".to_owned())]),
            ..shares(512)
        };
        let config = pod_in(&ground, "one", &pod, limits.clone());
        let one = client.run_pod(&config).await;
        // The quota stands again when a container has been made, or could not be.
        for (name, command, starts) in [("good", "true", true), ("bad", "/nowhere", false)] {
            let id = client.create(&one, ground.container(name, &[command]), &config).await.unwrap();
            assert_eq!(client.start(&id).await.is_ok(), starts);
            client.ended(&id).await;
            assert_eq!(read(&pod, "cpu.cfs_quota_us", "cpu.max"), either("50000", "50000 100000"));
        }
        assert_eq!(read(&pod, "cpu.shares", "cpu.weight"), either("512", "20"));
        assert_eq!(read(&pod, "memory.limit_in_bytes", "memory.max"), Some((64 * MIB).to_string()));
        assert_eq!(read(&pod, "pids.max", "pids.max").as_deref(), Some("77"));

        let class = |name: &str| read(&format!("{root}/{name}"), "cpu.shares", "cpu.weight");
        assert_eq!(class("burstable"), either("512", "20"));
        let two = client.run_pod(&pod_in(&ground, "two", &format!("{root}/burstable/pod2"), shares(1024))).await;
        assert_eq!(class("burstable"), either("1536", "59"));
        for name in ["three", "four"] {
            client.run_pod(&pod_in(&ground, name, &format!("{root}/besteffort/{name}"), shares(2))).await;
        }
        assert_eq!(class("besteffort"), either("2", "1"));
        client.remove_pod(&two).await;
        assert_eq!(class("burstable"), either("512", "20"));

        // Another's cgroup is left as it is.
        let other = format!("/gantry-test-other-{}", std::process::id());
        let theirs = client.run_pod(&pod_in(&ground, "five", &format!("{other}/pod5"), limits)).await;
        assert_eq!(read(&format!("{other}/pod5"), "cpu.shares", "cpu.weight"), either("1024", "100"));
        assert_eq!(read(&other, "cpu.shares", "cpu.weight"), either("1024", "100"));
        client.remove_pod(&theirs).await;
        client.remove_pod(&one).await;
        ground::finish(runtime).await;
        for hierarchy in hierarchies() {
            let _ = std::fs::remove_dir(hierarchy.join(other.trim_start_matches('/')));
        }
    });
}

#[test]
fn a_setting_that_is_no_controllers_file_is_refused() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let mut resources = shares(0);
        resources.unified = HashMap::from([("../memory.max".to_owned(), "1".to_owned())]);
        let config = pod_in(&ground, "bad", "", resources.clone());
        let request = v1::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
        let refused = client.runtime.clone().run_pod_sandbox(request).await.expect_err("it leads elsewhere");
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        assert!(refused.message().contains("../memory.max"), "{refused}");
        let config = ground.pod("good");
        let pod = client.run_pod(&config).await;
        let mut container = ground.container("bad", &["true"]);
        container.linux.as_mut().expect("it has one").resources = Some(resources);
        let refused = client.create(&pod, container, &config).await.expect_err("it leads elsewhere");
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

async fn update(client: &Client, id: &str, limits: v1::LinuxContainerResources) -> Result<(), tonic::Status> {
    let request = v1::UpdateContainerResourcesRequest {
        container_id: id.into(),
        linux: Some(limits),
        ..v1::UpdateContainerResourcesRequest::default()
    };
    client.runtime.clone().update_container_resources(request).await.map(drop)
}

fn limits(cpu_quota: i64, memory: i64) -> v1::LinuxContainerResources {
    v1::LinuxContainerResources { cpu_quota, memory_limit_in_bytes: memory, ..v1::LinuxContainerResources::default() }
}

#[test]
fn limits_change_before_and_after_a_start() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let config = ground.pod("changes");
        let pod = client.run_pod(&config).await;
        let mut container = ground.container("changes", &["sleep", "1000"]);
        container.linux.as_mut().expect("it has one").resources = Some(limits(50_000, 32 * MIB));
        let id = client.create(&pod, container, &config).await.unwrap();
        let cgroup = format!("{}/{pod}/{id}", ground.config.cgroup_parent);
        let quota = || read(&cgroup, "cpu.cfs_quota_us", "cpu.max");
        let memory = || read(&cgroup, "memory.limit_in_bytes", "memory.max");
        update(&client, &id, limits(60_000, 48 * MIB)).await.unwrap();
        assert_eq!(memory(), None, "it has no cgroup before it is started");
        client.start(&id).await.unwrap();
        assert_eq!((quota(), memory()), (either("60000", "60000 100000"), Some((48 * MIB).to_string())));
        for new in [96 * MIB, 64 * MIB] {
            update(&client, &id, limits(70_000, new)).await.unwrap();
            assert_eq!((quota(), memory()), (either("70000", "70000 100000"), Some(new.to_string())));
        }
        client.remove_pod(&pod).await;
        assert_eq!(update(&client, &id, limits(1000, MIB)).await.unwrap_err().code(), tonic::Code::NotFound);
        ground::finish(runtime).await;
    });
}

#[test]
fn a_change_of_limits_brings_nothing_back() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let config = ground.pod("ends");
        let pod = client.run_pod(&config).await;
        for attempt in 0..5 {
            let mut container = ground.container("ends", &["sleep", "0.1"]);
            container.metadata.as_mut().expect("it has one").attempt = attempt;
            let id = client.create(&pod, container, &config).await.unwrap();
            client.start(&id).await.unwrap();
            // It ends in the middle of one of these.
            while client.status(&id).await.state() != v1::ContainerState::ContainerExited {
                for _ in 0..20 {
                    update(&client, &id, limits(50_000, 32 * MIB)).await.unwrap();
                }
            }
            update(&client, &id, limits(50_000, 32 * MIB)).await.unwrap();
            assert_eq!(client.ended(&id).await.exit_code, 0);
            // Once swept, its cgroup does not come back either.
            let cgroup = format!("{}/{pod}/{id}", ground.config.cgroup_parent);
            while read(&cgroup, "tasks", "cgroup.procs").is_some() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            update(&client, &id, limits(60_000, 64 * MIB)).await.unwrap();
            assert_eq!(read(&cgroup, "tasks", "cgroup.procs"), None);
            assert_eq!(client.status(&id).await.state(), v1::ContainerState::ContainerExited);
        }
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}
