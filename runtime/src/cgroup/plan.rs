//! The kernel's cgroup files for a container's limits. Pure: resources in, writes out, for v1 and v2.

use gantry_cri::v1::LinuxContainerResources;

/// A write to a file of one cgroup. On v1 the controller says in which hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub controller: &'static str,
    pub file: String,
    pub value: String,
}

fn write(controller: &'static str, file: &str, value: impl ToString) -> Write {
    Write { controller, file: file.to_owned(), value: value.to_string() }
}

/// What the kubelet says when it means "as long as a period".
const DEFAULT_PERIOD_US: i64 = 100_000;

/// Limits that may stand before the process does.
pub fn limits(r: &LinuxContainerResources, unified: bool) -> Vec<Write> {
    let mut out = Vec::new();
    if r.cpu_shares > 0 {
        out.push(if unified {
            write("cpu", "cpu.weight", weight(r.cpu_shares))
        } else {
            write("cpu", "cpu.shares", r.cpu_shares)
        });
    }
    if !r.cpuset_cpus.is_empty() {
        out.push(write("cpuset", "cpuset.cpus", &r.cpuset_cpus));
    }
    if !r.cpuset_mems.is_empty() {
        out.push(write("cpuset", "cpuset.mems", &r.cpuset_mems));
    }
    memory(r, unified, &mut out);
    for page in &r.hugepage_limits {
        let file = format!("hugetlb.{}.{}", page.page_size, if unified { "max" } else { "limit_in_bytes" });
        out.push(write("hugetlb", &file, page.limit));
    }
    if unified {
        for (file, value) in &r.unified {
            let controller = if file.starts_with("pids") { "pids" } else { "memory" };
            out.push(write(controller, file, value));
        }
    } else if let Some(pids) = r.unified.get("pids.max") {
        out.push(write("pids", "pids.max", pids));
    }
    out
}

fn memory(r: &LinuxContainerResources, unified: bool, out: &mut Vec<Write>) {
    let limit = r.memory_limit_in_bytes;
    if limit == 0 {
        return;
    }
    if unified {
        out.push(write("memory", "memory.max", bytes_or_max(limit)));
        // CRI counts memory and swap together, v2 counts swap alone. Without a word there is no swap beyond the limit.
        let swap = match r.memory_swap_limit_in_bytes {
            0 => "0".to_owned(),
            all if all < 0 => "max".to_owned(),
            all => (all - limit).max(0).to_string(),
        };
        out.push(write("memory", "memory.swap.max", swap));
        // A kill takes the whole container, as it does in v1 through its first process: half a container helps nobody.
        out.push(write("memory", "memory.oom.group", 1));
    } else {
        out.push(write("memory", "memory.limit_in_bytes", limit));
        let swap = if r.memory_swap_limit_in_bytes == 0 { limit } else { r.memory_swap_limit_in_bytes };
        out.push(write("memory", "memory.memsw.limit_in_bytes", swap));
    }
}

/// The quota, which slows the creation itself when it is set before.
pub fn quota(r: &LinuxContainerResources, unified: bool) -> Vec<Write> {
    let period = if r.cpu_period > 0 { r.cpu_period } else { DEFAULT_PERIOD_US };
    match (r.cpu_quota, unified) {
        (0, _) => Vec::new(),
        (quota, true) if quota < 0 => vec![write("cpu", "cpu.max", format!("max {period}"))],
        (quota, true) => vec![write("cpu", "cpu.max", format!("{quota} {period}"))],
        (quota, false) => {
            vec![write("cpu", "cpu.cfs_period_us", period), write("cpu", "cpu.cfs_quota_us", quota)]
        }
    }
}

/// v1's device rules: nothing but what every container may have, unless it is privileged.
pub fn devices_v1(privileged: bool, extra: &[(char, u64, u64, String)]) -> Vec<Write> {
    if privileged {
        return vec![write("devices", "devices.allow", "a")];
    }
    let mut out = vec![write("devices", "devices.deny", "a")];
    for rule in DEVICES {
        out.push(write("devices", "devices.allow", rule));
    }
    for (kind, major, minor, access) in extra {
        out.push(write("devices", "devices.allow", format!("{kind} {major}:{minor} {access}")));
    }
    out
}

/// Making any node is allowed, opening it is not; then null, zero, full, random, urandom, tty, console, ptmx and ptys.
const DEVICES: [&str; 11] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

fn bytes_or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

/// v1's 2..262144 in v2's 1..10000, as KEP-2254 maps them.
fn weight(shares: i64) -> i64 {
    let shares = shares.clamp(2, 262_144);
    1 + (shares - 2) * 9_999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources() -> LinuxContainerResources {
        LinuxContainerResources {
            cpu_shares: 512,
            cpu_quota: 50_000,
            cpu_period: 100_000,
            memory_limit_in_bytes: 1 << 20,
            ..LinuxContainerResources::default()
        }
    }

    fn text(writes: &[Write]) -> Vec<String> {
        writes.iter().map(|w| format!("{}={}", w.file, w.value)).collect()
    }

    #[test]
    fn v2() {
        let r = resources();
        let expected = ["cpu.weight=20", "memory.max=1048576", "memory.swap.max=0", "memory.oom.group=1"];
        assert_eq!(text(&limits(&r, true)), expected);
        assert_eq!(text(&quota(&r, true)), ["cpu.max=50000 100000"]);
    }

    #[test]
    fn v1() {
        let r = resources();
        let expected = ["cpu.shares=512", "memory.limit_in_bytes=1048576", "memory.memsw.limit_in_bytes=1048576"];
        assert_eq!(text(&limits(&r, false)), expected);
        assert_eq!(text(&quota(&r, false)), ["cpu.cfs_period_us=100000", "cpu.cfs_quota_us=50000"]);
    }

    #[test]
    fn nothing_asked_nothing_written() {
        let none = LinuxContainerResources::default();
        assert!(limits(&none, true).is_empty() && limits(&none, false).is_empty() && quota(&none, true).is_empty());
    }

    #[test]
    fn weights_span_their_range() {
        assert_eq!((weight(2), weight(1024), weight(262_144), weight(1)), (1, 39, 10_000, 1));
    }
}
