//! A wrong value for each field that has rules and is in no other table.

use serde_json::{Value, json};

use super::{LABEL, pod};
use crate::resource::POD;
use crate::validation::tests::{accepts, refuses};

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
    start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
    alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";

/// A change of the valid pod, and the one error that it must give.
type Wrong = (&'static str, Value, String);

fn refused(table: Vec<Wrong>) {
    for (pointer, value, words) in table {
        refuses(&POD, &pod(), &[(pointer, value, &[words.as_str()])]);
    }
}

fn unsupported(path: &str, value: &str, words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("{path}: Unsupported value: {value:?}: supported values: {}", words.join(", "))
}

#[test]
fn of_the_pod() {
    let named = |field: &str| format!("spec.{field}: Invalid value: \"A_b\": {SUBDOMAIN}");
    refused(vec![
        ("/spec/serviceAccountName", json!("A_b"), named("serviceAccountName")),
        ("/spec/nodeName", json!("A_b"), named("nodeName")),
        ("/spec/priorityClassName", json!("A_b"), named("priorityClassName")),
        ("/spec/runtimeClassName", json!("A_b"), named("runtimeClassName")),
        ("/spec/preemptionPolicy", json!("Maybe"), unsupported("spec.preemptionPolicy", "Maybe", &["Never", "PreemptLowerPriority"])),
        ("/spec/os", json!({"name": "beos"}), unsupported("spec.os.name", "beos", &["linux", "windows"])),
        ("/spec/restartPolicy", json!("Maybe"), unsupported("spec.restartPolicy", "Maybe", &["Always", "OnFailure", "Never"])),
        (
            "/spec/readinessGates",
            json!([{"conditionType": "-"}]),
            format!("spec.readinessGates[0].conditionType: Invalid value: \"-\": {QUALIFIED}"),
        ),
        (
            "/spec/hostAliases",
            json!([{"ip": "1.2.3.4", "hostnames": ["A_b"]}]),
            format!("spec.hostAliases[0].hostnames[0]: Invalid value: \"A_b\": {SUBDOMAIN}"),
        ),
        (
            "/spec/dnsConfig",
            json!({"searches": ["A b"]}),
            format!("spec.dnsConfig.searches[0]: Invalid value: \"A b\": {SUBDOMAIN}"),
        ),
        ("/spec/subdomain", json!("A"), format!("spec.subdomain: Invalid value: \"A\": {LABEL}")),
        (
            "/spec/nodeSelector",
            json!({"-": "v"}),
            format!("spec.nodeSelector: Invalid value: \"-\": {QUALIFIED}"),
        ),
        (
            "/spec/tolerations",
            json!([{"key": "k", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 5}]),
            "spec.tolerations[0].effect: Invalid value: \"NoSchedule\": effect must be 'NoExecute' when `tolerationSeconds` \
             is set"
                .to_owned(),
        ),
        (
            "/spec/overhead",
            json!({"-": "1"}),
            format!("spec.overhead[-]: Invalid value: \"1\": {QUALIFIED}"),
        ),
    ]);
    let with_host = |more: Value| {
        let mut spec = pod()["spec"].clone();
        json_patch::merge(&mut spec, &more);
        spec
    };
    refused(vec![
        (
            "/spec",
            with_host(json!({"hostNetwork": true, "containers": [{"name": "c", "image": "i",
                "ports": [{"containerPort": 80, "hostPort": 81}]}]})),
            "spec.containers[0].ports[0].hostPort: Invalid value: 81: must match `containerPort` when `hostNetwork` is true"
                .to_owned(),
        ),
        (
            "/spec",
            with_host(json!({"hostUsers": false, "hostIPC": true})),
            "spec.hostIPC: Forbidden: when `hostUsers` is false".to_owned(),
        ),
        (
            "/spec",
            with_host(json!({"hostNetwork": true, "containers": [{"name": "c", "image": "i"}],
                "securityContext": {"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]}})),
            "spec.securityContext.sysctls[0].name: Invalid value: \"net.ipv4.tcp_syncookies\": may not be specified when \
             'hostNetwork' is true"
                .to_owned(),
        ),
        (
            "/spec",
            with_host(json!({"hostIPC": true, "securityContext": {"sysctls": [{"name": "kernel/shmmax", "value": "1"}]}})),
            "spec.securityContext.sysctls[0].name: Invalid value: \"kernel/shmmax\": may not be specified when 'hostIPC' is \
             true"
                .to_owned(),
        ),
    ]);
}

#[test]
fn of_security_contexts() {
    let (of_pod, of_container) = ("spec.securityContext", "spec.containers[0].securityContext");
    let range = "must be between 0 and 2147483647, inclusive";
    refused(vec![
        (
            "/spec/securityContext",
            json!({"runAsGroup": -1}),
            format!("{of_pod}.runAsGroup: Invalid value: -1: {range}"),
        ),
        (
            "/spec/securityContext",
            json!({"supplementalGroupsPolicy": "Some"}),
            unsupported(&format!("{of_pod}.supplementalGroupsPolicy"), "Some", &["Merge", "Strict"]),
        ),
        (
            "/spec/securityContext",
            json!({"seLinuxChangePolicy": "Some"}),
            unsupported(&format!("{of_pod}.seLinuxChangePolicy"), "Some", &["MountOption", "Recursive"]),
        ),
        (
            "/spec/securityContext",
            json!({"appArmorProfile": {"type": "Localhost"}}),
            format!(
                "{of_pod}.appArmorProfile.localhostProfile: Required value: must be set when AppArmor type is Localhost"
            ),
        ),
        (
            "/spec/securityContext",
            json!({"seccompProfile": {"type": "Some"}}),
            unsupported(
                &format!("{of_pod}.seccompProfile.type"),
                "Some",
                &["Localhost", "RuntimeDefault", "Unconfined"],
            ),
        ),
        (
            "/spec/containers/0/securityContext",
            json!({"runAsUser": -1}),
            format!("{of_container}.runAsUser: Invalid value: -1: {range}"),
        ),
        (
            "/spec/containers/0/securityContext",
            json!({"procMount": "Some"}),
            unsupported(&format!("{of_container}.procMount"), "Some", &["Default", "Unmasked"]),
        ),
        (
            "/spec/containers/0/securityContext",
            json!({"procMount": "Unmasked"}),
            format!(
                "{of_container}.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`"
            ),
        ),
        (
            "/spec/containers/0/securityContext",
            json!({"privileged": true, "allowPrivilegeEscalation": false}),
            format!(
                "{of_container}: Invalid value: {}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
                json!({"allowPrivilegeEscalation": false, "privileged": true})
            ),
        ),
    ]);
}

#[test]
fn of_handlers() {
    let path = "spec.containers[0]";
    let exec = json!({"command": ["a"]});
    let probe = |more: Value| {
        let mut probe = json!({"exec": exec});
        json_patch::merge(&mut probe, &more);
        probe
    };
    let negative =
        |field: &str| format!("{path}.startupProbe.{field}: Invalid value: -1: must be greater than or equal to 0");
    refused(vec![
        ("/spec/containers/0/startupProbe", probe(json!({"initialDelaySeconds": -1})), negative("initialDelaySeconds")),
        ("/spec/containers/0/startupProbe", probe(json!({"failureThreshold": -1})), negative("failureThreshold")),
        ("/spec/containers/0/startupProbe", probe(json!({"periodSeconds": -1})), negative("periodSeconds")),
        ("/spec/containers/0/startupProbe", probe(json!({"timeoutSeconds": -1})), negative("timeoutSeconds")),
        (
            "/spec/containers/0/livenessProbe",
            json!({"grpc": {"port": 0}}),
            format!("{path}.livenessProbe.grpc.port: Invalid value: 0: must be between 1 and 65535, inclusive"),
        ),
        (
            "/spec/containers/0/livenessProbe",
            json!({"httpGet": {"port": 80, "httpHeaders": [{"name": "a b", "value": ""}]}}),
            format!(
                "{path}.livenessProbe.httpGet.httpHeaders[0].name: Invalid value: \"a b\": a valid HTTP header must consist of \
                 alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')"
            ),
        ),
        (
            "/spec/containers/0/lifecycle",
            json!({"postStart": {}}),
            format!("{path}.lifecycle.postStart: Required value: must specify a handler type"),
        ),
        (
            "/spec/containers/0/lifecycle",
            json!({"preStop": {"exec": {}}}),
            format!("{path}.lifecycle.preStop.exec.command: Required value"),
        ),
        (
            "/spec/containers/0/lifecycle",
            json!({"stopSignal": "TERM"}),
            format!("{path}.lifecycle.stopSignal: Invalid value: \"TERM\": must be the name of a signal"),
        ),
    ]);
}

#[test]
fn of_resizes() {
    let path = "spec.containers[0].resizePolicy";
    let policy = |resource: &str, policy: &str| json!([{"resourceName": resource, "restartPolicy": policy}]);
    let at = "/spec/containers/0/resizePolicy";
    refused(vec![
        (at, policy("disk", "NotRequired"), unsupported(path, "disk", &["cpu", "memory"])),
        (at, policy("cpu", "Some"), unsupported(path, "Some", &["NotRequired", "RestartContainer"])),
        (at, policy("", "NotRequired"), format!("{path}: Required value")),
        (at, policy("cpu", ""), format!("{path}: Required value")),
        (
            at,
            json!([{"resourceName": "cpu", "restartPolicy": "NotRequired"},
                {"resourceName": "cpu", "restartPolicy": "NotRequired"}]),
            format!("{path}[1]: Duplicate value: \"cpu\""),
        ),
        (
            "/spec",
            json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i",
                "resizePolicy": policy("memory", "RestartContainer")}]}),
            format!(
                "{path}: Invalid value: \"RestartContainer\": must be 'NotRequired' when `restartPolicy` is 'Never'"
            ),
        ),
    ]);
    accepts(&POD, &pod(), &[(at, policy("memory", "RestartContainer"))]);
}

#[test]
fn of_volumes() {
    let at = "/spec/volumes/0";
    let source = |source: Value| {
        let mut volume = json!({"name": "v"});
        json_patch::merge(&mut volume, &source);
        volume
    };
    let path = "spec.volumes[0]";
    let mode = "must be a number between 0 and 0777 (octal), both inclusive";
    refused(vec![
        (
            at,
            source(json!({"image": {"reference": "i", "pullPolicy": "Some"}})),
            unsupported(&format!("{path}.image.pullPolicy"), "Some", &["Always", "IfNotPresent", "Never"]),
        ),
        (
            at,
            source(json!({"configMap": {"name": "c", "items": [{"key": "k", "path": "p", "mode": 512}]}})),
            format!("{path}.configMap.items[0].mode: Invalid value: 512: {mode}"),
        ),
        (
            at,
            source(json!({"downwardAPI": {"defaultMode": -1}})),
            format!("{path}.downwardAPI.defaultMode: Invalid value: -1: {mode}"),
        ),
        (
            at,
            source(json!({"projected": {"defaultMode": 512, "sources": []}})),
            format!("{path}.projected.defaultMode: Invalid value: 512: {mode}"),
        ),
        (
            "/spec/containers/0/volumeMounts/0/recursiveReadOnly",
            json!("Some"),
            unsupported(
                "spec.containers[0].volumeMounts[0].recursiveReadOnly",
                "Some",
                &["Disabled", "Enabled", "IfPossible"],
            ),
        ),
        (
            "/spec/containers/0/volumeMounts/0/recursiveReadOnly",
            json!("Enabled"),
            "spec.containers[0].volumeMounts[0].recursiveReadOnly: Forbidden: may only be specified when readOnly is true"
                .to_owned(),
        ),
    ]);
}

#[test]
fn of_places() {
    let affinity = "spec.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0]";
    let term = |more: Value| {
        let mut term = json!({"weight": 1, "podAffinityTerm": {"topologyKey": "zone"}});
        json_patch::merge(&mut term, &more);
        json!({"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [term]}})
    };
    refused(vec![
        (
            "/spec/affinity",
            term(json!({"weight": 0})),
            format!("{affinity}.weight: Invalid value: 0: must be in the range 1-100"),
        ),
        (
            "/spec/affinity",
            term(json!({"podAffinityTerm": {"namespaces": ["A"]}})),
            format!("{affinity}.podAffinityTerm.namespaces[0]: Invalid value: \"A\": {LABEL}"),
        ),
        (
            "/spec/topologySpreadConstraints",
            json!([{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "nodeAffinityPolicy": "Some"}]),
            unsupported("spec.topologySpreadConstraints[0].nodeAffinityPolicy", "Some", &["Honor", "Ignore"]),
        ),
    ]);
}
