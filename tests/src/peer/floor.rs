//! What the kernel alone asks for a process, and for one in namespaces of its own: nobody can do with less.

use std::path::Path;
use std::process::Command;

use nix::sched::CloneFlags;
use nix::sys::resource::UsageWho;
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use tokio::time::Instant;

use super::{Cost, cpu_millis, measured, millis};

/// `busybox true`, forked, executed and waited for.
pub fn fork_exec() -> Option<Cost> {
    measured(Command::new("/bin/busybox").arg("true"))
}

/// The same with mounts, processes and cgroups of its own and `rootfs` as its root. What is left out: every mount, device,
/// limit and filter.
pub fn namespaces(rootfs: &Path) -> Option<Cost> {
    let (start, before) = (Instant::now(), spent());
    let done = std::thread::scope(|scope| scope.spawn(|| in_namespaces(rootfs)).join());
    done.ok()??.then(|| Cost { wall: millis(start.elapsed()), cpu: spent() - before })
}

/// The thread that does this is of no further use: it has left its process's root behind.
fn in_namespaces(rootfs: &Path) -> Option<bool> {
    let new = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWCGROUP;
    nix::sched::unshare(new).ok()?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).ok()?;
    rustix::mount::mount_bind(rootfs, rootfs).ok()?;
    rustix::process::chdir(rootfs).ok()?;
    rustix::process::pivot_root(".", ".").ok()?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).ok()?;
    rustix::process::chdir("/").ok()?;
    Some(Command::new("/bin/busybox").arg("true").status().ok()?.success())
}

fn spent() -> f64 {
    cpu_millis(UsageWho::RUSAGE_SELF) + cpu_millis(UsageWho::RUSAGE_CHILDREN)
}
