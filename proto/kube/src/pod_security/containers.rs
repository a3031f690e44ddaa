//! What a container may be given beyond what it is started with.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Subject, Violation};

/// What a container has of itself, and may as well ask for.
const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

impl<'a> Subject<'a> {
    /// Every container, in the order in which they begin.
    pub(super) fn containers(self) -> impl Iterator<Item = &'a Value> {
        let spec = self.spec;
        let lists = ["initContainers", "containers", "ephemeralContainers"];
        lists.into_iter().flat_map(move |list| spec[list].as_array().into_iter().flatten())
    }

    /// The names of the containers that `bad` is true of.
    pub(super) fn names(self, mut bad: impl FnMut(&'a Value) -> bool) -> Vec<&'a str> {
        let bad = self.containers().filter(|container| bad(container));
        bad.map(|container| container["name"].as_str().unwrap_or("")).collect()
    }
}

/// `"a", "b"`
pub(super) fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

pub(super) fn plural(one: &'static str, many: &'static str, count: usize) -> &'static str {
    if count == 1 { one } else { many }
}

/// `container "a"`, `containers "a", "b"`
pub(super) fn named(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names.iter().copied()))
}

/// Who set something bad: `pod and containers "a", "b"`; None where nobody did.
pub(super) fn setters(pod: bool, containers: &[&str]) -> Option<String> {
    let pod = pod.then(|| "pod".to_owned());
    let containers = (!containers.is_empty()).then(|| named(containers));
    let all: Vec<String> = pod.into_iter().chain(containers).collect();
    (!all.is_empty()).then(|| all.join(" and "))
}

pub(super) fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

pub fn privileged(subject: &Subject<'_>) -> Option<Violation> {
    let bad = subject.names(|container| container["securityContext"]["privileged"] == true);
    let detail = format!("{} must not set securityContext.privileged=true", named(&bad));
    (!bad.is_empty()).then_some(Violation { reason: "privileged", detail })
}

pub fn privilege_escalation(subject: &Subject<'_>) -> Option<Violation> {
    let bad = subject.names(|container| container["securityContext"]["allowPrivilegeEscalation"] != false);
    let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", named(&bad));
    (!bad.is_empty()).then_some(Violation { reason: "allowPrivilegeEscalation != false", detail })
}

/// Containers that add what is not `allowed`, and what they add.
fn adding<'a>(subject: &Subject<'a>, allowed: &[&str]) -> Option<String> {
    let mut refused = BTreeSet::new();
    let bad = subject.names(|container| {
        let mut added = texts(&container["securityContext"]["capabilities"]["add"])
            .filter(|capability| !allowed.contains(capability))
            .peekable();
        let adds = added.peek().is_some();
        refused.extend(added);
        adds
    });
    let list = quoted(refused.iter().copied());
    let words = format!("{} must not include {list} in securityContext.capabilities.add", named(&bad));
    (!bad.is_empty()).then_some(words)
}

pub fn added_capabilities(subject: &Subject<'_>) -> Option<Violation> {
    adding(subject, &DEFAULT_CAPABILITIES).map(|detail| Violation { reason: "non-default capabilities", detail })
}

pub fn capabilities(subject: &Subject<'_>) -> Option<Violation> {
    let keeping =
        subject.names(|container| !texts(&container["securityContext"]["capabilities"]["drop"]).any(|c| c == "ALL"));
    let drop = format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", named(&keeping));
    let drop = (!keeping.is_empty()).then_some(drop);
    let details: Vec<String> = drop.into_iter().chain(adding(subject, &["NET_BIND_SERVICE"])).collect();
    let detail = details.join("; ");
    (!details.is_empty()).then_some(Violation { reason: "unrestricted capabilities", detail })
}

pub fn proc_mount(subject: &Subject<'_>) -> Option<Violation> {
    let mut kinds = BTreeSet::new();
    let bad = subject.names(|container| {
        let kind = container["securityContext"]["procMount"].as_str().filter(|kind| *kind != "Default");
        kinds.extend(kind);
        kind.is_some()
    });
    let kinds = quoted(kinds.iter().copied());
    let detail = format!("{} must not set securityContext.procMount to {kinds}", named(&bad));
    (!bad.is_empty()).then_some(Violation { reason: "procMount", detail })
}
