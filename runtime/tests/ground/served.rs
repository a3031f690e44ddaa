//! The runtime as a process of its own, which can be killed.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gantry_runtime::Runtime;

use super::{Client, Ground};

pub struct Served(Child);

const SERVE: &str = "GANTRY_TEST_SERVE";

/// What a test program must call in an ignored test of the name `serve`: it serves in the process that [`Served::start`] makes.
pub fn serve() {
    let Ok(text) = std::env::var(SERVE) else { return };
    let [dir, tag, log_max_bytes] = text.split('|').collect::<Vec<_>>()[..] else { panic!("{text}") };
    let mut config = super::config(Path::new(dir), tag);
    config.log_limits.max_bytes = log_max_bytes.parse().expect("a number");
    config.log_limits.max_files = 100;
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio");
    tokio.block_on(async {
        let runtime = Runtime::start(config, gantry_env::Env::system()).await.expect("it starts");
        // Once is enough, and takes longer than the start.
        if runtime.images().resolve(super::IMAGE).is_none() {
            super::import(&runtime).await;
        }
        std::fs::write(Path::new(dir).join("ready"), "").expect("it can say so");
        std::future::pending::<()>().await;
    });
}

/// Where it reads whether it is to end, and where (see `gantry_base::fault`).
pub fn order(ground: &Ground) -> PathBuf {
    ground.dir.path().join("order")
}

/// What the last one said.
fn said(ground: &Ground) -> PathBuf {
    ground.dir.path().join("served.log")
}

impl Served {
    pub async fn start(ground: &Ground) -> (Served, Client) {
        match Served::try_start(ground).await {
            (served, true) => (served, client(ground)),
            _ => {
                let said = std::fs::read_to_string(said(ground)).unwrap_or_default();
                panic!("the runtime ends before it serves: {said}")
            }
        }
    }

    /// And whether it has come to serve before it ended.
    pub async fn try_start(ground: &Ground) -> (Served, bool) {
        let tag = ground.config.cgroup_parent.strip_prefix("/gantry-test-").expect("our name").to_owned();
        let ready = ground.dir.path().join("ready");
        let _ = std::fs::remove_file(&ready);
        #[allow(clippy::zombie_processes, reason = "whoever drops it waits for it")]
        let child = Command::new(std::env::current_exe().expect("a path"))
            .args(["--exact", "serve", "--ignored", "--nocapture"])
            .env(SERVE, format!("{}|{tag}|{}", ground.dir.path().display(), ground.config.log_limits.max_bytes))
            .env(gantry_base::fault::ORDER, order(ground))
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(said(ground)).expect("a file"))
            .spawn()
            .expect("a process");
        let mut served = Served(child);
        for _ in 0..3000 * super::patience() {
            if ready.exists() {
                return (served, true);
            }
            if served.has_ended() {
                return (served, false);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the runtime does not start");
    }

    pub fn kill(self) {
        drop(self);
    }

    pub fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }

    /// Whether it was killed, rather than ended by itself; waits for its end.
    pub fn was_killed(mut self) -> bool {
        self.0.wait().expect("it ends").signal() == Some(9)
    }

    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("it is ours").is_some()
    }
}

/// Of a test that fails, too.
impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn client(ground: &Ground) -> Client {
    Client::new(gantry_cri::connect::unix(ground.config.socket.as_ref().expect("a socket")))
}

/// Whether it runs, and does not merely wait to be reaped.
pub fn lives(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
