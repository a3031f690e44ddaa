use super::*;

pub(super) fn named(extra: Value) -> Value {
    let mut value = json!({"metadata": {"name": "a", "namespace": "n"}});
    json_patch::merge(&mut value, &extra);
    value
}

#[test]
fn secrets() {
    let key = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
        'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
    let big = "A".repeat(DATA_MAX_BYTES / 3 * 4 + 4);
    let base = named(json!({"data": {"k": "eA=="}}));
    let broken =
        |kind: &str, data: Value| json!({"metadata": {"name": "a", "namespace": "n"}, "type": kind, "data": data});
    refuses(
        &SECRET,
        &base,
        &[
            ("/data/a b", json!("eA=="), &[&format!("data[a b]: Invalid value: \"a b\": {key}")]),
            ("/data/..x", json!("eA=="), &["data[..x]: Invalid value: \"..x\": must not start with '..'"]),
            ("/data/k", json!(big), &["data: Too long: may not be more than 1048576 bytes"]),
            ("", broken("kubernetes.io/tls", json!({"tls.crt": "eA=="})), &["data[tls.key]: Required value"]),
            (
                "",
                broken("kubernetes.io/tls", json!({})),
                &["data[tls.crt]: Required value", "data[tls.key]: Required value"],
            ),
            ("", broken("kubernetes.io/dockerconfigjson", json!({})), &["data[.dockerconfigjson]: Required value"]),
            (
                "",
                broken("kubernetes.io/dockerconfigjson", json!({".dockerconfigjson": "eA=="})),
                &[
                    "data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": expected value at line 1 column 1",
                ],
            ),
            (
                "",
                broken("kubernetes.io/basic-auth", json!({})),
                &["data[username]: Required value", "data[password]: Required value"],
            ),
            ("", broken("kubernetes.io/ssh-auth", json!({})), &["data[ssh-privatekey]: Required value"]),
            (
                "",
                broken("kubernetes.io/service-account-token", json!({})),
                &["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
            ),
        ],
    );
    accepts(
        &SECRET,
        &base,
        &[
            ("/data", Value::Null),
            ("/stringData", json!({"x": "y"})),
            ("", broken("kubernetes.io/tls", json!({"tls.crt": "", "tls.key": ""}))),
            ("", broken("kubernetes.io/basic-auth", json!({"password": "eA=="}))),
            ("", broken("kubernetes.io/dockerconfigjson", json!({".dockerconfigjson": "e30="}))),
        ],
    );
    changes(
        &SECRET,
        &base,
        &[
            ("/data/k", json!("eQ=="), &[]),
            ("/immutable", json!(true), &[]),
            ("/type", json!("mine"), &["type: Invalid value: \"mine\": field is immutable"]),
        ],
    );
    let frozen = with(&base, "/immutable", json!(true));
    changes(
        &SECRET,
        &frozen,
        &[
            ("/metadata/labels", json!({"a": "b"}), &[]),
            ("/immutable", Value::Null, &["immutable: Forbidden: field is immutable when `immutable` is set"]),
            ("/data/k", json!("eQ=="), &["data: Forbidden: field is immutable when `immutable` is set"]),
        ],
    );
}

#[test]
fn config_maps() {
    let base = named(json!({"data": {"k": "v"}, "binaryData": {"b": "eA=="}}));
    refuses(
        &CONFIG_MAP,
        &base,
        &[
            (
                "/binaryData/k",
                json!("eA=="),
                &["data[k]: Invalid value: \"k\": duplicate of key present in binaryData"],
            ),
            ("/data/..", json!("v"), &["data[..]: Invalid value: \"..\": must not be '..'"]),
            ("/data/k", json!("x".repeat(DATA_MAX_BYTES)), &["[]: Too long: may not be more than 1048576 bytes"]),
        ],
    );
    changes(
        &CONFIG_MAP,
        &with(&base, "/immutable", json!(true)),
        &[
            ("/data/k", json!("w"), &["data: Forbidden: field is immutable when `immutable` is set"]),
            ("/binaryData", Value::Null, &["binaryData: Forbidden: field is immutable when `immutable` is set"]),
        ],
    );
}

#[test]
fn namespaces_and_nodes() {
    let namespace = json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}});
    refuses(
        &NAMESPACE,
        &namespace,
        &[(
            "/spec/finalizers/1",
            json!("mine"),
            &[
                "spec.finalizers[1]: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully qualified",
            ],
        )],
    );
    accepts(&NAMESPACE, &namespace, &[("/spec/finalizers/1", json!("example.com/mine"))]);
    let node = json!({"metadata": {"name": "a"}, "spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"],
        "providerID": "x://a", "taints": [{"key": "a", "effect": "NoExecute"}]}});
    refuses(
        &NODE,
        &node,
        &[
            (
                "/spec/taints/1",
                json!({"key": "b", "effect": "No"}),
                &["spec.taints[1].effect: Unsupported value: \"No\": \
            supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\""],
            ),
            ("/spec/taints/1", json!({"key": "b"}), &["spec.taints[1].effect: Required value"]),
            (
                "/spec/taints/1",
                json!({"key": "", "effect": "NoExecute"}),
                &[&format!("spec.taints[1].key: Invalid value: \"\": {}", meta::QUALIFIED)],
            ),
            (
                "/spec/taints/1",
                json!({"key": "a", "value": "v", "effect": "NoExecute"}),
                &["spec.taints[1]: Duplicate value: {\"effect\":\"NoExecute\",\"key\":\"a\",\"value\":\"v\"}"],
            ),
            (
                "/spec/podCIDR",
                json!("10.0.0.0"),
                &[
                    "spec.podCIDR: Invalid value: \"10.0.0.0\": must be a valid CIDR value, \
            (e.g. 10.9.8.0/24 or 2001:db8::/64)",
                    "spec.podCIDRs: Invalid value: [\"10.0.0.0/24\"]: first value must match `podCIDR`",
                ],
            ),
        ],
    );
    changes(
        &NODE,
        &node,
        &[
            ("/spec/unschedulable", json!(true), &[]),
            (
                "/spec/podCIDR",
                Value::Null,
                &["spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid"],
            ),
            (
                "/spec/providerID",
                json!("x://b"),
                &["spec.providerID: Forbidden: node updates may not change providerID except from \"\" to valid"],
            ),
        ],
    );
    changes(&NODE, &json!({"metadata": {"name": "a"}}), &[("/spec/podCIDR", json!("10.0.0.0/24"), &[])]);
}

#[test]
fn leases_priorities_and_addresses() {
    let lease = named(json!({"spec": {"holderIdentity": "x", "leaseDurationSeconds": 40}}));
    refuses(
        &LEASE,
        &lease,
        &[
            (
                "/spec/leaseDurationSeconds",
                json!(0),
                &["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"],
            ),
            (
                "/spec/leaseTransitions",
                json!(-1),
                &["spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                "/spec/strategy",
                json!("Youngest"),
                &[
                    "spec.strategy.strategy: Unsupported value: \"Youngest\": supported values: \"OldestEmulationVersion\"",
                ],
            ),
            (
                "/spec/strategy",
                json!("a/b/c"),
                &[&format!("spec.strategy.strategy: Invalid value: \"a/b/c\": {}", meta::QUALIFIED)],
            ),
            (
                "/spec/preferredHolder",
                json!("y"),
                &["spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined"],
            ),
        ],
    );
    let strategies = ["OldestEmulationVersion", "example.com/mine"].map(|name| ("/spec/strategy", json!(name)));
    accepts(&LEASE, &lease, &strategies);
    let class = json!({"metadata": {"name": "a"}, "value": 1_000_000_000});
    refuses(
        &PRIORITY_CLASS,
        &class,
        &[
            (
                "/value",
                json!(1_000_000_001),
                &["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"],
            ),
            (
                "/metadata/name",
                json!("system-a"),
                &["metadata.name: Forbidden: priority class names with 'system-' prefix \
            are reserved for system use only. error: system-a is not a known system priority class"],
            ),
            (
                "/preemptionPolicy",
                json!("Maybe"),
                &["preemptionPolicy: Unsupported value: \"Maybe\": supported values: \
            \"PreemptLowerPriority\", \"Never\""],
            ),
        ],
    );
    let system = json!({"metadata": {"name": "system-node-critical"}, "value": 2_000_001_000});
    accepts(&PRIORITY_CLASS, &system, &[("/globalDefault", json!(false))]);
    changes(
        &PRIORITY_CLASS,
        &class,
        &[
            ("/description", json!("x"), &[]),
            ("/value", json!(5), &["value: Forbidden: may not be changed in an update."]),
            ("/preemptionPolicy", json!("Never"), &["preemptionPolicy: Invalid value: \"Never\": field is immutable"]),
        ],
    );
    let parent = json!({"resource": "services", "namespace": "n", "name": "s"});
    let address = json!({"metadata": {"name": "10.96.0.1"}, "spec": {"parentRef": parent}});
    refuses(
        &IP_ADDRESS,
        &address,
        &[
            (
                "/metadata/name",
                json!("x"),
                &["metadata.name: Invalid value: \"x\": must be a valid IP address, (e.g. \
            10.9.8.7 or 2001:db8::ffff)"],
            ),
            (
                "/metadata/name",
                json!("2001:0db8::1"),
                &["metadata.name: Invalid value: \"2001:0db8::1\": must be in canonical form (\"2001:db8::1\")"],
            ),
            ("/spec", json!({}), &["spec.parentRef: Required value"]),
            ("/spec/parentRef/name", Value::Null, &["spec.parentRef.name: Required value"]),
            ("/spec/parentRef/resource", Value::Null, &["spec.parentRef.resource: Required value"]),
            (
                "/spec/parentRef/name",
                json!("a/b"),
                &["spec.parentRef.name: Invalid value: \"a/b\": may not contain '/'"],
            ),
            (
                "/spec/parentRef/namespace",
                json!(".."),
                &["spec.parentRef.namespace: Invalid value: \"..\": may not be '..'"],
            ),
        ],
    );
}

#[test]
fn events() {
    let event = named(json!({"involvedObject": {"kind": "Pod", "namespace": "n", "name": "p"}, "reason": "R"}));
    refuses(
        &EVENT,
        &event,
        &[
            (
                "/involvedObject/namespace",
                json!("m"),
                &["involvedObject.namespace: Invalid value: \"m\": does not match event.namespace"],
            ),
            (
                "/involvedObject/namespace",
                Value::Null,
                &["involvedObject.namespace: Invalid value: \"\": does not match event.namespace"],
            ),
            (
                "/eventTime",
                json!("2026-01-01T00:00:00.000000Z"),
                &["reportingComponent: Required value", "reportingInstance: Required value", "action: Required value"],
            ),
        ],
    );
    let of_node = json!({"metadata": {"name": "a", "namespace": "default"}, "involvedObject": {"kind": "Node"}});
    accepts(&EVENT, &of_node, &[("/reason", json!("x"))]);
}

#[test]
fn endpoints_and_slices() {
    let endpoints = named(json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]}));
    refuses(
        &ENDPOINTS,
        &endpoints,
        &[
            (
                "/subsets/0/addresses",
                Value::Null,
                &["subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"],
            ),
            (
                "/subsets/0/addresses/0/ip",
                json!("127.0.0.1"),
                &["subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": \
            may not be in the loopback range (127.0.0.0/8, ::1/128)"],
            ),
            (
                "/subsets/0/addresses/0/ip",
                json!("169.254.1.1"),
                &["subsets[0].addresses[0].ip: Invalid value: \
            \"169.254.1.1\": may not be in the link-local range (169.254.0.0/16, fe80::/10)"],
            ),
            (
                "/subsets/0/ports/0/port",
                json!(0),
                &["subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"],
            ),
            ("/subsets/0/ports/1", json!({"port": 81, "name": "b"}), &["subsets[0].ports[0].name: Required value"]),
        ],
    );
    let slice = named(json!({"addressType": "IPv4", "ports": [{"name": "a", "port": 80}],
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}]}));
    let crowd: Vec<Value> = (0..=ENDPOINTS_MAX).map(|_| json!({"addresses": ["10.0.0.1"]})).collect();
    refuses(
        &ENDPOINT_SLICE,
        &slice,
        &[
            (
                "/addressType",
                json!("IPX"),
                &["addressType: Unsupported value: \"IPX\": supported values: \"FQDN\", \"IPv4\", \"IPv6\""],
            ),
            (
                "/endpoints/0/addresses",
                json!([]),
                &["endpoints[0].addresses: Required value: must contain at least 1 address"],
            ),
            (
                "/endpoints/0/addresses/0",
                json!("::2"),
                &["endpoints[0].addresses: Invalid value: \"::2\": must be an IPv4 address"],
            ),
            (
                "/endpoints/0/addresses/0",
                json!("1.2.3"),
                &[
                    "endpoints[0].addresses[0]: Invalid value: \"1.2.3\": must be a valid IP address, (e.g. 10.9.8.7 or \
                   2001:db8::ffff)",
                ],
            ),
            (
                "/endpoints/0/hints",
                json!({"forZones": [{"name": "z"}, {"name": "z"}], "forNodes": [{"name": "n"}, {"name": "n"}]}),
                &[
                    "endpoints[0].hints.forZones[1].name: Duplicate value: \"z\"",
                    "endpoints[0].hints.forNodes[1].name: Duplicate value: \"n\"",
                ],
            ),
            (
                "/endpoints/0/hints",
                json!({"forZones": [{"name": "a b"}]}),
                &[&format!("endpoints[0].hints.forZones[0].name: Invalid value: \"a b\": {}", meta::LABEL_VALUE)],
            ),
            (
                "/endpoints/0/deprecatedTopology",
                (0..17).map(|i| (format!("k{i}"), json!("v"))).collect::<Value>(),
                &["endpoints[0].deprecatedTopology: Too many: 17: must have at most 16 items"],
            ),
            ("/endpoints", json!(crowd), &["endpoints: Too many: 1001: must have at most 1000 items"]),
            ("/ports/1", json!({"name": "a"}), &["ports[1].name: Duplicate value: \"a\""]),
            (
                "/ports/0/protocol",
                json!("X"),
                &["ports[0].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\""],
            ),
            ("/ports/0/port", json!(-1), &["ports[0].port: Invalid value: -1: must be between 1 and 65535, inclusive"]),
        ],
    );
    accepts(&ENDPOINT_SLICE, &slice, &[("/endpoints", json!([])), ("/ports", Value::Null)]);
    changes(
        &ENDPOINT_SLICE,
        &with(&slice, "/endpoints", json!([])),
        &[("/addressType", json!("IPv6"), &["addressType: Invalid value: \"IPv6\": field is immutable"])],
    );
    // What was stored before there was a rule may stay.
    changes(&ENDPOINT_SLICE, &with(&slice, "/endpoints/0/addresses", json!([])), &[("/ports", Value::Null, &[])]);
    let named = |address: &str| {
        let mut slice = with(&slice, "/addressType", json!("FQDN"));
        slice["endpoints"] = json!([{"addresses": [address]}]);
        words(create(&ENDPOINT_SLICE, &prepared(&ENDPOINT_SLICE, &slice)))
    };
    let short = "should be a domain with at least two segments separated by dots";
    assert_eq!(named("example"), [format!("endpoints[0].addresses[0]: Invalid value: \"example\": {short}")]);
    assert_eq!(named(""), ["endpoints[0].addresses[0]: Required value"]);
    assert!(
        named("a_b.c")[0]
            .starts_with("endpoints[0].addresses[0]: Invalid value: \"a_b.c\": a lowercase RFC 1123 subdomain")
    );
    let long = "a".repeat(64);
    assert_eq!(
        named(&format!("{long}.b")),
        [format!("endpoints[0].addresses[0]: Invalid value: {long:?}: must be no more than 63 characters")]
    );
    assert_eq!(named("example.com."), [""; 0]);
    let own = json!({"metadata": {"name": "kubernetes", "namespace": "default"}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["127.0.0.1"]}]});
    accepts(&ENDPOINT_SLICE, &own, &[("/ports", Value::Null)]);
}

#[test]
fn roles_and_bindings() {
    let role = named(json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}));
    refuses(
        &ROLE,
        &role,
        &[
            ("/rules/0/verbs", json!([]), &["rules[0].verbs: Required value: verbs must contain at least one value"]),
            (
                "/rules/0/apiGroups",
                Value::Null,
                &["rules[0].apiGroups: Required value: resource rules must supply at least one api group"],
            ),
            (
                "/rules/0/resources",
                Value::Null,
                &["rules[0].resources: Required value: resource rules must supply at least one resource"],
            ),
            (
                "/rules/0",
                json!({"verbs": ["get"], "nonResourceURLs": ["/x"]}),
                &["rules[0].nonResourceURLs: Invalid value: \
            [\"/x\"]: namespaced rules cannot apply to non-resource URLs"],
            ),
        ],
    );
    let cluster_role = json!({"metadata": {"name": "a"}, "rules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}]});
    refuses(
        &CLUSTER_ROLE,
        &cluster_role,
        &[
            (
                "/rules/0/resources",
                json!(["pods"]),
                &["rules[0].nonResourceURLs: Invalid value: [\"/x\"]: rules cannot \
            apply to both regular resources and non-resource URLs"],
            ),
            (
                "/aggregationRule",
                json!({}),
                &["aggregationRule.clusterRoleSelectors: Required value: at least one \
            clusterRoleSelector required if aggregationRule is non-nil"],
            ),
        ],
    );
    let binding = named(json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}]}));
    refuses(
        &ROLE_BINDING,
        &binding,
        &[
            (
                "/roleRef/kind",
                json!("Node"),
                &["roleRef.kind: Unsupported value: \"Node\": supported values: \"ClusterRole\", \"Role\""],
            ),
            ("/roleRef/name", Value::Null, &["roleRef.name: Required value"]),
            (
                "/roleRef/apiGroup",
                json!("x"),
                &["roleRef.apiGroup: Unsupported value: \"x\": supported values: \"rbac.authorization.k8s.io\""],
            ),
            (
                "/subjects/0/kind",
                json!("Robot"),
                &["subjects[0].kind: Unsupported value: \"Robot\": supported values: \
            \"Group\", \"ServiceAccount\", \"User\""],
            ),
            ("/subjects/0/name", Value::Null, &["subjects[0].name: Required value"]),
            ("/subjects/0", json!({"kind": "ServiceAccount", "name": "a"}), &["subjects[0].namespace: Required value"]),
        ],
    );
    changes(
        &ROLE_BINDING,
        &binding,
        &[
            ("/subjects", Value::Null, &[]),
            (
                "/roleRef/name",
                json!("s"),
                &["roleRef: Invalid value: {\"apiGroup\":\"rbac.authorization.k8s.io\",\
            \"kind\":\"Role\",\"name\":\"s\"}: cannot change roleRef"],
            ),
        ],
    );
    let wide = json!({"metadata": {"name": "a"}, "roleRef": {"kind": "ClusterRole", "name": "r"}});
    refuses(
        &CLUSTER_ROLE_BINDING,
        &wide,
        &[(
            "/roleRef/kind",
            json!("Role"),
            &["roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\""],
        )],
    );
}

#[test]
fn bindings() {
    let of = |target: Value| words(pod::binding(&Object::from_value(json!({"target": target})).unwrap()));
    assert_eq!(of(json!({"kind": "Node", "name": "n"})), [""; 0]);
    assert_eq!(of(json!({"name": "n"})), [""; 0]);
    assert_eq!(
        of(json!({"kind": "Pod", "name": "n"})),
        ["target.kind: Unsupported value: \"Pod\": supported values: \"Node\", \"<empty>\""]
    );
    assert_eq!(of(json!({})), ["target.name: Required value"]);
}

#[test]
fn disruption_budgets() {
    let budget = json!({"metadata": {"name": "b", "namespace": "n"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}});
    let percent = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used \
                   for validation is '[0-9]+%')";
    statuses(
        &POD_DISRUPTION_BUDGET,
        "status",
        &budget,
        &[
            ("/status/expectedPods", json!(3), &[]),
            (
                "/status/disruptionsAllowed",
                json!(-1),
                &["status.disruptionsAllowed: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                "/status/conditions",
                json!([{"type": "A", "status": "True", "reason": "R"}]),
                &["status.conditions[0].lastTransitionTime: Required value"],
            ),
        ],
    );
    refuses(
        &POD_DISRUPTION_BUDGET,
        &budget,
        &[
            ("/spec/minAvailable", json!("100%"), &[]),
            ("/spec/selector", Value::Null, &[]),
            (
                "/spec/minAvailable",
                json!(-1),
                &["spec.minAvailable: Invalid value: -1: must be greater than or equal to 0"],
            ),
            ("/spec/minAvailable", json!("some"), &[&format!("spec.minAvailable: Invalid value: \"some\": {percent}")]),
            (
                "/spec/minAvailable",
                json!("101%"),
                &["spec.minAvailable: Invalid value: \"101%\": must not be greater than 100%"],
            ),
            (
                "/spec/maxUnavailable",
                json!(1),
                &[
                    "spec: Invalid value: {\"maxUnavailable\":1,\"minAvailable\":1,\"selector\":{\"matchLabels\":{\"app\":\"a\"}}}: minAvailable and maxUnavailable cannot be both set",
                ],
            ),
            (
                "/spec/unhealthyPodEvictionPolicy",
                json!("Never"),
                &[
                    "spec.unhealthyPodEvictionPolicy: Unsupported value: \"Never\": supported values: \"AlwaysAllow\", \"IfHealthyBudget\"",
                ],
            ),
        ],
    );
    changes(&POD_DISRUPTION_BUDGET, &budget, &[("/spec/minAvailable", json!(3), &[])]);
}

#[test]
fn resource_quotas() {
    let quota =
        json!({"metadata": {"name": "q", "namespace": "n"}, "spec": {"hard": {"pods": "3", "requests.cpu": "1500m"}}});
    refuses(
        &RESOURCE_QUOTA,
        &quota,
        &[
            ("/spec/hard/count~1deployments.apps", json!("2"), &[]),
            ("/spec/hard/requests.example.com~1gpu", json!("2"), &[]),
            (
                "/spec/hard/shiny",
                json!("1"),
                &["spec.hard[shiny]: Invalid value: \"shiny\": must be a standard resource for quotas"],
            ),
            ("/spec/hard/pods", json!("1500m"), &["spec.hard[pods]: Invalid value: \"1500m\": must be an integer"]),
            (
                "/spec/hard/memory",
                json!("-1"),
                &["spec.hard[memory]: Invalid value: \"-1\": must be greater than or equal to 0"],
            ),
            ("/spec/scopes", json!(["NotTerminating"]), &[]),
            ("/spec/scopes", json!(["Often"]), &["spec.scopes: Invalid value: [\"Often\"]: unsupported scope"]),
            (
                "/spec/scopes",
                json!(["BestEffort"]),
                &["spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource"],
            ),
            (
                "/spec/scopes",
                json!(["Terminating", "NotTerminating"]),
                &["spec.scopes: Invalid value: [\"Terminating\",\"NotTerminating\"]: conflicting scopes"],
            ),
            (
                "/spec/scopeSelector",
                json!({"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}]}),
                &[
                    "spec.scopeSelector.matchExpressions[0].values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
                ],
            ),
        ],
    );
    changes(
        &RESOURCE_QUOTA,
        &quota,
        &[
            ("/spec/hard/pods", json!("5"), &[]),
            (
                "/spec/scopes",
                json!(["NotBestEffort"]),
                &["spec.scopes: Invalid value: [\"NotBestEffort\"]: field is immutable"],
            ),
        ],
    );
}

#[test]
fn limit_ranges() {
    let range = json!({"metadata": {"name": "l", "namespace": "n"},
        "spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "100m"}}]}});
    let made = prepared(&LIMIT_RANGE, &range);
    assert_eq!(
        (made.str_at("/spec/limits/0/default/cpu"), made.str_at("/spec/limits/0/defaultRequest/cpu")),
        ("2", "2")
    );
    let at = "spec.limits[0]";
    refuses(
        &LIMIT_RANGE,
        &range,
        &[
            (
                "/spec/limits/0/type",
                json!("Node"),
                &[&format!("{at}.type: Invalid value: \"Node\": must be a standard limit type or fully qualified")],
            ),
            ("/spec/limits/1", json!({"type": "Container"}), &["spec.limits[1].type: Duplicate value: \"Container\""]),
            (
                "/spec/limits/1",
                json!({"type": "Pod", "default": {"cpu": "1"}}),
                &["spec.limits[1].default: Forbidden: may not be specified when `type` is 'Pod'"],
            ),
            (
                "/spec/limits/0/default",
                json!({"cpu": "3"}),
                &[
                    &format!(
                        "{at}.defaultRequest[cpu]: Invalid value: \"3\": default request value 3 is greater than max value 2"
                    ),
                    &format!("{at}.default[cpu]: Invalid value: \"2\": default value 3 is greater than max value 2"),
                ],
            ),
            (
                "/spec/limits/0/maxLimitRequestRatio",
                json!({"cpu": "21"}),
                &[&format!(
                    "{at}.maxLimitRequestRatio[cpu]: Invalid value: \"21\": ratio 21 is greater than max/min = 20.000000"
                )],
            ),
            (
                "/spec/limits/0/max/shiny",
                json!("1"),
                &[
                    &format!(
                        "{at}.max[shiny]: Invalid value: \"shiny\": must be a standard resource type or fully qualified"
                    ),
                    &format!(
                        "{at}.default[shiny]: Invalid value: \"shiny\": must be a standard resource type or fully qualified"
                    ),
                    &format!(
                        "{at}.defaultRequest[shiny]: Invalid value: \"shiny\": must be a standard resource type or fully qualified"
                    ),
                ],
            ),
        ],
    );
}
