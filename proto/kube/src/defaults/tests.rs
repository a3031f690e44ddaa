use super::*;
use crate::canonical;
use crate::resource::{self, *};
use crate::schema;
use proptest::prelude::*;
use serde_json::json;

fn defaulted(resource: &Resource, value: Value) -> Value {
    let mut object = Object::from_value(value).unwrap();
    apply(resource, &mut object);
    let ty = schema::for_kind(resource.group, resource.version, resource.kind).unwrap();
    let mut again = object.clone();
    let findings = canonical::normalize(ty, &mut again);
    assert_eq!(findings, canonical::Findings::default(), "a default is not of the schema");
    object.into_value()
}

#[test]
fn a_pod_of_one_container() {
    let pod = defaulted(&POD, json!({"spec": {"containers": [{"name": "c", "image": "a/b"}]}}));
    assert_eq!(
        pod["spec"],
        json!({
            "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
            "terminationGracePeriodSeconds": 30, "securityContext": {}, "enableServiceLinks": true,
            "containers": [{"name": "c", "image": "a/b", "imagePullPolicy": "Always",
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
        })
    );
}

#[test]
fn what_is_said_stays() {
    let said = json!({"spec": {
        "restartPolicy": "Never", "dnsPolicy": "Default", "schedulerName": "mine", "terminationGracePeriodSeconds": 0,
        "securityContext": {"runAsUser": 0}, "enableServiceLinks": false,
        "containers": [{"name": "c", "image": "a", "imagePullPolicy": "Never", "terminationMessagePath": "/x",
            "terminationMessagePolicy": "FallbackToLogsOnError"}],
    }});
    assert_eq!(defaulted(&POD, said.clone()), said);
}

#[test]
fn the_pull_policy_follows_the_tag() {
    for (image, policy) in [
        ("a", "Always"),
        ("a:latest", "Always"),
        ("a:1", "IfNotPresent"),
        ("host:5000/a", "Always"),
        ("host:5000/a:1", "IfNotPresent"),
        ("a@sha256:00", "IfNotPresent"),
        ("a:latest@sha256:00", "Always"),
        ("", "IfNotPresent"),
    ] {
        assert_eq!(pull_policy(image), policy, "{image}");
    }
}

#[test]
fn probes_ports_env_and_volumes() {
    let pod = defaulted(
        &POD,
        json!({"spec": {"containers": [{
            "name": "c", "image": "a:1",
            "ports": [{"containerPort": 80}],
            "readinessProbe": {"httpGet": {"port": 80}}, "livenessProbe": {"grpc": {"port": 1}, "periodSeconds": 3},
            "lifecycle": {"preStop": {"httpGet": {"port": 80}}},
            "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
        }], "volumes": [
            {"name": "e"}, {"name": "c", "configMap": {"name": "x"}}, {"name": "s", "secret": {"secretName": "x", "defaultMode": 0}},
            {"name": "h", "hostPath": {"path": "/"}},
            {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}},
                {"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}},
        ]}}),
    );
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["imagePullPolicy"], "IfNotPresent");
    assert_eq!(container["ports"], json!([{"containerPort": 80, "protocol": "TCP"}]));
    assert_eq!(
        container["readinessProbe"],
        json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
            "successThreshold": 1, "failureThreshold": 3})
    );
    assert_eq!(container["livenessProbe"]["periodSeconds"], 3);
    assert_eq!(container["livenessProbe"]["grpc"]["service"], "");
    assert_eq!(container["lifecycle"]["preStop"]["httpGet"]["scheme"], "HTTP");
    assert_eq!(container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
    assert_eq!(container["env"][1]["valueFrom"]["resourceFieldRef"]["divisor"], "0");
    assert_eq!(container["resources"]["requests"], json!({"cpu": "500m", "memory": "1Gi"}));
    let volumes = &pod["spec"]["volumes"];
    assert_eq!(volumes[0], json!({"name": "e", "emptyDir": {}}));
    assert_eq!(volumes[1]["configMap"]["defaultMode"], 420);
    assert_eq!(volumes[2]["secret"]["defaultMode"], 0);
    assert_eq!(volumes[3]["hostPath"], json!({"path": "/", "type": ""}));
    assert_eq!(volumes[4]["projected"]["defaultMode"], 420);
    assert_eq!(volumes[4]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"], 3600);
    assert_eq!(volumes[4]["projected"]["sources"][1]["downwardAPI"]["items"][0]["fieldRef"]["apiVersion"], "v1");
}

#[test]
fn ports_of_the_host_network_are_the_hosts() {
    let pod = defaulted(
        &POD,
        json!({"spec": {"hostNetwork": true, "containers": [{"name": "c", "ports": [{"containerPort": 80}]}]}}),
    );
    assert_eq!(pod["spec"]["containers"][0]["ports"][0]["hostPort"], 80);
}

#[test]
fn templates_leave_to_pods_what_is_theirs() {
    let deployment = defaulted(
        &DEPLOYMENT,
        json!({"spec": {"strategy": {}, "template": {"spec": {"containers": [
            {"name": "c", "image": "a:1", "resources": {"limits": {"cpu": "1"}}}]}}}}),
    );
    let spec = &deployment["spec"];
    assert_eq!(
        (&spec["replicas"], &spec["revisionHistoryLimit"], &spec["progressDeadlineSeconds"]),
        (&json!(1), &json!(10), &json!(600))
    );
    assert_eq!(
        spec["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}})
    );
    let pod = &spec["template"]["spec"];
    assert_eq!(pod["restartPolicy"], "Always");
    assert!(pod.get("enableServiceLinks").is_none());
    assert_eq!(pod["containers"][0]["resources"], json!({"limits": {"cpu": "1"}}));
    let recreate = defaulted(&DEPLOYMENT, json!({"spec": {"replicas": 0, "strategy": {"type": "Recreate"}}}));
    assert_eq!(recreate["spec"]["strategy"], json!({"type": "Recreate"}));
    assert_eq!(recreate["spec"]["replicas"], 0);
    assert_eq!(defaulted(&REPLICA_SET, json!({"spec": {}}))["spec"], json!({"replicas": 1}));
}

#[test]
fn services() {
    let spec = |value| defaulted(&SERVICE, json!({"spec": value}))["spec"].clone();
    assert_eq!(
        spec(json!({"ports": [{"port": 80}, {"port": 81, "targetPort": "web", "protocol": "UDP"}]})),
        json!({"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}, {"port": 81, "targetPort": "web", "protocol": "UDP"}]})
    );
    assert_eq!(spec(json!({"type": "NodePort"}))["externalTrafficPolicy"], "Cluster");
    assert_eq!(spec(json!({"externalIPs": ["192.0.2.1"]}))["externalTrafficPolicy"], "Cluster");
    assert_eq!(spec(json!({"type": "LoadBalancer"}))["allocateLoadBalancerNodePorts"], true);
    assert_eq!(
        spec(json!({"type": "ExternalName", "externalName": "x"})),
        json!({"type": "ExternalName", "externalName": "x", "sessionAffinity": "None"})
    );
    assert_eq!(
        spec(json!({"sessionAffinity": "ClientIP"}))["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"],
        10800
    );
}

#[test]
fn small_kinds() {
    assert_eq!(defaulted(&SECRET, json!({})), json!({"type": "Opaque"}));
    let namespace = defaulted(&NAMESPACE, json!({"metadata": {"name": "a"}, "status": {}}));
    assert_eq!(namespace["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "a"}));
    assert_eq!(namespace["status"]["phase"], "Active");
    assert!(namespace.get("spec").is_none(), "finalizers do not come back on updates");
    assert_eq!(
        defaulted(&ENDPOINT_SLICE, json!({"ports": [{"port": 1}]}))["ports"],
        json!([{"port": 1, "name": "", "protocol": "TCP"}])
    );
    assert_eq!(
        defaulted(
            &ROLE_BINDING,
            json!({"roleRef": {"kind": "Role", "name": "r", "apiGroup": ""},
                "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}]})
        ),
        json!({"roleRef": {"kind": "Role", "name": "r", "apiGroup": "rbac.authorization.k8s.io"},
            "subjects": [{"kind": "User", "name": "u", "apiGroup": "rbac.authorization.k8s.io"},
                {"kind": "ServiceAccount", "name": "s"}]})
    );
    assert_eq!(
        defaulted(&PRIORITY_CLASS, json!({"value": 1})),
        json!({"value": 1, "preemptionPolicy": "PreemptLowerPriority"})
    );
    let node = defaulted(&NODE, json!({"status": {"capacity": {"cpu": "4"}}}));
    assert_eq!(node["status"]["allocatable"], json!({"cpu": "4"}));
}

#[test]
fn a_namespace_is_made_with_its_finalizer() {
    let mut namespace = Object::default();
    on_create(&NAMESPACE, &mut namespace);
    on_create(&NAMESPACE, &mut namespace);
    assert_eq!(namespace.into_value(), json!({"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}));
}

#[test]
fn a_token_lives_an_hour() {
    let mut request = Object::from_value(json!({"spec": {"audiences": ["a"]}})).unwrap();
    token_request(&mut request);
    assert_eq!(request.i64_at("/spec/expirationSeconds"), Some(3600));
}

fn any_spec() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(Value::Null), Just(json!(0)), Just(json!("")), Just(json!("x")), Just(json!(true))];
    let key = "(spec|status|template|containers|volumes|ports|env|valueFrom|fieldRef|livenessProbe|httpGet|strategy|resources|limits|type)";
    leaf.prop_recursive(6, 40, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..5).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

#[test]
fn autoscalers_say_how_fast_they_are() {
    let spec = |more: Value| {
        let mut spec = json!({"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "a"}});
        json_patch::merge(&mut spec, &more);
        defaulted(&HORIZONTAL_POD_AUTOSCALER, json!({"spec": spec}))["spec"].clone()
    };
    let plain = spec(json!({}));
    assert_eq!((&plain["minReplicas"], &plain["behavior"]), (&json!(1), &Value::Null));
    let cpu = json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
    assert_eq!(plain["metrics"], cpu);
    let half = spec(json!({"behavior": {"scaleUp": {"selectPolicy": "Min"}}}))["behavior"].clone();
    assert_eq!(
        (
            &half["scaleUp"]["selectPolicy"],
            &half["scaleUp"]["policies"],
            &half["scaleUp"]["stabilizationWindowSeconds"]
        ),
        (&json!("Min"), &scale_up_rules()["policies"], &json!(0))
    );
    assert_eq!(half["scaleDown"], scale_down_rules());
}

#[test]
fn drivers_devices_flows_and_apis() {
    let driver = defaulted(&CSI_DRIVER, json!({"spec": {"podInfoOnMount": true, "volumeLifecycleModes": []}}));
    let wanted = json!({"attachRequired": true, "podInfoOnMount": true, "storageCapacity": false, "requiresRepublish": false,
        "seLinuxMount": false, "fsGroupPolicy": "ReadWriteOnceWithFSType", "volumeLifecycleModes": ["Persistent"]});
    assert_eq!(driver["spec"], wanted);

    let requests = json!([{"name": "a", "exactly": {"deviceClassName": "c", "allocationMode": "All"}},
        {"name": "b", "firstAvailable": [{"name": "x", "deviceClassName": "c"}]}]);
    let claim = json!({"spec": {"devices": {"requests": requests}}});
    for spec in [
        defaulted(&RESOURCE_CLAIM, claim.clone())["spec"].clone(),
        defaulted(&RESOURCE_CLAIM_TEMPLATE, json!({"spec": claim}))["spec"]["spec"].clone(),
    ] {
        let requests = &spec["devices"]["requests"];
        assert_eq!(requests[0]["exactly"].get("count"), None);
        let sub = &requests[1]["firstAvailable"][0];
        assert_eq!((&sub["allocationMode"], &sub["count"]), (&json!("ExactCount"), &json!(1)));
    }

    let flow = defaulted(&FLOW_SCHEMA, json!({"spec": {}}));
    assert_eq!(flow["spec"]["matchingPrecedence"], 1000);
    let limited = |value: Value| {
        defaulted(&PRIORITY_LEVEL_CONFIGURATION, json!({"spec": {"limited": value}}))["spec"]["limited"].clone()
    };
    let queue =
        limited(json!({"nominalConcurrencyShares": 0, "limitResponse": {"type": "Queue", "queuing": {"queues": 5}}}));
    let queuing = json!({"queues": 5, "handSize": 8, "queueLengthLimit": 50});
    let response = json!({"type": "Queue", "queuing": queuing});
    assert_eq!(queue, json!({"nominalConcurrencyShares": 0, "lendablePercent": 0, "limitResponse": response}));
    assert_eq!(limited(json!({}))["nominalConcurrencyShares"], 30);
    let exempt = defaulted(&PRIORITY_LEVEL_CONFIGURATION, json!({"spec": {"exempt": {}}}))["spec"]["exempt"].clone();
    assert_eq!(exempt, json!({"nominalConcurrencyShares": 0, "lendablePercent": 0}));
    let api = defaulted(&API_SERVICE, json!({"spec": {"service": {"name": "s"}}}));
    assert_eq!(api["spec"]["service"]["port"], 443);
    assert_eq!(defaulted(&API_SERVICE, json!({"spec": {}}))["spec"].get("service"), None);
}

proptest! {
    #[test]
    fn defaulting_twice_is_defaulting_once(value in any_spec(), which in 0..resource::ALL.len()) {
        let Ok(mut object) = Object::from_value(value) else { return Ok(()) };
        apply(resource::ALL[which], &mut object);
        let once = object.clone();
        apply(resource::ALL[which], &mut object);
        prop_assert_eq!(object, once);
    }
}
