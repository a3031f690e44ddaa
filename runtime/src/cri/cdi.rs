//! CDI devices on their way into a container: when it is created, when it starts, and after it has ended.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use gantry_base::launch::Launch;
use gantry_base::{Id, layout};
use gantry_cri::v1;
use tokio::io::AsyncWriteExt;

use crate::cdi::hooks::{self, Poststop};
use crate::cdi::inject::{Facts, HostNode, Injection, inject};
use crate::cdi::{name, resolve};
use crate::cgroup::devices::Rule;
use crate::container::spec::{self, Host};
use crate::image::RunConfig;
use crate::node::{Node, NodeError};
use crate::records::{ContainerRecord, ContainerState, DeviceRecord};

/// Puts what a container asks for by CDI into what its specification is made from.
pub fn give(node: &Node, config: &v1::ContainerConfig, image: &RunConfig, host: &mut Host) -> Result<(), NodeError> {
    let names = name::wanted(config)?;
    if names.is_empty() {
        return Ok(());
    }
    let found = node.cdi.read();
    let edits = resolve::resolve(&found, &names)?;
    let facts = Facts {
        own_users: host.users.is_some(),
        user: spec::numbers(config, image)?,
        node: &node_of_host,
        exists: &|path| Path::new(path).exists(),
    };
    host.cdi = inject(&edits, &facts)?;
    let own = |device: &spec::Device| host.cdi.devices.iter().all(|given| given.path != device.path);
    host.devices.retain(own);
    host.devices.extend(host.cdi.devices.iter().cloned());
    Ok(())
}

/// No link is followed: a specification names the node that it means.
fn node_of_host(path: &str) -> io::Result<HostNode> {
    let metadata = std::fs::symlink_metadata(path)?;
    let kind = match metadata.file_type() {
        t if t.is_char_device() => 'c',
        t if t.is_block_device() => 'b',
        t if t.is_fifo() => 'p',
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is something else")),
    };
    let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
    Ok(HostNode { kind, major, minor, mode: metadata.mode() & 0o777 })
}

/// What its start hooks are told of a container.
pub fn name_container(launch: &mut Launch, id: &Id, bundle: &Path) {
    if !launch.start_hooks.0.hooks.is_empty() {
        launch.start_hooks.0.container = id.to_string();
        launch.start_hooks.0.bundle = bundle.to_string_lossy().into_owned();
    }
}

/// What the container may open. No rule is about a FIFO.
pub fn records(cdi: &Injection) -> Vec<DeviceRecord> {
    let opened = cdi.devices.iter().filter(|device| device.kind != 'p' && !device.access.is_empty());
    let record = |device: &spec::Device| DeviceRecord {
        block: device.kind == 'b',
        major: device.major,
        minor: device.minor,
        access: device.access.clone(),
    };
    opened.map(record).collect()
}

pub fn rule(device: &DeviceRecord) -> Rule {
    super::devices::may_open(device.block, device.major, device.minor, &device.access)
}

/// Runs the poststop hooks of a container that was started, or was to be. Whoever is killed in the midst of it begins again;
/// one that fails keeps no container from going.
pub async fn after_the_end(node: &Node, record: &ContainerRecord) {
    let asked = record.config.as_ref().is_some_and(|config| name::wanted(config).is_ok_and(|names| !names.is_empty()));
    if !asked || record.state() == ContainerState::Created {
        return;
    }
    let Ok(id) = Id::parse(&record.id) else { return };
    let bundle = node.records.bundle(&record.sandbox, &id);
    // It is ours, and written when the container was made.
    let Ok(text) = tokio::fs::read(bundle.join(layout::CONFIG)).await else { return };
    let state = hooks::state_of_stopped(&record.id, &bundle);
    for hook in hooks::poststop(&text) {
        if let Err(error) = run(&hook, &state).await {
            tracing::warn!(container = record.id, hook = hook.path, %error, "poststop hook failed");
        }
    }
}

async fn run(hook: &Poststop, state: &str) -> io::Result<()> {
    let mut command = std::process::Command::new(&hook.path);
    let name = hook.args.first().unwrap_or(&hook.path);
    command.arg0(name).args(hook.args.iter().skip(1)).env_clear();
    command.envs(hook.env.iter().filter_map(|entry| entry.split_once('=')));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
    let told = child.stdin.take();
    let work = async {
        if let Some(mut stdin) = told {
            // It may not care what it is told.
            let _ = stdin.write_all(state.as_bytes()).await;
        }
        child.wait().await
    };
    match tokio::time::timeout(Duration::from_secs(hook.timeout.into()), work).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(io::Error::other(format!("ended with {status}"))),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("has not ended after {} s", hook.timeout))),
    }
}
