//! What a container may and may not do, seen from inside; and images that try to lead the runtime astray.

mod ground;

use gantry_cri::v1;
use ground::{Client, Ground, with};

/// Runs a script to its end and returns what it printed.
async fn output(
    ground: &Ground,
    client: &Client,
    name: &str,
    change: impl FnOnce(&mut v1::ContainerConfig),
    script: &str,
) -> String {
    let mut container = ground.container(name, &["sh", "-c", script]);
    change(&mut container);
    let config = if security(&mut container).privileged { ground.privileged_pod(name) } else { ground.pod(name) };
    let pod = client.run_pod(&config).await;
    let id = client.create(&pod, container, &config).await.expect("created");
    client.start(&id).await.expect("started");
    client.ended(&id).await;
    let text = ground.lines(&format!("{name}.log")).join("\n");
    client.remove_pod(&pod).await;
    text
}

fn security(container: &mut v1::ContainerConfig) -> &mut v1::LinuxContainerSecurityContext {
    container.linux.as_mut().and_then(|l| l.security_context.as_mut()).expect("it has one")
}

fn field<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines().find_map(|l| l.strip_prefix(name)).map_or("", str::trim)
}

#[test]
fn the_process_has_what_it_was_given_and_no_more() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let script = "cat /proc/self/status; pwd; env";
        let root = output(&ground, &client, "root", |_| {}, script).await;
        assert_eq!(field(&root, "CapEff:"), "00000000a80425fb", "{root}");
        assert_eq!(field(&root, "CapBnd:"), "00000000a80425fb");
        assert_eq!(field(&root, "CapInh:"), "0000000000000000");
        assert_eq!((field(&root, "Seccomp:"), field(&root, "NoNewPrivs:")), ("2", "0"));
        assert_eq!(field(&root, "SigBlk:"), "0000000000000000");
        assert_eq!(field(&root, "SigIgn:"), "0000000000000000");
        assert!(root.contains("HOME=/root"));
        let list = |c: &mut v1::ContainerConfig| c.command = vec!["ls".into(), "/proc/self/fd".into()];
        // The fourth is the folder that ls itself opens.
        assert_eq!(output(&ground, &client, "fds", list, "").await, "0\n1\n2\n3");

        let web = output(
            &ground,
            &client,
            "web",
            |c| {
                let security = security(c);
                security.run_as_username = "web".into();
                security.no_new_privs = true;
                security.supplemental_groups = vec![77];
                security.capabilities =
                    Some(v1::Capability { drop_capabilities: vec!["ALL".into()], ..v1::Capability::default() });
                c.working_dir = "/work/here".into();
            },
            script,
        )
        .await;
        assert_eq!(field(&web, "Uid:"), "33\t33\t33\t33", "{web}");
        assert_eq!(field(&web, "Gid:"), "34\t34\t34\t34");
        assert_eq!(field(&web, "Groups:"), "4 34 77");
        assert_eq!((field(&web, "CapBnd:"), field(&web, "CapEff:")), ("0000000000000000", "0000000000000000"));
        assert_eq!((field(&web, "Seccomp:"), field(&web, "NoNewPrivs:")), ("2", "1"));
        assert!(web.contains("\n/work/here\n") && web.contains("HOME=/srv"), "{web}");

        let all = output(&ground, &client, "privileged", |c| security(c).privileged = true, script).await;
        let own = std::fs::read_to_string("/proc/self/status").unwrap();
        assert_eq!(field(&all, "CapEff:"), field(&own, "CapBnd:"));
        assert_eq!(field(&all, "Seccomp:"), "0");
        ground::finish(runtime).await;
    });
}

#[test]
fn the_kernels_files_are_out_of_reach() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let script = "touch /made && echo wrote root; echo x > /proc/sysrq-trigger && echo sysrq; \
                      cat /proc/kcore | head -c 1 | wc -c; mount -t tmpfs x /tmp && echo mounted; \
                      touch /sys/x && echo sys; echo x > /proc/sys/kernel/core_pattern && echo core; ls /sys/fs/cgroup";
        let text = output(&ground, &client, "files", |_| {}, script).await;
        assert_eq!(text.lines().filter(|l| l.starts_with("wrote root")).count(), 1, "{text}");
        for forbidden in ["sysrq\n", "mounted", "sys\n", "core\n"] {
            assert!(!text.lines().any(|l| l == forbidden.trim()), "{forbidden}: {text}");
        }
        let read_only = |c: &mut v1::ContainerConfig| security(c).readonly_rootfs = true;
        let text =
            output(&ground, &client, "readonly", read_only, "touch /x || echo refused; touch /dev/shm/y && echo shm")
                .await;
        assert!(text.contains("refused") && text.contains("shm"), "{text}");
        ground::finish(runtime).await;
    });
}

#[test]
fn masked_paths_show_nothing_and_read_only_ones_take_nothing() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let script = "for p in /proc/interrupts /proc/kcore /proc/keys /proc/timer_list /sys/firmware; do \
                      if [ -d $p ]; then ls $p; else head -c 1 $p; fi 2>/dev/null | grep -q . && echo seen $p; done; \
                      for p in /proc/sysrq-trigger /proc/sys/kernel/hostname /proc/irq/default_smp_affinity; do \
                      ( : > $p ) 2>/dev/null && echo opened $p; done; true";
        assert_eq!(output(&ground, &client, "plain", |_| {}, script).await, "");
        // The same script finds what there is to find, where nothing is to be hidden.
        let bare = |c: &mut v1::ContainerConfig| {
            let security = security(c);
            (security.masked_paths, security.readonly_paths) = (Vec::new(), Vec::new());
        };
        let all = output(&ground, &client, "unmasked", bare, script).await;
        for words in ["seen /proc/interrupts", "opened /proc/sys/kernel/hostname"] {
            assert!(all.contains(words), "{words}: {all}");
        }
        // Only what is listed is hidden, and what is not there needs no hiding.
        let masked = |c: &mut v1::ContainerConfig| {
            bare(c);
            security(c).masked_paths = vec!["/proc/interrupts".into(), "/proc/nowhere".into()];
        };
        let read_only = |c: &mut v1::ContainerConfig| {
            bare(c);
            security(c).readonly_paths = vec!["/proc/sys".into(), "/proc/nowhere".into()];
        };
        let some = output(&ground, &client, "masked", masked, script).await;
        assert!(some.contains("opened /proc/sys/kernel/hostname") && !some.contains("/proc/interrupts"), "{some}");
        let some = output(&ground, &client, "listed", read_only, script).await;
        assert!(some.contains("seen /proc/interrupts") && !some.contains("/proc/sys/kernel/hostname"), "{some}");
        ground::finish(runtime).await;
    });
}

#[test]
fn a_privileged_container_needs_a_pod_that_was_made_for_it() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let (plain, privileged) = (ground.pod("plain"), ground.privileged_pod("privileged"));
        let mut container = ground.container("all", &["true"]);
        security(&mut container).privileged = true;
        let pod = client.run_pod(&plain).await;
        let error = client.create(&pod, container.clone(), &plain).await.expect_err("refused");
        assert_eq!(error.code(), tonic::Code::InvalidArgument, "{error}");
        assert!(error.message().contains("privileged"), "{error}");
        // A pod that runs may be given such a container: who asks says what the pod is now.
        client.create(&pod, container.clone(), &privileged).await.expect("created");
        client.remove_pod(&pod).await;
        let pod = client.run_pod(&privileged).await;
        client.create(&pod, container, &privileged).await.expect("created");
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
#[expect(deprecated, reason = "callers of old fill the older field")]
fn what_the_hosts_security_modules_cannot_do_is_refused_before_anything_is_made() {
    use v1::security_profile::ProfileType;
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let config = ground.pod("pod");
        let pod = client.run_pod(&config).await;
        let profile = |kind: ProfileType, name: &str| {
            Some(v1::SecurityProfile { profile_type: kind as i32, localhost_ref: name.to_owned() })
        };
        let mut refused = vec![ground.container("c", &["true"]); 4];
        security(&mut refused[0]).apparmor = profile(ProfileType::Localhost, "gantry-test-nowhere");
        security(&mut refused[1]).apparmor_profile = "localhost/gantry-test-nowhere".into();
        security(&mut refused[2]).apparmor = profile(ProfileType::RuntimeDefault, "");
        security(&mut refused[3]).apparmor_profile = "runtime/default".into();
        for container in refused {
            let error = client.create(&pod, container, &config).await.expect_err("refused");
            assert_eq!(error.code(), tonic::Code::FailedPrecondition, "{error}");
            assert!(error.message().contains("AppArmor profile"), "{error}");
        }
        let listed = client.runtime.clone().list_containers(v1::ListContainersRequest::default()).await.unwrap();
        assert_eq!(listed.into_inner().containers, []);
        let unconfined = |c: &mut v1::ContainerConfig| security(c).apparmor = profile(ProfileType::Unconfined, "");
        assert_eq!(output(&ground, &client, "unconfined", unconfined, "echo ran").await, "ran");

        // Where SELinux is, a label is refused that would not be set; elsewhere there is nothing to set.
        let label = v1::SeLinuxOption { r#type: "spc_t".into(), level: "s0".into(), ..Default::default() };
        let mut labelled = ground.container("labelled", &["true"]);
        security(&mut labelled).selinux_options = Some(label);
        let made = client.create(&pod, labelled, &config).await;
        let refused = std::path::Path::new("/sys/fs/selinux/enforce").exists();
        assert_eq!(made.err().map(|e| e.code()), refused.then_some(tonic::Code::FailedPrecondition));
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn a_profile_of_the_host_is_named_by_its_path_or_below_the_folder_of_profiles() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let folder = ground.config.seccomp_dir.clone();
        std::fs::create_dir_all(&folder).unwrap();
        let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_LOG"],
            "architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_AARCH64"],
            "syscalls":[{"names":["chmod","fchmodat","fchmodat2"],"action":"SCMP_ACT_ERRNO"}]}"#;
        let elsewhere = ground.dir.path().join("elsewhere.json");
        for path in [&elsewhere, &folder.join("below.json")] {
            std::fs::write(path, profile).unwrap();
        }
        std::fs::write(folder.join("bad.json"), profile.replace("FLAG_LOG", "FLAG_NEW")).unwrap();
        let localhost = |name: &str| {
            let profile_type = v1::security_profile::ProfileType::Localhost as i32;
            Some(v1::SecurityProfile { profile_type, localhost_ref: name.to_owned() })
        };
        let script = "grep Seccomp: /proc/self/status; busybox chmod 400 / || echo refused";
        for (name, reference) in [("path", elsewhere.to_str().unwrap()), ("name", "below.json")] {
            let ask = |c: &mut v1::ContainerConfig| security(c).seccomp = localhost(reference);
            let text = output(&ground, &client, name, ask, script).await;
            assert_eq!(field(&text, "Seccomp:"), "2", "{name}: {text}");
            assert!(text.contains("refused"), "{name}: {text}");
        }
        let unconfined = output(&ground, &client, "none", |c| security(c).seccomp = None, script).await;
        assert_eq!((field(&unconfined, "Seccomp:"), unconfined.contains("refused")), ("0", false), "{unconfined}");
        // A bad one fails the container, before anything of it runs.
        let config = ground.pod("bad");
        let pod = client.run_pod(&config).await;
        for (name, words) in [("bad.json", "FLAG_NEW"), ("missing.json", "missing.json"), ("", "no absolute path")] {
            let mut container = ground.container("bad", &["true"]);
            security(&mut container).seccomp = localhost(name);
            let error = client.create(&pod, container, &config).await.expect_err("refused");
            assert!(error.message().contains(words), "{error}");
        }
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn files_of_the_pod_cannot_fill_the_hosts_memory() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let config = ground.pod("fills");
        let pod = client.run_pod(&config).await;
        let script = "for f in resolv.conf hosts; do dd if=/dev/zero of=/etc/$f bs=64k count=64 2>&1; done; \
                      cat /etc/hosts /etc/resolv.conf | wc -c";
        let id = client.create(&pod, ground.container("fills", &["sh", "-c", script]), &config).await.unwrap();
        client.start(&id).await.unwrap();
        client.ended(&id).await;
        let lines = ground.lines("fills.log");
        assert_eq!(lines.iter().filter(|l| l.contains("No space left on device")).count(), 2, "{lines:#?}");
        let bytes: u64 = lines.last().unwrap().trim().parse().unwrap();
        assert!((1 << 19..=1 << 20).contains(&bytes), "{bytes} bytes");
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn volumes_are_where_they_belong() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let outer = ground.dir.path().join("outer");
        let inner = ground.dir.path().join("inner");
        let file = ground.dir.path().join("hosts");
        for dir in [&outer, &inner] {
            std::fs::create_dir(dir).unwrap();
        }
        std::fs::write(&file, "1.2.3.4 named\n").unwrap();
        std::fs::write(inner.join("seen"), "inner\n").unwrap();
        let mount = |from: &std::path::Path, to: &str, readonly: bool| v1::Mount {
            host_path: from.to_string_lossy().into_owned(),
            container_path: to.into(),
            readonly,
            ..v1::Mount::default()
        };
        let mounts = vec![
            mount(&inner, "/data/sub", true),
            mount(&outer, "/data", false),
            mount(&file, "/etc/hosts", true),
            mount(&file, "/dev/termination-log", false),
        ];
        let script = "cat /data/sub/seen /etc/hosts; touch /data/made && echo made; touch /data/sub/no || echo refused; \
                      echo why > /dev/termination-log; pwd";
        let change = |c: &mut v1::ContainerConfig| {
            c.mounts = mounts;
            c.working_dir = "/data/sub".into();
            security(c).readonly_rootfs = true;
        };
        let text = output(&ground, &client, "volumes", change, script).await;
        for words in ["inner", "1.2.3.4 named", "made", "refused", "/data/sub"] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(outer.join("made").exists());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "why\n");
        ground::finish(runtime).await;
    });
}

#[test]
fn hostile_images_lead_nowhere() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let victim = ground.dir.path().join("victim");
        std::fs::create_dir(&victim).unwrap();
        std::fs::write(victim.join("passwd"), "root:x:0:0::/host:/bin/sh\n").unwrap();
        let volume = ground.dir.path().join("volume");
        std::fs::create_dir(&volume).unwrap();
        std::fs::write(volume.join("mine"), "").unwrap();
        let escape = format!("../../../../../../..{}", victim.display());
        let cases: [(&str, &str, &str); 5] = [
            ("etc", "etc", &escape),
            ("proc", "proc", &escape),
            ("sys", "sys", &escape),
            ("dev", "dev", &escape),
            ("data", "data", &escape),
        ];
        for (name, at, to) in cases {
            let mut layer = ground::base_layer();
            ground::link(&mut layer, at, to);
            let image = format!("test.invalid/hostile-{name}:1");
            ground::import_layer(&runtime, &image, layer.finish()).await;
            let config = ground.pod(name);
            let pod = client.run_pod(&config).await;
            let mut container =
                ground.container(name, &["sh", "-c", "echo ran; echo x > /etc/made; echo x > /data/made"]);
            container.image = Some(v1::ImageSpec { image, ..v1::ImageSpec::default() });
            container.working_dir = "/proc/self/fd/7".into();
            let at_data = v1::Mount {
                host_path: volume.to_string_lossy().into_owned(),
                container_path: "/data/volume".into(),
                ..v1::Mount::default()
            };
            container.mounts = vec![at_data];
            // Whether it starts is its own affair; that it touches nothing outside is ours.
            if let Ok(id) = client.create(&pod, container, &config).await {
                let started = client.start(&id).await;
                assert!(started.is_err(), "a working directory under /proc/self/fd");
                client.ended(&id).await;
            }
            let mut container =
                ground.container(&format!("{name}2"), &["sh", "-c", "echo x > /etc/made; echo x > /data/made"]);
            container.image =
                Some(v1::ImageSpec { image: format!("test.invalid/hostile-{name}:1"), ..v1::ImageSpec::default() });
            if let Ok(id) = client.create(&pod, container, &config).await {
                let _ = client.start(&id).await;
                client.ended(&id).await;
            }
            client.remove_pod(&pod).await;
            let left: Vec<_> = std::fs::read_dir(&victim).unwrap().flatten().map(|e| e.file_name()).collect();
            assert_eq!(left, ["passwd"], "{name}");
            assert_eq!(std::fs::read_dir(&volume).unwrap().count(), 1, "{name}");
        }
        ground::finish(runtime).await;
    });
}

#[test]
fn exec_has_the_confinement_of_its_container() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let config = ground.pod("exec");
        let pod = client.run_pod(&config).await;
        let mut container = ground.container("exec", &["sleep", "1000"]);
        security(&mut container).run_as_username = "web".into();
        let id = client.create(&pod, container, &config).await.unwrap();
        client.start(&id).await.unwrap();
        let answer = client.exec(&id, &["sh", "-c", "cat /proc/self/status; echo oops >&2; exit 3"]).await;
        let text = String::from_utf8(answer.stdout).unwrap();
        assert_eq!((answer.exit_code, answer.stderr.as_slice()), (3, b"oops\n".as_slice()));
        assert_eq!(field(&text, "Uid:"), "33\t33\t33\t33", "{text}");
        assert_eq!((field(&text, "Seccomp:"), field(&text, "CapInh:")), ("2", "0000000000000000"));
        assert_eq!(field(&text, "CapBnd:"), "00000000a80425fb");
        // The fourth is the folder that ls itself opens.
        assert_eq!(client.exec(&id, &["ls", "/proc/self/fd"]).await.stdout, b"0\n1\n2\n3\n");
        let request = v1::ExecSyncRequest { container_id: id.clone(), cmd: vec!["nowhere".into()], timeout: 5 };
        let error = client.runtime.clone().exec_sync(request).await.expect_err("no such command");
        assert!(error.message().contains("executable file not found in $PATH"), "{error}");
        let slow = ["sh", "-c", "sleep 4711; true"].map(str::to_owned).to_vec();
        let request = v1::ExecSyncRequest { container_id: id.clone(), cmd: slow, timeout: 1 };
        let error = client.runtime.clone().exec_sync(request).await.expect_err("it takes too long");
        assert_eq!(error.code(), tonic::Code::DeadlineExceeded, "{error}");
        // What the command has started ends with it.
        let count = ["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'sleep 471[1]'"];
        let patience = std::time::Duration::from_secs(20) * ground::patience();
        let gone = async {
            while client.exec(&id, &count).await.exit_code == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(patience, gone).await.expect("the child of the command ends");
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}
