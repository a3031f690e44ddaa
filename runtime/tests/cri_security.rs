//! Security contexts as CRI's published validation suite asks for them: namespaces, users and groups, capabilities, seccomp.
//! `confinement` has what a container has by default, `processes` the pid namespaces, `volumes` the mounts.

mod ground;

use gantry_cri::v1::security_profile::ProfileType;
use gantry_cri::v1::{self, NamespaceMode, SupplementalGroupsPolicy};
use ground::{Client, Ground, IMAGE, with};

const SLEEP: [&str; 2] = ["sleep", "1000"];

fn with_security(ground: &Ground, name: &str, security: v1::LinuxContainerSecurityContext) -> v1::ContainerConfig {
    let linux = v1::LinuxContainerConfig { security_context: Some(security), ..v1::LinuxContainerConfig::default() };
    v1::ContainerConfig { linux: Some(linux), ..ground.plain_container(name, &SLEEP) }
}

fn in_namespaces(pid: NamespaceMode, ipc: NamespaceMode) -> v1::NamespaceOption {
    v1::NamespaceOption { pid: pid as i32, ipc: ipc as i32, ..v1::NamespaceOption::default() }
}

async fn refusal(client: &Client, pod: &str, config: &v1::PodSandboxConfig, container: v1::ContainerConfig) -> String {
    let error = client.create(pod, container, config).await.expect_err("refused");
    assert_eq!(error.code(), tonic::Code::InvalidArgument, "{error}");
    error.message().to_owned()
}

fn field<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines().find_map(|l| l.strip_prefix(name)).map_or("", str::trim)
}

#[test]
fn the_hosts_processes_and_ipc_are_seen_by_those_alone_who_asked() {
    with(|ground| async move {
        let (runtime, client) = ground.serve().await;
        let own = std::process::id();
        let of_host = std::fs::read_link("/proc/thread-self/ns/ipc").unwrap();
        for (name, pid, ipc) in [
            ("both", NamespaceMode::Node, NamespaceMode::Node),
            ("pid", NamespaceMode::Node, NamespaceMode::Pod),
            ("ipc", NamespaceMode::Container, NamespaceMode::Node),
            ("none", NamespaceMode::Pod, NamespaceMode::Pod),
        ] {
            let options = in_namespaces(pid, ipc);
            let security =
                v1::LinuxSandboxSecurityContext { namespace_options: Some(options.clone()), ..Default::default() };
            let config = v1::PodSandboxConfig {
                linux: Some(v1::LinuxPodSandboxConfig { security_context: Some(security), ..Default::default() }),
                ..ground.plain_pod(name)
            };
            let pod = client.run_pod(&config).await;
            let context = v1::LinuxContainerSecurityContext { namespace_options: Some(options), ..Default::default() };
            let id = client.started(&pod, with_security(&ground, name, context), &config).await;
            // Our own process, by its own name: a number may be anybody's.
            let seen = client.said(&id, &format!("cat /proc/{own}/comm 2>/dev/null")).await;
            let comm = std::fs::read_to_string(format!("/proc/{own}/comm")).unwrap();
            assert_eq!(seen == comm.trim(), pid == NamespaceMode::Node, "{name}: {seen}");
            let shared = client.said(&id, "readlink /proc/self/ns/ipc").await == of_host.to_string_lossy();
            assert_eq!(shared, ipc == NamespaceMode::Node, "{name}");
            client.remove_pod(&pod).await;
        }
        ground::finish(runtime).await;
    });
}

#[test]
fn users_and_groups_are_those_that_were_asked_for() {
    with(|ground| async move {
        let (runtime, client) = ground.serve().await;
        let config = ground.plain_pod("pod");
        let pod = client.run_pod(&config).await;
        let number = |value| Some(v1::Int64Value { value });
        let none = v1::LinuxContainerSecurityContext::default();
        // In the image, web is 33:34 and one of logs, which is 4.
        let strict = SupplementalGroupsPolicy::Strict as i32;
        let cases = [
            ("plain", none.clone(), "0:0", vec![0]),
            (
                "number",
                v1::LinuxContainerSecurityContext { run_as_user: number(1000), ..none.clone() },
                "1000:0",
                vec![0],
            ),
            (
                "known",
                v1::LinuxContainerSecurityContext { run_as_user: number(33), ..none.clone() },
                "33:34",
                vec![4, 34],
            ),
            (
                "name",
                v1::LinuxContainerSecurityContext { run_as_username: "web".into(), ..none.clone() },
                "33:34",
                vec![4, 34],
            ),
            (
                "group",
                v1::LinuxContainerSecurityContext {
                    run_as_user: number(1000),
                    run_as_group: number(2000),
                    ..none.clone()
                },
                "1000:2000",
                vec![2000],
            ),
            (
                "merged",
                v1::LinuxContainerSecurityContext {
                    run_as_user: number(33),
                    supplemental_groups: vec![1234],
                    ..none.clone()
                },
                "33:34",
                vec![4, 34, 1234],
            ),
            (
                "strict",
                v1::LinuxContainerSecurityContext {
                    run_as_user: number(33),
                    supplemental_groups: vec![1234],
                    supplemental_groups_policy: strict,
                    ..none.clone()
                },
                "33:34",
                vec![34, 1234],
            ),
        ];
        for (name, security, ids, groups) in cases {
            let mut container = with_security(&ground, name, security);
            container.command = ["sh", "-c", "cat /proc/self/status; exec sleep 1000"].map(str::to_owned).to_vec();
            let id = client.started(&pod, container, &config).await;
            let user = client.status(&id).await.user.and_then(|user| user.linux).expect("it is told");
            assert_eq!(
                (format!("{}:{}", user.uid, user.gid).as_str(), &user.supplemental_groups),
                (ids, &groups),
                "{name}"
            );
            while ground.lines(&format!("{name}.log")).len() < 20 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            let first = ground.lines(&format!("{name}.log")).join("\n");
            let further = client.said(&id, "cat /proc/self/status").await;
            let (uid, gid) = ids.split_once(':').unwrap();
            let groups: Vec<String> = groups.iter().map(i64::to_string).collect();
            for status in [&first, &further] {
                assert_eq!(field(status, "Uid:"), [uid; 4].join("\t"), "{name}");
                assert_eq!(field(status, "Gid:"), [gid; 4].join("\t"), "{name}");
                assert_eq!(field(status, "Groups:"), groups.join(" "), "{name}");
            }
        }
        let alone = v1::LinuxContainerSecurityContext { run_as_group: number(2000), ..none.clone() };
        assert!(
            refusal(&client, &pod, &config, with_security(&ground, "alone", alone)).await.contains("without a user")
        );
        let unknown = v1::LinuxContainerSecurityContext { run_as_username: "nobody-here".into(), ..none };
        let id = client.create(&pod, with_security(&ground, "unknown", unknown), &config).await.expect("created");
        assert!(client.start(&id).await.expect_err("no such user").message().contains("nobody-here"));
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn capabilities_are_those_that_were_added_and_not_those_that_were_dropped() {
    const DEFAULT: u64 = 0xa804_25fb;
    const CHOWN: u64 = 1;
    const NET_ADMIN: u64 = 1 << 12;
    with(|ground| async move {
        let (runtime, client) = ground.serve().await;
        let config = ground.plain_pod("pod");
        let pod = client.run_pod(&config).await;
        let own = std::fs::read_to_string("/proc/self/status").unwrap();
        let all = u64::from_str_radix(field(&own, "CapBnd:"), 16).unwrap();
        let cases: [(&str, &[&str], &[&str], u64); 7] = [
            ("none", &[], &[], DEFAULT),
            ("add", &["NET_ADMIN"], &[], DEFAULT | NET_ADMIN),
            ("prefix", &["CAP_NET_ADMIN"], &["CAP_CHOWN"], (DEFAULT | NET_ADMIN) & !CHOWN),
            ("drop", &[], &["CHOWN"], DEFAULT & !CHOWN),
            ("add-all", &["ALL"], &[], all),
            ("drop-all", &[], &["ALL"], 0),
            ("only", &["NET_ADMIN"], &["ALL"], NET_ADMIN),
        ];
        for (name, add, drop, expected) in cases {
            let strings = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
            let capabilities = v1::Capability {
                add_capabilities: strings(add),
                drop_capabilities: strings(drop),
                ..v1::Capability::default()
            };
            let security = v1::LinuxContainerSecurityContext { capabilities: Some(capabilities), ..Default::default() };
            let id = client.started(&pod, with_security(&ground, name, security), &config).await;
            let status = client.said(&id, "cat /proc/self/status").await;
            for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
                let have = u64::from_str_radix(field(&status, set), 16).unwrap();
                assert_eq!(have, expected & all, "{name} {set} {have:x}");
            }
            assert_eq!(field(&status, "CapInh:"), "0000000000000000", "{name}");
            if expected & all & NET_ADMIN != 0 || expected & NET_ADMIN == 0 {
                let made = client.said(&id, "ip link set lo mtu 1400 >/dev/null 2>&1 && echo set").await;
                assert_eq!(made == "set", expected & NET_ADMIN != 0, "{name}");
            }
        }
        let security = v1::LinuxContainerSecurityContext {
            capabilities: Some(v1::Capability { add_capabilities: vec!["FLY".into()], ..Default::default() }),
            ..Default::default()
        };
        assert!(refusal(&client, &pod, &config, with_security(&ground, "fly", security)).await.contains("FLY"));
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

/// The mode of the filter that a container has, 0 for none.
async fn filtered(
    ground: &Ground,
    client: &Client,
    name: &str,
    security: v1::LinuxContainerSecurityContext,
) -> (String, bool) {
    let mut config = ground.plain_pod(name);
    if security.privileged {
        config = v1::PodSandboxConfig { linux: ground.privileged_pod(name).linux, ..config };
    }
    let mut container = with_security(ground, name, security);
    if let Some(security) = container.linux.as_mut().and_then(|l| l.security_context.as_mut()) {
        let pid = NamespaceMode::Container as i32;
        security.namespace_options = Some(v1::NamespaceOption { pid, ..Default::default() });
    }
    let pod = client.run_pod(&config).await;
    let id = client.started(&pod, container, &config).await;
    let mode = client.said(&id, "grep '^Seccomp:' /proc/self/status").await;
    let named = client.said(&id, "hostname elsewhere 2>/dev/null && echo named").await == "named";
    client.remove_pod(&pod).await;
    (field(&mode, "Seccomp:").to_owned(), named)
}

#[test]
#[expect(deprecated, reason = "callers of old fill the older field")]
fn a_filter_is_the_one_that_was_asked_for_by_either_field() {
    with(|ground| async move {
        let (runtime, client) = ground.serve().await;
        let profile = ground.dir.path().join("no-host-name.json");
        let rules = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_AARCH64"],
            "syscalls":[{"names":["sethostname"],"action":"SCMP_ACT_ERRNO"}]}"#;
        std::fs::write(&profile, rules).unwrap();
        let path = profile.to_str().unwrap();
        let admin = v1::Capability { add_capabilities: vec!["SYS_ADMIN".into()], ..v1::Capability::default() };
        let base = v1::LinuxContainerSecurityContext { capabilities: Some(admin), ..Default::default() };
        let new = |kind: ProfileType, name: &str| v1::LinuxContainerSecurityContext {
            seccomp: Some(v1::SecurityProfile { profile_type: kind as i32, localhost_ref: name.into() }),
            ..base.clone()
        };
        let old = |text: &str| v1::LinuxContainerSecurityContext { seccomp_profile_path: text.into(), ..base.clone() };
        let privileged = v1::LinuxContainerSecurityContext { privileged: true, ..new(ProfileType::Localhost, path) };
        let contradicting = v1::LinuxContainerSecurityContext {
            seccomp_profile_path: "unconfined".into(),
            ..new(ProfileType::Localhost, path)
        };
        let cases = [
            ("nothing", base.clone(), ("0", true)),
            ("unconfined", new(ProfileType::Unconfined, ""), ("0", true)),
            ("default", new(ProfileType::RuntimeDefault, ""), ("2", true)),
            ("localhost", new(ProfileType::Localhost, path), ("2", false)),
            ("privileged", privileged, ("0", true)),
            ("old-unconfined", old("unconfined"), ("0", true)),
            ("old-default", old("runtime/default"), ("2", true)),
            ("old-docker", old("docker/default"), ("2", true)),
            ("old-localhost", old(&format!("localhost/{path}")), ("2", false)),
            ("both", contradicting, ("2", false)),
        ];
        for (name, security, (mode, named)) in cases {
            let got = filtered(&ground, &client, name, security).await;
            assert_eq!((got.0.as_str(), got.1), (mode, named), "{name}");
        }
        let config = ground.plain_pod("bad");
        let pod = client.run_pod(&config).await;
        assert!(refusal(&client, &pod, &config, with_security(&ground, "bad", old("none"))).await.contains("\"none\""));
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn what_a_program_may_gain_is_what_its_container_was_allowed() {
    with(|ground| async move {
        let (runtime, client) = ground.serve().await;
        // A copy of busybox that makes whoever runs it root, unless it lets go of that itself: ping does not, and needs it.
        let mut layer = ground::busybox_tar();
        ground::file(&mut layer, "bin/busybox-raise", &std::fs::read("/bin/busybox").unwrap(), 0o4755);
        ground::import_layer(&runtime, "test.invalid/raise:1", layer.finish()).await;
        let mut config = ground.plain_pod("pod");
        let nobody_pings = [("net.ipv4.ping_group_range".to_owned(), "1 0".to_owned())].into();
        config.linux = Some(v1::LinuxPodSandboxConfig { sysctls: nobody_pings, ..Default::default() });
        let pod = client.run_pod(&config).await;
        for (name, no_new_privs) in [("kept", true), ("raised", false)] {
            let security = v1::LinuxContainerSecurityContext {
                run_as_user: Some(v1::Int64Value { value: 1000 }),
                no_new_privs,
                ..Default::default()
            };
            let mut container = with_security(&ground, name, security);
            let command = ["/bin/busybox-raise", "ping", "-c", "1", "127.0.0.1"];
            container.command = command.map(str::to_owned).to_vec();
            container.image = Some(v1::ImageSpec { image: "test.invalid/raise:1".into(), ..Default::default() });
            let id = client.started(&pod, container, &config).await;
            let ended = client.ended(&id).await;
            assert_eq!(ended.exit_code == 0, !no_new_privs, "{name}: {:?}", ground.lines(&format!("{name}.log")));
        }
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn who_is_privileged_changes_what_is_the_pods_and_others_do_not() {
    with(|ground| async move {
        let (runtime, client) = ground.serve().await;
        for (name, privileged) in [("privileged", true), ("plain", false)] {
            let mut config = ground.plain_pod(name);
            let security = v1::LinuxSandboxSecurityContext { privileged, ..Default::default() };
            config.linux = Some(v1::LinuxPodSandboxConfig { security_context: Some(security), ..Default::default() });
            let pod = client.run_pod(&config).await;
            let context = v1::LinuxContainerSecurityContext { privileged, ..Default::default() };
            let id = client.started(&pod, with_security(&ground, name, context), &config).await;
            let made = client
                .said(
                    &id,
                    "ip link add gt-test type dummy 2>/dev/null || ip link set lo mtu 1400 2>/dev/null && echo made",
                )
                .await;
            assert_eq!(made == "made", privileged, "{name}: {made}");
            client.remove_pod(&pod).await;
        }
        assert!(runtime.images().resolve(IMAGE).is_some());
        ground::finish(runtime).await;
    });
}
