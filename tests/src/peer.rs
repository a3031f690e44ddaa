//! The peers that a figure stands beside, measured in the same run on the same machine: OCI runtimes and containerd for a
//! container, etcd for a durable write, and the kernel alone for the floor below all of them. Debian packages all
//! (`tests/install.sh bench`); where one is not installed, the benchmark says so and prints no ratio.

use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sched::CloneFlags;
use nix::sys::resource::{UsageWho, getrusage};
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use tokio::time::Instant;

mod containerd;
mod disk;
mod etcd;
mod floor;
mod oci;

pub use containerd::{Containerd, IMAGE as CONTAINERD_IMAGE};
pub use disk::SyncedWrites;
pub use etcd::{EtcdError, etcd_puts};
pub use floor::{fork_exec, namespaces};
pub use oci::{MASKED, Oci, READ_ONLY, Running};

/// Milliseconds of wall and CPU time.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub wall: f64,
    pub cpu: f64,
}

/// Gives this process mounts of its own, in which crun finds a host that it accepts: it refuses cgroup v1 beside v2. To be
/// called before there are threads. Nothing is lost where it fails: what does not run then says so.
pub fn own_mounts() {
    if nix::sched::unshare(CloneFlags::CLONE_NEWNS).is_err() {
        return;
    }
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    if rustix::mount::mount_change("/", private).is_ok() {
        let _ = rustix::mount::unmount("/sys/fs/cgroup/unified", UnmountFlags::DETACH);
    }
}

/// What a command that ends well has cost, with all that it waited for.
fn measured(command: &mut Command) -> Option<Cost> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let (start, before) = (Instant::now(), cpu_millis(UsageWho::RUSAGE_CHILDREN));
    let done = command.status().ok()?.success();
    done.then(|| Cost { wall: millis(start.elapsed()), cpu: cpu_millis(UsageWho::RUSAGE_CHILDREN) - before })
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// CPU of this process, or of its children that were waited for.
fn cpu_millis(who: UsageWho) -> f64 {
    getrusage(who).map_or(0.0, |usage| {
        let times = [usage.user_time(), usage.system_time()];
        times.iter().map(|time| time.tv_sec() as f64 * 1000.0 + time.tv_usec() as f64 / 1000.0).sum()
    })
}
