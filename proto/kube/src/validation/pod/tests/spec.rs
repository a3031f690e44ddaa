use serde_json::{Value, json};

use super::{LABEL, pod};
use crate::resource::POD;
use crate::validation::tests::{accepts, changes, refuses, with};

#[test]
fn volumes_and_mounts() {
    let at = "/spec/volumes/0";
    refuses(
        &POD,
        &pod(),
        &[
            (
                "/spec/volumes/1",
                json!({"name": "v", "emptyDir": {}}),
                &["spec.volumes[1].name: Duplicate value: \"v\""],
            ),
            (
                at,
                json!({"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}),
                &["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"],
            ),
            (
                at,
                json!({"name": "v", "hostPath": {"path": "/a/../b"}}),
                &["spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"],
            ),
            (
                at,
                json!({"name": "v", "hostPath": {"path": "/", "type": "Pipe"}}),
                &["spec.volumes[0].hostPath.type: \
            Unsupported value: \"Pipe\": supported values: \"\", \"BlockDevice\", \"CharDevice\", \"Directory\", \
            \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\""],
            ),
            (at, json!({"name": "v", "secret": {}}), &["spec.volumes[0].secret.secretName: Required value"]),
            (at, json!({"name": "v", "configMap": {}}), &["spec.volumes[0].configMap.name: Required value"]),
            (
                at,
                json!({"name": "v", "secret": {"secretName": "s", "defaultMode": 512}}),
                &["spec.volumes[0].secret.\
            defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive"],
            ),
            (
                at,
                json!({"name": "v", "secret": {"secretName": "s", "items": [{"key": "k", "path": "/a"}]}}),
                &["spec.volumes[0].secret.items[0].path: Invalid value: \"/a\": must be a relative path"],
            ),
            (
                at,
                json!({"name": "v", "downwardAPI": {"items": [{"path": "a"}]}}),
                &["spec.volumes[0].downwardAPI.items[0]: \
            Required value: one of fieldRef and resourceFieldRef is required"],
            ),
            (
                at,
                json!({"name": "v", "persistentVolumeClaim": {"claimName": ""}}),
                &["spec.volumes[0].persistentVolumeClaim.claimName: Required value"],
            ),
            (
                at,
                json!({"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t",
            "expirationSeconds": 5}}]}}),
                &["spec.volumes[0].projected.sources[0].serviceAccountToken.\
            expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes"],
            ),
            (
                "/spec/containers/0/volumeMounts/0/name",
                json!("w"),
                &["spec.containers[0].volumeMounts[0].name: Not found: \"w\""],
            ),
            (
                "/spec/containers/0/volumeMounts/0/mountPath",
                Value::Null,
                &["spec.containers[0].volumeMounts[0].mountPath: Required value"],
            ),
            (
                "/spec/containers/0/volumeMounts/1",
                json!({"name": "v", "mountPath": "/v"}),
                &["spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/v\": must be unique"],
            ),
            (
                "/spec/containers/0/volumeMounts/0/subPath",
                json!("../a"),
                &["spec.containers[0].volumeMounts[0].subPath: Invalid value: \"../a\": must not contain '..'"],
            ),
            (
                "/spec/containers/0/volumeMounts/0/mountPropagation",
                json!("Bidirectional"),
                &[
                    "spec.containers[0].volumeMounts[0].mountPropagation: Forbidden: Bidirectional mount propagation is \
               available only to privileged containers",
                ],
            ),
        ],
    );
    let token = json!([{"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]);
    accepts(
        &POD,
        &pod(),
        &[
            (at, json!({"name": "v"})),
            (at, json!({"name": "v", "projected": {"sources": token}})),
            (at, json!({"name": "v", "image": {"reference": "a"}})),
        ],
    );
}

#[test]
fn probes_and_hooks() {
    let at = "/spec/containers/0/livenessProbe";
    let path = "spec.containers[0].livenessProbe";
    let exec = json!({"command": ["a"]});
    refuses(
        &POD,
        &pod(),
        &[
            (at, json!({}), &[&format!("{path}: Required value: must specify a handler type")]),
            (
                at,
                json!({"exec": exec, "tcpSocket": {"port": 1}}),
                &[&format!("{path}.tcpSocket: Forbidden: may not specify more than 1 handler type")],
            ),
            (at, json!({"exec": {}}), &[&format!("{path}.exec.command: Required value")]),
            (
                at,
                json!({"httpGet": {"port": 0}}),
                &[&format!("{path}.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive")],
            ),
            (
                at,
                json!({"httpGet": {"port": 1, "scheme": "FTP"}}),
                &[&format!(
                    "{path}.httpGet.scheme: Unsupported value: \
            \"FTP\": supported values: \"HTTP\", \"HTTPS\""
                )],
            ),
            (
                at,
                json!({"exec": exec, "successThreshold": 2}),
                &[&format!("{path}.successThreshold: Invalid value: 2: must be 1")],
            ),
            (
                at,
                json!({"exec": exec, "periodSeconds": -1}),
                &[&format!("{path}.periodSeconds: Invalid value: -1: must be greater than or equal to 0")],
            ),
            (
                at,
                json!({"exec": exec, "terminationGracePeriodSeconds": 0}),
                &[&format!("{path}.terminationGracePeriodSeconds: Invalid value: 0: must be greater than 0")],
            ),
            (
                "/spec/containers/0/readinessProbe",
                json!({"exec": exec, "terminationGracePeriodSeconds": 5}),
                &[
                    "spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 5: must not be set for \
               readinessProbes",
                ],
            ),
            (
                "/spec/containers/0/lifecycle/preStop",
                json!({}),
                &["spec.containers[0].lifecycle.preStop: Required value: must specify a handler type"],
            ),
            (
                "/spec/containers/0/lifecycle/preStop",
                json!({"sleep": {"seconds": 31}}),
                &[
                    "spec.containers[0].lifecycle.preStop.sleep.seconds: Invalid value: 31: must be non-negative and less \
               than terminationGracePeriodSeconds (30)",
                ],
            ),
        ],
    );
    accepts(
        &POD,
        &pod(),
        &[
            (at, json!({"httpGet": {"port": "http"}})),
            (at, json!({"grpc": {"port": 9}})),
            ("/spec/containers/0/readinessProbe", json!({"exec": exec, "successThreshold": 3})),
            (
                "/spec/containers/0/lifecycle",
                json!({"preStop": {"sleep": {"seconds": 5}}, "postStart": {"exec": exec}}),
            ),
        ],
    );
}

#[test]
fn the_spec() {
    refuses(
        &POD,
        &pod(),
        &[
            (
                "/spec/restartPolicy",
                json!("Often"),
                &["spec.restartPolicy: Unsupported value: \"Often\": supported values: \
            \"Always\", \"OnFailure\", \"Never\""],
            ),
            (
                "/spec/dnsPolicy",
                json!("X"),
                &["spec.dnsPolicy: Unsupported value: \"X\": supported values: \
            \"ClusterFirstWithHostNet\", \"ClusterFirst\", \"Default\", \"None\""],
            ),
            (
                "/spec/dnsPolicy",
                json!("None"),
                &["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
            ),
            (
                "/spec/activeDeadlineSeconds",
                json!(0),
                &["spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"],
            ),
            ("/spec/hostname", json!("a.b"), &[&format!("spec.hostname: Invalid value: \"a.b\": {LABEL}")]),
            (
                "/spec/securityContext/runAsUser",
                json!(-1),
                &["spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive"],
            ),
            (
                "/spec/securityContext/seccompProfile",
                json!({"type": "Localhost"}),
                &["spec.securityContext.seccompProfile.\
            localhostProfile: Required value: must be set when seccomp type is Localhost"],
            ),
            (
                "/spec/containers/0/securityContext",
                json!({"privileged": true, "allowPrivilegeEscalation": false}),
                &[
                    "spec.containers[0].securityContext: Invalid value: {\"allowPrivilegeEscalation\":false,\"privileged\":\
               true}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
                ],
            ),
            (
                "/spec/hostAliases",
                json!([{"ip": "x"}]),
                &["spec.hostAliases[0].ip: Invalid value: \"x\": must be a valid IP \
            address, (e.g. 10.9.8.7 or 2001:db8::ffff)"],
            ),
            (
                "/spec/tolerations",
                json!([{"operator": "Equal"}]),
                &["spec.tolerations[0].operator: Invalid value: \"Equal\": \
            operator must be Exists when `key` is empty, which means \"match all values and all keys\""],
            ),
            (
                "/spec/tolerations",
                json!([{"key": "a", "operator": "Exists", "tolerationSeconds": 5}]),
                &[
                    "spec.tolerations[0].effect: Invalid value: \"\": effect must be 'NoExecute' when `tolerationSeconds` is set",
                ],
            ),
            (
                "/spec/tolerations",
                json!([{"key": "a", "operator": "Near"}]),
                &["spec.tolerations[0].operator: Unsupported value: \"Near\": supported values: \"Equal\", \"Exists\""],
            ),
            (
                "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution",
                json!({"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Gt"}]}]}),
                &["spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].\
               matchExpressions[0].values: Required value: must be specified single value when `operator` is 'Lt' or 'Gt'"],
            ),
            (
                "/spec/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution",
                json!([{"topologyKey": ""}]),
                &[
                    "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required \
               value: can not be empty",
                ],
            ),
            (
                "/spec/topologySpreadConstraints",
                json!([{"maxSkew": 0, "topologyKey": "z", "whenUnsatisfiable": "Wait"}]),
                &[
                    "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
                    "spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"Wait\": supported values: \
               \"DoNotSchedule\", \"ScheduleAnyway\"",
                ],
            ),
        ],
    );
    accepts(
        &POD,
        &pod(),
        &[
            ("/spec/dnsConfig", json!({"nameservers": ["10.0.0.1"], "searches": ["a_b.c."]})),
            (
                "/spec/tolerations",
                json!([{"operator": "Exists"}, {"key": "a", "value": "b", "effect": "NoExecute",
            "tolerationSeconds": 300}]),
            ),
            (
                "/spec/topologySpreadConstraints",
                json!([{"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}]),
            ),
        ],
    );
}

#[test]
fn updates() {
    let only = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,\
        `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
        tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
    let base = with(&pod(), "/spec/tolerations", json!([{"key": "a", "operator": "Exists"}]));
    changes(
        &POD,
        &base,
        &[
            ("/spec/containers/0/image", json!("j"), &[]),
            ("/spec/initContainers/0/image", json!("j"), &[]),
            ("/spec/activeDeadlineSeconds", json!(9), &[]),
            ("/spec/tolerations/1", json!({"key": "b", "operator": "Exists"}), &[]),
            ("/metadata/labels", json!({"a": "b"}), &[]),
            (
                "/spec/tolerations",
                json!([]),
                &["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"],
            ),
            ("/spec/containers/0/command", json!(["x"]), &[only]),
            ("/spec/nodeName", json!("node"), &[only]),
            ("/spec/terminationGracePeriodSeconds", json!(1), &[only]),
            (
                "/spec/containers/1",
                json!({"name": "d", "image": "i"}),
                &["spec.containers: Forbidden: pod updates may not add or remove containers"],
            ),
            (
                "/spec/schedulingGates",
                json!([{"name": "g"}]),
                &["spec.schedulingGates[0]: Forbidden: only deletion is allowed, but found new scheduling gate 'g'"],
            ),
        ],
    );
    let negative = with(&base, "/spec/terminationGracePeriodSeconds", json!(-1));
    changes(&POD, &negative, &[("/spec/terminationGracePeriodSeconds", json!(1), &[])]);
    let limited = with(&base, "/spec/activeDeadlineSeconds", json!(9));
    changes(
        &POD,
        &limited,
        &[
            ("/spec/activeDeadlineSeconds", json!(8), &[]),
            (
                "/spec/activeDeadlineSeconds",
                json!(10),
                &["spec.activeDeadlineSeconds: Invalid value: 10: must be less than or equal to previous value"],
            ),
            (
                "/spec/activeDeadlineSeconds",
                Value::Null,
                &[
                    "spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer to nil value",
                ],
            ),
        ],
    );
    let gated = with(&base, "/spec/schedulingGates", json!([{"name": "g"}]));
    changes(
        &POD,
        &gated,
        &[("/spec/schedulingGates", Value::Null, &[]), ("/spec/nodeSelector", json!({"a": "b"}), &[])],
    );
}
