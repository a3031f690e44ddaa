use serde_json::{Value, json};

use crate::resource::POD;
use crate::validation::tests::{accepts, refuses, with};

mod each;
mod rarer;
mod spec;

fn pod() -> Value {
    json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {
        "containers": [{"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 80}],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "initContainers": [{"name": "init", "image": "i"}],
        "volumes": [{"name": "v", "emptyDir": {}}]}})
}

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
    start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

#[test]
fn containers() {
    refuses(
        &POD,
        &pod(),
        &[
            ("/spec/containers", Value::Null, &["spec.containers: Required value"]),
            ("/spec/containers/0/name", Value::Null, &["spec.containers[0].name: Required value"]),
            (
                "/spec/containers/0/name",
                json!("C"),
                &[&format!("spec.containers[0].name: Invalid value: \"C\": {LABEL}")],
            ),
            ("/spec/initContainers/0/name", json!("c"), &["spec.initContainers[0].name: Duplicate value: \"c\""]),
            ("/spec/containers/0/image", Value::Null, &["spec.containers[0].image: Required value"]),
            (
                "/spec/containers/0/image",
                json!(" i"),
                &["spec.containers[0].image: Invalid value: \" i\": must not have leading or trailing whitespace"],
            ),
            (
                "/spec/containers/0/imagePullPolicy",
                json!("Maybe"),
                &["spec.containers[0].imagePullPolicy: Unsupported \
            value: \"Maybe\": supported values: \"Always\", \"IfNotPresent\", \"Never\""],
            ),
            (
                "/spec/containers/0/terminationMessagePolicy",
                json!("X"),
                &["spec.containers[0].terminationMessagePolicy: \
            Unsupported value: \"X\": supported values: \"File\", \"FallbackToLogsOnError\""],
            ),
            (
                "/spec/initContainers/0/livenessProbe",
                json!({"exec": {"command": ["a"]}}),
                &["spec.initContainers[0].\
            livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always"],
            ),
            (
                "/spec/ephemeralContainers",
                json!([{"name": "e", "image": "i"}]),
                &["spec.ephemeralContainers: Forbidden: cannot be set on create"],
            ),
        ],
    );
    let sidecar =
        json!({"name": "s", "image": "i", "restartPolicy": "Always", "startupProbe": {"exec": {"command": ["a"]}}});
    accepts(&POD, &pod(), &[("/spec/initContainers/1", sidecar)]);
}

#[test]
fn ports() {
    let at = |field: &str| format!("/spec/containers/0/ports/0/{field}");
    refuses(
        &POD,
        &pod(),
        &[
            (&at("containerPort"), json!(0), &["spec.containers[0].ports[0].containerPort: Required value"]),
            (
                &at("containerPort"),
                json!(65536),
                &["spec.containers[0].ports[0].containerPort: Invalid value: 65536: must \
            be between 1 and 65535, inclusive"],
            ),
            (
                &at("hostPort"),
                json!(-1),
                &["spec.containers[0].ports[0].hostPort: Invalid value: -1: must be between 1 and 65535, inclusive"],
            ),
            (
                &at("name"),
                json!("a--b"),
                &["spec.containers[0].ports[0].name: Invalid value: \"a--b\": must not contain consecutive hyphens"],
            ),
            (
                &at("name"),
                json!("abcdefghijklmnop"),
                &[
                    "spec.containers[0].ports[0].name: Invalid value: \"abcdefghijklmnop\": must be no more than 15 characters",
                ],
            ),
            (
                &at("name"),
                json!("80"),
                &["spec.containers[0].ports[0].name: Invalid value: \"80\": must contain at least one letter (a-z)"],
            ),
            (
                &at("protocol"),
                json!("X"),
                &["spec.containers[0].ports[0].protocol: Unsupported value: \"X\": supported \
            values: \"SCTP\", \"TCP\", \"UDP\""],
            ),
            (
                "/spec/containers/0/ports/1",
                json!({"name": "http", "containerPort": 81}),
                &["spec.containers[0].ports[1].name: Duplicate value: \"http\""],
            ),
            (
                "/spec/containers/0/ports",
                json!([{"containerPort": 1, "hostPort": 5}, {"containerPort": 2, "hostPort": 5}]),
                &["spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//5\""],
            ),
        ],
    );
    let host = with(&pod(), "/spec/hostNetwork", json!(true));
    refuses(
        &POD,
        &host,
        &[(
            &at("hostPort"),
            json!(81),
            &["spec.containers[0].ports[0].hostPort: Invalid value: 81: \
        must match `containerPort` when `hostNetwork` is true"],
        )],
    );
}

#[test]
fn environment() {
    let at = "/spec/containers/0/env/0";
    let path = "spec.containers[0].env[0]";
    let from = |source: Value| json!({"name": "A", "valueFrom": source});
    refuses(
        &POD,
        &pod(),
        &[
            (at, json!({"value": "x"}), &[&format!("{path}.name: Required value")]),
            (
                at,
                json!({"name": "a=b"}),
                &[&format!(
                    "{path}.name: Invalid value: \"a=b\": a valid environment variable name \
            must consist only of printable ASCII characters other than '='"
                )],
            ),
            (
                at,
                from(json!({})),
                &[&format!(
                    "{path}.valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, \
            `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
                )],
            ),
            (
                at,
                json!({"name": "A", "value": "x", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}),
                &[&format!("{path}.valueFrom: Invalid value: \"\": may not be specified when `value` is not empty")],
            ),
            (
                at,
                from(json!({"secretKeyRef": {"name": "s", "key": "k"}, "configMapKeyRef": {"name": "s", "key": "k"}})),
                &[&format!(
                    "{path}.valueFrom: Invalid value: \"\": may not have more than one field specified at a time"
                )],
            ),
            (
                at,
                from(json!({"secretKeyRef": {"name": "s"}})),
                &[&format!("{path}.valueFrom.secretKeyRef.key: Required value")],
            ),
            (
                at,
                from(json!({"fieldRef": {"fieldPath": "spec.nope"}})),
                &[&format!(
                    "{path}.valueFrom.fieldRef.fieldPath: \
            Invalid value: \"spec.nope\": error converting fieldPath: field label not supported: spec.nope"
                )],
            ),
            (
                at,
                from(json!({"resourceFieldRef": {"resource": "limits.gpu"}})),
                &[&format!(
                    "{path}.valueFrom.\
            resourceFieldRef.resource: Unsupported value: \"limits.gpu\": supported values: \"limits.cpu\", \
            \"limits.ephemeral-storage\", \"limits.memory\", \"requests.cpu\", \"requests.ephemeral-storage\", \
            \"requests.memory\""
                )],
            ),
            (
                at,
                from(json!({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2"}})),
                &[&format!(
                    "{path}.\
            valueFrom.resourceFieldRef.divisor: Invalid value: \"2\": only divisor's values 1m and 1 are supported \
            with the cpu resource"
                )],
            ),
            (
                "/spec/containers/0/envFrom",
                json!([{"prefix": "A"}]),
                &["spec.containers[0].envFrom[0]: Invalid value: \
            {\"prefix\":\"A\"}: must specify one of: `configMapRef` or `secretRef`"],
            ),
        ],
    );
    accepts(
        &POD,
        &pod(),
        &[
            (at, json!({"name": "my.name-1"})),
            (at, from(json!({"fieldRef": {"fieldPath": "metadata.labels['a/b']"}}))),
            (at, from(json!({"fieldRef": {"fieldPath": "status.podIPs"}}))),
            (at, from(json!({"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}))),
            ("/spec/containers/0/envFrom", json!([{"secretRef": {"name": "s"}}])),
        ],
    );
}

#[test]
fn resources() {
    let at = "/spec/containers/0/resources";
    let path = "spec.containers[0].resources";
    refuses(
        &POD,
        &pod(),
        &[
            (
                at,
                json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
                &[&format!("{path}.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1")],
            ),
            (
                at,
                json!({"requests": {"memory": "-1"}}),
                &[&format!("{path}.requests[memory]: Invalid value: \"-1\": must be greater than or equal to 0")],
            ),
            (
                at,
                json!({"limits": {"gpu": "1"}}),
                &[
                    &format!(
                        "{path}.limits[gpu]: Invalid value: \"gpu\": must be a standard \
            resource for containers"
                    ),
                    &format!(
                        "{path}.requests[gpu]: Invalid value: \"gpu\": must be a standard \
            resource for containers"
                    ),
                ],
            ),
            (
                at,
                json!({"requests": {"example.com/gpu": "1"}}),
                &[&format!("{path}.limits: Required value: Limit must be set for non overcommitable resources")],
            ),
            (
                at,
                json!({"requests": {"example.com/gpu": "1"}, "limits": {"example.com/gpu": "2"}}),
                &[&format!("{path}.requests: Invalid value: \"1\": must be equal to example.com/gpu limit of 2")],
            ),
            (
                at,
                json!({"limits": {"example.com/gpu": "500m"}}),
                &[
                    &format!("{path}.limits[example.com/gpu]: Invalid value: \"500m\": must be an integer"),
                    &format!("{path}.requests[example.com/gpu]: Invalid value: \"500m\": must be an integer"),
                ],
            ),
            (at, json!({"claims": [{"name": "x"}]}), &[&format!("{path}.claims[0].name: Not found: \"x\"")]),
        ],
    );
    accepts(
        &POD,
        &pod(),
        &[
            (at, json!({"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}})),
            (at, json!({"limits": {"hugepages-2Mi": "4Mi", "memory": "1Gi"}})),
        ],
    );
}
