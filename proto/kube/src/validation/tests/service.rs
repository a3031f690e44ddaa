use super::*;

fn service() -> Value {
    json!({"metadata": {"name": "s", "namespace": "n"}, "spec": {
        "selector": {"app": "a"}, "ports": [{"name": "http", "port": 80}], "clusterIP": "10.96.0.7",
        "clusterIPs": ["10.96.0.7"]}})
}

const IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

#[test]
fn services() {
    refuses(
        &SERVICE,
        &service(),
        &[
            ("/spec/ports", Value::Null, &["spec.ports: Required value"]),
            (
                "/spec/ports/0/port",
                json!(70000),
                &[
                    "spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
                    "spec.ports[0].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
                ],
            ),
            (
                "/spec/ports/0/protocol",
                json!("ICMP"),
                &["spec.ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\""],
            ),
            (
                "/spec/ports/0/targetPort",
                json!("no_name"),
                &[
                    "spec.ports[0].targetPort: Invalid value: \"no_name\": must contain only alpha-numeric characters (a-z, \
               0-9), and hyphens (-)",
                ],
            ),
            ("/spec/ports/1", json!({"port": 81}), &["spec.ports[1].name: Required value"]),
            ("/spec/ports/1", json!({"port": 81, "name": "http"}), &["spec.ports[1].name: Duplicate value: \"http\""]),
            (
                "/spec/ports/1",
                json!({"port": 80, "name": "b"}),
                &[
                    "spec.ports[1]: Duplicate value: {\"name\":\"b\",\"port\":80,\"protocol\":\"TCP\",\"targetPort\":80}",
                ],
            ),
            (
                "/spec/ports/0/nodePort",
                json!(30000),
                &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
            ),
            (
                "/spec/ports/0/appProtocol",
                json!("a b"),
                &[&format!("spec.ports[0].appProtocol: Invalid value: \"a b\": {}", meta::QUALIFIED)],
            ),
            (
                "/spec/type",
                json!("Cloud"),
                &["spec.type: Unsupported value: \"Cloud\": supported values: \"ClusterIP\", \
            \"ExternalName\", \"LoadBalancer\", \"NodePort\""],
            ),
            (
                "/spec/sessionAffinity",
                json!("Cookie"),
                &["spec.sessionAffinity: Unsupported value: \"Cookie\": supported values: \"ClientIP\", \"None\""],
            ),
            (
                "/spec",
                json!({"ports": [{"port": 1}], "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}}}),
                &[
                    "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 and \
               less than 86400",
                ],
            ),
            (
                "/spec",
                json!({"ports": [{"port": 1}], "clusterIP": "banana"}),
                &[&format!("spec.clusterIPs[0]: Invalid value: \"banana\": {IP}")],
            ),
            (
                "/spec/clusterIPs",
                json!(["10.96.0.8"]),
                &["spec.clusterIPs: Invalid value: [\"10.96.0.8\"]: first value must match `clusterIP`"],
            ),
            (
                "/spec",
                json!({"ports": [{"port": 1}], "clusterIP": "None", "type": "NodePort"}),
                &["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
            ),
            ("/spec", json!({"type": "ExternalName"}), &["spec.externalName: Required value"]),
            (
                "/spec",
                json!({"type": "ExternalName", "externalName": "a", "clusterIP": "10.0.0.1"}),
                &["spec.clusterIP: Forbidden: may not be set for ExternalName services"],
            ),
            (
                "/spec/externalIPs",
                json!(["127.0.0.1"]),
                &["spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in \
            the loopback range (127.0.0.0/8, ::1/128)"],
            ),
            (
                "/spec/externalTrafficPolicy",
                json!("Local"),
                &["spec.externalTrafficPolicy: Invalid value: \"Local\": may \
            only be set for externally-accessible services"],
            ),
            (
                "/spec/internalTrafficPolicy",
                json!("Near"),
                &["spec.internalTrafficPolicy: Unsupported value: \"Near\": \
            supported values: \"Cluster\", \"Local\""],
            ),
            (
                "/spec/ipFamilyPolicy",
                json!("Both"),
                &["spec.ipFamilyPolicy: Unsupported value: \"Both\": supported values: \
            \"SingleStack\", \"PreferDualStack\", \"RequireDualStack\""],
            ),
            (
                "/spec/ipFamilies",
                json!(["IPv5"]),
                &["spec.ipFamilies[0]: Unsupported value: \"IPv5\": supported values: \"IPv4\", \"IPv6\""],
            ),
            ("/spec/ipFamilies", json!(["IPv4", "IPv4"]), &["spec.ipFamilies[1]: Duplicate value: \"IPv4\""]),
            (
                "/spec/loadBalancerSourceRanges",
                json!(["10.0.0.0/8"]),
                &["spec.loadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'"],
            ),
            (
                "/spec/selector/app",
                json!("no spaces"),
                &[&format!("spec.selector: Invalid value: \"no spaces\": {}", meta::LABEL_VALUE)],
            ),
        ],
    );
    accepts(
        &SERVICE,
        &service(),
        &[
            ("/spec", json!({"clusterIP": "None"})),
            ("/spec", json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 1}]})),
            ("/spec", json!({"type": "ExternalName", "externalName": "example.com."})),
            ("/spec", json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30001}]})),
            (
                "/spec",
                json!({"type": "LoadBalancer", "ports": [{"port": 1, "targetPort": "http"}],
            "loadBalancerSourceRanges": ["10.0.0.0/8"]}),
            ),
            ("/spec/ports/1", json!({"name": "b", "port": 80, "protocol": "UDP"})),
            ("/spec/sessionAffinity", json!("ClientIP")),
            ("/spec/selector", Value::Null),
        ],
    );
}

#[test]
fn changes_of_services() {
    changes(
        &SERVICE,
        &service(),
        &[
            ("/spec/ports/0/port", json!(81), &[]),
            ("/spec/type", json!("NodePort"), &[]),
            ("/spec", json!({"type": "ExternalName", "externalName": "a"}), &[]),
            (
                "/spec",
                json!({"ports": [{"port": 80}], "clusterIP": "10.96.0.8", "clusterIPs": ["10.96.0.8"]}),
                &["spec.clusterIPs[0]: Invalid value: [\"10.96.0.8\"]: may not change once set"],
            ),
        ],
    );
}
