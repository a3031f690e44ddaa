//! What must not be noticed elsewhere: killed creators, records that make no sense, frozen containers, and requests that
//! cross each other.

mod ground;

use std::path::PathBuf;
use std::time::Duration;

use gantry_cri::v1;
use ground::{Client, Ground, patience, with};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tonic::Code;

/// Far more than any of this takes: what is not there by then hangs.
const HANG: Duration = Duration::from_secs(30);

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(HANG * patience(), wait).await.is_ok(), "{what} does not come about");
}

fn children(pid: i32) -> Vec<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

async fn containers(client: &Client) -> Vec<v1::Container> {
    let listed = client.runtime.clone().list_containers(v1::ListContainersRequest::default()).await.unwrap();
    listed.into_inner().containers
}

async fn sandboxes(client: &Client) -> Vec<v1::PodSandbox> {
    let listed = client.runtime.clone().list_pod_sandbox(v1::ListPodSandboxRequest::default()).await.unwrap();
    listed.into_inner().items
}

#[test]
fn a_creator_that_is_killed_fails_the_start_and_nothing_else() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let config = ground.pod("pod");
        let pod = client.run_pod(&config).await;
        let first = client.create(&pod, ground.container("first", &["sleep", "1000"]), &config).await.unwrap();
        client.start(&first).await.unwrap();
        let supervisor = client.supervisor_pid(&pod).await;
        let before = vec![client.pid(&first).await];
        until("the end of its creator", || children(supervisor) == before).await;
        let gate = ground.config.cgroup_parent.clone() + "/" + &pod;
        // At every stage of a creation, which takes some ten milliseconds. Every other creator finds the pod frozen: what it
        // has begun in there says nothing, it waits, and its killer comes in time. The others may be faster.
        for step in 0..30 {
            let gated = step % 2 == 0;
            if gated {
                freeze(&gate, true).await;
            }
            let name = format!("c{step}");
            let id = client.create(&pod, ground.container(&name, &["sleep", "1000"]), &config).await.unwrap();
            let start = tokio::spawn({
                let (client, id) = (client.clone(), id.clone());
                async move { client.start(&id).await }
            });
            let born = || children(supervisor).into_iter().find(|pid| !before.contains(pid));
            until("a creator", || born().is_some() || start.is_finished()).await;
            std::thread::sleep(Duration::from_micros(700) * step);
            if let Some(creator) = born() {
                let _ = nix::sys::signal::kill(Pid::from_raw(creator), Signal::SIGKILL);
            }
            // On v1 what is frozen does not die before it is let go.
            if gated {
                freeze(&gate, false).await;
            }
            let started =
                tokio::time::timeout(HANG * patience(), start).await.expect("the start does not hang").unwrap();
            match started {
                Ok(()) => assert!(!gated, "a creator was killed, and its start is said to be well"),
                Err(status) => {
                    assert!(status.message().contains("killed"), "{status:?}");
                    assert_eq!(client.status(&id).await.reason, "StartError");
                }
            }
            let request = v1::RemoveContainerRequest { container_id: id };
            client.runtime.clone().remove_container(request).await.unwrap();
            until("an empty supervisor", || children(supervisor) == before).await;
        }
        assert_eq!(client.exec(&first, &["echo", "alive"]).await.stdout, b"alive\n");
        ground::finish(runtime).await;
    });
}

/// Stops or resumes every process of a cgroup, and waits until that is so.
async fn freeze(cgroup: &str, frozen: bool) {
    let v1 = PathBuf::from(format!("/sys/fs/cgroup/freezer{cgroup}/freezer.state"));
    if v1.exists() {
        let word = ["THAWED", "FROZEN"][usize::from(frozen)];
        std::fs::write(&v1, word).unwrap();
        return until(word, || std::fs::read_to_string(&v1).unwrap().trim() == word).await;
    }
    let number = usize::from(frozen);
    let file = |name: &str| format!("/sys/fs/cgroup{cgroup}/{name}");
    std::fs::write(file("cgroup.freeze"), number.to_string()).unwrap();
    let word = format!("frozen {number}");
    until(&word, || std::fs::read_to_string(file("cgroup.events")).unwrap().contains(&word)).await;
}

#[test]
fn a_command_in_a_frozen_container_times_out_and_does_not_run_later() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let config = ground.pod("pod");
        let pod = client.run_pod(&config).await;
        let id = client.create(&pod, ground.container("frozen", &["sleep", "1000"]), &config).await.unwrap();
        client.start(&id).await.unwrap();
        let supervisor = client.supervisor_pid(&pod).await;
        let cgroup = format!("{}/{pod}/{id}", ground.config.cgroup_parent);
        let before = vec![client.pid(&id).await];
        freeze(&cgroup, true).await;
        let cmd = vec!["sleep".to_owned(), "999".to_owned()];
        let request = v1::ExecSyncRequest { container_id: id.clone(), cmd, timeout: 1 };
        let asked = tokio::time::timeout(HANG * patience(), client.runtime.clone().exec_sync(request)).await;
        let status = asked.expect("the limit holds").unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        freeze(&cgroup, false).await;
        until("the end of the late command", || children(supervisor) == before).await;
        assert_eq!(client.exec(&id, &["echo", "alive"]).await.stdout, b"alive\n");
        ground::finish(runtime).await;
    });
}

#[test]
fn output_is_kept_although_a_child_holds_the_pipe() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let config = ground.pod("pod");
        let pod = client.run_pod(&config).await;
        let id = client.create(&pod, ground.container("c", &["sleep", "1000"]), &config).await.unwrap();
        client.start(&id).await.unwrap();
        assert_eq!(client.exec(&id, &["sh", "-c", "sleep 1000 & echo here"]).await.stdout, b"here\n");
        // As much as one message can carry, from both streams.
        let flood = "dd if=/dev/zero bs=1M count=9; dd if=/dev/zero bs=1M count=9 >&2";
        let large = client.runtime.clone().max_decoding_message_size(gantry_cri::MESSAGE_MAX_BYTES);
        let answer = Client { runtime: large, ..client.clone() }.exec(&id, &["sh", "-c", flood]).await;
        assert_eq!((answer.exit_code, answer.stdout.len()), (0, answer.stderr.len()));
        assert!(answer.stdout.len() > 8_000_000);
        ground::finish(runtime).await;
    });
}

fn record(ground: &Ground, below: &str) -> PathBuf {
    ground.config.run_dir.join("sandboxes").join(below).join("record")
}

#[test]
fn records_that_make_no_sense_cost_their_own_pod_alone() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let mut pods = Vec::new();
        for name in ["whole", "torn", "half"] {
            let config = ground.pod(name);
            let pod = client.run_pod(&config).await;
            let id = client.create(&pod, ground.container(name, &["sleep", "1000"]), &config).await.unwrap();
            client.start(&id).await.unwrap();
            let pid = client.pid(&id).await;
            pods.push((pod, id, pid));
        }
        let [whole, torn, half] = <[_; 3]>::try_from(pods).unwrap();
        let supervisor = client.supervisor_pid(&torn.0).await;
        runtime.stop().await;
        std::fs::write(record(&ground, &torn.0), b"\xff\xff\xff").unwrap();
        std::fs::write(record(&ground, &format!("{}/containers/{}", half.0, half.1)), b"\xff\xff\xff").unwrap();

        let (runtime, client) = ground.start().await;
        let mut ids: Vec<String> = sandboxes(&client).await.into_iter().map(|s| s.id).collect();
        ids.sort();
        let mut expected = vec![whole.0.clone(), half.0.clone()];
        expected.sort();
        assert_eq!(ids, expected);
        let left: Vec<String> = containers(&client).await.into_iter().map(|c| c.id).collect();
        assert_eq!(left, std::slice::from_ref(&whole.1));
        assert_eq!(client.pid(&whole.1).await, whole.2, "it lives on");
        // What nobody could stop by its name does not run on.
        let gone = |pid: i32| !std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|l| !l.is_empty());
        until("the end of what is unknown", || [torn.2, half.2, supervisor].into_iter().all(gone)).await;
        assert!(ground.config.run_dir.join("set-aside").join(&torn.0).join("record").exists(), "it is kept");
        ground::finish(runtime).await;
    });
}

#[test]
fn of_three_requests_for_the_same_one_is_made_and_all_are_told_of_it() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let config = ground.pod("pod");
        for _ in 0..5 {
            let run = || client.run_pod(&config);
            let (a, b, c) = tokio::join!(run(), run(), run());
            assert_eq!((&a, &a), (&b, &c));
            let all = sandboxes(&client).await;
            assert_eq!(all.iter().map(|s| &s.id).collect::<Vec<_>>(), [&a]);
            let pod = a;
            let create = || client.create(&pod, ground.container("c", &["true"]), &config);
            let (a, b, c) = tokio::join!(create(), create(), create());
            let (a, b, c) = (a.unwrap(), b.unwrap(), c.unwrap());
            assert_eq!((&a, &a), (&b, &c));
            assert_eq!(containers(&client).await.iter().map(|c| &c.id).collect::<Vec<_>>(), [&a]);
            client.remove_pod(&pod).await;
        }
        ground::finish(runtime).await;
    });
}

#[test]
fn who_waits_for_a_making_that_fails_makes_it_anew() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let config = ground.pod("pod");
        let pod = client.run_pod(&config).await;
        let bad = ground.container("c", &[""]);
        let good = ground.container("c", &["true"]);
        let (refused, made) =
            tokio::join!(client.create(&pod, bad, &config), client.create(&pod, good.clone(), &config));
        let made = made.expect("whichever came first");
        match refused {
            Err(status) => assert_eq!(status.code(), Code::InvalidArgument, "{status:?}"),
            // It came second: its attempt was there already.
            Ok(id) => assert_eq!(id, made),
        }
        assert_eq!(client.create(&pod, good, &config).await.unwrap(), made);
        ground::finish(runtime).await;
    });
}

#[test]
fn an_attempt_that_has_been_started_is_not_made_twice() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let config = ground.pod("pod");
        let pod = client.run_pod(&config).await;
        let mut container = ground.container("c", &["sleep", "1000"]);
        let id = client.create(&pod, container.clone(), &config).await.unwrap();
        client.start(&id).await.unwrap();
        let refused = client.create(&pod, container.clone(), &config).await.unwrap_err();
        assert_eq!(refused.code(), Code::AlreadyExists, "{refused:?}");
        assert!(refused.message().contains(&id) && refused.message().contains("running"), "{refused:?}");
        client.stop(&id, 0).await;
        let refused = client.create(&pod, container.clone(), &config).await.unwrap_err();
        assert_eq!(refused.code(), Code::AlreadyExists, "{refused:?}");
        // The next attempt is another; a removed one is none.
        container.metadata.as_mut().unwrap().attempt = 1;
        client.create(&pod, container.clone(), &config).await.unwrap();
        let request = v1::RemoveContainerRequest { container_id: id.clone() };
        client.runtime.clone().remove_container(request).await.unwrap();
        container.metadata.as_mut().unwrap().attempt = 0;
        assert_ne!(client.create(&pod, container, &config).await.unwrap(), id);
        ground::finish(runtime).await;
    });
}

#[test]
fn a_pod_that_is_removed_takes_what_is_being_made_in_it_along() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        for round in 0..10 {
            let config = ground.pod(&format!("pod{round}"));
            let pod = client.run_pod(&config).await;
            let mut making = tokio::task::JoinSet::new();
            for n in 0..4 {
                let (client, pod, config) = (client.clone(), pod.clone(), config.clone());
                let container = ground.container(&format!("c{n}"), &["sleep", "1000"]);
                making.spawn(async move {
                    if let Ok(id) = client.create(&pod, container, &config).await {
                        let _ = client.start(&id).await;
                    }
                });
            }
            tokio::time::sleep(Duration::from_millis(4 * round)).await;
            client.remove_pod(&pod).await;
            while making.join_next().await.is_some() {}
            assert_eq!(containers(&client).await, []);
            assert_eq!(sandboxes(&client).await, []);
        }
        ground::finish(runtime).await;
    });
}

#[test]
fn a_pull_ends_with_its_caller() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let registry = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let spec = v1::ImageSpec { image: format!("{}/a:1", registry.local_addr().unwrap()), ..Default::default() };
        let request = v1::PullImageRequest { image: Some(spec), ..Default::default() };
        let mut images = client.images.clone();
        let pull = tokio::spawn(async move { images.pull_image(request).await });
        let (mut asked, _) = registry.accept().await.unwrap();
        let mut question = Vec::new();
        while !question.ends_with(b"\r\n\r\n") {
            question.push(asked.read_u8().await.unwrap());
        }
        // A manifest that begins and does not end: the runtime waits longer for it than this test does.
        asked.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{").await.unwrap();
        pull.abort();
        assert!(pull.await.unwrap_err().is_cancelled());
        let mut heard = Vec::new();
        let end = tokio::time::timeout(HANG, asked.read_to_end(&mut heard)).await;
        assert!(end.is_ok(), "nobody waits for the image, and it is still pulled");
        ground::finish(runtime).await;
    });
}
