//! kill -9 of the runtime, of supervisors, of both: containers keep their pids, their log lines and their exit codes.

mod ground;

use std::time::Duration;

use gantry_cri::v1;
use ground::served::{Served, lives};
use ground::{Client, Ground, with};
use nix::sys::signal::Signal;

/// Not a test: what [`Served`] runs.
#[test]
#[ignore = "run by the other tests"]
fn serve() {
    ground::served::serve();
}

fn kill(pid: i32) {
    signal(pid, Signal::SIGKILL);
}

fn signal(pid: i32, signal: Signal) {
    assert!(pid > 1);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("it lives");
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

/// The sockets that a process has, as one has them that it was about to start.
fn inherit_sockets(pid: i32) -> Vec<std::os::fd::OwnedFd> {
    use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};
    let pidfd = rustix::process::pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
    let numbers = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        let target = std::fs::read_link(&path).ok()?;
        target.to_str()?.starts_with("socket:").then(|| path.file_name()?.to_str()?.parse::<i32>().ok())?
    });
    numbers.map(|fd| rustix::process::pidfd_getfd(&pidfd, fd, PidfdGetfdFlags::empty()).unwrap()).collect()
}

#[test]
fn who_was_killed_as_it_started_another_has_left_its_place() {
    with(|ground| async move {
        let (served, _) = Served::start(&ground).await;
        let inherited = inherit_sockets(served.pid());
        assert!(!inherited.is_empty());
        served.kill();
        let (runtime, _) = ground.start().await;
        drop(inherited);
        ground::finish(runtime).await;
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
