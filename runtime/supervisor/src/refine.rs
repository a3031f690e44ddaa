//! What the mounts of CDI devices have that volumes of CRI have not: further flags, nothing below them, and a place in the root
//! before hooks look at it there.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use gantry_base::launch::{Launch, Refined};
use rustix::mount::MoveMountFlags;

use crate::root::RootError;
use crate::userns::{self, Opened};
use crate::{inroot, sys};

/// Sets what [`crate::root::open_volumes`] has not. Before the host's mounts are left.
pub fn refine(trees: &mut [Option<OwnedFd>], launch: &Launch, users: Option<&Opened>) -> Result<(), RootError> {
    for refined in &launch.refined.0 {
        let at = refined.volume as usize;
        let (Some(tree), Some(volume)) = (trees.get_mut(at), launch.volumes.get(at)) else { continue };
        let failed = |source| RootError::VolumeFlags { path: volume.source.clone(), source };
        let mut set = refined.attributes;
        if refined.shallow {
            // Opened again: of a copy that has everything nothing can be taken away.
            let alone = userns::clone_tree(Path::new(&volume.source), false)
                .map_err(|source| RootError::VolumeSource { path: volume.source.clone(), source })?;
            let propagation = match volume.propagation {
                0 => libc::MS_PRIVATE,
                1 => libc::MS_SLAVE,
                _ => libc::MS_SHARED,
            };
            sys::mount_setattr(alone.as_fd(), false, 0, propagation).map_err(failed)?;
            if let Some(opened) = users {
                userns::map_ids(&alone, opened.user.as_fd())
                    .map_err(|source| RootError::Map { path: volume.source.clone(), source })?;
            }
            set |= if volume.read_only { libc::MOUNT_ATTR_RDONLY } else { 0 };
            set |= if volume.no_exec { libc::MOUNT_ATTR_NOEXEC } else { 0 };
            *tree = Some(alone);
        }
        if let Some(tree) = tree.as_ref().filter(|_| set != 0) {
            sys::mount_setattr(tree.as_fd(), false, set, 0).map_err(failed)?;
        }
    }
    Ok(())
}

pub fn is_early(launch: &Launch, volume: usize) -> bool {
    launch.refined.0.iter().any(|refined| refined.early && refined.volume as usize == volume)
}

/// Mounts in the root what hooks are to find there; libcontainer takes it along into the container.
pub fn place_early(root: &OwnedFd, trees: &[OwnedFd], launch: &Launch) -> Result<(), RootError> {
    for Refined { volume, .. } in launch.refined.0.iter().filter(|refined| refined.early) {
        let at = *volume as usize;
        let (Some(tree), Some(volume)) = (trees.get(at), launch.volumes.get(at)) else { continue };
        place(root, tree, &volume.destination)
            .map_err(|source| RootError::MountPoint { path: volume.destination.clone(), source })?;
    }
    Ok(())
}

fn place(root: &OwnedFd, tree: &OwnedFd, destination: &str) -> io::Result<()> {
    let target = inroot::make_target(root.as_fd(), Path::new(destination), tree)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(tree, "", &target, "", flags)?)
}
