//! What the machine says of itself, read from /proc, /sys and the file system.

use std::path::Path;

use crate::eviction::Pressures;

#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    pub hostname: String,
    pub cpus: i64,
    pub memory_bytes: i64,
    pub storage_bytes: i64,
    /// What it runs short of.
    pub pressures: Pressures,
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
        let disk = rustix::fs::statvfs(data_dir).or_else(|_| rustix::fs::statvfs("/")).ok();
        Facts {
            hostname: line("/proc/sys/kernel/hostname"),
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as i64),
            memory_bytes: meminfo(&memory, "MemTotal"),
            storage_bytes: disk.as_ref().map_or(0, |d| (d.f_blocks * d.f_frsize) as i64),
            pressures: Pressures::new(),
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
        assert_eq!(os_name("ID=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"), "Debian GNU/Linux 12");
    }

    #[test]
    fn this_machine_has_something() {
        let facts = Facts::read(Path::new("/"));
        assert!(facts.cpus > 0 && facts.memory_bytes > 0 && facts.storage_bytes > 0 && !facts.kernel.is_empty());
    }
}
