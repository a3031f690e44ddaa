use serde_json::{Value, json};

use super::*;

const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/c";
const SECCOMP: &str = "seccomp.security.alpha.kubernetes.io/pod";

/// A pod that passes everything, changed by a merge.
fn pod(change: Value) -> Object {
    let mut pod = json!({"metadata": {"name": "p"}, "spec": {
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container("c", json!({}))],
    }});
    json_patch::merge(&mut pod, &change);
    Object::from_value(pod).unwrap()
}

/// A container that passes everything, its security context changed by a merge.
fn container(name: &str, change: Value) -> Value {
    let mut security = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    json_patch::merge(&mut security, &change);
    json!({"name": name, "image": "i", "securityContext": security})
}

fn with(security: Value) -> Value {
    json!({"spec": {"containers": [container("c", security)]}})
}

fn of_pod(security: Value) -> Value {
    json!({"spec": {"securityContext": security}})
}

fn found(level: Level, minor: u64, change: &Value) -> String {
    let version = if minor == LATEST { Version::Latest } else { Version::Minor(minor) };
    details(&Subject::pod(&pod(change.clone())).unwrap().violations(Standard { level, version }))
}

const LATEST: u64 = u64::MAX;

#[test]
fn the_strictest_pod_passes_everywhere() {
    for minor in (0..40).chain([LATEST]) {
        for level in [Level::Privileged, Level::Baseline, Level::Restricted] {
            assert_eq!(found(level, minor, &json!({})), "", "{level} {minor}");
        }
    }
}

/// What the baseline finds, and what of it the restricted level tells in words of its own.
#[test]
fn the_baseline_keeps_pods_off_the_host() {
    let rows = [
        (json!({"spec": {"hostNetwork": true, "hostIPC": true}}), "host namespaces (hostNetwork=true, hostIPC=true)"),
        (json!({"spec": {"hostPID": true}}), "host namespaces (hostPID=true)"),
        (
            with(json!({"privileged": true})),
            "privileged (container \"c\" must not set securityContext.privileged=true)",
        ),
        (
            json!({"spec": {"containers": [{"name": "c", "ports": [{"hostPort": 80}, {"hostPort": 8080}]},
                {"name": "d", "ports": [{"hostPort": 0}, {"containerPort": 1}]}]}}),
            "hostPort (container \"c\" uses hostPorts 80, 8080)",
        ),
        (
            of_pod(json!({"sysctls": [{"name": "a.b"}, {"name": "kernel.shm_rmid_forced"}, {"name": "c.d"}]})),
            "forbidden sysctls (a.b, c.d)",
        ),
        (
            of_pod(json!({"windowsOptions": {"hostProcess": true}})),
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            with(json!({"windowsOptions": {"hostProcess": true}})),
            "hostProcess (container \"c\" must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            of_pod(json!({"appArmorProfile": {"type": "Unconfined"}})),
            "forbidden AppArmor profile (pod must not set AppArmor profile type to \"Unconfined\")",
        ),
        (
            json!({"metadata": {"annotations": {APP_ARMOR: "unconfined", "other": "unconfined"}}}),
            "forbidden AppArmor profile (annotation must not set AppArmor profile type to \
             \"container.apparmor.security.beta.kubernetes.io/c=\"unconfined\"\")",
        ),
        (json!({"metadata": {"annotations": {APP_ARMOR: "localhost/x"}}}), ""),
        (
            of_pod(json!({"seLinuxOptions": {"type": "a", "user": "u", "role": "r"}})),
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"a\"; user may not be set; role may \
             not be set)",
        ),
        (with(json!({"seLinuxOptions": {"level": "s0", "type": "container_t"}})), ""),
        (
            with(json!({"procMount": "Unmasked"})),
            "procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (with(json!({"procMount": "Default"})), ""),
    ];
    for (change, wanted) in rows {
        for level in [Level::Baseline, Level::Restricted] {
            let told = found(level, LATEST, &change);
            assert!(told.contains(wanted) && (!wanted.is_empty() || told.is_empty()), "{level} {change}: {told}");
        }
        assert_eq!(found(Level::Baseline, LATEST, &change), wanted, "{change}");
        assert_eq!(found(Level::Privileged, LATEST, &change), "");
    }
}

#[test]
fn the_restricted_level_says_it_in_its_own_words() {
    let rows = [
        (
            json!({"spec": {"volumes": [{"name": "v", "hostPath": {}}, {"name": "w", "emptyDir": {}}]}}),
            "hostPath volumes (volume \"v\")",
            "restricted volume types (volume \"v\" uses restricted volume type \"hostPath\")",
        ),
        (
            json!({"spec": {"volumes": [{"name": "v", "nfs": {}}, {"name": "w", "odd": {}}]}}),
            "",
            "restricted volume types (volumes \"v\", \"w\" use restricted volume types \"nfs\", \"unknown\")",
        ),
        (
            with(json!({"capabilities": {"add": ["NET_RAW", "CHOWN"]}})),
            "non-default capabilities (container \"c\" must not include \"NET_RAW\" in securityContext.capabilities.add)",
            "unrestricted capabilities (container \"c\" must not include \"CHOWN\", \"NET_RAW\" in \
             securityContext.capabilities.add)",
        ),
        (with(json!({"capabilities": {"add": ["NET_BIND_SERVICE"]}})), "", ""),
        (
            with(json!({"capabilities": {"add": ["CHOWN"], "drop": ["all"]}})),
            "",
            "unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]; container \
             \"c\" must not include \"CHOWN\" in securityContext.capabilities.add)",
        ),
        (
            of_pod(json!({"seccompProfile": {"type": "Unconfined"}})),
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            of_pod(json!({"seccompProfile": null})),
            "",
            "seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \
             \"Localhost\")",
        ),
        (
            with(json!({"allowPrivilegeEscalation": null})),
            "",
            "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false)",
        ),
        (
            of_pod(json!({"runAsNonRoot": null})),
            "",
            "runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true)",
        ),
        (
            json!({"spec": {"securityContext": {"runAsNonRoot": false},
                "containers": [container("c", json!({"runAsNonRoot": false}))]}}),
            "",
            "runAsNonRoot != true (pod and container \"c\" must not set securityContext.runAsNonRoot=false)",
        ),
        (of_pod(json!({"runAsUser": 0})), "", "runAsUser=0 (pod must not set runAsUser=0)"),
        (with(json!({"runAsUser": 0})), "", "runAsUser=0 (container \"c\" must not set runAsUser=0)"),
        (of_pod(json!({"runAsUser": 1})), "", ""),
    ];
    for (change, baseline, restricted) in rows {
        assert_eq!(found(Level::Baseline, LATEST, &change), baseline, "{change}");
        assert_eq!(found(Level::Restricted, LATEST, &change), restricted, "{change}");
    }
}

#[test]
fn every_list_of_containers_is_looked_at() {
    let change = json!({"spec": {
        "initContainers": [container("i", json!({"privileged": true}))],
        "containers": [container("c", json!({}))],
        "ephemeralContainers": [container("e", json!({"privileged": true}))],
    }});
    let wanted = "privileged (containers \"i\", \"e\" must not set securityContext.privileged=true)";
    assert_eq!(found(Level::Baseline, LATEST, &change), wanted);
}

#[test]
fn a_node_asks_no_host_of_a_pods_choosing() {
    let mut asked = container("c", json!({}));
    asked["livenessProbe"] = json!({"httpGet": {"host": "b"}});
    asked["lifecycle"] = json!({"preStop": {"tcpSocket": {"host": "a"}}, "postStart": {"httpGet": {"host": ""}}});
    let change = json!({"spec": {"containers": [asked]}});
    assert_eq!(found(Level::Baseline, 33, &change), "");
    let wanted = "probe or lifecycle host (container \"c\" uses probe or lifecycle hosts \"a\", \"b\")";
    assert_eq!(found(Level::Baseline, 34, &change), wanted);
}

/// Each row: the first version that finds it, or the first that does not any more.
#[test]
fn a_version_keeps_what_it_was_measured_by() {
    use Level::{Baseline, Restricted};
    let sysctl = |name: &str| of_pod(json!({"sysctls": [{"name": name}]}));
    let begins = [
        (Restricted, 8, with(json!({"allowPrivilegeEscalation": null}))),
        (Restricted, 19, of_pod(json!({"seccompProfile": null}))),
        (Baseline, 19, of_pod(json!({"seccompProfile": {"type": "Unconfined"}}))),
        (Restricted, 22, with(json!({"capabilities": {"drop": null}}))),
        (Restricted, 23, of_pod(json!({"runAsUser": 0}))),
    ];
    for (level, since, change) in begins {
        assert_eq!(found(level, since - 1, &change), "", "{change} before v1.{since}");
        assert_ne!(found(level, since, &change), "", "{change} in v1.{since}");
    }
    let windows = |mut change: Value| {
        change["spec"]["os"] = json!({"name": "windows"});
        change
    };
    let own_users = |mut change: Value| {
        change["spec"]["hostUsers"] = json!(false);
        change
    };
    let ends = [
        (Restricted, 25, windows(with(json!({"allowPrivilegeEscalation": null})))),
        (Restricted, 25, windows(with(json!({"capabilities": {"drop": null}})))),
        (Restricted, 25, windows(of_pod(json!({"seccompProfile": null})))),
        (Baseline, 19, json!({"metadata": {"annotations": {SECCOMP: "unconfined"}}})),
        (Baseline, 27, sysctl("net.ipv4.ip_local_reserved_ports")),
        (Baseline, 29, sysctl("net.ipv4.tcp_keepalive_probes")),
        (Baseline, 32, sysctl("net.ipv4.tcp_wmem")),
        (Baseline, 31, of_pod(json!({"seLinuxOptions": {"type": "container_engine_t"}}))),
        (Baseline, 35, own_users(with(json!({"procMount": "Unmasked"})))),
        (Restricted, 35, own_users(of_pod(json!({"runAsNonRoot": false})))),
        (Restricted, 35, own_users(of_pod(json!({"runAsUser": 0})))),
    ];
    for (level, until, change) in ends {
        assert_ne!(found(level, until - 1, &change), "", "{change} before v1.{until}");
        assert_eq!(found(level, until, &change), "", "{change} in v1.{until}");
        assert_eq!(found(level, LATEST, &change), "", "{change} in the latest");
    }
    assert_ne!(found(Restricted, LATEST, &own_users(with(json!({"procMount": "Unmasked"})))), "");
    let told = found(Baseline, 18, &json!({"metadata": {"annotations": {SECCOMP: "unconfined"}}}));
    assert_eq!(told, format!("seccompProfile (forbidden annotation {SECCOMP}=\"unconfined\")"));
}

#[test]
fn violations_are_told_in_one_order() {
    let change =
        json!({"spec": {"hostPID": true, "securityContext": null, "containers": [{"name": "a"}, {"name": "b"}]}});
    let all =
        Subject::pod(&pod(change)).unwrap().violations(Standard { level: Level::Restricted, version: Version::Latest });
    assert_eq!(
        reasons(&all),
        "host namespaces, allowPrivilegeEscalation != false, unrestricted capabilities, runAsNonRoot != true, seccompProfile"
    );
}

#[test]
fn labels_say_what_holds() {
    let read = |labels: Value| {
        let (policy, wrong) = Policy::of_labels(labels.as_object());
        let wrong: Vec<String> = wrong.iter().map(FieldError::to_string).collect();
        (format!("{} {}", policy.enforce, policy.warn), wrong.join("; "))
    };
    let key = |name: &str| format!("pod-security.kubernetes.io/{name}");
    let clean = |labels: Value, wanted: &str| assert_eq!(read(labels), (wanted.to_owned(), String::new()));
    clean(json!({}), "privileged:latest privileged:latest");
    clean(json!({key("enforce"): "baseline"}), "baseline:latest baseline:latest");
    clean(json!({key("enforce"): "baseline", key("enforce-version"): "v1.30"}), "baseline:v1.30 baseline:v1.30");
    clean(
        json!({key("enforce"): "baseline", key("enforce-version"): "v1.30", key("warn-version"): "v1.0"}),
        "baseline:v1.30 baseline:v1.0",
    );
    clean(json!({key("enforce"): "restricted", key("warn"): "baseline"}), "restricted:latest baseline:latest");
    clean(json!({key("warn"): "restricted", key("warn-version"): "latest"}), "privileged:latest restricted:latest");
    let wrong = |name: &str, value: &str, why: &str| {
        format!("metadata.labels[pod-security.kubernetes.io/{name}]: Invalid value: {value:?}: {why}")
    };
    let level = "must be one of privileged, baseline, restricted";
    let version = "must be \"latest\" or \"v1.x\"";
    for (name, value, why, policy) in [
        ("enforce", "Baseline", level, "restricted:latest privileged:latest"),
        ("enforce", "", level, "restricted:latest privileged:latest"),
        ("audit", "none", level, "privileged:latest privileged:latest"),
        ("warn", "none", level, "privileged:latest privileged:latest"),
        ("enforce-version", "1.30", version, "privileged:latest privileged:latest"),
        ("audit-version", "v1.01", version, "privileged:latest privileged:latest"),
        ("warn-version", "v2.0", version, "privileged:latest privileged:latest"),
        ("warn-version", "v1.99999999999999999999", version, "privileged:latest privileged:latest"),
        ("warn-version", "v1.", version, "privileged:latest privileged:latest"),
    ] {
        assert_eq!(read(json!({key(name): value})), (policy.to_owned(), wrong(name, value, why)), "{name}={value}");
    }
}

#[test]
fn only_images_and_new_containers_matter_to_an_update() {
    let old = pod(json!({}));
    let same = |change: Value| is_significant(&pod(change), &old);
    assert!(!same(json!({"metadata": {"labels": {"a": "b"}}, "spec": {"activeDeadlineSeconds": 5}})));
    assert!(same(json!({"spec": {"containers": [{"name": "c", "image": "other"}]}})));
    assert!(same(json!({"spec": {"initContainers": [{"name": "i"}]}})));
    assert!(same(json!({"spec": {"ephemeralContainers": [{"name": "e", "image": "i"}]}})));
    let looked_at = pod(json!({"spec": {"ephemeralContainers": [{"name": "e", "image": "i"}]}}));
    assert!(!is_significant(&looked_at, &looked_at));
}
