//! Taking up again what was running: at a start of the runtime, and when a supervisor has gone. The journal, the
//! supervisor's answer and the kernel's are gathered, [`plan`] decides, and the verdicts are carried out here. All of it
//! may be cut short anywhere and run again.

use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Weak};

use gantry_base::codec::Wire;
use gantry_base::frame::Unit;
use gantry_base::{ExitRecord, Id, layout};
use gantry_env::chain;

use crate::cri::sandbox_run;
use crate::node::{Held, Node, NodeError, blocking};
use crate::records::{Bad, ContainerRecord, ContainerState, SandboxRecord};
use crate::supervisor::{Link, Listener};

pub mod plan;

use plan::{ContainerFacts, Facts, Verdict};

/// Of a file that says how a container ended; what newer supervisors append is short.
const EXIT_MAX_BYTES: u64 = 4 << 10;

/// Reads how a container ended, if its supervisor wrote it.
pub fn read_exit(bundle: &Path) -> Option<ExitRecord> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(bundle.join(layout::EXIT)).ok()?;
    file.take(EXIT_MAX_BYTES).read_to_end(&mut bytes).ok()?;
    ExitRecord::take(&mut bytes.as_slice()).ok()
}

/// Connects to a sandbox's supervisor, or starts one, and settles every container. `needed`: a supervisor is wanted even
/// if nothing runs. The caller holds the sandbox's link lock.
pub async fn take_up(node: &Node, sandbox: &str, needed: bool) -> Result<Option<Arc<Link>>, NodeError> {
    for container in node.pods.lock().containers.values_mut().filter(|c| c.record.sandbox == sandbox) {
        container.supervised = false;
    }
    let mut link = connect(node, sandbox).await;
    let facts = gather(node, sandbox, link.is_some());
    let plan = plan::plan(&facts);
    if !plan.verdicts.is_empty() {
        tracing::info!(sandbox, ?plan, "recovering");
    }
    if link.is_none() && (needed || plan.spawn_supervisor) {
        link = Some(spawn(node, sandbox).await?);
    }
    for (id, verdict) in plan.verdicts {
        carry_out(node, sandbox, &id, verdict, link.as_deref()).await?;
    }
    if let (Some(link), Some(sandbox)) = (&link, node.pods.lock().sandboxes.get_mut(sandbox)) {
        sandbox.link = Some(Arc::clone(link));
    }
    Ok(link)
}

/// Ends what runs of a sandbox whose record is bad: nobody could stop it by its name. Its address, namespaces and
/// snapshots go with the leftovers of this start.
pub async fn end_unknown(node: &Node, bad: Bad) {
    for container in &bad.containers {
        kill(node, &container.cgroup, &container.id).await;
    }
    // Its folder was moved with its socket in it.
    if let Ok(link) = Link::connect(&bad.path, &bad.id, node.env.rng.below(1 << 48), listener(node))
        && let Some(pid) = rustix::process::Pid::from_raw(link.pid)
    {
        // Connected to it, so it lives and the number is its own.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// Kills what is in a container's cgroup and removes it. A record of another cgroup than a container's is not believed.
pub async fn kill(node: &Node, cgroup: &str, container: &str) {
    if Id::parse(container).is_err() || !cgroup.ends_with(&format!("/{container}")) {
        return;
    }
    let (cgroups, path) = (node.cgroups.clone(), cgroup.to_owned());
    if let Err(error) = blocking(move || Ok(cgroups.end(&path)?)).await {
        tracing::warn!(cgroup, error = %chain(&error), "cgroup stays for now");
    }
}

/// Address records that cannot be read are made again from the journal, so that no pod's address is given to another. The
/// links of those that the journal does not know either are removed.
pub async fn mend_addresses(node: &Arc<Node>, sandboxes: &[SandboxRecord]) {
    for id in node.network.damaged() {
        let known = sandboxes.iter().find(|record| record.id == id);
        let address = known.and_then(|record| Some((record.ip.parse().ok()?, record.config.clone()?)));
        let (shared, sandbox) = (Arc::clone(node), id.clone());
        let mended = blocking(move || {
            let network = &shared.network;
            let mended = match address {
                Some((ip, config)) => network.restore(&sandbox, ip, &sandbox_run::host_ports(&config)?),
                None => network.remove_link(&sandbox),
            };
            Ok(mended?)
        });
        if let Err(error) = mended.await {
            tracing::error!(sandbox = id, error = %chain(&error), "address of a sandbox not known any more");
        }
    }
}

fn listener(node: &Node) -> Weak<dyn Listener> {
    node.me.clone()
}

/// The supervisor that listens, after it has told what it keeps.
async fn connect(node: &Node, sandbox: &str) -> Option<Arc<Link>> {
    let dir = node.records.sandbox_dir(sandbox);
    let link = Link::connect(&dir, sandbox, node.env.rng.below(1 << 48), listener(node)).ok()?;
    match link.describe().await {
        Ok(()) => Some(link),
        Err(error) => {
            tracing::warn!(sandbox, error = %chain(&error), "supervisor does not answer");
            None
        }
    }
}

async fn spawn(node: &Node, sandbox: &str) -> Result<Arc<Link>, NodeError> {
    let dir = node.records.sandbox_dir(sandbox);
    let node_arc = node.me.upgrade().ok_or(NodeError::Interrupted)?;
    let at = dir.clone();
    blocking(move || {
        let cgroup = node_arc.config.supervisor_cgroup.clone();
        node_arc.cgroups.create(&cgroup)?;
        Ok(node_arc.program.spawn(&at, &node_arc.cgroups.folders(&cgroup))?)
    })
    .await?;
    Ok(Link::connect(&dir, sandbox, node.env.rng.below(1 << 48), listener(node))?)
}

fn gather(node: &Node, sandbox: &str, supervisor: bool) -> Facts {
    let containers = node.containers_of(sandbox).into_iter().filter_map(|record| {
        let id = Id::parse(&record.id).ok()?;
        // Read again, and both at once: the supervisor may be telling of a start at this moment, which changes both.
        let (record, supervised) = {
            let pods = node.pods.lock();
            let container = pods.containers.get(&record.id)?;
            (container.record.clone(), container.supervised)
        };
        let exit = read_exit(&node.records.bundle(sandbox, &id));
        let process = record.state() == ContainerState::Running && hold(node, &record, &id);
        Some(ContainerFacts { id, state: record.state(), supervised, exit, process })
    });
    Facts { supervisor, containers: containers.collect() }
}

/// Makes sure of a pidfd of the container's first process: the one held, or one opened now and proved by its start time.
fn hold(node: &Node, record: &ContainerRecord, id: &Id) -> bool {
    let mut pods = node.pods.lock();
    let Some(container) = pods.containers.get_mut(&record.id) else { return false };
    if container.held.as_ref().is_some_and(|h| h.pidfd.is_some()) {
        return true;
    }
    let Some(pid) = rustix::process::Pid::from_raw(record.pid) else { return false };
    let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else { return false };
    if start_ticks(record.pid) != Some(record.start_ticks) {
        return false;
    }
    let bundle = node.records.bundle(&record.sandbox, id);
    container.held = Some(Held::new(vec![pidfd], &unit(node, record, id), &bundle));
    true
}

/// Field 22 of /proc/PID/stat.
fn start_ticks(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

/// What a supervisor must know of a container.
pub fn unit(node: &Node, record: &ContainerRecord, id: &Id) -> Unit {
    let config = record.config.as_ref();
    let folder = if node.cgroups.unified() { node.cgroups.folders(&record.cgroup).into_iter().next() } else { None };
    Unit {
        id: id.clone(),
        log_path: record.log_path.clone(),
        tty: config.is_some_and(|c| c.tty),
        stdin: config.is_some_and(|c| c.stdin),
        cgroup: folder.map(|f| f.to_string_lossy().into_owned()).unwrap_or_default(),
    }
}

async fn carry_out(
    node: &Node,
    sandbox: &str,
    id: &Id,
    verdict: Verdict,
    link: Option<&Link>,
) -> Result<(), NodeError> {
    let record = node.container(id.as_str())?;
    match verdict {
        // The notice has said so already.
        Verdict::Supervised => return Ok(()),
        // Whoever noted its end may have been killed before it swept.
        Verdict::Keep if record.state() == ContainerState::Exited => {}
        Verdict::Keep => return Ok(()),
        Verdict::Adopt => {
            let held = node.pods.lock().containers.get(id.as_str()).and_then(|c| c.held.as_ref()?.duplicates().ok());
            if let (Some(link), Some(fds)) = (link, held) {
                link.adopt(unit(node, &record, id), record.pid, fds).await?;
                if let Some(container) = node.pods.lock().containers.get_mut(id.as_str()) {
                    container.supervised = true;
                }
                return Ok(());
            }
            node.mark_unknown(id.as_str());
        }
        Verdict::Ended(exit) => {
            node.mark_ended(id.as_str(), &exit);
        }
        Verdict::Unknown => {
            node.mark_unknown(id.as_str());
        }
        // Its supervisor has told of its start since.
        Verdict::StartLost if record.state() == ContainerState::Running => return Ok(()),
        Verdict::StartLost => {
            node.mark_start_failed(id.as_str(), "the start was interrupted");
        }
    }
    if let Err(error) = node.sweep(&record).await {
        tracing::warn!(sandbox, container = %id, error = %chain(&error), "cgroup stays for now");
    }
    Ok(())
}
