use super::others::named;
use super::*;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
    must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

#[test]
fn ingresses() {
    let service = json!({"service": {"name": "web", "port": {"number": 80}}});
    let base = named(json!({"spec": {"rules": [
        {"host": "a.example", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": service}]}}]}}));
    let (rule, path) = ("/spec/rules/0", "/spec/rules/0/http/paths/0");
    let (at, to) = ("spec.rules[0].http.paths[0]", "spec.rules[0].http.paths[0].backend");
    refuses(
        &INGRESS,
        &base,
        &[
            ("/spec", json!({}), &["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"]),
            (
                &format!("{rule}/host"),
                json!("10.0.0.1"),
                &["spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address"],
            ),
            (&format!("{rule}/host"), json!("A"), &[&format!("spec.rules[0].host: Invalid value: \"A\": {SUBDOMAIN}")]),
            (&format!("{rule}/http/paths"), json!([]), &["spec.rules[0].http.paths: Required value"]),
            (
                &format!("{path}/path"),
                json!("x"),
                &[&format!("{at}.path: Invalid value: \"x\": must be an absolute path")],
            ),
            (
                &format!("{path}/path"),
                json!("/a//b/.."),
                &[
                    &format!("{at}.path: Invalid value: \"/a//b/..\": must not contain '//'"),
                    &format!("{at}.path: Invalid value: \"/a//b/..\": must not end with '/..'"),
                ],
            ),
            (
                &format!("{path}/pathType"),
                Value::Null,
                &[&format!("{at}.pathType: Required value: pathType must be specified")],
            ),
            (
                &format!("{path}/pathType"),
                json!("Glob"),
                &[&format!(
                    "{at}.pathType: Unsupported value: \"Glob\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\""
                )],
            ),
            (
                &format!("{path}/backend"),
                json!({}),
                &[&format!("{to}: Invalid value: \"\": resource or service backend is required")],
            ),
            (
                &format!("{path}/backend/resource"),
                json!({"kind": "A", "name": "b"}),
                &[&format!("{to}: Invalid value: \"\": cannot set both resource and service backends")],
            ),
            (
                &format!("{path}/backend"),
                json!({"resource": {"kind": "", "name": "a/b", "apiGroup": "X"}}),
                &[
                    &format!("{to}.resource.apiGroup: Invalid value: \"X\": {SUBDOMAIN}"),
                    &format!("{to}.resource.kind: Required value: kind is required"),
                    &format!("{to}.resource.name: Invalid value: \"a/b\": may not contain '/'"),
                ],
            ),
            (&format!("{path}/backend/service/name"), json!(""), &[&format!("{to}.service.name: Required value")]),
            (
                &format!("{path}/backend/service/port"),
                json!({}),
                &[&format!("{to}: Required value: port name or number is required")],
            ),
            (
                &format!("{path}/backend/service/port/name"),
                json!("http"),
                &[&format!("{to}: Invalid value: \"\": cannot set both port name & port number")],
            ),
            (
                &format!("{path}/backend/service/port/number"),
                json!(70_000),
                &[&format!("{to}.service.port.number: Invalid value: 70000: must be between 1 and 65535, inclusive")],
            ),
            (
                "/spec/tls",
                json!([{"hosts": ["B"], "secretName": "C"}]),
                &[
                    &format!("spec.tls[0].hosts[0]: Invalid value: \"B\": {SUBDOMAIN}"),
                    &format!("spec.tls[0].secretName: Invalid value: \"C\": {SUBDOMAIN}"),
                ],
            ),
            (
                "/spec/ingressClassName",
                json!("D"),
                &[&format!("spec.ingressClassName: Invalid value: \"D\": {SUBDOMAIN}")],
            ),
        ],
    );
    let annotated = with(&base, "/metadata/annotations", json!({"kubernetes.io/ingress.class": "x"}));
    refuses(
        &INGRESS,
        &annotated,
        &[(
            "/spec/ingressClassName",
            json!("x"),
            &[
                "metadata.annotations[kubernetes.io/ingress.class]: Invalid value: \"x\": can not be set when the class field is also set",
            ],
        )],
    );
    let wild = words(create(&INGRESS, &prepared(&INGRESS, &with(&base, &format!("{rule}/host"), json!("a.*.b")))));
    assert!(
        wild[0].starts_with("spec.rules[0].host: Invalid value: \"a.*.b\": a wildcard DNS-1123 subdomain"),
        "{wild:?}"
    );
    accepts(
        &INGRESS,
        &base,
        &[
            (&format!("{rule}/host"), json!("*.example.com")),
            ("/spec", json!({"defaultBackend": service})),
            (&format!("{path}/pathType"), json!("ImplementationSpecific")),
            (&format!("{path}/backend/service/port"), json!({"name": "http"})),
            ("/spec/tls", json!([{"hosts": ["*.a.example"], "secretName": "c"}, {}])),
        ],
    );
}

#[test]
fn ingress_classes() {
    let base = json!({"metadata": {"name": "a"}, "spec": {"controller": "example.com/x"}});
    let parameters = |more: Value| {
        let mut all = json!({"kind": "K", "name": "n"});
        json_patch::merge(&mut all, &more);
        all
    };
    let (at, path) = ("/spec/parameters", "spec.parameters");
    refuses(
        &INGRESS_CLASS,
        &base,
        &[
            ("/spec/controller", json!(""), &["spec.controller: Required value"]),
            (
                "/spec/controller",
                json!("x"),
                &["spec.controller: Invalid value: \"x\": must be a domain-prefixed path (such as \"acme.io/foo\")"],
            ),
            ("/spec/controller", json!("A/b"), &[&format!("spec.controller: Invalid value: \"A\": {SUBDOMAIN}")]),
            (
                "/spec/controller",
                json!("a.b/ c"),
                &[
                    "spec.controller: Invalid value: \" c\": Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')",
                ],
            ),
            (
                "/spec/controller",
                json!(format!("a/{}", "b".repeat(249))),
                &["spec.controller: Too long: may not be more than 250 bytes"],
            ),
            (at, parameters(json!({"kind": ""})), &[&format!("{path}.kind: Required value: kind is required")]),
            (
                at,
                parameters(json!({"namespace": "n"})),
                &[&format!("{path}.namespace: Forbidden: `parameters.scope` is set to 'Cluster'")],
            ),
            (
                at,
                parameters(json!({"scope": "Namespace"})),
                &[&format!("{path}.namespace: Required value: `parameters.scope` is set to 'Namespace'")],
            ),
            (
                at,
                parameters(json!({"scope": "World"})),
                &[&format!("{path}.scope: Unsupported value: \"World\": supported values: \"Cluster\", \"Namespace\"")],
            ),
        ],
    );
    accepts(
        &INGRESS_CLASS,
        &base,
        &[
            (at, parameters(json!({"apiGroup": "example.com"}))),
            (at, parameters(json!({"scope": "Namespace", "namespace": "n"}))),
        ],
    );
    let immutable = ["spec.controller: Invalid value: \"example.com/y\": field is immutable"];
    changes(&INGRESS_CLASS, &base, &[("/spec/controller", json!("example.com/y"), &immutable)]);
}

#[test]
fn network_policies() {
    let base = named(json!({"spec": {"podSelector": {}, "ingress": [
        {"ports": [{"port": 80}], "from": [{"podSelector": {}}]}], "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]}}));
    let types = prepared(&NETWORK_POLICY, &base).get("/spec/policyTypes").cloned();
    assert_eq!(types, Some(json!(["Ingress", "Egress"])));
    let (port, peer) = ("/spec/ingress/0/ports/0", "/spec/egress/0/to/0");
    let (at, to) = ("spec.ingress[0].ports[0]", "spec.egress[0].to[0]");
    refuses(
        &NETWORK_POLICY,
        &base,
        &[
            (
                &format!("{port}/protocol"),
                json!("ICMP"),
                &[&format!("{at}.protocol: Unsupported value: \"ICMP\": supported values: \"TCP\", \"UDP\", \"SCTP\"")],
            ),
            (
                &format!("{port}/port"),
                json!(0),
                &[&format!("{at}.port: Invalid value: 0: must be between 1 and 65535, inclusive")],
            ),
            (
                &format!("{port}/endPort"),
                json!(79),
                &[&format!("{at}.endPort: Invalid value: 79: must be greater than or equal to `port`")],
            ),
            (
                &format!("{port}/endPort"),
                json!(70_000),
                &[&format!("{at}.endPort: Invalid value: 70000: must be between 1 and 65535, inclusive")],
            ),
            (
                port,
                json!({"port": "web", "endPort": 90}),
                &[&format!("{at}.endPort: Invalid value: 90: may not be specified when `port` is non-numeric")],
            ),
            (
                port,
                json!({"endPort": 90}),
                &[&format!("{at}.endPort: Invalid value: 90: may not be specified when `port` is not specified")],
            ),
            (peer, json!({}), &[&format!("{to}: Required value: must specify a peer")]),
            (
                &format!("{peer}/podSelector"),
                json!({}),
                &[&format!("{to}: Forbidden: may not specify both ipBlock and another peer")],
            ),
            (&format!("{peer}/ipBlock/cidr"), json!(""), &[&format!("{to}.ipBlock.cidr: Required value")]),
            (
                &format!("{peer}/ipBlock/cidr"),
                json!("x"),
                &[&format!("{to}.ipBlock.cidr: Invalid value: \"x\": {CIDR}")],
            ),
            (
                &format!("{peer}/ipBlock/except"),
                json!(["10.0.0.0/8", "11.0.0.0/9", "y"]),
                &[
                    &format!(
                        "{to}.ipBlock.except[0]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`"
                    ),
                    &format!(
                        "{to}.ipBlock.except[1]: Invalid value: \"11.0.0.0/9\": must be a strict subset of `cidr`"
                    ),
                    &format!("{to}.ipBlock.except[2]: Invalid value: \"y\": {CIDR}"),
                ],
            ),
            (
                "/spec/policyTypes",
                json!(["Ingress", "Sideways"]),
                &["spec.policyTypes[1]: Unsupported value: \"Sideways\": supported values: \"Egress\", \"Ingress\""],
            ),
            (
                "/spec/policyTypes",
                json!(["Ingress", "Egress", "Egress"]),
                &[
                    "spec.policyTypes: Invalid value: [\"Ingress\",\"Egress\",\"Egress\"]: may not specify more than two policyTypes",
                ],
            ),
            (
                "/spec/podSelector",
                json!({"matchExpressions": [{"key": "a", "operator": "Is"}]}),
                &[
                    "spec.podSelector.matchExpressions[0].operator: Invalid value: \"Is\": not a valid selector operator",
                ],
            ),
        ],
    );
    accepts(
        &NETWORK_POLICY,
        &base,
        &[
            ("/spec", json!({})),
            (&format!("{port}/endPort"), json!(90)),
            (port, json!({"port": "web"})),
            (peer, json!({"podSelector": {}, "namespaceSelector": {"matchLabels": {"a": "b"}}})),
            (&format!("{peer}/ipBlock/except"), json!(["10.1.0.0/16"])),
        ],
    );
}

#[test]
fn pod_templates() {
    let base = named(
        json!({"template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}),
    );
    refuses(
        &POD_TEMPLATE,
        &base,
        &[
            ("/template/spec/containers", json!([]), &["template.spec.containers: Required value"]),
            (
                "/template/metadata/labels",
                json!({"a": "b c"}),
                &[&format!("template.metadata.labels: Invalid value: \"b c\": {}", meta::LABEL_VALUE)],
            ),
        ],
    );
    let defaulted = prepared(&POD_TEMPLATE, &base);
    assert_eq!(defaulted.str_at("/template/spec/restartPolicy"), "Always");
}
