//! Process 1 of a machine: mounts what a host has, runs one command, writes how it ended, and powers off. Where the command
//! wants systemd, that takes its place, with a unit that does the rest.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use gantry_netlink::route::Routes;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::Pid;
use rustix::fs::{Mode, OFlags};

use super::{Answer, Order};

pub const ORDER: &str = "order.json";
pub const ANSWER: &str = "answer.json";
/// Where the folder that the host shares is mounted: a place that every tree has and no test looks at.
pub const SHARED: &str = "/mnt";
/// (what, where, type, data). The root is the host's and cannot be written to; these are the machine's own.
pub(super) const MOUNTS: &[(&str, &str, &str, &str)] = &[
    ("proc", "/proc", "proc", ""),
    ("sysfs", "/sys", "sysfs", ""),
    ("devtmpfs", "/dev", "devtmpfs", "mode=0755"),
    ("tmpfs", "/run", "tmpfs", "mode=0755"),
    ("tmpfs", "/tmp", "tmpfs", "mode=1777"),
    ("tmpfs", "/var/lib", "tmpfs", "mode=0755"),
    ("tmpfs", "/var/log", "tmpfs", "mode=0755"),
    ("cgroup2", "/sys/fs/cgroup", "cgroup2", "nsdelegate"),
];

/// Debian's.
const SYSTEMD: &str = "/lib/systemd/systemd";
/// The one folder in which systemd looks for units: those of its own that others lean on, ours, and those that a test adds.
pub const UNITS: &str = "/run/units";
const LENT_UNITS: &[&str] = &[
    "basic.target",
    "final.target",
    "local-fs.target",
    "multi-user.target",
    "network-online.target",
    "poweroff.target",
    "shutdown.target",
    "sysinit.target",
    "systemd-journald-dev-log.socket",
    "systemd-journald.service",
    "systemd-journald.socket",
    "systemd-poweroff.service",
    "umount.target",
];

/// The folder that the host shares is of this type and has this name. Never returns: when there is nothing more to do, the machine is off.
pub fn init(kind: &str, shared: &str) -> ! {
    off_after(prepare(kind, shared).and_then(|order| if order.systemd { become_systemd() } else { obey(&order) }))
}

/// The rest of it, as systemd's unit.
pub fn serve() -> ! {
    off_after(order().and_then(|order| obey(&order)))
}

fn off_after(done: io::Result<()>) -> ! {
    if let Err(error) = done {
        eprintln!("init: {error}");
    }
    rustix::fs::sync();
    let _ = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
    // A kernel that cannot power off would panic over the end of process 1.
    std::process::exit(1)
}

fn prepare(kind: &str, shared: &str) -> io::Result<Order> {
    // User-mode Linux takes the host's path as an option, a virtual device has a name of its own.
    let data = if kind == "hostfs" { shared } else { "" };
    mount(Some(shared), SHARED, Some(kind), MsFlags::empty(), Some(data)).map_err(|e| named(SHARED, e.into()))?;
    let order = order()?;
    let covered = covered(&order)?;
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
    for (path, folder) in covered {
        std::fs::create_dir_all(&path)?;
        let open = format!("/proc/self/fd/{}", folder.as_raw_fd());
        mount(Some(open.as_str()), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    }
    std::fs::write("/proc/sys/kernel/core_pattern", format!("{SHARED}/core.%e.%p"))?;
    nix::unistd::sethostname("machine")?;
    let loopback = || {
        let mut routes = Routes::open()?;
        let index = routes.link_index("lo")?;
        routes.set_up(index)
    };
    loopback().map_err(io::Error::other)?;
    Ok(order)
}

/// What is asked for and the machine's own mounts are about to cover (a checkout below /tmp, say): the workspace, of which a
/// test's folder is one package, and the folder of the programs, two above the test's.
fn covered(order: &Order) -> io::Result<Vec<(PathBuf, OwnedFd)>> {
    let asked = [order.folder.parent(), order.program.parent().and_then(Path::parent)];
    let is_covered = |path: &&Path| MOUNTS.iter().any(|(_, at, ..)| path.starts_with(at) && *path != Path::new(at));
    let open = |path: &Path| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|e| named(&path.display().to_string(), e.into()))?;
        Ok((path.to_owned(), folder))
    };
    asked.into_iter().flatten().filter(is_covered).map(open).collect()
}

fn order() -> io::Result<Order> {
    Ok(serde_json::from_slice(&std::fs::read(Path::new(SHARED).join(ORDER))?)?)
}

/// Returns only where it cannot.
fn become_systemd() -> io::Result<()> {
    let units = Path::new(UNITS);
    std::fs::create_dir(units)?;
    for name in LENT_UNITS {
        symlink(Path::new(SYSTEMD).with_file_name("system").join(name), units.join(name))?;
    }
    let target = "[Unit]\nRequires=basic.target\nAfter=basic.target\nWants=systemd-journald.service scenario.service\n";
    std::fs::write(units.join("default.target"), target)?;
    let own = std::env::current_exe()?;
    let service = format!(
        "[Unit]\nAfter=systemd-journald.service\n\n\
         [Service]\nExecStart={} serve\nStandardOutput=file:/dev/console\nStandardError=inherit\n",
        own.display()
    );
    std::fs::write(units.join("scenario.service"), service)?;
    Err(named(SYSTEMD, Command::new(SYSTEMD).env_clear().env("SYSTEMD_UNIT_PATH", UNITS).exec()))
}

fn obey(order: &Order) -> io::Result<()> {
    let uptime = std::fs::read_to_string("/proc/uptime")?;
    let status = run(order)?;
    let answer = Answer {
        code: super::code(status),
        kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        controllers: std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")?.trim().to_owned(),
        boot_seconds: uptime.split(' ').next().and_then(|seconds| seconds.parse().ok()).unwrap_or_default(),
    };
    std::fs::write(Path::new(SHARED).join(ANSWER), serde_json::to_vec(&answer)?)
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
