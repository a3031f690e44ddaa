//! The cgroup that systemd delegates to pods, by a unit of its own (`systemd/gantry-pods.service`). systemd removes a cgroup in
//! which nothing runs, also that of a unit that is active: a process that does nothing holds it. It is nobody's main
//! process, so that its end is no end of the unit, which would be the end of every pod.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Failure;

const MOUNT: &str = "/sys/fs/cgroup";
/// Where systemd runs the unit of that name, on cgroup v2.
const UNIT: &str = "/system.slice/gantry-pods.service";

/// Its path, where systemd has delegated it.
pub fn cgroup() -> Option<&'static str> {
    below(UNIT).is_dir().then_some(UNIT)
}

fn below(path: &str) -> PathBuf {
    Path::new(MOUNT).join(path.trim_start_matches('/'))
}

/// `gantry hold-cgroup`: leaves a process below the cgroup in which it is started. On version 1 there is nothing to hold.
pub fn hold() -> Result<(), Failure> {
    let text = std::fs::read_to_string("/proc/self/cgroup")?;
    let Some(own) = unified(&text) else { return Ok(()) };
    // In a leaf: a cgroup that hands controllers down to others may have no process of its own.
    let leaf = below(own).join("held");
    std::fs::create_dir_all(&leaf)?;
    std::fs::write(leaf.join("cgroup.procs"), "0")?;
    let mut holder = Command::new(std::env::current_exe()?);
    holder.args(["hold-cgroup", "--stay"]).env_clear();
    holder.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    Ok(())
}

/// What holds it. It ends by a signal.
pub fn stay() -> ! {
    loop {
        std::thread::park();
    }
}

/// The path on the one hierarchy of version 2; none on a host that has others, too.
fn unified(cgroups: &str) -> Option<&str> {
    let mut lines = cgroups.lines();
    let only = lines.next()?.strip_prefix("0::")?;
    lines.next().is_none().then_some(only)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_version_2_alone_has_a_cgroup_to_hold() {
        assert_eq!(unified("0::/system.slice/gantry-pods.service\n"), Some("/system.slice/gantry-pods.service"));
        assert_eq!(unified("1:pids:/a\n0::/a\n"), None);
        assert_eq!(unified("0::/a\n1:pids:/a\n"), None);
        assert_eq!(unified(""), None);
    }
}
