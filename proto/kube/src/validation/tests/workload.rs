use super::*;

fn deployment() -> Value {
    json!({"metadata": {"name": "d", "namespace": "n"}, "spec": {
        "selector": {"matchLabels": {"app": "a"}},
        "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

#[test]
fn deployments() {
    refuses(
        &DEPLOYMENT,
        &deployment(),
        &[
            ("/spec/replicas", json!(-1), &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]),
            ("/spec/selector", Value::Null, &["spec.selector: Required value"]),
            (
                "/spec/selector",
                json!({}),
                &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
            ),
            (
                "/spec/selector/matchLabels/app",
                json!("b"),
                &[
                    "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
                ],
            ),
            (
                "/spec/selector/matchExpressions",
                json!([{"key": "app", "operator": "In"}]),
                &[
                    "spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
                    "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
                ],
            ),
            (
                "/spec/selector/matchExpressions",
                json!([{"key": "app", "operator": "Like", "values": ["a"]}]),
                &[
                    "spec.selector.matchExpressions[0].operator: Invalid value: \"Like\": not a valid selector operator",
                    "spec.selector: Invalid value: {\"matchExpressions\":[{\"key\":\"app\",\"operator\":\"Like\",\"values\":[\"a\"]}],\"matchLabels\":{\"app\":\"a\"}}: invalid label selector",
                ],
            ),
            (
                "/spec/template/spec/restartPolicy",
                json!("Never"),
                &["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
            ),
            (
                "/spec/template/spec/activeDeadlineSeconds",
                json!(5),
                &[
                    "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported",
                ],
            ),
            (
                "/spec/template/spec/containers/0/image",
                Value::Null,
                &["spec.template.spec.containers[0].image: Required value"],
            ),
            ("/spec/template/spec/containers", Value::Null, &["spec.template.spec.containers: Required value"]),
            (
                "/spec/strategy",
                json!({"type": "Blue"}),
                &["spec.strategy.type: Unsupported value: \"Blue\": supported values: \"Recreate\", \"RollingUpdate\""],
            ),
            (
                "/spec/strategy",
                json!({"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}),
                &["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"],
            ),
            (
                "/spec/strategy/rollingUpdate",
                json!({"maxSurge": 0, "maxUnavailable": "0%"}),
                &[
                    "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0",
                ],
            ),
            (
                "/spec/strategy/rollingUpdate",
                json!({"maxUnavailable": "101%"}),
                &["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%"],
            ),
            (
                "/spec/strategy/rollingUpdate",
                json!({"maxSurge": "much"}),
                &[
                    "spec.strategy.rollingUpdate.maxSurge: Invalid value: \"much\": a valid percent string must be a numeric \
               string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
                ],
            ),
            (
                "/spec/strategy/rollingUpdate",
                json!({"maxSurge": -1}),
                &["spec.strategy.rollingUpdate.maxSurge: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                "/spec/minReadySeconds",
                json!(600),
                &["spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"],
            ),
            (
                "/spec/revisionHistoryLimit",
                json!(-1),
                &["spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0"],
            ),
        ],
    );
    accepts(
        &DEPLOYMENT,
        &deployment(),
        &[
            ("/spec/replicas", json!(0)),
            ("/spec/paused", json!(true)),
            ("/spec/strategy", json!({"type": "Recreate"})),
            ("/spec/strategy/rollingUpdate", json!({"maxSurge": "100%", "maxUnavailable": 0})),
            ("/spec/template/spec/hostNetwork", json!(true)),
        ],
    );
    changes(
        &DEPLOYMENT,
        &deployment(),
        &[
            ("/spec/replicas", json!(7), &[]),
            ("/spec/template/spec/containers/0/image", json!("j"), &[]),
            (
                "/spec/selector/matchExpressions",
                json!([{"key": "app", "operator": "Exists"}]),
                &["spec.selector: Invalid value: {\"matchExpressions\":[{\"key\":\"app\",\"operator\":\"Exists\"}],\
               \"matchLabels\":{\"app\":\"a\"}}: field is immutable"],
            ),
        ],
    );
}

#[test]
fn replica_sets() {
    refuses(
        &REPLICA_SET,
        &deployment(),
        &[
            ("/spec/replicas", json!(-1), &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]),
            (
                "/spec/minReadySeconds",
                json!(-1),
                &["spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                "/spec/selector/matchLabels/app",
                json!("b"),
                &[
                    "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
                ],
            ),
            (
                "/spec/template",
                Value::Null,
                &[
                    "spec.template.metadata.labels: Invalid value: {}: `selector` does not match \
            template `labels`",
                    "spec.template.spec.containers: Required value",
                ],
            ),
        ],
    );
    changes(
        &REPLICA_SET,
        &deployment(),
        &[
            ("/spec/replicas", json!(7), &[]),
            (
                "/spec/selector/matchLabels",
                json!({"app": "a", "b": "c"}),
                &[
                    "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
                    "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"a\",\"b\":\"c\"}}: field is immutable",
                ],
            ),
        ],
    );
}

fn daemon_set() -> Value {
    deployment()
}

#[test]
fn daemon_sets() {
    let not_whole = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', \
                     regex used for validation is '[0-9]+%')";
    refuses(
        &DAEMON_SET,
        &daemon_set(),
        &[
            ("/spec/selector", Value::Null, &["spec.selector: Required value"]),
            (
                "/spec/selector",
                json!({}),
                &["spec.selector: Invalid value: {}: empty selector is invalid for daemonset"],
            ),
            (
                "/spec/template/spec/restartPolicy",
                json!("OnFailure"),
                &["spec.template.spec.restartPolicy: Unsupported value: \"OnFailure\": supported values: \"Always\""],
            ),
            (
                "/spec/template/spec/activeDeadlineSeconds",
                json!(5),
                &[
                    "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in DaemonSet is not Supported",
                ],
            ),
            (
                "/spec/updateStrategy/type",
                json!("Recreate"),
                &[
                    "spec.updateStrategy.type: Unsupported value: \"Recreate\": supported values: \"OnDelete\", \"RollingUpdate\"",
                ],
            ),
            (
                "/spec/updateStrategy/rollingUpdate",
                json!({"maxUnavailable": 1, "maxSurge": "10%"}),
                &[
                    "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: \"10%\": may not be set when maxUnavailable is non-zero",
                ],
            ),
            (
                "/spec/updateStrategy/rollingUpdate",
                json!({"maxUnavailable": 0}),
                &["spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"],
            ),
            (
                "/spec/updateStrategy/rollingUpdate",
                json!({"maxUnavailable": "101%"}),
                &[
                    "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
                ],
            ),
            (
                "/spec/updateStrategy/rollingUpdate",
                json!({"maxUnavailable": "few"}),
                &[&format!("spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: \"few\": {not_whole}")],
            ),
            (
                "/spec/minReadySeconds",
                json!(-1),
                &["spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                "/spec/revisionHistoryLimit",
                json!(-1),
                &["spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0"],
            ),
        ],
    );
    accepts(
        &DAEMON_SET,
        &daemon_set(),
        &[
            ("/spec/updateStrategy", json!({"type": "OnDelete"})),
            ("/spec/updateStrategy/rollingUpdate", json!({"maxUnavailable": 0, "maxSurge": "100%"})),
        ],
    );
    changes(
        &DAEMON_SET,
        &daemon_set(),
        &[(
            "/spec/selector/matchLabels/app2",
            json!("b"),
            &[
                "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
                "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"a\",\"app2\":\"b\"}}: field is immutable",
            ],
        )],
    );
}

#[test]
fn controller_revisions() {
    let revision = json!({"metadata": {"name": "r", "namespace": "n"}, "data": {"spec": {}}, "revision": 1});
    refuses(
        &CONTROLLER_REVISION,
        &revision,
        &[
            ("/data", Value::Null, &["data: Required value: data is mandatory"]),
            ("/revision", json!(-1), &["revision: Invalid value: -1: must be greater than or equal to 0"]),
        ],
    );
    changes(
        &CONTROLLER_REVISION,
        &revision,
        &[
            ("/revision", json!(2), &[]),
            ("/data", json!({"spec": 1}), &["data: Invalid value: {\"spec\":1}: field is immutable"]),
        ],
    );
}

#[test]
fn stateful_sets() {
    refuses(
        &STATEFUL_SET,
        &deployment(),
        &[
            ("/spec/selector", Value::Null, &["spec.selector: Required value"]),
            (
                "/spec/podManagementPolicy",
                json!("Random"),
                &["spec.podManagementPolicy: Invalid value: \"Random\": must be 'OrderedReady' or 'Parallel'"],
            ),
            (
                "/spec/updateStrategy",
                json!({"type": "Blue"}),
                &["spec.updateStrategy: Invalid value: {\"type\":\"Blue\"}: must be 'RollingUpdate' or 'OnDelete'"],
            ),
            (
                "/spec/updateStrategy",
                json!({"type": "OnDelete", "rollingUpdate": {"partition": 1}}),
                &[
                    "spec.updateStrategy.rollingUpdate: Invalid value: {\"partition\":1}: only allowed for updateStrategy 'RollingUpdate'",
                ],
            ),
            (
                "/spec/updateStrategy/rollingUpdate",
                json!({"partition": -1}),
                &["spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                "/spec/updateStrategy/rollingUpdate",
                json!({"maxUnavailable": 0}),
                &["spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0"],
            ),
            (
                "/spec/persistentVolumeClaimRetentionPolicy",
                json!({"whenScaled": "Keep"}),
                &[
                    "spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: \"Keep\": supported values: \"Delete\", \"Retain\"",
                ],
            ),
            (
                "/spec/volumeClaimTemplates",
                json!([{"metadata": {"name": "a"}}]),
                &[
                    "spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is required",
                    "spec.volumeClaimTemplates[0].spec.resources[storage]: Required value",
                ],
            ),
            (
                "/spec/ordinals",
                json!({"start": -1}),
                &["spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                "/spec/template/spec/restartPolicy",
                json!("Never"),
                &["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
            ),
        ],
    );
    let fixed = "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                 'minReadySeconds' are forbidden";
    changes(
        &STATEFUL_SET,
        &deployment(),
        &[
            ("/spec/replicas", json!(3), &[]),
            ("/spec/template/spec/containers/0/image", json!("j"), &[]),
            ("/spec/minReadySeconds", json!(3), &[]),
            ("/spec/serviceName", json!("s"), &[fixed]),
            ("/spec/podManagementPolicy", json!("Parallel"), &[fixed]),
        ],
    );
}

#[test]
fn replication_controllers() {
    let controller = json!({"metadata": {"name": "d", "namespace": "n"}, "spec": {
        "selector": {"app": "a"},
        "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    refuses(
        &REPLICATION_CONTROLLER,
        &controller,
        &[
            ("/spec/template", Value::Null, &["spec.template: Required value"]),
            ("/spec/replicas", json!(-1), &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]),
            (
                "/spec/selector/app",
                json!("b"),
                &[
                    "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
                ],
            ),
            (
                "/spec/template/spec/restartPolicy",
                json!("Never"),
                &["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
            ),
        ],
    );
    // What it does not say is its template's.
    let bare = prepared(&REPLICATION_CONTROLLER, &with(&controller, "/spec/selector", Value::Null));
    assert_eq!((bare.str_at("/spec/selector/app"), bare.label("app")), ("a", Some("a")));
}

#[test]
fn jobs() {
    let labels = json!({"batch.kubernetes.io/controller-uid": "u", "batch.kubernetes.io/job-name": "j"});
    let job = json!({"metadata": {"name": "j", "namespace": "n", "uid": "u"}, "spec": {
        "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}},
        "template": {"metadata": {"labels": labels},
                     "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
    let negative = |field: &str| format!("spec.{field}: Invalid value: -1: must be greater than or equal to 0");
    for field in ["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"] {
        refuses(&JOB, &job, &[(&format!("/spec/{field}"), json!(-1), &[&negative(field)])]);
    }
    let rule = |more: Value| json!({"rules": [more]});
    refuses(
        &JOB,
        &job,
        &[
            (
                "/spec/template/spec/restartPolicy",
                Value::Null,
                &["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""],
            ),
            (
                "/spec/completionMode",
                json!("Some"),
                &["spec.completionMode: Unsupported value: \"Some\": supported values: \"Indexed\", \"NonIndexed\""],
            ),
            (
                "/spec/backoffLimitPerIndex",
                json!(1),
                &["spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"],
            ),
            (
                "/spec/successPolicy",
                rule(json!({"succeededCount": 1})),
                &[
                    "spec.successPolicy: Invalid value: {\"rules\":[{\"succeededCount\":1}]}: requires indexed completion mode",
                ],
            ),
            (
                "/spec/podReplacementPolicy",
                json!("Never"),
                &[
                    "spec.podReplacementPolicy: Unsupported value: \"Never\": supported values: \"Failed\", \"TerminatingOrFailed\"",
                ],
            ),
            (
                "/spec/podFailurePolicy",
                rule(
                    json!({"action": "Count", "onExitCodes": {"operator": "In", "values": [0], "containerName": "d"}}),
                ),
                &[
                    "spec.podFailurePolicy.rules[0].onExitCodes.containerName: Invalid value: \"d\": must be one of the container or initContainer names in the pod template",
                    "spec.podFailurePolicy.rules[0].onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator",
                ],
            ),
            (
                "/spec/podFailurePolicy",
                rule(json!({"action": "FailIndex", "onPodConditions": [{"type": "DisruptionTarget"}]})),
                &[
                    "spec.podFailurePolicy.rules[0].action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set",
                ],
            ),
            (
                "/metadata/uid",
                json!("v"),
                &[
                    "spec.template.metadata.labels[batch.kubernetes.io/controller-uid]: Invalid value: \"u\": must be 'v'",
                    "spec.selector: Invalid value: {\"matchLabels\":{\"batch.kubernetes.io/controller-uid\":\"u\"}}: `selector` not auto-generated",
                ],
            ),
        ],
    );
    let indexed = with(&with(&job, "/spec/completionMode", json!("Indexed")), "/spec/completions", json!(3));
    let indexed = with(&indexed, "/spec/parallelism", json!(3));
    refuses(
        &JOB,
        &indexed,
        &[
            ("/spec/completions", Value::Null, &["spec.completions: Required value: when completion mode is Indexed"]),
            (
                "/spec/successPolicy",
                rule(json!({"succeededIndexes": "2,1"})),
                &[
                    "spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"2,1\": error parsing succeededIndexes: not ascending ranges of indexes below completions",
                ],
            ),
            (
                "/spec/successPolicy",
                rule(json!({})),
                &[
                    "spec.successPolicy.rules[0]: Required value: at least one of succeededCount or succeededIndexes must be specified",
                ],
            ),
        ],
    );
    changes(
        &JOB,
        &with(&job, "/spec/completions", json!(1)),
        &[
            ("/spec/parallelism", json!(5), &[]),
            ("/spec/suspend", json!(true), &[]),
            ("/spec/completions", json!(5), &["spec.completions: Invalid value: 5: field is immutable"]),
        ],
    );
    let other = prepared(&JOB, &with(&job, "/spec/template/spec/containers/0/image", json!("x")));
    let errors = update(&JOB, &other, &prepared(&JOB, &job));
    assert_eq!((errors.len(), errors[0].path.as_str()), (1, "spec.template"));
}

#[test]
fn cron_jobs() {
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    let cron = json!({"metadata": {"name": "c", "namespace": "n"},
        "spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": template}}}});
    let made = prepared(&CRON_JOB, &cron);
    let of = |field: &str| made.get(&format!("/spec/{field}")).cloned().unwrap_or_default();
    assert_eq!(
        ["concurrencyPolicy", "suspend", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"].map(of),
        [json!("Allow"), json!(false), json!(3), json!(1)]
    );
    // A Job's own defaults come with the Job.
    assert_eq!(made.get("/spec/jobTemplate/spec/backoffLimit"), None);
    assert_eq!(made.str_at("/spec/jobTemplate/spec/template/spec/dnsPolicy"), "ClusterFirst");
    let below_zero = "must be greater than or equal to 0";
    let zone = |name: &str, why: &str| format!("spec.timeZone: Invalid value: {name:?}: {why}");
    let explicit = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
    refuses(
        &CRON_JOB,
        &cron,
        &[
            ("/metadata/name", json!("c".repeat(52)), &[]),
            (
                "/metadata/name",
                json!("c".repeat(53)),
                &[&format!("metadata.name: Invalid value: \"{}\": must be no more than 52 characters", "c".repeat(53))],
            ),
            ("/spec/schedule", json!(""), &["spec.schedule: Required value"]),
            (
                "/spec/schedule",
                json!("* * *"),
                &["spec.schedule: Invalid value: \"* * *\": expected exactly 5 fields, found 3: [* * *]"],
            ),
            (
                "/spec/schedule",
                json!("TZ=UTC * * * * *"),
                &[
                    "spec.schedule: Invalid value: \"TZ=UTC * * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
                ],
            ),
            ("/spec/timeZone", json!("Europe/Berlin"), &[]),
            ("/spec/timeZone", json!(""), &[&zone("", "must be nil or non-empty string")]),
            ("/spec/timeZone", json!("local"), &[&zone("local", explicit)]),
            ("/spec/timeZone", json!("../etc"), &[&zone("../etc", "unknown time zone ../etc")]),
            ("/spec/timeZone", json!("Mars/Olympus"), &[&zone("Mars/Olympus", "unknown time zone Mars/Olympus")]),
            (
                "/spec/concurrencyPolicy",
                json!("Queue"),
                &[
                    "spec.concurrencyPolicy: Unsupported value: \"Queue\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
                ],
            ),
            (
                "/spec/startingDeadlineSeconds",
                json!(-1),
                &[&format!("spec.startingDeadlineSeconds: Invalid value: -1: {below_zero}")],
            ),
            (
                "/spec/failedJobsHistoryLimit",
                json!(-1),
                &[&format!("spec.failedJobsHistoryLimit: Invalid value: -1: {below_zero}")],
            ),
            (
                "/spec/jobTemplate/spec/selector",
                json!({"matchLabels": {"a": "b"}}),
                &[
                    "spec.jobTemplate.spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: `selector` will be auto-generated",
                ],
            ),
            (
                "/spec/jobTemplate/spec/manualSelector",
                json!(true),
                &[
                    "spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: \"nil\", \"false\"",
                ],
            ),
            (
                "/spec/jobTemplate/spec/template/spec/restartPolicy",
                json!("Always"),
                &[
                    "spec.jobTemplate.spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
                ],
            ),
        ],
    );
    changes(&CRON_JOB, &cron, &[("/spec/schedule", json!("@daily"), &[])]);
}
