//! Which checks a version of the standards has.

use super::{Level, Standard, Subject, Version, Violation, containers, host, identity, profiles};

/// None where the subject passes.
pub(super) type Rule = fn(&Subject<'_>) -> Option<Violation>;

/// One form of a check, from a minor version on until the next form of it.
struct Check {
    name: &'static str,
    level: Level,
    since: u64,
    rule: Rule,
    /// The check of the baseline whose place this takes where both would run.
    instead_of: &'static str,
}

const fn baseline(name: &'static str, since: u64, rule: Rule) -> Check {
    Check { name, level: Level::Baseline, since, rule, instead_of: "" }
}

const fn restricted(name: &'static str, since: u64, rule: Rule) -> Check {
    Check { name, level: Level::Restricted, since, rule, instead_of: "" }
}

const fn instead_of(baseline: &'static str, check: Check) -> Check {
    Check { instead_of: baseline, ..check }
}

/// In the order in which violations are told: the baseline first, by name; the forms of a check stand together, the oldest
/// first.
static CHECKS: &[Check] = &[
    baseline("appArmorProfile", 0, profiles::app_armor),
    baseline("capabilities_baseline", 0, containers::added_capabilities),
    baseline("hostNamespaces", 0, host::namespaces),
    baseline("hostPathVolumes", 0, host::path_volumes),
    baseline("hostPorts", 0, host::ports),
    baseline("hostProbesAndHostLifecycle", 34, host::probed),
    baseline("privileged", 0, containers::privileged),
    baseline("procMount", 0, containers::proc_mount),
    baseline("procMount", 35, |subject| unless_own_users(subject, containers::proc_mount)),
    baseline("seLinuxOptions", 0, |subject| profiles::se_linux(subject, &profiles::SE_LINUX_TYPES[..3])),
    baseline("seLinuxOptions", 31, |subject| profiles::se_linux(subject, &profiles::SE_LINUX_TYPES)),
    baseline("seccompProfile_baseline", 0, profiles::seccomp_annotations),
    baseline("seccompProfile_baseline", 19, profiles::seccomp),
    baseline("sysctls", 0, |subject| host::sysctls(subject, &host::SYSCTLS[..5])),
    baseline("sysctls", 27, |subject| host::sysctls(subject, &host::SYSCTLS[..6])),
    baseline("sysctls", 29, |subject| host::sysctls(subject, &host::SYSCTLS[..10])),
    baseline("sysctls", 32, |subject| host::sysctls(subject, &host::SYSCTLS)),
    baseline("windowsHostProcess", 0, host::windows_process),
    restricted("allowPrivilegeEscalation", 8, containers::privilege_escalation),
    restricted("allowPrivilegeEscalation", 25, |subject| unless_windows(subject, containers::privilege_escalation)),
    instead_of("capabilities_baseline", restricted("capabilities_restricted", 22, containers::capabilities)),
    instead_of(
        "capabilities_baseline",
        restricted("capabilities_restricted", 25, |subject| unless_windows(subject, containers::capabilities)),
    ),
    // The baseline frees pods with users of their own from this in 1.35; here it stays as it was.
    instead_of("procMount", restricted("procMount_restricted", 35, containers::proc_mount)),
    instead_of("hostPathVolumes", restricted("restrictedVolumes", 0, host::volume_types)),
    restricted("runAsNonRoot", 0, identity::non_root),
    restricted("runAsNonRoot", 35, |subject| unless_own_users(subject, identity::non_root)),
    restricted("runAsUser", 23, identity::user),
    restricted("runAsUser", 35, |subject| unless_own_users(subject, identity::user)),
    instead_of("seccompProfile_baseline", restricted("seccompProfile_restricted", 19, profiles::seccomp_set)),
    instead_of(
        "seccompProfile_baseline",
        restricted("seccompProfile_restricted", 25, |subject| unless_windows(subject, profiles::seccomp_set)),
    ),
];

/// A pod for Windows cannot have what these checks ask for, and is not held to them.
fn unless_windows(subject: &Subject<'_>, rule: Rule) -> Option<Violation> {
    if subject.spec["os"]["name"] == "windows" { None } else { rule(subject) }
}

/// Root in a user namespace of the pod's own is nobody on the host.
fn unless_own_users(subject: &Subject<'_>, rule: Rule) -> Option<Violation> {
    if subject.spec["hostUsers"] == false { None } else { rule(subject) }
}

/// The rules of a standard. A version that is newer than the newest check has what that one's has.
pub(super) fn of(standard: Standard) -> impl Iterator<Item = Rule> {
    let minor = match standard.version {
        Version::Minor(minor) => minor,
        Version::Latest => u64::MAX,
    };
    let holds = move |index: usize, check: &Check| {
        let replaced = CHECKS.get(index + 1).is_some_and(|next| next.name == check.name && next.since <= minor);
        check.level <= standard.level && check.since <= minor && !replaced
    };
    let all = move || CHECKS.iter().enumerate().filter(move |(index, check)| holds(*index, check));
    all().filter(move |(_, check)| !all().any(|(_, other)| other.instead_of == check.name)).map(|(_, check)| check.rule)
}
