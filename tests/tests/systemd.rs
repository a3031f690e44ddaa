//! Gantry as systemd's service, by the units that it ships: `vm run systemd`, a machine in which systemd is process 1.

use std::path::{Path, PathBuf};

use gantry_tests::cluster::{IMAGE, Running, demo_image, program, running};
use gantry_tests::kubectl::Kubectl;
use gantry_tests::vm::{self, Here};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::process::Command;
use tokio::time::{Duration, Instant};

const GANTRY: &str = "/usr/local/bin/gantry";
const FLAGS: &str = "--node-ip 192.0.2.10 --node-name machine";
const UNIT_CGROUP: &str = "/sys/fs/cgroup/system.slice/gantry-pods.service";
const NODES_READY: &str = r#"jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}"#;
const PATIENCE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);
const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: lasting}
spec:
  terminationGracePeriodSeconds: 5
  containers: [{name: main, image: IMAGE, command: [sh, -c, 'trap \"exit 0\" TERM; while :; do sleep 0.1; done']}]
---
apiVersion: v1
kind: Pod
metadata: {name: greedy}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
  - {name: main, image: IMAGE, command: [sh, -c, 'exec tail /dev/zero'], resources: {limits: {memory: 32Mi}}}
";

/// A program of the host to its end: whether it succeeded, and what it said.
async fn ran(program: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(program).args(arguments).output().await.unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.success(), text.concat().trim().to_owned())
}

async fn must(program: &str, arguments: &[&str]) -> String {
    let (good, text) = ran(program, arguments).await;
    if !good {
        let log = ran("journalctl", &["--no-pager", "-n", "60", "-o", "cat"]).await.1;
        panic!("{program} {arguments:?}: {text}\n{log}");
    }
    text
}

async fn systemctl(arguments: &[&str]) -> String {
    must("systemctl", arguments).await
}

async fn property(unit: &str, name: &str) -> String {
    systemctl(&["show", "--value", "--property", name, unit]).await
}

async fn main_pid() -> i32 {
    property("gantry", "MainPID").await.parse().unwrap()
}

async fn log_of(unit: &str) -> String {
    must("journalctl", &["--no-pager", "-o", "cat", "-u", unit]).await
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < PATIENCE, "never: {what}\n{}", log_of("gantry").await);
        tokio::time::sleep(POLL).await;
    }
}

/// When the scenario had come this far: its console is all that tells where the time goes.
fn done(begun: Instant, what: &str) {
    println!("{:5.1} s: {what}", begun.elapsed().as_secs_f64());
}

fn cgroup_of(pid: i64) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap().trim().trim_start_matches("0::").to_owned()
}

/// The units that ship, a folder to write settings to, and the programs where the units look for them. All of it ends with the
/// machine.
async fn install() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/gantry/systemd");
    for entry in std::fs::read_dir(&shipped).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, Path::new(vm::UNITS).join(path.file_name().unwrap())).unwrap();
    }
    let bin = program("gantry").parent().unwrap().to_owned();
    mount(Some(&bin), "/usr/local/bin", None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    for folder in ["/run/etc/upper", "/run/etc/work"] {
        std::fs::create_dir_all(folder).unwrap();
    }
    let layers = "lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work";
    mount(Some("etc"), "/etc", Some("overlay"), MsFlags::empty(), Some(layers)).unwrap();
    systemctl(&["daemon-reload"]).await;
}

/// What a user writes with `systemctl edit`.
async fn set(unit: &str, name: &str, text: &str) {
    let folder = PathBuf::from(vm::UNITS).join(format!("{unit}.service.d"));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(format!("{name}.conf")), format!("[Service]\n{text}\n")).unwrap();
    systemctl(&["daemon-reload"]).await;
}

async fn lasting() -> Running {
    let found = running(Path::new("/run/gantry/cri.sock")).await;
    found.into_iter().find(|one| one.1 == "main").expect("the pod runs")
}

#[tokio::test]
async fn it_is_a_service_like_any_other_and_its_pods_outlive_it() {
    let is_systemd = std::fs::read_to_string("/proc/1/comm").unwrap().trim() == "systemd";
    let Some(here) = vm::here().filter(|_| is_systemd) else {
        println!("SKIPPED: no machine whose process 1 is systemd; vm run systemd");
        return;
    };
    if here.boot > 0 {
        return after_power_off(&here);
    }
    let begun = Instant::now();
    install().await;
    for unit in ["gantry", "gantry-control", "gantry-agent", "gantry-pods", "gantry-shutdown"] {
        let said = must("systemd-analyze", &["verify", &format!("{}/{unit}.service", vm::UNITS)]).await;
        assert_eq!(said, "", "{unit}.service");
    }

    done(begun, "the units are good");

    // It cannot start: no address leads out of this machine. The unit's own log says so.
    assert!(!ran("systemctl", &["start", "gantry"]).await.0, "nothing to start with");
    assert!(log_of("gantry").await.contains("give it with --node-ip"), "{}", log_of("gantry").await);
    systemctl(&["stop", "gantry"]).await;

    done(begun, "it did not start, and said why");

    // Started is ready.
    set("gantry", "flags", &format!("Environment=\"GANTRY_FLAGS={FLAGS}\"")).await;
    systemctl(&["start", "gantry"]).await;
    done(begun, "started");
    assert_eq!(
        property("gantry", "StatusText").await,
        "node machine is ready; export KUBECONFIG=/etc/gantry/admin.kubeconfig"
    );
    let kubectl = Kubectl::new(Path::new("/etc/gantry/admin.kubeconfig"));
    assert_eq!(kubectl.must(&["get", "nodes", "-o", NODES_READY]).await, "True");

    // Pods and supervisors are in the cgroup that is theirs, and carry nothing of the service's environment.
    std::fs::write("/tmp/demo.tar", demo_image()).unwrap();
    must(GANTRY, &["image", "import", "/tmp/demo.tar"]).await;
    kubectl.with_input(&["apply", "-f", "-"], &PODS.replace("IMAGE", IMAGE)).await.unwrap();
    let phase = async |pod: &str| kubectl.run(&["get", "pod", pod, "-o", "jsonpath={.status.phase}"]).await;
    until("the pod runs", async || phase("lasting").await.as_deref() == Ok("Running")).await;
    until("the greedy one is killed", async || phase("greedy").await.as_deref() == Ok("Failed")).await;
    let reason = "jsonpath={.status.containerStatuses[0].state.terminated.reason}";
    assert_eq!(kubectl.must(&["get", "pod", "greedy", "-o", reason]).await, "OOMKilled");
    let before = lasting().await;
    let cgroup = cgroup_of(before.3);
    assert!(cgroup.starts_with("/system.slice/gantry-pods.service/gantry/"), "{cgroup}");
    let supervisor = parent(before.3);
    assert_eq!(cgroup_of(supervisor), "/system.slice/gantry-pods.service/gantry-supervisors");
    assert_eq!(std::fs::read_to_string(format!("/proc/{supervisor}/environ")).unwrap(), "");
    let daemon = main_pid().await;
    assert_eq!(cgroup_of(daemon.into()), "/system.slice/gantry.service");
    assert_eq!(std::fs::read_to_string(format!("/proc/{daemon}/oom_score_adj")).unwrap().trim(), "-999");

    // What is above that cgroup is systemd's: it alone has handed controllers down.
    let handed = |at: &str| std::fs::read_to_string(format!("/sys/fs/cgroup{at}/cgroup.subtree_control")).unwrap();
    let (slice, unit) = (handed("/system.slice"), handed("/system.slice/gantry-pods.service"));
    assert!(!slice.contains("misc") && unit.contains("memory"), "{slice}, {unit}");

    done(begun, "pods run");

    // Restarted, reloaded, hung: the pod stays what it was.
    assert_eq!(property("gantry-shutdown", "ActiveState").await, "active");
    systemctl(&["restart", "gantry"]).await;
    let second = main_pid().await;
    assert_ne!(second, daemon);
    assert_eq!(lasting().await, before, "a restart");
    assert_eq!(property("gantry-shutdown", "ActiveState").await, "active", "a restart is no shutdown");
    systemctl(&["daemon-reload"]).await;
    assert_eq!(lasting().await, before, "a reload");

    done(begun, "restarted and reloaded");

    set("gantry", "watchdog", "WatchdogSec=6").await;
    systemctl(&["restart", "gantry"]).await;
    let third = main_pid().await;
    done(begun, "restarted with less patience");
    kill(Pid::from_raw(third), Signal::SIGSTOP).unwrap();
    until("the watchdog starts another", async || {
        let now = main_pid().await;
        now != third && now != 0 && property("gantry", "ActiveState").await == "active"
    })
    .await;
    done(begun, "hung and back");
    assert_eq!(property("gantry", "NRestarts").await, "1");
    assert!(log_of("gantry").await.contains("Watchdog timeout"), "{}", log_of("gantry").await);
    assert_eq!(lasting().await, before, "a hang");

    // Stopped: the pod runs on, and `start` takes it up.
    systemctl(&["stop", "gantry"]).await;
    assert_eq!(property("gantry", "ActiveState").await, "inactive");
    assert_eq!(cgroup_of(before.3), cgroup, "it is still there");
    assert_eq!(property("gantry-shutdown", "ActiveState").await, "active", "a stop is no shutdown");
    systemctl(&["start", "gantry"]).await;
    assert_eq!(lasting().await, before, "a stop and a start");

    done(begun, "stopped and started");

    // What holds the cgroup is nothing that pods hang on.
    let held = || std::fs::read_to_string(format!("{UNIT_CGROUP}/held/cgroup.procs")).unwrap();
    kill(Pid::from_raw(held().trim().parse().unwrap()), Signal::SIGKILL).unwrap();
    until("the holder is gone", async || held().is_empty()).await;
    assert_eq!(property("gantry-pods", "ActiveState").await, "active");
    assert_eq!(lasting().await, before, "the end of the holder");

    // The end of their cgroup: each pod ends by itself in its time, and its supervisor after it.
    done(begun, "pods are to end");
    systemctl(&["stop", "gantry-pods"]).await;
    done(begun, "pods have ended");
    assert_eq!(property("gantry", "ActiveState").await, "inactive");
    assert_eq!(property("gantry-pods", "Result").await, "success");
    assert!(!log_of("gantry-pods").await.contains("SIGKILL"), "{}", log_of("gantry-pods").await);
    assert!(!Path::new(UNIT_CGROUP).exists());
    systemctl(&["start", "gantry"]).await;
    until("the pod runs again", async || {
        running(Path::new("/run/gantry/cri.sock")).await.iter().any(|one| one.0 == before.0 && one.2 == before.2 + 1)
    })
    .await;

    done(begun, "pods run again");

    // `gantry down` ends the service too, which systemd does not take for a failure; nothing is left after an uninstall.
    must(GANTRY, &["down", "--grace", "1"]).await;
    assert_eq!(property("gantry", "ActiveState").await, "inactive");
    must(GANTRY, &["uninstall"]).await;
    let left = std::fs::read_dir(UNIT_CGROUP).unwrap().flatten();
    let left: Vec<_> = left.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["held"]);
    systemctl(&["stop", "gantry-pods"]).await;
    assert!(!Path::new(UNIT_CGROUP).exists());
    assert!(!Path::new("/etc/gantry").exists() && !Path::new("/var/lib/gantry").exists());

    done(begun, "uninstalled");

    halves(&kubectl, begun).await;
    power_off(&here, &kubectl, begun).await
}

/// Control service and node as two services: the node waits for nobody, and is ready once both are there.
async fn halves(kubectl: &Kubectl, begun: Instant) {
    set("gantry-control", "flags", "Environment=\"GANTRY_FLAGS=--advertise 127.0.0.1\"").await;
    set("gantry-agent", "flags", &format!("Environment=\"GANTRY_FLAGS={FLAGS}\"")).await;
    systemctl(&["start", "gantry-control"]).await;
    kubectl.must(&["get", "--raw", "/readyz"]).await;
    done(begun, "the control service is ready");
    let server = ["--ip", "192.0.2.10", "--server", "https://127.0.0.1:6443", "--out", "/etc/gantry/node"];
    must(GANTRY, &[&["control", "node-credentials", "machine"][..], &server].concat()).await;
    systemctl(&["stop", "gantry-control"]).await;
    systemctl(&["start", "gantry-agent"]).await;
    done(begun, "the agent is, alone");
    assert_eq!(property("gantry-agent", "StatusText").await, "the agent of node machine runs");
    systemctl(&["start", "gantry-control"]).await;
    let ready = async || kubectl.run(&["get", "nodes", "-o", NODES_READY]).await.is_ok_and(|said| said == "True");
    until("the node is ready", ready).await;
    done(begun, "the node is ready");
    systemctl(&["stop", "gantry-agent", "gantry-control"]).await;
    done(begun, "both are stopped");
    for unit in ["gantry-agent", "gantry-control"] {
        assert_eq!(property(unit, "Result").await, "success", "{unit}");
    }
    must(GANTRY, &["uninstall"]).await;
}

/// Pods that write down that they were told to end: the first takes its time, the second has a higher priority, and the third
/// hears nothing.
const ENDING: &str = "
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: dear}
value: 1000
---
apiVersion: v1
kind: Pod
metadata: {name: first}
spec:
  terminationGracePeriodSeconds: 60
  volumes: [{name: out, hostPath: {path: OUT}}]
  containers:
  - name: main
    image: IMAGE
    command: [sh, -c, 'trap \"sleep 2; echo first >> /out/order; exit 0\" TERM; while :; do sleep 0.1; done']
    volumeMounts: [{name: out, mountPath: /out}]
---
apiVersion: v1
kind: Pod
metadata: {name: second}
spec:
  priorityClassName: dear
  terminationGracePeriodSeconds: 60
  volumes: [{name: out, hostPath: {path: OUT}}]
  containers:
  - name: main
    image: IMAGE
    command: [sh, -c, 'trap \"echo second >> /out/order; exit 0\" TERM; while :; do sleep 0.1; done']
    volumeMounts: [{name: out, mountPath: /out}]
---
apiVersion: v1
kind: Pod
metadata: {name: deaf}
spec:
  terminationGracePeriodSeconds: 60
  containers: [{name: main, image: IMAGE, command: [sh, -c, 'trap \"\" TERM; while :; do sleep 0.1; done']}]
";
/// It is stopped when the pods have ended and the API still answers, and writes down what that says.
const WITNESS: &str = "
[Unit]
After=gantry.service
Before=gantry-shutdown.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
ExecStop=/bin/sh -c 'kubectl --kubeconfig /etc/gantry/admin.kubeconfig --cache-dir /tmp/witness get pods,nodes -o json > OUT/api.json'
";

/// The end of the machine itself, as its user asks for it. What came of it is looked at when it is back.
async fn power_off(here: &Here, kubectl: &Kubectl, begun: Instant) -> ! {
    let out = here.shared.display().to_string();
    for name in ["order", "api.json", "said"] {
        let _ = std::fs::remove_file(here.shared.join(name));
    }
    let flags = format!("{FLAGS} --shutdown-grace-period-by-pod-priority 0=6,1000=30");
    set("gantry", "flags", &format!("Environment=\"GANTRY_FLAGS={flags}\"")).await;
    set("gantry-shutdown", "said", &format!("StandardOutput=append:{out}/said\nStandardError=append:{out}/said")).await;
    std::fs::write(Path::new(vm::UNITS).join("witness.service"), WITNESS.replace("OUT", &out)).unwrap();
    systemctl(&["daemon-reload"]).await;
    systemctl(&["restart", "gantry-shutdown"]).await;
    systemctl(&["start", "gantry", "witness"]).await;
    must(GANTRY, &["image", "import", "/tmp/demo.tar"]).await;
    let pods = ENDING.replace("IMAGE", IMAGE).replace("OUT", &out);
    kubectl.with_input(&["apply", "-f", "-"], &pods).await.unwrap();
    let phases = async || kubectl.run(&["get", "pods", "-o", "jsonpath={.items[*].status.phase}"]).await;
    until("three pods run", async || phases().await.as_deref() == Ok("Running Running Running")).await;
    done(begun, "the machine is to power off");
    here.boots_again();
    systemctl(&["poweroff"]).await;
    loop {
        std::thread::park();
    }
}

fn after_power_off(here: &Here) {
    let read = |name: &str| std::fs::read_to_string(here.shared.join(name)).unwrap_or_default();
    let said = read("said");
    assert!(said.contains("pods that have ended: 3") && !said.contains("time is over"), "{said}");
    assert_eq!(read("order"), "first\nsecond\n", "{said}");
    let api: Value = serde_json::from_str(&read("api.json")).unwrap();
    let items = api["items"].as_array().unwrap();
    let pods: Vec<&Value> = items.iter().filter(|item| item["kind"] == "Pod").collect();
    assert_eq!(pods.len(), 3);
    for pod in pods {
        let code = if pod["metadata"]["name"] == "deaf" { 137 } else { 0 };
        assert_eq!(pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], code, "{pod:#}");
        assert_eq!([&pod["status"]["phase"], &pod["status"]["reason"]], ["Failed", "Terminated"], "{pod:#}");
    }
    let node = items.iter().find(|item| item["kind"] == "Node").unwrap();
    let conditions = node["status"]["conditions"].as_array().unwrap();
    let ready = conditions.iter().find(|c| c["type"] == "Ready").unwrap();
    assert_eq!([&ready["status"], &ready["message"]], ["False", "node is shutting down"]);
}

fn parent(pid: i64) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}
