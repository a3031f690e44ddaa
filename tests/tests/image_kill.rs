//! kill -9 in the middle of imports and removals: whatever image is listed afterwards is whole, and nothing else stays.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use gantry_env::Env;
use gantry_runtime::image::{Config, Images};
use gantry_tests::image::{Build, Built};

/// Set in the process that is killed: the folder it works on.
const CHILD: &str = "GANTRY_TEST_IMAGE_KILL_STATE";
const NAMES: [&str; 3] = ["localhost/a:1", "localhost/b:1", "localhost/c:1"];
const KILLS: u64 = 10;
const FILES: usize = 40;

fn built(name: &str) -> Built {
    let mut build = Build::scratch();
    for at in 0..FILES {
        build.file(&format!("data/{at}"), 0o644, name.repeat(2000));
    }
    build.build()
}

#[tokio::test]
async fn a_kill_leaves_whole_images() {
    if let Some(state) = std::env::var_os(CHILD) {
        return churn(Path::new(&state)).await;
    }
    let state = tempfile::tempdir().unwrap();
    let mut listed = 0;
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_kill_leaves_whole_images", "--nocapture"])
            .env(CHILD, state.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        tokio::time::sleep(Duration::from_millis(40 + kill * 37)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        listed += check(state.path()).await;
    }
    assert!(listed > 0, "no import ever came to its end: the test shows nothing");
}

/// Imports and removes until it is killed.
async fn churn(state: &Path) {
    let images = Images::open(Config::below(state), Env::system()).await.unwrap();
    loop {
        for name in NAMES {
            let archive = std::io::Cursor::new(built(name).archive(name));
            images.import(archive, Default::default()).await.unwrap();
        }
        images.remove(NAMES[0]).await.unwrap();
    }
}

/// The number of images that are there.
async fn check(state: &Path) -> usize {
    let images = Images::open(Config::below(state), Env::system()).await.unwrap();
    let mut chains = BTreeSet::new();
    for image in images.list() {
        chains.extend(image.layers().iter().map(|chain| chain.hex().to_owned()));
        let name = image.repo_tags()[0].clone();
        let rootfs = images.prepare("check", &image, &[]).unwrap();
        for at in 0..FILES {
            let path = rootfs.lower[0].join(format!("data/{at}"));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), name.repeat(2000), "{path:?} of {name}");
        }
        images.remove_snapshot("check").await.unwrap();
    }
    let names = |folder: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(state.join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let layers: BTreeSet<String> = names("snapshots").into_iter().filter(|name| name.len() == 64).collect();
    assert_eq!(layers, chains, "layers on disk and layers of images");
    assert!(names("snapshots/ingest").is_empty() && names("images/ingest").is_empty());
    assert_eq!(names("images/blobs/sha256").len(), 2 * images.list().len());
    images.list().len()
}
