//! A real registry: Debian's docker-registry on a loopback port of its own.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gantry_runtime::image::Digest;

const PROGRAM: &str = "/usr/bin/docker-registry";

/// Ends with its owner.
pub struct Registry {
    child: Child,
    config: PathBuf,
    storage: PathBuf,
    address: Ipv4Addr,
    port: u16,
}

impl Registry {
    /// Starts one over `folder` and waits until it answers; none where the program is not installed.
    pub async fn start(folder: &Path, auth: &str) -> Option<Registry> {
        Registry::serve(folder, Ipv4Addr::LOCALHOST, "", auth).await
    }

    /// The same over TLS, on another address: over loopback nobody asks for it.
    pub async fn start_tls(folder: &Path, address: Ipv4Addr, certificate: &Path, key: &Path) -> Option<Registry> {
        let tls = format!(", tls: {{certificate: {}, key: {}}}", certificate.display(), key.display());
        Registry::serve(folder, address, &tls, "").await
    }

    async fn serve(folder: &Path, address: Ipv4Addr, tls: &str, auth: &str) -> Option<Registry> {
        if !Path::new(PROGRAM).exists() {
            println!("skipped: {PROGRAM} is not installed");
            return None;
        }
        let port = std::net::TcpListener::bind((address, 0)).unwrap().local_addr().unwrap().port();
        let storage = folder.join("storage");
        std::fs::create_dir_all(&storage).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{address}:{port}\"{tls}}}\n{auth}",
            storage.display()
        );
        let path = folder.join("config.yml");
        std::fs::write(&path, config).unwrap();
        // From here on, whatever happens, the program is ended and waited for.
        let registry = Registry { child: program(&path), config: path, storage, address, port };
        registry.answers().await;
        Some(registry)
    }

    async fn answers(&self) {
        for _ in 0..200 {
            if tokio::net::TcpStream::connect((self.address, self.port)).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the registry does not answer on port {}", self.port);
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    /// Ends the program; what was pushed stays.
    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The same registry again, on the same port.
    pub async fn start_again(&mut self) {
        self.child = program(&self.config);
        self.answers().await;
    }

    /// Flips one bit of a blob where the registry keeps it: it goes on serving what the manifest does not promise.
    pub fn tamper(&self, blob: &Digest) {
        let hex = blob.hex();
        let path = self.storage.join(format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]));
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }

    pub fn name(&self, rest: &str) -> String {
        let host = if self.address.is_loopback() { "localhost".to_owned() } else { self.address.to_string() };
        format!("{host}:{}/{rest}", self.port)
    }
}

fn program(config: &Path) -> Child {
    Command::new(PROGRAM).arg("serve").arg(config).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}
