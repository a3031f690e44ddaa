//! One exec or attach: output to the client and its input to the process, until the process and its output have ended, or
//! the client has gone.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_base::Id;
use gantry_env::chain;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::client::{Listen, STDERR, STDOUT, Said, Tell};
use super::input::{self, Input};
use super::peer::Peer;
use super::{IDLE_TIMEOUT, Process, status};
use crate::cri::exec_sync::pipe_pair;
use crate::node::{self, ExecStreams, Node, NodeError};

const READ_BYTES: usize = 32 << 10;
/// Frames read and not yet taken by the client; then the process waits.
const FRAMES_MAX: usize = 16;
/// How long what a command left running may be silent, once the command has ended, before its output is given up.
const DRAIN_WAIT: Duration = Duration::from_secs(1);
/// How long a client that was told the end may take to go. What it still sends meanwhile is read: to close on that would
/// take back what it has not read yet.
const LINGER: Duration = Duration::from_secs(10);

/// What a session is connected to.
struct Target {
    process: Option<node::Process>,
    input: Option<Input>,
    pumps: JoinSet<()>,
    /// Each begins with the number of its channel.
    frames: mpsc::Receiver<Bytes>,
    /// The container whose stdin ends with this session's.
    close_stdin: bool,
}

pub async fn run(
    node: &Arc<Node>,
    wanted: Process,
    listen: Listen,
    mut tell: Tell,
    peer: &Peer,
) -> std::io::Result<()> {
    let target = match &wanted.command {
        Some(command) => exec(node, &wanted, command).await,
        None => attach(node, &wanted).await,
    };
    let mut target = match target {
        Ok(target) => target,
        Err(error) => {
            tell.end(&status::failed(&chain(&error))).await?;
            linger(tokio::spawn(hear(listen, None))).await;
            return Ok(());
        }
    };
    let own = target.close_stdin.then(|| (Arc::clone(node), wanted.container.clone()));
    let input = target.input.take().map(|to| Stdin { to, wanted: wanted.stdin, own: own.clone() });
    let mut client = tokio::spawn(hear(listen, input));
    let outcome = relay(&mut target, &mut tell, &mut client, peer).await;
    target.pumps.abort_all();
    if let Some((node, container)) = own {
        close_stdin(&node, &container).await;
    }
    match outcome {
        Ok(Some(text)) => {
            tokio::select! {
                biased;
                // Not asked again where it does not win: nobody takes what is left.
                told = tell.end(&text) => told?,
                // Who has said its last may still read; who does not is waited for no longer than any other.
                () = left(peer) => {}
            }
            linger(client).await;
            Ok(())
        }
        // The client has gone, whether it said so or not: nobody would see what the command still does.
        gone => {
            client.abort();
            if let Some(process) = &target.process {
                process.kill_all();
            }
            gone.map(drop)
        }
    }
}

/// The client has gone, and has had its time to take the end.
async fn left(peer: &Peer) {
    peer.gone().await;
    tokio::time::sleep(LINGER).await;
}

async fn linger(mut client: JoinHandle<()>) {
    if tokio::time::timeout(LINGER, &mut client).await.is_err() {
        client.abort();
    }
}

/// Output to the client until there is no more; then how it ended. None: the client has gone, or nothing happens.
async fn relay(
    target: &mut Target,
    tell: &mut Tell,
    client: &mut JoinHandle<()>,
    peer: &Peer,
) -> std::io::Result<Option<String>> {
    let mut code = None;
    let mut deadline = tokio::time::Instant::now() + IDLE_TIMEOUT;
    loop {
        tokio::select! {
            biased;
            // Cancel-safe: a frame is taken only when this arm is chosen.
            next = target.frames.recv() => match next {
                Some(bytes) => {
                    tokio::select! {
                        biased;
                        // Not asked again where it does not win: nobody takes the rest of a frame.
                        told = tell.output(bytes) => told?,
                        // Cancel-safe: it has no state.
                        () = peer.gone() => return Ok(None),
                    }
                    let quiet = if code.is_none() { IDLE_TIMEOUT } else { DRAIN_WAIT };
                    deadline = tokio::time::Instant::now() + quiet;
                }
                None => break,
            },
            // Cancel-safe: a oneshot's value stays until it is taken.
            ended = exit(&mut target.process), if code.is_none() => {
                code = Some(ended);
                deadline = tokio::time::Instant::now() + DRAIN_WAIT;
            }
            // Cancel-safe: joining does not consume the handle before it is ready.
            _ = &mut *client => return Ok(None),
            // Cancel-safe: it has no state. Input that no process takes keeps the arm before from ending.
            () = peer.gone() => return Ok(None),
            // Cancel-safe: a sleep has no state to lose.
            () = tokio::time::sleep_until(deadline) => {
                if code.is_none() {
                    return Ok(None);
                }
                break;
            }
        }
    }
    // Output may end long before its process, which the client can still leave.
    let code = match code {
        Some(code) => code,
        None if target.process.is_none() => 0,
        None => tokio::select! {
            biased;
            // Cancel-safe, all, as above.
            code = exit(&mut target.process) => code,
            _ = &mut *client => return Ok(None),
            () = peer.gone() => return Ok(None),
        },
    };
    Ok(Some(status::exited(code)))
}

async fn exit(process: &mut Option<node::Process>) -> i32 {
    match process {
        Some(process) => (&mut process.exit).await.unwrap_or(gantry_base::exit::UNKNOWN_EXIT_CODE),
        None => std::future::pending().await,
    }
}

/// Where a client's input goes.
struct Stdin {
    to: Input,
    /// A terminal has its size without any input, too.
    wanted: bool,
    /// The container that has no other stdin than this client's.
    own: Option<(Arc<Node>, String)>,
}

/// What the client says, in order, until it has gone.
async fn hear(mut listen: Listen, mut stdin: Option<Stdin>) {
    while let Some(said) = listen.next().await {
        match (said, &mut stdin) {
            (Said::Input(bytes), Some(open)) if open.wanted => {
                let taken = open.to.write(&bytes).await;
                // Where nobody reads it any more, output goes on.
                stdin = stdin.filter(|_| taken.is_ok());
            }
            // A terminal has no end that its reader would see, and keeps its size.
            (Said::InputEnd, Some(Stdin { to: Input::Pipe(_), .. })) => {
                let own = stdin.take().and_then(|open| open.own);
                if let Some((node, container)) = own {
                    close_stdin(&node, &container).await;
                }
            }
            (Said::Size { columns, rows }, Some(open)) => open.to.resize(columns, rows),
            _ => {}
        }
    }
}

/// Reads a pipe into frames of a channel, whether the client wants them or not: a full pipe would stop the process.
async fn pump(mut from: pipe::Receiver, channel: u8, wanted: bool, frames: mpsc::Sender<Bytes>) {
    let mut buffer = vec![channel; 1 + READ_BYTES];
    while let Ok(n @ 1..) = from.read(&mut buffer[1..]).await {
        if wanted && frames.send(Bytes::copy_from_slice(&buffer[..=n])).await.is_err() {
            return;
        }
    }
}

async fn pump_terminal(master: Arc<tokio::io::unix::AsyncFd<OwnedFd>>, frames: mpsc::Sender<Bytes>) {
    let mut buffer = vec![STDOUT; 1 + READ_BYTES];
    while let Ok(n @ 1..) = input::read_terminal(&master, &mut buffer[1..]).await {
        if frames.send(Bytes::copy_from_slice(&buffer[..=n])).await.is_err() {
            return;
        }
    }
}

fn io(source: std::io::Error) -> NodeError {
    NodeError::Io { what: "prepare", path: "streams".into(), source }
}

async fn exec(node: &Node, wanted: &Process, command: &[String]) -> Result<Target, NodeError> {
    let record = node.container(&wanted.container)?;
    let turn = node.turn(&record.id).await?;
    let (tx, frames) = mpsc::channel(FRAMES_MAX);
    let mut pumps = JoinSet::new();
    if wanted.tty {
        let mut process = node.exec(turn, &record, command, ExecStreams::Terminal).await?;
        let master = process.terminal.take().ok_or(NodeError::NoSupervisor)?;
        let master = input::terminal(master).map_err(io)?;
        pumps.spawn(pump_terminal(Arc::clone(&master), tx));
        let input = Some(Input::Terminal(master));
        return Ok(Target { process: Some(process), input, pumps, frames, close_stdin: false });
    }
    let (out, stdout) = pipe_pair().map_err(io)?;
    let (err, stderr) = pipe_pair().map_err(io)?;
    let (stdin, input) = if wanted.stdin {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| io(e.into()))?;
        (read, Some(Input::Pipe(pipe::Sender::from_owned_fd(write).map_err(io)?)))
    } else {
        (OwnedFd::from(std::fs::File::open("/dev/null").map_err(io)?), None)
    };
    let process = node.exec(turn, &record, command, ExecStreams::Pipes { stdin, stdout, stderr }).await?;
    pumps.spawn(pump(out, STDOUT, wanted.stdout, tx.clone()));
    pumps.spawn(pump(err, STDERR, wanted.stderr, tx));
    Ok(Target { process: Some(process), input, pumps, frames, close_stdin: false })
}

async fn attach(node: &Node, wanted: &Process) -> Result<Target, NodeError> {
    let record = node.container(&wanted.container)?;
    let link = node.link(&record.sandbox).await?;
    let (out, stdout) = pipe_pair().map_err(io)?;
    let (err, stderr) = pipe_pair().map_err(io)?;
    let config = record.config.clone().unwrap_or_default();
    let mut fds = vec![stdout];
    if !config.tty {
        fds.push(stderr);
    }
    link.attach(Id::parse(&record.id)?, fds).await?;
    let (tx, frames) = mpsc::channel(FRAMES_MAX);
    let mut pumps = JoinSet::new();
    pumps.spawn(pump(out, STDOUT, wanted.stdout, tx.clone()));
    if !config.tty {
        pumps.spawn(pump(err, STDERR, wanted.stderr, tx));
    }
    let held = {
        let pods = node.pods.lock();
        let held = pods.containers.get(&record.id).and_then(|c| c.held.as_ref());
        held.and_then(|h| h.input.as_ref()?.try_clone().ok())
    };
    let input = match held {
        Some(fd) if config.tty => Some(Input::Terminal(input::terminal(fd).map_err(io)?)),
        Some(fd) if wanted.stdin => Some(Input::Pipe(pipe::Sender::from_owned_fd(fd).map_err(io)?)),
        _ => None,
    };
    let close_stdin = config.stdin_once && !config.tty && wanted.stdin;
    Ok(Target { process: None, input, pumps, frames, close_stdin })
}

/// The first client's stdin was the container's only one.
async fn close_stdin(node: &Node, container: &str) {
    let Ok(record) = node.container(container) else { return };
    if let Some(held) = node.pods.lock().containers.get_mut(container).and_then(|c| c.held.as_mut()) {
        held.input = None;
    }
    if let (Some(link), Ok(id)) = (node.current_link(&record.sandbox), Id::parse(container)) {
        let _ = link.close_stdin(id).await;
    }
}
