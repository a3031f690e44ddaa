//! Which profiles of the kernel's security modules a pod may choose.

use std::collections::BTreeSet;

use serde_json::Value;

use super::containers::{named, plural, quoted, setters};
use super::{Subject, Violation};

/// The last came to be allowed in 1.31.
pub const SE_LINUX_TYPES: [&str; 4] = ["container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

const APP_ARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_POD_ANNOTATION: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_ANNOTATION: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// Collects the type of the profile under `field` where one is set and is none that confines.
fn bad_type<'a>(of: &'a Value, field: &str, bad: &mut BTreeSet<&'a str>) -> bool {
    let profile = &of["securityContext"][field];
    let kind = profile["type"].as_str().unwrap_or("");
    let is_bad = !profile.is_null() && !matches!(kind, "RuntimeDefault" | "Localhost");
    if is_bad {
        bad.insert(kind);
    }
    is_bad
}

pub fn app_armor(subject: &Subject<'_>) -> Option<Violation> {
    let mut kinds = BTreeSet::new();
    let pod = bad_type(subject.spec, "appArmorProfile", &mut kinds);
    let containers = subject.names(|container| bad_type(container, "appArmorProfile", &mut kinds));
    let mut annotations: Vec<String> = subject
        .annotations
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .filter(|(key, _)| key.starts_with(APP_ARMOR_ANNOTATION))
        .filter(|(_, value)| !matches!(*value, "" | "runtime/default") && !value.starts_with("localhost/"))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    annotations.sort();
    let word = (!annotations.is_empty()).then(|| plural("annotation", "annotations", annotations.len()).to_owned());
    let who: Vec<String> = setters(pod, &containers).into_iter().chain(word).collect();
    let values: Vec<&str> = kinds.into_iter().chain(annotations.iter().map(String::as_str)).collect();
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
    let list = quoted(values.iter().copied());
    let detail = format!("{} must not set AppArmor profile type to {list}", who.join(" and "));
    (!who.is_empty()).then_some(Violation { reason, detail })
}

pub fn se_linux(subject: &Subject<'_>, allowed: &[&str]) -> Option<Violation> {
    let mut types = BTreeSet::new();
    let (mut user, mut role) = (false, false);
    let mut bad = |of: &'_ Value| {
        let options = &of["securityContext"]["seLinuxOptions"];
        let text = |key: &str| options[key].as_str().unwrap_or("").to_owned();
        let kind = text("type");
        let (sets_user, sets_role) = (!text("user").is_empty(), !text("role").is_empty());
        let bad_type = !kind.is_empty() && !allowed.contains(&kind.as_str());
        if bad_type {
            types.insert(kind);
        }
        user |= sets_user;
        role |= sets_role;
        bad_type || sets_user || sets_role
    };
    let pod = bad(subject.spec);
    let who = setters(pod, &subject.names(&mut bad))?;
    let mut what = Vec::new();
    if !types.is_empty() {
        let list = quoted(types.iter().map(String::as_str));
        what.push(format!("{} {list}", plural("type", "types", types.len())));
    }
    what.extend(user.then(|| "user may not be set".to_owned()));
    what.extend(role.then(|| "role may not be set".to_owned()));
    let detail = format!("{who} set forbidden securityContext.seLinuxOptions: {}", what.join("; "));
    Some(Violation { reason: "seLinuxOptions", detail })
}

/// How profiles were named before there was a field.
pub fn seccomp_annotations(subject: &Subject<'_>) -> Option<Violation> {
    let containers = subject.containers().filter_map(|container| container["name"].as_str());
    let keys = containers.map(|name| format!("{SECCOMP_ANNOTATION}{name}"));
    let refused = keys.chain([SECCOMP_POD_ANNOTATION.to_owned()]).filter_map(|key| {
        let value = subject.annotations?.get(&key)?.as_str()?;
        let allowed = matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
        (!allowed).then(|| format!("{key}={value:?}"))
    });
    let refused: BTreeSet<String> = refused.collect();
    let word = plural("annotation", "annotations", refused.len());
    let list: Vec<&str> = refused.iter().map(String::as_str).collect();
    let detail = format!("forbidden {word} {}", list.join(", "));
    (!refused.is_empty()).then_some(Violation { reason: "seccompProfile", detail })
}

pub fn seccomp(subject: &Subject<'_>) -> Option<Violation> {
    let mut kinds = BTreeSet::new();
    let pod = bad_type(subject.spec, "seccompProfile", &mut kinds);
    let who = setters(pod, &subject.names(|container| bad_type(container, "seccompProfile", &mut kinds)))?;
    let detail = format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(kinds));
    Some(Violation { reason: "seccompProfile", detail })
}

/// As [`seccomp`], and a profile there must be.
pub fn seccomp_set(subject: &Subject<'_>) -> Option<Violation> {
    if let Some(bad) = seccomp(subject) {
        return Some(bad);
    }
    let set = |of: &Value| !of["securityContext"]["seccompProfile"].is_null();
    let silent = subject.names(|container| !set(subject.spec) && !set(container));
    let detail = format!(
        "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
        named(&silent)
    );
    (!silent.is_empty()).then_some(Violation { reason: "seccompProfile", detail })
}
