//! What the host must offer, asked before anything is started: every lack is named at once, with what it is needed for.

use std::path::Path;

/// What was found. Read from the kernel by [`Facts::read`], decided about by [`problems`].
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub root: bool,
    pub kernel: (u32, u32),
    pub filesystems: Vec<String>,
    pub namespaces: Vec<String>,
    pub nf_tables: bool,
    pub cgroups: Cgroups,
    pub seccomp: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cgroups {
    Unified,
    /// Controllers are on version 1 hierarchies.
    Legacy,
    #[default]
    None,
}

/// pidfd_getfd, clone3 into a cgroup, openat2, mount_setattr.
const KERNEL_MIN: (u32, u32) = (5, 12);

/// One thing that the host lacks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("gantry must run as root: it makes namespaces, mounts and cgroups")]
    NotRoot,
    #[error("kernel {}.{} is too old: {}.{} or newer is needed (clone3, openat2, mount_setattr)", .0.0, .0.1, KERNEL_MIN.0, KERNEL_MIN.1)]
    Kernel((u32, u32)),
    #[error("the kernel has no {0} filesystem, which {1}")]
    Filesystem(&'static str, &'static str),
    #[error("the kernel has no {0} namespaces")]
    Namespace(&'static str),
    #[error("the kernel has no nf_tables (CONFIG_NF_TABLES), which services and host ports need")]
    NfTables,
    #[error("no cgroup hierarchy is mounted under /sys/fs/cgroup")]
    Cgroups,
    #[error("--cgroups=require-v2 was asked for, and the controllers of this host are on version 1 hierarchies")]
    CgroupsLegacy,
    #[error("the kernel has no seccomp filters (CONFIG_SECCOMP_FILTER)")]
    Seccomp,
}

/// Everything that is missing, in the order in which a person would mend it.
pub fn problems(facts: &Facts, require_v2: bool) -> Vec<Problem> {
    let mut found = Vec::new();
    if !facts.root {
        found.push(Problem::NotRoot);
    }
    if facts.kernel < KERNEL_MIN {
        found.push(Problem::Kernel(facts.kernel));
    }
    for (name, why) in [("overlay", "images are mounted with"), ("tmpfs", "secrets are kept on")] {
        if !facts.filesystems.iter().any(|f| f == name) {
            found.push(Problem::Filesystem(name, why));
        }
    }
    for name in ["mnt", "net", "pid", "ipc", "uts"] {
        if !facts.namespaces.iter().any(|n| n == name) {
            found.push(Problem::Namespace(name));
        }
    }
    if facts.root && !facts.nf_tables {
        found.push(Problem::NfTables);
    }
    match facts.cgroups {
        Cgroups::Unified => {}
        Cgroups::Legacy if require_v2 => found.push(Problem::CgroupsLegacy),
        Cgroups::Legacy => {}
        Cgroups::None => found.push(Problem::Cgroups),
    }
    if !facts.seccomp {
        found.push(Problem::Seccomp);
    }
    found
}

impl Facts {
    pub fn read(nf_tables: bool) -> Facts {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let mut filesystems: Vec<String> =
            text("/proc/filesystems").lines().filter_map(|l| l.split_whitespace().last()).map(str::to_owned).collect();
        // A module that is not loaded yet is there when it is first mounted.
        let module = format!("/lib/modules/{}/kernel/fs/overlayfs", text("/proc/sys/kernel/osrelease").trim());
        if Path::new(&module).exists() {
            filesystems.push("overlay".to_owned());
        }
        let entries = std::fs::read_dir("/proc/self/ns").into_iter().flatten().flatten();
        Facts {
            root: nix::unistd::geteuid().is_root(),
            kernel: kernel_version(&text("/proc/sys/kernel/osrelease")),
            filesystems,
            namespaces: entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect(),
            nf_tables,
            cgroups: cgroups(&text("/proc/mounts")),
            seccomp: text("/proc/sys/kernel/seccomp/actions_avail").contains("errno"),
        }
    }
}

fn kernel_version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn cgroups(mounts: &str) -> Cgroups {
    let kinds: Vec<(&str, &str)> = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (_, at, kind) = (fields.next()?, fields.next()?, fields.next()?);
            at.starts_with("/sys/fs/cgroup").then_some((at, kind))
        })
        .collect();
    if kinds.contains(&("/sys/fs/cgroup", "cgroup2")) {
        Cgroups::Unified
    } else if kinds.iter().any(|(_, kind)| *kind == "cgroup") {
        Cgroups::Legacy
    } else {
        Cgroups::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            root: true,
            kernel: (6, 1),
            filesystems: ["overlay", "tmpfs"].map(str::to_owned).to_vec(),
            namespaces: ["mnt", "net", "pid", "ipc", "uts"].map(str::to_owned).to_vec(),
            nf_tables: true,
            cgroups: Cgroups::Unified,
            seccomp: true,
        }
    }

    #[test]
    fn a_good_host_has_no_problems() {
        assert_eq!(problems(&good(), true), []);
    }

    #[test]
    fn every_lack_is_named_at_once() {
        let bare = Facts { kernel: (4, 19), ..Facts::default() };
        let texts: Vec<String> = problems(&bare, false).iter().map(ToString::to_string).collect();
        for word in ["root", "4.19", "overlay", "net namespaces", "cgroup", "seccomp"] {
            assert!(texts.iter().any(|t| t.contains(word)), "{word} is not named in {texts:?}");
        }
    }

    #[test]
    fn version_1_is_enough_unless_version_2_is_required() {
        let legacy = Facts { cgroups: cgroups("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n"), ..good() };
        assert_eq!(problems(&legacy, false), []);
        assert_eq!(problems(&legacy, true), [Problem::CgroupsLegacy]);
        assert_eq!(cgroups("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"), Cgroups::Unified);
    }

    #[test]
    fn releases_are_read_as_numbers() {
        assert_eq!(kernel_version("6.12.41+deb13-amd64\n"), (6, 12));
    }
}
