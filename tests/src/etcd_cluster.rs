//! A real etcd on loopback: as many members as a test wants, in a folder of its own, with client certificates if wanted.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use gantry_control::store::etcd::{Config, PREFIX};
use gantry_env::Env;
use gantry_pki::authority::Usage;
use gantry_pki::{Authority, Credential, PkiError, Profile, Reloading, tls};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

const HTTP_WITHIN: Duration = Duration::from_secs(2);
const FIGURES_MAX_BYTES: u64 = 4 << 20;

/// The programs to test against: the machine's own, and the newer one that `tests/install.sh tests` lays beside it.
pub fn programs() -> Vec<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    let newer = cache.map(|cache| cache.join("gantry-tests/etcd-3.5"));
    let mut found = vec![PathBuf::from("etcd")];
    found.extend(newer.filter(|path| path.exists()));
    found
}

/// The newest of them.
pub fn newest_program() -> PathBuf {
    programs().pop().unwrap_or_else(|| PathBuf::from("etcd"))
}

#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("etcd cannot be run; tests/install.sh tests installs it")]
    Run(#[from] io::Error),
    #[error("etcd's certificates cannot be made")]
    Pki(#[from] PkiError),
}

/// Files of a CA, of the members, and of a client.
#[derive(Clone, Debug)]
pub struct Files {
    pub ca: PathBuf,
    pub server: (PathBuf, PathBuf),
    pub client: (PathBuf, PathBuf),
}

struct Member {
    arguments: Vec<String>,
    child: Option<Child>,
    url: String,
    /// Where it tells its figures, whoever asks.
    metrics: SocketAddr,
}

/// Members that end with this.
pub struct EtcdCluster {
    program: PathBuf,
    members: Vec<Member>,
    files: Option<Files>,
}

impl EtcdCluster {
    /// Starts `count` members; with TLS, whoever comes has to show a certificate.
    pub fn start(folder: &Path, program: &Path, count: usize, with_tls: bool) -> Result<EtcdCluster, ClusterError> {
        let files = with_tls.then(|| write_files(folder)).transpose()?;
        let scheme = if with_tls { "https" } else { "http" };
        let mut held = Vec::new();
        let mut port = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
            let port = listener.local_addr()?.port();
            held.push(listener);
            Ok::<_, io::Error>(port)
        };
        let mut urls = Vec::new();
        for _ in 0..count {
            let metrics = SocketAddr::from(([127, 0, 0, 1], port()?));
            urls.push((format!("{scheme}://127.0.0.1:{}", port()?), format!("http://127.0.0.1:{}", port()?), metrics));
        }
        drop(held);
        let all: Vec<String> = urls.iter().enumerate().map(|(n, (_, peer, _))| format!("m{n}={peer}")).collect();
        let members = urls
            .iter()
            .enumerate()
            .map(|(n, (client, peer, metrics))| {
                let mut arguments = arguments(folder, n, client, peer, &all.join(","), files.as_ref());
                arguments.extend(["--listen-metrics-urls".to_owned(), format!("http://{metrics}")]);
                Member { arguments, child: None, url: client.clone(), metrics: *metrics }
            })
            .collect();
        let mut cluster = EtcdCluster { program: program.to_owned(), members, files };
        for number in 0..count {
            cluster.revive(number)?;
        }
        Ok(cluster)
    }

    pub fn urls(&self) -> Vec<String> {
        self.members.iter().map(|member| member.url.clone()).collect()
    }

    pub fn files(&self) -> Option<&Files> {
        self.files.as_ref()
    }

    /// How a store reaches it, under a prefix of its own.
    pub fn config(&self, prefix: &str) -> Result<Config, ClusterError> {
        let tls = match &self.files {
            None => None,
            Some(files) => {
                let credential = Credential {
                    certificate_pem: std::fs::read_to_string(&files.client.0)?,
                    key_pem: std::fs::read_to_string(&files.client.1)?,
                };
                let ca_pem = std::fs::read_to_string(&files.ca)?;
                let config = tls::client_config(&ca_pem, Some(&Reloading::new(&credential)?), &Env::system().clock)?;
                Some(Arc::new(config))
            }
        };
        Ok(Config { servers: self.urls(), prefix: format!("{PREFIX}{prefix}"), tls })
    }

    /// The member that leads, if one does.
    pub fn leader(&self) -> Option<usize> {
        let running = self.members.iter().enumerate().filter(|(_, member)| member.child.is_some());
        running
            .filter_map(|(n, member)| Some((n, figures(member.metrics).ok()?)))
            .find_map(|(n, figures)| figures.lines().any(|line| line == "etcd_server_is_leader 1").then_some(n))
    }

    /// Whether a member knows who leads, and has what that one has committed.
    pub fn is_well(&self, number: usize) -> bool {
        let read = |addr: SocketAddr| http_get(addr, "/health").is_ok_and(|text| text.contains(r#""health":"true""#));
        read(self.members[number].metrics)
    }

    /// kill -9.
    pub fn kill(&mut self, number: usize) -> io::Result<()> {
        if let Some(mut child) = self.members[number].child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Stops a member where it stands, or lets it go on.
    pub fn freeze(&self, number: usize, frozen: bool) -> io::Result<()> {
        let Some(child) = &self.members[number].child else { return Ok(()) };
        let signal = if frozen { Signal::SIGSTOP } else { Signal::SIGCONT };
        Ok(nix::sys::signal::kill(Pid::from_raw(child.id() as i32), signal)?)
    }

    /// Starts a member that was killed, with what its disk has.
    pub fn revive(&mut self, number: usize) -> io::Result<()> {
        let member = &mut self.members[number];
        let mut command = Command::new(&self.program);
        command.args(&member.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        member.child = Some(command.spawn()?);
        Ok(())
    }
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        for number in 0..self.members.len() {
            // One that has ended by itself is as good.
            let _ = self.kill(number);
        }
    }
}

fn figures(address: SocketAddr) -> io::Result<String> {
    http_get(address, "/metrics")
}

fn http_get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, HTTP_WITHIN)?;
    stream.set_read_timeout(Some(HTTP_WITHIN))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut text = String::new();
    stream.take(FIGURES_MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

fn arguments(folder: &Path, n: usize, client: &str, peer: &str, all: &str, files: Option<&Files>) -> Vec<String> {
    let data = folder.join(format!("m{n}")).display().to_string();
    let name = format!("m{n}");
    let mut arguments: Vec<String> = [
        ("--name", &*name),
        ("--data-dir", &*data),
        ("--listen-client-urls", client),
        ("--advertise-client-urls", client),
        ("--listen-peer-urls", peer),
        ("--initial-advertise-peer-urls", peer),
        ("--initial-cluster", all),
        ("--logger", "zap"),
        ("--log-outputs", "/dev/null"),
    ]
    .into_iter()
    .flat_map(|(name, value)| [name.to_owned(), value.to_owned()])
    .collect();
    if let Some(files) = files {
        let path = |path: &Path| path.display().to_string();
        arguments.push("--client-cert-auth".to_owned());
        arguments.extend(["--trusted-ca-file".to_owned(), path(&files.ca)]);
        arguments.extend(["--cert-file".to_owned(), path(&files.server.0)]);
        arguments.extend(["--key-file".to_owned(), path(&files.server.1)]);
    }
    arguments
}

fn write_files(folder: &Path) -> Result<Files, ClusterError> {
    let env = Env::system();
    let authority = Authority::create("etcd-ca", &env)?;
    let write = |name: &str, credential: &Credential| {
        let paths = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        std::fs::write(&paths.0, &credential.certificate_pem)?;
        std::fs::write(&paths.1, &credential.key_pem)?;
        Ok::<_, io::Error>(paths)
    };
    // etcd shows a member's certificate to itself, too.
    let server = Profile { usage: Usage::Both, ..Profile::server("etcd", ["127.0.0.1", "localhost"]) };
    let server = write("server", &authority.issue(&server, &env)?)?;
    let client = write("client", &authority.issue(&Profile::client("gantry", None), &env)?)?;
    let ca = folder.join("etcd-ca.crt");
    std::fs::write(&ca, authority.certificate_pem())?;
    Ok(Files { ca, server, client })
}
