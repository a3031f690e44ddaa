//! Containers that share the pod's pid namespace, as CRI's POD mode asks for.

mod ground;

use std::path::Path;

use gantry_cri::v1;
use ground::{Client, Ground, with};

fn shared_pod(ground: &Ground, name: &str) -> v1::PodSandboxConfig {
    let mut config = ground.pod(name);
    let security = config.linux.as_mut().and_then(|l| l.security_context.as_mut()).expect("it has one");
    security.namespace_options.as_mut().expect("it has them").pid = v1::NamespaceMode::Pod as i32;
    config
}

fn sharing(ground: &Ground, name: &str, command: &[&str]) -> v1::ContainerConfig {
    let mut container = ground.container(name, command);
    let security = container.linux.as_mut().and_then(|l| l.security_context.as_mut()).expect("it has one");
    security.namespace_options = Some(v1::NamespaceOption { pid: v1::NamespaceMode::Pod as i32, ..Default::default() });
    container
}

async fn started(client: &Client, pod: &str, config: &v1::PodSandboxConfig, container: v1::ContainerConfig) -> String {
    let id = client.create(pod, container, config).await.expect("created");
    client.start(&id).await.expect("started");
    id
}

async fn said(client: &Client, container: &str, script: &str) -> String {
    let answer = client.exec(container, &["sh", "-c", script]).await;
    String::from_utf8([answer.stdout, answer.stderr].concat()).expect("text").trim().to_owned()
}

async fn state(client: &Client, pod: &str) -> v1::PodSandboxState {
    let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.into(), verbose: false };
    client
        .runtime
        .clone()
        .pod_sandbox_status(request)
        .await
        .expect("a status")
        .into_inner()
        .status
        .expect("one")
        .state()
}

/// The host's number of the process that others of that container see as their first.
async fn first_process(client: &Client, container: &str) -> i32 {
    let of = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let namespace = of(client.pid(container).await);
    let pids = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    let named = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c == "gantry-init\n");
    pids.into_iter().find(|pid| named(pid) && of(*pid) == namespace).expect("a first process")
}

#[test]
fn containers_of_a_pod_see_each_other_and_nothing_of_the_host() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let config = shared_pod(&ground, "shared");
        let pod = client.run_pod(&config).await;
        let one = started(&client, &pod, &config, sharing(&ground, "one", &["sleep", "1000"])).await;
        let two = started(&client, &pod, &config, sharing(&ground, "two", &["sleep", "2000"])).await;
        let arguments = said(&client, &two, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").await;
        for word in ["gantry-init", "sleep 1000", "sleep 2000"] {
            assert!(arguments.contains(word), "{word} in {arguments}");
        }
        assert!(!arguments.contains(&*ground.dir.path().to_string_lossy()), "no path of the host: {arguments}");
        let status = said(&client, &two, "cat /proc/1/status").await;
        let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).map_or("", str::trim).to_owned();
        let none = "0000000000000000";
        for capabilities in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(field(capabilities), none, "{status}");
        }
        assert_eq!((field("Uid:"), field("NoNewPrivs:")), ("65535\t65535\t65535\t65535".into(), "1".into()));
        assert!(said(&client, &two, "ls /proc/1/root; ls -l /proc/1/cwd").await.contains("Permission denied"));

        // Who may trace it finds an empty root and the pod's namespaces.
        let mut tracer = sharing(&ground, "tracer", &["sleep", "3000"]);
        let security = tracer.linux.as_mut().and_then(|l| l.security_context.as_mut()).unwrap();
        security.capabilities =
            Some(v1::Capability { add_capabilities: vec!["SYS_PTRACE".into()], ..Default::default() });
        let tracer = started(&client, &pod, &config, tracer).await;
        assert_eq!(said(&client, &tracer, "ls -A /proc/1/root/ /proc/1/cwd/").await, "/proc/1/cwd/:\n\n/proc/1/root/:");
        for kind in ["ipc", "uts", "net", "pid"] {
            let same = format!("[ $(readlink /proc/1/ns/{kind}) = $(readlink /proc/self/ns/{kind}) ] && echo same");
            assert_eq!(said(&client, &tracer, &same).await, "same", "{kind}");
        }
        assert!(said(&client, &tracer, "echo > /proc/1/exe").await.contains("sh:"), "nobody writes to the program");

        // Who has lost its parent is reaped.
        said(&client, &one, "(sleep 0.05 & sleep 0.05 &) ; true").await;
        let zombies = "while grep -l '^State:.Z' /proc/[0-9]*/status; do sleep 0.05; done 2>/dev/null; echo none";
        assert!(said(&client, &one, zombies).await.ends_with("none"));

        // One may end the other.
        said(&client, &two, "kill $(grep -l 1000 /proc/[0-9]*/cmdline | head -n 1 | cut -d / -f 3)").await;
        assert_eq!(client.ended(&one).await.exit_code, 143);
        assert_eq!(client.status(&two).await.state(), v1::ContainerState::ContainerRunning);
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn a_shared_pid_namespace_outlives_everything_of_ours_but_its_first_process() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let config = shared_pod(&ground, "shared");
        let pod = client.run_pod(&config).await;
        let one = started(&client, &pod, &config, sharing(&ground, "one", &["sleep", "1000"])).await;
        let (first, pid) = (first_process(&client, &one).await, client.pid(&one).await);
        let kill = |pid: i32| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
        kill(client.supervisor_pid(&pod).await).expect("it runs");
        runtime.stop().await;
        let (runtime, client) = ground.start().await;
        assert_eq!(state(&client, &pod).await, v1::PodSandboxState::SandboxReady);
        let two = started(&client, &pod, &config, sharing(&ground, "two", &["sleep", "2000"])).await;
        assert_eq!((first_process(&client, &two).await, client.pid(&one).await), (first, pid));

        kill(first).expect("it runs");
        assert_eq!(client.ended(&two).await.exit_code, 137);
        // Before Linux 6.15 only a parent learns it, and that of this one is gone.
        let code = client.ended(&one).await.exit_code;
        assert!([137, 255].contains(&code), "{code}");
        for _ in 0..1000 * ground::patience() {
            if state(&client, &pod).await == v1::PodSandboxState::SandboxNotready {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let error = client.create(&pod, sharing(&ground, "three", &["true"]), &config).await.expect_err("not ready");
        assert!(error.message().contains("not ready"), "{error}");
        client.remove_pod(&pod).await;

        // Ended while nobody looked.
        let pod = client.run_pod(&shared_pod(&ground, "again")).await;
        let again = started(&client, &pod, &config, sharing(&ground, "again", &["sleep", "1000"])).await;
        let first = first_process(&client, &again).await;
        runtime.stop().await;
        kill(first).expect("it runs");
        while Path::new(&format!("/proc/{first}/root")).exists() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        let (runtime, client) = ground.start().await;
        for _ in 0..1000 * ground::patience() {
            if state(&client, &pod).await == v1::PodSandboxState::SandboxNotready {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(state(&client, &pod).await, v1::PodSandboxState::SandboxNotready);
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn a_pid_namespace_that_is_not_there_cannot_be_shared() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let config = ground.pod("private");
        let pod = client.run_pod(&config).await;
        let error = client.create(&pod, sharing(&ground, "one", &["true"]), &config).await.expect_err("refused");
        assert_eq!(error.code(), tonic::Code::InvalidArgument, "{error}");
        assert!(error.message().contains("POD"), "{error}");
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn a_command_enters_whatever_its_container_has_of_the_host() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let node = v1::NamespaceMode::Node as i32;
        let on_host = v1::NamespaceOption { network: node, pid: node, ipc: node, ..Default::default() };
        let mut config = ground.pod("host");
        let security = config.linux.as_mut().and_then(|l| l.security_context.as_mut()).expect("it has one");
        security.namespace_options = Some(on_host.clone());
        let pod = client.run_pod(&config).await;
        let mut container = ground.container("host", &["sleep", "1000"]);
        let security = container.linux.as_mut().and_then(|l| l.security_context.as_mut()).expect("it has one");
        security.namespace_options = Some(on_host);
        let id = started(&client, &pod, &config, container).await;
        for kind in ["pid", "net", "ipc", "uts"] {
            let own = std::fs::read_link(format!("/proc/thread-self/ns/{kind}")).unwrap();
            assert_eq!(
                said(&client, &id, &format!("readlink /proc/self/ns/{kind}")).await,
                own.to_string_lossy(),
                "{kind}"
            );
        }
        let of_container = std::fs::read_link(format!("/proc/{}/ns/mnt", client.pid(&id).await)).unwrap();
        assert_eq!(said(&client, &id, "readlink /proc/self/ns/mnt").await, of_container.to_string_lossy());
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

fn looking_into(ground: &Ground, name: &str, target: &str) -> v1::ContainerConfig {
    let mut container = ground.container(name, &["sleep", "2000"]);
    let security = container.linux.as_mut().and_then(|l| l.security_context.as_mut()).expect("it has one");
    let pid = v1::NamespaceMode::Target as i32;
    security.namespace_options = Some(v1::NamespaceOption { pid, target_id: target.into(), ..Default::default() });
    container
}

#[test]
fn a_container_sees_the_processes_of_its_target_and_no_others() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let config = ground.pod("target");
        let pod = client.run_pod(&config).await;
        let target = started(&client, &pod, &config, ground.container("target", &["sleep", "1000"])).await;
        started(&client, &pod, &config, ground.container("other", &["sleep", "3000"])).await;
        let debugger = started(&client, &pod, &config, looking_into(&ground, "debugger", &target)).await;
        let arguments = said(&client, &debugger, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").await;
        assert!(arguments.contains("sleep 1000") && arguments.contains("sleep 2000"), "{arguments}");
        assert!(!arguments.contains("sleep 3000"), "{arguments}");
        let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
        assert_eq!(namespace(client.pid(&debugger).await), namespace(client.pid(&target).await));
        // The target's first process is theirs, too.
        client.stop(&target, 0).await;
        assert_eq!(client.ended(&debugger).await.exit_code, 137);
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn a_target_is_a_running_container_of_the_same_pod() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let (config, foreign) = (ground.pod("one"), ground.pod("two"));
        let (pod, other) = (client.run_pod(&config).await, client.run_pod(&foreign).await);
        let target = started(&client, &pod, &config, ground.container("target", &["sleep", "1000"])).await;
        let error = client.create(&other, looking_into(&ground, "spy", &target), &foreign).await.expect_err("refused");
        assert_eq!(error.code(), tonic::Code::InvalidArgument, "{error}");
        assert!(error.message().contains("another sandbox"), "{error}");
        let error = client.create(&pod, looking_into(&ground, "lost", "nobody"), &config).await.expect_err("refused");
        assert_eq!(error.code(), tonic::Code::NotFound, "{error}");

        // It ends between the making and the start: whose its number is by then is of no account.
        let late = client.create(&pod, looking_into(&ground, "late", &target), &config).await.expect("created");
        client.stop(&target, 0).await;
        let error = client.start(&late).await.expect_err("refused");
        assert!(error.message().contains("not running"), "{error}");
        assert_eq!(client.status(&late).await.reason, "StartError");
        let error = client.create(&pod, looking_into(&ground, "later", &target), &config).await.expect_err("refused");
        assert_eq!(error.code(), tonic::Code::FailedPrecondition, "{error}");
        for pod in [&pod, &other] {
            client.remove_pod(pod).await;
        }
        ground::finish(runtime).await;
    });
}

/// Commands are forked where their container is; who forks them stays where it was, and cannot be traced from there.
#[test]
fn a_supervisor_comes_home() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let config = ground.pod("home");
        let pod = client.run_pod(&config).await;
        let id = started(&client, &pod, &config, ground.container("home", &["sleep", "1000"])).await;
        let supervisor = client.supervisor_pid(&pod).await;
        let place = || {
            let kinds = ["pid", "pid_for_children", "net", "ipc", "uts", "cgroup", "mnt"].into_iter();
            let links = kinds.map(|kind| std::fs::read_link(format!("/proc/{supervisor}/ns/{kind}")).unwrap());
            let more = ["root", "cwd"].map(|link| std::fs::read_link(format!("/proc/{supervisor}/{link}")).unwrap());
            links.chain(more).collect::<Vec<_>>()
        };
        let before = place();
        for _ in 0..3 {
            assert_eq!(client.exec(&id, &["true"]).await.exit_code, 0);
            assert_eq!(said(&client, &id, "echo here").await, "here");
        }
        let mut there =
            v1::ExecSyncRequest { container_id: id.clone(), cmd: vec!["no-such-program".into()], timeout: 10 };
        client.runtime.clone().exec_sync(there.clone()).await.expect_err("there is no such program");
        assert_eq!(place()[..8], before[..8], "its root too");
        client.stop(&id, 0).await;
        there.cmd = vec!["true".into()];
        client.runtime.clone().exec_sync(there).await.expect_err("nothing runs there");
        assert_eq!(place()[..8], before[..8]);
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}
