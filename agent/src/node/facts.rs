//! What the machine says of itself, read from /proc, /sys and the file system.

use std::path::Path;

/// Below this share of free room the disk is under pressure; upstream's nodefs.available default.
const DISK_FREE_MIN_PERCENT: u64 = 10;
const INODES_FREE_MIN_PERCENT: u64 = 5;
/// Upstream's memory.available default.
const MEMORY_FREE_MIN_BYTES: i64 = 100 << 20;
const PIDS_FREE_MIN: i64 = 256;

#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    pub hostname: String,
    pub cpus: i64,
    pub memory_bytes: i64,
    pub memory_available_bytes: i64,
    pub storage_bytes: i64,
    pub disk_pressure: bool,
    pub memory_pressure: bool,
    pub pid_pressure: bool,
    pub kernel: String,
    pub os_image: String,
    pub machine_id: String,
    pub boot_id: String,
    pub system_uuid: String,
    pub architecture: &'static str,
    /// Why it is not ready, where it is not.
    pub runtime: Result<(), String>,
    pub network: Result<(), String>,
    pub runtime_version: String,
}

impl Facts {
    pub fn is_ready(&self) -> bool {
        self.runtime.is_ok() && self.network.is_ok()
    }

    pub fn read(data_dir: &Path) -> Facts {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let line = |path: &str| text(path).trim().to_owned();
        let memory = text("/proc/meminfo");
        let available = meminfo(&memory, "MemAvailable");
        let disk = rustix::fs::statvfs(data_dir).or_else(|_| rustix::fs::statvfs("/")).ok();
        let share = |free: u64, all: u64| (free * 100).checked_div(all).unwrap_or(100);
        let pids =
            line("/proc/sys/kernel/pid_max").parse::<i64>().unwrap_or(i64::MAX) - threads(&text("/proc/loadavg"));
        Facts {
            hostname: line("/proc/sys/kernel/hostname"),
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as i64),
            memory_bytes: meminfo(&memory, "MemTotal"),
            memory_available_bytes: available,
            storage_bytes: disk.as_ref().map_or(0, |d| (d.f_blocks * d.f_frsize) as i64),
            disk_pressure: disk.is_some_and(|d| {
                share(d.f_bavail, d.f_blocks) < DISK_FREE_MIN_PERCENT
                    || share(d.f_favail, d.f_files) < INODES_FREE_MIN_PERCENT
            }),
            memory_pressure: available < MEMORY_FREE_MIN_BYTES,
            pid_pressure: pids < PIDS_FREE_MIN,
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: os_name(&text("/etc/os-release")),
            machine_id: line("/etc/machine-id"),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            system_uuid: line("/sys/class/dmi/id/product_uuid"),
            architecture: architecture(),
            runtime: Ok(()),
            network: Ok(()),
            runtime_version: String::new(),
        }
    }
}

/// Go's names, which images and node labels use.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "riscv64" => "riscv64",
        other => other,
    }
}

fn meminfo(text: &str, field: &str) -> i64 {
    let line = text.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|l| l.split_whitespace().next()?.parse::<i64>().ok()).unwrap_or(0) * 1024
}

/// The fourth field is `running/all`.
fn threads(loadavg: &str) -> i64 {
    loadavg.split_whitespace().nth(3).and_then(|f| f.split_once('/')?.1.parse().ok()).unwrap_or(0)
}

fn os_name(release: &str) -> String {
    let value = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    value.map_or_else(|| "Linux".to_owned(), |v| v.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_read() {
        assert_eq!(meminfo("MemTotal:       16 kB\nMemAvailable:    8 kB\n", "MemAvailable"), 8192);
        assert_eq!(threads("0.1 0.2 0.3 2/345 999\n"), 345);
        assert_eq!(os_name("ID=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"), "Debian GNU/Linux 12");
    }

    #[test]
    fn this_machine_has_something() {
        let facts = Facts::read(Path::new("/"));
        assert!(facts.cpus > 0 && facts.memory_bytes > 0 && facts.storage_bytes > 0 && !facts.kernel.is_empty());
    }
}
