//! What a cgroup's files tell beyond what CRI's statistics have room for. A controller that is not there leaves its numbers out.

use std::fs;
use std::path::Path;

use super::Hierarchies;
use super::stats::{V1_UNLIMITED, field, read_number, text};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    pub user_nanos: Option<u64>,
    pub system_nanos: Option<u64>,
    pub periods: Option<u64>,
    pub throttled_periods: Option<u64>,
    pub throttled_nanos: Option<u64>,
    pub quota_micros: Option<u64>,
    pub period_micros: Option<u64>,
    pub cache_bytes: Option<u64>,
    pub mapped_bytes: Option<u64>,
    pub kernel_bytes: Option<u64>,
    pub memory_max_bytes: Option<u64>,
    /// How often it was at its limit.
    pub memory_failures: Option<u64>,
    pub oom_kills: Option<u64>,
    /// Limits are 0 where there are none.
    pub reservation_bytes: Option<u64>,
    pub swap_limit_bytes: Option<u64>,
    pub threads: Option<u64>,
    pub threads_max: Option<u64>,
    pub huge_pages: Vec<HugePages>,
    pub disks: Vec<Disk>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HugePages {
    /// As the kernel writes it in the names of files, such as `2MB`.
    pub size: String,
    pub bytes: Option<u64>,
    pub max_bytes: Option<u64>,
}

/// What went to and from one block device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    pub major: u32,
    pub minor: u32,
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub reads: u64,
    pub writes: u64,
}

/// Of user time and system time, v1 counts hundredths of a second (USER_HZ).
const TICK_NANOS: u64 = 10_000_000;

impl Hierarchies {
    pub fn detail(&self, path: &str) -> Detail {
        if self.unified() { unified(&self.folders(path)[0]) } else { self.legacy_detail(path) }
    }

    fn legacy_detail(&self, path: &str) -> Detail {
        let file = |controller: &str, file: &str| {
            self.folder(path, controller).map(|folder| text(&folder.join(file))).unwrap_or_default()
        };
        let number = |controller: &str, name: &str| file(controller, name).trim().parse::<u64>().ok();
        let limit = |name: &str| number("memory", name).map(|limit| if limit >= V1_UNLIMITED { 0 } else { limit });
        let (times, throttling) = (file("cpuacct", "cpuacct.stat"), file("cpu", "cpu.stat"));
        let memory = file("memory", "memory.stat");
        let (bytes, counts) =
            (file("blkio", "blkio.throttle.io_service_bytes"), file("blkio", "blkio.throttle.io_serviced"));
        Detail {
            user_nanos: field(&times, "user").map(|ticks| ticks.saturating_mul(TICK_NANOS)),
            system_nanos: field(&times, "system").map(|ticks| ticks.saturating_mul(TICK_NANOS)),
            periods: field(&throttling, "nr_periods"),
            throttled_periods: field(&throttling, "nr_throttled"),
            throttled_nanos: field(&throttling, "throttled_time"),
            // -1, which is no such number, where there is none.
            quota_micros: number("cpu", "cpu.cfs_quota_us"),
            period_micros: number("cpu", "cpu.cfs_period_us"),
            cache_bytes: field(&memory, "total_cache"),
            mapped_bytes: field(&memory, "total_mapped_file"),
            kernel_bytes: number("memory", "memory.kmem.usage_in_bytes"),
            memory_max_bytes: number("memory", "memory.max_usage_in_bytes"),
            memory_failures: number("memory", "memory.failcnt"),
            oom_kills: field(&file("memory", "memory.oom_control"), "oom_kill"),
            reservation_bytes: limit("memory.soft_limit_in_bytes"),
            swap_limit_bytes: limit("memory.memsw.limit_in_bytes"),
            threads: number("pids", "pids.current"),
            threads_max: unlimited(&file("pids", "pids.max")),
            huge_pages: self.folder(path, "hugetlb").map(|f| huge_pages(&f, ".usage_in_bytes")).unwrap_or_default(),
            disks: legacy_disks(&bytes, &counts),
        }
    }
}

fn unified(folder: &Path) -> Detail {
    let file = |name: &str| text(&folder.join(name));
    let (cpu, memory, events) = (file("cpu.stat"), file("memory.stat"), file("memory.events"));
    let micros = |name: &str| field(&cpu, name).map(|micros| micros.saturating_mul(1000));
    let quota = file("cpu.max");
    let mut quota = quota.split_whitespace();
    Detail {
        user_nanos: micros("user_usec"),
        system_nanos: micros("system_usec"),
        periods: field(&cpu, "nr_periods"),
        throttled_periods: field(&cpu, "nr_throttled"),
        throttled_nanos: micros("throttled_usec"),
        quota_micros: quota.next().and_then(|word| word.parse().ok()),
        period_micros: quota.next().and_then(|word| word.parse().ok()),
        cache_bytes: field(&memory, "file"),
        mapped_bytes: field(&memory, "file_mapped"),
        kernel_bytes: field(&memory, "kernel"),
        memory_max_bytes: read_number(&folder.join("memory.peak")),
        memory_failures: field(&events, "max"),
        oom_kills: field(&events, "oom_kill"),
        reservation_bytes: read_number(&folder.join("memory.low")),
        swap_limit_bytes: unlimited(&file("memory.swap.max")),
        threads: read_number(&folder.join("pids.current")),
        threads_max: unlimited(&file("pids.max")),
        huge_pages: huge_pages(folder, ".current"),
        disks: file("io.stat").lines().filter_map(unified_disk).collect(),
    }
}

/// `max` is no limit.
fn unlimited(text: &str) -> Option<u64> {
    if text.trim() == "max" { Some(0) } else { text.trim().parse().ok() }
}

/// `hugetlb.2MB.usage_in_bytes` and the like, a file a size; what is reserved has files of its own (`hugetlb.2MB.rsvd.…`).
fn huge_pages(folder: &Path, used: &str) -> Vec<HugePages> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|e| e.file_name().into_string().ok());
    let size = |name: String| name.strip_prefix("hugetlb.")?.strip_suffix(used).map(str::to_owned);
    let mut sizes: Vec<String> = names.filter_map(size).filter(|size| !size.contains('.')).collect();
    sizes.sort();
    let number = |size: &str, file: &str| read_number(&folder.join(format!("hugetlb.{size}{file}")));
    let pages =
        |size: String| HugePages { bytes: number(&size, used), max_bytes: number(&size, ".max_usage_in_bytes"), size };
    sizes.into_iter().map(pages).collect()
}

fn device(word: &str) -> Option<(u32, u32)> {
    let (major, minor) = word.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`
fn unified_disk(line: &str) -> Option<Disk> {
    let mut words = line.split_whitespace();
    let (major, minor) = device(words.next()?)?;
    let mut disk = Disk { major, minor, ..Disk::default() };
    for (name, value) in words.filter_map(|word| word.split_once('=')) {
        let Ok(value) = value.parse() else { continue };
        match name {
            "rbytes" => disk.read_bytes = value,
            "wbytes" => disk.written_bytes = value,
            "rios" => disk.reads = value,
            "wios" => disk.writes = value,
            _ => {}
        }
    }
    Some(disk)
}

/// `8:0 Read 123`, a line a device and operation; sums and the sum of all at the end are left out.
fn legacy_disks(bytes: &str, counts: &str) -> Vec<Disk> {
    let mut disks: Vec<Disk> = Vec::new();
    for (text, of_bytes) in [(bytes, true), (counts, false)] {
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let &[name, operation, value] = words.as_slice() else { continue };
            let (Some((major, minor)), Ok(value)) = (device(name), value.parse()) else { continue };
            let at = disks.iter().position(|disk| (disk.major, disk.minor) == (major, minor)).unwrap_or_else(|| {
                disks.push(Disk { major, minor, ..Disk::default() });
                disks.len() - 1
            });
            match (operation, of_bytes) {
                ("Read", true) => disks[at].read_bytes = value,
                ("Write", true) => disks[at].written_bytes = value,
                ("Read", false) => disks[at].reads = value,
                ("Write", false) => disks[at].writes = value,
                _ => {}
            }
        }
    }
    disks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_read_from_both_forms() {
        let disk = Disk { major: 8, minor: 16, read_bytes: 1, written_bytes: 2, reads: 3, writes: 4 };
        assert_eq!(unified_disk("8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6"), Some(disk.clone()));
        assert_eq!(unified_disk("8:16"), Some(Disk { major: 8, minor: 16, ..Disk::default() }), "nothing yet");
        for bad in ["", "8", "x:y rbytes=1"] {
            assert_eq!(unified_disk(bad), None, "{bad:?}");
        }
        let bytes = "8:16 Read 1\n8:16 Write 2\n8:16 Sync 3\n8:16 Total 3\n7:0 Read 9\nTotal 12\n";
        let loop_device = Disk { major: 7, minor: 0, read_bytes: 9, ..Disk::default() };
        assert_eq!(legacy_disks(bytes, "8:16 Read 3\n8:16 Write 4\nTotal 7\n"), [disk, loop_device]);
    }

    #[test]
    fn huge_pages_have_a_file_a_size() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in
            [("2MB.usage_in_bytes", "4"), ("2MB.max_usage_in_bytes", "6"), ("2MB.rsvd.usage_in_bytes", "8")]
        {
            fs::write(folder.path().join(format!("hugetlb.{name}")), text).unwrap();
        }
        let pages = HugePages { size: "2MB".into(), bytes: Some(4), max_bytes: Some(6) };
        assert_eq!(huge_pages(folder.path(), ".usage_in_bytes"), [pages]);
    }
}
