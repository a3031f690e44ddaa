//! Logs as they are written: on a disk that fills up, on one that stands still, and rotated.

mod ground;

use std::path::Path;
use std::time::Duration;

use gantry_cri::v1;
use gantry_runtime::LogLimits;
use ground::{Client, Ground, patience, with};
use nix::sys::signal::Signal;

const COUNTS: &str = "trap 'echo last; exit 42' TERM; i=0; while :; do echo $i; i=$((i+1)); done";

fn mount(at: &Path, options: &std::ffi::CStr) {
    std::fs::create_dir_all(at).unwrap();
    rustix::mount::mount("tmpfs", at, "tmpfs", rustix::mount::MountFlags::empty(), Some(options)).unwrap();
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..4000 * patience() {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} does not come about");
}

/// The process that writes a pod's logs.
fn writer(supervisor: i32) -> Option<i32> {
    let children =
        std::fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).unwrap_or_default();
    let mut pids = children.split_whitespace().map(|pid| pid.parse().unwrap());
    pids.find(|pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "gantry-log\n"))
}

fn signal(pid: i32, signal: Signal) {
    assert!(pid > 1);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("it lives");
}

async fn lost_bytes(client: &Client) -> u64 {
    let request = v1::ListPodSandboxMetricsRequest::default();
    let pods = client.runtime.clone().list_pod_sandbox_metrics(request).await.unwrap().into_inner().pod_metrics;
    let metrics = pods.into_iter().flat_map(|pod| pod.container_metrics).flat_map(|container| container.metrics);
    let lost = metrics.filter(|metric| metric.name == "container_log_lost_bytes_total");
    lost.filter_map(|metric| metric.value).map(|value| value.value).sum()
}

fn is_full(folder: &Path) -> bool {
    rustix::fs::statvfs(folder).unwrap().f_bavail == 0
}

/// Every line is a record, and those of the container count upwards.
fn assert_records(ground: &Ground) {
    let mut last = None;
    for line in ground.log("counts.log").lines() {
        let fields: Vec<&str> = line.splitn(4, ' ').collect();
        match fields.as_slice() {
            [_, "stdout", "F", "last"] => {}
            [_, "stdout", "F", number] => {
                let number: u64 = number.parse().unwrap_or_else(|_| panic!("no number: {line:?}"));
                assert!(last.is_none_or(|last| last < number), "{line:?} after {last:?}");
                last = Some(number);
            }
            [_, "stderr", "F", note] => assert!(note.contains("could not be written"), "{line:?}"),
            _ => panic!("no record: {line:?}"),
        }
    }
}

#[test]
fn a_full_disk_costs_lines_and_nothing_else() {
    with(|ground| async move {
        let folder = ground.dir.path().join("logs");
        mount(&folder, c"size=256k");
        let (runtime, client) = ground.start().await;
        let config = ground.pod("counts");
        let pod = client.run_pod(&config).await;
        let id = client.create(&pod, ground.container("counts", &["sh", "-c", COUNTS]), &config).await.unwrap();
        client.start(&id).await.unwrap();
        until("a full disk", || is_full(&folder)).await;
        // It runs, and so does what else the supervisor does.
        assert_eq!(client.exec(&id, &["echo", "alive"]).await.stdout, b"alive\n");

        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount_remount(&folder, flags, c"size=64m").unwrap();
        until("the log to go on", || ground.log("counts.log").contains("could not be written")).await;
        client.stop(&id, 30).await;
        assert_eq!(client.status(&id).await.exit_code, 42);
        assert_eq!(ground.lines("counts.log").last().map(String::as_str), Some("last"));
        assert_records(&ground);
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
        rustix::mount::unmount(&folder, rustix::mount::UnmountFlags::DETACH).unwrap();
    });
}

/// A writer that is stopped stands for one that waits for its disk: it alone has the log open.
#[test]
fn a_disk_that_stands_still_keeps_nobody_for_ever() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let config = ground.pod("counts");
        let pod = client.run_pod(&config).await;
        let counts = COUNTS.replace("echo $i;", "echo $i; echo $i >/tmp/now;");
        let id = client.create(&pod, ground.container("counts", &["sh", "-c", &counts]), &config).await.unwrap();
        client.start(&id).await.unwrap();
        until("a log", || ground.lines("counts.log").len() > 10).await;
        let supervisor = client.supervisor_pid(&pod).await;
        let writer = writer(supervisor).expect("a writer");
        let open = |pid: i32| {
            let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
            links.filter_map(|link| std::fs::read_link(link.path()).ok()).any(|path| path.ends_with("counts.log"))
        };
        assert!(open(writer) && !open(supervisor), "the supervisor waits for no disk");

        signal(writer, Signal::SIGSTOP);
        // What has ended is told, and a command runs, long before the container's patience is over.
        let short = ground.container("short", &["sh", "-c", "echo said; exit 7"]);
        let short = client.create(&pod, short, &config).await.unwrap();
        client.start(&short).await.unwrap();
        assert_eq!(client.ended(&short).await.exit_code, 7);
        assert_eq!(client.exec(&id, &["echo", "alive"]).await.stdout, b"alive\n");
        // It waits for a while, and then goes on.
        let mut lost = 0;
        for _ in 0..2000 * patience() {
            lost = lost_bytes(&client).await;
            if lost > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(lost > 0, "nothing is told to be lost");
        let now = client.exec(&id, &["cat", "/tmp/now"]).await.stdout;
        let mut later = now.clone();
        for _ in 0..1000 {
            later = client.exec(&id, &["cat", "/tmp/now"]).await.stdout;
            if later != now {
                break;
            }
        }
        assert_ne!(now, later, "it does not wait any more");

        signal(writer, Signal::SIGCONT);
        until("the log to go on", || ground.log("counts.log").contains("could not be written")).await;
        client.stop(&id, 30).await;
        assert_eq!(client.status(&id).await.exit_code, 42);
        until("the last line", || ground.lines("counts.log").last().is_some_and(|line| line == "last")).await;
        assert_records(&ground);
        assert_eq!(ground.lines("short.log"), ["said"]);
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

/// The parts of a log and the log itself, oldest first.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.rotate_left(1);
    paths
}

#[test]
fn a_log_is_rotated_as_it_is_written_and_no_line_is_lost_or_doubled_whoever_is_killed() {
    with(|mut ground| async move {
        const LIMITS: LogLimits = LogLimits { max_bytes: 64 << 10, max_files: 10_000 };
        ground.config.log_limits = LIMITS;
        let (runtime, client) = ground.start().await;
        let config = ground.pod("counts");
        let pod = client.run_pod(&config).await;
        let id = client.create(&pod, ground.container("counts", &["sh", "-c", COUNTS]), &config).await.unwrap();
        client.start(&id).await.unwrap();
        let folder = ground.dir.path().join("logs");
        let supervisor = client.supervisor_pid(&pod).await;
        let reopen = v1::ReopenContainerLogRequest { container_id: id.clone() };
        for round in 1..30 {
            until("a part more", || files(&folder).len() > round).await;
            client.runtime.clone().reopen_container_log(reopen.clone()).await.unwrap();
            let killed = writer(supervisor).expect("a writer");
            signal(killed, Signal::SIGKILL);
            until("another writer", || writer(supervisor).is_some_and(|pid| pid != killed)).await;
        }
        client.stop(&id, 30).await;
        assert_eq!(client.status(&id).await.exit_code, 42);
        let mut text = String::new();
        for path in files(&folder) {
            let part = std::fs::read_to_string(&path).unwrap();
            assert!(part.len() as u64 <= LIMITS.max_bytes && part.ends_with('\n'), "{path:?}: {} bytes", part.len());
            text.push_str(&part);
        }
        let lines: Vec<&str> = text.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or(line)).collect();
        assert_eq!(lines.last(), Some(&"last"));
        for (i, line) in lines[..lines.len() - 1].iter().enumerate() {
            assert_eq!(*line, i.to_string());
        }
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

/// The beginning of a line outlives whoever holds it: of the writer it is noted, of the supervisor it is written.
#[test]
fn a_line_that_has_begun_is_ended_by_another() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let config = ground.pod("counts");
        let pod = client.run_pod(&config).await;
        let says = "echo one; printf be; until [ -e /tmp/a ]; do sleep 0.01; done; printf gun; touch /tmp/b; \
                    until [ -e /tmp/c ]; do sleep 0.01; done; echo ' here'; sleep 1000";
        let id = client.create(&pod, ground.container("counts", &["sh", "-c", says]), &config).await.unwrap();
        client.start(&id).await.unwrap();
        let supervisor = client.supervisor_pid(&pod).await;
        until("a line", || ground.lines("counts.log") == ["one"]).await;
        let killed = writer(supervisor).unwrap();
        signal(killed, Signal::SIGKILL);
        until("another writer", || writer(supervisor).is_some_and(|pid| pid != killed)).await;
        client.exec(&id, &["sh", "-c", "touch /tmp/a; until [ -e /tmp/b ]; do sleep 0.01; done"]).await;
        // Everything that was said before is with the writer once this is answered.
        let reopen = v1::ReopenContainerLogRequest { container_id: id.clone() };
        client.runtime.clone().reopen_container_log(reopen).await.unwrap();
        signal(supervisor, Signal::SIGKILL);
        until("its end", || std::fs::metadata(format!("/proc/{supervisor}")).is_err()).await;
        client.exec(&id, &["touch", "/tmp/c"]).await;
        let said = || ground.lines("counts.log").concat();
        until("the end of the line", || said().ends_with("here")).await;
        assert_eq!(said(), "onebegun here");
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}
