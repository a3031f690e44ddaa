//! The whole way of an image: from a registry (a small one, which can be told to lie) or an archive to a mounted root.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tonic::Code;

use super::fixture::{Made, Tar, gzip, image};
use super::registry::RegistryError;
use super::*;

mod archives;
mod exports;
mod inward;
mod lies;
mod mirrors;
mod platforms;
mod proxied;
mod pulls;
mod server;

use server::{Reply, Server};

fn config(state: &Path) -> Config {
    Config {
        patience: Patience {
            connect: Duration::from_secs(2),
            answer: Duration::from_secs(2),
            idle: Duration::from_millis(500),
            pace_bytes: 1,
            attempts: 3,
            backoff_first: Duration::from_millis(1),
            backoff_max: Duration::from_millis(5),
        },
        ..Config::below(state)
    }
}

async fn open(state: &Path) -> Images {
    Images::open(config(state), Env::system()).await.unwrap()
}

/// Two layers: the upper one hides, replaces and adds.
fn two_layers() -> Vec<Vec<u8>> {
    let lower = Tar::default()
        .folder("etc/", 0o755)
        .file("etc/keep", b"lower")
        .file("etc/gone", b"lower")
        .folder("opq/", 0o755)
        .file("opq/old", b"lower")
        .end();
    let upper = Tar::default().file("etc/.wh.gone", b"").file("etc/new", b"upper").file("opq/.wh..wh..opq", b"").end();
    vec![lower, upper]
}

/// What a store has on disk, besides its fixed folders.
fn layers_on_disk(state: &Path) -> usize {
    fs::read_dir(state.join("snapshots")).unwrap().filter(|e| e.as_ref().unwrap().file_name().len() == 64).count()
}

fn ingests(state: &Path) -> usize {
    fs::read_dir(state.join("snapshots/ingest")).unwrap().count()
        + fs::read_dir(state.join("images/ingest")).unwrap().count()
}

/// This thread, and those that it starts, see mounts of their own from here on.
fn own_mounts() {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
}

async fn import(images: &Images, bytes: Vec<u8>) -> Result<Vec<Arc<Image>>, ImageError> {
    images.import(std::io::Cursor::new(bytes), ImportOptions::default()).await
}

#[tokio::test]
async fn a_container_sees_the_layers_joined() {
    own_mounts();
    let state = tempfile::tempdir().unwrap();
    let images = open(state.path()).await;
    let image = import(&images, image(&two_layers(), gzip).archive("localhost/a:1")).await.unwrap().remove(0);
    let rootfs = images.prepare("c1", &image, &[]).unwrap();
    assert_eq!(images.rootfs("c1").as_ref(), Some(&rootfs));
    rootfs.mount(&rootfs.merged).unwrap();
    let read = |name: &str| fs::read_to_string(rootfs.merged.join(name)).ok();
    assert_eq!(read("etc/keep").as_deref(), Some("lower"));
    assert_eq!(read("etc/new").as_deref(), Some("upper"));
    assert_eq!((read("etc/gone"), read("opq/old")), (None, None));
    fs::write(rootfs.merged.join("mine"), "x").unwrap();
    assert!(images.snapshot_usage("c1").await.unwrap().inodes >= 2);
    assert!(rootfs.upper.join("mine").exists());
    let error = images.prepare("c1", &image, &[]).unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists);
    images.remove_snapshot("c1").await.unwrap();
    images.remove_snapshot("c1").await.unwrap();
    assert!(!rootfs.upper.exists() && images.snapshots().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_empties_the_trash_keeps_nobody_from_opening_the_store_again() {
    let state = tempfile::tempdir().unwrap();
    let images = open(state.path()).await;
    let image = import(&images, image(&two_layers(), gzip).archive("localhost/a:1")).await.unwrap().remove(0);
    for _ in 0..50 {
        images.prepare("c1", &image, &[]).unwrap();
        images.remove_snapshot("c1").await.unwrap();
        assert_eq!(Arc::strong_count(&images.store), 1);
    }
}

#[tokio::test]
async fn many_layers_are_mounted() {
    own_mounts();
    let state = tempfile::tempdir().unwrap();
    let images = open(state.path()).await;
    let layers: Vec<Vec<u8>> =
        (0..manifest::LAYERS_MAX).map(|at| Tar::default().file(&format!("f{at}"), b"x").end()).collect();
    let image = import(&images, image(&layers, <[u8]>::to_vec).archive("localhost/a:1")).await.unwrap().remove(0);
    let rootfs = images.prepare(&"c".repeat(64), &image, &[]).unwrap();
    rootfs.mount(&rootfs.merged).unwrap();
    assert_eq!(fs::read_dir(&rootfs.merged).unwrap().count(), manifest::LAYERS_MAX);
    Rootfs::unmount(&rootfs.merged).unwrap();
    Rootfs::unmount(&rootfs.merged).unwrap();
}

#[tokio::test]
async fn an_image_without_layers_is_an_empty_root() {
    own_mounts();
    let state = tempfile::tempdir().unwrap();
    let images = open(state.path()).await;
    let image = import(&images, image(&[], gzip).archive("localhost/a:1")).await.unwrap().remove(0);
    let rootfs = images.prepare("c1", &image, &[]).unwrap();
    rootfs.mount(&rootfs.merged).unwrap();
    assert_eq!(fs::read_dir(&rootfs.merged).unwrap().count(), 0);
}

#[tokio::test]
async fn a_layer_in_use_outlives_its_image() {
    let state = tempfile::tempdir().unwrap();
    let images = open(state.path()).await;
    let made = image(&two_layers(), gzip);
    let kept = import(&images, made.archive("localhost/a:1")).await.unwrap().remove(0);
    images.prepare("c1", &kept, &[]).unwrap();
    assert!(images.remove(kept.id().as_str()).await.unwrap());
    assert!(!images.remove(kept.id().as_str()).await.unwrap());
    assert_eq!((images.list().len(), layers_on_disk(state.path())), (0, 2));
    // A restart forgets neither.
    drop(images);
    let images = open(state.path()).await;
    assert_eq!((images.snapshots(), layers_on_disk(state.path())), (vec!["c1".to_owned()], 2));
    assert!(images.rootfs("c1").unwrap().lower.iter().all(|layer| layer.is_dir()));
    images.remove_snapshot("c1").await.unwrap();
    assert_eq!(layers_on_disk(state.path()), 0);
}

#[tokio::test]
async fn layers_are_shared_between_images() {
    let state = tempfile::tempdir().unwrap();
    let images = open(state.path()).await;
    let layers = two_layers();
    let one = import(&images, image(&layers[..1], gzip).archive("localhost/a:1")).await.unwrap().remove(0);
    import(&images, image(&layers, gzip).archive("localhost/a:2")).await.unwrap();
    assert_eq!(layers_on_disk(state.path()), 2);
    assert!(images.remove("localhost/a:2").await.unwrap());
    assert_eq!(layers_on_disk(state.path()), 1);
    assert_eq!(images.resolve(&one.id().hex()[..20]).unwrap().repo_tags(), ["localhost/a:1"]);
    assert_eq!(images.resolve("localhost/a:1").unwrap().run().env, ["A=b"]);
    let info = images.fs_info().await.unwrap();
    assert!(info.images.inodes >= 5 && info.images.bytes > 10, "{info:?}");
}

/// Bytes and inodes, as du says of these.
fn du(paths: &[std::path::PathBuf]) -> Usage {
    let sum = |what: &str| {
        let said = std::process::Command::new("du").args(["-sc", what]).args(paths).output().unwrap().stdout;
        String::from_utf8(said).unwrap().lines().last().unwrap().split_whitespace().next().unwrap().parse().unwrap()
    };
    Usage { bytes: sum("-B1"), inodes: sum("--inodes") }
}

#[tokio::test]
async fn what_images_and_containers_take_is_what_du_says() {
    let state = tempfile::tempdir().unwrap();
    let images = open(state.path()).await;
    let mut lower = Tar::default().folder("many/", 0o755);
    for at in 0..500 {
        lower = lower.file(&format!("many/{at}"), &vec![7; at * 13]);
    }
    let hole: &[(&str, &[u8])] = &[("GNU.sparse.size", b"100000000"), ("GNU.sparse.map", b"5000000,1")];
    let lower = lower.hard_link("again", "many/499").pax(hole).file("hole", b"x").end();
    let upper = Tar::default()
        .file("many/.wh.1", b"")
        .hard_link("copied", "many/400")
        .file("twice", b"1")
        .file("twice", b"2")
        .end();
    let image = import(&images, image(&[lower, upper], gzip).archive("localhost/a:1")).await.unwrap().remove(0);
    let rootfs = images.prepare("c1", &image, &[]).unwrap();
    fs::write(rootfs.upper.join("written"), vec![7; 100_000]).unwrap();
    let info = images.fs_info().await.unwrap();
    let blobs = fs::read_dir(state.path().join("images/blobs/sha256")).unwrap().map(|e| e.unwrap().path());
    let layers = &images.store.snapshots;
    let folders = image.layers().iter().map(|chain| layers.layer_folder(chain));
    let kept = image.layers().iter().map(|chain| layers.blob(chain).unwrap().1);
    let stored: Vec<_> = folders.chain(kept).chain(blobs).collect();
    assert_eq!(info.images, du(&stored));
    assert_eq!(info.containers, du(std::slice::from_ref(&rootfs.upper)));
    assert_eq!(images.snapshot_usage("c1").await.unwrap(), info.containers);
}

#[tokio::test]
async fn a_start_removes_what_a_crash_left() {
    let state = tempfile::tempdir().unwrap();
    let images = open(state.path()).await;
    let kept = import(&images, image(&two_layers(), gzip).archive("localhost/a:1")).await.unwrap().remove(0);
    let lost_layer = Tar::default().file("lost", b"").end();
    let lost = import(&images, image(&[lost_layer], gzip).archive("localhost/b:1")).await.unwrap().remove(0);
    let error = Images::open(config(state.path()), Env::system()).await.err().unwrap();
    assert!(matches!(error, ImageError::Locked(_)), "a second writer: {error}");
    drop(images);
    let snapshots = state.path().join("snapshots");
    fs::create_dir_all(snapshots.join("ingest/half/fs/deep")).unwrap();
    fs::create_dir_all(state.path().join("images/ingest/half")).unwrap();
    fs::create_dir_all(snapshots.join(Digest::of(b"nobody's").hex()).join("fs")).unwrap();
    fs::create_dir_all(snapshots.join("c/torn/upper")).unwrap();
    fs::write(state.path().join("images/blobs/sha256").join(Digest::of(b"x").hex()), "x").unwrap();
    fs::remove_dir_all(snapshots.join(lost.layers()[0].hex())).unwrap();
    let images = open(state.path()).await;
    assert!(images.resolve("localhost/b:1").is_none(), "its layer is gone");
    assert_eq!(images.resolve("localhost/a:1").unwrap().id(), kept.id());
    assert_eq!((layers_on_disk(state.path()), ingests(state.path())), (2, 0));
    assert!(images.snapshots().is_empty());
    assert_eq!(fs::read_dir(state.path().join("images/blobs/sha256")).unwrap().count(), 2);
    assert_eq!(fs::read_dir(snapshots.join("l")).unwrap().count(), 2);
}

#[tokio::test]
async fn a_full_disk_fails_the_pull_and_nothing_else() {
    own_mounts();
    let state = tempfile::tempdir().unwrap();
    let mount = |options: &str, flags| {
        nix::mount::mount(Some("t"), state.path(), Some("tmpfs"), flags, Some(options)).unwrap();
    };
    mount("size=4m", nix::mount::MsFlags::empty());
    let images = open(state.path()).await;
    import(&images, image(&two_layers(), gzip).archive("localhost/small:1")).await.unwrap();
    let server = Server::start().await;
    let big = image(&[Tar::default().file("big", &vec![7; 6 << 20]).end()], gzip);
    server.add("big", "1", &big);
    let error = images.pull(&server.reference("big:1"), &Auth::Anonymous, None).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted, "{}", error.status().message());
    assert!(error.status().message().contains("No space left"), "{}", error.status().message());
    assert_eq!((ingests(state.path()), images.list().len()), (0, 1));
    let error =
        import(&images, image(&[Tar::default().file("big", &vec![7; 6 << 20]).end()], <[u8]>::to_vec).archive("b:1"))
            .await;
    assert_eq!(error.unwrap_err().code(), Code::ResourceExhausted);
    assert_eq!((ingests(state.path()), images.list().len()), (0, 1));
    // There is room for who needs less.
    let other = image(&[Tar::default().file("other", b"x").end()], gzip);
    server.add("other", "1", &other);
    images.pull(&server.reference("other:1"), &Auth::Anonymous, None).await.unwrap();
    // Space returns, and no restart is needed.
    mount("size=32m", nix::mount::MsFlags::MS_REMOUNT);
    images.pull(&server.reference("big:1"), &Auth::Anonymous, None).await.unwrap();
    assert!(images.resolve("localhost/small:1").is_some());
}

/// Cut anywhere, the record of images costs nothing: there is its copy. With both, it costs the images and not the runtime:
/// containers keep what they stand on.
#[tokio::test]
async fn a_damaged_record_is_set_aside() {
    let state = tempfile::tempdir().unwrap();
    let images = open(state.path()).await;
    let made = image(&two_layers(), gzip).archive("localhost/a:1");
    let kept = import(&images, made.clone()).await.unwrap().remove(0);
    images.prepare("c1", &kept, &[]).unwrap();
    drop(images);
    let paths = ["images.json", "images.copy.json"].map(|name| state.path().join("images").join(name));
    let whole = fs::read(&paths[0]).unwrap();
    for (path, cut) in paths.iter().flat_map(|path| (0..whole.len()).map(move |cut| (path, cut))) {
        fs::write(path, &whole[..cut]).unwrap();
        let images = open(state.path()).await;
        assert_eq!(images.list().len(), 1, "{path:?} cut at {cut}");
        assert_eq!(fs::read(path.with_extension("damaged")).unwrap(), whole[..cut]);
        assert!(paths.iter().all(|path| fs::read(path).unwrap() == whole), "{path:?} cut at {cut}: both are mended");
        drop(images);
    }
    // Taken away, be it by a kill between setting it aside and making it again.
    fs::remove_file(&paths[0]).unwrap();
    assert_eq!(open(state.path()).await.list().len(), 1);
    for cut in 0..whole.len() {
        paths.iter().for_each(|path| fs::write(path, &whole[..cut]).unwrap());
        let images = open(state.path()).await;
        assert_eq!(images.list().len(), 0, "cut at {cut}");
        assert!(images.rootfs("c1").is_some());
        drop(images);
    }
    let images = open(state.path()).await;
    assert_eq!(import(&images, made).await.unwrap().len(), 1);
}
