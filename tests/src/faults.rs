//! Faults by name, and the oracle that is asked after each: what the API says, what the node's kernel holds and what the
//! store answered before must agree again, whatever happened.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MsFlags, mount, umount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use tokio::process::Command;

use crate::cluster::{Cluster, IMAGE, NODE_IP, Running};
use crate::disk::{Ailments, Disk};
use crate::image::Build;
use crate::registry::Registry;
use crate::workload::{all_run, counters, logs_are_whole};

/// Containers that count while faults strike.
pub const REPLICAS: usize = 3;
/// How long a frozen or unreachable part stays so.
const SPELL: Duration = Duration::from_secs(2);
const CONTROL_PORT: u16 = 6443;
/// A commit of ext4's journal waits for two flushes: one fsync takes half a second.
const SLOW_FLUSH: Duration = Duration::from_millis(250);
/// Longer than a node may be silent before its pods are given up (40 s) would be proof, and too long: this is several leases.
const SLOW_WRITES: usize = 12;
/// What a greedy process finds free of the machine's memory. User-mode Linux maps each page of it by itself, and its host
/// allows a process 65530 mappings.
const MEMORY_LEFT_BYTES: u64 = 128 << 20;
/// The greedy process' oom_score_adj: whoever has a common score goes before it, so that a daemon of ours that were not
/// spared would.
const GREEDY_SCORE: i32 = -900;
const NEVER_KILLED: i32 = -1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    ControlKilled,
    AgentKilled,
    ControlAndAgentKilled,
    SupervisorsKilled,
    AgentAndSupervisorsKilled,
    EverythingKilled,
    ControlKilledWhileWriting,
    AgentKilledWhileStarting,
    AgentKilledWhileEnding,
    ControlFrozen,
    AgentFrozen,
    SupervisorsFrozen,
    ContainerKilled,
    DiskFull,
    OutOfInodes,
    ServiceTableRemoved,
    PodTableRemoved,
    ControlUnreachable,
    CheckpointsTorn,
    RegistryDown,
    RegistrySlow,
    RegistryLying,
    DiskSlow,
    DiskUnreadable,
    MemoryPressure,
}

pub const ALL: &[Fault] = &[
    Fault::ControlKilled,
    Fault::AgentKilled,
    Fault::ControlAndAgentKilled,
    Fault::SupervisorsKilled,
    Fault::AgentAndSupervisorsKilled,
    Fault::EverythingKilled,
    Fault::ControlKilledWhileWriting,
    Fault::AgentKilledWhileStarting,
    Fault::AgentKilledWhileEnding,
    Fault::ControlFrozen,
    Fault::AgentFrozen,
    Fault::SupervisorsFrozen,
    Fault::ContainerKilled,
    Fault::DiskFull,
    Fault::OutOfInodes,
    Fault::ServiceTableRemoved,
    Fault::PodTableRemoved,
    Fault::ControlUnreachable,
    Fault::CheckpointsTorn,
    Fault::RegistryDown,
    Fault::RegistrySlow,
    Fault::RegistryLying,
    Fault::DiskSlow,
    Fault::DiskUnreadable,
    Fault::MemoryPressure,
];

/// The faults of a list of names; every one where there is no list. A name that no fault has is a mistake, not an empty list.
pub fn named(list: Option<&str>) -> Vec<Fault> {
    let Some(list) = list else { return ALL.to_vec() };
    let of = |name: &str| ALL.iter().copied().find(|fault| format!("{fault:?}") == name);
    list.split(',')
        .map(str::trim)
        .map(|name| of(name).unwrap_or_else(|| panic!("no fault is named {name:?}: {ALL:?}")))
        .collect()
}

/// What strikes in a round: the first has every fault once, so that none is left to chance; those that follow draw as many
/// and may draw one again, as misfortunes come.
pub fn drawn(possible: &[Fault], round: u64, dice: &mut StdRng) -> Vec<Fault> {
    if round > 0 {
        return possible.iter().filter_map(|_| possible.choose(dice).copied()).collect();
    }
    let mut once = possible.to_vec();
    once.shuffle(dice);
    once
}

/// A service over two web servers, through which every round looks.
const WEB: &str = r#"---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {replicas: 2, selector: {matchLabels: {app: web}},
 template: {metadata: {labels: {app: web}}, spec: {terminationGracePeriodSeconds: 0,
  containers: [{name: main, image: "gantry.local/demo:1"}]}}}}
---
{apiVersion: v1, kind: Service, metadata: {name: web},
 spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}}
"#;
const WEB_REPLICAS: usize = 2;

/// A cluster with something to lose, and the dice of its misfortunes.
pub struct Site<'a> {
    pub cluster: Cluster<'a>,
    registry: Registry,
    state: PathBuf,
    disk: Option<Disk>,
    dice: StdRng,
    /// ConfigMaps whose creation was answered.
    answered: BTreeSet<String>,
    struck: usize,
}

impl<'a> Site<'a> {
    /// `state` is the file system that Gantry's state is on; in a machine of our own it is on a disk of our own.
    pub async fn build(cluster: Cluster<'a>, state: &Path, disk: Option<Disk>, dice: StdRng) -> Site<'a> {
        let registry = Registry::start(cluster.machine().root(), "").await.expect("docker-registry is installed");
        populate(&cluster).await;
        let state = state.to_owned();
        let site = Site { cluster, registry, state, disk, dice, answered: BTreeSet::new(), struck: 0 };
        site.settled().await;
        site
    }

    /// Whether a fault can be had here: disks that fail and machines that run out of memory are our own alone.
    pub fn can(&self, fault: Fault) -> bool {
        let own = matches!(fault, Fault::DiskSlow | Fault::DiskUnreadable | Fault::MemoryPressure);
        !own || self.disk.is_some()
    }

    /// One fault, and the end of it. What follows from it is the oracle's to see.
    pub async fn strike(&mut self, fault: Fault) {
        self.struck += 1;
        let before = self.cluster.running().await;
        match fault {
            Fault::ControlKilled => self.kill(&["control"], false).await,
            Fault::AgentKilled => self.kill(&["agent"], false).await,
            Fault::ControlAndAgentKilled => self.kill(&["control", "agent"], false).await,
            Fault::SupervisorsKilled => self.kill(&[], true).await,
            Fault::AgentAndSupervisorsKilled => self.kill(&["agent"], true).await,
            Fault::EverythingKilled => self.kill(&["control", "agent"], true).await,
            Fault::ControlKilledWhileWriting => self.cut_writes().await,
            Fault::AgentKilledWhileStarting => self.cut_scaling(REPLICAS * 3).await,
            Fault::AgentKilledWhileEnding => {
                self.cluster.apply(&counters(REPLICAS * 3)).await;
                all_run(&self.cluster, REPLICAS * 3).await;
                self.cut_scaling(REPLICAS).await;
            }
            Fault::ControlFrozen => self.freeze(&[self.cluster.pid("control")]).await,
            Fault::AgentFrozen => self.freeze(&[self.cluster.pid("agent")]).await,
            Fault::SupervisorsFrozen => self.freeze(&self.cluster.supervisors().await).await,
            Fault::ContainerKilled => {
                let victim = &before[self.dice.random_range(0..before.len())];
                signal(i32::try_from(victim.3).expect("a pid"), Signal::SIGKILL);
                let gone = async || !self.cluster.running().await.contains(victim);
                self.cluster.until("the node knows that it ended", gone).await;
            }
            Fault::DiskFull => self.fill_disk().await,
            Fault::OutOfInodes => self.use_inodes().await,
            Fault::ServiceTableRemoved => nft("delete table inet gantry").await,
            Fault::PodTableRemoved => nft("delete table inet gantry-pods").await,
            Fault::ControlUnreachable => {
                nft(&format!(
                    "add table inet fault; add chain inet fault out {{ type filter hook output priority 0; }}; \
                     add rule inet fault out tcp dport {CONTROL_PORT} drop"
                ))
                .await;
                tokio::time::sleep(SPELL).await;
                nft("delete table inet fault").await;
            }
            Fault::CheckpointsTorn => {
                self.cluster.kill("agent").await;
                tear(&self.state.join("pods"));
                self.cluster.start("agent").await;
            }
            Fault::RegistryDown => {
                let name = self.new_image().await;
                self.registry.stop();
                self.apply_pod(&name).await;
                self.waits(&name).await;
                self.registry.start_again().await;
                self.gone_after_running(&name).await;
            }
            Fault::RegistrySlow => {
                let name = self.new_image().await;
                signal(self.registry.pid(), Signal::SIGSTOP);
                self.apply_pod(&name).await;
                tokio::time::sleep(SPELL).await;
                signal(self.registry.pid(), Signal::SIGCONT);
                self.gone_after_running(&name).await;
            }
            Fault::RegistryLying => {
                let name = format!("image-{}", self.struck);
                let built = self.image().build();
                built.push(&self.registry.name(&format!("{name}:1"))).await.expect("it is pushed");
                self.registry.tamper(&built.layer_digest());
                self.apply_pod(&name).await;
                self.waits(&name).await;
                self.registry.tamper(&built.layer_digest());
                self.gone_after_running(&name).await;
            }
            Fault::DiskSlow => self.slow_disk(&before).await,
            Fault::DiskUnreadable => self.unreadable_disk(&before).await,
            Fault::MemoryPressure => self.press().await,
        }
    }
}

/// What every site runs.
pub async fn populate(cluster: &Cluster<'_>) {
    cluster.apply(&counters(REPLICAS)).await;
    cluster.apply(WEB).await;
}

/// What was populated runs and answers, and pods, containers, supervisors, links and tables agree.
pub async fn agree(cluster: &Cluster<'_>) {
    all_run(cluster, REPLICAS).await;
    let pods = REPLICAS + WEB_REPLICAS;
    cluster
        .until("each pod has one container and no other runs", async || {
            let running = cluster.running().await;
            let uids: BTreeSet<&String> = running.iter().map(|(uid, ..)| uid).collect();
            running.len() == pods && uids.len() == pods
        })
        .await;
    cluster.until("each pod has one supervisor", async || cluster.supervisors().await.len() == pods).await;
    for table in ["gantry", "gantry-pods"] {
        cluster.until(&format!("table {table} is there"), async || has_table(table).await).await;
    }
    cluster.until("each pod has one link", async || links().await == pods).await;
    let service = format!("{}:80", cluster.field("service", "web", ".spec.clusterIP").await);
    for address in [service, format!("{NODE_IP}:30080")] {
        cluster.until(&format!("{address} answers"), async || answers(&address).await).await;
    }
    logs_are_whole(cluster).await;
}

impl Site<'_> {
    /// Everything agrees again, and what the store answered is there.
    pub async fn settled(&self) {
        let cluster = &self.cluster;
        agree(cluster).await;
        let names = cluster.kubectl().must(&["get", "configmaps", "-o", "jsonpath={.items[*].metadata.name}"]).await;
        let names: BTreeSet<String> = names.split(' ').map(str::to_owned).collect();
        let lost: Vec<&String> = self.answered.difference(&names).collect();
        assert!(lost.is_empty(), "answered and lost: {lost:?}");
    }

    /// kill -9 of some roles and, where asked, of every supervisor; then the roles start again.
    async fn kill(&mut self, roles: &[&'static str], supervisors: bool) {
        let pids = if supervisors { self.cluster.supervisors().await } else { Vec::new() };
        for role in roles {
            self.cluster.kill(role).await;
        }
        for pid in pids {
            signal(pid, Signal::SIGKILL);
        }
        for role in roles {
            self.cluster.start(role).await;
        }
    }

    async fn freeze(&self, pids: &[i32]) {
        for pid in pids {
            signal(*pid, Signal::SIGSTOP);
        }
        tokio::time::sleep(SPELL).await;
        for pid in pids {
            signal(*pid, Signal::SIGCONT);
        }
    }

    /// Control dies with creates under way; each that was answered must be there afterwards.
    async fn cut_writes(&mut self) {
        let round = self.struck;
        let kubectl = self.cluster.kubectl();
        let writes = (0..8).map(|n| {
            let (kubectl, name) = (kubectl.clone(), format!("answered-{round}-{n}"));
            tokio::spawn(async move {
                let done = kubectl.run(&["create", "configmap", &name, "--from-literal=a=b"]).await;
                done.is_ok().then_some(name)
            })
        });
        let writes: Vec<_> = writes.collect();
        tokio::time::sleep(Duration::from_millis(self.dice.random_range(20..300))).await;
        self.kill(&["control"], false).await;
        for write in writes {
            self.answered.extend(write.await.expect("no panic"));
        }
    }

    async fn cut_scaling(&mut self, replicas: usize) {
        self.cluster.apply(&counters(replicas)).await;
        tokio::time::sleep(Duration::from_millis(self.dice.random_range(0..700))).await;
        self.kill(&["agent"], false).await;
        all_run(&self.cluster, replicas).await;
        self.cluster.apply(&counters(REPLICAS)).await;
    }

    /// No byte is free: writes are refused, and taken again once there is space.
    async fn fill_disk(&self) {
        let filler = self.state.join("filler");
        let mut file = std::fs::File::create(&filler).expect("a file");
        while std::io::Write::write_all(&mut file, &[0; 64 << 10]).is_ok() {}
        drop(file);
        let kubectl = self.cluster.kubectl();
        tokio::time::sleep(SPELL).await;
        std::fs::remove_file(filler).expect("it is there");
        self.cluster
            .until("writes are taken again", async || {
                kubectl.run(&["annotate", "deployment", "web", "--overwrite", "after=full"]).await.is_ok()
            })
            .await;
    }

    /// No file can be made.
    async fn use_inodes(&self) {
        let folder = self.state.join("inodes");
        std::fs::create_dir(&folder).expect("a folder");
        let mut count = 0;
        while std::fs::File::create(folder.join(count.to_string())).is_ok() {
            count += 1;
        }
        tokio::time::sleep(SPELL).await;
        std::fs::remove_dir_all(folder).expect("they are there");
    }

    /// Every fsync takes half a second: the node stays ready, writes are taken, and nothing is touched.
    async fn slow_disk(&mut self, before: &[Running]) {
        let disk = self.disk.clone().expect("a disk of our own");
        let slow = disk.ailing(Ailments { flush_delay: SLOW_FLUSH, ..Ailments::default() });
        for n in 0..SLOW_WRITES {
            let name = format!("slow-{}-{n}", self.struck);
            self.cluster.kubectl().must(&["create", "configmap", &name, "--from-literal=a=b"]).await;
            self.answered.insert(name);
            assert!(self.cluster.ready().await, "the node is given up because its disk is slow");
        }
        drop(slow);
        assert_eq!(self.cluster.running().await, before, "a slow disk has ended containers");
    }

    /// What is not in memory cannot be read: containers that run go on, and what cannot be done now is done afterwards.
    async fn unreadable_disk(&mut self, before: &[Running]) {
        let disk = self.disk.clone().expect("a disk of our own");
        rustix::fs::sync();
        std::fs::write("/proc/sys/vm/drop_caches", "3").expect("root");
        // What runs brings back what it needs in order to run: a program without its pages dies on any machine.
        tokio::time::sleep(SPELL).await;
        let unreadable = disk.ailing(Ailments { fails_reads: true, ..Ailments::default() });
        let one_more = counters(REPLICAS + 1);
        // The store may have to read in order to write: what it refuses now it takes afterwards.
        let kubectl = self.cluster.kubectl();
        let apply = async || kubectl.with_input(&["apply", "-f", "-"], &one_more).await;
        println!("  writes are {}", if apply().await.is_ok() { "taken" } else { "refused" });
        tokio::time::sleep(SPELL).await;
        drop(unreadable);
        self.cluster.until("writes are taken again", async || apply().await.is_ok()).await;
        all_run(&self.cluster, REPLICAS + 1).await;
        let after = self.cluster.running().await;
        assert!(before.iter().all(|one| after.contains(one)), "{after:?} were {before:?}");
        self.cluster.apply(&counters(REPLICAS)).await;
    }

    /// The machine's memory runs out: who has promised least goes first, and nobody of ours.
    async fn press(&mut self) {
        let pod = format!(
            "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: guaranteed}}, spec: {{terminationGracePeriodSeconds: 0, \
             containers: [{{name: main, image: \"{IMAGE}\", resources: {{limits: {{cpu: 10m, memory: 16Mi}}}}}}]}}}}"
        );
        self.cluster.apply(&pod).await;
        self.runs("guaranteed").await;
        let promised = self.cluster.field("pod", "guaranteed", ".metadata.uid").await;
        let before = self.cluster.running().await;
        let ours = async || {
            let mut pids = self.cluster.supervisors().await;
            pids.extend(["control", "agent"].map(|role| self.cluster.pid(role)));
            pids.sort_unstable();
            pids
        };
        let (ours_before, killed_before) = (ours().await, oom_kills());

        // What carries the disk and the images is the machine's, not Gantry's: it is out of this.
        let bystanders = [i32::try_from(std::process::id()).expect("a pid"), self.registry.pid()];
        bystanders.iter().for_each(|pid| promise(*pid, NEVER_KILLED));
        // Memory that no process has makes the greedy one quick.
        let ballast = self.cluster.machine().root().join("ballast");
        std::fs::create_dir(&ballast).expect("a folder");
        mount(Some("ballast"), &ballast, Some("tmpfs"), MsFlags::empty(), Some("size=100%")).expect("a file system");
        let file = std::fs::File::create(ballast.join("file")).expect("a file");
        let bytes = available_memory().saturating_sub(MEMORY_LEFT_BYTES);
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes).expect("memory");
        drop(file);
        let greedy = format!("echo {GREEDY_SCORE} > /proc/self/oom_score_adj; exec tail /dev/zero");
        let greedy = Command::new("sh").args(["-c", &greedy]).status().await;
        // A pod that is being made may have the mount still; the memory must be free at once.
        std::fs::remove_file(ballast.join("file")).expect("it is there");
        umount(&ballast).expect("it was mounted");
        std::fs::remove_dir(&ballast).expect("it is empty");
        bystanders.iter().for_each(|pid| promise(*pid, 0));
        assert!(!greedy.expect("coreutils").success(), "the greedy process was not killed");

        let killed = oom_kills() - killed_before;
        println!("  killed for memory: {killed}");
        // At least every container that was promised nothing, and the greedy one.
        assert!(killed > (REPLICAS + WEB_REPLICAS) as u64, "{killed} were killed");
        assert_eq!(ours().await, ours_before, "a process of ours was killed for memory");
        let of = |running: &[Running]| running.iter().find(|one| one.0 == promised).cloned();
        assert_eq!(of(&self.cluster.running().await), of(&before), "what was promised memory was killed for it");
        self.cluster.kubectl().must(&["delete", "pod", "guaranteed", "--timeout=60s"]).await;
    }

    /// An image that the node has never seen.
    fn image(&self) -> Build {
        let mut build = Build::busybox(Path::new("/bin/busybox")).expect("busybox-static");
        build.file("struck", 0o644, self.struck.to_string());
        build.cmd = ["sleep", "3600"].map(str::to_owned).to_vec();
        build
    }

    async fn new_image(&self) -> String {
        let name = format!("image-{}", self.struck);
        self.image().build().push(&self.registry.name(&format!("{name}:1"))).await.expect("it is pushed");
        name
    }

    async fn apply_pod(&self, name: &str) {
        let image = self.registry.name(&format!("{name}:1"));
        let pod = format!(
            "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 0, \
             containers: [{{name: main, image: \"{image}\"}}]}}}}"
        );
        self.cluster.apply(&pod).await;
    }

    async fn waits(&self, name: &str) {
        let path = ".status.containerStatuses[0].state.waiting.reason";
        let reason = async || self.cluster.field("pod", name, path).await;
        self.cluster.until("the pull fails", async || reason().await.contains("ImagePull")).await;
    }

    async fn runs(&self, name: &str) {
        let phase = async || self.cluster.field("pod", name, ".status.phase").await;
        self.cluster.until(&format!("{name} runs"), async || phase().await == "Running").await;
    }

    async fn gone_after_running(&self, name: &str) {
        self.runs(name).await;
        self.cluster.kubectl().must(&["delete", "pod", name, "--timeout=60s"]).await;
    }
}

fn available_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("/proc");
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok()).expect("a number of kB") << 10
}

/// Says how soon a process is killed for want of memory.
fn promise(pid: i32, score: i32) {
    std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()).expect("CAP_SYS_RESOURCE");
}

/// Processes that the kernel has killed for want of memory since it began.
fn oom_kills() -> u64 {
    let text = std::fs::read_to_string("/proc/vmstat").expect("/proc");
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok()).unwrap_or_default()
}

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("it is ours");
}

async fn nft(script: &str) {
    let done = Command::new("nft").arg(script).status().await;
    assert!(done.is_ok_and(|status| status.success()), "nft {script}");
}

async fn has_table(name: &str) -> bool {
    let listed = Command::new("nft").args(["list", "table", "inet", name]).output().await.expect("nftables");
    listed.status.success()
}

/// Links of pods on the node's side.
async fn links() -> usize {
    let output = Command::new("ip").args(["-o", "link", "show", "type", "veth"]).output().await.expect("iproute2");
    String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.contains(": gt")).count()
}

async fn answers(address: &str) -> bool {
    let connected = tokio::time::timeout(Duration::from_secs(1), tokio::net::TcpStream::connect(address)).await;
    matches!(connected, Ok(Ok(_)))
}

/// Cuts every file below a folder in half, as a disk may leave them that lost power.
fn tear(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.file_name().is_some_and(|name| name == "pod.json") {
            let bytes = std::fs::read(&path).expect("a file");
            std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("it is ours");
        } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            tear(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn the_first_round_has_every_fault_and_the_others_are_dice() {
        let round = |round, seed| drawn(ALL, round, &mut StdRng::seed_from_u64(seed));
        let as_set = |faults: &[Fault]| faults.iter().map(|fault| format!("{fault:?}")).collect::<BTreeSet<_>>();
        for seed in 0..20 {
            assert_eq!((round(0, seed).len(), as_set(&round(0, seed))), (ALL.len(), as_set(ALL)));
            assert_eq!((round(1, seed).len(), round(1, seed)), (ALL.len(), round(1, seed)));
        }
        assert!((0..20).any(|seed| as_set(&round(1, seed)).len() < ALL.len()), "nothing is ever drawn again");
        assert!(drawn(&[], 1, &mut StdRng::seed_from_u64(0)).is_empty());
    }

    #[test]
    fn faults_are_asked_for_by_name() {
        assert_eq!(named(None), ALL);
        assert_eq!(named(Some("DiskSlow, MemoryPressure")), [Fault::DiskSlow, Fault::MemoryPressure]);
        assert!(std::panic::catch_unwind(|| named(Some("DiskSlower"))).is_err());
    }
}
