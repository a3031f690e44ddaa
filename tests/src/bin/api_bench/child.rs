//! Servers in processes of their own, so that what they cost is told apart from the load.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use gantry_tests::figures;

use crate::Failure;

/// A server that runs as a child and ends with this.
pub struct Server {
    child: Child,
    folder: PathBuf,
    pub address: SocketAddr,
    /// By which a service account of it is known, where it was asked for one.
    pub token: Option<String>,
}

impl Server {
    /// Starts this program again, as `role`; waits for the line that says where it listens.
    pub fn start(role: &[&str], folder: &Path) -> Result<Server, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--folder").arg(folder).args(role).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("a child has no output")?).read_line(&mut line)?;
        let address = line.trim().parse().map_err(|_| format!("the child {role:?} did not start"))?;
        Ok(Server { child, folder: folder.to_owned(), address, token: None })
    }

    pub fn cpu_millis(&self) -> f64 {
        figures::cpu_millis_of(self.child.id())
    }

    pub fn memory(&self) -> figures::Memory {
        figures::memory_of(self.child.id())
    }

    /// Where its keys are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Lets it end as a service manager would: what is still in memory reaches the disk.
    pub fn stop(mut self) -> Result<(), Failure> {
        drop(self.child.stdin.take());
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that was stopped has ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns when whoever started this process has closed its end, or is gone.
pub async fn until_told_to_stop() {
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    // Whatever is read, or fails to be: nobody is there any more.
    let _ = ended.await;
}
