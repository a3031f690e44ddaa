//! Archives and images for tests, honest and hostile ones.

use std::os::fd::OwnedFd;

use serde_json::{Value, json};

use super::digest::Digest;
use super::disk::open_folder;

pub const BLOCK: usize = 512;

/// A tar archive, built header by header.
#[derive(Clone, Default)]
pub struct Tar(pub Vec<u8>);

impl Tar {
    pub fn file(self, path: &str, data: &[u8]) -> Tar {
        self.entry(b'0', path, "", 0o644, data)
    }

    pub fn folder(self, path: &str, mode: u32) -> Tar {
        self.entry(b'5', path, "", mode, b"")
    }

    pub fn symlink(self, path: &str, target: &str) -> Tar {
        self.entry(b'2', path, target, 0o777, b"")
    }

    pub fn hard_link(self, path: &str, target: &str) -> Tar {
        self.entry(b'1', path, target, 0o644, b"")
    }

    pub fn entry(self, kind: u8, path: &str, link: &str, mode: u32, data: &[u8]) -> Tar {
        let header = header(kind, path, link, mode, data.len() as u64);
        self.raw(&header).data(data)
    }

    pub fn device(mut self, kind: u8, path: &str, major: u32, minor: u32) -> Tar {
        let mut header = header(kind, path, "", 0o600, 0);
        header[329..336].copy_from_slice(format!("{major:07o}").as_bytes());
        header[337..344].copy_from_slice(format!("{minor:07o}").as_bytes());
        seal(&mut header);
        self.0.extend_from_slice(&header);
        self
    }

    /// An extended header for the next entry.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Tar {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.entry(b'x', "PaxHeaders/x", "", 0o644, &body)
    }

    pub fn raw(mut self, bytes: &[u8]) -> Tar {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn data(mut self, data: &[u8]) -> Tar {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        self
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * BLOCK, 0);
        self.0
    }
}

pub fn header(kind: u8, path: &str, link: &str, mode: u32, size: u64) -> [u8; BLOCK] {
    let mut header = [0_u8; BLOCK];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    put(0, path.as_bytes());
    put(100, format!("{mode:07o}").as_bytes());
    put(108, b"0000000");
    put(116, b"0000000");
    put(124, format!("{size:011o}").as_bytes());
    put(136, b"00000000000");
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    header[156] = kind;
    seal(&mut header);
    header
}

/// Sets the checksum.
pub fn seal(header: &mut [u8; BLOCK]) {
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// A folder to unpack into, and one for what is replaced.
pub struct Ground {
    pub all: tempfile::TempDir,
    pub folder: OwnedFd,
    pub aside: OwnedFd,
}

impl Ground {
    pub fn new() -> Ground {
        let all = tempfile::tempdir().unwrap();
        for name in ["fs", "aside"] {
            std::fs::create_dir(all.path().join(name)).unwrap();
        }
        let open = |name: &str| open_folder(&all.path().join(name)).unwrap();
        let (folder, aside) = (open("fs"), open("aside"));
        Ground { all, folder, aside }
    }

    pub fn path(&self) -> std::path::PathBuf {
        self.all.path().join("fs")
    }
}

/// An image as a registry holds it.
#[derive(Clone)]
pub struct Made {
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    /// As stored.
    pub layers: Vec<Vec<u8>>,
}

pub fn gzip(plain: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// An image of these plain layers, stored as `store` makes them.
pub fn image(layers: &[Vec<u8>], store: impl Fn(&[u8]) -> Vec<u8>) -> Made {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Cmd": ["sh"], "Env": ["A=b"], "User": "1:2"},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
    .to_string()
    .into_bytes();
    let layers: Vec<Vec<u8>> = layers.iter().map(|layer| store(layer)).collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": layers.iter().map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", layer)).collect::<Vec<_>>(),
    });
    Made { manifest: manifest.to_string().into_bytes(), config, layers }
}

pub fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(content), "size": content.len()})
}

impl Made {
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    pub fn id(&self) -> Digest {
        Digest::of(&self.config)
    }

    /// As an OCI layout.
    pub fn archive(&self, name: &str) -> Vec<u8> {
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &self.manifest);
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
        let mut tar = Tar::default().file("oci-layout", b"{}").file("index.json", index.as_bytes());
        for blob in [&self.manifest, &self.config].into_iter().chain(&self.layers) {
            tar = tar.file(&format!("blobs/sha256/{}", Digest::of(blob).hex()), blob);
        }
        tar.end()
    }

    /// As `docker save` wrote it: the description last, layers under folders, shared ones as links.
    pub fn docker_archive(&self, tag: &str) -> Vec<u8> {
        let mut tar = Tar::default();
        let mut names = Vec::new();
        for (at, layer) in self.layers.iter().enumerate() {
            tar = tar.file(&format!("real{at}/layer.tar"), layer);
            tar = tar.symlink(&format!("link{at}/layer.tar"), &format!("../real{at}/layer.tar"));
            names.push(format!("link{at}/layer.tar"));
        }
        let config = format!("{}.json", self.id().hex());
        let manifest = json!([{"Config": config, "RepoTags": [tag], "Layers": names}]).to_string();
        tar.file(&config, &self.config).file("manifest.json", manifest.as_bytes()).end()
    }
}
