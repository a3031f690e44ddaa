//! What a service manager is told: datagrams to the socket that `NOTIFY_SOCKET` names, as sd_notify(3) describes them. Where
//! none is named, everything here does nothing. Supervisors are started with an empty environment: none of it reaches them.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram as Plain};
use std::time::Duration;

use gantry_env::chain;
use tokio::net::UnixDatagram;
use tokio::time::MissedTickBehavior;
use tracing::warn;

use crate::Failure;
use crate::control::terminated;

/// A manager that reads nothing is not waited for.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);
/// Looks in the time after which the manager takes silence for death: one or two bad ones are not the end.
const LOOKS: u32 = 4;

#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    #[error("NOTIFY_SOCKET {0:?} is neither a path nor an abstract name")]
    Name(OsString),
    #[error("the service manager's socket {name:?} cannot be reached")]
    Connect {
        name: OsString,
        #[source]
        source: io::Error,
    },
}

/// The service manager that started this process, if one did.
#[derive(Debug, Default)]
pub struct Manager {
    socket: Option<UnixDatagram>,
    /// How long a silence the manager bears.
    patience: Option<Duration>,
}

impl Manager {
    /// By the environment. Call it where tokio runs.
    pub fn from_env() -> Result<Manager, NotifyError> {
        let var = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let text = |name: &str| var(name)?.into_string().ok();
        let patience = patience(text("WATCHDOG_USEC").as_deref(), text("WATCHDOG_PID").as_deref(), std::process::id());
        match var("NOTIFY_SOCKET") {
            Some(name) => Ok(Manager { socket: Some(connect(&name)?), patience }),
            None => Ok(Manager::default()),
        }
    }

    /// The role does its work from now on, as `words` say to who asks for its status.
    pub async fn ready(&self, words: &str) {
        self.tell(&format!("READY=1\nSTATUS={}", words.replace('\n', " "))).await;
    }

    /// Resolves when the process is asked to end, which the manager is told. Until then it is told again and again that all is
    /// well, as long as a look says so in time: it ends a process that falls silent.
    pub async fn until_terminated(&self, look: impl AsyncFn() -> Result<(), Failure>) -> io::Result<()> {
        tokio::select! {
            biased;
            // Nothing is lost with a look that is dropped.
            asked = terminated() => asked?,
            () = self.keep_alive(look) => {}
        }
        self.tell("STOPPING=1").await;
        Ok(())
    }

    /// Never resolves.
    async fn keep_alive(&self, look: impl AsyncFn() -> Result<(), Failure>) {
        let Some(every) = self.patience.map(|patience| patience / LOOKS) else { return std::future::pending().await };
        let mut turns = tokio::time::interval(every);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            match tokio::time::timeout(every, look()).await {
                Ok(Ok(())) => self.tell("WATCHDOG=1").await,
                Ok(Err(error)) => {
                    warn!(error = %chain(error.as_ref()), "not well, and the service manager is not told so")
                }
                Err(_) => warn!(after = ?every, "no answer from within, and the service manager is not told of health"),
            }
        }
    }

    async fn tell(&self, words: &str) {
        let Some(socket) = &self.socket else { return };
        let told = tokio::time::timeout(SEND_TIMEOUT, socket.send(words.as_bytes())).await;
        if let Err(error) = told.unwrap_or_else(|late| Err(late.into())) {
            warn!(%error, words, "the service manager was not told");
        }
    }
}

/// None where there is no watchdog, or it watches somebody else: the environment is inherited.
fn patience(usec: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    let for_us = pid.is_none_or(|pid| pid.parse() == Ok(own));
    let patience = Duration::from_micros(usec?.parse().ok()?);
    (for_us && !patience.is_zero()).then_some(patience)
}

fn connect(name: &OsStr) -> Result<UnixDatagram, NotifyError> {
    let address = match name.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(name),
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest),
        _ => return Err(NotifyError::Name(name.to_owned())),
    };
    let connected = || {
        let socket = Plain::unbound()?;
        socket.connect_addr(&address?)?;
        socket.set_nonblocking(true)?;
        UnixDatagram::from_std(socket)
    };
    connected().map_err(|source| NotifyError::Connect { name: name.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    async fn heard(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).await.unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    fn manager(name: &OsStr, patience: Duration) -> Manager {
        Manager { socket: Some(connect(name).unwrap()), patience: Some(patience) }
    }

    #[tokio::test]
    async fn a_socket_is_found_by_its_path_and_by_its_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let at_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("gantry-notify-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let abstract_one = Plain::bind_addr(&address).unwrap();
        abstract_one.set_nonblocking(true).unwrap();
        let abstract_one = UnixDatagram::from_std(abstract_one).unwrap();
        let name = OsString::from(format!("@{name}"));
        for (socket, name) in [(&at_path, path.as_os_str()), (&abstract_one, &name)] {
            let manager = manager(name, Duration::from_secs(1));
            manager.ready("node a\nis ready").await;
            assert_eq!(heard(socket).await, "READY=1\nSTATUS=node a is ready");
        }
        assert!(matches!(connect(OsStr::new("vsock:2:1")), Err(NotifyError::Name(_))));
        assert!(matches!(connect(folder.path().join("none").as_os_str()), Err(NotifyError::Connect { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_well_falls_silent_until_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let manager = manager(path.as_os_str(), Duration::from_secs(40));
        let (well, stuck) = (AtomicBool::new(true), AtomicBool::new(false));
        let look = async || {
            if stuck.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            if well.load(Ordering::Relaxed) { Ok(()) } else { Err(Failure::from("ill")) }
        };
        let count = async |seconds| {
            let time = Duration::from_secs(seconds);
            let _ = tokio::time::timeout(time, manager.keep_alive(look)).await;
            let mut bytes = [0; 64];
            let mut count = 0;
            while let Ok(length) = socket.try_recv(&mut bytes) {
                assert_eq!(&bytes[..length], b"WATCHDOG=1");
                count += 1;
            }
            count
        };
        assert_eq!(count(39).await, 4);
        well.store(false, Ordering::Relaxed);
        assert_eq!(count(100).await, 0);
        well.store(true, Ordering::Relaxed);
        stuck.store(true, Ordering::Relaxed);
        assert_eq!(count(100).await, 0);
        stuck.store(false, Ordering::Relaxed);
        assert_eq!(count(5).await, 1);
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_ours() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(patience(Some("1000000"), None, 7), second);
        assert_eq!(patience(Some("1000000"), Some("7"), 7), second);
        assert_eq!(patience(Some("1000000"), Some("8"), 7), None);
        for bad in [None, Some("0"), Some("-1"), Some("soon")] {
            assert_eq!(patience(bad, None, 7), None);
        }
    }
}
