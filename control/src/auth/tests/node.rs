//! What a node may read.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::auth::objects::Objects;
use crate::auth::{Action, Authorizer, Identity};
use crate::bootstrap::policy;

fn read<'a>(verb: &'a str, resource: &'a str, namespace: &'a str, name: &'a str) -> Action<'a> {
    Action::Resource { verb, group: "", resource, subresource: "", namespace, name, fields: "", labels: "" }
}

fn selected<'a>(verb: &'a str, namespace: &'a str, fields: &'a str) -> Action<'a> {
    Action::Resource { verb, group: "", resource: "pods", subresource: "", namespace, name: "", fields, labels: "" }
}

fn kept<'a>(verb: &'a str, labels: &'a str) -> Action<'a> {
    let resource = "persistentvolumes";
    Action::Resource { verb, group: "", resource, subresource: "", namespace: "", name: "", fields: "", labels }
}

fn volume(name: &str, claim: &str, node: &str) -> Value {
    let claim = json!({"namespace": "a", "name": claim});
    json!({"kind": "PersistentVolume", "metadata": {"name": name, "labels": {"gantry.dev/node": node}},
        "spec": {"claimRef": claim}})
}

fn lease<'a>(verb: &'a str, namespace: &'a str, name: &'a str) -> Action<'a> {
    let (group, resource) = ("coordination.k8s.io", "leases");
    Action::Resource { verb, group, resource, subresource: "", namespace, name, fields: "", labels: "" }
}

fn pod(name: &str, node: &str, spec: Value) -> Value {
    let mut pod = json!({"kind": "Pod", "metadata": {"name": name, "namespace": "a"}, "spec": spec});
    pod["spec"]["nodeName"] = json!(node);
    pod
}

#[test]
fn a_node_reads_what_its_own_pods_name() {
    let mut shadow = pod("shadow", "n", json!({"volumes": [{"secret": {"secretName": "shadowed"}}]}));
    shadow["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "1"});
    let objects: Vec<Value> = policy::cluster_roles()
        .into_iter()
        .chain(policy::cluster_role_bindings())
        .map(gantry_kube::Object::into_value)
        .chain([
            pod(
                "mine",
                "n",
                json!({
                    "serviceAccountName": "runner", "imagePullSecrets": [{"name": "pull"}],
                    "volumes": [
                        {"name": "v", "secret": {"secretName": "mounted"}},
                        {"name": "w", "configMap": {"name": "mounted"}},
                        {"name": "c", "persistentVolumeClaim": {"claimName": "data"}},
                        {"name": "e", "ephemeral": {"volumeClaimTemplate": {}}},
                        {"name": "p", "projected": {"sources": [
                            {"secret": {"name": "projected"}}, {"configMap": {"name": "kube-root-ca.crt"}}]}},
                    ],
                    "containers": [{"env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}}],
                                    "envFrom": [{"configMapRef": {"name": "all"}}]}],
                    "initContainers": [{"envFrom": [{"secretRef": {"name": "first"}}]}],
                }),
            ),
            pod("theirs", "m", json!({"volumes": [{"secret": {"secretName": "foreign"}}]})),
            volume("mine", "data", ""),
            volume("free", "", "n"),
            volume("theirs", "foreign", "m"),
            pod("waiting", "", json!({"volumes": [{"secret": {"secretName": "unbound"}}]})),
            shadow,
        ])
        .collect();
    let authorizer = Authorizer::new(Arc::new(Objects::of(objects)));
    let node = Identity::new("system:node:n", ["system:nodes"]);
    for (action, expected) in [
        (read("get", "secrets", "a", "pull"), true),
        (read("get", "secrets", "a", "mounted"), true),
        (read("watch", "secrets", "a", "mounted"), true),
        (read("get", "secrets", "a", "projected"), true),
        (read("get", "secrets", "a", "key"), true),
        (read("get", "secrets", "a", "first"), true),
        (read("get", "configmaps", "a", "mounted"), true),
        (read("get", "configmaps", "a", "kube-root-ca.crt"), true),
        (read("get", "configmaps", "a", "all"), true),
        (read("get", "secrets", "a", "all"), false),
        (read("get", "secrets", "a", "kube-root-ca.crt"), false),
        (read("get", "secrets", "a", "foreign"), false),
        (read("get", "secrets", "a", "unbound"), false),
        (read("get", "secrets", "b", "pull"), false),
        (read("get", "secrets", "a", "shadowed"), false),
        (read("get", "serviceaccounts", "a", "runner"), true),
        (read("get", "serviceaccounts", "a", "default"), false),
        (read("get", "serviceaccounts", "b", "runner"), false),
        (read("list", "serviceaccounts", "a", ""), false),
        (read("list", "secrets", "a", ""), false),
        (read("list", "secrets", "", ""), false),
        (read("delete", "secrets", "a", "mounted"), false),
        (read("update", "configmaps", "a", "mounted"), false),
        (read("get", "persistentvolumeclaims", "a", "data"), true),
        (read("get", "persistentvolumeclaims", "a", "mine-e"), true),
        (read("get", "persistentvolumeclaims", "a", "foreign"), false),
        (read("get", "persistentvolumeclaims", "b", "data"), false),
        (read("list", "persistentvolumeclaims", "a", ""), false),
        (read("update", "persistentvolumeclaims", "a", "data"), false),
        (read("get", "persistentvolumes", "", "mine"), true),
        (read("get", "persistentvolumes", "", "free"), true),
        (read("get", "persistentvolumes", "", "theirs"), false),
        (read("get", "persistentvolumes", "", "gone"), false),
        (read("list", "persistentvolumes", "", ""), false),
        (kept("list", "gantry.dev/node=n"), true),
        (kept("watch", "a=b,gantry.dev/node=n"), true),
        (kept("watch", "gantry.dev/node=m"), false),
        (kept("watch", "gantry.dev/node in (n,m)"), false),
        (read("patch", "persistentvolumes", "", "free"), true),
        (read("patch", "persistentvolumes", "", "mine"), false),
        (read("patch", "persistentvolumes", "", "theirs"), false),
        (read("delete", "persistentvolumes", "", "free"), false),
        (read("get", "pods", "a", "mine"), true),
        (read("watch", "pods", "a", "mine"), true),
        (read("get", "pods", "a", "theirs"), false),
        (read("get", "pods", "a", "waiting"), false),
        (read("get", "pods", "a", "unknown"), false),
        (read("list", "pods", "", ""), false),
        (read("delete", "pods", "a", "theirs"), true),
        (selected("list", "", "spec.nodeName=n"), true),
        (selected("watch", "a", "metadata.namespace=a,spec.nodeName==n"), true),
        (selected("list", "", "spec.nodeName=m"), false),
        (selected("list", "", "spec.nodeName!=n"), false),
        (selected("deletecollection", "a", "spec.nodeName=n"), false),
        (read("get", "nodes", "", "n"), true),
        (read("list", "nodes", "", "n"), true),
        (read("get", "nodes", "", "m"), false),
        (read("list", "nodes", "", ""), false),
        (read("patch", "nodes", "", "n"), true),
        (lease("get", "kube-node-lease", "n"), true),
        (lease("create", "kube-node-lease", ""), true),
        (lease("update", "kube-node-lease", "n"), true),
        (lease("update", "kube-node-lease", "m"), false),
        (lease("list", "kube-node-lease", "n"), false),
        (lease("get", "kube-system", "n"), false),
    ] {
        assert_eq!(authorizer.authorize(&node, &action).is_allowed(), expected, "{action:?}");
    }
    let refused = authorizer.check(&node, &read("get", "secrets", "a", "foreign")).unwrap_err();
    assert_eq!(
        refused.message,
        "secrets \"foreign\" is forbidden: User \"system:node:n\" cannot get resource \"secrets\" in API group \"\" in the \
         namespace \"a\": no relationship found between node 'n' and this object"
    );
    let impostor = Identity::new("n", ["system:nodes"]);
    assert!(!authorizer.authorize(&impostor, &read("get", "secrets", "a", "mounted")).is_allowed());
}
