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

/// An archive of two images, one of them under two names.
async fn exported(folder: &Path, built: &Built) {
    let images = Images::open(Config::below(&folder.join("state")), Env::system()).await.unwrap();
    let mut other = Build::scratch();
    other.file("other", 0o644, "x");
    for (built, name) in [(built, "docker.io/library/demo:1"), (&other.build(), "registry.example:5000/deep/other:v2")]
    {
        images.import(std::io::Cursor::new(built.archive(name)), Default::default()).await.unwrap();
    }
    let names = ["demo:1".to_owned(), "registry.example:5000/deep/other:v2".to_owned()];
    let export = images.export(&names, None).await.unwrap();
    export.write(&mut std::fs::File::create(folder.join("out.tar")).unwrap()).unwrap();
}

/// What Gantry writes, another tool reads, as either kind of archive, by the names that went in, and finds the digests that
/// went in.
#[tokio::test]
async fn another_tool_reads_what_is_exported() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let built = busybox();
    exported(folder.path(), &built).await;
    let skopeo = |arguments: &[&str]| Command::new("skopeo").args(arguments).output();
    let Ok(listed) = skopeo(&["list-tags", &format!("docker-archive:{}", path("out.tar"))]) else {
        println!("skipped: skopeo is not installed");
        return;
    };
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("library/demo:1\"") && listed.contains("deep/other:v2\""), "{listed}");
    for kind in ["oci-archive", "docker-archive"] {
        let copy = |name: &str, options: &[&str]| {
            let (from, to) = (format!("{kind}:{}:{name}", path("out.tar")), format!("dir:{}", path(kind)));
            skopeo(&[&["copy", "-q", "--insecure-policy"], options, &[from.as_str(), to.as_str()]].concat()).unwrap()
        };
        // OCI's layouts have bare tags, docker's archives whole names.
        let (name, options) = match kind {
            "oci-archive" => ("1", &["--preserve-digests"][..]),
            _ => ("docker.io/library/demo:1", &[][..]),
        };
        let copied = copy(name, options);
        assert!(copied.status.success(), "{kind}: {}", String::from_utf8_lossy(&copied.stderr));
        let read = |name: &str| std::fs::read(folder.path().join(kind).join(name)).unwrap();
        assert_eq!(read(built.id().hex()), built.config, "{kind}");
        if kind == "oci-archive" {
            assert_eq!(read("manifest.json"), built.manifest);
        }
        // Its layers are whole: each was verified as it was copied.
        assert!(String::from_utf8(read("manifest.json")).unwrap().contains("\"layers\""));
        assert!(!copy("docker.io/library/none:1", &[]).status.success(), "{kind}: an image of another name");
    }
}

/// A containerd of this test's own, ended with it.
struct Containerd(std::process::Child, std::path::PathBuf);

impl Containerd {
    async fn start(folder: &Path) -> Option<Containerd> {
        std::fs::write(folder.join("config.toml"), "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n")
            .unwrap();
        let socket = folder.join("containerd.sock");
        let child = Command::new("containerd")
            .arg("--config")
            .arg(folder.join("config.toml"))
            .arg("--root")
            .arg(folder.join("root"))
            .arg("--state")
            .arg(folder.join("run"))
            .arg("--address")
            .arg(&socket)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn();
        let containerd = Containerd(child.ok()?, socket);
        for _ in 0..400 {
            if containerd.ctr(&["version"]).is_ok() {
                return Some(containerd);
            }
            tokio::time::sleep(std::time::Duration::from_millis(25)).await;
        }
        panic!("containerd does not answer");
    }

    fn ctr(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new("ctr").arg("--address").arg(&self.1).args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// containerd takes and unpacks it, under the names and digests that went in, and gives back what Gantry takes.
#[tokio::test]
async fn containerd_reads_what_is_exported() {
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: not root");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let built = busybox();
    exported(folder.path(), &built).await;
    let Some(containerd) = Containerd::start(folder.path()).await else {
        return println!("skipped: containerd is not installed");
    };
    containerd.ctr(&["images", "import", "--snapshotter", "native", &path("out.tar")]).unwrap();
    let listed = containerd.ctr(&["images", "list"]).unwrap();
    let line = |name: &str| listed.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{listed}"));
    assert!(line("docker.io/library/demo:1 ").contains(built.digest().as_str()), "{listed}");
    let platform = gantry_runtime::image::Platform::host();
    assert!(line("registry.example:5000/deep/other:v2 ").contains(&platform.architecture), "{listed}");
    containerd.ctr(&["images", "export", &path("back.tar"), "docker.io/library/demo:1"]).unwrap();
    let images = Images::open(Config::below(&folder.path().join("again")), Env::system()).await.unwrap();
    let back = images.import(std::fs::File::open(path("back.tar")).unwrap(), Default::default()).await.unwrap();
    assert_eq!((back[0].id(), back[0].repo_tags()), (&built.id(), &["docker.io/library/demo:1".to_owned()][..]));
}
