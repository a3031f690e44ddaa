//! What containers mount: images, and folders of the host whose mounts come and go.

mod ground;

use std::path::Path;

use gantry_cri::v1;
use gantry_runtime::Runtime;
use ground::{Client, Ground, IMAGE, Tar, with};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use tonic::Code;

const DATA: &str = "test.invalid/data:1";

/// Two layers: the upper one adds, replaces and takes away.
async fn import_data(runtime: &Runtime) {
    let mut lower = Tar::default();
    ground::folder(&mut lower, "models", 0o755);
    ground::file(&mut lower, "models/kept", b"below\n", 0o644);
    ground::file(&mut lower, "models/gone", b"below\n", 0o644);
    ground::file(&mut lower, "models/changed", b"below\n", 0o644);
    ground::file(&mut lower, "run", b"#!/bin/sh\necho ran\n", 0o755);
    let mut upper = Tar::default();
    ground::folder(&mut upper, "models", 0o755);
    ground::file(&mut upper, "models/.wh.gone", b"", 0o644);
    ground::file(&mut upper, "models/changed", b"above\n", 0o644);
    ground::link(&mut upper, "latest", "/models");
    ground::link(&mut upper, "out", "../../../../../../..");
    ground::import_layers(runtime, DATA, &[lower.finish(), upper.finish()]).await;
}

fn image(name: &str, at: &str, sub_path: &str) -> v1::Mount {
    v1::Mount {
        container_path: at.into(),
        readonly: true,
        image: Some(v1::ImageSpec { image: name.into(), ..v1::ImageSpec::default() }),
        image_sub_path: sub_path.into(),
        ..v1::Mount::default()
    }
}

fn folder(path: &Path, at: &str, propagation: v1::MountPropagation) -> v1::Mount {
    v1::Mount {
        container_path: at.into(),
        host_path: path.to_string_lossy().into_owned(),
        propagation: propagation.into(),
        ..v1::Mount::default()
    }
}

async fn shell(client: &Client, container: &str, script: &str) -> (i32, String) {
    let answer = client.exec(container, &["sh", "-c", script]).await;
    (answer.exit_code, String::from_utf8_lossy(&answer.stdout).into_owned())
}

#[test]
fn an_image_is_a_volume() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        import_data(&runtime).await;
        let config = ground.pod("pod");
        let pod = client.run_pod(&config).await;
        let mut container = ground.container("c", &["sleep", "1000"]);
        container.mounts = vec![
            image(DATA, "/data", ""),
            image(DATA, "/data/models/in/it", "models"),
            image(DATA, "/part", "latest"),
            image(DATA, "/one", "models/kept"),
            image(DATA, "/root-of-it", "out"),
            image(IMAGE, "/tools", ""),
        ];
        // A mount inside a volume that cannot be written has nowhere to be.
        let refused = client.create(&pod, container.clone(), &config).await.expect("made");
        assert!(client.start(&refused).await.is_err());
        container.mounts.remove(1);
        container.metadata.as_mut().expect("it has some").attempt = 1;
        let id = client.create(&pod, container.clone(), &config).await.expect("made");
        let data = runtime.images().resolve(DATA).expect("it is here");
        let mounts = client.status(&id).await.mounts;
        let told = mounts.iter().map(|mount| mount.image.as_ref().map_or("", |image| image.image_ref.as_str()));
        assert_eq!(told.filter(|told| *told == data.id().as_str()).count(), 4, "{mounts:?}");
        // What a container stands on stays, though its image goes.
        runtime.images().remove(DATA).await.expect("removed");
        client.start(&id).await.expect("started");
        let all = "cat /data/models/kept /data/models/changed /one /part/kept; ls /data/models /root-of-it; /data/run";
        let said =
            "below\nabove\nbelow\nbelow\n/data/models:\nchanged\nkept\n\n/root-of-it:\nlatest\nmodels\nout\nrun\nran\n";
        assert_eq!(shell(&client, &id, all).await, (0, said.into()));
        assert_eq!(shell(&client, &id, "/tools/bin/busybox echo it runs").await, (0, "it runs\n".into()));
        for script in ["touch /data/new", "echo x > /one", "mkdir /tools/x", "touch /part/kept"] {
            let (code, _) = shell(&client, &id, &format!("{script} 2>/dev/null")).await;
            assert_ne!(code, 0, "{script}");
        }
        client.remove_pod(&pod).await;
        assert!(runtime.images().resolve(DATA).is_none());
        ground::finish(runtime).await;
    });
}

#[test]
fn an_image_that_cannot_be_a_volume_is_refused() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        import_data(&runtime).await;
        let config = ground.pod("pod");
        let pod = client.run_pod(&config).await;
        let refused = async |mount: v1::Mount| {
            let mut container = ground.container("c", &["sleep", "1000"]);
            container.mounts = vec![mount];
            let error = client.create(&pod, container, &config).await.expect_err("refused");
            (error.code(), error.message().to_owned())
        };
        let bad = |code: Code, words: &str, answer: (Code, String)| {
            assert_eq!(answer.0, code, "{answer:?}");
            assert!(answer.1.contains(words), "{answer:?}");
        };
        bad(Code::NotFound, "\"test.invalid/none\"", refused(image("test.invalid/none", "/d", "")).await);
        bad(Code::InvalidArgument, "has nothing at \"none\"", refused(image(DATA, "/d", "none")).await);
        bad(Code::InvalidArgument, "has nothing at \"models/gone\"", refused(image(DATA, "/d", "models/gone")).await);
        bad(Code::InvalidArgument, "has nothing at \"run/x\"", refused(image(DATA, "/d", "run/x")).await);
        let writable = v1::Mount { readonly: false, ..image(DATA, "/d", "") };
        bad(Code::InvalidArgument, "must be read-only", refused(writable).await);
        let two = v1::Mount { host_path: "/tmp".into(), ..image(DATA, "/d", "") };
        bad(Code::InvalidArgument, "both a host path and an image", refused(two).await);
        let part_of_nothing = v1::Mount { image: None, host_path: "/tmp".into(), ..image(DATA, "/d", "x") };
        bad(Code::InvalidArgument, "a part of an image", refused(part_of_nothing).await);
        client.remove_pod(&pod).await;
        assert_eq!(runtime.images().snapshots().len(), 0, "nothing is left of what was refused");
        ground::finish(runtime).await;
    });
}

const WITH_VOLUMES: &str = "test.invalid/volumes:1";

/// Busybox that declares volumes, one of them with content in two layers, behind a link, and one at a hostile path.
async fn import_volumes(runtime: &Runtime, declared: serde_json::Value) {
    let mut lower = ground::busybox_tar();
    ground::folder(&mut lower, "srv", 0o755);
    ground::folder(&mut lower, "srv/db", 0o750);
    ground::file(&mut lower, "srv/db/kept", b"below\n", 0o640);
    ground::file(&mut lower, "srv/db/gone", b"below\n", 0o644);
    ground::link(&mut lower, "srv/db/out", "/etc/passwd");
    ground::link(&mut lower, "data", "srv/db");
    ground::file(&mut lower, "file", b"", 0o644);
    let mut upper = Tar::default();
    ground::file(&mut upper, "srv/db/.wh.gone", b"", 0o644);
    ground::file(&mut upper, "srv/db/added", b"above\n", 0o644);
    let run = serde_json::json!({"Env": ["PATH=/bin"], "Cmd": ["sh"], "Volumes": declared});
    ground::import_image(runtime, WITH_VOLUMES, &[lower.finish(), upper.finish()], run).await;
}

#[test]
fn volumes_of_an_image_are_its_containers_own() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        import_volumes(&runtime, serde_json::json!({"/data": {}, "/../../new": {}, "/covered": {}})).await;
        let config = ground.pod("pod");
        let pod = client.run_pod(&config).await;
        let given = ground.dir.path().join("given");
        std::fs::create_dir(&given).unwrap();
        let mut ids = Vec::new();
        for name in ["a", "b"] {
            let mut container = ground.container(name, &["sleep", "1000"]);
            container.image = Some(v1::ImageSpec { image: WITH_VOLUMES.into(), ..v1::ImageSpec::default() });
            container.mounts = vec![folder(&given, "/covered", v1::MountPropagation::PropagationPrivate)];
            let security = container.linux.as_mut().and_then(|l| l.security_context.as_mut()).expect("it has one");
            security.readonly_rootfs = true;
            let id = client.create(&pod, container, &config).await.expect("made");
            client.start(&id).await.expect("started");
            ids.push(id);
        }
        let (code, said) =
            shell(&client, &ids[0], "ls /data; cat /data/kept /data/added; stat -L -c %a /data /data/kept").await;
        assert_eq!((code, said.as_str()), (0, "added\nkept\nout\nbelow\nabove\n750\n640\n"));
        assert_eq!(shell(&client, &ids[0], "readlink /data/out; ls /new").await, (0, "/etc/passwd\n".into()));
        // Written to though the root is read-only, seen by nobody else, and told of as what the container wrote.
        let before = runtime.images().snapshot_usage(&ids[0]).await.expect("it is there");
        let write = "echo x > /data/mine && echo x > /new/mine && echo x > /covered/mine && busybox rm /data/kept";
        assert_eq!(shell(&client, &ids[0], write).await.0, 0);
        assert_eq!(shell(&client, &ids[1], "cat /data/kept; ls /new").await, (0, "below\n".into()));
        assert_eq!(runtime.images().snapshot_usage(&ids[0]).await.expect("it is there").inodes, before.inodes + 1);
        assert!(given.join("mine").exists() && !Path::new("/new").exists());
        let mounts = client.status(&ids[0]).await.mounts;
        assert_eq!(mounts.len(), 1, "CRI tells of those that were asked for: {mounts:?}");
        client.remove_pod(&pod).await;
        let left = std::fs::read_dir(ground.config.state_dir.join("snapshots/c")).unwrap().count();
        assert_eq!(left, 0, "they go with their containers");
        ground::finish(runtime).await;
    });
}

#[test]
fn volumes_that_cannot_be_are_refused() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let config = ground.pod("pod");
        let pod = client.run_pod(&config).await;
        for (declared, words) in [
            (serde_json::json!({"/../..": {}}), "\"/../..\" that the image declares is its root"),
            (serde_json::json!({"/proc/sys": {}}), "hide the kernel's own files"),
            (serde_json::json!({"/file": {}}), "\"/file\" that the image declares is no folder"),
            (serde_json::json!({"/file/below": {}}), "is no folder"),
        ] {
            import_volumes(&runtime, declared).await;
            let mut container = ground.container("c", &["sleep", "1000"]);
            container.image = Some(v1::ImageSpec { image: WITH_VOLUMES.into(), ..v1::ImageSpec::default() });
            let error = client.create(&pod, container, &config).await.expect_err("refused");
            assert_eq!(error.code(), Code::InvalidArgument, "{error}");
            assert!(error.message().contains(words), "{error}");
        }
        assert_eq!(runtime.images().snapshots().len(), 0, "nothing is left of what was refused");
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

/// A folder that is a mount point of its own, with shared propagation as hosts have it.
fn shared_folder(ground: &Ground, name: &str) -> std::path::PathBuf {
    let path = ground.dir.path().join(name);
    std::fs::create_dir_all(path.join("sub")).unwrap();
    rustix::mount::mount_bind(&path, &path).unwrap();
    rustix::mount::mount_change(&path, MountPropagationFlags::SHARED).unwrap();
    path
}

fn tmpfs(at: &Path) {
    rustix::mount::mount("tmpfs", at, "tmpfs", MountFlags::empty(), None).unwrap();
    std::fs::write(at.join("seen"), "").unwrap();
}

#[test]
fn mounts_reach_whom_they_should() {
    with(|ground| async move {
        use v1::MountPropagation::{PropagationBidirectional, PropagationHostToContainer, PropagationPrivate};
        let (runtime, client) = ground.start().await;
        let path = shared_folder(&ground, "shared");
        let mut config = ground.pod("pod");
        let security = config.linux.as_mut().and_then(|l| l.security_context.as_mut()).expect("it has one");
        security.privileged = true;
        let pod = client.run_pod(&config).await;
        let mut ids = Vec::new();
        for (n, propagation) in
            [PropagationPrivate, PropagationHostToContainer, PropagationBidirectional].into_iter().enumerate()
        {
            let mut container = ground.container(&format!("c{n}"), &["sleep", "1000"]);
            container.mounts = vec![folder(&path, "/v", propagation)];
            let security = container.linux.as_mut().and_then(|l| l.security_context.as_mut()).expect("it has one");
            security.privileged = true;
            security.seccomp = None;
            let id = client.create(&pod, container, &config).await.expect("made");
            client.start(&id).await.expect("started");
            ids.push(id);
        }
        tmpfs(&path.join("sub"));
        let sees = async |id: &str, file: &str| shell(&client, id, &format!("test -e {file}")).await.0 == 0;
        let mut seen = Vec::new();
        for id in &ids {
            seen.push(sees(id, "/v/sub/seen").await);
        }
        assert_eq!(seen, [false, true, true], "what the host mounts");
        rustix::mount::unmount(path.join("sub"), UnmountFlags::DETACH).unwrap();
        let mut seen = Vec::new();
        for id in &ids {
            let made = "mkdir -p /v/of && mount -t tmpfs none /v/of && touch /v/of/container";
            assert_eq!(shell(&client, id, made).await.0, 0);
            seen.push(path.join("of/container").exists());
        }
        assert_eq!(seen, [false, false, true], "what the container mounts");
        client.remove_pod(&pod).await;
        assert!(path.join("of/container").exists(), "it is the host's now");
        rustix::mount::unmount(path.join("of"), UnmountFlags::DETACH).unwrap();
        rustix::mount::unmount(&path, UnmountFlags::DETACH).unwrap();
        ground::finish(runtime).await;
    });
}

#[test]
fn a_read_only_mount_holds_for_what_is_below_where_it_is_asked_to() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let path = shared_folder(&ground, "tree");
        tmpfs(&path.join("sub"));
        let config = ground.pod("pod");
        let pod = client.run_pod(&config).await;
        let mount = |at: &str, recursive| v1::Mount {
            readonly: true,
            recursive_read_only: recursive,
            ..folder(&path, at, v1::MountPropagation::PropagationPrivate)
        };
        let mut container = ground.container("c", &["sleep", "1000"]);
        container.mounts = vec![mount("/ro", false), mount("/rro", true)];
        let id = client.create(&pod, container.clone(), &config).await.expect("made");
        client.start(&id).await.expect("started");
        let writes = async |file: &str| shell(&client, &id, &format!("touch {file} 2>/dev/null")).await.0 == 0;
        assert!(!writes("/ro/new").await && !writes("/rro/new").await);
        assert!(writes("/ro/sub/new").await && !writes("/rro/sub/new").await);
        // Nobody can promise it of what is yet to be mounted.
        for propagation in
            [v1::MountPropagation::PropagationHostToContainer, v1::MountPropagation::PropagationBidirectional]
        {
            container.mounts = vec![v1::Mount { propagation: propagation.into(), ..mount("/rro", true) }];
            container.metadata.as_mut().expect("it has some").attempt += 1;
            let error = client.create(&pod, container.clone(), &config).await.expect_err("refused");
            assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        }
        container.mounts = vec![v1::Mount { readonly: false, ..mount("/rro", true) }];
        let error = client.create(&pod, container, &config).await.expect_err("refused");
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        client.remove_pod(&pod).await;
        rustix::mount::unmount(path.join("sub"), UnmountFlags::DETACH).unwrap();
        rustix::mount::unmount(&path, UnmountFlags::DETACH).unwrap();
        ground::finish(runtime).await;
    });
}
