use super::*;

fn flow() -> Value {
    let rule = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["n"]});
    json!({"metadata": {"name": "f"}, "spec": {"priorityLevelConfiguration": {"name": "p"}, "rules": [{
        "subjects": [{"kind": "User", "user": {"name": "me"}}], "resourceRules": [rule],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["/healthz"]}],
    }]}})
}

#[test]
fn schemas() {
    let rule = "/spec/rules/0";
    let verbs = "supported values: \"create\", \"delete\", \"deletecollection\", \"get\", \"list\", \"patch\", \"proxy\", \
                 \"update\", \"watch\"";
    refuses(
        &FLOW_SCHEMA,
        &flow(),
        &[
            (
                "/spec/matchingPrecedence",
                json!(-1),
                &["spec.matchingPrecedence: Invalid value: -1: must be a positive value"],
            ),
            (
                "/spec/matchingPrecedence",
                json!(10_001),
                &["spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000"],
            ),
            (
                "/spec/matchingPrecedence",
                json!(1),
                &[
                    "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
                ],
            ),
            (
                "/spec/distinguisherMethod",
                json!({"type": "ByMood"}),
                &["spec.distinguisherMethod.type: Unsupported value: \"ByMood\": supported values: \"ByNamespace\", \
                   \"ByUser\""],
            ),
            (
                "/spec/priorityLevelConfiguration/name",
                json!(""),
                &["spec.priorityLevelConfiguration.name: Required value: must reference a priority level"],
            ),
            (
                &format!("{rule}/subjects"),
                json!([]),
                &["spec.rules[0].subjects: Required value: subjects must contain at least one value"],
            ),
            (
                rule,
                json!({"subjects": [{"kind": "User", "user": {"name": "me"}}]}),
                &[
                    "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
                ],
            ),
            (
                &format!("{rule}/subjects/0"),
                json!({"kind": "Robot"}),
                &["spec.rules[0].subjects[0].kind: Unsupported value: \"Robot\": supported values: \"Group\", \
                   \"ServiceAccount\", \"User\""],
            ),
            (
                &format!("{rule}/subjects/0"),
                json!({"kind": "Group", "user": {"name": "me"}}),
                &[
                    "spec.rules[0].subjects[0].user: Forbidden: user is forbidden when subject kind is not 'User'",
                    "spec.rules[0].subjects[0].group: Required value: group is required when subject kind is 'Group'",
                ],
            ),
            (
                &format!("{rule}/subjects/0/user/name"),
                json!(""),
                &["spec.rules[0].subjects[0].user.name: Required value"],
            ),
            (
                &format!("{rule}/subjects/0"),
                json!({"kind": "ServiceAccount", "serviceAccount": {"name": "a", "namespace": ""}}),
                &[
                    "spec.rules[0].subjects[0].serviceAccount.namespace: Required value: must specify namespace for service \
                   account",
                ],
            ),
            (
                &format!("{rule}/resourceRules/0/verbs"),
                json!([]),
                &["spec.rules[0].resourceRules[0].verbs: Required value: verbs must contain at least one value"],
            ),
            (
                &format!("{rule}/resourceRules/0/verbs"),
                json!(["*", "get"]),
                &["spec.rules[0].resourceRules[0].verbs: Invalid value: [\"*\",\"get\"]: if '*' is present, must not \
                   specify other verbs"],
            ),
            (
                &format!("{rule}/resourceRules/0/verbs"),
                json!(["peek"]),
                &[&format!("spec.rules[0].resourceRules[0].verbs: Unsupported value: [\"peek\"]: {verbs}")],
            ),
            (
                &format!("{rule}/resourceRules/0/apiGroups"),
                json!([]),
                &[
                    "spec.rules[0].resourceRules[0].apiGroups: Required value: resource rules must supply at least one api \
                   group",
                ],
            ),
            (
                &format!("{rule}/resourceRules/0/resources"),
                json!(["*", "pods"]),
                &[
                    "spec.rules[0].resourceRules[0].resources: Invalid value: [\"*\",\"pods\"]: if '*' is present, must not \
                   specify other resources",
                ],
            ),
            (
                &format!("{rule}/resourceRules/0/namespaces"),
                json!([]),
                &[
                    "spec.rules[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped \
                   must supply at least one namespace",
                ],
            ),
            (
                &format!("{rule}/nonResourceRules/0/nonResourceURLs"),
                json!([]),
                &[
                    "spec.rules[0].nonResourceRules[0].nonResourceURLs: Required value: nonResourceURLs must contain at \
                   least one value",
                ],
            ),
            (
                "/status/conditions",
                json!([{"type": "a", "status": "True"}, {"type": "a", "status": "True"}, {"type": ""}]),
                &["status.conditions[1].type: Duplicate value: \"a\"", "status.conditions[2].type: Required value"],
            ),
        ],
    );
    for (path, why) in [
        ("", "must not be empty"),
        ("a", "must start with slash"),
        ("/a b", "must not contain white-space"),
        ("/a//b", "must not contain double slash"),
        ("/a*", "wildcard can only do suffix matching"),
        ("/*/*", "wildcard can only do suffix matching"),
    ] {
        let at = format!("{rule}/nonResourceRules/0/nonResourceURLs");
        let expected = format!("spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: {path:?}: {why}");
        refuses(&FLOW_SCHEMA, &flow(), &[(&at, json!([path]), &[&expected])]);
    }
    accepts(
        &FLOW_SCHEMA,
        &flow(),
        &[
            (&format!("{rule}/nonResourceRules/0/nonResourceURLs"), json!(["/", "/a/*"])),
            (
                &format!("{rule}/resourceRules/0"),
                json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true}),
            ),
            (
                &format!("{rule}/subjects/0"),
                json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "n"}}),
            ),
        ],
    );
}

#[test]
fn namespaces_of_flows_are_labels() {
    let object = prepared(&FLOW_SCHEMA, &with(&flow(), "/spec/rules/0/resourceRules/0/namespaces", json!(["N"])));
    let found = words(create(&FLOW_SCHEMA, &object));
    let head = "spec.rules[0].resourceRules[0].namespaces[0]: Invalid value: \"N\": each member of this list must be '*' or \
                a DNS-1123 label; ";
    assert!(found.len() == 1 && found[0].starts_with(head), "{found:?}");
}

#[test]
fn levels() {
    let queuing = json!({"queues": 64, "handSize": 8, "queueLengthLimit": 50});
    let base = json!({"metadata": {"name": "l"}, "spec": {"type": "Limited",
        "limited": {"limitResponse": {"type": "Queue", "queuing": queuing}}}});
    let (limited, path) = ("/spec/limited", "spec.limited");
    let queues = "/spec/limited/limitResponse/queuing";
    let queues_path = "spec.limited.limitResponse.queuing";
    let only_exempt = "must be 'Exempt' if and only if `name` is 'exempt'";
    refuses(
        &PRIORITY_LEVEL_CONFIGURATION,
        &base,
        &[
            ("/spec/type", json!(""), &["spec.type: Required value"]),
            (
                "/spec/type",
                json!("Wild"),
                &["spec.type: Unsupported value: \"Wild\": supported values: \"Exempt\", \"Limited\""],
            ),
            ("/spec", json!({"type": "Exempt"}), &[&format!("spec.type: Invalid value: \"Exempt\": {only_exempt}")]),
            ("/spec/exempt", json!({}), &["spec.exempt: Forbidden: must be nil if the type is Limited"]),
            (limited, Value::Null, &["spec.limited: Required value: must not be empty when type is Limited"]),
            (
                "/spec/limited/nominalConcurrencyShares",
                json!(-1),
                &[&format!("{path}.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer")],
            ),
            (
                "/spec/limited/lendablePercent",
                json!(101),
                &[&format!("{path}.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive")],
            ),
            (
                "/spec/limited/borrowingLimitPercent",
                json!(-1),
                &[&format!(
                    "{path}.borrowingLimitPercent: Invalid value: -1: if specified, must be a non-negative integer"
                )],
            ),
            (
                "/spec/limited/limitResponse/type",
                json!("Ignore"),
                &[&format!(
                    "{path}.limitResponse.type: Unsupported value: \"Ignore\": supported values: \"Queue\", \"Reject\""
                )],
            ),
            (
                "/spec/limited/limitResponse/type",
                json!("Reject"),
                &[&format!("{queues_path}: Forbidden: must be nil if limited.limitResponse.type is not Limited")],
            ),
            (
                queues,
                Value::Null,
                &[&format!(
                    "{queues_path}: Required value: must not be empty if limited.limitResponse.type is Limited"
                )],
            ),
            (
                &format!("{queues}/queueLengthLimit"),
                json!(-1),
                &[&format!("{queues_path}.queueLengthLimit: Invalid value: -1: must be positive")],
            ),
            (
                &format!("{queues}/queues"),
                json!(-1),
                &[
                    &format!("{queues_path}.queues: Invalid value: -1: must be positive"),
                    &format!("{queues_path}.handSize: Invalid value: 8: should not be greater than queues (-1)"),
                ],
            ),
            (
                queues,
                json!({"queues": 10_000_001, "handSize": 1, "queueLengthLimit": 1}),
                &[&format!("{queues_path}.queues: Invalid value: 10000001: must not be greater than 10000000")],
            ),
            (
                &format!("{queues}/handSize"),
                json!(-1),
                &[&format!("{queues_path}.handSize: Invalid value: -1: must be positive")],
            ),
            (
                &format!("{queues}/handSize"),
                json!(11),
                &[&format!(
                    "{queues_path}.handSize: Invalid value: 11: required entropy bits of deckSize 64 and handSize 11 should \
                     not be greater than 60"
                )],
            ),
            (
                "/metadata/annotations",
                json!({"flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares": ""}),
                &["metadata.annotations: Forbidden: annotation \
                   'flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares' is forbidden"],
            ),
        ],
    );
    accepts(
        &PRIORITY_LEVEL_CONFIGURATION,
        &base,
        &[
            (&format!("{queues}/handSize"), json!(10)),
            ("/spec/limited", json!({"nominalConcurrencyShares": 0, "limitResponse": {"type": "Reject"}})),
        ],
    );
}

/// What every cluster has is valid, and stays as it is.
#[test]
fn mandatory_objects() {
    for (kind, name, spec) in crate::flow_control::mandatory() {
        let base = json!({"metadata": crate::flow_control::metadata(name), "spec": spec});
        let made = prepared(kind, &base);
        assert_eq!(words(create(kind, &made)), [""; 0], "{name}");
        assert_eq!(made.get("/spec"), Some(&spec), "defaults change {name}");
    }
    let mandatory = crate::flow_control::mandatory();
    let base = |at: usize| json!({"metadata": {"name": mandatory[at].1}, "spec": mandatory[at].2});
    let heads = |kind: &Resource, at: usize, pointer: &str, value: Value| {
        let old = prepared(kind, &base(at));
        let found = words(update(kind, &prepared(kind, &with(&base(at), pointer, value)), &old));
        found.into_iter().map(|text| text.rsplit(": ").next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let fixed = |name: &str| vec![format!("spec of '{name}' must equal the fixed value")];
    let shares = "/spec/limited/nominalConcurrencyShares";
    assert_eq!(heads(&PRIORITY_LEVEL_CONFIGURATION, 0, shares, json!(6)), fixed("catch-all"));
    assert_eq!(heads(&FLOW_SCHEMA, 3, "/spec/matchingPrecedence", json!(9)), fixed("catch-all"));
    let exempt = "/spec/exempt/nominalConcurrencyShares";
    assert_eq!(heads(&PRIORITY_LEVEL_CONFIGURATION, 1, exempt, json!(5)), [""; 0]);
    let but = vec!["spec of 'exempt' except the 'spec.exempt' field must equal the fixed value".to_owned()];
    let limited = json!({"limitResponse": {"type": "Reject"}});
    let found = heads(&PRIORITY_LEVEL_CONFIGURATION, 1, "/spec/limited", limited);
    assert_eq!(found[1..], but);
    statuses(
        &FLOW_SCHEMA,
        "status",
        &flow(),
        &[("/status/conditions", json!([{"type": ""}]), &["status.conditions[0].type: Required value"])],
    );
}
