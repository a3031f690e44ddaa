//! What must never happen in a runtime, by the classes of faults that have bitten others (CVE numbers stand at each). Rows that
//! are held elsewhere: 5, 6 and 10 in `confinement` and the agent, 9 in `soak`, 12 in `image`, 13 in `security_images`, 11 in
//! `network` and `cri_network`.

mod ground;

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_cri::v1;
use ground::{Client, Ground, with};
use sha2::Digest;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const SLEEP: [&str; 2] = ["sleep", "1000"];

fn security(container: &mut v1::ContainerConfig) -> &mut v1::LinuxContainerSecurityContext {
    container.linux.as_mut().and_then(|l| l.security_context.as_mut()).expect("it has one")
}

fn of_image(mut container: v1::ContainerConfig, image: &str) -> v1::ContainerConfig {
    container.image = Some(v1::ImageSpec { image: image.into(), ..v1::ImageSpec::default() });
    container
}

fn volume(path: &Path, at: &str) -> v1::Mount {
    v1::Mount { host_path: path.to_string_lossy().into_owned(), container_path: at.into(), ..v1::Mount::default() }
}

fn hash(path: &Path) -> Vec<u8> {
    sha2::Sha256::digest(std::fs::read(path).expect("it can be read")).to_vec()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..3000 * ground::patience() {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} does not come about");
}

/// Starts it and waits for its end, if it can be started; what it said.
async fn output(
    ground: &Ground,
    client: &Client,
    pod: &str,
    config: &v1::PodSandboxConfig,
    container: v1::ContainerConfig,
) -> Result<Vec<String>, tonic::Status> {
    let log = container.log_path.clone();
    let id = client.create(pod, container, config).await?;
    client.start(&id).await?;
    client.ended(&id).await;
    Ok(ground.lines(&log))
}

/// CVE-2019-5736: what enters a container is of no file that could be written from there.
#[test]
fn row_1_no_program_of_the_host_is_written_through_proc() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let programs = [ground::supervisor_program(), std::env::current_exe().unwrap(), PathBuf::from("/bin/busybox")];
        let before = programs.each_ref().map(|path| hash(path));
        // Held open for reading while it is busy, and opened for writing through that once it is not.
        let script = "while :; do for exe in /proc/[0-9]*/exe; do \
                      ( exec 3<$exe; sleep 0.02; echo pwned > /proc/self/fd/3 && echo wrote ) 2>/dev/null & \
                      done; wait; echo round; done";
        for privileged in [false, true] {
            let name = format!("writes-{privileged}");
            let config = if privileged { ground.privileged_pod(&name) } else { ground.pod(&name) };
            let pod = client.run_pod(&config).await;
            let mut container = ground.container(&name, &["sh", "-c", script]);
            security(&mut container).privileged = privileged;
            let id = client.started(&pod, container, &config).await;
            for _ in 0..40 {
                let answer = client.exec(&id, &["true"]).await;
                assert_eq!(answer.exit_code, 0, "{}", String::from_utf8_lossy(&answer.stderr));
            }
            let log = format!("{name}.log");
            until("the writer has tried", || ground.lines(&log).iter().any(|line| line == "round")).await;
            assert!(!ground.lines(&log).contains(&"wrote".to_owned()), "privileged: {privileged}");
            client.remove_pod(&pod).await;
        }
        assert_eq!(programs.each_ref().map(|path| hash(path)), before);
        // It still enters, and is what it was.
        let config = ground.pod("after");
        let pod = client.run_pod(&config).await;
        let id = client.started(&pod, ground.container("after", &SLEEP), &config).await;
        assert_eq!(client.said(&id, "echo here").await, "here");
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

/// CVE-2024-21626: a descriptor of ours that was left open would be a way out for a working directory.
#[test]
fn row_3_no_volume_covers_what_the_kernel_is_told_through() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let config = ground.pod("covers");
        let pod = client.run_pod(&config).await;
        let own = ground.dir.path().join("own");
        std::fs::create_dir_all(own.join("thread-self/attr/apparmor")).unwrap();
        for (name, at, to) in [("whole", "data", "/proc"), ("part", "data", "../proc/sys")] {
            let mut layer = ground::busybox_tar();
            ground::folder(&mut layer, "proc", 0o755);
            ground::folder(&mut layer, "proc/sys", 0o755);
            ground::link(&mut layer, at, to);
            let image = format!("test.invalid/covers-{name}:1");
            ground::import_layer(&runtime, &image, layer.finish()).await;
            let mut container = of_image(ground.container(name, &["true"]), &image);
            container.mounts = vec![volume(&own, "/data")];
            let said = output(&ground, &client, &pod, &config, container).await;
            assert!(said.as_ref().is_err_and(|error| error.message().contains("leads to")), "{name}: {said:?}");
        }
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn row_3_the_hosts_devices_are_not_the_containers() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let config = ground.pod("null");
        let pod = client.run_pod(&config).await;
        let mode = || std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata("/dev/null").unwrap().permissions());
        let before = mode();
        let script = "stat -L -c %d:%i /proc/self/fd/0 /dev/null; chmod 600 /proc/self/fd/0";
        let said =
            output(&ground, &client, &pod, &config, ground.container("first", &["sh", "-c", script])).await.unwrap();
        assert_eq!(said[0], said[1], "{said:?}");
        let id = client.started(&pod, ground.container("sleeps", &SLEEP), &config).await;
        let said = client.said(&id, script).await;
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[0], lines[1], "{said:?}");
        assert_eq!(mode(), before);
        // What it has put there instead is not opened for it.
        let said = client.said(&id, "rm /dev/null; mkfifo /dev/null; echo made").await;
        assert!(said.contains("made"), "{said}");
        assert_eq!(client.said(&id, "cat; stat -L -c %F /proc/self/fd/0").await, "fifo");
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn row_2_no_descriptor_is_a_working_directory() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let config = ground.pod("cwd");
        let pod = client.run_pod(&config).await;
        for number in 3..64 {
            let mut container =
                ground.container(&format!("c{number}"), &["sh", "-c", "pwd; ls /etc/gantry ../../../.."]);
            container.working_dir = format!("/proc/self/fd/{number}");
            let said = output(&ground, &client, &pod, &config, container).await;
            assert!(said.is_err(), "descriptor {number}: {said:?}");
        }
        // Nor by way of a link in the image.
        let mut layer = ground::busybox_tar();
        ground::link(&mut layer, "work", "/proc/self/fd/7");
        ground::link(&mut layer, "up", "../../../../../..");
        ground::import_layer(&runtime, "test.invalid/cwd:1", layer.finish()).await;
        for (name, directory, allowed) in [("link", "/work", false), ("up", "/up", true)] {
            let mut container = of_image(ground.container(name, &["sh", "-c", "pwd; ls"]), "test.invalid/cwd:1");
            container.working_dir = directory.into();
            let said = output(&ground, &client, &pod, &config, container).await;
            assert_eq!(said.is_ok(), allowed, "{name}: {said:?}");
            if let Ok(lines) = said {
                assert!(lines[0] == "/" && lines.contains(&"work".to_owned()), "inside its own root: {lines:?}");
            }
        }
        // Neither the first process nor a further one has a descriptor of ours.
        let id = client.started(&pod, ground.container("fds", &SLEEP), &config).await;
        assert_eq!(
            client.said(&id, "ls /proc/1/fd | tr '\\n' ' '; ls /proc/self/fd | tr '\\n' ' '").await,
            "0 1 2 0 1 2 3"
        );
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

/// CVE-2025-31133, -52565, -52881: what hides the kernel's files is taken from /dev, which may be another's volume whose owner
/// exchanges what is in it meanwhile.
#[test]
fn row_3_what_hides_the_kernels_files_is_not_anothers() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
        let dev = ground.dir.path().join("dev");
        std::fs::create_dir(&dev).unwrap();
        for name in ["null", "console", "pts", "ptmx"] {
            std::os::unix::fs::symlink("/proc/sys/kernel/core_pattern", dev.join(name)).unwrap();
        }
        let config = ground.pod("race");
        let pod = client.run_pod(&config).await;
        let mut racer = ground.container(
            "racer",
            &[
                "sh",
                "-c",
                "cd /dev-of-other; while :; do for name in null console pts ptmx; do \
               busybox ln -sf /proc/sys/kernel/core_pattern .$name; busybox mv -f .$name $name; \
               : > .$name; busybox mv -f .$name $name; done; done",
            ],
        );
        racer.mounts = vec![volume(&dev, "/dev-of-other")];
        client.started(&pod, racer, &config).await;
        let script = "for path in /proc/interrupts /proc/kcore /proc/keys; do \
                      head -c 1 $path 2>/dev/null | grep -q . && echo seen $path; done; \
                      echo '|/pwned' 2>/dev/null > /proc/sys/kernel/core_pattern && echo wrote; \
                      echo pwned 2>/dev/null > /dev/null; echo pwned 2>/dev/null > /dev/console; echo done";
        let mut ran = 0;
        for round in 0..30 {
            let at = if round % 2 == 0 { "/dev" } else { "/dev/sub" };
            let mut victim = ground.container(&format!("victim{round}"), &["sh", "-c", script]);
            victim.mounts = vec![volume(&dev, at)];
            victim.tty = round % 3 == 0;
            if let Ok(lines) = output(&ground, &client, &pod, &config, victim).await {
                ran += 1;
                let strange: Vec<_> =
                    lines.iter().filter(|line| line.starts_with("seen") || line.starts_with("wrote")).collect();
                assert!(strange.is_empty(), "round {round}: {strange:?}");
            }
            assert_eq!(std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), pattern, "round {round}");
        }
        assert!(ran > 0, "none of them ran");
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

/// CVE-2021-30465, CVE-2024-45310, CVE-2024-5154, CVE-2025-54867: links of an image where the runtime reads, makes and mounts.
#[test]
fn row_4_links_of_an_image_lead_to_nothing_of_the_host() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let (victim, own) = (ground.dir.path().join("victim"), ground.dir.path().join("own"));
        for folder in [&victim, &own] {
            std::fs::create_dir(folder).unwrap();
            std::fs::write(folder.join("file"), "untouched").unwrap();
        }
        std::fs::write(victim.join("passwd"), "evil:x:0:0::/:/bin/sh\n").unwrap();
        let out = |rest: &str| format!("../../../../../../../..{}/{rest}", victim.display());
        let log = own.join("log");
        std::fs::write(&log, "").unwrap();
        let cases: [(&str, &[(&str, String)]); 7] = [
            ("files", &[("etc/hosts", out("file")), ("etc/hostname", out("new")), ("etc/resolv.conf", out("file"))]),
            ("log", &[("dev/termination-log", out("file")), ("logs", out("new"))]),
            ("mount", &[("data", out("")), ("data2", format!("{}/new", victim.display()))]),
            ("users", &[("etc/passwd", out("passwd")), ("etc/group", "/proc/self/root/etc/group".to_owned())]),
            ("kernel", &[("proc", out("")), ("sys", "/dev".to_owned())]),
            ("table", &[("etc/mtab", out("file")), ("run", out(""))]),
            ("program", &[("bin/tool", out("file")), ("work", out(""))]),
        ];
        for (name, links) in cases {
            let mut layer = ground::base_layer();
            ground::folder(&mut layer, "etc", 0o755);
            for (at, to) in links {
                ground::link(&mut layer, at, to);
            }
            let image = format!("test.invalid/links-{name}:1");
            ground::import_layer(&runtime, &image, layer.finish()).await;
            let config = ground.pod(name);
            let pod = client.run_pod(&config).await;
            let script = "for f in /etc/hosts /etc/hostname /etc/resolv.conf /data/x /data2/x /logs /work/x; do \
                          echo pwned 2>/dev/null > $f; done; cat /data/file /etc/passwd /etc/mtab /run/file 2>/dev/null; true";
            for (turn, user) in ["", "evil", "web"].into_iter().enumerate() {
                let mut container = of_image(ground.container(&format!("{name}{turn}"), &["sh", "-c", script]), &image);
                container.mounts = vec![
                    volume(&log, "/dev/termination-log"),
                    volume(&own, "/data/volume"),
                    volume(&log, "/data2/log"),
                ];
                container.working_dir = "/work".into();
                security(&mut container).run_as_username = user.into();
                let said = output(&ground, &client, &pod, &config, container).await;
                if let Ok(lines) = &said {
                    assert!(!lines.concat().contains("untouched"), "{name}: what is the host's is read: {lines:?}");
                }
                assert!(user != "evil" || said.is_err(), "{name}: a user of the host's");
            }
            client.remove_pod(&pod).await;
            let mut left: Vec<_> = std::fs::read_dir(&victim).unwrap().flatten().map(|e| e.file_name()).collect();
            left.sort();
            assert_eq!(left, ["file", "passwd"], "{name}");
            assert_eq!(std::fs::read_to_string(victim.join("file")).unwrap(), "untouched", "{name}");
            assert_eq!(std::fs::read_to_string(own.join("file")).unwrap(), "untouched", "{name}");
        }
        ground::finish(runtime).await;
    });
}

/// Everything below a folder, without what is another file system's.
fn below(folder: &Path, found: &mut Vec<PathBuf>) {
    let device = folder.metadata().unwrap().dev();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let metadata = path.symlink_metadata().unwrap();
        if metadata.is_dir() && metadata.dev() == device {
            below(&path, found);
        }
        found.push(path);
    }
}

/// How many bytes a user who is not root hears on a socket before the connection ends. None: it may not even connect.
fn heard_by_nobody(socket: &Path) -> Option<usize> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, recv, send, socket_with};
    let path = socket.to_owned();
    let ask = move || {
        let nobody = rustix::fs::Uid::from_raw(65_534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("a thread of another user");
        let address = SocketAddrUnix::new(&path).unwrap();
        [SocketType::SEQPACKET, SocketType::STREAM].into_iter().find_map(|kind| {
            let fd = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
            connect(&fd, &address).ok()?;
            // What a client of HTTP/2 begins with; no supervisor knows it either.
            let _ = send(&fd, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", rustix::net::SendFlags::NOSIGNAL);
            Some(recv(&fd, &mut [0_u8; 64], rustix::net::RecvFlags::empty()).map_or(0, |(count, _)| count))
        })
    };
    std::thread::spawn(ask).join().unwrap()
}

/// CVE-2020-15257, CVE-2021-41103, CVE-2024-25621: sockets and state are root's, and no socket is without a file.
#[test]
fn row_8_sockets_and_state_are_for_nobody_else() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let config = ground.pod("pod");
        let pod = client.run_pod(&config).await;
        let id = client.started(&pod, ground.container("c", &SLEEP), &config).await;
        let (run, state) = (&ground.config.run_dir, &ground.config.state_dir);
        for folder in [run, state] {
            assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o7777, 0o700, "{}", folder.display());
        }
        let mut found = vec![ground.config.socket.clone().unwrap()];
        below(run, &mut found);
        let sockets: Vec<_> =
            found.iter().filter(|path| path.symlink_metadata().unwrap().file_type().is_socket()).collect();
        assert!(sockets.len() >= 2, "CRI's, and the supervisor's: {sockets:?}");
        for path in &found {
            let metadata = path.symlink_metadata().unwrap();
            // What is mounted, and what libcontainer keeps, has other modes, behind folders that are closed.
            let kept =
                path.components().any(|part| part.as_os_str() == "libcontainer") && !metadata.file_type().is_socket();
            let ours = metadata.dev() == run.metadata().unwrap().dev() && !metadata.is_symlink() && !kept;
            assert!(!ours || metadata.permissions().mode() & 0o077 == 0, "{}: {:o}", path.display(), metadata.mode());
        }
        for socket in sockets {
            // Even where somebody has opened all doors: who asks is looked at.
            let mut opened = Vec::new();
            for part in socket.ancestors().take_while(|part| part.starts_with(ground.dir.path())) {
                let before = part.metadata().unwrap().permissions();
                std::fs::set_permissions(part, std::fs::Permissions::from_mode(0o777)).unwrap();
                opened.push((part, before));
            }
            // A whole path is longer than an address may be.
            let short = ground.dir.path().join("s");
            std::os::unix::fs::symlink(socket, &short).unwrap();
            assert_eq!(heard_by_nobody(&short), Some(0), "{}", socket.display());
            std::fs::remove_file(&short).unwrap();
            for (part, before) in opened {
                std::fs::set_permissions(part, before).unwrap();
            }
        }
        // Abstract sockets would be reached from every container on the host's network.
        let named = client.said(&id, "cat /proc/net/unix").await;
        let abstracts: Vec<_> = named.lines().filter(|line| line.contains(" @")).collect();
        assert!(abstracts.is_empty(), "{abstracts:?}");
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

/// CVE-2022-0811, CVE-2024-3154: neither a sysctl nor an annotation reaches the host.
#[test]
fn row_14_sysctls_and_annotations_change_nothing_of_the_host() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let read = |name: &str| std::fs::read_to_string(Path::new("/proc/sys").join(name)).unwrap();
        let watched = ["kernel/core_pattern", "kernel/pid_max", "vm/overcommit_memory", "net/ipv4/ip_forward"];
        let before = watched.map(read);
        for (name, value) in [
            ("kernel.core_pattern", "|/pwned"),
            ("kernel/core_pattern", "|/pwned"),
            ("kernel.shm_rmid_forced/../core_pattern", "|/pwned"),
            ("net..kernel.core_pattern", "|/pwned"),
            ("net/../kernel/core_pattern", "|/pwned"),
            ("kernel.pid_max", "1000"),
            ("vm.overcommit_memory", "1"),
            ("net.ipv4.ip_forward", "0"),
            ("", "1"),
        ] {
            // On the host's network, net.* is the host's.
            let mut config = ground.pod("pod");
            config.linux.as_mut().unwrap().sysctls.insert(name.into(), value.into());
            let request = v1::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
            let error = client.runtime.clone().run_pod_sandbox(request).await.expect_err(name);
            assert_eq!(error.code(), tonic::Code::InvalidArgument, "{error}");
            assert!(error.message().contains(&format!("{name:?}")), "{error}");
        }
        assert_eq!(watched.map(read), before);
        let mut config = ground.pod("noted");
        let mut container = ground.container("noted", &["sh", "-c", "cat /proc/self/status; cat /proc/self/uid_map"]);
        for annotations in [&mut config.annotations, &mut container.annotations] {
            for (key, value) in [
                ("systemd.property.ExecStart", "/pwned"),
                ("run.oci.hooks.stdout", "/pwned"),
                ("run.oci.keep_original_groups", "1"),
                ("io.kubernetes.cri-o.userns-mode", "auto"),
                ("io.kubernetes.cri-o.Devices", "/dev/kmsg"),
                ("io.kubernetes.cri.sandbox-id", "other"),
            ] {
                annotations.insert(key.into(), value.into());
            }
        }
        let pod = client.run_pod(&config).await;
        let said = output(&ground, &client, &pod, &config, container).await.unwrap().join("\n");
        assert!(said.contains("Groups:\t0 \n") || said.contains("Groups:\t0\n"), "{said}");
        assert!(said.contains("4294967295"), "{said}");
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

/// CVE-2024-40635, CVE-2019-11245: who a container runs as is looked up for each, and is never root by an overflow.
#[test]
fn row_15_a_user_is_who_was_meant_each_time() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let users: [(&str, Option<&str>); 9] = [
            ("web", Some("33")),
            ("33", Some("33")),
            ("1000:4", Some("1000")),
            ("2147483647", Some("2147483647")),
            ("2147483648", None),
            ("4294967295", None),
            ("4294967296", None),
            ("-1", None),
            ("1000:4294967296", None),
        ];
        for (n, (user, uid)) in users.into_iter().enumerate() {
            let image = format!("test.invalid/user{n}:1");
            ground::import_for(&runtime, &image, &[ground::busybox_tar().finish()], user).await;
            let config = ground.pod(&format!("pod{n}"));
            let pod = client.run_pod(&config).await;
            // The first tries to be another the next time.
            let script = "cat /proc/self/status; echo 'web:x:0:0::/:/bin/sh' 2>/dev/null > /etc/passwd; true";
            for attempt in 0..2 {
                let mut container = of_image(ground.container(&format!("c{n}"), &["sh", "-c", script]), &image);
                container.metadata.as_mut().unwrap().attempt = attempt;
                container.log_path = format!("{n}-{attempt}.log");
                let said = output(&ground, &client, &pod, &config, container).await;
                let Some(uid) = uid else {
                    let error = said.expect_err(user);
                    assert!(error.message().contains(user.rsplit(':').next().unwrap()), "{user}: {error}");
                    continue;
                };
                let said = said.unwrap_or_else(|error| panic!("{user}: {error}"));
                let field = |name: &str| said.iter().find_map(|line| line.strip_prefix(name)).unwrap_or("").trim();
                assert_eq!(field("Uid:"), [uid; 4].join("\t"), "{user}, attempt {attempt}");
                for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
                    assert_eq!(field(set), "0000000000000000", "{user} {set}");
                }
            }
            client.remove_pod(&pod).await;
        }
        ground::finish(runtime).await;
    });
}

/// CVE-2023-2431, CVE-2023-25809: who asks for a filter runs with it or not at all, and its cgroups are its own to see and
/// nobody's to write.
#[test]
fn row_16_a_bad_profile_fails_the_container() {
    use v1::security_profile::ProfileType;
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let folder = ground.config.seccomp_dir.clone();
        std::fs::create_dir_all(folder.join("folder")).unwrap();
        for (name, text) in [
            ("text.json", "no JSON"),
            ("empty.json", ""),
            ("list.json", "[]"),
            ("action.json", r#"{"defaultAction":"SCMP_ACT_NONE"}"#),
            ("half.json", r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["chmod"]"#),
        ] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        std::os::unix::fs::symlink("/dev/zero", folder.join("endless.json")).unwrap();
        let config = ground.pod("pod");
        let pod = client.run_pod(&config).await;
        let bad = [
            "",
            "missing.json",
            "folder",
            "text.json",
            "empty.json",
            "list.json",
            "action.json",
            "half.json",
            "endless.json",
            "../seccomp/text.json",
            "/proc/self/environ",
        ];
        for name in bad {
            let mut container = ground.container("c", &["true"]);
            let profile_type = ProfileType::Localhost as i32;
            security(&mut container).seccomp = Some(v1::SecurityProfile { profile_type, localhost_ref: name.into() });
            let error = client.create(&pod, container, &config).await.expect_err(name);
            assert!(!error.message().is_empty(), "{name}");
        }
        let listed = client.runtime.clone().list_containers(v1::ListContainersRequest::default()).await.unwrap();
        assert_eq!(listed.into_inner().containers, []);
        let script = "cat /proc/self/cgroup; ls /sys/fs/cgroup; busybox touch /sys/fs/cgroup/x && echo made; \
                      echo 1 > /sys/fs/cgroup/cgroup.procs && echo moved";
        let lines =
            output(&ground, &client, &pod, &config, ground.container("looks", &["sh", "-c", script])).await.unwrap();
        let shown: Vec<_> = lines.iter().filter(|line| line.contains("gantry")).collect();
        assert!(shown.is_empty(), "where it is on the host: {shown:?}");
        assert!(!lines.contains(&"made".to_owned()) && !lines.contains(&"moved".to_owned()), "{lines:?}");
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

/// Hangs and undefined behaviour of fork where there are threads: everything at once, and nothing stands still.
#[test]
fn row_19_a_thousand_at_once_and_each_is_answered() {
    const PODS: usize = 8;
    const CONTAINERS: usize = 25;
    const EXECS: usize = 4;
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let mut work = tokio::task::JoinSet::new();
        let mut pods = Vec::new();
        for p in 0..PODS {
            let config = ground.pod(&format!("pod{p}"));
            let pod = client.run_pod(&config).await;
            for c in 0..CONTAINERS {
                let (client, pod, config) = (client.clone(), pod.clone(), config.clone());
                let container = ground.container(&format!("c{p}-{c}"), &SLEEP);
                work.spawn(async move {
                    let id = client.started(&pod, container, &config).await;
                    let mut execs = tokio::task::JoinSet::new();
                    for n in 0..EXECS {
                        let (client, container_id) = (client.clone(), id.clone());
                        let cmd = vec!["sh".to_owned(), "-c".to_owned(), format!("exit {n}")];
                        // However long it takes where there is one processor for all of them.
                        let request = v1::ExecSyncRequest { container_id, cmd, timeout: 0 };
                        execs.spawn(async move {
                            let answer = client.runtime.clone().exec_sync(request).await.expect("it is answered");
                            (n, answer.into_inner().exit_code)
                        });
                    }
                    while let Some(done) = execs.join_next().await {
                        let (n, code) = done.expect("it is answered");
                        assert_eq!(usize::try_from(code), Ok(n));
                    }
                });
            }
            pods.push(pod);
        }
        let all = async {
            while let Some(done) = work.join_next().await {
                done.expect("it is answered");
            }
        };
        tokio::time::timeout(Duration::from_secs(240) * ground::patience(), all).await.expect("nothing stands still");
        for pod in pods {
            let supervisor = client.supervisor_pid(&pod).await;
            let threads = std::fs::read_dir(format!("/proc/{supervisor}/task")).unwrap().count();
            assert_eq!(threads, 1, "who forks has one thread for life");
            client.remove_pod(&pod).await;
        }
        ground::finish(runtime).await;
    });
}

/// The memory that a process has to itself, in KiB.
fn resident(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has some");
    field.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Two outputs that never stop, on a disk that is full of them, with a client that reads none of it.
#[test]
fn a_flood_of_output_hurts_its_own_container_alone() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let logs = ground.dir.path().join("logs");
        std::fs::create_dir(&logs).unwrap();
        let options = Some(c"size=8m");
        rustix::mount::mount("tmpfs", &logs, "tmpfs", rustix::mount::MountFlags::empty(), options).unwrap();
        let config = ground.pod("pod");
        let pod = client.run_pod(&config).await;
        let script = "while :; do dd if=/dev/zero bs=64k count=64 2>/dev/null | tr '\\0' 'x'; done >&2 & \
                      while :; do echo a line, and another, and another; done";
        let quiet = client.started(&pod, ground.container("quiet", &SLEEP), &config).await;
        let supervisor = client.supervisor_pid(&pod).await;
        let before = resident(supervisor);
        let loud = client.started(&pod, ground.container("loud", &["sh", "-c", script]), &config).await;
        let request =
            v1::AttachRequest { container_id: loud.clone(), stdout: true, stderr: true, ..Default::default() };
        let url = client.runtime.clone().attach(request).await.unwrap().into_inner().url;
        let (address, path) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).unwrap();
        let mut deaf = TcpStream::connect(address).await.unwrap();
        let upgrade = format!(
            "POST /{path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n"
        );
        deaf.write_all(upgrade.as_bytes()).await.unwrap();
        until("the disk is full", || rustix::fs::statvfs(&logs).unwrap().f_bavail == 0).await;
        // The neighbour is served, and what keeps both does not grow.
        for n in 0..30 {
            assert_eq!(client.said(&quiet, &format!("echo {n}")).await, n.to_string());
        }
        let other = ground.pod("other");
        let second = client.run_pod(&other).await;
        let id = client.started(&second, ground.container("second", &["true"]), &other).await;
        assert_eq!(client.ended(&id).await.exit_code, 0);
        let grown = resident(supervisor).saturating_sub(before);
        assert!(grown < 4 << 10, "{grown} KiB");
        client.stop(&loud, 0).await;
        assert_eq!(client.status(&loud).await.exit_code, 137);
        assert_eq!(client.status(&quiet).await.state(), v1::ContainerState::ContainerRunning);
        drop(deaf);
        for pod in [&pod, &second] {
            client.remove_pod(pod).await;
        }
        rustix::mount::unmount(&logs, rustix::mount::UnmountFlags::DETACH).unwrap();
        ground::finish(runtime).await;
    });
}

/// Processes and memory: each to the container's own limit, and the neighbour goes on.
#[test]
fn a_fork_bomb_and_a_glutton_hurt_themselves_alone() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let config = ground.pod("pod");
        let pod = client.run_pod(&config).await;
        let quiet = client.started(&pod, ground.container("quiet", &SLEEP), &config).await;
        // The inner shell ends when there is no process left to be had.
        let script = "(while :; do sleep 3600 & done); echo full; exec sleep 3600";
        let mut bomb = ground.container("bomb", &["sh", "-c", script]);
        let unified = std::collections::HashMap::from([("pids.max".to_owned(), "64".to_owned())]);
        let resources = v1::LinuxContainerResources { unified, ..v1::LinuxContainerResources::default() };
        bomb.linux.as_mut().unwrap().resources = Some(resources);
        let mut glutton = ground.container("glutton", &["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]);
        glutton.linux.as_mut().unwrap().resources =
            Some(v1::LinuxContainerResources { memory_limit_in_bytes: 24 << 20, ..Default::default() });
        let bomb = client.started(&pod, bomb, &config).await;
        until("the bomb is at its limit", || ground.lines("bomb.log").contains(&"full".to_owned())).await;
        let glutton = client.started(&pod, glutton, &config).await;
        let ended = client.ended(&glutton).await;
        assert_eq!((ended.exit_code, ended.reason.as_str()), (137, "OOMKilled"));
        for n in 0..30 {
            assert_eq!(client.said(&quiet, &format!("echo {n}")).await, n.to_string());
        }
        // Whoever wants into the crowd is told, and does not wait for ever.
        let request = v1::ExecSyncRequest { container_id: bomb.clone(), cmd: vec!["true".into()], timeout: 20 };
        let crowded = client.runtime.clone().exec_sync(request).await;
        assert!(!crowded.is_err_and(|error| error.code() == tonic::Code::DeadlineExceeded));
        assert_eq!(client.status(&bomb).await.state(), v1::ContainerState::ContainerRunning);
        client.stop(&bomb, 0).await;
        assert_eq!(client.status(&quiet).await.state(), v1::ContainerState::ContainerRunning);
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}
