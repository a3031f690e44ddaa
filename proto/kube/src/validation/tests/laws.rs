use super::*;
use proptest::prelude::*;

fn stored() -> impl Iterator<Item = &'static Resource> {
    ALL.iter().copied().filter(|resource| !resource.virtual_only)
}

/// A value as a hostile client sends it, its keys among those that the rules ask for.
fn anything() -> impl Strategy<Value = Value> {
    let key = prop::sample::select(vec![
        "metadata",
        "spec",
        "name",
        "namespace",
        "containers",
        "initContainers",
        "template",
        "volumes",
        "volumeMounts",
        "ports",
        "port",
        "env",
        "valueFrom",
        "resources",
        "limits",
        "requests",
        "cpu",
        "x.y/z",
        "livenessProbe",
        "lifecycle",
        "preStop",
        "httpGet",
        "selector",
        "matchLabels",
        "matchExpressions",
        "operator",
        "values",
        "key",
        "tolerations",
        "affinity",
        "nodeAffinity",
        "podAffinity",
        "topologySpreadConstraints",
        "securityContext",
        "requiredDuringSchedulingIgnoredDuringExecution",
        "nodeSelectorTerms",
        "strategy",
        "rollingUpdate",
        "type",
        "maxSurge",
        "maxUnavailable",
        "clusterIP",
        "clusterIPs",
        "sessionAffinity",
        "data",
        "binaryData",
        "subsets",
        "addresses",
        "endpoints",
        "addressType",
        "rules",
        "verbs",
        "roleRef",
        "subjects",
        "kind",
        "parentRef",
        "value",
        "taints",
        "effect",
        "projected",
        "sources",
        "items",
        "hostPort",
        "hostNetwork",
        "labels",
        "dnsConfig",
        "nameservers",
        "searches",
        "ipFamilies",
        "externalIPs",
        ".dockerconfigjson",
        "schedulingGates",
        "image",
        "devices",
        "exactly",
        "firstAvailable",
        "constraints",
        "matchAttribute",
        "config",
        "opaque",
        "parameters",
        "allocation",
        "results",
        "conditions",
        "networkData",
        "ips",
        "attributes",
        "capacity",
        "requestPolicy",
        "validRange",
        "validValues",
        "default",
        "min",
        "max",
        "step",
        "drivers",
        "topologyKeys",
        "cidrs",
        "source",
        "inlineVolumeSpec",
        "csi",
        "usages",
        "signerName",
        "tokenRequests",
        "limited",
        "limitResponse",
        "queuing",
        "queues",
        "handSize",
        "nonResourceURLs",
        "resourceRules",
        "series",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-3_i64..3).prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        "\\PC{0,6}".prop_map(Value::from),
        "[-a-z0-9./%:'\\[\\]]{0,8}".prop_map(Value::from),
        prop::sample::select(vec![
            "In",
            "Exists",
            "Always",
            "RollingUpdate",
            "kubernetes.io/tls",
            "10.0.0.1",
            "1Gi",
            "metadata.labels['']",
            "limits.cpu",
            "ClusterIP",
            "None",
            "100%",
            "Localhost",
            "Gt"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.clone().prop_map(str::to_owned), inner, 0..6).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// No JSON at all makes a rule panic, be it of the kind's schema or not, and the errors stay bounded.
    #[test]
    fn nothing_panics(new in anything(), old in anything(), wrap in 0_usize..4) {
        let wrapped = |value: Value| match wrap {
            0 => value,
            1 => json!({"spec": value}),
            2 => json!({"spec": {"containers": [value.clone()], "volumes": [value.clone()], "ports": [value]}}),
            _ => json!({"spec": {"template": {"spec": {"containers": [value.clone()], "affinity": value}}}}),
        };
        let (Ok(new), Ok(old)) = (Object::from_value(wrapped(new)), Object::from_value(wrapped(old))) else {
            return Ok(());
        };
        for resource in stored() {
            let mut defaulted = new.clone();
            defaults::apply(resource, &mut defaulted);
            for new in [&new, &defaulted] {
                prop_assert!(create(resource, new).len() <= at::ERRORS_MAX);
                prop_assert!(update(resource, new, &old).len() <= at::ERRORS_MAX);
                prop_assert!(status(resource, "status", new, &old).len() <= at::ERRORS_MAX);
            }
        }
        pod::binding(&new);
    }

    /// A small object with its defaults is valid, and stays so when the defaults are applied again and it is stored.
    #[test]
    fn defaults_are_valid(
        name in "[a-z][a-z0-9]{0,8}",
        port in 1_i64..=65535,
        replicas in 0_i64..9,
        limit in 1_i64..4000,
        kind in prop::sample::select(vec!["ClusterIP", "NodePort", "LoadBalancer"]),
        probe in prop::sample::select(vec!["livenessProbe", "readinessProbe", "startupProbe"]),
        host in any::<bool>(),
    ) {
        let spec = json!({"hostNetwork": host, "volumes": [{"name": name}], "containers": [{"name": name, "image": name,
            "ports": [{"containerPort": port}], probe: {"httpGet": {"port": port}},
            "volumeMounts": [{"name": name, "mountPath": "/a"}],
            "resources": {"limits": {"cpu": format!("{limit}m"), "example.com/a": limit}}}]});
        let labels = json!({"app": name});
        let workload = json!({"metadata": {"name": name}, "spec": {"replicas": replicas,
            "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}}});
        let objects = [
            (&POD, json!({"metadata": {"name": name}, "spec": spec})),
            (&DEPLOYMENT, workload.clone()),
            (&REPLICA_SET, workload),
            (&SERVICE, json!({"metadata": {"name": name}, "spec": {"type": kind, "ports": [{"port": port}]}})),
            (&SECRET, json!({"metadata": {"name": name}, "stringData": {(name.clone()): "x"}})),
            (&NAMESPACE, json!({"metadata": {"name": name}})),
            (&PRIORITY_CLASS, json!({"metadata": {"name": name}, "value": limit})),
            (&ENDPOINT_SLICE, json!({"metadata": {"name": name}, "addressType": "IPv4", "ports": [{"port": port}]})),
            (&CSI_DRIVER, json!({"metadata": {"name": name}, "spec": {}})),
            (&FLOW_SCHEMA, json!({"metadata": {"name": name}, "spec": {"priorityLevelConfiguration": {"name": name}}})),
            (&PRIORITY_LEVEL_CONFIGURATION, json!({"metadata": {"name": name}, "spec": {"type": "Limited", "limited":
                {"nominalConcurrencyShares": limit, "limitResponse": {"type": "Queue", "queuing": {"queueLengthLimit": limit}}}}})),
            (&RESOURCE_CLAIM, json!({"metadata": {"name": name}, "spec": {"devices": {"requests": [
                {"name": name, "exactly": {"deviceClassName": name}}]}}})),
            (&CLUSTER_ROLE_BINDING, json!({"metadata": {"name": name}, "roleRef": {"kind": "ClusterRole", "name": name},
                "subjects": [{"kind": "Group", "name": name}]})),
        ];
        for (resource, value) in objects {
            // An extended resource is asked for as it is limited; a template leaves that to its pods.
            let object = prepared(resource, &value);
            prop_assert_eq!(words(create(resource, &object)), [""; 0], "{}", resource.kind);
            let mut again = object.clone();
            defaults::apply(resource, &mut again);
            prop_assert_eq!(words(update(resource, &again, &object)), [""; 0], "{}", resource.kind);
        }
    }
}

#[test]
fn errors_are_bounded() {
    let containers: Vec<Value> = (0..5000).map(|_| json!({})).collect();
    let pod = Object::from_value(json!({"spec": {"containers": containers}})).unwrap();
    assert_eq!(create(&POD, &pod).len(), at::ERRORS_MAX);
}
