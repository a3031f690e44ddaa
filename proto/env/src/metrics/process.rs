//! What the kernel tells of a process.

use std::path::Path;

use super::Text;

/// The kernel's clock ticks are a hundredth of a second for whoever reads /proc (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

/// This process itself, as every exporter tells of its own. `proc` is where the kernel tells of processes.
pub fn process(text: &mut Text, proc: &Path, page_bytes: usize) {
    let read = |path: &str| std::fs::read_to_string(proc.join(path)).unwrap_or_default();
    // The name may hold anything but ends with the last parenthesis (proc_pid_stat(5)).
    let stat = read("self/stat");
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().map(|word| word.parse().unwrap_or(0.0)).collect())
        .unwrap_or_default();
    let field = |n: usize| fields.get(n - 3).copied().unwrap_or(0.0);
    let boot = read("stat").lines().find_map(|l| l.strip_prefix("btime ")?.trim().parse::<f64>().ok()).unwrap_or(0.0);
    let mut one = |name: &str, kind: &str, help: &str, value: f64| {
        text.family(name, kind, help);
        text.sample(name, &[], value, None);
    };
    let used = (field(14) + field(15)) / TICKS_PER_SECOND;
    one("process_cpu_seconds_total", "counter", "Processor time of this process", used);
    let start = boot + field(22) / TICKS_PER_SECOND;
    one("process_start_time_seconds", "gauge", "When this process was started", start);
    one("process_virtual_memory_bytes", "gauge", "Address space of this process", field(23));
    let resident = field(24) * page_bytes as f64;
    one("process_resident_memory_bytes", "gauge", "Memory of this process", resident);
    let open = std::fs::read_dir(proc.join("self/fd")).map_or(0, |fds| fds.count().saturating_sub(1));
    one("process_open_fds", "gauge", "Descriptors that this process has open", open as f64);
    // `Max open files            1024                 524288               files`
    let limit = read("self/limits")
        .lines()
        .find_map(|l| l.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok());
    if let Some(limit) = limit {
        one("process_max_fds", "gauge", "Descriptors that this process may have open", limit);
    }
}
