//! `image_bench`: a pull and its unpacking beside `ctr image pull`, from one registry in the same run. See tests/bench/README.md.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::Parser;
use gantry_env::Env;
use gantry_runtime::image::unpack::remove_tree;
use gantry_runtime::image::{Auth, Config, Digest, Images};
use gantry_tests::figures::line;
use gantry_tests::registry::Registry;
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};
use tokio::time::Instant;

const LARGE_LAYERS: usize = 5;
const LARGE_LAYER_BYTES: usize = 40 << 20;
const SMALL_FILE_BYTES: usize = 1 << 10;
const CONTAINERD: &str = "containerd";

/// A pull and its unpacking beside `ctr image pull`
#[derive(Parser)]
struct Cli {
    /// Where registry and stores are made, on a file system that overlayfs can stand on
    #[arg(long, default_value = "/var/tmp")]
    folder: PathBuf,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Do not keep layers as they came
    #[arg(long)]
    discard: bool,
    /// How many files the second image has
    #[arg(long, default_value_t = 100_000)]
    files: usize,
    /// The second image alone
    #[arg(long)]
    files_only: bool,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let cli = Cli::parse();
    let folder = tempfile::Builder::new().prefix("gantry-image-bench-").tempdir_in(&cli.folder)?;
    let Some(registry) = Registry::start(folder.path(), "").await else { return Ok(()) };
    if !cli.files_only {
        let large = registry.name("large:1");
        push(folder.path(), &large, &(0..LARGE_LAYERS).map(large_layer).collect::<Vec<_>>())?;
        bench(folder.path(), &large, "5 layers of 40 MiB", &cli).await?;
    }
    let small = registry.name("small:1");
    push(folder.path(), &small, &[small_layer(cli.files)])?;
    bench(folder.path(), &small, &format!("one layer of {} files", cli.files), &cli).await
}

async fn bench(folder: &Path, reference: &str, what: &str, cli: &Cli) -> Result<(), Failure> {
    let (mut ours, mut own_cpu, mut theirs, mut their_cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut disk, mut removals) = (0, Vec::new());
    for round in 0..cli.rounds {
        let pulled = pull(&folder.join(format!("gantry{round}")), reference, cli.discard).await?;
        ours.push(pulled.wall);
        own_cpu.push(pulled.cpu);
        removals.push(pulled.removal);
        disk = pulled.bytes;
        if let Some((wall, cpu)) =
            Containerd::start(&folder.join(format!("containerd{round}")))?.map(|c| c.pull(reference))
        {
            theirs.push(wall);
            their_cpu.push(cpu);
        }
    }
    println!("{:<44} {:>12.0} MiB", format!("{what}: disk"), disk as f64 / 1_048_576.0);
    line(&format!("{what}: removal"), removals, "ms");
    let (wall, cpu) = (line(&format!("{what}: pull"), ours, "ms"), line(&format!("{what}: CPU"), own_cpu, "ms"));
    if theirs.is_empty() {
        println!("peer: {CONTAINERD} is not installed");
        return Ok(());
    }
    let peer = (line("peer: ctr image pull", theirs, "ms"), line("peer: CPU of containerd and ctr", their_cpu, "ms"));
    println!("{:<44} {:>12.2} x that, CPU {:.2} x", "ours is", wall / peer.0, cpu / peer.1);
    Ok(())
}

/// Milliseconds, of CPU too, and bytes on disk.
struct Pulled {
    wall: f64,
    cpu: f64,
    bytes: u64,
    removal: f64,
}

/// A pull by a store of its own, and the removal of the image until nothing of it is on the disk.
async fn pull(state: &Path, reference: &str, discard: bool) -> Result<Pulled, Failure> {
    let images = Images::open(Config { keeps_blobs: !discard, ..Config::below(state) }, Env::system()).await?;
    let (begin, before) = (Instant::now(), cpu(UsageWho::RUSAGE_SELF));
    images.pull(reference, &Auth::Anonymous, None).await?;
    let (wall, cpu) = (millis(begin), cpu(UsageWho::RUSAGE_SELF) - before);
    let bytes = images.fs_info().await?.images.bytes;
    let begin = Instant::now();
    images.remove(reference).await?;
    let trash = Config::below(state).snapshots.join("trash");
    while std::fs::read_dir(&trash)?.next().is_some() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let removal = millis(begin);
    drop(images);
    std::fs::remove_dir_all(state)?;
    Ok(Pulled { wall, cpu, bytes, removal })
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

fn cpu(who: UsageWho) -> f64 {
    getrusage(who).map_or(0.0, |usage| {
        let times = [usage.user_time(), usage.system_time()];
        times.iter().map(|time| time.tv_sec() as f64 * 1000.0 + time.tv_usec() as f64 / 1000.0).sum()
    })
}

/// A daemon of the benchmark's own, with all that it writes below one folder.
struct Containerd {
    child: Child,
    folder: PathBuf,
}

impl Containerd {
    /// None where it is not installed.
    fn start(folder: &Path) -> Result<Option<Containerd>, Failure> {
        std::fs::create_dir_all(folder)?;
        let at = |name: &str| folder.join(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n[debug]\nlevel = \"error\"\n",
            at("root"),
            at("state"),
            at("sock"),
            at("ttrpc"),
        );
        std::fs::write(folder.join("config.toml"), config)?;
        let mut command = Command::new(CONTAINERD);
        command.arg("--config").arg(folder.join("config.toml")).stdout(Stdio::null()).stderr(Stdio::null());
        let child = match command.spawn() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            child => child?,
        };
        let containerd = Containerd { child, folder: folder.to_owned() };
        for _ in 0..400 {
            if containerd.ctr(&["version"]) {
                return Ok(Some(containerd));
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        Err("containerd does not answer".into())
    }

    fn ctr(&self, arguments: &[&str]) -> bool {
        let mut command = Command::new("ctr");
        command
            .arg("--address")
            .arg(self.folder.join("sock"))
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    /// Milliseconds, and those of CPU: of the client, and of the daemon until it has ended.
    fn pull(mut self, reference: &str) -> (f64, f64) {
        let before = cpu(UsageWho::RUSAGE_CHILDREN);
        let begin = Instant::now();
        let pulled = self.ctr(&["images", "pull", "--plain-http", reference]);
        let wall = millis(begin);
        assert!(pulled, "ctr cannot pull {reference}");
        self.end();
        (wall, cpu(UsageWho::RUSAGE_CHILDREN) - before)
    }

    fn end(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(0));
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.end();
        // Its files are as many as ours, and a disk that waits for the end of each would wait for minutes.
        if let (Some(parent), Some(name)) = (self.folder.parent(), self.folder.file_name())
            && let Ok(parent) = std::fs::File::open(parent)
        {
            let _ = remove_tree(&parent, name.as_bytes());
        }
    }
}

// ---- images -----------------------------------------------------------------------------------------------------

/// Half of it is noise, half of it repeats, as programs do.
fn large_layer(at: usize) -> Vec<u8> {
    let mut noise = Noise(at as u64 + 1);
    let mut data = Vec::with_capacity(LARGE_LAYER_BYTES);
    while data.len() < LARGE_LAYER_BYTES {
        for _ in 0..256 {
            data.extend_from_slice(&noise.next().to_le_bytes());
        }
        data.extend_from_slice(&[at as u8; 2048]);
    }
    let mut tar = Vec::new();
    for (n, piece) in data.chunks(4 << 20).enumerate() {
        entry(&mut tar, &format!("layer{at}/file{n}"), piece);
    }
    ended(tar)
}

fn small_layer(files: usize) -> Vec<u8> {
    let mut noise = Noise(7);
    let mut tar = Vec::new();
    for n in 0..files {
        let mut data = vec![b'a'; SMALL_FILE_BYTES / 2];
        while data.len() < SMALL_FILE_BYTES {
            data.extend_from_slice(&noise.next().to_le_bytes());
        }
        entry(&mut tar, &format!("d{}/e{}/file{n}", n % 100, n / 100 % 10), &data);
    }
    ended(tar)
}

/// The same numbers in every run (xorshift).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn entry(tar: &mut Vec<u8>, name: &str, data: &[u8]) {
    let mut header = [0_u8; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{:011o}", data.len()));
    put(136, "00000000000");
    put(148, "        ");
    put(257, "ustar\x0000");
    header[156] = b'0';
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.extend_from_slice(&header);
    tar.extend_from_slice(data);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

fn ended(mut tar: Vec<u8>) -> Vec<u8> {
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// By skopeo, from a layout on disk; it compresses the layers by gzip.
fn push(folder: &Path, target: &str, plain: &[Vec<u8>]) -> Result<(), Failure> {
    let layout = folder.join("layout");
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs)?;
    let put = |media_type: &str, bytes: &[u8]| -> Result<Value, Failure> {
        let digest = Digest::of(bytes);
        std::fs::write(blobs.join(digest.hex()), bytes)?;
        Ok(
            json!({"mediaType": format!("application/vnd.oci.image.{media_type}"), "digest": digest, "size": bytes.len()}),
        )
    };
    let mut layers = Vec::new();
    for layer in plain {
        layers.push(put("layer.v1.tar", layer)?);
    }
    let diff_ids: Vec<Digest> = plain.iter().map(|layer| Digest::of(layer)).collect();
    let platform = gantry_runtime::image::Platform::host();
    let config = json!({"os": "linux", "architecture": platform.architecture, "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = put("config.v1+json", config.to_string().as_bytes())?;
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers});
    let mut manifest = put("manifest.v1+json", manifest.to_string().as_bytes())?;
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "1"});
    std::fs::write(layout.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    std::fs::write(layout.join("index.json"), json!({"schemaVersion": 2, "manifests": [manifest]}).to_string())?;
    let copied = Command::new("skopeo")
        .args(["copy", "-q", "--insecure-policy", "--dest-tls-verify=false"])
        .args([format!("oci:{}:1", layout.display()), format!("docker://{target}")])
        .status()?;
    std::fs::remove_dir_all(&layout)?;
    if copied.success() { Ok(()) } else { Err("skopeo cannot push".into()) }
}
