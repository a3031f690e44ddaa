//! The kernel's cgroup files for a container's limits. Pure: resources in, writes out, for v1 and v2.

use gantry_cri::v1::LinuxContainerResources;

/// A write to a file of one cgroup. On v1 the controller says in which hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub controller: &'static str,
    pub file: String,
    pub value: String,
}

pub(super) fn write(controller: &'static str, file: &str, value: impl ToString) -> Write {
    Write { controller, file: file.to_owned(), value: value.to_string() }
}

/// What the kubelet says when it means "as long as a period".
const DEFAULT_PERIOD_US: i64 = 100_000;

/// Limits that may stand before the process does.
pub fn limits(r: &LinuxContainerResources, unified: bool) -> Vec<Write> {
    let mut out = shares(r.cpu_shares, unified);
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
        let known = |(file, value): (&String, &String)| Some(write(controller(file)?, file, value));
        out.extend(r.unified.iter().filter_map(known));
    } else {
        out.extend(pids(r));
    }
    out
}

/// Limits of a pod's own cgroup, for its containers together. Swap is theirs alone.
pub fn pod(r: &LinuxContainerResources, unified: bool) -> Vec<Write> {
    let mut out = shares(r.cpu_shares, unified);
    if r.memory_limit_in_bytes > 0 {
        let file = if unified { "memory.max" } else { "memory.limit_in_bytes" };
        out.push(write("memory", file, r.memory_limit_in_bytes));
    }
    out.extend(pids(r));
    out.extend(quota(r, unified));
    out
}

/// The share of a cgroup that holds pods of one class: what they ask for together. The smallest share is what a pod has
/// that asks for nothing, and any number of those are worth no more than it.
pub fn class(pods: impl Iterator<Item = i64>, unified: bool) -> Vec<Write> {
    let asked = pods.filter(|shares| *shares > SHARES_MIN).fold(0, i64::saturating_add);
    shares(asked.clamp(SHARES_MIN, SHARES_MAX), unified)
}

fn shares(shares: i64, unified: bool) -> Vec<Write> {
    match (shares > 0, unified) {
        (false, _) => Vec::new(),
        (true, true) => vec![write("cpu", "cpu.weight", weight(shares))],
        (true, false) => vec![write("cpu", "cpu.shares", shares)],
    }
}

fn pids(r: &LinuxContainerResources) -> Option<Write> {
    Some(write("pids", "pids.max", r.unified.get("pids.max")?))
}

/// The controller of a v2 file that a request names; none for what is no plain name of a controller's file.
pub fn controller(file: &str) -> Option<&'static str> {
    const KNOWN: [&str; 8] = ["cpu", "cpuset", "hugetlb", "io", "memory", "misc", "pids", "rdma"];
    let (name, rest) = file.split_once('.')?;
    let plain = !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    KNOWN.into_iter().find(|known| plain && *known == name)
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

fn bytes_or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

/// The range of v1's cpu.shares.
const SHARES_MIN: i64 = 2;
const SHARES_MAX: i64 = 262_144;

/// v1's 2..2^18 in v2's 1..10000, with the one's default on the other's (1024 on 100): KEP-2254 as it stands since 2025, in
/// runc from 1.3.2 and in crun from 1.23. The line that it replaced gave a whole core less than half of what a process
/// outside of Kubernetes has.
fn weight(shares: i64) -> i64 {
    let l = (shares.clamp(SHARES_MIN, SHARES_MAX) as f64).log2();
    10_f64.powf((l * l + 125.0 * l) / 612.0 - 7.0 / 34.0).ceil() as i64
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
        let expected = ["cpu.weight=59", "memory.max=1048576", "memory.swap.max=0"];
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
    fn a_pod_has_no_swap_of_its_own() {
        let r = LinuxContainerResources {
            unified: std::collections::HashMap::from([("pids.max".to_owned(), "9".to_owned())]),
            ..resources()
        };
        let expected = ["cpu.weight=59", "memory.max=1048576", "pids.max=9", "cpu.max=50000 100000"];
        assert_eq!(text(&pod(&r, true)), expected);
        let expected = [
            "cpu.shares=512",
            "memory.limit_in_bytes=1048576",
            "pids.max=9",
            "cpu.cfs_period_us=100000",
            "cpu.cfs_quota_us=50000",
        ];
        assert_eq!(text(&pod(&r, false)), expected);
    }

    #[test]
    fn a_class_weighs_what_its_pods_ask_for() {
        for (pods, shares) in
            [(vec![], 2), (vec![2, 2, 2], 2), (vec![512, 2, 0, 1024], 1536), (vec![i64::MAX, 9], 262_144)]
        {
            assert_eq!(text(&class(pods.iter().copied(), false)), [format!("cpu.shares={shares}")], "{pods:?}");
        }
        assert_eq!(text(&class([2].into_iter(), true)), ["cpu.weight=1"]);
    }

    #[test]
    fn only_files_of_controllers_are_written() {
        for (file, known) in
            [("memory.high", Some("memory")), ("cpu.max.burst", Some("cpu")), ("pids.max", Some("pids"))]
        {
            assert_eq!(controller(file), known, "{file}");
        }
        for bad in
            ["", "memory", "memory.", "cgroup.procs", "../memory.max", "memory./../../x", "memoryx.max", "cpu.\0"]
        {
            assert_eq!(controller(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn nothing_asked_nothing_written() {
        let none = LinuxContainerResources::default();
        assert!(limits(&none, true).is_empty() && limits(&none, false).is_empty() && quota(&none, true).is_empty());
        assert!(pod(&none, true).is_empty() && pod(&none, false).is_empty());
    }

    #[test]
    fn weights_span_their_range() {
        for (shares, expected) in
            [(1, 1), (2, 1), (102, 17), (512, 59), (1024, 100), (2048, 174), (262_143, 10_000), (i64::MAX, 10_000)]
        {
            assert_eq!(weight(shares), expected, "{shares}");
        }
    }
}
