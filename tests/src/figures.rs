//! What a benchmark prints: how values are distributed, and what processes of ours have cost.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get(((last as f64) * share).round() as usize).copied().unwrap_or(f64::NAN)
}

/// Prints how the values are distributed; their median.
pub fn line(what: &str, mut values: Vec<f64>, unit: &str) -> f64 {
    values.sort_by(f64::total_cmp);
    let (p50, p99, max) = (percentile(&values, 0.5), percentile(&values, 0.99), percentile(&values, 1.0));
    println!("{what:<44} p50 {p50:>8.1} {unit}   p99 {p99:>8.1} {unit}   max {max:>8.1} {unit}   (n={})", values.len());
    p50
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    percentile(&values, 0.5)
}

/// Processes of ours, by the name of their program.
fn ours() -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let name = std::fs::read_to_string(entry.path().join("comm")).ok()?.trim().to_owned();
            name.starts_with("gantry").then(|| (name, entry.path()))
        })
        .collect()
}

pub fn supervisors() -> usize {
    supervisor_pids().len()
}

pub fn supervisor_pids() -> Vec<String> {
    let others = ours().into_iter().filter(|(name, _)| name != "gantry");
    others.filter_map(|(_, path)| Some(path.file_name()?.to_str()?.to_owned())).collect()
}

/// Proportional set size, so that shared pages are counted once.
pub fn memory(when: &str) {
    let mut sums: BTreeMap<String, (f64, usize)> = BTreeMap::new();
    for (name, path) in ours() {
        let text = std::fs::read_to_string(path.join("smaps_rollup")).unwrap_or_default();
        let pss = text.lines().find_map(|l| l.strip_prefix("Pss:")?.split_whitespace().next()?.parse::<f64>().ok());
        let sum = sums.entry(name).or_default();
        *sum = (sum.0 + pss.unwrap_or(0.0) / 1024.0, sum.1 + 1);
    }
    for (name, (pss, count)) in &sums {
        println!("{:<44} {pss:>12.1} MiB   ({count} processes)", format!("memory (PSS) {when}: {name}"));
    }
}

/// User and system time of our processes so far, their reaped children included, by process.
pub struct Cpu(BTreeMap<PathBuf, f64>);

impl Cpu {
    pub fn now() -> Cpu {
        Cpu(ours().into_iter().map(|(_, path)| (path.clone(), cpu_millis(&path))).collect())
    }

    /// Milliseconds since then; what a process that is gone spent last is lost.
    pub fn spent(&self) -> f64 {
        let spent = |(path, now): (PathBuf, f64)| now - self.0.get(&path).copied().unwrap_or(0.0);
        Cpu::now().0.into_iter().map(spent).sum()
    }
}

/// User and system time of one process so far, its reaped children included.
pub fn cpu_millis_of(pid: u32) -> f64 {
    cpu_millis(&Path::new("/proc").join(pid.to_string()))
}

/// What of a process is in memory, in MiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub now: f64,
    pub most: f64,
}

pub fn memory_of(pid: u32) -> Memory {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = |name| text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
    let mib = |name| kib(name).map_or(f64::NAN, |kib: f64| kib / 1024.0);
    Memory { now: mib("VmRSS:"), most: mib("VmHWM:") }
}

fn cpu_millis(process: &Path) -> f64 {
    // The clock tick of every Linux that userspace sees.
    const MILLIS_PER_TICK: f64 = 10.0;
    let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().filter_map(|f| f.parse().ok()).collect())
        .unwrap_or_default();
    // After the name come state (no number), ppid, …: utime is the 11th number, then stime, cutime, cstime.
    let ticks = |range: std::ops::Range<usize>| fields.get(range).map_or(0.0, |times| times.iter().sum::<f64>());
    // A supervisor's whole life is a tick or two: threads that live are counted by the nanosecond.
    let threads = std::fs::read_dir(process.join("task")).into_iter().flatten().flatten();
    let nanos = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    let own = (ticks(10..12) * MILLIS_PER_TICK).max(nanos.sum::<f64>() / 1e6);
    own + ticks(12..14) * MILLIS_PER_TICK
}
