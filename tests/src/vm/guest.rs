//! Process 1 of a machine: mounts what a host has, runs one command, writes how it ended, and powers off.

use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, ExitStatus};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::Pid;

use super::{Answer, Order};

pub const ORDER: &str = "order.json";
pub const ANSWER: &str = "answer.json";
/// Where the folder that the host shares is mounted: a place that every tree has and no test looks at.
pub const SHARED: &str = "/mnt";
/// (what, where, type, data). The root is the host's and cannot be written to; these are the machine's own.
const MOUNTS: &[(&str, &str, &str, &str)] = &[
    ("proc", "/proc", "proc", ""),
    ("sysfs", "/sys", "sysfs", ""),
    ("devtmpfs", "/dev", "devtmpfs", "mode=0755"),
    ("tmpfs", "/run", "tmpfs", "mode=0755"),
    ("tmpfs", "/tmp", "tmpfs", "mode=1777"),
    ("tmpfs", "/var/lib", "tmpfs", "mode=0755"),
    ("tmpfs", "/var/log", "tmpfs", "mode=0755"),
    ("cgroup2", "/sys/fs/cgroup", "cgroup2", "nsdelegate"),
];

/// The folder that the host shares is of this type and has this name. Never returns: when there is nothing more to do, the machine is off.
pub fn init(kind: &str, shared: &str) -> ! {
    if let Err(error) = serve(kind, shared) {
        eprintln!("init: {error}");
    }
    rustix::fs::sync();
    let _ = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
    // A kernel that cannot power off would panic over the end of process 1.
    std::process::exit(1)
}

fn serve(kind: &str, shared: &str) -> io::Result<()> {
    for (what, at, kind, data) in MOUNTS {
        match mount(Some(*what), *at, Some(*kind), MsFlags::empty(), Some(*data)) {
            // Some kernels mount their devices themselves.
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(error) => return Err(named(at, error.into())),
        }
    }
    for folder in ["/dev/pts", "/dev/shm"] {
        std::fs::create_dir_all(folder)?;
    }
    mount(Some("devpts"), "/dev/pts", Some("devpts"), MsFlags::empty(), Some("ptmxmode=0666"))?;
    mount(Some("tmpfs"), "/dev/shm", Some("tmpfs"), MsFlags::empty(), Some("mode=1777"))?;
    for (name, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        symlink(target, Path::new("/dev").join(name))?;
    }
    // User-mode Linux takes the host's path as an option, a virtual device has a name of its own.
    let data = if kind == "hostfs" { shared } else { "" };
    mount(Some(shared), SHARED, Some(kind), MsFlags::empty(), Some(data)).map_err(|e| named(SHARED, e.into()))?;
    std::fs::write("/proc/sys/kernel/core_pattern", format!("{SHARED}/core.%e.%p"))?;
    nix::unistd::sethostname("machine")?;
    Command::new("ip").args(["link", "set", "lo", "up"]).status()?;

    let shared = Path::new(SHARED);
    let order: Order = serde_json::from_slice(&std::fs::read(shared.join(ORDER))?)?;
    let uptime = std::fs::read_to_string("/proc/uptime")?;
    let status = run(&order)?;
    let answer = Answer {
        code: super::code(status),
        kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        controllers: std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")?.trim().to_owned(),
        boot_seconds: uptime.split(' ').next().and_then(|seconds| seconds.parse().ok()).unwrap_or_default(),
    };
    std::fs::write(shared.join(ANSWER), serde_json::to_vec(&answer)?)
}

/// Runs the command, and reaps whatever else comes to its end: orphans are process 1's.
fn run(order: &Order) -> io::Result<ExitStatus> {
    let mut command = Command::new(&order.program);
    command.args(&order.arguments).current_dir(&order.folder).env_clear().envs(order.environment.iter().cloned());
    let child = command.spawn().map_err(|error| named(&order.program.display().to_string(), error))?;
    let own = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    loop {
        use std::os::unix::process::ExitStatusExt;
        match wait() {
            Ok(WaitStatus::Exited(pid, code)) if pid == own => return Ok(ExitStatus::from_raw(code << 8)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == own => return Ok(ExitStatus::from_raw(signal as i32)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn named(what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
