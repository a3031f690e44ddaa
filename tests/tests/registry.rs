//! Images through a real registry.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use gantry_env::Env;
use gantry_pki::{Authority, Profile};
use gantry_runtime::image::{Auth, Config, Images};
use gantry_tests::image::{Build, Built};
use gantry_tests::registry::Registry;
use nix::sched::{CloneFlags, unshare};

const BUSYBOX: &str = "/bin/busybox";
/// bcrypt of `secret`.
const HTPASSWD: &str = "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

fn busybox() -> Built {
    let mut build = Build::busybox(Path::new(BUSYBOX)).unwrap();
    build.file("www/index.html", 0o644, "hello");
    build.build()
}

#[tokio::test]
async fn pulls_from_a_real_registry() {
    let folder = tempfile::tempdir().unwrap();
    let Some(registry) = Registry::start(folder.path(), "").await else { return };
    let built = busybox();
    built.push(&registry.name("demo/busybox:1")).await.unwrap();
    let images = Images::open(Config::below(&folder.path().join("state")), Env::system()).await.unwrap();
    let by_tag = images.pull(&registry.name("demo/busybox:1"), &Auth::Anonymous, None).await.unwrap();
    assert_eq!(by_tag.id(), &built.id());
    assert_eq!(by_tag.run().cmd, ["sh"]);
    let name = registry.name(&format!("demo/busybox@{}", built.digest()));
    assert_eq!(images.pull(&name, &Auth::Anonymous, None).await.unwrap().id(), &built.id());
    assert_eq!(by_tag.repo_digests(), [name]);
    let rootfs = images.prepare("c1", &by_tag, &[]).unwrap();
    assert_eq!(std::fs::read_link(rootfs.lower[0].join("bin/sh")).unwrap(), Path::new("/bin/busybox"));
    assert_eq!(std::fs::read(rootfs.lower[0].join("bin/busybox")).unwrap(), std::fs::read(BUSYBOX).unwrap());

    let missing = images.pull(&registry.name("demo/busybox:2"), &Auth::Anonymous, None).await.unwrap_err().status();
    assert_eq!(missing.code() as i32, 5, "{missing}");
    assert!(missing.message().contains("manifest unknown"), "{missing}");
    let other = format!("{}@sha256:{}", registry.name("demo/busybox"), "0".repeat(64));
    let wrong = images.pull(&other, &Auth::Anonymous, None).await.unwrap_err().status();
    assert!(wrong.message().contains("manifest unknown"), "{wrong}");
}

#[tokio::test]
async fn credentials_open_a_real_registry() {
    let folder = tempfile::tempdir().unwrap();
    let built = busybox();
    match Registry::start(folder.path(), "").await {
        Some(open) => built.push(&open.name("private:1")).await.unwrap(),
        None => return,
    }
    std::fs::write(folder.path().join("htpasswd"), HTPASSWD).unwrap();
    let auth = format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", folder.path().join("htpasswd").display());
    let Some(registry) = Registry::start(folder.path(), &auth).await else { return };
    let images = Images::open(Config::below(&folder.path().join("state")), Env::system()).await.unwrap();
    let with = |password: &str| Auth::Basic { username: "me".into(), password: password.into() };
    for refused in [Auth::Anonymous, with("wrong")] {
        let error = images.pull(&registry.name("private:1"), &refused, None).await.unwrap_err().status();
        assert!(
            error.message().contains("unauthorized") && error.message().contains("authentication required"),
            "{error}"
        );
        assert!(!error.message().contains("wrong"), "{error}");
    }
    let pulled = images.pull(&registry.name("private:1"), &with("secret"), None).await.unwrap();
    assert_eq!(pulled.id(), &built.id());
}

/// Loopback is plain text by custom, so the registry gets an address of its own, in a network namespace of its own.
#[test]
fn tls_needs_a_certificate_that_is_trusted() {
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: not root");
    }
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    for arguments in [&["link", "set", "lo", "up"][..], &["addr", "add", &format!("{ADDRESS}/32"), "dev", "lo"]] {
        assert!(Command::new("ip").args(arguments).status().unwrap().success());
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let built = busybox();
        match Registry::start(folder.path(), "").await {
            Some(plain) => built.push(&plain.name("demo:1")).await.unwrap(),
            None => return,
        }
        let authority = Authority::create("registries", &Env::system()).unwrap();
        let serving = authority.issue(&Profile::server("registry", [ADDRESS.to_string()]), &Env::system()).unwrap();
        std::fs::write(path("ca.pem"), authority.certificate_pem()).unwrap();
        std::fs::write(path("cert.pem"), serving.certificate_pem).unwrap();
        std::fs::write(path("key.pem"), serving.key_pem).unwrap();
        let tls = Registry::start_tls(folder.path(), ADDRESS, &path("cert.pem"), &path("key.pem")).await.unwrap();
        let pull = async |state: &str, config: &dyn Fn(&mut Config)| {
            let mut settings = Config::below(&path(state));
            config(&mut settings);
            let images = Images::open(settings, Env::system()).await.unwrap();
            images.pull(&tls.name("demo:1"), &Auth::Anonymous, None).await
        };

        let error = pull("strange", &|_| ()).await.unwrap_err().status();
        assert!(error.message().contains("UnknownIssuer"), "{error}");
        let pulled = pull("trusted", &|config| config.ca_files = vec![path("ca.pem")]).await.unwrap();
        assert_eq!(pulled.id(), &built.id());
        let error = pull("missing", &|config| config.ca_files = vec![path("nowhere.pem")]).await.unwrap_err().status();
        assert!(error.message().contains("nowhere.pem"), "{error}");
    });
}

#[tokio::test]
async fn the_demo_archive_is_imported() {
    let state = tempfile::tempdir().unwrap();
    let images = Images::open(Config::below(state.path()), Env::system()).await.unwrap();
    let built = busybox();
    let archive = std::io::Cursor::new(built.archive("docker.io/library/demo:latest"));
    let imported = images.import(archive, Default::default()).await.unwrap();
    assert_eq!(imported[0].id(), &built.id());
    assert_eq!(images.resolve("demo").unwrap().repo_tags(), ["docker.io/library/demo:latest"]);
}

/// What another tool makes of an image, in each of the archives that it can write, is the same image.
#[tokio::test]
async fn archives_of_another_tool_are_imported() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let built = busybox();
    std::fs::write(path("own.tar"), built.archive("docker.io/library/own:1")).unwrap();
    let images = Images::open(Config::below(&folder.path().join("state")), Env::system()).await.unwrap();
    for (kind, name) in [("oci-archive", "again:v1"), ("docker-archive", "again:v2")] {
        let (from, to) = (format!("oci-archive:{}", path("own.tar")), format!("{kind}:{}:{name}", path(kind)));
        let copied = Command::new("skopeo").args(["copy", "-q", "--insecure-policy", &from, &to]).status();
        let Ok(status) = copied else {
            println!("skipped: skopeo is not installed");
            return;
        };
        assert!(status.success(), "skopeo copy to {to}");
        let archive = std::fs::File::open(path(kind)).unwrap();
        let imported = images.import(archive, Default::default()).await.unwrap();
        assert_eq!(imported[0].run().cmd, ["sh"]);
        assert!(images.resolve(name).is_some(), "{kind}: {:?}", imported[0].repo_tags());
        // The layer is the same, however it was stored.
        assert_eq!(images.resolve(name).unwrap().layers(), imported[0].layers());
    }
}

/// What Gantry writes, another tool reads, as either kind of archive, and finds the digests that went in.
#[tokio::test]
async fn another_tool_reads_what_is_exported() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let built = busybox();
    let images = Images::open(Config::below(&folder.path().join("state")), Env::system()).await.unwrap();
    let archive = std::io::Cursor::new(built.archive("docker.io/library/demo:1"));
    images.import(archive, Default::default()).await.unwrap();
    let export = images.export(&["demo:1".to_owned()]).await.unwrap();
    export.write(&mut std::fs::File::create(path("out.tar")).unwrap()).unwrap();
    for kind in ["oci-archive", "docker-archive"] {
        let inspected = Command::new("skopeo")
            .args(["inspect", "--raw", "--config", &format!("{kind}:{}", path("out.tar"))])
            .output();
        let Ok(inspected) = inspected else {
            println!("skipped: skopeo is not installed");
            return;
        };
        assert!(inspected.status.success(), "{kind}: {}", String::from_utf8_lossy(&inspected.stderr));
        assert_eq!(gantry_runtime::image::Digest::of(&inspected.stdout), built.id(), "{kind}");
    }
    let to = format!("dir:{}", path("dir"));
    let from = format!("oci-archive:{}", path("out.tar"));
    let copied =
        Command::new("skopeo").args(["copy", "-q", "--insecure-policy", "--preserve-digests", &from, &to]).status();
    assert!(copied.unwrap().success());
    assert_eq!(std::fs::read(folder.path().join("dir/manifest.json")).unwrap(), built.manifest);
}
