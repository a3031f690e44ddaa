//! Host ports at 127.0.0.1. No rule can lead there: what comes from a loopback address leaves by no other interface, unless
//! route_localnet says so, and that lets neighbours in where it is (CVE-2020-8558). So the runtime listens there itself, and
//! passes on what it hears to the pod: TCP alone, as long as it serves, and to so many at once.
//!
//! A client is accepted before the pod has been asked. One that the pod refuses is reset.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::{HostPort, Protocol};

/// Ports of all sandboxes together.
const LISTENERS_MAX: usize = 1024;
/// Clients of one port; who comes after them waits in the kernel's queue.
const CLIENTS_MAX: usize = 256;
const READ_BYTES: usize = 16 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection on which nothing moves for so long is given up, as a stream is.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4 * 3600);
/// Out of descriptors, most likely: others must end first.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// The listeners of this node, by sandbox.
#[derive(Debug, Default)]
pub struct Loopback(Mutex<BTreeMap<String, Vec<Listening>>>);

/// Ends with its connections when it is dropped.
#[derive(Debug)]
struct Listening(JoinHandle<()>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Where on loopback a host port is expected, if it is: one that names another address of the node is not.
fn place(port: &HostPort) -> Option<SocketAddrV4> {
    let ip = match port.host_ip {
        None => Ipv4Addr::LOCALHOST,
        Some(ip) if ip.is_loopback() => ip,
        Some(_) => return None,
    };
    (port.protocol == Protocol::Tcp).then_some(SocketAddrV4::new(ip, port.host_port))
}

impl Loopback {
    /// Listens for a sandbox whose address this is. A port that a process of the host has is left to it, which is said: the
    /// pod has it at every other address all the same. Must be called where tokio is.
    pub fn open(&self, sandbox: &str, ip: Ipv4Addr, ports: &[HostPort]) {
        let mut all = self.0.lock();
        let mut count = all.values().map(Vec::len).sum::<usize>();
        for port in ports {
            let Some(at) = place(port) else { continue };
            let listener = if count < LISTENERS_MAX {
                listen(at)
            } else {
                Err(io::Error::other(format!("{LISTENERS_MAX} ports are served there already")))
            };
            match listener {
                Ok(listener) => {
                    let task = tokio::spawn(serve(listener, SocketAddrV4::new(ip, port.container_port)));
                    all.entry(sandbox.to_owned()).or_default().push(Listening(task));
                    count += 1;
                }
                Err(error) => tracing::warn!(sandbox, %at, %error, "host port not served at this address"),
            }
        }
    }

    /// Closes a sandbox's ports, and waits until they are free.
    pub async fn close(&self, sandbox: &str) {
        let listening = self.0.lock().remove(sandbox).unwrap_or_default();
        ended(listening).await;
    }

    pub async fn close_all(&self) {
        let listening = std::mem::take(&mut *self.0.lock());
        ended(listening.into_values().flatten().collect()).await;
    }
}

async fn ended(listening: Vec<Listening>) {
    for mut one in listening {
        one.0.abort();
        let _ = (&mut one.0).await;
    }
}

fn listen(at: SocketAddrV4) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(at)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

async fn serve(listener: TcpListener, pod: SocketAddrV4) {
    let mut clients = JoinSet::new();
    loop {
        while clients.try_join_next().is_some() {}
        if clients.len() >= CLIENTS_MAX {
            clients.join_next().await;
            continue;
        }
        match listener.accept().await {
            Ok((client, _)) => {
                clients.spawn(relay(client, pod));
            }
            Err(error) => {
                tracing::warn!(%pod, %error, "connection to a host port not accepted");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

async fn relay(mut client: TcpStream, pod: SocketAddrV4) {
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(pod)).await;
    let Ok(Ok(mut pod)) = connected else {
        // What the client would have heard of the pod itself.
        let _ = client.set_zero_linger();
        return;
    };
    for stream in [&client, &pod] {
        let _ = stream.set_nodelay(true);
    }
    let ended = copy(&mut client, &mut pod).await;
    if ended.is_err() {
        for stream in [&client, &pod] {
            let _ = stream.set_zero_linger();
        }
    }
}

/// Both ways until both have ended, or one has failed, or nothing has moved for too long.
async fn copy(client: &mut TcpStream, pod: &mut TcpStream) -> io::Result<()> {
    let moved = Mutex::new(Instant::now());
    let ((from_client, to_client), (from_pod, to_pod)) = (client.split(), pod.split());
    let both = async { tokio::try_join!(pump(from_client, to_pod, &moved), pump(from_pod, to_client, &moved)) };
    tokio::select! {
        biased;
        // Dropped, it takes nothing with it: its connections are about to be reset.
        done = both => done.map(drop),
        () = idle(&moved) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, moved: &Mutex<Instant>) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        *moved.lock() = Instant::now();
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..count]).await?;
    }
}

async fn idle(moved: &Mutex<Instant>) {
    loop {
        let until = *moved.lock() + IDLE_TIMEOUT;
        if until <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests;
