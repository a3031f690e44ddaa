//! A container that libcontainer is not needed for: one without hooks, in a pod without users of its own. The supervisor forks it
//! where its processes are numbered and counted, and what is born there makes its root, goes there, and becomes the program: one
//! process, with nobody to wait for. It has the host's files before its eyes until it changes its root, so nobody else is where it is
//! born: whoever shares pids is made the longer way. Of other containers' descriptors it holds none.
//!
//! ```text
//!   the host's mounts      volumes copied, namespaces and cgroup files opened
//!   its own copy of them   the root, the kernel's file systems and nodes in it (kernel.rs)
//!   its root               terminal, what is read-only or hidden, volumes; quota; the last stage (executor.rs)
//! ```

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use gantry_base::codec::Wire;
use gantry_base::launch::{Direct, Launch};
use gantry_base::layout;
use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;

use crate::creator::{self, CreateError, Stdio, Task};
use crate::executor::{self, OpenVolume, Stage};
use crate::kernel::{self, KernelError};
use crate::{enter, refine, root};

#[derive(Debug, thiserror::Error)]
pub enum DirectError {
    #[error("join namespace {path:?}: {source}")]
    Join { path: String, source: std::io::Error },
    #[error("make a cgroup namespace: {0}")]
    Cgroups(#[source] std::io::Error),
    #[error("change to the container's root: {0}")]
    Pivot(#[source] std::io::Error),
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// What a container is born with.
struct Made {
    stage: Stage,
    streams: [OwnedFd; 3],
    is_terminal: bool,
    /// Held for the stage, which has their numbers.
    _trees: Vec<OwnedFd>,
}

/// Runs in the child. The master of its terminal goes to `terminal_to`.
pub fn become_container(task: Task<'_>, launch: &Launch, direct: &Direct, terminal_to: Option<BorrowedFd<'_>>) -> ! {
    let failure = task.failure.as_raw_fd();
    match make(task, launch, direct, terminal_to) {
        Ok(Made { stage, streams, is_terminal, _trees }) => enter::become_with(&stage, streams, is_terminal),
        Err(error) => executor::fail(failure, &creator::words(&error)),
    }
}

fn make(
    task: Task<'_>,
    launch: &Launch,
    direct: &Direct,
    terminal_to: Option<BorrowedFd<'_>>,
) -> Result<Made, CreateError> {
    let bundle = layout::bundle(task.sandbox, task.container);
    creator::make_log(task.log_path);
    creator::join_cgroups(launch)?;
    creator::adjust_oom_score(launch.process.oom_score_adj);
    let mut trees = root::open_volumes(&launch.volumes, &launch.images.0, None)?;
    refine::refine(&mut trees, launch, None)?;
    let before_start = creator::open_before_start(&launch.before_start)?;
    root::leave_host_mounts()?;
    let at = bundle.join(layout::ROOTFS);
    let trees = root::open_images(trees, &launch.volumes, &launch.images.0, &at, None)?;
    let rootfs = root::mount_root(&launch.root, &at)?;
    rustix::process::umask(Mode::empty());
    root::make_mount_points(&rootfs, &launch.volumes, &trees, &launch.process.cwd)?;
    let ids = creator::resolve(launch, rootfs.as_fd())?;
    let mut encoded = Vec::new();
    ids.put(&mut encoded);
    creator::write(bundle.join(layout::IDS), &encoded)?;

    join_namespaces(direct)?;
    kernel::mount(rootfs.as_fd(), direct, launch.unified).map_err(DirectError::from)?;
    go_to(&rootfs).map_err(|e| DirectError::Pivot(e.into()))?;
    let (streams, is_terminal) = match task.stdio {
        Stdio::Streams { stdin, stdout, stderr } => ([stdin, stdout, stderr], false),
        Stdio::Terminal => (terminal(terminal_to)?, true),
    };
    kernel::close(direct, launch.root.read_only).map_err(DirectError::from)?;
    let volumes = root::numbers(&trees).into_iter().zip(&launch.volumes);
    let volumes = volumes.map(|(tree, v)| OpenVolume { tree, destination: v.destination.clone() }).collect();
    let mut stage = creator::last_stage(launch, ids, volumes, task.failure);
    stage.start_hooks = launch.start_hooks.0.clone();
    executor::place_volumes(&stage)?;
    creator::write_before_start(before_start)?;
    Ok(Made { stage, streams, is_terminal, _trees: trees })
}

/// The file systems of the kernel that are mounted next are those of the namespaces that this process is in.
fn join_namespaces(direct: &Direct) -> Result<(), DirectError> {
    for path in &direct.namespaces {
        let failed = |source| DirectError::Join { path: path.clone(), source };
        let namespace = rustix::fs::open(path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let namespace = namespace.map_err(|e| failed(e.into()))?;
        nix::sched::setns(namespace, CloneFlags::empty()).map_err(|e| failed(e.into()))?;
    }
    if direct.own_cgroups {
        nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP).map_err(|e| DirectError::Cgroups(e.into()))?;
    }
    Ok(())
}

/// Changes the root, and lets go of the host's files.
fn go_to(rootfs: &OwnedFd) -> rustix::io::Result<()> {
    rustix::process::fchdir(rootfs)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")
}

fn terminal(to: Option<BorrowedFd<'_>>) -> Result<[OwnedFd; 3], CreateError> {
    let (master, slave) = enter::terminal()?;
    kernel::mount_console(&slave).map_err(DirectError::from)?;
    Ok(enter::hand_over(&master, slave, to)?)
}
