//! What a pod may share with its host, or reach through it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::containers::{named, plural, quoted, setters};
use super::{Subject, Violation};

/// Kernel settings that are the pod's own and reach nobody else, in the order in which they came to be allowed.
pub const SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

const FREE_VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// The sources that are told by name.
const RESTRICTED_VOLUMES: [&str; 21] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "nfs",
    "iscsi",
    "glusterfs",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "fc",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "storageos",
];

pub fn namespaces(subject: &Subject<'_>) -> Option<Violation> {
    let shared = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|name| subject.spec[*name] == true);
    let shared: Vec<String> = shared.map(|name| format!("{name}=true")).collect();
    (!shared.is_empty()).then(|| Violation { reason: "host namespaces", detail: shared.join(", ") })
}

/// The names of the volumes that `bad` is true of.
fn volumes<'a>(subject: &Subject<'a>, bad: impl Fn(&Value) -> bool) -> Vec<&'a str> {
    let all = subject.spec["volumes"].as_array().into_iter().flatten();
    all.filter(|volume| bad(volume)).map(|volume| volume["name"].as_str().unwrap_or("")).collect()
}

pub fn path_volumes(subject: &Subject<'_>) -> Option<Violation> {
    let bad = volumes(subject, |volume| !volume["hostPath"].is_null());
    let detail = format!("{} {}", plural("volume", "volumes", bad.len()), quoted(bad.iter().copied()));
    (!bad.is_empty()).then_some(Violation { reason: "hostPath volumes", detail })
}

pub fn volume_types(subject: &Subject<'_>) -> Option<Violation> {
    let has = |volume: &Value, kinds: &[&'static str]| kinds.iter().copied().find(|kind| !volume[*kind].is_null());
    let restricted = |volume: &Value| has(volume, &FREE_VOLUMES).is_none();
    let all = subject.spec["volumes"].as_array().into_iter().flatten().filter(|volume| restricted(volume));
    let kinds: BTreeSet<&str> = all.map(|volume| has(volume, &RESTRICTED_VOLUMES).unwrap_or("unknown")).collect();
    let bad = volumes(subject, restricted);
    let detail = format!(
        "{} {} {} {} {}",
        plural("volume", "volumes", bad.len()),
        quoted(bad.iter().copied()),
        plural("uses", "use", bad.len()),
        plural("restricted volume type", "restricted volume types", kinds.len()),
        quoted(kinds.iter().copied()),
    );
    (!bad.is_empty()).then_some(Violation { reason: "restricted volume types", detail })
}

pub fn ports(subject: &Subject<'_>) -> Option<Violation> {
    let mut ports = BTreeSet::new();
    let bad = subject.names(|container| {
        let all = container["ports"].as_array().into_iter().flatten();
        let mut taken = all.filter_map(|port| port["hostPort"].as_i64()).filter(|port| *port != 0).peekable();
        let takes = taken.peek().is_some();
        // Told in the order of text, as names are.
        ports.extend(taken.map(|port| port.to_string()));
        takes
    });
    let detail = format!(
        "{} {} {} {}",
        named(&bad),
        plural("uses", "use", bad.len()),
        plural("hostPort", "hostPorts", ports.len()),
        ports.into_iter().collect::<Vec<_>>().join(", "),
    );
    (!bad.is_empty()).then_some(Violation { reason: "hostPort", detail })
}

/// Probes and hooks that are sent from the node to a place of the pod's choosing.
pub fn probed(subject: &Subject<'_>) -> Option<Violation> {
    let (mut hosts, mut bad) = (BTreeSet::new(), BTreeSet::new());
    for container in subject.containers() {
        let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|probe| &container[probe]);
        let hooks = ["postStart", "preStop"].map(|hook| &container["lifecycle"][hook]);
        for action in probes.into_iter().chain(hooks) {
            let named = ["httpGet", "tcpSocket"].into_iter().filter_map(|kind| action[kind]["host"].as_str());
            for host in named.filter(|host| !host.is_empty()) {
                hosts.insert(host);
                bad.insert(container["name"].as_str().unwrap_or(""));
            }
        }
    }
    let bad: Vec<&str> = bad.into_iter().collect();
    let detail = format!(
        "{} {} {} {}",
        named(&bad),
        plural("uses", "use", bad.len()),
        plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len()),
        quoted(hosts),
    );
    (!bad.is_empty()).then_some(Violation { reason: "probe or lifecycle host", detail })
}

pub fn sysctls(subject: &Subject<'_>, allowed: &[&str]) -> Option<Violation> {
    let all = subject.spec["securityContext"]["sysctls"].as_array().into_iter().flatten();
    let named = all.map(|sysctl| sysctl["name"].as_str().unwrap_or(""));
    let bad: Vec<&str> = named.filter(|name| !allowed.contains(name)).collect();
    (!bad.is_empty()).then(|| Violation { reason: "forbidden sysctls", detail: bad.join(", ") })
}

pub fn windows_process(subject: &Subject<'_>) -> Option<Violation> {
    let asks = |of: &Value| of["securityContext"]["windowsOptions"]["hostProcess"] == true;
    let who = setters(asks(subject.spec), &subject.names(asks))?;
    let detail = format!("{who} must not set securityContext.windowsOptions.hostProcess=true");
    Some(Violation { reason: "hostProcess", detail })
}
