//! Makes small images out of what a host has: Debian's static busybox and a few files. The same input makes the same
//! bytes, so that an image's digests can stand in a test. Written as an OCI layout archive, or pushed to a registry.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::{fmt, io};

use bytes::Bytes;
use gantry_runtime::image::{Digest, Platform};
use http::header::{CONTENT_TYPE, LOCATION};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
const BLOCK_BYTES: usize = 512;

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("cannot read busybox at {path:?}")]
    Busybox {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("pushing to {url}")]
    Request {
        url: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("pushing to {url}: the registry answered {status}: {body}")]
    Answer { url: String, status: StatusCode, body: String },
    #[error("{0:?} is not a registry, a repository and a tag")]
    Target(String),
}

/// What an image holds and how it runs.
#[derive(Clone, Debug, Default)]
pub struct Build {
    nodes: BTreeMap<String, Node>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    pub user: String,
    pub working_dir: String,
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
enum Node {
    Folder { mode: u32 },
    File { mode: u32, data: Vec<u8> },
    Link(String),
}

/// An image's documents and its one layer.
#[derive(Clone, Debug)]
pub struct Built {
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    pub layer: Vec<u8>,
}

impl Build {
    /// Nothing but the folders that a container is given its mounts on.
    pub fn scratch() -> Build {
        let mut build = Build::default();
        for folder in ["dev", "etc", "proc", "root", "sys", "tmp", "var", "var/run"] {
            let mode = if folder == "tmp" { 0o1777 } else { 0o755 };
            build.nodes.insert(folder.to_owned(), Node::Folder { mode });
        }
        build
    }

    /// A busybox with all its applets as links, a root user and nobody, and a shell to run.
    pub fn busybox(program: &Path) -> Result<Build, BuildError> {
        let failed = |source| BuildError::Busybox { path: program.display().to_string(), source };
        let mut build = Build::scratch();
        build.file("bin/busybox", 0o755, std::fs::read(program).map_err(failed)?);
        let listed = Command::new(program).arg("--list-full").output().map_err(failed)?;
        for applet in String::from_utf8_lossy(&listed.stdout).lines().filter(|applet| *applet != "bin/busybox") {
            build.link(applet, "/bin/busybox");
        }
        build.file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n");
        build.file("etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n");
        build.env = vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
        build.cmd = vec!["sh".to_owned()];
        Ok(build)
    }

    /// Adds a file, and the folders above it.
    pub fn file(&mut self, path: &str, mode: u32, data: impl Into<Vec<u8>>) -> &mut Build {
        self.add(path, Node::File { mode, data: data.into() })
    }

    pub fn link(&mut self, path: &str, target: &str) -> &mut Build {
        self.add(path, Node::Link(target.to_owned()))
    }

    pub fn folder(&mut self, path: &str, mode: u32) -> &mut Build {
        self.add(path, Node::Folder { mode })
    }

    fn add(&mut self, path: &str, node: Node) -> &mut Build {
        let path = path.trim_matches('/');
        for (at, _) in path.match_indices('/') {
            self.nodes.entry(path[..at].to_owned()).or_insert(Node::Folder { mode: 0o755 });
        }
        self.nodes.insert(path.to_owned(), node);
        self
    }

    pub fn build(&self) -> Built {
        let layer = self.layer();
        let platform = Platform::host();
        let config = json!({
            "architecture": platform.architecture,
            "os": platform.os,
            "config": {
                "Env": self.env, "Entrypoint": self.entrypoint, "Cmd": self.cmd, "User": self.user,
                "WorkingDir": self.working_dir, "Labels": self.labels,
            },
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer)]},
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": descriptor(CONFIG_TYPE, &config),
            "layers": [descriptor(LAYER_TYPE, &layer)],
        });
        Built { manifest: manifest.to_string().into_bytes(), config, layer }
    }

    /// Folders come before what they hold: a path sorts before any that it begins.
    fn layer(&self) -> Vec<u8> {
        let mut tar = Tar::default();
        for (path, node) in &self.nodes {
            match node {
                Node::Folder { mode } => tar.add(path, b'5', *mode, "", &[]),
                Node::File { mode, data } => tar.add(path, b'0', *mode, "", data),
                Node::Link(target) => tar.add(path, b'2', 0o777, target, &[]),
            }
        }
        tar.finish()
    }
}

impl Built {
    /// The image's id.
    pub fn id(&self) -> Digest {
        Digest::of(&self.config)
    }

    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    pub fn layer_digest(&self) -> Digest {
        Digest::of(&self.layer)
    }

    /// An OCI image layout as one tar archive; `name` goes into the annotation that gives the image its tag.
    pub fn archive(&self, name: &str) -> Vec<u8> {
        let mut entry = descriptor(MANIFEST_TYPE, &self.manifest);
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry],
        });
        let mut tar = Tar::default();
        tar.add("oci-layout", b'0', 0o644, "", br#"{"imageLayoutVersion":"1.0.0"}"#);
        tar.add("index.json", b'0', 0o644, "", index.to_string().as_bytes());
        for folder in ["blobs", "blobs/sha256"] {
            tar.add(folder, b'5', 0o755, "", &[]);
        }
        for blob in [&self.manifest, &self.config, &self.layer] {
            tar.add(&format!("blobs/sha256/{}", Digest::of(blob).hex()), b'0', 0o644, "", blob);
        }
        tar.finish()
    }

    /// Pushes to `host:port/repository:tag` over plain HTTP, as to a registry on this machine.
    pub async fn push(&self, target: &str) -> Result<(), BuildError> {
        let wrong = || BuildError::Target(target.to_owned());
        let (name, tag) = target.rsplit_once(':').ok_or_else(wrong)?;
        let (host, repository) = name.split_once('/').ok_or_else(wrong)?;
        let registry = Registry { base: format!("http://{host}"), repository: repository.to_owned() };
        registry.blob(&self.layer).await?;
        registry.blob(&self.config).await?;
        registry.manifest(tag, &self.manifest).await
    }
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(content), "size": content.len()})
}

/// Enough of tar for names that fit into a header: owner root, time zero.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn add(&mut self, path: &str, kind: u8, mode: u32, link: &str, data: &[u8]) {
        let path = if kind == b'5' { format!("{path}/") } else { path.to_owned() };
        assert!(path.len() <= 100 && link.len() <= 100, "{path} is too long for a plain header");
        let mut header = [0_u8; BLOCK_BYTES];
        let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, &path);
        put(100, &format!("{mode:07o}"));
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{:011o}", data.len()));
        put(136, "00000000000");
        put(148, "        ");
        put(157, link);
        put(257, "ustar");
        put(263, "00");
        header[156] = kind;
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(BLOCK_BYTES), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * BLOCK_BYTES, 0);
        self.0
    }
}

struct Registry {
    base: String,
    repository: String,
}

impl Registry {
    async fn blob(&self, content: &[u8]) -> Result<(), BuildError> {
        let start = format!("{}/v2/{}/blobs/uploads/", self.base, self.repository);
        let location = self.send(Method::POST, &start, None, Bytes::new()).await?.unwrap_or_default();
        let location = if location.starts_with('/') { format!("{}{location}", self.base) } else { location };
        let separator = if location.contains('?') { '&' } else { '?' };
        let finish = format!("{location}{separator}digest={}", Digest::of(content));
        let body = Bytes::copy_from_slice(content);
        self.send(Method::PUT, &finish, Some("application/octet-stream"), body).await.map(drop)
    }

    async fn manifest(&self, tag: &str, content: &[u8]) -> Result<(), BuildError> {
        let url = format!("{}/v2/{}/manifests/{tag}", self.base, self.repository);
        self.send(Method::PUT, &url, Some(MANIFEST_TYPE), Bytes::copy_from_slice(content)).await.map(drop)
    }

    /// The answer's Location, if it has one.
    async fn send(
        &self,
        method: Method,
        url: &str,
        media_type: Option<&str>,
        body: Bytes,
    ) -> Result<Option<String>, BuildError> {
        fn failed<E: std::error::Error + Send + Sync + 'static>(url: &str) -> impl Fn(E) -> BuildError + '_ {
            |source| BuildError::Request { url: url.to_owned(), source: Box::new(source) }
        }
        let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let mut request = Request::builder().method(method).uri(url.parse::<Uri>().map_err(failed(url))?);
        if let Some(media_type) = media_type {
            request = request.header(CONTENT_TYPE, media_type);
        }
        let request = request.body(Full::new(body)).map_err(failed(url))?;
        let (answer, body) = client.request(request).await.map_err(failed(url))?.into_parts();
        let body = body.collect().await.map_err(failed(url))?.to_bytes();
        if !answer.status.is_success() {
            let body = String::from_utf8_lossy(&body).into_owned();
            return Err(BuildError::Answer { url: url.to_owned(), status: answer.status, body });
        }
        Ok(answer.headers.get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned))
    }
}

impl fmt::Display for Built {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (manifest {})", self.id(), self.digest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_input_makes_the_same_image() {
        let build = || {
            let mut build = Build::scratch();
            build.file("www/index.html", 0o644, "hello").link("bin/x", "/bin/y");
            build.cmd = vec!["x".into()];
            build.build()
        };
        assert_eq!(build().archive("a:b"), build().archive("a:b"));
        assert_eq!(build().layer.len() % BLOCK_BYTES, 0);
    }
}
