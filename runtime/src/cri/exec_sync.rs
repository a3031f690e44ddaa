use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use gantry_cri::v1;
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

use crate::node::{ExecStreams, Node, NodeError, kill_all};

/// What is kept of each stream; the rest is read and dropped, so that the command does not hang on it. Both fit into one
/// message, with its other fields.
const OUTPUT_MAX_BYTES: usize = gantry_cri::MESSAGE_MAX_BYTES / 2 - (1 << 10);
/// How long a child that the command left behind may keep its pipes before we answer without it.
const DRAIN_WAIT: Duration = Duration::from_secs(1);

pub async fn run(node: &Node, request: v1::ExecSyncRequest) -> Result<v1::ExecSyncResponse, NodeError> {
    if request.timeout <= 0 {
        return execute(node, request).await;
    }
    // The limit holds for the making of the process too, which takes its time in a container that is throttled or frozen.
    let limit = Duration::from_secs(request.timeout.unsigned_abs());
    let command = request.cmd.clone();
    tokio::time::timeout(limit, execute(node, request)).await.unwrap_or(Err(NodeError::ExecTimeout(command)))
}

async fn execute(node: &Node, request: v1::ExecSyncRequest) -> Result<v1::ExecSyncResponse, NodeError> {
    let record = node.container(&request.container_id)?;
    let turn = node.turn(&record.id).await?;
    let failed = |source| NodeError::Io { what: "make", path: "pipe".into(), source };
    let (stdout, stdout_write) = pipe_pair().map_err(failed)?;
    let (stderr, stderr_write) = pipe_pair().map_err(failed)?;
    let stdin = OwnedFd::from(std::fs::File::open("/dev/null").map_err(failed)?);
    let streams = ExecStreams::Pipes { stdin, stdout: stdout_write, stderr: stderr_write };
    let shared = node.me.upgrade().ok_or(NodeError::Interrupted)?;
    // A task of its own: a process that comes to life after its caller has gone is ended with the answer nobody takes.
    let started = tokio::spawn(async move {
        let process = shared.exec(turn, &record, &request.cmd, streams).await?;
        let killer = KillOnDrop(process.duplicate());
        Ok::<_, NodeError>((process, killer))
    });
    let (process, killer) = started.await.unwrap_or(Err(NodeError::Interrupted))?;
    let (mut out, mut err) = (Output::read(stdout), Output::read(stderr));
    let exit_code = process.exit.await.unwrap_or(gantry_base::exit::UNKNOWN_EXIT_CODE);
    killer.disarm();
    let _ = tokio::time::timeout(DRAIN_WAIT, async { (out.ended().await, err.ended().await) }).await;
    Ok(v1::ExecSyncResponse { stdout: out.take(), stderr: err.take(), exit_code })
}

/// A caller that gives up, or a limit that passes, ends the command and what it has started.
struct KillOnDrop(Option<OwnedFd>);

impl KillOnDrop {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(pidfd) = &self.0 {
            kill_all(pidfd.as_fd());
        }
    }
}

/// A pipe whose reading end is ours.
pub fn pipe_pair() -> std::io::Result<(pipe::Receiver, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((pipe::Receiver::from_owned_fd(read)?, write))
}

/// What has been read of a stream so far.
struct Output {
    kept: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Output {
    fn read(mut from: pipe::Receiver) -> Output {
        let kept = Arc::<Mutex<Vec<u8>>>::default();
        let to = Arc::clone(&kept);
        let reader = tokio::spawn(async move {
            let mut buffer = vec![0; 32 << 10];
            while let Ok(n @ 1..) = from.read(&mut buffer).await {
                let mut kept = to.lock();
                let room = OUTPUT_MAX_BYTES.saturating_sub(kept.len());
                kept.extend_from_slice(&buffer[..n.min(room)]);
            }
        });
        Output { kept, reader }
    }

    async fn ended(&mut self) {
        let _ = (&mut self.reader).await;
    }

    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.kept.lock())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
