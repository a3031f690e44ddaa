use super::others::named;
use super::*;

fn base() -> Value {
    named(
        json!({"spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"},
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}}}}),
    )
}

fn metric(kind: &str, source: Value) -> Value {
    let mut field = kind.to_owned();
    field[..1].make_ascii_lowercase();
    json!({"type": kind, field: source})
}

fn target(fields: Value) -> Value {
    let mut target = json!({"type": "Value"});
    json_patch::merge(&mut target, &fields);
    target
}

#[test]
fn autoscalers() {
    let (scale, first) = ("/spec/scaleTargetRef", "/spec/metrics/0");
    refuses(
        &HORIZONTAL_POD_AUTOSCALER,
        &base(),
        &[
            (
                "/spec/minReplicas",
                json!(0),
                &["spec.minReplicas: Invalid value: 0: must be greater than or equal to 1"],
            ),
            (
                "/spec/minReplicas",
                json!(4),
                &["spec.maxReplicas: Invalid value: 3: must be greater than or equal to `minReplicas`"],
            ),
            (
                "/spec/maxReplicas",
                json!(0),
                &[
                    "spec.maxReplicas: Invalid value: 0: must be greater than 0",
                    "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
                ],
            ),
            (&format!("{scale}/kind"), json!(""), &["spec.scaleTargetRef.kind: Required value"]),
            (
                &format!("{scale}/name"),
                json!("a/b"),
                &["spec.scaleTargetRef.name: Invalid value: \"a/b\": may not contain '/'"],
            ),
            (
                &format!("{first}/type"),
                json!(""),
                &[
                    "spec.metrics[0].type: Required value: must specify a metric source type",
                    "spec.metrics[0].type: Unsupported value: \"\": supported values: \"ContainerResource\", \
                     \"External\", \"Object\", \"Pods\", \"Resource\"",
                ],
            ),
            (
                &format!("{first}/type"),
                json!("Pods"),
                &["spec.metrics[0].pods: Required value: must populate information for the given metric source"],
            ),
            (
                &format!("{first}/pods"),
                json!({"metric": {"name": "a"}, "target": {"type": "AverageValue", "averageValue": "1"}}),
                &["spec.metrics[0].pods: Forbidden: must populate the given metric source only"],
            ),
        ],
    );
}

#[test]
fn metrics_of_autoscalers() {
    let (first, at) = ("/spec/metrics/0", "/spec/metrics/0/resource");
    let whom = json!({"kind": "Service", "name": "s"});
    let path = "spec.metrics[0]";
    refuses(
        &HORIZONTAL_POD_AUTOSCALER,
        &base(),
        &[
            (
                &format!("{at}/name"),
                json!(""),
                &[&format!("{path}.resource.name: Required value: must specify a resource name")],
            ),
            (
                &format!("{at}/target/type"),
                json!(""),
                &[&format!("{path}.resource.target.type: Required value: must specify a metric target type")],
            ),
            (
                &format!("{at}/target/type"),
                json!("Sum"),
                &[&format!(
                    "{path}.resource.target.type: Invalid value: \"Sum\": must be either Utilization, Value, or AverageValue"
                )],
            ),
            (
                &format!("{at}/target/averageUtilization"),
                json!(0),
                &[&format!("{path}.resource.target.averageUtilization: Invalid value: 0: must be greater than 0")],
            ),
            (
                &format!("{at}/target"),
                json!({"type": "Utilization"}),
                &[&format!(
                    "{path}.resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization"
                )],
            ),
            (
                &format!("{at}/target/averageValue"),
                json!("1"),
                &[&format!(
                    "{path}.resource.target.averageValue: Forbidden: may not set both a target raw value and a target utilization"
                )],
            ),
            (
                first,
                metric("ContainerResource", json!({"name": "cpu", "target": target(json!({"averageValue": "-1"}))})),
                &[
                    &format!("{path}.containerResource.container: Required value: must specify a container"),
                    &format!("{path}.containerResource.target.averageValue: Invalid value: \"-1\": must be positive"),
                ],
            ),
            (
                first,
                metric("Pods", json!({"metric": {"name": ""}, "target": target(json!({}))})),
                &[
                    &format!("{path}.pods.metric.name: Required value: must specify a metric name"),
                    &format!(
                        "{path}.pods.target.averageValue: Required value: must specify a positive target averageValue"
                    ),
                ],
            ),
            (
                first,
                metric(
                    "Object",
                    json!({"metric": {"name": "a/b"}, "describedObject": {"kind": "", "name": "s"}, "target": target(json!({}))}),
                ),
                &[
                    &format!("{path}.object.describedObject.kind: Required value"),
                    &format!("{path}.object.metric.name: Invalid value: \"a/b\": may not contain '/'"),
                    &format!(
                        "{path}.object.target.averageValue: Required value: must set either a target value or averageValue"
                    ),
                ],
            ),
            (
                first,
                metric("External", json!({"metric": {"name": "a"}, "target": target(json!({}))})),
                &[&format!(
                    "{path}.external.target.averageValue: Required value: must set either a target value for metric or a per-pod target"
                )],
            ),
            (
                first,
                metric(
                    "External",
                    json!({"metric": {"name": "a"}, "target": target(json!({"value": "1", "averageValue": "1"}))}),
                ),
                &[&format!(
                    "{path}.external.target.value: Forbidden: may not set both a target value for metric and a per-pod target"
                )],
            ),
        ],
    );
    accepts(
        &HORIZONTAL_POD_AUTOSCALER,
        &base(),
        &[
            ("/spec/metrics", Value::Null),
            (
                first,
                metric(
                    "Object",
                    json!({"metric": {"name": "a"}, "describedObject": whom, "target": target(json!({"value": "1"}))}),
                ),
            ),
            (
                first,
                metric("External", json!({"metric": {"name": "a"}, "target": target(json!({"averageValue": "1"}))})),
            ),
            (first, metric("Pods", json!({"metric": {"name": "a"}, "target": target(json!({"averageValue": "1"}))}))),
            (
                first,
                metric(
                    "ContainerResource",
                    json!({"name": "cpu", "container": "c", "target": target(json!({"averageUtilization": 900}))}),
                ),
            ),
        ],
    );
}

#[test]
fn behaviour_of_autoscalers() {
    let (at, path) = ("/spec/behavior/scaleDown", "spec.behavior.scaleDown");
    let policy = |kind: &str, value: i64, period: i64| json!([{"type": kind, "value": value, "periodSeconds": period}]);
    refuses(
        &HORIZONTAL_POD_AUTOSCALER,
        &base(),
        &[
            (
                &format!("{at}/stabilizationWindowSeconds"),
                json!(-1),
                &[&format!(
                    "{path}.stabilizationWindowSeconds: Invalid value: -1: must be greater than or equal to zero"
                )],
            ),
            (
                &format!("{at}/stabilizationWindowSeconds"),
                json!(3601),
                &[&format!(
                    "{path}.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600"
                )],
            ),
            (
                &format!("{at}/selectPolicy"),
                json!("Any"),
                &[&format!(
                    "{path}.selectPolicy: Unsupported value: \"Any\": supported values: \"Disabled\", \"Max\", \"Min\""
                )],
            ),
            (
                &format!("{at}/policies"),
                policy("Nodes", 1, 1),
                &[&format!(
                    "{path}.policies[0].type: Unsupported value: \"Nodes\": supported values: \"Percent\", \"Pods\""
                )],
            ),
            (
                &format!("{at}/policies"),
                policy("Pods", 0, 0),
                &[
                    &format!("{path}.policies[0].value: Invalid value: 0: must be greater than zero"),
                    &format!("{path}.policies[0].periodSeconds: Invalid value: 0: must be greater than zero"),
                ],
            ),
            (
                &format!("{at}/policies"),
                policy("Pods", 1, 1801),
                &[&format!(
                    "{path}.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800"
                )],
            ),
            (
                &format!("{at}/tolerance"),
                json!("-0.1"),
                &[&format!("{path}.tolerance: Invalid value: \"-100m\": must be greater than or equal to 0")],
            ),
        ],
    );
    accepts(
        &HORIZONTAL_POD_AUTOSCALER,
        &base(),
        &[(&format!("{at}/policies"), policy("Percent", 10, 1800)), (&format!("{at}/tolerance"), json!("0.02"))],
    );
}
