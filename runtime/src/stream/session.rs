//! One client: frames of channel and bytes in both directions, until the process and its output have ended, or the client
//! has gone.

use std::os::fd::OwnedFd;
use std::time::Duration;

use futures::stream::SplitStream;
use futures::{SinkExt, StreamExt};
use gantry_base::Id;
use gantry_env::chain;
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::input::{self, Input};
use super::{Session, status};
use crate::cri::exec_sync::pipe_pair;
use crate::node::{ExecStreams, Node, NodeError, Process};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// v5 only: closes the channel that follows.
const CLOSE: u8 = 255;

const READ_BYTES: usize = 32 << 10;
/// Frames read and not yet taken by the client; then the process waits.
const FRAMES_MAX: usize = 16;
/// How long what a command left running may hold its output after the command has ended.
const DRAIN_WAIT: Duration = Duration::from_secs(1);
/// A stream with no output for so long is given up, as the kubelet does.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4 * 3600);

type Socket = WebSocketStream<TcpStream>;

/// What a session is connected to.
struct Target {
    process: Option<Process>,
    input: Option<Input>,
    pumps: JoinSet<()>,
    frames: mpsc::Receiver<Vec<u8>>,
    /// The container whose stdin ends with this session's.
    close_stdin: bool,
}

pub async fn run(node: &Node, session: Session, v5: bool, socket: Socket) -> Result<(), Error> {
    let (mut sink, source) = socket.split();
    let target = match &session.command {
        Some(command) => exec(node, &session, command).await,
        None => attach(node, &session).await,
    };
    let mut target = match target {
        Ok(target) => target,
        Err(error) => {
            send(&mut sink, frame(ERROR, status::failed(&chain(&error)).as_bytes())).await?;
            return close(&mut sink).await;
        }
    };
    let mut reader = tokio::spawn(read_client(source, target.input.take(), v5));
    let outcome = relay(&mut target, &mut sink, &mut reader).await;
    reader.abort();
    target.pumps.abort_all();
    if target.close_stdin {
        close_stdin(node, &session.container).await;
    }
    match outcome {
        Ok(Some(text)) => {
            send(&mut sink, frame(ERROR, text.as_bytes())).await?;
            close(&mut sink).await
        }
        // The client has gone, whether it said so or not: nobody would see what the command still does.
        gone => {
            if let Some(process) = &target.process {
                process.kill();
            }
            gone.map(drop)
        }
    }
}

/// A client that takes nothing for as long as an idle stream may last is given up. It may pause for less: its process
/// waits meanwhile, and so does its output.
async fn send(sink: &mut Sink, message: Message) -> Result<(), Error> {
    let gone = |_| Err(Error::Io(std::io::ErrorKind::TimedOut.into()));
    tokio::time::timeout(IDLE_TIMEOUT, sink.send(message)).await.unwrap_or_else(gone)
}

/// Ends the session in order. A client reads what is left only if the close says that all is well (RFC 6455, 7.4.1).
async fn close(sink: &mut Sink) -> Result<(), Error> {
    send(sink, Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))).await?;
    let gone = |_| Err(Error::Io(std::io::ErrorKind::TimedOut.into()));
    tokio::time::timeout(IDLE_TIMEOUT, sink.close()).await.unwrap_or_else(gone)
}

fn frame(channel: u8, bytes: &[u8]) -> Message {
    let mut all = Vec::with_capacity(1 + bytes.len());
    all.push(channel);
    all.extend_from_slice(bytes);
    Message::binary(all)
}

type Sink = futures::stream::SplitSink<Socket, Message>;

/// Output to the client until there is no more; then how it ended. None: the client has gone, or nothing happens.
async fn relay(
    target: &mut Target,
    sink: &mut Sink,
    reader: &mut tokio::task::JoinHandle<bool>,
) -> Result<Option<String>, Error> {
    let mut code = None;
    let mut reading = true;
    let mut deadline = tokio::time::Instant::now() + IDLE_TIMEOUT;
    loop {
        tokio::select! {
            biased;
            // Cancel-safe: a frame is taken only when this arm is chosen.
            next = target.frames.recv() => match next {
                Some(bytes) => {
                    send(sink, Message::binary(bytes)).await?;
                    if code.is_none() {
                        deadline = tokio::time::Instant::now() + IDLE_TIMEOUT;
                    }
                }
                None => break,
            },
            // Cancel-safe: a oneshot's value stays until it is taken.
            ended = exit(&mut target.process), if code.is_none() => {
                code = Some(ended);
                deadline = tokio::time::Instant::now() + DRAIN_WAIT;
            }
            // Cancel-safe: joining does not consume the handle before it is ready.
            left = &mut *reader, if reading => {
                reading = false;
                if left.unwrap_or(true) {
                    return Ok(None);
                }
            }
            // Cancel-safe: a sleep has no state to lose.
            () = tokio::time::sleep_until(deadline) => {
                if code.is_none() {
                    return Ok(None);
                }
                break;
            }
        }
    }
    let code = match code {
        Some(code) => code,
        None if target.process.is_some() => exit(&mut target.process).await,
        None => 0,
    };
    Ok(Some(status::exited(code)))
}

async fn exit(process: &mut Option<Process>) -> i32 {
    match process {
        Some(process) => (&mut process.exit).await.unwrap_or(gantry_base::exit::UNKNOWN_EXIT_CODE),
        None => std::future::pending().await,
    }
}

#[derive(Deserialize)]
struct Size {
    #[serde(rename = "Width")]
    width: u16,
    #[serde(rename = "Height")]
    height: u16,
}

/// Input from the client, in order. True: the client has gone; false: only its stdin has ended.
async fn read_client(mut source: SplitStream<Socket>, mut input: Option<Input>, v5: bool) -> bool {
    while let Some(message) = source.next().await {
        let bytes = match message {
            Ok(Message::Binary(bytes)) => bytes,
            Ok(Message::Text(text)) => tokio_tungstenite::tungstenite::Bytes::from(text.as_bytes().to_vec()),
            Ok(Message::Close(_)) | Err(_) => return true,
            Ok(_) => continue,
        };
        match (bytes.first(), bytes.get(1..)) {
            (Some(&STDIN), Some(data)) if !data.is_empty() => {
                if let Some(to) = &mut input
                    && to.write(data).await.is_err()
                {
                    // Nobody reads it any more; output goes on.
                    input = None;
                }
            }
            (Some(&RESIZE), Some(data)) => {
                if let (Some(to), Ok(size)) = (&input, serde_json::from_slice::<Size>(data)) {
                    to.resize(size.width, size.height);
                }
            }
            (Some(&CLOSE), Some(&[STDIN])) if v5 => input = None,
            _ => {}
        }
    }
    true
}

/// Reads a pipe into frames of a channel.
async fn pump(mut from: pipe::Receiver, channel: u8, frames: mpsc::Sender<Vec<u8>>) {
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let mut bytes = Vec::with_capacity(1 + n);
        bytes.push(channel);
        bytes.extend_from_slice(&buffer[..n]);
        if frames.send(bytes).await.is_err() {
            return;
        }
    }
}

async fn pump_terminal(master: std::sync::Arc<tokio::io::unix::AsyncFd<OwnedFd>>, frames: mpsc::Sender<Vec<u8>>) {
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(n @ 1..) = input::read_terminal(&master, &mut buffer).await {
        let mut bytes = Vec::with_capacity(1 + n);
        bytes.push(STDOUT);
        bytes.extend_from_slice(&buffer[..n]);
        if frames.send(bytes).await.is_err() {
            return;
        }
    }
}

fn io(source: std::io::Error) -> NodeError {
    NodeError::Io { what: "prepare", path: "streams".into(), source }
}

async fn exec(node: &Node, session: &Session, command: &[String]) -> Result<Target, NodeError> {
    let record = node.container(&session.container)?;
    let (tx, frames) = mpsc::channel(FRAMES_MAX);
    let mut pumps = JoinSet::new();
    if session.tty {
        let mut process = node.exec(&record, command, ExecStreams::Terminal).await?;
        let master = process.terminal.take().ok_or(NodeError::NoSupervisor)?;
        let master = input::terminal(master).map_err(io)?;
        pumps.spawn(pump_terminal(std::sync::Arc::clone(&master), tx));
        let input = Some(Input::Terminal(master));
        return Ok(Target { process: Some(process), input, pumps, frames, close_stdin: false });
    }
    let (out, stdout) = pipe_pair().map_err(io)?;
    let (err, stderr) = pipe_pair().map_err(io)?;
    let (stdin, input) = if session.stdin {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| io(e.into()))?;
        (read, Some(Input::Pipe(pipe::Sender::from_owned_fd(write).map_err(io)?)))
    } else {
        (OwnedFd::from(std::fs::File::open("/dev/null").map_err(io)?), None)
    };
    let process = node.exec(&record, command, ExecStreams::Pipes { stdin, stdout, stderr }).await?;
    // Both are read, whether the client wants them or not: a full pipe would stop the command.
    for (wanted, from, channel) in [(session.stdout, out, STDOUT), (session.stderr, err, STDERR)] {
        if wanted {
            pumps.spawn(pump(from, channel, tx.clone()));
        } else {
            pumps.spawn(async move {
                let (mut from, mut buffer) = (from, vec![0; READ_BYTES]);
                while let Ok(1..) = from.read(&mut buffer).await {}
            });
        }
    }
    // Without any output to wait for, the exit alone ends the session.
    if !session.stdout && !session.stderr {
        pumps.spawn(async move {
            let _held = tx;
            std::future::pending::<()>().await;
        });
    }
    Ok(Target { process: Some(process), input, pumps, frames, close_stdin: false })
}

async fn attach(node: &Node, session: &Session) -> Result<Target, NodeError> {
    let record = node.container(&session.container)?;
    let link = node.link(&record.sandbox).await?;
    let (out, stdout) = pipe_pair().map_err(io)?;
    let (err, stderr) = pipe_pair().map_err(io)?;
    let mut fds = vec![stdout];
    if !session.tty {
        fds.push(stderr);
    }
    link.attach(Id::parse(&record.id)?, fds).await?;
    let (tx, frames) = mpsc::channel(FRAMES_MAX);
    let mut pumps = JoinSet::new();
    pumps.spawn(pump(out, STDOUT, tx.clone()));
    if !session.tty {
        pumps.spawn(pump(err, STDERR, tx));
    }
    let held = {
        let pods = node.pods.lock();
        let held = pods.containers.get(&record.id).and_then(|c| c.held.as_ref());
        held.and_then(|h| h.input.as_ref()?.try_clone().ok())
    };
    let input = match held {
        Some(fd) if session.tty => Some(Input::Terminal(input::terminal(fd).map_err(io)?)),
        Some(fd) if session.stdin => Some(Input::Pipe(pipe::Sender::from_owned_fd(fd).map_err(io)?)),
        _ => None,
    };
    let once = record.config.as_ref().is_some_and(|c| c.stdin_once && !c.tty) && session.stdin;
    Ok(Target { process: None, input, pumps, frames, close_stdin: once })
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
