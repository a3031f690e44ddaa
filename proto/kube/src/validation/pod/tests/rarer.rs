//! The rules that few pods meet.

use serde_json::{Value, json};

use super::{LABEL, pod};
use crate::resource::{DEPLOYMENT, POD};
use crate::validation::tests::{accepts, refuses, with};

#[test]
fn security() {
    refuses(
        &POD,
        &pod(),
        &[
            (
                "/spec/securityContext",
                json!({"sysctls": [{"name": "a.b", "value": "1"}, {"name": "a.b", "value": "2"}]}),
                &["spec.securityContext.sysctls[1].name: Duplicate value: \"a.b\""],
            ),
            (
                "/spec/securityContext",
                json!({"sysctls": [{"name": "", "value": "1"}]}),
                &["spec.securityContext.sysctls[0].name: Required value"],
            ),
            (
                "/spec/securityContext",
                json!({"sysctls": [{"name": "A", "value": "1"}]}),
                &[
                    "spec.securityContext.sysctls[0].name: Invalid value: \"A\": must have at most 253 characters and match \
               regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
                ],
            ),
            (
                "/spec/securityContext",
                json!({"fsGroup": -1}),
                &["spec.securityContext.fsGroup: Invalid value: -1: must be between 0 and 2147483647, inclusive"],
            ),
            (
                "/spec/securityContext",
                json!({"supplementalGroups": [1, -2]}),
                &["spec.securityContext.supplementalGroups[1]: \
            Invalid value: -2: must be between 0 and 2147483647, inclusive"],
            ),
            (
                "/spec/securityContext",
                json!({"fsGroupChangePolicy": "Never"}),
                &["spec.securityContext.fsGroupChangePolicy: \
            Unsupported value: \"Never\": supported values: \"Always\", \"OnRootMismatch\""],
            ),
            (
                "/spec/securityContext",
                json!({"seccompProfile": {"type": "Loose"}}),
                &["spec.securityContext.seccompProfile.\
            type: Unsupported value: \"Loose\": supported values: \"Localhost\", \"RuntimeDefault\", \"Unconfined\""],
            ),
            (
                "/spec/securityContext",
                json!({"seccompProfile": {"type": "Unconfined", "localhostProfile": "a"}}),
                &[
                    "spec.securityContext.seccompProfile.localhostProfile: Invalid value: \"a\": can only be set when seccomp \
               type is Localhost",
                ],
            ),
            (
                "/spec/securityContext",
                json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "../a"}}),
                &[
                    "spec.securityContext.seccompProfile.localhostProfile: Invalid value: \"../a\": must not contain '..'",
                ],
            ),
            (
                "/spec/containers/0/securityContext",
                json!({"procMount": "Bare"}),
                &["spec.containers[0].securityContext.\
            procMount: Unsupported value: \"Bare\": supported values: \"Default\", \"Unmasked\""],
            ),
            (
                "/spec/containers/0/securityContext",
                json!({"allowPrivilegeEscalation": false, "capabilities": {"add": ["CAP_SYS_ADMIN"]}}),
                &[
                    "spec.containers[0].securityContext: Invalid value: {\"allowPrivilegeEscalation\":false,\"capabilities\":\
               {\"add\":[\"CAP_SYS_ADMIN\"]}}: cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` \
               CAP_SYS_ADMIN",
                ],
            ),
        ],
    );
    accepts(
        &POD,
        &pod(),
        &[
            (
                "/spec/securityContext",
                json!({"runAsUser": 0, "fsGroup": 2000, "sysctls": [{"name": "net.ipv4.ip_forward",
            "value": "1"}], "seccompProfile": {"type": "Localhost", "localhostProfile": "a/b.json"}}),
            ),
            ("/spec/containers/0/securityContext", json!({"privileged": true, "runAsNonRoot": false})),
            (
                "/spec/containers/0/volumeMounts/0",
                json!({"name": "v", "mountPath": "/v", "readOnly": true,
            "recursiveReadOnly": "Enabled", "subPathExpr": "$(A)"}),
            ),
        ],
    );
}

#[test]
fn when_a_container_is_run_again() {
    let rule = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
    let own = with(&pod(), "/spec/containers/0/restartPolicy", json!("Never"));
    let ruled = with(&own, "/spec/containers/0/restartPolicyRules", rule.clone());
    accepts(&POD, &own, &[("/spec/containers/0/restartPolicy", json!("Always"))]);
    let at = "/spec/containers/0/restartPolicyRules";
    refuses(
        &POD,
        &pod(),
        &[(
            at,
            rule.clone(),
            &[
                "spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used",
            ],
        )],
    );
    let many = serde_json::Value::Array(vec![rule[0].clone(); 21]);
    refuses(
        &POD,
        &ruled,
        &[
            (
                "/spec/containers/0/restartPolicy",
                json!("Sometimes"),
                &["spec.containers[0].restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \
                \"OnFailure\", \"Never\""],
            ),
            (at, many, &["spec.containers[0].restartPolicyRules: Too many: 21: must have at most 20 items"]),
            (
                "/spec/containers/0/restartPolicyRules/0/action",
                json!("Explode"),
                &[
                    "spec.containers[0].restartPolicyRules[0].action: Unsupported value: \"Explode\": supported values: \
                \"Restart\"",
                ],
            ),
            (
                "/spec/containers/0/restartPolicyRules/0/exitCodes",
                json!(null),
                &["spec.containers[0].restartPolicyRules[0].exitCodes: Required value: must be specified"],
            ),
            (
                "/spec/containers/0/restartPolicyRules/0/exitCodes/operator",
                json!("Above"),
                &[
                    "spec.containers[0].restartPolicyRules[0].exitCodes.operator: Unsupported value: \"Above\": supported \
                values: \"In\", \"NotIn\"",
                ],
            ),
        ],
    );
}

#[test]
fn the_host() {
    refuses(
        &POD,
        &with(&pod(), "/spec/hostPID", json!(true)),
        &[
            (
                "/spec/shareProcessNamespace",
                json!(true),
                &["spec.shareProcessNamespace: Invalid value: true: \
            ShareProcessNamespace and HostPID cannot both be enabled"],
            ),
            ("/spec/hostUsers", json!(false), &["spec.hostPID: Forbidden: when `hostUsers` is false"]),
        ],
    );
    refuses(
        &POD,
        &pod(),
        &[
            (
                "/spec/dnsPolicy",
                json!("None"),
                &["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
            ),
            (
                "/spec/dnsConfig",
                json!({"nameservers": ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]}),
                &[
                    "spec.dnsConfig.nameservers: Invalid value: [\"10.0.0.1\",\"10.0.0.2\",\"10.0.0.3\",\"10.0.0.4\"]: must \
               not have more than 3 nameservers",
                ],
            ),
            (
                "/spec/dnsConfig",
                json!({"options": [{"value": "1"}]}),
                &["spec.dnsConfig.options[0].name: Required value: must not be empty"],
            ),
            ("/spec/subdomain", json!("A"), &[&format!("spec.subdomain: Invalid value: \"A\": {LABEL}")]),
            (
                "/spec/resources",
                json!({"limits": {"example.com/a": "1"}, "requests": {"cpu": "1"}}),
                &[
                    "spec.resources.limits[example.com/a]: Unsupported value: \"example.com/a\": supported values: \"cpu\", \
               \"hugepages-\", \"memory\"",
                ],
            ),
        ],
    );
    accepts(
        &POD,
        &pod(),
        &[
            ("/spec/hostUsers", json!(false)),
            ("/spec/resources", json!({"limits": {"cpu": "2"}, "requests": {"cpu": "1"}})),
            ("/spec/hostAliases", json!([{"ip": "10.0.0.1", "hostnames": ["a.b"]}])),
        ],
    );
}

#[test]
fn placement() {
    let preferred = "/spec/affinity/nodeAffinity/preferredDuringSchedulingIgnoredDuringExecution";
    let path = "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0]";
    let required = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution";
    let terms = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    let named = |values: Value| {
        json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In",
        "values": values}]}]})
    };
    let spread = |extra: Value| {
        let mut one = json!({"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "ScheduleAnyway"});
        json_patch::merge(&mut one, &extra);
        one
    };
    refuses(
        &POD,
        &pod(),
        &[
            (
                preferred,
                json!([{"weight": 0, "preference": {}}]),
                &[&format!("{path}.weight: Invalid value: 0: must be in the range 1-100")],
            ),
            (
                preferred,
                json!([{"weight": 1, "preference": {"matchExpressions": [{"key": "a", "operator": "Exists",
            "values": ["b"]}]}}]),
                &[&format!(
                    "{path}.preference.matchExpressions[0].values: Forbidden: may not be \
            specified when `operator` is 'Exists' or 'DoesNotExist'"
                )],
            ),
            (
                required,
                json!({"nodeSelectorTerms": []}),
                &[&format!("{terms}: Required value: must have at least one node selector term")],
            ),
            (
                required,
                named(json!(["a", "b"])),
                &[&format!(
                    "{terms}[0].matchFields[0].values: Required value: must be only \
            one value when `operator` is 'In' or 'NotIn' for node field selector"
                )],
            ),
            (
                required,
                json!({"nodeSelectorTerms": [{"matchFields": [{"key": "spec.x", "operator": "In", "values": ["a"]}]}]}),
                &[&format!("{terms}[0].matchFields[0].key: Invalid value: \"spec.x\": not a valid field selector key")],
            ),
            (
                "/spec/topologySpreadConstraints",
                json!([spread(json!({"minDomains": 2}))]),
                &["spec.topologySpreadConstraints[0].minDomains: Invalid value: 2: can only use minDomains if \
               whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway"],
            ),
            (
                "/spec/topologySpreadConstraints",
                json!([spread(json!({"nodeTaintsPolicy": "Ask"}))]),
                &["spec.topologySpreadConstraints[0].nodeTaintsPolicy: Unsupported value: \"Ask\": supported values: \
               \"Honor\", \"Ignore\""],
            ),
            (
                "/spec/topologySpreadConstraints",
                json!([spread(json!({})), spread(json!({"maxSkew": 2}))]),
                &["spec.topologySpreadConstraints[1].{topologyKey, whenUnsatisfiable}: Duplicate value: \"{z, \
               ScheduleAnyway}\""],
            ),
            (
                "/spec/schedulingGates",
                json!([{"name": "g"}, {"name": "g"}]),
                &["spec.schedulingGates[1]: Duplicate value: {\"name\":\"g\"}"],
            ),
            (
                "/spec/tolerations",
                json!([{"key": "a", "operator": "Exists", "value": "b"}]),
                &[
                    "spec.tolerations[0].operator: Invalid value: {\"key\":\"a\",\"operator\":\"Exists\",\"value\":\"b\"}: \
               value must be empty when `operator` is 'Exists'",
                ],
            ),
            (
                "/spec/tolerations",
                json!([{"key": "a", "effect": "Go"}]),
                &["spec.tolerations[0].effect: Unsupported value: \
            \"Go\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\""],
            ),
        ],
    );
    accepts(
        &POD,
        &pod(),
        &[
            (
                preferred,
                json!([{"weight": 100, "preference": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}}]),
            ),
            (required, named(json!(["a"]))),
            ("/spec/schedulingGates", json!([{"name": "a.b/g"}, {"name": "h"}])),
            ("/spec/topologySpreadConstraints", json!([spread(json!({})), spread(json!({"topologyKey": "y"}))])),
        ],
    );
}

#[test]
fn sources_of_volumes() {
    let at = "/spec/volumes/0";
    let projected = |source: Value| json!({"name": "v", "projected": {"sources": [source]}});
    refuses(
        &POD,
        &pod(),
        &[
            (
                at,
                json!({"name": "v", "emptyDir": {"sizeLimit": "-1"}}),
                &["spec.volumes[0].emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity"],
            ),
            (
                at,
                json!({"name": "v", "emptyDir": {"medium": "Tape"}}),
                &["spec.volumes[0].emptyDir.medium: Unsupported \
            value: \"Tape\": supported values: \"\", \"HugePages\", \"Memory\""],
            ),
            (
                at,
                json!({"name": "v", "nfs": {"server": "s", "path": "p"}}),
                &["spec.volumes[0].nfs.path: Invalid value: \"p\": must be an absolute path"],
            ),
            (at, json!({"name": "v", "csi": {"driver": ""}}), &["spec.volumes[0].csi.driver: Required value"]),
            (
                at,
                json!({"name": "v", "ephemeral": {}}),
                &["spec.volumes[0].ephemeral.volumeClaimTemplate: Required value"],
            ),
            (at, json!({"name": "v", "image": {}}), &["spec.volumes[0].image.reference: Required value"]),
            (
                at,
                projected(json!({})),
                &["spec.volumes[0].projected.sources[0]: Required value: may not specify a source \
            without a volume type"],
            ),
            (
                at,
                projected(json!({"configMap": {"name": "a"}, "secret": {"name": "b"}})),
                &[
                    "spec.volumes[0].projected.sources[0].secret: Forbidden: may not specify more than 1 volume type per source",
                ],
            ),
            (
                at,
                projected(json!({"configMap": {"items": [{"key": "a", "path": "..a"}]}})),
                &[
                    "spec.volumes[0].projected.sources[0].configMap.name: Required value",
                    "spec.volumes[0].projected.sources[0].configMap.items[0].path: Invalid value: \"..a\": must not start with '..'",
                ],
            ),
            (
                at,
                projected(
                    json!({"downwardAPI": {"items": [{"path": "a", "resourceFieldRef": {"resource": "limits.cpu"}}]}}),
                ),
                &[
                    "spec.volumes[0].projected.sources[0].downwardAPI.items[0].resourceFieldRef.containerName: Required value",
                ],
            ),
            (
                at,
                json!({"name": "v", "downwardAPI": {"items": [{"path": "a", "fieldRef": {"fieldPath": "status.podIP"}}]}}),
                &[
                    "spec.volumes[0].downwardAPI.items[0].fieldRef.fieldPath: Unsupported value: \"status.podIP\": supported \
               values: \"metadata.annotations\", \"metadata.labels\", \"metadata.name\", \"metadata.namespace\", \
               \"metadata.uid\"",
                ],
            ),
            (
                "/spec/containers/0/volumeMounts/0",
                json!({"name": "v", "mountPath": "/v", "subPath": "a", "subPathExpr": "b"}),
                &["spec.containers[0].volumeMounts[0].subPathExpr: Invalid value: \"b\": subPathExpr and subPath are \
               mutually exclusive"],
            ),
            (
                "/spec/containers/0/volumeDevices",
                json!([{"name": "w", "devicePath": "/d"}]),
                &["spec.containers[0].volumeDevices[0].name: Not found: \"w\""],
            ),
        ],
    );
}

#[test]
fn templates() {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let base =
        json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    refuses(
        &DEPLOYMENT,
        &base,
        &[
            (
                "/spec/template/spec/ephemeralContainers",
                json!([{"name": "e", "image": "i"}]),
                &[
                    "spec.template.spec.ephemeralContainers: Forbidden: ephemeral containers not allowed in pod template",
                ],
            ),
            (
                "/spec/template/spec/volumes",
                json!([{"name": "V", "emptyDir": {}}]),
                &[&format!("spec.template.spec.volumes[0].name: Invalid value: \"V\": {LABEL}")],
            ),
            (
                "/spec/template/spec/nodeName",
                json!("A"),
                &[&format!(
                    "spec.template.spec.nodeName: Invalid value: \"A\": {}",
                    crate::validation::meta::name_problem(crate::validation::meta::NameRule::Subdomain, "A").unwrap()
                )],
            ),
        ],
    );
}
