//! Pods that come and go, and very many requests at once: what they took of this process and of the machine comes back.
//!
//! `GANTRY_SOAK_PODS` and `GANTRY_SOAK_AT_ONCE` say how many; the defaults take seconds. By hand:
//! `GANTRY_SOAK_PODS=10000 GANTRY_SOAK_AT_ONCE=1000 cargo test -p gantry-runtime --test soak -- --nocapture`.

mod ground;

use std::path::Path;
use std::time::Duration;

use gantry_cri::v1;
use ground::{Client, Ground, patience, with};
use tokio::task::JoinSet;

/// What an allocator keeps for later, and maps of what was once large. A leak of a kilobyte a pod is ten times that by the end
/// of ten thousand.
const MEMORY_SLACK_BYTES: u64 = 24 << 20;
/// Before these the maps, the pools and the allocator have not got to their sizes.
const WARM_UP_PODS: usize = 20;

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

fn count(folder: impl AsRef<Path>) -> usize {
    std::fs::read_dir(folder).map_or(0, |entries| entries.count())
}

/// What this process and this machine have of everything that a pod takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    mounts: usize,
    processes: usize,
    cgroups: usize,
    files: usize,
    links: usize,
}

fn all_below(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| 1 + if entry.file_type().is_ok_and(|t| t.is_dir()) { all_below(&entry.path()) } else { 0 })
        .sum()
}

fn folders(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir())).map(|entry| 1 + folders(&entry.path())).sum()
}

impl Held {
    fn now(ground: &Ground) -> Held {
        let hierarchies = || {
            let all = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
            all.chain(["/sys/fs/cgroup".into()])
        };
        let below =
            |cgroup: &str| hierarchies().map(|h| folders(&h.join(cgroup.trim_start_matches('/')))).sum::<usize>();
        let supervisors = ground.config.supervisor_cgroup.trim_start_matches('/');
        let processes =
            hierarchies().filter_map(|h| std::fs::read_to_string(h.join(supervisors).join("cgroup.procs")).ok());
        let links = std::process::Command::new("busybox").args(["ip", "link"]).output().unwrap().stdout;
        Held {
            descriptors: count("/proc/self/fd"),
            mounts: std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap().lines().count(),
            processes: processes.map(|text| text.lines().count()).max().unwrap_or(0),
            cgroups: below(&ground.config.cgroup_parent),
            files: all_below(&ground.config.run_dir) + all_below(&ground.config.state_dir),
            links: String::from_utf8_lossy(&links).lines().count(),
        }
    }

    fn is_within(&self, before: &Held) -> bool {
        let counts =
            |held: &Held| [held.descriptors, held.mounts, held.processes, held.cgroups, held.files, held.links];
        counts(self).iter().zip(counts(before)).all(|(now, before)| *now <= before)
    }

    /// Waits until there is no more of anything than there was.
    async fn comes_back(&self, ground: &Ground) {
        let mut now = Held::default();
        for _ in 0..3000 * patience() {
            now = Held::now(ground);
            if now.is_within(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("there was {self:?}, and there is {now:?}");
    }
}

/// A number of /proc/self/status, in kilobytes where it is of memory.
fn own(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel tells it");
    line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
}

async fn live(client: &Client, ground: &Ground, name: &str) {
    let mut config = ground.pod(name);
    let security = config.linux.as_mut().and_then(|l| l.security_context.as_mut()).unwrap();
    security.namespace_options = Some(v1::NamespaceOption::default());
    let pod = client.run_pod(&config).await;
    let mut container = ground.container("c", &["sh", "-c", "echo here; exit 3"]);
    container.log_path = "c.log".to_owned();
    let id = client.create(&pod, container, &config).await.unwrap();
    client.start(&id).await.unwrap();
    assert_eq!(client.ended(&id).await.exit_code, 3);
    client.remove_pod(&pod).await;
}

#[test]
fn pods_come_and_go_and_leave_nothing() {
    with(|ground| async move {
        let pods = number("GANTRY_SOAK_PODS", 40);
        let (runtime, client) = ground.start().await;
        for n in 0..WARM_UP_PODS {
            live(&client, &ground, &format!("warm{n}")).await;
        }
        let before = Held::now(&ground);
        let (memory, threads) = (own("VmRSS"), own("Threads"));
        for n in 0..pods {
            live(&client, &ground, &format!("pod{n}")).await;
            // Else the log of all of them is what grows.
            let _ = std::fs::remove_file(ground.dir.path().join("logs/c.log"));
            if n % 500 == 499 {
                println!("{} pods: {} kB, {} threads, {:?}", n + 1, own("VmRSS"), own("Threads"), Held::now(&ground));
            }
        }
        before.comes_back(&ground).await;
        println!("{pods} pods: {memory} kB became {} kB, {threads} threads {}", own("VmRSS"), own("Threads"));
        assert!(own("VmRSS") * 1024 < memory * 1024 + MEMORY_SLACK_BYTES, "{memory} kB became {} kB", own("VmRSS"));
        // Those of the pool for what blocks come and go by themselves, up to their bound.
        assert!(own("Threads") <= threads + 16, "{threads} threads became {}", own("Threads"));
        ground::finish(runtime).await;
    });
}

#[test]
fn very_many_at_once_wait_for_their_turn_and_leave_nothing() {
    with(|ground| async move {
        let at_once = number("GANTRY_SOAK_AT_ONCE", 200);
        let (runtime, client) = ground.start().await;
        let config = ground.pod("pod");
        let pod = client.run_pod(&config).await;
        let id = client.create(&pod, ground.container("c", &["sleep", "100000"]), &config).await.unwrap();
        client.start(&id).await.unwrap();
        client.exec(&id, &["true"]).await;
        let before = Held::now(&ground);

        let mut commands = JoinSet::new();
        for n in 0..at_once {
            let (client, id) = (client.clone(), id.clone());
            commands.spawn(async move {
                let cmd = ["echo".to_owned(), n.to_string()].to_vec();
                let timeout = 120 * i64::from(patience());
                let request = v1::ExecSyncRequest { container_id: id, cmd, timeout };
                let answer = client.runtime.clone().exec_sync(request).await.expect("its turn comes").into_inner();
                assert_eq!(answer.stdout, format!("{n}\n").into_bytes());
            });
        }
        while let Some(done) = commands.join_next().await {
            done.unwrap();
        }
        before.comes_back(&ground).await;

        let mut makings = JoinSet::new();
        for n in 0..at_once {
            let (client, pod, config) = (client.clone(), pod.clone(), config.clone());
            let container = ground.container(&format!("c{n}"), &["true"]);
            makings.spawn(async move { client.create(&pod, container, &config).await.expect("it is made") });
        }
        let mut made = Vec::new();
        while let Some(id) = makings.join_next().await {
            made.push(id.unwrap());
        }
        made.sort();
        made.dedup();
        assert_eq!(made.len(), at_once);
        for container_id in made {
            client.runtime.clone().remove_container(v1::RemoveContainerRequest { container_id }).await.unwrap();
        }
        before.comes_back(&ground).await;
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}
