//! The first process of a pid namespace that the containers of a pod share. It keeps the namespace alive, reaps whoever has lost
//! its parent, and ends with nobody but itself to end it: whoever kills it ends everything in the namespace.
//!
//! Containers see it, and one with CAP_SYS_PTRACE may become it. So it has what every container of the pod has (the pod's
//! namespaces, a cgroup below the pod's) and less: no capability, no user of the host, an empty root, no open file.
//!
//! It is forked by a process in between, which has become one of the pod's users where the pod has its own: a pid namespace is
//! owned by the user namespace in which it is made.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use gantry_base::layout;
use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use rustix::fs::CWD;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags};

use crate::sys::{self, Forked};
use crate::{StartError, userns};

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
    let unified = crate::unified(&cgroups)?;
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| step("pipe")(e.into()));
    let ((number, tell), (ready, not_yet), (stay, leave)) = (pipe()?, pipe()?, pipe()?);
    let between = match sys::fork_into(unified.as_ref().map(|c| c.as_fd())).map_err(step("fork"))? {
        Forked::Parent(pid) => nix::unistd::Pid::from_raw(pid),
        Forked::Child => {
            drop((unified, number, ready, leave));
            match go_between(&pins, &cgroups)? {
                Forked::Child => match become_first(&not_yet)? {},
                Forked::Parent(pid) => {
                    drop(not_yet);
                    let _ = rustix::io::write(&tell, &pid.to_le_bytes());
                    // Its number is nobody else's for as long as its parent has not gone.
                    let _ = rustix::io::read(&stay, &mut [0; 1]);
                    sys::exit_now(0)
                }
            }
        }
    };
    drop((tell, not_yet, stay));
    let made = pin_when_made(&number, &ready, &pins);
    drop(leave);
    let _ = waitpid(between, None);
    made
}

fn pin_when_made(number: &OwnedFd, ready: &OwnedFd, pins: &Path) -> Result<(), StartError> {
    let step = |what: &'static str| move |source: io::Error| StartError::Step { what, source };
    let mut pid = [0; 4];
    match rustix::io::read(number, &mut pid) {
        Ok(4) => {}
        // It has said why.
        Ok(_) => return Err(step("wait for the first process")(io::ErrorKind::BrokenPipe.into())),
        Err(e) => return Err(step("wait for the first process")(e.into())),
    }
    let pid = i32::from_le_bytes(pid);
    pin(pid, &layout::pid_pin(pins)).inspect_err(|_| {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
    })?;
    match rustix::io::read(ready, &mut [0; 1]) {
        Ok(1) => Ok(()),
        // It ends, and is about to say why.
        Ok(_) => Err(step("wait for the first process")(io::ErrorKind::BrokenPipe.into())),
        Err(e) => Err(step("wait for the first process")(e.into())),
    }
}

/// Enters the pod's namespaces and forks in a new one of processes. Whatever needs the host's root is done before.
fn go_between(pins: &Path, cgroups: &[PathBuf]) -> Result<Forked, StartError> {
    let step = |what: &'static str| move |source: io::Error| StartError::Step { what, source };
    crate::join_legacy(cgroups);
    // Without CAP_SYS_RESOURCE it is as dear as its pod.
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ);
    for (kind, flag) in
        [("net", CloneFlags::CLONE_NEWNET), ("ipc", CloneFlags::CLONE_NEWIPC), ("uts", CloneFlags::CLONE_NEWUTS)]
    {
        enter(pins, kind, |file| Ok(nix::sched::setns(file, flag)?))?;
    }
    // Where the empty root is mounted: the pod's users find no way to it.
    rustix::process::chdir(pins).map_err(|e| step("go to the pins")(e.into()))?;
    enter(pins, "user", |file| userns::become_root(file.as_fd()))?;
    nix::sched::unshare(CloneFlags::CLONE_NEWPID).map_err(|e| step("make a pid namespace")(e.into()))?;
    sys::fork_into(None).map_err(step("fork"))
}

fn become_first(not_yet: &OwnedFd) -> Result<Infallible, StartError> {
    let step = |what: &'static str| move |source: io::Error| StartError::Step { what, source };
    let null = crate::null().map_err(step("open /dev/null"))?;
    become_nobody()?;
    crate::detach_stdio(&null).map_err(step("detach from standard streams"))?;
    rustix::io::write(not_yet, &[1]).map_err(|e| step("say that it is there")(e.into()))?;
    sys::close_all_from(3).map_err(step("close what is open"))?;
    reap()
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
fn enter(pins: &Path, kind: &str, go: impl FnOnce(&OwnedFd) -> io::Result<()>) -> Result<(), StartError> {
    let failed = |source| StartError::Path { what: "enter", path: layout::pin(pins, kind), source };
    match userns::open_pin(pins, kind) {
        Ok(file) => go(&file).map_err(failed),
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
fn become_nobody() -> Result<(), StartError> {
    let step = |what: &'static str| move |source: io::Error| StartError::Step { what, source };
    let user = userns::id_at_most(USER);
    rustix::process::setsid().map_err(|e| step("setsid")(e.into()))?;
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).map_err(|e| step("make a mount namespace")(e.into()))?;
    empty_root().map_err(|e| step("change to an empty root")(e.into()))?;
    rustix::process::umask(rustix::fs::Mode::empty());
    for capability in 0..64 {
        if !sys::drop_bounding(capability).map_err(step("drop capabilities"))? {
            break;
        }
    }
    sys::clear_ambient().map_err(step("drop capabilities"))?;
    sys::set_no_new_privs().map_err(step("set no_new_privs"))?;
    sys::set_ids(user, user, &[]).map_err(step("change to nobody"))?;
    sys::capset(0, 0, 0).map_err(step("drop capabilities"))
}

/// Over the folder of the pins, where this process is, in its view alone.
fn empty_root() -> rustix::io::Result<()> {
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let fs = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [("mode", "555"), ("nr_inodes", "1")] {
        rustix::mount::fsconfig_set_string(fs.as_fd(), key, value)?;
    }
    rustix::mount::fsconfig_create(fs.as_fd())?;
    let bare = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let root = rustix::mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, bare)?;
    // By no name: the pod's users may not look into the folder, where they stand.
    let nameless = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(&root, "", CWD, "", nameless)?;
    rustix::process::fchdir(&root)?;
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
