//! Pods that come and go, very many requests at once, and streams that are given up: what they took of this process and of the
//! machine comes back.
//!
//! `GANTRY_SOAK_PODS`, `GANTRY_SOAK_AT_ONCE` and `GANTRY_SOAK_ABORTS` say how many; the defaults take seconds. By hand:
//! `GANTRY_SOAK_PODS=10000 GANTRY_SOAK_AT_ONCE=1000 GANTRY_SOAK_ABORTS=10000 cargo test -p gantry-runtime --test soak -- --nocapture`.

mod ground;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gantry_cri::v1;
use ground::rude::{EVERY, Until, come_and_go};
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
    /// In pods' cgroups.
    of_pods: usize,
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

fn processes_below(cgroup: &Path) -> usize {
    let own = std::fs::read_to_string(cgroup.join("cgroup.procs")).map_or(0, |text| text.lines().count());
    let entries = std::fs::read_dir(cgroup).into_iter().flatten().flatten();
    let below = entries.filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()));
    own + below.map(|entry| processes_below(&entry.path())).sum::<usize>()
}

impl Held {
    fn now(ground: &Ground) -> Held {
        let hierarchies = || {
            let all = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
            all.chain(["/sys/fs/cgroup".into()])
        };
        let below =
            |cgroup: &str| hierarchies().map(|h| folders(&h.join(cgroup.trim_start_matches('/')))).sum::<usize>();
        let pods = ground.config.cgroup_parent.trim_start_matches('/');
        let supervisors = ground.config.supervisor_cgroup.trim_start_matches('/');
        let processes =
            hierarchies().filter_map(|h| std::fs::read_to_string(h.join(supervisors).join("cgroup.procs")).ok());
        let links = std::process::Command::new("busybox").args(["ip", "link"]).output().unwrap().stdout;
        Held {
            descriptors: count("/proc/self/fd"),
            mounts: std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap().lines().count(),
            processes: processes.map(|text| text.lines().count()).max().unwrap_or(0),
            of_pods: hierarchies().map(|h| processes_below(&h.join(pods))).max().unwrap_or(0),
            cgroups: below(&ground.config.cgroup_parent),
            files: all_below(&ground.config.run_dir) + all_below(&ground.config.state_dir),
            links: String::from_utf8_lossy(&links).lines().count(),
        }
    }

    fn is_within(&self, before: &Held) -> bool {
        let counts = |held: &Held| {
            let Held { descriptors, mounts, processes, of_pods, cgroups, files, links } = *held;
            [descriptors, mounts, processes, of_pods, cgroups, files, links]
        };
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
    of_process("self", name)
}

fn of_process(process: &str, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel tells it");
    line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
}

/// What is done at its URL.
#[derive(Clone, Copy, Debug)]
enum Verb {
    Exec { tty: bool },
    Attach { tty: bool },
    Ports,
}

/// A pod with a container to run commands in, one of which echoes at a port, and two to attach to.
struct Target {
    client: Client,
    pod: String,
    commands: String,
    pipes: String,
    terminal: String,
}

const ECHO_PORT: u16 = 9000;

impl Target {
    async fn run(client: Client, ground: &Ground) -> Target {
        let config = ground.pod("pod");
        let pod = client.run_pod(&config).await;
        let port = ECHO_PORT.to_string();
        let echo = ground.container("commands", &["nc", "-ll", "-p", &port, "-e", "cat"]);
        let commands = client.started(&pod, echo, &config).await;
        // One word, by which all is made that is made for output; after it nothing, whatever is said to it: no log grows.
        let mut container = ground.container("pipes", &["sh", "-c", "echo here; exec sleep 100000"]);
        container.stdin = true;
        let pipes = client.started(&pod, container, &config).await;
        let mut container = ground.container("terminal", &["sleep", "100000"]);
        (container.stdin, container.tty) = (true, true);
        let terminal = client.started(&pod, container, &config).await;
        while ground.lines("pipes.log") != ["here"] {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        client.exec(&commands, &["true"]).await;
        Target { client, pod, commands, pipes, terminal }
    }

    async fn url(&self, verb: Verb, n: usize) -> String {
        let mut cri = self.client.runtime.clone();
        match verb {
            Verb::Exec { tty } => {
                let command = [&["sleep", "100000"][..], &["cat"], &["cat", "/dev/zero"]][n / 7 % 3];
                let cmd = command.iter().map(|word| (*word).to_owned()).collect();
                let container_id = self.commands.clone();
                let request = v1::ExecRequest { container_id, cmd, tty, stdin: true, stdout: true, stderr: false };
                cri.exec(request).await.expect("a URL").into_inner().url
            }
            Verb::Attach { tty } => {
                let container_id = if tty { &self.terminal } else { &self.pipes }.clone();
                let request = v1::AttachRequest { container_id, tty, stdin: true, stdout: true, stderr: false };
                cri.attach(request).await.expect("a URL").into_inner().url
            }
            Verb::Ports => {
                let request = v1::PortForwardRequest { pod_sandbox_id: self.pod.clone(), port: Vec::new() };
                cri.port_forward(request).await.expect("a URL").into_inner().url
            }
        }
    }
}

/// So many of them who come and go, some at once, through every verb, both wires, and every step.
async fn given_up(target: &Arc<Target>, calls: std::ops::Range<usize>) {
    const AT_ONCE: usize = 16;
    /// Those that are half closed and read nothing hold on for this long.
    const DEAF_MAX: usize = 64;
    let verbs = [
        Verb::Exec { tty: false },
        Verb::Attach { tty: false },
        Verb::Ports,
        Verb::Exec { tty: true },
        Verb::Attach { tty: true },
    ];
    let (mut going, mut deaf) = (JoinSet::new(), VecDeque::new());
    for n in calls {
        let (verb, web, until) = (verbs[n % 5], n / 5 % 2 == 1, EVERY[n / 10 % EVERY.len()]);
        let target = Arc::clone(target);
        going.spawn(async move {
            let tty = matches!(verb, Verb::Exec { tty: true } | Verb::Attach { tty: true });
            come_and_go(&target.url(verb, n).await, web, tty, ECHO_PORT, until).await
        });
        if going.len() >= AT_ONCE {
            deaf.extend(going.join_next().await.and_then(|one| one.expect("it goes")));
            deaf.truncate(DEAF_MAX);
        }
    }
    while let Some(one) = going.join_next().await {
        deaf.extend(one.expect("it goes"));
    }
}

/// SECURITY.md, row 9 (CVE-2022-23471, CVE-2025-64329, CVE-2022-31030): what clients leave behind them adds up to nothing.
#[test]
fn row_9_streams_that_are_given_up_leave_nothing() {
    with(|ground| async move {
        // What a supervisor has from the first output on, which goes to a process of its own.
        const MADE_ONCE: usize = 6;
        // More than there may be sessions at once, through all that there are of kinds.
        let calls = number("GANTRY_SOAK_ABORTS", 600);
        // How often a kernel tries to get rid of what a client that has ended has sent: else for two minutes.
        std::fs::write("/proc/sys/net/ipv4/tcp_orphan_retries", "1").expect("it is this namespace's own");
        let (runtime, client) = ground.start().await;
        let target = Arc::new(Target::run(client.clone(), &ground).await);
        let supervisor = client.supervisor_pid(&target.pod).await;
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let of_supervisor = || (count(format!("/proc/{supervisor}/fd")), of_process(&supervisor.to_string(), "VmRSS"));
        let settled = async |tasks_before: usize, descriptors: usize| {
            for _ in 0..3000 * patience() {
                if tasks() <= tasks_before && of_supervisor().0 <= descriptors {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("{tasks_before} tasks became {}, {descriptors} descriptors {}", tasks(), of_supervisor().0);
        };
        let (tasks_before, held) = (tasks(), Held::now(&ground));
        let descriptors = of_supervisor().0 + MADE_ONCE;
        let once = EVERY.len() * 10;
        given_up(&target, 0..once).await;
        settled(tasks_before, descriptors).await;
        held.comes_back(&ground).await;
        // Some wait for the kernel to tell that their clients have ended. How many do at most, and what memory that takes, is
        // known halfway: what is added after that is a leak.
        let half = once + calls / 2;
        given_up(&target, once..half).await;
        let (memory, of_it) = (own("VmRSS"), of_supervisor().1);
        given_up(&target, half..once + calls).await;
        settled(tasks_before, descriptors).await;
        held.comes_back(&ground).await;
        println!("{calls} calls: {memory} kB became {} kB, {of_it} kB {}", own("VmRSS"), of_supervisor().1);
        // Some hundred sessions of up to four MiB each have come and gone at once: the allocator keeps more than of pods.
        let most = memory * 1024 + 2 * MEMORY_SLACK_BYTES;
        assert!(own("VmRSS") * 1024 < most, "{memory} kB became {} kB", own("VmRSS"));
        assert!(of_supervisor().1 < of_it + 1024, "{of_it} kB of the supervisor became {} kB", of_supervisor().1);
        // Who comes now is served.
        assert_eq!(client.said(&target.commands, "echo here").await, "here");
        let url = target.url(Verb::Ports, 0).await;
        assert!(come_and_go(&url, true, false, ECHO_PORT, Until::HalfClosed).await.is_none());
        client.remove_pod(&target.pod).await;
        ground::finish(runtime).await;
    });
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
