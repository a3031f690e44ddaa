//! OCI's startContainer hooks: programs of the container's own files that run in it, as its user and with its capabilities and
//! filter, before its program does. libcontainer would run them as the host's root.

use std::io::{self, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use gantry_base::launch::{Hook, StartHooks};
use oci_spec::runtime::{ContainerState, StateBuilder};

#[derive(Debug, thiserror::Error)]
pub enum HookError {
    #[error("tell hooks of the container: {0}")]
    State(String),
    #[error("run the startContainer hook {path:?}: {source}")]
    Run { path: String, source: io::Error },
    #[error("the startContainer hook {path:?} ended with {status}")]
    Failed { path: String, status: String },
    #[error("the startContainer hook {path:?} has not ended after {seconds} s")]
    Timeout { path: String, seconds: u32 },
}

pub fn run(all: &StartHooks, env: &[String]) -> Result<(), HookError> {
    if all.hooks.is_empty() {
        return Ok(());
    }
    let state = state(all)?;
    all.hooks.iter().try_for_each(|hook| run_one(hook, env, &state))
}

/// What the runtime specification has hooks read.
fn state(all: &StartHooks) -> Result<String, HookError> {
    let failed = |error: &dyn std::error::Error| HookError::State(error.to_string());
    let state = StateBuilder::default()
        .version("1.0.2")
        .id(all.container.clone())
        .status(ContainerState::Created)
        .pid(i32::try_from(std::process::id()).unwrap_or_default())
        .bundle(PathBuf::from(&all.bundle))
        .build()
        .map_err(|error| failed(&error))?;
    serde_json::to_string(&state).map_err(|error| failed(&error))
}

fn run_one(hook: &Hook, env: &[String], state: &str) -> Result<(), HookError> {
    let path = || hook.path.clone();
    let failed = |source| HookError::Run { path: path(), source };
    let mut command = Command::new(&hook.path);
    let name = hook.args.first().unwrap_or(&hook.path);
    command.arg0(name).args(hook.args.iter().skip(1)).env_clear();
    command.envs(hook.env.as_deref().unwrap_or(env).iter().filter_map(|entry| entry.split_once('=')));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may not care what it is told.
        let _ = stdin.write_all(state.as_bytes());
    }
    let status = wait(child, hook.timeout_seconds).map_err(failed)?;
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => {
            let of_signal = status.signal().map(|signal| format!("signal {signal}"));
            let status = of_signal.unwrap_or_else(|| format!("code {}", status.code().unwrap_or_default()));
            Err(HookError::Failed { path: path(), status })
        }
        None => Err(HookError::Timeout { path: path(), seconds: hook.timeout_seconds }),
    }
}

/// None after its time. Whoever is told so ends the process that it waits in, and with it what it has started.
fn wait(mut child: Child, seconds: u32) -> io::Result<Option<ExitStatus>> {
    let (tell, heard) = mpsc::sync_channel(1);
    std::thread::Builder::new().spawn(move || tell.send(child.wait()))?;
    match heard.recv_timeout(Duration::from_secs(seconds.into())) {
        Ok(status) => status.map(Some),
        Err(_) => Ok(None),
    }
}
