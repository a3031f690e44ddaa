//! A further process in a running container.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use gantry_base::codec::{Appended, Wire};
use gantry_base::launch::Launch;
use gantry_base::limits::LAUNCH_MAX_BYTES;
use gantry_base::{Id, frame, layout};
use tokio::sync::oneshot;

use super::{Node, NodeError, Turn};
use crate::records::{ContainerRecord, ContainerState};

/// What the process gets as its standard streams.
pub enum Streams {
    Terminal,
    Pipes { stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd },
}

/// A process that has reached its program.
#[derive(Debug)]
pub struct Process {
    pidfd: OwnedFd,
    pub terminal: Option<OwnedFd>,
    pub exit: oneshot::Receiver<i32>,
}

impl Process {
    /// The command and what it has started, unless that left its group. It may have ended on its own, which is what was
    /// wanted.
    pub fn kill_all(&self) {
        kill_all(self.pidfd.as_fd());
    }

    /// Another descriptor of the same process.
    pub fn duplicate(&self) -> Option<OwnedFd> {
        self.pidfd.try_clone().ok()
    }
}

/// As [`Process::kill_all`], by a descriptor of the process.
pub fn kill_all(process: BorrowedFd<'_>) {
    if crate::sys::kill_group(process).is_err() {
        let _ = rustix::process::pidfd_send_signal(process, rustix::process::Signal::KILL);
    }
}

impl Node {
    /// The turn to start a command, to be waited for before anything is made for it.
    pub async fn turn(&self, container: &str) -> Result<Turn, NodeError> {
        let turns = self.pods.lock().containers.get(container).map(|c| Arc::clone(&c.turns));
        turns.ok_or_else(|| NodeError::NoContainer(container.to_owned()))?.wait(container).await
    }

    pub async fn exec(
        &self,
        _turn: Turn,
        record: &ContainerRecord,
        command: &[String],
        streams: Streams,
    ) -> Result<Process, NodeError> {
        if command.is_empty() {
            return Err(NodeError::Missing("command"));
        }
        if record.state() != ContainerState::Running {
            return Err(NodeError::WrongState {
                id: record.id.clone(),
                state: record.state().in_words(),
                wanted: "running",
            });
        }
        let container = Id::parse(&record.id)?;
        let tty = matches!(streams, Streams::Terminal);
        let mut launch = self.read_launch(record)?;
        launch.process.args = command.to_vec();
        launch.volumes = Vec::new();
        launch.images = Appended::default();
        launch.before_start = Vec::new();
        launch.refined = Appended::default();
        launch.start_hooks = Appended::default();
        if tty && !launch.process.env.iter().any(|e| e.starts_with("TERM=")) {
            launch.process.env.push("TERM=xterm".to_owned());
        }
        let mut fds = vec![memfd(&launch)?];
        if let Streams::Pipes { stdin, stdout, stderr } = streams {
            fds.extend([stdin, stdout, stderr]);
        }
        let exec = Id::parse(&self.new_id())?;
        let link = self.link(&record.sandbox).await?;
        let (fds, exit) = link.exec(container, exec, tty, fds).await?;
        let mut fds = fds.into_iter();
        let pidfd = fds.next().ok_or(NodeError::NoSupervisor)?;
        Ok(Process { pidfd, terminal: fds.next(), exit })
    }

    pub fn read_launch(&self, record: &ContainerRecord) -> Result<Launch, NodeError> {
        let path = self.records.bundle(&record.sandbox, &Id::parse(&record.id)?).join(layout::LAUNCH);
        let bytes = std::fs::read(&path).map_err(|source| NodeError::Io { what: "read", path, source })?;
        Ok(frame::decode(&bytes)?)
    }
}

/// A sealed copy of a value in memory.
fn memfd(launch: &Launch) -> Result<OwnedFd, NodeError> {
    let bytes = encode(launch)?;
    let failed = |source| NodeError::Io { what: "write", path: "memfd".into(), source };
    let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create("launch", flags).map_err(|e| failed(e.into()))?;
    let mut file = std::fs::File::from(fd);
    file.write_all(&bytes).map_err(failed)?;
    std::io::Seek::rewind(&mut file).map_err(failed)?;
    let seals = rustix::fs::SealFlags::SEAL | rustix::fs::SealFlags::WRITE | rustix::fs::SealFlags::GROW;
    rustix::fs::fcntl_add_seals(&file, seals).map_err(|e| failed(e.into()))?;
    Ok(file.into())
}

/// A launch file's bytes, refused when nobody would read them.
pub fn encode<T: Wire>(value: &T) -> Result<Vec<u8>, NodeError> {
    let bytes = frame::encode(value);
    if bytes.len() > LAUNCH_MAX_BYTES {
        return Err(NodeError::Invalid {
            what: "arguments and environment",
            value: format!("{} bytes", bytes.len()),
            why: "the kernel would not take them",
        });
    }
    Ok(bytes)
}

impl ContainerState {
    /// The state in a sentence.
    pub fn in_words(self) -> &'static str {
        match self {
            ContainerState::Created => "created",
            ContainerState::Starting => "starting",
            ContainerState::Running => "running",
            ContainerState::Exited => "exited",
        }
    }
}
