//! The agent rotates the logs of containers that a real runtime runs. Needs what the runtime's own tests need.

#[path = "../../runtime/tests/ground/mod.rs"]
mod ground;

use std::fs::File;
use std::io::read_to_string;
use std::path::Path;

use gantry_agent::logs::{self, Limits, Rotation};
use gantry_agent::runtime::Runtime;
use gantry_cri::v1;
use gantry_env::Env;
use ground::{Client, with};

const COUNTS: &str = "trap 'echo last; exit 42' TERM; i=0; while :; do echo $i; i=$((i+1)); done";
const LIMITS: Limits = Limits { max_bytes: 64 << 10, max_files: 1000 };

/// The parts of a log, oldest first, then the log itself.
fn files(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut parts: Vec<String> = names.filter(|n| n.starts_with("counts.log.")).collect();
    parts.sort();
    parts.push("counts.log".to_owned());
    parts
}

fn text(path: &Path) -> String {
    let file = File::open(path).unwrap();
    if path.extension().is_some_and(|e| e == "gz") {
        return read_to_string(flate2::read::GzDecoder::new(file)).unwrap();
    }
    read_to_string(file).unwrap()
}

/// Opens a log anew until the container has ended, as if a second rotation were at work.
async fn keep_reopening(client: Client, container_id: String) {
    let request = v1::ReopenContainerLogRequest { container_id };
    while client.runtime.clone().reopen_container_log(request.clone()).await.is_ok() {}
}

#[test]
fn a_busy_log_is_rotated_and_no_line_is_lost_or_doubled() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let folder = ground.dir.path().join("logs");
        let config = ground.pod("counts");
        let pod = client.run_pod(&config).await;
        let counts = ground.container("counts", &["sh", "-c", COUNTS]);
        let id = client.create(&pod, counts, &config).await.unwrap();
        client.start(&id).await.unwrap();
        let reopening = tokio::spawn(keep_reopening(client.clone(), id.clone()));

        let mut second = 1_767_323_045;
        while files(&folder).len() < 8 {
            // Each round a second later, which is as fine as the names of parts are.
            second += 1;
            let env = Env::simulated(jiff::Timestamp::new(second, 0).unwrap(), 1);
            let runtime = Runtime::new(runtime.channel());
            Rotation { runtime, log_dir: folder.clone(), limits: LIMITS, env }.round().await;
        }
        client.stop(&id, 30).await;
        reopening.await.unwrap();
        assert_eq!(client.status(&id).await.exit_code, 42);

        let files = files(&folder);
        let compressed = files.iter().filter(|n| n.ends_with(".gz")).count();
        assert_eq!(compressed, files.len() - 2, "all but the log and its newest part: {files:?}");
        let all: String = files.iter().map(|name| text(&folder.join(name))).collect();
        let mut lines = all.lines().map(|l| l.splitn(4, ' ').nth(3).unwrap_or_else(|| panic!("no record: {l:?}")));
        assert_eq!(lines.next_back(), Some("last"));
        for (i, line) in lines.enumerate() {
            assert_eq!(line, i.to_string());
        }
        client.remove_pod(&pod).await;
        logs::remove(&folder, "counts.log");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        ground::finish(runtime).await;
    });
}

#[test]
fn a_rotation_that_was_cut_short_is_taken_up_by_the_next() {
    with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let folder = ground.dir.path().join("logs");
        let config = ground.pod("counts");
        let pod = client.run_pod(&config).await;
        let counts = ground.container("counts", &["sh", "-c", "echo one; read x; echo two; read x"]);
        let id = client.create(&pod, v1::ContainerConfig { stdin: true, ..counts }, &config).await.unwrap();
        client.start(&id).await.unwrap();
        while ground.lines("counts.log") != ["one"] {
            tokio::task::yield_now().await;
        }
        // Killed between renaming and opening anew.
        std::fs::rename(folder.join("counts.log"), folder.join("counts.log.20260102-030405")).unwrap();
        let rotation = Rotation {
            runtime: Runtime::new(runtime.channel()),
            log_dir: folder.clone(),
            limits: LIMITS,
            env: Env::system(),
        };
        rotation.round().await;
        assert_eq!(ground.log("counts.log"), "", "the log is there again");
        assert_eq!(files(&folder).len(), 2);
        client.stop(&id, 0).await;
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}
