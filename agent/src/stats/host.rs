//! What the node as a whole uses, from /proc, the root cgroup and the file system.

use std::path::{Path, PathBuf};

use gantry_cri::{psi, v1};
use jiff::Timestamp;

use super::Use;
use super::cgroup::Folders;

/// Of a file system: all of it, what is free for everybody, and files alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    pub capacity_bytes: u64,
    pub available_bytes: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

impl Room {
    /// Of the file system on which `path` lies.
    pub fn of(path: &Path) -> Option<Room> {
        let fs = rustix::fs::statvfs(path).ok()?;
        Some(Room {
            capacity_bytes: fs.f_blocks.saturating_mul(fs.f_frsize),
            available_bytes: fs.f_bavail.saturating_mul(fs.f_frsize),
            inodes: fs.f_files,
            inodes_free: fs.f_favail,
        })
    }

    pub fn used_bytes(&self) -> u64 {
        self.capacity_bytes.saturating_sub(self.available_bytes)
    }

    pub fn inodes_used(&self) -> u64 {
        self.inodes.saturating_sub(self.inodes_free)
    }
}

/// One network interface of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub received_bytes: u64,
    pub receive_errors: u64,
    pub sent_bytes: u64,
    pub send_errors: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeUse {
    pub used: Use,
    pub booted_at: Option<Timestamp>,
    pub memory_bytes: u64,
    pub processes: u64,
    pub processes_max: u64,
    pub interfaces: Vec<Interface>,
    /// Where the default route leads.
    pub default_interface: String,
    /// The file system of the pods' folders.
    pub room: Option<Room>,
}

/// Where the kernel tells of itself.
#[derive(Clone, Debug)]
pub struct Host {
    pub proc: PathBuf,
    pub cgroups: Folders,
    pub data_dir: PathBuf,
}

impl Host {
    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.proc.join(path)).unwrap_or_default()
    }

    pub fn read(&self, at: Timestamp) -> NodeUse {
        let timestamp = i64::try_from(at.as_nanosecond()).unwrap_or(0);
        let (stat, vmstat) = (self.text("stat"), self.text("vmstat"));
        let pressure = |what: &str| psi::parse(&self.text(&format!("pressure/{what}")));
        let memory = Memory::parse(&self.text("meminfo"));
        let number = |value: u64| Some(v1::UInt64Value { value });
        let nanos = self.cgroups.cpu_nanos("/").or_else(|| cpu_nanos(&stat));
        let (processes, processes_max) = self.processes();
        NodeUse {
            used: Use {
                cpu: v1::CpuUsage {
                    timestamp,
                    usage_core_nano_seconds: nanos.and_then(number),
                    usage_nano_cores: None,
                    psi: pressure("cpu"),
                },
                memory: v1::MemoryUsage {
                    timestamp,
                    working_set_bytes: number(memory.working_set()),
                    available_bytes: number(memory.available()),
                    usage_bytes: number(memory.used()),
                    rss_bytes: number(memory.anonymous),
                    page_faults: field(&vmstat, "pgfault").and_then(number),
                    major_page_faults: field(&vmstat, "pgmajfault").and_then(number),
                    psi: pressure("memory"),
                },
                swap: Some(v1::SwapUsage {
                    timestamp,
                    swap_available_bytes: number(memory.swap_free),
                    swap_usage_bytes: number(memory.swap.saturating_sub(memory.swap_free)),
                }),
                io: pressure("io").map(|psi| v1::IoUsage { timestamp, psi: Some(psi) }),
            },
            booted_at: field(&stat, "btime").and_then(|s| Timestamp::from_second(i64::try_from(s).ok()?).ok()),
            memory_bytes: memory.total,
            processes,
            processes_max,
            interfaces: interfaces(&self.text("thread-self/net/dev")),
            default_interface: default_interface(&self.text("thread-self/net/route")).unwrap_or_default(),
            room: Room::of(&self.data_dir),
        }
    }

    /// Memory that is free or can be had at once, and all of it; as the kubelet counts (capacity less the working set).
    pub fn memory(&self) -> (u64, u64) {
        let memory = Memory::parse(&self.text("meminfo"));
        (memory.available(), memory.total)
    }

    /// Threads that there are, and that there may be.
    pub fn processes(&self) -> (u64, u64) {
        let limit = |path: &str| self.text(path).trim().parse::<u64>().unwrap_or(u64::MAX);
        let all = self.text("loadavg").split_whitespace().nth(3).and_then(|f| f.split_once('/')?.1.parse().ok());
        (all.unwrap_or(0), limit("sys/kernel/pid_max").min(limit("sys/kernel/threads-max")))
    }
}

/// What /proc/meminfo tells, in bytes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Memory {
    total: u64,
    free: u64,
    /// File pages that can be dropped at once.
    inactive_file: u64,
    anonymous: u64,
    swap: u64,
    swap_free: u64,
}

impl Memory {
    fn parse(text: &str) -> Memory {
        let of = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0).saturating_mul(1024)
        };
        Memory {
            total: of("MemTotal"),
            free: of("MemFree"),
            inactive_file: of("Inactive(file)"),
            anonymous: of("AnonPages"),
            swap: of("SwapTotal"),
            swap_free: of("SwapFree"),
        }
    }

    fn used(&self) -> u64 {
        self.total.saturating_sub(self.free)
    }

    fn working_set(&self) -> u64 {
        self.used().saturating_sub(self.inactive_file)
    }

    fn available(&self) -> u64 {
        self.total.saturating_sub(self.working_set())
    }
}

/// A number of a file that names its numbers.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The kernel's clock ticks are a hundredth of a second for whoever reads /proc (USER_HZ).
const TICK_NANOS: u64 = 10_000_000;

/// All but idling and waiting for disks (proc_stat(5)). Guests' time is in the user's already.
fn cpu_nanos(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().take(8).map_while(|word| word.parse().ok()).collect();
    let all: u64 = ticks.iter().sum();
    let idle = ticks.get(3)? + ticks.get(4).unwrap_or(&0);
    Some(all.saturating_sub(idle).saturating_mul(TICK_NANOS))
}

/// proc_pid_net(5): two lines of headings, then eight numbers received and eight sent.
fn interfaces(dev: &str) -> Vec<Interface> {
    let interface = |line: &str| {
        let (name, rest) = line.rsplit_once(':')?;
        let numbers: Vec<u64> = rest.split_whitespace().map_while(|word| word.parse().ok()).collect();
        let &[received_bytes, _, receive_errors, _, _, _, _, _, sent_bytes, _, send_errors, ..] = numbers.as_slice()
        else {
            return None;
        };
        Some(Interface { name: name.trim().to_owned(), received_bytes, receive_errors, sent_bytes, send_errors })
    };
    dev.lines().filter_map(interface).filter(|interface| interface.name != "lo").collect()
}

fn default_interface(route: &str) -> Option<String> {
    let routes = route.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    routes.into_iter().find(|fields| fields.get(1) == Some(&"00000000")).map(|fields| fields[0].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_read_from_its_files() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("stat", "cpu  10 20 30 400 50 6 7 8 9 9\ncpu0 1 1 1 1\nbtime 1700000000\n");
        write("meminfo", "MemTotal: 100 kB\nMemFree: 40 kB\nInactive(file): 10 kB\nAnonPages: 5 kB\nSwapTotal: 8 kB\n");
        write("vmstat", "pgfault 7\npgmajfault 2\npgfaultx 1\n");
        write("loadavg", "0.1 0.2 0.3 2/345 999\n");
        write("sys/kernel/pid_max", "32768\n");
        write("pressure/memory", "some avg10=0.50 avg60=0.00 avg300=0.00 total=3\n");
        write(
            "thread-self/net/dev",
            "a | b\nlo: 1 0 0 0 0 0 0 0 1 0 0 0 0 0 0 0\neth0: 5 0 1 0 0 0 0 0 6 0 2 0 0 0 0 0\n",
        );
        write("thread-self/net/route", "Iface Destination\neth0 000AA8C0 0\neth0 00000000 0102\n");
        let cgroups = Folders::at(root.path().join("none"));
        let host = Host { proc: root.path().to_owned(), cgroups, data_dir: root.path().to_owned() };
        let node = host.read(Timestamp::UNIX_EPOCH);
        let is = |value: Option<v1::UInt64Value>| value.map(|v| v.value);
        let memory = node.used.memory;
        assert_eq!(is(node.used.cpu.usage_core_nano_seconds), Some((10 + 20 + 30 + 6 + 7 + 8) * TICK_NANOS));
        assert_eq!((is(memory.usage_bytes), is(memory.working_set_bytes)), (Some(60 << 10), Some(50 << 10)));
        assert_eq!((is(memory.available_bytes), host.memory()), (Some(50 << 10), (50 << 10, 100 << 10)));
        assert_eq!((is(memory.page_faults), is(memory.rss_bytes)), (Some(7), Some(5 << 10)));
        assert_eq!(memory.psi.and_then(|psi| psi.some).map(|some| some.total), Some(3000));
        assert_eq!((node.processes, node.processes_max), (345, 32768));
        assert_eq!((node.default_interface.as_str(), node.interfaces.len()), ("eth0", 1));
        assert_eq!((node.interfaces[0].received_bytes, node.interfaces[0].send_errors), (5, 2));
        assert!(node.room.is_some_and(|room| room.capacity_bytes >= room.available_bytes));
    }
}
