//! Security contexts: of pods and of containers.

use std::collections::BTreeSet;

use super::super::at::{At, Errors};

const ID_LAST: i64 = i32::MAX as i64;
const SYSCTL_MAX_CHARS: usize = 253;

/// The `securityContext` of a pod.
pub fn pod(at: &At<'_>, errors: &mut Errors) {
    common(at, errors);
    at.field("fsGroup").within(errors, 0, ID_LAST);
    for group in at.field("supplementalGroups").items() {
        group.within(errors, 0, ID_LAST);
    }
    at.field("fsGroupChangePolicy").maybe_one_of(errors, &["Always", "OnRootMismatch"]);
    at.field("seLinuxChangePolicy").maybe_one_of(errors, &["MountOption", "Recursive"]);
    at.field("supplementalGroupsPolicy").maybe_one_of(errors, &["Merge", "Strict"]);
    let mut seen = BTreeSet::new();
    for sysctl in at.field("sysctls").items() {
        let name = sysctl.field("name");
        name.required_as(errors, sysctl_name);
        name.unique(errors, &mut seen);
    }
}

/// The `securityContext` of a container.
pub fn container(at: &At<'_>, errors: &mut Errors) {
    if !at.is_set() {
        return;
    }
    common(at, errors);
    at.field("procMount").maybe_one_of(errors, &["Default", "Unmasked"]);
    if at.field("allowPrivilegeEscalation").value == false {
        if at.is_true("privileged") {
            at.invalid(errors, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        }
        if at.field("capabilities").field("add").items().any(|c| c.text() == "CAP_SYS_ADMIN") {
            at.invalid(errors, "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN");
        }
    }
}

fn common(at: &At<'_>, errors: &mut Errors) {
    at.field("runAsUser").within(errors, 0, ID_LAST);
    at.field("runAsGroup").within(errors, 0, ID_LAST);
    profile(at, "seccompProfile", "seccomp", errors);
    profile(at, "appArmorProfile", "AppArmor", errors);
}

/// Seccomp and AppArmor profiles are named alike.
fn profile(at: &At<'_>, field: &str, words: &str, errors: &mut Errors) {
    let Some(profile) = at.get(field) else { return };
    let (kind, local) = (profile.field("type"), profile.field("localhostProfile"));
    match kind.text() {
        "" => kind.required(errors, &format!("type is required when {field} is set")),
        "Localhost" => match local.text() {
            "" => local.required(errors, &format!("must be set when {words} type is Localhost")),
            path if path.starts_with('/') => local.invalid(errors, "must be a relative path"),
            path if path.split('/').any(|part| part == "..") => local.invalid(errors, "must not contain '..'"),
            _ => {}
        },
        "RuntimeDefault" | "Unconfined" => {
            if local.is_set() {
                local.invalid(errors, format!("can only be set when {words} type is Localhost"));
            }
        }
        _ => kind.not_supported(errors, &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
}

/// `net.ipv4.ip_forward`, or with slashes.
fn sysctl_name(name: &str) -> Option<String> {
    let part = |part: &str| {
        let bytes = part.as_bytes();
        let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
        let outer = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        outer(bytes.first()) && outer(bytes.last()) && bytes.iter().all(inner)
    };
    if name.len() > SYSCTL_MAX_CHARS {
        return Some(format!("must be no more than {SYSCTL_MAX_CHARS} characters"));
    }
    let good = name.split(['.', '/']).all(part);
    (!good).then(|| {
        "must have at most 253 characters and match regex \
        ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
            .to_owned()
    })
}
