//! Pods, and the templates of which workloads make them.

use std::collections::BTreeSet;

use super::at::{At, Errors};
use super::format::{PORT_LAST, ip, label, labels, qualified, subdomain};
use crate::{FieldError, Object};

mod container;
mod ephemeral;
mod probe;
mod resize;
pub(super) mod resources;
pub(super) mod scheduling;
mod security;
#[cfg(test)]
mod tests;
mod update;
pub(super) mod volume;

pub use ephemeral::ephemeral_containers;
pub use resize::resize;
pub use update::update;

const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const ONLY_SIDECARS: &str = "may not be set for init containers without restartPolicy=Always";

/// What the rules of a container need to know of its pod.
pub struct Pod<'a> {
    volumes: BTreeSet<&'a str>,
    claims: BTreeSet<&'a str>,
    grace: Option<i64>,
    never_restarts: bool,
}

/// A pod's own fields.
pub fn create(object: &Object, errors: &mut Errors) {
    let at = At::of(object, "spec");
    spec(&at, true, errors);
    if at.field("ephemeralContainers").count() > 0 {
        at.field("ephemeralContainers").forbidden(errors, "cannot be set on create");
    }
}

/// What a Binding must say.
pub fn binding(object: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let target = At::of(object, "target");
    if !matches!(target.text_of("kind"), "" | "Node") {
        target.field("kind").not_supported(&mut errors, &["Node", "<empty>"]);
    }
    target.field("name").present(&mut errors);
    errors.into_vec()
}

/// The template of a workload: its labels, and the spec of its pods.
pub fn template(at: &At<'_>, errors: &mut Errors) {
    labels(&at.field("metadata").field("labels"), errors);
    for (key, _) in at.field("metadata").field("annotations").entries() {
        if let Some(why) = qualified(&key.to_lowercase()) {
            let path = format!("{}.metadata.annotations", at.path);
            errors.push(FieldError::invalid(path, key, why));
        }
    }
    let spec = at.field("spec");
    self::spec(&spec, false, errors);
    if spec.field("ephemeralContainers").count() > 0 {
        let why = "ephemeral containers not allowed in pod template";
        spec.field("ephemeralContainers").forbidden(errors, why);
    }
}

fn spec(at: &At<'_>, is_pod: bool, errors: &mut Errors) {
    let volumes = volume::volumes(&at.field("volumes"), errors);
    let claims = claims(at, errors);
    let grace = at.int_of("terminationGracePeriodSeconds");
    let pod = Pod { volumes, claims, grace, never_restarts: at.text_of("restartPolicy") == "Never" };
    containers(at, &pod, errors);
    at.field("restartPolicy").one_of(errors, &container::RESTART_POLICIES);
    dns(at, errors);
    security::pod(&at.field("securityContext"), errors);
    host(at, is_pod, errors);
    resources::pod_level(&at.field("resources"), errors);
    for field in ["serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"] {
        at.field(field).optional_as(errors, subdomain);
    }
    at.field("activeDeadlineSeconds").within(errors, 1, i64::from(i32::MAX));
    for field in ["hostname", "subdomain"] {
        at.field(field).optional_as(errors, label);
    }
    if let Some(os) = at.get("os") {
        os.field("name").one_of(errors, &["linux", "windows"]);
    }
    at.field("preemptionPolicy").maybe_one_of(errors, &["Never", "PreemptLowerPriority"]);
    for gate in at.field("readinessGates").items() {
        let condition = gate.field("conditionType");
        if let Some(why) = qualified(condition.text()) {
            condition.invalid(errors, why);
        }
    }
    for (name, amount) in at.field("overhead").entries() {
        if let Some(why) = qualified(name) {
            amount.invalid(errors, why);
        }
    }
    scheduling::scheduling(at, errors);
}

fn claims<'a>(spec: &At<'a>, errors: &mut Errors) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for claim in spec.field("resourceClaims").items() {
        let name = claim.field("name");
        name.required_as(errors, label);
        name.unique(errors, &mut names);
    }
    names
}

fn containers(spec: &At<'_>, pod: &Pod<'_>, errors: &mut Errors) {
    // Borrowed from the spec, so that names can be compared across the lists.
    let mut names = BTreeSet::new();
    let list = spec.field("containers");
    if list.count() == 0 {
        list.required(errors, "");
    }
    for at in list.items() {
        container::container(&at, pod, &mut names, errors);
        container::restart(&at, errors);
    }
    for at in spec.field("initContainers").items() {
        container::container(&at, pod, &mut names, errors);
        container::restart(&at, errors);
        if at.text_of("restartPolicy") != "Always" {
            for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if let Some(field) = at.get(field) {
                    field.forbidden(errors, ONLY_SIDECARS);
                }
            }
        }
    }
    host_ports(spec, errors);
}

/// No two containers ask for one port of the host.
fn host_ports(spec: &At<'_>, errors: &mut Errors) {
    let mut taken = BTreeSet::new();
    // Init containers run one after another, unless they stay.
    let sidecars = spec.field("initContainers").items().filter(|c| c.text_of("restartPolicy") == "Always");
    for container in spec.field("containers").items().chain(sidecars) {
        for port in container.field("ports").items() {
            let Some(number) = port.int_of("hostPort").filter(|number| *number != 0) else { continue };
            let key = format!("{}/{}/{number}", port.text_of("protocol"), port.text_of("hostIP"));
            if taken.contains(&key) {
                errors.push(FieldError::duplicate(port.field("hostPort").path, key));
            } else {
                taken.insert(key);
            }
        }
    }
}

fn dns(spec: &At<'_>, errors: &mut Errors) {
    let policy = spec.field("dnsPolicy");
    policy.one_of(errors, &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]);
    let config = spec.field("dnsConfig");
    let servers = config.field("nameservers");
    if policy.text() == "None" {
        if !config.is_set() {
            config.required(errors, "must provide `dnsConfig` when `dnsPolicy` is None");
        } else if servers.count() == 0 {
            servers.required(errors, "must provide at least one DNS nameserver when `dnsPolicy` is None");
        }
    }
    if servers.count() > NAMESERVERS_MAX {
        servers.invalid(errors, format!("must not have more than {NAMESERVERS_MAX} nameservers"));
    }
    for server in servers.items() {
        server.required_as(errors, ip);
    }
    let searches = config.field("searches");
    if searches.count() > SEARCHES_MAX {
        searches.invalid(errors, format!("must not have more than {SEARCHES_MAX} search paths"));
    }
    for search in searches.items().filter(|search| search.text() != ".") {
        // Names of the host's domain may hold underscores, and end with a dot.
        search.required_as(errors, |text| subdomain(&text.strip_suffix('.').unwrap_or(text).replace('_', "-")));
    }
    for option in config.field("options").items() {
        if option.text_of("name").is_empty() {
            option.field("name").required(errors, "must not be empty");
        }
    }
}

/// Parameters of the kernel are a pod's own where their namespace is.
fn own_sysctls(spec: &At<'_>, errors: &mut Errors) {
    for sysctl in spec.field("securityContext").field("sysctls").items() {
        let name = sysctl.field("name");
        let dotted = name.text().replace('/', ".");
        let of_network = dotted.starts_with("net.");
        let of_ipc =
            dotted == "kernel.sem" || ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|p| dotted.starts_with(p));
        for (shared, field) in [(of_network, "hostNetwork"), (of_ipc, "hostIPC")] {
            if shared && spec.is_true(field) {
                name.invalid(errors, format!("may not be specified when '{field}' is true"));
            }
        }
    }
}

/// What a pod shares with its host.
fn host(spec: &At<'_>, is_pod: bool, errors: &mut Errors) {
    if spec.is_true("hostPID") && spec.is_true("shareProcessNamespace") {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        spec.field("shareProcessNamespace").invalid(errors, why);
    }
    if spec.field("hostUsers").value == false {
        for field in ["hostNetwork", "hostPID", "hostIPC"].iter().filter(|field| spec.is_true(field)) {
            spec.field(field).forbidden(errors, "when `hostUsers` is false");
        }
    }
    own_sysctls(spec, errors);
    for list in ["containers", "initContainers"] {
        for container in spec.field(list).items() {
            let mount = container.field("securityContext").field("procMount");
            if mount.text() == "Unmasked" && spec.field("hostUsers").value != false {
                mount.invalid(errors, "`hostUsers` must be false to use `Unmasked`");
            }
        }
    }
    for alias in spec.field("hostAliases").items() {
        alias.field("ip").required_as(errors, ip);
        for name in alias.field("hostnames").items() {
            name.required_as(errors, subdomain);
        }
    }
    if !spec.is_true("hostNetwork") {
        return;
    }
    for list in ["containers", "initContainers"] {
        for port in spec.field(list).items().flat_map(|container| container.field("ports").items()) {
            // A template may leave the host's port to the pods that it makes.
            let host = port.int_of("hostPort").unwrap_or(0);
            let differs = Some(host) != port.int_of("containerPort");
            if (is_pod || host != 0) && differs && (0..=PORT_LAST).contains(&host) {
                let path = port.field("hostPort").path;
                errors.push(FieldError::invalid(path, host, "must match `containerPort` when `hostNetwork` is true"));
            }
        }
    }
}
