//! Runtime classes, ranges of Services, events of their own group, and APIs.

use super::*;

const IMMUTABLE: &str = "field is immutable";

#[test]
fn runtime_classes() {
    let base = json!({"metadata": {"name": "r"}, "handler": "runc"});
    let label = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
                 end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
                 '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
    refuses(
        &RUNTIME_CLASS,
        &base,
        &[
            ("/handler", json!(""), &[&format!("handler: Invalid value: \"\": {label}")]),
            ("/handler", json!("a.b"), &[&format!("handler: Invalid value: \"a.b\": {label}")]),
            (
                "/overhead",
                json!({"podFixed": {"cpu": "-1"}}),
                &["overhead.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"],
            ),
            (
                "/scheduling",
                json!({"nodeSelector": {"a": "b c"}}),
                &[&format!("scheduling.nodeSelector: Invalid value: \"b c\": {}", meta::LABEL_VALUE)],
            ),
            (
                "/scheduling",
                json!({"tolerations": [{"key": "a", "operator": "Is"}]}),
                &[
                    "scheduling.tolerations[0].operator: Unsupported value: \"Is\": supported values: \"Equal\", \"Exists\"",
                ],
            ),
        ],
    );
    accepts(
        &RUNTIME_CLASS,
        &base,
        &[
            ("/overhead", json!({"podFixed": {"cpu": "10m", "memory": "1Mi"}})),
            ("/scheduling", json!({"nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}]})),
        ],
    );
    changes(
        &RUNTIME_CLASS,
        &base,
        &[
            ("/handler", json!("other"), &[&format!("handler: Invalid value: \"other\": {IMMUTABLE}")]),
            ("/overhead", json!({"podFixed": {"cpu": "1"}}), &[]),
        ],
    );
}

#[test]
fn ranges_of_services() {
    let base = json!({"metadata": {"name": "r"}, "spec": {"cidrs": ["10.96.0.0/16"]}});
    let two = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
    refuses(
        &SERVICE_CIDR,
        &base,
        &[
            ("/spec/cidrs", json!([]), &["spec.cidrs: Required value: at least one CIDR required"]),
            (
                "/spec/cidrs",
                json!(["10.0.0.0/8", "fd00::/8", "fe00::/8"]),
                &[
                    "spec.cidrs: Invalid value: {\"cidrs\":[\"10.0.0.0/8\",\"fd00::/8\",\"fe00::/8\"]}: may only hold up to 2 \
                   values",
                ],
            ),
            (
                "/spec/cidrs",
                json!(["10.0.0.0"]),
                &["spec.cidrs[0]: Invalid value: \"10.0.0.0\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or \
                   2001:db8::/64)"],
            ),
            (
                "/spec/cidrs",
                json!(["10.0.0.1/8"]),
                &["spec.cidrs[0]: Invalid value: \"10.0.0.1/8\": must not have bits set beyond the prefix length"],
            ),
            (
                "/spec/cidrs",
                json!(["fd00:0::/32"]),
                &["spec.cidrs[0]: Invalid value: \"fd00:0::/32\": must be in canonical form (\"fd00::/32\")"],
            ),
            (
                "/spec/cidrs",
                json!(["::ffff:10.0.0.0/104"]),
                &["spec.cidrs[0]: Invalid value: \"::ffff:10.0.0.0/104\": must not have an IPv4-mapped IPv6 address"],
            ),
            (
                "/spec/cidrs",
                json!(["10.0.0.0/8", "11.0.0.0/8"]),
                &[&format!("spec.cidrs: Invalid value: [\"10.0.0.0/8\",\"11.0.0.0/8\"]: {two}")],
            ),
        ],
    );
    accepts(&SERVICE_CIDR, &base, &[("/spec/cidrs", json!(["fd00::/108", "10.0.0.0/8"]))]);
    changes(
        &SERVICE_CIDR,
        &base,
        &[
            ("/spec/cidrs", json!(["10.96.0.0/16", "fd00::/108"]), &[]),
            (
                "/spec/cidrs/0",
                json!("10.97.0.0/16"),
                &[&format!("spec.cidrs[0]: Invalid value: \"10.97.0.0/16\": {IMMUTABLE}")],
            ),
            (
                "/spec/cidrs",
                json!(["10.96.0.0/16", "10.97.0.0/16"]),
                &[&format!("spec.cidrs: Invalid value: [\"10.96.0.0/16\",\"10.97.0.0/16\"]: {two}")],
            ),
            ("/spec/cidrs", Value::Null, &[&format!("spec.cidrs: Invalid value: null: {IMMUTABLE}")]),
        ],
    );
}

/// As the registry has an event that came through events.k8s.io: in the core group's form.
fn newer() -> Resource {
    Resource { group: "events.k8s.io", ..EVENT }
}

#[test]
fn events_of_their_own_group() {
    let base = json!({
        "metadata": {"name": "e", "namespace": "n"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "n"},
        "eventTime": "2026-01-01T00:00:00.000001Z", "reportingComponent": "example.com/c", "reportingInstance": "i",
        "action": "a", "reason": "r", "type": "Normal", "message": "m",
    });
    let strict = |value: &Value| words(create(&newer(), &prepared(&EVENT, value)));
    assert_eq!(strict(&base), [""; 0]);
    for (pointer, value, expected) in [
        ("/eventTime", Value::Null, vec!["eventTime: Required value"]),
        ("/type", json!("Odd"), vec!["type: Invalid value: \"\": has invalid value: Odd"]),
        ("/reportingComponent", json!(""), vec!["reportingController: Required value"]),
        ("/reportingInstance", json!(""), vec!["reportingInstance: Required value"]),
        ("/action", json!("a".repeat(129)), vec!["action: Invalid value: \"\": can have at most 128 characters"]),
        ("/message", json!("a".repeat(1025)), vec!["message: Invalid value: \"\": can have at most 1024 characters"]),
        ("/count", json!(1), vec!["count: Invalid value: \"\": needs to be unset"]),
        ("/source", json!({"host": "h"}), vec!["source: Invalid value: \"\": needs to be unset"]),
        (
            "/firstTimestamp",
            json!("2026-01-01T00:00:00Z"),
            vec!["firstTimestamp: Invalid value: \"\": needs to be unset"],
        ),
        (
            "/lastTimestamp",
            json!("2026-01-01T00:00:00Z"),
            vec!["lastTimestamp: Invalid value: \"\": needs to be unset"],
        ),
        (
            "/series",
            json!({"count": 1}),
            vec!["series.count: Invalid value: \"\": should be at least 2", "series.lastObservedTime: Required value"],
        ),
    ] {
        assert_eq!(strict(&with(&base, pointer, value)), expected, "{pointer}");
    }
    let old = prepared(&EVENT, &base);
    let changed =
        |pointer: &str, value: Value| words(update(&newer(), &prepared(&EVENT, &with(&base, pointer, value)), &old));
    let series = json!({"count": 2, "lastObservedTime": "2026-01-01T00:00:00.000001Z"});
    assert_eq!(changed("/series", series), [""; 0]);
    assert_eq!(changed("/message", json!("x")), [format!("message: Invalid value: \"x\": {IMMUTABLE}")]);
    let reporter = changed("/reportingComponent", json!("d"));
    assert_eq!(reporter, [format!("reportingController: Invalid value: \"d\": {IMMUTABLE}")]);
    assert_eq!(
        changed("/reportingInstance", json!("j")),
        [format!("reportingInstance: Invalid value: \"j\": {IMMUTABLE}")]
    );
    // Through the core group none of this is asked.
    assert_eq!(words(create(&EVENT, &prepared(&EVENT, &with(&base, "/count", json!(1))))), [""; 0]);
}

#[test]
fn apis() {
    let base = json!({"metadata": {"name": "v1.example.com"}, "spec": {"group": "example.com", "version": "v1",
        "groupPriorityMinimum": 1000, "versionPriority": 15}});
    let named = "must be `spec.version+\".\"+spec.group`";
    refuses(
        &API_SERVICE,
        &base,
        &[
            (
                "/metadata/name",
                json!("other"),
                &[&format!("metadata.name: Invalid value: \"other\": {named}: \"v1.example.com\"")],
            ),
            (
                "/spec/groupPriorityMinimum",
                json!(20_001),
                &["spec.groupPriorityMinimum: Invalid value: 20001: must be positive and less than 20000"],
            ),
            (
                "/spec/versionPriority",
                json!(0),
                &["spec.versionPriority: Invalid value: 0: must be positive and less than 1000"],
            ),
            (
                "/spec/caBundle",
                json!("YQ=="),
                &["spec.caBundle: Invalid value: \"YQ==\": local APIServices may not have a caBundle"],
            ),
            (
                "/spec/insecureSkipTLSVerify",
                json!(true),
                &[
                    "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify",
                ],
            ),
            (
                "/spec/service",
                json!({}),
                &["spec.service.namespace: Required value", "spec.service.name: Required value"],
            ),
            (
                "/spec/service",
                json!({"namespace": "n", "name": "s", "port": 0}),
                &["spec.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive"],
            ),
        ],
    );
    let nameless = json!({"metadata": {"name": "v2."}, "spec": {"version": "v2", "groupPriorityMinimum": 1, "versionPriority": 1}});
    let found = words(create(&API_SERVICE, &prepared(&API_SERVICE, &nameless)));
    assert_eq!(found, ["spec.group: Required value: only v1 may have an empty group and it better be legacy kube"]);
    let behind = with(&base, "/spec/service", json!({"namespace": "n", "name": "s"}));
    assert_eq!(prepared(&API_SERVICE, &behind).i64_at("/spec/service/port"), Some(443));
    let both = with(&with(&behind, "/spec/caBundle", json!("YQ==")), "/spec/insecureSkipTLSVerify", json!(true));
    let found = words(create(&API_SERVICE, &prepared(&API_SERVICE, &both)));
    assert_eq!(found, ["spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present"]);
    let status =
        "status.conditions[0].status: Unsupported value: \"Maybe\": supported values: \"True\", \"False\", \"Unknown\"";
    statuses(
        &API_SERVICE,
        "status",
        &base,
        &[("/status/conditions", json!([{"type": "Available", "status": "Maybe"}]), &[status])],
    );
}
