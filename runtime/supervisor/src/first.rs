//! The first process of a pid namespace that the containers of a pod share. It keeps the namespace alive, reaps whoever has lost
//! its parent, and ends with nobody but itself to end it: whoever kills it ends everything in the namespace.
//!
//! Containers see it, and one with CAP_SYS_PTRACE may become it. So it has what every container of the pod has (the pod's
//! namespaces, a cgroup below the pod's) and less: no capability, no user of the host, an empty root.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use gantry_base::layout;
use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use crate::StartError;
use crate::sys::{self, Forked};

/// Nobody, as Kubernetes' own first process is.
const USER: u32 = 65535;
/// Of the pod's processes the last that memory should be taken from (a sandbox's score in the kubelet's table).
const OOM_SCORE_ADJ: &str = "-998";
const ORDER_MAX_BYTES: u64 = 1 << 16;

/// Makes the namespace with its first process and binds it to its pin. Comes back in the process that was started, once the
/// other needs nothing of the host any more.
pub fn start() -> Result<(), StartError> {
    let step = |what: &'static str| move |source: io::Error| StartError::Step { what, source };
    let mut order = read_order().map_err(step("read standard input"))?.into_iter();
    let pins = order.next().ok_or(StartError::Usage)?;
    let cgroups: Vec<PathBuf> = order.collect();
    for (kind, flag) in
        [("net", CloneFlags::CLONE_NEWNET), ("ipc", CloneFlags::CLONE_NEWIPC), ("uts", CloneFlags::CLONE_NEWUTS)]
    {
        enter(&pins.join(kind), flag)?;
    }
    let unified = crate::unified(&cgroups)?;
    nix::sched::unshare(CloneFlags::CLONE_NEWPID).map_err(|e| step("make a pid namespace")(e.into()))?;
    let (ready, not_yet) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| step("pipe")(e.into()))?;
    let child = match sys::fork_into(unified.as_ref().map(|c| c.as_fd())).map_err(step("fork"))? {
        Forked::Child => None,
        Forked::Parent(pid) => Some(pid),
    };
    drop(unified);
    let Some(pid) = child else {
        drop(ready);
        let null = crate::null().map_err(step("open /dev/null"))?;
        become_nobody(&pins, &cgroups)?;
        crate::detach_stdio(&null).map_err(step("detach from standard streams"))?;
        drop(null);
        rustix::io::write(&not_yet, &[1]).map_err(|e| step("say that it is there")(e.into()))?;
        drop(not_yet);
        reap()
    };
    drop(not_yet);
    pin(pid, &layout::pid_pin(&pins)).inspect_err(|_| {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
    })?;
    match rustix::io::read(&ready, &mut [0; 1]) {
        Ok(1) => Ok(()),
        // It has said why.
        Ok(_) => Err(step("wait for the first process")(io::ErrorKind::BrokenPipe.into())),
        Err(e) => Err(step("wait for the first process")(e.into())),
    }
}

/// Paths, each ended by a zero: that of the pins, then the cgroup's in each hierarchy. They come by standard input because
/// everyone in the pod may read the arguments of its first process.
fn read_order() -> io::Result<Vec<PathBuf>> {
    let mut bytes = Vec::new();
    io::stdin().take(ORDER_MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes
        .split(|byte| *byte == 0)
        .filter(|path| !path.is_empty())
        .map(|path| OsStr::from_bytes(path).into())
        .collect())
}

/// Where the pod has the host's namespace, there is no pin.
fn enter(pin: &Path, kind: CloneFlags) -> Result<(), StartError> {
    let failed = |source| StartError::Path { what: "enter", path: pin.to_owned(), source };
    match File::open(pin) {
        Ok(file) => nix::sched::setns(file, kind).map_err(|e| failed(e.into())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failed(e)),
    }
}

fn pin(pid: i32, at: &Path) -> Result<(), StartError> {
    let failed = |source| StartError::Path { what: "bind the pid namespace to", path: at.to_owned(), source };
    File::create(at).map_err(failed)?;
    rustix::mount::mount_bind(format!("/proc/{pid}/ns/pid"), at).map_err(|e| failed(e.into()))
}

/// Lays down everything that a host's root has.
fn become_nobody(pins: &Path, cgroups: &[PathBuf]) -> Result<(), StartError> {
    let step = |what: &'static str| move |source: io::Error| StartError::Step { what, source };
    crate::join_legacy(cgroups);
    // Without CAP_SYS_RESOURCE it is as dear as its pod.
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ);
    rustix::process::setsid().map_err(|e| step("setsid")(e.into()))?;
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).map_err(|e| step("make a mount namespace")(e.into()))?;
    empty_root(pins).map_err(|e| step("change to an empty root")(e.into()))?;
    rustix::process::umask(rustix::fs::Mode::empty());
    for capability in 0..64 {
        if !sys::drop_bounding(capability).map_err(step("drop capabilities"))? {
            break;
        }
    }
    sys::clear_ambient().map_err(step("drop capabilities"))?;
    sys::set_no_new_privs().map_err(step("set no_new_privs"))?;
    sys::set_ids(USER, USER, &[]).map_err(step("change to nobody"))?;
    sys::capset(0, 0, 0).map_err(step("drop capabilities"))
}

/// Over the folder of the pins, in this process' view alone.
fn empty_root(at: &Path) -> rustix::io::Result<()> {
    let bare = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    rustix::mount::mount("none", at, "tmpfs", bare, Some(c"mode=555,nr_inodes=1"))?;
    rustix::process::chdir(at)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")
}

/// No signal from within the namespace ends its first process, which handles none; the host's SIGKILL does.
fn reap() -> ! {
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    let _ = children.thread_block();
    loop {
        // The other answers: there are children, but none that has ended, or there are none.
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG))
            && status != WaitStatus::StillAlive
        {}
        let _ = children.wait();
    }
}
