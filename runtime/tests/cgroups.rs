//! What cgroups hold a pod and its containers to: devices, limits of the pod and of its class, changes of limits.

mod ground;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

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
    // That a pod may have privileged containers opens nothing to the others.
    let config = ground.privileged_pod(name);
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

#[test]
fn only_who_is_privileged_divides_its_cgroup() {
    with(|ground| async move {
        if !unified() {
            eprintln!("SKIPPED: cgroups made from within: this host has cgroup v1");
            return;
        }
        let (runtime, client) = ground.start().await;
        let config = ground.privileged_pod("pod");
        let pod = client.run_pod(&config).await;
        for (name, privileged, wanted) in [("plain", false, ["refused"]), ("all", true, ["made"])] {
            let script = "mkdir /sys/fs/cgroup/made 2>/dev/null && echo made || echo refused";
            let mut container = ground.container(name, &["sh", "-c", script]);
            container.linux.as_mut().and_then(|l| l.security_context.as_mut()).expect("it has one").privileged =
                privileged;
            let id = client.create(&pod, container, &config).await.unwrap();
            client.start(&id).await.unwrap();
            client.ended(&id).await;
            assert_eq!(ground.lines(&format!("{name}.log")), wanted);
        }
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
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
        assert_eq!(read(&pod, "cpu.shares", "cpu.weight"), either("512", "59"));
        assert_eq!(read(&pod, "memory.limit_in_bytes", "memory.max"), Some((64 * MIB).to_string()));
        assert_eq!(read(&pod, "pids.max", "pids.max").as_deref(), Some("77"));

        let class = |name: &str| read(&format!("{root}/{name}"), "cpu.shares", "cpu.weight");
        assert_eq!(class("burstable"), either("512", "59"));
        let two = client.run_pod(&pod_in(&ground, "two", &format!("{root}/burstable/pod2"), shares(1024))).await;
        assert_eq!(class("burstable"), either("1536", "138"));
        for name in ["three", "four"] {
            client.run_pod(&pod_in(&ground, name, &format!("{root}/besteffort/{name}"), shares(2))).await;
        }
        assert_eq!(class("besteffort"), either("2", "1"));
        client.remove_pod(&two).await;
        assert_eq!(class("burstable"), either("512", "59"));

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
        for bad in ["cgroup.procs", "memory", "memory/x.max", "../memory.max"] {
            resources.unified = HashMap::from([(bad.to_owned(), "1".to_owned())]);
            let config = pod_in(&ground, "bad", "", resources.clone());
            let request = v1::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
            let refused = client.runtime.clone().run_pod_sandbox(request).await.expect_err("it leads elsewhere");
            assert_eq!(refused.code(), tonic::Code::InvalidArgument);
            assert!(refused.message().contains(bad), "{refused}");
        }
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
        // A period alone keeps the quota that it is the period of.
        let period = v1::LinuxContainerResources { cpu_period: 200_000, ..shares(2048) };
        update(&client, &id, period).await.unwrap();
        assert_eq!((quota(), memory()), (either("70000", "70000 200000"), Some((64 * MIB).to_string())));
        assert_eq!(read(&cgroup, "cpu.shares", "cpu.weight"), either("2048", "174"));
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

fn settings(list: &[(&str, &str)]) -> v1::LinuxContainerResources {
    let unified = list.iter().map(|(file, value)| ((*file).to_owned(), (*value).to_owned())).collect();
    v1::LinuxContainerResources { unified, ..v1::LinuxContainerResources::default() }
}

/// A container that sleeps, with these resources: its id and its cgroup.
async fn sleeper(
    ground: &Ground,
    client: &Client,
    pod: &str,
    name: &str,
    resources: v1::LinuxContainerResources,
) -> Result<(String, String), tonic::Status> {
    let mut container = ground.container(name, &["sleep", "1000"]);
    container.linux.as_mut().expect("it has one").resources = Some(resources);
    let id = client.create(pod, container, &ground.pod("pod")).await?;
    client.start(&id).await?;
    let cgroup = format!("{}/{pod}/{id}", ground.config.cgroup_parent);
    Ok((id, cgroup))
}

fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// A file of a v2 cgroup.
fn file(cgroup: &str, name: &str) -> String {
    std::fs::read_to_string(format!("/sys/fs/cgroup{cgroup}/{name}")).unwrap_or_default().trim().to_owned()
}

fn field(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|v| v.trim().parse().ok()).unwrap_or_else(|| panic!("no {name} in {text:?}"))
}

#[test]
fn settings_are_written_by_their_v2_names() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let pod = client.run_pod(&ground.pod("pod")).await;
        let asked = settings(&[
            ("memory.high", "16777216"),
            ("memory.low", "8388608"),
            ("memory.oom.group", "1"),
            ("pids.max", "55"),
        ]);
        let (id, cgroup) = sleeper(&ground, &client, &pod, "one", asked).await.unwrap();
        assert_eq!(read(&cgroup, "pids.max", "pids.max").as_deref(), Some("55"));
        if unified() {
            let shown = |names: &[&str]| names.iter().map(|name| file(&cgroup, name)).collect::<Vec<_>>();
            let names = ["memory.high", "memory.low", "memory.oom.group"];
            assert_eq!(shown(&names), ["16777216", "8388608", "1"]);
            // The kernel slows who is over its mark; it kills nobody.
            client.exec(&id, &["dd", "if=/dev/zero", "of=/dev/null", "bs=18M", "count=1"]).await;
            let events = file(&cgroup, "memory.events");
            assert!(field(&events, "high") > 0 && field(&events, "oom_kill") == 0, "{events}");
            // What an update does not name stays.
            update(&client, &id, settings(&[("memory.high", "max")])).await.unwrap();
            assert_eq!(shown(&names), ["max", "8388608", "1"]);
            let refused = sleeper(&ground, &client, &pod, "bad", settings(&[("memory.high", "lots")])).await;
            let refused = refused.expect_err("it is no number");
            assert!(refused.message().contains("memory.high"), "{refused}");
            // One that asks for nothing of the kind has the kernel's defaults.
            let plain = sleeper(&ground, &client, &pod, "plain", limits(0, 32 * MIB)).await.unwrap().1;
            assert_eq!(names.map(|name| file(&plain, name)), ["max", "0", "0"]);
        } else {
            eprintln!("SKIPPED: memory.high, memory.low and memory.oom.group: this host has cgroup v1");
        }
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

/// A disk of the test's own, its number, and what makes it go.
fn loop_disk(folder: &Path) -> Option<(String, String)> {
    let file = folder.join("disk");
    std::fs::File::create(&file).unwrap().set_len(16 * MIB as u64).unwrap();
    let made = std::process::Command::new("busybox").args(["losetup", "-f"]).output().ok()?;
    let disk = String::from_utf8(made.stdout).ok()?.trim().to_owned();
    let done = std::process::Command::new("busybox").args(["losetup", &disk]).arg(&file).status().ok()?;
    let number = std::fs::read_to_string(format!("/sys/block/{}/dev", disk.strip_prefix("/dev/")?)).ok()?;
    done.success().then(|| (disk, number.trim().to_owned()))
}

#[test]
fn a_disk_is_limited_by_its_number() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let pod = client.run_pod(&ground.pod("pod")).await;
        let (_, plain) = sleeper(&ground, &client, &pod, "plain", shares(0)).await.unwrap();
        let there = unified() && Path::new(&format!("/sys/fs/cgroup{plain}/io.max")).exists();
        if let Some((disk, number)) = there.then(|| loop_disk(ground.dir.path())).flatten() {
            let config = ground.pod("pod");
            let script = "dd if=/dev/zero of=/dev/disk bs=64k count=64 conv=fsync";
            let mut container = ground.container("slow", &["sh", "-c", script]);
            let permissions = "rwm".to_owned();
            container.devices =
                vec![v1::Device { container_path: "/dev/disk".into(), host_path: disk.clone(), permissions }];
            let asked = settings(&[("io.max", &format!("{number} wbps=1048576"))]);
            container.linux.as_mut().expect("it has one").resources = Some(asked);
            let id = client.create(&pod, container, &config).await.unwrap();
            client.start(&id).await.unwrap();
            let cgroup = format!("{}/{pod}/{id}", ground.config.cgroup_parent);
            assert_eq!(file(&cgroup, "io.max"), format!("{number} rbps=max wbps=1048576 riops=max wiops=max"));
            let ended = client.ended(&id).await;
            assert_eq!(ended.exit_code, 0, "{}", ground.log("slow.log"));
            // 4 MiB at 1 MiB a second; a slow machine only takes longer.
            let took = Duration::from_nanos((ended.finished_at - ended.started_at) as u64);
            assert!(took > Duration::from_secs(2), "{took:?}");
            let detached = std::process::Command::new("busybox").args(["losetup", "-d", &disk]).status();
            assert!(detached.is_ok_and(|status| status.success()), "{disk} is detached");
        } else {
            eprintln!("SKIPPED: io.max: this host has no cgroup v2 with it, or no loop device");
        }
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

/// A field of a process's status, as the process itself or its host sees it.
fn status(text: &str, name: &str) -> String {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.map(|value| value.trim().to_owned()).unwrap_or_else(|| panic!("no {name} in {text}"))
}

#[test]
fn a_container_runs_on_the_processors_that_it_was_given() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let pod = client.run_pod(&ground.pod("pod")).await;
        let (_, plain) = sleeper(&ground, &client, &pod, "plain", shares(0)).await.unwrap();
        if read(&plain, "cpuset.cpus", "cpuset.cpus").is_some() {
            let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
            let last = online.trim().rsplit([',', '-']).next().unwrap().to_owned();
            if last == "0" {
                eprintln!("SKIPPED: a choice between processors: this host has one");
            }
            let on = |cpus: &str, mems: &str| v1::LinuxContainerResources {
                cpuset_cpus: cpus.to_owned(),
                cpuset_mems: mems.to_owned(),
                ..shares(0)
            };
            let (id, _) = sleeper(&ground, &client, &pod, "one", on(&last, "0")).await.unwrap();
            let seen = String::from_utf8(client.exec(&id, &["cat", "/proc/self/status"]).await.stdout).unwrap();
            assert_eq!(
                (status(&seen, "Cpus_allowed_list"), status(&seen, "Mems_allowed_list")),
                (last, "0".to_owned())
            );
            assert_eq!(client.exec(&id, &["nproc"]).await.stdout, b"1\n");
            // Who runs already moves.
            update(&client, &id, on("0", "")).await.unwrap();
            let text = std::fs::read_to_string(format!("/proc/{}/status", client.pid(&id).await)).unwrap();
            assert_eq!(
                (status(&text, "Cpus_allowed_list"), status(&text, "Mems_allowed_list")),
                ("0".into(), "0".into())
            );
            for (file, asked) in [("cpuset.cpus", on("4095", "")), ("cpuset.mems", on("", "1023"))] {
                let refused = sleeper(&ground, &client, &pod, file, asked).await.expect_err("there is none");
                assert!(refused.message().contains(file), "{refused}");
            }
        } else {
            eprintln!("SKIPPED: cpuset: this host has no such controller");
        }
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn a_container_has_no_more_huge_pages_than_it_was_given() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let pod = client.run_pod(&ground.pod("pod")).await;
        let (_, plain) = sleeper(&ground, &client, &pod, "plain", shares(0)).await.unwrap();
        let huge = ("hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max");
        let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
        let free: u64 = free.map_or(0, |text| text.trim().parse().unwrap());
        if read(&plain, huge.0, huge.1).is_some() && free > 2 {
            let pages = ground.dir.path().join("pages");
            std::fs::create_dir(&pages).unwrap();
            rustix::mount::mount("pages", &pages, "hugetlbfs", rustix::mount::MountFlags::empty(), None).unwrap();
            let mut container = ground.container("one", &["sleep", "1000"]);
            container.mounts = vec![v1::Mount {
                host_path: pages.display().to_string(),
                container_path: "/pages".into(),
                ..v1::Mount::default()
            }];
            container.linux.as_mut().expect("it has one").resources = Some(v1::LinuxContainerResources {
                hugepage_limits: vec![v1::HugepageLimit { page_size: "2MB".to_owned(), limit: 4 << 20 }],
                ..shares(0)
            });
            let id = client.create(&pod, container, &ground.pod("pod")).await.unwrap();
            client.start(&id).await.unwrap();
            let cgroup = format!("{}/{pod}/{id}", ground.config.cgroup_parent);
            assert_eq!(read(&cgroup, huge.0, huge.1), Some((4 << 20).to_string()));
            let take = async |name: &str, mib: u32| {
                let (bytes, file) = ((mib << 20).to_string(), format!("/pages/{name}"));
                client.exec(&id, &["busybox", "fallocate", "-l", &bytes, &file]).await.exit_code
            };
            assert_eq!(take("all", 4).await, 0);
            assert_ne!(take("more", 2).await, 0, "the host has {free} of them, and the container was given two");
            let used = read(&cgroup, "hugetlb.2MB.usage_in_bytes", "hugetlb.2MB.current");
            assert_eq!(used, Some((4 << 20).to_string()));
            client.remove_pod(&pod).await;
            rustix::mount::unmount(&pages, rustix::mount::UnmountFlags::empty()).unwrap();
        } else {
            eprintln!("SKIPPED: huge pages: this host has no such controller, or no such pages");
            client.remove_pod(&pod).await;
        }
        ground::finish(runtime).await;
    });
}

#[test]
fn the_most_memory_that_a_container_had_is_known() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let pod = client.run_pod(&ground.pod("pod")).await;
        let (id, cgroup) = sleeper(&ground, &client, &pod, "one", limits(0, 64 * MIB)).await.unwrap();
        let peak =
            || read(&cgroup, "memory.max_usage_in_bytes", "memory.peak").map(|text| text.parse::<i64>().unwrap());
        let now = || read(&cgroup, "memory.usage_in_bytes", "memory.current").unwrap().parse::<i64>().unwrap();
        if peak().is_some() {
            client.exec(&id, &["dd", "if=/dev/zero", "of=/dev/null", "bs=24M", "count=1"]).await;
            assert!((24 * MIB..=64 * MIB).contains(&peak().unwrap()) && now() < 24 * MIB, "{:?} {}", peak(), now());
        } else {
            eprintln!("SKIPPED: memory.peak: this host's kernel is older than 5.19, or has no memory controller");
        }
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

/// Moves itself into a cgroup below its own, in every hierarchy where that is a test's (a new cpuset of v1 takes nobody), and leaves sessions of its own there.
const SPREAD: &str = "while IFS=: read -r _ controllers path; do \
                          case $controllers:$path in cpuset*) continue ;; *gantry-test*) ;; *) continue ;; esac; \
                          mkdir /cgroups/$controllers$path/below && echo 0 > /cgroups/$controllers$path/below/cgroup.procs; \
                      done < /proc/self/cgroup; \
                      for n in 1 2 3 4 5 6 7 8; do setsid sleep 1000 & done; \
                      sleep 1000 & echo spread; wait";

#[test]
fn what_hides_below_its_cgroup_ends_with_the_container() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let config = ground.privileged_pod("pod");
        let pod = client.run_pod(&config).await;
        let mut container = ground.container("spread", &["sh", "-c", SPREAD]);
        container.mounts = vec![v1::Mount {
            host_path: "/sys/fs/cgroup".into(),
            container_path: "/cgroups".into(),
            ..v1::Mount::default()
        }];
        let security = container.linux.as_mut().and_then(|l| l.security_context.as_mut()).expect("it has one");
        security.privileged = true;
        // No namespace of its own takes them along.
        security.namespace_options.as_mut().expect("it has them").pid = v1::NamespaceMode::Node as i32;
        let id = client.create(&pod, container, &config).await.unwrap();
        client.start(&id).await.unwrap();
        while !ground.lines("spread.log").contains(&"spread".to_owned()) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let below = format!("{}/{pod}/{id}/below", ground.config.cgroup_parent);
        let pids = read(&below, "cgroup.procs", "cgroup.procs").expect("a cgroup below");
        assert_eq!(pids.lines().count(), 10, "{pids}");
        client.stop(&id, 0).await;
        let alive = |pid: &&str| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty());
        assert_eq!(pids.lines().filter(alive).collect::<Vec<_>>(), Vec::<&str>::new());
        assert_eq!(read(&below, "cgroup.procs", "cgroup.procs"), None);
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn a_frozen_container_is_killed_all_the_same() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let pod = client.run_pod(&ground.pod("pod")).await;
        if unified() {
            let (id, cgroup) = sleeper(&ground, &client, &pod, "frozen", shares(0)).await.unwrap();
            std::fs::write(format!("/sys/fs/cgroup{cgroup}/cgroup.freeze"), "1").unwrap();
            while field(&file(&cgroup, "cgroup.events"), "frozen") == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            client.stop(&id, 0).await;
            assert_eq!(client.status(&id).await.exit_code, 137);
        } else {
            eprintln!("SKIPPED: a kill of what is frozen: on cgroup v1 it waits for the thaw");
        }
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn a_pods_limits_change_with_those_of_its_class() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let class = format!("{}/burstable", ground.config.cgroup_parent);
        let path = format!("{class}/pod1");
        let first = v1::LinuxContainerResources { memory_limit_in_bytes: 64 * MIB, ..settings(&[("pids.max", "77")]) };
        let config = pod_in(&ground, "one", &path, v1::LinuxContainerResources { cpu_shares: 512, ..first });
        let pod = client.run_pod(&config).await;
        let change = async |id: &str, resources| {
            let request = v1::UpdatePodSandboxResourcesRequest {
                pod_sandbox_id: id.to_owned(),
                overhead: None,
                resources: Some(resources),
            };
            client.runtime.clone().update_pod_sandbox_resources(request).await.map(drop)
        };
        let grown = v1::LinuxContainerResources { cpu_shares: 1024, ..limits(50_000, 96 * MIB) };
        change(&pod, grown).await.unwrap();
        assert_eq!(read(&path, "memory.limit_in_bytes", "memory.max"), Some((96 * MIB).to_string()));
        assert_eq!(read(&path, "cpu.cfs_quota_us", "cpu.max"), either("50000", "50000 100000"));
        assert_eq!(read(&path, "cpu.shares", "cpu.weight"), either("1024", "100"));
        assert_eq!(read(&class, "cpu.shares", "cpu.weight"), either("1024", "100"));
        assert_eq!(read(&path, "pids.max", "pids.max").as_deref(), Some("77"), "what is not named stays");
        let refused = change(&pod, settings(&[("cgroup.procs", "1")])).await.expect_err("it is no limit");
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        assert_eq!(change("nobody", shares(2)).await.expect_err("nobody").code(), tonic::Code::NotFound);
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn statistics_are_the_kernels_numbers() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let pod = client.run_pod(&ground.pod("pod")).await;
        let (id, cgroup) = sleeper(&ground, &client, &pod, "one", limits(0, 64 * MIB)).await.unwrap();
        let stats = async || {
            let request = v1::ContainerStatsRequest { container_id: id.clone() };
            client.runtime.clone().container_stats(request).await.unwrap().into_inner().stats.unwrap()
        };
        let cpu = |s: &v1::ContainerStats| s.cpu.as_ref().unwrap().usage_core_nano_seconds.unwrap().value;
        let memory = |s: &v1::ContainerStats| s.memory.as_ref().unwrap().usage_bytes.unwrap().value;
        let before = stats().await;
        client
            .exec(
                &id,
                &[
                    "sh",
                    "-c",
                    "dd if=/dev/zero of=/dev/shm/x bs=1M count=8; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done",
                ],
            )
            .await;
        let after = stats().await;
        assert!(cpu(&after) > cpu(&before), "{after:?}");
        assert!(memory(&after) >= memory(&before) + (7 << 20), "{before:?} {after:?}");
        let request = v1::PodSandboxStatsRequest { pod_sandbox_id: pod.clone() };
        let of_pod = client.runtime.clone().pod_sandbox_stats(request).await.unwrap().into_inner().stats.unwrap();
        let of_pod = of_pod.linux.unwrap();
        let above = cgroup.rsplit_once('/').unwrap().0;
        let processes = of_pod.process.unwrap().process_count.unwrap().value;
        assert_eq!(Some(processes.to_string()), read(above, "pids.current", "pids.current"));
        if unified() {
            // Nothing moves in a container that sleeps, once its last command has gone.
            let shown = |cgroup: &str| {
                let stat = file(cgroup, "memory.stat");
                let current: u64 = file(cgroup, "memory.current").parse().unwrap();
                let cpu = field(&file(cgroup, "cpu.stat"), "usage_usec") * 1000;
                (cpu, current, current - field(&stat, "inactive_file"), field(&stat, "anon"))
            };
            let told = |s: &v1::ContainerStats| {
                let m = s.memory.as_ref().unwrap();
                (cpu(s), memory(s), m.working_set_bytes.unwrap().value, m.rss_bytes.unwrap().value)
            };
            let agree = async || {
                let (first, told, last) = (shown(&cgroup), told(&stats().await), shown(&cgroup));
                (first == last).then(|| assert_eq!(told, first)).is_some()
            };
            while !agree().await {}
            let pressure = after.cpu.as_ref().unwrap().psi.as_ref().and_then(|psi| psi.some);
            let line = file(&cgroup, "cpu.pressure");
            let total =
                line.lines().next().and_then(|l| l.rsplit_once("total=")).map(|(_, t)| t.parse::<u64>().unwrap());
            assert!(pressure.unwrap().total <= total.unwrap() * 1000, "{pressure:?}: {line}");
            assert!(after.memory.unwrap().psi.is_some() && after.io.unwrap().psi.is_some() && of_pod.io.is_some());
            assert!(Path::new(&format!("/sys/fs/cgroup{cgroup}/io.stat")).exists());
        } else {
            eprintln!("SKIPPED: pressure: this host has cgroup v1");
        }
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}
