//! CDI devices, as CRI's field and annotations ask for them: what a container finds, which hooks run when and where, and
//! what is refused.

mod ground;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use gantry_cri::v1;
use ground::{Client, Ground, with};
use serde_json::{Value, json};
use tonic::Code;

const SLEEP: [&str; 2] = ["sleep", "1000"];

/// Writes a specification of `test.invalid/dev` into a folder of this test's.
fn specify(ground: &Ground, folder: usize, file: &str, of_all: Value, devices: &[(&str, Value)]) -> PathBuf {
    let devices: Vec<Value> =
        devices.iter().map(|(name, edits)| json!({"name": name, "containerEdits": edits})).collect();
    let text = json!({"cdiVersion": "1.0.0", "kind": "test.invalid/dev", "containerEdits": of_all, "devices": devices});
    write(ground, folder, file, &text.to_string())
}

fn write(ground: &Ground, folder: usize, file: &str, text: &str) -> PathBuf {
    let folder = &ground.config.cdi_dirs[folder];
    std::fs::create_dir_all(folder).unwrap();
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.join(file);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    path
}

fn asking(ground: &Ground, name: &str, devices: &[&str]) -> v1::ContainerConfig {
    let cdi_devices = devices.iter().map(|name| v1::CdiDevice { name: format!("test.invalid/dev={name}") }).collect();
    v1::ContainerConfig { cdi_devices, ..ground.container(name, &SLEEP) }
}

/// What a hook leaves behind, once it is there.
async fn left(ground: &Ground, name: &str) -> String {
    for _ in 0..1000 {
        match std::fs::read_to_string(ground.dir.path().join(name)) {
            Ok(text) if text.ends_with('\n') => return text,
            _ => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
    panic!("no hook has written {name}");
}

async fn refused(
    client: &Client,
    pod: &str,
    config: &v1::PodSandboxConfig,
    container: v1::ContainerConfig,
) -> (Code, String) {
    let error = client.create(pod, container, config).await.expect_err("refused");
    (error.code(), error.message().to_owned())
}

#[test]
fn a_container_has_what_its_devices_specifications_say() {
    with(|ground| async move {
        let data = ground.dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("file"), "of the host\n").unwrap();
        let shared = json!({"env": ["ALL=1", "WHO=all"], "additionalGids": [0, 4321]});
        let log =
            json!({"path": "/dev/cdi/log", "type": "c", "major": 1, "minor": 11, "permissions": "w", "fileMode": 438});
        specify(
            &ground,
            0,
            "first.json",
            shared,
            &[
                (
                    "log",
                    json!({"env": ["WHO=log"], "deviceNodes": [log, {"path": "/dev/cdi/none", "hostPath": "/dev/null"}]}),
                ),
                (
                    "files",
                    json!({"env": ["FILES=1"], "mounts": [
                        {"hostPath": data, "containerPath": "/opt/cdi/data", "options": ["ro", "nosuid", "nodev", "rbind", "rprivate"]},
                        {"hostPath": "tmpfs", "containerPath": "/scratch", "type": "tmpfs", "options": ["nosuid", "mode=700", "size=64k"]},
                    ]}),
                ),
            ],
        );
        specify(&ground, 0, "second.yaml", json!({}), &[("twice", json!({"env": ["FROM=first"]}))]);
        specify(&ground, 1, "second.json", json!({}), &[("twice", json!({"env": ["FROM=second"]}))]);
        let (runtime, client) = ground.serve().await;
        let status = v1::StatusRequest { verbose: true };
        let info = client.runtime.clone().status(status).await.expect("a status").into_inner().info;
        assert!(info["config"].contains(&*ground.config.cdi_dirs[1].to_string_lossy()), "{info:?}");
        let config = ground.pod("pod");
        let pod = client.run_pod(&config).await;
        let mut container = asking(&ground, "has", &["log", "files"]);
        container
            .annotations
            .insert("cdi.k8s.io/plugin_0".into(), "test.invalid/dev=log,test.invalid/dev=twice".into());
        container.envs = vec![v1::KeyValue { key: "WHO".into(), value: "nobody".into() }];
        let id = client.started(&pod, container, &config).await;
        assert_eq!(client.said(&id, "echo $ALL $WHO $FILES $FROM").await, "1 log 1 second");
        assert_eq!(client.said(&id, "cat /opt/cdi/data/file").await, "of the host");
        let written = client.exec(&id, &["touch", "/opt/cdi/data/mine"]).await;
        assert_ne!(written.exit_code, 0, "it is read-only");
        let mounts = client.said(&id, "grep -e /opt/cdi/data -e /scratch /proc/self/mounts").await;
        assert!(mounts.lines().all(|line| line.contains("nosuid")) && mounts.lines().count() == 2, "{mounts}");
        assert!(mounts.lines().any(|line| line.starts_with("tmpfs /scratch tmpfs")), "{mounts}");
        let groups = client.said(&id, "grep Groups: /proc/self/status").await;
        assert!(groups.split_whitespace().any(|group| group == "4321"), "{groups}");
        assert_eq!(client.said(&id, "stat -c '%a %t:%T' /dev/cdi/log").await, "666 1:b");
        assert_eq!(
            client.said(&id, "true > /dev/cdi/log && echo written; true > /dev/cdi/none && echo none").await,
            "written\nnone"
        );
        let read = client.exec(&id, &["sh", "-c", "true < /dev/cdi/log"]).await;
        assert_ne!(read.exit_code, 0, "it may be written alone");
        // Who asks for none has none.
        let plain = client.started(&pod, ground.container("plain", &SLEEP), &config).await;
        assert_eq!(client.said(&plain, "echo $ALL; ls -d /dev/cdi /opt/cdi 2>/dev/null; true").await, "");
        ground::finish(runtime).await;
    });
}

/// A script that notes its moment, the state that it is told, and what it finds of the container.
fn hook(ground: &Ground, kind: &str, more: &str) -> Value {
    let folder = ground.dir.path();
    let script = folder.join(format!("{kind}.sh"));
    let text = format!(
        "#!/bin/sh\nstate=$(cat)\n{more}\necho \"{kind} $1 $OWN $state\" >> {0}/{kind}.tmp\nmv {0}/{kind}.tmp {0}/{kind}\n",
        folder.display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    json!({"hookName": kind, "path": script, "args": ["hook", "word"], "env": ["OWN=own", "PATH=/bin:/usr/bin"], "timeout": 30})
}

#[test]
fn hooks_run_at_their_moments() {
    with(|ground| async move {
        let data = ground.dir.path().join("library");
        std::fs::write(&data, "the library\n").unwrap();
        // The container's root is the one of the bundle, with the mounts of the device in it; what is written stays.
        let root = "root=$(echo \"$state\" | sed 's/.*\"bundle\":\"\\([^\"]*\\)\".*/\\1/')/rootfs\n";
        let look = format!(
            "{root}cat $root/opt/lib/library > {}/seen\necho made > $root/made-by-hook",
            ground.dir.path().display()
        );
        let list = format!("ls /sys/fs/cgroup > {}/cgroups", ground.dir.path().display());
        let kinds = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];
        let more = |kind| match kind {
            "createContainer" => look.as_str(),
            "createRuntime" => list.as_str(),
            _ => "",
        };
        let mut hooks: Vec<Value> = kinds.map(|kind| hook(&ground, kind, more(kind))).to_vec();
        hooks.push(json!({"hookName": "startContainer", "path": "/bin/sh",
            "args": ["sh", "-c", "cat > /tmp/state; id -u > /tmp/uid; grep CapEff /proc/self/status > /tmp/caps; echo $WHO > /tmp/who"]}));
        let mounts = json!([{"hostPath": data, "containerPath": "/opt/lib/library", "options": ["ro", "bind"]}]);
        specify(&ground, 0, "a.json", json!({"hooks": hooks}), &[("d", json!({"env": ["WHO=d"], "mounts": mounts}))]);
        let (runtime, client) = ground.serve().await;
        let config = ground.pod("pod");
        let pod = client.run_pod(&config).await;
        let mut container = asking(&ground, "hooked", &["d"]);
        let security = container.linux.as_mut().and_then(|l| l.security_context.as_mut()).expect("it has one");
        security.run_as_user = Some(v1::Int64Value { value: 33 });
        let id = client.create(&pod, container, &config).await.expect("created");
        assert!(!ground.dir.path().join("createRuntime").exists(), "nothing runs before it is started");
        client.start(&id).await.expect("started");
        for kind in &kinds[..4] {
            let text = left(&ground, kind).await;
            assert!(text.starts_with(&format!("{kind} word own {{")) && text.contains(&id), "{text}");
        }
        assert_eq!(left(&ground, "seen").await, "the library\n");
        let cgroups = left(&ground, "cgroups").await;
        for name in ["pids", "cgroup.controllers"] {
            let host_has = std::path::Path::new("/sys/fs/cgroup").join(name).exists();
            assert_eq!(cgroups.lines().any(|line| line == name), host_has, "the host's own {name}: {cgroups}");
        }
        assert_eq!(client.said(&id, "cat /made-by-hook /opt/lib/library").await, "made\nthe library");
        assert_eq!(client.said(&id, "cat /tmp/uid /tmp/who").await, "33\nd");
        assert_eq!(client.said(&id, "cat /tmp/caps").await.split_whitespace().last(), Some("0000000000000000"));
        let told = client.said(&id, "cat /tmp/state").await;
        assert!(told.contains(&format!("\"id\":\"{id}\"")) && told.contains("\"pid\":1"), "{told}");
        client.stop(&id, 0).await;
        assert!(!ground.dir.path().join("poststop").exists());
        client.remove_pod(&pod).await;
        assert!(left(&ground, "poststop").await.contains("\"stopped\""));
        ground::finish(runtime).await;
    });
}

#[test]
fn a_hook_that_fails_fails_its_container_and_is_named() {
    with(|ground| async move {
        let (runtime, client) = ground.serve().await;
        let config = ground.pod("pod");
        let pod = client.run_pod(&config).await;
        for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
            let device = kind.to_ascii_lowercase();
            let hook = match kind {
                "startContainer" => json!({"hookName": kind, "path": "/bin/false"}),
                _ => hook(&ground, kind, "exit 3"),
            };
            let path = hook["path"].as_str().unwrap().to_owned();
            specify(&ground, 0, &format!("{kind}.json"), json!({}), &[(device.as_str(), json!({"hooks": [hook]}))]);
            let id = client.create(&pod, asking(&ground, kind, &[device.as_str()]), &config).await.expect("created");
            let error = client.start(&id).await.expect_err(kind).message().to_owned();
            assert!(error.contains(kind) && error.contains(&path), "{kind}: {error}");
            assert_eq!(client.status(&id).await.state(), v1::ContainerState::ContainerExited, "{kind}");
        }
        ground::finish(runtime).await;
    });
}

#[test]
fn what_is_unknown_broken_or_another_ones_is_refused_and_hurts_nobody_else() {
    with(|ground| async move {
        let one = |value: &str| json!({"env": [format!("FROM={value}")]});
        specify(&ground, 0, "good.json", json!({}), &[("good", one("good")), ("clash", one("good"))]);
        specify(&ground, 0, "other.json", json!({}), &[("clash", one("other"))]);
        specify(&ground, 0, "rdt.json", json!({}), &[("rdt", json!({"intelRdt": {"closID": "x"}}))]);
        specify(
            &ground,
            0,
            "gone.json",
            json!({}),
            &[("gone", json!({"mounts": [{"hostPath": "/nowhere/at/all", "containerPath": "/x"}]}))],
        );
        write(&ground, 0, "broken.json", "{");
        let open = specify(&ground, 0, "open.json", json!({}), &[("open", one("open"))]);
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o666)).unwrap();
        let (runtime, client) = ground.serve().await;
        let config = ground.pod("pod");
        let pod = client.run_pod(&config).await;
        for (device, code, word) in [
            ("unknown", Code::NotFound, "broken.json"),
            ("open", Code::NotFound, "test.invalid/dev=open"),
            ("clash", Code::FailedPrecondition, "other.json"),
            ("gone", Code::FailedPrecondition, "/nowhere/at/all"),
            ("rdt", Code::Unimplemented, "intelRdt"),
            ("no name", Code::InvalidArgument, "test.invalid/dev=no name"),
        ] {
            let container = asking(&ground, "refused", &["good", device]);
            let (was, text) = refused(&client, &pod, &config, container).await;
            assert!(was == code && text.contains(word), "{device}: {was:?} {text}");
        }
        let mut annotated = ground.container("annotated", &SLEEP);
        annotated.annotations.insert("cdi.k8s.io/x".into(), "not-a-device".into());
        assert_eq!(refused(&client, &pod, &config, annotated).await.0, Code::InvalidArgument);
        // What comes later is seen by who asks later.
        let id = client.started(&pod, asking(&ground, "good", &["good"]), &config).await;
        assert_eq!(client.said(&id, "echo $FROM").await, "good");
        specify(&ground, 1, "late.json", json!({}), &[("unknown", one("late"))]);
        let id = client.started(&pod, asking(&ground, "late", &["unknown"]), &config).await;
        assert_eq!(client.said(&id, "echo $FROM").await, "late");
        ground::finish(runtime).await;
    });
}

/// All that a container may see of how it was made. What the kernel numbers, and the names of its own folders, are left out.
const SELF_PORTRAIT: &str = r"
awk '{ dash = 0; for (n = 7; n <= NF; n++) if ($n == `-`) dash = n
       gsub(/[0-9]+/, `N`, $7); print `mount`, ($4 ~ /containers/ ? `` : $4), $5, $6, (dash > 7 ? $7 : ``), $(dash + 1) }' /proc/self/mountinfo | sort
ls -lnR /dev | awk '{ if (NF > 8) $6 = $7 = $8 = ``; print `dev`, $0 }'
stat -c 'stat %n %a %u %g %F' / /dev /dev/pts /dev/mqueue /dev/shm /proc /sys /proc/kcore /proc/scsi /sys/firmware /proc/sys/kernel/hostname
grep -E '^(Cap|Seccomp:|NoNewPrivs|Umask|Sig[BIC]|Groups|Uid|Gid|NSpid|NSsid|Threads|TracerPid)' /proc/self/status
cat /proc/self/oom_score_adj /proc/self/limits; pwd; hostname
for kind in net ipc uts user; do readlink /proc/self/ns/$kind; done
sed s/[0-9a-f]\\{64\\}/ID/g /proc/self/cgroup
for path in /new /sys/new /proc/sys/kernel/domainname /dev/new /dev/shm/new; do echo x 2>&1 > $path && echo wrote $path && rm $path; done
test -t 0 && tty && stat -c '%n %F %a %u %g' /dev/console
head -c 1 /proc/kcore | wc -c; ls /sys/firmware /proc/scsi; ls -l /proc/self/fd | awk 'NR > 1 { print `fd`, $9 }'
";

#[test]
fn with_and_without_libcontainer_a_container_is_the_same() {
    with(|ground| async move {
        // libcontainer makes those that have hooks.
        let hook = json!({"hookName": "createRuntime", "path": "/bin/true"});
        specify(&ground, 0, "hook.json", json!({}), &[("hook", json!({"hooks": [hook]}))]);
        let (runtime, client) = ground.serve().await;
        for (kind, privileged, tty, root) in [
            ("ordinary", false, false, false),
            ("closed", false, false, true),
            ("terminal", false, true, false),
            ("privileged", true, false, false),
        ] {
            let config = if privileged { ground.privileged_pod(kind) } else { ground.pod(kind) };
            let pod = client.run_pod(&config).await;
            let mut seen = Vec::new();
            for devices in [&[][..], &["hook"][..]] {
                let name = format!("{kind}{}", devices.len());
                let mut container = asking(&ground, &name, devices);
                let script = SELF_PORTRAIT.replace('`', "\"");
                container.command = ["sh", "-c", &script].map(str::to_owned).to_vec();
                container.tty = tty;
                let security = container.linux.as_mut().and_then(|l| l.security_context.as_mut()).unwrap();
                (security.privileged, security.readonly_rootfs) = (privileged, root);
                let id = client.create(&pod, container, &config).await.unwrap();
                client.start(&id).await.unwrap();
                client.ended(&id).await;
                let of_libcontainer =
                    gantry_base::layout::libcontainer(&ground.config.run_dir.join("sandboxes").join(&pod));
                assert_eq!(of_libcontainer.join(&id).exists(), !devices.is_empty(), "who made it");
                // libcontainer lets everyone write to the folders of devices, and has a name of its own for the core.
                let as_ours = |line: String| {
                    line.replace("drwxrwxrwx", "drwxr-xr-x").replace("kcore -> /proc/kcore", "core -> /proc/kcore")
                };
                seen.push(ground.lines(&format!("{name}.log")).into_iter().map(as_ours).collect::<Vec<_>>());
            }
            client.remove_pod(&pod).await;
            let [direct, libcontainer] = seen.try_into().unwrap();
            assert!(direct.len() > 60, "{direct:#?}");
            let only = |these: &[String], those: &[String]| -> Vec<String> {
                these.iter().filter(|line| !those.contains(line)).cloned().collect()
            };
            assert_eq!(only(&direct, &libcontainer), only(&libcontainer, &direct), "{kind}");
            assert_eq!(direct.len(), libcontainer.len(), "{kind}");
        }
        ground::finish(runtime).await;
    });
}
