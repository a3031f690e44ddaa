use std::os::fd::OwnedFd;
use std::time::Duration;

use gantry_cri::v1;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use crate::node::{ExecStreams, Node, NodeError};

/// What is kept of each stream; the rest is read and dropped, so that the command does not hang on it.
const OUTPUT_MAX_BYTES: usize = 8 << 20;
/// How long a child that the command left behind may keep its pipes before we answer without it.
const DRAIN_WAIT: Duration = Duration::from_secs(1);

pub async fn run(node: &Node, request: v1::ExecSyncRequest) -> Result<v1::ExecSyncResponse, NodeError> {
    let record = node.container(&request.container_id)?;
    let failed = |source| NodeError::Io { what: "make", path: "pipe".into(), source };
    let (stdout, stdout_write) = pipe_pair().map_err(failed)?;
    let (stderr, stderr_write) = pipe_pair().map_err(failed)?;
    let stdin = OwnedFd::from(std::fs::File::open("/dev/null").map_err(failed)?);
    let streams = ExecStreams::Pipes { stdin, stdout: stdout_write, stderr: stderr_write };
    let process = node.exec(&record, &request.cmd, streams).await?;

    let mut out = tokio::spawn(read_bounded(stdout));
    let mut err = tokio::spawn(read_bounded(stderr));
    let killer = KillOnDrop(process.duplicate());
    let code = async { process.exit.await.unwrap_or(gantry_base::exit::UNKNOWN_EXIT_CODE) };
    let code = if request.timeout > 0 {
        let limit = Duration::from_secs(request.timeout.unsigned_abs());
        match tokio::time::timeout(limit, code).await {
            Ok(code) => code,
            Err(_) => return Err(NodeError::ExecTimeout(request.cmd)),
        }
    } else {
        code.await
    };
    killer.disarm();
    let drained = tokio::time::timeout(DRAIN_WAIT, async { (join(&mut out).await, join(&mut err).await) }).await;
    let (stdout, stderr) = match drained {
        Ok(both) => both,
        Err(_) => {
            out.abort();
            err.abort();
            Default::default()
        }
    };
    Ok(v1::ExecSyncResponse { stdout, stderr, exit_code: code })
}

/// A caller that gives up, or a limit that passes, ends the command.
struct KillOnDrop(Option<OwnedFd>);

impl KillOnDrop {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(pidfd) = &self.0 {
            let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
        }
    }
}

async fn join(task: &mut tokio::task::JoinHandle<Vec<u8>>) -> Vec<u8> {
    task.await.unwrap_or_default()
}

/// A pipe whose reading end is ours.
pub fn pipe_pair() -> std::io::Result<(pipe::Receiver, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((pipe::Receiver::from_owned_fd(read)?, write))
}

async fn read_bounded(mut from: pipe::Receiver) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buffer = vec![0; 32 << 10];
    while let Ok(n) = from.read(&mut buffer).await {
        if n == 0 {
            break;
        }
        let room = OUTPUT_MAX_BYTES.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..n.min(room)]);
    }
    kept
}
