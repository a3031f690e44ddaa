//! What Kubernetes fills in where a client said nothing. Every rule is idempotent; objects are in canonical form before.
//!
//! The rules are those of the API conventions and of each kind's reference page. A field that is a pointer upstream is
//! defaulted only when it is absent (`terminationGracePeriodSeconds: 0` stays), the others also when they are zero.

mod cluster;
mod pod;

#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

use crate::custom::definition;
use crate::object::Object;
use crate::resource::Resource;

pub use pod::pull_policy;

const RBAC_GROUP: &str = "rbac.authorization.k8s.io";
/// Where every namespace carries its own name as a label, so that selectors can name it.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

type Fields = Map<String, Value>;

/// Defaults an object of that kind, on every write.
pub fn apply(resource: &Resource, object: &mut Object) {
    if (resource.group, resource.kind) == (definition::GROUP, definition::KIND) {
        return definition::default(object);
    }
    let map = &mut object.0;
    match (resource.group, resource.kind) {
        ("", "Pod") => pod::pod(map),
        ("", "Service") => with(map, "spec", service),
        ("", "Secret") => zero(map, "type", "Opaque"),
        ("", "Namespace") => namespace(map),
        ("", "Node") => with(map, "status", node_status),
        ("", "Endpoints") => each(map, "subsets", |subset| each(subset, "ports", |port| zero(port, "protocol", "TCP"))),
        ("", "ReplicationController") => replication_controller(map),
        ("", "LimitRange") => with(map, "spec", |spec| each(spec, "limits", limit_range_item)),
        ("", "PodTemplate") => template(map),
        ("networking.k8s.io", "IngressClass") => with(map, "spec", |spec| {
            with(spec, "parameters", |parameters| absent(parameters, "scope", "Cluster"));
        }),
        ("networking.k8s.io", "NetworkPolicy") => with(map, "spec", network_policy),
        ("autoscaling", "HorizontalPodAutoscaler") => with(map, "spec", autoscaler),
        ("", "PersistentVolume") => persistent_volume(map),
        ("", "PersistentVolumeClaim") => claim(map),
        ("storage.k8s.io", "StorageClass") => {
            absent(map, "reclaimPolicy", "Delete");
            absent(map, "volumeBindingMode", "Immediate");
        }
        ("storage.k8s.io", "CSIDriver") => with(map, "spec", cluster::csi_driver),
        ("resource.k8s.io", "ResourceClaim") => with(map, "spec", cluster::device_claim),
        ("resource.k8s.io", "ResourceClaimTemplate") => {
            with(map, "spec", |template| with(template, "spec", cluster::device_claim));
        }
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => with(map, "spec", cluster::flow_schema),
        ("flowcontrol.apiserver.k8s.io", _) => with(map, "spec", cluster::priority_level),
        ("apiregistration.k8s.io", _) => with(map, "spec", cluster::api_service),
        ("batch", "Job") => job(map),
        ("batch", "CronJob") => with(map, "spec", cron_job),
        ("apps", "StatefulSet") => with(map, "spec", stateful_set),
        ("apps", "DaemonSet") => with(map, "spec", daemon_set),
        ("apps", "Deployment") => with(map, "spec", deployment),
        ("apps", "ReplicaSet") => with(map, "spec", |spec| {
            absent(spec, "replicas", 1);
            template(spec);
        }),
        ("discovery.k8s.io", "EndpointSlice") => each(map, "ports", |port| {
            absent(port, "name", "");
            absent(port, "protocol", "TCP");
        }),
        (RBAC_GROUP, "RoleBinding" | "ClusterRoleBinding") => role_binding(map),
        ("scheduling.k8s.io", "PriorityClass") => absent(map, "preemptionPolicy", "PreemptLowerPriority"),
        _ => {}
    }
}

/// What is set once, when an object is made: it must not come back on a later write.
pub fn on_create(resource: &Resource, object: &mut Object) {
    if (resource.group, resource.kind) == ("", "Namespace") {
        let spec = object.map_mut("spec");
        let finalizers = spec.entry("finalizers").or_insert_with(|| json!([]));
        if let Value::Array(list) = finalizers
            && !list.iter().any(|f| f == "kubernetes")
        {
            list.push("kubernetes".into());
        }
        object.map_mut("status").insert("phase".into(), "Active".into());
    }
}

/// A TokenRequest asks for an hour where it names no time.
pub fn token_request(object: &mut Object) {
    with(&mut object.0, "spec", |spec| absent(spec, "expirationSeconds", 3600));
}

fn namespace(map: &mut Fields) {
    with(map, "metadata", |metadata| {
        if let Some(name) = metadata.get("name").filter(|n| n.as_str().is_some_and(|n| !n.is_empty())).cloned() {
            let labels = metadata.entry("labels").or_insert_with(|| json!({}));
            if let Value::Object(labels) = labels {
                labels.insert(NAMESPACE_NAME_LABEL.into(), name);
            }
        }
    });
    with(map, "status", |status| zero(status, "phase", "Active"));
}

fn node_status(status: &mut Fields) {
    if let Some(capacity) = status.get("capacity").cloned() {
        absent(status, "allocatable", capacity);
    }
}

/// What containers are given follows from what they may have: the limit from the most, the request from the limit or the
/// least.
fn limit_range_item(item: &mut Fields) {
    if text(item, "type") != "Container" {
        return;
    }
    for (from, into) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
        for (name, amount) in item.get(from).and_then(Value::as_object).cloned().into_iter().flatten() {
            absent(item, into, json!({}));
            with(item, into, |list| absent(list, &name, amount.clone()));
        }
    }
}

fn persistent_volume(map: &mut Fields) {
    with(map, "status", |status| zero(status, "phase", "Pending"));
    with(map, "spec", |spec| {
        zero(spec, "persistentVolumeReclaimPolicy", "Retain");
        absent(spec, "volumeMode", "Filesystem");
        with(spec, "hostPath", |path| absent(path, "type", ""));
    });
}

fn claim(map: &mut Fields) {
    with(map, "status", |status| zero(status, "phase", "Pending"));
    with(map, "spec", |spec| absent(spec, "volumeMode", "Filesystem"));
}

fn daemon_set(spec: &mut Fields) {
    absent(spec, "revisionHistoryLimit", 10);
    absent(spec, "updateStrategy", json!({}));
    with(spec, "updateStrategy", |strategy| {
        zero(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate" {
            absent(strategy, "rollingUpdate", json!({}));
            with(strategy, "rollingUpdate", |rolling| {
                absent(rolling, "maxUnavailable", 1);
                absent(rolling, "maxSurge", 0);
            });
        }
    });
    template(spec);
}

/// It is known by, and selects, the labels of its template where it says nothing else.
fn replication_controller(map: &mut Fields) {
    let labels = map.get("spec").map(|spec| spec["template"]["metadata"]["labels"].clone());
    let labels = labels.filter(|labels| labels.as_object().is_some_and(|labels| !labels.is_empty()));
    let lacks = |map: &Fields, key: &str| map.get(key).and_then(Value::as_object).is_none_or(|map| map.is_empty());
    if let Some(labels) = &labels {
        absent(map, "metadata", json!({}));
        with(map, "metadata", |metadata| {
            if lacks(metadata, "labels") {
                metadata.insert("labels".into(), labels.clone());
            }
        });
    }
    with(map, "spec", |spec| {
        if let Some(labels) = labels.clone().filter(|_| lacks(spec, "selector")) {
            spec.insert("selector".into(), labels);
        }
        absent(spec, "replicas", 1);
        template(spec);
    });
}

/// It is known by the labels of its template where it has none of its own.
fn job(map: &mut Fields) {
    let labels = map.get("spec").map(|spec| spec["template"]["metadata"]["labels"].clone());
    if let Some(labels) = labels.filter(|labels| labels.as_object().is_some_and(|labels| !labels.is_empty())) {
        absent(map, "metadata", json!({}));
        with(map, "metadata", |metadata| {
            if metadata.get("labels").and_then(Value::as_object).is_none_or(|labels| labels.is_empty()) {
                metadata.insert("labels".into(), labels.clone());
            }
        });
    }
    with(map, "spec", job_spec);
}

fn job_spec(spec: &mut Fields) {
    let is_set = |spec: &Fields, key: &str| spec.get(key).is_some_and(|value| !value.is_null());
    // One who names neither wants one pod; one who names the parallelism alone has a queue of work.
    if !is_set(spec, "completions") && !is_set(spec, "parallelism") {
        spec.insert("completions".into(), json!(1));
    }
    absent(spec, "parallelism", 1);
    let limit = if is_set(spec, "backoffLimitPerIndex") { i32::MAX } else { 6 };
    absent(spec, "backoffLimit", limit);
    absent(spec, "completionMode", "NonIndexed");
    absent(spec, "suspend", false);
    absent(spec, "manualSelector", false);
    let replaced = if is_set(spec, "podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    absent(spec, "podReplacementPolicy", replaced);
    failure_policy(spec);
    template(spec);
}

fn failure_policy(spec: &mut Fields) {
    with(spec, "podFailurePolicy", |policy| {
        each(policy, "rules", |rule| each(rule, "onPodConditions", |condition| zero(condition, "status", "True")));
    });
}

/// Its template gets what a Job's pods get; the rest of the Job's defaults come when a Job is made of it.
fn cron_job(spec: &mut Fields) {
    zero(spec, "concurrencyPolicy", "Allow");
    absent(spec, "suspend", false);
    absent(spec, "successfulJobsHistoryLimit", 3);
    absent(spec, "failedJobsHistoryLimit", 1);
    with(spec, "jobTemplate", |job| {
        with(job, "spec", |spec| {
            failure_policy(spec);
            template(spec);
        });
    });
}

fn stateful_set(spec: &mut Fields) {
    absent(spec, "replicas", 1);
    absent(spec, "revisionHistoryLimit", 10);
    zero(spec, "podManagementPolicy", "OrderedReady");
    absent(spec, "updateStrategy", json!({}));
    with(spec, "updateStrategy", |strategy| {
        zero(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate" {
            absent(strategy, "rollingUpdate", json!({}));
            with(strategy, "rollingUpdate", |rolling| {
                absent(rolling, "partition", 0);
                absent(rolling, "maxUnavailable", 1);
            });
        }
    });
    absent(spec, "persistentVolumeClaimRetentionPolicy", json!({}));
    with(spec, "persistentVolumeClaimRetentionPolicy", |policy| {
        zero(policy, "whenDeleted", "Retain");
        zero(policy, "whenScaled", "Retain");
    });
    each(spec, "volumeClaimTemplates", |template| {
        zero(template, "apiVersion", "v1");
        zero(template, "kind", "PersistentVolumeClaim");
        claim(template);
    });
    template(spec);
}

/// One that names no direction is about what comes in, and about what goes out where it has rules for that.
fn network_policy(spec: &mut Fields) {
    for direction in ["ingress", "egress"] {
        each(spec, direction, |rule| each(rule, "ports", |port| absent(port, "protocol", "TCP")));
    }
    let any = |spec: &Fields, key: &str| spec.get(key).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if !any(spec, "policyTypes") {
        let types = if any(spec, "egress") { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        spec.insert("policyTypes".into(), types);
    }
}

fn autoscaler(spec: &mut Fields) {
    absent(spec, "minReplicas", 1);
    if spec.get("metrics").and_then(Value::as_array).is_none_or(|metrics| metrics.is_empty()) {
        let target = json!({"type": "Utilization", "averageUtilization": 80});
        spec.insert("metrics".into(), json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]));
    }
    with(spec, "behavior", |behavior| {
        for (side, wanted) in [("scaleUp", scale_up_rules()), ("scaleDown", scale_down_rules())] {
            absent(behavior, side, json!({}));
            with(behavior, side, |rules| {
                for (field, value) in wanted.as_object().into_iter().flatten() {
                    absent(rules, field, value.clone());
                }
            });
        }
    });
}

/// How fast an autoscaler adds pods where nothing else is said: at once, twice as many or four more.
pub fn scale_up_rules() -> Value {
    json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]})
}

/// How fast it takes pods away. How long it waits before is the controller's to say.
pub fn scale_down_rules() -> Value {
    json!({"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]})
}

fn deployment(spec: &mut Fields) {
    absent(spec, "replicas", 1);
    absent(spec, "revisionHistoryLimit", 10);
    absent(spec, "progressDeadlineSeconds", 600);
    absent(spec, "strategy", json!({}));
    with(spec, "strategy", |strategy| {
        zero(strategy, "type", "RollingUpdate");
        if strategy.get("type").is_some_and(|t| t == "RollingUpdate") {
            absent(strategy, "rollingUpdate", json!({}));
            with(strategy, "rollingUpdate", |rolling| {
                absent(rolling, "maxUnavailable", "25%");
                absent(rolling, "maxSurge", "25%");
            });
        }
    });
    template(spec);
}

fn template(spec: &mut Fields) {
    with(spec, "template", |template| with(template, "spec", pod::spec));
}

fn service(spec: &mut Fields) {
    zero(spec, "sessionAffinity", "None");
    match text(spec, "sessionAffinity") {
        "None" => {
            spec.remove("sessionAffinityConfig");
        }
        "ClientIP" => {
            absent(spec, "sessionAffinityConfig", json!({}));
            with(spec, "sessionAffinityConfig", |config| {
                absent(config, "clientIP", json!({}));
                with(config, "clientIP", |client| absent(client, "timeoutSeconds", 10800));
            });
        }
        _ => {}
    }
    zero(spec, "type", "ClusterIP");
    each(spec, "ports", |port| {
        zero(port, "protocol", "TCP");
        if is_zero(port.get("targetPort"))
            && let Some(own) = port.get("port").cloned()
        {
            port.insert("targetPort".into(), own);
        }
    });
    let external = spec.get("externalIPs").and_then(Value::as_array).is_some_and(|ips| !ips.is_empty());
    let kind = text(spec, "type").to_owned();
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && external) {
        zero(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        absent(spec, "allocateLoadBalancerNodePorts", true);
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
        absent(spec, "internalTrafficPolicy", "Cluster");
        absent(spec, "ipFamilyPolicy", "SingleStack");
        absent(spec, "ipFamilies", json!(["IPv4"]));
    }
}

fn role_binding(map: &mut Fields) {
    with(map, "roleRef", |role| zero(role, "apiGroup", RBAC_GROUP));
    each(map, "subjects", |subject| {
        if matches!(text(subject, "kind"), "User" | "Group") {
            zero(subject, "apiGroup", RBAC_GROUP);
        }
    });
}

/// Sets a field that is not there.
fn absent(map: &mut Fields, key: &str, value: impl Into<Value>) {
    if map.get(key).is_none_or(Value::is_null) {
        map.insert(key.into(), value.into());
    }
}

/// Sets a field that is not there, or zero.
fn zero(map: &mut Fields, key: &str, value: impl Into<Value>) {
    if is_zero(map.get(key)) {
        map.insert(key.into(), value.into());
    }
}

fn is_zero(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Number(number)) => number.as_i64() == Some(0),
        _ => false,
    }
}

fn text<'a>(map: &'a Fields, key: &str) -> &'a str {
    map.get(key).and_then(Value::as_str).unwrap_or("")
}

fn with(map: &mut Fields, key: &str, mut then: impl FnMut(&mut Fields)) {
    if let Some(Value::Object(inner)) = map.get_mut(key) {
        then(inner);
    }
}

fn each(map: &mut Fields, key: &str, mut then: impl FnMut(&mut Fields)) {
    if let Some(Value::Array(items)) = map.get_mut(key) {
        items.iter_mut().filter_map(Value::as_object_mut).for_each(&mut then);
    }
}
