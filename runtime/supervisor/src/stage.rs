//! Where a container of a pod with users of its own is made. libcontainer goes into the user namespace before it has the
//! container's mounts, and looks everything up by path: as a user of the pod, who may not go through the runtime's folders. So
//! the creator, which is the host's root, makes a root for that: the container's, links to its namespaces (descriptors, which
//! need no path), the kernel's own files, and the sandbox's folder, which stays closed to the pod's users. Of the host's other
//! files nothing is left in it, and when libcontainer has changed to the container's root it is gone.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::Path;

use gantry_base::layout;
use rustix::fs::{CWD, Mode};
use rustix::mount::{MountFlags, MoveMountFlags, UnmountFlags};

use crate::userns::{self, Opened};

#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error("open the pod's {kind} namespace: {source}")]
    Pin { kind: &'static str, source: io::Error },
    #[error("prepare a root to make the container in: {what}: {source}")]
    Step { what: &'static str, source: io::Error },
}

/// The descriptors to which the links lead: held until libcontainer has been there.
pub struct Links {
    _namespaces: Vec<OwnedFd>,
}

/// What libcontainer reads of the kernel's, and binds devices from.
const KERNEL: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Changes to it. `at` is an empty folder; `pids` the pid namespace of another container, where it is not the pod's.
pub fn enter(
    sandbox: &Path,
    at: &Path,
    rootfs: &OwnedFd,
    opened: &Opened,
    pids: Option<OwnedFd>,
) -> Result<Links, StageError> {
    let step = |what: &'static str| move |source: io::Error| StageError::Step { what, source };
    let pins = Path::new(&opened.users.pins);
    let mut namespaces = Vec::new();
    for kind in ["user", "net", "ipc", "uts"] {
        let fd = userns::open_pin(pins, kind).map_err(|source| StageError::Pin { kind, source })?;
        namespaces.push((kind, fd));
    }
    match pids.map_or_else(|| userns::open_pin(pins, "pid"), Ok) {
        Ok(fd) => namespaces.push(("pid", fd)),
        // The container has processes of its own.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(StageError::Pin { kind: "pid", source }),
    }
    let kernel = KERNEL.iter().map(|path| userns::clone_tree(Path::new(path), true));
    let kernel = kernel.collect::<io::Result<Vec<_>>>().map_err(step("copy the kernel's files"))?;
    let own = userns::clone_tree(sandbox, false).map_err(step("copy the sandbox's folder"))?;
    let bare = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("none", at, "tmpfs", bare, Some(c"mode=755,size=65536"))
        .map_err(|e| step("mount it")(e.into()))?;
    std::env::set_current_dir(at).map_err(step("go there"))?;
    for (path, tree) in KERNEL.iter().zip(&kernel) {
        attach(tree, path).map_err(step("mount the kernel's files"))?;
    }
    attach(&own, &sandbox.to_string_lossy()).map_err(step("mount the sandbox's folder"))?;
    attach(rootfs, layout::STAGE_ROOTFS).map_err(step("mount the container's root"))?;
    link(&namespaces).map_err(step("link the namespaces"))?;
    let pivot = || -> rustix::io::Result<()> {
        rustix::process::pivot_root(".", ".")?;
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
        rustix::process::chdir("/")
    };
    pivot().map_err(|e| step("change to it")(e.into()))?;
    Ok(Links { _namespaces: namespaces.into_iter().map(|(_, fd)| fd).collect() })
}

/// Mounts at an absolute path below the current folder, and makes the folders that are not there for all to go through.
fn attach(tree: &OwnedFd, path: &str) -> io::Result<()> {
    let below = Path::new(path.trim_start_matches('/'));
    let before = rustix::process::umask(Mode::from_raw_mode(0o022));
    let made = std::fs::create_dir_all(below);
    rustix::process::umask(before);
    made?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(tree, "", CWD, below, flags)?)
}

fn link(namespaces: &[(&str, OwnedFd)]) -> io::Result<()> {
    let folder = Path::new(layout::STAGE_NAMESPACES.trim_start_matches('/'));
    std::fs::create_dir(folder)?;
    std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    namespaces.iter().try_for_each(|(kind, fd)| symlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), folder.join(kind)))
}
