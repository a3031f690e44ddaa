//! containerd with folders and a socket of its own: `ctr run`, and the same CRI that ours serves. Everything of it, shims and
//! containers too, is in one cgroup, which tells what it has cost.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gantry_cri::RuntimeServiceClient;
use tokio::time::Instant;
use tonic::transport::Channel;

use super::{Cost, measured, millis};
use crate::image::Build;

/// Sandboxes and containers are made of it: it stays.
pub const IMAGE: &str = "gantry.local/peer:1";
/// The folder of its shims' sockets and of runc's state, which no configuration moves.
const ELSEWHERE: &str = "/run/containerd";
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Containerd {
    pub name: String,
    daemon: Child,
    folder: tempfile::TempDir,
    cgroup: Cgroup,
}

#[derive(Debug, thiserror::Error)]
pub enum ContainerdError {
    #[error("containerd cannot be started")]
    Start(#[from] io::Error),
    #[error("no image for containerd")]
    Image(#[from] crate::image::BuildError),
    #[error("containerd does not take the image within {PATIENCE:?}")]
    Silent,
}

impl Containerd {
    /// None where containerd is not installed.
    pub async fn start() -> Result<Option<Containerd>, ContainerdError> {
        let Ok(told) = Command::new("containerd").arg("--version").output() else { return Ok(None) };
        let version = String::from_utf8_lossy(&told.stdout).split_whitespace().nth(2).unwrap_or_default().to_owned();
        let folder = tempfile::tempdir()?;
        let cgroup = Cgroup::make()?;
        let config = folder.path().join("config.toml");
        std::fs::write(&config, configuration(folder.path()))?;
        std::fs::create_dir_all(ELSEWHERE)?;
        let mut command = Command::new("sh");
        // Its descendants start in the cgroup that it is in.
        let enter: String =
            cgroup.leaves("daemon").iter().map(|at| format!("echo 0 >{}/cgroup.procs; ", at.display())).collect();
        command.arg("-c").arg(format!("{enter} exec containerd --config {} --log-level error", config.display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let daemon = command.spawn()?;
        let containerd = Containerd { name: format!("containerd {version}"), daemon, folder, cgroup };
        containerd.import().await?;
        Ok(Some(containerd))
    }

    async fn import(&self) -> Result<(), ContainerdError> {
        let mut build = Build::busybox(Path::new("/bin/busybox"))?;
        build.cmd = ["/bin/busybox", "sleep", "1000"].map(str::to_owned).to_vec();
        let archive = self.folder.path().join("image.tar");
        std::fs::write(&archive, build.build().archive(IMAGE))?;
        let deadline = Instant::now() + PATIENCE;
        while measured(self.ctr(&["images", "import"]).arg(&archive)).is_none() {
            if Instant::now() > deadline {
                return Err(ContainerdError::Silent);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    fn ctr(&self, words: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.socket()).args(["--namespace", "k8s.io"]).args(words);
        command
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("containerd.sock")
    }

    pub fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(gantry_cri::connect::unix(&self.socket()))
    }

    /// One `ctr run` of `true`, removed when it has ended.
    pub fn run(&self) -> Option<Cost> {
        let cgroup = format!("/{}/container", self.cgroup.name);
        let mut command =
            self.ctr(&["run", "--rm", "--null-io", "--cgroup", &cgroup, IMAGE, "bench", "/bin/busybox", "true"]);
        let (start, before) = (Instant::now(), self.cpu());
        let client = measured(&mut command)?;
        Some(Cost { wall: millis(start.elapsed()), cpu: client.cpu + self.cpu() - before })
    }

    /// For pods that are to be counted.
    pub fn cgroup_parent(&self) -> String {
        format!("/{}/pods", self.cgroup.name)
    }

    /// Milliseconds of CPU of all of it so far.
    pub fn cpu(&self) -> f64 {
        self.cgroup.cpu()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        // Only what is empty goes: another containerd may be here.
        for folder in ["s", "runc/k8s.io", "runc", ""] {
            let _ = std::fs::remove_dir(Path::new(ELSEWHERE).join(folder));
        }
    }
}

/// Format 2 is read by containerd 1.5 and all that follow.
fn configuration(folder: &Path) -> String {
    let at = folder.display();
    let plugin = "plugins.\"io.containerd.grpc.v1.cri\"";
    format!(
        "version = 2\nroot = \"{at}/root\"\nstate = \"{at}/state\"\n\
         disabled_plugins = [\"io.containerd.snapshotter.v1.aufs\", \"io.containerd.snapshotter.v1.btrfs\", \
         \"io.containerd.snapshotter.v1.devmapper\", \"io.containerd.snapshotter.v1.zfs\"]\n\
         [grpc]\naddress = \"{at}/containerd.sock\"\n\
         [plugins.\"io.containerd.internal.v1.opt\"]\npath = \"{at}/opt\"\n\
         [{plugin}]\nsandbox_image = \"{IMAGE}\"\nstream_server_port = \"0\"\nrestrict_oom_score_adj = true\n\
         [{plugin}.cni]\nconf_dir = \"{at}/cni\"\n"
    )
}

/// A cgroup in each hierarchy of the host, gone with this.
#[derive(Debug)]
struct Cgroup {
    name: String,
    hierarchies: Vec<PathBuf>,
}

impl Cgroup {
    fn make() -> io::Result<Cgroup> {
        let root = Path::new("/sys/fs/cgroup");
        let hierarchies = match root.join("cgroup.procs").exists() {
            true => vec![root.to_owned()],
            false => ["cpuacct", "memory"].map(|controller| root.join(controller)).to_vec(),
        };
        let cgroup = Cgroup { name: format!("gantry-bench-{}-peer", std::process::id()), hierarchies };
        for leaf in cgroup.leaves("daemon") {
            std::fs::create_dir_all(leaf)?;
        }
        Ok(cgroup)
    }

    fn leaves(&self, leaf: &str) -> Vec<PathBuf> {
        self.hierarchies.iter().map(|hierarchy| hierarchy.join(&self.name).join(leaf)).collect()
    }

    fn cpu(&self) -> f64 {
        let read = |file: &str| std::fs::read_to_string(self.hierarchies[0].join(&self.name).join(file)).ok();
        if let Some(nanos) = read("cpuacct.usage").and_then(|text| text.trim().parse::<f64>().ok()) {
            return nanos / 1e6;
        }
        let stat = read("cpu.stat").unwrap_or_default();
        let micros = stat.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse::<f64>().ok());
        micros.unwrap_or(f64::NAN) / 1000.0
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The peers make theirs in every hierarchy that the host has.
        let below = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
        for hierarchy in below.chain([PathBuf::from("/sys/fs/cgroup")]) {
            remove(&hierarchy.join(&self.name));
        }
    }
}

fn remove(cgroup: &Path) {
    for entry in std::fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(cgroup);
}
