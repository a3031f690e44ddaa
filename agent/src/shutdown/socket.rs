//! The agent's socket, over which whoever takes the machine down says so: a unit of systemd's, an init script, a handler of the
//! power button. It is root's, and understands `wire` alone.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Switch;
use super::wire::{Answer, Images, LINE_MAX_BYTES, Progress, Request};
use crate::eviction::images::Ask;

/// Who connects has something to say.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Who asks and then does not read is not waited for.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests that are answered at once; more wait.
const CLIENTS_MAX: usize = 16;

/// Binds the socket, 0600. An agent that was there before has left its own.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers until the token ends it.
pub async fn serve(listener: UnixListener, switch: Switch, images: mpsc::Sender<Ask>, stop: CancellationToken) {
    let own = nix::unistd::geteuid().as_raw();
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            // Whoever waits sees the end of its connection, and asks the next agent.
            () = stop.cancelled() => return,
            // join_next takes a result only when it returns it.
            Some(_) = clients.join_next(), if !clients.is_empty() => {}
            // A connection that is not accepted stays in the backlog.
            accepted = listener.accept(), if clients.len() < CLIENTS_MAX => match accepted {
                // The mode of the socket says the same; this holds even where someone has changed it.
                Ok((stream, _)) if stream.peer_cred().is_ok_and(|peer| peer.uid() == own) => {
                    let (switch, images) = (switch.clone(), images.clone());
                    clients.spawn(async move {
                        if let Err(error) = answer(stream, switch, images).await {
                            debug!(%error, "who asked on the agent's socket is gone");
                        }
                    });
                }
                Ok(_) => warn!("connection of another user refused"),
                Err(error) => {
                    // Out of descriptors: the next accept waits for one to come free.
                    warn!(%error, "connection not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
}

async fn answer(stream: UnixStream, switch: Switch, images: mpsc::Sender<Ask>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(LINE_MAX_BYTES));
    tokio::time::timeout(REQUEST_TIMEOUT, reader.read_line(&mut line)).await??;
    match serde_json::from_str(&line)? {
        Request::Cancel => {
            switch.cancel().await;
            say(&mut writer, &Answer::Cancelled).await
        }
        Request::Images { remove } => {
            let (answer, report) = oneshot::channel();
            // Where nobody answers, the agent ends, and the connection with it.
            let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
            images.send(Ask { remove, answer }).await.map_err(|_| gone())?;
            say(&mut writer, &Images(report.await.map_err(|_| gone())?)).await
        }
        Request::ShutDown if switch.within_seconds() == 0 => say(&mut writer, &Answer::Off).await,
        Request::ShutDown => {
            let mut watch = switch.shut_down();
            say(&mut writer, &Answer::Begun { within_seconds: switch.within_seconds() }).await?;
            loop {
                match watch.next().await {
                    None => return say(&mut writer, &Answer::Cancelled).await,
                    Some(progress) => {
                        let done = matches!(progress, Progress::Done(_));
                        say(&mut writer, &Answer::Now(progress)).await?;
                        if done {
                            return Ok(());
                        }
                    }
                }
            }
        }
    }
}

async fn say(writer: &mut (impl AsyncWriteExt + Unpin), answer: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    tokio::time::timeout(WRITE_TIMEOUT, writer.write_all(&line)).await?
}
