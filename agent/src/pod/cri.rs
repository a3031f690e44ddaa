//! What the runtime is asked for: a pod's sandbox and its containers as CRI messages. Pure.

use std::collections::{BTreeMap, HashMap};

use gantry_cri::v1::{
    self, Capability, ContainerConfig, ContainerMetadata, DnsConfig, ImageSpec, Int64Value, KeyValue,
    LinuxContainerConfig, LinuxContainerResources, LinuxContainerSecurityContext, LinuxPodSandboxConfig,
    LinuxSandboxSecurityContext, Mount, MountPropagation, NamespaceMode, NamespaceOption, PodSandboxConfig,
    PodSandboxMetadata, PortMapping, SecurityProfile, SupplementalGroupsPolicy,
};
use gantry_kube::Object;
use gantry_kube::pod::qos::{self, CPU_PERIOD_MICROS, QosClass};
use gantry_kube::pod::resources::{Amounts, limits, quantity, requests};
use gantry_kube::pod::{containers, ephemeral_containers, init_containers};
use serde_json::Value;

use super::env::expand;
use super::want::WantedContainer;
use crate::runtime::{
    CONTAINER_NAME_LABEL, GRACE_ANNOTATION, HASH_ANNOTATION, ImageFacts, POD_NAME_LABEL, POD_NAMESPACE_LABEL,
    POD_UID_LABEL, RESTARTS_ANNOTATION, TERMINATION_PATH_ANNOTATION, TERMINATION_POLICY_ANNOTATION,
};

/// Why a container is not made from its spec; shown as CreateContainerConfigError.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("container has runAsNonRoot and image will run as root (pod: {pod:?}, container: {container})")]
    ImageRunsAsRoot { pod: String, container: String },
    #[error("container's runAsUser breaks non-root policy (pod: {pod:?}, container: {container})")]
    UserIsRoot { pod: String, container: String },
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: {pod:?}, container: {container})"
    )]
    UserUnknown { user: String, pod: String, container: String },
    #[error("container {container}: {field} is not supported")]
    Unsupported { container: String, field: String },
    #[error("container {container} mounts {volume:?}, which is no volume of the pod")]
    NoVolume { container: String, volume: String },
    #[error("failed to prepare subPath {path:?} of volume {volume:?} for container {container:?}: {why}")]
    SubPath { container: String, volume: String, path: String, why: String },
    #[error("failed to expand subPathExpr of container {container:?}: missing value for {variable:?}")]
    SubPathVariable { container: String, variable: String },
}

/// The folder of a pod's logs, under the node's.
pub fn log_folder(pod: &Object) -> String {
    format!("{}_{}_{}", pod.namespace(), pod.name(), pod.uid())
}

/// `/gantry/burstable/pod<uid>`: the pod's cgroup, whose parent carries its class.
pub fn cgroup_parent(root: &str, pod: &Object) -> String {
    let uid = pod.uid();
    match qos::class(pod) {
        QosClass::Guaranteed => format!("{root}/pod{uid}"),
        QosClass::Burstable => format!("{root}/burstable/pod{uid}"),
        QosClass::BestEffort => format!("{root}/besteffort/pod{uid}"),
    }
}

fn pod_labels(pod: &Object) -> HashMap<String, String> {
    HashMap::from([
        (POD_NAME_LABEL.to_owned(), pod.name().to_owned()),
        (POD_NAMESPACE_LABEL.to_owned(), pod.namespace().to_owned()),
        (POD_UID_LABEL.to_owned(), pod.uid().to_owned()),
    ])
}

fn strings(map: Option<&Value>) -> HashMap<String, String> {
    let entries = map.and_then(Value::as_object).into_iter().flatten();
    entries.map(|(k, v)| (k.clone(), v.as_str().unwrap_or("").to_owned())).collect()
}

fn flag(pod: &Object, name: &str) -> bool {
    pod.bool_at(&format!("/spec/{name}")).unwrap_or(false)
}

fn namespaces(pod: &Object) -> NamespaceOption {
    let pick =
        |host: &str, otherwise: NamespaceMode| i32::from(if flag(pod, host) { NamespaceMode::Node } else { otherwise });
    let shared = if flag(pod, "shareProcessNamespace") { NamespaceMode::Pod } else { NamespaceMode::Container };
    NamespaceOption {
        network: pick("hostNetwork", NamespaceMode::Pod),
        pid: pick("hostPID", shared),
        ipc: pick("hostIPC", NamespaceMode::Pod),
        ..NamespaceOption::default()
    }
}

fn int(value: &Value) -> Option<Int64Value> {
    value.as_i64().map(|value| Int64Value { value })
}

/// RuntimeDefault unless the pod or the container says otherwise; a privileged container is unconfined.
fn seccomp(pod: &Object, container: &Value, privileged: bool) -> SecurityProfile {
    use v1::security_profile::ProfileType;
    if privileged {
        return SecurityProfile { profile_type: ProfileType::Unconfined.into(), ..SecurityProfile::default() };
    }
    let own = &container["securityContext"]["seccompProfile"];
    let of_pod = pod.get("/spec/securityContext/seccompProfile").unwrap_or(&Value::Null);
    let profile = if own.is_object() { own } else { of_pod };
    let profile_type = match profile["type"].as_str() {
        Some("Unconfined") => ProfileType::Unconfined,
        Some("Localhost") => ProfileType::Localhost,
        _ => ProfileType::RuntimeDefault,
    };
    let localhost_ref = profile["localhostProfile"].as_str().unwrap_or("").to_owned();
    SecurityProfile { profile_type: profile_type.into(), localhost_ref }
}

pub fn supplemental_groups(pod: &Object) -> Vec<i64> {
    let listed = pod.array_at("/spec/securityContext/supplementalGroups").iter().filter_map(Value::as_i64);
    let mut groups: Vec<i64> = listed.chain(pod.i64_at("/spec/securityContext/fsGroup")).collect();
    groups.dedup();
    groups
}

/// Merge, as ever, is also what a runtime does that knows no policy.
fn groups_policy(pod: &Object) -> i32 {
    let strict = pod.str_at("/spec/securityContext/supplementalGroupsPolicy") == "Strict";
    if strict { SupplementalGroupsPolicy::Strict } else { SupplementalGroupsPolicy::Merge }.into()
}

pub fn sandbox(
    pod: &Object,
    attempt: u32,
    hostname: String,
    dns: DnsConfig,
    cgroup_root: &str,
    log_root: &str,
    pids_max: i64,
) -> PodSandboxConfig {
    let mut labels = strings(pod.get("/metadata/labels"));
    labels.extend(pod_labels(pod));
    let mut annotations = strings(pod.get("/metadata/annotations"));
    annotations.insert(GRACE_ANNOTATION.to_owned(), super::want::grace_seconds(pod).to_string());
    let all = containers(pod).iter().chain(init_containers(pod)).chain(ephemeral_containers(pod));
    let privileged = all.into_iter().any(is_privileged);
    let context = pod.get("/spec/securityContext").unwrap_or(&Value::Null);
    let sysctls = context["sysctls"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|s| Some((s["name"].as_str()?.to_owned(), s["value"].as_str()?.to_owned())));
    let on_host = flag(pod, "hostNetwork");
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: pod.name().to_owned(),
            uid: pod.uid().to_owned(),
            namespace: pod.namespace().to_owned(),
            attempt,
        }),
        hostname: if on_host { String::new() } else { hostname },
        log_directory: format!("{log_root}/{}", log_folder(pod)),
        dns_config: Some(dns),
        port_mappings: if on_host { Vec::new() } else { port_mappings(pod) },
        labels,
        annotations,
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: cgroup_parent(cgroup_root, pod),
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces(pod)),
                run_as_user: int(&context["runAsUser"]),
                run_as_group: int(&context["runAsGroup"]),
                supplemental_groups: supplemental_groups(pod),
                supplemental_groups_policy: groups_policy(pod),
                privileged,
                seccomp: Some(seccomp(pod, &Value::Null, privileged)),
                ..LinuxSandboxSecurityContext::default()
            }),
            sysctls: sysctls.collect(),
            overhead: pod.get("/spec/overhead").map(overhead),
            resources: Some(pod_resources(pod, pids_max)),
        }),
        windows: None,
    }
}

fn port_mappings(pod: &Object) -> Vec<PortMapping> {
    let ports =
        containers(pod).iter().chain(init_containers(pod)).flat_map(|c| c["ports"].as_array().into_iter().flatten());
    let number = |value: &Value| value.as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or(0);
    ports
        .filter(|port| number(&port["hostPort"]) > 0)
        .map(|port| PortMapping {
            protocol: match port["protocol"].as_str() {
                Some("UDP") => v1::Protocol::Udp.into(),
                Some("SCTP") => v1::Protocol::Sctp.into(),
                _ => v1::Protocol::Tcp.into(),
            },
            container_port: number(&port["containerPort"]),
            host_port: number(&port["hostPort"]),
            host_ip: port["hostIP"].as_str().unwrap_or("").to_owned(),
        })
        .collect()
}

/// Limits of the pod's own cgroup: a quota or a memory limit only where every container has one.
pub fn pod_resources(pod: &Object, pids_max: i64) -> LinuxContainerResources {
    let (asked, limit) = (requests(pod), limits(pod));
    let limited = |limits: &Value, name: &str| limits.get(name).and_then(quantity).is_some_and(|q| !q.is_zero());
    let all = |name: &str| {
        let mut list = containers(pod).iter().chain(init_containers(pod));
        pod.get("/spec/resources/limits").is_some_and(|l| limited(l, name))
            || list.all(|c| limited(&c["resources"]["limits"], name))
    };
    LinuxContainerResources {
        cpu_period: CPU_PERIOD_MICROS,
        cpu_quota: if all("cpu") { qos::cpu_quota_micros(limit.cpu_milli) } else { 0 },
        cpu_shares: qos::cpu_shares(asked.cpu_milli),
        memory_limit_in_bytes: if all("memory") { limit.memory_bytes } else { 0 },
        unified: HashMap::from([("pids.max".to_owned(), pids_max.to_string())]),
        ..LinuxContainerResources::default()
    }
}

/// What the sandbox itself takes, which is part of what the pod has.
fn overhead(list: &Value) -> LinuxContainerResources {
    let amounts = Amounts::from_list(list);
    LinuxContainerResources {
        cpu_shares: if amounts.cpu_milli > 0 { qos::cpu_shares(amounts.cpu_milli) } else { 0 },
        memory_limit_in_bytes: amounts.memory_bytes,
        ..LinuxContainerResources::default()
    }
}

pub fn is_privileged(container: &Value) -> bool {
    container["securityContext"]["privileged"] == true
}

/// Everything of a container that its spec does not say by itself.
pub struct Given<'a> {
    pub attempt: u32,
    pub image: &'a ImageFacts,
    pub variables: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub node_memory_bytes: i64,
    /// Whether the node has cgroup v2, whose settings have names of their own.
    pub cgroup_v2: bool,
    /// The container whose processes this one sees.
    pub target_id: Option<String>,
}

pub fn container(
    pod: &Object,
    spec: &Value,
    wanted: &WantedContainer,
    given: Given<'_>,
) -> Result<ContainerConfig, SpecError> {
    refuse_unsupported(pod, spec, &wanted.name)?;
    let defined: BTreeMap<&str, &str> = given.variables.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let expanded = |key: &str| -> Vec<String> {
        let items = spec[key].as_array().into_iter().flatten().filter_map(Value::as_str);
        items.map(|text| expand(text, |name| defined.get(name).copied())).collect()
    };
    let text = |key: &str| spec[key].as_str().unwrap_or("").to_owned();
    let mut labels = pod_labels(pod);
    labels.insert(CONTAINER_NAME_LABEL.to_owned(), wanted.name.clone());
    let annotations = HashMap::from([
        (HASH_ANNOTATION.to_owned(), wanted.hash.clone()),
        (RESTARTS_ANNOTATION.to_owned(), given.attempt.to_string()),
        (TERMINATION_PATH_ANNOTATION.to_owned(), text("terminationMessagePath")),
        (TERMINATION_POLICY_ANNOTATION.to_owned(), text("terminationMessagePolicy")),
        (GRACE_ANNOTATION.to_owned(), super::want::grace_seconds(pod).to_string()),
    ]);
    let mut security = security_context(pod, spec, wanted, given.image)?;
    if let (Some(target), Some(options)) = (given.target_id, &mut security.namespace_options) {
        options.pid = NamespaceMode::Target.into();
        options.target_id = target;
    }
    let mut resources = container_resources(spec);
    if given.cgroup_v2 {
        // Out of memory, a container ends as a whole: half of one helps nobody (singleProcessOOMKill: false).
        resources.unified.insert("memory.oom.group".to_owned(), "1".to_owned());
    }
    resources.oom_score_adj = qos::oom_score_adj(pod, spec, given.node_memory_bytes);
    Ok(ContainerConfig {
        metadata: Some(ContainerMetadata { name: wanted.name.clone(), attempt: given.attempt }),
        image: Some(ImageSpec {
            image: given.image.image_ref.clone(),
            user_specified_image: wanted.image.reference.clone(),
            ..ImageSpec::default()
        }),
        command: expanded("command"),
        args: expanded("args"),
        working_dir: text("workingDir"),
        envs: given
            .variables
            .iter()
            .map(|(key, value)| KeyValue { key: key.clone(), value: value.clone().into() })
            .collect(),
        mounts: given.mounts,
        devices: Vec::new(),
        labels,
        annotations,
        log_path: format!("{}/{}.log", wanted.name, given.attempt),
        stdin: spec["stdin"] == true,
        stdin_once: spec["stdinOnce"] == true,
        tty: spec["tty"] == true,
        linux: Some(LinuxContainerConfig { resources: Some(resources), security_context: Some(security) }),
        windows: None,
        cdi_devices: Vec::new(),
        stop_signal: stop_signal(spec),
    })
}

fn stop_signal(spec: &Value) -> i32 {
    let name = spec["lifecycle"]["stopSignal"].as_str().unwrap_or("");
    v1::Signal::from_str_name(name).unwrap_or(v1::Signal::RuntimeDefault).into()
}

/// What is asked for and would not be done is refused by name: a pod that merely ran would claim it was.
fn refuse_unsupported(pod: &Object, spec: &Value, name: &str) -> Result<(), SpecError> {
    let unsupported = |field: &str| Err(SpecError::Unsupported { container: name.to_owned(), field: field.to_owned() });
    if !pod.array_at("/spec/resourceClaims").is_empty() {
        return unsupported("resourceClaims");
    }
    if pod.get("/spec/resources").and_then(Value::as_object).is_some_and(|r| r.values().any(|v| !is_empty(v))) {
        return unsupported("resources of the whole pod");
    }
    let security = [pod.get("/spec/securityContext"), spec.get("securityContext")];
    for context in security.into_iter().flatten() {
        if context["appArmorProfile"]["type"] == "Localhost" {
            return unsupported("securityContext.appArmorProfile");
        }
        for field in ["seLinuxOptions", "windowsOptions"] {
            if context[field].as_object().is_some_and(|options| !options.is_empty()) {
                return unsupported(&format!("securityContext.{field}"));
            }
        }
    }
    refuse_unsupported_of_container(spec, name)?;
    if spec["volumeDevices"].as_array().is_some_and(|list| !list.is_empty()) {
        return unsupported("volumeDevices");
    }
    // With the host's users, what the kernel hides nothing of in /proc would be the host's.
    if is_unmasked(spec) && !super::users::are_own(pod) {
        return unsupported("securityContext.procMount: Unmasked with the host's users");
    }
    Ok(())
}

fn is_unmasked(spec: &Value) -> bool {
    spec["securityContext"]["procMount"].as_str().is_some_and(|mount| mount != "Default")
}

/// `null`, `{}` or `[]`.
fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(|m| m.is_empty()) || value.as_array().is_some_and(Vec::is_empty)
}

fn refuse_unsupported_of_container(spec: &Value, name: &str) -> Result<(), SpecError> {
    let unsupported = |field: &str| Err(SpecError::Unsupported { container: name.to_owned(), field: field.to_owned() });
    if !is_empty(&spec["resources"]["claims"]) {
        return unsupported("resources.claims");
    }
    for port in spec["ports"].as_array().into_iter().flatten() {
        let ip = port["hostIP"].as_str().unwrap_or("");
        let on_host = port["hostPort"].as_i64().is_some_and(|port| port > 0);
        if on_host && !ip.is_empty() && ip.parse::<std::net::Ipv4Addr>().is_err() {
            return unsupported(&format!("ports.hostIP: {ip}"));
        }
    }
    Ok(())
}

pub fn container_resources(spec: &Value) -> LinuxContainerResources {
    let limit = Amounts::from_list(&spec["resources"]["limits"]);
    let asked = Amounts::from_list(&spec["resources"]["requests"]);
    // A limit without a request is a request too.
    let has_request = spec["resources"]["requests"].get("cpu").is_some();
    let cpu_milli = if has_request { asked.cpu_milli } else { limit.cpu_milli };
    LinuxContainerResources {
        cpu_period: CPU_PERIOD_MICROS,
        cpu_quota: qos::cpu_quota_micros(limit.cpu_milli),
        cpu_shares: qos::cpu_shares(cpu_milli),
        memory_limit_in_bytes: limit.memory_bytes,
        ..LinuxContainerResources::default()
    }
}

/// Paths that a container must not read, and must not write, unless it is privileged or its own /proc is to show everything.
const MASKED_PATHS: [&str; 9] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/sys/firmware",
];
const MORE_MASKED_PATHS: [&str; 3] = ["/proc/scsi", "/proc/timer_stats", "/sys/devices/virtual/powercap"];
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn security_context(
    pod: &Object,
    spec: &Value,
    wanted: &WantedContainer,
    image: &ImageFacts,
) -> Result<LinuxContainerSecurityContext, SpecError> {
    let own = &spec["securityContext"];
    let of_pod = pod.get("/spec/securityContext").unwrap_or(&Value::Null);
    let pick = |key: &str| if own[key].is_null() { &of_pod[key] } else { &own[key] };
    let user = int(pick("runAsUser"));
    if *pick("runAsNonRoot") == true {
        verify_not_root(pod, wanted, user.as_ref().map(|u| u.value), image)?;
    }
    let names = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let privileged = is_privileged(spec);
    let paths = |list: &[&str]| -> Vec<String> {
        if privileged || is_unmasked(spec) { Vec::new() } else { list.iter().map(|p| (*p).to_owned()).collect() }
    };
    let mut masked = paths(&MASKED_PATHS);
    masked.extend(paths(&MORE_MASKED_PATHS));
    Ok(LinuxContainerSecurityContext {
        capabilities: Some(Capability {
            add_capabilities: names(&own["capabilities"]["add"]),
            drop_capabilities: names(&own["capabilities"]["drop"]),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged,
        namespace_options: Some(namespaces(pod)),
        // Where the spec names no user, the runtime takes the image's.
        run_as_username: if user.is_none() { image.username.clone() } else { String::new() },
        run_as_user: user.or(image.uid.map(|value| Int64Value { value }).filter(|_| image.username.is_empty())),
        run_as_group: int(pick("runAsGroup")),
        readonly_rootfs: own["readOnlyRootFilesystem"] == true,
        supplemental_groups: supplemental_groups(pod),
        supplemental_groups_policy: groups_policy(pod),
        no_new_privs: own["allowPrivilegeEscalation"] == false,
        masked_paths: masked,
        readonly_paths: paths(&READONLY_PATHS),
        seccomp: Some(seccomp(pod, spec, privileged)),
        ..LinuxContainerSecurityContext::default()
    })
}

fn verify_not_root(
    pod: &Object,
    wanted: &WantedContainer,
    user: Option<i64>,
    image: &ImageFacts,
) -> Result<(), SpecError> {
    let (full, container) = (format!("{}_{}({})", pod.name(), pod.namespace(), pod.uid()), wanted.name.clone());
    match (user, image.uid) {
        (Some(0), _) => Err(SpecError::UserIsRoot { pod: full, container }),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => Err(SpecError::ImageRunsAsRoot { pod: full, container }),
        (None, Some(_)) => Ok(()),
        (None, None) if image.username.is_empty() => Err(SpecError::ImageRunsAsRoot { pod: full, container }),
        (None, None) => Err(SpecError::UserUnknown { user: image.username.clone(), pod: full, container }),
    }
}

/// What a read-only `volumeMount` of a spec asks for below it. The runtime can, so that what is asked for where it is possible is
/// done.
pub fn is_recursively_read_only(volume_mount: &Value) -> bool {
    matches!(volume_mount["recursiveReadOnly"].as_str(), Some("Enabled" | "IfPossible"))
}

/// A bind of `host_path`, as the `volumeMount` of a spec wants it.
pub fn bind(container_path: &str, host_path: String, readonly: bool, volume_mount: &Value) -> Mount {
    Mount {
        container_path: container_path.to_owned(),
        host_path,
        readonly,
        recursive_read_only: readonly && is_recursively_read_only(volume_mount),
        propagation: match volume_mount["mountPropagation"].as_str() {
            Some("HostToContainer") => MountPropagation::PropagationHostToContainer.into(),
            Some("Bidirectional") => MountPropagation::PropagationBidirectional.into(),
            _ => MountPropagation::PropagationPrivate.into(),
        },
        ..Mount::default()
    }
}

#[cfg(test)]
mod tests;
