//! A real registry: Debian's docker-registry on a loopback port of its own.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PROGRAM: &str = "/usr/bin/docker-registry";

/// Ends with its owner.
pub struct Registry {
    child: Child,
    port: u16,
}

impl Registry {
    /// Starts one over `folder` and waits until it answers; none where the program is not installed.
    pub async fn start(folder: &Path, auth: &str) -> Option<Registry> {
        if !Path::new(PROGRAM).exists() {
            println!("skipped: {PROGRAM} is not installed");
            return None;
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let storage = folder.join("storage");
        std::fs::create_dir_all(&storage).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n{auth}",
            storage.display()
        );
        let path = folder.join("config.yml");
        std::fs::write(&path, config).unwrap();
        let child =
            Command::new(PROGRAM).arg("serve").arg(&path).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // From here on, whatever happens, the program is ended and waited for.
        let registry = Registry { child, port };
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return Some(registry);
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the registry does not answer on port {port}");
    }

    pub fn name(&self, rest: &str) -> String {
        format!("localhost:{}/{rest}", self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
