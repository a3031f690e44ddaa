//! The container's root and its volumes, made in the creator's own mount namespace. Volume trees are cloned from the
//! host's namespace first, while their peer groups are still there, and put in place inside the container later.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use gantry_base::launch::{Root, Volume};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
};

use crate::{inroot, sys};

#[derive(Debug, thiserror::Error)]
pub enum RootError {
    #[error("open volume {path:?}: {source}")]
    VolumeSource { path: String, source: io::Error },
    #[error("make volume {path:?} read-only or set its propagation: {source}")]
    VolumeFlags { path: String, source: io::Error },
    #[error("make mount point {path:?} in the image: {source}")]
    MountPoint { path: String, source: io::Error },
    #[error("leave the host's mount namespace: {0}")]
    Unshare(#[source] io::Error),
    #[error("mount the root from {layers} layers: {source}")]
    Overlay { layers: usize, source: io::Error },
    #[error("a root needs at least one layer")]
    NoLayer,
    #[error("hide {path:?}: {source}")]
    Hide { path: String, source: io::Error },
}

/// A detached copy of each volume's mount, with its flags set.
pub fn open_volumes(volumes: &[Volume]) -> Result<Vec<OwnedFd>, RootError> {
    volumes.iter().map(open_volume).collect()
}

fn open_volume(volume: &Volume) -> Result<OwnedFd, RootError> {
    let path = volume.source.as_str();
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(CWD, path, flags)
        .map_err(|e| RootError::VolumeSource { path: path.to_owned(), source: e.into() })?;
    let failed = |source| RootError::VolumeFlags { path: path.to_owned(), source };
    let propagation = match volume.propagation {
        0 => libc::MS_PRIVATE,
        1 => libc::MS_SLAVE,
        _ => libc::MS_SHARED,
    };
    sys::mount_setattr(tree.as_fd(), true, 0, propagation).map_err(failed)?;
    let mut set = 0;
    if volume.read_only {
        set |= libc::MOUNT_ATTR_RDONLY;
    }
    if volume.no_exec {
        set |= libc::MOUNT_ATTR_NOEXEC;
    }
    if set != 0 {
        sys::mount_setattr(tree.as_fd(), volume.recursive_read_only, set, 0).map_err(failed)?;
    }
    Ok(tree)
}

/// Leaves the host's mounts behind: nothing that follows is seen outside.
pub fn leave_host_mounts() -> Result<(), RootError> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).map_err(|e| RootError::Unshare(e.into()))?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|e| RootError::Unshare(e.into()))
}

/// Mounts the root at `at` and opens it.
pub fn mount_root(root: &Root, at: &Path) -> Result<OwnedFd, RootError> {
    let failed = |source: io::Error| RootError::Overlay { layers: root.lower.len(), source };
    match (root.lower.as_slice(), root.upper.is_empty()) {
        ([], _) => return Err(RootError::NoLayer),
        ([only], true) => rustix::mount::mount_bind_recursive(only.as_str(), at).map_err(|e| failed(e.into()))?,
        _ => mount_overlay(root, at).map_err(failed)?,
    }
    rustix::fs::open(at, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| failed(e.into()))
}

/// Options of the old call must fit a page; images with more layers than that need `lowerdir+`, from Linux 6.5.
const OLD_OPTIONS_MAX_BYTES: usize = 4000;

fn mount_overlay(root: &Root, at: &Path) -> io::Result<()> {
    let lower = root.lower.iter().map(|path| escape(path)).collect::<Vec<_>>().join(":");
    let mut options = format!("lowerdir={lower}");
    if !root.upper.is_empty() {
        options.push_str(&format!(",upperdir={},workdir={}", escape(&root.upper), escape(&root.work)));
    }
    if options.len() <= OLD_OPTIONS_MAX_BYTES {
        let options = CString::new(options)?;
        rustix::mount::mount("overlay", at, "overlay", MountFlags::empty(), Some(options.as_c_str()))?;
        return Ok(());
    }
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for path in &root.lower {
        rustix::mount::fsconfig_set_string(context.as_fd(), "lowerdir+", path.as_str())?;
    }
    if !root.upper.is_empty() {
        rustix::mount::fsconfig_set_string(context.as_fd(), "upperdir", root.upper.as_str())?;
        rustix::mount::fsconfig_set_string(context.as_fd(), "workdir", root.work.as_str())?;
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    let mount = rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    rustix::mount::move_mount(mount.as_fd(), "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(())
}

/// A colon or a comma in a layer's path would be taken for the next option.
fn escape(path: &str) -> String {
    path.replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,")
}

/// Makes what will be mounted upon, while the root can still be written. What lies under a filesystem that libcontainer
/// mounts itself is made later, inside it.
pub fn make_mount_points(root: &OwnedFd, volumes: &[Volume], trees: &[OwnedFd], cwd: &str) -> Result<(), RootError> {
    for (volume, tree) in volumes.iter().zip(trees) {
        let path = Path::new(&volume.destination);
        if ["/dev", "/proc", "/sys"].iter().any(|own| path.starts_with(own)) {
            continue;
        }
        inroot::make_target(root.as_fd(), path, tree)
            .map_err(|source| RootError::MountPoint { path: volume.destination.clone(), source })?;
    }
    if !cwd.is_empty() && inroot::open(root.as_fd(), Path::new(cwd), OFlags::PATH).is_err() {
        inroot::make_dir(root.as_fd(), Path::new(cwd))
            .map_err(|source| RootError::MountPoint { path: cwd.to_owned(), source })?;
    }
    Ok(())
}

/// Puts /dev/null over the files by which libcgroups would move a process that is in the right cgroup already: each such
/// write waits for RCU. `cgroup.kill` is hidden so that a failed creation can report before it is killed.
pub fn hide_cgroup_files(cgroups: &[String], unified: bool) -> Result<(), RootError> {
    for cgroup in cgroups {
        let names: &[&str] = if unified { &["cgroup.procs", "cgroup.kill"] } else { &["cgroup.procs"] };
        for name in names {
            let path = format!("{cgroup}/{name}");
            match rustix::mount::mount_bind("/dev/null", path.as_str()) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(e) => return Err(RootError::Hide { path, source: e.into() }),
            }
        }
    }
    Ok(())
}

/// The numbers of descriptors that a forked child will find open.
pub fn numbers(fds: &[OwnedFd]) -> Vec<i32> {
    fds.iter().map(|fd| fd.as_raw_fd()).collect()
}
