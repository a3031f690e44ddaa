//! kill -9 of the runtime, of supervisors, of both: containers keep their pids, their log lines and their exit codes.

mod ground;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gantry_cri::v1;
use gantry_runtime::Runtime;
use ground::{Client, Ground, with};
use nix::sys::signal::Signal;

/// The runtime as a process of its own, which can be killed.
struct Served(Child);

const SERVE: &str = "GANTRY_TEST_SERVE";

/// Not a test: what [`Served`] runs.
#[test]
#[ignore = "run by the other tests"]
fn serve() {
    let Ok(text) = std::env::var(SERVE) else { return };
    let (dir, tag) = text.split_once('|').expect("a folder and a tag");
    let config = ground::config(Path::new(dir), tag);
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio");
    tokio.block_on(async {
        let runtime = Runtime::start(config, gantry_env::Env::system()).await.expect("it starts");
        ground::import(&runtime).await;
        std::fs::write(Path::new(dir).join("ready"), "").expect("it can say so");
        std::future::pending::<()>().await;
    });
}

impl Served {
    async fn start(ground: &Ground) -> (Served, Client) {
        let tag = ground.config.cgroup_parent.strip_prefix("/gantry-test-").expect("our name").to_owned();
        let ready = ground.dir.path().join("ready");
        let _ = std::fs::remove_file(&ready);
        #[allow(clippy::zombie_processes, reason = "kill waits for it, and a test that fails ends with its process")]
        let child = Command::new(std::env::current_exe().expect("a path"))
            .args(["--exact", "serve", "--ignored", "--nocapture"])
            .env(SERVE, format!("{}|{tag}", ground.dir.path().display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a process");
        for _ in 0..3000 {
            if ready.exists() {
                let socket = ground.config.socket.as_ref().expect("a socket");
                return (Served(child), Client::new(gantry_cri::connect::unix(socket)));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the runtime does not start");
    }

    fn kill(mut self) {
        self.0.kill().expect("it is ours");
        self.0.wait().expect("it ends");
    }
}

fn kill(pid: i32) {
    signal(pid, Signal::SIGKILL);
}

fn signal(pid: i32, signal: Signal) {
    assert!(pid > 1);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("it lives");
}

/// Whether it runs, and does not merely wait to be reaped.
fn lives(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

const COUNTS: &str = "trap 'echo last; exit 42' TERM; i=0; while :; do echo $i; i=$((i+1)); sleep 0.02; done";

/// The container counts; no number may be missing, and none may come twice.
fn assert_unbroken(lines: &[String]) {
    for (i, line) in lines.iter().filter(|l| *l != "last").enumerate() {
        assert_eq!(*line, i.to_string(), "of {lines:?}");
    }
}

async fn grown(ground: &Ground, than: usize) {
    for _ in 0..1000 {
        if ground.lines("counts.log").len() > than + 3 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the log does not grow past {than}: {:?}", ground.lines("counts.log").last());
}

async fn begin(ground: &Ground, client: &Client) -> (String, String, v1::PodSandboxConfig) {
    let config = ground.pod("counts");
    let pod = client.run_pod(&config).await;
    let id = client.create(&pod, ground.container("counts", &["sh", "-c", COUNTS]), &config).await.expect("created");
    client.start(&id).await.expect("started");
    grown(ground, 0).await;
    (pod, id, config)
}

/// From Linux 6.15 on a pidfd tells the exit code also to who is not the parent, and after someone else has reaped.
fn anyone_may_ask() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|part| part.trim().parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(15))
}

/// `adopted`: whether the supervisor is another than the one that started the container.
async fn end(ground: &Ground, served: Served, client: &Client, pod: &str, id: &str, adopted: bool) {
    client.stop(id, 10).await;
    let status = client.status(id).await;
    let told = (status.exit_code, status.reason.as_str());
    let lost = adopted && !anyone_may_ask() && told == (255, "ContainerStatusUnknown");
    assert!(told == (42, "Error") || lost, "{told:?}");
    let lines = ground.lines("counts.log");
    assert_eq!(lines.last().map(String::as_str), Some("last"));
    assert_unbroken(&lines);
    client.remove_pod(pod).await;
    served.kill();
    let (runtime, _) = ground.start().await;
    ground::finish(runtime).await;
}

/// A host that shuts down sends SIGTERM to everyone when the runtime has gone already.
#[test]
fn who_is_told_to_end_outlasts_its_container() {
    with(|ground| async move {
        let (served, client) = Served::start(&ground).await;
        let (pod, id, _) = begin(&ground, &client).await;
        let (pid, supervisor) = (client.pid(&id).await, client.supervisor_pid(&pod).await);
        served.kill();
        signal(supervisor, Signal::SIGTERM);
        let before = ground.lines("counts.log").len();
        grown(&ground, before).await;
        assert!(lives(supervisor) && lives(pid));
        signal(pid, Signal::SIGTERM);
        for _ in 0..1000 {
            if !lives(supervisor) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!lives(supervisor) && !lives(pid));
        let (served, client) = Served::start(&ground).await;
        end(&ground, served, &client, &pod, &id, false).await;
    });
}

#[test]
fn the_runtime_is_killed() {
    with(|ground| async move {
        let (served, client) = Served::start(&ground).await;
        let (pod, id, config) = begin(&ground, &client).await;
        let pid = client.pid(&id).await;
        let short = ground.container("short", &["sh", "-c", "sleep 0.3; echo unseen; exit 5"]);
        let short = client.create(&pod, short, &config).await.unwrap();
        client.start(&short).await.unwrap();
        served.kill();
        let before = ground.lines("counts.log").len();
        grown(&ground, before).await;
        tokio::time::sleep(Duration::from_millis(400)).await;

        let (served, client) = Served::start(&ground).await;
        assert_eq!(client.pid(&id).await, pid);
        assert_eq!(client.status(&id).await.state(), v1::ContainerState::ContainerRunning);
        let unseen = client.status(&short).await;
        assert_eq!((unseen.exit_code, ground.lines("short.log")), (5, vec!["unseen".to_owned()]));
        assert_eq!(client.exec(&id, &["echo", "again"]).await.stdout, b"again\n");
        end(&ground, served, &client, &pod, &id, false).await;
    });
}

#[test]
fn the_supervisor_is_killed() {
    with(|ground| async move {
        let (served, client) = Served::start(&ground).await;
        let (pod, id, config) = begin(&ground, &client).await;
        let pid = client.pid(&id).await;
        for _ in 0..3 {
            let supervisor = client.supervisor_pid(&pod).await;
            kill(supervisor);
            let before = ground.lines("counts.log").len();
            grown(&ground, before).await;
            assert_ne!(client.supervisor_pid(&pod).await, supervisor);
            assert_eq!(client.pid(&id).await, pid);
        }
        assert_eq!(client.exec(&id, &["echo", "again"]).await.stdout, b"again\n");
        let more = client.create(&pod, ground.container("more", &["sh", "-c", "exit 9"]), &config).await.unwrap();
        client.start(&more).await.unwrap();
        assert_eq!(client.ended(&more).await.exit_code, 9);
        end(&ground, served, &client, &pod, &id, true).await;
    });
}

#[test]
fn both_are_killed() {
    with(|ground| async move {
        let (served, client) = Served::start(&ground).await;
        let (pod, id, _) = begin(&ground, &client).await;
        let pid = client.pid(&id).await;
        let supervisor = client.supervisor_pid(&pod).await;
        served.kill();
        kill(supervisor);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let (served, client) = Served::start(&ground).await;
        assert_eq!(client.pid(&id).await, pid);
        let before = ground.lines("counts.log").len();
        grown(&ground, before).await;
        end(&ground, served, &client, &pod, &id, true).await;
    });
}

#[test]
fn killed_in_the_middle_of_starts_nothing_is_left_behind() {
    with(|ground| async move {
        for round in 0..4u64 {
            let (served, client) = Served::start(&ground).await;
            let config = ground.pod(&format!("round{round}"));
            let pod = client.run_pod(&config).await;
            let mut starts = tokio::task::JoinSet::new();
            for n in 0..6 {
                let (client, pod, config) = (client.clone(), pod.clone(), config.clone());
                let container = ground.container(&format!("r{round}n{n}"), &["sleep", "1000"]);
                starts.spawn(async move {
                    if let Ok(id) = client.create(&pod, container, &config).await {
                        let _ = client.start(&id).await;
                    }
                });
            }
            tokio::time::sleep(Duration::from_millis(5 + 25 * round)).await;
            served.kill();
            starts.shutdown().await;
        }
        let (runtime, client) = ground.start().await;
        let listed = client.runtime.clone().list_containers(v1::ListContainersRequest::default()).await.unwrap();
        for container in listed.into_inner().containers {
            let status = client.status(&container.id).await;
            match status.state() {
                v1::ContainerState::ContainerRunning => assert!(client.pid(&container.id).await > 1),
                v1::ContainerState::ContainerExited => assert_eq!(status.reason, "StartError"),
                _ => {}
            }
        }
        ground::finish(runtime).await;
    });
}
