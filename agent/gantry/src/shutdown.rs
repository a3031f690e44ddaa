//! `gantry shutdown`: the machine is about to end, says whoever ends it, and waits until the agent has ended the pods.
//!
//! That it was asked for is known here alone. An agent that is killed meanwhile, and is back, is asked again.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_agent::shutdown::wire::{Answer, LINE_MAX_BYTES, Outcome, Progress, Request};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::Failure;

/// An agent answers at once, and is done in the time that it has said and this.
const SLACK: Duration = Duration::from_secs(10);
/// So long an agent that went away may take to be back.
const BACK_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, thiserror::Error)]
enum ShutdownError {
    #[error("no agent runs on this machine (nobody listens on {path})", path = .0.display())]
    NoAgent(PathBuf),
    #[error("the agent went away before all was done, and is not back")]
    Gone,
    #[error("the agent is not done after {} s", .0.as_secs())]
    Late(Duration),
    #[error("the shutdown was called off")]
    Cancelled,
    #[error("the agent cannot be spoken with")]
    Speak(#[source] io::Error),
}

/// How a talk with an agent came to its end.
#[derive(Debug)]
enum End {
    Done(Outcome),
    Cancelled,
    Off,
    /// It went away in the middle of it.
    Gone,
}

pub async fn run(socket: &Path, cancel: bool) -> Result<(), Failure> {
    let Some(stream) = connect(socket).await? else {
        if cancel {
            println!("no agent runs on this machine: there is nothing to call off");
            return Ok(());
        }
        return Err(ShutdownError::NoAgent(socket.to_owned()).into());
    };
    if cancel {
        return match talk(stream, Request::Cancel).await? {
            End::Gone => Err(ShutdownError::Gone.into()),
            End::Done(_) | End::Cancelled | End::Off => {
                println!("the node takes pods");
                Ok(())
            }
        };
    }
    match shut_down(socket, stream).await? {
        End::Done(outcome) => {
            for line in lines(&outcome) {
                println!("{line}");
            }
            Ok(())
        }
        End::Off => {
            println!("this node's pods end with their machine: its --shutdown-grace-period is 0");
            Ok(())
        }
        End::Cancelled => Err(ShutdownError::Cancelled.into()),
        End::Gone => Err(ShutdownError::Gone.into()),
    }
}

/// None where nobody listens.
async fn connect(socket: &Path) -> Result<Option<UnixStream>, ShutdownError> {
    match UnixStream::connect(socket).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) => match error.kind() {
            // Reset: by one that was killed, and was closing what it had open.
            ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Ok(None),
            _ => Err(ShutdownError::Speak(error)),
        },
    }
}

/// Asks this agent and, where it goes away, the next one.
async fn shut_down(socket: &Path, stream: UnixStream) -> Result<End, ShutdownError> {
    let mut stream = stream;
    loop {
        match talk(stream, Request::ShutDown).await? {
            End::Gone => {}
            end => return Ok(end),
        }
        println!("the agent went away; waiting for it to be back");
        let give_up = Instant::now() + BACK_WITHIN;
        stream = loop {
            if let Some(stream) = connect(socket).await? {
                break stream;
            }
            if Instant::now() >= give_up {
                return Ok(End::Gone);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
    }
}

async fn talk(stream: UnixStream, request: Request) -> Result<End, ShutdownError> {
    match ask(stream, request).await {
        Ok(end) => Ok(end),
        Err(Trouble::Late(after)) => Err(ShutdownError::Late(after)),
        Err(Trouble::Io(error)) => match error.kind() {
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof => Ok(End::Gone),
            _ => Err(ShutdownError::Speak(error)),
        },
    }
}

enum Trouble {
    Late(Duration),
    Io(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Io(error)
    }
}

async fn ask(stream: UnixStream, request: Request) -> Result<End, Trouble> {
    let (reader, mut writer) = stream.into_split();
    let mut line = serde_json::to_vec(&request).map_err(io::Error::from)?;
    line.push(b'\n');
    writer.write_all(&line).await?;
    let mut answers = BufReader::new(reader.take(LINE_MAX_BYTES)).lines();
    let start = Instant::now();
    let mut patience = SLACK;
    loop {
        let next = tokio::time::timeout_at(start + patience, answers.next_line()).await;
        let line =
            next.map_err(|_| Trouble::Late(patience))??.ok_or(ErrorKind::UnexpectedEof).map_err(io::Error::from)?;
        match serde_json::from_str(&line).map_err(io::Error::from)? {
            Answer::Begun { within_seconds } => {
                patience = Duration::from_secs(within_seconds) + SLACK;
                println!("the node takes no more pods; those that it has are to end within {within_seconds} s");
            }
            Answer::Now(Progress::Done(outcome)) => return Ok(End::Done(outcome)),
            Answer::Now(now) => {
                if let Some(words) = words(&now) {
                    println!("{words}");
                }
            }
            Answer::Cancelled => return Ok(End::Cancelled),
            Answer::Off => return Ok(End::Off),
        }
    }
}

fn words(progress: &Progress) -> Option<String> {
    match progress {
        Progress::Serving | Progress::Done(_) => None,
        Progress::Ending { priority, pods, seconds } => {
            Some(format!("ending pods of priority {priority} and above, within {seconds} s: {pods}"))
        }
        Progress::Telling => Some("telling the API how they ended".to_owned()),
    }
}

fn lines(outcome: &Outcome) -> Vec<String> {
    let named = |pods: &[String], what: &str| (!pods.is_empty()).then(|| format!("{what}: {}", pods.join(", ")));
    let mut all = vec![format!("pods that have ended: {}", outcome.ended)];
    all.extend(named(&outcome.running, "their time is over, and they run still"));
    all.extend(named(&outcome.untold, "the API has not heard of the end of"));
    all
}
