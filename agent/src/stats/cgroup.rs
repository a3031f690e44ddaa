//! What the kernel's cgroup files tell beyond CRI: throttling, page cache, bytes read and written, limits. Where a
//! controller is not there, its numbers are left out.

use std::fs;
use std::path::{Path, PathBuf};

/// A v1 limit above this is none (the largest page-aligned i64).
const V1_UNLIMITED: u64 = 0x7fff_ffff_ffff_f000;

/// The hierarchies of this host by their mount point.
#[derive(Clone, Debug)]
pub struct Folders {
    root: PathBuf,
    unified: bool,
}

/// What a container's cgroup tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extra {
    pub periods: Option<u64>,
    pub throttled_periods: Option<u64>,
    pub throttled_nanos: Option<u64>,
    pub user_nanos: Option<u64>,
    pub system_nanos: Option<u64>,
    pub cache_bytes: Option<u64>,
    pub mapped_bytes: Option<u64>,
    pub memory_max_bytes: Option<u64>,
    /// How often it was at its limit.
    pub memory_failures: Option<u64>,
    pub oom_kills: Option<u64>,
    pub read_bytes: Option<u64>,
    pub written_bytes: Option<u64>,
    /// 0 where there is none.
    pub memory_limit_bytes: Option<u64>,
    pub quota_micros: Option<u64>,
    pub period_micros: Option<u64>,
    /// v1's share; v2's weight is not what dashboards divide by.
    pub shares: Option<u64>,
    pub processes: Option<u64>,
}

impl Folders {
    pub fn detect() -> Folders {
        Folders::at("/sys/fs/cgroup".into())
    }

    pub fn at(root: PathBuf) -> Folders {
        let unified = root.join("cgroup.controllers").exists();
        Folders { root, unified }
    }

    /// The folder of a cgroup where one of `controllers` is: v1 mounts some together and calls the mount by both.
    fn folder(&self, controllers: &[&str], path: &str) -> PathBuf {
        let below = path.trim_start_matches('/');
        if self.unified {
            return self.root.join(below);
        }
        let mounts = controllers.iter().map(|name| self.root.join(name));
        mounts.into_iter().find(|mount| mount.exists()).unwrap_or_else(|| self.root.join("none")).join(below)
    }

    pub fn cpu_nanos(&self, path: &str) -> Option<u64> {
        if self.unified {
            return micros(&text(&self.folder(&[], path).join("cpu.stat")), "usage_usec");
        }
        number(&self.folder(&["cpuacct", "cpu,cpuacct"], path).join("cpuacct.usage"))
    }

    pub fn extra(&self, path: &str) -> Extra {
        if self.unified { self.extra_unified(path) } else { self.extra_legacy(path) }
    }

    fn extra_unified(&self, path: &str) -> Extra {
        let folder = self.folder(&[], path);
        let (cpu, memory) = (text(&folder.join("cpu.stat")), text(&folder.join("memory.stat")));
        let events = text(&folder.join("memory.events"));
        let io = text(&folder.join("io.stat"));
        let sum = |key: &str| {
            let words = io.split_whitespace().filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok());
            (!io.is_empty()).then(|| words.sum())
        };
        let quota = text(&folder.join("cpu.max"));
        let mut quota = quota.split_whitespace();
        Extra {
            periods: field(&cpu, "nr_periods"),
            throttled_periods: field(&cpu, "nr_throttled"),
            throttled_nanos: micros(&cpu, "throttled_usec"),
            user_nanos: micros(&cpu, "user_usec"),
            system_nanos: micros(&cpu, "system_usec"),
            cache_bytes: field(&memory, "file"),
            mapped_bytes: field(&memory, "file_mapped"),
            memory_max_bytes: number(&folder.join("memory.peak")),
            memory_failures: field(&events, "max"),
            oom_kills: field(&events, "oom_kill"),
            read_bytes: sum("rbytes="),
            written_bytes: sum("wbytes="),
            memory_limit_bytes: limit(&text(&folder.join("memory.max"))),
            quota_micros: quota.next().and_then(|word| word.parse().ok()),
            period_micros: quota.next().and_then(|word| word.parse().ok()),
            shares: None,
            processes: number(&folder.join("pids.current")),
        }
    }

    fn extra_legacy(&self, path: &str) -> Extra {
        let (cpu, memory) = (self.folder(&["cpu", "cpu,cpuacct"], path), self.folder(&["memory"], path));
        let (stat, of_memory) = (text(&cpu.join("cpu.stat")), text(&memory.join("memory.stat")));
        let used = text(&self.folder(&["cpuacct", "cpu,cpuacct"], path).join("cpuacct.stat"));
        let io = text(&self.folder(&["blkio"], path).join("blkio.throttle.io_service_bytes"));
        let sum = |key: &str| {
            let lines = io.lines().filter_map(|line| line.split_once(key)?.1.trim().parse::<u64>().ok());
            (!io.is_empty()).then(|| lines.sum())
        };
        let ticks = |name: &str| field(&used, name).map(|ticks| ticks.saturating_mul(10_000_000));
        Extra {
            periods: field(&stat, "nr_periods"),
            throttled_periods: field(&stat, "nr_throttled"),
            throttled_nanos: field(&stat, "throttled_time"),
            user_nanos: ticks("user"),
            system_nanos: ticks("system"),
            cache_bytes: field(&of_memory, "total_cache"),
            mapped_bytes: field(&of_memory, "total_mapped_file"),
            memory_max_bytes: number(&memory.join("memory.max_usage_in_bytes")),
            memory_failures: number(&memory.join("memory.failcnt")),
            oom_kills: field(&text(&memory.join("memory.oom_control")), "oom_kill"),
            read_bytes: sum(" Read "),
            written_bytes: sum(" Write "),
            memory_limit_bytes: number(&memory.join("memory.limit_in_bytes"))
                .map(|limit| if limit >= V1_UNLIMITED { 0 } else { limit }),
            // -1, which is no such number, where there is none.
            quota_micros: number(&cpu.join("cpu.cfs_quota_us")),
            period_micros: number(&cpu.join("cpu.cfs_period_us")),
            shares: number(&cpu.join("cpu.shares")),
            processes: number(&self.folder(&["pids"], path).join("pids.current")),
        }
    }
}

fn limit(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(0),
        number => number.parse().ok(),
    }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn number(path: &Path) -> Option<u64> {
    text(path).trim().parse().ok()
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

fn micros(text: &str, name: &str) -> Option<u64> {
    field(text, name).map(|micros| micros.saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn version_2_is_one_folder() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "cgroup.controllers", "cpu memory\n");
        write(
            root.path(),
            "p/c/cpu.stat",
            "usage_usec 5\nuser_usec 3\nnr_periods 9\nnr_throttled 2\nthrottled_usec 4\n",
        );
        write(root.path(), "p/c/memory.stat", "anon 1\nfile 77\nfile_mapped 7\n");
        write(root.path(), "p/c/memory.events", "max 3\noom_kill 1\n");
        write(root.path(), "p/c/memory.max", "max\n");
        write(root.path(), "p/c/cpu.max", "max 100000\n");
        write(root.path(), "p/c/io.stat", "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=1 wbytes=2 rios=1\n");
        let folders = Folders::at(root.path().to_owned());
        assert_eq!(folders.cpu_nanos("/p/c"), Some(5000));
        let extra = folders.extra("/p/c");
        assert_eq!((extra.throttled_periods, extra.throttled_nanos), (Some(2), Some(4000)));
        assert_eq!((extra.cache_bytes, extra.memory_failures, extra.oom_kills), (Some(77), Some(3), Some(1)));
        assert_eq!((extra.read_bytes, extra.written_bytes), (Some(11), Some(22)));
        assert_eq!((extra.memory_limit_bytes, extra.quota_micros, extra.period_micros), (Some(0), None, Some(100_000)));
    }

    #[test]
    fn version_1_is_a_folder_a_controller() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "cpu,cpuacct/p/cpuacct.usage", "5\n");
        write(root.path(), "cpu,cpuacct/p/cpu.stat", "nr_periods 9\nnr_throttled 2\nthrottled_time 4\n");
        write(root.path(), "cpu,cpuacct/p/cpu.cfs_quota_us", "-1\n");
        write(root.path(), "memory/p/memory.limit_in_bytes", "9223372036854771712\n");
        write(root.path(), "blkio/p/blkio.throttle.io_service_bytes", "8:0 Read 10\n8:0 Write 20\nTotal 30\n");
        let folders = Folders::at(root.path().to_owned());
        assert_eq!(folders.cpu_nanos("/p"), Some(5));
        let extra = folders.extra("/p");
        assert_eq!((extra.throttled_periods, extra.throttled_nanos), (Some(2), Some(4)));
        assert_eq!((extra.memory_limit_bytes, extra.quota_micros), (Some(0), None));
        assert_eq!((extra.read_bytes, extra.written_bytes, extra.processes), (Some(10), Some(20), None));
    }
}
