//! What the machine says of itself, read from /proc, /sys and the file system.

use std::collections::BTreeMap;
use std::path::Path;

use gantry_cri::v1;

use crate::eviction::Pressures;

#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    pub hostname: String,
    pub cpus: i64,
    pub memory_bytes: i64,
    pub swap_bytes: i64,
    /// Bytes of huge pages that the host has set aside, by the size of a page.
    pub huge_pages: BTreeMap<i64, i64>,
    pub storage_bytes: i64,
    /// What it runs short of.
    pub pressures: Pressures,
    /// Its machine is about to end.
    pub shutting_down: bool,
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
    /// Whether it keeps to a pod's `supplementalGroupsPolicy`.
    pub supplemental_groups_policy: bool,
    pub handlers: Vec<Handler>,
    /// Those that are worth telling: see [`images`].
    pub images: Vec<Image>,
}

/// A handler of the runtime, and what it can.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handler {
    /// Empty for the one that is used where no RuntimeClass is named.
    pub name: String,
    pub recursive_read_only_mounts: bool,
    pub user_namespaces: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    pub names: Vec<String>,
    pub size_bytes: i64,
}

/// As many as the kubelet's defaults tell of.
const IMAGES_MAX: usize = 50;
const NAMES_MAX: usize = 5;

/// The largest images, by which the scheduler prefers nodes: digests before tags.
pub fn images(all: Vec<v1::Image>) -> Vec<Image> {
    let told = |image: v1::Image| Image {
        names: image.repo_digests.into_iter().chain(image.repo_tags).take(NAMES_MAX).collect(),
        size_bytes: i64::try_from(image.size).unwrap_or(i64::MAX),
    };
    let mut images: Vec<Image> = all.into_iter().map(told).filter(|image| !image.names.is_empty()).collect();
    images.sort_by(|a, b| b.size_bytes.cmp(&a.size_bytes).then_with(|| a.names.cmp(&b.names)));
    images.truncate(IMAGES_MAX);
    images
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
            swap_bytes: meminfo(&memory, "SwapTotal"),
            huge_pages: huge_pages(Path::new("/sys/kernel/mm/hugepages")),
            storage_bytes: disk.as_ref().map_or(0, |d| (d.f_blocks * d.f_frsize) as i64),
            pressures: Pressures::new(),
            shutting_down: false,
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: os_name(&text("/etc/os-release")),
            machine_id: line("/etc/machine-id"),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            system_uuid: line("/sys/class/dmi/id/product_uuid"),
            architecture: architecture(),
            runtime: Ok(()),
            network: Ok(()),
            runtime_version: String::new(),
            supplemental_groups_policy: false,
            handlers: Vec::new(),
            images: Vec::new(),
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

/// Folders are called `hugepages-2048kB` (Documentation/admin-guide/mm/hugetlbpage.rst).
fn huge_pages(folder: &Path) -> BTreeMap<i64, i64> {
    let of = |entry: std::fs::DirEntry| {
        let kib: i64 = entry.file_name().to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let count: i64 = std::fs::read_to_string(entry.path().join("nr_hugepages")).ok()?.trim().parse().ok()?;
        let size = kib.checked_mul(1024)?;
        Some((size, size.checked_mul(count)?))
    };
    std::fs::read_dir(folder).into_iter().flatten().flatten().filter_map(of).collect()
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
    fn huge_pages_are_counted_by_size() {
        let folder = tempfile::tempdir().unwrap();
        for (size, count) in [("hugepages-2048kB", "3\n"), ("hugepages-1048576kB", "0\n"), ("something", "9\n")] {
            let at = folder.path().join(size);
            std::fs::create_dir(&at).unwrap();
            std::fs::write(at.join("nr_hugepages"), count).unwrap();
        }
        assert_eq!(huge_pages(folder.path()), BTreeMap::from([(2 << 20, 6 << 20), (1 << 30, 0)]));
    }

    #[test]
    fn the_largest_images_are_told_by_a_few_names() {
        let image = |size, names: usize| v1::Image {
            repo_tags: (0..names).map(|n| format!("i{size}:{n}")).collect(),
            repo_digests: vec![format!("i{size}@sha256:0")],
            size,
            ..v1::Image::default()
        };
        let nameless = v1::Image { size: 1_000, ..v1::Image::default() };
        let told = images((0..80).map(|size| image(size, 9)).chain([nameless]).collect());
        assert_eq!(told.len(), IMAGES_MAX);
        assert_eq!((told[0].size_bytes, told[0].names.len()), (79, NAMES_MAX));
        assert_eq!(told[0].names[..2], ["i79@sha256:0".to_owned(), "i79:0".to_owned()]);
        assert_eq!(told[49].size_bytes, 30);
    }

    #[test]
    fn this_machine_has_something() {
        let facts = Facts::read(Path::new("/"));
        assert!(facts.cpus > 0 && facts.memory_bytes > 0 && facts.storage_bytes > 0 && !facts.kernel.is_empty());
    }
}
