//! What a cgroup uses, read file by file: a controller that is not there leaves its numbers out.

use std::fs;
use std::path::Path;

use gantry_cri::psi;
use gantry_cri::v1::PsiStats;

use super::Hierarchies;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    pub cpu_nanos: Option<u64>,
    pub memory_bytes: Option<u64>,
    /// Without the file pages that can be dropped at once: what the kubelet evicts by.
    pub working_set_bytes: Option<u64>,
    pub rss_bytes: Option<u64>,
    pub memory_limit_bytes: Option<u64>,
    pub page_faults: Option<u64>,
    pub major_page_faults: Option<u64>,
    pub processes: Option<u64>,
    pub swap_bytes: Option<u64>,
    pub swap_limit_bytes: Option<u64>,
    pub pressure: Pressures,
}

/// How long processes stood still for want of something (the kernel's psi.rst); v1 does not count it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pressures {
    pub cpu: Option<PsiStats>,
    pub memory: Option<PsiStats>,
    pub io: Option<PsiStats>,
}

/// A v1 limit above this is none (the largest page-aligned i64).
pub(super) const V1_UNLIMITED: u64 = 0x7fff_ffff_ffff_f000;

impl Hierarchies {
    pub fn usage(&self, path: &str) -> Usage {
        if self.unified() { unified(&self.folders(path)[0]) } else { self.legacy_usage(path) }
    }

    fn legacy_usage(&self, path: &str) -> Usage {
        let number = |controller: &str, file: &str| read_number(&self.folder(path, controller)?.join(file));
        let stat = self.folder(path, "memory").map(|f| text(&f.join("memory.stat"))).unwrap_or_default();
        let memory = number("memory", "memory.usage_in_bytes");
        let inactive = field(&stat, "total_inactive_file").unwrap_or(0);
        Usage {
            cpu_nanos: number("cpuacct", "cpuacct.usage"),
            memory_bytes: memory,
            working_set_bytes: memory.map(|m| m.saturating_sub(inactive)),
            rss_bytes: field(&stat, "total_rss"),
            memory_limit_bytes: number("memory", "memory.limit_in_bytes").filter(|l| *l < V1_UNLIMITED),
            page_faults: field(&stat, "total_pgfault"),
            major_page_faults: field(&stat, "total_pgmajfault"),
            processes: number("pids", "pids.current"),
            swap_bytes: field(&stat, "total_swap"),
            swap_limit_bytes: None,
            pressure: Pressures::default(),
        }
    }

    /// Whether the kernel killed anything in it for want of memory.
    pub fn oom_killed(&self, path: &str) -> bool {
        let Some(folder) = self.folder(path, "memory") else { return false };
        let file = if self.unified() { "memory.events" } else { "memory.oom_control" };
        field(&text(&folder.join(file)), "oom_kill").is_some_and(|kills| kills > 0)
    }
}

fn unified(folder: &Path) -> Usage {
    let stat = text(&folder.join("memory.stat"));
    let memory = read_number(&folder.join("memory.current"));
    let inactive = field(&stat, "inactive_file").unwrap_or(0);
    let pressure = |file: &str| psi::parse(&text(&folder.join(file)));
    Usage {
        cpu_nanos: field(&text(&folder.join("cpu.stat")), "usage_usec").map(|us| us.saturating_mul(1000)),
        memory_bytes: memory,
        working_set_bytes: memory.map(|m| m.saturating_sub(inactive)),
        rss_bytes: field(&stat, "anon"),
        memory_limit_bytes: read_number(&folder.join("memory.max")),
        page_faults: field(&stat, "pgfault"),
        major_page_faults: field(&stat, "pgmajfault"),
        processes: read_number(&folder.join("pids.current")),
        swap_bytes: read_number(&folder.join("memory.swap.current")),
        swap_limit_bytes: read_number(&folder.join("memory.swap.max")),
        pressure: Pressures {
            cpu: pressure("cpu.pressure"),
            memory: pressure("memory.pressure"),
            io: pressure("io.pressure"),
        },
    }
}

pub(super) fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

pub(super) fn read_number(path: &Path) -> Option<u64> {
    text(path).trim().parse().ok()
}

pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_whole_words() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(field(text, "oom_kill"), Some(3));
        assert_eq!(field(text, "oom"), None);
    }
}
