//! What CRI's published validation suite asks of a runtime, by its areas, over the runtime's socket: info, sandboxes,
//! containers, idempotence and refusals, volumes, logs, statistics, events. `cri_network`, `cri_security`, `cri_images` and
//! `stream_urls` have the other areas; what else there is of each stands in the file of its room.

mod ground;

use std::collections::HashMap;
use std::time::Duration;

use gantry_cri::v1::{self, ContainerEventType, ContainerState, PodSandboxState};
use ground::{Client, with};
use tonic::{Code, Status, Streaming};

const SLEEP: [&str; 2] = ["sleep", "1000"];

fn labels(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

async fn containers(client: &Client, filter: v1::ContainerFilter) -> Vec<String> {
    let request = v1::ListContainersRequest { filter: Some(filter) };
    let listed = client.runtime.clone().list_containers(request).await.expect("a list").into_inner().containers;
    listed.into_iter().map(|container| container.id).collect()
}

async fn pods(client: &Client, filter: v1::PodSandboxFilter) -> Vec<String> {
    let request = v1::ListPodSandboxRequest { filter: Some(filter) };
    let listed = client.runtime.clone().list_pod_sandbox(request).await.expect("a list").into_inner().items;
    listed.into_iter().map(|pod| pod.id).collect()
}

async fn stop_pod(client: &Client, pod: &str) -> Result<(), Status> {
    let request = v1::StopPodSandboxRequest { pod_sandbox_id: pod.to_owned() };
    client.runtime.clone().stop_pod_sandbox(request).await.map(drop)
}

async fn remove_pod(client: &Client, pod: &str) -> Result<(), Status> {
    let request = v1::RemovePodSandboxRequest { pod_sandbox_id: pod.to_owned() };
    client.runtime.clone().remove_pod_sandbox(request).await.map(drop)
}

async fn remove(client: &Client, container: &str) -> Result<(), Status> {
    let request = v1::RemoveContainerRequest { container_id: container.to_owned() };
    client.runtime.clone().remove_container(request).await.map(drop)
}

#[test]
fn the_runtime_says_what_it_is_and_how_it_is() {
    with(|ground| async move {
        let (runtime, client) = ground.serve().await;
        let mut cri = client.runtime.clone();
        let version = cri.version(v1::VersionRequest::default()).await.unwrap().into_inner();
        assert_eq!((version.runtime_name.as_str(), version.runtime_api_version.as_str()), ("gantry", "v1"));
        assert!(!version.version.is_empty() && !version.runtime_version.is_empty(), "{version:?}");
        let brief = cri.status(v1::StatusRequest { verbose: false }).await.unwrap().into_inner();
        let conditions = brief.status.unwrap_or_default().conditions;
        let conditions: Vec<_> = conditions.iter().map(|c| (c.r#type.as_str(), c.status)).collect();
        assert_eq!(conditions, [("RuntimeReady", true), ("NetworkReady", true)]);
        assert!(brief.info.is_empty(), "nobody asked for it");
        let verbose = cri.status(v1::StatusRequest { verbose: true }).await.unwrap().into_inner();
        let config: serde_json::Value = serde_json::from_str(&verbose.info["config"]).unwrap();
        assert_eq!(config["runDir"], ground.config.run_dir.to_str().unwrap());
        let handlers: Vec<_> = verbose.runtime_handlers.iter().map(|h| h.name.as_str()).collect();
        assert_eq!(handlers, ["", "gantry", "runc"]);
        let able = verbose.runtime_handlers.iter().filter_map(|h| h.features.as_ref());
        assert!(able.clone().count() == 3 && able.clone().all(|able| able.recursive_read_only_mounts));
        let config = cri.runtime_config(v1::RuntimeConfigRequest {}).await.unwrap().into_inner();
        assert_eq!(config.linux.unwrap_or_default().cgroup_driver(), v1::CgroupDriver::Cgroupfs);
        ground::finish(runtime).await;
    });
}

#[test]
fn a_sandbox_is_run_stopped_and_removed() {
    with(|ground| async move {
        let (runtime, client) = ground.serve().await;
        let mut config = ground.plain_pod("attributes");
        config.labels = labels(&[("foo", "bar"), ("app", "one")]);
        config.annotations = labels(&[("abc", "def")]);
        let pod = client.run_pod(&config).await;
        let other = client.run_pod(&ground.plain_pod("other")).await;
        let status = client.pod_status(&pod).await;
        assert_eq!((status.state(), &status.metadata), (PodSandboxState::SandboxReady, &config.metadata));
        assert_eq!((&status.labels, &status.annotations), (&config.labels, &config.annotations));
        assert!(status.created_at > 0 && !status.network.unwrap_or_default().ip.is_empty());

        let state = |state: PodSandboxState| Some(v1::PodSandboxStateValue { state: state as i32 });
        let filter = v1::PodSandboxFilter::default();
        let by_label = |pairs| v1::PodSandboxFilter { label_selector: labels(pairs), ..Default::default() };
        let mut both = vec![pod.clone(), other.clone()];
        both.sort();
        assert_eq!(pods(&client, filter.clone()).await, both);
        for id in [&pod[..], &pod[..12]] {
            assert_eq!(
                pods(&client, v1::PodSandboxFilter { id: id.into(), ..filter.clone() }).await,
                std::slice::from_ref(&pod)
            );
        }
        assert_eq!(pods(&client, by_label(&[("foo", "bar"), ("app", "one")])).await, std::slice::from_ref(&pod));
        assert_eq!(pods(&client, by_label(&[("foo", "bar"), ("app", "two")])).await, [""; 0]);

        stop_pod(&client, &pod).await.unwrap();
        assert_eq!(client.pod_status(&pod).await.state(), PodSandboxState::SandboxNotready);
        let ready = v1::PodSandboxFilter { state: state(PodSandboxState::SandboxReady), ..filter.clone() };
        assert_eq!(pods(&client, ready).await, std::slice::from_ref(&other));
        let ended = v1::PodSandboxFilter { state: state(PodSandboxState::SandboxNotready), ..filter.clone() };
        assert_eq!(pods(&client, ended).await, std::slice::from_ref(&pod));
        remove_pod(&client, &pod).await.unwrap();
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: false };
        let error = client.runtime.clone().pod_sandbox_status(request).await.expect_err("gone");
        assert_eq!(error.code(), Code::NotFound, "{error}");
        // One that still runs is stopped first.
        remove_pod(&client, &other).await.unwrap();
        assert_eq!(pods(&client, filter).await, [""; 0]);
        ground::finish(runtime).await;
    });
}

#[test]
fn there_is_one_runtime_by_each_of_its_names() {
    with(|ground| async move {
        let (runtime, client) = ground.serve().await;
        let run = async |name: &str, handler: &str| {
            let config = Some(ground.plain_pod(name));
            let request = v1::RunPodSandboxRequest { config, runtime_handler: handler.to_owned() };
            Ok::<_, Status>(client.runtime.clone().run_pod_sandbox(request).await?.into_inner().pod_sandbox_id)
        };
        for (name, handler) in [("a", ""), ("b", "gantry"), ("c", "runc")] {
            let pod = run(name, handler).await.expect(handler);
            assert_eq!(client.pod_status(&pod).await.runtime_handler, handler);
            client.remove_pod(&pod).await;
        }
        let error = run("d", "kata").await.expect_err("there is none");
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(error.message().contains("\"kata\""), "{error}");
        assert_eq!(pods(&client, v1::PodSandboxFilter::default()).await, [""; 0]);
        ground::finish(runtime).await;
    });
}

#[test]
fn a_pod_sets_sysctls_of_its_own_namespaces() {
    with(|ground| async move {
        let (runtime, client) = ground.serve().await;
        let mut config = ground.plain_pod("sysctls");
        let sysctls = labels(&[("kernel.shm_rmid_forced", "1"), ("fs.mqueue.msg_max", "100")]);
        config.linux = Some(v1::LinuxPodSandboxConfig { sysctls, ..Default::default() });
        let pod = client.run_pod(&config).await;
        let id = client.started(&pod, ground.plain_container("c", &SLEEP), &config).await;
        let script = "cat /proc/sys/kernel/shm_rmid_forced /proc/sys/fs/mqueue/msg_max";
        assert_eq!(client.said(&id, script).await, "1\n100");
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn a_container_is_created_started_stopped_and_removed() {
    with(|ground| async move {
        let (runtime, client) = ground.serve().await;
        let (config, elsewhere) = (ground.plain_pod("pod"), ground.plain_pod("elsewhere"));
        let (pod, other) = (client.run_pod(&config).await, client.run_pod(&elsewhere).await);
        let mut container = ground.plain_container("c", &SLEEP);
        container.labels = labels(&[("foo", "bar")]);
        container.annotations = labels(&[("abc", "def")]);
        let id = client.create(&pod, container.clone(), &config).await.unwrap();
        let stranger = client.create(&other, ground.plain_container("c", &SLEEP), &elsewhere).await.unwrap();
        let status = client.status(&id).await;
        assert_eq!((status.state(), &status.metadata), (ContainerState::ContainerCreated, &container.metadata));
        assert_eq!((&status.labels, &status.annotations), (&container.labels, &container.annotations));
        assert_eq!((status.started_at, status.finished_at), (0, 0));

        let filter = v1::ContainerFilter::default();
        let of = |state: ContainerState| {
            let state = Some(v1::ContainerStateValue { state: state as i32 });
            containers(&client, v1::ContainerFilter { state, ..Default::default() })
        };
        let own = vec![id.clone()];
        for id in [&id[..], &id[..12]] {
            assert_eq!(containers(&client, v1::ContainerFilter { id: id.into(), ..filter.clone() }).await, own);
        }
        let in_pod = v1::ContainerFilter { pod_sandbox_id: pod.clone(), ..filter.clone() };
        assert_eq!(containers(&client, in_pod.clone()).await, own);
        let selected = v1::ContainerFilter { label_selector: labels(&[("foo", "bar")]), ..filter.clone() };
        assert_eq!(containers(&client, selected).await, own);
        let crossed = v1::ContainerFilter { id: stranger.clone(), ..in_pod };
        assert_eq!(containers(&client, crossed).await, [""; 0], "a filter's fields all count");

        assert_eq!(of(ContainerState::ContainerRunning).await, [""; 0]);
        client.start(&id).await.unwrap();
        assert_eq!((of(ContainerState::ContainerRunning).await, client.status(&id).await.exit_code), (own.clone(), 0));
        client.stop(&id, 0).await;
        assert_eq!(of(ContainerState::ContainerExited).await, own);
        let status = client.status(&id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
        remove(&client, &id).await.unwrap();
        assert_eq!(of(ContainerState::ContainerExited).await, [""; 0]);
        // Created, then running.
        remove(&client, &stranger).await.unwrap();
        let id = client.started(&pod, container, &config).await;
        remove(&client, &id).await.unwrap();
        assert_eq!(containers(&client, filter).await, [""; 0]);
        for pod in [&pod, &other] {
            client.remove_pod(pod).await;
        }
        ground::finish(runtime).await;
    });
}

#[test]
fn what_is_done_already_is_done() {
    with(|ground| async move {
        let (runtime, client) = ground.serve().await;
        let nobody = "0123456789abcdef";
        stop_pod(&client, nobody).await.unwrap();
        remove_pod(&client, nobody).await.unwrap();
        client.stop(nobody, 1).await;
        remove(&client, nobody).await.unwrap();
        let config = ground.plain_pod("pod");
        let pod = client.run_pod(&config).await;
        assert_eq!(client.run_pod(&config).await, pod, "the same attempt is the same sandbox");
        let id = client.started(&pod, ground.plain_container("c", &["true"]), &config).await;
        client.ended(&id).await;
        let before = client.status(&id).await;
        for _ in 0..2 {
            client.stop(&id, 1).await;
        }
        assert_eq!(client.status(&id).await, before, "a stop of what has ended changes nothing");
        for _ in 0..2 {
            remove(&client, &id).await.unwrap();
        }
        for _ in 0..2 {
            stop_pod(&client, &pod).await.unwrap();
        }
        for _ in 0..2 {
            remove_pod(&client, &pod).await.unwrap();
        }
        ground::finish(runtime).await;
    });
}

#[test]
fn what_is_not_there_is_not_found() {
    with(|ground| async move {
        let (runtime, client) = ground.serve().await;
        let mut cri = client.runtime.clone();
        let nobody = || "0123456789abcdef".to_owned();
        let (container_id, pod_sandbox_id) = (nobody(), nobody());
        let config = ground.plain_pod("pod");
        let exec = v1::ExecRequest {
            container_id: nobody(),
            cmd: vec!["true".into()],
            stdout: true,
            ..v1::ExecRequest::default()
        };
        let attach = v1::AttachRequest { container_id: nobody(), stdout: true, ..v1::AttachRequest::default() };
        let update = v1::UpdateContainerResourcesRequest { container_id: nobody(), ..Default::default() };
        let sync = v1::ExecSyncRequest { container_id: nobody(), cmd: vec!["true".into()], timeout: 1 };
        let create = client.create(&pod_sandbox_id, ground.plain_container("c", &SLEEP), &config).await;
        let (pod, id) = (pod_sandbox_id.clone(), container_id.clone());
        let ask = [
            ("create", create.map(drop)),
            ("start", client.start(&id).await),
            (
                "status",
                cri.container_status(v1::ContainerStatusRequest { container_id, verbose: false }).await.map(drop),
            ),
            ("update", cri.update_container_resources(update).await.map(drop)),
            ("log", cri.reopen_container_log(v1::ReopenContainerLogRequest { container_id: nobody() }).await.map(drop)),
            ("exec", cri.exec(exec).await.map(drop)),
            ("attach", cri.attach(attach).await.map(drop)),
            ("exec sync", cri.exec_sync(sync).await.map(drop)),
            ("stats", cri.container_stats(v1::ContainerStatsRequest { container_id: nobody() }).await.map(drop)),
            ("ports", cri.port_forward(v1::PortForwardRequest { pod_sandbox_id, port: vec![80] }).await.map(drop)),
            ("pod stats", cri.pod_sandbox_stats(v1::PodSandboxStatsRequest { pod_sandbox_id: pod }).await.map(drop)),
        ];
        for (what, answer) in ask {
            let error = answer.expect_err(what);
            assert_eq!(error.code(), Code::NotFound, "{what}: {error}");
            assert!(error.message().contains(&nobody()), "{what} says whom: {error}");
        }
        ground::finish(runtime).await;
    });
}

#[test]
fn what_cannot_be_is_refused_by_its_state_or_its_form() {
    with(|ground| async move {
        let (runtime, client) = ground.serve().await;
        let mut cri = client.runtime.clone();
        let config = ground.plain_pod("pod");
        let pod = client.run_pod(&config).await;
        let id = client.started(&pod, ground.plain_container("c", &["true"]), &config).await;
        client.ended(&id).await;
        assert_eq!(client.start(&id).await.expect_err("once").code(), Code::FailedPrecondition);
        let log = v1::ReopenContainerLogRequest { container_id: id.clone() };
        assert_eq!(cri.reopen_container_log(log).await.expect_err("ended").code(), Code::FailedPrecondition);
        let sync = v1::ExecSyncRequest { container_id: id.clone(), cmd: vec!["true".into()], timeout: 1 };
        assert_eq!(cri.exec_sync(sync).await.expect_err("ended").code(), Code::FailedPrecondition);
        let late = client.create(&pod, ground.plain_container("late", &SLEEP), &config).await.unwrap();
        stop_pod(&client, &pod).await.unwrap();
        assert_eq!(client.start(&late).await.expect_err("not ready").code(), Code::FailedPrecondition);
        let never = client.create(&pod, ground.plain_container("never", &SLEEP), &config).await;
        assert_eq!(never.expect_err("not ready").code(), Code::FailedPrecondition);
        let ports = v1::PortForwardRequest { pod_sandbox_id: pod.clone(), port: vec![80] };
        assert_eq!(cri.port_forward(ports).await.expect_err("not ready").code(), Code::FailedPrecondition);

        let pod = client.run_pod(&ground.plain_pod("second")).await;
        let volume = |host_path: &str| v1::Mount {
            host_path: host_path.into(),
            container_path: "/data".into(),
            ..v1::Mount::default()
        };
        let mounts = |mounts| v1::ContainerConfig { mounts, ..ground.plain_container("bad", &SLEEP) };
        let device =
            v1::Device { host_path: "/etc/passwd".into(), container_path: "/dev/x".into(), permissions: "r".into() };
        let absent = v1::ImageSpec { image: "test.invalid/nowhere:1".into(), ..v1::ImageSpec::default() };
        let refused = [
            (Code::InvalidArgument, "\"var/lib\"", mounts(vec![volume("var/lib")])),
            (Code::InvalidArgument, "\"./x\"", mounts(vec![volume("./x")])),
            (Code::InvalidArgument, "/etc/passwd", v1::ContainerConfig { devices: vec![device], ..mounts(Vec::new()) }),
            (Code::InvalidArgument, "metadata", v1::ContainerConfig { metadata: None, ..mounts(Vec::new()) }),
            (
                Code::NotFound,
                "test.invalid/nowhere:1",
                v1::ContainerConfig { image: Some(absent), ..mounts(Vec::new()) },
            ),
        ];
        for (code, words, container) in refused {
            let error = client.create(&pod, container, &config).await.expect_err(words);
            assert_eq!(error.code(), code, "{error}");
            assert!(error.message().contains(words), "{words}: {error}");
        }
        let in_second = v1::ContainerFilter { pod_sandbox_id: pod.clone(), ..v1::ContainerFilter::default() };
        assert_eq!(containers(&client, in_second).await, [""; 0]);
        assert_eq!(runtime.images().snapshots().len(), 2, "nothing is left of what was refused");
        ground::finish(runtime).await;
    });
}

#[test]
fn a_volume_is_the_folder_that_was_meant() {
    with(|ground| async move {
        let (runtime, client) = ground.serve().await;
        let config = ground.plain_pod("pod");
        let pod = client.run_pod(&config).await;
        let [folder, link, made] = ["folder", "link", "made/deep"].map(|name| ground.dir.path().join(name));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("flag"), "seen\n").unwrap();
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        let mount = |path: &std::path::Path, at: &str| v1::Mount {
            host_path: path.to_string_lossy().into_owned(),
            container_path: at.into(),
            ..v1::Mount::default()
        };
        let sharing = |name: &str| v1::ContainerConfig {
            mounts: vec![mount(&folder, "/folder"), mount(&link, "/link"), mount(&made, "/made")],
            ..ground.plain_container(name, &SLEEP)
        };
        let one = client.started(&pod, sharing("one"), &config).await;
        let two = client.started(&pod, sharing("two"), &config).await;
        assert_eq!(client.said(&one, "cat /folder/flag /link/flag; echo words > /made/file").await, "seen\nseen");
        assert_eq!(client.said(&two, "cat /made/file").await, "words", "two containers share it");
        assert_eq!(std::fs::read_to_string(made.join("file")).unwrap(), "words\n");
        client.remove_pod(&pod).await;
        assert!(made.join("file").exists(), "a volume is not the container's to remove");
        ground::finish(runtime).await;
    });
}

#[test]
fn a_log_that_was_renamed_is_opened_anew() {
    with(|ground| async move {
        let (runtime, client) = ground.serve().await;
        let config = ground.plain_pod("pod");
        let pod = client.run_pod(&config).await;
        let script = "n=0; while read line; do echo $n; n=$((n+1)); done < /pipe/line";
        let pipe = ground.dir.path().join("pipe");
        std::fs::create_dir(&pipe).unwrap();
        nix::unistd::mkfifo(&pipe.join("line"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut container = ground.plain_container("c", &["sh", "-c", script]);
        container.mounts = vec![v1::Mount {
            host_path: pipe.to_string_lossy().into_owned(),
            container_path: "/pipe".into(),
            ..v1::Mount::default()
        }];
        let id = client.started(&pod, container, &config).await;
        let mut line = std::fs::OpenOptions::new().read(true).write(true).open(pipe.join("line")).unwrap();
        let mut next = async |name: &str, count: usize| {
            std::io::Write::write_all(&mut line, b"\n").unwrap();
            while ground.lines(name).len() != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        next("c.log", 1).await;
        next("c.log", 2).await;
        let logs = ground.dir.path().join("logs");
        std::fs::rename(logs.join("c.log"), logs.join("c.old.log")).unwrap();
        next("c.old.log", 3).await;
        let request = v1::ReopenContainerLogRequest { container_id: id.clone() };
        client.runtime.clone().reopen_container_log(request).await.unwrap();
        assert!(logs.join("c.log").exists(), "it is there once the answer is");
        next("c.log", 1).await;
        assert_eq!(
            (ground.lines("c.old.log"), ground.lines("c.log")),
            (["0", "1", "2"].map(str::to_owned).to_vec(), vec!["3".to_owned()])
        );
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn statistics_are_of_those_who_were_asked_for() {
    with(|ground| async move {
        let (runtime, client) = ground.serve().await;
        let config = ground.plain_pod("pod");
        let pod = client.run_pod(&config).await;
        let mut ids = Vec::new();
        for name in ["one", "two", "busy"] {
            let command: &[&str] = if name == "busy" { &["sh", "-c", "while :; do :; done"] } else { &SLEEP };
            let mut container = ground.plain_container(name, command);
            container.labels = labels(&[("name", name)]);
            ids.push(client.started(&pod, container, &config).await);
        }
        client.create(&pod, ground.plain_container("never", &SLEEP), &config).await.unwrap();
        let list = async |filter| {
            let request = v1::ListContainerStatsRequest { filter };
            let stats = client.runtime.clone().list_container_stats(request).await.unwrap().into_inner().stats;
            let mut ids: Vec<_> = stats.iter().map(|s| s.attributes.clone().unwrap_or_default().id).collect();
            ids.sort();
            ids
        };
        let mut all = ids.clone();
        all.sort();
        assert_eq!(list(None).await, all);
        let filter = v1::ContainerStatsFilter::default();
        let of_two = v1::ContainerStatsFilter { label_selector: labels(&[("name", "two")]), ..filter.clone() };
        assert_eq!(list(Some(of_two)).await, [ids[1].clone()]);
        let of_one = v1::ContainerStatsFilter { id: ids[0].clone(), ..filter.clone() };
        assert_eq!(list(Some(of_one)).await, [ids[0].clone()]);
        let of_pod = v1::ContainerStatsFilter { pod_sandbox_id: pod.clone(), ..filter };
        assert_eq!(list(Some(of_pod)).await, all);

        let of = async |id: &str| {
            let request = v1::ContainerStatsRequest { container_id: id.to_owned() };
            client.runtime.clone().container_stats(request).await.unwrap().into_inner().stats.unwrap()
        };
        let first = of(&ids[2]).await;
        assert_eq!(first.attributes.unwrap_or_default().metadata.unwrap_or_default().name, "busy");
        assert!(first.memory.and_then(|m| m.working_set_bytes).is_some_and(|bytes| bytes.value > 0));
        assert!(first.writable_layer.and_then(|l| l.inodes_used).is_some());
        // The second of two readings that are far enough apart has a rate.
        let rate = loop {
            let cpu = of(&ids[2]).await.cpu.unwrap();
            assert!(cpu.timestamp > 0);
            if let Some(rate) = cpu.usage_nano_cores {
                break rate.value;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert!((1..=1_100_000_000).contains(&rate), "one thread is on one processor: {rate}");
        let request = v1::PodSandboxStatsRequest { pod_sandbox_id: pod.clone() };
        let stats = client.runtime.clone().pod_sandbox_stats(request).await.unwrap().into_inner().stats.unwrap();
        let linux = stats.linux.unwrap();
        assert_eq!(linux.containers.len(), 3);
        assert!(linux.process.and_then(|p| p.process_count).is_some_and(|count| count.value >= 3));
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

async fn next(events: &mut Streaming<v1::ContainerEventResponse>) -> (String, ContainerEventType) {
    let event = events.message().await.expect("an event").expect("one more");
    assert!(event.created_at > 0);
    (event.container_id.clone(), event.container_event_type())
}

#[test]
fn events_tell_of_everything_once_and_in_its_order() {
    use ContainerEventType::{
        ContainerCreatedEvent as Created, ContainerDeletedEvent as Deleted, ContainerStartedEvent as Started,
        ContainerStoppedEvent as Stopped,
    };
    with(|ground| async move {
        let (runtime, client) = ground.serve().await;
        let mut events =
            client.runtime.clone().get_container_events(v1::GetEventsRequest {}).await.unwrap().into_inner();
        let config = ground.plain_pod("pod");
        let pod = client.run_pod(&config).await;
        for kind in [Created, Started] {
            assert_eq!(next(&mut events).await, (pod.clone(), kind));
        }
        let id = client.create(&pod, ground.plain_container("c", &SLEEP), &config).await.unwrap();
        assert_eq!(next(&mut events).await, (id.clone(), Created));
        client.start(&id).await.unwrap();
        assert_eq!(next(&mut events).await, (id.clone(), Started));
        client.stop(&id, 0).await;
        let event = events.message().await.unwrap().unwrap();
        assert_eq!((&event.container_id, event.container_event_type()), (&id, Stopped));
        assert_eq!(event.pod_sandbox_status.unwrap_or_default().id, pod, "it says whose it was");
        let told = event.containers_statuses.iter().find(|status| status.id == id).unwrap();
        assert_eq!((told.state(), told.exit_code), (ContainerState::ContainerExited, 137));
        remove(&client, &id).await.unwrap();
        assert_eq!(next(&mut events).await, (id, Deleted));
        client.remove_pod(&pod).await;
        for kind in [Stopped, Deleted] {
            assert_eq!(next(&mut events).await, (pod.clone(), kind));
        }
        ground::finish(runtime).await;
    });
}
