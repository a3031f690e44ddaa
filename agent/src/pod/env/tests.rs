use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_kube::Object;
use serde_json::{Value, json};

use super::*;

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

fn pod() -> Object {
    object(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"b": "2", "a": "1"}},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "resources": {"limits": {"cpu": "1500m", "memory": "1Gi"}}}]},
    }))
}

fn sources() -> Sources {
    let map = object(json!({"kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"k": "v", "bad key": "x"}}));
    let secret = object(json!({"kind": "Secret", "metadata": {"name": "s"}, "data": {"p": "aHVzaA=="}}));
    Sources {
        config_maps: BTreeMap::from([("m".to_owned(), map)]),
        secrets: BTreeMap::from([("s".to_owned(), secret)]),
        facts: PodFacts { host_ip: "1.2.3.4".into(), pod_ips: vec!["10.0.0.1".into()], ..PodFacts::default() },
        services: BTreeMap::from([("K".to_owned(), "svc".to_owned())]),
    }
}

fn value_of(env: Value) -> Result<Vec<(String, String)>, EnvError> {
    variables(&pod(), &json!({"name": "c", "env": env}), &sources()).map(|mut list| list.split_off(1))
}

#[test]
fn references_to_what_came_before() {
    let get = |name: &str| (name == "A").then_some("1");
    for (text, want) in [("$(A)", "1"), ("$$(A)", "$(A)"), ("$(B)", "$(B)"), ("$A", "$A"), ("a$(A", "a$(A"), ("$", "$")]
    {
        assert_eq!(expand(text, get), want);
    }
    let two =
        value_of(json!([{"name": "A", "value": "x"}, {"name": "B", "value": "$(A)$(K)$(C)"}, {"name": "C"}])).unwrap();
    assert_eq!(two[1], ("B".to_owned(), "xsvc$(C)".to_owned()));
}

#[test]
fn every_source() {
    let list = value_of(json!([
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}},
        {"name": "M", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}},
        {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "p"}}},
        {"name": "O", "valueFrom": {"secretKeyRef": {"name": "no", "key": "p", "optional": true}}},
        {"name": "R", "valueFrom": {"resourceFieldRef": {"containerName": "c", "resource": "limits.cpu"}}},
        {"name": "Q", "valueFrom": {"resourceFieldRef": {"containerName": "c", "resource": "limits.memory", "divisor": "1Mi"}}},
    ]));
    let list: Vec<String> = list.unwrap().into_iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(list, ["IP=10.0.0.1", "L=1", "M=v", "S=hush", "R=2", "Q=1024"]);
}

#[test]
fn what_is_missing_is_named() {
    let missing = value_of(json!([{"name": "M", "valueFrom": {"configMapKeyRef": {"name": "no", "key": "k"}}}]));
    assert_eq!(missing.unwrap_err().to_string(), "configmap \"no\" not found");
    let key = value_of(json!([{"name": "M", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]));
    assert_eq!(key.unwrap_err().to_string(), "couldn't find key k in Secret ns/s");
}

#[test]
fn whole_maps_with_a_prefix() {
    let container = json!({"envFrom": [{"prefix": "X_", "configMapRef": {"name": "m"}}]});
    let list = variables(&pod(), &container, &Sources { services: BTreeMap::new(), ..sources() }).unwrap();
    assert_eq!(list, [("X_k".to_owned(), "v".to_owned())]);
}

#[test]
fn services_by_the_old_names() {
    let service = |ns: &str, name: &str| {
        Arc::new(object(json!({
            "metadata": {"name": name, "namespace": ns},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443, "protocol": "TCP"}]},
        })))
    };
    let list = [service("default", "kubernetes"), service("ns", "my-db"), service("other", "x")];
    let map = service_variables(&list, "ns", true);
    assert_eq!(map["KUBERNETES_SERVICE_HOST"], "10.96.0.1");
    assert_eq!(map["KUBERNETES_SERVICE_PORT_HTTPS"], "443");
    assert_eq!(map["MY_DB_PORT_443_TCP"], "tcp://10.96.0.1:443");
    assert!(!map.keys().any(|k| k.starts_with("X_")));
}
