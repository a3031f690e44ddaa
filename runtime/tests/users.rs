//! Pods with users of their own (CRI's `UserNamespace`): what they are inside, what they are to the host, and that nothing
//! of the host's root is ever among them.

mod ground;

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::time::Duration;

use gantry_cri::v1::{self, NamespaceMode};
use gantry_runtime::Runtime;
use ground::{Client, Ground, IMAGE, with};
use tonic::Code;

/// The first of the host's ids that the pod has.
const HOST: u32 = 20 << 16;
const LENGTH: u32 = 1 << 16;

fn mapping(host_id: u32) -> Vec<v1::IdMapping> {
    vec![v1::IdMapping { host_id, container_id: 0, length: LENGTH }]
}

fn users(host: u32) -> v1::UserNamespace {
    v1::UserNamespace { mode: NamespaceMode::Pod.into(), uids: mapping(host), gids: mapping(host) }
}

fn options(config: &mut v1::PodSandboxConfig) -> &mut v1::NamespaceOption {
    let security = config.linux.as_mut().and_then(|l| l.security_context.as_mut());
    security.and_then(|s| s.namespace_options.as_mut()).expect("it has them")
}

fn security(config: &mut v1::ContainerConfig) -> &mut v1::LinuxContainerSecurityContext {
    config.linux.as_mut().and_then(|l| l.security_context.as_mut()).expect("it has one")
}

fn pod(ground: &Ground, name: &str) -> v1::PodSandboxConfig {
    let mut config = ground.pod(name);
    let namespaces = options(&mut config);
    namespaces.network = NamespaceMode::Pod.into();
    namespaces.userns_options = Some(users(HOST));
    config
}

fn container(ground: &Ground, name: &str, command: &[&str]) -> v1::ContainerConfig {
    let mut config = ground.container(name, command);
    let namespaces = security(&mut config).namespace_options.as_mut().expect("it has them");
    namespaces.userns_options = Some(users(HOST));
    config
}

fn volume(at: &str, host: &Path, mapped: bool) -> v1::Mount {
    let mapping = || if mapped { mapping(HOST) } else { Vec::new() };
    v1::Mount {
        container_path: at.into(),
        host_path: host.to_string_lossy().into_owned(),
        uid_mappings: mapping(),
        gid_mappings: mapping(),
        ..v1::Mount::default()
    }
}

async fn started(client: &Client, pod: &str, config: &v1::PodSandboxConfig, container: v1::ContainerConfig) -> String {
    let id = client.create(pod, container, config).await.expect("created");
    client.start(&id).await.expect("started");
    id
}

/// What a command says, with its errors; it must succeed.
async fn said(client: &Client, container: &str, script: &str) -> String {
    let answer = client.exec(container, &["sh", "-c", script]).await;
    let text = String::from_utf8([answer.stdout, answer.stderr].concat()).expect("text").trim().to_owned();
    assert_eq!(answer.exit_code, 0, "{script}: {text}");
    text
}

/// Whether this machine has them. Where it has not, that is loud, and the machine of the tests' own has.
async fn are_here(client: &Client) -> bool {
    let request = v1::StatusRequest { verbose: false };
    let handlers = client.runtime.clone().status(request).await.expect("a status").into_inner().runtime_handlers;
    if handlers[0].features.as_ref().is_some_and(|features| features.user_namespaces) {
        return true;
    }
    assert!(std::env::var_os("GANTRY_VM_PATIENCE").is_none(), "the tests' own machine has user namespaces");
    eprintln!("SKIPPED, WITH EVERYTHING THAT IT PROVES: this kernel maps no ids; run `vm run users --on uml-6.12`");
    false
}

fn with_users<F: Future<Output = ()>>(test: impl FnOnce(Ground, Runtime, Client) -> F) {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        if are_here(&client).await {
            test(ground, runtime, client).await;
        } else {
            ground::finish(runtime).await;
        }
    });
}

fn status_of(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs")
}

fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or("").split_whitespace().collect::<Vec<_>>().join(" ")
}

fn namespace(pid: i32, kind: &str) -> std::path::PathBuf {
    std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("it runs")
}

/// The host's number of the process with these arguments.
fn find(arguments: &str) -> i32 {
    let pids = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    let called = |pid: &i32| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.trim_end_matches('\0').replace('\0', " ") == arguments
    };
    pids.into_iter().find(called).unwrap_or_else(|| panic!("no process {arguments:?}"))
}

/// To the host it is one of the pod's users, in the pod's namespaces, with no right over the host.
fn assert_foreign(pid: i32, user_namespace: &Path) {
    let (status, own) = (status_of(pid), std::process::id() as i32);
    for ids in ["Uid:", "Gid:"] {
        for id in field(&status, ids).split(' ') {
            let id: u32 = id.parse().expect("a number");
            assert!((HOST..HOST + LENGTH).contains(&id), "{status}");
        }
    }
    for id in field(&status, "Groups:").split(' ').filter(|id| !id.is_empty()) {
        assert!((HOST..HOST + LENGTH).contains(&id.parse().expect("a number")), "{status}");
    }
    assert_eq!(namespace(pid, "user"), user_namespace);
    for kind in ["user", "pid", "net", "ipc", "uts", "mnt", "cgroup"] {
        assert_ne!(namespace(pid, kind), namespace(own, kind), "{kind}");
    }
}

#[test]
fn a_container_is_root_inside_and_nobody_outside() {
    with_users(async |ground, runtime, client| {
        let config = pod(&ground, "own");
        let pod = client.run_pod(&config).await;
        let id = started(&client, &pod, &config, container(&ground, "c", &["sleep", "1234567"])).await;
        let first = client.pid(&id).await;
        let own = namespace(first, "user");
        assert_foreign(first, &own);
        let map = said(&client, &id, "cat /proc/self/uid_map; cat /proc/self/gid_map").await;
        let words: Vec<_> = map.split_whitespace().collect();
        let line = ["0", &HOST.to_string(), &LENGTH.to_string()];
        assert_eq!(words, [line, line].concat());
        assert_eq!(said(&client, &id, "id -u; id -g; id -G").await, "0\n0\n0");
        assert_eq!(said(&client, &id, "cat /proc/1/status | grep ^Uid").await.replace('\t', " "), "Uid: 0 0 0 0");

        // A further process is what the first one is, its capabilities included.
        said(&client, &id, "sleep 7654321 & true").await;
        let further = find("sleep 7654321");
        assert_foreign(further, &own);
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:", "Seccomp:"] {
            assert_eq!(field(&status_of(further), set), field(&status_of(first), set), "{set}");
        }
        // What a capability is good for ends at the pod.
        for script in ["echo 1 > /proc/sys/vm/drop_caches", "mount -t tmpfs none /tmp", "mkdir /sys/fs/cgroup/x"] {
            let answer = client.exec(&id, &["sh", "-c", script]).await;
            assert_ne!(answer.exit_code, 0, "{script}: {}", String::from_utf8_lossy(&answer.stdout));
        }

        // Its root is the image's, and its own to change.
        let owners = "stat -c %u:%g / /etc /etc/passwd /etc/hosts /etc/resolv.conf /etc/hostname /dev/shm | sort -u";
        let owners = owners.replace("| sort -u", "");
        for owner in said(&client, &id, &owners).await.lines() {
            assert_eq!(owner, "0:0");
        }
        let script = "mkdir /made && touch /made/x && cat /etc/passwd > /made/y && echo 10.0.0.1 x >> /etc/hosts \
                      && touch /dev/shm/x && echo out > /dev/stdout && echo z > /dev/null && head -c 1 /dev/zero \
                      && cat /proc/sys/kernel/hostname && ls /dev/mqueue /dev/pts && grep -c mqueue /proc/mounts";
        let said_all = said(&client, &id, script).await;
        assert!(said_all.contains("out") && said_all.contains("own"), "{said_all}");
        let upper = ground.config.state_dir.join("snapshots").join("c").join(&id).join("upper");
        let made = std::fs::metadata(upper.join("made/y")).expect("what it made is there");
        assert_eq!((made.uid(), made.gid()), (HOST, HOST), "on the disk it is its own user's");
        client.stop(&id, 0).await;
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn volumes_have_the_same_owners_on_both_sides_where_they_are_mapped() {
    with_users(async |ground, runtime, client| {
        let folder = |name: &str| {
            let path = ground.dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
            path
        };
        let (mapped, plain) = (folder("mapped"), folder("plain"));
        std::fs::write(mapped.join("web"), "web").unwrap();
        chown(mapped.join("web"), Some(33), Some(34)).unwrap();
        std::fs::write(plain.join("secret"), "of the host").unwrap();
        std::fs::set_permissions(plain.join("secret"), PermissionsExt::from_mode(0o600)).unwrap();
        // A file in memory, as secrets are.
        rustix::mount::mount("none", folder("memory"), "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
        let memory = ground.dir.path().join("memory");
        std::fs::write(memory.join("token"), "t").unwrap();
        std::fs::set_permissions(memory.join("token"), PermissionsExt::from_mode(0o400)).unwrap();

        let config = pod(&ground, "volumes");
        let pod = client.run_pod(&config).await;
        let mut asked = container(&ground, "c", &["sleep", "1000"]);
        let mut read_only = volume("/ro", &mapped, true);
        read_only.readonly = true;
        let image = v1::Mount {
            container_path: "/image".into(),
            readonly: true,
            image: Some(v1::ImageSpec { image: IMAGE.into(), ..v1::ImageSpec::default() }),
            ..v1::Mount::default()
        };
        asked.mounts = vec![
            volume("/mapped", &mapped, true),
            volume("/plain", &plain, false),
            volume("/run/deep/memory", &memory, true),
            volume("/etc/one-file", &mapped.join("web"), true),
            read_only,
            image,
        ];
        let id = started(&client, &pod, &config, asked).await;
        let script = "stat -c %u:%g /mapped /mapped/web /plain/secret /etc/one-file /image/etc/passwd";
        let nobody = "65534:65534";
        assert_eq!(said(&client, &id, script).await, format!("0:0\n33:34\n{nobody}\n33:34\n0:0"));
        assert_eq!(said(&client, &id, "cat /run/deep/memory/token").await, "t");
        said(&client, &id, "echo x > /mapped/new && mkdir /mapped/dir && busybox chmod 1777 /mapped/dir").await;
        let owner = |path: &Path| std::fs::metadata(path).map(|m| (m.uid(), m.gid())).unwrap();
        assert_eq!(owner(&mapped.join("new")), (0, 0), "as Kubernetes wants it: inside and on the disk the same");
        for refused in
            ["cat /plain/secret", "touch /plain/x", "touch /ro/x", "touch /image/x", "busybox chown 0 /plain/secret"]
        {
            let answer = client.exec(&id, &["sh", "-c", refused]).await;
            assert_ne!(answer.exit_code, 0, "{refused}");
        }

        // Users and groups beside root, with a root that cannot be written.
        let mut web =
            container(&ground, "web", &["sh", "-c", "id -u; id -g; id -G; echo x > /mapped/dir/w; sleep 1000"]);
        web.mounts = vec![volume("/mapped", &mapped, true), volume("/made/for/it", &mapped, true)];
        let own = security(&mut web);
        own.run_as_user = Some(v1::Int64Value { value: 33 });
        own.supplemental_groups = vec![777, 65_535];
        own.readonly_rootfs = true;
        let web = started(&client, &pod, &config, web).await;
        let ids = said(&client, &web, "id -u; id -g; id -G | tr ' ' '\n' | grep -c .; id -G").await;
        let (first, groups) = ids.rsplit_once('\n').expect("four lines");
        let mut groups: Vec<u32> = groups.split(' ').map(|id| id.parse().expect("a number")).collect();
        groups.sort_unstable();
        assert_eq!((first, groups), ("33\n34\n4", vec![4, 34, 777, 65_535]));
        assert_eq!(
            said(&client, &web, "cat /made/for/it/web; touch /x 2>&1 || echo refused").await.lines().last(),
            Some("refused")
        );
        while !mapped.join("dir/w").exists() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(owner(&mapped.join("dir/w")), (33, 34));
        assert_foreign(client.pid(&web).await, &namespace(client.pid(&id).await, "user"));
        let user = client.status(&web).await.user.and_then(|u| u.linux).expect("it is told");
        assert_eq!((user.uid, user.gid), (33, 34), "ids as they are inside");
        let lines = ground.lines("web.log");
        assert_eq!(lines[0], "33", "{lines:?}");

        let mut beyond = container(&ground, "beyond", &["true"]);
        security(&mut beyond).run_as_user = Some(v1::Int64Value { value: LENGTH.into() });
        let beyond = client.create(&pod, beyond, &config).await.expect("created");
        let words = client.start(&beyond).await.unwrap_err().message().to_owned();
        assert!(words.contains("user 65536 is not one of the 65536 that the pod's user namespace has"), "{words}");

        client.remove_pod(&pod).await;
        rustix::mount::unmount(&memory, rustix::mount::UnmountFlags::DETACH).unwrap();
        ground::finish(runtime).await;
    });
}

#[test]
fn its_namespaces_are_its_own_to_rule_and_not_more() {
    with_users(async |ground, runtime, client| {
        let mut config = pod(&ground, "rule");
        let linux = config.linux.as_mut().expect("it has one");
        linux.sysctls = [("kernel.shmmax", "1048576"), ("net.ipv4.ip_local_port_range", "2000 3000")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        linux.security_context.as_mut().expect("it has one").privileged = true;
        let pod = client.run_pod(&config).await;
        let mut admin = container(&ground, "admin", &["sleep", "1000"]);
        security(&mut admin).capabilities =
            Some(v1::Capability { add_capabilities: vec!["ALL".into()], ..v1::Capability::default() });
        let id = started(&client, &pod, &config, admin).await;
        let sysctls = "cat /proc/sys/kernel/shmmax /proc/sys/net/ipv4/ip_local_port_range \
                       /proc/sys/net/ipv4/ip_unprivileged_port_start";
        assert_eq!(said(&client, &id, sysctls).await.replace('\t', " "), "1048576\n2000 3000\n0");
        said(&client, &id, "mount -t tmpfs none /tmp && touch /tmp/x && ip link set lo down && ip link set lo up")
            .await;
        assert!(said(&client, &id, "ip addr").await.contains("10.250.0."), "its network is there");
        for beyond in [
            "mount -o remount,rw /sys && echo 0 > /sys/kernel/mm/ksm/run",
            "mkdir /d && mount -t ext4 /dev/vda /d",
            "echo 0 > /proc/1/oom_score_adj && echo -1000 > /proc/1/oom_score_adj && cat /proc/1/environ > /dev/full",
            "echo h > /proc/sysrq-trigger",
        ] {
            assert_ne!(client.exec(&id, &["sh", "-c", beyond]).await.exit_code, 0, "{beyond}");
        }

        // Privileged is what its own namespaces have, and what everybody may do with the host's devices.
        let mut privileged = container(&ground, "privileged", &["sleep", "1000"]);
        let own = security(&mut privileged);
        own.privileged = true;
        (own.masked_paths, own.readonly_paths) = (Vec::new(), Vec::new());
        let id = started(&client, &pod, &config, privileged).await;
        assert_foreign(client.pid(&id).await, &namespace(client.pid(&id).await, "user"));
        said(&client, &id, "mount -t tmpfs none /tmp && hostname changed && test -e /dev/null").await;
        let kmsg = "echo x > /dev/kmsg";
        assert_ne!(client.exec(&id, &["sh", "-c", kmsg]).await.exit_code, 0, "{kmsg}");
        assert_ne!(std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim(), "changed");

        // A device that it is given is the host's node, at the place that was asked for.
        let mut given = container(&ground, "given", &["sleep", "1000"]);
        given.devices = vec![v1::Device {
            container_path: "/dev/given/zero".into(),
            host_path: "/dev/zero".into(),
            permissions: "r".into(),
        }];
        let id = started(&client, &pod, &config, given).await;
        assert_eq!(
            said(&client, &id, "head -c 3 /dev/given/zero | wc -c; stat -c %t:%T /dev/given/zero").await,
            "3\n1:5"
        );

        // A terminal.
        let mut terminal =
            container(&ground, "terminal", &["sh", "-c", "test -t 0 && stat -c %u /dev/console && echo yes"]);
        terminal.tty = true;
        let id = started(&client, &pod, &config, terminal).await;
        assert_eq!(client.ended(&id).await.exit_code, 0);
        assert_eq!(ground.lines("terminal.log").iter().map(|l| l.trim()).collect::<Vec<_>>(), ["0", "yes"]);
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn nobody_of_the_host_is_ever_among_them() {
    with_users(async |ground, runtime, client| {
        let mut config = pod(&ground, "watched");
        options(&mut config).pid = NamespaceMode::Pod.into();
        let pod = client.run_pod(&config).await;
        let sharing = |name: &str, command: &[&str]| {
            let mut config = container(&ground, name, command);
            let own = security(&mut config);
            own.namespace_options.as_mut().expect("it has them").pid = NamespaceMode::Pod.into();
            own.capabilities =
                Some(v1::Capability { add_capabilities: vec!["SYS_PTRACE".into()], ..v1::Capability::default() });
            config
        };
        // It looks at everybody whom it sees, for as long as others come.
        let watch = "touch /watching; while [ ! -e /enough ]; do for p in /proc/[0-9]*; do \
                     grep -hE '^(Uid|Gid):' $p/status; \
                     done; done > /seen 2> /dev/null; echo done > /finished; sleep 1000";
        let watcher = started(&client, &pod, &config, sharing("watcher", &["sh", "-c", watch])).await;
        let other = started(&client, &pod, &config, sharing("other", &["sleep", "1000"])).await;
        said(&client, &watcher, "while [ ! -e /watching ]; do sleep 0.01; done").await;
        for n in 0..15 {
            said(&client, &other, "id").await;
            let short = started(&client, &pod, &config, sharing(&format!("short{n}"), &["true"])).await;
            client.ended(&short).await;
        }
        said(&client, &watcher, "touch /enough; while [ ! -e /finished ]; do sleep 0.01; done").await;
        let seen = said(&client, &watcher, "cat /seen").await;
        let ids: std::collections::BTreeSet<_> =
            seen.lines().filter(|l| l.starts_with("Uid") || l.starts_with("Gid")).collect();
        let known = [
            "Uid:\t0\t0\t0\t0",
            "Gid:\t0\t0\t0\t0",
            "Uid:\t65535\t65535\t65535\t65535",
            "Gid:\t65535\t65535\t65535\t65535",
        ];
        assert!(ids.iter().all(|line| known.contains(line)), "the host's root would be 65534: {ids:?}");
        assert!(ids.len() == 4, "it has seen containers and their first process: {ids:?}");
        // One that shares another's processes for debugging.
        let mut debugger = container(&ground, "debugger", &["sleep", "1000"]);
        let own = security(&mut debugger).namespace_options.as_mut().expect("it has them");
        (own.pid, own.target_id) = (NamespaceMode::Target.into(), other.clone());
        let debugger = started(&client, &pod, &config, debugger).await;
        assert!(said(&client, &debugger, "cat /proc/1/comm; ls /proc").await.starts_with("gantry-init"));
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn whoever_is_killed_finds_them_again() {
    with_users(async |ground, runtime, client| {
        let config = pod(&ground, "kept");
        let pod = client.run_pod(&config).await;
        let script = "n=0; while true; do echo $n; n=$((n+1)); sleep 0.02; done";
        let id = started(&client, &pod, &config, container(&ground, "c", &["sh", "-c", script])).await;
        let created = client.create(&pod, container(&ground, "later", &["id", "-u"]), &config).await.expect("created");
        let (first, own) = (client.pid(&id).await, namespace(client.pid(&id).await, "user"));
        let supervisor = client.supervisor_pid(&pod).await;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(supervisor), nix::sys::signal::Signal::SIGKILL).unwrap();
        // One that is asked while it goes says so; the next does what is asked.
        let asks = async || {
            let cmd = vec!["true".to_owned()];
            let request = v1::ExecSyncRequest { container_id: id.clone(), cmd, timeout: 10 };
            client.runtime.clone().exec_sync(request).await.is_ok()
        };
        for _ in 0..1000 {
            if asks().await {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(said(&client, &id, "id -u").await, "0");
        said(&client, &id, "sleep 5555555 & true").await;
        assert_foreign(find("sleep 5555555"), &own);
        drop(client);
        runtime.stop().await;

        let (runtime, client) = ground.start().await;
        assert_eq!(client.pid(&id).await, first);
        said(&client, &id, "sleep 6666666 & true").await;
        assert_foreign(find("sleep 6666666"), &own);
        client.start(&created).await.expect("what was made before is started");
        assert_eq!(client.ended(&created).await.exit_code, 0);
        assert_eq!(ground.lines("later.log"), ["0"]);
        let status = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: false };
        let status = client.runtime.clone().pod_sandbox_status(status).await.expect("one").into_inner().status;
        let told = status.and_then(|s| s.linux?.namespaces?.options?.userns_options);
        assert_eq!(told, Some(users(HOST)), "the mapping is told again");
        client.stop(&id, 0).await;
        client.ended(&id).await;
        let lines = ground.lines("c.log");
        let numbers: Vec<usize> = lines.iter().map(|l| l.parse().expect("a number")).collect();
        assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>(), "no line is lost or doubled");
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn what_cannot_be_had_is_refused_with_its_value() {
    with_users(async |ground, runtime, client| {
        let run = async |config: &v1::PodSandboxConfig| {
            let request = v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
            client.runtime.clone().run_pod_sandbox(request).await.map(|answer| answer.into_inner().pod_sandbox_id)
        };
        type Change = fn(&mut v1::NamespaceOption);
        let changes: [(Change, &str); 6] = [
            (|o| o.userns_options.get_or_insert_default().uids[0].host_id = 0, "uids 0:0:65536"),
            (|o| o.userns_options.get_or_insert_default().gids.clear(), "one mapping of users and one of groups"),
            (|o| o.userns_options.get_or_insert_default().mode = NamespaceMode::Target.into(), "TARGET"),
            (|o| o.network = NamespaceMode::Node.into(), "are not the host's then"),
            (|o| o.ipc = NamespaceMode::Node.into(), "are not the host's then"),
            (|o| o.pid = NamespaceMode::Node.into(), "are not the host's then"),
        ];
        for (n, (change, words)) in changes.into_iter().enumerate() {
            let mut config = pod(&ground, &format!("bad{n}"));
            change(options(&mut config));
            let error = run(&config).await.unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{error}");
            assert!(error.message().contains(words), "{error}");
        }

        let config = pod(&ground, "good");
        let good = run(&config).await.expect("a sandbox");
        let refused = async |asked: v1::ContainerConfig, words: &str| {
            let error = client.create(&good, asked, &config).await.unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{error}");
            assert!(error.message().contains(words), "{error}");
        };
        let mut other = container(&ground, "other", &["true"]);
        security(&mut other).namespace_options.as_mut().expect("it has them").userns_options = Some(users(HOST * 2));
        refused(other, "its sandbox has another").await;
        refused(ground.container("host", &["true"]), "its sandbox has another").await;
        let mut mounted = container(&ground, "mounted", &["true"]);
        mounted.mounts = vec![v1::Mount { uid_mappings: mapping(HOST * 2), ..volume("/v", ground.dir.path(), true) }];
        refused(mounted.clone(), "is not that of the pod's user namespace").await;
        let mut both_ways = volume("/v", ground.dir.path(), true);
        both_ways.propagation = v1::MountPropagation::PropagationBidirectional.into();
        mounted.mounts = vec![both_ways];
        refused(mounted.clone(), "who mount nothing on the host").await;

        // A file system that cannot: what the container says is which, and why.
        mounted.mounts = vec![volume("/v", Path::new("/proc/sys"), true)];
        let id = client.create(&good, mounted, &config).await.expect("created");
        let error = client.start(&id).await.unwrap_err();
        assert!(error.message().contains("map the ids of the files in \"/proc/sys\""), "{error}");
        assert!(error.message().contains("has no mapped ids"), "{error}");
        assert_eq!(client.status(&id).await.exit_code, 128);

        let host = ground.pod("host");
        let host_pod = run(&host).await.expect("a sandbox");
        let mut mapped = ground.container("mapped", &["true"]);
        mapped.mounts = vec![volume("/v", ground.dir.path(), true)];
        let error = client.create(&host_pod, mapped, &host).await.unwrap_err();
        assert!(error.message().contains("the pod has no user namespace"), "{error}");
        ground::finish(runtime).await;
    });
}

#[test]
fn a_cdi_device_is_given_and_its_hooks_are_refused() {
    with_users(async |ground, runtime, client| {
        let folder = ground.config.cdi_dirs[0].clone();
        let data = ground.dir.path().join("data");
        std::fs::create_dir_all(&data).unwrap();
        std::fs::write(data.join("file"), "of the host").unwrap();
        std::fs::create_dir_all(&folder).unwrap();
        let nodes = serde_json::json!([{"path": "/dev/cdi", "hostPath": "/dev/full"}]);
        let mounts = serde_json::json!([{"hostPath": data, "containerPath": "/data", "options": ["ro", "bind"]}]);
        let hooks = serde_json::json!([{"hookName": "createRuntime", "path": "/bin/busybox"}]);
        let text = serde_json::json!({"cdiVersion": "1.0.0", "kind": "test.invalid/dev", "devices": [
            {"name": "given", "containerEdits": {"env": ["A=1"], "deviceNodes": nodes, "mounts": mounts}},
            {"name": "hooked", "containerEdits": {"hooks": hooks}},
        ]});
        std::fs::write(folder.join("a.json"), text.to_string()).unwrap();
        for path in [&folder, &folder.join("a.json")] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let config = pod(&ground, "pod");
        let id = client.run_pod(&config).await;
        let asking = |name: &str| v1::ContainerConfig {
            cdi_devices: vec![v1::CdiDevice { name: format!("test.invalid/dev={name}") }],
            ..container(&ground, name, &["sleep", "1000"])
        };
        let own = started(&client, &id, &config, asking("given")).await;
        assert_eq!(
            said(&client, &own, "echo $A; cat /data/file; echo; stat -c %u /data/file; head -c 1 /dev/cdi | wc -c")
                .await,
            "1\nof the host\n0\n1"
        );
        let refused = client.create(&id, asking("hooked"), &config).await.expect_err("refused");
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains("createRuntime"), "{refused}");
        ground::finish(runtime).await;
    });
}
