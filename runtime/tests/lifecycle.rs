//! Containers from CRI's first call to its last, for real.

mod ground;

use gantry_cri::v1;
use ground::with;

#[test]
fn a_container_runs_logs_and_ends() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let config = ground.pod("first");
        let pod = client.run_pod(&config).await;
        let container = ground.container("hello", &["sh", "-c", "echo out; echo err >&2; echo -n end; exit 7"]);
        let id = client.create(&pod, container, &config).await.unwrap();
        assert_eq!(client.status(&id).await.state(), v1::ContainerState::ContainerCreated);
        client.start(&id).await.unwrap();
        let status = client.ended(&id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (7, "Error"));
        assert!(status.started_at >= status.created_at && status.finished_at >= status.started_at);
        let log = ground.log("hello.log");
        for line in [" stdout F out\n", " stderr F err\n", " stdout F end\n"] {
            assert!(log.contains(line), "{line:?} in {log:?}");
        }
        client.remove_pod(&pod).await;
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn a_command_that_is_not_there_is_a_start_error() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let config = ground.pod("missing");
        let pod = client.run_pod(&config).await;
        let cases: [(&str, &str, &str); 4] = [
            ("a", "/nowhere/at/all", "No such file or directory"),
            ("b", "nowhere", "executable file not found in $PATH"),
            ("c", "/etc", "Permission denied"),
            ("d", "/etc/passwd", "Permission denied"),
        ];
        for (name, command, words) in cases {
            let id = client.create(&pod, ground.container(name, &[command]), &config).await.unwrap();
            let error = client.start(&id).await.expect_err("it cannot start");
            assert!(error.message().contains(words) && error.message().contains(command), "{error}");
            let status = client.status(&id).await;
            assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"), "{status:?}");
            assert!(status.message.contains(words), "{status:?}");
        }
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn stopping_is_graceful_then_final() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let config = ground.pod("stops");
        let pod = client.run_pod(&config).await;
        let polite = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done";
        let one = client.create(&pod, ground.container("polite", &["sh", "-c", polite]), &config).await.unwrap();
        let deaf = "trap '' TERM; echo up; while :; do sleep 0.1; done";
        let two = client.create(&pod, ground.container("deaf", &["sh", "-c", deaf]), &config).await.unwrap();
        for id in [&one, &two] {
            client.start(id).await.unwrap();
        }
        for log in ["polite.log", "deaf.log"] {
            while ground.lines(log).is_empty() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        }
        client.stop(&one, 10).await;
        let status = client.status(&one).await;
        assert_eq!((status.exit_code, ground.lines("polite.log")), (3, vec!["up".to_owned(), "bye".to_owned()]));
        client.stop(&two, 1).await;
        assert_eq!(client.status(&two).await.exit_code, 137);
        client.stop(&two, 1).await;
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn a_container_out_of_memory_says_so() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let config = ground.pod("hungry");
        let pod = client.run_pod(&config).await;
        let mut container = ground.container("eats", &["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]);
        if let Some(linux) = &mut container.linux {
            linux.resources = Some(v1::LinuxContainerResources {
                memory_limit_in_bytes: 32 << 20,
                cpu_quota: 50_000,
                cpu_period: 100_000,
                cpu_shares: 100,
                ..Default::default()
            });
        }
        let id = client.create(&pod, container, &config).await.unwrap();
        client.start(&id).await.unwrap();
        let status = client.ended(&id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn a_pod_has_an_address_and_its_files() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let mut config = ground.pod("net");
        if let Some(options) =
            config.linux.as_mut().and_then(|l| l.security_context.as_mut()?.namespace_options.as_mut())
        {
            options.network = v1::NamespaceMode::Pod as i32;
        }
        config.dns_config =
            Some(v1::DnsConfig { servers: vec!["10.96.0.10".into()], searches: Vec::new(), options: Vec::new() });
        let pod = client.run_pod(&config).await;
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: false };
        let status = client.runtime.clone().pod_sandbox_status(request).await.unwrap().into_inner().status.unwrap();
        let ip = status.network.unwrap().ip;
        assert!(ip.starts_with("10.250.0."), "{ip}");
        let script = "ip -4 addr show eth0; hostname; cat /etc/resolv.conf /etc/hostname /etc/hosts; touch /dev/shm/x && echo shm";
        let id = client.create(&pod, ground.container("shows", &["sh", "-c", script]), &config).await.unwrap();
        client.start(&id).await.unwrap();
        client.ended(&id).await;
        let text = ground.lines("shows.log").join("\n");
        for words in [format!("inet {ip}/32").as_str(), "net", "nameserver 10.96.0.10", "shm", &format!("{ip}\tnet")] {
            assert!(text.contains(words), "{words} in {text}");
        }
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn a_hundred_containers_start_at_once() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let mut pods = Vec::new();
        for i in 0..10 {
            let config = ground.pod(&format!("many{i}"));
            pods.push((client.run_pod(&config).await, config));
        }
        let mut starts = tokio::task::JoinSet::new();
        for (pod, config) in &pods {
            for n in 0..10 {
                let name = format!("{}-{n}", config.hostname);
                let container = ground.container(&name, &["sh", "-c", &format!("echo {name}; exit {n}")]);
                let (client, pod, config) = (client.clone(), pod.clone(), config.clone());
                starts.spawn(async move {
                    let id = client.create(&pod, container, &config).await.expect("created");
                    client.start(&id).await.expect("started");
                    (name, n, client.ended(&id).await.exit_code)
                });
            }
        }
        while let Some(done) = starts.join_next().await {
            let (name, n, code) = done.unwrap();
            assert_eq!(code, n, "{name}");
            assert_eq!(ground.lines(&format!("{name}.log")), vec![name]);
        }
        for (pod, _) in &pods {
            client.remove_pod(pod).await;
        }
        ground::finish(runtime).await;
    });
}

#[test]
fn who_is_removed_as_it_ends_is_removed() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let config = ground.pod("brief");
        let pod = client.run_pod(&config).await;
        let mut lives = tokio::task::JoinSet::new();
        for worker in 0..4 {
            let (client, pod, config) = (client.clone(), pod.clone(), config.clone());
            let containers: Vec<_> =
                (0..50).map(|n| ground.container(&format!("brief-{worker}-{n}"), &["true"])).collect();
            lives.spawn(async move {
                for container in containers {
                    let id = client.create(&pod, container, &config).await.expect("created");
                    client.start(&id).await.expect("started");
                    let remove = async || {
                        let request = v1::RemoveContainerRequest { container_id: id.clone() };
                        client.runtime.clone().remove_container(request).await.expect("removed");
                    };
                    tokio::join!(remove(), remove());
                }
            });
        }
        while let Some(done) = lives.join_next().await {
            done.unwrap();
        }
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn who_is_not_root_serves_any_port_of_a_pods_own_network() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap();
        let (start, range) = ("ip_unprivileged_port_start", "ping_group_range");
        let of_host = (read(start), read(range));
        let cases = [
            ("own", v1::NamespaceMode::Pod, "", "0\n0 2147483647"),
            ("says", v1::NamespaceMode::Pod, "1000", "1000\n0 2147483647"),
            ("host", v1::NamespaceMode::Node, "", ""),
        ];
        for (name, network, said, expected) in cases {
            let mut config = ground.pod(name);
            let linux = config.linux.as_mut().unwrap();
            let options = linux.security_context.as_mut().and_then(|s| s.namespace_options.as_mut()).unwrap();
            options.network = network as i32;
            if !said.is_empty() {
                linux.sysctls.insert(format!("net.ipv4.{start}"), said.to_owned());
            }
            let pod = client.run_pod(&config).await;
            let script =
                format!("cd /proc/sys/net/ipv4; cat {start} {range} | tr '\\t' ' '; nc -l -p 80 -w 1; echo $?");
            let mut container = ground.container(name, &["sh", "-c", &script]);
            let security = container.linux.as_mut().and_then(|l| l.security_context.as_mut()).unwrap();
            security.run_as_user = Some(v1::Int64Value { value: 1000 });
            security.capabilities =
                Some(v1::Capability { drop_capabilities: vec!["ALL".into()], ..v1::Capability::default() });
            let id = client.create(&pod, container, &config).await.unwrap();
            client.start(&id).await.unwrap();
            client.ended(&id).await;
            // What two streams said stands in no order.
            let (refusals, read): (Vec<_>, Vec<_>) =
                ground.lines(&format!("{name}.log")).into_iter().partition(|line| line.starts_with("nc:"));
            let (refusals, read) = (refusals.join("\n"), read.join("\n"));
            if network == v1::NamespaceMode::Pod {
                assert!(read.starts_with(expected), "{name}: {read}");
                assert_eq!(refusals.contains("Permission denied"), said == "1000", "{name}: {refusals}");
            }
            client.remove_pod(&pod).await;
        }
        assert_eq!((read(start), read(range)), of_host, "the host's are untouched");
        ground::finish(runtime).await;
    });
}

#[test]
fn who_is_killed_before_its_program_has_not_started() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let config = ground.pod("pod");
        let pod = client.run_pod(&config).await;
        let mut container = ground.container("small", &["true"]);
        // Less than a process takes to become one.
        container.linux.as_mut().unwrap().resources =
            Some(v1::LinuxContainerResources { memory_limit_in_bytes: 64 << 10, ..Default::default() });
        let id = client.create(&pod, container, &config).await.unwrap();
        let error = client.start(&id).await.expect_err("it cannot start");
        assert!(error.message().contains("out of memory"), "{error:?}");
        let status = client.status(&id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
        ground::finish(runtime).await;
    });
}
