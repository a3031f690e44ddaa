//! A registry of a few lines: it has what a test puts there, true or not.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use sha2::Digest;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{:x}", sha2::Sha256::digest(bytes))
}

pub fn part(kind: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()})
}

/// This machine's, as images name it.
pub fn architecture() -> &'static str {
    if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }
}

/// Paths below /v2/, with the media type and the bytes that are there.
#[derive(Default)]
pub struct Shelves(pub BTreeMap<String, (String, Vec<u8>)>);

impl Shelves {
    /// An image of these layers, by these tags of a repository. Its manifest is the answer.
    pub fn image(
        &mut self,
        repository: &str,
        tags: &[&str],
        architecture: &str,
        layers: &[Vec<u8>],
        run: &Value,
    ) -> Value {
        let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
        let config = json!({
            "architecture": architecture, "os": "linux", "config": run,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = config.to_string().into_bytes();
        let parts: Vec<Value> = layers.iter().map(|layer| part(LAYER, layer)).collect();
        let manifest =
            json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": part(CONFIG, &config), "layers": parts});
        for blob in layers.iter().chain([&config]) {
            self.blob(repository, &digest(blob), blob);
        }
        self.document(repository, tags, MANIFEST, &manifest);
        manifest
    }

    /// What is given for the blob of this digest.
    pub fn blob(&mut self, repository: &str, digest: &str, bytes: &[u8]) {
        let place = format!("{repository}/blobs/{digest}");
        self.0.insert(place, ("application/octet-stream".to_owned(), bytes.to_vec()));
    }

    /// A manifest or an index, by these tags and by its digest, which is the answer.
    pub fn document(&mut self, repository: &str, tags: &[&str], kind: &str, document: &Value) -> String {
        let bytes = document.to_string().into_bytes();
        let named = digest(&bytes);
        for name in tags.iter().copied().chain([named.as_str()]) {
            self.0.insert(format!("{repository}/manifests/{name}"), (kind.to_owned(), bytes.clone()));
        }
        named
    }

    /// Serves on loopback; the host's name is the answer.
    pub async fn serve(self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let shelves = Arc::new(self);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shelves = Arc::clone(&shelves);
                tokio::spawn(async move { shelves.answer(stream).await });
            }
        });
        host
    }

    /// One request a connection.
    async fn answer(&self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        let (mut first, mut line) = (String::new(), String::new());
        stream.read_line(&mut first).await.unwrap();
        while stream.read_line(&mut line).await.is_ok_and(|count| count > 2) {
            line.clear();
        }
        let mut words = first.split(' ');
        let (verb, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let found = path.strip_prefix("/v2/").and_then(|path| self.0.get(path));
        let (code, kind, bytes) = match found {
            Some((kind, bytes)) => ("200 OK", kind.as_str(), bytes.as_slice()),
            None if path == "/v2/" => ("200 OK", "application/json", b"{}".as_slice()),
            None => ("404 Not Found", "application/json", b"{\"errors\":[]}".as_slice()),
        };
        let head = format!(
            "HTTP/1.1 {code}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nDocker-Content-Digest: {}\r\nConnection: close\r\n\r\n",
            bytes.len(),
            digest(bytes)
        );
        let _ = stream.write_all(head.as_bytes()).await;
        if verb == "GET" {
            let _ = stream.write_all(bytes).await;
        }
        let _ = stream.flush().await;
    }
}
