//! Logs on a disk that fills up.

mod ground;

use std::path::Path;
use std::time::Duration;

use ground::{Ground, with};

const COUNTS: &str = "trap 'echo last; exit 42' TERM; i=0; while :; do echo $i; i=$((i+1)); done";

fn mount(at: &Path, options: &std::ffi::CStr) {
    std::fs::create_dir_all(at).unwrap();
    rustix::mount::mount("tmpfs", at, "tmpfs", rustix::mount::MountFlags::empty(), Some(options)).unwrap();
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} does not come about");
}

fn is_full(folder: &Path) -> bool {
    rustix::fs::statvfs(folder).unwrap().f_bavail == 0
}

/// Every line is a record, and those of the container count upwards.
fn assert_records(ground: &Ground) {
    let mut last = None;
    for line in ground.log("counts.log").lines() {
        let fields: Vec<&str> = line.splitn(4, ' ').collect();
        match fields.as_slice() {
            [_, "stdout", "F", "last"] => {}
            [_, "stdout", "F", number] => {
                let number: u64 = number.parse().unwrap_or_else(|_| panic!("no number: {line:?}"));
                assert!(last.is_none_or(|last| last < number), "{line:?} after {last:?}");
                last = Some(number);
            }
            [_, "stderr", "F", note] => assert!(note.contains("could not be written"), "{line:?}"),
            _ => panic!("no record: {line:?}"),
        }
    }
}

#[test]
fn a_full_disk_costs_lines_and_nothing_else() {
    with(|ground| async move {
        let folder = ground.dir.path().join("logs");
        mount(&folder, c"size=256k");
        let (runtime, client) = ground.start().await;
        let config = ground.pod("counts");
        let pod = client.run_pod(&config).await;
        let id = client.create(&pod, ground.container("counts", &["sh", "-c", COUNTS]), &config).await.unwrap();
        client.start(&id).await.unwrap();
        until("a full disk", || is_full(&folder)).await;
        // It runs, and so does what else the supervisor does.
        assert_eq!(client.exec(&id, &["echo", "alive"]).await.stdout, b"alive\n");

        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount_remount(&folder, flags, c"size=64m").unwrap();
        until("the log to go on", || ground.log("counts.log").contains("could not be written")).await;
        client.stop(&id, 30).await;
        assert_eq!(client.status(&id).await.exit_code, 42);
        assert_eq!(ground.lines("counts.log").last().map(String::as_str), Some("last"));
        assert_records(&ground);
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
        rustix::mount::unmount(&folder, rustix::mount::UnmountFlags::DETACH).unwrap();
    });
}
